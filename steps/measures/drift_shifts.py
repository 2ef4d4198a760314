"""Shifts of features and of predicted risks: sizes, evidence, and how many rows it takes to see one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monitoring.reference import Counts, Feature, Reference
from steps.data.disclosure import SMALLEST_CELL, hidden_counts, is_small
from steps.measures import evidence, instrument
from steps.measures.drift_document import FeatureDrift, Instrument, RowsNeeded, ScoreDrift, ShareChange, Shift

if TYPE_CHECKING:
    from steps.data.schema import DriftLimits
    from steps.data.validation import Cells, Problem

Floats = NDArray[np.float64]

# More rows than anybody has: a shift that these do not show is not shown by any.
_MOST_ROWS = 10_000_000


@dataclass(frozen=True)
class Yardstick:
    """What a difference has to reach: evidence (log10) and normal quantile of each test, and sizes.

    Counts are divided by `design_effect` before evidence is taken from them.
    """

    each: float
    z: float
    limits: DriftLimits
    design_effect: float


def feature_drift(
    feature: Feature,
    cells: Cells,
    problems: Sequence[Problem],
    data: Mapping[str, object],
    yardstick: Yardstick,
) -> FeatureDrift:
    """How one feature differs. `data`: what the reference says of the model's data."""
    counted = count(feature, cells)
    then, now = np.asarray(feature.counts, np.float64), counted.bins.astype(np.float64)
    read, training, read_then, invalid_then = _rows(feature.name, cells, data)
    invalid = int(cells.broken[feature.name].sum()) + counted.out_of_range
    cells_now = np.array([*now, counted.missing, invalid, counted.unknown])
    hidden = hidden_counts(cells_now)
    expected = read * np.array(
        [*then / max(1, training), feature.missing / max(1, training), invalid_then / max(1, read_then), 0]
    )
    bins, outside_bins = np.split(as_published(cells_now, expected, hidden), [-3])
    new_levels = np.zeros(len(then), np.bool_) if feature.kind == "numeric" else then == 0
    hide_unseen = bool(hidden[-1]) or is_small(counted.unknown + int(now[new_levels].sum()))
    unseen = outside_bins[2] + bins[new_levels].sum()
    # A hidden count of rows without an answer must not follow from the denominator.
    outside = np.array([counted.missing, invalid, counted.unknown])
    shares = now / max(1, read - int(outside[~hidden[-3:]].sum()))
    return FeatureDrift(
        name=feature.name,
        kind=feature.kind,
        labels=feature.labels,
        then=tuple((then / max(1.0, then.sum())).tolist()),
        now=tuple(None if hide else float(share) for hide, share in zip(hidden[:-3], shares, strict=True)),
        shift=shift(bins, then, yardstick),
        missing=_share_change(outside_bins[0], read, feature.missing, training, yardstick, bool(hidden[-3])),
        invalid=_share_change(outside_bins[1], read, invalid_then, read_then, yardstick, bool(hidden[-2])),
        unseen=_share_change(unseen, read, 0, training, yardstick, hide_unseen),
        rules=tuple(sorted({problem.rule for problem in problems if problem.column == feature.name})),
    )


def count(feature: Feature, cells: Cells) -> Counts:
    """Values of every row that are not broken, by bin or other fate."""
    values = cells.values[feature.name][~cells.broken[feature.name]]
    return feature.count(values.to_numpy(dtype=object if feature.is_text else np.float64))


def _rows(name: str, cells: Cells, data: Mapping[str, object]) -> tuple[int, int, int, int]:
    """Rows now, rows of training, rows that preprocess read, and those of them with an invalid value.

    References of earlier versions do not say how many were invalid; they are then taken for none.
    """
    rows, invalid = data["rows"], data.get("invalid")
    assert isinstance(rows, Mapping)
    training = int(rows["train"])
    invalid_then = int(invalid.get(name, 0)) if isinstance(invalid, Mapping) else 0
    return len(cells.values), training, int(rows.get("read", training)), invalid_then


def shift(now: Floats, then: Floats, yardstick: Yardstick) -> Shift:
    """PSI with its interval and evidence from counts by bin; 0 where there is nothing to compare."""
    if len(now) < 2 or now.sum() == 0 or then.sum() == 0:
        return Shift(0.0, 0.0, 0.0, 0.0, False)
    effective = now / yardstick.design_effect
    low, high = evidence.psi_interval(effective, then)
    psi, found = float(evidence.psi(now, then)), float(evidence.drift_evidence(effective, then))
    counts = found >= yardstick.each and psi >= yardstick.limits.psi
    return Shift(psi, float(low), float(high), found, counts)


