"""`make image`: two images of the exported release, the model's and its sidecar's, under one version tag.

The model's image comes from `mlflow models build-docker` and is packed again without files that serving does
not need; the sidecar's contains this version's `reference.json`. Labels describe both.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from monitoring.deploy.docker import docker, megabytes
from steps.chain.pipeline import PROJECT
from steps.data.errors import UserError
from steps.data.release_facts import PAGE, RELEASE, ReleaseFacts, project_version, read_facts
from steps.models import saved

IMAGES = PROJECT / "monitoring" / "deploy" / "images"


def names(release: ReleaseFacts) -> tuple[str, str]:
    """Names of a release's two images, model's and sidecar's.

    They contain the registered model's name, so a model of synthetic people always has its own image name.
    """
    return f"{release.name}:{release.version}", f"{release.name}-exporter:{release.version}"


def labels(release: ReleaseFacts, version: str, commit: str, created: str) -> dict[str, str]:
    """OCI labels of both images of a release.

    version: the project's; commit: of the checkout that builds; created: RFC 3339.
    """
    synthetic = release.synthetic
    trained_on = "synthetic people" if synthetic else f"{release.data_kind} data"
    return {
        "org.opencontainers.image.title": release.name,
        "org.opencontainers.image.description": f"Version {release.version}, trained on {trained_on}",
        "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "project.version": version,
        "model.name": release.name,
        "model.version": release.version,
        "model.run_id": release.run_id,
        "model.git_commit": release.git_commit,
        "model.data_digest": release.data_digest,
        "model.digest": release.model_digest,
        "model.family": release.family,
        "synthetic": str(synthetic).lower(),
        **{f"model.metric.{name}": f"{value:.4f}" for name, value in release.metrics.items()},
    }


def python_version(model: Path) -> str:
    """The Python version that a saved model requires, such as 3.11.7."""
    text = (model / "python_env.yaml").read_text(encoding="utf-8")
    match = re.search(r"^python:\s*['\"]?([\d.]+)", text, re.MULTILINE)
    if match is None:
        raise UserError(f"{model}/python_env.yaml names no Python version: export the release again")
    return match[1]


def head(project: Path) -> str:
    """The commit that is checked out, with `-dirty` if files differ; empty outside git."""
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changed = (
            subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}-dirty" if changed else commit


def build(folder: Path) -> dict[str, str]:
    """Build both images of the release in a folder; returns figures to print, by image name."""
    release = read_facts(folder)
    saved.check(folder / "model")
    model, exporter = names(release)
    stock = f"{release.name}-stock:{release.version}"
    python = python_version(folder / "model")
    base = f"python:{python}-slim"
    site = f"/usr/local/lib/python{'.'.join(python.split('.')[:2])}/site-packages"
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stamped = [
        part
        for name, value in labels(release, project_version(PROJECT), head(PROJECT), created).items()
        for part in ("--label", f"{name}={value}")
    ]
    started = time.monotonic()
    _build_stock(folder / "model", stock)
    stock_seconds = time.monotonic() - started
    docker(
        *("build", "--tag", model, *stamped, "--file", str(IMAGES / "model.Dockerfile")),
        *("--build-arg", f"STOCK={stock}", "--build-arg", f"BASE={base}", "--build-arg", f"SITE={site}"),
        str(IMAGES),
    )
    model_seconds = time.monotonic() - started
    sidecar = f"{release.name}-sidecar:{release.version}"
    monitoring = PROJECT / "monitoring"
    docker(
        *("build", "--tag", sidecar, "--build-arg", f"BASE={base}"),
        *("--file", str(IMAGES / "sidecar.Dockerfile"), str(monitoring)),
    )
    for name in ("reference.json", PAGE):
        if (folder / name).exists():
            (folder / name).chmod(0o644)
    docker(
        *("build", "--tag", exporter, *stamped, "--file", str(IMAGES / "release-sidecar.Dockerfile")),
        *("--build-arg", f"SIDECAR={sidecar}", str(folder)),
    )
    return {
        model: f"{megabytes(model)} MB (stock image {megabytes(stock)} MB), built in {model_seconds:.0f} s, "
        f"{stock_seconds:.0f} s of it mlflow models build-docker",
        exporter: f"{megabytes(exporter)} MB, built in {time.monotonic() - started - model_seconds:.0f} s",
    }


def _build_stock(model: Path, name: str) -> None:
    # Without `local` MLflow starts from Ubuntu and downloads its own Python.
    command = ["mlflow", "models", "build-docker", "--env-manager", "local", "--model-uri", str(model)]
    done = subprocess.run(
        [*command, "--name", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise UserError("mlflow models build-docker failed:\n" + "\n".join(done.stdout.splitlines()[-15:]))


def main() -> int:
    """Build; exit code 1 with the reason if that fails."""
    try:
        for name, figures in build(PROJECT / RELEASE).items():
            print(f"image: {name}  {figures}")
    except UserError as error:
        print(f"image: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
