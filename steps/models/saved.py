"""A fitted model as a folder: an MLflow model that any MLflow serves, read back here without running it.

This module and `served_model` decide what may be loaded, never the model. A folder is read only if its
MLmodel names the loaders, the files and the code that this project writes, or wrote before release 3 (a
pipeline in a skops file, loaded by `mlflow.sklearn`). The steps then read the data file themselves and never
load through `mlflow.pyfunc`, which would run the code file beside it. A container does run that file, so code
that builds or publishes a container calls `check` first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.data.errors import UserError
from steps.models import served_model
from steps.models.families import Model, example_rows
from steps.models.served_model import PIPELINE_FILE, TERMS_FILE, TRUSTED_TYPES, ModelFileError, Terms

if TYPE_CHECKING:
    from steps.data.schema import Schema

_CODE = Path(served_model.__file__)
# One line for each released version of `served_model.py`: its sha256, then when and why it changed.
_CODE_DIGESTS = _CODE.with_name("served_model.sha256")

# Packages of the serving container. uvicorn, which is MLflow's server, uses uvloop and httptools where they
# are installed, in place of slower parts of its own.
_SERVER_PACKAGES = ("httptools", "mlflow", "numpy", "pandas", "uvloop")
_PIPELINE_PACKAGES = ("scikit-learn", "scipy", "skops")


class RefusedModelError(UserError):
    """A model folder that this project did not write; the message names the foreign part."""


def pip_requirements(model: Model) -> list[str]:
    """The packages that a container needs to serve the model, pinned to the installed versions."""
    from importlib.metadata import version

    model_packages = () if isinstance(model, Terms) else _PIPELINE_PACKAGES
    return [f"{package}=={version(package)}" for package in sorted((*_SERVER_PACKAGES, *model_packages))]


def serving_code() -> str:
    """The sha256 of the code that a model saved now is served with."""
    return hashlib.sha256(_CODE.read_bytes()).hexdigest()


def save(model: Model, folder: Path, schema: Schema, metadata: Mapping[str, Any]) -> None:
    """Write the model as an MLflow model ("models from code") into a folder that does not exist yet.

    Its `predict` answers with the probabilities of both classes, shape (rows, 2), or with reasons where the
    parameter `reasons` is more than 0. metadata: values that JSON can hold, for the MLmodel file. No training
    row is saved, only what the estimator learned.
    """
    import logging
    import tempfile

    import mlflow.pyfunc

    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it logs that it checks the example
    with tempfile.TemporaryDirectory() as scratch:
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(_CODE),
            artifacts=_write_data(model, Path(scratch)),
            model_config={
                "numbers": [column.name for column in schema.columns if not column.is_text],
                "texts": [column.name for column in schema.columns if column.is_text],
            },
            signature=_signature(schema),
            input_example=example_rows(schema, 2),
            pip_requirements=pip_requirements(model),
            metadata=dict(metadata),
        )
    _forget_this_machine(folder)


def _write_data(model: Model, folder: Path) -> dict[str, str]:
    """Write the file that holds the model; returns its path under the name that `served_model` looks up."""
    if isinstance(model, Terms):
        from steps.models import terms

        terms.write(model, folder / TERMS_FILE)
        return {"terms": str(folder / TERMS_FILE)}
    import skops.io

    skops.io.dump(model, folder / PIPELINE_FILE)
    return {"pipeline": str(folder / PIPELINE_FILE)}


def _signature(schema: Schema) -> Any:
    """Doubles and texts, by which MLflow's server parses a CSV body, and the parameter `reasons`.

    MLflow's `predict` refuses whole numbers for a double; the model card shows the line that converts them.
    Its server cannot parse CSV into columns of any type, which `predict` would accept.
    """
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, TensorSpec
    from mlflow.types import Schema as MlflowSchema

    return ModelSignature(
        inputs=MlflowSchema(
            [ColSpec("string" if column.is_text else "double", column.name) for column in schema.columns]
        ),
        outputs=MlflowSchema([TensorSpec(np.dtype(np.float64), (-1, 2))]),
        params=ParamSchema([ParamSpec("reasons", DataType.long, 0)]),
    )


def _forget_this_machine(folder: Path) -> None:
    """Remove this machine's paths from the MLmodel: MLflow writes them, and reads only their last part."""
    from mlflow.models import Model as MlflowModel

    document = MlflowModel.load(str(folder))
    flavor = document.flavors["python_function"]
    flavor["model_code_path"] = _CODE.name
    for artifact in flavor["artifacts"].values():
        artifact["uri"] = artifact["path"]
    document.save(str(folder / "MLmodel"))


