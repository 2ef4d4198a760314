"""What the recording rules cost Prometheus: processor time of a minute, and series, by replicas and versions.

    python -m benchmarks.rule_cost [--rules OLD.yml NEW.yml] [--replicas 1 5 20] [--versions own]

A real Prometheus is given the raw counters of a day for so many sidecars, scrapes as many, and evaluates the
rules every ten seconds until all have had their turn. Then it is left without targets and rules, each rule is
asked for as a query of that moment, and the processor time of Prometheus' own process is read before and
after: a figure that a busy machine changes less than a time. A rule counts as often as its group is evaluated
in a minute. Several rule files are measured in turn, on copies of the same day. What is left out: writing the
results, and the scraping itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.server
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import requests
import yaml
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest

from benchmarks.alarm_quality import PROJECT, bundled
from monitoring.prometheus import __main__ as generate
from monitoring.reference import Reference
from monitoring.sidecar.metrics import Metrics
from monitoring.simulation.history import add_blocks, series_text

HISTORY_SECONDS = 86_400
WARM_UP_INTERVAL = "10s"
WARM_UP_SECONDS = 900
REPEATS = 3
# Processor time of two seconds under which a Prometheus does nothing.
IDLE_SECONDS = 0.03
TICKS = os.sysconf("SC_CLK_TCK")
COUNTERS = ("_total", "_bucket", "_count", "_sum")


class Cost(NamedTuple):
    """Processor seconds of a minute by group of rules, series that are scraped and that are recorded."""

    seconds: dict[str, float]
    scraped: int
    recorded: int


class Fleet:
    """Sidecars that are only a page of metrics each, whose counters grow."""

    def __init__(self, reference: Reference, replicas: int, own_versions: bool) -> None:
        versions = [str(number + 1) if own_versions else "1" for number in range(replicas)]
        self.replicas = [f"replica{number}" for number in range(replicas)]
        self._registries = [self._registry(reference, version) for version in versions]
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = generate_latest(server._registries[int(self.path.rpartition("/")[2])])
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @staticmethod
    def _registry(reference: Reference, version: str) -> CollectorRegistry:
        """A sidecar's registry in which every counter has its own amount: a day's at 1,000 rows."""
        registry = CollectorRegistry()
        model = dataclasses.replace(reference.model, trained_at=time.time())
        metrics = Metrics(registry, dataclasses.replace(reference, model=model), version)
        metrics.upstream_contact.set(time.time())
        return registry

    def targets(self) -> list[dict[str, Any]]:
        """Scrape configurations, one for each replica."""
        return [
            {
                "job_name": f"exporter{number}",
                "metrics_path": f"/{number}",
                "static_configs": [
                    {"targets": [f"127.0.0.1:{self._server.server_port}"], "labels": {"instance": name}}
                ],
                "relabel_configs": [{"target_label": "job", "replacement": "exporter"}],
            }
            for number, name in enumerate(self.replicas)
        ]

    def past(self, end: float, step: float) -> Iterator[str]:
        """OpenMetrics lines of a day until `end`, series by series, every counter at a rate of its own."""
        times = np.arange(end - HISTORY_SECONDS, end, step)
        rng = np.random.default_rng(0)
        for registry, replica in zip(self._registries, self.replicas, strict=True):
            target = {"job": "exporter", "instance": replica}
            for family in registry.collect():
                for sample in family.samples:
                    if sample.name.endswith("_created"):
                        continue
                    text = series_text(sample.name, {**sample.labels, **target})
                    grows = sample.name.endswith(COUNTERS)
                    values = np.arange(len(times)) * rng.uniform(0.05, 0.5) if grows else sample.value
                    for at, value in zip(times, np.broadcast_to(values, times.shape), strict=True):
                        yield f"{text} {value:.6g} {at:.0f}\n"
        yield "# EOF\n"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class Prometheus:
    """A real Prometheus over a store, with rules that are evaluated every ten seconds."""

    def __init__(self, binary: str, store: Path, rules: Path, fleet: Fleet) -> None:
        self.document = yaml.safe_load(rules.read_text(encoding="utf-8"))
        hurried = {"groups": [{**group, "interval": WARM_UP_INTERVAL} for group in self.document["groups"]]}
        self._store = store
        (store / "rules.yml").write_text(yaml.safe_dump(hurried, width=10_000), encoding="utf-8")
        config = {
            "global": {"scrape_interval": "15s", "evaluation_interval": WARM_UP_INTERVAL},
            "rule_files": ["rules.yml"],
            "scrape_configs": fleet.targets(),
        }
        (store / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self._log = (store / "log").open("w")
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}/api/v1"
        self._process = subprocess.Popen(
            [
                binary,
                f"--config.file={store / 'prometheus.yml'}",
                f"--storage.tsdb.path={store / 'data'}",
                "--storage.tsdb.retention.time=120d",
                "--query.timeout=10m",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def ask(self, path: str, **arguments: str) -> Any:
        """The data of an answer; RuntimeError with Prometheus' own words if it refuses."""
        answer = requests.post(f"{self.url}/{path}", data=arguments, timeout=600).json()
        if answer["status"] != "success":
            raise RuntimeError(f"{str(arguments)[:300]}: {answer['error']}")
        return answer["data"]

    def wait(self) -> None:
        """Until every group has been evaluated three times; a rule may read what another made."""
        until = time.monotonic() + WARM_UP_SECONDS
        while time.monotonic() < until:
            try:
                done = self.ask("query", query="min(prometheus_rule_group_iterations_total)")
                found = requests.get(f"{self.url.removesuffix('/api/v1')}/metrics", timeout=60).text
            except (requests.RequestException, RuntimeError):
                time.sleep(1)
                continue
            counts = [
                float(line.rpartition(" ")[2])
                for line in found.splitlines()
                if line.startswith("prometheus_rule_group_iterations_total{")
            ]
            if done is not None and len(counts) == len(self.document["groups"]) and min(counts) >= 4:
                return
            time.sleep(2)
        raise RuntimeError(f"the rules were not evaluated three times within {WARM_UP_SECONDS} s")

    def processor_seconds(self) -> float:
        """Of its own process, since it started."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def cost(self) -> Cost:
        """Ask for every rule as of now, and read what that took."""
        now = f"{time.time():.0f}"
        recorded, scraped = self._count('{__name__=~".*:.*"}'), self._count('{job="exporter"}')
        self._stop_working()
        seconds: dict[str, float] = defaultdict(float)
        for group in self.document["groups"]:
            times_a_minute = 60 / _seconds(group["interval"])
            before = self.processor_seconds()
            for _ in range(REPEATS):
                for rule in group["rules"]:
                    self.ask("query", query=f"count({rule['expr']})", time=now, timeout="10m")
            seconds[group["name"]] = (self.processor_seconds() - before) / REPEATS * times_a_minute
        return Cost(dict(seconds), scraped, recorded)

    def _stop_working(self) -> None:
        """Leave it without targets and rules, so that its processor time is that of the queries."""
        (self._store / "prometheus.yml").write_text("global: {}\n", encoding="utf-8")
        self._process.send_signal(signal.SIGHUP)
        last, now = -1.0, self.processor_seconds()
        while now - last > IDLE_SECONDS:
            time.sleep(2)
            last, now = now, self.processor_seconds()

    def _count(self, selector: str) -> int:
        found = self.ask("query", query=f"count({selector})")["result"]
        return int(found[0]["value"][1]) if found else 0

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()
        self._log.close()


def _seconds(duration: str) -> float:
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def _free_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def started(binary: str, store: Path, rules: Path, fleet: Fleet) -> Iterator[Prometheus]:
    """A Prometheus for as long as the block lasts."""
    prometheus = Prometheus(binary, store, rules, fleet)
    try:
        prometheus.wait()
        yield prometheus
    finally:
        prometheus.close()


def measure(
    reference: Reference, files: Sequence[Path], replicas: int, own: bool, step: float, binary: str
) -> dict[str, Cost]:
    """The cost of each rule file, one after the other, on copies of the same past."""
    fleet = Fleet(reference, replicas, own)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            past = Path(scratch) / "past"
            past.mkdir()
            add_blocks(fleet.past(time.time() // 60 * 60 - 60, step), past)
            found = {}
            for number, rules in enumerate(files):
                store = Path(scratch) / str(number)
                store.mkdir()
                shutil.copytree(past, store / "data")
                with started(binary, store, rules, fleet) as prometheus:
                    found[rules.name] = prometheus.cost()
            return found
    finally:
        fleet.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description="Measure what the recording rules cost.")
    parser.add_argument("--rules", type=Path, nargs="+", default=[generate.RULES])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--versions", choices=["own", "one"], nargs="+", default=["own"])
    parser.add_argument("--step", type=float, default=60, help="seconds between samples of the past day")
    parser.add_argument("--prometheus", default="prometheus", help="the binary")
    parser.add_argument("--schema", type=Path, default=PROJECT / "data" / "brfss2015.yaml")
    options = parser.parse_args(argv)
    binary = shutil.which(options.prometheus)
    if binary is None:
        print(f"{options.prometheus} is not there", file=sys.stderr)
        return 1
    disable_created_metrics()  # as the sidecar does
    reference = bundled(options.schema).reference
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    print(f"{' '.join(version.split()[:3])} {options.step:g} s between the samples of the day before\n")
    print("| replicas | versions | rules | scraped series | recorded | seconds a minute | of these |")
    print("|---|---|---|---|---|---|---|")
    for replicas in options.replicas:
        for versions in options.versions:
            found = measure(reference, options.rules, replicas, versions == "own", options.step, binary)
            for name, cost in found.items():
                many = replicas if versions == "own" else 1
                largest = sorted(cost.seconds.items(), key=lambda item: -item[1])[:5]
                print(
                    f"| {replicas} | {many} | {name} | {cost.scraped:,} | {cost.recorded:,}"
                    f" | {sum(cost.seconds.values()):.2f} | "
                    + ", ".join(f"{group} {seconds:.2f}" for group, seconds in largest)
                    + " |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
