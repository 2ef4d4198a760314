"""What reaches the container and what comes back, with scripted containers for every kind of fault."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from monitoring.reference import Reference
from monitoring.sidecar import budget, server
from tests.conftest import ROOT
from tests.made_up.sidecars import (
    JSON,
    KEYS,
    PATIENCE,
    Running,
    Scripted,
    Start,
    answer_json,
    ask,
    eventually,
    free_port,
    headers_of,
    people,
    predict,
    say,
)

Begin = Callable[..., Scripted]
POST = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_method_query_body_and_end_to_end_headers_arrive_untouched(start: Start, scripted: Begin) -> None:
    """Headers that concern one connection only stay behind, those named by Connection among them."""
    container = scripted()
    sidecar = start(container.port)
    sidecar.ask(
        "POST",
        "/invocations?a=%2f&b=1",
        b"\x00\xffbody",
        {
            "Content-Type": "text/x",
            "X-Own": "a, b",
            "Cookie": "c=1",
            "Connection": "X-Hop",
            "X-Hop": "1",
            "TE": "trailers",
            "Proxy-Authorization": "p",
            "Authorization": "Bearer theirs",
            "Host": "public.name",
        },
    )
    ((head, body),) = container.requests
    assert head.startswith(b"POST /invocations?a=%2f&b=1 HTTP/1.1\r\n")
    assert body == b"\x00\xffbody"
    assert headers_of(head) == {
        "content-type": "text/x",
        "x-own": "a, b",
        "cookie": "c=1",
        "authorization": "Bearer theirs",
        "host": "public.name",
        "content-length": "6",
        "accept-encoding": "identity",
        "via": "1.1 sidecar",
    }


def test_the_answer_comes_back_untouched(start: Start, scripted: Begin) -> None:
    """Status, body and headers, but those of the connection."""

    def script(connection: socket.socket, head: bytes, body: bytes) -> bool:
        connection.sendall(
            b"HTTP/1.1 418 Teapot\r\nX-One: 1\r\nX-Hop: 1\r\nConnection: keep-alive, x-hop\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        return True

    answer = start(scripted(script).port).ask()
    assert (answer.status, answer.body, answer.headers["x-one"]) == (418, b"abcde", "1")
    assert "x-hop" not in answer.headers
    assert (answer.headers["content-length"], answer.headers["via"]) == ("5", "1.1 sidecar")


def test_answers_of_a_model_of_made_up_people_say_so(
    start: Start, scripted: Begin, reference: Reference
) -> None:
    """In a header of predictions alone; without a reference nothing is known."""
    container = scripted()
    marked, unmarked = start(container.port, reference), start(container.port)
    assert reference.model.synthetic
    assert marked.ask(body=people(20)).headers["model-data"] == "synthetic"
    assert "model-data" not in marked.ask("GET", "/ping", headers={}).headers
    assert "model-data" not in unmarked.ask(body=people(20)).headers


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", b"ab"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n", b"ab"),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nab", b"ab"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", b"ab"),
        (b"HTTP/1.1 204 None\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nab\r\n0\r\nT: 1\r\n\r\n", b"ab"),
    ],
)
def test_answers_of_every_framing_are_read_and_what_follows_them_is_never_used(
    start: Start, scripted: Begin, wire: bytes, body: bytes
) -> None:
    """A second answer that nobody asked for dies with its connection."""

    def script(connection: socket.socket, head: bytes, _: bytes) -> bool:
        connection.sendall(wire)
        return b"204" not in wire and b"until" not in wire

    container = scripted(script)
    sidecar = start(container.port)
    for _ in range(3):
        answer = sidecar.ask("GET", "/ping", headers={})
        assert (answer.status, answer.body) == (204 if b"204" in wire else 200, body)


def test_ping_and_version_are_the_containers(start: Start, scripted: Begin) -> None:
    """GET and HEAD; other paths are the sidecar's 404, and the traffic port shows no metrics."""
    container = scripted()
    sidecar = start(container.port)
    assert sidecar.ask("GET", "/ping", headers={}).body == b"\n"
    assert sidecar.ask("HEAD", "/version", headers={}).headers["content-length"] == "1"
    assert sidecar.ask("HEAD", "/ping", headers={}).status == 200
    assert sidecar.ask("GET", "/health", headers={}).status == 200
    asked = [head.split(b" HTTP")[0] for head, _ in container.requests]
    assert asked == [b"GET /ping", b"GET /version", b"GET /ping", b"GET /ping"]
    for path in ("/metrics", "/live", "/ready", "/", "/invocations/", "/feedback"):
        assert sidecar.ask("GET", path, headers={}).status == 404
    assert sidecar.value("sidecar_requests_total", endpoint="other", status="4xx") == 6


def test_connections_to_the_container_are_kept(start: Start, scripted: Begin) -> None:
    """Twenty requests, one connection."""
    container = scripted()
    sidecar = start(container.port)
    for _ in range(20):
        assert sidecar.ask(body=people(20)).status == 200
    assert container.connections == 1


def test_a_connection_that_the_container_closed_in_between_is_replaced(start: Start, scripted: Begin) -> None:
    """The caller does not see it, and each request arrives once."""
    container = scripted(lambda *received: predict(*received) and False)
    sidecar = start(container.port)
    for _ in range(5):
        assert sidecar.ask(body=people(20)).status == 200
    assert len(container.requests) == 5
    assert sidecar.value("sidecar_upstream_failures_total") == 0


def close_early(connection: socket.socket, head: bytes, body: bytes) -> bool:
    return False


def close_midway(connection: socket.socket, head: bytes, body: bytes) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    return False


def garble(connection: socket.socket, head: bytes, body: bytes) -> bool:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    return False


