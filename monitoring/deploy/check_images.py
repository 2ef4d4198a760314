"""`make image-test`: start both images of the release as they are meant to run, and look whether they do.

Compares predictions with the registered model in this process, and checks health, user, labels, the
read-only root, times, memory and metrics. The limits are the settings below, from the environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from monitoring.deploy import build
from monitoring.deploy.docker import docker, last_lines, seconds_to_health
from steps.chain.pipeline import PROJECT
from steps.data.errors import UserError
from steps.data.release_facts import RELEASE, ReleaseFacts, read_facts

TOLERANCE = 1e-9
MODEL_PORT, EXPORTER_PORT, METRICS_PORT = 8080, 8000, 9101


@dataclass(frozen=True)
class Limits:
    """What the containers may take; a field `x` is the variable `IMAGE_TEST_X`."""

    start_seconds: float = 120
    stop_seconds: float = 30
    memory_mb: float = 600
    rows: int = 200


def limits(environment: Mapping[str, str]) -> Limits:
    """Limits as the environment sets them. Raises UserError naming a value that is no positive number."""
    given: dict[str, Any] = {}
    for field in fields(Limits):
        text = environment.get(f"IMAGE_TEST_{field.name.upper()}")
        if text:
            try:
                given[field.name] = int(text) if field.name == "rows" else float(text)
            except ValueError:
                given[field.name] = 0
            if not given[field.name] > 0:
                raise UserError(f"IMAGE_TEST_{field.name.upper()} must be a number above 0, not {text!r}")
    return Limits(**given)


def made_rows(reference: Mapping[str, Any], count: int, seed: int) -> list[dict[str, float | str | None]]:
    """Rows within the schema's ranges and levels, about one value in forty missing; nobody's answers."""
    import numpy as np

    random = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {}
    for feature in reference["features"]:
        if "levels" in feature:
            column = [
                feature["levels"][place] for place in random.integers(len(feature["levels"]), size=count)
            ]
        else:
            column = np.round(random.uniform(feature["minimum"], feature["maximum"], count), 1).tolist()
        if feature["type"] == "double":
            column = [
                None if missing else float(v)
                for v, missing in zip(column, random.random(count) < 0.025, strict=True)
            ]
        columns[feature["name"]] = column
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def column(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    """One column of rows as an array: doubles with NaN for missing, or texts."""
    import numpy as np

    values = [row[name] for row in rows]
    if any(isinstance(value, str) for value in values):
        return np.array(values, dtype=object)
    return np.array([np.nan if value is None else value for value in values])


def body(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A request's body in the `dataframe_split` form."""
    names = list(rows[0])
    return json.dumps(
        {"dataframe_split": {"columns": names, "data": [[row[name] for name in names] for row in rows]}}
    ).encode()


def expected(
    model: Path, rows: Sequence[Mapping[str, Any]], reference: Mapping[str, Any]
) -> list[list[float]]:
    """Probabilities of both classes by the registered model in this process."""
    import pandas as pd

    from steps.models import families, saved

    frame = pd.DataFrame({part["name"]: column(rows, part["name"]) for part in reference["features"]})
    risk = families.predict_risk(saved.load(model), frame)
    return [[1 - one, one] for one in risk.tolist()]


def ask(url: str, content: bytes | None = None, seconds: float = 60, kind: str = "application/json") -> str:
    """The text that a container answers; a POST where there is content."""
    request = urllib.request.Request(url, content, {"Content-Type": kind})  # noqa: S310
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # containers are on this machine
    with direct.open(request, timeout=seconds) as answer:
        return str(answer.read().decode())


def largest_difference(answer: str, wanted: Sequence[Sequence[float]]) -> float:
    """Largest absolute difference of an answer's probabilities; infinite if the shape is another."""
    got: list[list[float]] = json.loads(answer)["predictions"]
    if len(got) != len(wanted) or any(len(a) != len(b) for a, b in zip(got, wanted, strict=True)):
        return float("inf")
    return max(
        abs(a - b) for one, other in zip(got, wanted, strict=True) for a, b in zip(one, other, strict=True)
    )


