"""Performance of a model on new people: expected from its risks, and realised on labelled rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steps.data.disclosure import SMALLEST_CELL, hidden_cells, is_small, shown
from steps.data.documents import defined
from steps.measures import concordance, evidence, metrics, recalibration, selection
from steps.measures.concordance import Concordance
from steps.measures.drift_document import Decision, Expected, Figure, LabelledBin, Ranking, Realised
from steps.measures.intervals import Z

if TYPE_CHECKING:
    from monitoring.reference import Reference, Score

Floats = NDArray[np.float64]

# Fewest labels of either outcome for realised figures.
FEWEST_OUTCOMES = 10


@dataclass(frozen=True)
class Standard:
    """The standard for new figures: the model's realised and expected ROC AUC on rows that it did not see.
    `rows` names these rows: "the test split", or "validation rows"."""

    rows: str
    concordance: Concordance


@dataclass(frozen=True)
class Scored:
    """Valid rows with their risk (rows,), and their outcome (rows,), NaN where unlabelled, or None.

    `design_effect` divides the rows for every standard error; `people_moved`: the people differ from those in
    training.
    """

    risk: Floats
    outcome: Floats | None
    design_effect: float = 1.0
    people_moved: bool = False

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which rows have an outcome."""
        if self.outcome is None:
            return np.zeros(len(self.risk), dtype=np.bool_)
        is_labelled: NDArray[np.bool_] = ~np.isnan(self.outcome)
        return is_labelled


def figure(value: float, stderr: float) -> Figure:
    """A figure with its 95 % interval of a normal distribution."""
    return Figure(defined(value), defined(value - Z * stderr), defined(value + Z * stderr))


def people_error(reference: Reference) -> float:
    """Typical error of the model's expected ROC AUC on other people, from its validation subgroups."""
    measured = reference.validation.get("people_error")
    return concordance.TYPICAL_ERROR if measured is None else float(measured)


def standard_of_validation(reference: Reference) -> Standard:
    """The validation rows' figures, for models whose test split is not known.

    In references of earlier versions they follow from the score bins.
    """
    validation, score = reference.validation, reference.score
    realised, positives = float(validation["roc_auc"]), int(validation["positives"])
    expected = validation.get("expected_roc_auc")
    if expected is None:
        sums = np.asarray(score.sums)
        expected = float(evidence.roc_auc(sums, np.asarray(score.counts) - sums))
    stderr = validation.get("gap_stderr")
    if stderr is None:
        stderr = float(evidence.roc_auc_stderr(realised, positives, int(validation["rows"]) - positives))
    return Standard("validation rows", Concordance(realised, float(expected), float(stderr)))


def expected(reference: Reference, scored: Scored) -> Expected | None:
    """Performance expected from the risks alone, against that expected of validation rows in the same bins.

    Besides sampling, the interval includes the error of the expected ROC AUC on validation rows and on their
    subgroups. The loss compares two expectations of one model, so it has the error of other people only. None
    with fewer than 10 rows.
    """
    risk, score = scored.risk, reference.score
    if len(risk) < SMALLEST_CELL:
        return None
    rows, sums = _by_bin(score, risk), _by_bin(score, risk, risk)
    now = evidence.expected_performance(rows, sums, score.threshold_bin)
    rows_then, sums_then = np.asarray(score.counts, np.float64), np.asarray(score.sums)
    then = evidence.expected_performance(rows_then, sums_then, score.threshold_bin)
    error, gap = people_error(reference), standard_of_validation(reference).concordance.gap
    sampling = float(now.roc_auc_stderr) * math.sqrt(scored.design_effect)
    flagged = risk >= score.threshold
    return Expected(
        roc_auc=figure(concordance.expected_roc_auc(risk), math.hypot(sampling, error, gap)),
        then=float(then.roc_auc),
        loss=float(then.roc_auc - now.roc_auc),
        loss_stderr=math.hypot(sampling, float(then.roc_auc_stderr), error if scored.people_moved else 0.0),
        people_error=error,
        decision=Decision(
            recall=defined(float(risk[flagged].sum() / risk.sum())) if risk.sum() else None,
            precision=float(risk[flagged].mean()) if flagged.any() else None,
            flagged=float(flagged.mean()),
            prevalence=float(risk.mean()),
        ),
        decision_then=Decision(
            recall=defined(float(then.recall)),
            precision=defined(float(then.precision)),
            flagged=float(rows_then[score.threshold_bin :].sum() / rows_then.sum()),
            prevalence=float(sums_then.sum() / rows_then.sum()),
        ),
    )


def _by_bin(score: Score, risk: Floats, weights: Floats | None = None) -> Floats:
    return np.bincount(score.bin(risk), weights, minlength=len(score.bins)).astype(np.float64)


@dataclass(frozen=True)
class _LabelCounts:
    """Counts and sums by score bin: of all scored rows, of the labelled rows, of the positives."""

    rows: Floats
    risk_sums: Floats
    labels: Floats
    positives: Floats


