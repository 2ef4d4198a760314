"""Retraining as Actions does it: whether to train, what the summary says, and the store between two runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from steps.chain import parameters, pipeline, verdict
from steps.data import documents, sources
from steps.data.errors import UserError
from steps.measures.evaluation_document import from_json
from steps.measures.promotion import Finding
from steps.ops import check_data, keep_store, publish, release, retrain
from steps.reports import job_summary as summary
from steps.reports.promotion import Outcome
from tests.conftest import QUICK, Checkout, check_out
from tests.made_up.clinic import clinic_schema

# ---------------------------------------------------------------- whether to train


@pytest.mark.parametrize(
    ("event", "digest", "last", "trains"),
    [
        ("schedule", "a", "a", False),
        ("alert", "a", "a", False),
        ("push", "a", "a", True),
        ("person", "a", "a", True),
        ("schedule", "b", "a", True),
        ("alert", "b", "a", True),
        ("schedule", "a", None, True),
    ],
)
def test_a_clock_or_an_alert_alone_is_no_reason_to_train(
    event: str, digest: str, last: str | None, trains: bool
) -> None:
    """The same rows give the same model; code, a person or new labels are reasons."""
    assert (retrain.why_train(retrain.Occasion(event), digest, last) is not None) is trains


def test_a_dispatch_with_a_source_comes_from_an_alert() -> None:
    """Grafana names where it comes from, a person does not."""
    environment = {"GITHUB_EVENT_NAME": "workflow_dispatch", "RETRAIN_REASON": "calibration"}
    assert retrain.occasion(environment) == retrain.Occasion("person", "calibration")
    assert retrain.occasion({**environment, "RETRAIN_SOURCE": "http://grafana"}).event == "alert"
    assert retrain.occasion({"GITHUB_EVENT_NAME": "schedule"}).event == "schedule"
    assert retrain.occasion({}).event == "person"


def test_arguments_are_those_of_mlflow_run() -> None:
    """`-P name=value`, and an error for anything else."""
    assert parameters.from_words(["-P", "seed=1", "-P", "data=a=b"]) == {"seed": "1", "data": "a=b"}
    for wrong in (["seed=1"], ["-P"], ["-P", "seed"]):
        with pytest.raises(UserError, match="-P name=value"):
            parameters.from_words(wrong)


# ---------------------------------------------------------------- what the summary says


def test_words_from_outside_cannot_act_in_a_summary() -> None:
    """An alert's text is one line without markup."""
    text = summary.occasion("alert", "drift\n## no | `x` <img src=a> [l](h)", "because", "d" * 64, None)
    words = next(line for line in text.splitlines() if line.startswith("| reason given"))
    assert words == "| reason given | `drift ## no x img src=a l (h)` |"


def test_a_summary_shows_requirements_measures_and_pictures(champion: Any) -> None:
    """Of the promoted champion: every requirement, the measures, two pictures, whose people they are."""
    told = verdict.read(champion.checkout.folder)
    assert told is not None
    written = (_artifacts(champion, str(told.evaluate_run_id)) / "evaluation.json").read_text()
    evaluation = from_json(json.loads(written))
    findings = [Finding(**dataclasses.asdict(line)) for line in told.requirements]
    outcome = Outcome(told.verdict, told.model, told.champion, told.explanation, told.remedy, findings)
    text = summary.trained(outcome, evaluation)
    assert text.startswith(f"## Promoted: version {champion.version} of {champion.name}")
    assert all(finding.name in text for finding in findings)
    assert text.count("```mermaid\nxychart-beta") == 2
    assert summary.SYNTHETIC in text
    failed = [dataclasses.replace(findings[0], outcome="refused")]
    refused = dataclasses.replace(outcome, verdict="refused", champion=None, requirements=failed)
    assert "**refused**" in summary.trained(refused, evaluation)
    stopped = dataclasses.replace(outcome, verdict="undecided", explanation="too few", remedy="mlflow run")
    text = summary.trained(stopped, None)
    assert text.startswith("## Undecided: too few; version")
    assert "A person can decide: `mlflow run`" in text
    assert "mermaid" not in text


