"""Shifts of features and of predicted risks: sizes, evidence, and the rows needed to detect one."""

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

# The largest answer of `rows_needed`: a shift that these rows do not show counts as not detectable.
_MOST_ROWS = 10_000_000


@dataclass(frozen=True)
class Yardstick:
    """What a difference needs to count: evidence (log10), a normal quantile, and the limits of sizes.

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
    """Measure the drift of a feature. `data`: the reference's facts about the model's data."""
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
    # Rows without an answer are left in the denominator where their hidden count would follow from it.
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
    """Count the values of all rows that are not broken, by bin, missing, out of range or unknown."""
    values = cells.values[feature.name][~cells.broken[feature.name]]
    return feature.count(values.to_numpy(dtype=object if feature.is_text else np.float64))


def _rows(name: str, cells: Cells, data: Mapping[str, object]) -> tuple[int, int, int, int]:
    """Rows now, rows of training, rows that preprocess read, and how many of these had an invalid value.

    A reference of an earlier version does not say how many were invalid; the number is then 0.
    """
    rows, invalid = data["rows"], data.get("invalid")
    assert isinstance(rows, Mapping)
    training = int(rows["train"])
    invalid_then = int(invalid.get(name, 0)) if isinstance(invalid, Mapping) else 0
    return len(cells.values), training, int(rows.get("read", training)), invalid_then


def shift(now: Floats, then: Floats, yardstick: Yardstick) -> Shift:
    """PSI with its interval and evidence from counts by bin; 0 where either side has no rows."""
    if len(now) < 2 or now.sum() == 0 or then.sum() == 0:
        return Shift(0.0, 0.0, 0.0, 0.0, False)
    effective = now / yardstick.design_effect
    low, high = evidence.psi_interval(effective, then)
    psi, shift_evidence = float(evidence.psi(now, then)), float(evidence.drift_evidence(effective, then))
    counts = shift_evidence >= yardstick.each and psi >= yardstick.limits.psi
    return Shift(psi, float(low), float(high), shift_evidence, counts)


def as_published(counts: Floats, expected: Floats, hidden: NDArray[np.bool_]) -> Floats:
    """Counts of a table (cells,) for all published figures: shown counts, and substitutes for hidden counts.

    A PSI of the exact counts, with all its digits, would disclose hidden counts. So a small count becomes the
    number from 1 to 9 that is nearest to the expected count. Larger hidden counts share the remaining hidden
    rows in proportion to their expected counts. No figure then depends on the distribution of hidden rows.
    """
    small, large = hidden & (counts > 0) & (counts < SMALLEST_CELL), hidden & (counts >= SMALLEST_CELL)
    published = counts.astype(np.float64)
    published[small] = np.clip(expected[small], 1, SMALLEST_CELL - 1)
    if large.any():
        weights = np.maximum(expected[large], 1.0)
        remaining = max(
            float(counts[hidden].sum() - published[small].sum()), float(SMALLEST_CELL * large.sum())
        )
        published[large] = remaining * weights / weights.sum()
    return published


def _share_change(
    now: float, rows: int, then: int, rows_then: int, yardstick: Yardstick, hide: bool
) -> ShareChange:
    """Shares in training and now (None with `hide`), and the evidence of a change between two bins."""
    share_now, share_then = float(now) / max(1, rows), then / max(1, rows_then)
    effective = np.array([now, rows - now]) / yardstick.design_effect
    change_evidence = float(evidence.drift_evidence(effective, [then, rows_then - then])) if rows else 0.0
    counts = change_evidence >= yardstick.each and abs(share_now - share_then) >= yardstick.limits.share
    return ShareChange(
        share_then, None if hide else share_now, change_evidence, counts, share_now > share_then
    )


def score_drift(reference: Reference, risk: Floats, yardstick: Yardstick) -> ScoreDrift:
    """Measure how predicted risks (rows,) differ from the risks of validation rows."""
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
    """The only moved feature, if a changed instrument explains it; a change of people moves several."""
    moved = [drift for drift in features if drift.shift.counts]
    if len(moved) != 1 or moved[0].kind != "numeric":
        return None
    feature = next(feature for feature in reference.features if feature.name == moved[0].name)
    assert feature.minimum is not None
    assert feature.maximum is not None
    explanation = instrument.explain(
        cells.values[feature.name].dropna().to_numpy(dtype=np.float64),
        np.asarray(feature.edges),
        np.asarray(feature.counts, np.float64),
        (feature.minimum, feature.maximum),
        yardstick.limits.psi,
    )
    if explanation is None:
        return None
    return Instrument(
        feature.name, explanation.scale, explanation.offset, moved[0].shift.psi, explanation.psi_left
    )


def rows_needed(reference: Reference, yardstick: Yardstick) -> RowsNeeded:
    """Rows needed to detect a shift of PSI 0.1 and of 0.25, towards higher values, in any feature."""
    counts = [np.asarray(feature.counts, np.float64) for feature in reference.features]
    counts = [then for then in counts if np.count_nonzero(then) > 1]

    def largest(psi: float) -> int:
        return max((_rows_to_see(then, psi, yardstick) for then in counts), default=0)

    return RowsNeeded(largest(0.1), largest(0.25))


def _rows_to_see(then: Floats, psi: float, yardstick: Yardstick) -> int:
    """Fewest rows whose expected counts, tilted to this PSI, give enough evidence."""
    shares = evidence.shares(then)
    direction = np.linspace(-1.0, 1.0, len(shares))

    def tilted(strength: float) -> Floats:
        tilt = shares * np.exp(strength * direction)
        return np.asarray(tilt / tilt.sum(), dtype=np.float64)

    low, high = 0.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        shifted = tilted(middle)
        is_too_far = float(((shifted - shares) * np.log(shifted / shares)).sum()) > psi
        low, high = (low, middle) if is_too_far else (middle, high)
    shifted = tilted(low)
    fewest, most = 1, _MOST_ROWS
    while fewest < most:
        rows = (fewest + most) // 2
        is_detected = (
            float(evidence.drift_evidence(rows / yardstick.design_effect * shifted, then)) >= yardstick.each
        )
        fewest, most = (fewest, rows) if is_detected else (rows + 1, most)
    return most
