"""What is shown of a table gives no small cell away: an attacker with a solver tries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from steps.data import disclosure
from steps.data.disclosure import Floats, Lines


def _range(lines: Lines, sums: Floats, cell: int) -> float:
    """How far apart the smallest and the largest count are that one cell may have, given sums of lines."""
    goal = np.eye(lines.shape[1])[cell]
    ends = [linprog(sign * goal, A_eq=lines.astype(float), b_eq=sums).fun for sign in (1, -1)]
    return float(-ends[1] - ends[0])


def _attack(members: Lines, hidden: Lines, counts: Floats, cell: int) -> float:
    """Range that remains of one cell to somebody who knows the lines that are shown, and the total."""
    known = np.vstack([members[~hidden], np.ones(members.shape[1], dtype=np.bool_)])
    return _range(known, known @ counts, cell)


def _levels(*counts: int) -> Floats:
    return np.array(counts, dtype=np.float64)


def test_a_hidden_pair_whose_sum_is_small_takes_a_third_along() -> None:
    """Two cells of one person each: that they add up to two would say it all."""
    assert disclosure.hidden_counts(_levels(1, 1, 100, 200)).tolist() == [True, True, True, False]


def test_a_cell_hidden_alone_takes_the_next_smallest_along() -> None:
    """Or it would follow from the total."""
    assert disclosure.hidden_counts(_levels(5, 0, 300, 100)).tolist() == [True, False, False, True]


def test_rare_outcomes_hide_a_group_of_many() -> None:
    """Fewer than 10 of either outcome hide a group, and a second with them."""
    rows, positives = _levels(500, 200, 40, 0), _levels(100, 50, 3, 0)
    assert disclosure.hidden_cells(rows, rows, positives).tolist() == [False, True, True, False]
    assert not disclosure.hidden_cells(rows, rows, _levels(100, 50, 12, 0)).any()


def test_a_subgroup_does_not_give_back_a_level_that_it_holds() -> None:
    """Of `old`, made of 75-79 and 80 and over, the second is hidden: then `old` may not be shown either."""
    levels, old = np.eye(4, dtype=np.bool_), np.array([[False, False, True, True]])
    members = np.vstack([levels, old])
    counts = _levels(300, 200, 60, 4)
    hidden = disclosure.hidden_lines(members, counts)
    assert hidden[3]
    assert _attack(members, hidden, counts, 3) >= disclosure.SMALLEST_CELL


def test_what_another_document_hides_stays_hidden() -> None:
    """To hide another line in its place would give both away."""
    members, counts = np.eye(4, dtype=np.bool_), _levels(3, 500, 600, 700)
    elsewhere = np.array([True, True, False, False])
    hidden = disclosure.hidden_lines(
        members, counts, _levels(1, 100, 4, 100), _levels(2, 400, 596, 600), elsewhere=elsewhere
    )
    assert hidden[:2].all()


@settings(max_examples=150, deadline=None)
@given(data=st.data(), cells=st.integers(2, 7), groups=st.integers(0, 3))
def test_no_small_cell_can_be_worked_out(data: st.DataObject, cells: int, groups: int) -> None:
    """Any table with overlapping groups: the solver leaves each small cell a range of at least ten.

    Unless the whole table hides: then the total is all that anybody has.
    """
    size = st.one_of(st.integers(0, 12), st.integers(13, 400))
    positives = _levels(*data.draw(st.lists(size, min_size=cells, max_size=cells)))
    negatives = _levels(*data.draw(st.lists(size, min_size=cells, max_size=cells)))
    masks = data.draw(
        st.lists(st.lists(st.booleans(), min_size=cells, max_size=cells), min_size=groups, max_size=groups)
    )
    members = np.vstack([np.eye(cells, dtype=np.bool_), np.array(masks, dtype=np.bool_).reshape(-1, cells)])
    rows = positives + negatives
    hidden = disclosure.hidden_lines(members, rows, positives, negatives)
    assert not hidden[members @ rows == 0].any()
    if hidden[members @ rows > 0].all():
        return
    for counts in (rows, positives, negatives):
        for cell in np.flatnonzero((rows > 0) & (counts < disclosure.SMALLEST_CELL)):
            assert _attack(members, hidden, counts, int(cell)) >= disclosure.SMALLEST_CELL - 1e-6


def test_coarse_counts_hide_one_among_ten() -> None:
    """None stays none; 1 to 14 are ten; the rest goes to the nearest ten."""
    assert disclosure.coarse([0, 1, 9, 14, 15, 24, 25, 1234]).tolist() == [0, 10, 10, 10, 20, 20, 30, 1230]


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ([896, 1], [890, 10]),  # 900 and 10, of 897 people, would leave 1 or 2
        ([895, 2], [890, 10]),
        ([883, 14], [890, 10]),
        ([600, 297], [600, 300]),
        ([7, 5], [10, 10]),
        ([0, 0], [0, 0]),
        ([1, 1, 1], [10, 10, 10]),
    ],
)
def test_coarse_parts_of_a_known_whole_leave_a_small_one_unknown(counts: list[int], shown: list[int]) -> None:
    """The largest part is what the others leave, so whatever a small one is, the same is shown."""
    assert disclosure.coarse_parts(counts).tolist() == shown


@pytest.mark.parametrize(("count", "words"), [(0, "0 rows"), (9, "fewer than 10 rows"), (1234, "1,234 rows")])
def test_a_few_are_not_counted_in_words(count: int, words: str) -> None:
    """A message says no small count."""
    assert disclosure.in_words(count) == words


def test_edges_are_nobodys_value() -> None:
    """Deciles are rounded to a hundredth of the range or coarser, inside it, none twice."""
    values = np.append(np.random.default_rng(1).normal(50, 15, 4000), 61.23456789)
    edges = disclosure.quantile_edges(values, 0.0, 100.0)
    assert len(edges) == 9
    assert all(edge == round(edge) and 0 < edge <= 100 for edge in edges)
    assert disclosure.quantile_edges(np.array([]), 0.0, 1.0) == ()