def test_outputs_and_summary_are_appended_to_the_files_that_are_named(tmp_path: Path) -> None:
    """As GitHub wants them; an output of several lines is refused."""
    out = summary.Out(str(tmp_path / "summary.md"), str(tmp_path / "outputs"))
    out.add("# one")
    out.add("two")
    out.set(promoted="true")
    assert (tmp_path / "summary.md").read_text() == "# one\ntwo\n"
    assert (tmp_path / "outputs").read_text() == "promoted=true\n"
    with pytest.raises(ValueError, match="one line"):
        out.set(name="a\nb=c")


def _artifacts(champion: Any, run_id: str) -> Path:
    import mlflow

    uri = champion.checkout.tracking_uri
    return Path(mlflow.MlflowClient(uri, uri).get_run(run_id).info.artifact_uri.removeprefix("file://"))


# ---------------------------------------------------------------- the store between two runs


def elsewhere(champion: Any, folder: Path) -> Checkout:
    """The champion's store, saved and restored in a checkout elsewhere, with the rows that are its input."""
    checkout = Checkout(folder / "deeper" / "project")
    left = shutil.ignore_patterns(keep_store.DATABASE, *keep_store.FOLDERS, "verdict.json")
    shutil.copytree(champion.checkout.folder, checkout.folder, ignore=left)
    keep_store.pack(champion.checkout.folder, folder / "store.tar.gz")
    keep_store.unpack(folder / "store.tar.gz", checkout.folder)
    return checkout


