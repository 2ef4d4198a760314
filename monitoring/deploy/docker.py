"""The Docker engine, through its command line."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from steps.data.errors import UserError

COMPOSE = ("compose", "--file", "monitoring/deploy/compose.yaml")


@dataclass(frozen=True)
class Service:
    """A service of compose.yaml, ready to start; a service with profiles is optional."""

    name: str
    image: str
    profiles: tuple[str, ...]


def docker(*arguments: str, environment: Mapping[str, str] | None = None, also_errors: bool = False) -> str:
    """Output of `docker ...`, with its error stream too if `also_errors`.

    Raises UserError with the end of its output if it fails.
    """
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, check=False, env=environment
        )
    except FileNotFoundError:
        raise UserError("docker is not installed: https://docs.docker.com/engine/install/") from None
    if done.returncode != 0:
        output = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-15:])
        raise UserError(f"docker {' '.join(arguments[:4])} failed:\n{output}")
    return (done.stdout + (done.stderr if also_errors else "")).strip()


def require_compose() -> None:
    """Raise UserError if `docker compose`, version 2, is missing: it is a separate plugin."""
    try:
        docker("compose", "version")
    except UserError as error:
        if "not installed" in str(error):
            raise
        raise UserError(
            "`docker compose` (version 2) is missing, and `docker-compose` with a hyphen will not do."
            " Debian, Ubuntu: apt-get install docker-compose-plugin;"
            " others: https://docs.docker.com/compose/install/linux/"
        ) from None


def services(environment: Mapping[str, str]) -> list[Service]:
    """All services of compose.yaml, of all profiles, with their variables filled in."""
    text = docker(*COMPOSE, "--profile", "*", "config", "--format", "json", environment=environment)
    return [
        Service(name, service["image"], tuple(service.get("profiles", ())))
        for name, service in json.loads(text)["services"].items()
    ]


def containers(service: str, environment: Mapping[str, str]) -> set[str]:
    """Ids of the running containers of a service."""
    return set(docker(*COMPOSE, "ps", "--quiet", service, environment=environment).split())


def has_image(reference: str) -> bool:
    """Whether the engine has an image of this name and tag."""
    try:
        docker("image", "inspect", reference)
    except UserError as error:
        if "No such image" in str(error):
            return False
        raise
    return True


def have_image(reference: str) -> None:
    """Pull an image unless the engine has it. Raises UserError with the registry's answer if that fails."""
    if not has_image(reference):
        docker("pull", "--quiet", reference)


def seconds_to_health(container: str, limit: float) -> float:
    """Wait until a container is healthy; returns the seconds. Raises UserError past the limit."""
    started = time.monotonic()
    while time.monotonic() - started < limit:
        state = json.loads(docker("inspect", "--format", "{{json .State}}", container))
        if state["Health"]["Status"] == "healthy":
            return time.monotonic() - started
        if not state["Running"]:
            break
        time.sleep(0.1)
    raise UserError(f"a container is not healthy after {limit:g} s; its log ends\n{last_lines(container)}")


def last_lines(container: str) -> str:
    """The end of a container's log."""
    return "\n".join(docker("logs", "--tail", "15", container, also_errors=True).splitlines()[-15:])


def megabytes(reference: str) -> int:
    """An image's size, unpacked."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", reference)) // 1_000_000
