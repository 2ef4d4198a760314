"""The speed that the sidecar adds to a served model, and its cost.

    python -m benchmarks.serving --model DIR --reference FILE [--image NAME] [--packed NAME] [--mlserver]
                                 [--quick]

The same container (`--image`, else `mlflow models serve` with one worker) is asked directly and through the
sidecar, by closed loops of 1 to 64 clients and by Poisson arrivals. `--packed` adds the image of `make image`
with its own entrypoint, alone and behind a sidecar as `make stack` runs it; `--mlserver` adds MLServer, in a
container on the same base image, with each of several batch settings. Rounds alternate between all of them,
and the table holds medians of the rounds: on a machine with few cores and other work, only ratios within a
round are meaningful. Writes benchmarks/results/serving.json and prints the table.

The clients are one process of raw sockets (`load`), so that they use little processor time themselves.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results") / "serving.json"
CLIENTS = (1, 2, 8, 32, 64)
POISSON_SHARES = (0.3, 0.6)
WARM_UP = 1.0
PACKED = "our image"
PACKED_SIDECAR = "our image and sidecar"
MLSERVER_IMAGE = "benchmark-mlserver"
START_SECONDS = 180.0
# Batch settings of MLServer: most requests in a batch, most seconds that a batch waits.
MLSERVER_BATCHES = ((0, 0.0), (64, 0.002), (64, 0.005), (64, 0.01))
# At least so many times the container's requests a second, by clients.
TARGET_SPEEDUPS = {8: 4.0, 32: 12.0, 64: 18.0}


class Target(NamedTuple):
    """A server of predictions: its address, and requests in its format."""

    name: str
    port: int
    path: str
    bodies: tuple[bytes, ...]
    pid: int | None = None
    metrics_port: int | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the result, print the table."""
    chosen = parse(arguments)
    if chosen.command == "load":
        print(json.dumps(load(chosen)))
        return 0
    bodies = request_bodies(json.loads(Path(chosen.reference).read_text(encoding="utf-8")))
    rounds, seconds = (1, 2.0) if chosen.quick else (chosen.rounds, chosen.seconds)
    with contextlib.ExitStack() as running:
        targets = start_targets(chosen, bodies, running)
        closed = closed_loops(targets, CLIENTS, rounds, seconds)
        capacity = closed["container"]["1"]["rate"]
        open_loops = poisson(targets, capacity, rounds, seconds)
        busy = bound(targets, seconds)
    document = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "container": chosen.image or "mlflow models serve, one worker",
        "rounds": rounds,
        "seconds": seconds,
        "closed": closed,
        "poisson": open_loops,
        "bound": busy,
        "counting_microseconds_a_row": counting(chosen.reference),
    }
    Path(chosen.out).parent.mkdir(exist_ok=True)
    Path(chosen.out).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(table(document))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; this file starts `load` itself, as its clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="folder of an MLflow model")
    parser.add_argument("--reference", help="its reference.json")
    parser.add_argument("--image", help="image of `mlflow models build-docker`; without it, processes")
    parser.add_argument("--packed", help="image of `make image`, asked directly beside the others")
    parser.add_argument("--mlserver", action="store_true", help="MLServer beside it, in a container")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    parser.add_argument("--out", default=str(RESULTS))
    commands = parser.add_subparsers(dest="command")
    clients = commands.add_parser("load")
    clients.add_argument("--port", type=int, required=True)
    clients.add_argument("--path", required=True)
    clients.add_argument("--bodies", required=True, help="file with one body a line")
    clients.add_argument("--clients", type=int, default=1)
    clients.add_argument("--poisson", type=float, default=0.0, help="arrivals a second instead of clients")
    clients.add_argument("--seconds", type=float, required=True)
    chosen = parser.parse_args(arguments)
    if chosen.command is None and not (chosen.reference and (chosen.model or chosen.image)):
        parser.error("--reference and one of --model and --image are needed")
    if chosen.mlserver and not chosen.model:
        parser.error("--mlserver needs --model")
    return chosen


# Clients ----------------------------------------------------------------------------------------------------


