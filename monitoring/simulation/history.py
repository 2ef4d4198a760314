"""A simulated past in a real Prometheus: counters as scraped, then the recording rules, level by level.

`promtool` writes the samples as blocks, and Prometheus starts on them. Every rule of a level is queried over
the whole past, and the answers become blocks that the next level may read. A rule without data is an error,
unless the caller says that it may be empty.
"""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from monitoring.prometheus.promql import Rule
from steps.data.errors import UserError

Floats = NDArray[np.float64]
# Samples of the past are sparse, so a query looks back further than the default of 5 minutes: over an hour.
LOOKBACK_SECONDS = 3700
# Prometheus runs on this machine, so the environment's proxy is not used.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
QUERY_SECONDS = 3600
LONGEST_BLOCK = "24000h"
START_SECONDS = 120


class EmptyRulesError(UserError):
    """Recording rules that should have data and have none."""


@dataclass
class History:
    """Samples of every series at each moment; a series that is absent at a moment is NaN there."""

    times: list[float] = field(default_factory=list)
    series: dict[str, list[float]] = field(default_factory=dict)
    _names: dict[tuple[str, tuple[tuple[str, str], ...]], str] = field(default_factory=dict)

    def scrape(
        self, registry: CollectorRegistry, at: float, labels: Mapping[str, str], others: Mapping[str, float]
    ) -> None:
        """Add a registry's present samples at time `at`, with a target's labels, and the series `others`."""
        self.times.append(at)
        samples = dict(others)
        for family in registry.collect():
            for sample in family.samples:
                if sample.name.endswith("_created"):  # the sidecar does not export these
                    continue
                key = (sample.name, tuple(sample.labels.items()))
                if key not in self._names:
                    self._names[key] = series_text(sample.name, {**sample.labels, **labels})
                samples[self._names[key]] = sample.value
        for name, value in samples.items():
            column = self.series.setdefault(name, [])
            column.extend([math.nan] * (len(self.times) - 1 - len(column)))
            column.append(value)

    def increase(self, series: str, since: float, until: float) -> float:
        """Growth of a counter between the last samples at or before two times; 0 if it does not exist."""
        column = self.series.get(series)
        if column is None:
            return 0.0
        first, last = np.searchsorted(self.times, [since, until], side="right") - 1
        start = column[first] if 0 <= first < len(column) else 0.0
        end = column[last] if 0 <= last < len(column) else math.nan
        return 0.0 if math.isnan(end) else end - (0.0 if math.isnan(start) else start)


def series_text(name: str, labels: Mapping[str, str]) -> str:
    """A series in the exposition format."""

    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    pairs = ",".join(f'{key}="{quoted(value)}"' for key, value in sorted(labels.items()))
    return f"{name}{{{pairs}}}"


def openmetrics(times: Sequence[float], series: Mapping[str, Sequence[float]]) -> Iterable[str]:
    """Lines of the OpenMetrics text format, series by series; NaN samples are left out."""
    for text, column in series.items():
        for at, value in zip(times, column, strict=False):
            if not math.isnan(value):
                yield f"{text} {value!r} {at:.3f}\n"
    yield "# EOF\n"


def add_blocks(lines: Iterable[str], store: Path) -> None:
    """Write samples into a Prometheus store without a running server; UserError if promtool refuses them."""
    file = store.with_suffix(".openmetrics")
    with file.open("w", encoding="utf-8") as out:
        out.writelines(lines)
    command = ["promtool", "tsdb", "create-blocks-from", "--max-block-duration", LONGEST_BLOCK, "--quiet"]
    done = subprocess.run(
        [*command, "openmetrics", str(file), str(store)], capture_output=True, text=True, check=False
    )
    file.unlink()
    if done.returncode != 0:
        raise UserError(f"promtool could not write the blocks: {done.stderr.strip()[-500:]}")


class Server:
    """A real Prometheus on loopback over a store, for as long as the `with` block lasts."""

    def __init__(self, store: Path, port: int | None = None) -> None:
        if shutil.which("prometheus") is None:
            raise UserError("prometheus is not installed: apt-get install prometheus")
        self._store = store
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        config = self._store.with_suffix(".yml")
        config.write_text("global: {}\n", encoding="utf-8")
        self._log = self._store.with_suffix(".log").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self._store}",
                "--storage.tsdb.retention.time=1000d",
                f"--web.listen-address=127.0.0.1:{self.port}",
                f"--query.lookback-delta={LOOKBACK_SECONDS}s",
                f"--query.timeout={QUERY_SECONDS}s",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        until = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise UserError(f"Prometheus did not start: see {self._store.with_suffix('.log')}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def _is_ready(self) -> bool:
        try:
            with DIRECT.open(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def query(self, expr: str, at: float) -> list[dict[str, Any]]:
        """Answer of an instant query: a list of {metric: labels, value: [time, text]}."""
        return self._ask("query", {"query": expr, "time": f"{at:.3f}"})

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Answer of a range query: a list of {metric: labels, values: [[time, text], ...]}."""
        times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        return self._ask("query_range", {"query": expr, **times})

    def _ask(self, verb: str, arguments: Mapping[str, str]) -> list[dict[str, Any]]:
        body = urllib.parse.urlencode(arguments).encode()
        try:
            with DIRECT.open(f"{self.url}/api/v1/{verb}", body, timeout=QUERY_SECONDS) as answer:
                return list(json.load(answer)["data"]["result"])
        except urllib.error.HTTPError as error:
            problem = json.load(error).get("error", "")
            raise UserError(f"Prometheus refuses {arguments['query']!r}: {problem}") from None


def record(
    store: Path,
    levels: Sequence[Sequence[Rule]],
    grids: Sequence[tuple[float, float, float]],
    may_be_empty: Callable[[Rule], bool],
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Evaluate the recording rules over the past and add their results to the store.

    `grids` are (start, end, step) in seconds, ascending and apart. Raises EmptyRulesError naming every rule
    without data, except those that may be empty.
    """
    empty = []
    for number, level in enumerate(levels, start=1):
        progress(f"recording rules, level {number} of {len(levels)}")
        lines: list[str] = []
        with Server(store) as server:
            for rule in level:
                samples = list(_recorded(server, rule, grids))
                lines += samples
                if not samples and not may_be_empty(rule):
                    empty.append(series_text(rule.record, rule.labels))
        add_blocks([*sorted(lines, key=_series_of), "# EOF\n"], store)
    if empty:
        raise EmptyRulesError("\n  ".join(["these recording rules gave no data:", *empty]))


def _recorded(server: Server, rule: Rule, grids: Collection[tuple[float, float, float]]) -> Iterable[str]:
    for start, end, step in grids:
        for series in server.query_range(rule.expr, start, end, step):
            labels = {key: value for key, value in series["metric"].items() if key != "__name__"}
            text = series_text(rule.record, {**labels, **rule.labels})
            for at, value in series["values"]:
                if value != "NaN":
                    yield f"{text} {value} {float(at):.3f}\n"


def _series_of(line: str) -> str:
    """Sort key of lines: their series. Within a series the lines are in order of time already."""
    return line.rpartition("}")[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
