"""The glass box learns what it should, from bins that hold enough people, and keeps nothing else of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steps.data.schema import Schema
from steps.data.schema_file import load
from steps.measures import metrics
from steps.models import explainable_boosting, families, missing_answers, terms
from steps.models.missing_answers import TrainingRows
from steps.models.served_model import Term, Terms
from tests.conftest import ROOT
from tests.made_up.clinic import clinic_schema
from tests.made_up.clinic_models import clinic_frame


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


def training_rows(frame: pd.DataFrame, schema: Schema, *, hidden: bool = True) -> TrainingRows:
    X, y = frame[list(schema.feature_names)], frame["__target__"].to_numpy()
    return missing_answers.with_hidden_answers(X, y, 0) if hidden else missing_answers.as_they_are(X, y)


def fit(rows: TrainingRows, schema: Schema, *, bags: int = 2, threads: int = 1) -> Terms:
    params = families.check_params("explainable_boosting", {})
    return explainable_boosting.fit(params, rows, schema, seed=0, bags=bags, threads=threads)


@pytest.fixture(scope="module")
def glass_box(schema: Schema) -> Terms:
    return fit(training_rows(clinic_frame(3000), schema), schema)


@pytest.fixture(scope="module")
def complete(schema: Schema) -> Terms:
    """Trained on people who all answered everything, as in the survey."""
    return fit(training_rows(clinic_frame(8000).dropna().reset_index(drop=True), schema), schema)


def test_it_ranks_and_estimates_rows_that_it_did_not_see(glass_box: Terms, schema: Schema) -> None:
    fresh = clinic_frame(3000, seed=7)
    risk = glass_box.risk(fresh[list(schema.feature_names)])
    assert metrics.roc_auc(fresh["__target__"], risk) > 0.72
    assert metrics.observed_expected(fresh["__target__"], risk) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("column", ["glucose", "stage", "ward"])
def test_a_missing_answer_gives_a_risk_that_is_right_on_average(
    column: str, complete: Terms, schema: Schema
) -> None:
    """A survey of complete rows teaches nothing of missing answers; hidden copies do."""
    fresh = clinic_frame(8000, seed=8).dropna()
    without = fresh[list(schema.feature_names)].assign(**{column: None if column == "ward" else np.nan})
    risk = complete.risk(without)
    assert metrics.observed_expected(fresh["__target__"], risk) == pytest.approx(1, abs=0.15)


def test_the_same_seed_gives_the_same_document_with_one_thread_or_two(schema: Schema) -> None:
    rows = training_rows(clinic_frame(600), schema)
    documents = [terms.to_document(fit(rows, schema, threads=threads)) for threads in (1, 2)]
    assert json.dumps(documents[0]) == json.dumps(documents[1])


def test_it_is_what_the_library_fitted(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log odds of the tables equal those of the machine within 1e-12, where no cell had to be blanked."""
    from interpret.glassbox import ExplainableBoostingClassifier

    machines = []
    original = ExplainableBoostingClassifier.fit

    def keep(self, X, y, **options):  # type: ignore[no-untyped-def]
        machines.append((self, X))
        return original(self, X, y, **options)

    monkeypatch.setattr(ExplainableBoostingClassifier, "fit", keep)
    rows = training_rows(clinic_frame(4000), schema)
    fitted = fit(rows, schema)
    ((machine, X),) = machines
    bins = fitted.bins(rows.X)
    kept = np.ones(len(X), dtype=bool)
    for term in fitted.terms:
        kept &= people_beside(rows, bins, term)[0] >= 10
    assert kept.mean() > 0.8
    np.testing.assert_allclose(
        fitted.log_odds(rows.X)[kept], machine.decision_function(X)[kept], rtol=0, atol=1e-12
    )


def people_beside(rows: TrainingRows, bins: Any, term: Term) -> tuple[Any, Any]:
    """How many people the fit saw in each row's cell of a term, and the cell's effect; shape (rows,)."""
    cells = bins[:, list(term.columns)]
    frame = pd.DataFrame({"cell": [tuple(cell) for cell in cells], "person": rows.person})
    people = frame.groupby("cell")["person"].transform("nunique").to_numpy()
    return people, term.effects[tuple(cells.T)]