@contextmanager
def containers(model: str, exporter: str) -> Iterator[tuple[str, str]]:
    """Both images running, hardened as in the stack, in a network of their own; gone afterwards."""
    network = f"image-test-{os.getpid()}"
    hardened = (
        *("--detach", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--network", network, "--pids-limit", "256"),
    )
    docker("network", "create", network)
    started: list[str] = []
    try:
        started.append(
            docker(
                "run", *hardened, "--network-alias", "model", "--publish", f"127.0.0.1::{MODEL_PORT}", model
            )
        )
        started.append(
            docker(
                *("run", *hardened),
                *("--publish", f"127.0.0.1::{EXPORTER_PORT}", "--publish", f"127.0.0.1::{METRICS_PORT}"),
                *("--env", f"MODEL_EXPORTER_UPSTREAM=http://model:{MODEL_PORT}", exporter),
            )
        )
        yield started[0], started[1]
    finally:
        for container in reversed(started):
            docker("rm", "--force", "--volumes", container)
        docker("network", "rm", network)


def address(container: str, port: int) -> str:
    """URL of a published port of a container."""
    return f"http://{docker('port', container, f'{port}/tcp').splitlines()[0]}"


def seconds_to_answer(container: str, url: str, limit: float) -> float:
    """Seconds from now until /ping answers. Raises UserError with the log past the limit, or if it ended."""
    started = time.monotonic()
    while time.monotonic() - started < limit:
        try:
            ask(f"{url}/ping", seconds=2)
        except OSError:
            if docker("inspect", "--format", "{{.State.Running}}", container) == "false":
                break
            time.sleep(0.05)
        else:
            return time.monotonic() - started
    raise UserError(f"no answer after {limit:g} s; the log ends\n{last_lines(container)}")


def megabytes_used(container: str) -> float:
    """Memory of a container now, without the page cache, as `docker stats` counts it."""
    text = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container).split("/")[0].strip()
    number, unit = text.rstrip("KMGiB"), text.lstrip("0123456789.")
    return float(number) * {"B": 1e-6, "KiB": 1024e-6, "MiB": 1.048576, "GiB": 1073.741824}[unit]


def metric(text: str, name: str) -> float | None:
    """Sum of a metric's samples in an exposition; None if it has none."""
    found = [
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith((f"{name} ", f"{name}{{"))
    ]
    return sum(found) if found else None


@dataclass(frozen=True)
class Check:
    """One line of the result."""

    what: str
    passed: bool
    found: str


def check(folder: Path, allowed: Limits) -> Iterator[Check]:
    """Run everything against the images of the release in a folder, one result at a time."""
    told = read_facts(folder)
    model, exporter = build.names(told)
    for name in (model, exporter):
        yield from _labels(name, told)
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    rows = made_rows(reference, allowed.rows, seed=1)
    wanted = expected(folder / "model", rows, reference)
    with containers(model, exporter) as (serving, sidecar):
        direct, through = address(serving, MODEL_PORT), address(sidecar, EXPORTER_PORT)
        metrics = f"{address(sidecar, METRICS_PORT)}/metrics"
        answered = seconds_to_answer(serving, direct, allowed.start_seconds)
        yield Check(
            "model answers /ping", True, f"after {answered:.1f} s (limit {allowed.start_seconds:g} s)"
        )
        seconds_to_answer(sidecar, through, allowed.start_seconds)
        for url, way in ((direct, "the container"), (through, "the sidecar")):
            before = metric(ask(metrics), "model_feature_values_total") or 0
            worst = max(
                largest_difference(ask(f"{url}/invocations", body(rows)), wanted),
                largest_difference(ask(f"{url}/invocations", body(rows[:1])), wanted[:1]),
            )
            yield Check(
                f"{len(rows)} predictions through {way}",
                worst <= TOLERANCE,
                f"largest difference {worst:.1e}",
            )
        yield from _other_requests(direct, rows, wanted)
        moved = _moved(metrics, before)
        yield Check("drift counters move", moved > 0, f"by {moved:.0f} values")
        text = ask(metrics)
        golden = _golden(metrics, allowed.start_seconds)
        yield Check("golden rows match", golden == 1, f"model_golden_rows_match {golden}")
        version = f'version="{told.version}"' in text and f'name="{told.name}"' in text
        yield Check("model_info names the version", version, f"{told.name} {told.version}")
        for container, what in ((serving, "model"), (sidecar, "exporter")):
            healthy = answered + seconds_to_health(container, allowed.start_seconds)
            yield Check(f"{what} is healthy", True, f"after {healthy:.1f} s (the engine looks every 10 s)")
            yield _root(container, what)
        used = megabytes_used(serving)
        yield Check(
            "memory of the model", used < allowed.memory_mb, f"{used:.0f} MB of {allowed.memory_mb:g} MB"
        )
        for container, what in ((sidecar, "exporter"), (serving, "model")):
            yield _stop(container, what, allowed.stop_seconds)


