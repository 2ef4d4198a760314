"""What must not ring: all recording rules and all alert rules together, played by promtool from raw counters.

A fresh version, two late labels, two models that share a version's number, an outage of Prometheus, a short
pause of it, a sidecar that is started again or replaced. Each asserts the whole list of alerts that fire.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

from monitoring.prometheus import __main__ as generate
from monitoring.prometheus import promql
from steps.measures import evidence
from tests.conftest import require
from tests.monitoring.test_alert_episodes import as_prometheus
from tests.monitoring.test_grafana_alerts import RULES
from tests.monitoring.test_rules import score_table

STEP = 10  # minutes between samples and between evaluations
REFERENCE: Mapping[str, Sequence[float]] = {"BMI": [900, 1800, 1300, 700, 300], "Sex": [2800, 2200]}
OTHER_REFERENCE: Mapping[str, Sequence[float]] = {"BMI": [300, 700, 1300, 1800, 900], "Sex": [1000, 4000]}
ROWS = 40.0  # a step
HOUR = 60 // STEP
TABLE = score_table(20_000, 3)
ROC_AUC = float(evidence.roc_auc(TABLE["risks"].sum(1), TABLE["rows"].sum(1) - TABLE["risks"].sum(1)))


class Served(NamedTuple):
    """A model and the steps, from and up to, in which it is served; its rows are as its reference says."""

    name: str
    version: str
    first: int
    last: int
    reference: Mapping[str, Sequence[float]] = REFERENCE


def line(name: str, labels: Mapping[str, str], values: str) -> dict[str, str]:
    text = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{text}}}", "values": values}


UP = line("up", {"job": "exporter", "instance": "e"}, "1+0x2000")


def absent(steps: int) -> str:
    return f"_x{steps - 1} " if steps else ""


def counts(model: Served, amount: float, gap: tuple[int, int] | None = None) -> str:
    """A counter from 0 while the model is served; what comes in a gap is counted and not scraped."""
    start, steps = absent(model.first), model.last - model.first
    if gap is None:
        return f"{start}0+{amount:.8g}x{steps}"
    before, away = gap[0] - model.first, gap[1] - gap[0]
    after = amount * (before + away)
    return f"{start}0+{amount:.8g}x{before - 1} _x{away - 1} {after:.8g}+{amount:.8g}x{steps - before - away}"


def of_model(
    model: Served, shifted: Mapping[str, Sequence[float]] | None = None, gap: tuple[int, int] | None = None
) -> list[dict[str, str]]:
    """Raw series of a model as the sidecar exports them, without labels; `shifted` rows for its own."""
    steps, start = model.last - model.first, absent(model.first)
    common = {"model_name": model.name, "model_version": model.version, "instance": "e", "job": "exporter"}

    def gauge(name: str, value: float, **labels: str) -> dict[str, str]:
        return line(name, {**common, **labels}, f"{start}{value:.8g}+0x{steps}")

    def counter(name: str, amount: float, **labels: str) -> dict[str, str]:
        return line(name, {**common, **labels}, counts(model, amount, gap))

    found = [
        gauge("model_info", 1, synthetic="false"),
        gauge("model_trained_timestamp_seconds", 0),
        gauge("model_validation", ROC_AUC, metric="roc_auc"),
        gauge("model_floor", ROC_AUC - 0.03, metric="roc_auc"),
        gauge("model_decision_threshold", 0.5),
    ]
    for feature, reference in model.reference.items():
        rows = (shifted or model.reference)[feature]
        found.append(gauge("model_feature_reference_missing_rows", 0, feature=feature))
        found += [
            counter(f"model_feature_{fate}_total", 0, feature=feature)
            for fate in ("missing", "out_of_range", "unknown_level")
        ]
        for number, (known, comes) in enumerate(zip(reference, rows, strict=True)):
            of_bin = {"feature": feature, "bin": f"b{number}"}
            found.append(gauge("model_feature_reference_rows", known, **of_bin))
            found.append(counter("model_feature_values_total", ROWS * comes / sum(rows), **of_bin))
    shares = TABLE["rows"].sum(1) / TABLE["rows"].sum()
    risks = TABLE["risks"].sum(1) / TABLE["rows"].sum()
    for number, (share, risk) in enumerate(zip(shares, risks, strict=True)):
        bin_ = f"{number:02d}"
        found += [
            gauge("model_score_reference_rows", 20_000 * share, bin=bin_),
            gauge("model_score_bin_lower_edge", number / 20, bin=bin_),
            counter("model_scores_total", ROWS * share, bin=bin_),
            counter("model_score_sum_total", ROWS * risk, bin=bin_),
        ]
    for predicted, part in (("0", slice(None, 10)), ("1", slice(10, None))):
        found += [
            counter("model_predictions_total", ROWS * shares[part].sum(), predicted=predicted),
            counter("model_prediction_risk_sum_total", ROWS * risks[part].sum(), predicted=predicted),
            counter("model_prediction_variance_sum_total", ROWS * 0.05, predicted=predicted),
        ]
    return found


def labels_of(model: Served, at: int, arrive: Mapping[tuple[str, str], float]) -> list[dict[str, str]]:
    """Counters of late labels, all at 0, of which those of (bin, outcome) grow once, at a step."""
    found = []
    for number in range(20):
        for outcome in ("0", "1"):
            amount = arrive.get((f"{number:02d}", outcome), 0.0)
            risk = float(TABLE["risks"][number].sum() / TABLE["rows"][number].sum())
            labels = {"bin": f"{number:02d}", "outcome": outcome}
            labels |= {"model_name": model.name, "model_version": model.version}
            for name, power in (("", 0), ("_risk_sum", 1), ("_squared_risk_sum", 2)):
                value = amount * risk**power
                text = f"{absent(model.first)}0+0x{at - model.first} {value:.8g}+0x{model.last - at}"
                found.append(line(f"model_feedback{name}_total", labels, text))
    return found


def firing(
    folder: Path,
    series: Sequence[dict[str, str]],
    hours: Sequence[float],
    expected: Mapping[str, int],
    groups: Sequence[promql.Group] = tuple(generate.groups()),
    step: int = STEP,
) -> subprocess.CompletedProcess[str]:
    """Play the series and compare the alerts that fire, series of each, at all those hours.

    step: minutes between samples, and between evaluations of the groups of recording rules and of alerts.
    """
    alerts = [as_prometheus(rule) for title, rule in RULES.items() if title != "Watchdog"]
    (folder / "rules.yml").write_text(promql.as_yaml(groups), encoding="utf-8")
    document = {"groups": [{"name": "alerts", "rules": alerts}]}
    (folder / "alerts.yml").write_text(yaml.safe_dump(document, width=10_000), encoding="utf-8")
    samples = [
        {"labels": f'{{alertname="{title}"}}', "value": number} for title, number in sorted(expected.items())
    ]
    expr = 'count by (alertname) (ALERTS{alertstate="firing"})'
    test: dict[str, Any] = {
        "interval": f"{step}m",
        "input_series": [
            *series,
            line("up", {"job": "prometheus", "instance": "p"}, "1+0x2000"),
        ],
        "promql_expr_test": [
            {"expr": expr, "eval_time": f"{round(hour * 60)}m", "exp_samples": samples} for hour in hours
        ],
    }
    document = {
        "rule_files": ["rules.yml", "alerts.yml"],
        "evaluation_interval": f"{step}m",
        "group_eval_order": [*(group.name for group in groups), "alerts"],
        "tests": [test],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(document, width=10_000), encoding="utf-8")
    command = [require("promtool"), "test", "rules", "test.yml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.real
def test_a_fresh_version_rings_nothing(tmp_path: Path) -> None:
    """Version 1 of a day gives way to version 2, whose counters begin at 0; two late labels arrive.

    One positive below one negative is a ROC AUC of 0: there is no such figure of two labels.
    """
    old, new = Served("risk", "1", 0, 24 * HOUR), Served("risk", "2", 24 * HOUR, 30 * HOUR)
    two_labels = labels_of(new, 25 * HOUR, {("03", "1"): 1, ("10", "0"): 1})
    done = firing(tmp_path, [UP, *of_model(old), *of_model(new), *two_labels], np.arange(1, 30, 0.5), {})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.real
def test_two_models_of_one_version_number_are_told_apart(tmp_path: Path) -> None:
    """The made-up model, version 1, gives way to a real one, version 1, of other people: no drift."""
    made_up = Served("risk-synthetic", "1", 0, 24 * HOUR)
    real = Served("risk", "1", 24 * HOUR, 30 * HOUR, OTHER_REFERENCE)
    done = firing(tmp_path, [UP, *of_model(made_up), *of_model(real)], np.arange(1, 30, 0.5), {})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.real
def test_an_outage_of_prometheus_of_two_hours_rings_nothing_and_mends_nothing(tmp_path: Path) -> None:
    """Two features drift from the start: that rings before the outage and after it, and nothing else does."""
    model, gap = Served("risk", "1", 0, 34 * HOUR), (26 * HOUR, 28 * HOUR)
    ringing = {"Feature drift": 2}
    hours = [24, 25, 25.5, *np.arange(28.5, 34, 0.5)]
    done = firing(tmp_path, [UP, *of_model(model, OTHER_REFERENCE, gap)], hours, ringing)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.real
def test_a_quiet_model_rings_nothing_after_an_outage_of_two_hours(tmp_path: Path) -> None:
    model, gap = Served("risk", "1", 0, 34 * HOUR), (26 * HOUR, 28 * HOUR)
    done = firing(
        tmp_path, [UP, *of_model(model, None, gap)], [*np.arange(1, 26), *np.arange(28.5, 34, 0.5)], {}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.real
def test_a_pause_of_prometheus_rings_nothing_and_a_broken_rule_does(tmp_path: Path) -> None:
    """A stopped process misses evaluations once; a rule that fails every minute is told after a quarter."""
    missed = 'prometheus_rule_group_iterations_missed_total{rule_group="a"}'
    failed = 'prometheus_rule_evaluation_failures_total{rule_group="days"}'
    for name, series, rings in (
        ("pause", {missed: "0x30 25x60", failed: "0x90"}, False),
        # A group that is evaluated every ten minutes fails as often.
        ("broken", {missed: "0x90", failed: "0x30 " + " ".join(f"{n}x9" for n in range(1, 7))}, True),
    ):
        folder = tmp_path / name
        folder.mkdir()
        alerts = {"groups": [{"name": "alerts", "rules": [as_prometheus(RULES["Rules fail"])]}]}
        (folder / "alerts.yml").write_text(yaml.safe_dump(alerts, width=10_000), encoding="utf-8")
        checks = [
            {
                "expr": 'count(ALERTS{alertstate="firing"}) or vector(0)',
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": "{}", "value": int(rings and minute >= 50)}],
            }
            for minute in (31, 35, 41, 50, 60, 70, 80)
        ]
        test = {
            "interval": "1m",
            "input_series": [{"series": key, "values": text} for key, text in series.items()],
            "promql_expr_test": checks,
        }
        document = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": [test]}
        (folder / "test.yml").write_text(yaml.safe_dump(document, width=10_000), encoding="utf-8")
        command = [require("promtool"), "test", "rules", "test.yml"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def sidecar(
    instance: str, version: str, first: int, last: int, away: Sequence[int] = (), silent: Sequence[int] = ()
) -> list[dict[str, str]]:
    """What a sidecar under traffic says about itself, minute by minute; its counters begin at 0.

    away: minutes in which it does not answer; it is another process afterwards. silent: minutes in which its
    model gives no answer, and every request fails.
    """
    started = [first, *(minute + 1 for minute in away)]

    def values(value: Callable[[int, int], float]) -> str:
        """Of each minute and the minute of the start before it."""
        texts = ["_"] * first
        for minute in range(first, last):
            start = max(one for one in started if one <= minute)
            texts.append("stale" if minute in away else f"{value(minute, start):.10g}")
        return " ".join([*texts, "stale"])

    def answered(at: int, start: int) -> int:
        return 60 * sum(minute not in silent for minute in range(start + 1, at + 1))

    def failed(at: int, start: int) -> int:
        return 60 * (at - start) - answered(at, start)

    def contact(at: int, start: int) -> int:
        return 60 * max(one for one in range(start, at + 1) if one == start or one not in silent)

    model = {"model_name": "risk", "model_version": version}
    invocations = {"endpoint": "invocations"}
    samples: list[tuple[str, Mapping[str, str], Callable[[int, int], float]]] = [
        ("sidecar_requests_total", {**invocations, "status": "2xx"}, answered),
        ("sidecar_requests_total", {**invocations, "status": "5xx"}, failed),
        ("sidecar_request_duration_seconds_count", {}, answered),
        ("sidecar_request_duration_seconds_bucket", {"le": "0.25"}, answered),
        ("sidecar_requests_refused_total", {"reason": "overload"}, lambda *_: 0),
        ("sidecar_observation_failures_total", {"part": "body"}, lambda *_: 0),
        ("sidecar_upstream_contact_timestamp_seconds", {}, contact),
        ("sidecar_queue_oldest_wait_seconds", {}, lambda at, _: 30 * (at in silent)),
        ("sidecar_reference_loaded", {}, lambda *_: 1),
        ("process_start_time_seconds", {}, lambda _, start: 60 * start),
        ("model_info", {**model, "synthetic": "false"}, lambda *_: 1),
    ]
    target = {"job": "exporter", "instance": instance}
    up = " ".join("_" if at < first else str(int(at not in away)) for at in range(last)) + " stale"
    return [
        line("up", target, up),
        *(line(name, target | labels, values(of)) for name, labels, of in samples),
    ]


SERVICE = [group for group in generate.groups() if group.name == "service"]


@pytest.mark.real
def test_a_sidecar_that_is_started_again_or_replaced_rings_nothing(tmp_path: Path) -> None:
    """Two of one version are started again, one after the other; then two of another version follow them.

    Its own counters, the time of the last contact and the number of sidecars begin anew each time.
    """
    series = [
        *sidecar("a", "1", 0, 122, away=[40]),
        *sidecar("b", "1", 0, 122, away=[42, 43]),
        *sidecar("c", "2", 121, 240),
        *sidecar("d", "2", 123, 240),
    ]
    done = firing(tmp_path, series, [minute / 60 for minute in range(1, 240)], {}, SERVICE, step=1)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


OTHER_MODEL = "1x59 0x5 stale 0x7 1x200"  # from minute 60 to 74, whom the sidecar asks anew from 67 on
LOOP = [*range(60, 68), *range(70, 75)]  # it comes up, and ends again after two minutes


@pytest.mark.real
@pytest.mark.parametrize(
    ("title", "begins", "series"),
    [
        ("Model down", 62, sidecar("a", "1", 0, 240, away=[66], silent=range(60, 75))),
        (
            "Model and reference do not match",
            65,
            [
                *sidecar("a", "1", 0, 240, away=[66]),
                line("model_golden_rows_match", {"job": "exporter", "instance": "a"}, OTHER_MODEL),
            ],
        ),
        ("Sidecar down", 62, sidecar("a", "1", 0, 240, away=LOOP)),
    ],
)
def test_a_fault_is_one_page_although_the_sidecar_is_started_again(
    title: str, begins: int, series: Sequence[dict[str, str]], tmp_path: Path
) -> None:
    """A fault of a quarter of an hour. Whoever is paged starts the sidecar again, then mends the cause.

    A sidecar that has just started knows nothing of a silence, nor of other scores. That does not end the
    page and begin another.
    """
    for name, minutes, expected in (
        ("during", range(begins, 80), {title: 1}),
        ("otherwise", [*range(1, begins), *range(82, 240)], {}),
    ):
        folder = tmp_path / name
        folder.mkdir()
        done = firing(folder, series, [minute / 60 for minute in minutes], expected, SERVICE, step=1)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
