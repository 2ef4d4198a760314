"""The README's pictures of MLflow's pages and of the reports, from the real store, through headless Chromium.

`make pictures` after `make run`; it includes the last reports of `-e explore` and `-e drift`. Each page is
opened in a real browser at a fixed size; nothing is drawn by hand.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from docs.tools.browser import OUT, Browser, Page
from steps.data.errors import UserError
from steps.data.schema_file import load
from steps.ops import release

if TYPE_CHECKING:
    from mlflow.entities import Run

ROOT = Path(__file__).resolve().parents[2]
# Width of the panel that MLflow opens on a first visit, in pixels.
_ASSISTANT = 416


@contextlib.contextmanager
def mlflow_ui(tracking_uri: str) -> Iterator[str]:
    """Address of an `mlflow ui` on loopback that shows a store, ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/health", timeout=5).close()  # noqa: S310 (loopback)
                break
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def main() -> int:
    """Take the pictures and name the files; 1 with one message if that cannot be done."""
    try:
        _take_all()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _take_all() -> None:
    """The experiment, the chain's runs, artifacts, the registered model, and the reports."""
    import mlflow

    uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{ROOT / 'mlflow.db'}")
    client = mlflow.MlflowClient(uri, uri)
    name = release.chosen_name(client, load(ROOT / "data" / "brfss2015.yaml"), ROOT)
    champion = client.get_model_version_by_alias(name, "champion")
    run = client.get_run(champion.run_id)
    experiment = run.info.experiment_id
    evaluate = client.get_run(champion.tags["evaluate_run_id"])
    with mlflow_ui(uri) as address, Browser() as browser:
        pages = {
            "mlflow-chain": f"/#/experiments/{experiment}/runs/{run.data.tags['mlflow.parentRunId']}",
            "mlflow-runs": f"/#/experiments/{experiment}/runs",
            "mlflow-tune": f"/#/experiments/{experiment}/runs/{run.info.run_id}",
            "mlflow-artifacts": f"/#/experiments/{experiment}/runs/{evaluate.info.run_id}/artifacts",
            "mlflow-model": f"/#/models/{champion.name}",
        }
        for name, path in pages.items():
            _take(browser, Page(name, address + path, 1600, 820, without_right=_ASSISTANT))
        _take_report(browser, evaluate, "report")
        for step in ("explore", "drift"):
            finished = f"tags.step = '{step}' and status = 'FINISHED'"
            runs = client.search_runs([experiment], finished, max_results=1)
            if runs:
                _take_report(browser, runs[0], step)
            else:
                print(f"pictures: no picture of {step}: `mlflow run . -e {step}` has not run yet")


def _take(browser: Browser, page: Page) -> None:
    print(browser.save(page, OUT).relative_to(ROOT))


def _take_report(browser: Browser, run: Run, name: str) -> None:
    report = Path(str(run.info.artifact_uri).removeprefix("file://")) / f"{name}.html"
    _take(browser, Page(name, report.resolve().as_uri(), 1100, 1500))


if __name__ == "__main__":
    sys.exit(main())
