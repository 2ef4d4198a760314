"""What explore finds in a numeric column: impossible zeros, filled-in values, ends that decide."""

from __future__ import annotations

import numpy as np
import pytest

from steps.measures import oddities

RNG = np.random.default_rng(0)


def test_zeros_where_nothing_is_near_zero_are_found() -> None:
    """A body mass index of 0, in 40 % of the rows."""
    values = np.where(RNG.random(2000) < 0.4, 0.0, RNG.normal(28, 5, 2000).round(1))
    assert oddities.impossible_zeros(values) == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize(
    "values",
    [
        RNG.poisson(1.0, 2000).astype(float),  # counts
        np.minimum(RNG.geometric(0.2, 2000) - 1, 30).astype(float),  # days
        RNG.normal(0, 1, 2000).round(1),  # numbers around 0
        RNG.normal(28, 5, 2000),  # no zero at all
        np.where(RNG.random(2000) < 0.3, 0.0, RNG.exponential(1, 2000)),  # amounts down to nothing
    ],
)
def test_zeros_that_are_answers_are_not_called_impossible(values: np.ndarray) -> None:
    """Nothing is invented."""
    assert oddities.impossible_zeros(values) is None


def test_one_value_in_a_quarter_of_the_rows_is_found() -> None:
    """A weight that was filled in; days of the past 30 that are 0 for most are not that."""
    values = RNG.normal(75, 12, 2000).round(1)
    values[:600] = 74.3
    assert oddities.spike(values) == (74.3, pytest.approx(0.3, abs=0.01))
    days = np.where(RNG.random(2000) < 0.7, 0.0, RNG.integers(1, 31, 2000))
    assert oddities.spike(days) is None


def test_the_end_of_a_range_that_decides_is_found_though_its_tenth_does_not() -> None:
    """Glucose from 220 on, a few of a hundred; HbA1c from 6.8 on; the cut is rounded inwards."""
    glucose = RNG.normal(110, 25, 20_000).clip(40, 199)
    ill = (RNG.random(20_000) < 0.1).astype(float)
    glucose[:400], ill[:400] = RNG.uniform(220.3, 400, 400), 1.0
    found = oddities.decided(glucose, ill, 40, 500)
    assert found is not None and found.high is None
    assert 199 <= found.low <= 221 and found.rows >= 390
    low = oddities.decided(-glucose, ill, -500, -40)
    assert low is not None and low.low is None and low.high == -found.low
    single = np.where(np.arange(20_000) < 400, 55.5, glucose.clip(40, 199))
    found = oddities.decided(single, ill, 40, 500)
    assert found is not None and found.low == found.high == 55.5


def test_chance_decides_nothing() -> None:
    """An outcome that has nothing to do with a column, or goes with it as risks do."""
    values = RNG.normal(0, 1, 20_000)
    for odds in (np.full(20_000, -2.0), -2 + 1.5 * values):
        outcome = (RNG.random(20_000) < 1 / (1 + np.exp(-odds))).astype(float)
        assert oddities.decided(values, outcome, -5, 5) is None
