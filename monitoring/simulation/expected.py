"""Which alerts a simulation should make fire, computed from what was sent, without PromQL.

The statistics are numpy's (`steps/measures/evidence.py`), the limits those of the alert rules: if dashboards
and alerts say otherwise, one of the two is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from monitoring.grafana.alerts import rules, thresholds
from monitoring.prometheus import __main__ as generate
from monitoring.prometheus.__main__ import LABEL_WINDOWS, TRAFFIC_WINDOWS
from monitoring.reference import Feature, Reference
from monitoring.sidecar.metrics import STATUSES, score_bin_label
from monitoring.simulation.alert_states import seconds
from monitoring.simulation.history import History, series_text
from monitoring.simulation.world import TARGETS, VERSION
from steps.measures import evidence

Floats = NDArray[np.float64]
# Alert title -> the features that it names; an empty set where it names none.
Alerts = dict[str, frozenset[str]]

_NEVER: frozenset[str] = frozenset()
_LASTS = {alert.title: seconds(alert.lasts) for alert in rules.ALERTS}
_FATES = {
    "Missing values": "model_feature_missing_total",
    "Invalid values": "model_feature_out_of_range_total",
    "Unknown levels": "model_feature_unknown_level_total",
}


def firing(history: History, reference: Reference, at: float) -> Alerts:
    """Alerts that have held for their duration at time `at`, judged at its two ends."""
    now = breaching(history, reference, at)
    since = {lasts: breaching(history, reference, at - lasts) for lasts in set(_LASTS.values())}
    held = {title: names & since[_LASTS[title]].get(title, _NEVER) for title, names in now.items()}
    return {
        title: names
        for title, names in held.items()
        if names or (title in since[_LASTS[title]] and not now[title])
    }


def breaching(history: History, reference: Reference, at: float) -> Alerts:
    """Alerts of data and model whose condition holds at time `at`, with the features that they name."""
    counts = _Counts(history, at, reference)
    limit = evidence.evidence_limit(len(reference.features) + 2)
    drifted = frozenset(
        feature.name for feature in reference.features if _feature_drift(counts, feature) >= limit
    )
    score = np.asarray(reference.score.counts, dtype=np.float64)
    score_drifts = (
        max(float(evidence.drift_alarm(counts.scores(w)[0], score)) for w in TRAFFIC_WINDOWS) >= limit
    )
    validation, floor = reference.validation["roc_auc"], reference.floors.get("roc_auc", 0.0)
    expected = _least([_expected(counts, window) for window in ("1d", "14d")])
    realised = _least([_realised(counts, window) for window in ("7d", "30d")])
    drop = max([validation - best for best in (expected, realised) if best is not None], default=0.0)
    found: Alerts = {
        title: frozenset(f.name for f in reference.features if _share(counts, f, title) > _allowed(f, title))
        for title in _FATES
    }
    found["Feature drift"] = drifted
    found = {title: names for title, names in found.items() if names}
    for title, holds in (
        ("Score drift", score_drifts),
        ("Drift with harm", (bool(drifted) or score_drifts) and drop > thresholds.ROC_AUC_DROP),
        ("Expected ROC AUC below floor", expected is not None and expected < floor),
        ("Realised ROC AUC below floor", realised is not None and realised < floor),
        ("Calibration", _miscalibration(counts) >= limit),
        ("Error budget burns fast", _burns(counts, _availability, "availability", "page")),
        ("Error budget burns slowly", _burns(counts, _availability, "availability", "ticket")),
        ("Latency budget burns fast", _burns(counts, _promptness, "latency", "page")),
        ("Latency budget burns slowly", _burns(counts, _promptness, "latency", "ticket")),
        ("Overload", counts.plain("sidecar_requests_refused_total", "5m", reason="overload") > 0),
    ):
        if holds:
            found[title] = frozenset()
    return found


class _Counts:
    """Increases of the exporter's counters up to a moment, by window."""

    def __init__(self, history: History, at: float, reference: Reference) -> None:
        self._history, self._at, self._name = history, at, reference.model.name
        self._score_bins = [score_bin_label(index) for index in range(len(reference.score.bins))]

    def plain(self, name: str, window: str, **labels: str) -> float:
        """Of a counter that does not depend on the model."""
        series = series_text(name, {**labels, "job": "exporter", "instance": TARGETS["exporter"]})
        return self._history.increase(series, self._at - seconds(window), self._at)

    def increase(self, name: str, window: str, **labels: str) -> float:
        """Of a counter that belongs to a model's version."""
        return self.plain(name, window, **labels, model_name=self._name, model_version=VERSION)

    def requests(self, window: str) -> float:
        """Requests for predictions, answered however."""
        name, endpoint = "sidecar_requests_total", "invocations"
        return sum(self.plain(name, window, endpoint=endpoint, status=status) for status in STATUSES)

    def feature(self, feature: Feature, window: str) -> Floats:
        name = "model_feature_values_total"
        return np.array(
            [self.increase(name, window, feature=feature.name, bin=label) for label in feature.bins]
        )

    def scores(self, window: str) -> tuple[Floats, Floats]:
        """Rows and sums of their risks by score bin."""
        names = ("model_scores_total", "model_score_sum_total")
        rows, sums = (np.array([self.increase(n, window, bin=b) for b in self._score_bins]) for n in names)
        return rows, sums

    def labels(self, window: str) -> tuple[Floats, Floats]:
        """Labels and sums of their risks, each of shape (score bins, 2) by bin and outcome."""
        found = (
            np.array(
                [[self.increase(n, window, bin=b, outcome=o) for o in ("0", "1")] for b in self._score_bins]
            )
            for n in ("model_feedback_total", "model_feedback_risk_sum_total")
        )
        labels, risks = found
        return labels, risks


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
        return thresholds.BAD_SHARE
    return thresholds.MISSING_SHARE + feature.missing / (feature.missing + sum(feature.counts))


def _best_case(positives: Floats, negatives: Floats) -> float | None:
    if positives.sum() <= 0 or negatives.sum() <= 0:
        return None
    auc = evidence.roc_auc(positives, negatives)
    error = evidence.roc_auc_stderr(auc, positives.sum(), negatives.sum())
    return float(auc + thresholds.STANDARD_ERRORS * error)


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


def _availability(counts: _Counts, window: str) -> float:
    """Share of requests for predictions that got a 5xx."""
    asked = counts.requests(window)
    failed = counts.plain("sidecar_requests_total", window, endpoint="invocations", status="5xx")
    return failed / asked if asked > 0 else 0.0


def _promptness(counts: _Counts, window: str) -> float:
    """Share of answers that took longer than the objective."""
    metric = "sidecar_request_duration_seconds"
    answered = counts.plain(f"{metric}_count", window)
    fast = counts.plain(f"{metric}_bucket", window, le=generate.SLOW_SECONDS)
    return 1 - fast / answered if answered > 0 else 0.0


def _burns(counts: _Counts, bad: Callable[[_Counts, str], float], slo: str, severity: str) -> bool:
    """Whether both windows of a pair spend the budget too fast, with enough requests in the long one."""
    budget = 1 - generate.OBJECTIVES[slo]
    return any(
        min(bad(counts, long), bad(counts, short)) / budget >= factor
        and counts.requests(long) >= generate.MIN_REQUESTS
        for level, long, short, factor in generate.BURN_ALARMS
        if level == severity
    )
