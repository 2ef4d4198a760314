"""The sidecar's image."""

import ast
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, require
from tests.made_up.sidecars import ask, eventually, free_port, people, predict

FOLDER = ROOT / "monitoring" / "sidecar"
IMAGES = ROOT / "monitoring" / "deploy" / "images"
MOST_BYTES = 120_000_000


def pins(path: Path) -> dict[str, str]:
    """Package and version of each pinned line."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_image_has_the_runtimes_versions() -> None:
    """What is tested here is what runs there; and nothing of MLflow or scikit-learn."""
    image, runtime = pins(IMAGES / "sidecar-requirements.txt"), pins(ROOT / "requirements.lock")
    assert image.items() <= runtime.items()
    assert not {"mlflow", "scikit-learn", "pandas"} & image.keys()


def test_the_exporter_imports_only_what_its_image_holds() -> None:
    """Nothing of the steps, and no library beyond its requirements."""
    files = [ROOT / "monitoring" / "reference.py", *FOLDER.glob("*.py")]
    imported = {
        name
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    ours = {name for name in imported if name.startswith("monitoring.")}
    assert {".".join(name.split(".")[:2]) for name in ours} == {"monitoring.reference", "monitoring.sidecar"}
    packages = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert packages == {"flask", "monitoring", "numpy", "prometheus_client", "waitress", "werkzeug"}


def docker(*arguments: str) -> str:
    """Output of a docker command that has to work."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    require("docker")
    name = f"exporter-test-{uuid.uuid4().hex[:12]}"
    docker("build", "-q", "-t", name, "-f", str(IMAGES / "sidecar.Dockerfile"), str(FOLDER.parent))
    yield name
    docker("rmi", "-f", name)


@pytest.mark.real
def test_the_image_is_small(image: str) -> None:
    """Bytes above its base."""
    sizes = [int(docker("image", "inspect", "-f", "{{.Size}}", name)) for name in (image, "python:3.11-slim")]
    assert sizes[0] - sizes[1] < MOST_BYTES


@pytest.mark.real
def test_the_image_serves_read_only_as_nobody_and_stops_cleanly(
    image: str, scripted: object, tmp_path: Path, document: dict[str, object]
) -> None:
    """With no right at all, a health check that turns healthy, and exit code 0."""
    container = scripted(predict)  # type: ignore[operator]
    port, inner = free_port(), free_port()
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps(document), encoding="utf-8")
    tmp_path.chmod(0o755)
    settings = {
        "UPSTREAM": f"http://127.0.0.1:{container.port}",
        "HOST": "127.0.0.1",
        "PORT": port,
        "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": inner,
        "REFERENCE": "/reference.json",
    }
    given = [part for name, value in settings.items() for part in ("-e", f"MODEL_EXPORTER_{name}={value}")]
    hardened = [
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--user",
        "12345:12345",
    ]
    mounted = ["--network", "host", "-v", f"{reference}:/reference.json:ro"]
    running = docker("run", "-d", *hardened, *mounted, *given, image)
    try:
        health = "{{.State.Health.Status}}"
        eventually(lambda: docker("inspect", "-f", health, running) == "healthy", "the image is healthy")
        assert ask(port, body=people(20)).status == 200
        docker("stop", running)
        assert docker("inspect", "-f", "{{.State.ExitCode}}", running) == "0"
    finally:
        docker("rm", "-f", running)
