"""Intervals keep to their range, agree with published examples and say what they are."""

from __future__ import annotations

import math

import pytest

from steps.measures import intervals
from steps.measures.evaluation_document import Estimate


def test_newcombe_gives_the_published_example():
    """Newcombe 1998, Statistics in Medicine 17:873, table II, example a: 56/70 less 48/80."""
    found = intervals.newcombe(intervals.wilson(56, 70), intervals.wilson(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert found.method == intervals.NEWCOMBE


def test_a_share_of_nobody_is_undefined():
    """No trials, no share, and no difference to it."""
    nobody = intervals.wilson(0, 0)
    assert nobody == Estimate(None, None, None, intervals.WILSON)
    assert intervals.newcombe(nobody, intervals.wilson(1, 2)).value is None
    assert intervals.difference(nobody, intervals.normal(1.0, 0.1)).value is None


def test_roc_auc_stays_within_its_range():
    """Near 1 the interval bends; where the ranking is perfect, the rarer outcome's rows give its width."""
    near = intervals.logit_delong(0.98, 0.03, 12)
    assert 0.6 < near.low < 0.98 < near.high < 1
    perfect = intervals.logit_delong(1.0, 0.0, 12)
    assert (perfect.low, perfect.high) == pytest.approx((0.7575, 1.0), abs=1e-4)


def test_roc_auc_of_few_is_wider_than_a_normal_interval():
    """The standard error is an estimate too; with many rows that no longer matters."""
    few, many = (intervals.logit_delong(0.8, 0.05, rows) for rows in (10, 100_000))
    odds = math.log(4)
    assert many.low == pytest.approx(1 / (1 + math.exp(-(odds - 1.96 * 0.05 / 0.16))), abs=1e-5)
    assert few.low < many.low < many.high < few.high


def test_a_ratio_is_symmetric_on_the_log_scale():
    """As far below in proportion as above; a ratio of 0 has no logarithm and so no interval."""
    found = intervals.log_normal(2.0, 0.5)
    assert found.low * found.high == pytest.approx(4.0)
    assert intervals.log_normal(0.0, 0.5).low is None


def test_difference_of_means_adds_their_variances():
    """3-4-5."""
    found = intervals.difference(intervals.normal(1.0, 0.3), intervals.normal(0.5, 0.4))
    assert found.value == pytest.approx(0.5)
    assert found.high - found.value == pytest.approx(intervals.Z * 0.5)
