"""`promote -P recalibrate=true`: the champion's risks are mended by two numbers, judged and recorded."""

from __future__ import annotations

import json

import pytest

from steps.chain.context import StepRun
from steps.data.errors import UserError
from tests.made_up.promotions import Store, people


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, StepRun]:
    """A store whose champion was trained on 9,000 people, and its fit."""
    store = Store(tmp_path_factory.mktemp("store"))
    data = store.prepare(people(9000, 1))
    fitted = store.fit(data)
    assert store.promote(data, fitted).verdict == "promoted"
    return store, fitted


def test_a_changed_intercept_is_mended_and_its_record_says_so(
    promoted: tuple[Store, StepRun], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """People who are ill one more log odds often: the share of outcomes is no reason to stop, the new version
    is the same model with other risks, and doing it again changes nothing."""
    before, fitted = promoted
    store = Store(tmp_path_factory.mktemp("changed"), before)
    data = store.prepare(people(9000, 2, prevalence=1.0))
    told = store.promote(data, fitted, recalibrate="true")
    assert (told.verdict, told.champion, told.champion_before) == ("promoted", "2", "1")
    record = store.attempt(told.promote_run_id)
    assert record["kinds"] == ["recalibration"]
    assert record["accepted_prevalence"] is None
    run = store.client.get_run(str(told.candidate_run_id))
    assert run.data.tags["recalibrated_from"] == "1"
    intercept = float(run.data.tags["recalibration"].split()[1].rstrip(","))
    assert intercept == pytest.approx(1, abs=0.15)
    measured = json.loads(store.artifact(told.evaluate_run_id, "evaluation.json"))
    assert measured["metrics"]["observed_expected"]["value"] == pytest.approx(1, abs=0.05)
    assert measured["model"]["role"] == "recalibrated"
    reference = json.loads(store.artifact(told.candidate_run_id, "reference.json"))
    assert reference["validation"]["observed_expected"] == pytest.approx(1, abs=0.05)
    card = store.artifact(told.promote_run_id, "model_card.md")
    assert "moved as the risks were" in card
    assert "calibration: intercept" in card
    settings = [store.artifact(run_id, "fitted.json") for run_id in (fitted.run_id, told.candidate_run_id)]
    assert settings[0] == settings[1]
    again = store.promote(data, fitted, recalibrate="true")
    assert (again.verdict, again.champion) == ("unchanged", "2")
    assert "already" in store.lines[-1]


def test_risks_that_are_right_gain_nothing_from_it(
    promoted: tuple[Store, StepRun], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two numbers that are not proven better than 0 and 1 make no new version."""
    before, fitted = promoted
    store = Store(tmp_path_factory.mktemp("same"), before)
    data = store.prepare(people(9000, 3))
    told = store.promote(data, fitted, recalibrate="true")
    assert (told.verdict, told.champion) == ("unchanged", "1")
    assert "has the right risks" in store.lines[-1]


def test_without_a_champion_there_is_nothing_to_recalibrate(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A sentence with the remedy."""
    store = Store(tmp_path_factory.mktemp("empty"))
    data = store.prepare(people(3000, 1))
    with pytest.raises(UserError, match="no champion to recalibrate"):
        store.promote(data, store.fit(data), recalibrate="true")
