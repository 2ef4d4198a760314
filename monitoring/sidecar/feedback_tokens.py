"""Signed feedback tokens: what was predicted, carried by the caller instead of a database.

A token is `base64url(payload + mac)`: format, time of the prediction, eight random bytes, model name and
version, then for each row one byte of score bin and two of risk (in 65535ths). It is signed (HMAC-SHA256,
128 bits), not secret: it says no more than the answer that it came with.
"""

import base64
import binascii
import hmac
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FORMAT = 1
DOMAIN = b"model-feedback-token"
HEAD = struct.Struct(">BI8sBB")
ROW = np.dtype([("bin", "u1"), ("risk", ">u2")])
MAC_BYTES = 16
LONGEST_NAME = 255
RISK_STEPS = 65535
CLOCK_SKEW = 300


class TokenError(ValueError):
    """The token is refused; `reason` is forged, expired or other_model."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Issued(NamedTuple):
    """What a genuine token says. `identity` tells any two tokens apart."""

    identity: bytes
    issued_at: int
    version: str
    bins: npt.NDArray[np.uint8]
    risks: npt.NDArray[np.float64]


def issue(
    keys: Sequence[str],
    name: str,
    version: str,
    bins: Sequence[int],
    risks: Sequence[float],
    *,
    now: float,
    random: Callable[[int], bytes],
) -> str:
    """A token for the rows of one answer, signed with the first key. Bins 0 to 255, risks 0 to 1."""
    encoded_name, encoded_version = name.encode()[:LONGEST_NAME], version.encode()[:LONGEST_NAME]
    head = HEAD.pack(FORMAT, int(now), random(8), len(encoded_name), len(encoded_version))
    rows = b"".join(
        [
            bytes((place, steps >> 8, steps & 255))
            for place, steps in zip(bins, [round(risk * RISK_STEPS) for risk in risks], strict=True)
        ]
    )
    payload = head + encoded_name + encoded_version + rows
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
    if not any(genuine) or len(payload) < HEAD.size:
        raise TokenError("forged")
    form, issued_at, _, name_bytes, version_bytes = HEAD.unpack_from(payload)
    start = HEAD.size + name_bytes + version_bytes
    if form != FORMAT or (len(payload) - start) % ROW.itemsize or len(payload) < start:
        raise TokenError("forged")
    if payload[HEAD.size : HEAD.size + name_bytes] != name.encode()[:LONGEST_NAME]:
        raise TokenError("other_model")
    if not -CLOCK_SKEW <= now - issued_at <= lifetime:
        raise TokenError("expired")
    rows = np.frombuffer(payload, ROW, offset=start)
    version = payload[HEAD.size + name_bytes : start].decode("utf-8", "replace")
    return Issued(mac, issued_at, version, rows["bin"], rows["risk"] / RISK_STEPS)


def _mac(key: str, payload: bytes) -> bytes:
    return hmac.digest(key.encode(), DOMAIN + payload, "sha256")[:MAC_BYTES]
