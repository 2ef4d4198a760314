"""Metrics agree with scikit-learn and with cases worked out by hand; intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from steps.measures import metrics


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _sample(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    risk = _logistic(generator.normal(-1.5, 1.2, rows))
    return (generator.random(rows) < risk).astype(int), risk


samples = st.integers(2, 60).flatmap(
    lambda rows: st.tuples(
        st.lists(st.integers(0, 1), min_size=rows, max_size=rows).filter(lambda y: 0 < sum(y) < len(y)),
        st.lists(st.integers(0, 8).map(lambda k: k / 8), min_size=rows, max_size=rows),
    )
)


@settings(max_examples=100, deadline=None)
@given(samples)
def test_ranking_metrics_agree_with_scikit_learn_also_with_ties(sample):
    """ROC AUC and average precision are scikit-learn's, with many equal scores."""
    y, risk = sample
    assert metrics.roc_auc(y, risk) == pytest.approx(roc_auc_score(y, risk))
    assert metrics.average_precision(y, risk) == pytest.approx(average_precision_score(y, risk))


@settings(max_examples=60, deadline=None)
@given(samples)
def test_a_replicate_equals_the_sample_with_its_rows_repeated(sample):
    """Weights mean what they say: row i drawn w times is w copies of row i."""
    y, risk = map(np.asarray, sample)
    weights = next(metrics.bootstrap_weights(len(y), 3, seed=1))
    counts = metrics.count(metrics.rank(y, risk), weights)
    auc, precision = metrics.roc_auc_of_counts(counts), metrics.average_precision_of_counts(counts)
    decision = metrics.confusion_of_counts(counts, [0.5, 0.3])
    for i, drawn in enumerate(weights.astype(int)):
        own, scores = np.repeat(y, drawn), np.repeat(risk, drawn)
        assert auc[i] == pytest.approx(metrics.roc_auc(own, scores), nan_ok=True)
        assert precision[i] == pytest.approx(metrics.average_precision(own, scores), nan_ok=True)
        for j, threshold in enumerate([0.5, 0.3]):
            alone = metrics.confusion(own, scores, threshold)
            assert decision.recall[i, j] == pytest.approx(float(alone.recall), nan_ok=True)
            assert decision.precision[i, j] == pytest.approx(float(alone.precision), nan_ok=True)
            assert decision.flagged[i, j] == pytest.approx(float(alone.flagged))


def test_losses_agree_with_scikit_learn():
    """Brier score and log loss are scikit-learn's."""
    y, risk = _sample(500, 1)
    assert metrics.brier(y, risk) == pytest.approx(brier_score_loss(y, risk))
    assert metrics.log_loss(y, risk) == pytest.approx(log_loss(y, risk))


def test_a_certain_and_wrong_risk_has_a_finite_loss():
    """Risks of 0 and 1 are clipped before the logarithm."""
    assert metrics.log_loss([1, 0], [0.0, 1.0]) == pytest.approx(-math.log(metrics.CLIP))


def test_ranking_metrics_by_hand():
    """Three of four pairs in order; a tie counts half."""
    assert metrics.roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    assert metrics.roc_auc([0, 1], [0.3, 0.3]) == 0.5
    assert metrics.average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("y", [[0, 0, 0], [1, 1, 1]])
def test_one_class_has_no_roc_auc_and_no_calibration(y):
    """What is undefined is NaN, not an error and not a number."""
    assert math.isnan(metrics.roc_auc(y, [0.1, 0.2, 0.3]))
    assert math.isnan(metrics.calibration(y, [0.1, 0.2, 0.3]).slope)


def test_a_constant_risk_has_no_calibration_slope():
    """A slope needs two different risks."""
    assert math.isnan(metrics.calibration([0, 1, 0], [0.3, 0.3, 0.3]).slope)


def test_calibration_is_logistic_regression_on_the_log_odds():
    """The slope is scikit-learn's unpenalised coefficient; the intercept solves sum(p) = sum(y)."""
    y, risk = _sample(3000, 2)
    distorted = _logistic(0.4 + 1.7 * metrics.logit(risk))
    found = metrics.calibration(y, distorted)
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(metrics.logit(distorted)[:, None], y)
    assert found.slope == pytest.approx(fitted.coef_[0, 0], abs=1e-4)
    assert found.slope == pytest.approx(1 / 1.7, abs=0.05)
    assert _logistic(found.intercept + metrics.logit(distorted)).sum() == pytest.approx(y.sum())


