"""Whether the container serves the model that the reference describes: it is asked for the golden rows."""

import json
import logging
import threading

from monitoring.reference import Golden, Reference
from monitoring.sidecar import payloads
from monitoring.sidecar.metrics import Metrics
from monitoring.sidecar.model_client import Upstream, UpstreamError

TOLERANCE = 1e-6
RETRY_SECONDS = 2.0
REPEAT_SECONDS = 300.0
ANSWER_SECONDS = 30.0

log = logging.getLogger(__name__)


def rows_match(golden: Golden, answer: bytes) -> bool:
    """Whether an answer's risks are those of the golden rows, to within 1e-6."""
    found = payloads.predictions(answer)
    if found is None or len(found) != len(golden.scores):
        return False
    risks = [payloads.risk(prediction.value) for prediction in found]
    return all(
        risk is not None and abs(risk - score) <= TOLERANCE
        for risk, score in zip(risks, golden.scores, strict=True)
    )


def check(reference: Reference, upstream: Upstream, metrics: Metrics) -> bool:
    """Ask once and export the result; False if the container gave no answer."""
    golden = reference.golden
    body = json.dumps({"dataframe_split": {"columns": golden.columns, "data": golden.rows}}).encode()
    headers = (("Content-Type", "application/json"),)
    try:
        answer = upstream.send("POST", "/invocations", headers, body, ANSWER_SECONDS)
    except UpstreamError:
        return False
    matches = answer.status == 200 and rows_match(golden, answer.body)
    metrics.golden_rows_match.set(matches)
    if not matches:
        metrics.collector_failures["golden"].inc()
        log.error("the container does not answer the golden rows as the reference's model did")
    return True


def keep_checking(
    reference: Reference, upstream: Upstream, metrics: Metrics, stopped: threading.Event
) -> None:
    """Ask until the container answers, and then every five minutes: it may come back as another model."""
    while not stopped.is_set():
        answered = check(reference, upstream, metrics)
        stopped.wait(REPEAT_SECONDS if answered else RETRY_SECONDS)
