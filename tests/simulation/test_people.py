"""The generator: the same people every time, faithful to its facts, changed as a scenario says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from benchmarks.data_card import (
    MARGINAL_LIMIT,
    RANK_LIMIT,
    ROC_AUC_LIMIT,
    Fidelity,
    compare,
    risk_ranking,
    section,
)
from benchmarks.survey_facts import SMALLEST_CELL, measure
from monitoring.simulation.people import BLOCK, Facts, chunks, generate, load_facts, main, read_facts, write
from steps.data.errors import UserError
from steps.data.schema import Change, LevelledColumn, Scenario, Schema
from steps.data.schema_file import load
from steps.measures.evidence import psi
from tests.conftest import ROOT
from tests.made_up.clinic import clinic_rows, clinic_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 8


@pytest.fixture(scope="module")
def schema() -> Schema:
    """The shipped schema."""
    return load(ROOT / "data" / "brfss2015.yaml")


@pytest.fixture(scope="module")
def facts(schema: Schema) -> Facts:
    """The shipped facts."""
    return read_facts(schema, ROOT)


@pytest.fixture(scope="module")
def shipped(schema: Schema) -> pd.DataFrame:
    """The shipped cohort as a table."""
    return pd.read_parquet(ROOT / str(schema.source("cohort").path))


@pytest.fixture(scope="module")
def steady(schema: Schema, facts: Facts) -> pd.DataFrame:
    """20,000 people of another seed, to compare scenarios with."""
    return generate(facts, schema, 20_000, seed=1)


@pytest.fixture(scope="module")
def fidelity(shipped: pd.DataFrame, survey_path: Path) -> Fidelity:
    """The shipped cohort beside the real survey."""
    return compare(shipped, pd.read_parquet(survey_path))


def _scenario(schema: Schema, facts: Facts, name: str, day: float | None = None) -> pd.DataFrame:
    return generate(facts, schema, 20_000, seed=1, scenario=schema.scenario(name), day=day)


def test_shipped_cohort_is_made_again_value_for_value(
    schema: Schema, facts: Facts, shipped: pd.DataFrame
) -> None:
    """Regenerating gives the same table, types included."""
    pd.testing.assert_frame_equal(generate(facts, schema, 30_000, SEED), shipped)


def test_shipped_file_is_small_and_the_one_that_the_schema_lists(schema: Schema) -> None:
    """Under 500 KB; its sha256 makes it known as synthetic."""
    content = (ROOT / str(schema.source("cohort").path)).read_bytes()
    assert len(content) < 500_000
    assert hashlib.sha256(content).hexdigest() == schema.source("cohort").sha256
    assert schema.source("cohort").kind == "synthetic"


def test_person_depends_on_seed_and_position_alone(schema: Schema, facts: Facts) -> None:
    """Any part of a cohort is the same as when all of it is made, across the edges of blocks."""
    whole = generate(facts, schema, 2 * BLOCK + 10, seed=5)
    part = generate(facts, schema, 20, seed=5, first=BLOCK - 10)
    pd.testing.assert_frame_equal(part, whole[BLOCK - 10 : BLOCK + 10].reset_index(drop=True))
    assert not generate(facts, schema, 20, seed=6).equals(whole[:20])
    assert len(generate(facts, schema, 0, seed=5)) == 0


def test_cohort_keeps_to_the_facts(schema: Schema, shipped: pd.DataFrame) -> None:
    """Shares within 0.01 and rank correlations within 0.02 of the committed facts, target included."""
    document = json.loads((ROOT / str(schema.facts)).read_text())
    for name, content in document["columns"].items():
        for low, high, share in content["bands"]:
            assert shipped[name].between(low, high).mean() == pytest.approx(share, abs=MARGINAL_LIMIT), name
    for code, share in document["target"].items():
        found = (shipped[schema.target.name] == float(code)).mean()
        assert found == pytest.approx(share, abs=MARGINAL_LIMIT)
    ranks = document["rank_correlations"]
    found = shipped[ranks["order"]].rank().corr().to_numpy()
    assert np.max(np.abs(found - np.array(ranks["values"]))) < RANK_LIMIT


def test_cohort_is_faithful_to_the_survey(fidelity: Fidelity) -> None:
    """Every share within 0.01 and every rank correlation within 0.02 of the real survey."""
    assert len(fidelity.rank_differences) == 22 * 21 / 2
    assert fidelity.marginals.max() < MARGINAL_LIMIT
    assert fidelity.rank_differences.max() < RANK_LIMIT


def test_data_card_shows_the_measured_fidelity(fidelity: Fidelity) -> None:
    """The differences in the card are those between the shipped cohort and the real survey."""
    shown = section((ROOT / "data" / "README.md").read_text(encoding="utf-8"), "fidelity")
    assert f"{fidelity.rank_differences.max():.4f}" in shown
    for name, difference in fidelity.marginals.items():
        assert f"| `{name}` | {difference:.4f} |" in shown


def test_model_of_the_cohort_ranks_the_survey(
    schema: Schema, shipped: pd.DataFrame, survey_path: Path
) -> None:
    """A model that has seen nobody but the cohort's people reaches its ROC AUC on every fourth survey row.

    The figure for all rows is in the data card.
    """
    roc_auc, _ = risk_ranking(shipped, pd.read_parquet(survey_path)[::4], schema)
    assert roc_auc >= ROC_AUC_LIMIT


def test_facts_hold_no_small_cell(schema: Schema) -> None:
    """No share in the facts stands for fewer than 20 people, and nothing but columns is tabulated."""
    document = json.loads((ROOT / str(schema.facts)).read_text())
    shares = [band[2] for content in document["columns"].values() for band in content["bands"]]
    assert min(shares) * document["rows"] >= SMALLEST_CELL - 0.5
    assert set(document) == {
        "about", "schema", "rows", "smallest_cell", "target", "columns", "rank_correlations", "loadings",
        "outcome",
    }  # fmt: skip


def test_facts_are_those_of_the_survey(schema: Schema, survey_path: Path, fidelity: Fidelity) -> None:
    """Shares and rank correlations of the committed facts are the real survey's."""
    document = json.loads((ROOT / str(schema.facts)).read_text())
    survey = pd.read_parquet(survey_path)
    for name, content in document["columns"].items():
        for low, high, share in content["bands"]:
            assert survey[name].between(low, high).mean() == pytest.approx(share, abs=1e-6)
    order, values = document["rank_correlations"]["order"], document["rank_correlations"]["values"]
    assert np.max(np.abs(fidelity.survey_ranks.loc[order, order] - np.array(values))) < 1e-4


