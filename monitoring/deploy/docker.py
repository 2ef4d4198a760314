"""The Docker engine, through its command line."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from steps.data.errors import UserError


def docker(*arguments: str, environment: Mapping[str, str] | None = None, also_errors: bool = False) -> str:
    """Output of `docker ...`, with what went to its other stream if asked.

    Raises UserError with the end of what it said if it fails.
    """
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, check=False, env=environment
        )
    except FileNotFoundError:
        raise UserError("docker is not installed: https://docs.docker.com/engine/install/") from None
    if done.returncode != 0:
        said = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-15:])
        raise UserError(f"docker {' '.join(arguments[:4])} failed:\n{said}")
    return (done.stdout + (done.stderr if also_errors else "")).strip()


def has_image(reference: str) -> bool:
    """Whether the engine holds an image under this name and tag."""
    try:
        docker("image", "inspect", reference)
    except UserError as error:
        if "No such image" in str(error):
            return False
        raise
    return True


def megabytes(reference: str) -> int:
    """An image's size, unpacked."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", reference)) // 1_000_000
