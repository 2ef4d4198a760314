"""Attempts at promotion, with real models and evaluations of made-up people in a store of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steps.chain import attempts
from steps.chain.context import StepRun
from steps.data.errors import UserError
from steps.data.files import TARGET_COLUMN
from steps.ops import changes
from tests.made_up.promotions import SCHEMA, Store, people

ROWS = 9_000


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Any:
    """No bar for each small artifact."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        patch.delenv("GITHUB_ACTOR", raising=False)
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, StepRun]:
    """A store whose first model was promoted, and its data."""
    store = Store(tmp_path_factory.mktemp("first"))
    data = store.prepare(people(ROWS, 1))
    assert store.promote(data, store.fit(data)).verdict == "promoted"
    return store, data


@pytest.fixture
def store(first: tuple[Store, StepRun], tmp_path: Path) -> Store:
    """A branch of that store, which a test may change."""
    return Store(tmp_path, first[0])


@pytest.fixture(scope="module")
def data(first: tuple[Store, StepRun]) -> StepRun:
    return first[1]


def shifted_women(frame: pd.DataFrame) -> pd.DataFrame:
    """The same people, but two in three women who are ill are recorded as well: their risks are learned too
    low.
    """
    women = (frame["sex"] == 0).to_numpy() & (frame[TARGET_COLUMN] == 1).to_numpy()
    unseen = women & (np.random.default_rng(3).random(len(frame)) < 0.62)
    return frame.assign(**{TARGET_COLUMN: np.where(unseen, 0, frame[TARGET_COLUMN]).astype(np.int8)})


def test_the_first_champion_is_the_anchor(first: tuple[Store, StepRun]) -> None:
    """Both aliases point to it, nothing was spent, and the record says that it is the first."""
    store, _ = first
    assert (store.alias("champion"), store.alias("anchor"), store.alias("previous")) == ("1", "1", None)
    (record,) = attempts.history(store.client, "checkup", store.folder)
    assert (record.verdict, record.kinds, record.number, record.champion) == ("promoted", ("first",), 0, None)


def test_an_equal_refit_replaces_the_champion_and_the_anchor_stays(store: Store, data: StepRun) -> None:
    """Not worse by more than the margin is enough; better than the anchor it is not. Once more changes
    nothing.
    """
    refit = store.fit(data, C=1.0)
    told = store.promote(data, refit)
    assert (told.verdict, told.champion, told.champion_before, told.attempt) == ("promoted", "2", "1", 1)
    assert (store.alias("champion"), store.alias("previous"), store.alias("anchor")) == ("2", "1", "1")
    record = attempts.history(store.client, "checkup", store.folder)[-1]
    assert abs(record.anchor_change or 1) < 0.005
    assert store.promote(data, refit).verdict == "unchanged"
    assert len(attempts.history(store.client, "checkup", store.folder)) == 2


def test_a_model_that_is_wrong_for_one_subgroup_is_refused_and_the_group_is_named(
    store: Store, data: StepRun
) -> None:
    """One unit of log odds too low for women. The same call twice spends
    nothing.
    """
    shifted = store.fit(data, shifted_women)
    told = store.promote(data, shifted)
    assert (told.verdict, told.reason, store.alias("champion")) == ("refused", "limits", "1")
    failed = {line.name: line.detail for line in told.requirements if line.outcome == "refused"}
    assert "sex: female" in failed["observed / expected of a subgroup"]
    assert "sex: female" in failed["change of recall in a subgroup against the champion"]
    assert "sex: female" in told.explanation
    again = store.promote(data, shifted)
    assert (again.verdict, again.attempt, again.report_run_id) == ("refused", 1, told.report_run_id)
    assert len(attempts.history(store.client, "checkup", store.folder)) == 2
    other = store.fit(data, shifted_women, C=1.0)
    assert store.promote(data, other).attempt == 2


