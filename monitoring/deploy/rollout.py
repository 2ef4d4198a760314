"""`make stack`, `make deploy VERSION=`, and the second half of `make rollback`: choose the running version.

Model and sidecar are replaced together. The new model starts beside the old model, under a network name that
contains its version. Once it is healthy the sidecar is replaced: the old sidecar completes its requests, and
nothing answers until the new sidecar has started. Then the old model is removed. Each sidecar knows only the
model of its own version, so no request meets one version's model with another version's reference. A new
model that does not become healthy is removed without an interruption. If a new sidecar does not become
healthy, the old sidecar starts again. `monitoring/deploy/.env` records the running version for
`docker compose`.
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
    """The new pair did not become healthy, and the old pair could not be restored."""


def pair(name: str, version: str, prefix: str = "") -> dict[str, str]:
    """Variables of compose.yaml for a version. prefix: registry and owner of the images."""
    return {
        "MODEL_IMAGE": f"{prefix}{name}",
        "EXPORTER_IMAGE": f"{prefix}{name}-exporter",
        "VERSION": version,
    }


def remembered(text: str) -> dict[str, str]:
    """The pair in a settings file; empty if there is none."""
    lines = (line.partition("=") for line in text.splitlines())
    variables = {name: value for name, _, value in lines if name in RUNNING}
    return variables if len(variables) == len(RUNNING) else {}


def with_pair(text: str, new_pair: Mapping[str, str]) -> str:
    """The text of a settings file with its pair replaced."""
    other_lines = [line for line in text.splitlines() if line.partition("=")[0] not in RUNNING]
    return "\n".join([*other_lines, *(f"{name}={value}" for name, value in new_pair.items())]) + "\n"


def fetch(new_pair: Mapping[str, str]) -> None:
    """Have both images on this engine. Raises UserError naming an image that cannot be found."""
    for part in ("MODEL_IMAGE", "EXPORTER_IMAGE"):
        image = f"{new_pair[part]}:{new_pair['VERSION']}"
        try:
            have_image(image)
        except UserError as error:
            remedy = f"`make image ARGS='--version {new_pair['VERSION']}'` builds it"
            raise UserError(f"there is no image {image} here or in a registry: {remedy}") from error


def switch(new_pair: Mapping[str, str], before: Mapping[str, str]) -> tuple[float, set[str]]:
    """Replace the running pair `before`.

    Returns the seconds in which nothing answered, and the old models, which still run but get no requests.

    Raises:
        UserError: the new model or its sidecar does not become healthy; the old pair serves.
        NotBackError: the same, and the old pair could not be restored.
    """
    new, old = {**os.environ, **new_pair}, {**os.environ, **before}
    up = ("up", "--detach", "--no-deps")
    running: set[str] = containers("model", old) if before else set()
    beside = ("--no-recreate", "--scale", f"model={len(running) + 1}")
    try:
        docker(*COMPOSE, *up, *beside, "model", environment=new)
        # `--wait` would wait for the old model too, which may be too busy to report itself healthy.
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
    """Stop and remove old models; returns a warning for each failure, since the new pair serves anyway."""
    warnings = []
    for container in old_models:
        try:
            docker("stop", container)
            docker("rm", container)
        except UserError as error:
            remedy = f"`docker rm --force {container}` takes it away"
            warnings.append(f"warning: version {version} still runs beside it: {error}\n{remedy}")
    return warnings


def deploy(new_pair: Mapping[str, str], settings: Path) -> str:
    """Deploy a pair, or keep the running pair if that fails; returns a message for the user."""
    fetch(new_pair)
    text = settings.read_text(encoding="utf-8") if settings.exists() else ""
    before = remembered(text)
    label = f"version {new_pair['VERSION']} of {new_pair['MODEL_IMAGE']}"
    try:
        seconds, old = switch(new_pair, before)
    except UserError as error:
        is_back = before and not isinstance(error, NotBackError)
        still = f"; version {before['VERSION']} still serves" if is_back else ""
        raise UserError(f"{label} did not get healthy{still}. {error}") from None
    remember(settings, with_pair(text, new_pair))
    message = f"{label} serves" + (f"; the sidecar was replaced in {seconds:.1f} s" if before else "")
    return "\n".join(
        [message, *take_away(old, before.get("VERSION", "")), *remove_old_images(new_pair, before)]
    )


def remove_old_images(new_pair: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    """Remove the images of versions that are older than the running pair and the pair before it.

    Images of newer versions stay, and so do images in use. Returns a line about the removed images.
    """
    kept_versions = [
        int(pair["VERSION"]) for pair in (new_pair, before) if pair and pair["VERSION"].isdigit()
    ]
    if not kept_versions or not before:
        return []
    repositories = {new_pair["MODEL_IMAGE"], new_pair["EXPORTER_IMAGE"]}
    repositories |= {f"{new_pair['MODEL_IMAGE']}-{stage}" for stage in ("stock", "sidecar")}
    removed = []
    for image in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split():
        repository, _, tag = image.rpartition(":")
        if repository in repositories and tag.isdigit() and int(tag) < min(kept_versions):
            try:
                docker("image", "rm", image)
            except UserError:
                continue
            removed.append(image)
    return [f"removed {len(removed)} images of older versions: {', '.join(removed)}"] if removed else []


def remember(settings: Path, text: str) -> None:
    """Write the settings file, readable by its owner only, since it may hold secrets."""
    atomic.write_text(settings, text, mode=0o600)


def chosen(action: str, version: str, environment: Mapping[str, str], settings: Path) -> dict[str, str]:
    """Choose the pair to deploy.

    The action `champion` chooses the champion of the last verdict. Otherwise it is `version` of the running
    model, or of the exported model if none runs. Without a version it is the running version, provided that
    the export is of the same model: a restart must not undo a rollback. Images come from IMAGE_PREFIX, or
    without it from the registry of the running pair.
    """
    running = remembered(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    registry, slash, name = running.get("MODEL_IMAGE", "").rpartition("/")
    prefix = environment.get("IMAGE_PREFIX", registry + slash)
    if action == "champion":
        verdict = json.loads((PROJECT / VERDICT).read_text(encoding="utf-8"))
        return pair(verdict["model"], verdict["champion"], prefix)
    if version and running:
        return pair(name, version, prefix)
    exported = read_facts(PROJECT / RELEASE)
    running_version = running["VERSION"] if name == exported.name else ""
    return pair(exported.name, version or running_version or exported.version, prefix)


def running_name(settings: Path) -> str:
    """The registered model of the running pair; `true`, which `-P rollback=` takes too, if none runs."""
    running = remembered(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    return running["MODEL_IMAGE"].rpartition("/")[2] if running else "true"


def prepare(settings: Path) -> None:
    """Move secrets from the settings into files, create missing files, refuse environment variables."""
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
    """Start the stack, or deploy a version or the champion; returns a message for the user."""
    if action == "deploy" and not version:
        raise UserError("say which: make deploy VERSION=3")
    require_compose()
    prepare(settings)
    new_pair = chosen(action, version, os.environ, settings)
    if action != "stack":
        return deploy(new_pair, settings)
    fetch(new_pair)
    left_out = stack.bring_up({**os.environ, **new_pair})
    text = settings.read_text(encoding="utf-8") if settings.exists() else ""
    remember(settings, with_pair(text, new_pair))
    model = f"version {new_pair['VERSION']} of {new_pair['MODEL_IMAGE']}"
    return "\n".join([f"{model} is up", *stack.addresses({**os.environ, **new_pair}), *left_out])


def main() -> int:
    """Deploy, or print the `name` of the running model; exit code 1 with the reason if that fails."""
    action, version = [*sys.argv[1:], "", ""][:2]
    settings = PROJECT / SETTINGS
    if action == "name":
        print(running_name(settings))
        return 0
    os.chdir(PROJECT)
    try:
        message = act(action, version, settings)
    except UserError as error:
        print(f"{action}: error: {error}", file=sys.stderr)
        return 1
    print(f"{action}: {message}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
