"""`make stack`, `make deploy VERSION=`, and the second half of `make rollback`: which version Docker runs.

Model and sidecar move together. The new model starts beside the old one, under a network name that holds its
version; once it is healthy the sidecar is replaced, which finishes what it has and is away for the moment
that its successor needs to start; then the old model goes. Each sidecar knows only the model of its own
version, so no request ever meets one version's model with another's reference. A new model that does not
get healthy is taken away and nobody notices; a new sidecar that does not gives way to the old one. What runs
is written into `monitoring/deploy/.env`, where `docker compose` finds it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from monitoring.deploy import secret_files, stack
from monitoring.deploy.docker import (
    COMPOSE,
    containers,
    docker,
    have_image,
    require_compose,
    seconds_to_health,
)
from steps.chain.context import VERDICT
from steps.chain.pipeline import PROJECT
from steps.data import atomic
from steps.data.errors import UserError
from steps.data.release_facts import RELEASE, read_facts

SETTINGS = Path("monitoring") / "deploy" / ".env"
START_SECONDS = 240.0
RUNNING = ("MODEL_IMAGE", "EXPORTER_IMAGE", "VERSION")


class NotBackError(UserError):
    """The new pair did not get healthy, and neither could the old one be brought back."""


def pair(name: str, version: str, prefix: str = "") -> dict[str, str]:
    """Variables of compose.yaml for a version. prefix: a registry and owner that the images come from."""
    return {
        "MODEL_IMAGE": f"{prefix}{name}",
        "EXPORTER_IMAGE": f"{prefix}{name}-exporter",
        "VERSION": version,
    }


def remembered(text: str) -> dict[str, str]:
    """The pair that a settings file names; empty if it names none."""
    lines = (line.partition("=") for line in text.splitlines())
    found = {name: value for name, _, value in lines if name in RUNNING}
    return found if len(found) == len(RUNNING) else {}


def with_pair(text: str, wanted: Mapping[str, str]) -> str:
    """A settings file with this pair in it and everything else as it was."""
    kept = [line for line in text.splitlines() if line.partition("=")[0] not in RUNNING]
    return "\n".join([*kept, *(f"{name}={value}" for name, value in wanted.items())]) + "\n"


def fetch(wanted: Mapping[str, str]) -> None:
    """Have both images on this engine. Raises UserError naming the one that is nowhere."""
    for part in ("MODEL_IMAGE", "EXPORTER_IMAGE"):
        image = f"{wanted[part]}:{wanted['VERSION']}"
        try:
            have_image(image)
        except UserError as error:
            remedy = f"`make image ARGS='--version {wanted['VERSION']}'` builds it"
            raise UserError(f"there is no image {image} here or in a registry: {remedy}") from error


def switch(wanted: Mapping[str, str], before: Mapping[str, str]) -> tuple[float, set[str]]:
    """Put a pair in the place of the one that runs, `before`.

    Returns the seconds in which nothing answered, and the old models, which still run and serve nobody.

    Raises:
        UserError: the new model or its sidecar does not get healthy; the old pair serves.
        NotBackError: and the old pair could not be brought back.
    """
    new, old = {**os.environ, **wanted}, {**os.environ, **before}
    up = ("up", "--detach", "--no-deps")
    running: set[str] = containers("model", old) if before else set()
    beside = ("--no-recreate", "--scale", f"model={len(running) + 1}")
    try:
        docker(*COMPOSE, *up, *beside, "model", environment=new)
        # Not `--wait`: it would wait for the old model too, which may be too busy to call itself healthy.
        for container in containers("model", new) - running:
            seconds_to_health(container, START_SECONDS)
        started = time.monotonic()
        docker(*COMPOSE, *up, "--wait", "exporter", environment=new)
    except UserError as error:
        if before:
            try:
                for container in containers("model", new) - running:
                    docker("rm", "--force", container)
                docker(*COMPOSE, *up, "--wait", "exporter", environment=old)
            except UserError as second:
                raise NotBackError(
                    f"{error}\nNothing may serve now: version {before['VERSION']} could not be brought back: "
                    f"{second}\n`make deploy VERSION={before['VERSION']}` tries again"
                ) from None
        raise
    return time.monotonic() - started, running


def take_away(old_models: Iterable[str], version: str) -> list[str]:
    """Stop and remove old models; a warning for each that stays, since the new pair serves all the same."""
    warnings = []
    for container in old_models:
        try:
            docker("stop", container)
            docker("rm", container)
        except UserError as error:
            remedy = f"`docker rm --force {container}` takes it away"
            warnings.append(f"warning: version {version} still runs beside it: {error}\n{remedy}")
    return warnings


def deploy(wanted: Mapping[str, str], settings: Path) -> str:
    """Bring a pair up, or leave the one that runs; what to tell the person."""
    fetch(wanted)
    text = settings.read_text(encoding="utf-8") if settings.exists() else ""
    before = remembered(text)
    shown = f"version {wanted['VERSION']} of {wanted['MODEL_IMAGE']}"
    try:
        seconds, old = switch(wanted, before)
    except UserError as error:
        is_back = before and not isinstance(error, NotBackError)
        still = f"; version {before['VERSION']} still serves" if is_back else ""
        raise UserError(f"{shown} did not get healthy{still}. {error}") from None
    remember(settings, with_pair(text, wanted))
    said = f"{shown} serves" + (f"; the sidecar was replaced in {seconds:.1f} s" if before else "")
    return "\n".join([said, *take_away(old, before.get("VERSION", "")), *remove_old_images(wanted, before)])


def remove_old_images(wanted: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    """Remove the images of versions older than the two that are kept: what runs, and what ran before it.

    Images of newer versions stay. Returns what was removed, in words; an image that is in use stays silently.
    """
    kept = [int(pair["VERSION"]) for pair in (wanted, before) if pair and pair["VERSION"].isdigit()]
    if not kept or not before:
        return []
    repositories = {wanted["MODEL_IMAGE"], wanted["EXPORTER_IMAGE"]}
    repositories |= {f"{wanted['MODEL_IMAGE']}-{stage}" for stage in ("stock", "sidecar")}
    removed = []
    for image in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split():
        repository, _, tag = image.rpartition(":")
        if repository in repositories and tag.isdigit() and int(tag) < min(kept):
            try:
                docker("image", "rm", image)
            except UserError:
                continue
            removed.append(image)
    return [f"removed {len(removed)} images of older versions: {', '.join(removed)}"] if removed else []


def remember(settings: Path, text: str) -> None:
    """Write the settings file; it may hold secrets, so nobody else may read it."""
    atomic.write_text(settings, text, mode=0o600)


def chosen(action: str, version: str, environment: Mapping[str, str], settings: Path) -> dict[str, str]:
    """The pair that is meant.

    `champion` is that of the last verdict; else `version` of the model that runs, or of the one that was
    exported last. Without a version it is the one that runs, where the export is of the same model: coming up
    again must not undo a rollback. Images come from IMAGE_PREFIX, or without it from where those of the
    running pair did.
    """
    running = remembered(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    home, slash, name = running.get("MODEL_IMAGE", "").rpartition("/")
    prefix = environment.get("IMAGE_PREFIX", home + slash)
    if action == "champion":
        verdict = json.loads((PROJECT / VERDICT).read_text(encoding="utf-8"))
        return pair(verdict["model"], verdict["champion"], prefix)
    if version and running:
        return pair(name, version, prefix)
    told = read_facts(PROJECT / RELEASE)
    running_version = running["VERSION"] if name == told.name else ""
    return pair(told.name, version or running_version or told.version, prefix)


def running_name(settings: Path) -> str:
    """The registered model of the pair that runs; `true`, which `-P rollback=` takes too, if none does."""
    running = remembered(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    return running["MODEL_IMAGE"].rpartition("/")[2] if running else "true"


def prepare(settings: Path) -> None:
    """Have every secret as a file, and none in the settings or the environment."""
    folder = PROJECT / secret_files.FOLDER
    secret_files.refuse_variables(os.environ, secret_files.FOLDER)
    if settings.exists():
        text = settings.read_text(encoding="utf-8")
        remaining = secret_files.move_from_settings(text, folder)
        if remaining != text:
            remember(settings, remaining)
    for name in secret_files.make_missing(folder):
        print(f"{secret_files.FOLDER / name} holds a new password")


def act(action: str, version: str, settings: Path) -> str:
    """Bring the stack up, or move to a version or to the champion; what to tell the person."""
    if action == "deploy" and not version:
        raise UserError("say which: make deploy VERSION=3")
    require_compose()
    prepare(settings)
    wanted = chosen(action, version, os.environ, settings)
    if action != "stack":
        return deploy(wanted, settings)
    fetch(wanted)
    left_out = stack.bring_up({**os.environ, **wanted})
    text = settings.read_text(encoding="utf-8") if settings.exists() else ""
    remember(settings, with_pair(text, wanted))
    model = f"version {wanted['VERSION']} of {wanted['MODEL_IMAGE']}"
    return "\n".join([f"{model} is up", *stack.addresses({**os.environ, **wanted}), *left_out])


def main() -> int:
    """Deploy, or print the `name` of the model that runs; exit code 1 with the reason if that fails."""
    action, version = [*sys.argv[1:], "", ""][:2]
    settings = PROJECT / SETTINGS
    if action == "name":
        print(running_name(settings))
        return 0
    os.chdir(PROJECT)
    try:
        said = act(action, version, settings)
    except UserError as error:
        print(f"{action}: error: {error}", file=sys.stderr)
        return 1
    print(f"{action}: {said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
