"""Drift, calibration and expected performance from counts: the numpy reference of the Prometheus rules.

Every function takes counts and sums by bin and returns numbers, vectorised over leading axes; the last axis
is the bin. Logarithms of evidence are to base 10: with evidence 7 the counts are ten million times likelier
after a shift.

The evidence is a ratio of marginal likelihoods whose expectation without a shift is 1 for any sample size (an
e-value), so evidence of x or more has probability of at most 10^-x. For windows that are evaluated again and
again, the largest of them against `evidence_limit` gives at most about one false alarm a year, however the
signals depend on each other (Shin, Ramdas and Rinaldo, "E-detectors", New England Journal of Statistics in
Data Science 2, 2023). It assumes that rows are independent of each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

# Half a row per bin (Jeffreys' prior): no bin is empty, so no logarithm is infinite.
SMOOTHING = 0.5
# The typical PSI of a shift: it sets the spread of the drift hypothesis around the reference.
TYPICAL_PSI = 0.1
# Prior weight, in labels, of a bin's mean risk for its rate under miscalibration.
CALIBRATION_CONCENTRATION = 100.0
# Smallest prior of a bin without an expected positive or negative.
SMALLEST_PRIOR = 1e-9
# Below this PSI a difference raises no alarm, however certain it is.
PSI_FLOOR = 0.02
# Below this calibration error a miscalibration raises no alarm, however certain it is.
CALIBRATION_FLOOR = 0.015
# log10 likelihood ratio for "all is well" from which a newer window silences a longer one.
MENDED_LOG10 = 3.0
# Once a minute for a year.
LOOKS_A_YEAR = 525_600
# Normal quantile of 0.999.
Z_999 = 3.0902


class Estimate(NamedTuple):
    """A statistic and its standard error."""

    value: Array
    stderr: Array


class CalibrationEvidence(NamedTuple):
    """log10 evidence against the model's risks: bin by bin, for all labels together, the larger of both."""

    by_bin: Array
    pooled: Array
    larger: Array


class ExpectedPerformance(NamedTuple):
    """Expected performance of a calibrated model on rows without labels."""

    roc_auc: Array
    roc_auc_stderr: Array
    accuracy: Array
    accuracy_stderr: Array
    recall: Array
    precision: Array


def _floats(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64)


def shares(counts: ArrayLike) -> Array:
    """Smoothed share of each bin, (..., B) -> (..., B): (c + 1/2) / (n + B/2), positive and summing to 1."""
    c = _floats(counts)
    result: Array = (c + SMOOTHING) / (c.sum(-1, keepdims=True) + SMOOTHING * c.shape[-1])
    return result


def psi(counts: ArrayLike, reference: ArrayLike) -> Array:
    """Population stability index of counts (..., B) against reference counts (..., B): sum (q - p) ln(q / p).

    Symmetric Kullback-Leibler divergence (Jeffreys 1946) of the smoothed shares. 0 for equal shares; by
    convention 0.1 is moderate and 0.25 large. Its expectation without any shift is (B - 1)(1/n + 1/m), not 0.
    """
    q, p = shares(counts), shares(reference)
    return _floats(((q - p) * np.log(q / p)).sum(-1))


def psi_critical(rows: ArrayLike, reference_rows: ArrayLike, bins: ArrayLike, z: float = Z_999) -> Array:
    """Classical critical PSI for one look: the chi-square quantile of normal quantile `z`, times (1/n + 1/m).

    Wilson and Hilferty's approximation (PNAS 17, 1931) of the quantile, as PromQL has no other. Without rows:
    inf.
    """
    k = _floats(bins) - 1
    spread = 2 / (9 * k)
    with np.errstate(divide="ignore"):
        return _floats(
            k * (1 - spread + z * np.sqrt(spread)) ** 3 * (1 / _floats(rows) + 1 / _floats(reference_rows))
        )


