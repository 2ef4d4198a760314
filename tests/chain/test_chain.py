"""The chain by its real commands: what runs, what is reused, what is refused, what a kill leaves behind."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from steps.chain import pipeline
from steps.ops.plan import plan as plan_lines
from tests.conftest import QUICK, Champion, Checkout, check_out

NAME = "diabetes-risk-synthetic"


@pytest.fixture
def copy(champion: Champion, tmp_path: Path) -> Iterator[Checkout]:
    """A copy of the promoted project, store and cache included, to change at will."""
    folder = tmp_path / "project"
    shutil.copytree(champion.checkout.folder, folder)
    yield Checkout(folder)
    shutil.rmtree(folder)


@pytest.fixture
def plan(copy: Checkout, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, str]]]:
    """Step -> what `make plan` says of it in the copy."""
    monkeypatch.setattr(pipeline, "PROJECT", copy.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", copy.tracking_uri)
    mlflow.set_tracking_uri(copy.tracking_uri)

    def ask(**values: object) -> dict[str, str]:
        given = [part for name, value in {**QUICK, **values}.items() for part in ("-P", f"{name}={value}")]
        return {line[:18].strip(): line[19:] for line in plan_lines(given)}

    yield ask
    mlflow.set_tracking_uri(None)  # what a process has set goes before the environment, for every later test


def edit(checkout: Checkout, file: str, old: str, new: str) -> None:
    path = checkout.folder / file
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{old!r} is not in {file} any more: this test must change with it"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def client_of(checkout: Checkout) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(checkout.tracking_uri, checkout.tracking_uri)


def artifact(checkout: Checkout, run_id: str, name: str) -> str:
    folder = client_of(checkout).get_run(run_id).info.artifact_uri.removeprefix("file://")
    return (Path(folder) / name).read_text(encoding="utf-8")


def champion_version(checkout: Checkout, name: str = NAME) -> str:
    return str(client_of(checkout).get_model_version_by_alias(name, "champion").version)


def test_the_chain_ends_with_a_promoted_champion_and_says_so(champion: Champion) -> None:
    """`mlflow run .` registers a version, moves @champion, and prints gates, figures and where to look."""
    assert champion.version == "1"
    for said in (
        "promote: version 1 of diabetes-risk-synthetic is @champion now",
        "ROC AUC",
        "synthetic people",
        "make ui",
    ):
        assert said in champion.output
    verdict = json.loads((champion.checkout.folder / "verdict.json").read_text())
    assert verdict["verdict"] == "promoted"
    assert {line["outcome"] for line in verdict["requirements"]} == {"passed"}


def test_a_chain_prints_a_line_for_each_step_and_a_table(champion: Champion) -> None:
    """45 lines at most; none of MLflow's about nested runs, and no bar where nobody looks."""
    output = champion.output
    for step in ("preprocess", "train", "tune", "evaluate baseline", "evaluate tuned"):
        assert len(re.findall(rf"^{step} +\d+ s  .+ \(run [0-9a-f]{{8}}\)$", output, re.MULTILINE)) == 1, step
    assert re.search(r"^on the test rows +tuned +baseline$", output, re.MULTILINE)
    interval = r"0\.\d{4} \(0\.\d{4} to 0\.\d{4}\)"
    assert re.search(rf"^ROC AUC +{interval} +{interval}$", output, re.MULTILINE)
    assert len(output.splitlines()) <= 45
    assert output.count("=== Running command") == 1  # of the outer `mlflow run`, which `make` quietens
    assert "trial/s" not in output
    assert "reading:" not in output


def test_the_promoted_models_report_and_card_show_the_requirements(champion: Champion) -> None:
    """Promotion knows what evaluate cannot: what it was judged by, and the baseline beside the model."""
    verdict = json.loads((champion.checkout.folder / "verdict.json").read_text())
    assert verdict["report_run_id"] == verdict["promote_run_id"]
    page, card = (
        artifact(champion.checkout, verdict["report_run_id"], name)
        for name in ("report.html", "model_card.md")
    )
    assert "May it be champion?" in page
    assert "Beside other models on the same rows" in page
    assert "Baseline" in page
    assert "## Verification" in card
    assert "## Record of change" in card
    assert f"{verdict['report_run_id']}/artifacts/report.html" in champion.output


