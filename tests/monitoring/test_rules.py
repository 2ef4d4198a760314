"""The recording rules against numpy, in promtool: `steps/measures/evidence.py` says what each must be."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from scipy import special

from monitoring.prometheus import __main__ as generate
from monitoring.sidecar.metrics import Metrics
from steps.measures import evidence
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
        self, promtool: str, folder: Path, group: str, evaluation: str, without: Sequence[str] = ()
    ) -> None:
        """Compute the named group of rules over the series, without some windows for speed, and compare."""
        chosen = [
            one._replace(rules=[rule for rule in one.rules if rule.labels.get("window") not in without])
            for one in generate.groups()
            if one.name == group
        ]
        (folder / "rules.yml").write_text(generate.as_yaml(chosen), encoding="utf-8")
        document = {
            "rule_files": ["rules.yml"],
            "evaluation_interval": evaluation,
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
    for name in (
        "SMOOTHING", "TYPICAL_PSI", "PSI_FLOOR", "CALIBRATION_CONCENTRATION", "CALIBRATION_FLOOR",
        "SMALLEST_PRIOR", "LOOKS_A_YEAR", "Z_999",
    ):  # fmt: skip
        assert getattr(generate, name) == getattr(evidence, name), name


def test_log_gamma_in_promql_is_exact_to_a_millionth():
    expression = generate.log_gamma("x").replace("^", "**").replace("\n", " ").replace("ln(", "log(")
    for x in (1e-9, 0.01, 0.5, 1.0, 2.5, 30.0, 1e3, 1.5e5, 1e7):
        found = eval(expression, {"log": np.log, "x": x})
        assert found == pytest.approx(float(special.gammaln(x)), abs=1e-6, rel=1e-13)


def test_a_backfill_level_reads_only_levels_below_it():
    made: set[str] = set()
    for level in generate.levels():
        for rule in level:
            assert set(re.findall(r"\b[a-z_]+(?::[a-z_]+[a-z_0-9]*)+", rule.expr)) <= made, rule.record
        made |= {rule.record for rule in level}
    assert sum(map(len, generate.levels())) == sum(len(group.rules) for group in generate.groups())


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
def test_windows_of_days_are_summed_from_recorded_hours(promtool, tmp_path):
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
    z = generate.Z_999
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


def _score_table(rows: int, seed: int, slope: float = 1.0) -> dict[str, np.ndarray]:
    """Rows of a model by score bin: counts, sums of risk and of its square, each by outcome, (20, 2)."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.5, 1.3, rows)
    risk = special.expit(logit)
    outcome = (rng.random(rows) < special.expit(slope * logit)).astype(int)
    index = np.searchsorted(np.quantile(risk, np.arange(1, 20) / 20), risk, side="right")
    cell = 2 * index + outcome
    return {
        name: np.bincount(cell, weights, minlength=40).reshape(20, 2)
        for name, weights in (("rows", None), ("risks", risk), ("squares", risk**2))
    } | {"row": np.stack([risk, outcome])}


