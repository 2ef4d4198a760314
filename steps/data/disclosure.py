"""Disclosure control: no published count identifies a few people, no bin edge is one person's value.

Every document, tag, metric, released file and picture of counts uses this module. It answers two questions.
*Is this number small?* `shown` and `coarse` answer it for a number on its own. *Does it follow from other
numbers?* `hidden_lines` answers it for the lines of one table. The levels of a column, its missing answers
and the subgroups made from it belong in one table, since a subgroup minus a level may be another level.

Figures along the predicted risk (calibration, ROC and decision curves, score bins) are out of scope: their
bins hold people who share a risk, not an answer. They are rounded instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Lines = NDArray[np.bool_]

SMALLEST_CELL = 10
FEW = f"fewer than {SMALLEST_CELL}"


def is_small(count: float) -> bool:
    """Whether a count of people is too small to be published; zero may be published."""
    return 0 < count < SMALLEST_CELL


def shown(count: int) -> int | None:
    """A count as it may be published: None for a small one."""
    return None if is_small(count) else int(count)


def in_words(count: int) -> str:
    """A count of rows as a message may give it: "1,234 rows", or "fewer than 10 rows"."""
    return f"{FEW} rows" if is_small(count) else f"{count:,} rows"


def coarse(counts: Sequence[float] | NDArray[np.generic]) -> NDArray[np.int64]:
    """Round counts to multiples of ten: 0 stays 0, 1 to 14 become 10, others go to the nearest multiple.

    For counts that a computation needs, such as the bins that a monitor compares with.
    """
    exact = np.asarray(counts, dtype=np.float64)
    tens = np.floor(exact / SMALLEST_CELL + 0.5) * SMALLEST_CELL
    return np.where(exact > 0, np.maximum(tens, SMALLEST_CELL), 0).astype(np.int64)


def coarse_parts(counts: Sequence[float] | NDArray[np.generic]) -> NDArray[np.int64]:
    """Round the parts of a known total to multiples of ten, where one of the parts may be small.

    Rounded on their own they reveal it: of 897 people, 900 and 10 can only be 896 and 1, or 895 and 2. So
    where a part is 10, the largest part becomes the rounded total less the other parts.
    """
    rounded = coarse(counts)
    if SMALLEST_CELL in rounded:
        largest = int(np.argmax(counts))
        other_parts = int(rounded.sum() - rounded[largest])
        total = int(coarse([float(np.sum(np.asarray(counts, dtype=np.float64)))])[0])
        rounded[largest] = max(total - other_parts, SMALLEST_CELL)
    return rounded


def hidden_counts(rows: Floats) -> Lines:
    """Which counts of one list may not be shown, where their sum is known; shape (lines,)."""
    return hidden_lines(np.eye(len(rows), dtype=np.bool_), rows)


def hidden_cells(rows: Floats, labelled: Floats, positives: Floats) -> Lines:
    """Which of several disjoint groups may not be shown with their positives among the `labelled` rows."""
    return hidden_lines(np.eye(len(rows), dtype=np.bool_), rows, positives, labelled - positives)


def hidden_lines(
    members: Lines,
    rows: Floats,
    positives: Floats | None = None,
    negatives: Floats | None = None,
    *,
    elsewhere: Lines | None = None,
    public: Lines | None = None,
) -> Lines:
    """Which lines of one table may not be shown, shape (lines,).

    `members` (lines, cells) says which cells each line adds up; cells are disjoint, and `rows`, `positives`
    and `negatives` (cells,) count their people. Sums over all cells are assumed to be public.

    Hidden are lines of fewer than 10 rows, and with labels those of fewer than 10 of either outcome. More
    lines follow, the smallest first, until nobody can work out a small cell from what remains: the counts
    that fit the shown lines leave each small cell a range of at least 10. An empty line is shown.

    `elsewhere` (lines,) names lines that another document of the same rows hides: to hide others in their
    place would reveal both. `public` (lines,) names lines that are always shown; others are hidden instead.
    """
    peopled = rows > 0
    members, rows = members[:, peopled], rows[peopled]
    lines = members.astype(np.float64)
    size = lines @ rows
    hidden = (size > 0) & (size < SMALLEST_CELL)
    if elsewhere is not None:
        hidden |= elsewhere
    # Each: counts, the smallest count that a reader can assume (empty lines are shown), which are sensitive.
    parts = [(rows, np.ones(len(rows)), rows < SMALLEST_CELL)]
    if positives is not None and negatives is not None:
        positives, negatives = positives[peopled], negatives[peopled]
        labelled = positives + negatives > 0
        rarer = np.minimum(lines @ positives, lines @ negatives)
        hidden |= (lines @ labelled > 0) & (rarer < SMALLEST_CELL)
        nothing = np.zeros(len(rows))
        parts += [(part, nothing, labelled & (part < SMALLEST_CELL)) for part in (positives, negatives)]
    order = [line for line in np.argsort(size, kind="stable") if size[line] > 0]
    while any(_narrowest(members[~hidden], *part) < SMALLEST_CELL for part in parts):
        candidates = [line for line in order if not hidden[line] and (public is None or not public[line])]
        if not candidates:
            break
        hidden[candidates[0]] = True
    return np.asarray(hidden, dtype=np.bool_)


def _narrowest(members: Lines, counts: Floats, least: Floats, sensitive: Lines) -> float:
    """Smallest range that the sums of the lines, and of all cells, leave to one of the sensitive cells.

    Cells of the same lines cannot be told apart from outside: each may hold anything up to their sum.
    """
    published = np.vstack([members, np.ones((1, members.shape[1]), dtype=np.bool_)])
    patterns, pattern_of_cell = np.unique(published, axis=1, return_inverse=True)
    pattern_of_cell = pattern_of_cell.ravel()
    cells = np.bincount(pattern_of_cell)
    fewest = np.bincount(pattern_of_cell, weights=least).astype(np.float64)
    overlapping = patterns[:-1].sum(axis=0).max(initial=0) > 1
    narrowest = float(np.inf)
    for unknown in np.unique(pattern_of_cell[sensitive]):
        total = float(counts[pattern_of_cell == unknown].sum())
        low, high = _bounds(patterns, published @ counts, fewest, unknown) if overlapping else (total, total)
        narrowest = min(narrowest, high - (low if cells[unknown] == 1 else fewest[unknown]))
    return narrowest


def _bounds(patterns: Lines, sums: Floats, fewest: Floats, unknown: int) -> tuple[float, float]:
    """Smallest and largest value of one unknown, given the sums of the lines, by linear programming."""
    from scipy.optimize import linprog

    goal = np.zeros(patterns.shape[1])
    goal[unknown] = 1.0
    bounds = [(least, None) for least in fewest]
    low, high = (
        linprog(sign * goal, A_eq=patterns.astype(np.float64), b_eq=sums, bounds=bounds, method="highs")
        for sign in (1.0, -1.0)
    )
    return (float(low.fun), -float(high.fun)) if low.status == high.status == 0 else (0.0, 0.0)


def quantile_edges(values: Floats, minimum: float, maximum: float, parts: int = 10) -> tuple[float, ...]:
    """Inner edges, ascending and distinct, that cut the values within the range into about equal parts.

    Each is rounded to a power of ten near a hundredth of the schema's range: an unrounded quantile is the
    exact value of one person.
    """
    inside = values[(values >= minimum) & (values <= maximum)]
    if not len(inside) or maximum <= minimum:
        return ()
    grain = 10.0 ** np.floor(np.log10((maximum - minimum) / 100))
    quantiles = np.quantile(inside, np.arange(1, parts) / parts, method="inverted_cdf")
    edges = [float(f"{edge:.10g}") for edge in np.unique(np.round(quantiles / grain) * grain)]
    return tuple(edge for edge in edges if minimum < edge <= maximum)
