"""A model on test rows, alone and beside another model: estimates with standard errors, for a promotion.

Every estimate is a mean, a ratio or a rank statistic, so its standard error comes from the rows' influence on
it; no resampling. `y` is (rows,) of 0 and 1, a risk (rows,) of probabilities, a mask (rows,) of booleans.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steps.measures import metrics
from steps.measures.delong import difference_error, placements

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error; `log`: the error is that of the figure's logarithm."""

    value: float
    error: float
    log: bool = False

    def interval(self, z: float) -> tuple[float, float]:
        """Lower and upper limit, `z` standard errors away."""
        if self.log:
            return self.value * math.exp(-z * self.error), self.value * math.exp(z * self.error)
        return self.value - z * self.error, self.value + z * self.error

    @property
    def is_defined(self) -> bool:
        """Whether both the figure and its error could be measured."""
        return math.isfinite(self.value) and math.isfinite(self.error)


@dataclass(frozen=True)
class Figures:
    """A model alone on its test rows; `groups` holds observed / expected by subgroup."""

    events: int
    non_events: int
    roc_auc: Estimate
    log_loss: Estimate
    calibration_slope: Estimate
    observed_expected: Estimate
    groups: Mapping[str, Estimate]


@dataclass(frozen=True)
class GroupChange:
    """One subgroup under both models.

    `distance`: |log(observed / expected)| of the candidate less that of the other model; below 0 the
    candidate is nearer to 1. `recall`: candidate less other, where both flag as many people in all as the
    other model does.
    """

    distance: Estimate
    recall: Estimate


@dataclass(frozen=True)
class Change:
    """Candidate less another model on the same rows; above 0 is better, except for log loss.

    `log_loss` is the other model's. `net_benefit` is at the other model's threshold.
    """

    events: int
    non_events: int
    log_loss: float
    roc_auc_change: Estimate
    log_loss_change: Estimate
    net_benefit_change: Estimate
    groups: Mapping[str, GroupChange]


def measure(y: ArrayLike, risk: ArrayLike, groups: Mapping[str, Mask]) -> Figures:
    """Measure a model by itself."""
    labels, risks = np.asarray(y, dtype=np.float64), np.asarray(risk, dtype=np.float64)
    ranked, recalibration = placements(labels, risks), metrics.calibration(labels, risks)
    return Figures(
        events=int(labels.sum()),
        non_events=int(len(labels) - labels.sum()),
        roc_auc=Estimate(ranked.roc_auc, ranked.standard_error),
        log_loss=_mean(metrics.log_losses(labels, risks)),
        calibration_slope=Estimate(recalibration.slope, recalibration.slope_error),
        observed_expected=_observed_expected(labels, risks),
        groups={name: _observed_expected(labels[mask], risks[mask]) for name, mask in groups.items()},
    )


def compare(
    y: ArrayLike, risk: ArrayLike, other: ArrayLike, threshold: float, groups: Mapping[str, Mask]
) -> Change:
    """Compare the candidate's `risk` with the risks of another model, at that model's `threshold`."""
    labels = np.asarray(y, dtype=np.float64)
    new, old = np.asarray(risk, dtype=np.float64), np.asarray(other, dtype=np.float64)
    first, second = placements(labels, new), placements(labels, old)
    losses = metrics.log_losses(labels, old)
    flags = (old >= threshold).astype(np.float64)
    benefit = _benefit(labels, new >= threshold, threshold) - _benefit(labels, old >= threshold, threshold)
    gained = _flag_as_many(new, int(flags.sum())) - flags
    return Change(
        events=int(labels.sum()),
        non_events=int(len(labels) - labels.sum()),
        log_loss=float(losses.mean()) if len(losses) else math.nan,
        roc_auc_change=Estimate(first.roc_auc - second.roc_auc, difference_error(first, second)),
        log_loss_change=_mean(metrics.log_losses(labels, new) - losses),
        net_benefit_change=_mean(benefit),
        groups={
            name: GroupChange(
                _distance_change(labels[mask], new[mask], old[mask]), _mean(gained[mask & (labels == 1)])
            )
            for name, mask in groups.items()
        },
    )


def _mean(values: Floats) -> Estimate:
    if len(values) < 2:
        return Estimate(math.nan, math.nan)
    return Estimate(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)))


def _log_ratio_influence(labels: Floats, risks: Floats) -> Floats:
    """Each row's influence on log(observed / expected)."""
    ratio = labels.sum() / risks.sum()
    influence: Floats = (labels - ratio * risks) / labels.sum()
    return influence


def _observed_expected(labels: Floats, risks: Floats) -> Estimate:
    if labels.sum() < 1 or risks.sum() <= 0:
        return Estimate(math.nan, math.nan, log=True)
    error = float(np.sqrt(np.sum(_log_ratio_influence(labels, risks) ** 2)))
    return Estimate(float(labels.sum() / risks.sum()), error, log=True)


def _distance_change(labels: Floats, new: Floats, old: Floats) -> Estimate:
    if labels.sum() < 1 or new.sum() <= 0 or old.sum() <= 0:
        return Estimate(math.nan, math.nan)
    logs = [math.log(labels.sum() / risks.sum()) for risks in (new, old)]
    first, second = _log_ratio_influence(labels, new), _log_ratio_influence(labels, old)
    influence = math.copysign(1, logs[0]) * first - math.copysign(1, logs[1]) * second
    return Estimate(abs(logs[0]) - abs(logs[1]), float(np.sqrt(np.sum(influence**2))))


def _benefit(labels: Floats, flagged: Mask, threshold: float) -> Floats:
    """Each row's share in the net benefit (Vickers and Elkin 2006, Medical Decision Making 26:565)."""
    benefit: Floats = np.where(flagged, np.where(labels == 1, 1.0, -threshold / (1 - threshold)), 0.0)
    return benefit


def _flag_as_many(risk: Floats, count: int) -> Floats:
    """1.0 for the `count` highest risks; equal risks at the edge share the remaining flags."""
    flags = np.zeros(len(risk))
    if count:
        edge = np.partition(risk, len(risk) - count)[len(risk) - count]
        flags[risk > edge] = 1.0
        tied = risk == edge
        flags[tied] = (count - flags.sum()) / tied.sum()
    return flags
