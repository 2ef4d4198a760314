"""How fast models are answered, of several servers that are asked in turn.

    python -m benchmarks.models_served --reference FILE before=MODEL glass_box=MODEL 'behind=MODEL>.' ...

A target is `NAME=MODEL`, or `NAME=MODEL>CHECKOUT` for the sidecar of a checkout of this project (`.` is this
one) before the model. MODEL is a folder, which MLflow's own server answers from as a process with one worker,
`ours:FOLDER`, the same with the server of our image, `docker:IMAGE`, an image with its own entry point, or
`mlserver:FOLDER`, MLServer in a container with each of its batch settings. The first target is the one that
the others are compared with. All run at once and are asked in turn, forwards and backwards, in 15 rounds; a
round gives one ratio of requests a second for each pair, and the table has their median with a bootstrap
interval over rounds. On a machine with other work to do only such ratios mean something. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import serving

MISSED = 3
# The variable that names a model's folder, and what uvicorn is asked to run.
MLFLOWS = ("__pyfunc_model_path__", ("mlflow.pyfunc.scoring_server.app:app",))
IMAGES = serving.PROJECT / "monitoring" / "deploy" / "images"
OURS = ("MODEL_FOLDER", ("--app-dir", str(IMAGES), "--factory", "model_server:create"))


def main() -> int:
    """Exit code 3 if the interval of a ratio does not reach `--least`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="+", metavar="NAME=MODEL[>CHECKOUT]")
    parser.add_argument("--reference", required=True, help="reference.json of one of the models")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--least", type=float, default=0.0, help="what every ratio has to reach")
    chosen = parser.parse_args()
    bodies = serving.request_bodies(json.loads(Path(chosen.reference).read_text(encoding="utf-8")))
    with contextlib.ExitStack() as running:
        models: dict[str, list[serving.Target]] = {}
        targets = [
            target
            for text in chosen.targets
            for target in start(text, chosen.reference, bodies, models, running)
        ]
        measured = compare(targets, chosen.clients, chosen.rounds, chosen.seconds)
    print(json.dumps({"machine": serving.machine(), **measured}, indent=1))
    ratios = [ratio for group in measured.values() for ratio in group["ratios"].values()]
    return 0 if all(ratio["high"] >= chosen.least for ratio in ratios) else MISSED


def start(
    text: str,
    reference: str,
    bodies: tuple[bytes, ...],
    models: dict[str, list[serving.Target]],
    running: contextlib.ExitStack,
) -> list[serving.Target]:
    """The targets of a command-line text, several for MLServer; `models` are those that run already."""
    name, _, address = text.partition("=")
    model, _, checkout = address.partition(">")
    if model not in models:
        models[model] = start_model(model, bodies, running)
    if model.startswith("mlserver:"):
        return models[model]
    (served,) = models[model]
    if not checkout:
        return [served._replace(name=name)]
    target = serving.sidecar(name, served.port, reference, bodies, running, checkout=Path(checkout).resolve())
    serving.wait_for(f"http://127.0.0.1:{target.port}/ping")
    return [target]


def start_model(model: str, bodies: tuple[bytes, ...], running: contextlib.ExitStack) -> list[serving.Target]:
    """Start a server of a model and wait until it answers."""
    kind, _, where = model.rpartition(":")
    if kind == "mlserver":
        return serving.mlservers(where, bodies, running)
    port = serving.free_port()
    if kind == "docker":
        running.enter_context(serving.image_process(where, port, []))
    else:
        command = ["-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
        variable, application = OURS if kind == "ours" else MLFLOWS
        environment = {
            variable: str(Path(where).resolve()),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        server = [sys.executable, *command, *application]
        running.enter_context(serving.process(server, environment))
    serving.wait_for(f"http://127.0.0.1:{port}/ping")
    return [serving.Target(model, port, "/invocations", bodies)]


def compare(
    targets: Sequence[serving.Target], clients: Sequence[int], rounds: int, seconds: float
) -> dict[str, Any]:
    """Rates by target, their ratios to those of the first target, and a sidecar's processor time in
    microseconds a request; by number of clients."""
    result: dict[str, Any] = {}
    for count in clients:
        rates: dict[str, list[float]] = {target.name: [] for target in targets}
        costs: dict[str, list[float]] = {target.name: [] for target in targets if target.pid}
        for number in range(rounds):
            for target in targets if number % 2 == 0 else tuple(reversed(targets)):
                spent = serving.processor_seconds(target.pid) if target.pid else 0.0
                rate = serving.ask_for(target, seconds, clients=count)["rate"]
                rates[target.name].append(rate)
                if target.pid:
                    requests = rate * (seconds + serving.WARM_UP)
                    spent = serving.processor_seconds(target.pid) - spent
                    costs[target.name].append(1e6 * spent / requests)
        first = np.array(rates[targets[0].name])
        result[f"{count} clients"] = {
            "rates": {name: float(np.median(each)) for name, each in rates.items()},
            "sidecar_microseconds": {name: float(np.median(each)) for name, each in costs.items()},
            "ratios": {t.name: interval(np.array(rates[t.name]) / first) for t in targets[1:]},
        }
        print(count, result[f"{count} clients"], file=sys.stderr, flush=True)
    return result


def interval(ratios: Any) -> dict[str, float]:
    """Median of the rounds' ratios with its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


if __name__ == "__main__":
    sys.exit(main())
