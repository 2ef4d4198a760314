"""A saved model answers as the fitted one did, wherever it is asked; nothing else is ever loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
import skops.io
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from steps.data.schema import Schema
from steps.models import estimators, families, fitting, missing_answers, saved, served_model
from steps.models.families import FAMILIES, Family
from steps.models.saved import RefusedModelError
from tests.made_up.clinic import clinic_schema
from tests.made_up.clinic_models import clinic_frame

# What no valid frame holds and a caller may still send: codes, an unseen ward, absurd and missing numbers.
STRANGE = pd.DataFrame(
    {
        "glucose": [0.0, np.nan, 1e9, -5.0, 12.5],
        "ward": ["?", None, "roof", "NA", "A1"],
        "stage": [9.0, np.nan, 77.0, 2.0, 3.0],
        "smoker": [np.nan, 1.0, 0.0, 3.0, 1.0],
    }
).astype({"ward": "str"})


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return clinic_frame(1500)


@pytest.fixture(scope="module")
def models(schema: Schema, frame: pd.DataFrame) -> dict[Family, Any]:
    """One of each family, with answers hidden in training; two of them calibrated."""
    features, y = frame[list(schema.feature_names)], frame["__target__"].to_numpy()
    rows = missing_answers.with_hidden_answers(features, y, seed=3)
    fitted: dict[Family, Any] = {
        family: estimators.fit(family, {}, rows, schema, seed=3, bags=2) for family in FAMILIES
    }
    return {
        **fitted,
        "explainable_boosting": fitting.calibrated(fitted["explainable_boosting"], "sigmoid", features, y),
        "random_forest": fitting.calibrated(fitted["random_forest"], "isotonic", features, y),
        "histogram_gradient_boosting": fitting.calibrated(
            fitted["histogram_gradient_boosting"], "sigmoid", features, y
        ),
    }


@pytest.fixture(scope="module")
def folders(
    models: dict[Family, Any], schema: Schema, tmp_path_factory: pytest.TempPathFactory
) -> dict[Family, Path]:
    """The models as folders; tests copy what they change."""
    folder = tmp_path_factory.mktemp("models")
    for family, model in models.items():
        saved.save(model, folder / family, schema, {"synthetic": True})
    return {family: folder / family for family in models}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_answers_as_the_fitted_one(
    family: Family,
    models: dict[Family, Any],
    folders: dict[Family, Path],
    schema: Schema,
    frame: pd.DataFrame,
) -> None:
    """Through MLflow's own loader, as the container does, and read by the steps: to the last bit."""
    served = mlflow.pyfunc.load_model(str(folders[family]))
    read = saved.load(folders[family])
    assert served.metadata.metadata == {"synthetic": True}
    features = frame[list(schema.feature_names)]
    for rows in (features, STRANGE, STRANGE[1:2], families.example_rows(schema, 8, nulls=True)):
        risk = families.predict_risk(models[family], rows)
        np.testing.assert_array_equal(families.predict_risk(read, rows), risk)
        np.testing.assert_array_equal(served.predict(rows), np.column_stack([1 - risk, risk]))


@pytest.mark.parametrize("family", FAMILIES)
def test_one_line_makes_whole_numbers_and_categories_what_the_model_takes(
    family: Family, models: dict[Family, Any], folders: dict[Family, Path]
) -> None:
    """As pandas reads a file: MLflow refuses int64 for a double, and the card says what to write."""
    frame = pd.DataFrame({"glucose": [21, 8], "ward": ["A1", "B2"], "stage": [2, 3], "smoker": [1, 0]})
    model = mlflow.pyfunc.load_model(str(folders[family]))
    doubles = frame.astype({"glucose": "float64", "stage": "float64", "smoker": "float64", "ward": "str"})
    risk = families.predict_risk(models[family], doubles)
    with pytest.raises(mlflow.MlflowException, match="Incompatible input types"):
        model.predict(frame)
    taken = model.metadata.get_input_schema()
    for given in (
        frame,
        frame.astype({"glucose": "Int64", "stage": "Int16", "smoker": "boolean"}),
        frame.astype({"smoker": "bool", "ward": "category", "stage": "category"}),
        frame.assign(note="a column that no model knows"),
    ):
        # The card's line.
        made = given.astype(dict(zip(taken.input_names(), taken.pandas_types(), strict=True)))
        np.testing.assert_array_equal(model.predict(made)[:, 1], risk)


