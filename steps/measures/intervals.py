"""95 % intervals in closed form, each with its name in reports.

Bootstrap percentiles are too short where few people have the outcome: with 10 to 25 of them they cover 76 to
91 % instead of 95 (`benchmarks/results/coverage.txt`). Shares take Wilson's interval, ROC AUC DeLong's on the
scale of log odds, ratios a normal one on the log scale, means and coefficients a normal one.
"""

from __future__ import annotations

import math

from steps.data.documents import defined
from steps.measures import metrics
from steps.measures.evaluation_document import Estimate

Z = 1.959963984540054  # 97.5 % of a standard normal distribution

WILSON = "Wilson"
NEWCOMBE = "Newcombe"
LOGIT_DELONG = "DeLong, logit scale"
DELONG = "DeLong, paired"
LOG_NORMAL = "normal, log scale"
NORMAL = "normal"
BOOTSTRAP = "bootstrap percentiles"


def wilson(successes: float, trials: float) -> Estimate:
    """A share with Wilson's score interval (1927, JASA 22:209); undefined without trials."""
    if trials <= 0:
        return Estimate(None, None, None, WILSON)
    low, high = metrics.wilson_interval(successes, trials)
    return Estimate(successes / trials, low, high, WILSON)


def newcombe(first: Estimate, second: Estimate) -> Estimate:
    """Difference of two shares of different people, from their Wilson intervals (Newcombe 1998)."""
    ends = (first.value, first.low, first.high, second.value, second.low, second.high)
    if any(end is None for end in ends):
        return Estimate(None, None, None, NEWCOMBE)
    value, low, high, other, other_low, other_high = (float(end) for end in ends if end is not None)
    difference = value - other
    return Estimate(
        difference,
        difference - math.hypot(value - low, other_high - other),
        difference + math.hypot(high - value, other - other_low),
        NEWCOMBE,
    )


def difference(first: Estimate, second: Estimate) -> Estimate:
    """Difference of two means of different people, from their normal intervals."""
    ends = (first.value, first.high, second.value, second.high)
    if any(end is None for end in ends):
        return Estimate(None, None, None, NORMAL)
    value, high, other, other_high = (float(end) for end in ends if end is not None)
    return normal(value - other, math.hypot(high - value, other_high - other) / Z)


def normal(value: float, error: float, method: str = NORMAL) -> Estimate:
    """Value and value ± 1.96 standard errors."""
    return Estimate(defined(value), defined(value - Z * error), defined(value + Z * error), method)


def log_normal(value: float, error: float) -> Estimate:
    """A ratio whose logarithm is about normal; `error` is the standard error of the ratio itself."""
    if not (value > 0 and math.isfinite(error)):
        return Estimate(defined(value), None, None, LOG_NORMAL)
    factor = math.exp(Z * error / value)
    return Estimate(value, value / factor, value * factor, LOG_NORMAL)


def logit_delong(roc_auc: float, error: float, rarer: int) -> Estimate:
    """ROC AUC with DeLong's standard error on the scale of log odds, so that the interval stays in [0, 1].

    The standard error is itself an estimate, mostly from the rows of the rarer outcome, `rarer`: so the
    quantile is that of Student's t with one degree of freedom less. With 10 rows a normal one would cover 92
    instead of 95 %. Where the ranking is perfect the standard error is 0 and useless; the ends are then
    Wilson's for `rarer` trials.
    """
    if not (math.isfinite(roc_auc) and math.isfinite(error)):
        return Estimate(defined(roc_auc), None, None, LOGIT_DELONG)
    if error == 0 or not 0 < roc_auc < 1:
        bounds = wilson(roc_auc * rarer, rarer)
        return Estimate(roc_auc, bounds.low, bounds.high, WILSON)
    odds = math.log(roc_auc / (1 - roc_auc))
    half_width = _quantile(rarer - 1) * error / (roc_auc * (1 - roc_auc))
    low, high = (1 / (1 + math.exp(-(odds + sign * half_width))) for sign in (-1, 1))
    return Estimate(roc_auc, low, high, LOGIT_DELONG)


def _quantile(freedom: int) -> float:
    """97.5 % of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(max(freedom, 1), 0.975))
