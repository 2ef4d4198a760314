"""Reasons for many risks at once, as columns of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from steps.models.served_model import Term, Terms

AND = " & "


@dataclass(frozen=True, eq=False)
class Explained:
    """Risks, shape (rows,), and their reasons as columns of as many rows."""

    risk: NDArray[np.float64]
    columns: Mapping[str, pa.Array[Any]]


class Explainer:
    """The `count` largest effects of each row of a glass box; `Terms.answers` gives them as JSON."""

    def __init__(self, terms: Terms, count: int) -> None:
        self._terms, self._count = terms, min(count, len(terms.terms))
        self._asked = count
        columns = terms.columns
        self._names = [AND.join(columns[index].name for index in term.columns) for term in terms.terms]
        self._levels = [label for term in terms.terms for label in _levels(terms, term)]

    def fields(self) -> list[pa.Field[Any]]:
        """The columns that a call adds to the risk: terms, levels and effects, then columns of the row."""
        import pyarrow as pa

        parts = (("term", pa.string()), ("level", pa.string()), ("log_odds", pa.float64()))
        term_fields = [
            pa.field(f"{part}_{number + 1}", kind) for number in range(self._asked) for part, kind in parts
        ]
        row_fields = (
            ("other_log_odds", pa.float64()),
            ("baseline_log_odds", pa.float64()),
            ("missing", pa.string()),
        )
        return [*term_fields, *(pa.field(name, kind) for name, kind in row_fields)]

    def __call__(self, frame: pd.DataFrame) -> Explained:
        """Explain valid rows of raw features."""
        import pyarrow as pa

        terms = self._terms
        bins = terms.bins(frame)
        entries, effects = terms.entries(bins), terms.effects(bins)
        log_odds = terms.baseline + effects.sum(axis=1)
        order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, : self._count]
        largest = np.take_along_axis(effects, order, axis=1)
        largest_entries = np.take_along_axis(entries, order, axis=1)
        result: dict[str, pa.Array] = {}
        for number in range(self._asked):
            if number < self._count:
                parts = (
                    _texts_at(order[:, number], self._names),
                    _texts_at(largest_entries[:, number], self._levels),
                    pa.array(largest[:, number]),
                )
            else:
                parts = (*[pa.nulls(len(bins), pa.string())] * 2, pa.nulls(len(bins), pa.float64()))
            for part, values in zip(("term", "level", "log_odds"), parts, strict=True):
                result[f"{part}_{number + 1}"] = values
        result["other_log_odds"] = pa.array(effects.sum(axis=1) - largest.sum(axis=1))
        result["baseline_log_odds"] = pa.array(np.full(len(bins), terms.baseline))
        result["missing"] = self._missing(bins)
        return Explained(1.0 / (1.0 + np.exp(-log_odds)), result)

    def _missing(self, bins: NDArray[np.intp]) -> pa.Array:
        """Names of the columns without an answer; null where there is none."""
        patterns, pattern_of_row = np.unique(bins == 0, axis=0, return_inverse=True)
        columns = [column.name for column in self._terms.columns]
        texts = [", ".join(columns[index] for index in np.flatnonzero(row)) or None for row in patterns]
        return _texts_at(pattern_of_row.ravel(), texts)


def _texts_at(indices: NDArray[np.intp], texts: list[str] | list[str | None]) -> pa.Array:
    import pyarrow as pa

    return pa.array(texts, pa.string()).take(pa.array(indices))


def _levels(terms: Terms, term: Term) -> list[str]:
    """The label of each entry of a term, in their order."""
    axes = [
        [terms.columns[index].label(bin_index) for bin_index in range(terms.columns[index].size)]
        for index in term.columns
    ]
    return [AND.join(labels) for labels in product(*axes)]
