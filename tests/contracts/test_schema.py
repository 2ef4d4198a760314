"""The schema is the single truth about columns, and the search alone knows hyperopt."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from steps.data.schema_file import load
from tests.conftest import ROOT


def modules() -> list[Path]:
    """What runs on any data set: the steps, the sidecar, and what simulates its traffic."""
    return [path for name in ("steps", "monitoring") for path in sorted((ROOT / name).rglob("*.py"))]


def words(tree: ast.Module) -> Iterator[str]:
    """Every name and every text of a module that is not prose."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg


def test_no_column_is_named_in_python() -> None:
    """So that other data need one YAML file and no change of code."""
    schema = load(ROOT / "data" / "brfss2015.yaml")
    columns = {*schema.feature_names, schema.target.name, *(s.target for s in schema.sources if s.target)}
    named = {
        (path.name, word)
        for path in modules()
        for word in words(ast.parse(path.read_text(encoding="utf-8")))
        if word in columns
    }
    assert named == set()


def test_only_the_search_imports_hyperopt() -> None:
    """Another search would change `steps/models/search.py` and its Spark half alone."""
    importing = {
        path.relative_to(ROOT).as_posix()
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hyperopt"))
        or (isinstance(node, ast.Import) and any(name.name.startswith("hyperopt") for name in node.names))
    }
    assert importing == {"steps/models/search.py", "steps/models/spark_search.py"}