def test_every_step_is_a_nested_run_that_carries_what_it_depended_on(champion: Champion) -> None:
    """One parent, its children, trials below the tuning; reusable steps have a fingerprint and a result."""
    client = client_of(champion.checkout)
    runs = client.search_runs(["0"], "", max_results=100)
    by_step: dict[str, list[mlflow.entities.Run]] = {}
    for run in runs:
        by_step.setdefault(run.data.tags["step"], []).append(run)
    counts = {step: len(found) for step, found in by_step.items()}
    assert counts == {
        "main": 1,
        "preprocess": 1,
        "train": 1,
        "tune": 1,
        "evaluate": 2,
        "promote": 1,
        "trial": 4,
    }
    main = by_step["main"][0].info.run_id
    for step in ("preprocess", "train", "tune", "evaluate"):
        for run in by_step[step]:
            assert run.data.tags["mlflow.parentRunId"] == main
            assert {"fingerprint", "result_digest", "because"} <= set(run.data.tags)
            assert run.data.tags["synthetic"] == "true"
    assert {run.data.tags["mlflow.parentRunId"] for run in by_step["trial"]} == {
        by_step["tune"][0].info.run_id
    }


def test_the_baseline_is_logged_by_autologging(champion: Champion) -> None:
    """Parameters and training metrics of the baseline come from autologging, without a model of its own."""
    (run,) = client_of(champion.checkout).search_runs(["0"], "tags.step = 'train'")
    assert any(name.endswith("C") for name in run.data.params)
    assert any(name.startswith("training_") for name in run.data.metrics)


def test_the_same_again_reuses_every_step_but_promote(copy: Checkout) -> None:
    """Nothing that has finished is done twice, and promoting the champion again changes nothing."""
    before = {run.info.run_id for run in client_of(copy).search_runs(["0"], "", max_results=100)}
    code, output = copy.mlflow_run(**QUICK)
    assert code == 0, output
    for step in ("preprocess", "train", "tune", "evaluate baseline", "evaluate tuned"):
        assert re.search(rf"^{step} +reused  ", output, re.MULTILINE)
    new = [run for run in client_of(copy).search_runs(["0"], "") if run.info.run_id not in before]
    assert sorted(run.data.tags["step"] for run in new) == ["main", "promote"]
    assert champion_version(copy) == "1"
    assert json.loads((copy.folder / "verdict.json").read_text())["verdict"] == "unchanged"


def test_plan_names_the_module_or_the_parameter_that_changed(
    copy: Checkout, plan: Callable[..., dict[str, str]]
) -> None:
    """After a change, `make plan` says which steps run, and because of what, before anything runs."""
    steps = ("preprocess", "train", "tune", "evaluate baseline", "evaluate tuned")
    assert all(plan()[step].startswith("reuse") for step in steps)

    edit(copy, "steps/evaluate.py", "def work(", "# a comment\ndef work(")
    edit(copy, "steps/chain/process.py", "def execute(", "A_CHANGE_OF_THE_DRIVER = True\n\n\ndef execute(")
    assert all(plan()[step].startswith("reuse") for step in steps)

    edit(copy, "steps/evaluate.py", "def work(", "A_CHANGE = True\n\n\ndef work(")
    said = plan()
    assert all(said[step].startswith("reuse") for step in steps[:3])
    assert all(said[step] == "run     steps/evaluate.py changed" for step in steps[3:])

    edit(copy, "steps/preprocess.py", "def work(", "A_CHANGE = True\n\n\ndef work(")
    said = plan()
    assert said["preprocess"] == "run     steps/preprocess.py changed"
    assert said["tune"].startswith("perhaps if preprocess comes to another result")
    assert said["evaluate tuned"] == "run     steps/evaluate.py changed"

    edit(copy, "steps/data/prepared.py", "def prepare(", "A_CHANGE = True\n\n\ndef prepare(")
    assert plan()["tune"] == "run     steps/data/prepared.py changed"

    assert "max_rejected 0.01 -> 0.02" in plan(max_rejected=0.02)["preprocess"]
    assert "publish_rows false -> true" in plan(publish_rows="true")["preprocess"]