def as_published(counts: Floats, expected: Floats, hidden: NDArray[np.bool_]) -> Floats:
    """Counts of one table (cells,) of which every figure is taken: those that are shown, and stand-ins.

    A PSI with all its digits, taken of the exact counts, would give the hidden ones away. So a small count is
    taken for the one from 1 to 9 that is nearest to the expected, and the larger ones that were hidden along
    with it share what is left of the hidden rows as expected. Nothing then depends on how those are spread.
    """
    small, large = hidden & (counts > 0) & (counts < SMALLEST_CELL), hidden & (counts >= SMALLEST_CELL)
    made = counts.astype(np.float64)
    made[small] = np.clip(expected[small], 1, SMALLEST_CELL - 1)
    if large.any():
        weights = np.maximum(expected[large], 1.0)
        rest = max(float(counts[hidden].sum() - made[small].sum()), float(SMALLEST_CELL * large.sum()))
        made[large] = rest * weights / weights.sum()
    return made


def _share_change(
    now: float, rows: int, then: int, rows_then: int, yardstick: Yardstick, hide: bool
) -> ShareChange:
    """Shares then and now, None with `hide`, and the evidence that they differ, as of two bins."""
    share_now, share_then = float(now) / max(1, rows), then / max(1, rows_then)
    effective = np.array([now, rows - now]) / yardstick.design_effect
    found = float(evidence.drift_evidence(effective, [then, rows_then - then])) if rows else 0.0
    counts = found >= yardstick.each and abs(share_now - share_then) >= yardstick.limits.share
    return ShareChange(share_then, None if hide else share_now, found, counts, share_now > share_then)


def score_drift(reference: Reference, risk: Floats, yardstick: Yardstick) -> ScoreDrift:
    """How predicted risks (rows,) differ from those of validation rows."""
    score = reference.score
    now = np.bincount(score.bin(risk), minlength=len(score.bins)).astype(np.float64)
    then = np.asarray(score.counts, np.float64)
    shares, hidden = now / max(1.0, now.sum()), hidden_counts(now)
    expected = now.sum() * then / max(1.0, then.sum())
    return ScoreDrift(
        shift=shift(as_published(now, expected, hidden), then, yardstick),
        bins=score.bins,
        then=tuple((then / max(1.0, then.sum())).tolist()),
        now=tuple(None if hide else float(share) for hide, share in zip(hidden, shares, strict=True)),
        threshold=score.threshold,
    )


def find_instrument(
    features: Sequence[FeatureDrift], reference: Reference, cells: Cells, yardstick: Yardstick
) -> Instrument | None:
    """The one feature that has moved as if its instrument had, or None. Other people move several."""
    moved = [drift for drift in features if drift.shift.counts]
    if len(moved) != 1 or moved[0].kind != "numeric":
        return None
    feature = next(feature for feature in reference.features if feature.name == moved[0].name)
    assert feature.minimum is not None
    assert feature.maximum is not None
    found = instrument.explain(
        cells.values[feature.name].dropna().to_numpy(dtype=np.float64),
        np.asarray(feature.edges),
        np.asarray(feature.counts, np.float64),
        (feature.minimum, feature.maximum),
        yardstick.limits.psi,
    )
    if found is None:
        return None
    return Instrument(feature.name, found.scale, found.offset, moved[0].shift.psi, found.psi_left)


def rows_needed(reference: Reference, yardstick: Yardstick) -> RowsNeeded:
    """Rows that it takes to see a shift of PSI 0.1 and of 0.25, towards higher values, in any feature."""
    counts = [np.asarray(feature.counts, np.float64) for feature in reference.features]
    counts = [then for then in counts if np.count_nonzero(then) > 1]

    def most(psi: float) -> int:
        return max((_rows_to_see(then, psi, yardstick) for then in counts), default=0)

    return RowsNeeded(most(0.1), most(0.25))


def _rows_to_see(then: Floats, psi: float, yardstick: Yardstick) -> int:
    """Fewest rows whose expected counts, tilted to this PSI, reach the evidence."""
    shares = evidence.shares(then)
    direction = np.linspace(-1.0, 1.0, len(shares))

    def tilted(strength: float) -> Floats:
        tilt = shares * np.exp(strength * direction)
        return np.asarray(tilt / tilt.sum(), dtype=np.float64)

    low, high = 0.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        other = tilted(middle)
        far = float(((other - shares) * np.log(other / shares)).sum()) > psi
        low, high = (low, middle) if far else (middle, high)
    other = tilted(low)
    fewest, enough = 1, _MOST_ROWS
    while fewest < enough:
        rows = (fewest + enough) // 2
        seen = float(evidence.drift_evidence(rows / yardstick.design_effect * other, then)) >= yardstick.each
        fewest, enough = (fewest, rows) if seen else (rows + 1, enough)
    return enough
