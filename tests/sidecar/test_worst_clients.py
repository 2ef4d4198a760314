"""Clients that mean harm, all at once: memory stays below the bound that is printed at the start, and every
client that behaves is answered."""

import contextlib
import http.client
import itertools
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from monitoring.sidecar import budget
from monitoring.sidecar.settings import Settings
from tests.conftest import ROOT
from tests.made_up.sidecars import (
    JSON,
    PATIENCE,
    Scripted,
    ask,
    eventually,
    people,
    predict,
    small_document,
)

Begin = Callable[..., Scripted]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000


class Harm(NamedTuple):
    """How much of each kind, and how long a good client may wait (seconds)."""

    malformed: int
    connections: int
    readers: int
    senders: int
    large: int
    spoilers: int
    patience: float


class Wait(NamedTuple):
    """How long a good client waited for an answer: seconds, connections that were cut off, refusals, begun
    how many seconds after the start."""

    seconds: float
    cut: int
    refused: int
    at: float


LITTLE = Harm(150, 1_000, 2, 30, 2, 50, PATIENCE)
MUCH = Harm(20_000, 200_000, 60, 400, 100, 5_000, 5.0)
# A system has some 28,000 ports for the connections from an address, each taken for a minute after its end.
CONNECTIONS_OF_AN_ADDRESS = 10_000
REQUESTS_OF_A_CONNECTION = 20
RETRIES = 500


def container(connection: socket.socket, head: bytes, body: bytes) -> bool:
    """A model that refuses large bodies and rows that are no finite numbers, and says 8 MB at /version."""
    if head.startswith(b"GET /version"):
        connection.sendall(ANSWER)
        return True
    if len(body) > 1_000_000 or b"1e999" in body or b"Infinity" in body:
        message = b'{"error_code": "BAD_REQUEST"}'
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(message) + message)
        return True
    return predict(connection, head, body)


@pytest.fixture
def sidecar(scripted: Begin, tmp_path: Path) -> Iterator[tuple[int, int, subprocess.Popen[str]]]:
    """A sidecar in a process of its own: its traffic and metrics ports, and the process."""
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps(small_document()), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = first.getsockname()[1], second.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "monitoring.sidecar"],
        cwd=ROOT,
        env={
            **os.environ,
            "MODEL_EXPORTER_UPSTREAM": f"http://127.0.0.1:{scripted(container).port}",
            "MODEL_EXPORTER_PORT": str(ports[0]),
            "MODEL_EXPORTER_METRICS_PORT": str(ports[1]),
            "MODEL_EXPORTER_REFERENCE": str(reference),
        },
        stderr=subprocess.PIPE,
        text=True,
    )

    def is_up() -> bool:
        with contextlib.suppress(OSError):
            return ask(ports[1], "GET", "/ready", headers={}).status == 200
        return False

    eventually(is_up, "the sidecar answers")
    yield (*ports, process)
    process.terminate()
    process.communicate(timeout=PATIENCE)