def test_reasons_are_asked_for_by_a_parameter(folders: dict[Family, Path], models: dict[Family, Any]) -> None:
    """As MLflow passes `params`: each row with risk, the largest effects and the missing answers."""
    served = mlflow.pyfunc.load_model(str(folders["explainable_boosting"]))
    answers = served.predict(STRANGE, params={"reasons": 2})
    assert json.loads(json.dumps(answers)) == models["explainable_boosting"].answers(STRANGE, 2)
    assert [len(answer["reasons"]) for answer in answers] == [2] * 5
    assert answers[1]["missing"] == ["glucose", "ward", "stage"]
    with pytest.raises(ValueError, match="0 or more"):
        served.predict(STRANGE, params={"reasons": -1})


def test_a_family_that_is_not_additive_says_that_it_has_no_reasons(folders: dict[Family, Path]) -> None:
    served = mlflow.pyfunc.load_model(str(folders["random_forest"]))
    risks = served.predict(STRANGE)[:, 1].tolist()
    assert served.predict(STRANGE, params={"reasons": 3}) == [
        {"risk": risk, "reasons": None} for risk in risks
    ]


def test_text_where_a_number_belongs_is_refused(folders: dict[Family, Path]) -> None:
    """By MLflow, whose message shows the rows; by the steps, whose message does not."""
    with pytest.raises(mlflow.MlflowException):
        mlflow.pyfunc.load_model(str(folders["explainable_boosting"])).predict(STRANGE.assign(glucose="high"))
    with pytest.raises(ValueError, match="the column glucose should hold numbers") as error:
        families.predict_risk(saved.load(folders["explainable_boosting"]), STRANGE.assign(glucose="high"))
    assert "high" not in str(error.value)


