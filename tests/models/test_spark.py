"""Spark for real: a local cluster of two executors gives what one machine gives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from steps.data import sources, validation
from steps.data.errors import UserError
from steps.data.schema import Schema
from steps.models import (
    families,
    fitting,
    saved,
    scoring,
    search,
    spark_scoring,
    spark_search,
    spark_session,
)
from steps.models.families import Family, Hyperparameter
from tests.conftest import QUICK, ROOT, Champion, Checkout, check_out, require
from tests.made_up.clinic import clinic_rows, clinic_schema
from tests.made_up.search_objectives import make_bowl

# A warning of Spark, of hyperopt or of their threads is no finding here, and as an error would stop a thread.
pytestmark = pytest.mark.filterwarnings("ignore")

# Two families with one hyperparameter; the bowl's best place is x = 3 of the first.
_X = (Hyperparameter("x", 0.0, 10.0, default=8.0),)
SPACE: Mapping[Family, tuple[Hyperparameter, ...]] = {"logistic_regression": _X, "random_forest": _X}
BOWL = partial(make_bowl, 0.3)


def _search(cluster: Any, *, max_evals: int, **options: Any) -> search.SearchResult:
    limits = search.Limits(max_evals, options.pop("parallelism", 2), options.pop("seed", 1))
    return spark_search.search(BOWL, SPACE, limits, cluster, **options)


def test_without_pyspark_the_person_is_told_what_to_install() -> None:
    """Spark is an extra: asking for it without having it is a sentence, not a traceback."""
    try:
        import pyspark  # noqa: F401
    except ImportError:
        with (
            pytest.raises(UserError, match=r"requirements-spark\.txt"),
            spark_session.session("", "score", ROOT),
        ):
            pass


def test_the_output_is_a_new_folder(tmp_path: Path) -> None:
    """An existing one is never touched, and a missing name is asked for."""
    with pytest.raises(UserError, match="exists"):
        spark_scoring.check_target(str(tmp_path), tmp_path)
    with pytest.raises(UserError, match="name the folder"):
        spark_scoring.check_target("", tmp_path)
    assert spark_scoring.check_target("risks", tmp_path) == tmp_path / "risks"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two executors of one core; their warnings about pandas 3 are answered by the tests below."""
    require("java")
    pytest.importorskip("pyspark", reason="pyspark is not installed: see requirements-spark.txt")
    os.environ["PYTHONPATH"] = str(ROOT)
    with spark_session.session("local-cluster[2,1,1024]", "test", ROOT) as session:
        yield session


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


def _rows(count: int) -> pd.DataFrame:
    rows = clinic_rows(count)
    rows["glucose"] = rows["glucose"].astype(object)
    rows["patient"] = range(count)
    return rows