def bad_chunk(connection: socket.socket, head: bytes, body: bytes) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n")
    return False


def send_all(wire: bytes) -> Any:
    """A container that answers with these bytes and closes."""

    def script(connection: socket.socket, head: bytes, body: bytes) -> bool:
        connection.sendall(wire)
        return False

    return script


def strange_status(connection: socket.socket, head: bytes, body: bytes) -> bool:
    connection.sendall(b"HTTP/1.1 777 What\r\nContent-Length: 0\r\n\r\n")
    return False


def stall(connection: socket.socket, head: bytes, body: bytes) -> bool:
    time.sleep(PATIENCE)
    return False


def drip(connection: socket.socket, head: bytes, body: bytes) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(1000):
        connection.sendall(b".")
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("script", "status", "cause"),
    [
        (close_early, 502, "closed"),
        (close_midway, 502, "closed"),
        (garble, 502, "garbled"),
        (bad_chunk, 502, "garbled"),
        (strange_status, 502, "garbled"),
        (send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 502, "garbled"),
        (send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na"), 502, "garbled"),
        (
            send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            502,
            "garbled",
        ),
        (send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 502, "garbled"),
        (send_all(b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n"), 502, "garbled"),
        (send_all(b"HTTP/1.1 101 Switching\r\n\r\n"), 502, "garbled"),
        (send_all(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000), 502, "too_large"),
        (send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n"), 502, "too_large"),
        (send_all(b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 20_000_000), 502, "too_large"),
        (stall, 504, "timeout"),
        (drip, 504, "timeout"),
    ],
)
def test_a_container_that_fails_is_a_502_and_one_that_is_late_a_504(
    start: Start, scripted: Begin, script: Any, status: int, cause: str
) -> None:
    """JSON, nothing of the input, counted by cause."""
    sidecar = start(scripted(script).port, timeout_seconds=0.3 if cause == "timeout" else PATIENCE)
    answer = sidecar.ask(body=people(7654.25))
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert set(answer.json) == {"error_code", "message"}
    assert b"7654" not in answer.body
    assert sidecar.value("sidecar_upstream_failures_total", cause=cause) == 1
    assert sidecar.value("sidecar_requests_refused_total", reason="upstream") == 1


def test_a_container_that_is_not_there_is_a_502_until_it_is(start: Start, scripted: Begin) -> None:
    """The first request after it is back succeeds."""
    port = free_port()
    sidecar = start(port)
    assert sidecar.ask(body=people(20)).status == 502
    assert sidecar.value("sidecar_upstream_failures_total", cause="refused") == 1
    scripted(predict, port)
    assert sidecar.ask("GET", "/ping", headers={}).status == 200
    assert sidecar.ask(body=people(20)).status == 200


def test_the_bearer_token_is_asked_for_and_never_forwarded(start: Start, scripted: Begin) -> None:
    """On every path of the container."""
    secret = "a-secret-of-the-sidecar"
    container = scripted()
    sidecar = start(container.port, bearer_token=(secret,))
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": secret}):
        for path in ("/invocations", "/ping"):
            refused = sidecar.ask(path=path, headers=given)
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
    head = b"HEAD /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    refused_heads = say(sidecar.port, head + head)
    assert refused_heads.count(b"HTTP/1.1 401") == 2
    assert b"error_code" not in refused_heads
    assert container.requests == []
    assert sidecar.ask(body=people(20), headers={**JSON, "Authorization": f"bearer {secret}"}).status == 200
    assert secret.encode() not in container.requests[0][0]
    assert sidecar.value("sidecar_requests_refused_total", reason="unauthorized") == 8


def test_a_large_body_without_the_bearer_token_is_not_read(start: Start, scripted: Begin) -> None:
    """The answer is there after the head; nobody is asked to go on."""
    sidecar = start(scripted().port, bearer_token=("a-secret-of-the-sidecar",))
    for more in (b"Content-Length: 9000000\r\n", b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"):
        with socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) as connection:
            connection.sendall(POST + more + b"\r\n")
            assert connection.makefile("rb").read().startswith(b"HTTP/1.1 401 ")
    assert sidecar.value("sidecar_requests_refused_total", reason="unauthorized") == 2
    assert sidecar.value("sidecar_requests_total", endpoint="invocations", status="4xx") == 2


def test_bodies_in_memory_are_bounded(start: Start, scripted: Begin) -> None:
    """Large ones are refused unread when there is no room; small ones have room of their own."""
    sidecar = start(scripted().port, body_bytes=400_000, buffer_bytes=2_400_000)
    held = sidecar.sidecar.server.budget
    head = POST + b"Content-Length: 400000\r\n\r\n"
    clients = [socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) for _ in range(3)]
    for client in clients[:2]:
        client.sendall(head + b"x" * 300_000)
    eventually(lambda: held.reserved == 1_600_000, "two are being read")
    clients[2].sendall(head)
    assert clients[2].makefile("rb").read().startswith(b"HTTP/1.1 503 ")
    assert sidecar.ask(body=people(20)).status == 200
    for client in clients:
        client.close()
    eventually(lambda: held.reserved == 0, "what was abandoned is forgotten")
    assert sidecar.value("sidecar_requests_refused_total", reason="overload") == 1


def test_silent_connections_make_room_for_clients(start: Start, scripted: Begin) -> None:
    """More of them than the port takes: those that have been silent for longest are closed."""
    sidecar = start(scripted().port, connections=20)
    silent = [socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) for _ in range(30)]
    eventually(lambda: sidecar.value("sidecar_connections") == 10, "the address has its half")
    assert sidecar.ask(body=people(20)).status == 200
    for connection in silent:
        connection.close()


def test_an_address_has_half_of_the_connections_at_most(start: Start, scripted: Begin) -> None:
    """Whatever it does with them, others find room, and what they have begun is not disturbed."""
    sidecar = start(scripted().port, connections=20)
    with socket.create_connection(
        ("127.0.0.1", sidecar.port), timeout=PATIENCE, source_address=("127.0.0.2", 0)
    ) as other:
        other.sendall(POST)
        greedy = [socket.create_connection(("127.0.0.1", sidecar.port)) for _ in range(50)]
        for connection in greedy:
            with contextlib.suppress(OSError):
                connection.sendall(POST + b"Content-Length: 60000\r\n\r\nx")
        eventually(lambda: sidecar.value("sidecar_connections") == 11, "ten of the greedy, and the other one")
        other.sendall(b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(ALIKE) + ALIKE.encode())
        assert other.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
    for connection in greedy:
        connection.close()


def test_a_request_that_drips_is_given_up(
    start: Start, scripted: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a byte comes: head and body have to be there within a time."""
    monkeypatch.setattr(server, "MOVE_SECONDS", 0.3)
    sidecar = start(scripted().port)
    for begun in (b"POST /invocations HT", POST + b"Content-Length: 60000\r\n\r\nx"):
        with socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) as connection:
            connection.sendall(begun)
            answer = b""
            connection.settimeout(0.02)
            while not answer:
                connection.sendall(b"P")
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 408 ")
    assert sidecar.value("sidecar_requests_refused_total", reason="late") == 2


def test_small_bodies_that_drip_take_no_room_of_others(start: Start, scripted: Begin) -> None:
    """They are the connection's own matter until they are there."""
    sidecar = start(scripted().port, body_bytes=100_000, buffer_bytes=600_000)
    clients = [socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) for _ in range(20)]
    for client in clients:
        client.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 60000\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"x" * 59_999)
    assert sidecar.ask(body=people(20)).status == 200
    eventually(lambda: sidecar.sidecar.server.budget.reserved == 0, "nothing is held for those that drip")
    for client in clients:
        client.close()


