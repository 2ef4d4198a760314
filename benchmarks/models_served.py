"""How fast models are answered: MLflow's own server, one worker a model, alone or behind a sidecar.

    python -m benchmarks.models_served --model old=DIR --model glass_box=DIR --reference FILE [--sidecar]

The first model is the one that the others are compared with. All servers run at once and are asked in turn,
forwards and backwards, in 15 rounds; a round gives one ratio of requests a second for each pair, and the
table has their median with a bootstrap interval over rounds. On a machine with other work to do only such
ratios mean something. Prints one JSON object.
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


def main() -> int:
    """Exit code 3 where a ratio's interval does not reach `--wanted`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=DIR")
    parser.add_argument("--reference", required=True, help="reference.json of one of them")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--sidecar", action="store_true", help="ask through a sidecar of its own as well")
    parser.add_argument("--wanted", type=float, default=2.4)
    values = parser.parse_args()
    models = dict(one.partition("=")[::2] for one in values.model)
    bodies = serving.request_bodies(json.loads(Path(values.reference).read_text(encoding="utf-8")))
    with contextlib.ExitStack() as running:
        groups: dict[str, list[serving.Target]] = {"alone": [], "sidecar": []}
        for name, folder in models.items():
            port = serving.free_port()
            running.enter_context(_server(folder, port))
            groups["alone"].append(serving.Target(name, port, "/invocations", bodies))
            serving.wait_for(f"http://127.0.0.1:{port}/ping")
            if values.sidecar:
                target = serving.sidecar(name, port, values.reference, bodies, running)
                serving.wait_for(f"http://127.0.0.1:{target.port}/ping")
                groups["sidecar"].append(target)
        found = {
            where: compare(targets, values.clients, values.rounds, values.seconds)
            for where, targets in groups.items()
            if targets
        }
    print(json.dumps({"machine": serving.machine(), **found}, indent=1))
    reached = [
        each["high"] >= values.wanted
        for group in found["alone"].values()
        for each in group["ratios"].values()
    ]
    return 0 if all(reached) else MISSED


def _server(folder: str, port: int) -> contextlib.AbstractContextManager[int]:
    """MLflow's server as the images of this project start it."""
    command = ["-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    environment = {
        "__pyfunc_model_path__": str(Path(folder).resolve()),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    return serving.process([sys.executable, *command, "mlflow.pyfunc.scoring_server.app:app"], environment)


def compare(
    targets: Sequence[serving.Target], clients: Sequence[int], rounds: int, seconds: float
) -> dict[str, Any]:
    """Rates by model and their ratios to the first model's, by number of clients."""
    result: dict[str, Any] = {}
    for count in clients:
        rates: dict[str, list[float]] = {target.name: [] for target in targets}
        for number in range(rounds):
            for target in targets if number % 2 == 0 else tuple(reversed(targets)):
                rates[target.name].append(serving.ask_for(target, seconds, clients=count)["rate"])
        first = np.array(rates[targets[0].name])
        result[f"{count} clients"] = {
            "rates": {name: float(np.median(each)) for name, each in rates.items()},
            "ratios": {t.name: _interval(np.array(rates[t.name]) / first) for t in targets[1:]},
        }
        print(count, result[f"{count} clients"], file=sys.stderr, flush=True)
    return result


def _interval(ratios: Any) -> dict[str, float]:
    """Median of the rounds' ratios with its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


if __name__ == "__main__":
    sys.exit(main())
