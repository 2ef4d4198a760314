"""What is written about a schema's keys is what the reader knows."""

from __future__ import annotations

import json
import re

import yaml

from docs.tools import schema_keys
from steps.data.schema_keys import SchemaKeys
from tests.conftest import ROOT


def test_page_and_json_schema_are_those_of_the_models() -> None:
    """`python -m docs.tools.schema_keys` would change nothing."""
    assert schema_keys.main(["--check"]) == 0


def test_the_page_names_every_key_and_no_other() -> None:
    """The tables of docs/data.md against the models, each key in the table of its own mapping."""
    text = schema_keys.PAGE.read_text(encoding="utf-8")
    listed = text.split(schema_keys.BEGIN)[1].split(schema_keys.END)[0]
    tables = listed.split("### ")[1:]
    known = schema_keys.models()
    assert len(tables) == len(known)
    for table, (_, model) in zip(tables, known, strict=True):
        named = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
        assert named == [field.alias or name for name, field in model.model_fields.items()]
    assert all(field.description for _, model in known for field in model.model_fields.values())


def test_the_shipped_schemas_fit_the_json_schema() -> None:
    """Its top level knows each key that they use."""
    known = json.loads(schema_keys.SCHEMA.read_text(encoding="utf-8"))["properties"]
    assert set(known) == set(SchemaKeys.model_fields)
    for path in (ROOT / "data").glob("*.yaml"):
        assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) <= set(known)
