"""Build the sidecar from its parts, and start and stop them in order."""

import asyncio
import contextlib
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from monitoring.reference import Reference
from monitoring.sidecar import model_check
from monitoring.sidecar.answers import Answer
from monitoring.sidecar.budget import PARSED_FACTOR, Budget
from monitoring.sidecar.counting import Observer
from monitoring.sidecar.endpoints import traffic_routes
from monitoring.sidecar.feedback import Feedback
from monitoring.sidecar.metrics import Metrics
from monitoring.sidecar.model_client import Upstream
from monitoring.sidecar.operations import OperationsServer, create_app
from monitoring.sidecar.proxy import Proxy
from monitoring.sidecar.server import Count, Limits, Server, listen
from monitoring.sidecar.settings import Settings

DAY = 86_400
UNKNOWN_VERSION = "unknown"
# Threads for slow work: large bodies and labels.
POOL_THREADS = 3
# How long the metrics port waits for the event loop to report whether the container answers.
READY_SECONDS = 5.0


class Sidecar(NamedTuple):
    """The parts; `run` serves with all of them until `server.stop()`."""

    settings: Settings
    metrics: Metrics
    observer: Observer
    server: Server
    metrics_server: OperationsServer
    upstream: Upstream
    labels: Feedback | None
    reference: Reference | None
    pool: ThreadPoolExecutor

    async def run(self) -> None:
        """Serve until stopped, and count the last answers before returning."""
        self.observer.start()
        self.metrics_server.start()
        watching = asyncio.create_task(model_check.watch(self.reference, self.upstream, self.metrics))
        await self.server.run()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        self.upstream.close()
        self.observer.stop()
        if self.labels is not None:
            self.labels.stop()
        self.metrics_server.stop()
        self.pool.shutdown()


def assemble(settings: Settings, reference: Reference | None, page: bytes | None = None) -> Sidecar:
    """Build the parts for these settings and bind both ports; nothing runs yet. `page` is shown at /.

    Raises OSError if a port cannot be bound.
    """
    metrics = Metrics(CollectorRegistry(), reference, version(settings, reference))
    budget = Budget(settings.buffer_bytes)
    pool = ThreadPoolExecutor(POOL_THREADS)
    upstream = Upstream(
        settings.upstream,
        connect_seconds=settings.connect_seconds,
        timeout_seconds=settings.timeout_seconds,
        answer_bytes=settings.body_bytes,
    )
    observer = Observer(
        metrics,
        reference,
        settings.observer_items,
        budget=budget,
        parsed_bytes=PARSED_FACTOR * settings.body_bytes,
        lot_rows=settings.lot_rows,
    )
    proxy = Proxy(settings, reference, metrics, observer, upstream, budget, pool)
    labels = None
    if reference is not None and settings.feedback_keys:
        labels = Feedback(
            metrics,
            reference.model.name,
            settings.feedback_keys,
            lifetime=settings.feedback_days * DAY,
            versions=settings.feedback_versions,
            memory=settings.feedback_memory,
            lot_rows=settings.lot_rows,
        )
    server = Server(
        listen(settings.host, settings.port),
        traffic_routes(settings, metrics, proxy, labels, page, pool),
        Limits(settings.connections, settings.requests, settings.body_bytes, settings.grace_seconds),
        budget,
        _counting(metrics),
    )

    def is_ready() -> bool:
        ping = functools.partial(model_check.answers_ping, upstream)
        return not server.is_stopping and server.ask(ping, READY_SECONDS)

    metrics_server = OperationsServer(
        create_app(metrics, labels, lambda: server.is_alive, is_ready),
        listen(settings.metrics_host, settings.metrics_port),
    )
    metrics.upstream_contact.set_function(lambda: upstream.answered_at)
    metrics.connections.set_function(lambda: server.connections)
    return Sidecar(settings, metrics, observer, server, metrics_server, upstream, labels, reference, pool)


def _counting(metrics: Metrics) -> Count:
    """Counts the answers of the traffic port by endpoint and status, and refusals by reason."""

    def count(name: str, answer: Answer) -> None:
        metrics.requests[name][f"{answer.status // 100}xx"].inc()
        if answer.refused:
            metrics.refused[answer.refused].inc()
            if name == "feedback" and answer.refused in ("unauthorized", "too_large"):
                metrics.feedback_refused[answer.refused].inc()

    return count


def version(settings: Settings, reference: Reference | None) -> str:
    """The registered version: the setting, else the reference's, else the start of its run's id."""
    if settings.model_version:
        return settings.model_version
    if reference is None:
        return UNKNOWN_VERSION
    return reference.model.version or reference.model.run_id[:8] or UNKNOWN_VERSION
