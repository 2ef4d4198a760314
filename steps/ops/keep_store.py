"""The tracking store between two runs of GitHub Actions: `make store-restore`, `make store-save`.

Without a server in `MLFLOW_TRACKING_URI` the store is kept as an asset of the release `tracking-store`. Every
save adds an asset and deletes old ones afterwards, so that a run that fails while it uploads loses nothing.
MLflow writes absolute artifact locations into its database; in the packed store they start with a
placeholder, which unpacking replaces by the folder of the checkout.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from steps.chain import pipeline, process, tracking
from steps.data import atomic
from steps.data.errors import UserError

DATABASE = "mlflow.db"
FOLDERS = ("mlruns", "mlartifacts")
_FOLDER = Path("build")
PLACEHOLDER = "/__checkout__"

# Every column in which MLflow keeps a file's location. Stores of other versions may lack some of them.
_LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}

log = logging.getLogger("steps.ops")

TAG = "tracking-store"
KEPT = 3
_NOTES = "MLflow's store: runs, digests, models; no rows of private data. Written and read by retrain.yml."

Gh = Callable[[Sequence[str]], subprocess.CompletedProcess[str]]


def pack(project: Path, archive: Path) -> int:
    """Pack the store of a checkout; returns the number of its runs. No process may write to it meanwhile.

    Raises:
        UserError: there is no store.
    """
    database = project / DATABASE
    if not database.exists():
        raise UserError(f"there is no {DATABASE} here: `make run` makes one")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / DATABASE
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        runs = _relocate(copy, str(project.resolve()), PLACEHOLDER)
        with atomic.writing(archive) as name, tarfile.open(name, "w:gz", compresslevel=6) as tar:
            tar.add(copy, DATABASE)
            for folder in FOLDERS:
                if (project / folder).is_dir():
                    tar.add(project / folder, folder)
    return runs


def unpack(archive: Path, project: Path) -> int:
    """Unpack a store into a checkout that has none; returns the number of its runs.

    Raises:
        UserError: there is a store already, or the archive is damaged or not a packed store.
    """
    present = [name for name in (DATABASE, *FOLDERS) if (project / name).exists()]
    if present:
        raise UserError(f"{', '.join(present)} would be overwritten: restore into a fresh checkout")
    with tempfile.TemporaryDirectory(dir=project, prefix=".restore-") as scratch:
        try:
            with tarfile.open(archive, "r:gz") as tar:
                tar.extractall(scratch, filter="data")
            runs = _relocate(Path(scratch) / DATABASE, PLACEHOLDER, str(project.resolve()))
        except (OSError, EOFError, tarfile.TarError, sqlite3.Error) as error:
            raise UserError(f"{archive.name} is damaged or no archive of a store: {error}") from error
        for name in (*FOLDERS, DATABASE):
            if (Path(scratch) / name).exists():
                shutil.move(Path(scratch) / name, project / name)
    return runs


def _relocate(database: Path, old: str, new: str) -> int:
    """Replace one folder by another in every artifact location; returns the number of runs."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection, connection:
        for table, columns in _LOCATIONS.items():
            present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            for column in columns:
                if column in present:
                    connection.execute(
                        # Table and column are literals of this module.
                        f"UPDATE {table} SET {column} = replace({column}, ?, ?) "  # noqa: S608
                        f"WHERE {column} LIKE ? || '/%' OR {column} LIKE 'file://' || ? || '/%'",
                        (old, new, old, old),
                    )
        return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])


def github(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """`gh ...`, GitHub's command line, which finds its token and repository in the environment."""
    try:
        return subprocess.run(["gh", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError("gh is not installed: https://cli.github.com") from None


def assets(gh: Gh) -> list[str] | None:
    """Names of the kept stores, oldest first; None if none was ever kept.

    Raises:
        UserError: GitHub does not answer. A store that cannot be read must not count as absent: the champion
            would be lost.
    """
    answer = gh(["release", "view", TAG, "--json", "assets"])
    if answer.returncode != 0:
        if "release not found" in answer.stderr:
            return None
        raise UserError(f"the kept store cannot be listed: {answer.stderr.strip()}")
    listed = [str(asset["name"]) for asset in json.loads(answer.stdout)["assets"]]
    return sorted(name for name in listed if name.startswith("store-"))


def restore(gh: Gh, project: Path) -> str:
    """Restore the newest kept store into a fresh checkout; returns a message."""
    stores = assets(gh)
    if not stores:
        return "no store is kept yet: the first one starts empty"
    folder = project / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _check(gh(["release", "download", TAG, "--pattern", stores[-1], "--dir", str(folder), "--clobber"]))
    runs = unpack(folder / stores[-1], project)
    return f"{stores[-1]}: {runs} runs"


def save(gh: Gh, project: Path, number: int, attempt: int) -> str:
    """Keep the store of a checkout under a run's number; returns a message."""
    name = f"store-{number:08d}-{attempt:03d}.tar.gz"
    path = project / _FOLDER / name
    runs = pack(project, path)
    stores = assets(gh)
    if stores is None:
        _check(
            gh(
                [
                    "release",
                    "create",
                    TAG,
                    "--title",
                    TAG,
                    "--notes",
                    _NOTES,
                    "--prerelease",
                    "--latest=false",
                ]
            )
        )
    _check(gh(["release", "upload", TAG, str(path), "--clobber"]))
    for old in sorted({*(stores or []), name})[:-KEPT]:
        _check(gh(["release", "delete-asset", TAG, old, "--yes"]))
    return f"{name}: {runs} runs, {path.stat().st_size / 1e6:.1f} MB"


def _check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != 0:
        raise UserError(f"gh failed: {done.stderr.strip()}")


def act(action: str, environment: Mapping[str, str], gh: Gh, project: Path) -> str:
    """Restore or save the store, unless a server keeps it; returns a message."""
    if tracking.is_remote(environment.get("MLFLOW_TRACKING_URI", "")):
        return "the tracking server keeps the store; nothing to do"
    if not environment.get("GH_TOKEN"):
        return "no GH_TOKEN: the store is not kept"
    if action == "restore":
        return restore(gh, project)
    number, attempt = (environment.get(f"GITHUB_RUN_{part}", "0") for part in ("NUMBER", "ATTEMPT"))
    return save(gh, project, int(number), int(attempt))


def main() -> int:
    """Restore or save; exit code 1 with the reason if that fails."""
    action = sys.argv[1] if len(sys.argv) == 2 else ""
    if action not in ("restore", "save"):
        print("usage: python -m steps.ops.keep_store restore|save", file=sys.stderr)
        return 2

    def work() -> int:
        log.info("store-%s: %s", action, act(action, os.environ, github, pipeline.PROJECT))
        return 0

    return process.command(f"store-{action}", work)


if __name__ == "__main__":
    sys.exit(main())
