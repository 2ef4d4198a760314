"""Exploration: what a report may claim of a data set, on tables in which the truth is known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from steps.data import split, validation
from steps.data.documents import from_json, to_json
from steps.data.schema import OpenQuestion, Schema
from steps.data.schema_file import load
from steps.measures import associations, bins, exploration, exploration_prediction, metrics, row_order
from steps.measures.exploration import Table
from steps.measures.exploration_document import ExplorationDocument
from steps.reports import exploration as exploration_report
from tests.conftest import ROOT
from tests.made_up.clinic import clinic_rows, clinic_schema


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


def _table(rows: pd.DataFrame, schema: Schema, name: str = "rows") -> Table:
    raw = rows.assign(__file__=pd.Categorical(["rows.csv"] * len(rows)))
    checked = validation.check(raw, schema, "readmitted", ("yes",), require_target=False)
    return Table(name, "private", checked.valid, len(raw), len(checked.rejected), checked.problems)


def _rows(count: int, seed: int = 3) -> pd.DataFrame:
    """Valid rows whose outcome depends on stage and smoking, and on both together."""
    rows = clinic_rows(count, seed)
    generator = np.random.default_rng(1000 + seed)
    stage = rows["stage"].replace(9, np.nan).fillna(2).astype(float)
    smoker = rows["smoker"].astype(float).fillna(0)
    odds = -2.5 + 0.8 * stage + 0.5 * smoker + 0.8 * smoker * (stage == 3)
    rows["readmitted"] = np.where(generator.random(count) < 1 / (1 + np.exp(-odds)), "yes", "no")
    return rows


def test_repeats_and_disagreements_are_counted(schema: Schema) -> None:
    """Three alike, one with the other outcome: one exact repeat, two of the answers, one error at least."""
    rows = _rows(40).drop_duplicates(["glucose", "ward", "stage", "smoker"]).head(20)
    twins = rows.iloc[[0, 0]].copy()
    twins["readmitted"] = [rows.iloc[0]["readmitted"], {"yes": "no", "no": "yes"}[rows.iloc[0]["readmitted"]]]
    table = _table(pd.concat([rows, twins], ignore_index=True), schema)
    repeats = exploration.explore(table, schema, 0).repeats
    assert repeats.exact == 1
    assert repeats.same_features == 2
    assert repeats.disagreeing_patterns == 1
    assert repeats.disagreeing_rows == 3
    assert repeats.unavoidable_errors == pytest.approx(1 / 22)


def test_an_outcome_of_more_than_two_values_tells_rows_apart(schema: Schema) -> None:
    """Rows alike but for an answer that counts as the same outcome are no exact repeats."""
    rows = _rows(30).head(10)
    table = _table(pd.concat([rows, rows], ignore_index=True), schema)
    coarse = exploration.explore(table, schema, 0).repeats.exact
    fine = exploration.explore(
        Table(**{**vars(table), "answers": np.arange(20, dtype=np.intp)}), schema, 0
    ).repeats.exact
    assert coarse == 10
    assert fine == 0


def test_sorted_rows_are_found_with_the_places_where_they_change() -> None:
    """A file of two states, one after the other: one break, at its place; the shuffled file has none."""
    generator = np.random.default_rng(1)
    column = np.concatenate([generator.normal(0, 1, 6000), generator.normal(0.5, 1, 4000)])
    noise = generator.normal(0, 1, 10_000)
    found = row_order.examine({"state": column, "noise": noise})
    assert found.ordered == ("state",)
    assert found.breaks == pytest.approx([0.6], abs=0.02)
    shuffled = row_order.examine({"state": generator.permutation(column), "noise": noise})
    assert shuffled.ordered == ()
    assert shuffled.breaks == ()


def test_random_order_is_hardly_ever_called_an_order() -> None:
    """100 random tables of 5 columns: at a chance of one in ten thousand each, none should ring."""
    generator = np.random.default_rng(2)
    for _ in range(100):
        table = {str(i): (generator.random(2000) < 0.1).astype(np.float64) for i in range(5)}
        assert row_order.examine(table).ordered == ()


def test_a_column_that_holds_the_outcome_is_suspected(schema: Schema) -> None:
    """Glucose copied from the outcome predicts it perfectly alone; nothing else is suspected."""
    rows = _rows(3000)
    assert exploration.explore(_table(rows, schema), schema, 0).leaks == ()
    rows["glucose"] = np.where(rows["readmitted"] == "yes", 20.0, 5.0)
    leaks = exploration.explore(_table(rows, schema), schema, 0).leaks
    assert [(leak.name, leak.reason) for leak in leaks] == [("glucose", "alone")]


def test_a_level_that_gives_the_outcome_away_is_suspected(schema: Schema) -> None:
    """Everybody of one ward is readmitted: the column is weak alone, but that level is named."""
    rows = _rows(4000)
    chosen = np.random.default_rng(0).random(len(rows)) < 0.08
    rows.loc[chosen, "ward"] = "NA"
    rows.loc[rows["ward"] == "NA", "readmitted"] = "yes"
    leaks = exploration.explore(_table(rows, schema), schema, 0).leaks
    assert [(leak.name, leak.label) for leak in leaks] == [("ward", "not assigned")]


def test_rank_correlation_is_scipys_on_the_rows_where_both_are_present(schema: Schema) -> None:
    """Missing values are left out pair by pair."""
    from scipy.stats import spearmanr

    frame = _table(_rows(800), schema).frame
    frame.loc[frame.index[::7], "glucose"] = np.nan
    columns = bins.code(frame, schema)
    found = {(a.first, a.second): a for a in associations.between_columns(columns, frame)}
    both = frame[["glucose", "stage"]].dropna()
    expected = spearmanr(both["glucose"], both["stage"]).statistic
    assert found["glucose", "stage"].value == pytest.approx(expected, abs=0.01)
    assert found["glucose", "stage"].measure == "rank correlation"
    assert found["glucose", "ward"].measure == "correlation ratio"


def test_association_measures_reach_their_ends(schema: Schema) -> None:
    """A nominal column against itself is 1, against noise about 0, whatever the number of levels."""
    generator = np.random.default_rng(0)
    column = schema.column("ward")
    codes = generator.integers(0, 3, 4000).astype(np.intp)
    ward = bins.Coded(column, codes, ("a", "b", "c"), ())
    noise = bins.Coded(column, generator.integers(0, 3, 4000).astype(np.intp), ("a", "b", "c"), ())
    assert associations.cramers_v(ward, ward) == pytest.approx(1, abs=1e-3)
    assert associations.cramers_v(ward, noise) < 0.03
    assert associations.correlation_ratio(ward, codes.astype(np.float64)) == pytest.approx(1)
    assert associations.correlation_ratio(ward, generator.random(4000)) < 0.04


def _outcome(y: NDArray[np.int8], frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(readmitted=np.where(y == 1, "yes", "no"))


def test_what_a_column_adds_is_what_a_model_without_it_lacks(schema: Schema) -> None:
    """A copy of the only cause, with some noise, predicts well alone and adds nothing beside the cause."""
    generator = np.random.default_rng(5)
    rows = clinic_rows(8000, 3)
    cause = generator.integers(1, 4, len(rows))
    rows["stage"] = cause
    rows["smoker"] = np.where(generator.random(len(rows)) < 0.05, 1 - (cause > 2), cause > 2).astype(int)
    rows = _outcome((generator.random(len(rows)) < 1 / (1 + np.exp(4 - 2.0 * cause))).astype(np.int8), rows)
    prediction = exploration.explore(_table(rows, schema), schema, 0).prediction
    assert prediction is not None
    by_name = {entry.name: entry for entry in prediction.alone}
    assert by_name["smoker"].roc_auc > 0.7
    assert abs(by_name["smoker"].adds) < 0.003
    assert by_name["stage"].adds > 5 * by_name["stage"].adds_stderr > 0
    assert prediction.roc_auc == pytest.approx(by_name["stage"].roc_auc, abs=0.01)


def test_one_effect_for_each_level_ranks_as_well_as_logistic_regression_on_one_hot_columns(
    schema: Schema,
) -> None:
    """Few rounds are enough: the held-out ROC AUC is that of scikit-learn on the same codes and rows."""
    from sklearn.linear_model import LogisticRegression

    frame = _table(_rows(8000), schema).frame
    columns = bins.code(frame, schema)
    y = np.asarray(frame["__target__"], dtype=np.float64)
    learn = split.part(split.row_keys(frame, schema)) == 0
    design = np.hstack([np.eye(column.size)[column.codes] for column in columns])
    model = LogisticRegression(C=0.5, max_iter=1000).fit(design[learn], y[learn])
    expected = metrics.roc_auc(y[~learn], model.decision_function(design[~learn]))
    prediction = exploration.explore(_table(_rows(8000), schema), schema, 0).prediction
    assert prediction is not None
    assert prediction.roc_auc == pytest.approx(expected, abs=0.004)


def test_a_pair_that_says_more_than_its_parts_comes_first(schema: Schema) -> None:
    """The interaction that was planted adds more than chance, and no other pair does."""
    prediction = exploration.explore(_table(_rows(12_000), schema), schema, 0).prediction
    assert prediction is not None
    first, *others = prediction.interactions
    assert {first.first, first.second} == {"stage", "smoker"}
    assert first.gain.low > 0
    assert all(pair.gain.low <= 0 for pair in others)
    assert prediction.together is not None
    assert prediction.together.value > 0
    assert prediction.alone[0].name == "stage"


def test_strong_effects_of_single_columns_do_not_crowd_out_an_interaction(schema: Schema) -> None:
    """Of 21 pairs eight are tried: the one that was planted is among them, although its columns say nothing
    alone and five others say much.
    """
    generator = np.random.default_rng(4)
    codes = generator.integers(0, 2, (12_000, 7)).astype(np.intp)
    odds = -2.5 + codes[:, :5].sum(axis=1) + 0.8 * (codes[:, 5] ^ codes[:, 6]) - 0.4
    outcome = (generator.random(len(codes)) < 1 / (1 + np.exp(-odds))).astype(np.float64)
    columns = [
        bins.Coded(dataclasses.replace(schema.column("smoker"), name=f"c{place}"), own, ("no", "yes"), ())
        for place, own in enumerate(codes.T)
    ]
    keys = generator.integers(0, 2**64, len(codes), dtype=np.uint64)
    prediction = exploration_prediction.predict(columns, outcome, keys, 0)
    assert prediction is not None
    assert prediction.pairs_tried == 21
    assert len(prediction.interactions) == 8
    first = prediction.interactions[0]
    assert {first.first, first.second} == {"c5", "c6"}
    assert first.gain.low > 0.01


def test_the_document_is_read_as_it_was_written(schema: Schema) -> None:
    """From dataclasses to the text of JSON and back, with prediction and comparison."""
    tables = [_table(_rows(3000, seed), schema) for seed in (1, 2)]
    document = ExplorationDocument(
        tuple(exploration.explore(table, schema, 0) for table in tables),
        exploration.compare(*tables, schema),
    )
    text = json.dumps(to_json(document), allow_nan=False)
    assert from_json(ExplorationDocument, json.loads(text), "exploration.json") == document


def test_no_value_of_a_single_row_is_in_the_document_or_the_report(schema: Schema) -> None:
    """A canary glucose of 38.7391 is in one row and nowhere else."""
    rows = _rows(2000)
    rows.loc[77, "glucose"] = 38.7391
    document = exploration.explore(_table(rows, schema), schema, 0)
    assert "38.7" not in json.dumps(to_json(document))
    assert "38.7" not in exploration_report.render([document])


def test_data_without_an_outcome_are_explored_and_say_so(schema: Schema) -> None:
    """Composition, order and associations stay; nothing speaks of prediction."""
    table = _table(_rows(600).drop(columns="readmitted"), schema)
    document = exploration.explore(table, schema, 0)
    assert document.prediction is None
    answers = exploration_report.questions(document)
    assert len(answers) == 10
    assert "no outcome" in answers[1].answer
    assert "Not measured" in exploration_report.render([document])


def test_open_questions_of_a_draft_are_said_without_their_texts(schema: Schema) -> None:
    """In the report and at the terminal, by what they are about; of a finished schema nothing is said."""
    table = _table(_rows(600), schema)
    assert "draft" not in exploration_report.render([exploration.explore(table, schema, 0)])
    asked = (OpenQuestion("glucose", "May 39.5 mean no answer?"), OpenQuestion("glucose", "Which unit?"))
    document = exploration.explore(table, dataclasses.replace(schema, open_questions=asked), 0)
    said = "a draft with 2 questions that only a person can answer, about glucose:"
    assert said in exploration_report.render([document])
    assert said in exploration_report.summary(document)[-1]
    assert "39.5 mean" not in json.dumps(to_json(document))


def test_two_data_sets_stand_side_by_side_in_the_bands_of_the_first(schema: Schema) -> None:
    """The column that was moved has the largest PSI, and levels line up."""
    first, second = _rows(3000, 1), _rows(3000, 2)
    second["glucose"] = second["glucose"].where(second["glucose"] == 0, second["glucose"] * 0.7 + 8)
    tables = [_table(first, schema, "then"), _table(second, schema, "now")]
    documents = [
        exploration.explore(tables[0], schema, 0),
        exploration.explore(tables[1], schema, 0, tables[0].frame),
    ]
    comparison = exploration.compare(*tables, schema)
    assert comparison.columns[0].name == "glucose"
    assert comparison.columns[0].evidence > 10
    assert all(column.psi < 0.02 for column in comparison.columns[1:])
    labels = [[level.label for level in document.columns[0].levels] for document in documents]
    assert labels[0] == labels[1]
    page = exploration_report.render(documents, comparison)
    assert "Side by side" in page
    assert "then:" in page


def test_the_report_loads_nothing_and_escapes_what_the_schema_says(tmp_path: Path) -> None:
    """One file that opens anywhere, whatever signs a meaning holds."""
    schema = clinic_schema(tmp_path, ("meaning: Smokes", 'meaning: "Smokes <script> & more"'))
    page = exploration_report.render([exploration.explore(_table(_rows(500), schema), schema, 0)])
    assert "<script>" not in page
    assert "&lt;script&gt; &amp; more" in page
    for loader in ("http://", "https://", "src=", "@import", "url("):
        assert loader not in page


def test_one_level_only_and_few_rows_do_not_stop_it(schema: Schema) -> None:
    """A constant column is named; twelve rows give a report without prediction."""
    rows = _rows(12)
    rows["smoker"] = 1
    document = exploration.explore(_table(rows, schema), schema, 0)
    assert [column.name for column in document.columns if column.constant] == ["smoker"]
    assert exploration_report.render([document])


def test_a_column_without_answers_and_a_constant_one_add_nothing(schema: Schema) -> None:
    """Neither stops the fit of the others, and no interaction is looked for in them."""
    rows = _rows(3000)
    rows["glucose"] = np.nan
    rows["smoker"] = 1
    prediction = exploration.explore(_table(rows, schema), schema, 0).prediction
    assert prediction is not None
    adds = {entry.name: entry.adds for entry in prediction.alone}
    assert adds["glucose"] == adds["smoker"] == 0
    assert adds["stage"] > 0.05
    assert {frozenset((pair.first, pair.second)) for pair in prediction.interactions} == {
        frozenset(("stage", "ward"))
    }


def test_the_cohort_has_no_order_and_no_leak() -> None:
    """Made people are drawn independently: what would be an artefact is not found."""
    schema = load(ROOT / "data" / "brfss2015.yaml")
    raw = pd.read_parquet(ROOT / "data" / "cohort.parquet").head(8000)
    checked = validation.check(raw, schema, schema.target.name, schema.target.positive, require_target=False)
    found = exploration.explore(Table("cohort", "synthetic", checked.valid, 8000, 0), schema, 0)
    assert found.order.ordered == ()
    assert found.leaks == ()
    assert found.prediction.roc_auc > 0.78


@pytest.mark.soak
def test_the_survey_in_a_minute_of_one_processor(survey_path: Path) -> None:
    """Exact repeats, the order by state and the real associations, on 253,680 rows."""
    import time

    schema = load(ROOT / "data" / "brfss2015.yaml")
    raw = pd.read_parquet(survey_path)
    started = time.process_time()
    checked = validation.check(raw, schema, schema.target.name, schema.target.positive, require_target=False)
    answers = pd.factorize(raw[schema.target.name])[0]
    table = Table("survey", "public", checked.valid, len(raw), len(checked.rejected), answers=answers)
    found = exploration.explore(table, schema, 0)
    assert exploration_report.render([found])
    assert time.process_time() - started < 60
    assert found.repeats.exact == 23_899
    assert len(found.order.ordered) >= 20
    assert len(found.order.breaks) > 40
    strongest = {(pair.first, pair.second) for pair in found.associations.strongest[:4]}
    assert {("Education", "Income"), ("GenHlth", "PhysHlth")} <= strongest
    assert found.prediction is not None
    assert found.prediction.roc_auc == pytest.approx(0.828, abs=0.003)
