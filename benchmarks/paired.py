"""The champion of a kept survey chain against the best of each other family, and LightGBM, on the same rows.

    python -m benchmarks.survey --project FOLDER
    python -m benchmarks.paired --project FOLDER --folder FOLDER/.cache/datasets/<digest>

The best trial of each family in the chain's search is fitted again as `tune` fits its finalists; the champion
is loaded. `--lightgbm` names a file with hyperparameters that Optuna found (`benchmarks.against_optuna`
prints them); that booster is fitted as there. Prints one JSON object: figures on the test rows, and the
champion's ROC AUC less the other's, paired, with its 95 % interval (DeLong).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.__main__ import MISSED
from benchmarks.against_optuna import fit_lightgbm
from benchmarks.glass_box import difference, figures
from steps.data.files import TARGET_COLUMN
from steps.data.schema_file import load
from steps.models import families, fitting, saved
from steps.models.families import Family

LOWEST = -0.002


def best_trials(client: Any) -> dict[Family, dict[str, Any]]:
    """Hyperparameters of the trial with the least log loss, by family."""
    from steps.models import trials

    runs = client.search_runs(
        ["0"], "tags.step = 'trial' and tags.trial_status = 'finished'", max_results=1000
    )
    best: dict[Family, Any] = {}
    for run in runs:
        trial = trials.from_record(run.data.params, run.data.metrics, run.data.tags, families.SPACE)
        if trial.loss is not None and (trial.family not in best or trial.loss < best[trial.family].loss):
            best[trial.family] = trial
    return {family: dict(trial.params) for family, trial in best.items()}


def main() -> int:
    """Exit code 3 where the champion may be worse than another by more than 0.002."""
    import mlflow

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="the data set that the chain prepared")
    parser.add_argument("--schema", type=Path, default=Path("data/brfss2015.yaml"))
    parser.add_argument("--families", default="logistic_regression,histogram_gradient_boosting")
    parser.add_argument("--lightgbm", type=Path)
    values = parser.parse_args()
    schema = load(values.schema)
    uri = f"sqlite:///{values.project.resolve() / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    tables = {
        part: pd.read_parquet(values.folder / f"{part}.parquet") for part in ("train", "validation", "test")
    }
    parts = fitting.Parts(tables["train"], tables["validation"])
    test, y = tables["test"][list(schema.feature_names)], tables["test"][TARGET_COLUMN].to_numpy()
    version = client.get_model_version_by_alias(schema.name, "champion")
    champion = saved.load(Path(client.download_artifacts(version.run_id, "model")))
    ours = families.predict_risk(champion, test)
    risks: dict[str, NDArray[np.float64]] = {}
    best = best_trials(client)
    for family in (name for name in best if name in values.families.split(",")):
        fitted = fitting.fit_model(family, best[family], parts, schema, recall=0.8, seed=0)
        risks[family] = families.predict_risk(fitted.model, test)
        print(f"{family}: done", file=sys.stderr, flush=True)
    if values.lightgbm:
        found = json.loads(values.lightgbm.read_text(encoding="utf-8"))
        risks["lightgbm"] = fit_lightgbm(tables, schema, found)
    result: dict[str, Any] = {"champion": figures(y, ours)}
    for name, risk in risks.items():
        result[name] = {**figures(y, risk), "champion_minus_this": difference(y, ours, risk)}
    lowest = min(one["champion_minus_this"]["low"] for name, one in result.items() if name != "champion")
    print(json.dumps({**result, "lowest_end": lowest, "wanted_above": LOWEST}, indent=1))
    return 0 if lowest > LOWEST else MISSED


if __name__ == "__main__":
    sys.exit(main())
