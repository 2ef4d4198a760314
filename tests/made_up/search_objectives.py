"""Objectives for tests of the search: what worker processes import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from steps.models.families import Family, Value

Objective = Callable[[Family, Mapping[str, Value]], dict[str, float]]


def bowl(family: Family, params: Mapping[str, Value]) -> float:
    """A loss with one best place, at x = 3 in logistic regression."""
    return {"logistic_regression": 0.0, "random_forest": 0.5}[family] + (params["x"] - 3) ** 2 / 10


def make_bowl(jitter: float = 0.0) -> Objective:
    """With jitter, trials take uneven times that differ from process to process, and so end in any order."""

    def objective(family: Family, params: Mapping[str, Value]) -> dict[str, float]:
        time.sleep(jitter * ((os.getpid() * 7919 + time.monotonic_ns()) % 10) / 10)
        return {"loss": bowl(family, params), "roc_auc_mean": 0.8, "undefined": float("nan")}

    return objective


def make_failing(families: tuple[Family, ...]) -> Objective:
    def objective(family: Family, params: Mapping[str, Value]) -> dict[str, float]:
        if family in families:
            raise ValueError("could not convert string to float: 'heavy'")
        return {"loss": bowl(family, params)}

    return objective


def make_flat() -> Objective:
    return lambda family, params: {"loss": 0.25}


def make_killed(families: tuple[Family, ...]) -> Objective:
    """The kernel kills the process, as it does when memory runs out."""

    def objective(family: Family, params: Mapping[str, Value]) -> dict[str, float]:
        if family in families:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": bowl(family, params)}

    return objective


def make_killed_once(marker: Path) -> Objective:
    def objective(family: Family, params: Mapping[str, Value]) -> dict[str, float]:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": bowl(family, params)}

    return objective


def make_endless(families: tuple[Family, ...]) -> Objective:
    def objective(family: Family, params: Mapping[str, Value]) -> dict[str, float]:
        while family in families:
            time.sleep(60)
        return {"loss": bowl(family, params)}

    return objective


def make_unusable() -> Objective:
    raise FileNotFoundError("train.parquet")


def make_threads() -> Objective:
    """The loss is the number of threads that OpenMP and BLAS may use in a worker."""

    def objective(family: Family, params: Mapping[str, Value]) -> dict[str, float]:
        import numpy  # noqa: F401 - loads BLAS
        import sklearn.utils._openmp_helpers as openmp
        from threadpoolctl import threadpool_info

        pools = [pool["num_threads"] for pool in threadpool_info()]
        return {"loss": float(max([*pools, openmp._openmp_effective_n_threads()]))}

    return objective
