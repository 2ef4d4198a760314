"""`make retrain`: train if there is a reason to, and say in a job summary what came of it.

The chain does the work; this decides whether it is worth starting, shows how the new data differ from what
the champion was trained on, trains on no broken data (the verdict `mend` of drift), and tells a refused or
undecided candidate (exit code 0) from a crash (exit code 1). On GitHub Actions it reads the event and
`DATA_URI` from the environment and writes step outputs and the summary; elsewhere it prints them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steps.chain import parameters, pipeline, process, tracking, verdict
from steps.chain.context import DRIFT, VERDICT
from steps.chain.values import Main
from steps.chain.verdict import Verdict
from steps.data import documents
from steps.data.errors import UserError
from steps.data.schema import Schema
from steps.data.schema_file import load
from steps.measures.drift_document import DriftReport
from steps.measures.evaluation_document import from_json
from steps.measures.promotion import Finding
from steps.ops import keep_store
from steps.ops import publish as publishing
from steps.ops.init_store import EXPERIMENT
from steps.reports import job_summary
from steps.reports.promotion import Outcome

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOTHING_NEW = "no new labelled data; nothing trained"
_TRAINED = ("promoted", "unchanged", "refused", "undecided")
# As the Makefile has it: all words land in one experiment.
MLFLOW_RUN = ("mlflow", "run", ".", "--env-manager", "local", "--experiment-name", EXPERIMENT)
CANDIDATE = Path("build") / "candidate"


@dataclass(frozen=True)
class Occasion:
    """What started a retraining (push, schedule, alert or person), and why in its own words."""

    event: str
    reason: str = ""


def occasion(environment: Mapping[str, str]) -> Occasion:
    """The occasion by GitHub's variables: a dispatch that names a `source` comes from an alert."""
    event = environment.get("GITHUB_EVENT_NAME", "")
    reason = environment.get("RETRAIN_REASON", "")
    if event in ("push", "schedule"):
        return Occasion(event, reason)
    return Occasion("alert" if environment.get("RETRAIN_SOURCE") else "person", reason)


def why_train(started: Occasion, digest: str, last: str | None) -> str | None:
    """The reason to train, or None: a clock or an alert alone is none, as the same rows give the same model.

    digest, last: of the data now and of those that the last finished chain of this store was given.
    """
    if last is None:
        return "this store knows of no training yet"
    if digest != last:
        return "the labelled data changed"
    if started.event == "push":
        return "code, parameters or data were pushed"
    if started.event == "person":
        return "a person asked for it"
    return None


def last_digest(client: MlflowClient, schema: Schema) -> str | None:
    """Digest of the data of the newest chain that came to a verdict, whatever the verdict."""
    for run in tracking.tagged_runs(client, {"step": "main", "schema": schema.name}, limit=200):
        if run.data.tags.get("verdict") in _TRAINED and "data_digest" in run.data.tags:
            return str(run.data.tags["data_digest"])
    return None


def local_data(data: str, schema: Schema, project: Path) -> tuple[str, str]:
    """What to give as `-P data=`, and the digest of those data.

    A URL becomes the downloaded file: it may hold a password, and MLflow keeps parameters for everybody to
    read. That of a source of the schema becomes the source's name, which says how its outcome is coded.
    """
    from steps.data import sources

    if "://" in data:
        listed = next((source.name for source in schema.sources if source.url == data), None)
        data = listed or str(sources.locate(data, schema, pipeline.cache_folder(), project).files[0].path)
    return data, sources.locate(data, schema, pipeline.cache_folder(), project).digest


def run_entry(entry: str, given: Mapping[str, str], project: Path) -> int:
    """`mlflow run . -e entry -P ...` in this environment; its exit code."""
    words = [*MLFLOW_RUN, "-e", entry, *parameters.to_words(given)]
    return subprocess.run(words, cwd=project, check=False).returncode