def test_errors_of_slope_and_intercept_are_those_of_refits_on_drawn_rows():
    """The standard errors agree with the spread over bootstrap samples, also where the risks are wrong."""
    y, risk = _sample(2000, 3)
    distorted = _logistic(1.5 * metrics.logit(risk) + 0.3)
    found = metrics.calibration(y, distorted)
    generator = np.random.default_rng(4)
    draws = [generator.integers(len(y), size=len(y)) for _ in range(300)]
    refits = [metrics.calibration(y[drawn], distorted[drawn]) for drawn in draws]
    assert found.slope_error == pytest.approx(np.std([one.slope for one in refits]), rel=0.12)
    assert found.intercept_error == pytest.approx(np.std([one.intercept for one in refits]), rel=0.12)


def test_observed_over_expected_by_hand():
    """Two people with the outcome where the risks add up to one: 2."""
    assert metrics.observed_expected([1, 1, 0], [0.5, 0.25, 0.25]) == pytest.approx(2.0)
    assert math.isnan(metrics.observed_expected([0, 0], [0.0, 0.0]))


def test_a_score_on_the_threshold_is_flagged():
    """The decision is score >= threshold, in both ways of counting."""
    y, score = [1, 1, 0, 0, 0], [0.9, 0.5, 0.5, 0.2, 0.1]
    alone = metrics.confusion(y, score, 0.5)
    assert (alone.true_positives, alone.false_positives, alone.positives, alone.rows) == (2, 1, 2, 5)
    assert float(alone.precision) == pytest.approx(2 / 3)
    assert float(alone.specificity) == pytest.approx(2 / 3)
    assert float(alone.accuracy) == pytest.approx(4 / 5)
    assert float(alone.f1) == pytest.approx(4 / 5)
    counted = metrics.confusion_of_counts(metrics.count(metrics.rank(y, score), np.ones((1, 5))), [0.5])
    assert counted.true_positives[0, 0] == 2
    assert counted.false_positives[0, 0] == 1


def test_net_benefit_of_flagging_everybody():
    """At a threshold of 20 % a false alarm costs a quarter of a person found."""
    counts = metrics.confusion([1, 0, 0, 0], [1, 1, 1, 1], 0.2)
    assert float(metrics.net_benefit(counts, 0.2)) == pytest.approx(0.25 - 0.75 * 0.25)


def test_flagged_at_recall_by_hand():
    """To find two of three positives the top four of six rows are flagged; ties come together."""
    y, score = [1, 0, 0, 1, 0, 1], [6, 5, 4, 3, 2, 1]
    counts = metrics.count(metrics.rank(y, score), np.ones((1, 6)))
    assert metrics.flagged_at_recall(counts, 2 / 3)[0] == pytest.approx(4 / 6)
    assert metrics.flagged_at_recall(counts, 0.34)[0] == pytest.approx(4 / 6)
    assert metrics.flagged_at_recall(counts, 1.0)[0] == 1.0
    tied = metrics.count(metrics.rank(y, [1, 1, 1, 0, 0, 0]), np.ones((1, 6)))
    assert metrics.flagged_at_recall(tied, 0.1)[0] == pytest.approx(3 / 6)


def test_wilson_interval_is_the_published_formula():
    """5 of 10: 0.237 to 0.763; no trial: undefined."""
    assert metrics.wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    for trials in range(1, 60):
        assert metrics.wilson_interval(0, trials)[0] == 0.0
        assert metrics.wilson_interval(trials, trials)[1] == 1.0
    assert math.isnan(metrics.wilson_interval(0, 0)[0])


def test_bootstrap_weights_are_draws_of_all_rows_and_follow_the_seed():
    """Every replicate draws as many rows as there are; the same seed gives the same replicates."""
    first, again, other = (
        np.concatenate(list(metrics.bootstrap_weights(37, 20, seed))) for seed in (1, 1, 2)
    )
    assert first.shape == (20, 37)
    assert (first.sum(axis=1) == 37).all()
    assert (first == again).all()
    assert (first != other).any()


def test_intervals_cover_the_truth():
    """Of 120 samples with a known ROC AUC, about 95 % of the intervals hold it."""
    shift, inside = 1.0, 0
    truth = 0.5 * (1 + math.erf(shift / 2))
    generator = np.random.default_rng(5)
    for seed in range(120):
        y = np.repeat([0, 1], [200, 80])
        ranking = metrics.rank(y, generator.normal(size=280) + shift * y)
        samples = [
            metrics.roc_auc_of_counts(metrics.count(ranking, weights))
            for weights in metrics.bootstrap_weights(280, 200, seed)
        ]
        low, high = metrics.interval(np.concatenate(samples))
        inside += low <= truth <= high
    assert 107 <= inside <= 119


def test_interval_leaves_out_undefined_replicates():
    """A replicate without positives says nothing; only such replicates give no interval."""
    assert metrics.interval([np.nan, 1.0, 1.0]) == (1.0, 1.0)
    assert all(math.isnan(end) for end in metrics.interval([np.nan]))
