"""Risk for every row of files of any size: read, checked, scored and written in chunks, in order.

Chunks are scored by as many threads as there are cores, one OpenMP thread each, while the calling thread
reads and writes; only a few chunks are in memory at once. A row that breaks the schema is written in its
place, with an empty risk and the reason.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from steps.data import atomic, files, readers, reading, sources, validation
from steps.data.errors import UserError
from steps.data.files import REASON_COLUMN
from steps.data.schema import LevelledColumn
from steps.models.reasons import Explained, Explainer

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from monitoring.reference import Reference
    from steps.data.files import LocalFile
    from steps.data.schema import Code, Schema
    from steps.data.sources import Located
    from steps.data.validation import Problem

Predict = Callable[["pd.DataFrame"], "NDArray[np.float64]"]
Beside = Literal["identifiers", "all"]

RISK, REASON, FILE = "risk", "reason", "file"
FORMATS = (".parquet", ".csv", ".csv.gz")
CHUNK_ROWS = 65_536


@dataclass(frozen=True)
class Request:
    """Options of a scoring.

    `beside`: the input columns to write beside each risk, those that are neither feature nor outcome, or all.
    `max_rejected`: the largest share of rows without a risk. `unseen`: levels by column whose rows are
    counted, from `levels_never_seen`.
    """

    beside: Beside = "identifiers"
    max_rejected: float = 1.0
    unseen: Mapping[str, tuple[Code, ...]] = field(default_factory=dict)


@dataclass
class Scored:
    """The result of a scoring: `rows` were written, `broken` of them without a risk.

    `unseen` counts, by column, the rows with a risk that have a level of `Request.unseen`.
    """

    rows: int = 0
    broken: int = 0
    risk_sum: float = 0.0
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    unseen: Counter[str] = field(default_factory=Counter)


def levels_never_seen(reference: Reference, schema: Schema) -> dict[str, tuple[Code, ...]]:
    """Levels of the schema that no training row of a model had, by column, where there are any."""
    never_seen: dict[str, tuple[Code, ...]] = {}
    trained = {feature.name: feature for feature in reference.features}
    for column in schema.columns:
        if isinstance(column, LevelledColumn) and column.name in trained:
            feature = trained[column.name]
            trained_levels = {
                level for level, rows in zip(feature.levels, feature.counts, strict=True) if rows
            }
            levels = tuple(
                code for code in column.codes if code not in trained_levels and code not in column.missing
            )
            never_seen |= {column.name: levels} if levels else {}
    return never_seen


def check_target(out: str, base: Path, located: Located | None = None) -> Path:
    """Check the file to write before anything is read. Raises UserError that says what to name instead."""
    if not out:
        raise UserError(
            f"name the file to write: -P out=/full/path/risks.parquet (or {' or '.join(FORMATS[1:])})"
        )
    path = files.path_of(out, base)
    if not path.name.endswith(FORMATS):
        raise UserError(f"out={out}: the name should end in {', '.join(FORMATS)}")
    if path.is_dir():
        raise UserError(f"out={out} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"out={out}: there is no folder {path.parent}. Relative paths start in {base}")
    if located is not None and any(path.resolve() == file.path.resolve() for file in located.files):
        raise UserError(f"out={out} is one of the files to score: name another")
    return path


def score(
    located: Located,
    out: Path,
    predict: Predict | Explainer,
    schema: Schema,
    request: Request | None = None,
    *,
    workers: int = 1,
    rows: int = CHUNK_ROWS,
) -> Scored:
    """Write the risk of every row to `out`, whole or not at all.

    `predict` takes valid features and gives risks, an Explainer their reasons too; several threads call it at
    once. Raises UserError, and leaves no file, where a column is missing, a file is damaged, the disk is
    full, or more than `request.max_rejected` of the rows would get no risk.
    """
    started = time.monotonic()
    request, scored = request or Request(), Scored()
    layout = _layout(
        located, schema, request.beside, out, predict.fields() if isinstance(predict, Explainer) else []
    )
    with ExitStack() as stack:
        name = stack.enter_context(atomic.writing(out))
        write = stack.enter_context(_writer(name, out, layout))
        pool = stack.enter_context(ThreadPoolExecutor(workers, initializer=_one_thread_each))
        bar = stack.enter_context(_bar(located))
        pending: deque[Future[_Part]] = deque()
        stack.callback(lambda: [future.cancel() for future in pending])
        for file, table in _tables(located, layout, schema, rows):
            pending.append(
                pool.submit(_score_table, table, file, predict, schema, located, layout, request.unseen)
            )
            if len(pending) > 2 * workers:
                _take(pending.popleft().result(), scored, write, bar)
        while pending:
            _take(pending.popleft().result(), scored, write, bar)
        scored.problems = list(validation.merged(scored.problems))
        refuse_too_many(scored, request.max_rejected, schema)
    scored.seconds = time.monotonic() - started
    return scored


def refuse_too_many(scored: Scored, max_rejected: float, schema: Schema) -> None:
    """Raise UserError where more than the share `max_rejected` of the rows has no risk."""
    if scored.broken > max_rejected * scored.rows:
        raise UserError(
            f"{scored.broken:,} of {scored.rows:,} rows would get no risk, more than max_rejected allows "
            f"({max_rejected:.2%}), so nothing was written:\n"
            f"{validation.described(scored.problems, schema, exact=True)}"
        )


@dataclass(frozen=True)
class _Layout:
    """Columns of the output: those kept from the input, then those that scoring adds, with their types."""

    kept: tuple[str, ...]
    schema: pa.Schema
    with_file: bool


@dataclass(frozen=True)
class _Part:
    table: pa.Table
    broken: int
    risk_sum: float
    problems: tuple[Problem, ...]
    unseen: dict[str, int]


def _take(part: _Part, scored: Scored, write: Callable[[pa.Table], None], bar: Any) -> None:
    write(part.table)
    scored.rows += part.table.num_rows
    scored.broken += part.broken
    scored.risk_sum += part.risk_sum
    scored.problems.extend(part.problems)
    scored.unseen.update(part.unseen)
    bar.update(part.table.num_rows)


def _layout(
    located: Located, schema: Schema, beside: Beside, out: Path, reasons: list[pa.Field[Any]]
) -> _Layout:
    import pyarrow as pa

    features = set(schema.feature_names)
    types: dict[str, list[Any]] = {}
    for file in located.files:
        stored_types = readers.column_types(file)
        names = reading.plan(file, schema, located.target_column).renamed(list(stored_types))
        expected = [*schema.feature_names, located.target_column, *located.ignore]
        validation.check_columns(names, schema.feature_names, expected, file.name)
        for (name, kind), schema_name in zip(
            stored_types.items(), names, strict=False
        ):  # missing columns are last
            if beside == "all" or schema_name not in (*features, located.target_column):
                types.setdefault(name, []).append(kind)
    refuse_name_clashes(list(types), [RISK, REASON, FILE, *(reason.name for reason in reasons)])
    with_file = len(located.files) > 1
    kept_fields = [pa.field(name, _kept_type(name, kinds, out)) for name, kinds in types.items()]
    added_fields = [pa.field(RISK, pa.float64()), pa.field(REASON, pa.string()), *reasons]
    file_fields = [pa.field(FILE, pa.string())] if with_file else []
    return _Layout(tuple(types), pa.schema([*file_fields, *kept_fields, *added_fields]), with_file)


def refuse_name_clashes(kept: Sequence[str], added: Sequence[str]) -> None:
    """Raise UserError where a kept column has the name of a column that scoring adds."""
    taken = [name for name in added if name in kept]
    if taken:
        raise UserError(f"the data have a column {taken[0]}, which the output needs for itself: rename it")


def _kept_type(name: str, kinds: list[pa.DataType], out: Path) -> pa.DataType:
    """Type of a kept column in the output: text where files differ or CSV has no such type."""
    import pyarrow as pa

    plain_types = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds]
    binary = [kind for kind in plain_types if pa.types.is_binary(kind) or pa.types.is_large_binary(kind)]
    nested = [kind for kind in plain_types if pa.types.is_nested(kind)]
    into_csv = not out.name.endswith(".parquet")
    not_writable = [kind for kind in plain_types if not _is_writable(kind)]
    if len(set(kinds)) == 1 and not not_writable and not (into_csv and (binary or nested)):
        return kinds[0]
    if nested:
        reason = "CSV cannot hold" if into_csv else "another file has otherwise"
        raise UserError(
            f"the column {name} holds {nested[0]}, which {reason}: leave it out of the data, or convert it"
            + (", or write Parquet (-P out=risks.parquet)" if into_csv and len(set(kinds)) == 1 else "")
        )
    return pa.string()


def _is_writable(kind: pa.DataType) -> bool:
    """Whether every writer knows a type; UUIDs, views of text and the like become text."""
    import pyarrow as pa

    tests = (
        pa.types.is_primitive, pa.types.is_string, pa.types.is_large_string, pa.types.is_decimal,
        pa.types.is_binary, pa.types.is_large_binary, pa.types.is_nested, pa.types.is_null,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def _tables(
    located: Located, layout: _Layout, schema: Schema, rows: int
) -> Iterator[tuple[LocalFile, pa.Table]]:
    for file in located.files:
        plan = reading.plan(file, schema, located.target_column)
        for table in readers.tables(file, rows, {*plan.names(schema.feature_names), *layout.kept}):
            yield file, table


def _score_table(
    table: pa.Table,
    file: LocalFile,
    predict: Predict | Explainer,
    schema: Schema,
    located: Located,
    layout: _Layout,
    unseen: Mapping[str, tuple[Code, ...]],
) -> _Part:
    """One chunk with its risks, in the order of its rows."""
    import pyarrow as pa

    names = list(schema.feature_names)
    plan = reading.plan(file, schema, located.target_column)
    stored = [name for name in table.column_names if name in plan.names(names)]
    frame = reading.convert(sources.frame_of(table.select(stored), file), plan)
    checked = validation.check(frame, schema, located.target_column, located.positive, require_target=False)
    risk = np.full(len(frame), np.nan)
    valid = np.asarray(checked.valid.index)
    explained = _explained(predict, checked.valid[names])
    risk[valid] = explained.risk
    # Index into the explained rows for each row of the table, null for a row without a risk.
    order = np.full(len(frame), -1)
    order[valid] = np.arange(len(valid))
    explained_index = pa.array(order, mask=order < 0)
    reasons: pa.Array = pa.nulls(len(frame), pa.string())
    if len(checked.rejected):
        texts = np.full(len(frame), None, dtype=object)
        texts[np.asarray(checked.rejected.index)] = checked.rejected[REASON_COLUMN].to_numpy(dtype=object)
        reasons = pa.array(texts, pa.string())
    columns: list[Any] = [pa.repeat(file.name, len(frame))] if layout.with_file else []
    for name in layout.kept:
        output_type = layout.schema.field(name).type
        try:
            columns.append(
                _kept(table.column(name), output_type)
                if name in table.column_names
                else pa.nulls(len(frame), output_type)
            )
        except pa.ArrowException:
            raise UserError(
                f"{file.name}: the column {name} holds {table.column(name).type} that is no UTF-8 text: "
                "leave it out of the data, or convert it"
            ) from None
    columns += [pa.array(risk, pa.float64(), from_pandas=True), reasons]
    columns += [values.take(explained_index) for values in explained.columns.values()]
    return _Part(
        pa.Table.from_arrays(columns, schema=layout.schema),
        len(checked.rejected),
        float(np.nansum(risk)),
        checked.problems,
        {name: int(checked.valid[name].isin(levels).sum()) for name, levels in unseen.items()},
    )


def _explained(predict: Predict | Explainer, valid: pd.DataFrame) -> Explained:
    if isinstance(predict, Explainer):
        return predict(valid)
    return Explained(predict(valid) if len(valid) else np.zeros(0), {})


def _kept(values: Any, output_type: pa.DataType) -> Any:
    import pyarrow as pa

    return sources.as_text(values) if output_type == pa.string() else values.cast(output_type)


@contextlib.contextmanager
def _writer(name: str, out: Path, layout: _Layout) -> Iterator[Callable[[pa.Table], None]]:
    import pyarrow as pa
    from pyarrow import csv, parquet

    with ExitStack() as stack:
        sink: Any = stack.enter_context(pa.OSFile(name, "wb"))
        if out.name.endswith(".parquet"):
            repeating = [column for column in layout.schema.names if column != RISK]
            writer = parquet.ParquetWriter(sink, layout.schema, compression="zstd", use_dictionary=repeating)
        else:
            if out.name.endswith(".gz"):
                sink = stack.enter_context(pa.CompressedOutputStream(sink, "gzip"))
            writer = csv.CSVWriter(sink, layout.schema)
        yield stack.enter_context(writer).write_table


def _one_thread_each() -> None:
    """Limit OpenMP and BLAS in this thread of the pool: their limits belong to the thread that sets them."""
    import threadpoolctl

    threadpoolctl.threadpool_limits(1)


def _bar(located: Located) -> Any:
    """A progress bar of the rows written, shown only on a terminal."""
    from tqdm import tqdm

    counts = [readers.row_count(file) for file in located.files]
    total = sum(count for count in counts if count is not None) if None not in counts else None
    return tqdm(total=total, unit=" rows", unit_scale=True, desc="scoring", disable=None, leave=False)