@pytest.mark.parametrize(
    "name", ["ageing-population", "obesity-wave", "broken-sensor", "concept-shift", "steady"]
)
def test_scenario_drifts_in_the_columns_that_it_names(
    schema: Schema, facts: Facts, steady: pd.DataFrame, name: str
) -> None:
    """The population stability index passes 0.1 in the announced columns and in no other."""
    people = _scenario(schema, facts, name)
    drifted = []
    for column in schema.feature_names:
        described = schema.column(column)
        if isinstance(described, LevelledColumn):
            edges = np.array(described.codes[1:], dtype=np.float64)
        else:
            edges = np.unique(np.quantile(steady[column], np.arange(0.1, 1, 0.1)))
        counts = [
            np.bincount(np.searchsorted(edges, frame[column], side="right"), minlength=len(edges) + 1)
            for frame in (people, steady)
        ]
        if psi(*counts) >= 0.1:
            drifted.append(column)
    assert tuple(drifted) == schema.scenario(name).drifts


def test_population_shift_keeps_the_outcome_given_the_answers(
    schema: Schema, facts: Facts, steady: pd.DataFrame
) -> None:
    """An older population is more often ill, but people of one age group are about as ill as before."""
    older = _scenario(schema, facts, "ageing-population")
    column = schema.scenario("ageing-population").changes[0].column
    ill = [frame[schema.target.name].isin(schema.target.positive) for frame in (steady, older)]
    assert ill[1].mean() > ill[0].mean() + 0.03
    for code in (8, 9, 10, 11):
        rates = [i[frame[column] == code].mean() for i, frame in zip(ill, (steady, older), strict=True)]
        assert rates[1] == pytest.approx(rates[0], abs=0.045)


def test_concept_shift_changes_the_outcome_alone(schema: Schema, facts: Facts, steady: pd.DataFrame) -> None:
    """The answers are those of the steady scenario, value for value; the outcome is not."""
    shifted = _scenario(schema, facts, "concept-shift")
    features = list(schema.feature_names)
    pd.testing.assert_frame_equal(shifted[features], steady[features])
    positive = [frame[schema.target.name].isin(schema.target.positive).mean() for frame in (steady, shifted)]
    assert positive[1] > positive[0] + 0.02


