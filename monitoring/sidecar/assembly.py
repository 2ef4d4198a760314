"""The parts of the sidecar put together, so that they start and stop in one order."""

import threading
from typing import NamedTuple

import waitress
from flask import Flask
from prometheus_client import CollectorRegistry

from monitoring.reference import Reference
from monitoring.sidecar import model_check
from monitoring.sidecar.counting import Observer
from monitoring.sidecar.endpoints import Readiness, create_app, create_metrics_app
from monitoring.sidecar.feedback import Feedback
from monitoring.sidecar.listener import Server
from monitoring.sidecar.metrics import Metrics
from monitoring.sidecar.model_client import Upstream
from monitoring.sidecar.proxy import Proxy
from monitoring.sidecar.settings import Settings

DAY = 86_400
UNKNOWN_VERSION = "unknown"


class Sidecar(NamedTuple):
    """The parts; `run` serves with all of them until `server.stop()`."""

    settings: Settings
    reference: Reference | None
    metrics: Metrics
    upstream: Upstream
    observer: Observer
    proxy: Proxy
    app: Flask
    server: Server
    metrics_server: waitress.server.BaseWSGIServer

    def run(self) -> None:
        """Serve until stopped, and count the last answers before returning."""
        stopped = threading.Event()
        threading.Thread(target=self.metrics_server.run, name="metrics", daemon=True).start()
        threading.Thread(
            target=model_check.watch,
            args=(self.reference, self.upstream, self.metrics, stopped),
            name="model-check",
            daemon=True,
        ).start()
        self.observer.start()
        self.proxy.start()
        self.server.run()
        stopped.set()
        self.proxy.close()
        self.observer.stop()


def assemble(settings: Settings, reference: Reference | None) -> Sidecar:
    """The parts for these settings; both ports are bound, nothing runs yet.

    Raises OSError if a port cannot be bound.
    """
    metrics = Metrics(CollectorRegistry(), reference, version(settings, reference))
    upstream = Upstream(settings.upstream, settings.connect_seconds, settings.timeout_seconds)
    metrics.upstream_contact.set_function(lambda: upstream.answered_at)
    observer = Observer(metrics, reference, settings.observer_items)
    proxy = Proxy(settings, reference, metrics, observer, upstream)
    labels = None
    if reference is not None and settings.feedback_keys:
        labels = Feedback(
            metrics,
            reference.model.name,
            settings.feedback_keys,
            lifetime=settings.feedback_days * DAY,
            versions=settings.feedback_versions,
            memory=settings.feedback_memory,
        )
    app = create_app(settings, metrics, proxy, labels)
    server = Server(app, settings, metrics, proxy)
    ready = Readiness(lambda: model_check.answers_ping(upstream), lambda: server.is_stopping)
    metrics_server = waitress.create_server(
        create_metrics_app(metrics, labels, lambda: server.is_alive, ready),
        host=settings.metrics_host,
        port=settings.metrics_port,
        threads=2,
        ident=None,
    )
    return Sidecar(settings, reference, metrics, upstream, observer, proxy, app, server, metrics_server)


def version(settings: Settings, reference: Reference | None) -> str:
    """The registered version: the setting, else the reference's, else the start of its run's id."""
    if settings.model_version:
        return settings.model_version
    if reference is None:
        return UNKNOWN_VERSION
    return reference.model.version or reference.model.run_id[:8] or UNKNOWN_VERSION
