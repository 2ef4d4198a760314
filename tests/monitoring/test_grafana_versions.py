"""Dashboards are about one version at a time while two are served."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.grafana import lint
from monitoring.grafana.boards.variables import SHOWN, shown
from tests.conftest import require

BOARDS = {board["uid"]: board for board in lint.read().dashboards.values()}
# Panels about all that is served, or about what comes in before any version answers.
OF_ALL = {
    "data": {"Rows", "Columns"},
    "model": {"Labels", "Labels refused"},
    "people": set(),
}
PSI = "feature_window:model_feature_values:psi"


@pytest.mark.real
def test_the_newest_version_that_is_served_is_shown_or_the_chosen_one(tmp_path: Path) -> None:
    """Version 2 comes after 20 minutes, and version 1 goes after 60: a line from beginning to end."""

    def answer(version: str, minutes: int, *values: float) -> dict[str, Any]:
        samples = [{"labels": '{feature="BMI"}', "value": value} for value in values]
        expr = shown(PSI, "feature").replace("$version", version)
        return {"expr": expr, "eval_time": f"{minutes}m", "exp_samples": samples}

    test = {
        "interval": "1m",
        "input_series": [
            {"series": f'{name}{{{labels}model_name="m",model_version="{version}"}}', "values": values}
            for version, age, psi in (
                ("1", "100000+60x60 stale", "0.1x120"),
                ("2", "_x19 5000+60x100", "_x19 0.2x100"),
            )
            for name, labels, values in (
                ("version:model_age:seconds", "", age),
                (PSI, 'feature="BMI",', psi),
            )
        ],
        "promql_expr_test": [
            answer(".*", 10, 0.1),
            answer(".*", 40, 0.2),
            answer(".*", 90, 0.2),
            answer("1", 40, 0.1),
            answer("1", 90),
        ],
    }
    file = tmp_path / "versions.yml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}), encoding="utf-8")
    done = subprocess.run(
        [require("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("uid", OF_ALL)
def test_no_panel_adds_or_mixes_versions(uid: str) -> None:
    """Each figure is of the shown version, of the one beside it, or says of which; a verdict is of all."""
    for panel in BOARDS[uid]["panels"]:
        verdict = panel.get("options", {}).get("colorMode") == "background_solid"
        if verdict or panel["title"] in OF_ALL[uid]:
            continue
        for target in panel.get("targets", []):
            of_one = SHOWN in target["expr"] or 'model_version="$beside"' in target["expr"]
            named = "{{model_version}}" in target["legendFormat"] or "by (version)" in target["expr"]
            assert of_one or named, (panel["title"], target["expr"])
            # Else one line would be two where a version follows another.
            is_one_line = (
                re.match(r"(max|sum|topk|100 - max)\b", target["expr"]) or "$beside" in target["expr"]
            )
            assert is_one_line or named, (panel["title"], target["expr"])


@pytest.mark.parametrize("uid", OF_ALL)
def test_the_version_can_be_chosen(uid: str) -> None:
    """The newest by default, among those that are served."""
    (variable,) = [one for one in BOARDS[uid]["templating"]["list"] if one["name"] == "version"]
    assert variable["current"] == {"text": "newest", "value": ".*"}
    assert "version:model_age:seconds" in variable["definition"]


def test_a_graph_in_a_message_is_of_the_version_that_it_is_about() -> None:
    """Where the alert has one."""
    rules = {rule["title"]: rule["annotations"] for _, rule in lint.read().rules()}
    for title in ("Feature drift", "Calibration"):
        assert "{{ with $labels.model_version }}&var-version={{ . }}{{ end }}" in rules[title]["graph_url"]
    assert "var-version" not in rules["Model down"]["graph_url"]
