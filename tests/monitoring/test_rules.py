"""The recording rules against numpy, in promtool: `steps/measures/evidence.py` says what each must be."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from scipy import special

from monitoring.prometheus import __main__ as generate
from monitoring.prometheus import drift, performance, promql
from monitoring.sidecar.metrics import Metrics
from steps.measures import evidence, selection
from tests.conftest import require

FOLDER = generate.RULES.parent
BINS = [f"{index:02d}" for index in range(20)]


@pytest.fixture(params=["promtool", pytest.param("promtool3", marks=pytest.mark.soak)])
def promtool(request: pytest.FixtureRequest) -> str:
    """Debian's promtool; for soak also one of Prometheus 3, from the path or the variable PROMTOOL3."""
    if request.param == "promtool":
        return require("promtool")
    path = os.environ.get("PROMTOOL3") or shutil.which("promtool3")
    if path is None:
        pytest.skip("no promtool of Prometheus 3: name one in the variable PROMTOOL3")
    return path


class Scenario:
    """Input series, one sample every `step` minutes, and what expressions must give."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.series: list[dict[str, str]] = []
        self.checks: list[dict[str, object]] = []

    def add(self, name: str, labels: Mapping[str, str], values: str) -> None:
        """A series in promtool's notation."""
        text = ",".join(f'{key}="{value}"' for key, value in labels.items())
        self.series.append({"series": f"{name}{{{text}}}", "values": values})

    def counter(
        self,
        name: str,
        labels: Mapping[str, str],
        amounts: Sequence[float],
        samples: int,
        restart: int | None = None,
    ) -> None:
        """A counter that grows by each of `amounts` a step, for `samples` steps each; from 0 at a restart."""
        parts, value = [], 0.0
        for place, amount in enumerate(amounts):
            value = 0.0 if place == restart else value
            parts.append(f"{value:.10g}+{amount:.10g}x{samples - 1}")
            value += amount * samples
        parts.append(f"{value:.10g}")
        self.add(name, labels, " ".join(parts))

    def gauge(self, name: str, labels: Mapping[str, str], value: float, samples: int) -> None:
        """A constant."""
        self.add(name, labels, f"{value:.10g}x{samples}")

    def close(self, expr: str, at: str, value: float, tolerance: float) -> None:
        """The one sample of `expr` is within `tolerance` of `value` at time `at`."""
        self._check(f"max(abs(({expr}) - {float(value)!r}) <= bool {float(tolerance)!r})", at)

    def holds(self, condition: str, at: str) -> None:
        """The condition gives a sample."""
        self._check(f"count({condition}) > bool 0", at)

    def absent(self, expr: str, at: str) -> None:
        """No sample at all."""
        self.checks.append({"expr": expr, "eval_time": at, "exp_samples": []})

    def _check(self, expr: str, at: str) -> None:
        self.checks.append({"expr": expr, "eval_time": at, "exp_samples": [{"labels": "{}", "value": 1}]})

    def run(
        self, promtool: str, folder: Path, groups: str, evaluation: str, without: Sequence[str] = ()
    ) -> None:
        """Compute the named groups of rules over the series, without some windows for speed, and compare."""
        names = ["days", *(name for group in groups.split() for name in (group, f"{group}_days"))]
        chosen = [
            one._replace(rules=[rule for rule in one.rules if rule.labels.get("window") not in without])
            for one in generate.groups()
            if one.name in names
        ]
        (folder / "rules.yml").write_text(promql.as_yaml(chosen), encoding="utf-8")
        document = {
            "rule_files": ["rules.yml"],
            "evaluation_interval": evaluation,
            # Without it promtool takes groups in any order, and a rule may read what is not there yet.
            "group_eval_order": [one.name for one in chosen],
            "tests": [
                {
                    "interval": f"{self.step}m",
                    "input_series": self.series,
                    "promql_expr_test": self.checks,
                }
            ],
        }
        (folder / "test.yml").write_text(yaml.safe_dump(document, width=10_000), encoding="utf-8")
        answer = subprocess.run(
            [promtool, "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stdout[-6000:] + answer.stderr[-6000:]


def test_rules_file_is_what_the_generator_writes():
    assert generate.main(["--check"]) == 0


def test_generator_says_so_when_the_file_is_out_of_date(tmp_path, monkeypatch, capsys):
    stale = tmp_path / "rules.yml"
    stale.write_text("groups: []\n", encoding="utf-8")
    monkeypatch.setattr(generate, "RULES", stale)
    assert generate.main(["--check"]) == 1
    assert "python -m monitoring.prometheus" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_generator_and_numpy_use_the_same_constants():
    for ours, theirs, names in (
        (drift, evidence, ("SMOOTHING", "TYPICAL_PSI", "PSI_FLOOR", "LOOKS_A_YEAR", "Z_999", "MENDED_LOG10")),
        (performance, evidence, ("CALIBRATION_CONCENTRATION", "CALIBRATION_FLOOR", "SMALLEST_PRIOR")),
        (performance, selection, ("POPULATED_ROWS", "FEWEST_EFFECTIVE")),
    ):
        for name in names:
            assert getattr(ours, name) == getattr(theirs, name), name


def test_log_gamma_in_promql_is_right_but_for_what_cancels():
    expression = promql.log_gamma("x").replace("ln(", "log(")
    for x in (1e-9, 0.01, 0.5, 1.0, 2.5, 30.0, 1e3, 1.5e5, 1e7):
        found = eval(expression, {"log": np.log, "x": x})
        exact = float(special.gammaln(x)) + x + promql.LOG_GAMMA_CONSTANT
        assert found == pytest.approx(exact, abs=5e-4, rel=1e-13)


def test_a_backfill_level_reads_only_levels_below_it():
    made: set[str] = set()
    for level in generate.levels():
        for rule in level:
            assert set(re.findall(r"\b[a-z_]+(?::[a-z_]+[a-z_0-9]*)+", rule.expr)) <= made, rule.record
        made |= {rule.record for rule in level}
    assert sum(map(len, generate.levels())) == sum(len(group.rules) for group in generate.groups())


def test_what_is_recorded_every_ten_minutes_is_read_over_a_time():
    """An instant query looks back five minutes: it would find nothing in the other five."""
    days = {
        rule.record
        for group in generate.groups()
        if group.interval == promql.DAY_INTERVAL
        for rule in group.rules
    }
    assert len(days) > 10
    read = [
        (match[0], rule.expr[: match.start()])
        for group in generate.groups()
        for rule in group.rules
        for match in re.finditer(r"[a-z_]+:[a-z_:0-9]+", rule.expr)
        if match[0] in days
    ]
    assert {name for name, _ in read} == days
    assert all(before.endswith("last_over_time(") for _, before in read)


def test_rules_read_only_metrics_that_the_sidecar_exports():
    registry = CollectorRegistry()
    Metrics(registry, None, "1")
    exported: set[str] = set()
    for line in generate_latest(registry).decode().splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            parts = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
            exported |= {name + part for part in parts}
    read = {
        name
        for group in generate.groups()
        for rule in group.rules
        for name in re.findall(
            r"(?<![:a-z_])(?:model|sidecar)_[a-z_]+(?![:a-z_0-9])", re.sub(r"\(([a-z_, ]*)\)", "", rule.expr)
        )
    }
    assert read - {"model_name", "model_version"} <= exported
    assert len(read) > 15


@pytest.mark.real
def test_promtool_accepts_rules_and_configuration(promtool):
    for command in (["check", "rules", "--lint=all", "--lint-fatal"], ["check", "config"]):
        file = "rules.yml" if "rules" in command else "prometheus.yml"
        answer = subprocess.run(
            [promtool, *command, str(FOLDER / file)], capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr


# Values a minute and bin of one replica; the reference's rows.
STEADY = {"sex": [6, 5], "age": [1, 2, 4, 3, 2, 0]}
SHIFTED = {"sex": [6, 5], "age": [0, 1, 3, 3, 4, 1]}
REFERENCE = {"sex": [3000, 2500], "age": [440, 900, 1800, 1300, 900, 10]}


def _reference(scenario: Scenario, samples: int, replica: str) -> None:
    for feature, rows in REFERENCE.items():
        for index, count in enumerate(rows):
            labels = {
                "feature": feature,
                "bin": f"b{index}",
                "model_name": "risk",
                "model_version": "3",
                "instance": replica,
            }
            scenario.gauge("model_feature_reference_rows", labels, count, samples)
        labels = {"feature": feature, "model_name": "risk", "model_version": "3", "instance": replica}
        for fate, amount in (("missing", 0), ("out_of_range", 0), ("unknown_level", 0)):
            scenario.counter(f"model_feature_{fate}_total", labels, [amount], samples)


@pytest.mark.real
def test_psi_and_evidence_with_two_replicas_a_restart_and_an_empty_bin(promtool, tmp_path):
    scenario = Scenario(step=1)
    for replica in ("a", "b"):
        _reference(scenario, 180, replica)
        for feature in STEADY:
            hours = [STEADY[feature]] * 2 + [SHIFTED[feature]]
            for index in range(len(STEADY[feature])):
                if feature == "age" and index == 5 and replica == "b":
                    continue  # a bin that this replica never exported
                labels = {
                    "feature": feature,
                    "bin": f"b{index}",
                    "model_name": "risk",
                    "model_version": "3",
                    "instance": replica,
                }
                amounts = [hour[index] for hour in hours]
                restart = 1 if replica == "b" else None
                scenario.counter("model_feature_values_total", labels, amounts, 60, restart)
    scenario.holds('feature:model_feature_values:drift_alarm{feature="age",model_version="3"} <= 0', "2h")
    for feature in STEADY:
        both = np.array([2.0] * len(STEADY[feature]))
        if feature == "age":
            both[5] = 1
        steady, shifted = (60 * both * np.array(rows[feature]) for rows in (STEADY, SHIFTED))
        for at, window, counts in (
            ("2h", "1h", steady),
            ("3h", "1h", shifted),
            ("3h", "6h", 2 * steady + shifted),
        ):
            where = f'feature="{feature}",window="{window}",model_version="3"'
            level = "feature_window:model_feature_values"
            scenario.close(f"{level}:rows{{{where}}}", at, counts.sum(), 0.03 * counts.sum())
            scenario.close(f"{level}:psi{{{where}}}", at, evidence.psi(counts, REFERENCE[feature]), 0.005)
            expected = evidence.drift_evidence(counts, REFERENCE[feature])
            scenario.close(f"{level}:drift_evidence{{{where}}}", at, expected, 0.05 + 0.03 * abs(expected))
    limit = evidence.evidence_limit(len(STEADY) + 2)
    scenario.close("version:model_evidence:limit", "3h", limit, 1e-9)
    ringing = (
        "feature:model_feature_values:drift_alarm"
        " > on (model_name, model_version) group_left () version:model_evidence:limit"
    )
    scenario.close(f"count({ringing})", "3h", 1, 0)
    scenario.holds(f'({ringing}) and feature:model_feature_values:drift_alarm{{feature="age"}}', "3h")
    scenario.run(promtool, tmp_path, "features", "1m", without=["12h", "1d", "3d", "14d"])


@pytest.mark.real
def test_windows_of_days_are_summed_from_recorded_days(promtool, tmp_path):
    scenario = Scenario(step=30)
    days = 15
    _reference(scenario, 48 * days, "a")
    for feature in STEADY:
        for index, (before, after) in enumerate(zip(STEADY[feature], SHIFTED[feature], strict=True)):
            labels = {
                "feature": feature,
                "bin": f"b{index}",
                "model_name": "risk",
                "model_version": "3",
                "instance": "a",
            }
            scenario.counter("model_feature_values_total", labels, [before] * (days - 1) + [after], 48)
    scenario.counter(
        "model_feature_missing_total",
        {"feature": "age", "model_name": "risk", "model_version": "3", "instance": "b"},
        [0] * (days - 1) + [2],
        48,
    )
    level = "feature_window:model_feature_values"
    for feature in STEADY:
        before, after = 48 * np.array(STEADY[feature]), 48 * np.array(SHIFTED[feature])
        for window, counts in (("1d", after), ("3d", 2 * before + after), ("14d", 13 * before + after)):
            where = f'feature="{feature}",window="{window}"'
            at = f"{24 * days}h"
            scenario.close(f"{level}:rows{{{where}}}", at, counts.sum(), 0.03 * counts.sum())
            scenario.close(f"{level}:psi{{{where}}}", at, evidence.psi(counts, REFERENCE[feature]), 0.005)
            expected = evidence.drift_evidence(counts, REFERENCE[feature])
            scenario.close(f"{level}:drift_evidence{{{where}}}", at, expected, 0.05 + 0.03 * abs(expected))
    share = 2 / (2 + sum(SHIFTED["age"]))
    fates = 'fate_feature_window:model_feature_values:{}{{feature="age",window="1d",fate="missing"}}'
    scenario.close(fates.format("ratio"), "360h", share, 0.005)
    rows = 48 * (2 + sum(SHIFTED["age"]))
    z = drift.Z_999
    lower = share + z**2 / 2 / rows - z * np.sqrt(share * (1 - share) / rows + z**2 / 4 / rows**2)
    scenario.close(fates.format("ratio_lower"), "360h", lower / (1 + z**2 / rows), 0.01)
    scenario.close('max(fate_feature_window:model_feature_values:ratio{fate="unknown_level"})', "360h", 0, 0)
    scenario.run(promtool, tmp_path, "features", "1h", without=["6h", "12h"])


@pytest.mark.real
def test_without_rows_the_alarm_is_zero_and_a_vanished_exporter_leaves_no_gap(promtool, tmp_path):
    scenario = Scenario(step=1)
    _reference(scenario, 30, "a")
    alarm = "feature:model_feature_values:drift_alarm"
    for at in ("10m", "80m"):
        scenario.close(f"count({alarm})", at, len(REFERENCE), 0)
        scenario.close(f"max({alarm})", at, 0, 1e-6)
    scenario.absent(alarm, "100m")
    scenario.run(promtool, tmp_path, "features", "1m", without=["6h", "12h", "1d", "3d", "14d"])


@pytest.mark.real
def test_versions_are_kept_apart(promtool, tmp_path):
    """After a change of the model its rows are compared with its own reference."""
    scenario = Scenario(step=1)
    for version, rows in (("3", REFERENCE["age"]), ("4", REFERENCE["age"][::-1])):
        for index, count in enumerate(rows):
            labels = {"feature": "age", "bin": f"b{index}", "model_name": "risk", "model_version": version}
            scenario.gauge("model_feature_reference_rows", labels, count, 120)
            scenario.counter("model_feature_values_total", labels, [count / 100], 120)
    scenario.close("count(feature:model_feature_values:drift_alarm)", "2h", 2, 0)
    scenario.close("max(feature:model_feature_values:drift_alarm)", "2h", 0, 1e-9)
    scenario.run(promtool, tmp_path, "features", "1m", without=["6h", "12h", "1d", "3d", "14d"])


@pytest.mark.real
def test_two_models_of_the_same_version_are_kept_apart(promtool, tmp_path):
    """The demo gives way to the real model, both version 1: the traffic fits each one's own reference."""
    scenario = Scenario(step=1)
    for name, rows, minutes in (("demo", [9000, 1000], [1, 0]), ("real", [2000, 8000], [0, 1])):
        for index, count in enumerate(rows):
            labels = {"feature": "HighBP", "bin": f"b{index}", "model_name": name, "model_version": "1"}
            scenario.gauge("model_feature_reference_rows", labels, count, 120)
            amounts = [count / 100 * part for part in minutes]
            scenario.counter("model_feature_values_total", labels, amounts, 60)
    scenario.close("count(feature:model_feature_values:drift_alarm)", "2h", 2, 0)
    scenario.close("max(feature:model_feature_values:drift_alarm)", "2h", 0, 1e-9)
    scenario.run(promtool, tmp_path, "features", "1m", without=["6h", "12h", "1d", "3d", "14d"])


def score_table(rows: int, seed: int, slope: float = 1.0, bins: int = 20) -> dict[str, np.ndarray]:
    """Rows of a model by score bin: counts, sums of risk and of its square, each by outcome, (bins, 2)."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.5, 1.3, rows)
    risk = special.expit(logit)
    outcome = (rng.random(rows) < special.expit(slope * logit)).astype(int)
    index = np.searchsorted(np.quantile(risk, np.arange(1, bins) / bins), risk, side="right")
    cell = 2 * index + outcome
    return {
        name: np.bincount(cell, weights, minlength=2 * bins).reshape(bins, 2)
        for name, weights in (("rows", None), ("risks", risk), ("squares", risk**2))
    } | {"row": np.stack([risk, outcome])}


def _feed(scenario: Scenario, scored: Mapping[str, Any], share: Any, samples: int, steps: int) -> None:
    """Counters of scores, and of the share of them (by bin) that is labelled, over `steps` of `samples`."""
    for index, rows in enumerate(scored["rows"]):
        model = {"bin": f"{index:02d}", "model_name": "risk", "model_version": "3"}
        scenario.counter("model_scores_total", model, [rows.sum() / steps], samples)
        scenario.counter("model_score_sum_total", model, [scored["risks"][index].sum() / steps], samples)
        scenario.gauge("model_score_reference_rows", model, 100, samples)
        scenario.gauge("model_score_bin_lower_edge", model, index / len(scored["rows"]), samples)
        for outcome in (0, 1):
            labels = {**model, "outcome": str(outcome)}
            for name, key in (("", "rows"), ("_risk_sum", "risks"), ("_squared_risk_sum", "squares")):
                amount = float(scored[key][index, outcome]) * share[index] / steps
                scenario.counter(f"model_feedback{name}_total", labels, [amount], samples)


@pytest.mark.real
@pytest.mark.parametrize("bins", [20, 25])
def test_late_labels_of_a_selection_are_weighted_as_numpy_does(promtool, tmp_path, bins):
    """Nine of ten labels for those whom the model flags, one of four for the others; any number of bins."""
    scenario = Scenario(step=60)
    table = score_table(6000, 3, bins=bins)
    days, flagged = 8, bins - 6
    share = np.where(np.arange(bins) >= flagged, 0.9, 0.25)
    _feed(scenario, table, share, 24 * days, 24 * 7)
    model = {"model_name": "risk", "model_version": "3"}
    scenario.gauge("model_decision_threshold", model, flagged / bins, 24 * days)
    at = f"{24 * days}h"
    rows, positives = table["rows"].sum(1), table["rows"][:, 1] * share
    labels = rows * share
    level = "window:model_feedback"
    for window, part in (("7d", 1.0), ("1d", 1 / 7)):
        where = f'{{window="{window}"}}'
        n, known, k = part * rows, part * labels, part * positives
        scenario.close(f"{level}:labels{where}", at, known.sum(), 0.03 * known.sum())
        effective = min(selection.effective(n, known, k))
        if effective < performance.FEWEST_EFFECTIVE:
            scenario.absent(f"{level}:roc_auc{where}", at)
            continue
        scenario.close(f"{level}:effective_labels{where}", at, effective, 0.03 * effective)
        for name, estimate in (
            ("roc_auc", selection.roc_auc(n, known, k)),
            ("recall", selection.recall(n, known, k, flagged)),
            (
                "observed_expected_ratio",
                selection.observed_expected(n, known, k, part * table["risks"].sum(1)),
            ),
        ):
            scenario.close(f"{level}:{name}{where}", at, float(estimate.value), 0.001)
            stderr = float(estimate.stderr)
            scenario.close(f"{level}:{name}_stderr{where}", at, stderr, 0.04 * stderr)
        precision = float(selection.precision(n, known, k, flagged).value)
        scenario.close(f"{level}:precision{where}", at, precision, 0.001)
    # The figure of the labelled rows alone would be another.
    naive = evidence.roc_auc(positives, labels - positives)
    assert abs(float(naive) - float(selection.roc_auc(rows, labels, positives).value)) > 0.005
    scenario.run(promtool, tmp_path, "scores_days labels", "2h", without=["3d", "14d", "30d", "90d"])


# People of a week by class (not flagged, flagged): rows, labels, of these ill, sum of the labelled risks.
_OLD = np.array([[700.0, 175, 20, 17.5], [2100, 1890, 700, 756]])
_FEW = np.array([[20.0, 5, 1, 0.5], [20, 18, 9, 8]])


@pytest.mark.real
def test_people_of_a_group_are_weighted_by_the_labelled_share_of_their_class(promtool, tmp_path):
    """Of 700 old people who were not flagged a quarter is labelled, of 2,100 flagged nine of ten; a group of
    40 has no figure."""
    scenario, hours = Scenario(step=60), 24 * 8
    for group, table in (("old", _OLD), ("few", _FEW)):
        for flagged, (rows, known, ill, risks) in enumerate(table / 7):
            by = {"group": group, "predicted": str(flagged), "model_name": "risk", "model_version": "3"}
            scenario.counter("model_group_rows_total", by, [rows / 24], hours)
            scenario.counter("model_group_feedback_risk_sum_total", by, [risks / 24], hours)
            for outcome, amount in (("0", known - ill), ("1", ill)):
                labels = {**by, "outcome": outcome}
                scenario.counter("model_group_feedback_total", labels, [amount / 24], hours)
    rows, known, ill, risks = _OLD.T
    weight, at = rows / known, f"{hours}h"
    for name, value in {
        "rows:flagged_ratio": rows[1] / rows.sum(),
        "feedback:recall": (weight * ill)[1] / (weight * ill).sum(),
        "feedback:positive_ratio": (weight * ill).sum() / rows.sum(),
        "feedback:expected_ratio": (weight * risks).sum() / rows.sum(),
        "feedback:effective_labels": (weight * ill).sum() ** 2 / (weight**2 * ill).sum(),
    }.items():
        series = f"group_window:model_group_{name}"
        scenario.close(f'{series}{{group="old",window="7d"}}', at, value, 0.01 * value)
        if "effective" not in name:
            scenario.absent(f'{series}{{group="few",window="7d"}}', at)
    assert abs(ill[1] / ill.sum() - (weight * ill)[1] / (weight * ill).sum()) > 0.05
    scenario.run(promtool, tmp_path, "people", "2h", without=["30d", "90d"])


@pytest.mark.real
def test_a_group_of_whom_no_unflagged_person_is_labelled_has_no_figure(promtool, tmp_path):
    """How many ill people were missed, nobody knows."""
    scenario, hours = Scenario(step=60), 24 * 8
    for flagged in "01":
        by = {"group": "old", "predicted": flagged, "model_name": "risk", "model_version": "3"}
        scenario.counter("model_group_rows_total", by, [20], hours)
        for outcome in "01":
            amount = 8 if flagged == "1" else 0
            scenario.counter("model_group_feedback_total", {**by, "outcome": outcome}, [amount], hours)
    scenario.holds(
        'group_outcome_predicted_window:model_group_feedback:increase{window="7d"} > 100', f"{hours}h"
    )
    scenario.holds('group_window:model_group_rows:flagged_ratio{window="7d"} > 0.49', f"{hours}h")
    scenario.absent("group_window:model_group_feedback:recall", f"{hours}h")
    scenario.run(promtool, tmp_path, "people", "2h", without=["30d", "90d"])


@pytest.mark.real
def test_calibration_from_late_labels_is_judged_as_numpy_does(promtool, tmp_path):
    """Bin by bin and pooled; labels of versions that nobody tells apart are left out."""
    scenario = Scenario(step=60)
    table = score_table(4000, 3, slope=0.6)
    days = 8
    _feed(scenario, table, np.ones(20), 24 * days, 24 * 7)
    at = f"{24 * days}h"
    rows, risks = table["rows"], table["risks"]
    for window, share in (("7d", 1.0), ("1d", 1 / 7)):
        where = f'{{window="{window}"}}'
        error = float(evidence.calibration_error(share * rows, share * risks, share * table["squares"]).value)
        scenario.close(f"window:model_feedback:calibration_error{where}", at, error, 0.0005)
        found = evidence.calibration_evidence(share * rows[:, 1], share * rows.sum(1), share * risks.sum(1))
        larger = float(found.larger)
        scenario.close(f"window:model_calibration:evidence{where}", at, larger, 0.05 + 0.03 * abs(larger))
    mixed = {"bin": "00", "outcome": "1", "model_name": "risk", "model_version": "other"}
    scenario.counter("model_feedback_total", mixed, [5], 24 * days)
    scenario.absent('window:model_feedback:labels{model_version="other"}', at)
    scenario.holds("version:model_calibration:alarm > 5", at)
    scenario.run(promtool, tmp_path, "scores_days labels", "2h", without=["3d", "14d", "30d", "90d"])


@pytest.mark.real
def test_two_labels_say_nothing(promtool, tmp_path):
    """One positive below one negative is a ROC AUC of 0 without a standard error: there is no figure."""
    scenario = Scenario(step=30)
    table = score_table(2000, 3)
    share = np.zeros(20)
    _feed(scenario, table, share, 96, 96)
    for index, outcome in ((3, "1"), (10, "0")):
        for name, risk in (("", 1.0), ("_risk_sum", 0.3), ("_squared_risk_sum", 0.09)):
            labels = {"bin": f"{index:02d}", "outcome": outcome, "model_name": "risk", "model_version": "3"}
            series = next(
                one for one in scenario.series
                if one["series"].startswith(f"model_feedback{name}_total{{")
                and f'bin="{index:02d}"' in one["series"] and f'outcome="{outcome}"' in one["series"]
            )  # fmt: skip
            series["values"] = f"0x20 {risk}x80"
            assert labels
    scenario.close('window:model_feedback:labels{window="1d"}', "20h", 2, 0.1)
    for name in ("roc_auc", "recall", "observed_expected_ratio", "brier", "effective_labels"):
        scenario.absent(f"window:model_feedback:{name}", "20h")
    scenario.close("version:model_calibration:alarm", "20h", 0, 0.5)
    scenario.run(promtool, tmp_path, "scores_days labels", "1h", without=["3d", "7d", "14d", "30d", "90d"])


@pytest.mark.real
def test_a_populated_bin_without_labels_silences_the_figures(promtool, tmp_path):
    """Nobody knows of those people."""
    scenario = Scenario(step=60)
    table = score_table(6000, 3)
    share = np.ones(20)
    share[4] = 0
    _feed(scenario, table, share, 48, 24)
    scenario.holds('window:model_feedback:labels{window="1d"} > 1000', "48h")
    scenario.absent("window:model_feedback:roc_auc", "48h")
    scenario.run(promtool, tmp_path, "scores_days labels", "2h", without=["3d", "7d", "14d", "30d", "90d"])


@pytest.mark.real
def test_windows_hold_what_was_counted_while_prometheus_was_away(promtool, tmp_path):
    """Ten labels a minute; nothing is scraped for two hours and twenty minutes, and the counter goes on."""
    scenario = Scenario(step=10)
    labels = {"bin": "00", "outcome": "1", "model_name": "risk", "model_version": "3"}
    two_days = 2 * 144
    scenario.add(
        "model_feedback_total", labels, f"0+100x{two_days} _x13 {100 * (two_days + 14)}+100x{144 + 100}"
    )
    for at, window, wanted in (("72h", "1d", 14_400), ("82h", "7d", 6 * 10 * 82 * 10)):
        where = f'{{window="{window}"}}'
        scenario.close(
            f"sum(window:model_feedback:labels{where})", at, min(wanted, 10 * 60 * 82), 0.01 * wanted
        )
    scenario.run(promtool, tmp_path, "labels", "30m", without=["30d", "90d"])


@pytest.mark.real
def test_a_broken_scale_that_was_mended_ends_within_26_hours(promtool, tmp_path):
    """1,000 rows a day, one day of doubled values: it rings in the fault, and not 26 hours after it.

    The window of 14 days says drift for two more weeks; a drift that goes on keeps ringing all the time.
    """
    scenario = Scenario(step=60)
    reference = np.array([2000, 3000, 2500, 1500, 700, 300])
    usual = reference / reference.sum() * 1000 / 24
    broken = usual[::-1]
    sound_days, after_days = 13, 3
    for name, faulty in (
        ("mended", [0] * sound_days + [1] + [0] * after_days),
        ("drifts", [0] * sound_days + [1] * 4),
    ):
        for index, count in enumerate(reference):
            labels = {"feature": name, "bin": f"b{index}", "model_name": "risk", "model_version": "3"}
            scenario.gauge("model_feature_reference_rows", labels, count, 24 * 17)
            amounts = [float(broken[index] if day else usual[index]) for day in faulty]
            scenario.counter("model_feature_values_total", labels, amounts, 24)
    fault_ends = 24 * (sound_days + 1)
    alarm = "feature:model_feature_values:drift_alarm"
    limit = evidence.evidence_limit(4)
    for hours, name, rings in (
        (fault_ends - 26, "mended", False),
        (fault_ends, "mended", True),
        (fault_ends + 26, "mended", False),
        (fault_ends + 26, "drifts", True),
        (fault_ends + 70, "drifts", True),
    ):
        scenario.holds(f'{alarm}{{feature="{name}"}} {">=" if rings else "<"} {limit}', f"{hours}h")
    long = 'feature_window:model_feature_values:drift_evidence{feature="mended",window="14d"}'
    scenario.holds(f"{long} > {limit}", f"{fault_ends + 26}h")
    scenario.run(promtool, tmp_path, "features", "2h", without=["1h", "6h", "12h"])


@pytest.mark.real
def test_a_calibration_that_was_mended_ends_after_600_labels(promtool, tmp_path):
    """200 labels a day; for 14 days outcomes come 1.6 times as often as the risks say, then as they say."""
    scenario = Scenario(step=120)
    table = score_table(20_000, 3)
    shares = table["rows"].sum(1) / table["rows"].sum()
    mean_risk = table["risks"].sum(1) / table["rows"].sum(1)
    bad_days, good_days = 14, 5
    for index in range(20):
        for outcome in (0, 1):
            labels = {
                "bin": f"{index:02d}",
                "outcome": str(outcome),
                "model_name": "risk",
                "model_version": "3",
            }
            amounts = []
            for factor, days in ((1.6, bad_days), (1.0, good_days)):
                rate = min(mean_risk[index] * factor, 0.95)
                amounts += [200 / 12 * shares[index] * (rate if outcome else 1 - rate)] * days
            for name, power in (("", 0), ("_risk_sum", 1), ("_squared_risk_sum", 2)):
                scaled = [amount * mean_risk[index] ** power for amount in amounts]
                scenario.counter(f"model_feedback{name}_total", labels, scaled, 12)
        model = {"bin": f"{index:02d}", "model_name": "risk", "model_version": "3"}
        scenario.counter("model_scores_total", model, [200 / 12 * shares[index]], 12 * (bad_days + good_days))
        scenario.gauge("model_score_reference_rows", model, 100, 12 * (bad_days + good_days))
    limit = evidence.evidence_limit(23)
    version = {"model_name": "risk", "model_version": "3"}
    scenario.gauge("version:model_evidence:limit", version, limit, 12 * (bad_days + good_days))
    scenario.holds(f"version:model_calibration:alarm >= {limit}", f"{24 * bad_days}h")
    scenario.holds(f"version:model_calibration:alarm < {limit}", f"{24 * (bad_days + 3) + 4}h")
    scenario.holds(
        f'window:model_calibration:evidence{{window="30d"}} > {limit}', f"{24 * (bad_days + 3) + 4}h"
    )
    scenario.run(promtool, tmp_path, "scores_days labels", "4h", without=["90d"])


@pytest.mark.real
def test_no_psi_of_no_rows(promtool, tmp_path):
    """Smoothed shares of nothing are uniform, which a skewed reference is far from: 1.46 once."""
    scenario = Scenario(step=1)
    for index, count in enumerate([50, 3000, 20_000, 70_000, 6930]):
        labels = {"feature": "levels", "bin": f"b{index}", "model_name": "risk", "model_version": "3"}
        scenario.gauge("model_feature_reference_rows", labels, count, 90)
        scenario.counter("model_feature_values_total", labels, [0], 90)
    scenario.absent("feature_window:model_feature_values:psi", "90m")
    scenario.close("feature:model_feature_values:drift_alarm", "90m", 0, 0)
    scenario.run(promtool, tmp_path, "features", "2m", without=["3d", "14d"])


@pytest.mark.real
def test_without_labels_there_is_no_performance_and_no_calibration_alarm(promtool, tmp_path):
    scenario = Scenario(step=30)
    for label in BINS:
        for outcome in ("0", "1"):
            for name in ("", "_risk_sum", "_squared_risk_sum"):
                labels = {"bin": label, "outcome": outcome, "model_name": "risk", "model_version": "3"}
                scenario.counter(f"model_feedback{name}_total", labels, [0], 20)
    for name in ("roc_auc", "brier", "calibration_error", "observed_expected_ratio"):
        scenario.absent(f"window:model_feedback:{name}", "5h")
    scenario.close("max(window:model_calibration:evidence)", "5h", 0, 0)
    scenario.close("version:model_calibration:alarm", "5h", 0, 0)
    scenario.run(promtool, tmp_path, "labels", "1h", without=["30d", "90d"])


@pytest.mark.real
def test_score_drift_and_expected_performance(promtool, tmp_path):
    scenario = Scenario(step=1)
    table, reference = score_table(3000, 5), score_table(6000, 6)["rows"].sum(1)
    counts, sums = table["rows"].sum(1), table["risks"].sum(1)
    threshold_bin = 13
    spread = sums - table["squares"].sum(1)
    for index, label in enumerate(BINS):
        labels = {"bin": label, "model_name": "risk", "model_version": "3"}
        scenario.gauge("model_score_reference_rows", labels, reference[index], 60)
        scenario.counter("model_scores_total", labels, [counts[index] / 60], 60)
        scenario.counter("model_score_sum_total", labels, [sums[index] / 60], 60)
    for predicted, part in (("0", slice(None, threshold_bin)), ("1", slice(threshold_bin, None))):
        labels = {"predicted": predicted, "model_name": "risk", "model_version": "3"}
        for name, values in (
            ("predictions", counts), ("prediction_risk_sum", sums), ("prediction_variance_sum", spread)
        ):  # fmt: skip
            scenario.counter(f"model_{name}_total", labels, [values[part].sum() / 60], 60)
    where = '{window="1h"}'
    found = evidence.expected_performance(counts, sums, threshold_bin)
    for name in ("roc_auc", "accuracy", "recall", "precision"):
        scenario.close(f"window:model_expected:{name}{where}", "1h", getattr(found, name), 0.0005)
    for name in ("roc_auc_stderr", "accuracy_stderr"):
        value = getattr(found, name)
        scenario.close(f"window:model_expected:{name}{where}", "1h", value, 0.03 * value)
    flagged = counts[threshold_bin:].sum() / counts.sum()
    scenario.close(f"window:model_predictions:positive_ratio{where}", "1h", flagged, 0.0005)
    scenario.close(f"window:model_scores:psi{where}", "1h", evidence.psi(counts, reference), 0.005)
    expected = evidence.drift_evidence(counts, reference)
    scenario.close(f"window:model_scores:drift_evidence{where}", "1h", expected, 0.05 + 0.03 * abs(expected))
    scenario.holds("version:model_scores:drift_alarm <= 0", "1h")
    scenario.run(promtool, tmp_path, "scores", "1m", without=["6h", "12h", "1d", "3d", "14d"])


@pytest.mark.real
def test_burn_alarm_rings_at_the_rate_and_not_below_it_nor_for_a_handful_of_failures(promtool, tmp_path):
    """14.4 times the 0.5 % that may fail is 7.2 %; 20 requests and 5 failures are asked for in an hour."""
    for name, good, failing, rings in (
        ("above", 92, 8, True),
        ("below", 94, 6, False),
        ("few requests", 0.2, 0.1, False),
        ("four failures", 0.5, 4.4 / 60, False),
        ("five failures", 0.5, 5.1 / 60, True),
    ):
        scenario = Scenario(step=1)
        for status, amount in (("2xx", good), ("5xx", failing), ("3xx", 0), ("4xx", 0)):
            labels = {"endpoint": "invocations", "status": status}
            scenario.counter("sidecar_requests_total", labels, [amount], 65)
        scenario.counter("sidecar_requests_total", {"endpoint": "ping", "status": "5xx"}, [50], 65)
        for edge, share in (("0.1", 0.5), ("0.25", 0.98), ("+Inf", 1.0)):
            scenario.counter(
                "sidecar_request_duration_seconds_bucket", {"le": edge}, [share * (good + failing)], 65
            )
        scenario.counter("sidecar_request_duration_seconds_count", {}, [good + failing], 65)
        alarm = 'severity_slo_windows:sidecar_error_budget:burn_alarm{slo="availability",windows="1h 5m"}'
        scenario.holds(f"{alarm} {'>=' if rings else '<'} 1", "65m")
        bad = failing / (good + failing)
        burn = "slo_window:sidecar_error_budget:burn_rate"
        scenario.close(f'{burn}{{slo="availability",window="1h"}}', "65m", bad / 0.005, 0.01)
        scenario.close(f'{burn}{{slo="latency",window="5m"}}', "65m", 2, 0.01)
        rate = (good + failing) / 60
        scenario.close("sum(status:sidecar_requests:rate5m)", "65m", rate, 0.01 * rate)
        quantile = 'quantile:sidecar_request_duration_seconds:rate5m{quantile="0.5"}'
        scenario.close(quantile, "65m", 0.1, 1e-6)
        folder = tmp_path / name
        folder.mkdir()
        scenario.run(promtool, folder, "service", "1m", without=["6h", "1d", "3d"])


@pytest.mark.real
@pytest.mark.parametrize(("silent", "rings"), [(1, True), (2, False)])
def test_a_burn_is_quiet_only_while_the_model_down_alert_speaks(promtool, tmp_path, silent, rings):
    """With one of two models silent, half of the requests fail and "Model down" (more than half) is quiet."""
    scenario = Scenario(step=1)
    for status in ("2xx", "5xx"):
        labels = {"endpoint": "invocations", "status": status}
        scenario.counter("sidecar_requests_total", labels, [50], 65)
    for replica in range(2):
        answered = "0x65" if replica < silent else "0+60x65"
        labels = {"instance": f"replica{replica}"}
        scenario.add("sidecar_upstream_contact_timestamp_seconds", labels, answered)
    scenario.close("job:sidecar_upstream_down:ratio", "65m", silent / 2, 0)
    alarm = 'severity_slo_windows:sidecar_error_budget:burn_alarm{slo="availability",windows="1h 5m"}'
    scenario.holds(f"{alarm} {'>=' if rings else '<'} 1", "65m")
    scenario.run(promtool, tmp_path, "service", "1m", without=["6h", "1d", "3d"])


@pytest.mark.real
def test_model_age_is_the_time_since_training(promtool, tmp_path):
    scenario = Scenario(step=1)
    for replica in ("a", "b"):
        labels = {"model_name": "risk", "model_version": "3", "instance": replica}
        scenario.gauge("model_trained_timestamp_seconds", labels, -86400, 30)
    scenario.close("version:model_age:seconds", "30m", 86400 + 1800, 1)
    scenario.run(promtool, tmp_path, "model", "1m")