def test_a_balanced_file_is_stopped_before_anything_is_trained(store: Store) -> None:
    """Half of the rows ill where a third was: undecided with the command, unless a person says that it is
    meant.
    """
    frame = people(ROWS, 5)
    ill = frame[frame["ill"] == "y"]
    balanced = store.prepare(pd.concat([ill, frame[frame["ill"] == "n"].sample(len(ill), random_state=1)]))
    told = store.promote(balanced, store.fit(balanced))
    assert (told.verdict, told.reason, told.candidate_run_id) == ("undecided", "prevalence", None)
    assert "accept_prevalence=true" in str(told.remedy)
    assert store.asked == ["train"]  # the rows alone: tune and evaluate were not asked for
    with pytest.raises(UserError, match="why"):
        store.promote(balanced, store.fit(balanced), accept_prevalence="true")
    meant = store.promote(
        balanced, store.fit(balanced), accept_prevalence="true", why="cases and controls, on purpose"
    )
    assert meant.reason != "prevalence"
    record = store.attempt(meant.promote_run_id)
    assert record["accepted_prevalence"] == {"user": "tester", "why": "cases and controls, on purpose"}


def test_a_champion_is_asked_about_rows_with_levels_that_it_does_not_know(store: Store) -> None:
    """A new ward counts as missing for the champion; rows without it decide, and how many have it is said."""
    store.set_schema(SCHEMA.replace("C: c}", "C: c, D: d}"))
    frame = people(ROWS, 7, wards="ABCD")
    grown = store.prepare(frame)
    told = store.promote(grown, store.fit(grown))
    assert told.verdict == "promoted"
    lines = {line.name: line for line in told.requirements}
    shown = lines["change of ROC AUC against the champion, all rows"]
    assert shown.outcome == "shown"
    assert 400 < int(shown.detail.split()[1].replace(",", "")) < 500  # a quarter of 1,800
    worse = store.prepare(people(ROWS, 8, wards="ABCD"))
    told = store.promote(worse, store.fit(worse, lambda frame: frame.assign(weight=80.0)))
    assert told.verdict == "refused"
    assert "change of ROC AUC against the champion" in told.explanation


def test_few_events_are_undecided_and_an_approval_works_for_that_candidate_alone(
    store: Store, data: StepRun
) -> None:
    """About 300 test rows: the champion stays until a person decides, whose word stands on the card."""
    few = store.prepare(people(1500, 9))
    candidate = store.fit(few)
    told = store.promote(few, candidate)
    assert (told.verdict, told.reason, told.events, told.champion) == ("undecided", "events", 300, "1")
    assert {line.outcome for line in told.requirements} <= {"undecided", "shown", "passed"}
    assert f"approve={candidate.run_id}" in str(told.remedy)
    with pytest.raises(UserError, match="why"):
        store.promote(approve=candidate.run_id)
    with pytest.raises(UserError, match="no attempt with the candidate"):
        store.promote(approve="0" * 32, why="because")
    refused = store.fit(data, shifted_women)
    assert store.promote(data, refused).verdict == "refused"
    with pytest.raises(UserError, match="was refused, not undecided"):
        store.promote(approve=refused.run_id, why="because")

    approved = store.promote(approve=candidate.run_id, why="the clinic moved, we need it")
    assert (approved.verdict, approved.champion, store.alias("anchor")) == ("promoted", "2", "1")
    assert approved.approval is not None
    assert (approved.approval.user, approved.approval.why) == ("tester", "the clinic moved, we need it")
    assert str(store.client.get_model_version("checkup", "2").run_id) == candidate.run_id
    card = store.artifact(approved.report_run_id, "model_card.md")
    assert "approved by tester: the clinic moved, we need it" in card
    with pytest.raises(UserError, match="the champion, already"):
        store.promote(approve=candidate.run_id, why="again")


def test_an_approval_is_of_figures_against_the_champion_that_there_is(store: Store, data: StepRun) -> None:
    """Another champion came in between: the candidate has to be judged again."""
    few = store.prepare(people(1500, 9))
    candidate = store.fit(few)
    assert store.promote(few, candidate).verdict == "undecided"
    assert store.promote(data, store.fit(data, C=1.0)).champion == "2"
    with pytest.raises(UserError, match="judged against version 1, and the champion is version 2 now"):
        store.promote(approve=candidate.run_id, why="because")


def test_a_first_model_of_few_people_is_undecided_with_a_cross_validated_figure(tmp_path: Path) -> None:
    """Fewer than 100 people with the outcome among the test rows decide nothing."""
    store = Store(tmp_path)
    few = store.prepare(people(600, 11))
    told = store.promote(few, store.fit(few))
    assert (told.verdict, told.reason, told.champion, told.events) == ("undecided", "events", None, 100)
    crossed = next(line for line in told.requirements if "cross-validation" in line.name)
    assert crossed.outcome == "shown"
    assert 0.7 < (crossed.value or 0) < 0.95
    assert store.alias("champion") is None


