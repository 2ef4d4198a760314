"""How steps hang together: what each needs, whether an earlier run can serve, and how one is run.

A step is described by the steps above it (`UPSTREAM`), its own parameters (`OWN`) and the parts of the
schema that it reads. That gives its fingerprint; a finished run with the same fingerprint whose results are
still there is reused, by the chain (`main`) and by every entry point on its own.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.chain import fingerprint, parameters, store
from steps.chain.context import NO_DATASETS, VERDICT, Active, Result, StepRun
from steps.data.errors import UserError
from steps.data.schema import Schema
from steps.data.schema_file import load

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from steps.data.sources import Located

PROJECT = Path(__file__).resolve().parents[2]

# The parameters that change a step's own result; those of the steps above it act through their results.
OWN: Mapping[str, tuple[str, ...]] = {
    "preprocess": ("max_rejected", "publish_rows"),
    "train": ("family", "hyperparameters", "recall", "seed"),
    "tune": (
        "families",
        "max_evals",
        "parallelism",
        "folds",
        "patience",
        "timeout_minutes",
        "recall",
        "seed",
        "engine",
    ),
    "evaluate": ("replicates", "recall", "seed"),
    "explore": ("seed",),
}

# Steps that leave a verdict beside MLProject.
JUDGING = ("main", "promote", "drift")

# The parts of the schema that a step's result depends on beside the rows; its gates judge and its scenarios
# simulate.
_MODEL_PARTS = ("name", "disclaimer", "columns", "target")
SCHEMA_PARTS: Mapping[str, tuple[str, ...]] = {
    "train": _MODEL_PARTS,
    "tune": _MODEL_PARTS,
    "evaluate": (*_MODEL_PARTS, "title", "subgroups", "point_scores"),
    "explore": (*_MODEL_PARTS, "title", "subgroups"),
}

# What has to be there for a run's result to be still there: artifacts of the run.
RESULTS: Mapping[str, tuple[str, ...]] = {
    "preprocess": ("profile.json",),
    "train": ("model/MLmodel", "reference.json"),
    "tune": ("model/MLmodel", "reference.json"),
    "evaluate": ("evaluation.json", "report.html", "model_card.md"),
    "explore": ("exploration.json", "explore.html"),
}

_UPSTREAM = "CHAIN_UPSTREAM"
_NEVER = "it has not run before"


@dataclass(frozen=True)
class Decision:
    """What is to be done about a step: the run to reuse, or why there is none."""

    step: str
    fingerprint: fingerprint.Fingerprint
    reusable: StepRun | None
    reasons: tuple[str, ...]


def upstream_of(step: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The steps whose results a step needs, in the order in which they run."""
    if step in ("preprocess", "explore"):
        return ()
    if step in ("train", "tune"):
        return ("preprocess",)
    fitted = "tune" if values["model"] == "tuned" else "train"
    if step == "evaluate":
        return ("preprocess", fitted)
    if step == "promote":
        return ("preprocess", fitted, "evaluate")
    raise ValueError(f"{step} is not a step of the chain")


