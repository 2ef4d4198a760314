"""`make image-test`: start both images of the release, hardened as in production, and check them.

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
    """Limits of the containers; the variable `IMAGE_TEST_X` sets a field `x`."""

    start_seconds: float = 120
    stop_seconds: float = 30
    memory_mb: float = 600
    rows: int = 200


def limits(environment: Mapping[str, str]) -> Limits:
    """Limits from the environment. Raises UserError naming a value that is not a positive number."""
    settings: dict[str, Any] = {}
    for field in fields(Limits):
        text = environment.get(f"IMAGE_TEST_{field.name.upper()}")
        if text:
            try:
                settings[field.name] = int(text) if field.name == "rows" else float(text)
            except ValueError:
                settings[field.name] = 0
            if not settings[field.name] > 0:
                raise UserError(f"IMAGE_TEST_{field.name.upper()} must be a number above 0, not {text!r}")
    return Limits(**settings)


def made_rows(reference: Mapping[str, Any], count: int, seed: int) -> list[dict[str, float | str | None]]:
    """Random rows within the schema's ranges and levels, about one value in forty missing."""
    import numpy as np

    random = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {}
    for feature in reference["features"]:
        if "levels" in feature:
            column = [
                feature["levels"][level_index]
                for level_index in random.integers(len(feature["levels"]), size=count)
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
    return [[1 - positive, positive] for positive in risk.tolist()]


def ask(url: str, content: bytes | None = None, seconds: float = 60, kind: str = "application/json") -> str:
    """The text of a container's answer; a POST if there is content."""
    request = urllib.request.Request(url, content, {"Content-Type": kind})  # noqa: S310
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # containers are on this machine
    with direct.open(request, timeout=seconds) as answer:
        return str(answer.read().decode())


def largest_difference(answer: str, right: Sequence[Sequence[float]]) -> float:
    """Largest absolute difference of an answer from the right probabilities; infinite for another shape."""
    answered: list[list[float]] = json.loads(answer)["predictions"]
    if [len(row) for row in answered] != [len(row) for row in right]:
        return float("inf")
    rows = zip(answered, right, strict=True)
    return max(abs(a - b) for row, right_row in rows for a, b in zip(row, right_row, strict=True))


@contextmanager
def containers(model: str, exporter: str) -> Iterator[tuple[str, str]]:
    """Both images running, hardened as in the stack, in their own network; removed afterwards."""
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
    """Seconds until /ping answers. Raises UserError with the log past the limit or if the container ends."""
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
    """Present memory of a container without the page cache, from `docker stats`."""
    text = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container).split("/")[0].strip()
    number, unit = text.rstrip("KMGiB"), text.lstrip("0123456789.")
    return float(number) * {"B": 1e-6, "KiB": 1024e-6, "MiB": 1.048576, "GiB": 1073.741824}[unit]


def metric(text: str, name: str) -> float | None:
    """Sum of a metric's samples in an exposition; None if it has none."""
    samples = [
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith((f"{name} ", f"{name}{{"))
    ]
    return sum(samples) if samples else None


@dataclass(frozen=True)
class Check:
    """A line of the result."""

    name: str
    passed: bool
    detail: str


def check(folder: Path, allowed: Limits) -> Iterator[Check]:
    """Check the images of the release in a folder, one result at a time."""
    release = read_facts(folder)
    model, exporter = build.names(release)
    for name in (model, exporter):
        yield from _labels(name, release)
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    rows = made_rows(reference, allowed.rows, seed=1)
    right = expected(folder / "model", rows, reference)
    with containers(model, exporter) as (serving, sidecar):
        direct, through = address(serving, MODEL_PORT), address(sidecar, EXPORTER_PORT)
        metrics = f"{address(sidecar, METRICS_PORT)}/metrics"
        answered = seconds_to_answer(serving, direct, allowed.start_seconds)
        yield Check(
            "model answers /ping", True, f"after {answered:.1f} s (limit {allowed.start_seconds:g} s)"
        )
        seconds_to_answer(sidecar, through, allowed.start_seconds)
        for url, route in ((direct, "the container"), (through, "the sidecar")):
            before = metric(ask(metrics), "model_feature_values_total") or 0
            worst = max(
                largest_difference(ask(f"{url}/invocations", body(rows)), right),
                largest_difference(ask(f"{url}/invocations", body(rows[:1])), right[:1]),
            )
            yield Check(
                f"{len(rows)} predictions through {route}",
                worst <= TOLERANCE,
                f"largest difference {worst:.1e}",
            )
        yield from _other_requests(direct, rows, right)
        moved = _moved(metrics, before)
        yield Check("drift counters move", moved > 0, f"by {moved:.0f} values")
        text = ask(metrics)
        golden = _golden(metrics, allowed.start_seconds)
        yield Check("golden rows match", golden == 1, f"model_golden_rows_match {golden}")
        version = f'version="{release.version}"' in text and f'name="{release.name}"' in text
        yield Check("model_info names the version", version, f"{release.name} {release.version}")
        for container, service in ((serving, "model"), (sidecar, "exporter")):
            healthy = answered + seconds_to_health(container, allowed.start_seconds)
            yield Check(f"{service} is healthy", True, f"after {healthy:.1f} s (the engine looks every 10 s)")
            yield _root(container, service)
        used = megabytes_used(serving)
        yield Check(
            "memory of the model", used < allowed.memory_mb, f"{used:.0f} MB of {allowed.memory_mb:g} MB"
        )
        for container, service in ((sidecar, "exporter"), (serving, "model")):
            yield _stop(container, service, allowed.stop_seconds)