def load(chosen: argparse.Namespace) -> dict[str, float]:
    """Send requests for a while; rate, failures and quantiles of latency in seconds, without the warm-up."""
    head = f"POST {chosen.path} HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\nContent-Length: "
    bodies = Path(chosen.bodies).read_bytes().splitlines()
    requests = [head.encode() + b"%d\r\n\r\n" % len(body) + body for body in bodies]
    random.Random(0).shuffle(requests)
    if chosen.poisson:
        latencies, failures = poisson_latencies(chosen.port, requests, chosen.poisson, chosen.seconds)
    else:
        latencies, failures = closed_latencies(chosen.port, requests, chosen.clients, chosen.seconds)
    latencies.sort()
    count = len(latencies)
    return {
        "rate": count / chosen.seconds,
        "failures": failures,
        "p50": latencies[count // 2] if count else float("nan"),
        "p99": latencies[min(count - 1, int(count * 0.99))] if count else float("nan"),
        "mean": statistics.fmean(latencies) if count else float("nan"),
    }


def connect(port: int) -> socket.socket:
    """A connection without delay."""
    connection = socket.create_connection(("127.0.0.1", port), 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def is_complete(received: bytes) -> bool:
    """Whether an answer with a Content-Length has arrived completely."""
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    header_start = head.lower().find(b"content-length:")
    return len(body) >= int(head[header_start + 15 :].split(b"\r\n", 1)[0])


def closed_latencies(
    port: int, requests: Sequence[bytes], clients: int, seconds: float
) -> tuple[list[float], int]:
    """Each client sends its next request as soon as it has an answer."""
    selector = selectors.DefaultSelector()
    sent_at: dict[socket.socket, float] = {}
    received: dict[socket.socket, bytes] = {}
    number = 0
    begin = time.perf_counter() + WARM_UP
    latencies, failures = [], 0
    for _ in range(clients):
        connection = connect(port)
        selector.register(connection, selectors.EVENT_READ)
        received[connection], sent_at[connection] = b"", time.perf_counter()
        connection.sendall(requests[number % len(requests)])
        number += 1
    while (moment := time.perf_counter()) < begin + seconds:
        for key, _ in selector.select(1.0):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            part = connection.recv(65536)
            if not part:
                raise ConnectionError("the target closed a connection")
            answer = received[connection] = received[connection] + part
            if not is_complete(answer):
                continue
            moment = time.perf_counter()
            if moment >= begin:
                latencies.append(moment - sent_at[connection])
                failures += not answer.startswith(b"HTTP/1.1 200")
            received[connection], sent_at[connection] = b"", moment
            connection.sendall(requests[number % len(requests)])
            number += 1
    for connection in received:
        connection.close()
    return latencies, failures


def poisson_latencies(
    port: int, requests: Sequence[bytes], rate: float, seconds: float
) -> tuple[list[float], int]:
    """Requests arrive at random times, independent of answers; latency counts from the time of arrival."""
    selector = selectors.DefaultSelector()
    generator = random.Random(1)
    idle: list[socket.socket] = [connect(port) for _ in range(8)]
    due_at: dict[socket.socket, float] = {}
    received: dict[socket.socket, bytes] = {}
    start = time.perf_counter()
    due, number = start + generator.expovariate(rate), 0
    latencies, failures = [], 0
    while (moment := time.perf_counter()) < start + WARM_UP + seconds:
        while due <= moment:
            connection = idle.pop(generator.randrange(len(idle))) if idle else connect(port)
            selector.register(connection, selectors.EVENT_READ)
            due_at[connection], received[connection] = due, b""
            connection.sendall(requests[number % len(requests)])
            due, number = due + generator.expovariate(rate), number + 1
        for key, _ in selector.select(max(0.0, due - time.perf_counter())):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            received[connection] += connection.recv(65536)
            if not is_complete(received[connection]):
                continue
            if due_at[connection] >= start + WARM_UP:
                latencies.append(time.perf_counter() - due_at[connection])
                failures += not received[connection].startswith(b"HTTP/1.1 200")
            selector.unregister(connection)
            idle.append(connection)
    return latencies, failures


def ask_for(target: Target, seconds: float, **load_options: float) -> dict[str, float]:
    """Run the clients in a process of their own, after the requests of earlier clients are answered."""
    settle(target)
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as bodies:
        bodies.write(b"\n".join(target.bodies))
        bodies.flush()
        options = [f"--{name}={value}" for name, value in load_options.items()]
        command = [sys.executable, "-m", "benchmarks.serving", "load", f"--port={target.port}"]
        command += [f"--path={target.path}", f"--bodies={bodies.name}", f"--seconds={seconds}", *options]
        measured: dict[str, float] = json.loads(subprocess.check_output(command, cwd=PROJECT))
    if measured["failures"]:
        raise SystemExit(
            f"{target.name}: {measured['failures']:.0f} requests failed; nothing is worth measuring"
        )
    return measured


def settle(target: Target) -> None:
    """Wait until the target has answered one request: it still answers those of clients that left."""
    kind = {"Content-Type": "application/json"}
    url = f"http://127.0.0.1:{target.port}{target.path}"
    with urllib.request.urlopen(urllib.request.Request(url, target.bodies[0], kind), timeout=START_SECONDS):
        pass


# Measurements -----------------------------------------------------------------------------------------------


def closed_loops(
    targets: Sequence[Target], clients: Sequence[int], rounds: int, seconds: float
) -> dict[str, dict[str, dict[str, float]]]:
    """Medians over the rounds by target and number of clients."""
    by_target: dict[str, dict[str, list[dict[str, float]]]] = {}
    for number in range(rounds):
        order = targets if number % 2 == 0 else tuple(reversed(targets))
        for count in clients:
            for target in order:
                measured = ask_for(target, seconds, clients=count)
                by_target.setdefault(target.name, {}).setdefault(str(count), []).append(measured)
                say(f"round {number + 1}: {target.name}, {count} clients: {measured['rate']:.0f}/s")
    return {
        name: {count: medians(each) for count, each in by_clients.items()}
        for name, by_clients in by_target.items()
    }


def poisson(
    targets: Sequence[Target], capacity: float, rounds: int, seconds: float
) -> dict[str, dict[str, dict[str, float]]]:
    """Sidecar with and without batching, with arrivals at shares of the container's own capacity."""
    by_target: dict[str, dict[str, list[dict[str, float]]]] = {}
    chosen = [target for target in targets if target.name in ("sidecar", "sidecar, batching off")]
    for number in range(rounds):
        for share in POISSON_SHARES:
            for target in chosen if number % 2 == 0 else reversed(chosen):
                measured = ask_for(target, seconds * 2, poisson=capacity * share)
                by_target.setdefault(target.name, {}).setdefault(f"{share:g}", []).append(measured)
    return {
        name: {share: medians(each) for share, each in shares.items()} for name, shares in by_target.items()
    }


def bound(targets: Sequence[Target], seconds: float) -> dict[str, float]:
    """At 64 clients: the share of the time that a call is under way, the sidecar's processor time a request,
    requests and seconds a call. A share near 1 means that the container is the limit."""
    (target,) = [each for each in targets if each.name == "sidecar"]
    assert target.pid is not None
    before, spent, begun = scrape(target), processor_seconds(target.pid), time.perf_counter()
    ask_for(target, seconds, clients=64)
    elapsed = time.perf_counter() - begun
    after, spent = scrape(target), processor_seconds(target.pid) - spent
    calls = (
        after["sidecar_upstream_duration_seconds_count"] - before["sidecar_upstream_duration_seconds_count"]
    )
    under_way = (
        after["sidecar_upstream_duration_seconds_sum"] - before["sidecar_upstream_duration_seconds_sum"]
    )
    requests = after["sidecar_batch_requests_sum"] - before["sidecar_batch_requests_sum"]
    return {
        "share_of_time_in_calls": under_way / (elapsed - 0.2),
        "requests_a_call": requests / calls,
        "seconds_a_call": under_way / calls,
        "sidecar_processor_microseconds_a_request": 1e6 * spent / requests,
    }


def counting(reference_path: str) -> dict[str, float]:
    """Median microseconds that counting takes for each row, for single rows and for a hundred at once."""
    from prometheus_client import CollectorRegistry

    from monitoring.reference import load as load_reference
    from monitoring.sidecar import payloads as bodies
    from monitoring.sidecar.counting import Observer, Seen
    from monitoring.sidecar.metrics import Metrics

    reference = load_reference(reference_path)
    observer = Observer(Metrics(CollectorRegistry(), reference, "1"), reference, 10**9)
    golden = reference.golden
    microseconds = {}
    for rows in (1, 100):
        content = {"columns": golden.columns, "data": (list(golden.rows) * 100)[:rows]}
        body = json.dumps({"dataframe_split": content}).encode()
        answer = json.dumps({"predictions": ([[1 - s, s] for s in golden.scores] * 100)[:rows]}).encode()
        table_ = bodies.table(body)
        assert table_ is not None
        prediction = Seen("application/json", body, True, answer, (table_,))
        times = []
        for _ in range(500):
            observer.put(prediction)
            begun = time.perf_counter()
            observer.drain()
            times.append(time.perf_counter() - begun)
        microseconds[str(rows)] = 1e6 * statistics.median(times) / rows
    return microseconds


# Targets ----------------------------------------------------------------------------------------------------


def request_bodies(reference: dict[str, Any]) -> tuple[bytes, ...]:
    """Single rows in split form, each with values drawn from the columns of the reference's golden rows."""
    golden, mixed = reference["golden"], random.Random(5)
    columns = list(zip(*golden["rows"], strict=True))
    rows = [[mixed.choice(column) for column in columns] for _ in range(256)]
    return tuple(
        json.dumps({"dataframe_split": {"columns": golden["columns"], "data": [row]}}).encode()
        for row in rows
    )


def start_targets(
    chosen: argparse.Namespace, bodies: tuple[bytes, ...], running: contextlib.ExitStack
) -> tuple[Target, ...]:
    """The container, the sidecar before it with and without batching, a container with all workers, and the
    chosen further targets."""
    container, many = free_port(), free_port()
    running.enter_context(container_process(chosen, container, workers=1))
    targets = [Target("container", container, "/invocations", bodies)]
    for name, batch in (("sidecar", {}), ("sidecar, batching off", {"BATCH_REQUESTS": "1"})):
        targets.append(sidecar(name, container, chosen.reference, bodies, running, batch))
    running.enter_context(container_process(chosen, many, workers=None))
    targets.append(Target("container, all workers", many, "/invocations", bodies))
    if chosen.packed:
        packed = free_port()
        running.enter_context(image_process(chosen.packed, packed, []))
        targets.append(Target(PACKED, packed, "/invocations", bodies))
        targets.append(sidecar(PACKED_SIDECAR, packed, chosen.reference, bodies, running))
    for target in targets:
        wait_for(f"http://127.0.0.1:{target.port}/ping")
    return (*targets, *(mlservers(chosen.model, bodies, running) if chosen.mlserver else ()))


def sidecar(
    name: str,
    upstream: int,
    reference: str,
    bodies: tuple[bytes, ...],
    running: contextlib.ExitStack,
    options: Mapping[str, str] = MappingProxyType({}),
    checkout: Path = PROJECT,
) -> Target:
    """Start a sidecar before a port, of any version of the project: an older one calls it exporter."""
    port, metrics_port = free_port(), free_port()
    settings = {
        "UPSTREAM": f"http://127.0.0.1:{upstream}",
        "PORT": str(port),
        "METRICS_PORT": str(metrics_port),
        "REFERENCE": str(Path(reference).resolve()),
        "FEEDBACK_KEYS": "a-key-for-the-benchmark",
        "LOG_LEVEL": "WARNING",
        **options,
    }
    environment = {f"MODEL_EXPORTER_{key}": value for key, value in settings.items()}
    edition = "sidecar" if (checkout / "monitoring" / "sidecar").exists() else "exporter"
    command = [sys.executable, "-m", f"monitoring.{edition}"]
    pid = running.enter_context(process(command, environment, checkout))
    return Target(name, port, "/invocations", bodies, pid, metrics_port)


@contextlib.contextmanager
def container_process(chosen: argparse.Namespace, port: int, workers: int | None) -> Iterator[int]:
    """The stock image with its stock entry point, or the same server as a process."""
    count = os.cpu_count() if workers is None else workers
    if chosen.image:
        workers_given = [] if workers is None else ["-e", f"MLFLOW_MODELS_WORKERS={workers}"]
        with image_process(chosen.image, port, workers_given) as pid:
            yield pid
        return
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        chosen.model,
        "--env-manager",
        "local",
    ]
    environment = {"MLFLOW_MODELS_WORKERS": str(count), "OMP_NUM_THREADS": "1"}
    with process([*command, "-h", "127.0.0.1", "-p", str(port)], environment) as pid:
        yield pid


@contextlib.contextmanager
def image_process(image: str, port: int, options: Sequence[str]) -> Iterator[int]:
    """A container of an image, with its own entry point."""
    name = f"benchmark-serving-{port}"
    command = ["docker", "run", "--rm", "--name", name, "-p", f"127.0.0.1:{port}:8080", *options, image]
    try:
        with process(command, {}) as pid:
            yield pid
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)


