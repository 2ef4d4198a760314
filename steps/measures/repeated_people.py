"""People with several rows: their rows give less evidence than the same number of people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def design_effect(person: pd.Series[Any]) -> float:
    """The factor by which repeated people inflate counts, from an identifier of each row's person.

    Kish's design effect (Survey Sampling, 1965) for people with m rows each whose answers are always the
    same: sum of m^2 over sum of m; 1 where no person comes twice. Answers that change between two rows of a
    person would make it smaller, so this is the most careful value. A row without an identifier counts as a
    person.
    """
    rows = len(person)
    if not rows:
        return 1.0
    sizes = person.value_counts(dropna=True).to_numpy(dtype=np.float64)
    alone = rows - sizes.sum()
    return float(((sizes**2).sum() + alone) / rows)