def test_broken_sensor_falsifies_the_record_alone(schema: Schema, facts: Facts, steady: pd.DataFrame) -> None:
    """The recorded column is scaled within its range; all else, the outcome too, is as it was."""
    broken = _scenario(schema, facts, "broken-sensor")
    change = schema.scenario("broken-sensor").changes[0]
    column = schema.column(str(change.column))
    others = [name for name in steady if name != column.name]
    pd.testing.assert_frame_equal(broken[others], steady[others])
    scaled = np.clip(np.rint(steady[column.name] * change.value), column.minimum, column.maximum)
    assert (broken[column.name] == scaled).all()


def test_missing_questions_leave_gaps(schema: Schema, facts: Facts) -> None:
    """The stated share of the named answers is missing, and no other."""
    scenario = schema.scenario("missing-questions")
    shares = _scenario(schema, facts, scenario.name).isna().mean()
    wanted = {change.column: change.value for change in scenario.changes}
    for name, share in shares.items():
        assert share == pytest.approx(wanted.get(str(name), 0.0), abs=0.015)


def test_garbage_breaks_the_schema(schema: Schema, facts: Facts, steady: pd.DataFrame) -> None:
    """The stated share of the named columns is out of range, of no known level or text; the rest stays."""
    spoilt = _scenario(schema, facts, "garbage")
    for change in schema.scenario("garbage").changes:
        name = str(change.column)
        rubbish = spoilt[name] != steady[name]
        assert rubbish.mean() == pytest.approx(change.value, abs=0.01)
        assert set(spoilt.loc[rubbish, name].map(type)) == {float, str}
        numbers = pd.to_numeric(spoilt.loc[rubbish, name], errors="coerce").dropna()
        assert not numbers.between(steady[name].min(), steady[name].max()).any()


def test_slow_change_grows_by_the_day(schema: Schema, facts: Facts, steady: pd.DataFrame) -> None:
    """Before it starts everybody is as always; half-way the mean has moved about half of the way."""
    scenario = schema.scenario("obesity-wave")
    column = str(scenario.changes[0].column)
    pd.testing.assert_frame_equal(_scenario(schema, facts, scenario.name, day=scenario.starts - 1), steady)
    half = _scenario(schema, facts, scenario.name, day=scenario.starts + scenario.ramp / 2)
    full = _scenario(schema, facts, scenario.name)
    moved = (half[column].mean() - steady[column].mean()) / (full[column].mean() - steady[column].mean())
    assert 0.4 < moved < 0.6


@pytest.mark.parametrize("name", ["steady", "missing-questions", "garbage"])
def test_chunks_make_the_same_file_as_one_frame(
    schema: Schema, facts: Facts, tmp_path: Path, name: str
) -> None:
    """A cohort written chunk by chunk reads back as generated at once; columns of mixed objects are text."""
    scenario, rows = schema.scenario(name), 5 * BLOCK // 2
    expected = generate(facts, schema, rows, 3, scenario)
    mixed = list(expected.select_dtypes("object"))
    expected[mixed] = expected[mixed].astype(str).astype("str")
    for path, read in ((tmp_path / "a.parquet", pd.read_parquet), (tmp_path / "a.csv", pd.read_csv)):
        write(chunks(facts, schema, rows, 3, scenario, size=BLOCK), path, rows)
        pd.testing.assert_frame_equal(read(path), expected, check_dtype=path.suffix == ".parquet")
    assert len(mixed) == (3 if name == "garbage" else 0)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.csv", "a.parquet"]


def test_interrupted_file_is_absent(schema: Schema, facts: Facts, tmp_path: Path) -> None:
    """If a chunk fails, neither the file nor a part of it stays."""

    def failing() -> Iterator[pd.DataFrame]:
        yield generate(facts, schema, 10, 1)
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write(failing(), tmp_path / "people.parquet", 20)
    assert list(tmp_path.iterdir()) == []


