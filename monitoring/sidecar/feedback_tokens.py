"""Signed feedback tokens: callers carry the predictions, so that the sidecar needs no database.

A token is `base64url(payload + mac)`: format, time of the prediction, eight random bytes, a checksum of the
groups, model name and version, then for each row one byte of score bin, one of group and two of risk (in
65535ths). It is signed (HMAC-SHA256, 128 bits), not secret: it contains no more than the request and the
answer. Tokens of format 1 have no groups.
"""

import base64
import binascii
import hmac
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FORMAT = 2
DOMAIN = b"model-feedback-token"
HEAD = struct.Struct(">BI8sBBI")
HEAD_1 = struct.Struct(">BI8sBB")
ROW = np.dtype([("bin", "u1"), ("group", "u1"), ("risk", ">u2")])
ROW_1 = np.dtype([("bin", "u1"), ("risk", ">u2")])
LAYOUTS = {1: (HEAD_1, ROW_1), FORMAT: (HEAD, ROW)}
# The byte of the group holds its index, and this bit if the row was flagged.
FLAGGED = 128
MAC_BYTES = 16
LONGEST_NAME = 255
RISK_STEPS = 65535
CLOCK_SKEW = 300


class TokenError(ValueError):
    """The token is refused; `reason` is forged, expired or other_model."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Row(NamedTuple):
    """A row of a token: score bin from 0 to 255, risk from 0 to 1, index of the group from 1 to 127 (0 for
    none), whether the row was flagged."""

    bin: int
    risk: float
    group: int = 0
    flagged: bool = False


@dataclass(frozen=True)
class Issued:
    """The content of a genuine token. `identity` is unique; `groups_key` is the checksum of the groups that
    the rows refer to, 0 for none; `packed` has one record per row."""

    identity: bytes
    issued_at: int
    version: str
    groups_key: int
    packed: npt.NDArray[np.void]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.packed)

    def row(self, index: int) -> Row:
        """The row at this index, from 0."""
        packed = self.packed[index]
        group = int(packed["group"]) if "group" in (self.packed.dtype.names or ()) else 0
        return Row(int(packed["bin"]), int(packed["risk"]) / RISK_STEPS, group % FLAGGED, group >= FLAGGED)


def issue(
    keys: Sequence[str],
    name: str,
    version: str,
    rows: Sequence[Row],
    *,
    groups_key: int = 0,
    now: float,
    random: Callable[[int], bytes],
) -> str:
    """A token for the rows of one answer, signed with the first key."""
    encoded_name, encoded_version = name.encode()[:LONGEST_NAME], version.encode()[:LONGEST_NAME]
    head = HEAD.pack(FORMAT, int(now), random(8), len(encoded_name), len(encoded_version), groups_key)
    packed = b"".join([_packed(row) for row in rows])
    payload = head + encoded_name + encoded_version + packed
    return base64.urlsafe_b64encode(payload + _mac(keys[0], payload)).decode()


def read(keys: Sequence[str], name: str, token: str, *, now: float, lifetime: float) -> Issued:
    """Check a token against every key and take it apart; `lifetime` in seconds.

    Raises TokenError: forged (no key signed it, or it is cut short), other_model, expired.
    """
    try:
        signed = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenError("forged") from None
    payload, mac = signed[:-MAC_BYTES], signed[-MAC_BYTES:]
    genuine = [hmac.compare_digest(mac, _mac(key, payload)) for key in keys]
    if not any(genuine) or not payload:
        raise TokenError("forged")
    layout, row = LAYOUTS.get(payload[0], (HEAD, ROW))
    if payload[0] not in LAYOUTS or len(payload) < layout.size:
        raise TokenError("forged")
    _, issued_at, _, name_bytes, version_bytes, *key = layout.unpack_from(payload)
    start = layout.size + name_bytes + version_bytes
    if len(payload) < start or (len(payload) - start) % row.itemsize:
        raise TokenError("forged")
    if payload[layout.size : layout.size + name_bytes] != name.encode()[:LONGEST_NAME]:
        raise TokenError("other_model")
    if not -CLOCK_SKEW <= now - issued_at <= lifetime:
        raise TokenError("expired")
    version = payload[layout.size + name_bytes : start].decode("utf-8", "replace")
    return Issued(mac, issued_at, version, key[0] if key else 0, np.frombuffer(payload, row, offset=start))


def _packed(row: Row) -> bytes:
    steps = round(row.risk * RISK_STEPS)
    return bytes((row.bin, row.group | (FLAGGED if row.flagged else 0), steps >> 8, steps & 255))


def _mac(key: str, payload: bytes) -> bytes:
    return hmac.digest(key.encode(), DOMAIN + payload, "sha256")[:MAC_BYTES]
