"""The writer of `terms.json`, the document of a glass box, and the size of its terms.

`served_model` describes the content of the document. The writer is not there because no container writes the
document: so a change of the writer does not change the digest of that file.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from steps.measures.evaluation_document import TermSize
from steps.models.served_model import NO_CALIBRATION, VERSION, Binning, Calibration, Term, Terms

_SPREAD_DIGITS = 4


def recalibrated(terms: Terms, slope: float, intercept: float) -> Terms:
    """The glass box with log odds `slope * present log odds + intercept`; only its calibration changes."""
    before = terms.calibration
    after = Calibration(slope * before.slope, slope * before.intercept + intercept)
    return Terms(terms.columns, terms.terms, terms.intercept, terms.intercept_spread, after)


def sizes(terms: Terms) -> tuple[TermSize, ...]:
    """Each term's columns and size, the largest first."""
    term_sizes = [
        TermSize(tuple(terms.columns[index].name for index in term.columns), size(term, terms.calibration))
        for term in terms.terms
    ]
    return tuple(sorted(term_sizes, key=lambda entry: (-entry.size, entry.columns)))


def size(term: Term, calibration: Calibration) -> float:
    """Mean absolute effect over the training rows, in log odds: what the term moves a risk by, on average."""
    people = np.nan_to_num(term.people)
    if not people.sum():
        return 0.0
    return float(abs(calibration.slope) * np.average(np.abs(term.effects), weights=people))


def to_document(terms: Terms) -> dict[str, Any]:
    """The content of `terms.json`; `served_model.parse_terms` gives the same glass box back, bit for bit."""
    calibration = terms.calibration
    return {
        "format": "terms",
        "version": VERSION,
        "columns": [_binning(column) for column in terms.columns],
        "terms": [_term(term) for term in terms.terms],
        "intercept": terms.intercept,
        "intercept_spread": round(terms.intercept_spread, _SPREAD_DIGITS),
        "calibration": None
        if calibration == NO_CALIBRATION
        else {"slope": calibration.slope, "intercept": calibration.intercept},
    }


def write(terms: Terms, path: Path) -> None:
    """Write the document to a file that does not exist yet."""
    text = json.dumps(to_document(terms), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


def _binning(column: Binning) -> dict[str, Any]:
    if column.levels is None:
        return {
            "name": column.name,
            "kind": "number",
            "missing": list(column.missing),
            "cuts": list(column.cuts),
            "labels": list(column.labels),
        }
    return {
        "name": column.name,
        "kind": "levels",
        "levels": list(column.levels),
        "bins": list(column.bins),
        "labels": list(column.labels),
    }


def _term(term: Term) -> dict[str, Any]:
    return {
        "columns": list(term.columns),
        "effects": term.effects.ravel().tolist(),
        "spread": term.spread.round(_SPREAD_DIGITS).ravel().tolist(),
        "people": [None if math.isnan(count) else int(count) for count in term.people.ravel()],
    }
