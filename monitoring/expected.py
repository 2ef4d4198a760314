"""Which alerts a simulation should make fire, computed from what was sent, without PromQL.

The statistics are numpy's (`steps/evidence.py`), the limits those of the alert rules: if dashboards and
alerts say otherwise, one of the two is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monitoring.backfill import History, series_text
from monitoring.exporter.metrics import score_bin_label
from monitoring.exporter.reference import Feature, Reference
from monitoring.grafana import limits
from monitoring.grafana.states import seconds
from monitoring.prometheus.generate import LABEL_WINDOWS, TRAFFIC_WINDOWS
from monitoring.world import TARGETS, VERSION
from steps import evidence

Floats = NDArray[np.float64]
# Alert title -> the features that it names; an empty set where it names none.
Alerts = dict[str, frozenset[str]]

HOLDS_SECONDS = 600.0
_FATES = {
    "Missing values": "model_feature_missing_total",
    "Invalid values": "model_feature_out_of_range_total",
    "Unknown levels": "model_feature_unknown_level_total",
}


def firing(history: History, reference: Reference, at: float) -> Alerts:
    """Alerts of data and model that have fired for their ten minutes at time `at`."""
    now, before = breaching(history, reference, at), breaching(history, reference, at - HOLDS_SECONDS)
    both = {title: now[title] & before[title] for title in now.keys() & before.keys()}
    return {title: names for title, names in both.items() if names or not now[title]}


def breaching(history: History, reference: Reference, at: float) -> Alerts:
    """Alerts of data and model whose condition holds at time `at`, with the features that they name."""
    counts = _Counts(history, at)
    limit = evidence.evidence_limit(len(reference.features) + 2)
    drifted = frozenset(
        feature.name for feature in reference.features if _feature_drift(counts, feature) >= limit
    )
    score = np.asarray(reference.score.counts, dtype=np.float64)
    score_drifts = (
        max(float(evidence.drift_alarm(counts.scores(w)[0], score)) for w in TRAFFIC_WINDOWS) >= limit
    )
    validation, floor = reference.validation["roc_auc"], reference.floors["roc_auc"]
    expected = _least([_expected(counts, window) for window in ("1d", "14d")])
    realised = _least([_realised(counts, window) for window in ("7d", "30d")])
    drop = max([validation - best for best in (expected, realised) if best is not None], default=0.0)
    alerts: Alerts = {
        title: frozenset(f.name for f in reference.features if _share(counts, f, title) > _allowed(f, title))
        for title in _FATES
    }
    alerts["Feature drift"] = drifted
    alerts = {title: names for title, names in alerts.items() if names}
    for title, holds in (
        ("Score drift", score_drifts),
        ("Drift with harm", (bool(drifted) or score_drifts) and drop > limits.ROC_AUC_DROP),
        ("Expected ROC AUC below floor", expected is not None and expected < floor),
        ("Realised ROC AUC below floor", realised is not None and realised < floor),
        ("Calibration", _miscalibration(counts) >= limit),
    ):
        if holds:
            alerts[title] = frozenset()
    return alerts


class _Counts:
    """Increases of the exporter's counters up to a moment, by window."""

    def __init__(self, history: History, at: float) -> None:
        self._history, self._at = history, at

    def increase(self, name: str, window: str, **labels: str) -> float:
        target = {"job": "exporter", "instance": TARGETS["exporter"], "model_version": VERSION}
        series = series_text(name, {**labels, **target})
        return self._history.increase(series, self._at - seconds(window), self._at)

    def feature(self, feature: Feature, window: str) -> Floats:
        name = "model_feature_values_total"
        return np.array(
            [self.increase(name, window, feature=feature.name, bin=label) for label in feature.bins]
        )

    def scores(self, window: str) -> tuple[Floats, Floats]:
        """Rows and sums of their risks by score bin."""
        names = ("model_scores_total", "model_score_sum_total")
        rows, sums = (np.array([self.increase(n, window, bin=b) for b in _SCORE_BINS]) for n in names)
        return rows, sums

    def labels(self, window: str) -> tuple[Floats, Floats]:
        """Labels and sums of their risks, each of shape (score bins, 2) by bin and outcome."""
        found = (
            np.array([[self.increase(n, window, bin=b, outcome=o) for o in ("0", "1")] for b in _SCORE_BINS])
            for n in ("model_feedback_total", "model_feedback_risk_sum_total")
        )
        labels, risks = found
        return labels, risks


_SCORE_BINS = [score_bin_label(index) for index in range(20)]


def _feature_drift(counts: _Counts, feature: Feature) -> float:
    reference = np.asarray(feature.counts, dtype=np.float64)
    alarms = [evidence.drift_alarm(counts.feature(feature, window), reference) for window in TRAFFIC_WINDOWS]
    return float(np.max(alarms))


def _share(counts: _Counts, feature: Feature, title: str) -> float:
    """Share of a feature's values of one fate, Wilson's lower bound at 0.999, the larger of 1h and 1d."""
    z2, most = evidence.Z_999**2, 0.0
    for window in ("1h", "1d"):
        bad = [counts.increase(name, window, feature=feature.name) for name in _FATES.values()]
        k, n = bad[list(_FATES).index(title)], sum(bad) + counts.feature(feature, window).sum()
        if n > 0:
            spread = evidence.Z_999 * np.sqrt(k - k**2 / n + z2 / 4)
            most = max(most, float((k + z2 / 2 - spread) / (n + z2)))
    return most


def _allowed(feature: Feature, title: str) -> float:
    if title != "Missing values":
        return limits.BAD_SHARE
    return limits.MISSING_SHARE + feature.missing / (feature.missing + sum(feature.counts))


def _best_case(positives: Floats, negatives: Floats) -> float | None:
    if positives.sum() <= 0 or negatives.sum() <= 0:
        return None
    auc = evidence.roc_auc(positives, negatives)
    error = evidence.roc_auc_stderr(auc, positives.sum(), negatives.sum())
    return float(auc + limits.STANDARD_ERRORS * error)


def _expected(counts: _Counts, window: str) -> float | None:
    rows, sums = counts.scores(window)
    return _best_case(sums, np.maximum(rows - sums, 0))


def _realised(counts: _Counts, window: str) -> float | None:
    labels, _ = counts.labels(window)
    return _best_case(labels[:, 1], labels[:, 0])


def _least(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None


def _miscalibration(counts: _Counts) -> float:
    most = 0.0
    for window in LABEL_WINDOWS:
        labels, risks = counts.labels(window)
        total = labels.sum()
        if total > 0:
            error = np.abs(labels[:, 1] - risks.sum(-1)).sum() / total
            found = evidence.calibration_evidence(labels[:, 1], labels.sum(-1), risks.sum(-1)).larger
            most = max(most, float(found) if error >= evidence.CALIBRATION_FLOOR else 0.0)
    return most
