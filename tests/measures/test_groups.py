"""Groups and cells are measured on their own people; wrong risks show where two groups meet."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from steps.data.schema import Subgroup
from steps.measures import groups, metrics
from steps.measures.scored_rows import ScoredRows, scored_rows

GROUPS = (
    Subgroup("men", "sex", values=(1.0,)),
    Subgroup("women", "sex", values=(0.0,)),
    Subgroup("young", "age", values=(0.0,)),
    Subgroup("old", "age", values=(1.0,)),
)


@pytest.fixture(scope="module")
def rows() -> ScoredRows:
    """Risks that are right for men, for women, for young and for old, and wrong where sex and age meet."""
    generator = np.random.default_rng(7)
    sex, age = generator.integers(0, 2, 40_000), generator.integers(0, 2, 40_000)
    risk = generator.uniform(0.1, 0.4, 40_000)
    truth = risk * np.where(sex == age, 1.4, 0.6)
    y = generator.random(40_000) < truth
    return scored_rows(y, risk, pd.DataFrame({"sex": sex.astype(float), "age": age.astype(float)}))


def test_risks_that_are_right_in_every_group_can_be_wrong_where_two_meet(rows):
    """Observed / expected is 1 in all four groups, and 1.4 or 0.6 in all four cells."""
    for group in groups.measure_groups(rows, GROUPS, 0.25):
        assert group.observed_expected.low < 1.03
        assert group.observed_expected.high > 0.97
    cells, hidden = groups.measure_cells(rows, GROUPS)
    assert hidden == 0
    found = {(cell.first, cell.second): cell.observed_expected for cell in cells}
    for names, ratio in {
        ("men", "old"): 1.4,
        ("women", "young"): 1.4,
        ("men", "young"): 0.6,
        ("women", "old"): 0.6,
    }.items():
        assert found[names].low < ratio < found[names].high
        assert not found[names].low <= 1 <= found[names].high


def test_differences_are_to_everybody_else(rows):
    """Recall of men less that of women, with the interval of two independent shares."""
    men = next(group for group in groups.measure_groups(rows, GROUPS, 0.25) if group.name == "men")
    inside = rows.frame["sex"].to_numpy() == 1
    recalls = [
        float(metrics.confusion(rows.y[mask], rows.risk[mask], 0.25).recall) for mask in (inside, ~inside)
    ]
    assert men.differences.recall.value == pytest.approx(recalls[0] - recalls[1])
    assert men.differences.recall.low < men.differences.recall.value < men.differences.recall.high


def test_the_error_of_a_gap_to_everybody_is_paired(rows):
    """Its standard error agrees with the spread over bootstrap samples of the rows."""
    small = scored_rows(rows.y[:1500], rows.risk[:1500], rows.frame.iloc[:1500])
    gap = groups.measure_groups(small, GROUPS, 0.25)[0].roc_auc_difference
    generator, men = np.random.default_rng(1), small.frame["sex"].to_numpy() == 1
    draws = []
    for _ in range(300):
        drawn = generator.integers(1500, size=1500)
        y, risk, inside = small.y[drawn], small.risk[drawn], men[drawn]
        draws.append(metrics.roc_auc(y, risk) - metrics.roc_auc(y[inside], risk[inside]))
    assert (gap.high - gap.low) / (2 * 1.96) == pytest.approx(np.std(draws), rel=0.15)


def test_few_people_with_the_outcome_ask_for_caution(rows):
    """Below 50."""
    few = scored_rows(rows.y[:200], rows.risk[:200], rows.frame.iloc[:200])
    assert all(group.few for group in groups.measure_groups(few, GROUPS, 0.25))
    assert not any(group.few for group in groups.measure_groups(rows, GROUPS, 0.25))
