"""Grafana's files are clean, and every kind of fault that Grafana would swallow or stop at is noticed."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from monitoring.grafana import lint

CLEAN = lint.read()


def planted(plant: Callable[[dict[str, Any], dict[str, Any]], Any], **changes: Any) -> list[str]:
    """Problems found after a fault was planted into copies of the files (by name of the file)."""
    provisioning = copy.deepcopy(dict(CLEAN.provisioning))
    dashboards = copy.deepcopy(dict(CLEAN.dashboards))
    plant(
        {name.rpartition("/")[2]: document for name, document in provisioning.items()},
        {name.rpartition("/")[2]: document for name, document in dashboards.items()},
    )
    return lint.check(dataclasses.replace(CLEAN, provisioning=provisioning, dashboards=dashboards, **changes))


def rule(files: dict[str, Any]) -> dict[str, Any]:
    return files["rules.yaml"]["groups"][0]["rules"][0]


def receiver(files: dict[str, Any], name: str) -> dict[str, Any]:
    points = files["contact-points.yaml"]["contactPoints"]
    return next(point for point in points if point["name"] == name)["receivers"][0]


def policy(files: dict[str, Any]) -> dict[str, Any]:
    return files["policies.yaml"]["policies"][0]


def test_the_files_have_no_problem() -> None:
    """As committed."""
    assert lint.check(CLEAN) == []


FAULTS: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "unknown key of a rule": (
        lambda p, d: rule(p).update(keep_firing_for="5m"),
        "does not know the key 'keep_firing_for'",
    ),
    "unknown key of a contact point's settings": (
        lambda p, d: receiver(p, "slack")["settings"].update(channel="x"),
        "does not know the key 'channel'",
    ),
    "unknown key of a route": (
        lambda p, d: policy(p)["routes"][0].update(continues=True),
        "does not know the key 'continues'",
    ),
    "unknown key of a panel": (
        lambda p, d: d["service.json"]["panels"][0].update(gridpos={}),
        "does not know the key 'gridpos'",
    ),
    "unknown key of a field's defaults": (
        lambda p, d: d["service.json"]["panels"][0]["fieldConfig"]["defaults"].update(treshold={}),
        "does not know the key 'treshold'",
    ),
    "unknown type of receiver": (
        lambda p, d: receiver(p, "slack").update(type="slak"),
        "'slak' is no type",
    ),
    "undeclared variable": (
        lambda p, d: receiver(p, "slack")["settings"].update(url="$SLACK_URL"),
        "SLACK_URL is not in Grafana's environment",
    ),
    "braced variable": (
        lambda p, d: receiver(p, "slack")["settings"].update(url="${RETRAIN_URL}"),
        "expanded twice",
    ),
    "lost $ in a template of a contact point": (
        lambda p, d: receiver(p, "email")["settings"].update(subject="{{ $name := .Status }}"),
        "would be lost",
    ),
    "lost $ in a label": (
        lambda p, d: rule(p)["labels"].update(feature="{{ $labels.feature }}"),
        "would be lost",
    ),
    "doubled $ in an annotation": (
        lambda p, d: rule(p)["annotations"].update(description="{{ $$labels.feature }}"),
        "write a single $",
    ),
    "doubled $ in a template": (
        lambda p, d: p["templates.yaml"]["templates"][0].update(template="{{ $$x }}"),
        "write a single $",
    ),
    "two rules with one uid": (
        lambda p, d: p["rules.yaml"]["groups"][1]["rules"][0].update(uid=rule(p)["uid"]),
        "rule uid 'model-down' is used 2 times",
    ),
    "two dashboards with one uid": (
        lambda p, d: d["service.json"].update(uid="data"),
        "dashboard uid 'data' is used 2 times",
    ),
    "two panels with one id": (
        lambda p, d: d["service.json"]["panels"][1].update(id=1),
        "panel id 1 is used 2 times",
    ),
    "two policy trees": (
        lambda p, d: p["policies.yaml"]["policies"].append(policy(p)),
        "notification policy of organisation 1 is used 2 times",
    ),
    "uid that Grafana refuses": (lambda p, d: rule(p).update(uid="model down"), "should be 1 to 40 letters"),
    "receiver that does not exist": (
        lambda p, d: policy(p)["routes"][0].update(receiver="retraining"),
        "no contact point 'retraining'",
    ),
    "receiver of a nested route that does not exist": (
        lambda p, d: policy(p)["routes"][2]["routes"][0].update(receiver="mail"),
        "no contact point 'mail'",
    ),
    "mute timing that does not exist": (
        lambda p, d: policy(p)["routes"][0].update(mute_time_intervals=["weekends"]),
        "no mute timing 'weekends'",
    ),
    "data source that does not exist": (
        lambda p, d: rule(p)["data"][0].update(datasourceUid="prom"),
        "no data source 'prom'",
    ),
    "template that does not exist": (
        lambda p, d: receiver(p, "email")["settings"].update(message='{{ template "alert.txt" . }}'),
        "no template 'alert.txt'",
    ),
    "empty required setting": (
        lambda p, d: receiver(p, "slack")["settings"].update(url=""),
        "'slack' needs url",
    ),
    "condition that is no query": (lambda p, d: rule(p).update(condition="Q"), "the condition 'Q' is none"),
    "expression of no query": (
        lambda p, d: rule(p)["data"][1]["model"].update(expression="Q"),
        "reads what is no query",
    ),
    "bad duration": (lambda p, d: rule(p).update({"for": "5 minutes"}), "for should be a duration"),
    "bad no-data state": (lambda p, d: rule(p).update(noDataState="Ok"), "noDataState should be one of"),
    "no severity": (lambda p, d: rule(p)["labels"].pop("severity"), "severity should be"),
    "no runbook": (lambda p, d: rule(p)["annotations"].pop("runbook_url"), "runbook_url should be there"),
    "link to a runbook heading that does not exist": (
        lambda p, d: rule(p)["annotations"].update(runbook_url="/d/runbook?viewPanel=panel-99"),
        "'runbook' has no panel 99",
    ),
    "link to a panel that does not exist": (
        lambda p, d: rule(p)["annotations"].update(__panelId__="999"),
        "'service' has no panel 999",
    ),
    "link to a dashboard that does not exist": (
        lambda p, d: rule(p)["annotations"].update(__dashboardUid__="services"),
        "no dashboard 'services'",
    ),
    "unguarded value in a summary": (
        lambda p, d: rule(p)["annotations"].update(summary='{{ printf "%f" $values.A.Value }}'),
        "guard it",
    ),
    "panel that leaves the grid": (
        lambda p, d: d["service.json"]["panels"][0]["gridPos"].update(w=25),
        "leaves the grid",
    ),
    "panels that overlap": (
        lambda p, d: d["service.json"]["panels"][1]["gridPos"].update(x=2),
        "overlaps Served",
    ),
    "panel without a description": (
        lambda p, d: d["service.json"]["panels"][0].update(description=""),
        "should have a description",
    ),
    "variable that the dashboard does not have": (
        lambda p, d: d["data.json"]["templating"]["list"].pop(0),
        "has no variable 'window'",
    ),
    "panel's link to a dashboard that does not exist": (
        lambda p, d: d["service.json"]["panels"][0].update(links=[{"title": "x", "url": "/d/nothing"}]),
        "no dashboard 'nothing'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(fault: str) -> None:
    """By a sentence that names it."""
    plant, sentence = FAULTS[fault]
    problems = planted(plant)
    assert any(sentence in problem for problem in problems), problems


def test_a_variable_that_compose_no_longer_sets_is_noticed() -> None:
    """Grafana would read an empty value and, for a required setting, not start."""
    fewer = {name: value for name, value in CLEAN.environment.items() if name != "RETRAIN_URL"}
    problems = planted(lambda p, d: None, environment=fewer)
    assert any("RETRAIN_URL" in problem for problem in problems)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A", "1"),
        ("${A}-$B", "1-2"),
        ("$$A", "$A"),
        ("$$$A", "$1"),
        ("$NONE", ""),
        ("5$", "5$"),
        ("{{ $$x := 1 }}", "{{ $x := 1 }}"),
    ],
)
def test_interpolation_is_grafanas(text: str, expected: str) -> None:
    """Variables expand, unset ones vanish, a doubled $ becomes one."""
    assert lint.interpolate(text, {"A": "1", "B": "2"}) == expected