def retrain(
    given: dict[str, str], environment: Mapping[str, str], out: job_summary.Out, project: Path
) -> int:
    """Decide, compare, train; the exit code. given: parameters of the chain other than MLProject's."""
    asked = {"data": environment.get("DATA_URI"), "max_evals": environment.get("MAX_EVALS")}
    given = {**given, **{name: value for name, value in asked.items() if value}}
    values = parameters.given(Main, project, given)
    schema = load(project / values.schema)
    client = tracking.connect()
    data, digest = local_data(values.data, schema, project)
    given = {**given, "data": data} if "data" in given else given
    started = occasion(environment)
    last = last_digest(client, schema)
    reason = why_train(started, digest, last)
    out.add(job_summary.occasion(started.event, started.reason, reason or NOTHING_NEW, digest, last))
    if reason is None:
        out.set(trained="false", verdict="nothing_new", promoted="false")
        return 0
    if last is not None and digest != last:
        report = _drift(given, project)
        out.add(job_summary.drift(report))
        if report is not None and report.verdict == "mend":
            out.set(trained="false", verdict="mend", promoted="false")
            return 0
        if report is not None and report.verdict == "recalibrate":
            _, told = _entry("promote", {**given, "recalibrate": "true"}, project)
            out.add(job_summary.recalibrated(told is not None and told.verdict == "promoted"))
            if told is not None and told.verdict == "promoted":
                return _conclude(client, told, environment, out, project)
    code, told = _entry("main", given, project)
    if told is None:
        out.add("## The chain failed\n\nIts last lines in the log say why. Nothing was promoted or pushed.\n")
        out.set(trained="true", verdict="crashed", promoted="false")
        return code or 1
    return _conclude(client, told, environment, out, project)


def _entry(entry: str, given: Mapping[str, str], project: Path) -> tuple[int, Verdict | None]:
    """Run an entry point that leaves a verdict; its exit code, and the verdict unless it crashed."""
    (project / VERDICT).unlink(missing_ok=True)
    code = run_entry(entry, given, project)
    return code, verdict.read(project)


def _conclude(
    client: MlflowClient,
    told: Verdict,
    environment: Mapping[str, str],
    out: job_summary.Out,
    project: Path,
) -> int:
    """Say what came of a candidate, and whether it is to be published; the exit code."""
    folder = _candidate(client, told, project)
    evaluated = folder / "evaluation.json"
    evaluation = from_json(json.loads(evaluated.read_text(encoding="utf-8"))) if evaluated.exists() else None
    out.add(job_summary.trained(_outcome(told), evaluation))
    promoted = told.verdict == "promoted"
    publish = promoted or is_unpublished(told, environment, keep_store.github)
    if publish and not promoted:
        out.add("It was never published (a publish job failed, or a branch promoted it): that follows now.\n")
    out.set(
        trained=str(evaluation is not None).lower(),
        verdict=told.verdict,
        promoted=str(promoted).lower(),
        publish=str(publish).lower(),
        name=told.model,
        version=told.champion or "",
    )
    return 0


def _outcome(told: Verdict) -> Outcome:
    """A verdict as the summary tells it."""
    findings = [Finding(**asdict(line)) for line in told.requirements]
    return Outcome(told.verdict, told.model, told.champion, told.explanation, told.remedy, findings)


def is_unpublished(told: Verdict, environment: Mapping[str, str], gh: keep_store.Gh) -> bool:
    """Whether the chain found the champion unchanged, and GitHub has no release of it although it could."""
    on_github = environment.get("GH_TOKEN") and environment.get("GITHUB_REPOSITORY")
    if told.verdict != "unchanged" or not on_github:
        return False
    return not publishing.is_published(told.model, str(told.champion), gh)


def _drift(given: Mapping[str, str], project: Path) -> DriftReport | None:
    """How the new data differ from those of the champion; None where that could not be measured."""
    path = project / DRIFT
    path.unlink(missing_ok=True)
    code = run_entry("drift", {name: given[name] for name in ("schema", "data") if name in given}, project)
    if code or not path.exists():
        return None
    return documents.from_json(DriftReport, json.loads(path.read_text(encoding="utf-8")), DRIFT)


def _candidate(client: MlflowClient, told: Verdict, project: Path) -> Path:
    """The folder `build/candidate` with what a reader wants of a verdict's candidate, promoted or not.

    The verdict alone, where nothing was trained.
    """
    folder = project / CANDIDATE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if told.evaluate_run_id is not None and told.report_run_id is not None:
        client.download_artifacts(told.evaluate_run_id, "evaluation.json", str(folder))
        for name in ("report.html", "model_card.md"):
            client.download_artifacts(told.report_run_id, name, str(folder))
    shutil.copy(project / VERDICT, folder)
    return folder


def main() -> int:
    """Retrain as the environment says; exit code 1 with the reason if the chain crashes."""
    out = job_summary.Out(os.environ.get("GITHUB_STEP_SUMMARY"), os.environ.get("GITHUB_OUTPUT"))

    def work() -> int:
        try:
            return retrain(parameters.from_words(sys.argv[1:]), os.environ, out, pipeline.PROJECT)
        except UserError as error:
            out.add(f"## Nothing could be trained\n\n{error}\n")
            raise

    return process.command("retrain", work)


if __name__ == "__main__":
    sys.exit(main())