def load(folder: Path) -> Model:
    """Load a model that `save` wrote, from its data file alone. Raises RefusedModelError for any other."""
    path = check(folder)
    try:
        if path.name == TERMS_FILE:
            return served_model.read_terms(path)
        return served_model.read_pipeline(path)
    except ModelFileError as error:
        raise RefusedModelError(f"{_label(folder)} {error}") from None


def check(folder: Path) -> Path:
    """Check everything that loading the model would run or import; returns the file that holds the model.

    Raises RefusedModelError naming a foreign part: a loader, a pickle, a code file with a digest that no
    release has, a type that a skops file may not load.
    """
    import yaml

    try:
        document = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        flavors = {name: dict(content) for name, content in document["flavors"].items()}
        function = flavors["python_function"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError):
        raise RefusedModelError(f"{_label(folder)} there is no MLmodel file that can be read") from None
    loader = function.get("loader_module")
    if loader == "mlflow.pyfunc.loaders.code_model" and set(flavors) == {"python_function"}:
        path = _check_code_model(folder, function)
    elif loader == "mlflow.sklearn" and set(flavors) == {"python_function", "sklearn"}:
        path = _check_pipeline_model(folder, function, flavors["sklearn"])
    else:
        raise _refused(
            folder, f"its MLmodel names the loader {loader} and the flavors {', '.join(sorted(flavors))}"
        )
    if not path.is_file() or path.is_symlink():
        raise _refused(folder, f"it has no file {path.name}")
    if path.name == PIPELINE_FILE:
        unknown = served_model.untrusted_types(path)
        if unknown:
            raise _refused(folder, f"its {path.name} wants types that are not trusted: {', '.join(unknown)}")
    return path


def _check_code_model(folder: Path, function: Mapping[str, Any]) -> Path:
    for key in ("python_model", "code", "data", "auth_policy"):
        if function.get(key):
            raise _refused(
                folder, f"its MLmodel names {function[key]} ({key}): only tables and skops files are loaded"
            )
    name = Path(str(function.get("model_code_path"))).name
    if name != _CODE.name:
        raise _refused(folder, f"its MLmodel names the code file {name}")
    code = folder / name
    digest = hashlib.sha256(code.read_bytes()).hexdigest() if code.is_file() else "none"
    if digest not in code_digests():
        raise _refused(folder, f"the sha256 of its {name} is {digest[:16]}, which no release has")
    artifacts = function.get("artifacts")
    for kind, file in (("terms", TERMS_FILE), ("pipeline", PIPELINE_FILE)):
        if isinstance(artifacts, Mapping) and list(artifacts) == [kind]:
            if Path(str(artifacts[kind].get("path"))) != Path("artifacts") / file:
                raise _refused(folder, f"its MLmodel names the {kind} file {artifacts[kind].get('path')}")
            return folder / "artifacts" / file
    raise _refused(folder, "its MLmodel names other artifacts than terms or a pipeline")


def _check_pipeline_model(folder: Path, function: Mapping[str, Any], sklearn: Mapping[str, Any]) -> Path:
    """Check a model of a release before 3: its container loads it with the list of types in its MLmodel."""
    if sklearn.get("serialization_format") != "skops":
        raise _refused(
            folder, f"it is kept as {sklearn.get('serialization_format')}, which runs code when it is loaded"
        )
    for key in ("code", "data"):
        if function.get(key) or sklearn.get(key):
            raise _refused(folder, f"its MLmodel names {function.get(key) or sklearn.get(key)} ({key})")
    if function.get("model_path") != PIPELINE_FILE or sklearn.get("pickled_model") != PIPELINE_FILE:
        raise _refused(folder, f"its MLmodel names the file {function.get('model_path')}")
    listed: Sequence[Any] = sklearn.get("skops_trusted_types") or []
    unknown = sorted(str(name) for name in listed if name not in TRUSTED_TYPES)
    if unknown:
        raise _refused(folder, f"its MLmodel trusts types that this project does not: {', '.join(unknown)}")
    return folder / PIPELINE_FILE


def code_digests() -> frozenset[str]:
    """The sha256 of every released version of `served_model.py`."""
    lines = _CODE_DIGESTS.read_text(encoding="utf-8").splitlines()
    return frozenset(line.split()[0] for line in lines if line and not line.startswith("#"))


def _refused(folder: Path, reason: str) -> RefusedModelError:
    return RefusedModelError(
        f"{_label(folder)} {reason}. Only models that this project's train and tune wrote are loaded"
    )


def _label(folder: Path) -> str:
    return f"the model in {folder.name} is refused:"
