"""Alerts and the runbook agree: one heading for each alert, in the same words, with the same parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitoring.deploy import rollout
from monitoring.grafana import __main__ as generate
from monitoring.grafana import lint
from monitoring.grafana.alerts import rules
from monitoring.grafana.boards import runbook

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN = runbook.RUNBOOK.read_text(encoding="utf-8")
CHAPTERS = runbook.chapters(MARKDOWN)
RULES = [rule for _, rule in lint.read().rules()]


def test_alerts_and_headings_match_one_to_one() -> None:
    """In the order of the rules, after what holds for all of them."""
    assert list(CHAPTERS) == ["First five minutes", "Who is asked"] + [rule["title"] for rule in RULES]


def test_there_are_at_least_sixteen_alerts() -> None:
    """And each is written into Grafana's file."""
    assert len(RULES) >= 16
    assert [rule["title"] for rule in RULES] == [alert.title for alert in rules.ALERTS]


@pytest.mark.parametrize("title", [alert.title for alert in rules.ALERTS])
def test_every_heading_says_what_to_know_and_to_do(title: str) -> None:
    """What to do first; then how to look closer, what it means, when it is mended, when it is false."""
    parts = re.findall(r"^\*\*([A-Z][a-z ]+)", CHAPTERS[title], re.MULTILINE)
    assert [part.strip() for part in parts] == ["Do", "Look closer", "Meaning", "Mended", "False alarm"]


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
    shown = {panel["title"]: panel["options"]["content"] for panel in board["panels"]}
    assert shown == {title: runbook.with_links(text) for title, text in CHAPTERS.items()}
    assert generate.main(["--check"]) == 0


def test_settings_that_are_documented_are_those_that_the_stack_takes() -> None:
    """By their exact names: one table holds all save the pair's, and no other is named to be set."""
    compose = (ROOT / "monitoring" / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    taken = set(re.findall(r"\$\{(\w+)", compose)) - set(rollout.RUNNING)
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`[A-Z].*?) \|", page, re.MULTILINE)
    assert {name for row in table for name in re.findall(r"`([A-Z_]+)(?:=on)?`", row)} == taken
    named = set(re.findall(r"`([A-Z][A-Z0-9_]+)(?:=[^`]*)?`", MARKDOWN + page))
    assert named - taken == {"STACK", "IMAGE_PREFIX"}  # a short form; make takes it


def test_what_a_changed_variable_needs_is_told_beside_it() -> None:
    """`docker compose restart` keeps the old environment: `up -d` takes the new one."""
    compose = (ROOT / "monitoring" / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    taken = set(re.findall(r"\$\{(\w+)", compose))
    telling = [
        text
        for text in CHAPTERS.values()
        if taken & set(re.findall(r"`(\w+)(?:=[^`]*)?`", text.split("**Look")[0]))
    ]
    assert len(telling) >= 4
    silent = {"Retraining asked for", "Recalibration asked for"}  # which ask for nothing to be done
    assert [
        text
        for title, text in CHAPTERS.items()
        if text in telling and "up -d" not in text and title not in silent
    ] == []


def test_a_restart_is_a_command() -> None:
    """Nobody has to guess which one at night."""
    assert re.findall(r"\b[Rr]estart (?:it|the)\b", MARKDOWN) == []
