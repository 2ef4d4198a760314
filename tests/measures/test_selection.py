"""Late labels as a selection: weighted figures are those of everybody, and their intervals cover."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from scipy import special

from steps.measures import evidence, selection

BINS, THRESHOLD_BIN = 20, 13


class Draw(NamedTuple):
    """Counts by score bin of one simulated month."""

    rows: np.ndarray
    labels: np.ndarray
    positives: np.ndarray
    risk_sums: np.ndarray


class World:
    """A perfect model, and labels for 90 % of the flagged and 10 % of the rest."""

    def __init__(self) -> None:
        risk = special.expit(np.random.default_rng(0).normal(-2.3, 1.35, 1_000_000))
        self.edges = np.quantile(risk, np.arange(1, BINS) / BINS)
        index = np.searchsorted(self.edges, risk, side="right")
        positives = np.bincount(index, risk, BINS)
        negatives = np.bincount(index, 1 - risk, BINS)
        self.roc_auc = float(evidence.roc_auc(positives, negatives))
        self.recall = positives[THRESHOLD_BIN:].sum() / positives.sum()
        flagged = (positives + negatives)[THRESHOLD_BIN:].sum()
        self.precision = positives[THRESHOLD_BIN:].sum() / flagged

    def draw(self, seed: int, rows: int) -> Draw:
        rng = np.random.default_rng([1, seed])
        risk = special.expit(rng.normal(-2.3, 1.35, rows))
        index = np.searchsorted(self.edges, risk, side="right")
        positive = rng.random(rows) < risk
        labelled = rng.random(rows) < np.where(index >= THRESHOLD_BIN, 0.9, 0.1)

        def count(mask: np.ndarray) -> np.ndarray:
            return np.bincount(index[mask], minlength=BINS)

        return Draw(
            count(np.ones(rows, dtype=bool)),
            count(labelled),
            count(labelled & positive),
            np.bincount(index, risk, BINS),
        )


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def _figures(draws: list[Draw]) -> dict[str, evidence.Estimate]:
    """Estimates of all draws at once, each of shape (draws,)."""
    rows, labels, positives, risk_sums = (np.stack(part) for part in zip(*draws, strict=True))
    return {
        "roc_auc": selection.roc_auc(rows, labels, positives),
        "recall": selection.recall(rows, labels, positives, THRESHOLD_BIN),
        "precision": selection.precision(rows, labels, positives, THRESHOLD_BIN),
        "observed_expected": selection.observed_expected(rows, labels, positives, risk_sums),
    }


def _check_truth(world: World, draws: list[Draw]) -> None:
    truth = {
        "roc_auc": world.roc_auc,
        "recall": world.recall,
        "precision": world.precision,
        "observed_expected": 1.0,
    }
    for name, estimate in _figures(draws).items():
        assert estimate.value.mean() == pytest.approx(truth[name], abs=0.005), name
        assert (np.abs(estimate.value - truth[name]) <= 1.96 * estimate.stderr).mean() >= 0.93, name


def test_weighted_figures_are_those_of_everybody_and_their_intervals_cover(world: World) -> None:
    """200 draws of 20,000 rows; unweighted figures of the same labels are far off."""
    draws = [world.draw(seed, 20_000) for seed in range(200)]
    _check_truth(world, draws)
    labels, positives = draws[0].labels, draws[0].positives
    assert evidence.roc_auc(positives, labels - positives) < world.roc_auc - 0.05
    assert positives[THRESHOLD_BIN:].sum() / positives.sum() > world.recall + 0.15


@pytest.mark.soak
def test_a_thousand_draws_of_fifty_thousand_rows(world: World) -> None:
    """Means within 0.005 of the truth, 95 % intervals cover at least 93 %."""
    _check_truth(world, [world.draw(seed, 50_000) for seed in range(1000)])


def test_with_every_row_labelled_the_figures_are_the_usual_ones(world: World) -> None:
    """Weights are then 1, and the standard error of the ROC AUC is that of its influence functions."""
    rows, _, _, risk_sums = world.draw(0, 5000)
    positives = np.random.default_rng(0).binomial(rows, risk_sums / rows)
    negatives = rows - positives
    assert selection.weights(rows, rows) == pytest.approx(np.ones(BINS))
    auc = selection.roc_auc(rows, rows, positives)
    assert auc.value == pytest.approx(evidence.roc_auc(positives, negatives))
    below = (np.cumsum(negatives) - negatives / 2) / negatives.sum()
    above = (positives.sum() - np.cumsum(positives) + positives / 2) / positives.sum()
    delong = (positives * (below - auc.value) ** 2).sum() / positives.sum() ** 2
    delong += (negatives * (above - auc.value) ** 2).sum() / negatives.sum() ** 2
    assert auc.stderr == pytest.approx(np.sqrt(delong), rel=0.03)
    assert selection.effective(rows, rows, positives) == (positives.sum(), negatives.sum())


def test_two_labels_are_far_from_certain() -> None:
    """One positive below one negative: ROC AUC 0, with a standard error that says how little that is."""
    rows, labels, positives = np.full(20, 50), np.zeros(20), np.zeros(20)
    labels[[3, 15]], positives[3] = 1, 1
    auc = selection.roc_auc(rows, labels, positives)
    assert auc.value == 0
    assert auc.stderr > 0.25
    assert max(selection.effective(rows, labels, positives)) == 1 < selection.FEWEST_EFFECTIVE


def test_effective_labels_fall_with_uneven_weights() -> None:
    """100 labels of weight 1 and 10 of weight 10 say as much as 36.4 even ones."""
    rows, labels = np.array([100, 100]), np.array([100, 10])
    positives = labels
    assert selection.effective(rows, labels, positives).positives == pytest.approx(200**2 / 1100)
    assert selection.effective(rows, labels, positives).negatives == 0


def test_a_populated_bin_without_labels_is_named() -> None:
    """A handful of rows without labels is not."""
    assert selection.blind_bins([500, 9, 10, 0], [20, 0, 0, 0]).tolist() == [False, False, True, False]


def test_without_labels_nothing_is_claimed() -> None:
    """Figures are undefined, and no warning is raised."""
    rows, nothing = np.array([10, 10]), np.zeros(2)
    assert np.isnan(selection.roc_auc(rows, nothing, nothing).value)
    assert np.isnan(selection.recall(rows, nothing, nothing, 1).value)
    assert np.isnan(selection.precision(rows, nothing, nothing, 1).value)
    assert np.isnan(selection.observed_expected(rows, nothing, nothing, [1.0, 2.0]).value)
