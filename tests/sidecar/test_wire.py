"""HTTP as bytes: each file of `wire` runs through a real sidecar.

A file has a comment, with the expected status if it is invalid, and then the bytes: what the lines hold, with
escapes as in Python, and without the ends of the lines.
"""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from monitoring.sidecar import server
from tests.made_up.sidecars import PATIENCE, Scripted, Start, headers_of, say

Begin = Callable[..., Scripted]
FOLDER = Path(__file__).with_name("wire")
NEXT = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"


def case(file: Path) -> tuple[str, bytes]:
    """Comment and bytes of a file."""
    comment, *lines = file.read_text(encoding="ascii").splitlines()
    return comment.removeprefix("# "), "".join(lines).encode().decode("unicode_escape").encode("latin-1")


def cases(kind: str) -> list[Path]:
    return sorted((FOLDER / kind).glob("*.http"))


@pytest.mark.parametrize("file", cases("invalid"), ids=lambda file: file.stem)
def test_what_two_readers_could_understand_differently_is_refused(
    start: Start, scripted: Begin, file: Path
) -> None:
    """A JSON error that quotes nothing, and the end of the connection where it cannot be said where the next
    request begins; nothing reaches the container."""
    comment, wire = case(file)
    container = scripted()
    sidecar = start(container.port)
    answer = say(sidecar.port, wire + NEXT)
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1].decode() == comment.split(" ")[0]
    if b"Connection: close" in head:
        assert set(json.loads(content)) == {"error_code", "message"}
        assert container.requests == []
    assert sidecar.value("sidecar_requests_refused_total") == 1


@pytest.mark.parametrize("file", cases("valid"), ids=lambda file: file.stem)
def test_odd_but_valid_http_reaches_the_container_as_one_plain_request(
    start: Start, scripted: Begin, file: Path
) -> None:
    """With one length, which is that of the body."""
    container = scripted()
    say(start(container.port).port, case(file)[1])
    ((head, body),) = container.requests
    assert head.startswith(b"POST /invocations HTTP/1.1\r\n")
    assert body == b"abcde"
    fields = headers_of(head)
    assert fields["content-length"] == "5"
    assert not fields.keys() & {"transfer-encoding", "trailer", "expect", "content_length"}


def test_a_caller_of_http_1_0_is_not_told_to_go_on(start: Start, scripted: Begin) -> None:
    """It would take a 100 (Continue) for the answer (RFC 9110, 10.1.1)."""
    fields = b"Expect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 5\r\n"
    with socket.create_connection(("127.0.0.1", start(scripted().port).port), timeout=PATIENCE) as client:
        client.sendall(b"POST /invocations HTTP/1.0\r\n" + fields + b"\r\n")
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE)
        client.sendall(b"abcde")
        assert client.recv(65_536).startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize(
    ("address", "share"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("2001:db8:1:2::9", "2001:0db8:0001:0002"),
        ("fe80::1%eth0", "fe80:0000:0000:0000"),
        ("", ""),
    ],
)
def test_a_share_of_connections_is_a_subscribers(address: str, share: str) -> None:
    """Who has one address of IPv6 has 2 ** 64 of them."""
    assert server.subscriber(address) == share


@pytest.mark.parametrize("long", [b"X: " + b"y" * 70_000, b"X: y\r\n" * 10_000], ids=["one", "many"])
def test_a_head_has_a_size(start: Start, scripted: Begin, long: bytes) -> None:
    """32 KiB; more is not read on."""
    container = scripted()
    answer = say(start(container.port).port, b"GET /ping HTTP/1.1\r\nHost: x\r\n" + long + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert container.requests == []
