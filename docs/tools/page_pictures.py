"""The README's pictures of MLflow's pages and of the reports, from the real store, through headless Chromium.

`make pictures` after `make run`; what `-e explore` and `-e drift` found last is taken too. Each page is
opened in a real browser at a fixed size; nothing is drawn by hand.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from steps.data.schema_file import load
from steps.ops import release

if TYPE_CHECKING:
    from mlflow.entities import Run

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "pictures"
# Width of the panel that MLflow opens on a first visit, in pixels.
_ASSISTANT = 416


def photograph(url: str, file: Path, width: int, height: int, *, without_right: int = 0) -> None:
    """A PNG of a page as Chromium shows it once its scripts have settled, less a strip at the right.

    Raises:
        SystemExit: Chromium is not installed or made no picture.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("pictures: chromium is not installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            "--virtual-time-budget=20000",
            f"--screenshot={file}",
            url,
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=240)
    if not file.exists():
        raise SystemExit(f"pictures: chromium made no picture of {url}")
    if without_right:
        with Image.open(file) as picture:
            picture.crop((0, 0, width - without_right, height)).save(file, optimize=True)
    print(file.relative_to(ROOT))


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
    """Photograph the experiment, the chain's runs, artifacts, the registered model, and the reports."""
    import mlflow

    uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{ROOT / 'mlflow.db'}")
    client = mlflow.MlflowClient(uri, uri)
    name = release.chosen_name(client, load(ROOT / "data" / "brfss2015.yaml"), ROOT)
    champion = client.get_model_version_by_alias(name, "champion")
    run = client.get_run(champion.run_id)
    experiment = run.info.experiment_id
    evaluate = client.get_run(champion.tags["evaluate_run_id"])
    FOLDER.mkdir(parents=True, exist_ok=True)
    with mlflow_ui(uri) as address:
        pages = {
            "mlflow-chain": f"/#/experiments/{experiment}/runs/{run.data.tags['mlflow.parentRunId']}",
            "mlflow-runs": f"/#/experiments/{experiment}/runs",
            "mlflow-tune": f"/#/experiments/{experiment}/runs/{run.info.run_id}",
            "mlflow-artifacts": f"/#/experiments/{experiment}/runs/{evaluate.info.run_id}/artifacts",
            "mlflow-model": f"/#/models/{champion.name}",
        }
        for name, page in pages.items():
            photograph(address + page, FOLDER / f"{name}.png", 1600, 820, without_right=_ASSISTANT)
    _photograph_report(evaluate, "report")
    for step in ("explore", "drift"):
        finished = f"tags.step = '{step}' and status = 'FINISHED'"
        found = client.search_runs([experiment], finished, max_results=1)
        if found:
            _photograph_report(found[0], step)
        else:
            print(f"pictures: no picture of {step}: `mlflow run . -e {step}` has not run yet")
    return 0


def _photograph_report(run: Run, name: str) -> None:
    report = Path(str(run.info.artifact_uri).removeprefix("file://")) / f"{name}.html"
    photograph(report.resolve().as_uri(), FOLDER / f"{name}.png", 1100, 1500)


if __name__ == "__main__":
    sys.exit(main())
