"""explore, score and drift as processes, against the store of a finished chain."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from steps.data import documents
from steps.measures.drift_document import DriftReport
from tests.conftest import Champion, Checkout


@pytest.fixture(scope="module")
def checkout(champion: Champion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A copy of the champion's checkout, so that its store stays as it is."""
    folder = tmp_path_factory.mktemp("entry-points") / "project"
    shutil.copytree(champion.checkout.folder, folder, ignore=shutil.ignore_patterns("__pycache__", "mlruns"))
    yield Checkout(folder)


def _step(checkout: Checkout, step: str, **values: object) -> tuple[int, str]:
    given = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    return checkout.run(sys.executable, "-m", f"steps.{step}", *given)


def test_explore_writes_its_report_once(checkout: Checkout) -> None:
    """A canary in a private file is in no artifact, and the same again is reused."""
    data = checkout.folder / "rows.csv"
    rows = pd.read_parquet(checkout.folder / "data" / "cohort.parquet").head(1500).astype({"BMI": float})
    rows.loc[7, "BMI"] = 55.9173
    rows.to_csv(data, index=False)
    code, output = _step(checkout, "explore", data="rows.csv")
    assert code == 0, output
    assert "rows, outcome" in output
    run = output.rsplit("explore.html is in run ", 1)[1].split()[0]
    artifacts = _artifacts(checkout, run)
    assert {"exploration.json", "explore.html"} <= {path.name for path in artifacts.iterdir()}
    assert "55.91" not in "".join(path.read_text() for path in artifacts.iterdir())
    assert "nothing to do" in _step(checkout, "explore", data="rows.csv")[1]


def test_score_writes_risks_with_the_champion(checkout: Checkout, champion: Champion) -> None:
    """A model of made-up people answers for private rows only if it is named, and says so; without a champion
    of real people the step ends at once. The output stands where it was asked for, a bad row in its place.
    """
    rows = pd.read_parquet(checkout.folder / "data" / "cohort.parquet").head(500)
    rows["BMI"] = rows["BMI"].astype(float)
    rows.loc[250, "BMI"] = 400
    rows.to_parquet(checkout.folder / "new.parquet")
    runs_before = _runs(checkout)
    code, output = _step(checkout, "score", data="new.parquet", out="risks.csv")
    assert code == 1
    assert "diabetes-risk has no champion, and these data are private" in output
    assert not (checkout.folder / "risks.csv").exists()
    assert _runs(checkout) - runs_before == Counter({"score": 1})  # nothing was trained
    made_up = f"models:/{champion.name}@champion"
    code, output = _step(checkout, "score", data="new.parquet", out="risks.csv", model=made_up)
    assert code == 0, output
    assert f"{champion.name} version {champion.version}" in output
    assert "people who do not exist" in output
    assert "rows a second" in output
    found = pd.read_csv(checkout.folder / "risks.csv")
    assert len(found) == 500
    assert found["risk"].isna().to_numpy().nonzero()[0].tolist() == [250]
    assert found.loc[250, "reason"] == "BMI: out of range 12 to 99"
    assert "no training row had" not in output


def test_score_counts_rows_of_levels_that_the_model_never_saw(checkout: Checkout, champion: Champion) -> None:
    """By column, from the reference beside the model; one that cannot be read costs the count alone."""
    rows = pd.read_parquet(checkout.folder / "data" / "cohort.parquet").head(500)
    rows.to_parquet(checkout.folder / "levels.parquet")
    folder = checkout.folder / "copied"
    shutil.copytree(champion.model, folder / "model")
    reference = json.loads(champion.reference.read_text())
    feature = next(part for part in reference["features"] if part["name"] == "GenHlth")
    feature["counts"][feature["levels"].index(5.0)] = 0
    (folder / "reference.json").write_text(json.dumps(reference))
    values = {"data": "levels.parquet", "out": "levels.csv", "model": folder / "model"}
    code, output = _step(checkout, "score", **values)
    assert code == 0, output
    assert f"levels that no training row had: GenHlth in {(rows['GenHlth'] == 5).sum()} rows" in output
    (folder / "reference.json").write_text("{")
    code, output = _step(checkout, "score", **values)
    assert code == 0, output
    assert "levels never seen in training are not counted" in output


def test_score_says_what_is_missing_without_a_traceback(checkout: Checkout) -> None:
    """No output named, no such model: a sentence and exit code 1."""
    for values, said in (
        ({"data": "cohort"}, "name the file to write"),
        ({"data": "cohort", "out": "r.csv", "model": "models:/nobody/7"}, "no such model"),
    ):
        code, output = _step(checkout, "score", **values)
        assert code == 1
        assert said in output
        assert "Traceback" not in output
    assert not (checkout.folder / "r.csv").exists()


def test_drift_leaves_its_verdict_beside_the_project_and_in_the_run(checkout: Checkout) -> None:
    """The cohort that the champion comes from is quiet, jointly too; a scale that reads too high is not. The
    verdict on the last candidate stays where it is."""
    candidate = (checkout.folder / "verdict.json").read_bytes()
    code, output = _step(checkout, "drift", data="cohort")
    assert code == 0, output
    report = _drift_report(checkout)
    assert report.verdict == "quiet"
    assert report.separability is not None
    assert report.separability.roc_auc.value == pytest.approx(0.5, abs=0.05)
    assert report.realised is not None
    assert report.realised.ranking.compared_with == "the test split"
    assert "of the rows are in the training data too" in output
    assert "quiet. The data are like the training data." in output
    rows = pd.read_parquet(checkout.folder / "data" / "cohort.parquet").head(4000)
    rows["BMI"] = (rows["BMI"] + 8).clip(upper=99)
    rows.to_parquet(checkout.folder / "heavier.parquet")
    code, output = _step(
        checkout, "drift", data="heavier.parquet", model="models:/diabetes-risk-synthetic@champion"
    )
    assert code == 0, output
    report = _drift_report(checkout)
    assert report.verdict == "mend"
    assert report.moved == ("BMI",)
    assert report.instrument is not None
    artifacts = _artifacts(checkout, report.run_id)
    assert {"drift.html", "drift.json"} <= {path.name for path in artifacts.iterdir()}
    import mlflow

    assert (checkout.folder / "verdict.json").read_bytes() == candidate
    client = mlflow.MlflowClient(checkout.tracking_uri, checkout.tracking_uri)
    tags = client.get_run(report.run_id).data.tags
    assert (tags["verdict"], tags["drifted"], tags["synthetic"]) == ("mend", "BMI", "true")


def _runs(checkout: Checkout) -> Counter[str]:
    """How many runs of each step the store has."""
    import mlflow

    client = mlflow.MlflowClient(checkout.tracking_uri, checkout.tracking_uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    return Counter(run.data.tags.get("step", "") for run in client.search_runs(experiments, max_results=1000))


def _drift_report(checkout: Checkout) -> DriftReport:
    document = json.loads((checkout.folder / "drift.json").read_text())
    return documents.from_json(DriftReport, document, "drift.json")


def _artifacts(checkout: Checkout, run_id: str) -> Path:
    import mlflow

    client = mlflow.MlflowClient(checkout.tracking_uri, checkout.tracking_uri)
    return Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
