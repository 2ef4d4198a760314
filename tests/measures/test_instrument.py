"""A column that was measured otherwise: scales and offsets are found, other people are not taken for one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from steps.measures import instrument

RNG = np.random.default_rng(0)
WHOLE = np.round(RNG.gamma(20, 1.4, 20_000)).clip(12, 99)
REAL = RNG.gamma(20, 1.4, 20_000).clip(12, 99)


def _found(before: np.ndarray, after: np.ndarray) -> instrument.Transformation | None:
    edges = np.unique(np.quantile(before, np.arange(1, 10) / 10).round())
    counts = np.bincount(np.searchsorted(edges, before, side="right"), minlength=len(edges) + 1)
    return instrument.explain(after, edges, counts.astype(float), (12.0, 99.0), 0.02)


@pytest.mark.parametrize(
    ("before", "change", "scale", "offset"),
    [
        (REAL, lambda x: 1.3 * x, 1.3, 0),
        (WHOLE, lambda x: np.round(1.3 * x), 1.3, 0),
        (WHOLE, lambda x: np.round(0.454 * x), 0.454, 0),
        (REAL, lambda x: x + 4, 1, 4),
        (WHOLE, lambda x: x - 5, 1, -5),
    ],
)
def test_a_scale_or_an_offset_is_found(
    before: np.ndarray, change: Callable[[np.ndarray], np.ndarray], scale: float, offset: float
) -> None:
    """For real and for whole numbers, on other people than those of the reference."""
    found = _found(before[:12_000], change(before[12_000:]))
    assert found is not None
    assert found.scale == pytest.approx(scale, abs=0.02)
    assert found.offset == pytest.approx(offset, abs=0.3)


def test_what_no_instrument_does_is_not_explained() -> None:
    """A quarter of the people doubled, or values that did not move at all."""
    some = np.where(np.arange(8000) % 4 == 0, 2 * REAL[12_000:], REAL[12_000:])
    assert _found(REAL[:12_000], some) is None
    assert _found(REAL[:12_000], REAL[12_000:]) is None


def test_nothing_to_compare_is_no_finding() -> None:
    """No values, no edges, no reference."""
    edges, counts = np.array([20.0, 30.0]), np.array([5.0, 5.0, 5.0])
    assert instrument.explain(np.array([]), edges, counts, (12, 99), 0.02) is None
    assert instrument.explain(REAL, np.array([]), np.array([5.0]), (12, 99), 0.02) is None
    assert instrument.explain(REAL, edges, np.zeros(3), (12, 99), 0.02) is None
