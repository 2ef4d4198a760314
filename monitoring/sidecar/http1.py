"""HTTP/1.1 messages, parsed strictly (RFC 9112): ambiguous messages are refused.

Requests of callers and answers of the container follow the same rules, so that neither side can make the
sidecar take the end of one message for the start of another (request smuggling).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

HEAD_BYTES = 32_768
REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]+) HTTP/1\.([01])")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
TARGET = re.compile(r"(?:http://([^/?#]+))?(/[^?#]*)(?:\?([^#]*))?")
LENGTH = re.compile(r"[0-9]{1,15}")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
# They concern one connection only and are never passed on (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    [
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    ]
)

Fields = Sequence[tuple[str, str]]


class MalformedError(ValueError):
    """The message breaks a rule of HTTP/1.1."""


class RequestHead(NamedTuple):
    """The head of a request. `length` is None for a chunked body; `waits`: the client sends the body after a
    100 (Continue)."""

    method: str
    path: str
    query: str
    fields: list[tuple[str, str]]
    values: dict[str, str]
    length: int | None
    keeps_alive: bool
    waits: bool


class AnswerHead(NamedTuple):
    """The head of an answer. `length` is None for a chunked body and for a body without a length."""

    status: int
    phrase: str
    fields: list[tuple[str, str]]
    values: dict[str, str]
    length: int | None
    chunked: bool
    keeps_alive: bool


def request_head(received: bytes) -> RequestHead:
    """Read a request's head, without the empty line at its end. Raises MalformedError."""
    first, *lines = received.split(b"\r\n")
    line = REQUEST_LINE.fullmatch(first)
    if line is None:
        raise MalformedError
    fields, values = _fields(lines)
    target = TARGET.fullmatch(line[2].decode("ascii"))
    host, old = values.get("host"), line[3] == b"0"
    if target is None or (host is None and not old) or (host is not None and "," in host):
        raise MalformedError
    if target[1] is not None and host is not None and target[1].lower() != host.lower():
        raise MalformedError
    chunked = _is_chunked(values)
    if chunked and old:
        raise MalformedError
    length = None if chunked else _length(values) or 0
    method, query = line[1].decode("ascii"), target[3] or ""
    waits = not old and values.get("expect", "").lower() == "100-continue"
    return RequestHead(method, target[2], query, fields, values, length, _keeps_alive(values, old), waits)


def answer_head(received: bytes) -> AnswerHead:
    """Read an answer's head, without the empty line at its end. Raises MalformedError."""
    first, *lines = received.split(b"\r\n")
    line = STATUS_LINE.fullmatch(first)
    if line is None:
        raise MalformedError
    fields, values = _fields(lines)
    chunked, length = _is_chunked(values), _length(values)
    phrase = (line[3] or b"").decode("latin-1") or "Unknown"
    keeps = _keeps_alive(values, line[1] == b"0") and (chunked or length is not None)
    return AnswerHead(int(line[2]), phrase, fields, values, length, chunked, keeps)


def chunk_size(line: bytes) -> int:
    """The size in a chunk's first line. Raises MalformedError."""
    size = CHUNK_SIZE.fullmatch(line)
    if size is None:
        raise MalformedError
    return int(size[1], 16)


def end_to_end(fields: Fields, values: dict[str, str]) -> list[tuple[str, str]]:
    """The end-to-end fields, without the length, which is written again.

    Names with an underscore are dropped: some servers treat `Content_Length` like `Content-Length`.
    """
    dropped: frozenset[str] = HOP_BY_HOP
    if "connection" in values:
        dropped = dropped.union(listed(values["connection"]))
    return [
        field
        for field in fields
        if (name := field[0].lower()) not in dropped and name != "content-length" and "_" not in name
    ]


def listed(value: str) -> set[str]:
    """The members of a list in a field, in lower case."""
    return {member.strip().lower() for member in value.split(",")}


def _fields(lines: Sequence[bytes]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Fields in order, and values by lower-case name; values of the same name are joined by commas."""
    fields: list[tuple[str, str]] = []
    values: dict[str, str] = {}
    for line in lines:
        field = FIELD.fullmatch(line)
        if field is None:
            raise MalformedError
        name, value = field[1].decode("ascii"), field[2].decode("latin-1")
        fields.append((name, value))
        lower = name.lower()
        values[lower] = f"{values[lower]}, {value}" if lower in values else value
    return fields, values


def _is_chunked(values: dict[str, str]) -> bool:
    coding = values.get("transfer-encoding")
    if coding is None:
        return False
    if coding.lower() != "chunked" or "content-length" in values:
        raise MalformedError
    return True


def _length(values: dict[str, str]) -> int | None:
    length = values.get("content-length")
    if length is None:
        return None
    if LENGTH.fullmatch(length) is None:
        raise MalformedError
    return int(length)


def _keeps_alive(values: dict[str, str], old: bool) -> bool:
    options = listed(values["connection"]) if "connection" in values else ()
    return "keep-alive" in options if old else "close" not in options
