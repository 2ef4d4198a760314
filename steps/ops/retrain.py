"""`make retrain`: train if there is a reason, and write a job summary of the result.

It decides whether to start the chain, shows how the new data differ from the champion's training data, does
not train on broken data (drift's verdict `mend`), and distinguishes a refused or undecided candidate (exit
code 0) from a crash (exit code 1). On GitHub Actions it reads the event and `DATA_URI` from the environment
and writes step outputs and the summary; elsewhere it prints them.
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
# The command of the Makefile: all runs are in one experiment.
MLFLOW_RUN = ("mlflow", "run", ".", "--env-manager", "local", "--experiment-name", EXPERIMENT)
CANDIDATE = Path("build") / "candidate"


@dataclass(frozen=True)
class Occasion:
    """The event that started a retraining (push, schedule, alert or person), and the reason that it gave."""

    event: str
    reason: str = ""


def occasion(environment: Mapping[str, str]) -> Occasion:
    """The occasion, from GitHub's variables: a dispatch with a `source` comes from an alert."""
    event = environment.get("GITHUB_EVENT_NAME", "")
    reason = environment.get("RETRAIN_REASON", "")
    if event in ("push", "schedule"):
        return Occasion(event, reason)
    return Occasion("alert" if environment.get("RETRAIN_SOURCE") else "person", reason)


def alert_asks_to_recalibrate(started: Occasion) -> bool:
    """Whether an alert asks for a recalibration and for no training.

    The reason holds the summaries of the alerts, each behind its act: `retrain: ...; recalibrate: ...; `.
    """
    acts = {part.partition(":")[0].strip() for part in started.reason.split(";")}
    return started.event == "alert" and "recalibrate" in acts and "retrain" not in acts


