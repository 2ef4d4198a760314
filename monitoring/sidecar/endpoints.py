"""The Flask application of the traffic port, and the small one of the metrics port."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Response, request
from prometheus_client import make_wsgi_app
from werkzeug.exceptions import HTTPException

from monitoring.sidecar import feedback
from monitoring.sidecar.answers import Answer, refusal
from monitoring.sidecar.feedback import Feedback
from monitoring.sidecar.metrics import Metrics
from monitoring.sidecar.proxy import FEEDBACK_PATH, PATHS, Exchange, Proxy, Request
from monitoring.sidecar.settings import Settings

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
HTTP_REASONS = {404: "not_found", 405: "method", 413: "too_large"}


def create_app(settings: Settings, metrics: Metrics, proxy: Proxy, labels: Feedback | None) -> Flask:
    """The traffic port: the container's three paths and /feedback (404 if no feedback keys are set).

    The server takes the container's paths to the proxy before a thread is given to them; the routes here do
    the same for any other WSGI server.
    """
    app = Flask("model-exporter", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.body_bytes

    def forward() -> Response:
        settled = threading.Event()
        exchange = Exchange(
            Request(
                request.method,
                request.path,
                request.query_string.decode("latin-1"),
                {name.upper().replace("-", "_"): value for name, value in request.headers.items()},
                request.get_data(cache=False),
                (request.environ.get("REMOTE_ADDR"), request.environ.get("REMOTE_PORT")),
            ),
            lambda _: settled.set(),
        )
        if proxy.submit(exchange):
            settled.wait()
        return _response(exchange.answer or refusal("internal"))

    for path, name in PATHS.items():
        app.add_url_rule(path, name, forward, methods=METHODS, provide_automatic_options=False)

    @app.post(FEEDBACK_PATH)
    def take_feedback() -> Response:
        if labels is None:
            return refuse("not_found")
        bearer = settings.feedback_bearer_token
        if bearer and not feedback.bearer_matches(request.headers.get("Authorization", ""), bearer):
            metrics.feedback_refused["unauthorized"].inc()
            return refuse("unauthorized")
        try:
            found = feedback.parse(request.get_data(cache=False), settings.feedback_labels)
        except feedback.MalformedError as error:
            metrics.feedback_refused["malformed"].inc()
            metrics.refused["malformed"].inc()
            return _response(refusal("malformed", f"Labels could not be read: {error}."))
        result = labels.take(found)
        return _json(200 if result.accepted else 422, feedback.reply(result))

    @app.errorhandler(HTTPException)
    def refuse_http(error: HTTPException) -> Response:
        reason = HTTP_REASONS.get(error.code or 500, "malformed")
        if request.path == FEEDBACK_PATH and reason == "too_large":
            metrics.feedback_refused[reason].inc()
        return refuse(reason)

    @app.errorhandler(Exception)
    def refuse_failure(error: Exception) -> Response:
        app.logger.error("%s failed: %s", request.endpoint, type(error).__name__)
        return refuse("internal")

    @app.after_request
    def count(response: Response) -> Response:
        if request.path not in PATHS:
            endpoint = "feedback" if request.path == FEEDBACK_PATH else "other"
            metrics.requests[endpoint][f"{response.status_code // 100}xx"].inc()
        return response

    def refuse(reason: str) -> Response:
        metrics.refused[reason].inc()
        return _response(refusal(reason))

    return app


def create_metrics_app(
    metrics: Metrics,
    labels: Feedback | None,
    is_alive: Callable[[], bool],
    is_ready: Callable[[], bool],
) -> WSGIApplication:
    """The metrics port: /metrics in the format that the scraper asks for; /live, whether the sidecar works;
    /ready, whether a request would be answered by the container."""
    exposition = make_wsgi_app(metrics.registry)
    states = {"/live": is_alive, "/ready": is_ready}

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            new = labels.unseen() if labels else ()
            exposed: Iterable[bytes] = exposition(environ, start_response)
            if labels:
                labels.seen(new)
            return exposed
        if path in states:
            holds = states[path]()
            status, document = (
                ("200 OK" if holds else "503 Service Unavailable"),
                json.dumps({path[1:]: holds}),
            )
        else:
            status, document = "404 Not Found", json.dumps({"error_code": "NOT_FOUND"})
        start_response(status, [("Content-Type", "application/json")])
        return [document.encode()]

    return serve


class Readiness:
    """Asks the container's /ping, at most once a second, and says no while the sidecar stops."""

    def __init__(
        self, ping: Callable[[], bool], is_stopping: Callable[[], bool], seconds: float = 1.0
    ) -> None:
        self._ping = ping
        self._is_stopping = is_stopping
        self._seconds = seconds
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._answered = False

    def __call__(self) -> bool:
        """Whether a request would be answered now."""
        if self._is_stopping():
            return False
        with self._lock:
            if time.monotonic() - self._asked_at >= self._seconds:
                self._answered = self._ping()
                self._asked_at = time.monotonic()
            return self._answered


def _response(answer: Answer) -> Response:
    response = Response(answer.body, status=f"{answer.status} {answer.phrase}")
    response.headers.clear()
    response.headers.extend((*answer.headers, *answer.added))
    response.headers["Content-Length"] = str(len(answer.body))
    return response


def _json(status: int, document: object) -> Response:
    return Response(json.dumps(document), status, content_type="application/json")