def test_generator_serves_any_schema(tmp_path: Path) -> None:
    """Text, fractions, codes and nulls for missing, an outcome in words: measured, drawn, and alike."""
    schema = clinic_schema(tmp_path)
    rows = clinic_rows(4000)
    ward, stage = rows["ward"], rows["stage"]
    rows["glucose"] = np.where(
        rows["glucose"] > 0, (rows["glucose"] / 2 + 4 * (stage == 3)).clip(2).round(1), 0
    )
    rows["readmitted"] = np.where((stage == 3) & (ward == "A1"), "yes", rows["readmitted"])
    rows.loc[:99, "readmitted"] = None
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(measure(rows, schema)))
    made = generate(load_facts(path, schema), schema, 40_000, seed=2)
    known = rows[100:].replace({"glucose": {0: np.nan}, "ward": {"?": None}, "stage": {9: np.nan}})
    for name in ("ward", "stage", "smoker", "readmitted"):
        shares = [frame[name].value_counts(normalize=True) for frame in (known, made)]
        assert shares[1].sub(shares[0], fill_value=0).abs().max() < 0.02, name
    assert (made.isna().mean() - known.isna().mean()).abs().max() < 0.01
    assert made["glucose"].quantile([0.1, 0.5, 0.9]).to_numpy() == pytest.approx(
        known["glucose"].quantile([0.1, 0.5, 0.9]).to_numpy(), abs=0.3
    )
    assert made["glucose"].dropna().mul(10).round(6).mod(1).eq(0).all()
    ill = [frame.query("stage == 3")["readmitted"].eq("yes").mean() for frame in (known, made)]
    assert ill[1] == pytest.approx(ill[0], abs=0.03)
    spoilt = Scenario("noise", "Noise", "Noise", (Change("garbage", 0.5, "ward"),))
    assert "not-a-value" in set(generate(load_facts(path, schema), schema, 100, 2, spoilt)["ward"])


@pytest.mark.parametrize("top", [300, 90_000])
def test_rare_whole_numbers_keep_their_distribution(tmp_path: Path, top: int) -> None:
    """Where hardly any value occurs twenty times, few or many being possible, the quantiles still hold."""
    schema = clinic_schema(tmp_path, ("maximum: 40", f"maximum: {top}"))
    rows = clinic_rows(3000)
    rows["glucose"] = np.rint(np.random.default_rng(1).beta(2, 5, len(rows)) * (top - 2) + 2)
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(measure(rows, schema)))
    made = generate(load_facts(path, schema), schema, 20_000, seed=2)["glucose"]
    quantiles = [0.05, 0.25, 0.5, 0.75, 0.95]
    assert (made == made.round()).all()
    assert made.quantile(quantiles).to_numpy() == pytest.approx(
        rows["glucose"].quantile(quantiles).to_numpy(), abs=0.02 * top
    )


def test_unusable_facts_are_refused(schema: Schema, tmp_path: Path) -> None:
    """Absent, broken, of another version or about other columns: one message with the remedy."""
    path = tmp_path / "facts.json"
    for content, expected in (
        (None, "no such facts file"),
        ("{", "cannot be read as JSON"),
        ("[]", "no facts file of this version"),
        ("{}", "no facts file of this version"),
        ('{"columns": {"a": {}}}', "other columns"),
    ):
        if content is not None:
            path.write_text(content)
        with pytest.raises(UserError, match=expected):
            load_facts(path, schema)


def test_command_writes_people_or_says_why_not(
    schema: Schema, facts: Facts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 and a file; 1 for an unknown scenario, naming those that are; 2 for options that make no sense."""
    path = tmp_path / "people.parquet"
    shared = ["--schema", str(ROOT / "data" / "brfss2015.yaml"), "--out", str(path)]
    assert main(["--rows", "50", "--seed", "4", *shared]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(path), generate(facts, schema, 50, 4))
    assert main(["--rows", "50", "--scenario", "flood", *shared]) == 1
    assert "it has: steady" in capsys.readouterr().err
    for wrong in (["--rows", "0"], ["--rows", "5", "--out", "people.xlsx"], ["--rows", "many"]):
        with pytest.raises(SystemExit, match="2"):
            main([*shared, *wrong])


@pytest.mark.soak
def test_five_million_people_in_flat_memory(tmp_path: Path) -> None:
    """Five million people are written by a process that never holds more than 500 MB."""
    script = (
        "import resource, sys; from monitoring.simulation.people import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "--rows", "5000000", "--out", str(tmp_path / "people.parquet")]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(answer.stdout) < 500_000


@pytest.mark.soak
def test_measuring_the_survey_gives_the_committed_facts(schema: Schema, survey_path: Path) -> None:
    """All of the facts, coefficients too, follow from the survey."""
    committed = json.loads((ROOT / str(schema.facts)).read_text())
    measured = json.loads(json.dumps(measure(pd.read_parquet(survey_path), schema)))
    assert measured["columns"] == committed["columns"]
    assert np.allclose(measured["loadings"], committed["loadings"], atol=2e-6)
    for found, wanted in zip(measured["outcome"], committed["outcome"], strict=True):
        assert found["intercept"] == pytest.approx(wanted["intercept"], abs=2e-3)
        for name, effects in wanted["effects"].items():
            assert np.array(found["effects"][name]) == pytest.approx(np.array(effects), abs=2e-3)