@pytest.fixture(scope="module")
def restored(champion: Any, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout elsewhere that all these tests share."""
    return elsewhere(champion, tmp_path_factory.mktemp("elsewhere"))


def test_a_restored_store_lives_where_it_was_put(champion: Any, restored: Checkout) -> None:
    """The champion is there and its files are found in the new checkout, whose path is another."""
    import mlflow

    client = mlflow.MlflowClient(restored.tracking_uri, restored.tracking_uri)
    version = client.get_model_version_by_alias(champion.name, "champion")
    assert str(version.version) == champion.version
    kept = Path(client.get_run(version.run_id).info.artifact_uri)
    assert kept.is_relative_to(restored.folder)
    assert (kept / "model" / "MLmodel").exists()


def test_no_artifact_location_names_the_old_checkout(champion: Any, restored: Checkout) -> None:
    """Whatever tables MLflow has: no column of a place holds the folder that the store came from."""
    connection = sqlite3.connect(restored.folder / "mlflow.db")
    old = str(champion.checkout.folder)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = []
    for table in tables:
        for column in [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]:
            query = f'SELECT count(*) FROM "{table}" WHERE "{column}" LIKE ?'
            if connection.execute(query, (f"%{old}%",)).fetchone()[0]:
                found.append(f"{table}.{column}")
    connection.close()
    assert set(found) <= {"tags.value", "params.value"}  # words about a run, nothing that is followed


def test_a_store_is_never_restored_over_another(restored: Checkout, tmp_path: Path) -> None:
    """Nor from a damaged file."""
    keep_store.pack(restored.folder, tmp_path / "store.tar.gz")
    with pytest.raises(UserError, match="would be overwritten"):
        keep_store.unpack(tmp_path / "store.tar.gz", restored.folder)
    (tmp_path / "half.tar.gz").write_bytes((tmp_path / "store.tar.gz").read_bytes()[:5000])
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    with pytest.raises(UserError, match="damaged"):
        keep_store.unpack(tmp_path / "half.tar.gz", fresh)
    assert list(fresh.iterdir()) == []


class Release:
    """GitHub's command line with one release in memory."""

    def __init__(self, error: str = "release not found") -> None:
        self.files: dict[str, bytes] | None = None
        self.error = error

    def __call__(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        action = arguments[1]
        if action == "create":
            self.files = {}
        elif self.files is None:
            return subprocess.CompletedProcess(arguments, 1, "", self.error)
        elif action == "upload":
            path = Path(arguments[3])
            self.files[path.name] = path.read_bytes()
        elif action == "download":
            name, folder = arguments[4], Path(arguments[6])
            (folder / name).write_bytes(self.files[name])
        elif action == "delete-asset":
            del self.files[arguments[3]]
        listed = json.dumps({"assets": [{"name": name} for name in self.files or {}]})
        return subprocess.CompletedProcess(arguments, 0, listed, "")


def test_the_kept_store_is_the_newest_and_old_ones_go(restored: Checkout, tmp_path: Path) -> None:
    """Five runs keep three stores; a fresh checkout gets the last one."""
    github = Release()
    assert "starts empty" in keep_store.restore(github, tmp_path)
    for number in range(8, 13):
        keep_store.save(github, restored.folder, number, 1)
    assert github.files is not None
    assert sorted(github.files) == [f"store-{number:08d}-001.tar.gz" for number in (10, 11, 12)]
    assert "store-00000012-001.tar.gz" in keep_store.restore(github, tmp_path)
    assert (tmp_path / "mlflow.db").exists()


def test_a_store_that_cannot_be_listed_is_not_taken_for_none(tmp_path: Path) -> None:
    """An empty store in its place would forget the champion."""
    with pytest.raises(UserError, match="HTTP 502"):
        keep_store.restore(Release("HTTP 502"), tmp_path)


def test_a_server_keeps_its_own_store(tmp_path: Path) -> None:
    """With a tracking server, or without a token, nothing is kept here."""
    server = {"MLFLOW_TRACKING_URI": "https://dagshub.com/o/r.mlflow", "GH_TOKEN": "t"}
    assert "nothing to do" in keep_store.act("save", server, Release(), tmp_path)
    assert "not kept" in keep_store.act("save", {}, Release(), tmp_path)


# ---------------------------------------------------------------- the words, as a runner calls them


COMMIT = """git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x
git rev-parse HEAD"""
ON_GITHUB = {
    "GITHUB_REPOSITORY": "Owner/repository",
    "GITHUB_REPOSITORY_OWNER": "Owner",
    "GITHUB_ACTOR": "somebody",
    "GH_TOKEN": "token",
}


@dataclasses.dataclass(frozen=True)
class Runner(Checkout):
    """A checkout on an emulated runner: GitHub's variables and files."""

    event: str = "push"
    data: str = ""
    max_evals: str = ""

    @property
    def environment(self) -> dict[str, str]:
        return {
            **super().environment,
            "MLFLOW_TRACKING_URI": "",  # as an absent secret arrives
            "GITHUB_EVENT_NAME": self.event,
            "GITHUB_STEP_SUMMARY": str(self.folder / f"summary-{self.event}.md"),
            "GITHUB_OUTPUT": str(self.folder / f"outputs-{self.event}"),
            "DATA_URI": self.data,
            "MAX_EVALS": self.max_evals,
        }

    @property
    def summary(self) -> str:
        return (self.folder / f"summary-{self.event}.md").read_text()

    @property
    def outputs(self) -> dict[str, str]:
        lines = (self.folder / f"outputs-{self.event}").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)


def test_a_schedule_without_new_data_trains_nothing(restored: Checkout) -> None:
    """Green, in seconds, with the sentence that says so."""
    runner = Runner(restored.folder, "schedule")
    code, output = runner.run("python", "-m", "steps.ops.retrain")
    assert code == 0, output
    assert retrain.NOTHING_NEW in runner.summary
    assert runner.outputs == {"trained": "false", "verdict": "nothing_new", "promoted": "false"}
    assert "mlflow.projects" not in output


def call(module: ModuleType, runner: Runner, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """`python -m module words` on the runner, in this process: that spares its imports."""
    import mlflow

    monkeypatch.setattr(pipeline, "PROJECT", runner.folder)
    monkeypatch.setattr(sys, "argv", [module.__name__, *words])
    for name, value in {**runner.environment, "MLFLOW_TRACKING_URI": runner.tracking_uri}.items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(runner.tracking_uri)
    try:
        code: int = module.main()
    finally:
        mlflow.set_tracking_uri(None)
    return code


@pytest.mark.real
def test_a_promoted_model_goes_from_the_chain_to_the_plan_of_what_is_pushed(
    champion: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No champion yet, every step reused: promoted, summarised, exported, and planned as a demo."""
    import mlflow

    runner = Runner(elsewhere(champion, tmp_path).folder, "push")
    client = mlflow.MlflowClient(runner.tracking_uri, runner.tracking_uri)
    client.delete_registered_model_alias(champion.name, "champion")
    given = [part for name, value in QUICK.items() for part in ("-P", f"{name}={value}")]
    assert call(retrain, runner, monkeypatch, *given) == 0
    told = {"trained": "true", "verdict": "promoted", "promoted": "true", "publish": "true"}
    assert runner.outputs == {**told, "name": champion.name, "version": champion.version}
    assert f"## Promoted: version {champion.version} of {champion.name}" in runner.summary
    candidate = {path.name for path in (runner.folder / "build" / "candidate").iterdir()}
    assert candidate == {"evaluation.json", "report.html", "model_card.md", "verdict.json"}
    alias = client.get_model_version_by_alias(champion.name, "champion")
    assert str(alias.version) == champion.version

    assert call(release, runner, monkeypatch) == 0
    code, commit = runner.run("bash", "-c", COMMIT)
    assert code == 0, commit
    for name, value in ON_GITHUB.items():
        monkeypatch.setenv(name, value)
    assert call(publish, runner, monkeypatch, "plan") == 0
    planned = json.loads((runner.folder / "build" / "publish.json").read_text())
    tags = (champion.version, f"git-{commit[:12]}", "demo")
    assert planned["images"] == {
        f"{part}:{champion.version}": [f"ghcr.io/owner/{part}:{tag}" for tag in tags]
        for part in (champion.name, f"{champion.name}-exporter")
    }
    assert planned["release"] == f"{champion.name}-v{champion.version}"
    assert f"  * `ghcr.io/owner/{champion.name}:demo`" in runner.summary


def test_the_bundled_cohort_passes_its_check_and_its_rows_are_published(
    restored: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Green; profile, schema and, since these people are made up, the prepared rows in `build/data`."""
    import pandas as pd

    runner = Runner(restored.folder, "pull_request")
    assert call(check_data, runner, monkeypatch) == 0
    assert runner.outputs == {"kind": "synthetic", "published": "true"}
    folder = runner.folder / "build" / "data"
    assert (folder / "report.md").read_text() in runner.summary
    assert {path.name for path in folder.iterdir()} == {"profile.json", "schema.yaml", "report.md", "rows"}
    rows = pd.concat(map(pd.read_parquet, (folder / "rows").glob("*.parquet")))
    assert len(rows) > 10_000


def test_data_that_break_the_schema_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red; columns, rules and counts in the summary and the report, and not one value of a row."""
    import pandas as pd

    runner = Runner(check_out(tmp_path / "project").folder, "push", "bad.csv")
    frame = pd.read_parquet(runner.folder / "data" / "cohort.parquet").head(500)
    frame["BMI"] = 987654.0
    frame.to_csv(runner.folder / "bad.csv", index=False)
    assert call(check_data, runner, monkeypatch) == 1
    assert "## Data: refused" in runner.summary
    assert "BMI" in runner.summary
    assert "987654" not in runner.summary
    assert (runner.folder / "build" / "data" / "report.md").read_text() in runner.summary
    assert not (runner.folder / "build" / "data" / "rows").exists()


def test_a_refusal_is_found_in_what_preprocess_printed() -> None:
    """Its message of several lines, without MLflow's own lines; a crash is called one."""
    output = "x\npreprocess: error: two\nlines\n2026/01/01 ERROR mlflow.cli: === Run failed ===\n"
    assert check_data.refusal(output) == "two\nlines"
    assert "crashed" in check_data.refusal("Traceback")


@pytest.mark.real
def test_new_data_are_compared_and_trained_and_a_refusal_ends_green(
    restored: Checkout, tmp_path: Path
) -> None:
    """Appended rows: drift first, then the chain; a gate that nothing passes, and it ends green."""
    from monitoring.simulation import people
    from steps.data.schema_file import load

    runner = Runner(restored.folder, "alert", "labelled", "1")
    schema = load(runner.folder / "data" / "brfss2015.yaml")
    folder = runner.folder / "labelled"
    folder.mkdir()
    shutil.copy(runner.folder / "data" / "cohort.parquet", folder)
    facts = people.load_facts(runner.folder / "data" / "brfss2015-facts.json", schema)
    people.generate(facts, schema, 4000, seed=5).to_parquet(folder / "new.parquet", index=False)
    path = runner.folder / "data" / "brfss2015.yaml"
    path.write_text(path.read_text().replace("roc_auc_min: 0.80", "roc_auc_min: 0.99"))
    quick = [f"{name}={value}" for name, value in QUICK.items() if name != "max_evals"]
    given = [part for pair in quick for part in ("-P", pair)]
    code, output = runner.run("python", "-m", "steps.ops.retrain", *given)
    assert code == 0, output
    assert runner.outputs["verdict"] == "refused"
    assert runner.outputs["promoted"] == "false"
    assert runner.summary.index("## Drift") < runner.summary.index("## Refused")
    assert (runner.folder / "build" / "candidate" / "report.html").exists()


@pytest.mark.real
def test_broken_data_are_compared_and_never_trained_on(restored: Checkout) -> None:
    """A tenth of the new file's BMI is impossible: drift says mend, the chain is not started, and it ends
    green. The champion is registered for private data as well: one of made-up people judges none."""
    import mlflow
    import pandas as pd

    runner = Runner(restored.folder, "workflow_dispatch", "broken.parquet", "1")
    client = mlflow.MlflowClient(restored.tracking_uri, restored.tracking_uri)
    made_up = client.get_model_version_by_alias("diabetes-risk-synthetic", "champion")
    client.create_registered_model("diabetes-risk")
    private = client.create_model_version("diabetes-risk", made_up.source, made_up.run_id, tags=made_up.tags)
    client.set_registered_model_alias("diabetes-risk", "champion", private.version)
    rows = pd.read_parquet(runner.folder / "data" / "cohort.parquet").head(5000)
    rows = rows.astype({"BMI": float})
    rows.loc[rows.index % 10 == 0, "BMI"] = 400
    rows.to_parquet(runner.folder / "broken.parquet", index=False)
    code, output = runner.run("python", "-m", "steps.ops.retrain")
    assert code == 0, output
    assert runner.outputs["verdict"] == "mend"
    assert runner.outputs["trained"] == "false"
    assert "BMI is not valid" in runner.summary
    assert "Nothing is trained" in runner.summary


RETRAIN_ALERT = "retrain: the model ranks people worse than it may; "
RECALIBRATE_ALERT = "recalibrate: outcomes do not follow the risks; "


@pytest.mark.parametrize(
    ("alert", "drifted", "recalibrated", "entries"),
    [
        ("", "watch", None, ["drift", "main"]),
        ("", "retrain", None, ["drift", "main"]),
        ("", "mend", None, ["drift"]),
        ("", "recalibrate", "promoted", ["drift", "promote"]),
        ("", "recalibrate", "undecided", ["drift", "promote", "main"]),
        (RETRAIN_ALERT, "watch", None, ["drift", "main"]),
        (RECALIBRATE_ALERT, "watch", "promoted", ["drift", "promote"]),
        (RECALIBRATE_ALERT, "mend", None, ["drift"]),
        (RECALIBRATE_ALERT + RETRAIN_ALERT, "watch", None, ["drift", "main"]),
    ],
)
def test_new_labelled_data_lead_to_the_act_that_the_alert_or_drift_names(
    alert: str,
    drifted: str,
    recalibrated: str | None,
    entries: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Broken data train nothing, whoever asks; a recalibration that is promoted is enough, one that is not
    is trained after. Entry points are stood in for by the verdicts that they leave."""
    started: list[str] = []

    def run_entry(entry: str, given: dict[str, str], project: Path) -> int:
        started.append(entry)
        if entry == "drift":
            (project / "drift.json").write_text(json.dumps(drift_document(drifted)))
        else:
            word = recalibrated if entry == "promote" else "refused"
            told = verdict.Verdict(word, "checkup", "0" * 32, "1", "1")  # type: ignore[arg-type]
            (project / "verdict.json").write_text(json.dumps(documents.to_json(told)))
        return 0

    schema = clinic_schema(tmp_path)
    monkeypatch.setattr(retrain, "run_entry", run_entry)
    monkeypatch.setattr(retrain, "last_digest", lambda client, schema: "another")
    monkeypatch.setattr(retrain, "load", lambda path: schema)
    monkeypatch.setattr(retrain, "local_data", lambda data, schema, project: (data, "this"))
    monkeypatch.setattr(retrain.tracking, "connect", lambda: None)
    shutil.copy(Path(pipeline.PROJECT) / "MLProject", tmp_path)
    out = summary.Out(str(tmp_path / "summary.md"), str(tmp_path / "outputs"))
    by_alert = {"RETRAIN_SOURCE": "http://grafana/", "RETRAIN_REASON": alert}
    event = (
        {"GITHUB_EVENT_NAME": "workflow_dispatch", **by_alert} if alert else {"GITHUB_EVENT_NAME": "schedule"}
    )
    assert retrain.retrain({}, event, out, tmp_path) == 0
    assert started == entries
    text = (tmp_path / "summary.md").read_text()
    assert f"## Drift of the new data: {drifted}" in text
    assert ("Two numbers of the champion were enough" in text) is (recalibrated == "promoted")


def drift_document(word: str) -> dict[str, Any]:
    """A drift report as `drift.json` holds it, of no features."""
    from steps.measures import drift_document as document

    nothing = document.Figure(None, None, None)
    report = document.DriftReport(
        verdict=word,  # type: ignore[arg-type]
        reasons=(),
        tests=document.Tests(1, 3.0, 3.0, 3.0),
        limits=document.Limits(0.02, 0.01, 0.01, (0.9, 1.1), (0.85, 1.15), 0.015, 0.55),
        model=document.Model("a model", "1", "d", "f", False),
        data=document.Data("private", "d", False, 1.0),
        rows=document.Rows(10, 10, 10, 10, 10),
        rows_needed=document.RowsNeeded(2, 1),
        known_rows=None,
        features=(),
        instrument=None,
        score=document.ScoreDrift(document.Shift(0, 0, 0, 0, False), (), (), (), 0.5),
        expected=None,
        realised=None,
        separability=document.Separability(1, nothing, 0.1, ()),
        subgroups=(),
        disclaimer="",
    )
    content: dict[str, Any] = documents.to_json(report)
    return content


def test_a_listed_url_keeps_how_its_source_codes_the_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is handed over as the source's name; the downloaded file alone would be read with other labels."""
    content = b"glucose,ward,stage,smoker,readmitted\n5.5,A1,1,0,no\n6,B2,2,1,yes\n"
    digest = hashlib.sha256(content).hexdigest()
    url, own = '"http://127.0.0.1:1/r.csv"', f'sha256: "{digest}", target: readmitted, positive: ["no"]'
    schema = clinic_schema(tmp_path, (f"{url}, target: back, positive: [1], ignore: [ID]", f"{url}, {own}"))
    monkeypatch.setenv("ROWS_CACHE", str(tmp_path))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / digest).write_bytes(content)
    data, found = retrain.local_data(url.strip('"'), schema, tmp_path)
    assert data == "remote"
    assert found == sources.locate("remote", schema, tmp_path, tmp_path).digest
