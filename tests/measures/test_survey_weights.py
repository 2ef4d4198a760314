"""Figures of a model with each row counted as the people that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from steps.measures.survey_weights import weighted

RNG = np.random.default_rng(7)
RISK = RNG.uniform(0.02, 0.9, 400)
Y = (RNG.random(400) < RISK).astype(np.int8)
WEIGHT = RNG.integers(1, 6, 400).astype(float)


def test_weights_stand_for_copies_of_a_row() -> None:
    """A row of weight 3 counts as three such rows."""
    found = weighted(Y, RISK, WEIGHT)
    assert found is not None
    copies = WEIGHT.astype(int)
    y, risk = np.repeat(Y, copies), np.repeat(RISK, copies)
    assert found.roc_auc == pytest.approx(roc_auc_score(y, risk))
    assert found.log_loss == pytest.approx(log_loss(y, risk))
    assert found.prevalence == pytest.approx(y.mean())
    assert found.observed_expected == pytest.approx(y.sum() / risk.sum())
    assert found.effective_rows < 400


def test_rows_without_a_weight_do_not_count() -> None:
    """Missing and 0 leave a row out; without both outcomes there are no figures."""
    some = WEIGHT.copy()
    some[:100], some[100:150] = np.nan, 0.0
    assert weighted(Y, RISK, some) == weighted(Y[150:], RISK[150:], WEIGHT[150:])
    assert weighted(np.zeros(400, np.int8), RISK, WEIGHT) is None
