"""A local tracking store as one file, so that it can be kept and put into another checkout.

Where no MLflow server is at hand, GitHub Actions keeps this file as a release asset, so that the next run
knows the champion. MLflow writes absolute artifact locations into its database; in the file they stand below
a placeholder, and restoring puts the folder of the checkout in its place.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from steps.chain import pipeline
from steps.data.errors import UserError

DATABASE = "mlflow.db"
FOLDERS = ("mlruns", "mlartifacts")
ARCHIVE = Path("build") / "store.tar.gz"
PLACEHOLDER = "/__checkout__"

# Every column in which MLflow keeps the place of a file. A store without one of them is older or newer.
_PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}


def save(project: Path, archive: Path) -> int:
    """Pack the store of a checkout; returns the number of its runs. Nothing may be writing to it.

    Raises:
        UserError: there is no store.
    """
    database = project / DATABASE
    if not database.exists():
        raise UserError(f"there is no {DATABASE} here: `make run` makes one")
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(archive.name + ".partial")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / DATABASE
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        runs = _relocate(copy, str(project.resolve()), PLACEHOLDER)
        with tarfile.open(partial, "w:gz", compresslevel=6) as tar:
            tar.add(copy, DATABASE)
            for folder in FOLDERS:
                if (project / folder).is_dir():
                    tar.add(project / folder, folder)
    partial.replace(archive)
    return runs


def restore(archive: Path, project: Path) -> int:
    """Unpack a store into a checkout that has none; returns the number of its runs.

    Raises:
        UserError: there is a store already, or the archive is damaged or not one of ours.
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
    """Put one folder in another's place in every artifact location; the number of runs in the database."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection, connection:
        for table, columns in _PLACES.items():
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


def main(argv: Sequence[str] | None = None) -> int:
    """Save or restore; exit code 1 with the reason if that fails."""
    parser = argparse.ArgumentParser(prog="archive", description=__doc__)
    parser.add_argument("action", choices=("save", "restore"))
    parser.add_argument("--archive", type=Path, default=pipeline.PROJECT / ARCHIVE)
    given = parser.parse_args(argv)
    try:
        if given.action == "save":
            runs = save(pipeline.PROJECT, given.archive)
        else:
            runs = restore(given.archive, pipeline.PROJECT)
    except UserError as error:
        print(f"archive: error: {error}", file=sys.stderr)
        return 1
    size = given.archive.stat().st_size / 1e6
    print(f"archive: {given.action}d {runs} runs, {given.archive.name}, {size:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
