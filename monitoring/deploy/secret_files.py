"""The stack's secrets: one file each in `monitoring/deploy/secrets`, mounted where it is needed.

The engine shows a container's variables to all its users, and every process inherits them; neither holds for
a file. Only the owner may enter the folder. The files in it are readable by all, since each container has its
own user and the engine mounts a file with its present mode; without access to the folder they are out of
reach.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from steps.data.errors import UserError

FOLDER = Path("monitoring") / "deploy" / "secrets"

# The first content of each file. None: a random password. The addresses are valid, so that Grafana starts,
# but lead nowhere.
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
    """The environment variable that held this secret in earlier versions."""
    return name.upper()


def refuse_variables(environment: Mapping[str, str], folder: Path) -> None:
    """Raise UserError if a secret is set as an environment variable, which nothing reads."""
    variables = [name for name in PLACEHOLDERS if environment.get(variable(name))]
    if variables:
        files = ", ".join(f"{variable(name)} into {folder / name}" for name in variables)
        raise UserError(f"secrets are files, not variables: write {files}")


def move_from_settings(text: str, folder: Path) -> str:
    """Move secrets from the text of a settings file (`.env`) into their files; returns the text without them.

    A stack of an earlier version kept its secrets there.
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
    """Create the folder and every missing file; returns the names of the files with a random password."""
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
