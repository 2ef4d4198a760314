"""The metrics port: a Flask application on waitress, which callers cannot reach.

/metrics in the scraper's format; /live, whether the sidecar works; /ready, whether the container would answer
a request.
"""

import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

import waitress
from flask import Flask, Response, jsonify, request
from prometheus_client import make_wsgi_app
from waitress import wasyncore
from waitress.trigger import trigger
from werkzeug.wrappers import Response as BaseResponse

from monitoring.sidecar.feedback import Feedback
from monitoring.sidecar.metrics import Metrics

THREADS = 2
CONNECTIONS = 50
SILENT_SECONDS = 30
HEAD_BYTES = 8_192


def create_app(
    metrics: Metrics, labels: Feedback | None, is_alive: Callable[[], bool], is_ready: Callable[[], bool]
) -> Flask:
    """The three pages; everything else is 404."""
    app = Flask(__name__, static_folder=None)
    exposition = make_wsgi_app(metrics.registry)

    @app.get("/metrics")
    def expose() -> BaseResponse:
        unread = labels.unseen() if labels else ()
        page = BaseResponse.from_app(exposition, request.environ, buffered=True)
        if labels:
            labels.seen(unread)
        return page

    @app.get("/live")
    def live() -> tuple[Response, int]:
        return _state("live", is_alive())

    @app.get("/ready")
    def ready() -> tuple[Response, int]:
        return _state("ready", is_ready())

    return app


def _state(name: str, holds: bool) -> tuple[Response, int]:
    return jsonify({name: holds}), 200 if holds else 503


class OperationsServer:
    """Serves an application on a bound socket, on its own threads, from `start` to `stop`."""

    def __init__(self, app: Flask, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self._app, self._listener = app, listener
        self._parts: dict[int, Any] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve; returns at once."""
        logging.getLogger("waitress").setLevel(logging.ERROR)  # its warnings tell of a short queue
        server = waitress.create_server(
            self._app,
            map=self._parts,
            sockets=[self._listener],
            threads=THREADS,
            connection_limit=CONNECTIONS,
            channel_timeout=SILENT_SECONDS,
            max_request_header_size=HEAD_BYTES,
            max_request_body_size=1,
            ident=None,
        )
        self._thread = threading.Thread(target=server.run, name="operations", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections; returns when they are closed."""
        if self._thread is None:
            self._listener.close()
            return
        wake = next(part for part in self._parts.values() if isinstance(part, trigger))
        wake.pull_trigger(lambda: wasyncore.close_all(self._parts))
        self._thread.join()
