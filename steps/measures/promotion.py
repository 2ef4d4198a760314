"""Whether a model may replace the champion: promoted, refused or undecided, by intervals. Pure.

Non-inferiority within a margin: a candidate passes a comparison when its whole interval lies on the right
side of the margin, is refused when all of it lies on the wrong side, and is undecided in between. Against the
champion the interval is 95 % (2.5 % on the side that counts). The anchor stays the same while champions
change. Against it the error is spent over the attempts of a year (`error_of_attempt`), so that a chain of
small losses cannot pass one at a time: `benchmarks/creep.py` simulates a thousand years of that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

from steps.data.schema import Gates
from steps.measures.comparison import Change, Estimate, Figures

Outcome = Literal["passed", "refused", "undecided", "shown"]
Decision = Literal["promoted", "refused", "undecided"]

ERROR = 0.025  # on the side that counts, for each comparison with the champion
ANCHOR_ERROR = 0.0125  # of all comparisons of a year with the anchor together
ATTEMPTS_A_YEAR = 52
FIRST_EVENTS = 100  # a first model needs this many test rows with the outcome, and as many without
REPLACEMENT_EVENTS = 300  # below, no replacement is decided by figures
_POWER = 0.8
_PREVALENCE_ERROR = 0.001


@dataclass(frozen=True)
class Finding:
    """A requirement: the figure, its interval, the limit in words, and the outcome.

    `outcome`: passed, refused, undecided, or shown, which decides nothing. `events`: where undecided, the
    test rows with the outcome that would decide it with a power of 80 %.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    limit: str
    outcome: Outcome
    detail: str = ""
    events: int | None = None


@dataclass(frozen=True)
class Judgement:
    """The decision about a candidate.

    `reason`: `limits` where a requirement decided, `events` where there are too few, None where promoted.
    `events`: where undecided, the test rows with the outcome that are needed. `beats_anchor`: proven better
    than the anchor, so that the candidate becomes the anchor.
    """

    verdict: Decision
    reason: Literal["limits", "events"] | None
    findings: tuple[Finding, ...]
    events: int | None = None
    beats_anchor: bool = False


@dataclass(frozen=True)
class Against:
    """The candidate's change against the champion or the anchor.

    `label` names that model. `change` is on the rows whose values that model knows. If `unknown` rows have
    other values, `all_rows` is the change on all rows, where values that it does not know count as missing.
    """

    label: str
    change: Change
    all_rows: Change | None = None
    unknown: int = 0


def error_of_attempt(attempt: int) -> float:
    """Error of attempt 1, 2, ... of a year against the anchor: half is spent early, half evenly.

    The terms 1 / (k (k + 1)) sum to 1, so 52 attempts spend `ANCHOR_ERROR` together: however challengers are
    chosen, a model beyond the margin is accepted in no larger share of years. Normal intervals err up to 1.5
    times as often as their level says, so 1.25 % keeps the share below 2 %.
    """
    return ANCHOR_ERROR / 2 / (attempt * (attempt + 1)) + ANCHOR_ERROR / 2 / ATTEMPTS_A_YEAR


def z_of(error: float) -> float:
    """The one-sided normal quantile of an error, in standard errors."""
    return -NormalDist().inv_cdf(error)


def judge(
    figures: Figures, champion: Against | None, anchor: Against | None, limits: Gates, attempt: int
) -> Judgement:
    """Judge a candidate; `attempt` counts the attempts of the last 365 days, including the present one.

    A first model, without a champion, is judged by floors and ranges alone.
    """
    findings = _floor_and_ranges(figures, limits)
    if champion is not None:
        findings += _against(champion, limits, ERROR)
        findings.append(_net_benefit(champion))
    if anchor is not None:
        findings += _against(anchor, limits, error_of_attempt(attempt))
    findings += _subgroups(figures, champion, limits)
    beats_anchor = anchor is not None and _is_better(anchor.change, z_of(error_of_attempt(attempt)))

    needed = FIRST_EVENTS if champion is None else REPLACEMENT_EVENTS
    events, non_events = figures.events, figures.non_events
    for against in (champion, anchor):
        if against is not None:
            events, non_events = (
                min(events, against.change.events),
                min(non_events, against.change.non_events),
            )
    if min(events, non_events) < needed:
        too_few_events = Finding(
            "events and non-events in the test part",
            float(min(events, non_events)),
            None,
            None,
            f"≥ {needed}",
            "undecided",
            f"{events:,} with the outcome, {non_events:,} without",
            needed,
        )
        shown_findings = [replace(finding, outcome="shown", events=None) for finding in findings]
        return Judgement("undecided", "events", (too_few_events, *shown_findings), needed)
    outcomes = {finding.outcome for finding in findings}
    if "refused" in outcomes:
        return Judgement("refused", "limits", tuple(findings))
    if "undecided" in outcomes:
        events_needed = [finding.events for finding in findings if finding.events is not None]
        return Judgement("undecided", "limits", tuple(findings), max([needed, *events_needed]))
    return Judgement("promoted", None, tuple(findings), beats_anchor=beats_anchor)


