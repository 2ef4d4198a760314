"""Every metric of the sidecar: names, labels, meaning; nothing else registers one.

Raw counts, never ratios: PSI, evidence, ROC AUC and calibration are recording rules over them. Every child
is created at 0, from the reference alone, so no request can add a series. Families whose meaning depends on
the model carry `model_version`; `bin` is a feature's bin as the reference names it, or the zero-padded number
of a score bin ("00", "01", ...).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from monitoring.reference import Reference

PREFIX = "model"
ENDPOINTS = ("invocations", "ping", "version", "feedback", "other")
STATUSES = ("2xx", "3xx", "4xx", "5xx")
BATCH_REASONS = ("idle", "upstream_free", "clients_back", "wait_over", "full", "alone", "after_failure")
UPSTREAM_FAILURES = ("refused", "timeout", "closed", "garbled")
REFUSALS = (
    "unauthorized",
    "too_large",
    "overload",
    "stopping",
    "malformed",
    "guard",
    "not_found",
    "method",
    "upstream",
    "internal",
)
FEEDBACK_REFUSALS = (
    "unauthorized",
    "malformed",
    "too_large",
    "forged",
    "expired",
    "other_model",
    "no_such_row",
    "repeated",
)
TOKEN_OMISSIONS = ("too_many_rows", "no_risk")
COLLECTOR_PARTS = ("queue_full", "body", "answer", "count", "token", "golden")
OUTCOMES = ("0", "1")
OTHER_VERSION = "other"

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
HOUR, DAY = 3600, 86400
DELAY_BUCKETS = (HOUR, 6 * HOUR, DAY, 3 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 90 * DAY, 180 * DAY, 365 * DAY)


class FeatureCounters(NamedTuple):
    """Children of one feature: one counter for each bin, and the three fates that are no bin."""

    bins: tuple[Counter, ...]
    missing: Counter
    out_of_range: Counter
    unknown: Counter


class FeedbackCounters(NamedTuple):
    """Children of one model version, each indexed [score bin][outcome]."""

    labels: tuple[tuple[Counter, ...], ...]
    risk_sums: tuple[tuple[Counter, ...], ...]
    squared_risk_sums: tuple[tuple[Counter, ...], ...]
    delay: Histogram


def score_bin_label(index: int) -> str:
    """Label of a score bin: its number from 0, with two digits, so that labels sort as the bins do."""
    return f"{index:02d}"


class Metrics:
    """The families, on the registry given, with every child that the reference allows.

    `version` is the registered version of the model, the value of every `model_version` label but those of
    labels that arrive late for an older version. Without a reference the feature, score and reference
    families exist and stay empty.
    """

    def __init__(self, registry: CollectorRegistry, reference: Reference | None, version: str) -> None:
        self.registry = registry
        self.version = version
        self.score_bins = len(reference.score.bins) if reference else 0
        self._http()
        self._batching()
        self._features(reference)
        self._scores(reference)
        self._feedback()
        self._model(reference)
        ProcessCollector(namespace=PREFIX, registry=registry)

    def _counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"{PREFIX}_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", meaning, labels, registry=self.registry)

    def _histogram(
        self, name: str, meaning: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", meaning, labels, buckets=buckets, registry=self.registry)

    def _by(
        self, name: str, meaning: str, label: str, values: Sequence[str], *, versioned: bool = False
    ) -> Mapping[str, Counter]:
        """A counter with one child for each value of one label."""
        if not versioned:
            family = self._counter(name, meaning, (label,))
            return {value: family.labels(value) for value in values}
        family = self._counter(name, meaning, (label, "model_version"))
        return {value: family.labels(value, self.version) for value in values}

    def _http(self) -> None:
        requests = self._counter(
            "requests_total", "Requests answered, by endpoint and status class.", ("endpoint", "status")
        )
        self.requests = {
            endpoint: {status: requests.labels(endpoint, status) for status in STATUSES}
            for endpoint in ENDPOINTS
        }
        self.refused = self._by(
            "requests_refused_total", "Answers of the sidecar's own making, by reason.", "reason", REFUSALS
        )
        self.duration = self._histogram(
            "request_duration_seconds",
            "From a request being read to the container's answer being ready, /invocations only.",
            DURATION_BUCKETS,
        )
        self.upstream_duration = self._histogram(
            "upstream_duration_seconds",
            "Calls of the model's container, answered or not, one for each batch.",
            DURATION_BUCKETS,
        )
        self.upstream_failures = self._by(
            "upstream_failures_total", "Calls that got no answer, by cause.", "cause", UPSTREAM_FAILURES
        )
        self.last_forward = self._gauge(
            "last_forward_timestamp_seconds", "When the container last gave an answer; 0 before the first."
        )
        self.connections = self._gauge("connections", "Clients' connections to the traffic port.")
        self.in_flight = self._gauge("requests_in_flight", "Requests read and not yet answered.")
        self.request_bytes = self._counter("request_bytes_total", "Bytes of request bodies.")
        self.response_bytes = self._counter("response_bytes_total", "Bytes of response bodies.")
        self.rows = self._counter("rows_total", "Rows in answers with predictions.")

    def _batching(self) -> None:
        self.queue_length = self._gauge("queue_length", "Requests waiting to be sent to the container.")
        self.queue_oldest_wait = self._gauge(
            "queue_oldest_wait_seconds", "Time that the oldest waiting request has waited; 0 if none waits."
        )
        self.batch_size = self._histogram(
            "batch_size", "Requests that travelled together in one call.", BATCH_BUCKETS
        )
        self.batches = self._by(
            "batches_total",
            "Calls of the container with requests for predictions, by why they were sent when they were.",
            "reason",
            BATCH_REASONS,
        )

    def _features(self, reference: Reference | None) -> None:
        labels = ("feature", "model_version")
        values = self._counter(
            "feature_values_total",
            "Values of predicted rows, by feature and bin of the reference.",
            ("feature", "bin", "model_version"),
        )
        missing = self._counter("feature_missing_total", "Values that were null or a missing code.", labels)
        out_of_range = self._counter(
            "feature_out_of_range_total", "Values outside the feature's range.", labels
        )
        unknown = self._counter("feature_unknown_level_total", "Values that are no known level.", labels)
        rows = self._gauge(
            "feature_reference_rows",
            "Training rows, by feature and bin.",
            ("feature", "bin", "model_version"),
        )
        missing_rows = self._gauge(
            "feature_reference_missing_rows", "Training rows without a value, by feature.", labels
        )
        self.features: dict[str, FeatureCounters] = {}
        for feature in reference.features if reference else ():
            name, version = feature.name, self.version
            self.features[name] = FeatureCounters(
                tuple(values.labels(name, label, version) for label in feature.bins),
                missing.labels(name, version),
                out_of_range.labels(name, version),
                unknown.labels(name, version),
            )
            for label, count in zip(feature.bins, feature.counts, strict=True):
                rows.labels(name, label, version).set(count)
            missing_rows.labels(name, version).set(feature.missing)
        self.extra_columns = self._counter(
            "extra_columns_total", "Columns in requests that the reference does not know.", ("model_version",)
        ).labels(self.version)
        self.missing_columns = self._counter(
            "missing_columns_total", "Columns of the reference that requests lacked.", ("model_version",)
        ).labels(self.version)

    def _scores(self, reference: Reference | None) -> None:
        bins = [score_bin_label(index) for index in range(self.score_bins)]
        by_bin = ("bin", "model_version")
        counts = self._counter("scores_total", "Predicted risks, by score bin.", by_bin)
        sums = self._counter("score_sum_total", "Sum of the predicted risks, by score bin.", by_bin)
        self.scores = tuple(counts.labels(label, self.version) for label in bins)
        self.score_sums = tuple(sums.labels(label, self.version) for label in bins)
        self.predictions = self._by(
            "predictions_total",
            "Predicted rows, by class at the decision threshold.",
            "predicted",
            OUTCOMES,
            versioned=True,
        )
        self.prediction_risk_sums = self._by(
            "prediction_risk_sum_total",
            "Sum of the predicted risks, by predicted class.",
            "predicted",
            OUTCOMES,
            versioned=True,
        )
        self.prediction_variance_sums = self._by(
            "prediction_variance_sum_total",
            "Sum of risk * (1 - risk), by predicted class.",
            "predicted",
            OUTCOMES,
            versioned=True,
        )
        self.unscored_rows = self._counter(
            "unscored_rows_total", "Rows answered without a risk from 0 to 1.", ("model_version",)
        ).labels(self.version)
        rows = self._gauge("score_reference_rows", "Validation rows, by score bin.", by_bin)
        risks = self._gauge(
            "score_reference_risks", "Sum of the validation rows' predicted risks, by score bin.", by_bin
        )
        positives = self._gauge("score_reference_positives", "Positive validation rows, by bin.", by_bin)
        edges = self._gauge("score_bin_lower_edge", "Lower edge of each score bin.", by_bin)
        weights = self._gauge(
            "score_bin_pair_weight",
            "What a positive row in pos_bin against a negative in neg_bin adds to ROC AUC: 1 above, 0.5 in"
            " the same bin. Pairs that add 0 are left out.",
            ("pos_bin", "neg_bin", "model_version"),
        )
        if reference is None:
            return
        score = reference.score
        for index, label in enumerate(bins):
            rows.labels(label, self.version).set(score.counts[index])
            risks.labels(label, self.version).set(score.sums[index])
            positives.labels(label, self.version).set(score.positives[index])
            edges.labels(label, self.version).set(score.edges[index])
            for lower in bins[:index]:
                weights.labels(label, lower, self.version).set(1.0)
            weights.labels(label, label, self.version).set(0.5)

    def _feedback(self) -> None:
        labels = ("bin", "outcome", "model_version")
        self._labels = self._counter(
            "feedback_total",
            "Late labels accepted, by score bin of the prediction, outcome and version that predicted.",
            labels,
        )
        self._label_risks = self._counter(
            "feedback_risk_sum_total", "Sum of the labelled rows' own predicted risks.", labels
        )
        self._label_squares = self._counter(
            "feedback_squared_risk_sum_total", "Sum of the squares of those risks.", labels
        )
        self._label_delay = self._histogram(
            "feedback_delay_seconds",
            "From prediction to label, accepted labels.",
            DELAY_BUCKETS,
            ("model_version",),
        )
        self.feedback = {version: self.feedback_version(version) for version in (self.version, OTHER_VERSION)}
        self.feedback_refused = self._by(
            "feedback_refused_total", "Late labels refused, by reason.", "reason", FEEDBACK_REFUSALS
        )
        self.tokens = self._counter("tokens_total", "Answers that carried a feedback token.")
        self.tokens_omitted = self._by(
            "tokens_omitted_total", "Answers with predictions and no token.", "reason", TOKEN_OMISSIONS
        )

    def feedback_version(self, version: str) -> FeedbackCounters:
        """Children, at 0 if new, of the labels for one model version; the caller bounds the versions."""

        def grid(family: Counter) -> tuple[tuple[Counter, ...], ...]:
            return tuple(
                tuple(family.labels(score_bin_label(index), outcome, version) for outcome in OUTCOMES)
                for index in range(self.score_bins)
            )

        return FeedbackCounters(
            grid(self._labels),
            grid(self._label_risks),
            grid(self._label_squares),
            self._label_delay.labels(version),
        )

    def _model(self, reference: Reference | None) -> None:
        info = self._gauge(
            "info",
            "Which model is served; always 1.",
            ("name", "model_version", "run_id", "family", "digest", "data_kind", "synthetic"),
        )
        trained = self._gauge("trained_timestamp_seconds", "When the model was trained.", ("model_version",))
        threshold = self._gauge(
            "decision_threshold", "Risk from which a row is predicted positive.", ("model_version",)
        )
        floor = self._gauge(
            "floor", "Lowest value that the schema's gates allow.", ("metric", "model_version")
        )
        validation = self._gauge(
            "validation", "The model on its validation rows.", ("metric", "model_version")
        )
        loaded = self._gauge("reference_loaded", "1 if a reference is loaded, else 0.")
        self.golden_rows_match = self._gauge(
            "golden_rows_match",
            "1 if the container answers the reference's golden rows as the trained model did, 0 if not or not"
            " known yet.",
        )
        self.collector_failures = self._by(
            "collector_failures_total",
            "What the sidecar itself could not observe, by part; forwarding is not touched by it.",
            "part",
            COLLECTOR_PARTS,
        )
        loaded.set(reference is not None)
        if reference is None:
            return
        model = reference.model
        info.labels(
            model.name,
            self.version,
            model.run_id,
            model.family,
            model.digest,
            str(reference.data.get("kind", "")),
            str(model.synthetic).lower(),
        ).set(1)
        trained.labels(self.version).set(model.trained_at)
        threshold.labels(self.version).set(reference.score.threshold)
        for metric, value in reference.floors.items():
            floor.labels(metric, self.version).set(value)
        for metric, value in reference.validation.items():
            if isinstance(value, int | float):
                validation.labels(metric, self.version).set(value)
