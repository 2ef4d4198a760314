"""Every alert but the watchdog fired and mended once in a real Grafana over a real Prometheus.

Needs a Grafana in the folder that `GRAFANA_HOME` names (`bin/grafana`, `conf/`, `public/`): an unpacked
release, or what `docker cp $(docker create grafana/grafana:<version>):/usr/share/grafana FOLDER` leaves. It
takes half an hour, so only soak runs it; `GRAFANA_RUN` names a folder that keeps what arrived, message by
message.

Prometheus scrapes stand-ins. Figures of model and data are played as the recorded series that alerts read
(`EPISODES`); sidecars and a node exporter are taken away; Prometheus is stopped by SIGSTOP and is given a
rule that fails; the traffic of other days is backfilled. What waits is shortened: `for`, keep firing, ranges
of alert queries and the waits of routes are a tenth of theirs, a minute at most; promtool tests them in full
(`test_alert_episodes.py`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.grafana import lint
from monitoring.simulation import alert_states
from monitoring.simulation.history import add_blocks
from tests.conftest import ROOT, require
from tests.monitoring.test_alert_episodes import EPISODES, VERSION, Episode

pytestmark = [pytest.mark.real, pytest.mark.soak]

GRAFANA = ROOT / "monitoring" / "grafana"
FASTER, LONGEST = 10, 60
PATIENCE = 600
NODE, SIDECARS = "node-exporter", ("a", "b")

# Acts: which alerts ring together, and what is taken away meanwhile. A fault of one rings others where it
# should: a drift that does harm asks for a training, which is held while values are missing.
ACTS: Sequence[tuple[Sequence[str], Sequence[str]]] = (
    (
        (
            *("Model down", "Sidecar replica down", "Host memory", "Error budget burns fast"),
            *("Latency budget burns slowly", "Feature drift", "Score drift", "Drift with harm"),
            *("Retraining asked for", "Model too old", "Target down", "Overload"),
        ),
        ("b", NODE),
    ),
    (
        (
            *("Model replica down", "Sidecar down", "Model and reference do not match", "Requests wait"),
            *("Error budget burns slowly", "Latency budget burns fast", "Sidecar cannot observe"),
            *("Realised ROC AUC below floor", "Missing values", "Invalid values", "Unknown levels"),
            *("Labels stopped", "Host disk", "Restarts", "No traffic"),
        ),
        SIDECARS,
    ),
    (
        (
            *("Calibration", "Recalibration asked for", "Expected ROC AUC below floor"),
            *("Messages fail", "Rules fail"),
        ),
        (),
    ),
)
# What an episode brings about by taking something away or by a rule that fails, not by a series.
DONE_FOR_REAL = ("Sidecar down", "Sidecar replica down", "Target down", "Rules fail", "Prometheus down")
# An act plays these alerts by the faults of others.
FOLLOWS = ("Retraining asked for", "Recalibration asked for")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Target:
    """Something to scrape that can be taken away: a page of metrics on a port of its own."""

    def __init__(self, page: Player | None = None) -> None:
        self.port = free_port()
        self._page = page
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        page = self._page

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = (page.text() if page else "standing_in 1\n").encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class Player:
    """The series of all episodes, well or in their fault, as a page of metrics."""

    def __init__(self) -> None:
        played = {title: one for title, one in EPISODES.items() if title not in DONE_FOR_REAL}
        self._well = {name: text for one in played.values() for name, text in one.others.items()}
        self._well |= {name: well for one in played.values() for name, (well, _) in one.faults.items()}
        self._well |= {
            'sidecar_upstream_contact_timestamp_seconds{instance="a"}': "now",
            "sidecar_queue_oldest_wait_seconds": "0",
            "job:sidecar_upstream_down:ratio": "0",
            f'model_info{{{VERSION},synthetic="true"}}': "1",
        }
        self._now = dict(self._well)
        self._counts: dict[str, float] = {}
        self._read = self._began = time.time()
        self._lock = threading.Lock()

    def play(self, episodes: Sequence[Episode]) -> None:
        """Begin these faults, and mend all others."""
        with self._lock:
            self._began = time.time()
            faults = {name: fault for one in episodes for name, (_, fault) in one.faults.items()}
            self._now = {**self._well, **{k: v for one in episodes for k, v in one.others.items()}, **faults}

    def text(self) -> str:
        with self._lock:
            now = time.time()
            passed, self._read = now - self._read, now
            lines = []
            for name, text in self._now.items():
                if text.startswith("+"):
                    self._counts[name] = self._counts.get(name, 0.0) + float(text) * FASTER * passed / 60
                value = {"now": now, "then": self._began}.get(text) or self._counts.get(name)
                lines.append(f"{name} {float(text) if value is None else value!r}")
            return "\n".join(lines) + "\n"


class Listener:
    """Whoever is notified: what arrived, with the time."""

    def __init__(self) -> None:
        self.arrived: list[dict[str, Any]] = []
        arrived = self.arrived

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                arrived.append({"at": time.time(), "path": self.path, "body": json.loads(body)})
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def alerts(self, status: str) -> dict[str, list[dict[str, Any]]]:
        """What was told to people, and to the workflow, by title: one entry an alert and message."""
        found: dict[str, list[dict[str, Any]]] = {}
        for message in list(self.arrived):
            for alert in message["body"].get("alerts", []) if message["path"] == "/hook" else []:
                if alert["status"] == status:
                    found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def asked(self) -> list[str]:
        """The reasons that the workflow was given."""
        return [m["body"]["inputs"]["reason"] for m in list(self.arrived) if m["path"] == "/dispatch"]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def shortened(duration: str) -> str:
    """A tenth of it, and a minute at most."""
    return f"{min(max(alert_states.seconds(duration) // FASTER, 0), LONGEST)}s"


def faster_provisioning(folder: Path) -> None:
    """Grafana's provisioning with shorter waits; see above."""
    shutil.copytree(GRAFANA / "provisioning", folder)
    rules, policies = folder / "alerting" / "rules.yaml", folder / "alerting" / "policies.yaml"
    document = yaml.safe_load(rules.read_text(encoding="utf-8"))
    for group in document["groups"]:
        group["interval"] = "10s"
        for rule in group["rules"]:
            rule["for"], rule["keepFiringFor"] = shortened(rule["for"]), shortened(rule["keepFiringFor"])
            for query in rule["data"]:
                if "expr" in query["model"]:
                    query["model"]["expr"] = faster_query(query["model"]["expr"])
    rules.write_text(yaml.safe_dump(document, width=10_000), encoding="utf-8")
    document = yaml.safe_load(policies.read_text(encoding="utf-8"))

    def shorten(route: dict[str, Any]) -> None:
        route.pop("mute_time_intervals", None)
        for key in ("group_wait", "group_interval"):
            if key in route:
                route[key] = f"{min(alert_states.seconds(route[key]), 20)}s"
        for inner in route.get("routes", []):
            shorten(inner)

    for policy in document["policies"]:
        shorten(policy)
    policies.write_text(yaml.safe_dump(document, width=10_000), encoding="utf-8")


