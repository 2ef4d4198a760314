"""People who are counted several times: evidence from their rows is worth less than their number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def design_effect(person: pd.Series[Any]) -> float:
    """By how much counts of rows overstate what is known, from an identifier of the person of each row.

    Kish's design effect (Survey Sampling, 1965) for people with m rows each whose answers are always the
    same: sum of m^2 over sum of m; 1 where nobody comes twice. Answers that change between two rows of one
    person would make it smaller, so this is the most careful value. A row without an identifier is a person
    of its own.
    """
    rows = len(person)
    if not rows:
        return 1.0
    sizes = person.value_counts(dropna=True).to_numpy(dtype=np.float64)
    alone = rows - sizes.sum()
    return float(((sizes**2).sum() + alone) / rows)
