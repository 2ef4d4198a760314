"""Containers for the sidecar to stand before: MLflow's real server, and scripted ones for faults."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitoring.reference import Reference, load, parse
from monitoring.sidecar.assembly import Sidecar, assemble
from monitoring.sidecar.settings import Settings
from tests.made_up.ports import free_port as free_port

JSON = {"Content-Type": "application/json"}
KEYS = ("first-key-0123456789", "second-key-0123456789")
PATIENCE = 60.0


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait, as long as a slow machine may need, until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


@dataclass(frozen=True)
class Reply:
    """Status, headers (lower case names) and body of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int,
    method: str = "POST",
    path: str = "/invocations",
    body: bytes | str = b"",
    headers: dict[str, str] | None = None,
) -> Reply:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        content = body.encode() if isinstance(body, str) else body
        connection.request(method, path, content, JSON if headers is None else headers)
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, fields, answer.read())
    finally:
        connection.close()


def say(port: int, wire: bytes) -> bytes:
    """Send bytes as they are, half-close, and read until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(wire)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except ConnectionResetError:
            pass
        return received


def headers_of(head: bytes) -> dict[str, str]:
    """Fields of a head, names in small letters."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


@dataclass
class Running:
    """A sidecar that serves in this process."""

    sidecar: Sidecar
    thread: threading.Thread
    port: int
    stopped: bool = False

    def ask(self, *args: Any, **kwargs: Any) -> Reply:
        return ask(self.port, *args, **kwargs)

    def samples(self) -> dict[str, float]:
        """Every sample by `name{label="value",...}`, after what was answered has been counted."""
        self.sidecar.observer.drain()
        return samples(self.sidecar)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name with these labels."""
        self.sidecar.observer.drain()
        return sum(
            sample.value
            for family in self.sidecar.metrics.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def stop(self) -> None:
        self.sidecar.server.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the sidecar does not stop"
        self.stopped = True


def samples(sidecar: Sidecar) -> dict[str, float]:
    from prometheus_client import generate_latest

    text = generate_latest(sidecar.metrics.registry).decode()
    return {
        sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts sidecars and stops them after the test: `start(upstream_port, reference, **settings)`."""
    running: list[Running] = []

    def begin(
        upstream: int, reference: Reference | None = None, page: bytes | None = None, **settings: Any
    ) -> Running:
        chosen = Settings(
            upstream=f"http://127.0.0.1:{upstream}",
            port=0,
            metrics_port=0,
            **{"grace_seconds": 0.0, **settings},
        )
        sidecar = assemble(chosen, reference, page)
        thread = threading.Thread(target=lambda: asyncio.run(sidecar.run()), daemon=True)
        thread.start()
        running.append(Running(sidecar, thread, sidecar.server.port))
        return running[-1]

    yield begin
    for each in running:
        if not each.stopped:
            each.stop()


@dataclass
class Scripted:
    """A container that does what a function says with each request, and remembers what it got."""

    port: int
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    connections: int = 0


Script = Callable[[socket.socket, bytes, bytes], bool]


def answer_json(connection: socket.socket, body: bytes, status: bytes = b"200 OK") -> bool:
    """Send a JSON answer and keep the connection."""
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
        status,
        len(body),
    )
    connection.sendall(head + body)
    return True


