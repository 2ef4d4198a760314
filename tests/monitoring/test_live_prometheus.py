"""A real model server, the real sidecar, a real Prometheus: what the rules say of rows that were sent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
import yaml
from sklearn.metrics import roc_auc_score

from monitoring import reference as reader
from monitoring.prometheus import __main__ as generate
from steps.data.schema_file import load
from steps.measures import evidence
from tests.conftest import ROOT, Champion, require
from tests.made_up.ports import free_port

pytestmark = pytest.mark.real

ROWS_A_REQUEST = 50
REQUESTS = 40
PATIENCE = 120


@contextmanager
def _process(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, ended with all its children."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **environment},
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    continue


def _until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds; a slow machine only waits longer."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except requests.RequestException:
            pass
        time.sleep(0.25)
    pytest.fail(f"not within {PATIENCE} s: {what}")


class Stack:
    """Where the parts listen, and how to ask them."""

    def __init__(self, folder: Path, champion: Champion) -> None:
        self.folder, self.champion = folder, champion
        self.model, self.traffic, self.metrics, self.prometheus = (free_port() for _ in range(4))

    def serve_model(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """`mlflow models serve` of the champion."""
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(self.champion.model)]
        command += [
            "--env-manager",
            "local",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.model),
            "--workers",
            "1",
        ]
        return _process(command, self.folder / "model.log", MLFLOW_DISABLE_TELEMETRY="true")

    def run_sidecar(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """The sidecar in front of it."""
        settings = {
            "UPSTREAM": f"http://127.0.0.1:{self.model}",
            "PORT": str(self.traffic),
            "METRICS_PORT": str(self.metrics),
            "REFERENCE": str(self.champion.reference),
            "MODEL_VERSION": self.champion.version,
            "FEEDBACK_KEYS": "a-key-for-this-test-alone",
        }
        environment = {f"MODEL_EXPORTER_{name}": value for name, value in settings.items()}
        return _process(
            [sys.executable, "-m", "monitoring.sidecar"], self.folder / "sidecar.log", **environment
        )

    def run_prometheus(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Prometheus with the project's configuration and rules, looking every second."""
        config = yaml.safe_load((generate.RULES.parent / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        # Groups of long windows are evaluated every few minutes, each at its own moment; here at once.
        groups = yaml.safe_load(generate.RULES.read_text(encoding="utf-8"))["groups"]
        for group in groups:
            group["interval"] = "2s"
        rules = self.folder / "rules.yml"
        rules.write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
        config["rule_files"] = [str(rules)]
        config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] == "exporter"]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{self.metrics}"]}]
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [
            require("prometheus"),
            f"--config.file={path}",
            f"--storage.tsdb.path={self.folder / 'tsdb'}",
        ]
        command += [f"--web.listen-address=127.0.0.1:{self.prometheus}", "--storage.tsdb.retention.time=120d"]
        return _process(command, self.folder / "prometheus.log")

    def query(self, expr: str) -> dict[str, float]:
        """Values of an instant query by the label `feature` ("" without one)."""
        url = f"http://127.0.0.1:{self.prometheus}/api/v1/query"
        answer = requests.get(url, params={"query": expr}, timeout=10).json()
        assert answer["status"] == "success", answer
        return {one["metric"].get("feature", ""): float(one["value"][1]) for one in answer["data"]["result"]}

    def is_well(self, port: int, path: str) -> Callable[[], bool]:
        """Whether a part answers 200."""
        return lambda: requests.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code == 200

    def predict(self, frame: pd.DataFrame) -> tuple[list[float], str]:
        """Risks of the rows and the answer's feedback token."""
        split = {"columns": list(frame.columns), "data": frame.to_numpy().tolist()}
        url = f"http://127.0.0.1:{self.traffic}/invocations"
        answer = requests.post(url, json={"dataframe_split": split}, timeout=60)
        assert answer.status_code == 200, answer.text
        return [row[1] for row in answer.json()["predictions"]], answer.headers["Model-Feedback-Token"]

    def send_labels(self, labels: list[dict[str, object]]) -> None:
        """Late labels, all of which must be taken."""
        answer = requests.post(f"http://127.0.0.1:{self.traffic}/feedback", json=labels, timeout=60)
        assert answer.json()["accepted"] == len(labels), answer.text


def _frames(frame: pd.DataFrame) -> list[pd.DataFrame]:
    return [frame.iloc[first : first + ROWS_A_REQUEST] for first in range(0, len(frame), ROWS_A_REQUEST)]