def test_a_rollback_moves_the_champion_and_not_the_anchor(store: Store, data: StepRun) -> None:
    """And the model that was left is remembered."""
    refit = store.fit(data, C=1.0)
    store.promote(data, refit)
    told = store.promote(rollback="checkup")
    assert (told.verdict, told.champion, told.anchor) == ("rolled_back", "1", "1")
    assert store.promote(data, refit).reason == "rolled_back"
    assert store.alias("champion") == "1"


def test_a_store_without_an_anchor_gets_the_champion_as_one(store: Store, data: StepRun) -> None:
    """As an earlier version of this project left it."""
    store.client.delete_registered_model_alias("checkup", "anchor")
    told = store.promote(data, store.fit(data, C=1.0))
    assert (told.verdict, told.champion, told.anchor, store.alias("anchor")) == ("promoted", "2", "1", "1")


def test_an_anchor_that_cannot_take_the_rows_needs_a_person(store: Store, data: StepRun) -> None:
    """The schema lost a column that anchor and champion need; an approval moves both to the new model."""
    start, end = SCHEMA.index("  - {name: weight"), SCHEMA.index("  - {name: sex")
    store.set_schema(SCHEMA[:start] + SCHEMA[end:])
    shorter = store.prepare(people(ROWS, 13).drop(columns="weight"))
    candidate = store.fit(shorter)
    told = store.promote(shorter, candidate)
    assert (told.verdict, told.reason) == ("undecided", "champion")
    assert "needs weight" in told.explanation
    store.promote(approve=candidate.run_id, why="weights are not asked for any more")
    assert (store.alias("champion"), store.alias("anchor")) == ("2", "2")


def test_a_promotion_that_was_killed_between_two_aliases_is_completed_by_the_same_command(
    store: Store, data: StepRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is there, @previous has moved, @champion not yet."""
    refit = store.fit(data, C=1.0)
    set_alias = store.client.set_registered_model_alias

    def killed(name: str, alias: str, version: str) -> None:
        if alias == "champion":
            raise KeyboardInterrupt
        set_alias(name, alias, version)

    monkeypatch.setattr(store.client, "set_registered_model_alias", killed)
    with pytest.raises(KeyboardInterrupt):
        store.promote(data, refit)
    assert (store.alias("champion"), store.alias("previous")) == ("1", "1")
    monkeypatch.undo()
    told = store.promote(data, refit)
    assert (told.verdict, told.champion, told.attempt) == ("promoted", "2", 1)
    assert (store.alias("champion"), store.alias("previous")) == ("2", "1")
    assert len(attempts.history(store.client, "checkup", store.folder)) == 2


def test_two_promotions_at_once_are_told_apart(
    store: Store, data: StepRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else moves @champion while this one does: an error that names both, and a champion stays."""
    refit = store.fit(data, C=1.0)
    set_alias = store.client.set_registered_model_alias

    def meanwhile(name: str, alias: str, version: str) -> None:
        set_alias(name, alias, version)
        if alias == "champion":
            set_alias(name, alias, "1")

    monkeypatch.setattr(store.client, "set_registered_model_alias", meanwhile)
    with pytest.raises(UserError, match="another process moved the aliases"):
        store.promote(data, refit)
    assert store.alias("champion") == "1"


def test_the_record_of_change_is_a_table_and_part_of_the_card(store: Store, data: StepRun) -> None:
    """Refused and promoted attempts, oldest first, with what changed."""
    store.promote(data, store.fit(data, shifted_women))
    told = store.promote(data, store.fit(data, C=1.0))
    history = attempts.history(store.client, "checkup", store.folder)
    assert [one.verdict for one in history] == ["promoted", "refused", "promoted"]
    text = changes.table(history)
    assert [line.split()[0] for line in text.splitlines()[1:]] == [one.at[:10] for one in history]
    assert "first model" in text
    card = store.artifact(told.report_run_id, "model_card.md")
    assert "## Record of change" in card
    assert "refused (limits)" in card
