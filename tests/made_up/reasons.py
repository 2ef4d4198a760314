"""Asking for reasons, and comparing the answers of two places that give them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

Answers = list[dict[str, Any]]
TOLERANCE = 1e-9


def body(frame: pd.DataFrame, reasons: int) -> str:
    """A request for so many reasons of each row; what is missing is null."""
    rows = [[None if value != value else value for value in row] for row in frame.itertuples(index=False)]
    split = {"columns": list(frame), "data": rows}
    return json.dumps({"dataframe_split": split, "params": {"reasons": reasons}})


def assert_same(given: Answers, expected: Answers) -> None:
    """The same terms, levels and missing answers; risks and effects within 1e-9."""
    assert len(given) == len(expected)
    for one, other in zip(given, expected, strict=True):
        assert one["missing"] == other["missing"]
        assert [_named(reason) for reason in one["reasons"]] == [
            _named(reason) for reason in other["reasons"]
        ]
        assert np.abs(np.subtract(_numbers(one), _numbers(other))).max() <= TOLERANCE


def _named(reason: Mapping[str, Any]) -> tuple[Any, Any]:
    return reason["columns"], reason["levels"]


def _numbers(answer: Mapping[str, Any]) -> list[float]:
    effects = [reason["log_odds"] for reason in answer["reasons"]]
    return [answer["risk"], answer["baseline_log_odds"], answer["other_log_odds"], *effects]