def why_train(started: Occasion, digest: str, last: str | None) -> str | None:
    """The reason to train, or None: without new rows a schedule or an alert would train the same model again.

    digest, last: of the current data, and of the data of the last finished chain of this store.
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
    """Digest of the data of the newest chain that reached a verdict of any kind."""
    for run in tracking.tagged_runs(client, {"step": "main", "schema": schema.name}, limit=200):
        if run.data.tags.get("verdict") in _TRAINED and "data_digest" in run.data.tags:
            return str(run.data.tags["data_digest"])
    return None


def local_data(data: str, schema: Schema, project: Path) -> tuple[str, str]:
    """The value for `-P data=`, and the digest of those data.

    A URL is replaced by the downloaded file, since it may hold a password and MLflow records parameters in
    plain text. The URL of a source of the schema is replaced by its name, which defines how its outcome is
    coded.
    """
    from steps.data import sources

    if "://" in data:
        listed = next((source.name for source in schema.sources if source.url == data), None)
        data = listed or str(sources.locate(data, schema, pipeline.cache_folder(), project).files[0].path)
    return data, sources.locate(data, schema, pipeline.cache_folder(), project).digest


def run_entry(entry: str, parameter_texts: Mapping[str, str], project: Path) -> int:
    """`mlflow run . -e entry -P ...` in this environment; its exit code."""
    words = [*MLFLOW_RUN, "-e", entry, *parameters.to_words(parameter_texts)]
    return subprocess.run(words, cwd=project, check=False).returncode


def retrain(
    parameter_texts: dict[str, str], environment: Mapping[str, str], summary: job_summary.Out, project: Path
) -> int:
    """Decide, compare, train; returns the exit code.

    parameter_texts: the parameters of the chain that differ from MLProject's defaults.
    """
    from_environment = {"data": environment.get("DATA_URI"), "max_evals": environment.get("MAX_EVALS")}
    parameter_texts = {
        **parameter_texts,
        **{name: value for name, value in from_environment.items() if value},
    }
    values = parameters.given(Main, project, parameter_texts)
    schema = load(project / values.schema)
    client = tracking.connect()
    data, digest = local_data(values.data, schema, project)
    parameter_texts = {**parameter_texts, "data": data} if "data" in parameter_texts else parameter_texts
    started = occasion(environment)
    last = last_digest(client, schema)
    reason = why_train(started, digest, last)
    summary.add(job_summary.occasion(started.event, started.reason, reason or NOTHING_NEW, digest, last))
    if reason is None:
        summary.set(trained="false", verdict="nothing_new", promoted="false")
        return 0
    if last is not None and digest != last:
        report = _drift(parameter_texts, project)
        summary.add(job_summary.drift(report))
        if report is not None and report.verdict == "mend":
            summary.set(trained="false", verdict="mend", promoted="false")
            return 0
        if alert_asks_to_recalibrate(started) or (report is not None and report.verdict == "recalibrate"):
            _, decision = _entry("promote", {**parameter_texts, "recalibrate": "true"}, project)
            summary.add(job_summary.recalibrated(decision is not None and decision.verdict == "promoted"))
            if decision is not None and decision.verdict == "promoted":
                return _conclude(client, decision, environment, summary, project)
    code, decision = _entry("main", parameter_texts, project)
    if decision is None:
        summary.add(
            "## The chain failed\n\nIts last lines in the log say why. Nothing was promoted or pushed.\n"
        )
        summary.set(trained="true", verdict="crashed", promoted="false")
        return code or 1
    return _conclude(client, decision, environment, summary, project)


def _entry(entry: str, parameter_texts: Mapping[str, str], project: Path) -> tuple[int, Verdict | None]:
    """Run an entry point that writes a verdict; its exit code, and the verdict unless it crashed."""
    (project / VERDICT).unlink(missing_ok=True)
    code = run_entry(entry, parameter_texts, project)
    return code, verdict.read(project)


def _conclude(
    client: MlflowClient,
    decision: Verdict,
    environment: Mapping[str, str],
    summary: job_summary.Out,
    project: Path,
) -> int:
    """Summarise the verdict on a candidate, and whether it is to be published; returns the exit code."""
    folder = _candidate(client, decision, project)
    evaluated = folder / "evaluation.json"
    evaluation = from_json(json.loads(evaluated.read_text(encoding="utf-8"))) if evaluated.exists() else None
    summary.add(job_summary.trained(_outcome(decision), evaluation))
    promoted = decision.verdict == "promoted"
    publish = promoted or is_unpublished(decision, environment, keep_store.github)
    if publish and not promoted:
        summary.add(
            "It was never published (a publish job failed, or a branch promoted it): that follows now.\n"
        )
    summary.set(
        trained=str(evaluation is not None).lower(),
        verdict=decision.verdict,
        promoted=str(promoted).lower(),
        publish=str(publish).lower(),
        name=decision.model,
        version=decision.champion or "",
    )
    return 0


def _outcome(decision: Verdict) -> Outcome:
    """A verdict for the job summary."""
    findings = [Finding(**asdict(line)) for line in decision.requirements]
    return Outcome(
        decision.verdict, decision.model, decision.champion, decision.explanation, decision.remedy, findings
    )


def is_unpublished(decision: Verdict, environment: Mapping[str, str], gh: keep_store.Gh) -> bool:
    """Whether the champion is unchanged, and GitHub has no release of it although one can be published."""
    on_github = environment.get("GH_TOKEN") and environment.get("GITHUB_REPOSITORY")
    if decision.verdict != "unchanged" or not on_github:
        return False
    return not publishing.is_published(decision.model, str(decision.champion), gh)


def _drift(parameter_texts: Mapping[str, str], project: Path) -> DriftReport | None:
    """The drift of the new data from the champion's; None where it could not be measured."""
    path = project / DRIFT
    path.unlink(missing_ok=True)
    code = run_entry(
        "drift",
        {name: parameter_texts[name] for name in ("schema", "data") if name in parameter_texts},
        project,
    )
    if code or not path.exists():
        return None
    return documents.from_json(DriftReport, json.loads(path.read_text(encoding="utf-8")), DRIFT)


def _candidate(client: MlflowClient, decision: Verdict, project: Path) -> Path:
    """The folder `build/candidate` with figures, report and card of a verdict's candidate, promoted or not.

    It holds the verdict alone where nothing was trained.
    """
    folder = project / CANDIDATE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if decision.evaluate_run_id is not None and decision.report_run_id is not None:
        client.download_artifacts(decision.evaluate_run_id, "evaluation.json", str(folder))
        for name in ("report.html", "model_card.md"):
            client.download_artifacts(decision.report_run_id, name, str(folder))
    shutil.copy(project / VERDICT, folder)
    return folder


def main() -> int:
    """Retrain as the environment requires; exit code 1 with the reason if the chain crashes."""
    summary = job_summary.Out(os.environ.get("GITHUB_STEP_SUMMARY"), os.environ.get("GITHUB_OUTPUT"))

    def work() -> int:
        try:
            return retrain(parameters.from_words(sys.argv[1:]), os.environ, summary, pipeline.PROJECT)
        except UserError as error:
            summary.add(f"## Nothing could be trained\n\n{error}\n")
            raise

    return process.command("retrain", work)


if __name__ == "__main__":
    sys.exit(main())