@dataclass
class Chain:
    """The steps' results in one store, for one set of parameters."""

    client: MlflowClient
    values: Mapping[str, Any]
    schema: Schema
    cache: Path
    say: Callable[[str], None] = print
    _known: dict[str, StepRun] = field(default_factory=dict)
    _versions: dict[str, str] = field(default_factory=dict)
    _located: Located | None = None

    @property
    def located(self) -> Located:
        """The files behind `-P data=`, found and downloaded once."""
        if self._located is None:
            self._located = self.locate(self.values["data"])
        return self._located

    def locate(self, data: str) -> Located:
        """The files behind what a person calls data. Raises SourceError."""
        from steps.data import downloads, sources

        if "://" in data:
            downloads.refuse_credentials(data)
        return sources.locate(data, self.schema, self.cache, PROJECT)

    def fingerprint_of(
        self, step: str, values: Mapping[str, Any], upstream: Mapping[str, StepRun]
    ) -> fingerprint.Fingerprint:
        """Everything that a step's result depends on."""
        if not self._versions:
            self._versions = fingerprint.versions(PROJECT)
        inputs = {f"{name} result": run.result_digest for name, run in upstream.items()}
        if step in ("preprocess", "explore"):
            inputs |= {"data": self.located.digest}
        if values.get("against"):
            inputs |= {"against": self.locate(values["against"]).digest}
        if step == "preprocess":
            inputs |= {"schema columns": self.schema.data_digest}
        else:
            inputs |= {"schema": self.schema.digest_of(*SCHEMA_PARTS[step])}
        own = parameters.texts({name: values[name] for name in OWN[step]})
        return fingerprint.Fingerprint(
            inputs, own, fingerprint.code(f"steps.{step}", PROJECT), self._versions
        )

    def decide(self, step: str, values: Mapping[str, Any], upstream: Mapping[str, StepRun]) -> Decision:
        """Whether an earlier run can serve for a step, and if not, why."""
        wanted = self.fingerprint_of(step, values, upstream)
        same = store.finished_runs(self.client, {"fingerprint": wanted.digest}, limit=20)
        for run in same:
            if self.is_intact(step, run):
                return Decision(step, wanted, _step_run(step, run), ())
        if same:
            return Decision(step, wanted, None, (f"the results of run {same[0].info.run_id[:8]} are gone",))
        return Decision(step, wanted, None, self._reasons(step, wanted, values))

    def _reasons(
        self, step: str, wanted: fingerprint.Fingerprint, values: Mapping[str, Any]
    ) -> tuple[str, ...]:
        earlier = self._earlier(step, values)
        return tuple(wanted.changes_since(earlier[0])) if earlier else (_NEVER,)

    def own_changes(self, step: str, values: Mapping[str, Any]) -> tuple[str, ...]:
        """What is new about a step's own parameters, code and versions; empty where an earlier run had it.

        For a step whose input is not known yet: with such a change it runs, whatever that comes to.
        """
        wanted = self.fingerprint_of(step, values, {})
        earlier = self._earlier(step, values)
        unlike = [replace(wanted, inputs=one.inputs).changes_since(one) for one in earlier]
        return () if [] in unlike else tuple(unlike[0]) if unlike else (_NEVER,)

    def _earlier(self, step: str, values: Mapping[str, Any]) -> list[fingerprint.Fingerprint]:
        """Fingerprints of a step's finished runs, newest first."""
        tags = {"step": step, "schema": self.schema.name}
        if step == "evaluate":
            tags["model"] = values["model"]
        runs = store.finished_runs(self.client, tags, limit=50)
        return [
            fingerprint.Fingerprint.from_tags(run.data.tags) for run in runs if "fingerprint" in run.data.tags
        ]

    def tagged_runs(self, tags: Mapping[str, str]) -> list[Run]:
        """Runs of the store, of any status, that carry all these tags."""
        return store.tagged_runs(self.client, tags)

    def is_intact(self, step: str, run: Run) -> bool:
        """Whether a run's results are still where it left them, whole."""
        if step == "preprocess":
            from steps.data import prepared

            if not prepared.is_complete(self.cache, run.data.tags["result_digest"]):
                return False
        return store.has_artifacts(self.client, run.info.run_id, RESULTS[step])

    def ensure(self, step: str, values: Mapping[str, Any]) -> StepRun:
        """The run that holds a step's result: one from before, or one made now, with what it needs above it.

        Raises:
            UserError: the step failed; its own output has said why.
        """
        key = _key(step, values)
        if key in self._known:
            return self._known[key]
        needs = {name: self.ensure(name, values) for name in upstream_of(step, values)}
        label = key.replace(":", " ")
        if values["fresh"]:
            reasons: tuple[str, ...] = ("fresh=true",)
        else:
            decision = self.decide(step, values, needs)
            if decision.reusable is not None:
                self.say(f"{label}: reused from run {decision.reusable.run_id[:8]}")
                self._known[key] = decision.reusable
                return decision.reusable
            reasons = decision.reasons
        self.say(f"{label}: runs, because {_listed(reasons)}")
        started = time.monotonic()
        run = self.launch(step, values, needs)
        self.say(f"{label}: done in {time.monotonic() - started:.0f} s, run {run.info.run_id[:8]}")
        self._known[key] = _step_run(step, run)
        return self._known[key]

    def launch(self, step: str, values: Mapping[str, Any], needs: Mapping[str, StepRun]) -> Run:
        """Run a step's entry point as a nested MLflow Project run; returns the run that has the result.

        That is another one where somebody else finished the same step meanwhile. `needs` is what the step
        gets by `handed_over`. Raises UserError if it failed.
        """
        import mlflow
        from mlflow.exceptions import ExecutionException

        accepted = parameters.declared(PROJECT)[step]
        given = parameters.texts({name: value for name, value in values.items() if name in accepted})
        os.environ[_UPSTREAM] = json.dumps({name: run.run_id for name, run in needs.items()})
        try:
            submitted = mlflow.projects.run(  # type: ignore[no-untyped-call]
                uri=str(PROJECT),
                entry_point=step,
                parameters=given,
                env_manager="local",
                run_name=_key(step, values).replace(":", " "),
            )
        except ExecutionException as error:
            raise UserError(f"{step} failed; what it printed above says why ({error})") from error
        finally:
            os.environ.pop(_UPSTREAM, None)
        run = self.client.get_run(submitted.run_id)
        earlier = run.data.tags.get("reused_from")
        return self.client.get_run(earlier) if earlier else run

    def handed_over(self) -> dict[str, str]:
        """Run ids of results by name, from the chain that started this process; empty where none did."""
        return dict(json.loads(os.environ.get(_UPSTREAM, "{}")))

    def given_upstream(self, step: str, values: Mapping[str, Any]) -> dict[str, StepRun]:
        """The results above a step: those that were handed over, or found and made now."""
        named = self.handed_over()
        found = {}
        for name in upstream_of(step, values):
            found[name] = (
                _step_run(name, self.client.get_run(named[name]))
                if name in named
                else self.ensure(name, values)
            )
        return found


