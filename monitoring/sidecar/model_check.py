"""Whether the container answers, and whether it serves the model of the reference.

The container is asked for the golden rows at the start, every five minutes, after each silence (it may have
restarted with another model), and every 15 s while its answer is wrong. It is pinged after 15 s without an
answer, to distinguish a model that is down from one without requests.
"""

import asyncio
import json
import logging
import time

from monitoring.reference import Golden, Reference
from monitoring.sidecar import payloads
from monitoring.sidecar.metrics import Metrics
from monitoring.sidecar.model_client import Upstream, UpstreamError

TOLERANCE = 1e-6
MOST_BYTES = 1_000_000
ANSWER_SECONDS = 30.0
PING_SECONDS = 2.0
SILENCE_SECONDS = 15.0
RETRY_SECONDS = 2.0
REPEAT_SECONDS = 300.0

log = logging.getLogger(__name__)


def rows_match(golden: Golden, answer: bytes) -> bool:
    """Whether an answer's risks equal those of the golden rows within 1e-6."""
    predictions = payloads.predicted_values(answer, MOST_BYTES)
    if predictions is None or len(predictions) != len(golden.scores):
        return False
    risks = [payloads.risk(value) for value in predictions]
    return all(
        risk is not None and abs(risk - score) <= TOLERANCE
        for risk, score in zip(risks, golden.scores, strict=True)
    )


async def check(golden: Golden, upstream: Upstream, metrics: Metrics) -> bool | None:
    """Ask for the golden rows, export and return whether they match; None if the container does not answer.

    An answer other than 200 is no match.
    """
    body = json.dumps({"dataframe_split": {"columns": golden.columns, "data": golden.rows}}).encode()
    headers = (("Content-Type", "application/json"),)
    try:
        answer = await upstream.send("POST", "/invocations", headers, body, _unbounded, ANSWER_SECONDS)
    except UpstreamError:
        metrics.set_golden_rows_match(None)
        return None
    matches = answer.status == 200 and rows_match(golden, answer.body)
    metrics.set_golden_rows_match(matches)
    if not matches:
        metrics.observation_failures["golden"].inc()
    return matches


async def answers_ping(upstream: Upstream) -> bool:
    """Whether the container answers /ping now, with status 200."""
    try:
        return (await upstream.send("GET", "/ping", (), b"", _unbounded, PING_SECONDS)).status == 200
    except UpstreamError:
        return False


def _unbounded(_: int) -> None:
    """Reserve nothing: the answers to the sidecar's own requests are few."""


async def watch(reference: Reference | None, upstream: Upstream, metrics: Metrics) -> None:
    """Check the container again and again, until cancelled.

    What does not match is asked about again soon: one wrong answer, as of a model that loads, is no wrong
    model.
    """
    golden = reference.golden if reference is not None and reference.golden.rows else None
    check_at = time.monotonic()
    matched = True
    while True:
        is_there = True
        if golden is not None and time.monotonic() >= check_at:
            matches = await check(golden, upstream, metrics)
            is_there = matches is not None
            check_at = time.monotonic() + (REPEAT_SECONDS if matches else 0.0)
            if matches is not None and matches != matched:
                matched = matches
                _log_change(matches)
        elif time.time() - upstream.answered_at >= SILENCE_SECONDS:
            is_there = await answers_ping(upstream)
            if not is_there:
                metrics.set_golden_rows_match(None)
                check_at = time.monotonic()
        await asyncio.sleep(SILENCE_SECONDS if is_there else RETRY_SECONDS)


def _log_change(matches: bool) -> None:
    if matches:
        log.info("the container answers the golden rows as the reference's model did again")
    else:
        log.error("the container does not answer the golden rows as the reference's model did")