@pytest.mark.parametrize("family", ["explainable_boosting", "histogram_gradient_boosting"])
def test_serving_needs_no_code_of_this_project_and_no_training_library(
    family: Family, folders: dict[Family, Path], tmp_path: Path
) -> None:
    """A process that can import neither `steps` nor `interpret` loads the model and predicts its example."""
    program = (
        "import sys, json; from importlib.util import find_spec\n"
        "sys.modules['interpret'] = None\n"
        "import mlflow.pyfunc\n"
        "assert find_spec('steps') is None\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print(json.dumps(model.predict(model.input_example).tolist()))"
    )
    output = subprocess.run(
        [sys.executable, "-P", "-c", program, str(folders[family])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert output.returncode == 0, output.stderr
    np.testing.assert_allclose(np.array(json.loads(output.stdout)).sum(axis=1), [1, 1])


def test_a_container_installs_pinned_packages_and_nothing_to_train_with(folders: dict[Family, Path]) -> None:
    pins = (folders["explainable_boosting"] / "requirements.txt").read_text().splitlines()
    assert {pin.partition("==")[0] for pin in pins} == {"httptools", "mlflow", "numpy", "pandas", "uvloop"}
    pins = (folders["random_forest"] / "requirements.txt").read_text().splitlines()
    assert {"scikit-learn", "skops"} < {pin.partition("==")[0] for pin in pins}
    assert all("==" in pin for pin in pins)


def test_a_saved_model_names_no_folder_of_this_machine(folders: dict[Family, Path]) -> None:
    document = (folders["explainable_boosting"] / "MLmodel").read_text()
    assert str(Path(served_model.__file__).parent) not in document
    assert "/tmp" not in document


# What is refused, before anything of it runs


def rewritten(folder: Path, *path: str, value: object) -> None:
    """Change one entry of a folder's MLmodel."""
    document = yaml.safe_load((folder / "MLmodel").read_text())
    entry = document
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    (folder / "MLmodel").write_text(yaml.safe_dump(document))


def one_byte(folder: Path) -> None:
    path = folder / "served_model.py"
    path.write_bytes(path.read_bytes().replace(b"import json", b"import jSon", 1))


def evil_skops(folder: Path) -> None:
    """A function that skops would fetch from `os`: harmless here, since nothing is transformed."""
    pipeline = make_pipeline(FunctionTransformer(np.asarray), LogisticRegression()).fit(
        [[0.0], [1.0]], [0, 1]
    )
    pipeline.steps[0][1].func = __import__("os").system
    skops.io.dump(pipeline, folder / "artifacts" / "model.skops")


EVIL: dict[str, tuple[Family, Callable[[Path], None], str]] = {
    "changed code": (
        "explainable_boosting",
        one_byte,
        r"sha256 of its served_model\.py is .* which no release",
    ),
    "no code": (
        "explainable_boosting",
        lambda folder: (folder / "served_model.py").unlink(),
        "no release has",
    ),
    "other code": (
        "explainable_boosting",
        lambda folder: rewritten(folder, "flavors", "python_function", "model_code_path", value="evil.py"),
        r"code file evil\.py",
    ),
    "other loader": (
        "explainable_boosting",
        lambda folder: rewritten(folder, "flavors", "python_function", "loader_module", value="evil"),
        "the loader evil",
    ),
    "pickle": (
        "explainable_boosting",
        lambda folder: rewritten(
            folder, "flavors", "python_function", "python_model", value="python_model.pkl"
        ),
        r"python_model\.pkl",
    ),
    "code folder": (
        "explainable_boosting",
        lambda folder: rewritten(folder, "flavors", "python_function", "code", value="code"),
        "names code",
    ),
    "other artifact": (
        "explainable_boosting",
        lambda folder: rewritten(
            folder, "flavors", "python_function", "artifacts", "terms", "path", value="../terms.json"
        ),
        r"terms file \.\./terms\.json",
    ),
    "no document": (
        "explainable_boosting",
        lambda folder: (folder / "artifacts" / "terms.json").write_text("[]") and None,
        "no document of terms",
    ),
    "own type": ("random_forest", evil_skops, r"posix\.system"),
    "no MLmodel": ("random_forest", lambda folder: (folder / "MLmodel").unlink(), "no MLmodel"),
}


@pytest.mark.parametrize("name", EVIL)
def test_a_model_that_is_not_ours_is_refused_by_what_it_would_load(
    name: str, folders: dict[Family, Path], tmp_path: Path
) -> None:
    family, change, reason = EVIL[name]
    folder = tmp_path / "model"
    shutil.copytree(folders[family], folder)
    assert saved.load(folder) is not None
    change(folder)
    with pytest.raises(RefusedModelError, match=reason):
        saved.load(folder)


def old_model(folder: Path, model: Any, **options: Any) -> None:
    """A model as releases before the glass box saved it: MLflow's flavor of scikit-learn with skops."""
    settings = {"serialization_format": "skops", "skops_trusted_types": served_model.TRUSTED_TYPES, **options}
    mlflow.sklearn.save_model(
        model, str(folder), pyfunc_predict_fn="predict_proba", pip_requirements=["scikit-learn"], **settings
    )


def test_a_model_of_an_earlier_release_is_read(
    models: dict[Family, Any], schema: Schema, frame: pd.DataFrame, tmp_path: Path
) -> None:
    """An older champion is compared with and rolled back to."""
    model = models["histogram_gradient_boosting"]
    old_model(tmp_path / "old", model)
    features = frame[list(schema.feature_names)]
    np.testing.assert_array_equal(
        families.predict_risk(saved.load(tmp_path / "old"), features), families.predict_risk(model, features)
    )


def test_an_earlier_model_may_not_bring_its_own_list_of_types(
    models: dict[Family, Any], tmp_path: Path
) -> None:
    """MLflow trusts the list that stands in the model's own MLmodel; the steps and the release do not."""
    types = [*served_model.TRUSTED_TYPES, "posix.system"]
    old_model(tmp_path / "old", models["logistic_regression"], skops_trusted_types=types)
    with pytest.raises(RefusedModelError, match=r"trusts types that this project does not: posix\.system"):
        saved.load(tmp_path / "old")


def test_a_pickled_model_is_refused(models: dict[Family, Any], tmp_path: Path) -> None:
    old_model(
        tmp_path / "old",
        models["logistic_regression"],
        serialization_format="cloudpickle",
        skops_trusted_types=None,
    )
    with pytest.raises(RefusedModelError, match="kept as cloudpickle"):
        saved.load(tmp_path / "old")


def test_the_code_that_is_served_is_on_the_list_of_released_versions() -> None:
    """Whoever changes `served_model.py` adds a line to `served_model.sha256` and keeps the older ones."""
    assert saved.serving_code() in saved.code_digests()