REUSED = ("preprocess", "train", "tune", "evaluate baseline", "evaluate tuned")


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, package: str, version: str) -> None:
    """Let a package look as if this version of it were installed, in this process and in those it starts."""
    information = folder / "installed" / f"{package.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(information.parent)
    monkeypatch.setenv("PYTHONPATH", str(information.parent))


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("tqdm", dict.fromkeys(REUSED, "reuse")),
        (
            "httptools",
            {
                "preprocess": "reuse",
                "train": "pack    the model of run",
                "tune": "pack    the model of run",
                "evaluate baseline": "perhaps if train comes to another result",
                "evaluate tuned": "perhaps if tune comes to another result",
            },
        ),
        (
            "scikit-learn",
            {
                "preprocess": "reuse",
                **dict.fromkeys(REUSED[1:], "run     scikit-learn 1.9.1 -> 99.1"),
            },
        ),
    ],
)
def test_plan_tells_an_update_that_refits_from_one_that_packs_and_one_that_does_nothing(
    package: str,
    expected: dict[str, str],
    copy: Checkout,
    plan: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A progress bar decides nothing, a server's parser serves, the library of the models fits."""
    install(monkeypatch, tmp_path, package, "99.1")
    said = plan()
    assert {step: said[step] for step in expected if not said[step].startswith(expected[step])} == {}
    if package == "httptools":
        assert "httptools" in said["tune"]
        assert said["tune"].endswith("-> 99.1")


def test_an_update_of_what_serves_a_model_makes_a_new_version_of_the_same_fit(
    copy: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What `make plan` says is what runs: no trial, no fit, another requirement, version 2 with it."""
    before = client_of(copy).get_model_version(NAME, "1")
    install(monkeypatch, tmp_path, "httptools", "99.1")
    code, output = copy.mlflow_run(**QUICK)
    assert code == 0, output
    assert "packed again; nothing was fitted" in output
    assert "trials in" not in output
    after = client_of(copy).get_model_version(NAME, champion_version(copy))
    assert after.tags["behaviour_digest"] == before.tags["behaviour_digest"]
    assert after.tags["model_digest"] != before.tags["model_digest"]
    assert "httptools==99.1" in artifact(copy, after.run_id, "model/requirements.txt")
    old, new = (client_of(copy).get_run(version.run_id).data for version in (before, after))
    assert new.metrics == old.metrics
    assert new.tags["stopped_by"] == old.tags["stopped_by"]


def test_plan_says_what_a_changed_colour_gate_comment_or_function_comes_to(
    copy: Checkout, plan: Callable[..., dict[str, str]]
) -> None:
    """A colour draws reports again and fits nothing; a gate judges; a comment is no change."""
    edit(copy, "steps/models/fitting.py", "def fit_model(", "# a comment\ndef fit_model(")
    edit(copy, "data/brfss2015.yaml", "roc_auc_min: 0.", "roc_auc_min: 0.0 # was 0.")
    assert all(plan()[step].startswith("reuse") for step in REUSED)

    palette = (copy.folder / "steps" / "reports" / "palette.py").read_text(encoding="utf-8")
    colour = re.search(r"#[0-9a-fA-F]{6}", palette)
    assert colour is not None
    edit(copy, "steps/reports/palette.py", colour[0], "#123456")
    said = plan()
    assert all(said[step].startswith("reuse") for step in REUSED[:3])
    assert all(said[step] == "run     steps/reports/palette.py changed" for step in REUSED[3:])

    edit(copy, "steps/models/fitting.py", "def fit_model(", "A_CHANGE = True\n\n\ndef fit_model(")
    said = plan()
    assert said["preprocess"].startswith("reuse")
    assert all(said[step] == "run     steps/models/fitting.py changed" for step in REUSED[1:3])


def test_a_search_that_its_time_limit_ended_is_gone_on_with(
    copy: Checkout, plan: Callable[..., dict[str, str]]
) -> None:
    """It is no complete result: plan says so, and the next call starts from its trials."""
    client = client_of(copy)
    (tuned,) = client.search_runs(["0"], "tags.step = 'tune'")
    assert tuned.data.tags["reproducible"] == "true"
    client.set_tag(tuned.info.run_id, "stopped_by", "timeout")
    assert plan()["tune"].endswith("was ended by its time limit")
    values = {name: value for name, value in QUICK.items() if name != "replicates"}
    code, output = copy.mlflow_run("tune", **values)
    assert code == 0, output
    assert f"continues after {QUICK['max_evals']} trials that finished earlier" in output


def test_a_step_that_runs_again_with_the_same_result_stops_there(copy: Checkout) -> None:
    """After a change without effect in a module that only preprocess imports, nothing below it runs."""
    edit(copy, "steps/preprocess.py", "def work(", "A_CHANGE = True\n\n\ndef work(")
    code, output = copy.mlflow_run("tune", **{k: v for k, v in QUICK.items() if k != "replicates"})
    assert code == 0, output
    assert "it ran because steps/preprocess.py changed" in output
    assert "tune: nothing to do" in output


def test_a_deleted_cached_result_is_made_again_by_the_step_that_made_it(
    copy: Checkout, plan: Callable[..., dict[str, str]]
) -> None:
    """Without the prepared rows preprocess runs, and what follows is reused since its input is the same."""
    shutil.rmtree(copy.folder / ".cache" / "datasets")
    assert plan()["preprocess"].startswith("run     the results of run")
    code, output = copy.mlflow_run("train")
    assert code == 0, output
    assert "it ran because the results of run" in output
    assert "train: nothing to do" in output


def test_a_baseline_that_did_not_converge_says_so(copy: Checkout) -> None:
    """A warning, and a tag of its run."""
    edit(copy, "steps/models/pipelines.py", "max_iter=1000", "max_iter=2")
    code, output = copy.mlflow_run("train")
    assert code == 0, output
    assert "train: warning: the fit did not converge" in output
    runs = client_of(copy).search_runs(["0"], "tags.step = 'train' and tags.converged = 'false'")
    assert len(runs) == 1


def test_a_project_may_stand_in_a_folder_of_any_name(tmp_path: Path) -> None:
    """A blank, an apostrophe, an umlaut, a number sign: steps run, and are reused."""
    checkout = check_out(tmp_path / "it's für #1")
    for expected in ("17,938 train", "nothing to do, run"):
        code, output = checkout.mlflow_run("preprocess")
        assert code == 0, output
        assert expected in output
    assert [path.name for path in tmp_path.iterdir()] == ["it's für #1"]


def test_a_refused_model_leaves_the_champion_and_says_by_how_much(copy: Checkout) -> None:
    """A failing gate: an exit code that is not 0, a verdict that is no crash, the champion in its place."""
    edit(copy, "data/brfss2015.yaml", "roc_auc_min: 0.", "roc_auc_min: 0.9 # was 0.")
    other = {"model": "baseline", "family": "histogram_gradient_boosting", "hyperparameters": "max_iter=60"}
    code, output = copy.mlflow_run(**QUICK, **other)
    assert code != 0
    assert "evaluate tuned    reused  " in output  # a changed limit changes no figure
    assert "Traceback" not in output
    assert "promote: refused. ROC AUC" in output
    assert "version 1 stays @champion" in output
    assert champion_version(copy) == "1"
    verdict = json.loads((copy.folder / "verdict.json").read_text())
    assert verdict["verdict"] == "refused"
    assert verdict["report_run_id"] == verdict["promote_run_id"]
    page = artifact(copy, verdict["report_run_id"], "report.html")
    assert "hange of ROC AUC against the champion" in page


def test_a_chain_that_fails_leaves_no_verdict_of_an_earlier_one(copy: Checkout) -> None:
    """Data or a parameter that cannot be used: exit code not 0, and no `verdict.json`."""
    verdict = copy.folder / "verdict.json"
    kept = verdict.read_text(encoding="utf-8")
    for wrong, message in (
        ({"data": "no/such/file.csv"}, "there is no file, folder or match at no/such/file.csv"),
        ({"recall": "2"}, "recall"),
    ):
        verdict.write_text(kept, encoding="utf-8")
        code, output = copy.mlflow_run(**{**QUICK, **wrong})
        assert code != 0
        assert message in output
        assert "Traceback" not in output
        assert not verdict.exists()


def test_rollback_goes_back_and_forth_between_champion_and_previous(copy: Checkout) -> None:
    """Without a @previous version there is nothing to go back to; with one, both aliases change places."""
    code, output = copy.mlflow_run("promote", rollback="true")
    assert code != 0
    assert "no @previous version of diabetes-risk or diabetes-risk-synthetic" in output

    client = client_of(copy)
    source = client.get_model_version(NAME, "1")
    client.create_model_version(NAME, source.source, source.run_id)
    client.set_registered_model_alias(NAME, "champion", "2")
    client.set_registered_model_alias(NAME, "previous", "1")
    code, output = copy.mlflow_run("promote", rollback="true")
    assert code == 0, output
    assert champion_version(copy) == "1"
    assert str(client.get_model_version_by_alias(NAME, "previous").version) == "2"


def kill_and_go_on(
    checkout: Checkout, values: dict[str, object], until: Callable[[], bool], group: bool
) -> None:
    """Start a chain, kill -9 it (the whole process group, or the leader alone) once `until` says so, go on.

    Then there must be a verdict and a champion, and nothing that had finished may have been done twice.
    """
    given = [part for name, value in values.items() for part in ("-P", f"{name}={value}")]
    process = checkout.start("mlflow", "run", ".", "--env-manager", "local", *given)
    deadline = time.monotonic() + 600
    while not until() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    if process.poll() is None:
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.wait()

    code, output = checkout.run(
        "python", "-m", "steps.ops.init_store"
    )  # as `make run` does; the kill may have hit it
    assert code == 0, output
    code, output = checkout.mlflow_run(**values)
    assert process.stdout is not None
    process.stdout.close()  # not before: an orphaned step still writes to it
    verdict = json.loads((checkout.folder / "verdict.json").read_text(encoding="utf-8"))["verdict"]
    assert code == (0 if verdict in ("promoted", "unchanged") else 1), output
    runs = client_of(checkout).search_runs(["0"], "", max_results=1000)
    finished = [run for run in runs if run.info.status == "FINISHED"]
    trials = [run.data.tags["trial"] for run in finished if run.data.tags.get("step") == "trial"]
    assert sorted(trials) == sorted(set(trials)), "a trial that had finished was run again"
    fingerprints = [run.data.tags["fingerprint"] for run in finished if "fingerprint" in run.data.tags]
    assert sorted(fingerprints) == sorted(set(fingerprints)), "a step that had finished was run again"
    assert not [run for run in runs if run.info.status == "RUNNING"]
    assert champion_version(checkout)


def test_a_chain_whose_leader_is_killed_goes_on_from_the_last_finished_trial(copy: Checkout) -> None:
    """The orphaned step is waited for or gone, and the search takes up every trial that finished."""
    values = {**QUICK, "max_evals": 8}
    trials = "tags.step = 'trial' and attributes.status = 'FINISHED'"

    def two_more_trials() -> bool:
        return len(client_of(copy).search_runs(["0"], trials)) >= QUICK["max_evals"] + 1

    kill_and_go_on(copy, values, two_more_trials, group=False)


@pytest.mark.parametrize(
    ("step", "values"),
    [
        pytest.param("train", {}, marks=pytest.mark.real),
        pytest.param("tune", {"max_evals": 2}, marks=pytest.mark.soak),
        pytest.param("evaluate", {"max_evals": 2, "replicates": 100}, marks=pytest.mark.soak),
        pytest.param("promote", {"max_evals": 2, "replicates": 100}, marks=pytest.mark.soak),
    ],
)
def test_a_step_alone_on_a_fresh_checkout_makes_what_it_needs(
    tmp_path: Path, step: str, values: dict[str, object]
) -> None:
    """`mlflow run . -e train` finds no store, no cache and no earlier run, and ends with its result."""
    checkout = check_out(tmp_path / "project")
    code, output = checkout.mlflow_run(step, **values)
    assert code == 0, output
    assert re.search(r"^preprocess +\d+ s  17,938 train", output, re.MULTILINE)
    runs = client_of(checkout).search_runs(["0"], f"tags.step = '{step}'")
    assert [run.info.status for run in runs] == ["FINISHED"]


@pytest.mark.soak
@pytest.mark.parametrize("number", range(20))
def test_chains_killed_at_random_moments_go_on(tmp_path: Path, number: int) -> None:
    """Twenty chains from nothing, killed at random: ten with all their processes, ten the leader alone."""
    checkout = check_out(tmp_path / "project")
    end = time.monotonic() + random.Random(number).uniform(5, 60)
    values = {**QUICK, "families": "logistic_regression", "replicates": 100}
    kill_and_go_on(checkout, values, lambda: time.monotonic() > end, group=number % 2 == 0)
