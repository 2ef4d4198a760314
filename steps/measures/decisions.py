"""Consequences of a decision threshold: counts of 1,000 people, other thresholds, net benefit, chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from steps.data.documents import defined
from steps.measures import intervals, metrics
from steps.measures.evaluation_document import (
    ChanceOfRecall,
    Choice,
    DecisionCurve,
    Estimate,
    Per1000,
    Policy,
)
from steps.measures.groups import net_benefit
from steps.measures.metrics import Confusion, Floats, Ranking
from steps.measures.point_scores import ScoreOnRows
from steps.measures.scored_rows import ScoredRows

_CUTS = (0.05, 0.10, 0.15, 0.20, 0.30, 0.40, 0.50)


def decision_thresholds(prevalence: float) -> Floats:
    """Thresholds of the decision curve: 1 % up to four times the prevalence, within 20 % and 90 %."""
    highest = min(90, max(20, 5 * math.ceil(4 * prevalence * 20)))
    cuts: Floats = np.arange(1, highest + 1) / 100
    return cuts


def per_1000(counts: Confusion) -> Per1000:
    """Counts per 1,000 rows: whole numbers that add up to 1,000 (largest remainders)."""
    missed = counts.positives - counts.true_positives
    cleared = counts.rows - counts.true_positives - counts.false_positives - missed
    exact = np.array([counts.true_positives, counts.false_positives, missed, cleared]) * 1000 / counts.rows
    counts_per_1000 = np.floor(exact).astype(int)
    counts_per_1000[np.argsort(counts_per_1000 - exact, kind="stable")[: 1000 - counts_per_1000.sum()]] += 1
    return Per1000(*counts_per_1000.tolist())


def choices(rows: ScoredRows, threshold: float) -> tuple[Choice, ...]:
    """Figures at other thresholds."""
    results = []
    for cut in sorted({*_CUTS, float(threshold)}):
        counts = metrics.confusion(rows.y, rows.risk, cut)
        results.append(
            Choice(
                threshold=cut,
                chosen=cut == threshold,
                recall=defined(float(counts.recall)),
                specificity=defined(float(counts.specificity)),
                precision=defined(float(counts.precision)),
                negative_predictive_value=defined(float(counts.negative_predictive_value)),
                flagged=defined(float(counts.flagged)),
                net_benefit=net_benefit(counts, cut).value,
            )
        )
    return tuple(results)


def policies(rows: ScoredRows, threshold: float) -> tuple[Policy, ...]:
    """This model, flagging everybody and flagging nobody, with their net benefit at the threshold."""
    size, counts = len(rows.y), metrics.confusion(rows.y, rows.risk, threshold)
    all_flagged = Confusion(rows.positives, size - rows.positives, rows.positives, size)
    return (
        Policy(
            "This model",
            intervals.wilson(counts.true_positives + counts.false_positives, size),
            net_benefit(counts, threshold),
        ),
        Policy("Flag everybody", Estimate(1.0), net_benefit(all_flagged, threshold)),
        Policy("Flag nobody", Estimate(0.0), Estimate(0.0)),
    )


def decision_curve(rows: ScoredRows, ranking: Ranking, scores: Sequence[ScoreOnRows]) -> DecisionCurve:
    """Net benefit over thresholds of the model, of flagging everybody, and of each score with risks."""
    cuts, prevalence = decision_thresholds(rows.prevalence), rows.prevalence
    counts = _count(ranking, cuts)
    model = tuple(net_benefit(_at(counts, index), float(cut)) for index, cut in enumerate(cuts))
    everybody = prevalence - (1 - prevalence) * cuts / (1 - cuts)
    curves = {}
    for on in scores:
        if on.risk is not None:
            flagged = _count(metrics.rank(rows.y, on.risk), cuts)
            curves[on.score.name] = tuple(metrics.net_benefit(flagged, cuts)[0].tolist())
    return DecisionCurve(tuple(cuts.tolist()), model, tuple(everybody.tolist()), curves)


def _count(ranking: Ranking, cuts: Floats) -> Confusion:
    ones = np.ones((1, len(ranking.order)))
    return metrics.confusion_of_counts(metrics.count(ranking, ones), cuts)


def _at(counts: Confusion, index: int) -> Confusion:
    """The counts at a threshold, as plain numbers."""
    return Confusion(
        float(counts.true_positives[0, index]),
        float(counts.false_positives[0, index]),
        float(counts.positives[0, 0]),
        float(counts.rows[0, 0]),
    )


def chance_of_recall(target: float, chosen_on: int, measured_on: int) -> ChanceOfRecall:
    """Range of recall that chance alone gives a threshold that was chosen for `target` on other rows.

    `chosen_on` and `measured_on`: people with the outcome among the rows of each. Both shares vary, so their
    binomial variances add up, on the scale of log odds so that the range stays within 0 and 1.
    """
    error = math.sqrt((1 / chosen_on + 1 / measured_on) / (target * (1 - target)))
    odds = math.log(target / (1 - target))
    low, high = (1 / (1 + math.exp(-(odds + sign * intervals.Z * error))) for sign in (-1, 1))
    return ChanceOfRecall(target, chosen_on, measured_on, low, high)
