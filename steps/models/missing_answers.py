"""Training for missing answers: each person is twice in the rows that a model is fitted on.

A survey of complete rows teaches a model nothing about missing answers: its risks for incomplete rows are 15
to 50 % too low. So every family is fitted on each row as it is, at weight 1, and on a copy with answers
hidden at random (probability 0.15 each), at weight 0.3. Risks of rows with a few missing answers are then
calibrated on average, for answers that are missing at random; docs/training.md has figures and limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

HIDDEN_SHARE = 0.15
COPY_WEIGHT = 0.3


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The rows that a model is fitted on.

    `X` holds raw features, `y` outcomes of 0 and 1, `weight` the weight and `person` the number of the person
    of each row. The first `people` rows are the complete rows of the persons 0 to `people` - 1, in order.
    """

    X: pd.DataFrame
    y: NDArray[np.int8]
    weight: NDArray[np.float64]
    person: NDArray[np.intp]
    people: int


def as_they_are(X: pd.DataFrame, y: NDArray[np.int8]) -> TrainingRows:
    """The rows alone, at weight 1."""
    return TrainingRows(X, y, np.ones(len(y)), np.arange(len(y)), len(y))


def with_hidden_answers(X: pd.DataFrame, y: NDArray[np.int8], seed: int) -> TrainingRows:
    """The rows, then a copy of each with answers hidden at random; twice as many rows."""
    import pandas as pd

    draw = np.random.default_rng([seed, 19])
    copy = X.copy()
    for name in copy.columns:
        copy[name] = copy[name].mask(draw.random(len(copy)) < HIDDEN_SHARE)
    people = np.arange(len(y))
    return TrainingRows(
        pd.concat([X, copy], ignore_index=True),
        np.concatenate([y, y]),
        np.concatenate([np.ones(len(y)), np.full(len(y), COPY_WEIGHT)]),
        np.concatenate([people, people]),
        len(y),
    )
