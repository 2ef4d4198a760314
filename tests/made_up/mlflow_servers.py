"""A real MLflow server, and a proxy before it that misbehaves: for tests of remote tracking."""

from __future__ import annotations

import base64
import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.made_up.ports import free_port

# What DagsHub's server knows of MLflow's interface.
DAGSHUB = re.compile(
    r"/health|/version"
    r"|/api/2\.0/mlflow/experiments/.*"
    r"|/api/2\.0/mlflow/runs/(create|update|delete|restore|get|search|log-metric|log-parameter|log-batch|set-tag|delete-tag)"
    r"|/api/2\.0/mlflow/metrics/get-history"
    r"|/api/2\.0/mlflow/artifacts/list"
    r"|/api/2\.0/mlflow-artifacts/artifacts.*"
    r"|/api/2\.0/mlflow/(registered-models|model-versions)/.*"
)
ADMIN, PASSWORD = "admin", "correct horse battery"


@contextmanager
def mlflow_server(folder: Path, *, basic_auth: bool = False) -> Iterator[str]:
    """The address of a real `mlflow server` with its store in a folder, with a password if asked."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
    if basic_auth:
        settings = folder / "auth.ini"
        settings.write_text(
            "[mlflow]\ndefault_permission = READ\n"
            f"database_uri = sqlite:///{folder / 'auth.db'}\n"
            f"admin_username = {ADMIN}\nadmin_password = {PASSWORD}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
            encoding="utf-8",
        )
        command += ["--app-name", "basic-auth"]
        environment |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "for a test only",
        }
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        assert process.poll() is None, log.read_text()
        yield address
    finally:
        process.terminate()
        process.wait()


@dataclass
class Proxy:
    """A proxy before a server: passes on what `allowed` says, until it is `dead`; counts and remembers."""

    upstream: str
    allowed: Callable[[str, str], bool] = lambda method, path: True
    password: str | None = None
    dead: bool = False
    dies_at: str | None = None
    refused: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    address: str = ""


@contextmanager
def proxy(settings: Proxy) -> Iterator[Proxy]:
    """The proxy at work; `settings` may be changed meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            settings.bodies.append(body)
            path = self.path.partition("?")[0]
            if settings.dies_at is not None and settings.dies_at.encode() in body:
                settings.dead = True
            if settings.dead:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if settings.password is not None and not self._may_pass(settings.password):
                self._answer(401, b"You are not authenticated.", {"WWW-Authenticate": "Basic"})
                return
            if not settings.allowed(self.command, path):
                settings.refused.append(path)
                self._answer(404, b'{"error": "unsupported endpoint"}', {"Content-Type": "application/json"})
                return
            connection = http.client.HTTPConnection(settings.upstream.removeprefix("http://"), timeout=60)
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in ("connection", "host", "accept-encoding", "transfer-encoding")
            }
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
            kept = {
                n: v for n, v in answer.getheaders() if n.lower() in ("content-type", "content-disposition")
            }
            connection.close()
            self._answer(answer.status, content, kept)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET  # noqa: N815

        def _may_pass(self, password: str) -> bool:
            wanted = base64.b64encode(f"{ADMIN}:{password}".encode()).decode()
            return self.headers.get("Authorization") == f"Basic {wanted}"

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    settings.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield settings
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
