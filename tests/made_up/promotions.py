"""Attempts at promotion in one process: the real steps, on made-up people, in a store of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from steps import preprocess, promote
from steps.chain import keep_model, parameters, registry, verdict
from steps.chain.context import Context, Result, StepRun
from steps.chain.values import Evaluate, Preprocess, Promote, Train, Values
from steps.chain.verdict import Verdict
from steps.data import prepared, sources
from steps.data.files import TARGET_COLUMN
from steps.data.schema_file import load
from steps.measures import evaluation, evaluation_document, metrics
from steps.measures.scored_rows import scored_rows
from steps.models import families, fitting, saved
from tests.conftest import ROOT

SCHEMA = """
name: checkup
title: A made-up check-up
disclaimer: Made up for tests.
target:
  name: ill
  meaning: Ill within a year
  levels: {"n": well, "y": ill}
  positive: ["y"]
columns:
  - {name: age, kind: numeric, meaning: Age, unit: years, minimum: 18, maximum: 90}
  - {name: weight, kind: numeric, meaning: Weight, unit: kg, minimum: 30, maximum: 200}
  - {name: sex, kind: binary, meaning: Sex, levels: {0: female, 1: male}}
  - {name: ward, kind: nominal, meaning: Ward, levels: {A: a, B: b, C: c}}
subgroups:
  - {column: sex}
  - {name: Young, column: age, maximum: 45}
"""


def people(rows: int, seed: int, wards: str = "ABC", prevalence: float = 0.0) -> pd.DataFrame:
    """Made-up people; `prevalence` is added to everybody's log odds. A third of them or so is ill."""
    generator = np.random.default_rng(seed)
    age, weight = generator.uniform(18, 90, rows).round(2), generator.normal(80, 15, rows).round(2)
    sex, ward = generator.integers(0, 2, rows), generator.choice(list(wards), rows)
    odds = -1.3 + 0.05 * (age - 54) + 0.04 * (weight - 80) + 0.5 * sex + 0.6 * (ward == "B") + prevalence
    ill = generator.random(rows) < 1 / (1 + np.exp(-odds))
    return pd.DataFrame(
        {"age": age, "weight": weight.clip(30, 200), "sex": sex, "ward": ward, "ill": np.where(ill, "y", "n")}
    )


class Around:
    """The chain around a step, with the results that a test gives it."""

    def __init__(self, located: sources.Located | None, runs: Mapping[str, StepRun]) -> None:
        self.located, self.runs = located, runs
        self.asked: list[str] = []

    def locate(self, data: str) -> sources.Located:
        assert self.located is not None
        return self.located

    def handed_over(self) -> dict[str, str]:
        return {}

    def results_above(self, step: str, values: Values) -> Mapping[str, StepRun]:
        """`asked` keeps for which step."""
        self.asked.append(step)
        return self.runs