def test_every_bin_holds_ten_people_and_every_smaller_pair_cell_is_blank(schema: Schema) -> None:
    """Counted here again from the rows: the document's effects tell of nobody in a group below ten."""
    frame = clinic_frame(250)
    rows = training_rows(frame, schema)
    fitted = fit(rows, schema)
    bins = fitted.bins(rows.X)
    assert any(len(term.columns) == 2 for term in fitted.terms)
    for term in fitted.terms:
        people, effects = people_beside(rows, bins, term)
        assert (effects[people < 10] == 0).all()
        if len(term.columns) == 1:
            assert people[bins[:, term.columns[0]] > 0].min() >= 10


def test_the_document_shows_people_in_tens_and_no_value_of_a_person(schema: Schema) -> None:
    frame = clinic_frame(800)
    document = terms.to_document(fit(training_rows(frame, schema), schema))
    counts = [count for term in document["terms"] for count in term["people"]]
    assert all(count % 10 == 0 for count in counts)
    (glucose,) = (column for column in document["columns"] if column["name"] == "glucose")
    assert all(round(cut, 1) == cut for cut in glucose["cuts"])
    assert glucose["labels"][0].startswith("2")  # the schema's limits, not the smallest and largest value
    assert "40" not in glucose["labels"][-1]


def test_rare_levels_are_merged_before_the_fit(schema: Schema) -> None:
    """Neighbours of an ordinal column, rare wards with one another, and a column of one bin tells nothing."""
    frame = clinic_frame(400)
    frame = frame[(frame["stage"] != 3) | (frame.index < 8)].assign(smoker=0.0)
    by_name = {column.name: column for column in explainable_boosting.bin_columns(frame, schema)}
    assert by_name["stage"].labels == ("mild", "moderate or severe")
    assert by_name["stage"].bins == (1, 2, 2)
    assert by_name["smoker"].labels == ("no or yes",)
    few = frame[~frame["ward"].isin(["A1", "NA"]) | (frame.index % 50 == 0)]
    ward = explainable_boosting.bin_columns(few, schema)[1]
    assert ward.labels in (("surgery or medicine or not assigned",), ("medicine", "surgery or not assigned"))
    fitted = fit(training_rows(frame, schema), schema)
    assert all(fitted.columns[place].name != "smoker" for term in fitted.terms for place in term.columns)


def test_columns_that_tell_nothing_leave_the_outcomes_share(schema: Schema) -> None:
    frame = clinic_frame(300).assign(glucose=7.0, stage=2.0, smoker=0.0, ward="A1")
    fitted = fit(training_rows(frame, schema, hidden=False), schema)
    assert fitted.terms == ()
    assert fitted.risk(frame)[0] == pytest.approx(frame["__target__"].mean())


def test_copies_of_a_person_stop_no_boosting_that_learned_from_the_person(schema: Schema) -> None:
    """A person's complete and masked rows lie on one side of a bag's early stopping."""
    rows = training_rows(clinic_frame(100), schema)
    assert (rows.person[:100] == rows.person[100:]).all()
    assert rows.weight[:100].min() == 1
    assert rows.weight[100:].max() == missing_answers.COPY_WEIGHT
    hidden = rows.X[100:].isna().mean() - rows.X[:100].isna().mean()
    assert hidden.between(0.05, 0.25).all()


def test_the_spread_is_that_of_models_of_other_people(schema: Schema) -> None:
    """Between disjoint samples, the log odds move about as much as the document's spreads say together."""
    columns = list(schema.feature_names)
    people = clinic_frame(200, seed=50)[columns]
    refits = [
        fit(training_rows(clinic_frame(1500, seed=seed), schema), schema, bags=8) for seed in range(60, 66)
    ]
    realised = np.std([one.log_odds(people) for one in refits], axis=0, ddof=1).mean()
    stated = []
    for one in refits:
        bins = one.bins(people)
        squares = [term.spread[tuple(bins[:, p] for p in term.columns)] ** 2 for term in one.terms]
        stated.append(np.sqrt(np.sum(squares, axis=0)).mean())
    assert 0.5 < np.mean(stated) / realised < 2


def test_the_survey_s_schema_gives_a_small_document(tmp_path: Path) -> None:
    """21 columns and 30 pairs of the bundled cohort: well below what a page may weigh."""
    schema = load(ROOT / "data" / "brfss2015.yaml")
    cohort = pd.read_parquet(ROOT / "data" / "cohort.parquet").head(4000)
    outcome = (cohort[schema.target.name] == 2).astype("int8")
    frame = cohort[list(schema.feature_names)].astype("float64").assign(__target__=outcome)
    terms.write(fit(training_rows(frame, schema), schema, bags=1), tmp_path / "terms.json")
    assert (tmp_path / "terms.json").stat().st_size < 200_000
