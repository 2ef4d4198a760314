"""`make serve`: the release in `build/release` and its sidecar on loopback, without Docker, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from monitoring.deploy.build import IMAGES
from steps.chain.pipeline import PROJECT
from steps.data.errors import UserError
from steps.data.release_facts import PAGE, RELEASE, read_facts
from steps.models import saved

START_SECONDS = 120.0
# Requests to loopback do not use the environment's proxy.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def port(environment: Mapping[str, str], name: str, default: int) -> int:
    """A port from the environment. Raises UserError for a value that is not a port."""
    text = environment.get(name) or str(default)
    if not (text.isdigit() and 0 < int(text) < 65536):
        raise UserError(f"{name} must be a port from 1 to 65535, not {text!r}")
    return int(text)


def commands(folder: Path, traffic: int, model: int, metrics: int) -> list[tuple[list[str], dict[str, str]]]:
    """The commands of the model's server and of the sidecar, each with its environment variables."""
    page = folder / PAGE
    server = ["-m", "uvicorn", "--host", "127.0.0.1", "--port", str(model), "--no-access-log"]
    ours = ["--app-dir", str(IMAGES), "--factory", "model_server:create"]
    return [
        (
            [sys.executable, *server, *ours],
            {"MODEL_FOLDER": str(folder / "model"), "OMP_NUM_THREADS": "1"},
        ),
        (
            [sys.executable, "-m", "monitoring.sidecar"],
            {
                "MODEL_EXPORTER_UPSTREAM": f"http://127.0.0.1:{model}",
                "MODEL_EXPORTER_PORT": str(traffic),
                "MODEL_EXPORTER_METRICS_PORT": str(metrics),
                "MODEL_EXPORTER_REFERENCE": str(folder / "reference.json"),
                # A version of an older release has no page; an empty setting means no page.
                "MODEL_EXPORTER_PAGE": str(page) if page.exists() else "",
            },
        ),
    ]


@contextmanager
def serving(folder: Path, traffic: int, model: int, metrics: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Both processes, ready for requests; stopped afterwards.

    Raises:
        UserError: a port is taken, this project did not write the model, or a process ended or is not ready
            in time; its output said why.
    """
    for number in (traffic, model, metrics):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", number)) == 0:
                raise UserError(f"port {number} is taken; PORT, MODEL_PORT and METRICS_PORT choose others")
    saved.check(folder / "model")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command, needs in commands(folder, traffic, model, metrics):
            processes.append(subprocess.Popen(command, cwd=PROJECT, env={**os.environ, **needs}))
        _wait(f"http://127.0.0.1:{metrics}/ready", processes)
        yield processes
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait()


def _wait(url: str, processes: list[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if any(process.poll() is not None for process in processes):
            raise UserError("the model's server or the sidecar ended; what it printed above says why")
        try:
            DIRECT.open(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise UserError(f"{url} is not ready after {START_SECONDS:g} s")


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; exit code 1 with the reason if that fails."""
    folder = PROJECT / RELEASE
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        release = read_facts(folder)
        ports = (port(os.environ, "PORT", 8080), port(os.environ, "MODEL_PORT", 8081))
        metrics = port(os.environ, "METRICS_PORT", 9101)
        with serving(folder, *ports, metrics) as processes:
            print(
                f"serve: version {release.version} of {release.name}: http://127.0.0.1:{ports[0]}/invocations"
            )
            print(f"serve: metrics on http://127.0.0.1:{metrics}/metrics; Ctrl-C stops both", flush=True)
            while all(process.poll() is None for process in processes):
                time.sleep(0.5)
    except UserError as error:
        print(f"serve: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    print("serve: error: a process ended; what it printed above says why", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
