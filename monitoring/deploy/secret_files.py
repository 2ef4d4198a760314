"""The stack's secrets: one file each in `monitoring/deploy/secrets`, mounted where it is needed.

A variable of a container is shown to everybody who may ask the engine, and every process inherits it; a file
is not. The folder is its owner's alone. The files in it may be read by all, since each container has a user
of its own and the engine mounts the file with the mode that it has; who cannot enter the folder cannot reach
them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from steps.data.errors import UserError

FOLDER = Path("monitoring") / "deploy" / "secrets"

# What a file holds until somebody writes into it. None: a password is made up. The addresses are valid, so
# that Grafana starts, and reach nobody.
PLACEHOLDERS: Mapping[str, str | None] = {
    "feedback_keys": "",
    "bearer_token": "",
    "feedback_bearer_token": "",
    "grafana_admin_password": None,
    "smtp_password": "",
    "alert_slack_url": "http://127.0.0.1:9/unset",
    "alert_webhook_url": "grafana://noop",
    "alert_watchdog_url": "grafana://noop",
    "retrain_token": "unset",
}


def variable(name: str) -> str:
    """The variable that held this secret before it was a file."""
    return name.upper()


def refuse_variables(environment: Mapping[str, str], folder: Path) -> None:
    """Raise UserError if a secret is given as a variable, which nothing reads."""
    given = [name for name in PLACEHOLDERS if environment.get(variable(name))]
    if given:
        files = ", ".join(f"{variable(name)} into {folder / name}" for name in given)
        raise UserError(f"secrets are files, not variables: write {files}")


def move_from_settings(text: str, folder: Path) -> str:
    """Write secrets that a settings file (`.env`) still holds into their files; the text without them.

    A stack of an earlier version kept them there.
    """
    lines = []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        name = key.strip().lower()
        if name not in PLACEHOLDERS:
            lines.append(line)
        elif value.strip():
            _write(folder / name, value.strip().strip("'\""))
            if name == "alert_slack_url":
                lines.append("ALERT_SLACK=on")
    return "".join(f"{line}\n" for line in lines)


def make_missing(folder: Path) -> list[str]:
    """Create the folder and every file that is missing; the names of those that were made up."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    made_up = []
    for name, placeholder in PLACEHOLDERS.items():
        path = folder / name
        if path.exists():
            path.chmod(0o644)
            continue
        _write(path, secrets.token_urlsafe(18) if placeholder is None else placeholder)
        if placeholder is None:
            made_up.append(name)
    return made_up


def _write(path: Path, secret: str) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(f"{secret}\n" if secret else "", encoding="utf-8")
    path.chmod(0o644)
