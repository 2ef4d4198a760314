"""Scoring on a Spark cluster, for data too large for one machine.

Optional: `requirements-spark.txt` has the version that works with this project's pandas, and nothing else
needs it. Executors get this project's code from the session, and the model as the driver read it; files and
output must be on storage that every executor sees.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.data import atomic, files, readers, reading, validation
from steps.data.errors import UserError
from steps.data.files import REASON_COLUMN
from steps.models import families, saved, scoring
from steps.models.scoring import Beside, Scored

if TYPE_CHECKING:
    import pandas as pd

    from steps.data.files import LocalFile
    from steps.data.reading import Plan
    from steps.data.schema import Schema
    from steps.data.sources import Located
    from steps.data.validation import Checked
    from steps.models.families import Model

ROW = "row"


def check_target(out: str, base: Path) -> Path:
    """Check the folder to write before anything is read. Raises UserError."""
    if not out:
        raise UserError("name the folder to write: -P out=/full/path/risks")
    path = files.path_of(out, base)
    if path.exists():
        raise UserError(f"out={out} exists: with engine=spark the output is a new folder, so name another")
    if not path.parent.is_dir():
        raise UserError(f"out={out}: there is no folder {path.parent}. Relative paths start in {base}")
    return path


def score(
    spark: Any, located: Located, out: Path, model: Path, schema: Schema, *, beside: Beside = "identifiers"
) -> Scored:
    """Write a folder of Parquet files with the risk of every row; complete or absent.

    Each row has `file` and `row` (its number in the file, from 0), as a folder of files has no order. Raises
    UserError for input that is not Parquet: Spark gives row numbers for Parquet only.
    """
    from pyspark.sql import functions as f
    from pyspark.sql import types as t

    started = time.monotonic()
    loaded = saved.load(model)
    plans = [_plan(file, located, schema) for file in located.files]
    if any(plan != plans[0] for plan in plans):
        raise UserError(
            "the files name their columns in different ways: engine=spark reads files of one kind"
        )
    stored = plans[0].names([*schema.feature_names, located.target_column])
    rows = spark.read.option("mergeSchema", "true").parquet(*(str(file.path) for file in located.files))
    carried = [name for name in rows.columns if beside == "all" or name not in stored]
    scoring.refuse_name_clashes(carried, (scoring.RISK, scoring.REASON, scoring.FILE, ROW))
    rows = rows.select(
        f.col("_metadata.file_name").alias(scoring.FILE),
        f.col("_metadata.row_index").alias(ROW),
        *rows.columns,
    )
    kept_fields = [
        field
        for field in rows.schema.fields
        if field.name in (scoring.FILE, ROW) or beside == "all" or field.name not in stored
    ]
    added_fields = [
        t.StructField(scoring.RISK, t.DoubleType()),
        t.StructField(scoring.REASON, t.StringType()),
    ]
    names = [field.name for field in kept_fields]
    target, positive = located.target_column, located.positive
    broadcast_model = spark.sparkContext.broadcast(loaded)

    def score_batches(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            frame = reading.convert(batch.reset_index(drop=True), plans[0])
            checked = validation.check(frame, schema, target, positive, require_target=False)
            yield scored_batch(batch, checked, broadcast_model.value, schema.feature_names, names)

    scored = rows.mapInPandas(score_batches, t.StructType([*kept_fields, *added_fields]))
    with atomic.filling(out) as new_folder:
        scored.write.mode("overwrite").parquet(str(new_folder))
        written = spark.read.parquet(str(new_folder))
        total, broken, risk_sum = written.agg(
            f.count("*"), f.count(scoring.REASON), f.coalesce(f.sum(scoring.RISK), f.lit(0.0))
        ).first()
    return Scored(int(total), int(broken), float(risk_sum), time.monotonic() - started)


def _plan(file: LocalFile, located: Located, schema: Schema) -> Plan:
    if files.kind(file) != "parquet":
        raise UserError(
            f"{file.name} is not Parquet: engine=spark reads Parquet only (engine=local reads CSV)"
        )
    plan = reading.plan(file, schema, located.target_column)
    expected = [*schema.feature_names, located.target_column, *located.ignore]
    validation.check_columns(plan.renamed(readers.header(file)), schema.feature_names, expected, file.name)
    return plan


def scored_batch(
    batch: pd.DataFrame, checked: Checked, model: Model, features: Sequence[str], kept: list[str]
) -> pd.DataFrame:
    """The kept columns with each row's risk, or the reason why it has none; runs on executors."""
    import numpy as np
    import pandas as pd
    from threadpoolctl import threadpool_limits

    batch = batch.reset_index(drop=True)
    result = batch[kept].copy()
    risk = np.full(len(batch), None, dtype=object)
    if len(checked.valid):
        with threadpool_limits(1):
            risk[checked.valid.index] = families.predict_risk(model, checked.valid[list(features)])
    result[scoring.RISK] = risk
    reasons = pd.Series(None, index=batch.index, dtype=object)
    if len(checked.rejected):
        reasons[checked.rejected.index] = checked.rejected[REASON_COLUMN].astype(object)
    result[scoring.REASON] = reasons
    return result