class Store:
    """A tracking store with a registry, and the steps at work in it; a branch goes on from another."""

    def __init__(self, folder: Path, branch_of: Store | None = None) -> None:
        import mlflow

        self.folder = folder
        self.cache = folder / "cache" if branch_of is None else branch_of.cache
        if branch_of is not None:
            shutil.copy(branch_of.folder / "store.db", folder)
        self.client = mlflow.MlflowClient(f"sqlite:///{folder / 'store.db'}")
        self.experiment = (
            self.client.create_experiment("all", artifact_location=f"file://{folder}/artifacts")
            if branch_of is None
            else branch_of.experiment
        )
        self.set_schema(SCHEMA)
        self.lines: Sequence[str] = ()
        self.asked: list[str] = []

    def set_schema(self, text: str) -> None:
        """Describe the rows of later calls anew."""
        path = self.folder / "schema.yaml"
        path.write_text(text, encoding="utf-8")
        self.schema = load(path)

    def _context(
        self, step: str, values: Any, chain: Around, upstream: Mapping[str, StepRun]
    ) -> Context[Any]:
        tags = {"step": step, "mlflow.user": "tester"}
        run_id = self.client.create_run(self.experiment, tags=tags).info.run_id
        scratch = self.folder / "scratch" / run_id
        scratch.mkdir(parents=True)
        return Context(
            step, values, self.schema, self.client, run_id, self.folder, self.cache, scratch,
            chain, dict(upstream),  # type: ignore[arg-type]
        )  # fmt: skip

    def _done(self, context: Context[Any], result: Result) -> StepRun:
        context.tag({**result.tags, "result_digest": result.digest})
        return StepRun(context.name, context.run_id, result.digest, dict(result.tags))

    def prepare(self, frame: pd.DataFrame) -> StepRun:
        """Preprocess these rows."""
        path = self.folder / f"{len(list(self.folder.glob('*.csv')))}.csv"
        frame.to_csv(path, index=False)
        located = sources.locate(str(path), self.schema, self.cache, self.folder)
        values = parameters.given(Preprocess, ROOT, {"schema": "schema.yaml", "data": str(path)})
        context = self._context("preprocess", values, Around(located, {}), {})
        return self._done(context, preprocess.work(context))

    def fit(
        self,
        data: StepRun,
        change: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame,
        **settings: Any,
    ) -> StepRun:
        """Fit and keep a logistic regression to the training and validation rows, changed as wanted."""
        values = parameters.given(Train, ROOT, {})
        context = self._context("tune", values, Around(None, {}), {"preprocess": data})
        tables = {
            name: change(table)
            for name, table in prepared.load(self.cache, data.result_digest, ("train", "validation")).items()
        }
        model = fitting.fit("logistic_regression", settings, tables["train"], self.schema, seed=0)
        rows = tables["validation"]
        risk = families.predict_risk(model, rows[list(self.schema.feature_names)])
        threshold = fitting.choose_threshold(rows[TARGET_COLUMN].to_numpy(), risk, 0.8)
        losses = metrics.log_losses(rows[TARGET_COLUMN], risk)
        fitted = fitting.Fitted(
            model, "logistic_regression", settings, threshold, "none", {}, risk, losses, fit_seconds=0.0
        )
        result = keep_model.package(context, fitted, fitting.Parts(**tables))
        context.log_json("best.json", {"family": "logistic_regression", "hyperparameters": fitted.params})
        return self._done(context, result)

    def evaluate(self, data: StepRun, fitted: StepRun) -> StepRun:
        """Measure a model on the test rows, all but what inputs matter."""
        context = self._context("evaluate", parameters.given(Evaluate, ROOT, {}), Around(None, {}), {})
        test = prepared.load(self.cache, data.result_digest, ("test",))["test"]
        model = saved.load(context.fetch(fitted.run_id, "model"))
        risk = families.predict_risk(model, test[list(self.schema.feature_names)])
        rows = scored_rows(test[TARGET_COLUMN].to_numpy(), risk, test)
        measured = evaluation.evaluate(rows, self.schema, 0.2, evaluation.Bootstrap(0, 100))
        context.log_json("evaluation.json", evaluation_document.to_json(measured))
        return self._done(context, Result(context.run_id, fitted.tags, []))

    def promote(self, data: StepRun | None = None, fitted: StepRun | None = None, **given: str) -> Verdict:
        """What promote comes to with these results, or without any for an approval or a rollback."""
        runs = {}
        if data is not None and fitted is not None:
            runs = {"preprocess": data, "tune": fitted, "evaluate": self.evaluate(data, fitted)}
        chain = Around(None, runs)
        self.asked = chain.asked
        context = self._context("promote", parameters.given(Promote, ROOT, given), chain, {})
        result = promote.work(context)
        self.client.set_terminated(context.run_id, "FAILED" if result.exit_code else "FINISHED")
        self.lines = result.lines
        told = verdict.read(self.folder)
        assert told is not None
        assert result.exit_code == told.exit_code
        return told

    def alias(self, name: str) -> str | None:
        """The version that an alias of the model points to."""
        return registry.alias_version(self.client, self.schema.name, name)

    def artifact(self, run_id: str | None, name: str) -> str:
        """Text of a run's artifact."""
        folder = Path(self.client.get_run(str(run_id)).info.artifact_uri.removeprefix("file://"))
        return (folder / name).read_text(encoding="utf-8")

    def attempt(self, run_id: str | None) -> dict[str, Any]:
        """The record of an attempt."""
        document: dict[str, Any] = json.loads(self.artifact(run_id, "attempt.json"))
        return document