def _labels(name: str, told: ReleaseFacts) -> Iterator[Check]:
    found = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", name))
    wanted = build.labels(told, "", "", "")
    carried = found.get("Labels") or {}
    wrong = [key for key, value in wanted.items() if value and carried.get(key) != value]
    yield Check(
        f"labels of {name}", not wrong, f"{len(carried)} labels" + (f", wrong: {wrong}" if wrong else "")
    )
    user = found.get("User", "")
    yield Check(f"user of {name}", user not in ("", "0", "root"), user or "root")
    yield Check(
        f"health check of {name}",
        bool(found.get("Healthcheck")),
        "present" if found.get("Healthcheck") else "absent",
    )


def _other_requests(
    url: str, rows: Sequence[Mapping[str, Any]], wanted: Sequence[Sequence[float]]
) -> Iterator[Check]:
    names = list(rows[0])
    lines = [names, *(["" if row[name] is None else str(row[name]) for name in names] for row in rows[:20])]
    table = "\n".join(",".join(line) for line in lines).encode()
    worst = largest_difference(ask(f"{url}/invocations", table, kind="text/csv"), wanted[:20])
    yield Check("a CSV table is answered", worst <= TOLERANCE, f"largest difference {worst:.1e}")
    try:
        ask(f"{url}/invocations", b'{"dataframe_split": {"columns": ["none"], "data": [[1]]}}')
    except urllib.error.HTTPError as refused:
        yield Check("a bad request is refused", refused.code == 400, f"with {refused.code}")
    else:
        yield Check("a bad request is refused", False, "it was answered")


def _root(container: str, what: str) -> Check:
    try:
        docker("exec", container, "python", "-c", "open('/opt/written', 'w')")
    except UserError as error:
        refused = "Read-only file system" in str(error)
        return Check(f"root of {what} is read-only", refused, "a write is refused" if refused else str(error))
    return Check(f"root of {what} is read-only", False, "a write succeeded")


def _moved(metrics: str, before: float) -> float:
    # The sidecar counts after it has answered.
    end = time.monotonic() + 10
    while time.monotonic() < end:
        now = metric(ask(metrics), "model_feature_values_total") or 0
        if now > before:
            return now - before
        time.sleep(0.1)
    return 0.0


def _golden(metrics: str, limit: float) -> float | None:
    # A sidecar that came up before its model asks it again after a while.
    end = time.monotonic() + limit
    while (matches := metric(ask(metrics), "model_golden_rows_match")) != 1 and time.monotonic() < end:
        time.sleep(0.5)
    return matches


def _stop(container: str, what: str, limit: float) -> Check:
    started = time.monotonic()
    docker("stop", "--time", str(int(limit) + 10), container)
    seconds = time.monotonic() - started
    code = int(docker("inspect", "--format", "{{.State.ExitCode}}", container))
    clean = code == 0 and seconds <= limit
    return Check(f"{what} stops cleanly", clean, f"in {seconds:.1f} s (limit {limit:g} s), exit code {code}")


def main() -> int:
    """Print each check; exit code 1 if one fails."""
    failed = 0
    try:
        for result in check(PROJECT / RELEASE, limits(os.environ)):
            print(
                f"image-test: {'ok  ' if result.passed else 'FAIL'} {result.what}: {result.found}", flush=True
            )
            failed += not result.passed
    except (UserError, OSError) as error:
        print(f"image-test: error: {error}", file=sys.stderr)
        return 1
    if failed:
        print(f"image-test: {failed} checks failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