def realised(reference: Reference, tested: Standard, scored: Scored) -> Realised | None:
    """Figures of the rows that have an outcome, weighted by the labelled share of their score bin.

    None with fewer than 10 of either outcome.
    """
    is_labelled = scored.labelled
    if scored.outcome is None or not is_labelled.any():
        return None
    y, risk = scored.outcome[is_labelled].astype(np.int8), scored.risk[is_labelled]
    positives = int(y.sum())
    if min(positives, len(y) - positives) < FEWEST_OUTCOMES:
        return None
    score, inflation = reference.score, math.sqrt(scored.design_effect)
    counts = _LabelCounts(
        rows=_by_bin(score, scored.risk),
        risk_sums=_by_bin(score, scored.risk, scored.risk),
        labels=_by_bin(score, risk),
        positives=_by_bin(score, risk[y == 1]),
    )
    weights = selection.weights(counts.rows, counts.labels)[score.bin(risk)]
    effective = selection.effective(counts.rows, counts.labels, counts.positives)
    ratio = selection.observed_expected(counts.rows, counts.labels, counts.positives, counts.risk_sums)
    slope = recalibration.fit(y, risk, weights)
    error, by_chance, against = _calibration(score, y, risk)
    return Realised(
        rows=len(y),
        positives=positives,
        effective_positives=float(effective.positives) / scored.design_effect,
        effective_negatives=float(effective.negatives) / scored.design_effect,
        labelled_share=len(y) / len(is_labelled),
        weighted=bool(np.ptp(weights) > 0),
        by_bin=_labelled_bins(score, counts),
        ranking=_ranking(reference, tested, scored, counts),
        observed_expected=figure(float(ratio.value), float(ratio.stderr) * inflation),
        calibration_slope=figure(slope.slope, slope.slope_stderr * inflation),
        calibration_error=error,
        calibration_error_by_chance=by_chance,
        calibration_evidence=against,
        decision=Decision(
            recall=_value(
                selection.recall(counts.rows, counts.labels, counts.positives, score.threshold_bin)
            ),
            precision=_value(
                selection.precision(counts.rows, counts.labels, counts.positives, score.threshold_bin)
            ),
            flagged=float((scored.risk >= score.threshold).mean()),
            prevalence=float(np.average(y, weights=weights)),
        ),
    )


def _value(estimate: evidence.Estimate) -> float | None:
    return defined(float(estimate.value))


def _ranking(reference: Reference, tested: Standard, scored: Scored, counts: _LabelCounts) -> Ranking:
    """Realised less expected ROC AUC on the labelled rows, against the same difference of the test."""
    assert scored.outcome is not None
    is_labelled = scored.labelled
    y, risk = scored.outcome[is_labelled], scored.risk[is_labelled]
    weights = selection.weights(counts.rows, counts.labels)[reference.score.bin(risk)]
    now = concordance.measure(y, risk, weights)
    stderr = float(selection.roc_auc(counts.rows, counts.labels, counts.positives).stderr)
    inflation = math.sqrt(scored.design_effect)
    error = people_error(reference) if scored.people_moved else 0.0
    return Ranking(
        realised=figure(now.realised, stderr * inflation),
        expected=now.expected,
        compared_with=tested.rows,
        then_realised=tested.concordance.realised,
        then_expected=tested.concordance.expected,
        loss=tested.concordance.gap - now.gap,
        loss_stderr=math.hypot(now.stderr * inflation, tested.concordance.stderr, error),
        withheld=_why_withheld(reference.score, scored, counts),
    )


def _why_withheld(score: Score, scored: Scored, counts: _LabelCounts) -> str | None:
    """Why the labels allow no verdict on the ranking, or None."""
    blind = np.flatnonzero(selection.blind_bins(counts.rows, counts.labels))
    if len(blind):
        return (
            f"no row has a label in {len(blind)} of {len(score.bins)} bands of risk "
            f"({', '.join(score.bins[index] for index in blind[:4])}{', ...' if len(blind) > 4 else ''})"
        )
    smallest = min(selection.effective(counts.rows, counts.labels, counts.positives))
    if smallest / scored.design_effect < selection.FEWEST_EFFECTIVE:
        return (
            f"the labels are worth fewer than {selection.FEWEST_EFFECTIVE} positives or negatives of a "
            "plain sample"
        )
    return None


def _calibration(score: Score, y: NDArray[np.int8], risk: Floats) -> tuple[float, float, float]:
    """Calibration error by score bin, its expectation by chance, and evidence (log10) against calibration.

    Labelled rows are not weighted: within a bin every row has the same weight.
    """
    size = len(score.bins)
    cell = score.bin(risk) * 2 + y
    rows, sums, squares = (
        np.bincount(cell, weights=weights, minlength=2 * size).astype(np.float64).reshape(size, 2)
        for weights in (None, risk, risk**2)
    )
    error = evidence.calibration_error(rows, sums, squares)
    by_chance = evidence.calibration_error_if_calibrated(rows, sums, squares)
    against = evidence.calibration_evidence(rows[:, 1], rows.sum(1), sums.sum(1))
    return float(error.value), float(by_chance), float(against.larger)


def _labelled_bins(score: Score, counts: _LabelCounts) -> tuple[LabelledBin, ...]:
    """The labelled share and the observed share of each band of risk; small counts are hidden."""
    is_hidden = hidden_cells(counts.rows, counts.labels, counts.positives)
    labelled_bins = []
    for index, name in enumerate(score.bins):
        rows, labels = int(counts.rows[index]), int(counts.labels[index])
        positives = float(counts.positives[index])
        low, high = metrics.wilson_interval(positives, labels)
        observed = Figure(positives / labels, low, high) if labels else Figure(None, None, None)
        few = is_small(rows) or is_small(labels)
        labelled_bins.append(
            LabelledBin(
                bin=name,
                rows=shown(rows),
                labels=shown(labels),
                share=None if few or not rows else labels / rows,
                risk=None if is_small(rows) or not rows else float(counts.risk_sums[index]) / rows,
                observed=Figure(None, None, None) if is_hidden[index] else observed,
            )
        )
    return tuple(labelled_bins)
