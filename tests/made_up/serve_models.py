"""Two small models behind MLflow's real scoring server, in one process: `serve_models.py FOLDER PORT PORT`.

The first model has number columns, the second a text column as well. Each one's reference.json is written to
FOLDER before its port answers. The models are saved and loaded as in production: skops, a signature of
doubles and strings, probabilities as answers.
"""

import json
import sys
import threading
from itertools import pairwise
from pathlib import Path

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
import uvicorn
from mlflow.models import ModelSignature
from mlflow.pyfunc import scoring_server
from mlflow.types import ColSpec, Schema
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
ROWS = 2000
BMI_EDGES = [22.0, 25.0, 28.0, 31.0, 34.0]


def frame(text: bool) -> pd.DataFrame:
    """People made up on the spot."""
    rng = np.random.default_rng(7)
    people = pd.DataFrame(
        {
            "BMI": rng.normal(28, 6, ROWS).clip(12, 98).round(1),
            "Age": rng.integers(1, 14, ROWS).astype(float),
            "HighBP": rng.integers(0, 2, ROWS).astype(float),
            "GenHlth": rng.integers(1, 6, ROWS).astype(float),
        }
    )
    people.loc[::50, "GenHlth"] = np.nan
    if text:
        people["city"] = rng.choice(["Oslo", "Bergen", "Tromsø"], ROWS).astype(object)
    return people


def train(people: pd.DataFrame, folder: Path) -> mlflow.pyfunc.PyFuncModel:
    """Fit, save and load a model of these people."""
    rng = np.random.default_rng(8)
    outcome = rng.random(ROWS) < 1 / (1 + np.exp(-(0.1 * people.BMI + 0.15 * people.Age - 5)))
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"] if "city" in people else []),
        remainder="passthrough",
    )
    model = make_pipeline(encoder, HistGradientBoostingClassifier(max_iter=30, random_state=0))
    model.fit(people, outcome.astype(int))
    columns = [ColSpec("string" if name == "city" else "double", name) for name in people]
    mlflow.sklearn.save_model(
        model,
        folder,
        signature=ModelSignature(Schema(columns)),
        serialization_format="skops",
        skops_trusted_types=TRUSTED,
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["mlflow"],
    )
    return mlflow.pyfunc.load_model(str(folder))


def feature(name: str, values: pd.Series) -> dict[str, object]:
    """One feature of the reference."""
    known = values.dropna()
    common = {"name": name, "missing_codes": [], "missing": int(values.isna().sum())}
    if name == "BMI":
        counts = np.bincount(np.searchsorted(BMI_EDGES, known, side="right"), minlength=6)
        bins = ["[12,22)", "[22,25)", "[25,28)", "[28,31)", "[31,34)", "[34,98]"]
        limits = {"kind": "numeric", "type": "double", "minimum": 12, "maximum": 98, "edges": BMI_EDGES}
        return {**common, **limits, "bins": bins, "counts": counts.tolist()}
    levels = sorted(set(known))
    bins = [level if name == "city" else f"{level:g}" for level in levels]
    kind = {
        "kind": "nominal" if name == "city" else "ordinal",
        "type": "string" if name == "city" else "double",
    }
    counts = [int((known == level).sum()) for level in levels]
    return {**common, **kind, "levels": levels, "bins": bins, "labels": bins, "counts": counts}


def reference(model: mlflow.pyfunc.PyFuncModel, people: pd.DataFrame) -> dict[str, object]:
    """The reference of a model, with score bins of equal numbers of rows."""
    risk = model.predict(people)[:, 1]
    outcome = np.random.default_rng(9).random(ROWS) < risk
    edges = np.quantile(risk, np.linspace(0, 1, 21))
    edges[[0, -1]] = 0, 1
    place = np.searchsorted(edges, risk, side="right") - 1
    golden = people.head(8)
    return {
        "format": 1,
        "model": {
            "name": "diabetes-risk-test",
            "version": None,
            "run_id": "0123456789abcdef",
            "family": "histogram_gradient_boosting",
            "trained_at": 1_790_000_000,
            "digest": "d" * 16,
            "synthetic": True,
        },
        "data": {"schema": "test", "kind": "synthetic", "digest": "e" * 16, "rows": {"train": ROWS}},
        "target": {"name": "diabetes", "meaning": "made up", "disclaimer": "made up"},
        "features": [feature(name, people[name]) for name in people],
        "score": {
            "edges": edges.tolist(),
            "bins": [f"{low:.3f}-{high:.3f}" for low, high in pairwise(edges)],
            "counts": np.bincount(place, minlength=20).tolist(),
            "sums": np.bincount(place, risk, minlength=20).tolist(),
            "positives": np.bincount(place[outcome], minlength=20).tolist(),
            "threshold": edges[12],
            "threshold_bin": 12,
        },
        "validation": {"rows": ROWS, "roc_auc": 0.75},
        "floors": {"roc_auc": 0.7},
        "golden": {
            "columns": list(people),
            "rows": [
                [None if pd.isna(value) else value for value in row] for row in golden.to_numpy().tolist()
            ],
            "scores": model.predict(golden)[:, 1].tolist(),
        },
    }


def main() -> None:
    """Train both models, write their references, serve them until killed."""
    folder, *ports = Path(sys.argv[1]), *map(int, sys.argv[2:])
    servers: list[threading.Thread] = []
    for name, port in zip(("numbers", "text"), ports, strict=True):
        people = frame(text=name == "text")
        model = train(people, folder / name)
        document = json.dumps(reference(model, people))
        (folder / f"{name}.json").write_text(document, encoding="utf-8")
        config = uvicorn.Config(scoring_server.init(model), port=port, log_level="error")
        servers.append(threading.Thread(target=uvicorn.Server(config).run, name=name))
        servers[-1].start()
    for server in servers:
        server.join()


if __name__ == "__main__":
    main()
