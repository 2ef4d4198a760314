"""What may be shown of people: no count that gives away a few, no edge that is one person's own value.

Every document, tag, metric, released file and picture of counts asks this module. Two questions are kept
apart. *Is this number small?* `shown` and `coarse` answer it for a number that stands alone. *Does it follow
from other numbers?* `hidden_lines` answers it for the lines of one table: what is published of one column,
its levels, its missing answers and the subgroups made from it, belongs in one table, since a subgroup less a
level is a level.

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
    """A count of people that is too small to be shown; none at all may be said."""
    return 0 < count < SMALLEST_CELL


def shown(count: int) -> int | None:
    """A count as it may be published: None for a small one."""
    return None if is_small(count) else int(count)


def in_words(count: int) -> str:
    """A count of rows as a message may give it: "1,234 rows", or "fewer than 10 rows"."""
    return f"{FEW} rows" if is_small(count) else f"{count:,} rows"


def coarse(counts: Sequence[float] | NDArray[np.generic]) -> NDArray[np.int64]:
    """Counts as multiples of ten: none stays 0, 1 to 14 become 10, others go to the nearest.

    For counts that must be there for a computation, such as the bins that a monitor compares with.
    """
    exact = np.asarray(counts, dtype=np.float64)
    tens = np.floor(exact / SMALLEST_CELL + 0.5) * SMALLEST_CELL
    return np.where(exact > 0, np.maximum(tens, SMALLEST_CELL), 0).astype(np.int64)


def coarse_parts(counts: Sequence[float] | NDArray[np.generic]) -> NDArray[np.int64]:
    """The same for the parts of a whole whose size is known, where one of them may be small.

    Rounded on their own they give it away: of 897 people, 900 and 10 can only be 896 and 1, or 895 and 2. So
    where there is a 10, the largest part is what the others leave of the whole, which says nothing new.
    """
    rounded = coarse(counts)
    if SMALLEST_CELL in rounded:
        largest = int(np.argmax(counts))
        others = int(rounded.sum() - rounded[largest])
        whole = int(coarse([float(np.sum(np.asarray(counts, dtype=np.float64)))])[0])
        rounded[largest] = max(whole - others, SMALLEST_CELL)
    return rounded


def hidden_counts(rows: Floats) -> Lines:
    """Which counts of one list may not be shown, where their sum is known; shape (lines,)."""
    return hidden_lines(np.eye(len(rows), dtype=np.bool_), rows)


def hidden_cells(rows: Floats, known: Floats, positives: Floats) -> Lines:
    """The same for groups that share nobody, each shown with its share of positives among the `known`."""
    return hidden_lines(np.eye(len(rows), dtype=np.bool_), rows, positives, known - positives)


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

    `members` (lines, cells) says which cells each line adds up; cells share nobody, and `rows`, `positives`
    and `negatives` (cells,) count them. Sums over all cells are taken to be public.

    Hidden are lines of fewer than 10 rows, and with labels those of fewer than 10 of either outcome. More
    lines follow, the smallest first, until nobody can work out a small cell from what remains: the counts
    that fit the shown lines leave each small cell a range of at least 10. A line of nobody stays.

    `elsewhere` (lines,) names lines that another document of the same rows hides: to hide others in their
    place would give both away. `public` (lines,) names lines that are shown in any case, so that the others
    have to give way.
    """
    peopled = rows > 0
    members, rows = members[:, peopled], rows[peopled]
    lines = members.astype(np.float64)
    size = lines @ rows
    hidden = (size > 0) & (size < SMALLEST_CELL)
    if elsewhere is not None:
        hidden |= elsewhere
    # Each: counts, the least that somebody knows of each (an empty line is shown), and which are sensitive.
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
        rest = [line for line in order if not hidden[line] and (public is None or not public[line])]
        if not rest:
            break
        hidden[rest[0]] = True
    return np.asarray(hidden, dtype=np.bool_)


def _narrowest(members: Lines, counts: Floats, least: Floats, sensitive: Lines) -> float:
    """Smallest range that the sums of the lines, and of everybody, leave to one of the sensitive cells.

    Cells of the same lines are one unknown to the outside; each of them may be anything up to their sum.
    """
    known = np.vstack([members, np.ones((1, members.shape[1]), dtype=np.bool_)])
    patterns, place = np.unique(known, axis=1, return_inverse=True)
    place = place.ravel()
    cells = np.bincount(place)
    fewest = np.bincount(place, weights=least).astype(np.float64)
    overlapping = patterns[:-1].sum(axis=0).max(initial=0) > 1
    narrowest = float(np.inf)
    for unknown in np.unique(place[sensitive]):
        total = float(counts[place == unknown].sum())
        low, high = _bounds(patterns, known @ counts, fewest, unknown) if overlapping else (total, total)
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
    """Inner edges that cut values into about equal parts, ascending, none twice; values outside do not count.

    Each is rounded to a power of ten near a hundredth of the schema's range: a quantile of real values is the
    value of somebody, with all the digits that nobody else has.
    """
    inside = values[(values >= minimum) & (values <= maximum)]
    if not len(inside) or maximum <= minimum:
        return ()
    grain = 10.0 ** np.floor(np.log10((maximum - minimum) / 100))
    quantiles = np.quantile(inside, np.arange(1, parts) / parts, method="inverted_cdf")
    edges = [float(f"{edge:.10g}") for edge in np.unique(np.round(quantiles / grain) * grain)]
    return tuple(edge for edge in edges if minimum < edge <= maximum)
