"""What is served where: the table of paths of the traffic port, and that of the metrics port."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from prometheus_client import make_wsgi_app

from monitoring.sidecar import feedback, payloads
from monitoring.sidecar.answers import Answer, document, refusal
from monitoring.sidecar.budget import COPIES
from monitoring.sidecar.feedback import Feedback
from monitoring.sidecar.metrics import Metrics
from monitoring.sidecar.proxy import Proxy
from monitoring.sidecar.server import Request, Route
from monitoring.sidecar.settings import Settings

READ_ONLY = ("GET", "HEAD")


def traffic_routes(
    settings: Settings, metrics: Metrics, proxy: Proxy, labels: Feedback | None, pool: Executor
) -> dict[str, Route]:
    """The traffic port: the container's paths, and /feedback if feedback keys are set."""
    bearers = settings.bearer_token

    def asks(path: str) -> Callable[[Request], Awaitable[Answer]]:
        return lambda request: proxy.ask(path, request)

    routes = {
        "/invocations": Route("invocations", ("POST",), proxy.predict, bearers),
        "/ping": Route("ping", READ_ONLY, asks("/ping"), bearers),
        "/health": Route("health", READ_ONLY, asks("/ping"), bearers),
        "/version": Route("version", READ_ONLY, asks("/version"), bearers),
    }
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
        found = feedback.parse(body, settings.feedback_labels)
    except feedback.MalformedError as error:
        metrics.feedback_refused["malformed"].inc()
        return refusal("malformed", f"Labels could not be read: {error}.")
    result = labels.take(found)
    status, phrase = (200, "OK") if result.accepted else (422, "Unprocessable Content")
    return document(status, phrase, feedback.reply(result))


def metrics_routes(
    metrics: Metrics,
    labels: Feedback | None,
    pool: Executor,
    is_alive: Callable[[], bool],
    is_ready: Callable[[], Awaitable[bool]],
) -> dict[str, Route]:
    """The metrics port: /metrics in the format that the scraper asks for; /live, whether the sidecar works;
    /ready, whether a request would be answered by the container."""

    async def expose(request: Request) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, _exposition, request, metrics, labels)

    async def live(_: Request) -> Answer:
        return _state("live", is_alive())

    async def ready(_: Request) -> Answer:
        return _state("ready", await is_ready())

    return {
        "/metrics": Route("metrics", READ_ONLY, expose),
        "/live": Route("live", READ_ONLY, live),
        "/ready": Route("ready", READ_ONLY, ready),
    }


def _exposition(request: Request, metrics: Metrics, labels: Feedback | None) -> Answer:
    """The page of the metrics, by prometheus_client's own WSGI application."""
    unread = labels.unseen() if labels else ()
    values = request.head.values
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/metrics",
        "QUERY_STRING": request.head.query,
        "HTTP_ACCEPT": values.get("accept", ""),
        "HTTP_ACCEPT_ENCODING": values.get("accept-encoding", ""),
    }
    fields: list[tuple[str, str]] = []
    body = b"".join(make_wsgi_app(metrics.registry)(environ, lambda _, found: fields.extend(found)))
    if labels:
        labels.seen(unread)
    return Answer(200, "OK", fields, body)


def _state(name: str, holds: bool) -> Answer:
    status, phrase = (200, "OK") if holds else (503, "Service Unavailable")
    return document(status, phrase, {name: holds})


class Readiness:
    """Asks the container's /ping, at most once a second, and says no while the sidecar stops."""

    def __init__(
        self, ping: Callable[[], Awaitable[bool]], is_stopping: Callable[[], bool], seconds: float = 1.0
    ) -> None:
        self._ping = ping
        self._is_stopping = is_stopping
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")
        self._answered = False

    async def __call__(self) -> bool:
        """Whether a request would be answered now."""
        if self._is_stopping():
            return False
        async with self._lock:
            if time.monotonic() - self._asked_at >= self._seconds:
                self._answered = await self._ping()
                self._asked_at = time.monotonic()
            return self._answered
