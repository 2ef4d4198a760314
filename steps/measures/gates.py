"""Gates: what an evaluation must show before its model is promoted. Pure; `promote` acts on the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.measures.evaluation_document import Comparison, Estimate, Evaluation

if TYPE_CHECKING:
    from steps.data.schema import Schema

NO_CHAMPION = "there is no champion yet"


@dataclass(frozen=True)
class Gate:
    """One verdict. `value` is None where the gate was skipped (then it passes) or could not be measured."""

    name: str
    value: float | None
    limit: str
    passed: bool
    detail: str
    skipped: bool = False


def judge(
    evaluation: Evaluation,
    comparison: Comparison | None,
    schema: Schema,
    *,
    not_compared: str = NO_CHAMPION,
) -> list[Gate]:
    """Verdicts on a model, in the order in which they are printed.

    `evaluation` comes from `evaluation.evaluate`, `comparison` (new model less champion) from
    `evaluation.compare`, or is None where there is no champion, or none to compare with: `not_compared` says
    why. Floors and ranges are judged on the value. The comparison is judged on its interval, so that
    noise alone does not refuse a model: it fails where all of the interval lies beyond the limit.
    """
    limits = schema.gates
    measured = evaluation.metrics
    return [
        *([] if limits.roc_auc_min is None else [_at_least("ROC AUC", measured.roc_auc, limits.roc_auc_min)]),
        _within("calibration slope", measured.calibration_slope, limits.calibration_slope),
        _within("observed / expected", measured.observed_expected, limits.observed_expected),
        _champion_loss(comparison, limits.roc_auc_margin, not_compared),
    ]


def passed(gates: Sequence[Gate]) -> bool:
    """All gates passed."""
    return all(gate.passed for gate in gates)


def failures(gates: Sequence[Gate]) -> str:
    """One line that says which gates failed and by how much; empty where none did."""
    return "; ".join(f"{gate.name}: {gate.detail}" for gate in gates if not gate.passed)


def format_table(gates: Sequence[Gate]) -> str:
    """Name, value, limit and verdict of each gate, for a terminal."""
    rows = [("gate", "value", "limit", "verdict", "")]
    for gate in gates:
        value = "–" if gate.value is None else _signed(gate)
        verdict = "skipped" if gate.skipped else "pass" if gate.passed else "FAIL"
        rows.append((gate.name, value, gate.limit, verdict, gate.detail))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  ".join(
            [
                name.ljust(widths[0]),
                value.rjust(widths[1]),
                limit.ljust(widths[2]),
                verdict.ljust(widths[3]),
                detail,
            ]
        )
        for name, value, limit, verdict, detail in rows
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def _signed(gate: Gate) -> str:
    return f"{gate.value:+.4f}" if gate.name.startswith("change") else f"{gate.value:.4f}"


def _spread(estimate: Estimate) -> str:
    return f"95 % interval {estimate.low:.4f} to {estimate.high:.4f}"


def _undefined(name: str, limit: str) -> Gate:
    return Gate(name, None, limit, False, "could not be measured")


def _at_least(name: str, estimate: Estimate, floor: float) -> Gate:
    limit = f"≥ {floor:g}"
    value = estimate.value
    if value is None or estimate.low is None or estimate.high is None:
        return _undefined(name, limit)
    if value >= floor:
        return Gate(name, value, limit, True, _spread(estimate))
    return Gate(name, value, limit, False, f"{floor - value:.4f} too low ({_spread(estimate)})")


def _within(name: str, estimate: Estimate, bounds: tuple[float, float]) -> Gate:
    low, high = bounds
    limit = f"{low:g} to {high:g}"
    value = estimate.value
    if value is None or estimate.low is None or estimate.high is None:
        return _undefined(name, limit)
    if low <= value <= high:
        return Gate(name, value, limit, True, _spread(estimate))
    by = f"{low - value:.4f} too low" if value < low else f"{value - high:.4f} too high"
    return Gate(name, value, limit, False, f"{by} ({_spread(estimate)})")


def _champion_loss(comparison: Comparison | None, largest: float, not_compared: str) -> Gate:
    name, limit = "change of ROC AUC against the champion", f"upper end ≥ {-largest:g}".replace("-", "−")
    if comparison is None:
        return Gate(name, None, limit, True, not_compared, skipped=True)
    change = comparison.metrics["roc_auc"]
    if change.difference is None or change.low is None or change.high is None:
        return _undefined(name, limit)
    spread = f"paired 95 % interval {change.low:+.4f} to {change.high:+.4f}"
    if change.high >= -largest:
        return Gate(name, change.difference, limit, True, spread)
    by = -largest - change.high
    return Gate(name, change.difference, limit, False, f"{spread}: all of it too low, by at least {by:.4f}")