def test_the_containers_limit_leaves_a_fifth_above_the_stated_bound() -> None:
    """What the sum leaves out, such as what an allocator does not give back, has room."""
    compose = yaml.safe_load((ROOT / "monitoring" / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    limit = int(compose["services"]["exporter"]["mem_limit"].removesuffix("m")) * 2**20
    assert budget.most_bytes(Settings()) < 0.8 * limit


def connect(port: int, address: str) -> socket.socket:
    """A connection from another address of this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE, source_address=(address, 0))


def harm(port: int, much: Harm, ended: threading.Event, done: Counter[str]) -> list[threading.Thread]:
    """Threads of clients that mean harm, most from addresses of their own; they count in `done` what took
    place. The last two go on until `ended`."""

    def malformed() -> None:
        mixed = random.Random(1)
        files = sorted((Path(__file__).with_name("wire") / "invalid").glob("*.http"))
        wires = [
            "".join(file.read_text().splitlines()[1:]).encode().decode("unicode_escape").encode("latin-1")
            for file in files
        ]
        for _ in range(much.malformed):
            with connect(port, "127.0.0.2") as connection:
                done["malformed"] += 1
                with contextlib.suppress(OSError):
                    connection.sendall(mixed.choice(wires) + mixed.randbytes(mixed.randrange(50)))
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(65_536)

    def connections() -> None:
        for number in range(much.connections):
            connect(port, f"127.0.3.{1 + number // CONNECTIONS_OF_AN_ADDRESS}").close()
            done["connections"] += 1

    def readers() -> None:
        is_over = False
        while not is_over:
            unread = []
            for _ in range(much.readers):
                unread.append(connect(port, "127.0.0.4"))
                unread[-1].sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            done["readers"] = len(unread)
            is_over = ended.wait(10)  # those that found no room, or had to make room, come back
            for connection in unread:
                connection.close()

    def senders() -> None:
        def begin(number: int) -> socket.socket:
            connection = connect(port, f"127.0.1.{number % 200 + 1}")
            with contextlib.suppress(OSError):
                connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
            return connection

        slow = [begin(number) for number in range(much.senders)]
        done["senders"] = len(slow)
        while not ended.wait(0.5):
            for number, connection in enumerate(slow):
                try:
                    connection.sendall(b"x")
                except OSError:
                    connection.close()
                    slow[number] = begin(number)  # it was refused for its slowness, and comes back
        for connection in slow:
            connection.close()

    def insist(kind: str, count: int, body: str | bytes) -> None:
        for _ in range(count):
            status = 503
            for _ in range(RETRIES):
                with contextlib.suppress(OSError):
                    status = ask(port, body=body).status
                if status != 503:
                    break
                time.sleep(0.2)
            done[kind] += status == 400

    def large() -> None:
        insist("large", much.large, b'{"inputs": [' + b"{}," * 3_000_000 + b"{}]}")

    def spoilers() -> None:
        insist("spoilers", much.spoilers, people(20).replace("[[20", "[[1e999"))

    kinds = (malformed, connections, large, spoilers, readers, senders)
    threads = [threading.Thread(target=kind) for kind in kinds]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("much", [LITTLE, pytest.param(MUCH, marks=pytest.mark.soak)], ids=["little", "much"])
def test_memory_stays_below_the_stated_bound_and_good_clients_are_answered(
    sidecar: tuple[int, int, subprocess.Popen[str]], much: Harm
) -> None:
    """Malformed requests, silent connections, answers that nobody reads, bodies that drip, bodies that parse
    into a quarter of a gigabyte, rows that spoil a batch; and eight clients in a closed loop."""
    port, inner, process = sidecar
    ended, done = threading.Event(), Counter[str]()
    waits: list[Wait] = []
    answers: list[Any] = []

    def good() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        for number in itertools.count(1):
            begun, cut, refused, status, risk = time.monotonic(), 0, 0, 503, None
            while status == 503 and time.monotonic() - begun < much.patience:
                if connection.sock is None:
                    connection.connect()
                try:
                    connection.request("POST", "/invocations", people(25), JSON)
                    answer = connection.getresponse()
                    status, content = answer.status, answer.read()
                    refused += status == 503
                except OSError:
                    connection.close()
                    cut += 1  # its connection had to make room: a client that behaves tries again
            if status == 200:
                risk = json.loads(content)["predictions"][0][1]
            waits.append(Wait(time.monotonic() - begun, cut, refused, begun - started))
            answers.append((status, risk))
            if ended.is_set():
                break
            if number % REQUESTS_OF_A_CONNECTION == 0:
                connection.close()
        connection.close()

    started = time.monotonic()
    clients = [threading.Thread(target=good) for _ in range(8)]
    for client in clients:
        client.start()
    *others, readers, senders = harm(port, much, ended, done)
    for thread in others:
        thread.join()
    ended.set()
    for thread in (readers, senders, *clients):
        thread.join()
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) * 1024  # type: ignore[index]
    longest = ", ".join(
        f"{each.seconds:.2f} s (after {each.at:.0f} s, cut off {each.cut}, refused {each.refused} times)"
        for each in sorted(waits, reverse=True)[:5]
    )
    print(f"peak {peak / 1e6:.0f} MB, {len(waits)} answers, longest waits {longest}")
    assert done == {kind: count for kind, count in much._asdict().items() if kind != "patience"}
    assert set(answers) == {(200, 0.25)}
    assert max(waits).seconds < much.patience
    assert peak < budget.most_bytes(Settings())
    assert ask(inner, "GET", "/live", headers={}).status == 200