def psi_interval(counts: ArrayLike, reference: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """Confidence interval of the PSI between the populations, both ends of shape (...).

    PSI / (1/n + 1/m) is close to a noncentral chi-square with B - 1 degrees of freedom whose noncentrality is
    the population's PSI over the same factor; inverting its distribution function (Patnaik, Biometrika 36,
    1949, names the family) gives an interval that stays correct next to 0, where the delta method fails.
    Needs rows on both sides.
    """
    c, r = _floats(counts), _floats(reference)
    noise = 1 / c.sum(-1) + 1 / r.sum(-1)
    freedom = float(c.shape[-1] - 1)
    observed = psi(c, r) / noise
    tail = (1 - level) / 2
    low = np.where(
        special.chdtr(freedom, observed) > 1 - tail, special.chndtrinc(observed, freedom, 1 - tail), 0.0
    )
    high = np.where(special.chdtr(freedom, observed) > tail, special.chndtrinc(observed, freedom, tail), 0.0)
    return _floats(low * noise), _floats(high * noise)


def _log_marginal(counts: Array, prior: Array) -> Array:
    """ln probability of a sequence with these counts if shares come from Dirichlet(prior), (..., B) -> (...).

    The Polya urn: Gamma(A) / Gamma(A + n) * prod Gamma(a_b + c_b) / Gamma(a_b).
    """
    total, rows = prior.sum(-1), counts.sum(-1)
    by_bin = special.gammaln(prior + counts) - special.gammaln(prior)
    return _floats(by_bin.sum(-1) - special.gammaln(total + rows) + special.gammaln(total))


def drift_evidence(counts: ArrayLike, reference: ArrayLike) -> Array:
    """log10 evidence that counts (..., B) have another source than reference counts (..., B).

    The Bayes factor (Good, "A Bayesian significance test for multinomial distributions", JRSS B 29, 1967) of
    * drift: the shares were drawn anew from Dirichlet(a p), p the reference's smoothed shares and a = (B - 1)
      / 0.1, which spreads them so that the expected PSI against p is about 0.1 (`TYPICAL_PSI`);
    * same: the shares are the reference's, with the uncertainty of its rows: Dirichlet(r + 1/2).
    Both are probabilities of the same counts, so the ratio's expectation under "same" is exactly 1 (averaged
    over the uncertainty of the reference). A small reference widens "same" and lowers the evidence by exactly
    its sampling error. Without rows it is 0.
    """
    c, r = _floats(counts), _floats(reference)
    bins = c.shape[-1]
    drift = _log_marginal(c, max(bins - 1, 1) / TYPICAL_PSI * shares(r))
    same = _log_marginal(c, r + SMOOTHING)
    return _floats((drift - same) / np.log(10))


def drift_alarm(counts: ArrayLike, reference: ArrayLike, floor: float = PSI_FLOOR) -> Array:
    """Evidence where the same window's PSI reaches the floor, else 0, (..., B) -> (...)."""
    return _floats(drift_evidence(counts, reference) * (psi(counts, reference) >= floor))


def mended_evidence(newer: ArrayLike, older: ArrayLike, reference: ArrayLike) -> Array:
    """log10 likelihood ratio of newer rows: the training shares against the shares of earlier rows.

    A likelihood ratio of two given distributions, (..., B) each -> (...): sum of c log10(p / q) over the
    newer window's counts c, p the reference's smoothed shares and q those of the rest of a longer window.
    From `MENDED_LOG10` on a fault of the longer window counts as mended. A drift that goes on makes it
    negative.
    """
    c = _floats(newer)
    return _floats((c * np.log10(shares(reference) / shares(older))).sum(-1))


def evidence_limit(signals: int) -> float:
    """log10 evidence for an alarm: at most about one false alarm a year for all `signals` together.

    log10(looks a year) + log10(signals); signals are the features, the score and the calibration.
    """
    return float(np.log10(LOOKS_A_YEAR) + np.log10(signals))


def _beta_binomial_evidence(positives: Array, labels: Array, risk_sums: Array) -> Array:
    """log10 evidence that the rate of positives is not the predicted mean risk; 0 without labels."""
    filled = labels > 0
    rate = np.where(filled, risk_sums, 0.5) / np.where(filled, labels, 1.0)
    expected = np.stack([rate, 1 - rate], axis=-1)
    observed = np.stack([positives, labels - positives], axis=-1)
    drift = _log_marginal(observed, np.maximum(CALIBRATION_CONCENTRATION * expected, SMALLEST_PRIOR))
    smallest = SMALLEST_PRIOR / CALIBRATION_CONCENTRATION
    same = special.xlogy(observed, np.maximum(expected, smallest)).sum(-1)
    return _floats(np.where(filled, (drift - same) / np.log(10), 0.0))


def calibration_evidence(
    positives: ArrayLike, labels: ArrayLike, risk_sums: ArrayLike
) -> CalibrationEvidence:
    """log10 evidence against calibration from late labels; arguments (..., B) by score bin, results (...).

    In each score bin the rate of positives is drawn from Beta around the mean of the labelled rows' own risks
    with the weight of 100 labels, against that mean itself. Rows' risks differ within a bin; by the
    inequality of arithmetic and geometric means the ratio's expectation for a calibrated model is then at
    most 1 (Hoeffding, Ann. Math. Stat. 27, 1956, compares such sums with the binomial). By bin it detects a
    wrong shape, pooled a common bias; the larger of the two costs a factor of 2.

    Every single evaluation of a window has this bound, but a window's mean risk changes as labels arrive, so
    there is no bound over time as for `drift_evidence`: benchmarks/alarm_quality.py counts the false alarms.
    """
    k, n, s = _floats(positives), _floats(labels), _floats(risk_sums)
    by_bin = _beta_binomial_evidence(k, n, s).sum(-1)
    pooled = _beta_binomial_evidence(k.sum(-1), n.sum(-1), s.sum(-1))
    filled = n.sum(-1) > 0
    return CalibrationEvidence(
        by_bin, pooled, np.where(filled, np.maximum(by_bin, pooled) - np.log10(2), 0.0).astype(np.float64)
    )


def calibration_mended_evidence(newer: ArrayLike, older: ArrayLike) -> Array:
    """log10 likelihood ratio of newer labels: the predicted risks against the rates of earlier labels.

    Each argument is (3, ..., B): positives, labels and sums of risk by score bin -> (...). The older rate of
    outcomes is shrunk to its mean risk with the weight of one label. A bin without older labels is left out.
    """
    (k, n, s), (old_k, old_n, old_s) = _floats(newer), _floats(older)
    has_both = (n > 0) & (old_n > 0)
    risk = np.where(has_both, s, 0.5) / np.where(has_both, n, 1.0)
    old_risk = np.where(has_both, old_s, 0.5) / np.where(has_both, old_n, 1.0)
    rate = (old_k + old_risk) / (old_n + 1)
    pairs = ((k, risk, rate), (n - k, 1 - risk, 1 - rate))
    ratios = [
        count * np.log10(np.maximum(if_mended, SMALLEST_PRIOR) / np.maximum(if_not, SMALLEST_PRIOR))
        for count, if_mended, if_not in pairs
    ]
    return _floats((sum(ratios) * has_both).sum(-1))


def roc_auc(positives: ArrayLike, negatives: ArrayLike) -> Array:
    """ROC AUC of scores known by bin, ascending, (..., B) -> (...); rows of one bin are ties and count half.

    Mann and Whitney's statistic. NaN without positives or without negatives.
    """
    pos, neg = _floats(positives), _floats(negatives)
    below = np.cumsum(neg, axis=-1) - 0.5 * neg
    with np.errstate(invalid="ignore", divide="ignore"):
        return _floats((pos * below).sum(-1) / (pos.sum(-1) * neg.sum(-1)))


def roc_auc_stderr(auc: ArrayLike, positives: ArrayLike, negatives: ArrayLike) -> Array:
    """Standard error of a ROC AUC from totals of both classes (Hanley and McNeil, Radiology 143, 1982)."""
    a, pos, neg = _floats(auc), _floats(positives), _floats(negatives)
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = (a * (1 - a) + (pos - 1) * (q1 - a**2) + (neg - 1) * (q2 - a**2)) / (pos * neg)
        return _floats(np.sqrt(np.maximum(variance, 0)))


def _totals(*by_bin_and_outcome: Array) -> list[Array]:
    return [values.sum((-2, -1)) for values in by_bin_and_outcome]


def brier(labels: ArrayLike, risk_sums: ArrayLike, squared_risk_sums: ArrayLike) -> Estimate:
    """Brier score of late labels, mean (risk - outcome)^2, exactly, as the squares are summed too.

    Arguments (..., B, 2) by score bin and outcome (0, 1), results (...). The standard error assumes equal
    squared errors within a bin and outcome, which neglects little of their variance. NaN without labels.
    """
    n, s, squares = map(_floats, (labels, risk_sums, squared_risk_sums))
    total, *_ = _totals(n)
    errors = np.stack([squares[..., 0], n[..., 1] - 2 * s[..., 1] + squares[..., 1]], axis=-1)
    fourth = np.divide(errors**2, n, out=np.zeros_like(errors), where=n > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = errors.sum((-2, -1)) / total
        variance = np.maximum(fourth.sum((-2, -1)) / total - value**2, 0)
        return Estimate(_floats(value), _floats(np.sqrt(variance / total)))


def calibration_bias(labels: ArrayLike, risk_sums: ArrayLike, squared_risk_sums: ArrayLike) -> Estimate:
    """Mean predicted risk minus share of positives; positive: the model overestimates.

    Arguments (..., B, 2) by score bin and outcome, results (...). The standard error is a calibrated model's,
    sqrt(sum s (1 - s)) / n. NaN without labels.
    """
    n, s, squares = map(_floats, (labels, risk_sums, squared_risk_sums))
    total, risks, squared = _totals(n, s, squares)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (risks - n[..., 1].sum(-1)) / total
        return Estimate(_floats(value), _floats(np.sqrt(np.maximum(risks - squared, 0)) / total))


def calibration_error(labels: ArrayLike, risk_sums: ArrayLike, squared_risk_sums: ArrayLike) -> Estimate:
    """Expected calibration error: sum over score bins of |positives - risks|, over n.

    Arguments (..., B, 2) by score bin and outcome, results (...). Biased upwards: see
    `calibration_error_if_calibrated`. The standard error is a calibrated model's, whose bins are half-normal:
    sqrt((1 - 2/pi) sum s (1 - s)) / n. NaN without labels.
    """
    n, s, squares = map(_floats, (labels, risk_sums, squared_risk_sums))
    total, risks, squared = _totals(n, s, squares)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.abs(n[..., 1] - s.sum(-1)).sum(-1) / total
        variance = (1 - 2 / np.pi) * np.maximum(risks - squared, 0)
        return Estimate(_floats(value), _floats(np.sqrt(variance) / total))


def calibration_error_if_calibrated(
    labels: ArrayLike, risk_sums: ArrayLike, squared_risk_sums: ArrayLike
) -> Array:
    """Expectation of `calibration_error` for a calibrated model, which is never 0.

    Half-normal bins: sqrt(2/pi) times the sum over bins of sqrt(sum s (1 - s)), over n.
    """
    n, s, squares = map(_floats, (labels, risk_sums, squared_risk_sums))
    spread = np.sqrt(np.maximum(s.sum(-1) - squares.sum(-1), 0)).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _floats(np.sqrt(2 / np.pi) * spread / n.sum((-2, -1)))


def expected_performance(rows: ArrayLike, risk_sums: ArrayLike, threshold_bin: int) -> ExpectedPerformance:
    """Performance without labels from rows and sums of risk by score bin, (..., B) -> (...).

    Confidence-based performance estimation (NannyML's CBPE; Guillory et al., "Predicting with confidence on
    unseen distributions", ICCV 2021): of n rows with risks summing to s, s are expected to be positive. Bins
    from `threshold_bin` on are predicted positive; the threshold is an edge, so no row is on the wrong side.
    It holds while the model is calibrated: it detects a shift of the inputs, not a change of their meaning
    (concept shift). The accuracy's standard error assumes equal risks within a bin. NaN without rows.
    """
    n, s = np.broadcast_arrays(_floats(rows), _floats(risk_sums))
    total, expected_positives = n.sum(-1), s.sum(-1)
    true_positives = s[..., threshold_bin:].sum(-1)
    flagged = n[..., threshold_bin:].sum(-1)
    true_negatives = (n - s)[..., :threshold_bin].sum(-1)
    risk = np.divide(s, n, out=np.zeros_like(s), where=n > 0)
    auc = roc_auc(s, n - s)
    with np.errstate(invalid="ignore", divide="ignore"):
        return ExpectedPerformance(
            roc_auc=auc,
            roc_auc_stderr=roc_auc_stderr(auc, expected_positives, total - expected_positives),
            accuracy=_floats((true_positives + true_negatives) / total),
            accuracy_stderr=_floats(np.sqrt((n * risk * (1 - risk)).sum(-1)) / total),
            recall=_floats(true_positives / expected_positives),
            precision=_floats(true_positives / flagged),
        )