def is_large_taken(sidecar: Running) -> bool:
    """Whether there is room for a body of three megabytes."""
    rows = json.loads(people(20))["dataframe_split"]["data"] * 200_000
    body = json.dumps({"dataframe_split": {"columns": ["BMI", "Age", "city"], "data": rows}})
    with contextlib.suppress(OSError):  # a refusal may come while it is being sent
        return sidecar.ask(body=body).status == 200
    return False


@pytest.mark.parametrize(
    ("field", "begun"), [(b"Content-Length: 10000000", b""), (b"Transfer-Encoding: chunked", b"989680\r\n")]
)
def test_clients_that_promise_large_bodies_and_send_nothing_take_no_room_of_others(
    start: Start, scripted: Begin, field: bytes, begun: bytes
) -> None:
    """Of a large body a megabyte is reserved at a time, and gets its time when it is due."""
    sidecar = start(scripted().port)
    clients = [socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) for _ in range(9)]
    for client in clients:
        client.sendall(POST + b"Expect: 100-continue\r\n" + field + b"\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 100 ")
        client.sendall(begun)
    assert is_large_taken(sidecar)
    for client in clients:
        client.close()
    eventually(lambda: sidecar.sidecar.server.budget.reserved == 0, "all is given back")


def test_what_follows_a_large_body_is_not_read_on(start: Start, scripted: Begin) -> None:
    """Before the request is answered, no more waits here than a head takes."""
    gate = Gate()
    sidecar = start(scripted(gate).port)
    sent = 0
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)
        client.sendall(POST + b"Content-Length: 9000000\r\n\r\n" + b"x" * 9_000_000)
        eventually(lambda: gate.waiting == 1, "the body was read")
        client.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            while sent < 10_000_000:
                sent += client.send(b"y" * 10_000)
        gate.opened.set()
    assert sent < 1_000_000


