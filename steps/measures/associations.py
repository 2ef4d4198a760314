"""Association of columns of any kinds, from 0 (none) to 1 (one column determines the other).

Both have an order (numeric, ordinal, binary): Spearman's rank correlation. One is nominal: the correlation
ratio of the other's ranks. Both are nominal: Cramér's V with Bergsma's correction of its bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from steps.measures import bins
from steps.measures.bins import Coded, Floats

if TYPE_CHECKING:
    import pandas as pd

Measure = Literal["rank correlation", "correlation ratio", "Cramér's V"]


@dataclass(frozen=True)
class Association:
    """Strength of the association of two columns; only rank correlations have a sign."""

    first: str
    second: str
    measure: Measure
    value: float


def is_ordered(column: Coded) -> bool:
    """Whether the column's levels have an order; two levels always have."""
    return column.column.kind in ("numeric", "ordinal") or (
        column.column.kind == "binary" and len(column.labels) == 2
    )


def between_columns(columns: Sequence[Coded], frame: pd.DataFrame) -> list[Association]:
    """Measure every pair of columns on the rows where both are present."""
    ordered = [column for column in columns if is_ordered(column)]
    ranks = {column.column.name: _ranks(column, frame) for column in ordered}
    correlations = _rank_correlations(ranks)
    pairs = []
    for index, first in enumerate(columns):
        for second in columns[index + 1 :]:
            names = (first.column.name, second.column.name)
            if names[0] in ranks and names[1] in ranks:
                pairs.append(Association(*names, "rank correlation", correlations[names]))
            elif names[0] in ranks or names[1] in ranks:
                nominal, ordered_name = (second, names[0]) if names[0] in ranks else (first, names[1])
                pairs.append(
                    Association(*names, "correlation ratio", correlation_ratio(nominal, ranks[ordered_name]))
                )
            else:
                pairs.append(Association(*names, "Cramér's V", cramers_v(first, second)))
    return pairs


def correlation_ratio(groups: Coded, values: Floats) -> float:
    """Share of the values' standard deviation that lies between groups, sqrt of eta squared (Fisher 1925).

    The square is corrected for the groups' number (epsilon squared, Kelley 1935), so that chance gives 0.
    """
    present = (groups.codes != groups.missing) & ~np.isnan(values)
    codes, numbers = groups.codes[present], values[present]
    size = bins.counts(codes, groups.size)
    used = int((size > 0).sum())
    total = float(((numbers - numbers.mean()) ** 2).sum()) if len(numbers) else 0.0
    if total == 0 or used < 2 or len(numbers) <= used:
        return 0.0
    means = bins.counts(codes, groups.size, numbers) / np.maximum(size, 1)
    within = total - float((size * (means - numbers.mean()) ** 2).sum())
    return float(np.sqrt(max(0.0, 1 - within / (len(numbers) - used) * (len(numbers) - 1) / total)))


def cramers_v(first: Coded, second: Coded) -> float:
    """Cramér's V with Bergsma's bias correction (Journal of the Korean Statistical Society 42, 2013)."""
    table = bins.counts(bins.cross(first, second), first.size * second.size)
    table = table.reshape(first.size, second.size)[: first.missing, : second.missing]
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    rows, columns = table.shape
    n = table.sum()
    if min(rows, columns) < 2 or n < 2:
        return 0.0
    expected = np.outer(table.sum(1), table.sum(0)) / n
    phi2 = float(((table - expected) ** 2 / expected).sum() / n)
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(phi2 / smaller)) if smaller > 0 else 0.0


def _ranks(column: Coded, frame: pd.DataFrame) -> Floats:
    """Mean rank of each value, NaN where missing. The levels of a binary column count as 0 and 1."""
    if column.column.is_text or column.column.kind == "binary":
        values = np.where(column.codes == column.missing, np.nan, column.codes.astype(np.float64))
    else:
        values = np.asarray(frame[column.column.name], dtype=np.float64)
    ranks = np.full(len(values), np.nan)
    present = ~np.isnan(values)
    distinct, index, rows = np.unique(values[present], return_inverse=True, return_counts=True)
    if len(distinct):
        ranks[present] = (np.cumsum(rows) - (rows - 1) / 2)[index]
    return ranks


def _rank_correlations(ranks: dict[str, Floats]) -> dict[tuple[str, str], float]:
    """Pearson's correlation of the ranks for each pair, over the rows where both are present."""
    names = list(ranks)
    if not names:
        return {}
    matrix = np.column_stack([ranks[name] for name in names])
    present = (~np.isnan(matrix)).astype(np.float64)
    means = np.nansum(matrix, axis=0) / np.maximum(present.sum(axis=0), 1)
    matrix = np.nan_to_num(matrix - means) * present
    n = present.T @ present
    sums, squares = matrix.T @ present, (matrix**2).T @ present
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = matrix.T @ matrix - sums * sums.T / n
        variance = squares - sums**2 / n
        result = covariance / np.sqrt(variance * variance.T)
    result = np.clip(np.nan_to_num(result), -1, 1)
    return {
        (first, second): float(result[i, j])
        for i, first in enumerate(names)
        for j, second in enumerate(names)
        if i < j
    }
