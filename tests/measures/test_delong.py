"""DeLong's standard errors: hand-counted on few rows, and right about samples drawn again and again."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from steps.measures.delong import difference_error, placements


def test_placements_count_pairs_by_hand() -> None:
    """Two positives, three negatives, one tie: the shares can be counted on fingers."""
    found = placements([1, 1, 0, 0, 0], [0.9, 0.4, 0.4, 0.1, 0.2])
    assert found.positive == pytest.approx([1.0, (2 + 0.5) / 3])
    assert found.negative == pytest.approx([0.75, 1.0, 1.0])
    assert found.roc_auc == pytest.approx((1 + 2.5 / 3) / 2)
    variance = np.var(found.positive, ddof=1) / 2 + np.var(found.negative, ddof=1) / 3
    assert found.standard_error == pytest.approx(np.sqrt(variance))


def test_the_area_is_scikit_learns_ties_included() -> None:
    """ROC AUC of coarse scores, full of ties."""
    generator = np.random.default_rng(4)
    y, score = generator.integers(0, 2, 500), generator.integers(0, 7, 500)
    assert placements(y, score).roc_auc == pytest.approx(roc_auc_score(y, score))


def test_one_class_or_one_row_of_a_class_has_no_error() -> None:
    """What is undefined is NaN, never 0."""
    assert np.isnan(placements([0, 0], [0.1, 0.2]).roc_auc)
    one = placements([1, 0, 0], [0.5, 0.1, 0.2])
    assert one.roc_auc == 1.0
    assert np.isnan(one.standard_error)


def test_equal_scores_differ_by_nothing_for_certain() -> None:
    """A model against itself: difference 0, error 0."""
    generator = np.random.default_rng(5)
    y, score = generator.integers(0, 2, 200), generator.random(200)
    assert difference_error(placements(y, score), placements(y, score)) == 0.0


def test_standard_errors_are_those_of_repeated_samples() -> None:
    """1,500 samples of 400 rows: their spread is the mean standard error, alone and paired, within 6 %."""
    generator = np.random.default_rng(6)
    areas, errors, differences, paired = [], [], [], []
    for _ in range(1500):
        y = generator.random(400) < 0.3
        signal = y + generator.normal(0, 1.2, 400)
        first, second = (placements(y, signal + generator.normal(0, 0.5, 400)) for _ in range(2))
        areas.append(first.roc_auc)
        errors.append(first.standard_error)
        differences.append(first.roc_auc - second.roc_auc)
        paired.append(difference_error(first, second))
    assert np.std(areas) == pytest.approx(np.mean(errors), rel=0.06)
    assert np.std(differences) == pytest.approx(np.mean(paired), rel=0.06)
    assert np.mean(paired) < np.mean(errors)
