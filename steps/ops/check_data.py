"""`make data-check`: validate and prepare the labelled data, and report the result.

The report goes to the summary and to `build/data`; the prepared rows go there only where every one of them
comes from a source that the schema lists as synthetic or public.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from steps.chain import parameters, pipeline, process, tracking
from steps.chain.values import Preprocess
from steps.data.documents import from_json
from steps.data.errors import UserError
from steps.data.profile import Profile
from steps.data.schema_file import load
from steps.ops import retrain
from steps.ops.init_store import EXPERIMENT
from steps.reports import job_summary

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHECKED = Path("build") / "data"
_NOISE = ("mlflow.", "ERROR mlflow", "INFO mlflow")


def refusal(output: str) -> str:
    """The message with which preprocess refused the data, from its output."""
    _, marker, message = output.partition("preprocess: error: ")
    lines = [line for line in message.splitlines() if not any(word in line for word in _NOISE)]
    return "\n".join(lines).strip() if marker else "it crashed; the log says how"


def check(parameter_texts: Mapping[str, str], summary: job_summary.Out, project: Path) -> int:
    """Run preprocess on the data, fill `build/data`, write the summary; returns the exit code."""
    values = parameters.given(Preprocess, project, parameter_texts)
    schema = load(project / values.schema)
    data, _ = retrain.local_data(values.data, schema, project)
    parts = parameters.to_words({**parameter_texts, "data": data})
    client = tracking.connect()
    started = client.create_run(_experiment(client)).info.run_id
    ran = subprocess.run(
        [*retrain.MLFLOW_RUN, "-e", "preprocess", "--run-id", started, *parts],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(ran.stdout, flush=True)
    folder = project / CHECKED
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if ran.returncode != 0:
        _report(
            summary,
            folder,
            f"## Data: refused\n\n```text\n{refusal(ran.stdout).replace('`', chr(39))}\n```\n",
        )
        return 1
    run_id = client.get_run(started).data.tags.get("reused_from", started)
    tags = client.get_run(run_id).data.tags
    for name in ("profile.json", "schema.yaml"):
        client.download_artifacts(run_id, name, str(folder))
    published = tags["data_kind"] in ("synthetic", "public")
    if published:
        client.download_artifacts(run_id, "rows", str(folder))
    profile = from_json(
        Profile, json.loads((folder / "profile.json").read_text(encoding="utf-8")), "profile.json"
    )
    _report(summary, folder, job_summary.checked(profile, tags["data_kind"], tags["data_digest"], published))
    summary.set(kind=tags["data_kind"], published=str(published).lower())
    return 0


def _experiment(client: MlflowClient) -> str:
    """Id of the experiment that all commands of make use."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return (
        str(experiment.experiment_id) if experiment is not None else str(client.create_experiment(EXPERIMENT))
    )


def _report(summary: job_summary.Out, folder: Path, text: str) -> None:
    summary.add(text)
    (folder / "report.md").write_text(text, encoding="utf-8")


def main() -> int:
    """Check the data that `DATA_URI` or `-P data=` names; exit code 1 with the reason if they are refused."""
    summary = job_summary.Out(os.environ.get("GITHUB_STEP_SUMMARY"), os.environ.get("GITHUB_OUTPUT"))

    def work() -> int:
        try:
            parameter_texts = parameters.from_words(sys.argv[1:])
            if os.environ.get("DATA_URI"):
                parameter_texts["data"] = os.environ["DATA_URI"]
            return check(parameter_texts, summary, pipeline.PROJECT)
        except UserError as error:
            summary.add(f"## Data: refused\n\n{error}\n")
            raise

    return process.command("data-check", work)


if __name__ == "__main__":
    sys.exit(main())