def _labels(name: str, release: ReleaseFacts) -> Iterator[Check]:
    config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", name))
    right = build.labels(release, "", "", "")
    present = config.get("Labels") or {}
    wrong = [key for key, value in right.items() if value and present.get(key) != value]
    yield Check(
        f"labels of {name}", not wrong, f"{len(present)} labels" + (f", wrong: {wrong}" if wrong else "")
    )
    user = config.get("User", "")
    yield Check(f"user of {name}", user not in ("", "0", "root"), user or "root")
    yield Check(
        f"health check of {name}",
        bool(config.get("Healthcheck")),
        "present" if config.get("Healthcheck") else "absent",
    )


def _other_requests(
    url: str, rows: Sequence[Mapping[str, Any]], right: Sequence[Sequence[float]]
) -> Iterator[Check]:
    names = list(rows[0])
    lines = [names, *(["" if row[name] is None else str(row[name]) for name in names] for row in rows[:20])]
    table = "\n".join(",".join(line) for line in lines).encode()
    worst = largest_difference(ask(f"{url}/invocations", table, kind="text/csv"), right[:20])
    yield Check("a CSV table is answered", worst <= TOLERANCE, f"largest difference {worst:.1e}")
    try:
        ask(f"{url}/invocations", b'{"dataframe_split": {"columns": ["none"], "data": [[1]]}}')
    except urllib.error.HTTPError as refused:
        yield Check("a bad request is refused", refused.code == 400, f"with {refused.code}")
    else:
        yield Check("a bad request is refused", False, "it was answered")


def _root(container: str, service: str) -> Check:
    try:
        docker("exec", container, "python", "-c", "open('/opt/written', 'w')")
    except UserError as error:
        refused = "Read-only file system" in str(error)
        return Check(
            f"root of {service} is read-only", refused, "a write is refused" if refused else str(error)
        )
    return Check(f"root of {service} is read-only", False, "a write succeeded")


def _moved(metrics: str, before: float) -> float:
    # The sidecar counts after it has answered.
    end = time.monotonic() + 10
    while time.monotonic() < end:
        count = metric(ask(metrics), "model_feature_values_total") or 0
        if count > before:
            return count - before
        time.sleep(0.1)
    return 0.0


def _golden(metrics: str, limit: float) -> float | None:
    # A sidecar that started before its model asks the model again after a while.
    end = time.monotonic() + limit
    while (matches := metric(ask(metrics), "model_golden_rows_match")) != 1 and time.monotonic() < end:
        time.sleep(0.5)
    return matches


def _stop(container: str, service: str, limit: float) -> Check:
    started = time.monotonic()
    docker("stop", "--time", str(int(limit) + 10), container)
    seconds = time.monotonic() - started
    code = int(docker("inspect", "--format", "{{.State.ExitCode}}", container))
    clean = code == 0 and seconds <= limit
    return Check(
        f"{service} stops cleanly", clean, f"in {seconds:.1f} s (limit {limit:g} s), exit code {code}"
    )


def main() -> int:
    """Print each check; exit code 1 if one fails."""
    failed = 0
    try:
        for result in check(PROJECT / RELEASE, limits(os.environ)):
            print(
                f"image-test: {'ok  ' if result.passed else 'FAIL'} {result.name}: {result.detail}",
                flush=True,
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
