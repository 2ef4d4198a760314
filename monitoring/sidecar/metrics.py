"""Every metric of the sidecar: names, labels, meaning; no other module registers metrics.

Raw counts, never ratios: PSI, evidence, ROC AUC and calibration are recording rules over them. Every child
is created at 0, from the reference alone, so no request can add a series. `sidecar_` families are about the
sidecar, `model_` families about the model; the latter have the labels `model_name` and `model_version`. An
unknown figure has no series. `bin` is a feature's bin as the reference names it, or the zero-padded
number of a score bin ("00", "01", ...).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from monitoring.reference import Reference
from monitoring.sidecar.answers import REASONS

MODEL_LABELS = ("model_name", "model_version")
UNKNOWN_NAME = "unknown"
ENDPOINTS = ("invocations", "ping", "health", "version", "feedback", "page", "other")
STATUSES = ("2xx", "3xx", "4xx", "5xx")
BATCH_REASONS = ("idle", "upstream_free", "clients_back", "wait_over", "full", "alone", "after_failure")
UPSTREAM_FAILURES = ("refused", "timeout", "closed", "garbled", "too_large")
FEEDBACK_REFUSALS = (
    "unauthorized",
    "malformed",
    "too_large",
    "forged",
    "expired",
    "other_model",
    "no_such_row",
    "row_missing",
    "repeated",
)
TOKEN_OMISSIONS = ("too_many_rows", "no_risk")
OBSERVATION_PARTS = ("queue_full", "body", "answer", "count", "token", "golden")
LOT_KINDS = ("rows", "labels", "group_rows", "group_labels")
OUTCOMES = ("0", "1")
OTHER_VERSION = "other"

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
HOUR, DAY = 3600, 86400
DELAY_BUCKETS = (HOUR, 6 * HOUR, DAY, 3 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 90 * DAY, 180 * DAY, 365 * DAY)

# Every family and its meaning, in the order of the page.
MEANINGS = {
    "sidecar_requests_total": "Requests answered, by endpoint and status class.",
    "sidecar_requests_refused_total": "Answers of the sidecar's own making, by reason.",
    "sidecar_request_duration_seconds": (
        "From a request being read to the container's answer being ready, /invocations only."
    ),
    "sidecar_upstream_duration_seconds": (
        "Calls of the model's container, answered or not, one for each batch."
    ),
    "sidecar_upstream_failures_total": "Calls that got no answer, by cause.",
    "sidecar_upstream_contact_timestamp_seconds": (
        "When the container last gave an answer; before its first answer, when the sidecar started."
    ),
    "sidecar_connections": "Clients' connections to the traffic port.",
    "sidecar_requests_in_flight": "Requests read and not yet answered.",
    "sidecar_rows_total": "Rows in answers with predictions.",
    "sidecar_queue_requests": "Requests waiting to be sent to the container.",
    "sidecar_queue_oldest_wait_seconds": "Time that the oldest waiting request has waited; 0 if none waits.",
    "sidecar_batch_requests": "Requests that travelled together in one call.",
    "sidecar_batching_suspended_forms": (
        "Forms of request that travel alone for a minute, since their answers held no prediction a row."
    ),
    "sidecar_batches_total": (
        "Calls of the container with requests for predictions, by why they were sent when they were."
    ),
    "sidecar_observation_failures_total": (
        "What the sidecar itself could not observe, by part; forwarding is not touched by it."
    ),
    "sidecar_feedback_refused_total": "Late labels refused, by reason.",
    "sidecar_lot_rows_dropped_total": ("Rows and labels of unfilled lots, dropped when the sidecar stopped."),
    "sidecar_feedback_tokens_total": "Answers that carried a feedback token.",
    "sidecar_feedback_tokens_omitted_total": "Answers with predictions and no token.",
    "sidecar_reference_loaded": "1 if a reference is loaded, else 0.",
    "model_feature_values_total": "Values of predicted rows, by feature and bin of the reference.",
    "model_feature_missing_total": "Values that were null or a missing code.",
    "model_feature_out_of_range_total": "Values outside the feature's range.",
    "model_feature_unknown_level_total": "Values that are no known level.",
    "model_feature_reference_rows": "Training rows, by feature and bin.",
    "model_feature_level_info": "What a bin of a feature is in words, and its place; always 1.",
    "model_feature_reference_missing_rows": "Training rows without a value, by feature.",
    "model_extra_columns_total": "Columns in requests that the reference does not know.",
    "model_missing_columns_total": "Columns of the reference that requests lacked.",
    "model_scores_total": "Predicted risks, by score bin.",
    "model_score_sum_total": "Sum of the predicted risks, by score bin.",
    "model_predictions_total": "Predicted rows, by class at the decision threshold.",
    "model_prediction_risk_sum_total": "Sum of the predicted risks, by predicted class.",
    "model_prediction_variance_sum_total": "Sum of risk * (1 - risk), by predicted class.",
    "model_unscored_rows_total": "Rows answered without a risk from 0 to 1.",
    "model_score_reference_rows": "Validation rows, by score bin.",
    "model_score_bin_lower_edge": "Lower edge of each score bin.",
    "model_score_bin_info": "Which risks a score bin holds, in words; always 1.",
    "model_group_rows_total": "Predicted rows, by group of people and class at the decision threshold.",
    "model_feedback_total": (
        "Late labels accepted, by score bin of the prediction, outcome and version that predicted."
    ),
    "model_feedback_risk_sum_total": "Sum of the labelled rows' own predicted risks.",
    "model_feedback_squared_risk_sum_total": "Sum of the squares of those risks.",
    "model_group_feedback_total": (
        "Late labels accepted, by group of people, class at the decision threshold and outcome."
    ),
    "model_group_feedback_risk_sum_total": "Sum of the labelled rows' own predicted risks.",
    "model_feedback_delay_seconds": "From prediction to label, accepted labels.",
    "model_info": "Which model is served; always 1.",
    "model_trained_timestamp_seconds": "When the model was trained.",
    "model_decision_threshold": "Risk from which a row is predicted positive.",
    "model_floor": "Lowest value that the schema's gates allow.",
    "model_validation": "The model on its validation rows.",
    "model_golden_rows_match": (
        "1 if the container answers the reference's golden rows as the trained model did, 0 if not; no"
        " series while that is not known."
    ),
}


class FeatureCounters(NamedTuple):
    """Children of a feature: a counter for each bin, and for missing, out of range and unknown values."""

    bins: tuple[Counter, ...]
    missing: Counter
    out_of_range: Counter
    unknown: Counter


class GroupLabelCounters(NamedTuple):
    """Children of a group and model version: labels [flagged][outcome], sums of their risks [flagged]."""

    labels: tuple[tuple[Counter, ...], ...]
    risk_sums: tuple[Counter, ...]


class FeedbackCounters(NamedTuple):
    """Children of a model version, each indexed [score bin][outcome]."""

    labels: tuple[tuple[Counter, ...], ...]
    risk_sums: tuple[tuple[Counter, ...], ...]
    squared_risk_sums: tuple[tuple[Counter, ...], ...]
    delay: Histogram
    groups: tuple[GroupLabelCounters, ...]


def score_bin_label(index: int) -> str:
    """Label of a score bin: its number from 0, with two digits, so that labels sort as the bins do."""
    return f"{index:02d}"


class Metrics:
    """The families, on the registry given, with every child that the reference allows.

    `name` and `version` are the registered model's, the values of the labels `model_name` and `model_version`
    except for late labels of an older version. Without a reference the feature, score and reference
    families exist and stay empty.
    """

    def __init__(self, registry: CollectorRegistry, reference: Reference | None, version: str) -> None:
        self.registry = registry
        self.version = version
        self.name = reference.model.name if reference else UNKNOWN_NAME
        self.score_bins = len(reference.score.bins) if reference else 0
        self._served = (self.name, self.version)
        groups = reference.groups if reference else None
        self._groups = groups.names if groups else ()
        self.groups_key = groups.key if groups else 0
        self._http()
        self._batching()
        self._observation(reference)
        self._features(reference)
        self._scores(reference)
        self._feedback()
        self._model(reference)
        ProcessCollector(registry=registry)

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(name, MEANINGS[name], labels, registry=self.registry)

    def _gauge(self, name: str, *labels: str) -> Gauge:
        return Gauge(name, MEANINGS[name], labels, registry=self.registry)

    def _histogram(self, name: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, MEANINGS[name], labels, buckets=buckets, registry=self.registry)

    def _by(self, name: str, label: str, values: Sequence[str]) -> Mapping[str, Counter]:
        """A counter with a child for each value of a label."""
        family = self._counter(name, label)
        return {value: family.labels(value) for value in values}

    def _by_model(self, name: str, label: str, values: Sequence[str]) -> Mapping[str, Counter]:
        """A counter about the model with a child for each value of a label."""
        family = self._counter(name, label, *MODEL_LABELS)
        return {value: family.labels(value, *self._served) for value in values}

    def _http(self) -> None:
        requests = self._counter("sidecar_requests_total", "endpoint", "status")
        self.requests = {
            endpoint: {status: requests.labels(endpoint, status) for status in STATUSES}
            for endpoint in ENDPOINTS
        }
        self.refused = self._by("sidecar_requests_refused_total", "reason", REASONS)
        self.duration = self._histogram("sidecar_request_duration_seconds", DURATION_BUCKETS)
        self.upstream_duration = self._histogram("sidecar_upstream_duration_seconds", DURATION_BUCKETS)
        self.upstream_failures = self._by("sidecar_upstream_failures_total", "cause", UPSTREAM_FAILURES)
        self.upstream_contact = self._gauge("sidecar_upstream_contact_timestamp_seconds")
        self.connections = self._gauge("sidecar_connections")
        self.in_flight = self._gauge("sidecar_requests_in_flight")
        self.rows = self._counter("sidecar_rows_total")

    def _batching(self) -> None:
        self.queue_length = self._gauge("sidecar_queue_requests")
        self.queue_oldest_wait = self._gauge("sidecar_queue_oldest_wait_seconds")
        self.batch_size = self._histogram("sidecar_batch_requests", BATCH_BUCKETS)
        self.batching_suspended = self._gauge("sidecar_batching_suspended_forms")
        self.batches = self._by("sidecar_batches_total", "reason", BATCH_REASONS)

    def _observation(self, reference: Reference | None) -> None:
        self.observation_failures = self._by("sidecar_observation_failures_total", "part", OBSERVATION_PARTS)
        self.feedback_refused = self._by("sidecar_feedback_refused_total", "reason", FEEDBACK_REFUSALS)
        self.dropped = self._by("sidecar_lot_rows_dropped_total", "kind", LOT_KINDS)
        self.tokens = self._counter("sidecar_feedback_tokens_total")
        self.tokens_omitted = self._by("sidecar_feedback_tokens_omitted_total", "reason", TOKEN_OMISSIONS)
        self._gauge("sidecar_reference_loaded").set(reference is not None)

    def _features(self, reference: Reference | None) -> None:
        by_feature, by_bin = ("feature", *MODEL_LABELS), ("feature", "bin", *MODEL_LABELS)
        values = self._counter("model_feature_values_total", *by_bin)
        missing = self._counter("model_feature_missing_total", *by_feature)
        out_of_range = self._counter("model_feature_out_of_range_total", *by_feature)
        unknown = self._counter("model_feature_unknown_level_total", *by_feature)
        rows = self._gauge("model_feature_reference_rows", *by_bin)
        level = self._gauge("model_feature_level_info", "feature", "bin", "bin_order", "level", *MODEL_LABELS)
        missing_rows = self._gauge("model_feature_reference_missing_rows", *by_feature)
        self.features: dict[str, FeatureCounters] = {}
        for feature in reference.features if reference else ():
            self.features[feature.name] = FeatureCounters(
                tuple(values.labels(feature.name, label, *self._served) for label in feature.bins),
                missing.labels(feature.name, *self._served),
                out_of_range.labels(feature.name, *self._served),
                unknown.labels(feature.name, *self._served),
            )
            bins = zip(feature.bins, feature.counts, feature.words, strict=True)
            for index, (label, count, label_text) in enumerate(bins):
                rows.labels(feature.name, label, *self._served).set(count)
                level.labels(feature.name, label, f"{index:03d}", label_text, *self._served).set(1)
            missing_rows.labels(feature.name, *self._served).set(feature.missing)
        extra = self._counter("model_extra_columns_total", *MODEL_LABELS)
        missing_columns = self._counter("model_missing_columns_total", *MODEL_LABELS)
        self.extra_columns, self.missing_columns = (
            extra.labels(*self._served),
            missing_columns.labels(*self._served),
        )

    def _scores(self, reference: Reference | None) -> None:
        bins = [score_bin_label(index) for index in range(self.score_bins)]
        self.scores = tuple(self._by_model("model_scores_total", "bin", bins).values())
        self.score_sums = tuple(self._by_model("model_score_sum_total", "bin", bins).values())
        self.predictions = self._by_model("model_predictions_total", "predicted", OUTCOMES)
        self.prediction_risk_sums = self._by_model("model_prediction_risk_sum_total", "predicted", OUTCOMES)
        self.prediction_variance_sums = self._by_model(
            "model_prediction_variance_sum_total", "predicted", OUTCOMES
        )
        self.unscored_rows = self._counter("model_unscored_rows_total", *MODEL_LABELS).labels(*self._served)
        rows = self._gauge("model_score_reference_rows", "bin", *MODEL_LABELS)
        edges = self._gauge("model_score_bin_lower_edge", "bin", *MODEL_LABELS)
        texts = self._gauge("model_score_bin_info", "bin", "risk", *MODEL_LABELS)
        if reference is not None:
            score = reference.score
            for label, count, edge, risks in zip(bins, score.counts, score.edges, score.words, strict=False):
                rows.labels(label, *self._served).set(count)
                edges.labels(label, *self._served).set(edge)
                texts.labels(label, risks, *self._served).set(1)
        by_group = self._counter("model_group_rows_total", "group", "predicted", *MODEL_LABELS)
        self.group_rows = tuple(
            tuple(by_group.labels(group, predicted, *self._served) for predicted in OUTCOMES)
            for group in self._groups
        )

    def _feedback(self) -> None:
        labels = ("bin", "outcome", *MODEL_LABELS)
        self._labels = self._counter("model_feedback_total", *labels)
        self._label_risks = self._counter("model_feedback_risk_sum_total", *labels)
        self._label_squares = self._counter("model_feedback_squared_risk_sum_total", *labels)
        by_group = ("group", "predicted", *MODEL_LABELS)
        self._group_labels = self._counter("model_group_feedback_total", "outcome", *by_group)
        self._group_label_risks = self._counter("model_group_feedback_risk_sum_total", *by_group)
        self._label_delay = self._histogram("model_feedback_delay_seconds", DELAY_BUCKETS, *MODEL_LABELS)
        self.feedback = {version: self.feedback_version(version) for version in (self.version, OTHER_VERSION)}

    def feedback_version(self, version: str) -> FeedbackCounters:
        """Children, at 0 if new, of the labels for one model version; the caller bounds the versions."""
        bins = [score_bin_label(index) for index in range(self.score_bins)]
        families = (self._labels, self._label_risks, self._label_squares)
        labels, risks, squares = [
            tuple(
                tuple(family.labels(score_bin, outcome, self.name, version) for outcome in OUTCOMES)
                for score_bin in bins
            )
            for family in families
        ]
        groups = tuple(self._group_counters(group, version) for group in self._groups)
        return FeedbackCounters(labels, risks, squares, self._label_delay.labels(self.name, version), groups)

    def _group_counters(self, group: str, version: str) -> GroupLabelCounters:
        labels, risks, model = self._group_labels, self._group_label_risks, (self.name, version)
        return GroupLabelCounters(
            tuple(tuple(labels.labels(o, group, p, *model) for o in OUTCOMES) for p in OUTCOMES),
            tuple(risks.labels(group, p, *model) for p in OUTCOMES),
        )

    @property
    def group_count(self) -> int:
        """Number of groups that rows and labels are counted by."""
        return len(self._groups)

    def set_golden_rows_match(self, matches: bool | None) -> None:
        """Export whether the container answers like the reference's model; None (unknown) has no series."""
        if matches is None:
            self._golden_rows_match.clear()
        else:
            self._golden_rows_match.labels(*self._served).set(matches)

    def _model(self, reference: Reference | None) -> None:
        facts = ("run_id", "family", "digest", "data_kind", "synthetic")
        info = self._gauge("model_info", *MODEL_LABELS, *facts)
        trained = self._gauge("model_trained_timestamp_seconds", *MODEL_LABELS)
        threshold = self._gauge("model_decision_threshold", *MODEL_LABELS)
        floor = self._gauge("model_floor", "metric", *MODEL_LABELS)
        validation = self._gauge("model_validation", "metric", *MODEL_LABELS)
        self._golden_rows_match = self._gauge("model_golden_rows_match", *MODEL_LABELS)
        if reference is None:
            return
        model = reference.model
        kind, synthetic = str(reference.data.get("kind", "")), str(model.synthetic).lower()
        info.labels(*self._served, model.run_id, model.family, model.digest, kind, synthetic).set(1)
        trained.labels(*self._served).set(model.trained_at)
        threshold.labels(*self._served).set(reference.score.threshold)
        for metric, value in reference.floors.items():
            floor.labels(metric, *self._served).set(value)
        for metric, value in reference.validation.items():
            if isinstance(value, int | float):
                validation.labels(metric, *self._served).set(value)
