"""This project's search against LightGBM tuned by Optuna: same split, same wall time, same cores.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.against_optuna --folder .cache/datasets/<digest> --schema data/brfss2015.yaml

This project searches first, with its defaults; its seconds are then Optuna's timeout. Optuna's TPE tunes
LightGBM by the log loss on the validation rows with early stopping; the booster of its best trial is scored
without a refit, as is usual. Both are scored on the test rows; the interval is that of the paired difference
of the ROC AUCs (this project's minus Optuna's) over bootstrap replicates of those rows. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.__main__ import MISSED
from steps.data import processors
from steps.data.files import TARGET_COLUMN
from steps.data.schema import Schema
from steps.data.schema_file import load
from steps.measures import metrics
from steps.models import cross_validation, families, fitting
from steps.models.preference import prefer
from steps.models.search import Limits, search

CORES = processors.available()


def ours(
    folder: Path, schema_path: Path, schema: Schema, trials: int
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Risk of the test rows by this project's search and refit."""
    started = time.monotonic()
    objective = partial(
        cross_validation.make_objective,
        folder / "train.parquet",
        schema_path,
        fold_count=3,
        rows=cross_validation.TRIAL_ROWS,
        seed=0,
    )
    outcome = search(
        objective,
        families.SPACE,
        Limits(max_evals=trials, parallelism=CORES, seed=0, patience=20),
        progress=True,
    )
    tables = {part: pd.read_parquet(folder / f"{part}.parquet") for part in ("train", "validation", "test")}
    parts = fitting.Parts(tables["train"], tables["validation"])
    finalists = {
        family: fitting.fit_model(family, trial.params, parts, schema, recall=0.8, seed=0)
        for family, trial in outcome.best_of_each.items()
    }
    fitted = finalists[prefer(finalists).kept]
    seconds = time.monotonic() - started
    risk = families.predict_risk(fitted.model, tables["test"][list(schema.feature_names)])
    return risk, {
        "seconds": seconds,
        "trials": len(outcome.trials),
        "best": {fitted.family: dict(fitted.params)},
    }


def theirs(folder: Path, schema: Schema, seconds: float) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Risk of the test rows by LightGBM with Optuna's TPE, within the same wall time."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = list(schema.feature_names)
    tables = {
        part: _coded(pd.read_parquet(folder / f"{part}.parquet"), schema)
        for part in ("train", "validation", "test")
    }

    def objective(trial: optuna.Trial) -> float:
        chosen = {
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.2, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 4, 128, log=True),
            "min_child_samples": trial.suggest_int("min_child_samples", 5, 300, log=True),
            "reg_lambda": trial.suggest_float("reg_lambda", 1e-3, 100, log=True),
            "reg_alpha": trial.suggest_float("reg_alpha", 1e-3, 10, log=True),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.2, 1),
            "subsample": trial.suggest_float("subsample", 0.4, 1),
        }
        model = _booster(tables, names, chosen)
        loss = float(model.best_score_["valid_0"]["binary_logloss"])
        if not best or loss < best[0]:
            best[:] = [loss, model]
        return loss

    best: list[Any] = []
    started = time.monotonic()
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, timeout=seconds)
    risk = np.asarray(best[1].predict_proba(tables["test"][names])[:, 1])
    spent = time.monotonic() - started
    return risk, {"seconds": spent, "trials": len(study.trials), "best": study.best_params}


def fit_lightgbm(
    tables: Mapping[str, pd.DataFrame], schema: Schema, found: Mapping[str, Any]
) -> NDArray[np.float64]:
    """Risk of the test rows by LightGBM with hyperparameters that Optuna found; tables as prepared."""
    names = list(schema.feature_names)
    coded = {part: _coded(table, schema) for part, table in tables.items()}
    return np.asarray(_booster(coded, names, found).predict_proba(coded["test"][names])[:, 1])


def _booster(tables: Mapping[str, pd.DataFrame], names: list[str], chosen: Mapping[str, Any]) -> Any:
    """A booster that stops early by its log loss on the validation rows."""
    import lightgbm

    train, validation = tables["train"], tables["validation"]
    model = lightgbm.LGBMClassifier(
        n_estimators=2000, **chosen, subsample_freq=1, n_jobs=CORES, random_state=0, verbose=-1
    )
    model.fit(
        train[names],
        train[TARGET_COLUMN],
        eval_X=validation[names],
        eval_y=validation[TARGET_COLUMN],
        eval_metric="binary_logloss",
        callbacks=[lightgbm.early_stopping(50, verbose=False)],
    )
    return model


def _coded(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Text columns as categories, which LightGBM handles itself."""
    texts = {c.name: pd.CategoricalDtype(list(c.codes)) for c in schema.columns if c.is_text}
    return frame.astype(texts)


def compare(y: NDArray[np.int8], risks: dict[str, NDArray[np.float64]], replicates: int) -> dict[str, Any]:
    """Figures of both, and the 95 % interval of the ROC AUC difference on the same bootstrap replicates."""
    rankings = {name: metrics.rank(y, risk) for name, risk in risks.items()}
    differences = []
    for weights in metrics.bootstrap_weights(len(y), replicates, seed=0):
        ours_auc, theirs_auc = (
            metrics.roc_auc_of_counts(metrics.count(rankings[name], weights)) for name in ("ours", "theirs")
        )
        differences.append(ours_auc - theirs_auc)
    low, high = metrics.interval(np.concatenate(differences))
    figures = {
        name: {
            "roc_auc": metrics.roc_auc(y, risk),
            "average_precision": metrics.average_precision(y, risk),
            "log_loss": metrics.log_loss(y, risk),
            "brier": metrics.brier(y, risk),
            "calibration_slope": metrics.calibration(y, risk).slope,
        }
        for name, risk in risks.items()
    }
    return {**figures, "roc_auc_difference": [low, high], "reaches_above": -0.001, "passed": high > -0.001}


def main() -> int:
    """Exit code 3 where the interval does not reach above -0.001."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, help="a prepared data set: train, validation, test"
    )
    parser.add_argument("--schema", type=Path, default=Path("data/brfss2015.yaml"))
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--replicates", type=int, default=1000)
    values = parser.parse_args()
    schema = load(values.schema)
    our_risk, our_cost = ours(values.folder, values.schema, schema, values.trials)
    their_risk, their_cost = theirs(values.folder, schema, our_cost["seconds"])
    y = pd.read_parquet(values.folder / "test.parquet", columns=[TARGET_COLUMN])[TARGET_COLUMN].to_numpy()
    figures = compare(y, {"ours": our_risk, "theirs": their_risk}, values.replicates)
    print(json.dumps({"cost": {"ours": our_cost, "theirs": their_cost}, **figures}, indent=1))
    return 0 if figures["passed"] else MISSED


if __name__ == "__main__":
    sys.exit(main())
