"""Whatever loads a model goes through `steps.models.saved`, and a model that is not ours is refused there."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from monitoring.deploy import build, local
from steps.data.release_facts import ReleaseFacts, write_facts
from steps.models.saved import RefusedModelError
from tests.conftest import ROOT, Champion

# Loaders that run what a model brings along. skops is called by `served_model` alone, with our list of types.
FORBIDDEN = {
    "load_model",
    "spark_udf",
    "load_context",
    "get_untrusted_types",
    "joblib",
    "pickle",
    "cloudpickle",
}
ALLOWED = {
    ("steps/models/served_model.py", "get_untrusted_types"),
    ("steps/models/served_model.py", "load_context"),
    # In the container and for `make serve`, of a folder that was checked before it came there.
    ("monitoring/deploy/images/model_server.py", "load_model"),
}


def test_no_word_of_ours_loads_a_model_another_way() -> None:
    """Names and attributes in every module of steps and monitoring."""
    found = set()
    for path in (*ROOT.glob("steps/**/*.py"), *ROOT.glob("monitoring/**/*.py")):
        module = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {getattr(node, "attr", None), getattr(node, "id", None), getattr(node, "name", None)}
            if isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
            found |= {(module, name) for name in names & FORBIDDEN}
    assert {one for one in found if one != ("steps/models/explainable_boosting.py", "joblib")} <= ALLOWED


@pytest.fixture
def changed(champion: Champion, tmp_path: Path) -> Path:
    """A release whose code file was changed by one byte."""
    release = tmp_path / "release"
    shutil.copytree(champion.model, release / "model")
    shutil.copy(champion.reference, release / "reference.json")
    code = release / "model" / "served_model.py"
    code.write_bytes(code.read_bytes().replace(b"import json", b"import jSon", 1))
    texts = ("x", "1", "run", "commit", "schema", "synthetic", "data", "rows", "model")
    write_facts(release, ReleaseFacts(*texts, synthetic=True, family="explainable_boosting"))
    return release


def test_no_image_is_built_and_nothing_is_served_of_a_changed_model(changed: Path) -> None:
    with pytest.raises(RefusedModelError, match="which no release has"):
        build.build(changed)
    with pytest.raises(RefusedModelError, match="which no release has"), local.serving(changed, 1, 2, 3):
        pass


@pytest.mark.parametrize("word", ["score", "drift"])
def test_a_step_refuses_a_changed_model_in_a_sentence(word: str, champion: Champion, changed: Path) -> None:
    """Exit code 1, the reason, no traceback, and no file of risks."""
    out = changed / "risks.parquet"
    options = {"out": out} if word == "score" else {}
    code, output = champion.checkout.mlflow_run(word, model=changed / "model", **options)
    assert code == 1
    assert "is refused: the sha256 of its served_model.py" in output
    assert "Traceback" not in output
    assert not out.exists()
