"""Whether new data are still what a model knows: drift, separability, expected and realised performance.

Everything is measured against `reference.json` (counts of training rows, figures of validation rows); only
the classifier that tells old from new needs training rows, and is left out where they are not on this
machine. The formulas are those of `steps.measures.evidence`, which the monitoring's rules are tested against.

The verdict: *quiet*; *watch*, something has moved or arrives broken; *retrain*, the model is or is expected
to be worse, or people are no longer those it was trained on. Both certainty (evidence) and size are asked
for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from monitoring.reference import Feature, Reference
from steps.data.disclosure import SMALLEST_CELL, hidden_counts
from steps.measures import bins, evidence, metrics
from steps.measures.bins import Floats

if TYPE_CHECKING:
    import pandas as pd

    from steps.data.schema import Schema
    from steps.data.validation import Problem

Verdict = Literal["quiet", "watch", "retrain"]
VERDICTS: tuple[Verdict, ...] = ("quiet", "watch", "retrain")

# Rows of either side that the classifier of old and new sees at most.
_DOMAIN_ROWS = 20_000
_FEWEST_DOMAIN_ROWS = 500
# Fewest outcomes of either kind for realised figures.
_FEWEST_OUTCOMES = 10


@dataclass(frozen=True)
class Limits:
    """From where on a difference counts.

    `evidence`: log10, for all signals together: 3 rings falsely once in a thousand looks. `psi_watch` and
    `psi_retrain`: sizes of a shift. `share_change`: change of the share of missing or broken values.
    `roc_auc_loss`: fall of the expected or realised ROC AUC. `calibration_error`: expected calibration error.
    `separability`: ROC AUC of telling old from new.
    """

    evidence: float
    psi_watch: float
    psi_retrain: float
    share_change: float
    roc_auc_loss: float
    calibration_error: float
    separability: float


LIMITS = tuple(field.name for field in fields(Limits))


@dataclass(frozen=True)
class Reason:
    """One thing that speaks for a verdict: `about` names the feature, or score, or figure."""

    weight: Verdict
    about: str
    text: str


@dataclass(frozen=True)
class Incoming:
    """New data, checked and scored.

    `frame`: valid features; `risk` (rows,) of them; `outcome` (rows,) with NaN where unlabelled, or None.
    `read`: rows that came, those that broke the schema included; `problems` says what broke.
    """

    frame: pd.DataFrame
    risk: Floats
    outcome: Floats | None
    read: int
    problems: tuple[Problem, ...] = ()


def compare(
    reference: Reference,
    incoming: Incoming,
    schema: Schema,
    limits: Limits,
    *,
    trained_on: pd.DataFrame | None,
    seed: int,
) -> dict[str, Any]:
    """Everything that is reported, the verdict and its reasons among it; JSON-able, aggregates only."""
    signals = len(reference.features) + 2  # the features, the score and the calibration, as the monitoring
    certain = limits.evidence + math.log10(signals)
    features = [_feature(feature, reference, incoming, certain, limits) for feature in reference.features]
    score = _score(reference, incoming, certain, limits)
    expected = _expected(reference, incoming)
    realised = _realised(reference, incoming, certain)
    domain = _domain(trained_on, incoming.frame, schema, seed)
    reasons = [
        *(reason for feature in features for reason in _feature_reasons(feature, limits)),
        *_score_reasons(score, limits),
        *_performance_reasons(expected, realised, certain, limits),
        *_domain_reasons(domain, limits),
    ]
    reasons.sort(key=lambda reason: -VERDICTS.index(reason.weight))
    verdict: Verdict = max((reason.weight for reason in reasons), key=VERDICTS.index, default="quiet")
    return {
        "format": 1,
        "verdict": verdict,
        "reasons": [asdict(reason) for reason in reasons],
        "drifted": [feature["name"] for feature in features if feature["drifted"]],
        "broken": [feature["name"] for feature in features if feature["broken"]],
        "limits": {**asdict(limits), "evidence_each": certain, "signals": signals},
        "model": dict(reference.raw["model"]),
        "rows": {
            "read": incoming.read,
            "valid": len(incoming.frame),
            "labelled": realised["rows"] if realised else 0,
            "trained_on": reference.data["rows"]["train"],
            "validation": reference.data["rows"]["validation"],
        },
        "features": features,
        "score": score,
        "expected": expected,
        "realised": realised,
        "domain": domain,
        "subgroups": _subgroups(reference, incoming, schema, trained_on),
        "validation_roc_auc": float(reference.validation["roc_auc"]),
        "disclaimer": schema.disclaimer,
    }


# ---------------------------------------------------------------- features and score


def _feature(
    feature: Feature, reference: Reference, incoming: Incoming, certain: float, limits: Limits
) -> dict[str, Any]:
    values = incoming.frame[feature.name]
    counted = feature.count(
        values.to_numpy(dtype=object) if feature.is_text else values.to_numpy(dtype=np.float64)
    )
    old, new = np.asarray(feature.counts, np.float64), counted.bins.astype(np.float64)
    shift = _shift(new, old)
    trained, arrived = int(reference.data["rows"]["train"]), len(values)
    lacking = _share_change(counted.missing, arrived, feature.missing, trained)
    wrong = sum(problem.rows for problem in incoming.problems if problem.column == feature.name)
    broken = _share_change(min(wrong, incoming.read), incoming.read, 0, trained)
    for change in (lacking, broken):
        change["counts"] = bool(
            change["evidence"] >= certain and abs(change["now"] - change["then"]) >= limits.share_change
        )
    hidden = hidden_counts(new)
    return {
        "name": feature.name,
        "kind": feature.kind,
        "labels": list(feature.labels),
        "then": (old / max(1.0, old.sum())).tolist(),
        "now": [
            None if hide else share for hide, share in zip(hidden, new / max(1.0, new.sum()), strict=True)
        ],
        **shift,
        "drifted": bool(shift["evidence"] >= certain and shift["psi"] >= limits.psi_watch),
        "missing": lacking,
        "invalid": broken,
        "broken": bool(lacking["counts"] or broken["counts"]),
        "rules": sorted({p.rule for p in incoming.problems if p.column == feature.name}),
    }


def _shift(new: Floats, old: Floats) -> dict[str, float]:
    """PSI with its interval and evidence; 0 where there is nothing to compare."""
    if len(new) < 2 or new.sum() == 0 or old.sum() == 0:
        return {"psi": 0.0, "low": 0.0, "high": 0.0, "evidence": 0.0}
    low, high = evidence.psi_interval(new, old)
    return {
        "psi": float(evidence.psi(new, old)),
        "low": float(low),
        "high": float(high),
        "evidence": float(evidence.drift_evidence(new, old)),
    }


def _share_change(now: int, rows: int, then: int, trained: int) -> dict[str, Any]:
    """Shares then and now and the evidence that they differ, as of two bins."""
    found = evidence.drift_evidence([now, rows - now], [then, trained - then]) if rows else 0.0
    return {"then": then / max(1, trained), "now": now / max(1, rows), "evidence": float(found)}


def _score(reference: Reference, incoming: Incoming, certain: float, limits: Limits) -> dict[str, Any]:
    new = np.bincount(reference.score.bin(incoming.risk), minlength=len(reference.score.bins))
    old = np.asarray(reference.score.counts, np.float64)
    shift = _shift(new.astype(np.float64), old)
    return {
        **shift,
        "bins": list(reference.score.bins),
        "then": (old / max(1.0, old.sum())).tolist(),
        "now": (new / max(1, new.sum())).tolist(),
        "drifted": bool(shift["evidence"] >= certain and shift["psi"] >= limits.psi_watch),
        "threshold": reference.score.threshold,
    }


# ---------------------------------------------------------------- performance


def expected_roc_auc(risk: Floats) -> float:
    """ROC AUC that calibrated risks promise, without labels and without bins; NaN without rows.

    Confidence-based performance estimation: each row is positive with its risk (see
    `evidence.expected_performance`, of which this is the case of one bin for each distinct risk).
    """
    if not len(risk):
        return math.nan
    distinct, rows = np.unique(risk, return_counts=True)
    positives = distinct * rows
    return float(evidence.roc_auc(positives, rows - positives))


def _expected(reference: Reference, incoming: Incoming) -> dict[str, Any] | None:
    """What the risks alone promise, against what they promised for validation rows, in the same bins."""
    risk, score = incoming.risk, reference.score
    if len(risk) < SMALLEST_CELL:
        return None
    index = score.bin(risk)
    rows = np.bincount(index, minlength=len(score.bins)).astype(np.float64)
    sums = np.bincount(index, weights=risk, minlength=len(score.bins))
    now = evidence.expected_performance(rows, sums, score.threshold_bin)
    then = evidence.expected_performance(
        np.asarray(score.counts, np.float64), np.asarray(score.sums), score.threshold_bin
    )
    auc = expected_roc_auc(risk)
    flagged = risk >= score.threshold
    return {
        "roc_auc": auc,
        "low": auc - 1.96 * float(now.roc_auc_stderr),
        "high": auc + 1.96 * float(now.roc_auc_stderr),
        "loss": float(then.roc_auc - now.roc_auc),
        "loss_stderr": float(np.hypot(now.roc_auc_stderr, then.roc_auc_stderr)),
        "recall": _number(float(risk[flagged].sum() / risk.sum()) if risk.sum() else math.nan),
        "precision": _number(float(risk[flagged].mean()) if flagged.any() else math.nan),
        "flagged": float(flagged.mean()),
        "prevalence": float(risk.mean()),
        "then": {
            "roc_auc": float(reference.validation["roc_auc"]),
            "recall": _number(float(then.recall)),
            "precision": _number(float(then.precision)),
            "flagged": float(np.asarray(score.counts)[score.threshold_bin :].sum() / sum(score.counts)),
            "prevalence": float(sum(score.sums) / sum(score.counts)),
        },
    }


def _realised(reference: Reference, incoming: Incoming, certain: float) -> dict[str, Any] | None:
    """Figures of the rows that have an outcome; None with too few of either kind."""
    if incoming.outcome is None:
        return None
    labelled = ~np.isnan(incoming.outcome)
    y, risk = incoming.outcome[labelled].astype(np.int8), incoming.risk[labelled]
    positives, negatives = int(y.sum()), int(len(y) - y.sum())
    if min(positives, negatives) < _FEWEST_OUTCOMES:
        return None
    auc = metrics.roc_auc(y, risk)
    stderr = float(evidence.roc_auc_stderr(auc, positives, negatives))
    validation = reference.validation
    then = float(validation["roc_auc"])
    then_stderr = float(
        evidence.roc_auc_stderr(then, validation["positives"], validation["rows"] - validation["positives"])
    )
    size = len(reference.score.bins)
    cell = reference.score.bin(risk) * 2 + y
    rows, sums, squares = (
        np.bincount(cell, weights=weights, minlength=2 * size).astype(np.float64).reshape(size, 2)
        for weights in (None, risk, risk**2)
    )
    against = evidence.calibration_evidence(rows[:, 1], rows.sum(1), sums.sum(1))
    error = evidence.calibration_error(rows, sums, squares)
    by_chance = evidence.calibration_error_if_calibrated(rows, sums, squares)
    recalibration = metrics.calibration(y, risk)
    decision = metrics.confusion(y, risk, reference.score.threshold)
    return {
        "rows": len(y),
        "positives": positives,
        "prevalence": positives / len(y),
        "roc_auc": auc,
        "low": auc - 1.96 * stderr,
        "high": auc + 1.96 * stderr,
        "loss": then - auc,
        "loss_stderr": math.hypot(stderr, then_stderr),
        "recall": _number(float(decision.recall)),
        "precision": _number(float(decision.precision)),
        "flagged": float(decision.flagged),
        "observed_expected": _number(metrics.observed_expected(y, risk)),
        "calibration_slope": _number(recalibration.slope),
        "calibration_intercept": _number(recalibration.intercept),
        "calibration_error": float(error.value),
        "calibration_error_by_chance": float(by_chance),
        "calibration_evidence": float(against.larger),
        "miscalibrated": bool(against.larger >= certain),
        "brier": metrics.brier(y, risk),
    }


# ---------------------------------------------------------------- telling old from new


def _domain(
    trained_on: pd.DataFrame | None, new: pd.DataFrame, schema: Schema, seed: int
) -> dict[str, Any] | None:
    """How well boosted trees tell training rows from new ones, and by which columns.

    Rows are sampled, half of each side is learned from and the other half judged (Lopez-Paz and Oquab,
    "Revisiting classifier two-sample tests", ICLR 2017). A column's part is the ROC AUC lost when its values
    are shuffled. None without training rows, or with fewer than 500 on a side.
    """
    if trained_on is None or min(len(trained_on), len(new)) < _FEWEST_DOMAIN_ROWS:
        return None
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier

    generator = np.random.default_rng(seed)
    size = min(len(trained_on), len(new), _DOMAIN_ROWS)
    names = list(schema.feature_names)
    sides = [
        frame[names].iloc[np.sort(generator.permutation(len(frame))[:size])] for frame in (trained_on, new)
    ]
    matrix = bins.matrix(bins.code(pd.concat(sides, ignore_index=True), schema), pd.concat(sides))
    origin = np.repeat(np.array([0, 1], dtype=np.int8), size)
    order = generator.permutation(2 * size)
    learn, judge = order[:size], order[size:]
    trees = HistGradientBoostingClassifier(
        max_iter=50, learning_rate=0.1, max_leaf_nodes=10, min_samples_leaf=50, early_stopping=False,
        random_state=seed,
    )  # fmt: skip
    trees.fit(matrix[learn], origin[learn])
    judged, truth = matrix[judge], origin[judge]
    auc = metrics.roc_auc(truth, trees.decision_function(judged))
    stderr = float(evidence.roc_auc_stderr(0.5, truth.sum(), len(truth) - truth.sum()))
    parts = []
    for place, name in enumerate(names):
        shuffled = judged.copy()
        shuffled[:, place] = generator.permutation(shuffled[:, place])
        lost = auc - metrics.roc_auc(truth, trees.decision_function(shuffled))
        parts.append({"name": name, "lost": float(lost)})
    parts.sort(key=lambda part: -float(str(part["lost"])))
    return {
        "rows": size,
        "roc_auc": auc,
        "low": auc - 1.96 * stderr,
        "high": auc + 1.96 * stderr,
        "stderr": stderr,
        "columns": parts[:8],
    }


# ---------------------------------------------------------------- subgroups


def _subgroups(
    reference: Reference, incoming: Incoming, schema: Schema, trained_on: pd.DataFrame | None
) -> list[dict[str, Any]]:
    """Share of each subgroup then and now, and its figures now; small ones without."""
    found = []
    outcome = incoming.outcome
    masks = [np.asarray(group.mask(incoming.frame)) for group in schema.subgroups]
    sizes = np.array([mask.sum() for mask in masks], dtype=np.float64)
    hidden = np.zeros(len(masks), dtype=np.bool_)
    for name in {group.column for group in schema.subgroups}:
        own = np.array([group.column == name for group in schema.subgroups])
        hidden[own] = hidden_counts(sizes[own])
    for group, mask, hide in zip(schema.subgroups, masks, hidden, strict=True):
        rows = int(mask.sum())
        entry: dict[str, Any] = {"name": group.name, "headline": group.headline, "then": None}
        if trained_on is not None:
            entry["then"] = float(np.mean(group.mask(trained_on)))
        else:
            entry["then"] = _share_of_levels(reference, group.column, group.values)
        if hide:
            found.append({**entry, "hidden": True, "now": None, "risk": None, "observed": None})
            continue
        low, high = metrics.wilson_interval(rows, len(mask))
        risk = float(incoming.risk[mask].mean()) if rows else math.nan
        observed = math.nan
        if outcome is not None and rows:
            known = outcome[mask & ~np.isnan(outcome)]
            if min(known.sum(), len(known) - known.sum()) >= SMALLEST_CELL:
                observed = float(known.mean())
        found.append(
            {
                **entry,
                "hidden": False,
                "now": rows / max(1, len(mask)),
                "low": _number(low),
                "high": _number(high),
                "risk": _number(risk),
                "observed": _number(observed),
            }
        )
    return found


def _share_of_levels(reference: Reference, column: str, values: Sequence[Any] | None) -> float | None:
    """Share of training rows with one of these levels, from the reference's bins; None for ranges of
    numbers.
    """
    feature = next(feature for feature in reference.features if feature.name == column)
    if values is None or feature.kind == "numeric":
        return None
    wanted = sum(
        count for level, count in zip(feature.levels, feature.counts, strict=True) if level in set(values)
    )
    return float(wanted / max(1, int(reference.data["rows"]["train"])))


# ---------------------------------------------------------------- reasons


def _feature_reasons(feature: Mapping[str, Any], limits: Limits) -> list[Reason]:
    name = str(feature["name"])
    found = []
    if feature["drifted"]:
        large = feature["psi"] >= limits.psi_retrain
        text = f"{name} has moved: {_psi(feature)}"
        if large:
            text += ", so these are no longer the people of training"
        found.append(Reason("retrain" if large else "watch", name, text))
    for what, change in (("missing", feature["missing"]), ("not valid", feature["invalid"])):
        if change["counts"]:
            rules = f" ({', '.join(feature['rules'])})" if what == "not valid" and feature["rules"] else ""
            shares = f"{100 * change['now']:.1f} % of rows, {100 * change['then']:.1f} % in training"
            text = f"{name} is {what}{rules} in {shares}"
            found.append(Reason("watch", name, text))
    return found


def _score_reasons(score: Mapping[str, Any], limits: Limits) -> list[Reason]:
    if not score["drifted"]:
        return []
    weight: Verdict = "retrain" if score["psi"] >= limits.psi_retrain else "watch"
    return [Reason(weight, "score", f"The predicted risks have moved: {_psi(score)}")]


def _psi(shift: Mapping[str, Any]) -> str:
    return f"PSI {shift['psi']:.3f} ({shift['low']:.3f} to {shift['high']:.3f})"


def _performance_reasons(
    expected: Mapping[str, Any] | None,
    realised: Mapping[str, Any] | None,
    certain: float,
    limits: Limits,
) -> list[Reason]:
    found = []
    if realised:
        if _is_loss(realised, limits):
            text = (
                f"ROC AUC on {realised['rows']:,} labelled rows is {realised['roc_auc']:.3f}, "
                f"{realised['loss']:.3f} below validation"
            )
            found.append(Reason("retrain", "ROC AUC", text))
        excess = realised["calibration_error"] - realised["calibration_error_by_chance"]
        if realised["miscalibrated"] and excess >= limits.calibration_error:
            text = (
                f"The risks are off: observed / expected {realised['observed_expected']:.2f}, "
                "calibration slope "
                f"{realised['calibration_slope']:.2f}, evidence 10^{realised['calibration_evidence']:.0f}"
            )
            found.append(Reason("retrain", "calibration", text))
    if expected and _is_loss(expected, limits):
        text = (
            f"Expected ROC AUC, without labels, is {expected['roc_auc']:.3f}, {expected['loss']:.3f} "
            "lower than it "
            "was for validation rows"
        )
        found.append(Reason("retrain", "expected ROC AUC", text))
    return found


def _is_loss(figures: Mapping[str, Any], limits: Limits) -> bool:
    """A loss of the size that counts, and beyond chance (one in a thousand)."""
    return bool(
        figures["loss"] >= limits.roc_auc_loss and figures["loss"] > evidence.Z_999 * figures["loss_stderr"]
    )


def _domain_reasons(domain: Mapping[str, Any] | None, limits: Limits) -> list[Reason]:
    if domain is None or domain["roc_auc"] - evidence.Z_999 * domain["stderr"] < limits.separability:
        return []
    named = ", ".join(part["name"] for part in domain["columns"][:3] if part["lost"] > 0.002)
    text = f"New rows can be told from training rows: ROC AUC {domain['roc_auc']:.3f}"
    return [Reason("watch", "separability", text + (f", by {named}" if named else ""))]


def advice(document: Mapping[str, Any]) -> list[str]:
    """What to do about it, most urgent first."""
    found = []
    if document["broken"]:
        found.append(
            f"Mend {', '.join(document['broken'])} where it comes from. Retraining on such rows would "
            "teach the fault."
        )
    large = [
        f["name"]
        for f in document["features"]
        if f["drifted"] and f["psi"] >= document["limits"]["psi_retrain"]
    ]
    if large:
        found.append(
            f"Before retraining, check that {', '.join(large)} is still asked, measured and coded as "
            "before: a changed "
            "instrument looks like changed people."
        )
    if document["verdict"] == "retrain":
        found.append(
            "Retrain with labelled rows of the new kind; the gates decide whether the result is better."
        )
    if document["verdict"] == "watch" and not document["broken"]:
        found.append(
            "Compare again with the next data; if the shift stays, gather labelled rows of the new kind."
        )
    if not document["realised"]:
        found.append(
            "Without labels nobody can see whether the same answers still mean the same risk "
            "(concept shift): collect "
            "outcomes, even a few hundred."
        )
    return found


def told(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a caller must know: the verdict, why, and the figures behind it."""
    parts = ("verdict", "reasons", "drifted", "broken", "rows", "limits", "model", "data")
    figures = {
        part: document[part]["roc_auc"] if document[part] else None
        for part in ("expected", "realised", "domain")
    }
    return {
        **{part: document[part] for part in parts},
        "roc_auc": {"validation": document["validation_roc_auc"], **figures},
        "advice": advice(document),
    }


def flat(document: Mapping[str, Any]) -> dict[str, float]:
    """Flat numbers to log as metrics."""
    found = {f"psi {feature['name']}": feature["psi"] for feature in document["features"]}
    found |= {"psi score": document["score"]["psi"], "verdict": VERDICTS.index(document["verdict"])}
    found |= {"rows": document["rows"]["read"], "valid_rows": document["rows"]["valid"]}
    for part in ("expected", "realised", "domain"):
        if document[part]:
            found[f"{part}_roc_auc"] = document[part]["roc_auc"]
    return {name: float(value) for name, value in found.items()}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def outcome_of(frame: pd.DataFrame, column: str) -> NDArray[np.float64] | None:
    """The outcome as float64 with NaN where unlabelled; None if no row has any."""
    if column not in frame:
        return None
    values = frame[column].to_numpy(dtype=np.float64)
    return None if np.isnan(values).all() else values
