"""The design effect of people who come several times."""

from __future__ import annotations

import pandas as pd
import pytest

from steps.measures.repeated_people import design_effect


@pytest.mark.parametrize(
    ("people", "effect"),
    [
        (["a", "b", "c"], 1.0),
        (["a", "a", "a", "a", "a"] * 3, 15.0),
        ([person for person in "abcdef" for _ in range(5)], 5.0),
        (["a", "a", "b"], 5 / 3),
        ([None, None, "a", "a"], 6 / 4),
        ([], 1.0),
    ],
)
def test_counts_are_worth_less_by_the_mean_number_of_rows_of_a_rows_person(
    people: list[str | None], effect: float
) -> None:
    """Sum of squares over sum; whoever has no identifier is somebody else each time."""
    assert design_effect(pd.Series(people, dtype=object)) == pytest.approx(effect)
