"""Scenarios as a past in a real Prometheus: every panel has data, and exactly the announced alerts fire."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter

from monitoring import reference as reader
from monitoring.grafana import lint
from monitoring.prometheus import __main__ as generate
from monitoring.prometheus.promql import Rule
from monitoring.sidecar.counting import LOT_ROWS
from monitoring.simulation import __main__ as simulate
from monitoring.simulation import expected, world
from monitoring.simulation import history as backfill
from monitoring.simulation import people as cohort
from monitoring.simulation import traffic as live
from monitoring.simulation.history import EmptyRulesError, History, Server
from steps.data.errors import UserError
from steps.data.schema import Change, Scenario
from steps.data.schema_file import load
from steps.models import families, fitting
from steps.models.monitor_reference import build_reference
from tests.conftest import ROOT, require

END = 1_790_000_000 // 3600 * 3600.0
QUIET = Scenario("quiet", "Quiet", "Nothing changes.")
# Everything at once, so that one past has something to show in every panel.
TROUBLE = Scenario(
    "trouble",
    "Trouble",
    "A scale that reads too much, an unanswered question, garbage, and more illness than before.",
    (
        Change("scale", 1.3, "BMI"),
        Change("missing", 0.3, "GenHlth"),
        Change("garbage", 0.2, "Age"),
        Change("garbage", 0.1, "BMI"),
        Change("outcome_shift", 1.5),
    ),
)


class Past(NamedTuple):
    """A scenario that was played and loaded."""

    store: Path
    history: History
    reference: reader.Reference


@pytest.fixture(scope="module")
def known() -> world.World:
    """A small model of people who do not exist, with its reference."""
    schema = load(ROOT / "data" / "brfss2015.yaml")
    facts = cohort.read_facts(schema, ROOT)
    frame = cohort.generate(facts, schema, 12_000, seed=9)
    target = frame[schema.target.name].isin(list(schema.target.positive)).astype("int8")
    frame = frame[list(schema.feature_names)].astype("float64").assign(__target__=target)
    train, validation = frame.iloc[:8000], frame.iloc[8000:]
    model = fitting.fit("logistic_regression", {}, train, schema, seed=1, threads=1)
    risk = families.predict_risk(model, validation[list(schema.feature_names)])
    reference = build_reference(
        model,
        train,
        validation,
        schema,
        threshold=fitting.choose_threshold(validation["__target__"].to_numpy(), risk, 0.80),
        info={
            "name": "diabetes-risk-synthetic",
            "version": "1",
            "run_id": "r",
            "family": "logistic_regression",
            "trained_at": 1,
            "synthetic": True,
            "kind": "synthetic",
            "data_digest": "d",
        },
    )
    return world.World(schema, facts, model, reference)


def make_past(known: world.World, scenario: Scenario, folder: Path, days: float = 0.5) -> Past:
    require("prometheus")
    require("promtool")
    plan = world.Plan(scenario, rows_a_day=6000, label_delay_days=0.02, seed=5)
    history = simulate.backfill(known, plan, simulate.moments(days, END), folder / "store", quiet=True)
    return Past(folder / "store", history, known.reference)


@pytest.fixture(scope="module")
def trouble(known: world.World, tmp_path_factory: pytest.TempPathFactory) -> Past:
    return make_past(known, TROUBLE, tmp_path_factory.mktemp("trouble"))


# In this past nothing is refused, fails, is dropped or has a column too many: these panels say "none".
NOTHING_TO_SEE = [
    "data: Columns (A)",
    "data: Columns (B)",
    "model: Labels refused (A)",
    "service: Refused requests (A)",
    "service: Calls of the model that failed (A)",
    "service: What the sidecar could not observe (A)",
    "service: Rows and labels dropped at a stop (A)",
]


def panel_queries() -> Iterator[tuple[str, str]]:
    """(dashboard: panel, PromQL with the variables' default values) of each query about model and sidecar."""
    for board in lint.read().dashboards.values():
        values = {"__rate_interval": "20m", "__range": "12h", "feature": ".*", "instance": ".*"}
        values |= {"one": "BMI", "beside": "1", "version": ".*"}
        for variable in board["templating"]["list"]:
            if variable["type"] == "custom":
                values[variable["name"]] = variable["current"]["value"]
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                expr = target["expr"]
                for name, value in values.items():
                    expr = expr.replace(f"${name}", value)
                if re.search(r"\b(prometheus|grafana)_", expr):
                    continue  # what these say of themselves is no part of a simulated past
                yield f"{board['uid']}: {panel['title']} ({target['refId']})", expr


@pytest.mark.real
def test_every_panel_has_data_when_there_is_something_to_see(trouble: Past) -> None:
    """No query fails, and none that a person would look at is empty or only NaN."""
    empty = []
    with Server(trouble.store) as server:
        for where, expr in panel_queries():
            values = [float(series["value"][1]) for series in server.query(expr, END)]
            if not any(not math.isnan(value) for value in values):
                empty.append(where)
    assert empty == NOTHING_TO_SEE


@pytest.mark.real
def test_exactly_the_announced_alerts_fire_in_trouble(trouble: Past) -> None:
    """Rules from Grafana's file on a real Prometheus against numpy on what was sent, features named."""
    announced = expected.firing(trouble.history, trouble.reference, END)
    with Server(trouble.store) as server:
        assert simulate.firing_alerts(server, END, simulate.alert_rules()) == announced
    assert announced["Feature drift"] >= {"BMI"}
    assert announced["Missing values"] == {"GenHlth"}
    assert announced["Invalid values"] == {"BMI"}
    assert announced["Unknown levels"] == {"Age"}
    assert "Calibration" in announced


@pytest.mark.real
def test_no_alert_fires_while_nothing_changes(known: world.World, tmp_path: Path) -> None:
    """Announced is nothing, and nothing fires."""
    past = make_past(known, QUIET, tmp_path, days=0.25)
    assert expected.firing(past.history, past.reference, END) == {}
    with Server(past.store) as server:
        assert simulate.firing_alerts(server, END, simulate.alert_rules()) == {}


@pytest.mark.real
@pytest.mark.soak
@pytest.mark.parametrize("name", [s.name for s in load(ROOT / "data" / "brfss2015.yaml").scenarios])
def test_every_scenario_of_the_schema_raises_what_it_announces(
    known: world.World, tmp_path: Path, name: str
) -> None:
    """Long enough for the slow ones to have happened."""
    scenario = known.schema.scenario(name)
    days = max(3.0, scenario.starts + scenario.ramp + 3)
    past = make_past(known, scenario, tmp_path, days)
    announced = expected.firing(past.history, past.reference, END)
    with Server(past.store) as server:
        assert simulate.firing_alerts(server, END, simulate.alert_rules()) == announced
    assert announced.get("Feature drift", frozenset()) >= set(scenario.drifts)
    if name in ("steady", "flash-crowd"):
        assert announced == {}


@pytest.mark.real
def test_a_rule_that_should_have_data_and_has_none_fails_the_backfill(tmp_path: Path) -> None:
    """Named with its labels; one that may be empty does not."""
    require("prometheus")
    require("promtool")
    backfill.add_blocks(backfill.openmetrics([END - 60, END], {'a{x="1"}': [1.0, 2.0]}), tmp_path / "store")
    levels = [[Rule("job:a:sum", "sum(a)", {}), Rule("job:b:sum", "sum(b)", {"window": "1d"})]]
    grid = [(END - 60, END, 60.0)]
    backfill.record(tmp_path / "store", levels, grid, lambda rule: rule.record == "job:b:sum")
    with pytest.raises(EmptyRulesError, match=r'job:b:sum\{window="1d"\}'):
        backfill.record(tmp_path / "store", levels, grid, lambda _: False)
    with Server(tmp_path / "store") as server:
        assert server.query("job:a:sum", END)[0]["value"][1] == "2"


@pytest.mark.real
def test_a_query_that_prometheus_refuses_is_explained(tmp_path: Path) -> None:
    """By its own words."""
    require("prometheus")
    backfill.add_blocks(backfill.openmetrics([END], {"a{}": [1.0]}), tmp_path / "store")
    with Server(tmp_path / "store") as server, pytest.raises(Exception, match="parse error"):
        server.query("sum(", END)


def test_a_history_keeps_every_series_aligned_with_its_moments() -> None:
    """A series that appears late is absent before; increases count from there."""
    registry = CollectorRegistry()
    counter = Counter("x", "X", ["l"], registry=registry)
    history = History()
    history.scrape(registry, 0.0, {"job": "j"}, {"up{}": 1.0})
    counter.labels("a").inc(3)
    history.scrape(registry, 60.0, {"job": "j"}, {"up{}": 1.0})
    counter.labels("a").inc(2)
    history.scrape(registry, 120.0, {"job": "j"}, {"up{}": 1.0})
    name = 'x_total{job="j",l="a"}'
    assert math.isnan(history.series[name][0])
    assert history.series[name][1:] == [3.0, 5.0]
    assert history.increase(name, 60.0, 120.0) == 2.0
    assert history.increase(name, -60.0, 120.0) == 5.0
    assert history.increase("nothing", 0.0, 120.0) == 0.0
    lines = list(backfill.openmetrics(history.times, history.series))
    assert lines[-1] == "# EOF\n"
    assert f"{name} 3.0 60.000\n" in lines
    assert not any("nan" in line for line in lines)


def test_a_label_value_is_quoted() -> None:
    """Quotes, backslashes and line ends cannot break out."""
    assert backfill.series_text("m", {"b": 'x"\\\n', "a": "1"}) == 'm{a="1",b="x\\"\\\\\\n"}'


def test_moments_end_with_a_minute_by_minute_half_hour() -> None:
    """Alerts are judged each minute; the rest of the past is coarser."""
    times = simulate.moments(1, END)
    assert times[0] == END - 86_400
    assert times[-1] == END
    steps = np.diff(times)
    assert np.all(steps > 0)
    assert np.all(steps[-30:] == 60)
    assert steps[0] == simulate.COARSE_STEP


def test_the_counts_of_a_played_past_are_those_of_its_people(known: world.World) -> None:
    """Each person is one request, one value a feature and one risk, or one refused request."""
    times = simulate.moments(0.25, END)
    plan = world.Plan(TROUBLE, rows_a_day=2000, label_share=1.0, label_delay_days=0.001, seed=2)
    history = History()
    assert list(world.play(known, plan, times, history)) == times
    crowds = [crowd for _, crowd in world.arrivals(known, plan, times)]
    people, accepted = sum(len(c.accepted) for c in crowds), sum(len(c.frame) for c in crowds)
    assert people == pytest.approx(500, abs=2)
    assert 0 < accepted < people, "text in a number column is refused by the model's server"

    def total(start: str) -> float:
        return sum(column[-1] for name, column in history.series.items() if name.startswith(start))

    # A lot that is not full waits for more people.
    assert accepted - LOT_ROWS < total("model_scores_total{") <= accepted
    assert total("sidecar_rows_total{") == accepted
    assert total("sidecar_requests_total{") == people
    values = sum(
        sum(
            column[-1]
            for name, column in history.series.items()
            if name.startswith(start) and '"Age"' in name
        )
        for start in (
            "model_feature_values_total{",
            "model_feature_missing_total{",
            "model_feature_out_of_range_total{",
            "model_feature_unknown_level_total{",
        )
    )
    assert values == total("model_scores_total{")
    assert total("model_feedback_total{") == pytest.approx(accepted, rel=0.1)


def test_a_scenario_builds_up_day_by_day(known: world.World) -> None:
    """Before it starts people are as always; the rate follows it too."""
    late = Scenario("late", "Late", "Later.", (Change("rate", 4.0), Change("add", 20.0, "BMI")), starts=0.5)
    plan = world.Plan(late, rows_a_day=1000, seed=2)
    times = [END + hour * 3600.0 for hour in range(25)]
    parts: dict[bool, list[Any]] = {False: [], True: []}
    for now, crowd in world.arrivals(known, plan, times):
        parts[now - times[0] > 0.75 * world.DAY].append(crowd.frame["BMI"])
    before, after = (np.concatenate(parts[key]) for key in (False, True))
    assert len(after) == pytest.approx(1000, abs=200)
    assert after.mean() > before[: len(before) // 4].mean() + 15


def test_live_traffic_reaches_the_sidecar_and_its_labels_come_back(
    known: world.World, start: Any, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every person is answered, every chosen outcome accepted, and what is announced is what was counted."""
    running = start(scripted().port, known.reference, feedback_keys=("key-0123456789abcdef",))
    url = f"http://127.0.0.1:{running.port}"
    scenario = Scenario("scale", "Scale", "A scale reads too much.", (Change("scale", 1.4, "BMI"),))
    traffic = live.Traffic(url, 400, 1.0, 4, label_share=1.0, label_delay=0.05, seed=3)
    report = live.send(known.schema, known.facts, scenario, known.reference, traffic)
    assert report.figures["answers"] == {"200": 400}
    assert report.figures["labels"] == {"accepted": 400, "refused": 0}
    assert running.value("sidecar_rows_total") == 400
    assert running.value("model_feedback_total", model_version="1") == 400
    assert report.alerts["Feature drift"] >= {"BMI"}


def test_live_traffic_carries_the_tokens_of_the_environment(
    known: world.World,
    start: Any,
    scripted: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The sidecar's own variables; without the right one the error names it, and never its value."""
    tokens = {"bearer_token": "who-asks-0123456789", "feedback_bearer_token": "who-tells-0123456789"}
    given = {name: (token,) for name, token in tokens.items()}
    running = start(scripted().port, known.reference, feedback_keys=("key-0123456789abcdef",), **given)
    monkeypatch.setattr(simulate, "_reference", lambda folder: known.reference)
    words = ["live", "--model", str(tmp_path), "--url", f"http://127.0.0.1:{running.port}"]
    words += ["--rate", "20", "--seconds", "0.5", "--label-share", "1", "--label-delay", "0.01"]
    monkeypatch.setenv("MODEL_EXPORTER_BEARER_TOKEN", "somebody-else-012345")
    assert simulate.main(words) == 1
    said = capsys.readouterr().err
    assert "MODEL_EXPORTER_BEARER_TOKEN" in said
    assert "somebody-else" not in said
    for name, token in tokens.items():
        monkeypatch.setenv(f"MODEL_EXPORTER_{name.upper()}", token)
    assert simulate.main(words) == 0
    shown = capsys.readouterr().out
    assert '"200": 10' in shown
    assert '"accepted": 10' in shown


def test_live_traffic_to_nobody_is_explained(known: world.World) -> None:
    """Before anything is sent."""
    traffic = live.Traffic("http://127.0.0.1:9", 1, 1.0, 1, 0.0, 0.0, 1)
    with pytest.raises(UserError, match="make serve"):
        live.send(known.schema, known.facts, QUIET, known.reference, traffic)


def test_wrong_use_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, exit code 1."""
    assert simulate.main(["live", "--scenario", "no-such", "--model", str(tmp_path)]) == 1
    assert "it has: steady" in capsys.readouterr().err
    assert simulate.main(["backfill", "--out", str(tmp_path / "x"), "--model", str(tmp_path)]) == 1
    assert "reference.json" in capsys.readouterr().err


def test_alerts_are_described_for_people() -> None:
    """One a line, features sorted."""
    text = simulate.describe({"Feature drift": frozenset({"b", "a"}), "Calibration": frozenset()})
    assert text == "  Calibration\n  Feature drift: a, b"
    assert simulate.describe({}) == "  none"


def test_every_recording_rule_has_a_level(known: world.World) -> None:
    """What is backfilled is what Prometheus records."""
    recorded = {rule.record for level in generate.levels() for rule in level}
    assert recorded == {rule.record for group in generate.groups() for rule in group.rules}