@pytest.mark.soak
def test_scores_equal_those_of_one_machine(cluster: Any, tmp_path: Path, schema: Schema) -> None:
    """To 1e-12, rows that break the schema with the same reasons in the same places."""
    raw = _rows(3000).assign(__file__=pd.Categorical(["a"] * 3000))
    valid = validation.check(raw, schema, "readmitted", ("yes",)).valid
    parts = fitting.Parts(valid[:2000], valid[2000:])
    fitted = fitting.fit_model("logistic_regression", {}, parts, schema, recall=0.8, seed=0, threads=1)
    saved.save(fitted.model, tmp_path / "model", schema, {})
    rows = _rows(2000).astype({"glucose": float})
    rows.loc[700, "glucose"] = 4000.0
    rows.loc[1500, "ward"] = "C9"
    folder = tmp_path / "data"
    folder.mkdir()
    rows[:1200].to_parquet(folder / "a.parquet", index=False)
    rows[1200:].to_parquet(folder / "b.parquet", index=False)
    located = sources.locate(str(folder), schema, tmp_path, tmp_path)
    scored = spark_scoring.score(cluster, located, tmp_path / "cluster", tmp_path / "model", schema)
    scoring.score(
        located, tmp_path / "one.parquet", lambda frame: families.predict_risk(fitted.model, frame), schema
    )
    found = pd.read_parquet(tmp_path / "cluster").sort_values(["file", "row"]).reset_index(drop=True)
    expected = pd.read_parquet(tmp_path / "one.parquet")
    assert (scored.rows, scored.broken) == (2000, 2)
    assert found["patient"].tolist() == expected["patient"].tolist()
    assert found["reason"].dropna().to_dict() == expected["reason"].dropna().to_dict()
    assert found["risk"].isna().to_numpy().nonzero()[0].tolist() == [700, 1500]
    assert np.nanmax(np.abs(found["risk"] - expected["risk"])) <= 1e-12
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.soak
def test_a_search_on_two_executors_keeps_every_trial_and_goes_on(cluster: Any) -> None:
    """Defaults first as on one machine, each trial handed over once, and the next call takes up what is
    there.
    """
    recorded: list[search.Trial] = []
    limits: dict[str, Any] = {"parallelism": 2, "seed": 3, "on_trial": recorded.append}
    found = _search(cluster, max_evals=8, **limits)
    assert [trial.number for trial in found.trials] == list(range(8))
    assert sorted(trial.number for trial in recorded) == list(range(8))
    for number, family in enumerate(SPACE):
        assert found.trials[number].family == family
        assert found.trials[number].params == {"x": 8.0}
    assert found.best.family == "logistic_regression"
    longer = _search(cluster, max_evals=11, done=found.trials, **limits)
    assert longer.trials[:8] == found.trials
    assert len(longer.trials) == len(recorded) == 11
    assert longer.best.loss is not None
    assert found.best.loss is not None
    assert longer.best.loss <= found.best.loss


@pytest.mark.soak
def test_a_record_that_cannot_be_kept_ends_the_search(cluster: Any) -> None:
    """The error comes out; it is not lost in a thread, with the search waiting for ever."""

    def fails(trial: search.Trial) -> None:
        raise OSError("the store is away")

    with pytest.raises(OSError, match="the store is away"):
        _search(cluster, max_evals=4, on_trial=fails)


def _executors() -> list[int]:
    """Process ids of this test's executors, children of its Java process."""
    import psutil

    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if "CoarseGrainedExecutorBackend" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


@pytest.mark.soak
def test_a_killed_executor_loses_no_trial(cluster: Any) -> None:
    """kill -9 of one of the two while trials run: all come back finished."""
    running = _executors()
    assert len(running) == 2
    killer = threading.Timer(2.0, os.kill, (running[0], signal.SIGKILL))
    killer.start()
    found = _search(cluster, max_evals=10)
    killer.join()
    assert [trial.number for trial in found.trials] == list(range(10))
    assert all(trial.loss is not None for trial in found.trials)


def _evaluated(checkout: Checkout) -> tuple[dict[str, Any], set[frozenset[str]]]:
    """What the evaluation of the tuned model found on test rows, and which figures its trials keep."""
    client = mlflow.MlflowClient(checkout.tracking_uri, checkout.tracking_uri)
    (run,) = client.search_runs(["0"], "tags.step = 'evaluate' and tags.model = 'tuned'")
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    trials = client.search_runs(["0"], "tags.step = 'trial'")
    assert len(trials) == QUICK["max_evals"]
    kept = {frozenset({*trial.data.metrics, *trial.data.params}) for trial in trials}
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8")), kept


@pytest.mark.soak
def test_a_winner_from_a_cluster_evaluates_like_a_local_one(champion: Champion, tmp_path: Path) -> None:
    """`-e evaluate -P engine=spark` from nothing: the same record of trials, and a model whose ROC
    AUC on test rows lies within the interval of the one that was found on this machine.
    """
    require("java")
    pytest.importorskip("pyspark", reason="pyspark is not installed: see requirements-spark.txt")
    checkout = check_out(tmp_path / "project")
    code, output = checkout.mlflow_run("evaluate", engine="spark", master="local-cluster[2,1,1024]", **QUICK)
    assert code == 0, output
    (found, record), (expected, expected_record) = _evaluated(checkout), _evaluated(champion.checkout)
    assert record == expected_record
    interval = expected["metrics"]["roc_auc"]
    assert interval["low"] <= found["metrics"]["roc_auc"]["value"] <= interval["high"]