@contextlib.contextmanager
def process(command: Sequence[str], environment: dict[str, str], folder: Path = PROJECT) -> Iterator[int]:
    """A process group that ends with the block."""
    started = subprocess.Popen(
        list(command),
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield started.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def mlservers(model: str, bodies: tuple[bytes, ...], running: contextlib.ExitStack) -> list[Target]:
    """MLServer with each of its batch settings, asked by the V2 protocol."""
    dockerfile = PROJECT / "benchmarks" / "mlserver.Dockerfile"
    say("building the image of MLServer")
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", MLSERVER_IMAGE, "--file", str(dockerfile), "benchmarks"],
        cwd=PROJECT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    requests = tuple(v2_body(json.loads(body)["dataframe_split"]) for body in bodies)
    targets = []
    for most, wait in MLSERVER_BATCHES:
        folder, port = Path(running.enter_context(tempfile.TemporaryDirectory())), free_port()
        shutil.copytree(model, folder / "files")
        add_outputs(folder / "files")
        settings = {
            "name": "risk",
            "implementation": "mlserver_mlflow.MLflowRuntime",
            "parameters": {"uri": "/model/files"},
            **({"max_batch_size": most, "max_batch_time": wait} if most else {}),
        }
        (folder / "settings.json").write_text('{"parallel_workers": 0}', encoding="utf-8")
        (folder / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")
        mounted = ["--volume", f"{folder}:/model:ro"]
        running.enter_context(image_process(MLSERVER_IMAGE, port, mounted))
        wait_for(f"http://127.0.0.1:{port}/v2/models/risk/ready")
        name = f"MLServer, {most} requests, {wait * 1000:g} ms" if most else "MLServer, no batches"
        targets.append(Target(name, port, "/v2/models/risk/infer", requests))
    return targets


def add_outputs(folder: Path) -> None:
    """Add the outputs to a model's signature, which MLServer's runtime needs."""
    import numpy as np
    from mlflow.models import ModelSignature, get_model_info, set_signature
    from mlflow.types import Schema, TensorSpec

    signature = get_model_info(str(folder)).signature
    if signature.outputs is None:
        outputs = Schema([TensorSpec(np.dtype("float64"), (-1, 2))])
        set_signature(str(folder), ModelSignature(signature.inputs, outputs))


def v2_body(split: dict[str, Any]) -> bytes:
    """One row in the V2 inference protocol: an input for each column."""
    (row,) = split["data"]
    inputs = [
        {
            "name": name,
            "shape": [1, 1],
            "datatype": "BYTES" if isinstance(value, str) else "FP64",
            "data": [value],
            **({"parameters": {"content_type": "str"}} if isinstance(value, str) else {}),
        }
        for name, value in zip(split["columns"], row, strict=True)
    ]
    return json.dumps({"parameters": {"content_type": "pd"}, "inputs": inputs}).encode()


# The table --------------------------------------------------------------------------------------------------


def table(document: dict[str, Any]) -> str:
    """The measurements and their ratios, as Markdown."""
    closed = document["closed"]
    lines = ["| | " + " | ".join(f"{count} clients" for count in CLIENTS) + " |"]
    lines.append("|---" * (len(CLIENTS) + 1) + "|")
    for name, by_clients in closed.items():
        cells = [
            f"{by_clients[str(count)]['rate']:.0f}/s, {1000 * by_clients[str(count)]['p50']:.1f} ms"
            f" (p99 {1000 * by_clients[str(count)]['p99']:.0f})"
            for count in CLIENTS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")

    def ratio(count: int, figure: str) -> float:
        return float(closed["sidecar"][str(count)][figure] / closed["container"][str(count)][figure])

    lines += ["", f"p50 at 1 client: {ratio(1, 'p50'):.2f} times the container's (at most 1.15)"]
    for count, least in TARGET_SPEEDUPS.items():
        lines.append(
            f"requests a second at {count} clients: {ratio(count, 'rate'):.1f} times (at least {least:g})"
        )
    worst = max(ratio(count, "p99") for count in CLIENTS[1:])
    lines.append(f"p99 from 2 clients on: at most {worst:.2f} times the container's (at most 1.1)")
    for share in POISSON_SHARES:
        batched, single = (
            document["poisson"][name][f"{share:g}"] for name in ("sidecar", "sidecar, batching off")
        )
        lines.append(
            f"Poisson arrivals at {share:.0%} of the container's rate: p50 "
            f"{batched['p50'] / single['p50']:.2f}, mean {batched['mean'] / single['mean']:.2f} times "
            "batching off (at most 1.05)"
        )
    if PACKED in closed:
        times = [
            closed[PACKED][str(count)]["rate"] / closed["container"][str(count)]["rate"] for count in (1, 8)
        ]
        lines.append(
            f"requests a second of our image, 1 and 8 clients: {times[0]:.2f} and {times[1]:.2f} times"
        )
    counts = ", ".join(map(str, CLIENTS))
    for sidecar_name in ("sidecar", PACKED_SIDECAR):
        for name in closed if sidecar_name in closed else ():
            if name.startswith("MLServer"):
                times = ", ".join(
                    f"{closed[sidecar_name][str(n)]['rate'] / closed[name][str(n)]['rate']:.2f}"
                    for n in CLIENTS
                )
                lines.append(
                    f"requests a second of {sidecar_name} beside {name}: {times} times at {counts} clients"
                )
    limits = document["bound"]
    lines.append(
        f"at 64 clients a call is under way {limits['share_of_time_in_calls']:.0%} of the time,"
        f" {limits['requests_a_call']:.0f} requests in {1000 * limits['seconds_a_call']:.1f} ms; the sidecar"
        f" takes {limits['sidecar_processor_microseconds_a_request']:.0f} microseconds of processor a request"
    )
    cost = document["counting_microseconds_a_row"]
    lines.append(
        f"counting: {cost['1']:.0f} microseconds for a single row (under 200), {cost['100']:.1f} a row in a"
        " hundred (under 20)"
    )
    return "\n".join(lines)


def medians(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    """Median of each figure over the rounds."""
    return {name: statistics.median(each[name] for each in measured) for name in measured[0]}


def scrape(target: Target) -> dict[str, float]:
    """Samples without labels of a sidecar's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{target.metrics_port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.split(" ") for line in lines if not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value in pairs}


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """An unused port of the loopback address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(url: str) -> None:
    """Wait until a URL answers 200."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"{url} does not answer")
        time.sleep(0.2)


def commit() -> str:
    """The commit that is checked out."""
    answer = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    """The machine and the package versions that the figures depend on."""
    from importlib.metadata import version

    packages = ("mlflow", "scikit-learn", "waitress", "flask", "numpy")
    versions = {name: version(name) for name in packages}
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        **versions,
    }


def say(line: str) -> None:
    """Print progress to standard error; standard output has the table."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