def test_the_system_holds_little_of_a_connection() -> None:
    """Control groups count it as memory of the container; by itself the system takes megabytes."""
    with (
        server.listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        for direction in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            assert accepted.getsockopt(socket.SOL_SOCKET, direction) <= budget.SYSTEM_BYTES


def test_an_answer_that_nobody_reads_is_given_up(
    start: Start, scripted: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are reserved until then, and there is room for a bounded number of such answers."""
    monkeypatch.setattr(server, "MOVE_SECONDS", 0.5)
    monkeypatch.setattr(server, "SLOWEST_BYTES_A_SECOND", 8_000_000)
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000
    sidecar = start(scripted(send_all(wire)).port)
    held = sidecar.sidecar.server.budget
    clients = [socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) for _ in range(12)]
    for client in clients:
        client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
    eventually(
        lambda: sidecar.value("sidecar_requests_refused_total", reason="overload") > 0, "some find no room"
    )
    assert held.reserved <= sidecar.sidecar.settings.buffer_bytes
    eventually(lambda: held.reserved == 0, "the others are given up")
    for client in clients:
        client.close()


def slow_readers(sidecar: Running) -> list[socket.socket]:
    """Clients that take all the room for large bodies with answers that they do not read."""
    clients = [socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) for _ in range(12)]
    for client in clients:
        client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return clients


def slow_senders(sidecar: Running) -> list[socket.socket]:
    """Clients that take all the room for large bodies with the beginning of their own."""
    clients = [socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) for _ in range(40)]
    for client in clients:
        client.sendall(POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 70_000)
    return clients


def slow_chunks(sidecar: Running) -> list[socket.socket]:
    """The same with bodies in chunks."""
    clients = [socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) for _ in range(40)]
    for client in clients:
        client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % 1_000_000 + b"x" * 70_000)
    return clients


LARGE_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000


def version_is_large(connection: socket.socket, head: bytes, body: bytes) -> bool:
    """A model whose /version takes 8 MB."""
    if not head.startswith(b"GET /version"):
        return predict(connection, head, body)
    with contextlib.suppress(OSError):
        connection.sendall(LARGE_ANSWER)
    return True


@pytest.mark.parametrize("begin_slowly", [slow_readers, slow_senders, slow_chunks])
def test_the_slowest_callers_make_room_for_large_bodies(
    start: Start,
    scripted: Begin,
    monkeypatch: pytest.MonkeyPatch,
    begin_slowly: Callable[[Running], list[socket.socket]],
) -> None:
    """Without waiting for the time limit of their answers or bodies."""
    monkeypatch.setattr(server, "MOVE_SECONDS", 10 * PATIENCE)
    sidecar = start(scripted(version_is_large).port)
    clients = begin_slowly(sidecar)
    eventually(
        lambda: sidecar.value("sidecar_requests_refused_total", reason="overload") > 0, "some find no room"
    )
    eventually(lambda: is_large_taken(sidecar), "there is room for those who try again")
    for client in clients:
        client.close()


def test_callers_that_are_not_slow_are_not_disturbed(
    start: Start, scripted: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often others find no room, an answer may be read to its end at the pace that is asked."""
    monkeypatch.setattr(server, "PACE_SECONDS", 0.01)
    monkeypatch.setattr(server, "SLOWEST_BYTES_A_SECOND", 1)
    sidecar = start(scripted(version_is_large).port)
    clients = slow_readers(sidecar)
    eventually(
        lambda: sidecar.value("sidecar_requests_refused_total", reason="overload") > 0, "some find no room"
    )
    for _ in range(10):
        assert not is_large_taken(sidecar)
        time.sleep(server.SWEEP_SECONDS)
    read = 0
    for client in clients:
        answer = client.makefile("rb").read()
        read += answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"x" * 8_000_000)
        client.close()
    assert read == 3


def test_the_slowest_goes_first_and_no_more_than_has_to(
    start: Start, scripted: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has read half of an answer stays, when one of those who read nothing makes room enough."""
    monkeypatch.setattr(server, "MOVE_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr(server, "PACE_SECONDS", 0.01)
    monkeypatch.setattr(server, "SLOWEST_BYTES_A_SECOND", 10**12)
    sidecar = start(scripted(version_is_large).port)
    clients = []
    for _ in range(3):
        clients.append(socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE))
        clients[-1].sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    reader = clients[0].makefile("rb")
    half = reader.read(4_000_000)
    held = sidecar.sidecar.server.budget
    eventually(lambda: held.reserved == 48_000_000, "all wait to be read")
    eventually(lambda: is_large_taken(sidecar), "there is room for those who try again")
    assert len(half + reader.read()) > 8_000_000
    for client in clients:
        client.close()


def test_once_somebody_was_refused_room_is_made_for_the_largest_body(
    start: Start, scripted: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as little as one slow sender holds: whoever tries again needs room for a whole body."""
    monkeypatch.setattr(server, "MOVE_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr(server, "PACE_SECONDS", 0.01)
    monkeypatch.setattr(server, "SLOWEST_BYTES_A_SECOND", 10**12)
    sidecar = start(scripted().port)
    settings, held = sidecar.sidecar.settings, sidecar.sidecar.server.budget
    enough = 0.75 * settings.buffer_bytes - 2 * settings.body_bytes
    clients = slow_senders(sidecar)
    eventually(
        lambda: sidecar.value("sidecar_requests_refused_total", reason="overload") > 0, "some find no room"
    )
    eventually(lambda: held.reserved <= enough, "there is room for the largest body")
    assert held.reserved > 0
    for client in clients:
        client.close()


def test_who_waits_for_the_model_or_between_requests_is_not_slow(
    start: Start, scripted: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a body that arrives and an answer that is being read have a pace."""
    monkeypatch.setattr(server, "PACE_SECONDS", 0.01)
    monkeypatch.setattr(server, "SLOWEST_BYTES_A_SECOND", 10**12)
    gate, body = Gate(), people(20) + 390_000 * " "

    def script(connection: socket.socket, head: bytes, received: bytes) -> bool:
        if head.startswith(b"GET /version"):
            answer_json(connection, b"x" * 300_000)
            return True
        return gate(connection, head, received)

    sidecar = start(scripted(script).port, body_bytes=400_000, buffer_bytes=2_400_000)
    idle = http.client.HTTPConnection("127.0.0.1", sidecar.port, timeout=PATIENCE)
    idle.request("GET", "/version")
    assert len(idle.getresponse().read()) == 300_000
    results, threads = in_background(2, lambda _: sidecar.ask(body=body))
    eventually(lambda: gate.waiting == 2, "both wait for the model")
    assert sidecar.ask(body=body).status == 503
    time.sleep(3 * server.SWEEP_SECONDS)
    gate.opened.set()
    for thread in threads:
        thread.join()
    assert [reply.status for reply in results] == [200, 200]
    first = idle.sock
    idle.request("GET", "/version")
    assert len(idle.getresponse().read()) == 300_000
    assert idle.sock is first
    idle.close()


def test_a_body_that_could_never_find_room_disturbs_nobody(
    start: Start, scripted: Begin, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One small body of brackets, which would take fifty megabytes when parsed, would close slow callers."""
    monkeypatch.setattr(server, "MOVE_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr(server, "PACE_SECONDS", 0.01)
    monkeypatch.setattr(server, "SLOWEST_BYTES_A_SECOND", 10**12)
    sidecar = start(scripted(version_is_large).port, reference, feedback_keys=KEYS)
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) as client:
        client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        eventually(lambda: sidecar.sidecar.server.budget.reserved > 8_000_000, "its answer waits to be read")
        assert sidecar.ask("POST", "/feedback", b"{" * 240_000).status == 413
        time.sleep(3 * server.SWEEP_SECONDS)
        assert client.makefile("rb").read().endswith(b"x" * 8_000_000)


def test_bytes_that_nobody_asked_for_are_nobodys_answer(start: Start, scripted: Begin) -> None:
    """A container that sends an answer too many: its connection is not used again."""
    sent = []

    def script(connection: socket.socket, head: bytes, body: bytes) -> bool:
        answer_json(connection, b"answer-%d" % len(sent))
        answer_json(connection, b"stale")
        sent.append(head)
        return True

    sidecar = start(scripted(script).port)
    for number in range(5):
        assert sidecar.ask("GET", "/version", headers={}).body == b"answer-%d" % number
        eventually(lambda number=number: len(sent) > number, "the other answer was sent too")  # type: ignore[misc]


def test_a_client_that_says_close_among_other_wishes_is_let_go(start: Start, scripted: Begin) -> None:
    """`Connection` is a list."""
    sidecar = start(scripted().port)
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: TE, close\r\n\r\n")
        assert b"\r\nConnection: close\r\n" in connection.makefile("rb").read()


def test_a_body_over_the_limit_is_a_413(start: Start, scripted: Begin) -> None:
    """By its announced length or, chunked, by its real one; at the limit it passes."""
    container = scripted()
    sidecar = start(container.port, body_bytes=1000)
    assert sidecar.ask(body=b"x" * 1000).status == 400
    assert say(sidecar.port, POST + b"Content-Length: 1001\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    chunks = b"".join(b"64\r\n" + b"x" * 100 + b"\r\n" for _ in range(11))
    answer = say(sidecar.port, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert len(container.requests) == 1
    assert sidecar.ask(body=b"x" * 50_000_000).status == 413
    assert sidecar.value("sidecar_requests_refused_total", reason="too_large") == 3
    assert sidecar.value("sidecar_requests_total", endpoint="invocations", status="4xx") == 4
    assert sidecar.value("sidecar_request_duration_seconds_count") == 1, "refusals are no fast answers"


def test_a_stalled_container_keeps_nobody_beyond_twice_the_time_for_an_answer(
    start: Start, scripted: Begin, reference: Reference
) -> None:
    """Those who waited that long in the queue are told so, and a container that is stuck is not asked again
    for each of them.
    """
    container = scripted(Gate())
    sidecar = start(container.port, reference, timeout_seconds=0.5, threads=2)
    results, threads = in_background(40, lambda number: sidecar.ask(body=people(20 + number)))
    for thread in threads:
        thread.join(PATIENCE)
    assert {reply.status for reply in results} == {504}
    assert len(container.requests) < 20
    assert sidecar.value("sidecar_requests_refused_total", reason="upstream") == 40


class Gate:
    """A container that answers when it is told to."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.waiting = 0

    def __call__(self, connection: socket.socket, head: bytes, body: bytes) -> bool:
        self.waiting += 1
        self.opened.wait(PATIENCE)
        return predict(connection, head, body)


def in_background(count: int, work: Callable[[int], Any]) -> tuple[list[Any], list[threading.Thread]]:
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return results, threads


def test_overload_is_a_fast_503_and_the_queue_is_seen(start: Start, scripted: Begin) -> None:
    """Twelve requests are taken; the others are told at once to come back, and are counted."""
    gate = Gate()
    sidecar = start(scripted(gate).port, requests=12, threads=2)
    _, first = in_background(1, lambda _: sidecar.ask(body=people(12)))
    eventually(lambda: gate.waiting == 1, "one is under way")
    results, others = in_background(11, lambda number: sidecar.ask(body=people(number + 13)))
    eventually(lambda: sidecar.value("sidecar_requests_in_flight") == 12, "all are taken")
    assert sidecar.value("sidecar_queue_requests") == 11
    assert sidecar.value("sidecar_queue_oldest_wait_seconds") > 0
    for method, path in (("POST", "/invocations"), ("GET", "/ping")):
        refused = sidecar.ask(method, path, people(20) if method == "POST" else b"")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    gate.opened.set()
    for thread in first + others:
        thread.join()
    assert [reply.json["predictions"][0][1] for reply in results] == [(n + 13) / 100 for n in range(11)]
    assert sidecar.value("sidecar_requests_refused_total", reason="overload") == 2
    assert sidecar.value("sidecar_requests_in_flight") == 0


def test_requests_travel_as_one_and_come_back_apart(
    start: Start, scripted: Begin, reference: Reference
) -> None:
    """Each gets its own rows' answer; the container saw two calls, the second with all of the others."""
    gate = Gate()
    container = scripted(gate)
    sidecar = start(container.port, reference, batch_wait_ms=0)
    _, threads = in_background(1, lambda _: sidecar.ask(body=people(12)))
    eventually(lambda: gate.waiting == 1, "one is under way")
    more, others = in_background(9, lambda n: sidecar.ask(body=people(20 + n, 30 + n)))
    eventually(lambda: sidecar.value("sidecar_queue_requests") == 9, "nine wait")
    gate.opened.set()
    for thread in threads + others:
        thread.join()
    for number, reply in enumerate(more):
        assert [row[1] for row in reply.json["predictions"]] == [(20 + number) / 100, (30 + number) / 100]
    assert len(container.requests) == 2
    assert sidecar.value("sidecar_batch_requests_sum") == 10
    assert sidecar.value("sidecar_batches_total", reason="upstream_free") == 1
    assert sidecar.value("sidecar_rows_total") == 19
    assert sidecar.value("model_feature_values_total", feature="Age", bin="1") in range(10, 20)


def test_a_joined_body_is_part_of_what_is_held(start: Start, scripted: Begin, reference: Reference) -> None:
    """Written as ASCII it is three times as large as the bodies it is made of, and stands there twice."""
    held: list[tuple[int, int]] = []
    gate = Gate()

    def script(connection: socket.socket, head: bytes, body: bytes) -> bool:
        held.append((len(body), sidecar.sidecar.server.budget.reserved))
        return gate(connection, head, body)

    sidecar = start(scripted(script).port, reference, batch_wait_ms=0)
    _, first = in_background(1, lambda _: sidecar.ask(body=people(12)))
    eventually(lambda: gate.waiting == 1, "one is under way")
    body = json.dumps(json.loads(people(20).replace("Oslo", "\u00e9" * 20_000)), ensure_ascii=False)
    replies, others = in_background(9, lambda _: sidecar.ask(body=body))
    eventually(lambda: sidecar.value("sidecar_queue_requests") == 9, "nine wait")
    gate.opened.set()
    for thread in first + others:
        thread.join()
    assert {reply.status for reply in replies} == {200}
    joined, reserved = held[1]
    assert joined > 9 * 100_000
    assert reserved > 3 * joined
    eventually(lambda: sidecar.sidecar.server.budget.reserved == 0, "all is given back")


ALIKE = people(20)


@pytest.mark.parametrize(
    ("body", "headers", "path"),
    [
        (ALIKE, {"Cookie": "a=1"}, "/invocations"),
        (ALIKE, {"Authorization": "Bearer of-somebody"}, "/invocations"),
        (ALIKE, {}, "/invocations?a=1"),
        (ALIKE, {"Content-Type": "application/json; charset=utf-8"}, "/invocations"),
        (ALIKE, {"X-Tenant": "two"}, "/invocations"),
        (json.dumps({**json.loads(ALIKE), "params": {}}), {}, "/invocations"),
        (people(20, more=1), {}, "/invocations"),
        (ALIKE.replace('"Oslo"', "null"), {}, "/invocations"),
        (ALIKE.replace("20", '"20"'), {}, "/invocations"),
        ('{"dataframe_records": [{"BMI": 20, "Age": 1, "city": "Oslo"}]}', {}, "/invocations"),
    ],
)
def test_requests_that_differ_in_more_than_rows_travel_apart(
    start: Start, scripted: Begin, reference: Reference, body: str, headers: dict[str, str], path: str
) -> None:
    """One of these never meets the plain requests that wait beside it."""
    gate = Gate()
    container = scripted(gate)
    sidecar = start(container.port, reference, batch_headers=("x-tenant",), threads=1)
    _, first = in_background(1, lambda _: sidecar.ask(body=people(12)))
    eventually(lambda: gate.waiting == 1, "one is under way")
    _, plain = in_background(3, lambda _: sidecar.ask(body=ALIKE))
    _, other = in_background(1, lambda _: sidecar.ask(path=path, body=body, headers={**JSON, **headers}))
    eventually(lambda: sidecar.value("sidecar_requests_in_flight") == 5, "all are taken")
    gate.opened.set()
    for thread in first + plain + other:
        thread.join()
    sent = sorted(
        len(json.loads(content).get("dataframe_split", {}).get("data", [1]))
        for _, content in container.requests
    )
    assert sent == [1, 1, 3]
    for name, value in headers.items():
        assert any(headers_of(head).get(name.lower()) == value for head, _ in container.requests)


def test_other_headers_neither_keep_requests_apart_nor_travel(
    start: Start, scripted: Begin, reference: Reference
) -> None:
    """User-Agent, tracing and the like; the sidecar's own token counts as none."""
    secret = "a-secret-of-the-sidecar"
    gate = Gate()
    container = scripted(gate)
    sidecar = start(container.port, reference, bearer_token=(secret,))
    own = {**JSON, "Authorization": f"Bearer {secret}"}
    _, first = in_background(1, lambda _: sidecar.ask(body=people(12), headers=own))
    eventually(lambda: gate.waiting == 1, "one is under way")
    _, others = in_background(
        3, lambda n: sidecar.ask(body=ALIKE, headers={**own, "X-Trace": str(n), "User-Agent": f"a{n}"})
    )
    eventually(lambda: sidecar.value("sidecar_queue_requests") == 3, "three wait")
    gate.opened.set()
    for thread in first + others:
        thread.join()
    assert len(container.requests) == 2
    assert not headers_of(container.requests[1][0]).keys() & {"x-trace", "user-agent", "authorization"}


def test_a_bad_row_fails_alone(start: Start, scripted: Begin, reference: Reference) -> None:
    """The batch fails and is halved until the row is alone: 31 answers and one error, the container's own."""

    def script(connection: socket.socket, head: bytes, body: bytes) -> bool:
        gate.opened.wait(PATIENCE)
        if b"66.0" in body:
            return answer_json(connection, b'{"error_code": "MINE"}', b"400 Bad Request")
        return predict(connection, head, body)

    gate = Gate()
    container = scripted(script)
    sidecar = start(container.port, reference)
    _, first = in_background(1, lambda _: sidecar.ask(body=people(12)))
    eventually(lambda: len(container.requests) == 1, "one is under way")
    results, others = in_background(32, lambda n: sidecar.ask(body=people(66.0 if n == 7 else 20 + n)))
    eventually(lambda: sidecar.value("sidecar_queue_requests") == 32, "all wait")
    gate.opened.set()
    for thread in first + others:
        thread.join()
    assert (results[7].status, results[7].body) == (400, b'{"error_code": "MINE"}')
    good = [reply.json["predictions"][0][1] for n, reply in enumerate(results) if n != 7]
    assert good == [(20 + n) / 100 for n in range(32) if n != 7]
    assert sidecar.value("sidecar_batches_total", reason="after_failure") == 10


@pytest.mark.parametrize("script", [close_early, garble, stall])
def test_a_batch_without_an_answer_is_sent_one_by_one_as_well(
    start: Start, scripted: Begin, reference: Reference, script: Any
) -> None:
    """A row that kills or stalls the model takes only its own caller with it."""

    def container_script(connection: socket.socket, head: bytes, body: bytes) -> bool:
        gate.opened.wait(PATIENCE)
        return bool((script if b"66.0" in body else predict)(connection, head, body))

    gate = Gate()
    container = scripted(container_script)
    sidecar = start(container.port, reference, timeout_seconds=5.0 if script is not stall else 1.5)
    _, first = in_background(1, lambda _: sidecar.ask(body=people(12)))
    eventually(lambda: len(container.requests) == 1, "one is under way")
    results, others = in_background(4, lambda n: sidecar.ask(body=people(66.0 if n == 1 else 20 + n)))
    eventually(lambda: sidecar.value("sidecar_queue_requests") == 4, "all wait")
    gate.opened.set()
    for thread in first + others:
        thread.join()
    assert [reply.status for reply in results] == [200, 504 if script is stall else 502, 200, 200]


def test_a_model_that_does_not_answer_row_by_row_is_not_batched_for_long(
    start: Start, scripted: Begin, reference: Reference
) -> None:
    """One prediction for all rows: every caller still gets the container's answer to its own request."""
    gate = Gate()

    def script(connection: socket.socket, head: bytes, body: bytes) -> bool:
        if not gate.opened.is_set():
            gate.waiting += 1
            gate.opened.wait(PATIENCE)
        rows = json.loads(body)["dataframe_split"]["data"]
        return answer_json(
            connection, b'{"predictions": {"mean": %d}}' % (sum(r[0] for r in rows) / len(rows))
        )

    sidecar = start(scripted(script).port, reference)
    for turn in range(1, 5):
        gate.opened.clear()
        _, first = in_background(1, lambda _: sidecar.ask(body=people(12)))
        eventually(lambda turn=turn: gate.waiting >= turn, "one is under way")
        results, others = in_background(3, lambda n: sidecar.ask(body=people(20 + n)))
        eventually(lambda: sidecar.value("sidecar_requests_in_flight") == 4, "all are taken")
        gate.opened.set()
        for thread in first + others:
            thread.join()
        assert [reply.json["predictions"]["mean"] for reply in results] == [20, 21, 22]
    assert sidecar.value("sidecar_batches_total", reason="after_failure") == 4, "after the first time none"
    assert sidecar.value("sidecar_batching_suspended_forms") == 1


def test_pipelined_requests_are_answered_in_their_order(start: Start, scripted: Begin) -> None:
    """Whatever way each of them goes."""
    sidecar = start(scripted().port)
    bodies = [people(20), "{", people(21), people(22, 23)]
    wire = b"".join(POST + b"Content-Length: %d\r\n\r\n" % len(b) + b.encode() for b in bodies)
    wire += (
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\nGET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    answers = say(sidecar.port, wire).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"400", b"200", b"200", b"404", b"200"]
    assert b"0.21]" in answers[2]
    assert b"0.22]" in answers[3]


def test_a_request_that_stops_midway_reaches_nobody(start: Start, scripted: Begin) -> None:
    """The client goes away before the body is there."""
    container = scripted()
    sidecar = start(container.port)
    with socket.create_connection(("127.0.0.1", sidecar.port)) as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\nabc")
    assert sidecar.ask(body=people(20)).status == 200
    assert len(container.requests) == 1


def test_a_client_that_leaves_before_its_answer_disturbs_nobody(
    start: Start, scripted: Begin, reference: Reference
) -> None:
    """Its row travels with the others, its answer goes nowhere."""
    gate = Gate()
    sidecar = start(scripted(gate).port, reference)
    _, first = in_background(1, lambda _: sidecar.ask(body=people(12)))
    eventually(lambda: gate.waiting == 1, "one is under way")
    with socket.create_connection(("127.0.0.1", sidecar.port)) as leaving:
        leaving.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(ALIKE) + ALIKE.encode())
        eventually(lambda: sidecar.value("sidecar_queue_requests") == 1, "it waits")
    results, others = in_background(3, lambda n: sidecar.ask(body=people(30 + n)))
    eventually(lambda: sidecar.value("sidecar_queue_requests") == 4, "all wait")
    gate.opened.set()
    for thread in first + others:
        thread.join()
    assert [reply.json["predictions"][0][1] for reply in results] == [0.3, 0.31, 0.32]
    assert sidecar.value("sidecar_requests_in_flight") == 0


def test_a_stop_finishes_what_was_read_and_loses_no_answer(
    start: Start, scripted: Begin, reference: Reference
) -> None:
    """Clients in a closed loop: every request that was sent is answered, then the port is closed."""
    sidecar = start(scripted().port, reference, grace_seconds=PATIENCE)
    lost, answered, seen, begun = [], [], set(), threading.Event()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", sidecar.port, timeout=PATIENCE)
        while True:
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError:
                return
            try:
                connection.request("POST", "/invocations", people(20 + number), JSON)
                reply = connection.getresponse()
                content = json.loads(reply.read())
                answered.append((reply.status, content["predictions"][0][1] == (20 + number) / 100))
            except Exception as error:
                lost.append(error)
                return
            seen.add(number)
            if len(answered) > 200 and len(seen) == 24:
                begun.set()

    _, threads = in_background(24, client)
    assert begun.wait(PATIENCE)
    sidecar.stop()
    for thread in threads:
        thread.join(PATIENCE)
    assert lost == []
    assert set(answered) == {(200, True)}


def test_a_stop_waits_for_a_body_whose_head_was_read(start: Start, scripted: Begin) -> None:
    """And says with the answer that the connection ends."""
    sidecar = start(scripted().port, grace_seconds=PATIENCE)
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) as connection:
        connection.sendall(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(ALIKE))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 100 "), "the head is read"
        sidecar.sidecar.server.stop()
        eventually(lambda: _refuses(sidecar.port), "no new connection is taken")
        connection.sendall(ALIKE.encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in answer
    sidecar.stop()


def test_after_the_grace_period_the_rest_is_refused_and_counted(start: Start, scripted: Begin) -> None:
    """503 for what the container still has, for what waits, and for a body that never came."""
    gate = Gate()
    sidecar = start(scripted(gate).port, grace_seconds=0.3)
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=PATIENCE) as partial:
        partial.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n")
        assert partial.recv(65_536).startswith(b"HTTP/1.1 100 "), "the head is read"
        results, threads = in_background(6, lambda n: sidecar.ask(body=people(20 + n)))
        eventually(lambda: sidecar.value("sidecar_requests_in_flight") == 6, "all are taken")
        sidecar.stop()
        for thread in threads:
            thread.join()
        assert partial.makefile("rb").read().startswith(b"HTTP/1.1 503 ")
    assert [reply.status for reply in results] == [503] * 6
    assert sidecar.value("sidecar_requests_refused_total", reason="stopping") == 7
    gate.opened.set()


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except OSError:
        return True
    return False


def test_live_and_ready_are_two_questions(start: Start, scripted: Begin) -> None:
    """Without a container the sidecar lives and is not ready; the metrics port serves nothing else."""
    port = free_port()
    sidecar = start(port)
    inner = sidecar.sidecar.metrics_server.port

    def status(path: str) -> int:
        return ask(inner, "GET", path, headers={}).status

    assert (status("/live"), status("/ready"), status("/metrics")) == (200, 503, 200)
    assert status("/invocations") == 404
    scripted(predict, port)
    eventually(lambda: status("/ready") == 200, "it is ready")
    assert b"sidecar_requests_total" in ask(inner, "GET", "/metrics", headers={}).body


def test_no_value_of_a_request_is_in_logs_metrics_or_errors(scripted: Begin, tmp_path: Any) -> None:
    """A run of every kind of request, good and bad, with one text and one number to look for."""
    canaries = ("kanarienvogel", "7654.25")
    document = tmp_path / "reference.json"
    from tests.made_up.sidecars import small_document

    document.write_text(json.dumps(small_document()), encoding="utf-8")
    container, port, inner = scripted(), free_port(), free_port()
    secret = "a-secret-bearer-token"
    process = subprocess.Popen(
        [sys.executable, "-m", "monitoring.sidecar"],
        cwd=ROOT,
        env={
            **os.environ,
            "MODEL_EXPORTER_UPSTREAM": f"http://127.0.0.1:{container.port}",
            "MODEL_EXPORTER_PORT": str(port),
            "MODEL_EXPORTER_METRICS_PORT": str(inner),
            "MODEL_EXPORTER_REFERENCE": str(document),
            "MODEL_EXPORTER_FEEDBACK_KEYS": ",".join(KEYS),
            "MODEL_EXPORTER_BEARER_TOKEN": secret,
            "MODEL_EXPORTER_GUARD": "reject",
            "MODEL_EXPORTER_LOG_LEVEL": "DEBUG",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    own = {**JSON, "Authorization": f"Bearer {secret}"}

    def is_up() -> bool:
        try:
            return ask(port, "GET", "/ping", headers=own).status == 200
        except OSError:
            return False

    eventually(is_up, "the sidecar answers")
    answers = [
        ask(port, body=people(20).replace("Oslo", canaries[0]), headers=own),
        ask(port, body=people(7654.25), headers=own),
        ask(port, body='{"kanarienvogel": 7654.25}', headers=own),
        ask(port, body='{"instances": [{"kanarienvogel": 7654.25}]}', headers=own),
        ask(port, path="/kanarienvogel?7654.25", body="7654.25"),
        ask(port, path="/invocations?kanarienvogel=%ff", body=people(7654.25)),
        ask(port, path="/feedback", body='{"token": "kanarienvogel", "outcome": 1}'),
        ask(port, path="/feedback", body='["kanarienvogel", 7654.25]'),
    ]
    raw = [
        say(port, POST + b"kanarienvogel 7654.25\r\n\r\n"),
        say(port, b"kanarienvogel /7654.25 HTTP/1.1\r\n\r\n"),
        say(port, POST + b"X: a\nkanarienvogel: 7654.25\r\n\r\n"),
    ]
    metrics = ask(inner, "GET", "/metrics", headers={}).body.decode()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    own_words = [reply.body for reply in answers if reply.status != 400] + raw
    for canary in (*canaries, secret, *KEYS):
        assert canary not in log
        assert canary not in metrics
        assert not any(canary.encode() in words for words in own_words)
    assert "serving" in log


def test_one_persons_page_is_shown_where_there_is_one(scripted: Begin, start: Start) -> None:
    """At / and nowhere else, without asking the container; without a page, / is refused like any path."""
    container = scripted(predict)
    assert ask(start(container.port).port, "GET", "/").status == 404
    running = start(container.port, page=b"<!doctype html><title>page</title>")
    reply = ask(running.port, "GET", "/")
    assert (reply.status, reply.body) == (200, b"<!doctype html><title>page</title>")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert ask(running.port, "HEAD", "/").body == b""
    assert ask(running.port, "POST", "/").status == 405
    assert ask(running.port, "GET", "/index.html").status == 404
    assert [head for head, _ in container.requests if b" / " in head] == []