def predict(connection: socket.socket, head: bytes, body: bytes) -> bool:
    """Answer as MLflow's server does: [1 - x, x] for each row, x its first value in hundredths."""
    if not head.startswith(b"POST /invocations"):
        return answer_json(connection, b"\n")
    try:
        (part,) = json.loads(body).values()
        rows = part["data"] if isinstance(part, dict) else [list(row.values()) for row in part]
        risks = [row[0] / 100 for row in rows]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return answer_json(connection, b'{"error_code": "BAD_REQUEST"}', b"400 Bad Request")
    return answer_json(connection, json.dumps({"predictions": [[1 - risk, risk] for risk in risks]}).encode())


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    """Starts scripted containers: `scripted(script)`; a script returns whether the connection stays open."""
    listeners: list[socket.socket] = []

    def begin(script: Script = predict, port: int = 0) -> Scripted:
        listener = socket.create_server(("127.0.0.1", port), backlog=512)
        listeners.append(listener)
        container = Scripted(listener.getsockname()[1])

        def serve(connection: socket.socket) -> None:
            with connection:
                try:
                    while (received := read_request(connection)) is not None:
                        container.requests.append(received)
                        if not script(connection, *received):
                            return
                except OSError:
                    return

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                container.connections += 1
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return container

    yield begin
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def read_request(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """Head and body of one request; the container here believes Content-Length alone."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65536)
        if not part:
            return None
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        body += connection.recv(65536)
    assert len(body) == length, "more than one message arrived"
    return head, body


def small_document() -> dict[str, Any]:
    """A reference with a numeric, an ordinal and a text feature, three score bins and groups by age."""
    return {
        "format": 1,
        "model": {
            "name": "risk",
            "version": "7",
            "run_id": "0123456789abcdef",
            "family": "logistic_regression",
            "trained_at": 1_790_000_000,
            "digest": "d" * 16,
            "synthetic": True,
        },
        "data": {"schema": "risk", "kind": "synthetic", "digest": "e" * 16, "rows": {}},
        "target": {"name": "ill", "meaning": "made up", "disclaimer": "made up"},
        "features": [
            {
                "name": "BMI",
                "kind": "numeric",
                "type": "double",
                "minimum": 12,
                "maximum": 98,
                "missing_codes": [],
                "edges": [22.0, 30.0],
                "bins": ["[12,22)", "[22,30)", "[30,98]"],
                "counts": [30, 40, 30],
                "missing": 0,
            },
            {
                "name": "Age",
                "kind": "ordinal",
                "type": "double",
                "levels": [3, 1, 2],
                "missing_codes": [9],
                "bins": ["3", "1", "2"],
                "labels": ["old", "young", "middle"],
                "counts": [20, 50, 30],
                "missing": 4,
            },
            {
                "name": "city",
                "kind": "nominal",
                "type": "string",
                "levels": ["Oslo", "Bergen"],
                "missing_codes": ["unknown"],
                "bins": ["Oslo", "Bergen"],
                "counts": [60, 40],
                "missing": 0,
            },
        ],
        "score": {
            "edges": [0.0, 0.2, 0.5, 1.0],
            "bins": ["0.0-0.2", "0.2-0.5", "0.5-1.0"],
            "counts": [50, 30, 20],
            "sums": [5.0, 10.0, 14.0],
            "positives": [4, 11, 13],
            "threshold": 0.5,
            "threshold_bin": 2,
        },
        "validation": {"rows": 100, "roc_auc": 0.8},
        "floors": {"roc_auc": 0.75},
        "golden": {"columns": ["BMI", "Age", "city"], "rows": [], "scores": []},
        "groups": {
            "feature": "Age",
            "members": [{"name": "young or middle", "levels": [1, 2]}, {"name": "old", "levels": [3]}],
        },
    }


@pytest.fixture
def document() -> dict[str, Any]:
    return small_document()


@pytest.fixture
def reference() -> Reference:
    return parse(small_document())


def people(*bmis: float | None, **columns: Any) -> str:
    """A body in split form: these BMIs, everything else alike."""
    names = ["BMI", "Age", "city", *columns]
    rows = [[bmi, 1, "Oslo", *columns.values()] for bmi in bmis]
    return json.dumps({"dataframe_split": {"columns": names, "data": rows}})


@dataclass(frozen=True)
class Served:
    """A real model behind MLflow's real server."""

    port: int
    reference: Reference


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    """MLflow's scoring server with a model of numbers and one with text, in one process."""
    folder, ports = tmp_path_factory.mktemp("served"), (free_port(), free_port())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("serve_models.py")), str(folder), *map(str, ports)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers(port: int) -> bool:
        assert process.poll() is None, "the models' server ended"
        try:
            return ask(port, "GET", "/ping").status == 200
        except OSError:
            return False

    for port in ports:
        eventually(lambda port=port: answers(port), "the models' server answers")
    yield {
        name: Served(port, load(folder / f"{name}.json"))
        for name, port in zip(("numbers", "text"), ports, strict=True)
    }
    process.kill()
    process.wait()
