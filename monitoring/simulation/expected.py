"""The alerts that a simulation should fire, computed from its requests, without PromQL.

The statistics are computed in numpy (`steps/measures/evidence.py`), with the limits of the alert rules. If
Prometheus disagrees, one of the two is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from monitoring.grafana.alerts import rules, thresholds
from monitoring.prometheus import drift, performance, service
from monitoring.reference import Feature, Reference
from monitoring.sidecar.metrics import STATUSES, score_bin_label
from monitoring.simulation.alert_states import seconds
from monitoring.simulation.history import History, series_text
from monitoring.simulation.world import TARGETS, VERSION
from steps.measures import evidence, selection
from steps.measures.evidence import Estimate

Floats = NDArray[np.float64]
# Alert title -> the features that it names; an empty set for an alert without features.
Alerts = dict[str, frozenset[str]]

_NEVER: frozenset[str] = frozenset()
_LASTS = {alert.title: seconds(alert.lasts) for alert in rules.ALERTS}
_NOT_IN_A_BIN = {
    "Missing values": "model_feature_missing_total",
    "Invalid values": "model_feature_out_of_range_total",
    "Unknown levels": "model_feature_unknown_level_total",
}


def firing(history: History, reference: Reference, at: float) -> Alerts:
    """Alerts whose condition has held for their duration at time `at`, judged at its two ends."""
    breaching_now = breaching(history, reference, at)
    breaching_before = {lasts: breaching(history, reference, at - lasts) for lasts in set(_LASTS.values())}
    in_both = {
        title: names & breaching_before[_LASTS[title]].get(title, _NEVER)
        for title, names in breaching_now.items()
    }
    return {
        title: names
        for title, names in in_both.items()
        if names or (title in breaching_before[_LASTS[title]] and not breaching_now[title])
    }


def breaching(history: History, reference: Reference, at: float) -> Alerts:
    """Alerts of data and model whose condition holds at time `at`, with their features."""
    counts = _Counts(history, at, reference)
    limit = evidence.evidence_limit(len(reference.features) + 2)
    drifted = frozenset(
        feature.name
        for feature in reference.features
        if _drift_alarm({w: counts.feature(feature, w) for w in drift.WINDOWS}, feature.counts) >= limit
    )
    score_drifts = (
        _drift_alarm({w: counts.scores(w)[0] for w in drift.WINDOWS}, reference.score.counts) >= limit
    )
    alerts: Alerts = {
        title: frozenset(f.name for f in reference.features if _share(counts, f, title) > _allowed(f, title))
        for title in _NOT_IN_A_BIN
    }
    alerts["Feature drift"] = drifted
    alerts = {title: names for title, names in alerts.items() if names}
    miscalibrated = _miscalibration(counts) >= limit
    losses = _losses(counts, reference, bool(drifted) or score_drifts)
    is_sound = not any(title in alerts for title in _NOT_IN_A_BIN)
    retrain = is_sound and (losses["Realised ROC AUC below floor"] or losses["Drift with harm"])
    for title, is_breaching in (
        ("Score drift", score_drifts),
        *losses.items(),
        ("Calibration", miscalibrated),
        ("Retraining asked for", retrain),
        ("Recalibration asked for", is_sound and miscalibrated and not retrain),
        ("Error budget burns fast", _burns(counts, _availability, "availability", "page")),
        ("Error budget burns slowly", _burns(counts, _availability, "availability", "ticket")),
        ("Latency budget burns fast", _burns(counts, _promptness, "latency", "page")),
        ("Latency budget burns slowly", _burns(counts, _promptness, "latency", "ticket")),
        ("Overload", _overloaded(counts)),
    ):
        if is_breaching:
            alerts[title] = frozenset()
    return alerts


def _losses(counts: _Counts, reference: Reference, drifts: bool) -> dict[str, bool]:
    """The three alerts on ROC AUC, of which at most one is true."""
    validation, floor = reference.validation["roc_auc"], reference.floors.get("roc_auc", 0.0)
    expected = _best(_expected(counts, "1d"), _expected(counts, "14d"), floor)
    realised = _best(_realised(counts, "7d"), _realised(counts, "30d"), floor)
    loss = realised is not None and realised < floor
    harm = drifts and not loss and expected is not None and validation - expected > thresholds.ROC_AUC_DROP
    below = expected is not None and expected < floor and not loss and not harm
    return {
        "Drift with harm": harm,
        "Realised ROC AUC below floor": loss,
        "Expected ROC AUC below floor": below,
    }


def _overloaded(counts: _Counts) -> bool:
    refused = counts.plain("sidecar_requests_refused_total", "5m", reason="overload")
    share = refused / max(counts.requests("5m"), 1.0)
    return refused >= thresholds.FEWEST_REFUSED and share >= thresholds.REFUSED_SHARE


class _Counts:
    """Increases of the sidecar's counters up to a time, by window."""

    def __init__(self, history: History, at: float, reference: Reference) -> None:
        self._history, self._at, self._name = history, at, reference.model.name
        self._score_bins = [score_bin_label(index) for index in range(len(reference.score.bins))]

    def plain(self, name: str, window: str, **labels: str) -> float:
        """Increase of a counter that does not depend on the model."""
        series = series_text(name, {**labels, "job": "exporter", "instance": TARGETS["exporter"]})
        return self._history.increase(series, self._at - seconds(window), self._at)

    def increase(self, name: str, window: str, **labels: str) -> float:
        """Increase of a counter of a model version."""
        return self.plain(name, window, **labels, model_name=self._name, model_version=VERSION)

    def requests(self, window: str) -> float:
        """Requests for predictions, with any answer."""
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
        counts = (
            np.array(
                [[self.increase(n, window, bin=b, outcome=o) for o in ("0", "1")] for b in self._score_bins]
            )
            for n in ("model_feedback_total", "model_feedback_risk_sum_total")
        )
        labels, risks = counts
        return labels, risks


