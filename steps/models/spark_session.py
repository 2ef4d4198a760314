"""A Spark session whose executors know this project's code; `tune` and `score` use it with engine=spark."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steps.data.errors import UserError

_PACKAGES = ("steps", "monitoring")


@contextlib.contextmanager
def session(master: str, name: str, project: Path) -> Iterator[Any]:
    """A Spark session on `master` (spark-submit's where empty), ended with the block.

    Raises UserError where Spark or Java is not installed, or the master does not answer.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise UserError(
            "engine=spark needs PySpark: `uv pip install -r requirements-spark.txt`, and Java 17. "
            "engine=local needs neither"
        ) from None
    if not os.environ.get("JAVA_HOME") and shutil.which("java") is None:
        raise UserError("engine=spark needs Java 17: install it, or set JAVA_HOME")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.appName(f"{project.name} {name}")
    if master:
        builder = builder.master(master)
    for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # one task per core, so one thread per task
        builder = builder.config(f"spark.executorEnv.{key}", "1")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            spark = builder.config("spark.ui.showConsoleProgress", "true").getOrCreate()
        except (PySparkException, RuntimeError, OSError) as error:
            raise UserError(f"Spark does not start on {master or 'its default master'}: {error}") from error
        try:
            spark.sparkContext.setLogLevel("ERROR")
            spark.sparkContext.addPyFile(str(_packed(project, Path(scratch))))
            yield spark
        finally:
            spark.stop()


def _packed(project: Path, folder: Path) -> Path:
    """Pack the project's packages into one zip file for the executors."""
    archive = folder / "project-code.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for package in _PACKAGES:
            for path in sorted((project / package).rglob("*.py")):
                packed.write(path, path.relative_to(project).as_posix())
    return archive
