"""The steps and their dependencies: what each needs, whether an earlier run can be reused, how it is run.

`STEPS` describes every step. This description, the data, the code and the installed packages give a step's
fingerprint. The chain (`main`), and every entry point on its own, reuses a finished run with the same
fingerprint whose results still exist.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from steps.chain import console, fingerprint, parameters, tracking, values
from steps.chain.context import DRIFT, FITTED_BY, VERDICT, StepRun
from steps.chain.values import Evaluate, Promote, Reusable, Values
from steps.data.errors import UserError
from steps.data.schema import Schema

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from steps.data.sources import Located

log = logging.getLogger("steps.chain")

PROJECT = Path(__file__).resolve().parents[2]

# In StepSpec.needs: the step that fits the model of the role in question, tune or train.
FITTED = "the fitted model"

# The parts of the schema that define the rows and the answers of a model.
_MODEL_PARTS = ("name", "disclaimer", "columns", "target")

_UPSTREAM = "CHAIN_UPSTREAM"
_NEVER = "it has not run before"
_OLDER = "its earlier runs carry fingerprints of an older version"


@dataclass(frozen=True)
class StepSpec:
    """A step: its parameters, and everything that decides whether an earlier result can be reused.

    values: the typed parameters of its entry point.
    needs: the steps whose results it takes, in their order; `FITTED` stands for tune or train.
    parameters: those that change its own result; those of the steps it needs act through their results.
    schema_parts: the parts of the schema that it reads; no such step reads the gates.
    reads_data: its result depends on the files behind `-P data=`.
    packages: those that decide its numbers or its documents; a test compares them with its imports.
    pins: further packages that serve its model. A change of one packs the model again and fits nothing.
    results: artifacts that must exist for its result to be reused; a step without them is never reused.
    judges: the file beside MLProject into which it writes its verdict.
    """

    values: type[Values]
    needs: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    schema_parts: tuple[str, ...] = ()
    reads_data: bool = False
    packages: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    judges: str = ""


_TABLES = ("python", "numpy", "pandas", "pyarrow")
_FITS = (*_TABLES, "scikit-learn", "scipy", "interpret-core")
_READS = ("openpyxl",)  # if it is installed
_SERVES = ("httptools", "mlflow", "skops", "uvloop")

STEPS: Mapping[str, StepSpec] = {
    "preprocess": StepSpec(
        values.Preprocess,
        parameters=("max_rejected", "publish_rows"),
        reads_data=True,
        packages=(*_TABLES, *_READS, "scipy"),
        results=("profile.json",),
    ),
    "train": StepSpec(
        values.Train,
        needs=("preprocess",),
        parameters=("family", "hyperparameters", "recall", "threshold_odds", "seed"),
        schema_parts=(*_MODEL_PARTS, "monitored_groups"),
        packages=_FITS,
        pins=_SERVES,
        results=("model/MLmodel", "reference.json"),
    ),
    "tune": StepSpec(
        values.Tune,
        needs=("preprocess",),
        parameters=(
            *("families", "max_evals", "parallelism", "folds", "patience", "timeout_minutes"),
            *("recall", "threshold_odds", "seed", "engine"),
        ),
        schema_parts=(*_MODEL_PARTS, "monitored_groups"),
        packages=(*_FITS, "hyperopt", "networkx"),  # hyperopt draws in the order of networkx's sort
        pins=_SERVES,
        results=("model/MLmodel", "reference.json"),
    ),
    "evaluate": StepSpec(
        Evaluate,
        needs=("preprocess", FITTED),
        parameters=("replicates", "recall", "threshold_odds", "seed"),
        schema_parts=(
            *(*_MODEL_PARTS, "title", "sources", "subgroups", "point_scores"),
            *("scenarios", "lacks", "card", "open_questions"),
        ),
        packages=(*_FITS, "jinja2", "matplotlib"),
        results=("evaluation.json", "report.html", "model_card.md"),
    ),
    "promote": StepSpec(Promote, needs=("preprocess", FITTED, "evaluate"), judges=VERDICT),
    "main": StepSpec(values.Main, judges=VERDICT),
    "explore": StepSpec(
        values.Explore,
        parameters=("seed",),
        schema_parts=(*_MODEL_PARTS, "title", "subgroups", "open_questions"),
        reads_data=True,
        packages=(*_FITS, *_READS, "jinja2"),
        results=("exploration.json", "explore.html"),
    ),
    "score": StepSpec(values.Score),
    "drift": StepSpec(values.Drift, judges=DRIFT),
}


@dataclass(frozen=True)
class Decision:
    """What to do about a step: the run to reuse, or the reasons why there is none.

    `same_fit`, where there is no run to reuse: a run whose model can be packed again instead of fitted.
    """

    step: str
    fingerprint: fingerprint.Fingerprint
    reusable: StepRun | None = None
    same_fit: StepRun | None = None
    reasons: tuple[str, ...] = ()


def upstream_of(step: str, values: Values) -> tuple[str, ...]:
    """The steps whose results a step needs, in the order in which they run."""
    return tuple(
        FITTED_BY[values.model] if name == FITTED and isinstance(values, Evaluate) else name
        for name in STEPS[step].needs
    )


@dataclass
class Chain:
    """The steps' results in one store, for one schema; steps use it as `steps.chain.context.Chain`."""

    client: MlflowClient
    schema: Schema
    schema_file: str
    cache: Path
    _results: dict[str, StepRun] = field(default_factory=dict)
    _located: dict[str, Located] = field(default_factory=dict)

    def locate(self, data: str) -> Located:
        """The files that `-P data=` names, located and downloaded once. Raises SourceError."""
        from steps.data import downloads, sources

        if data not in self._located:
            if "://" in data:
                downloads.refuse_credentials(data)
            self._located[data] = sources.locate(data, self.schema, self.cache, PROJECT)
        return self._located[data]

    def find_runs(self, tags: Mapping[str, str]) -> list[Run]:
        """Runs of the store, of any status, that carry all these tags, newest first."""
        return tracking.tagged_runs(self.client, tags)

    def fingerprint_of(
        self, step: str, values: Values, upstream: Mapping[str, StepRun]
    ) -> fingerprint.Fingerprint:
        """Everything that a step's result depends on."""
        spec = STEPS[step]
        inputs = {f"{name} result": run.result_digest for name, run in upstream.items()}
        if spec.reads_data:
            inputs |= {"data": self.locate(values.data).digest}
        against = getattr(values, "against", "")
        if against:
            inputs |= {"against": self.locate(against).digest}
        if spec.schema_parts:
            inputs |= {"schema": self.schema.digest_of(*spec.schema_parts)}
        else:
            inputs |= {"schema columns": self.schema.data_digest}
        texts = parameters.texts(values)
        return fingerprint.Fingerprint(
            inputs,
            {name: texts[name] for name in spec.parameters},
            fingerprint.code(f"steps.{step}", PROJECT),
            fingerprint.versions(spec.packages),
            fingerprint.versions(spec.pins),
        )

    def decide(self, step: str, values: Values, upstream: Mapping[str, StepRun]) -> Decision:
        """The earlier run that can be reused for a step, or the reasons why there is none."""
        current = self.fingerprint_of(step, values, upstream)
        equal_runs = self._finished({"fingerprint": current.digest})
        reusable, why_not = self._first_usable(step, equal_runs)
        if reusable is not None:
            return Decision(step, current, reusable)
        if equal_runs:
            return Decision(step, current, reasons=(why_not,))
        same_fit = None
        if STEPS[step].pins:
            same_fit, _ = self._first_usable(step, self._finished({"fingerprint.fit": current.fit_digest}))
        earlier, never = self._earlier(step, values)
        reasons = current.changes_since(earlier[0]) if earlier else [never]
        return Decision(step, current, same_fit=same_fit, reasons=tuple(reasons))

    def _finished(self, tags: Mapping[str, str]) -> list[Run]:
        return tracking.finished_runs(self.client, tags, limit=20)

    def _first_usable(self, step: str, runs: Sequence[Run]) -> tuple[StepRun | None, str]:
        """The newest run whose results can be reused, or why the newest of all cannot."""
        reasons = []
        for run in runs:
            if run.data.tags.get("stopped_by") == "timeout":
                reasons.append(f"the search of run {run.info.run_id[:8]} was ended by its time limit")
            elif self._is_intact(step, run):
                return _step_run(step, run), ""
            else:
                reasons.append(f"the results of run {run.info.run_id[:8]} are gone")
        return None, reasons[0] if reasons else ""

    def own_changes(self, step: str, values: Values) -> tuple[str, ...]:
        """The changes of a step's own parameters, code and versions; empty where an earlier run had the same.

        For a step whose input is not known yet: after such a change it runs, whatever its input will be.
        """
        current = self.fingerprint_of(step, values, {})
        earlier, never = self._earlier(step, values)
        changes = [
            replace(current, inputs=earlier_fingerprint.inputs).changes_since(earlier_fingerprint)
            for earlier_fingerprint in earlier
        ]
        return () if [] in changes else tuple(changes[0]) if changes else (never,)

    def _earlier(self, step: str, values: Values) -> tuple[list[fingerprint.Fingerprint], str]:
        """Fingerprints of a step's finished runs, newest first, and the reason where there is none."""
        tags = {"step": step, "schema": self.schema.name}
        if step == "evaluate" and isinstance(values, Evaluate):
            tags["model"] = values.model
        runs = tracking.finished_runs(self.client, tags, limit=50)
        comparable = [run.data.tags for run in runs if "fingerprint.fit" in run.data.tags]
        older = any("fingerprint" in run.data.tags for run in runs)
        return [
            fingerprint.Fingerprint.from_tags(run_tags) for run_tags in comparable
        ], _OLDER if older else _NEVER

    def _is_intact(self, step: str, run: Run) -> bool:
        """Whether a run's results still exist, unchanged."""
        if step == "preprocess":
            from steps.data import prepared

            if not prepared.is_complete(self.cache, run.data.tags["result_digest"]):
                return False
        return tracking.has_artifacts(self.client, run.info.run_id, STEPS[step].results)

    def ensure(self, step: str, values: Values) -> StepRun:
        """The run that holds a step's result: an earlier run, or a new one after the steps that it needs.

        Raises:
            UserError: the step failed; its own output has said why.
        """
        key = label(step, values)
        if key in self._results:
            return self._results[key]
        needs = {name: self.ensure(name, values) for name in upstream_of(step, values)}
        if isinstance(values, Reusable) and values.fresh:
            reasons: tuple[str, ...] = ("fresh=true",)
        else:
            decision = self.decide(step, values, needs)
            if decision.reusable is not None:
                _log_step(key, "reused", decision.reusable)
                self._results[key] = decision.reusable
                return decision.reusable
            reasons = decision.reasons
        console.show_progress(f"{key} runs, because {listed(reasons)} ...")
        started = time.monotonic()
        self._results[key] = _step_run(step, self.launch(step, values, needs))
        _log_step(key, f"{time.monotonic() - started:.0f} s", self._results[key], reasons)
        return self._results[key]

    def launch(self, step: str, values: Values, needs: Mapping[str, StepRun]) -> Run:
        """Run a step's entry point as a nested MLflow Project run; returns the run that has the result.

        This is another run if another process finished the same step meanwhile. The step gets `needs` by
        `handed_over`. Raises UserError if it failed.
        """
        import mlflow
        from mlflow.exceptions import ExecutionException

        accepted = parameters.declared(PROJECT)[step]
        texts = {name: text for name, text in parameters.texts(values).items() if name in accepted}
        os.environ[_UPSTREAM] = json.dumps({name: run.run_id for name, run in needs.items()})
        try:
            submitted = mlflow.projects.run(  # type: ignore[no-untyped-call]
                uri=os.path.relpath(PROJECT),  # in a full path MLflow reads the text after a # as a subfolder
                entry_point=step,
                parameters=texts,
                env_manager="local",
                run_name=label(step, values),
            )
        except ExecutionException as error:
            raise UserError(f"{step} failed; its output above says why ({error})") from error
        finally:
            os.environ.pop(_UPSTREAM, None)
        run = self.client.get_run(submitted.run_id)
        earlier = run.data.tags.get("reused_from")
        return self.client.get_run(earlier) if earlier else run

    def handed_over(self) -> dict[str, str]:
        """Run ids of results by name, from the chain that started this process; empty where none did."""
        return dict(json.loads(os.environ.get(_UPSTREAM, "{}")))

    def results_above(self, step: str, values: Values) -> dict[str, StepRun]:
        """The results that a step needs: handed over by the chain, or else reused or made now."""
        run_ids = self.handed_over()
        return {
            name: _step_run(name, self.client.get_run(run_ids[name]))
            if name in run_ids
            else self.ensure(name, values)
            for name in upstream_of(step, values)
        }

    def make_champion(self) -> StepRun:
        """Run the chain with MLProject's defaults on this schema; preprocess's run. Raises UserError."""
        defaults = parameters.given(Promote, PROJECT, {"schema": self.schema_file})
        chain = Chain(self.client, self.schema, self.schema_file, self.cache)
        needs = {name: chain.ensure(name, defaults) for name in ("preprocess", "train", "tune", "evaluate")}
        chain.launch("promote", defaults, needs)
        return needs["preprocess"]


def label(step: str, values: Values) -> str:
    """The name of a step in messages; evaluate has two results in a chain, one for each model."""
    return f"evaluate {values.model}" if step == "evaluate" and isinstance(values, Evaluate) else step


def _log_step(key: str, duration: str, run: StepRun, reasons: Sequence[str] = ()) -> None:
    """Log a line about a step: its name, its time or that it is reused, its result, and why it ran."""
    because = f"; it ran because {listed(reasons)}" if reasons and tuple(reasons) != (_NEVER,) else ""
    log.info("%s", f"{key:17} {duration:>6}  {run.tags.get('summary', '')} (run {run.run_id[:8]}{because})")


def listed(reasons: Sequence[str], most: int = 4) -> str:
    """The first reasons in one phrase, and the number of further ones."""
    shown = list(reasons[:most])
    if len(reasons) > most:
        shown.append(f"{len(reasons) - most} more changes")
    return ", ".join(shown)


def cache_folder() -> Path:
    """The folder of the rows, which stay on this machine."""
    return Path(os.environ.get("ROWS_CACHE") or PROJECT / ".cache").resolve()


def _step_run(step: str, run: Run) -> StepRun:
    return StepRun(step, run.info.run_id, run.data.tags["result_digest"], dict(run.data.tags))
