"""SAS transport files, version 5, of made-up numbers: as the CDC publishes its surveys."""

from __future__ import annotations

import struct

import numpy as np
import pandas as pd


def ibm(value: float) -> bytes:
    """A number as mainframes and SAS transport files store it; a lone point for missing."""
    if np.isnan(value):
        return b"." + b"\0" * 7
    if value == 0:
        return b"\0" * 8
    sign, value, power = (0x80 if value < 0 else 0), abs(value), 64
    while value >= 1:
        value, power = value / 16, power + 1
    while value < 1 / 16:
        value, power = value * 16, power - 1
    return bytes([sign | power]) + int(value * 2**56).to_bytes(7, "big")


def transport(frame: pd.DataFrame) -> bytes:
    """A SAS transport file, version 5, of number columns."""
    stamp = b"01JAN24:00:00:00"
    head = b"HEADER RECORD*******LIBRARY HEADER RECORD!!!!!!!" + b"0" * 30 + b"  "
    head += b"SAS     SAS     SASLIB  9.4     X64     ".ljust(64) + stamp + stamp.ljust(80)
    head += b"HEADER RECORD*******MEMBER  HEADER RECORD!!!!!!!" + b"0" * 17 + b"1600000000140  "
    head += b"HEADER RECORD*******DSCRPTR HEADER RECORD!!!!!!!" + b"0" * 30 + b"  "
    head += b"SAS     ROWS    SASDATA 9.4     X64     ".ljust(64) + stamp + stamp.ljust(80)
    head += b"HEADER RECORD*******NAMESTR HEADER RECORD!!!!!!!000000" + f"{len(frame.columns):04d}".encode()
    head += b"0" * 20 + b"  "
    names, blank = b"", b" " * 52
    for place, name in enumerate(frame.columns):
        names += struct.pack(
            ">hhhh8s40s8shhh2s8shhl52s", 1, 0, 8, place + 1, name.encode().ljust(8), blank[:40], blank[:8],
            8, 0, 0, blank[:2], blank[:8], 0, 0, 8 * place, blank,
        )  # fmt: skip
    names += b" " * (-len(names) % 80)
    rows = b"".join(ibm(float(value)) for row in frame.itertuples(index=False) for value in row)
    rows += b" " * (-len(rows) % 80)
    return head + names + b"HEADER RECORD*******OBS     HEADER RECORD!!!!!!!" + b"0" * 30 + b"  " + rows
