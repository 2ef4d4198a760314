"""`python -m monitoring.exporter`: the sidecar, until SIGTERM or SIGINT. Exit code 2 for bad settings."""

import logging
import os
import signal
import sys
import threading
import time

import prometheus_client
import waitress
from prometheus_client import CollectorRegistry

from monitoring.exporter import golden, reference, settings
from monitoring.exporter.app import Readiness, create_app, create_metrics_app
from monitoring.exporter.feedback import Feedback
from monitoring.exporter.metrics import Metrics
from monitoring.exporter.observer import Observer
from monitoring.exporter.proxy import Proxy
from monitoring.exporter.server import QuietRecords, Server
from monitoring.exporter.upstream import Upstream, UpstreamError

DAY = 86_400
PING_SECONDS = 2.0
SWITCH_SECONDS = 0.0005
UNKNOWN_VERSION = "unknown"


def main() -> int:
    """Run the sidecar; the exit code."""
    try:
        chosen = settings.read(os.environ)
        known = reference.load(chosen.reference) if chosen.reference else None
    except (settings.SettingsError, reference.ReferenceError) as error:
        print(error, file=sys.stderr)
        return 2
    logging.basicConfig(level=chosen.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("waitress").addFilter(QuietRecords())
    sys.setswitchinterval(SWITCH_SECONDS)  # a thread with an answer to pass on must not wait 5 ms for another
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

    metrics = Metrics(CollectorRegistry(), known, version(chosen, known))
    upstream = Upstream(chosen.upstream, chosen.connect_seconds, chosen.timeout_seconds)
    observer = Observer(metrics, known, chosen.observer_items)
    proxy = Proxy(chosen, known, metrics, observer, upstream)
    labels = None
    if known is not None and chosen.feedback_keys:
        labels = Feedback(
            metrics,
            known.model.name,
            chosen.feedback_keys,
            lifetime=chosen.feedback_days * DAY,
            versions=chosen.feedback_versions,
            memory=chosen.feedback_memory,
        )
    server = Server(create_app(chosen, metrics, proxy, labels), chosen, metrics, proxy)
    stopped = threading.Event()

    def ping() -> bool:
        try:
            return upstream.send("GET", "/ping", (), b"", PING_SECONDS).status == 200
        except UpstreamError:
            return False

    inner = waitress.create_server(
        create_metrics_app(metrics, lambda: server.is_alive, Readiness(ping, lambda: server.is_stopping)),
        host=chosen.metrics_host,
        port=chosen.metrics_port,
        threads=2,
        ident=None,
    )
    threading.Thread(target=inner.run, name="metrics", daemon=True).start()
    if known is not None and known.golden.rows:
        threading.Thread(
            target=golden.keep_checking,
            args=(known, upstream, metrics, stopped),
            name="golden",
            daemon=True,
        ).start()
    observer.start()
    proxy.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    logging.info("serving %s on %s:%d", chosen.upstream, chosen.host, chosen.port)

    began = time.monotonic()
    server.run()
    stopped.set()
    proxy.close()
    observer.stop()
    logging.info("stopped after %.0f s", time.monotonic() - began)
    return 0


def version(chosen: settings.Settings, known: reference.Reference | None) -> str:
    """The registered version: the setting, else the reference's, else the start of its run's id."""
    if chosen.model_version:
        return chosen.model_version
    if known is None:
        return UNKNOWN_VERSION
    return known.model.version or known.model.run_id[:8] or UNKNOWN_VERSION


if __name__ == "__main__":
    sys.exit(main())
