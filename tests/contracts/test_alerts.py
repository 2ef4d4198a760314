"""Alerts and the runbook agree: one heading for each alert, in the same words, with the same parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from monitoring.deploy import rollout
from monitoring.grafana import __main__ as generate
from monitoring.grafana import lint
from monitoring.grafana.alerts import rules
from monitoring.grafana.boards import runbook

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN = runbook.RUNBOOK.read_text(encoding="utf-8")
CHAPTERS = runbook.chapters(MARKDOWN)
OTHER_CHAPTERS = ["Retraining from an alert", "Operate and upgrade"]
RULES = [rule for _, rule in lint.read().rules()]


def test_alerts_and_headings_match_one_to_one() -> None:
    """In the order of the rules, the chapters on operation after them."""
    assert list(CHAPTERS) == [rule["title"] for rule in RULES] + OTHER_CHAPTERS


def test_there_are_at_least_sixteen_alerts() -> None:
    """And each is written into Grafana's file."""
    assert len(RULES) >= 16
    assert [rule["title"] for rule in RULES] == [alert.title for alert in rules.ALERTS]


@pytest.mark.parametrize("title", [alert.title for alert in rules.ALERTS])
def test_every_heading_says_what_to_know_and_to_do(title: str) -> None:
    """Meaning, impact, how to look closer, what to do, and when it is a false alarm."""
    parts = re.findall(r"^\*\*([A-Z][a-z ]+)", CHAPTERS[title], re.MULTILINE)
    assert [part.strip() for part in parts] == ["Meaning", "Impact", "Look closer", "Do", "False alarm"]


def test_every_alert_links_to_its_own_heading() -> None:
    """The runbook's panels carry the headings' titles."""
    board = next(b for b in lint.read().dashboards.values() if b["uid"] == runbook.UID)
    titles = {str(panel["id"]): panel["title"] for panel in board["panels"]}
    for rule in RULES:
        number = rule["annotations"]["runbook_url"].rpartition("panel-")[2]
        assert titles[number] == rule["title"]


def test_links_inside_the_runbook_lead_somewhere() -> None:
    """Anchors are headings in small letters with hyphens."""
    anchors = {rules.slug(title) for title in CHAPTERS}
    assert set(re.findall(r"\]\(#([^)]+)\)", MARKDOWN)) <= anchors


def test_the_runbook_dashboard_is_the_runbook() -> None:
    """No second text to keep."""
    board = next(b for b in lint.read().dashboards.values() if b["uid"] == runbook.UID)
    assert {panel["title"]: panel["options"]["content"] for panel in board["panels"]} == CHAPTERS
    assert generate.main(["--check"]) == 0


def test_variables_that_the_runbook_sets_are_those_that_the_stack_takes() -> None:
    """By their exact names: its table holds all of them save the pair's, and no other is named to be set."""
    compose = (ROOT / "monitoring" / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    taken = set(re.findall(r"\$\{(\w+)", compose)) - set(rollout.RUNNING)
    table = re.findall(r"^\| (`[A-Z].*?) \|", MARKDOWN, re.MULTILINE)
    assert {name for row in table for name in re.findall(r"`(\w+)`", row)} == taken
    named = set(re.findall(r"`([A-Z][A-Z0-9_]+)(?:=[^`]*)?`", MARKDOWN))
    assert named - taken == {"STACK", "IMAGE_PREFIX"}  # a short form; make takes it


def test_what_a_changed_variable_needs_is_told_beside_it() -> None:
    """`docker compose restart` keeps the old environment: `up -d` takes the new one."""
    compose = (ROOT / "monitoring" / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    taken = set(re.findall(r"\$\{(\w+)", compose))
    parts = [part for text in CHAPTERS.values() for part in re.split(r"\n\n|\n(?=\*\*|###)", text)]
    telling = [
        part
        for part in parts
        if part.startswith("**Do.**") and taken & set(re.findall(r"`(\w+)(?:=[^`]*)?`", part))
    ]
    assert len(telling) >= 4
    assert [part for part in telling if "up -d" not in part] == []


def test_a_restart_is_a_command() -> None:
    """Nobody has to guess which one at night."""
    assert re.findall(r"\b[Rr]estart (?:it|the)\b", MARKDOWN) == []


def test_the_dispatch_sends_what_the_retrain_workflow_takes() -> None:
    """GitHub refuses inputs that the workflow does not declare."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "retrain.yml").read_text(encoding="utf-8"))
    # YAML 1.1 reads the key `on` as true.
    declared = set(workflow[True]["workflow_dispatch"]["inputs"])
    (template,) = [item["template"] for _, item in lint.read().items("templates")]
    dispatch = template.partition('define "alert.retrain"')[2]
    sent = set(re.findall(r'"(\w+)" \(?[.p]', dispatch.partition('"inputs"')[2]))
    assert sent == {"reason", "source"}
    assert sent <= declared