def prevalence_finding(
    events: int, rows: int, champion_events: int, champion_rows: int, limits: Gates
) -> Finding:
    """Whether the outcome is as frequent as in the champion's data; undecided if proven far from it.

    Judged on the odds ratio: both its size and the evidence (one in a thousand) must say so.
    """
    counts = (events, rows - events, champion_events, champion_rows - champion_events)
    limit = f"odds ratio {1 / limits.prevalence_change:.2f} to {limits.prevalence_change:.2f}"
    name = "share of the outcome against the champion's data"
    if min(counts) < 1:
        return Finding(name, None, None, None, limit, "shown", "too few rows to tell")
    ratio = (counts[0] / counts[1]) / (counts[2] / counts[3])
    odds = Estimate(ratio, math.sqrt(sum(1 / count for count in counts)), log=True)
    low, high = odds.interval(z_of(_PREVALENCE_ERROR / 2))
    far = not 1 / limits.prevalence_change <= ratio <= limits.prevalence_change
    detail = (
        f"{100 * events / rows:.1f} % where the champion's data had {100 * counts[2] / champion_rows:.1f} %"
    )
    outcome: Outcome = "undecided" if far and not low <= 1 <= high else "passed"
    return Finding(name, ratio, low, high, limit, outcome, detail)


# ---------------------------------------------------------------- requirements


def _floor_and_ranges(figures: Figures, limits: Gates) -> list[Finding]:
    """Floor of ROC AUC and ranges of calibration, which must hold the whole 95 % interval."""
    requirements = [
        ("calibration slope", figures.calibration_slope, limits.calibration_slope),
        ("observed / expected", figures.observed_expected, limits.observed_expected),
    ]
    if limits.roc_auc_min is not None:
        requirements.insert(0, ("ROC AUC", figures.roc_auc, (limits.roc_auc_min, math.inf)))
    z = z_of(ERROR)
    return [
        _inside(name, estimate, bounds, z, figures.events, _room(estimate, bounds))
        for name, estimate, bounds in requirements
    ]


def _against(against: Against, limits: Gates, error: float) -> list[Finding]:
    """Not worse than another model by more than a margin, in ROC AUC and in log loss."""
    change, z = against.change, z_of(error)
    findings = []
    for name, estimate, margin, sign in (
        ("ROC AUC", change.roc_auc_change, limits.roc_auc_margin, 1),
        ("log loss", change.log_loss_change, limits.log_loss_margin * change.log_loss, -1),
    ):
        bounds = (-margin, math.inf) if sign > 0 else (-math.inf, margin)
        # Planned for an equal candidate, a margin away from the limit: the present estimate may be luck.
        findings.append(
            _inside(f"change of {name} against {against.label}", estimate, bounds, z, change.events, margin)
        )
    for name, estimate in _on_all_rows(against):
        low, high = estimate.interval(z)
        note = f"with {against.unknown:,} rows more, whose unknown values count as missing"
        findings.append(
            Finding(
                f"change of {name} against {against.label}, all rows",
                estimate.value,
                low,
                high,
                "",
                "shown",
                note,
            )
        )
    return findings


def _on_all_rows(against: Against) -> list[tuple[str, Estimate]]:
    if against.all_rows is None:
        return []
    return [("ROC AUC", against.all_rows.roc_auc_change), ("log loss", against.all_rows.log_loss_change)]


def _net_benefit(champion: Against) -> Finding:
    """At the champion's threshold the candidate must not be proven worse."""
    estimate = champion.change.net_benefit_change
    low, high = estimate.interval(z_of(ERROR))
    return Finding(
        f"change of net benefit against {champion.label}",
        estimate.value,
        low,
        high,
        "not proven below 0",
        "refused" if high < 0 else "passed",
        "at the champion's threshold",
    )


