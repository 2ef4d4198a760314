"""The paths of the traffic port."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from monitoring.sidecar import feedback, payloads
from monitoring.sidecar.answers import Answer, document, refusal
from monitoring.sidecar.budget import COPIES
from monitoring.sidecar.feedback import Feedback
from monitoring.sidecar.http1 import Fields
from monitoring.sidecar.metrics import Metrics
from monitoring.sidecar.proxy import Proxy
from monitoring.sidecar.server import Request, Route
from monitoring.sidecar.settings import Settings

READ_ONLY = ("GET", "HEAD")
# The page's own head limits what it may load; no other page may frame it, and no cache keeps it.
PAGE_FIELDS: Fields = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-cache"),
)


def traffic_routes(
    settings: Settings,
    metrics: Metrics,
    proxy: Proxy,
    labels: Feedback | None,
    page: bytes | None,
    pool: Executor,
) -> dict[str, Route]:
    """The container's paths, /feedback if feedback keys are set, and / if there is a page to show."""
    bearers = settings.bearer_token

    def asks(path: str) -> Callable[[Request], Awaitable[Answer]]:
        return lambda request: proxy.ask(path, request)

    routes = {
        "/invocations": Route("invocations", ("POST",), proxy.predict, bearers),
        "/ping": Route("ping", READ_ONLY, asks("/ping"), bearers),
        "/health": Route("health", READ_ONLY, asks("/ping"), bearers),
        "/version": Route("version", READ_ONLY, asks("/version"), bearers),
    }
    if page is not None:
        answer = Answer(200, "OK", PAGE_FIELDS, page)

        async def show(_: Request) -> Answer:
            return answer

        routes["/"] = Route("page", READ_ONLY, show)
    if labels is None:
        return routes

    async def take(request: Request) -> Answer:
        request.held.grow(payloads.parsed_bytes(payloads.JSON_TYPE, request.body) // COPIES)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, _take_labels, request.body, settings, metrics, labels)

    routes["/feedback"] = Route("feedback", ("POST",), take, settings.feedback_bearer_token)
    return routes


def _take_labels(body: bytes, settings: Settings, metrics: Metrics, labels: Feedback) -> Answer:
    try:
        reported = feedback.parse(body, settings.feedback_labels)
    except feedback.MalformedError as error:
        metrics.feedback_refused["malformed"].inc()
        return refusal("malformed", f"Labels could not be read: {error}.")
    result = labels.take(reported)
    status, phrase = (200, "OK") if result.accepted else (422, "Unprocessable Content")
    return document(status, phrase, feedback.reply(result))