def _close(
    found: dict[str, float], expected: dict[str, float], absolute: float = 0.1, relative: float = 0.05
) -> bool:
    """Whether the same features have about the same values; counts are extrapolated by up to a scrape."""
    return found.keys() == expected.keys() and all(
        abs(found[name] - value) <= absolute + relative * abs(value) for name, value in expected.items()
    )


def test_prometheus_agrees_with_numpy_on_the_rows_sent(champion: Champion, tmp_path: Path) -> None:
    """Quiet, a restart of the model, then two features shifted; the alarm names those two alone."""
    require("prometheus")
    stack = Stack(tmp_path, champion)
    schema = load(ROOT / "data" / "brfss2015.yaml")
    names = list(schema.feature_names)
    reference = reader.load(champion.reference)
    rng = np.random.default_rng(9)
    cohort = pd.read_parquet(ROOT / "data" / "cohort.parquet")
    rows = cohort.sample(2 * REQUESTS * ROWS_A_REQUEST, random_state=9).reset_index(drop=True)
    features = rows[names].astype(float)
    quiet, later = features.iloc[: len(rows) // 2], features.iloc[len(rows) // 2 :].copy()
    by_kind = {kind: [c.name for c in schema.columns if c.kind == kind] for kind in ("binary", "ordinal")}
    shifted = {by_kind["binary"][0], max(by_kind["ordinal"], key=lambda name: features[name].nunique())}
    for name in shifted:
        upper = features[name][features[name] >= features[name].quantile(0.75)].to_numpy()
        later[name] = rng.choice(upper, len(later))
    everything = pd.concat([quiet, later])
    outcomes = rows[schema.target.name].isin(schema.target.positive).to_numpy(dtype=int)

    rows_by_feature = 'min(feature_window:model_feature_values:total{window="1h"})'
    psi = 'feature_window:model_feature_values:psi{window="1h"}'
    ringing = "feature:model_feature_values:drift_alarm >= scalar(version:model_evidence:limit)"
    risks: list[float] = []
    tokens: list[str] = []

    def send(frame: pd.DataFrame) -> None:
        for part in _frames(frame):
            found, token = stack.predict(part)
            risks.extend(found)
            tokens.append(token)

    def counted(sent: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {
            one.name: (one.count(sent[one.name].to_numpy()).bins, np.array(one.counts))
            for one in reference.features
        }

    def agrees(sent: pd.DataFrame) -> Callable[[], bool]:
        expected = {name: float(evidence.psi(*pair)) for name, pair in counted(sent).items()}
        return lambda: _close(stack.query(psi), expected, absolute=0.005, relative=0)

    evidence_now = 'feature_window:model_feature_values:drift_evidence{window="1h"}'
    expected_evidence = {
        name: float(evidence.drift_evidence(*pair)) for name, pair in counted(everything).items()
    }
    with stack.run_sidecar(), stack.run_prometheus():
        with stack.serve_model():
            _until(stack.is_well(stack.metrics, "/ready"), "sidecar and model are ready")
            _until(lambda: stack.query(rows_by_feature) == {"": 0.0}, "Prometheus saw the counters at 0")
            send(quiet)
            _until(agrees(quiet), "PSI of quiet traffic as numpy says")
            assert stack.query(ringing) == {}
        # The model process is gone and comes back; the sidecar and its counters stay.
        is_ready = stack.is_well(stack.metrics, "/ready")
        _until(lambda: not is_ready(), "the sidecar has seen the model go")
        with stack.serve_model():
            _until(stack.is_well(stack.metrics, "/ready"), "model is ready again")
            send(later)
            _until(agrees(everything), "PSI of all traffic as numpy says")
            _until(lambda: stack.query(ringing).keys() == shifted, "the alarm names the shifted features")
            _until(lambda: _close(stack.query(evidence_now), expected_evidence), "evidence as numpy says")

            labels = [
                {"token": token, "row": row, "outcome": int(outcomes[number * ROWS_A_REQUEST + row])}
                for number, token in enumerate(tokens)
                for row in range(ROWS_A_REQUEST)
            ]
            for first in range(0, len(labels), 1000):
                stack.send_labels(labels[first : first + 1000])
            total = 'window:model_feedback:labels{window="1d"}'
            _until(
                lambda: abs(stack.query(total).get("", 0) - len(labels)) < 0.03 * len(labels),
                "labels are counted",
            )
            _until(
                lambda: _close(
                    stack.query('window:model_feedback:roc_auc{window="1d"}'),
                    {"": float(roc_auc_score(outcomes, risks))},
                    absolute=0.01,
                    relative=0,
                ),
                "ROC AUC of the labels as scikit-learn says",
            )
            assert stack.query("min(model_golden_rows_match)") == {"": 1.0}