@pytest.mark.real
def test_statistics_from_late_labels(promtool, tmp_path):
    scenario = Scenario(step=30)
    table = _score_table(4000, 3, slope=0.6)
    samples, days = 48 * 8, 8
    for index, label in enumerate(BINS):
        for outcome in (0, 1):
            labels = {"bin": label, "outcome": str(outcome), "model_name": "risk", "model_version": "3"}
            for name, key in (("", "rows"), ("_risk_sum", "risks"), ("_squared_risk_sum", "squares")):
                amount = float(table[key][index, outcome]) / 48 / 7
                scenario.counter(f"model_feedback{name}_total", labels, [amount], samples)
    at = f"{24 * days}h"
    rows, risks, squares = table["rows"], table["risks"], table["squares"]
    for window, share in (("7d", 1.0), ("1d", 1 / 7)):
        where = f'{{window="{window}"}}'
        counted = share * rows, share * risks, share * squares
        level = "window:model_feedback"
        scenario.close(f"{level}:labels{where}", at, share * rows.sum(), 0.03 * share * rows.sum())
        scenario.close(f"{level}:positive_ratio{where}", at, rows[:, 1].sum() / rows.sum(), 0.001)
        auc = evidence.roc_auc(rows[:, 1], rows[:, 0])
        scenario.close(f"{level}:roc_auc{where}", at, auc, 0.0005)
        stderr = evidence.roc_auc_stderr(auc, share * rows[:, 1].sum(), share * rows[:, 0].sum())
        scenario.close(f"{level}:roc_auc_stderr{where}", at, stderr, 0.03 * stderr)
        for name in ("brier", "calibration_bias", "calibration_error"):
            estimate = getattr(evidence, name)(*counted)
            scenario.close(f"{level}:{name}{where}", at, estimate.value, 0.0005)
            scenario.close(f"{level}:{name}_stderr{where}", at, estimate.stderr, 0.03 * estimate.stderr)
        if_calibrated = evidence.calibration_error_if_calibrated(*counted)
        scenario.close(f"{level}:calibration_error_if_calibrated{where}", at, if_calibrated, 0.001)
        ratio = rows[:, 1].sum() / risks.sum()
        scenario.close(f"{level}:observed_expected_ratio{where}", at, ratio, 0.001)
        found = evidence.calibration_evidence(share * rows[:, 1], share * rows.sum(1), share * risks.sum(1))
        for aspect, value in (("by_bin", found.by_bin), ("pooled", found.pooled)):
            selector = f'{{window="{window}",aspect="{aspect}"}}'
            expr = f"aspect_window:model_calibration:evidence{selector}"
            scenario.close(expr, at, value, 0.05 + 0.03 * abs(value))
        scenario.close(
            f"window:model_calibration:evidence{where}", at, found.larger, 0.05 + 0.03 * abs(found.larger)
        )
    mixed = {"bin": "00", "outcome": "1", "model_name": "risk", "model_version": "other"}
    scenario.counter("model_feedback_total", mixed, [5], samples)
    scenario.absent('window:model_feedback:labels{model_version="other"}', at)
    scenario.holds("version:model_calibration:alarm > 5", at)
    scenario.run(promtool, tmp_path, "labels", "1h", without=["30d", "90d"])


@pytest.mark.real
def test_without_labels_there_is_no_performance_and_no_calibration_alarm(promtool, tmp_path):
    scenario = Scenario(step=30)
    for label in BINS:
        for outcome in ("0", "1"):
            for name in ("", "_risk_sum", "_squared_risk_sum"):
                labels = {"bin": label, "outcome": outcome, "model_name": "risk", "model_version": "3"}
                scenario.counter(f"model_feedback{name}_total", labels, [0], 20)
    for name in ("roc_auc", "brier", "calibration_error", "calibration_bias"):
        scenario.absent(f"window:model_feedback:{name}", "5h")
    scenario.close("max(window:model_calibration:evidence)", "5h", 0, 0)
    scenario.close("version:model_calibration:alarm", "5h", 0, 0)
    scenario.run(promtool, tmp_path, "labels", "1h", without=["30d", "90d"])


@pytest.mark.real
def test_score_drift_and_expected_performance(promtool, tmp_path):
    scenario = Scenario(step=1)
    table, reference = _score_table(3000, 5), _score_table(6000, 6)["rows"].sum(1)
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
def test_burn_alarm_rings_at_the_rate_and_not_below_it_nor_for_a_handful_of_requests(promtool, tmp_path):
    """14.4 times the 0.5 % that may fail is 7.2 %."""
    for name, good, failing, rings in (
        ("above", 92, 8, True), ("below", 94, 6, False), ("few", 0.2, 0.1, False)
    ):  # fmt: skip
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
def test_model_age_is_the_time_since_training(promtool, tmp_path):
    scenario = Scenario(step=1)
    for replica in ("a", "b"):
        labels = {"model_name": "risk", "model_version": "3", "instance": replica}
        scenario.gauge("model_trained_timestamp_seconds", labels, -86400, 30)
    scenario.close("version:model_age:seconds", "30m", 86400 + 1800, 1)
    scenario.run(promtool, tmp_path, "model", "1m")