def _key(step: str, values: Mapping[str, Any]) -> str:
    return f"evaluate:{values['model']}" if step == "evaluate" else step


def _step_run(step: str, run: Run) -> StepRun:
    return StepRun(step, run.info.run_id, run.data.tags["result_digest"], dict(run.data.tags))


def _listed(reasons: Sequence[str], most: int = 4) -> str:
    shown = list(reasons[:most])
    if len(reasons) > most:
        shown.append(f"{len(reasons) - most} more changes")
    return ", ".join(shown)


def cache_folder() -> Path:
    """Where rows are kept: on this machine only."""
    return Path(os.environ.get("ROWS_CACHE") or PROJECT / ".cache").resolve()


# ---------------------------------------------------------------- one step's process


def execute(step: str, work: Callable[[Active], Result], argv: Sequence[str] | None = None) -> int:
    """A step's whole process: parameters in, lock, reuse or work, tags and exit code out.

    Exit codes: 0 done or reused, 1 a person can mend it and was told how. Any other error is a fault of
    ours and shows its traceback.
    """
    try:
        return _execute(step, work, argv)
    except UserError as error:
        print(f"{step}: error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print(f"{step}: stopped; the same command goes on from here", file=sys.stderr, flush=True)
        return 130
    except Exception as error:
        told = store.lost(error)
        if told is None:
            raise
        print(f"{step}: error: {told}", file=sys.stderr, flush=True)
        return 1


def _execute(step: str, work: Callable[[Active], Result], argv: Sequence[str] | None) -> int:
    try:
        values = parameters.parse(step, PROJECT, argv)
        schema = load(PROJECT / values["schema"])
        client = store.connect()
    except UserError:
        if step in JUDGING:
            (PROJECT / VERDICT).unlink(missing_ok=True)  # of an earlier run, not of this
        raise
    import mlflow

    cache = cache_folder()
    uri = mlflow.get_tracking_uri()
    with store.chain_lock(store.lock_path(uri, cache), step, _say) as depth, mlflow.start_run() as run:
        run_id = run.info.run_id
        if depth == 0 and not store.is_remote(uri):
            store.close_abandoned(client, PROJECT, keep={run_id})
        chain = Chain(client, values, schema, cache, _say)
        with tempfile.TemporaryDirectory() as scratch:
            active = Active(step, values, schema, client, run_id, PROJECT, chain, cache, Path(scratch), _say)
            active.tag({"step": step, "schema": schema.name})
            if depth == 0:  # a nested run has been given its name; `mlflow run` makes one up
                active.tag({"mlflow.runName": step})
            if depth == 0 and store.is_remote(uri):
                _try_server(active)
            result = _reuse_or_work(active, work) if step in OWN else work(active)
    for line in result.lines:
        _say(line)
    return result.exit_code


def _try_server(active: Active) -> None:
    """Find out what a server lacks before anything is computed: without the registry nothing starts."""
    if active.name in ("main", "promote"):
        store.require_registry(active.client, active.schema.name)
    if not store.keeps_datasets(active.client, active.run_id):
        os.environ[NO_DATASETS] = "1"
        _say(
            "warning: this tracking server keeps no data set records, so the runs go without; the digests of "
            "the data are in the runs' tags"
        )


def _reuse_or_work(active: Active, work: Callable[[Active], Result]) -> Result:
    step, values, chain = active.name, active.values, active.chain
    active.upstream = chain.given_upstream(step, values)
    decision = chain.decide(step, values, active.upstream)
    if decision.reusable is not None and not values["fresh"]:
        earlier = decision.reusable.run_id
        active.tag({"reused_from": earlier})
        return Result(lines=[f"{step}: nothing to do, run {earlier[:8]} has this result already"])
    because = "fresh=true" if values["fresh"] else _listed(decision.reasons, most=20)
    active.fingerprint = decision.fingerprint
    active.tag({"because": because[:500]})
    result = work(active)
    # Last of all, at once: a run without a fingerprint is never reused, so a half-done one never is.
    active.tag({"result_digest": result.digest, **result.tags, **decision.fingerprint.tags()})
    return result


def _say(line: str) -> None:
    print(line, flush=True)
