"""The input and the result of a step's work; a step knows nothing else of the chain around it."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from steps.chain.fingerprint import Fingerprint
    from steps.chain.values import Role, Values
    from steps.data.schema import Schema
    from steps.data.sources import Located

# The values of a step; a later step takes all the parameters that the steps before it take.
V_co = TypeVar("V_co", bound="Values", covariant=True)

# The file beside MLProject that tells a caller the verdict: exit codes do not survive `mlflow run`.
VERDICT = "verdict.json"

# The same for drift, whose verdict is about data instead of a candidate.
DRIFT = "drift.json"

# The name under which main passes the other model's evaluation to promote, which shows it in the report.
BESIDE = "evaluate other"

# The step that fits the model of a role.
FITTED_BY: Mapping[Role, str] = {"tuned": "tune", "baseline": "train"}

# Each role and the other role of its chain.
OTHER: Mapping[Role, Role] = {"tuned": "baseline", "baseline": "tuned"}

# Set by the process that starts a chain, for its steps, if the server has no data set records.
NO_DATASETS = "CHAIN_NO_DATASETS"

# Characters that MLflow's names may not hold; labels of subgroups from the schema may hold them.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-. :/]")


@dataclass(frozen=True)
class StepRun:
    """A finished run of a step, and the digest of its result."""

    step: str
    run_id: str
    result_digest: str
    tags: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Result:
    """The result of a step's work.

    digest: of the result. tags: for its run. lines: further messages for a person. summary: the result in one
    line, without the step's name; it is kept as a tag and shown again where the result is reused, so it must
    not hold private data.
    """

    digest: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    lines: Sequence[str] = ()
    summary: str = ""
    exit_code: int = 0


class Chain(Protocol):
    """The interface of the chain for a step; `steps.chain.pipeline` implements it."""

    def locate(self, data: str) -> Located:
        """The files that `-P data=` names, located and downloaded once. Raises SourceError."""

    def find_runs(self, tags: Mapping[str, str]) -> Sequence[Run]:
        """Runs of the store, of any status, that carry all these tags, newest first."""

    def handed_over(self) -> Mapping[str, str]:
        """Run ids of results by name, from the chain that started this process; empty where none did."""

    def results_above(self, step: str, values: Values) -> Mapping[str, StepRun]:
        """The results that a step needs: handed over by the chain, or else reused or made now."""

    def ensure(self, step: str, values: Values) -> StepRun:
        """The run that holds a step's result: an earlier run, or a new one after the steps that it needs.

        Raises UserError where the step fails.
        """

    def launch(self, step: str, values: Values, needs: Mapping[str, StepRun]) -> Run:
        """Run a step's entry point as a nested run, with the results that it needs. Raises UserError."""

    def make_champion(self) -> StepRun:
        """Run the chain with MLProject's defaults on this schema; preprocess's run. Raises UserError."""


@dataclass(frozen=True)
class Context(Generic[V_co]):
    """A running step: its parameters, the results that it needs, and the run that takes its own results.

    `upstream` has the results that the step needs, by step; it is empty for a step that requests them itself
    (`chain.results_above`). `fingerprint` is None for a step whose result is never reused.
    """

    name: str
    values: V_co
    schema: Schema
    client: MlflowClient
    run_id: str
    project: Path
    cache: Path
    scratch: Path
    chain: Chain
    upstream: Mapping[str, StepRun] = field(default_factory=dict)
    fingerprint: Fingerprint | None = None

    @property
    def log(self) -> logging.Logger:
        """The logger for messages that a person reads while the step works."""
        return logging.getLogger(f"steps.{self.name}")

    @property
    def located(self) -> Located:
        """The files behind `-P data=`. Raises SourceError."""
        return self.chain.locate(self.values.data)

    def fetch(self, run_id: str, path: str) -> Path:
        """A local copy of a run's artifact (a file or a folder)."""
        folder = self.scratch / run_id
        folder.mkdir(exist_ok=True)
        return Path(self.client.download_artifacts(run_id, path, str(folder)))

    def fetch_json(self, run_id: str, path: str) -> Any:
        """A JSON artifact of a run."""
        return json.loads(self.fetch(run_id, path).read_text(encoding="utf-8"))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags of this run, all or none."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def log_text(self, path: str, text: str) -> None:
        """Keep a text as an artifact of this run."""
        self.client.log_text(self.run_id, text, path)

    def log_json(self, path: str, document: Any) -> None:
        """Keep a JSON document as an artifact of this run."""
        self.log_text(path, json.dumps(document, indent=1, sort_keys=False) + "\n")

    def log_picture(self, path: str, content: bytes) -> None:
        """Keep a picture as an artifact of this run."""
        file = self.scratch / Path(path).name
        file.write_bytes(content)
        self.client.log_artifact(self.run_id, str(file), str(Path(path).parent) if "/" in path else None)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log the finite numbers, in one call; characters that MLflow refuses are removed from the names."""
        from mlflow.entities import Metric

        timestamp = int(time.time() * 1000)
        finite = [
            Metric(_NOT_IN_NAMES.sub("", name), float(value), timestamp, 0)
            for name, value in metrics.items()
            if math.isfinite(value)
        ]
        self.client.log_batch(self.run_id, metrics=finite)

    def log_datasets(self, tables: Mapping[str, tuple[str, int]]) -> None:
        """Record the tables (name -> digest, rows) that this run made or used, without their location."""
        if os.environ.get(NO_DATASETS):
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(
                    name=f"{self.schema.name} {name}",
                    digest=digest,
                    source_type="local",
                    source=json.dumps({"uri": f"cache:{digest}/{name}.parquet"}),
                    profile=json.dumps({"num_rows": rows}),
                ),
                [InputTag("mlflow.data.context", name)],
            )
            for name, (digest, rows) in tables.items()
        ]
        self.client.log_inputs(self.run_id, inputs)
