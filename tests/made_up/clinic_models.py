"""Prepared frames of the made-up clinic, with an outcome that depends on the features."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tests.made_up.clinic import clinic_rows


def clinic_frame(count: int, seed: int = 1) -> pd.DataFrame:
    """Features as the pipeline hands them on (missing codes are NaN) and the outcome."""
    rows = clinic_rows(count, seed)
    frame = pd.DataFrame(
        {
            "glucose": rows["glucose"].where(rows["glucose"] != 0),
            "ward": rows["ward"].where(rows["ward"] != "?").astype("str"),
            "stage": rows["stage"].where(rows["stage"] != 9).astype("float64"),
            "smoker": rows["smoker"],
        }
    )
    log_odds = (
        -3.2
        + 0.06 * frame["glucose"].fillna(20)
        + 1.1 * (frame["ward"] == "B2")
        + 0.7 * frame["stage"].fillna(1)
        + 0.4 * frame["smoker"].fillna(0)
    )
    drawn = np.random.default_rng(seed + 1).random(count)
    return frame.assign(__target__=(drawn < 1 / (1 + np.exp(-log_odds))).astype("int8"))