def _drift_alarm(rows: Mapping[str, Floats], reference: Sequence[float]) -> float:
    """The largest evidence of a window with a large enough effect, unless a newer window shows it mended.

    A rule then stays silent for the length of its window; here only the present evidence counts.
    """
    training_counts = np.asarray(reference, dtype=np.float64)
    mended = {
        longer
        for newer, longer in drift.NEWER
        if evidence.mended_evidence(rows[newer], rows[longer] - rows[newer], training_counts)
        >= evidence.MENDED_LOG10
    }
    return max(
        (
            float(evidence.drift_alarm(counts, training_counts))
            for window, counts in rows.items()
            if window not in mended and counts.sum()
        ),
        default=0.0,
    )


def _share(counts: _Counts, feature: Feature, title: str) -> float:
    """Share of a feature's values without a bin, Wilson's lower bound at 0.999, the larger of 1h and 1d."""
    z2, largest = evidence.Z_999**2, 0.0
    for window in ("1h", "1d"):
        not_in_a_bin = [
            counts.increase(name, window, feature=feature.name) for name in _NOT_IN_A_BIN.values()
        ]
        k, n = (
            not_in_a_bin[list(_NOT_IN_A_BIN).index(title)],
            sum(not_in_a_bin) + counts.feature(feature, window).sum(),
        )
        if n > 0:
            spread = evidence.Z_999 * np.sqrt(k - k**2 / n + z2 / 4)
            largest = max(largest, float((k + z2 / 2 - spread) / (n + z2)))
    return largest


def _allowed(feature: Feature, title: str) -> float:
    if title != "Missing values":
        return thresholds.BAD_SHARE
    return thresholds.MISSING_SHARE + feature.missing / (feature.missing + sum(feature.counts))


def _expected(counts: _Counts, window: str) -> Estimate | None:
    rows, sums = counts.scores(window)
    if rows.sum() < performance.FEWEST_ROWS:
        return None
    positives, negatives = sums, np.maximum(rows - sums, 0)
    auc = evidence.roc_auc(positives, negatives)
    return evidence.Estimate(auc, evidence.roc_auc_stderr(auc, positives.sum(), negatives.sum()))


def _realised(counts: _Counts, window: str) -> Estimate | None:
    rows, (labels, _) = counts.scores(window)[0], counts.labels(window)
    label_counts, positives = labels.sum(-1), labels[:, 1]
    if selection.blind_bins(rows, label_counts).any():
        return None
    if min(selection.effective(rows, label_counts, positives)) < performance.FEWEST_EFFECTIVE:
        return None
    return selection.roc_auc(rows, label_counts, positives)


def _best(newer: Estimate | None, longer: Estimate | None, floor: float) -> float | None:
    """Upper limit of a ROC AUC: the least of two windows, or of the newer if that is above the floor."""
    judged = [newer, longer]
    if newer is not None and newer.value - newer.stderr >= floor:
        judged = [newer]
    values = [float(e.value + thresholds.STANDARD_ERRORS * e.stderr) for e in judged if e is not None]
    return min(values) if values else None


def _miscalibration(counts: _Counts) -> float:
    """The largest evidence of a window with enough error, unless a newer window shows it mended."""
    label_sums = {window: counts.labels(window) for window in performance.LABEL_WINDOWS}

    def sums(window: str) -> Floats:
        labels, risks = label_sums[window]
        return np.array([labels[:, 1], labels.sum(-1), risks.sum(-1)])

    mended = {
        longer
        for newer, longer in performance.NEWER
        if evidence.calibration_mended_evidence(sums(newer), sums(longer) - sums(newer))
        >= evidence.MENDED_LOG10
    }
    largest = 0.0
    for window, (labels, risks) in label_sums.items():
        total = labels.sum()
        if total > 0 and window not in mended:
            rows = counts.scores(window)[0]
            label_counts = labels.sum(-1)
            weight = selection.weights(rows, label_counts)
            distance = np.abs(labels[:, 1] - risks.sum(-1)) * weight
            scored = rows[label_counts > 0].sum()
            error = distance.sum() / scored if scored > 0 else 0.0
            window_evidence = evidence.calibration_evidence(labels[:, 1], label_counts, risks.sum(-1)).larger
            largest = max(largest, float(window_evidence) if error >= evidence.CALIBRATION_FLOOR else 0.0)
    return largest


def _availability(counts: _Counts, window: str) -> float:
    """Share of requests for predictions with a 5xx answer."""
    requests = counts.requests(window)
    failed = counts.plain("sidecar_requests_total", window, endpoint="invocations", status="5xx")
    return failed / requests if requests > 0 else 0.0


def _promptness(counts: _Counts, window: str) -> float:
    """Share of answers that took longer than the objective."""
    metric = "sidecar_request_duration_seconds"
    answered = counts.plain(f"{metric}_count", window)
    fast = counts.plain(f"{metric}_bucket", window, le=service.SLOW_SECONDS)
    return 1 - fast / answered if answered > 0 else 0.0


def _burns(counts: _Counts, bad: Callable[[_Counts, str], float], slo: str, severity: str) -> bool:
    """Whether both windows of a pair spend the budget too fast, with enough failures in the long one."""
    budget = 1 - service.OBJECTIVES[slo]
    return any(
        min(bad(counts, long), bad(counts, short)) / budget >= factor
        and counts.requests(long) >= service.MIN_REQUESTS
        and bad(counts, long) * counts.requests(long) >= service.MIN_BAD - 0.5
        for level, long, short, factor in service.BURN_ALARMS
        if level == severity
    )