def faster_query(expr: str) -> str:
    """Ranges and the offset of an hour, shortened; days stay what they are."""
    expr = re.sub(r"\[(\d+[mh])\]", lambda found: f"[{shortened(found[1])}]", expr)
    return re.sub(r"offset 1h\b", f"offset {LONGEST}s", expr)


@contextmanager
def process(command: Sequence[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own group, gone when the block ends."""
    with log.open("wb") as out:
        started = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **environment}, start_new_session=True
        )
    try:
        yield started
    finally:
        for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
            if started.poll() is None:
                os.killpg(started.pid, number)
                try:
                    started.wait(1 if number == signal.SIGCONT else 30)
                except subprocess.TimeoutExpired:
                    continue


GOOD_RULE, BAD_RULE = "vector(1)", 'label_replace(up, "instance", "same", "", "")'


class Prometheus:
    """A real one over the stand-ins, with one rule that can be broken, and the traffic of other days."""

    def __init__(self, folder: Path, player: Target, others: Mapping[str, Target]) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir()
        jobs = {
            "player": [{"targets": [f"127.0.0.1:{player.port}"]}],
            "exporter": [
                {"targets": [f"127.0.0.1:{others[name].port}"], "labels": {"instance": name}}
                for name in SIDECARS
            ],
            NODE: [{"targets": [f"127.0.0.1:{others[NODE].port}"], "labels": {"instance": "a"}}],
            "prometheus": [{"targets": [f"127.0.0.1:{self.port}"]}],
        }
        config = {
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
            "rule_files": ["rule.yml"],
            "scrape_configs": [
                {"job_name": name, "honor_labels": True, "static_configs": targets}
                for name, targets in jobs.items()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self._write_rule(GOOD_RULE)
        now = time.time()
        usual = 'window:sidecar_requests:increase{window="1h"}'
        times = (now - 8 * 86_400 + 120 * number for number in range(720 * 8 - 60))
        add_blocks([*(f"{usual} 100 {at:.0f}\n" for at in times), "# EOF\n"], folder / "data")

    def _write_rule(self, expr: str) -> None:
        rule = {"groups": [{"name": "one", "rules": [{"record": "run:one:rule", "expr": expr}]}]}
        (self.folder / "rule.yml").write_text(yaml.safe_dump(rule), encoding="utf-8")

    def command(self) -> list[str]:
        return [
            require("prometheus"),
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            "--storage.tsdb.retention.time=120d",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def set_rule(self, process_: subprocess.Popen[bytes], expr: str) -> None:
        """Change the rule and have it read again."""
        self._write_rule(expr)
        process_.send_signal(signal.SIGHUP)


def until(holds: Any, what: str) -> None:
    """Wait; a slow machine only waits longer."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if holds():
            return
        time.sleep(1)
    pytest.fail(f"not within {PATIENCE} s: {what}")


def home() -> Path:
    """The folder of a Grafana."""
    name = os.environ.get("GRAFANA_HOME", "")
    if not (name and (Path(name) / "bin" / "grafana").exists()):
        pytest.skip("no Grafana: GRAFANA_HOME names no folder with bin/grafana (see the top of this file)")
    return Path(name)


def grafana_environment(
    folder: Path, port: int, prometheus: Prometheus, listener: Listener
) -> dict[str, str]:
    """What compose.yaml gives it, for the addresses of this run."""
    return {
        "GF_PATHS_DATA": str(folder / "grafana"),
        "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_SERVER_ROOT_URL": f"http://127.0.0.1:{port}/",
        "GF_SECURITY_ADMIN_PASSWORD": "admin",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        "GF_PLUGINS_PLUGIN_ADMIN_ENABLED": "false",
        "GF_PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED": "true",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
        "GF_FEATURE_TOGGLES_ENABLE": "alertRuleUseFiredAtForStartsAt",
        "PROMETHEUS_URL": f"http://127.0.0.1:{prometheus.port}",
        "DASHBOARDS_PATH": str(GRAFANA / "dashboards"),
        "ENVIRONMENT": "test",
        "ALERT_EMAIL": "nobody@localhost",
        "ALERT_EMAIL_SEVERITIES": "",
        "ALERT_SLACK_URL": "http://127.0.0.1:9/unset",
        "ALERT_SLACK_SEVERITIES": "",
        "ALERT_WEBHOOK_URL": f"{listener.url}/hook",
        "ALERT_WATCHDOG_URL": f"{listener.url}/watchdog",
        "RETRAIN_URL": f"{listener.url}/dispatch",
        "RETRAIN_TOKEN": "github_pat_x",
        "RETRAIN_REF": "main",
    }


def told(summary: str) -> str:
    """A message without its numbers, which differ where time runs faster."""
    return re.sub(r"(\d[\d.]*[smhd%]? ?)+", "N ", summary).strip()


def test_every_alert_rings_once_is_true_and_ends(tmp_path: Path) -> None:
    """One message that it began with the right words, one that it is over; the workflow is asked twice."""
    folder = Path(os.environ.get("GRAFANA_RUN") or tmp_path)
    grafana_home, port = home(), free_port()
    require("prometheus")
    faster_provisioning(folder / "provisioning")
    player, listener = Player(), Listener()
    page = Target(player)
    others = {name: Target() for name in (*SIDECARS, NODE)}
    with ExitStack() as stack:
        for target in (page, *others.values()):
            target.start()
            stack.callback(target.stop)
        stack.callback(listener.close)
        stack.callback(lambda: (folder / "arrived.json").write_text(json.dumps(listener.arrived, indent=1)))
        prometheus = Prometheus(folder / "prometheus", page, others)
        server = stack.enter_context(process(prometheus.command(), folder / "prometheus.log"))
        command = [str(grafana_home / "bin" / "grafana"), "server", "--homepath", str(grafana_home)]
        environment = grafana_environment(folder, port, prometheus, listener)
        stack.enter_context(process(command, folder / "grafana.log", **environment))
        (folder / "port").write_text(str(port))
        until(lambda: any(m["path"] == "/watchdog" for m in listener.arrived), "the watchdog arrives")

        def ring_and_mend(titles: Sequence[str], mend: Any) -> None:
            told_to_people = [title for title in titles if title not in FOLLOWS]
            until(lambda: set(told_to_people) <= set(listener.alerts("firing")), f"ringing: {told_to_people}")
            mend()
            until(lambda: set(told_to_people) <= set(listener.alerts("resolved")), f"over: {told_to_people}")

        for titles, away in ACTS:
            played = [EPISODES[t] for t in titles if t not in (*DONE_FOR_REAL, *FOLLOWS)]
            player.play(played)
            for name in away:
                others[name].stop()
            if "Rules fail" in titles:
                prometheus.set_rule(server, BAD_RULE)

            def mend(away: Sequence[str] = away) -> None:
                player.play([])
                for name in away:
                    others[name].start()
                prometheus.set_rule(server, GOOD_RULE)

            ring_and_mend(titles, mend)
        os.kill(server.pid, signal.SIGSTOP)
        ring_and_mend(["Prometheus down"], lambda: os.kill(server.pid, signal.SIGCONT))
        time.sleep(2 * LONGEST)

    firing, resolved = listener.alerts("firing"), listener.alerts("resolved")
    expected = set(EPISODES) - set(FOLLOWS)
    assert set(firing) == set(resolved) == expected
    times_begun = {title: len({alert["startsAt"] for alert in alerts}) for title, alerts in firing.items()}
    assert times_begun == dict.fromkeys(expected, 1)
    texts = {title: told(alerts[0]["annotations"]["summary"]) for title, alerts in firing.items()}
    assert texts == {title: told(EPISODES[title].summary) for title in expected}
    reasons = [reason.partition(":")[0] for reason in listener.asked()]
    assert reasons == ["retrain", "recalibrate"]
    assert {
        lint.interpolate(a["labels"]["environment"], {}) for alerts in firing.values() for a in alerts
    } == {"test"}