def _subgroups(figures: Figures, champion: Against | None, limits: Gates) -> list[Finding]:
    """No group's risks are proven wrong, and no loss of recall is proven; the groups share the error."""
    if not figures.groups:
        return []
    z = z_of(ERROR / len(figures.groups))
    changes = champion.change.groups if champion is not None else {}
    lowest, highest = limits.subgroup_observed_expected

    def is_wrong(name: str, ratio: Estimate) -> bool:
        low, high = ratio.interval(z)
        nearer = name in changes and changes[name].distance.interval(z)[1] < 0
        return (low > highest or high < lowest) and not nearer

    ratios = {name: ratio for name, ratio in figures.groups.items() if ratio.is_defined}
    recalls = {name: change.recall for name, change in changes.items() if change.recall.is_defined}
    findings = []
    if ratios:
        farthest = max(ratios, key=lambda name: abs(math.log(ratios[name].value)))
        wrong = [name for name, ratio in ratios.items() if is_wrong(name, ratio)]
        limit = f"not proven outside {lowest:g} to {highest:g}"
        findings.append(_of_group("observed / expected of a subgroup", ratios, farthest, wrong, limit, z))
    if recalls and champion is not None:
        margin = limits.subgroup_recall_margin
        worst = min(recalls, key=lambda name: recalls[name].value)
        lost = [name for name, recall in recalls.items() if recall.interval(z)[1] < -margin]
        name = f"change of recall in a subgroup against {champion.label}"
        findings.append(_of_group(name, recalls, worst, lost, f"not proven below −{margin:g}", z))
    return findings


def _of_group(
    name: str, groups: Mapping[str, Estimate], farthest: str, failing: Sequence[str], limit: str, z: float
) -> Finding:
    """A requirement of all groups: shows the farthest failing group, or the farthest of all."""
    shown_group = farthest if farthest in failing or not failing else failing[0]
    estimate = groups[shown_group]
    detail = "; ".join(failing) if failing else f"farthest: {shown_group}"
    return Finding(
        name,
        estimate.value,
        *estimate.interval(z),
        limit,
        "refused" if failing else "passed",
        detail,
    )


def _inside(
    name: str, estimate: Estimate, bounds: tuple[float, float], z: float, events: int, room: float
) -> Finding:
    """Passed with the whole interval inside the bounds, refused with all of it outside, else undecided.

    `room`: assumed distance of the truth from the bound, to plan how many events would decide.
    """
    limit = _limit_text(bounds)
    if not estimate.is_defined:
        return Finding(name, None, None, None, limit, "undecided", "could not be measured")
    low, high = estimate.interval(z)
    if bounds[0] <= low and high <= bounds[1]:
        return Finding(name, estimate.value, low, high, limit, "passed")
    if high < bounds[0] or low > bounds[1]:
        return Finding(name, estimate.value, low, high, limit, "refused", "the whole interval lies outside")
    return Finding(
        name,
        estimate.value,
        low,
        high,
        limit,
        "undecided",
        "the interval reaches across the limit",
        _events(events, estimate.error, room, z),
    )


def _room(estimate: Estimate, bounds: tuple[float, float]) -> float:
    """Distance of a figure from the nearer bound, on the scale of its error."""
    finite = [bound for bound in bounds if math.isfinite(bound)]
    if estimate.log and estimate.is_defined:
        return min(abs(math.log(estimate.value / bound)) for bound in finite)
    return min(abs(estimate.value - bound) for bound in finite)


def _events(events: int, error: float, room: float, z: float) -> int | None:
    """Events with which the interval would fit into the room with a power of 80 %."""
    if not room > 0:
        return None
    needed = events * ((z + z_of(1 - _POWER)) * error / room) ** 2
    return math.ceil(needed / 10) * 10


def _limit_text(bounds: tuple[float, float]) -> str:
    low, high = bounds
    if high == math.inf:
        text = f"≥ {low:.3g}"
    elif low == -math.inf:
        text = f"≤ {high:.3g}"
    else:
        text = f"{low:g} to {high:g}"
    return text.replace("-", "−")


def _is_better(change: Change, z: float) -> bool:
    """Whether a change is proven better in ROC AUC and in log loss."""
    return change.roc_auc_change.interval(z)[0] > 0 and change.log_loss_change.interval(z)[1] < 0
