"""Scoring: every row keeps its place, and the output is complete or absent."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from monitoring.reference import parse
from steps.data import atomic, sources
from steps.data.atomic import DiskFullError
from steps.data.errors import UserError
from steps.data.schema import Schema
from steps.data.validation import ValidationError
from steps.models import scoring
from tests.conftest import ROOT
from tests.made_up.clinic import clinic_rows, clinic_schema


@pytest.fixture
def schema(tmp_path: Path) -> Schema:
    return clinic_schema(tmp_path)


def _risk(frame: pd.DataFrame) -> NDArray[np.float64]:
    """A risk that tells which row it belongs to; 0.5 where glucose is missing."""
    return np.asarray((frame["glucose"] / 100).fillna(0.5), dtype=np.float64)


def _locate(data: Path, schema: Schema) -> sources.Located:
    return sources.locate(str(data), schema, data.parent, data.parent)


def _rows(count: int) -> pd.DataFrame:
    rows = clinic_rows(count).drop(columns="readmitted")
    rows.insert(0, "patient", [f"p{i:04}" for i in range(count)])
    return rows


def _read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_every_row_gets_its_risk_in_its_place(suffix: str, tmp_path: Path, schema: Schema) -> None:
    """Many small chunks on several threads come out in the order of the rows, whatever the formats."""
    rows = _rows(1000)
    data, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    rows.to_parquet(data) if suffix == ".parquet" else rows.to_csv(data, index=False)
    scored = scoring.score(_locate(data, schema), out, _risk, schema, workers=3, rows=64)
    found = _read(out)
    assert list(found) == ["patient", "risk", "reason"]
    assert found["patient"].tolist() == rows["patient"].tolist()
    expected = np.where(rows["glucose"] == 0, 0.5, rows["glucose"] / 100)
    assert found["risk"].to_numpy() == pytest.approx(expected, abs=1e-12)
    assert (scored.rows, scored.broken) == (1000, 0)
    assert scored.risk_sum == pytest.approx(expected.sum())


def test_a_bad_row_in_the_middle_keeps_its_place_with_a_reason(tmp_path: Path, schema: Schema) -> None:
    """Its risk is empty, its reasons name column and rule and no value, its neighbours are as always."""
    rows = _rows(300).astype({"glucose": object})
    rows.loc[150, ["glucose", "ward"]] = ["much", "C9"]
    data, out = tmp_path / "in.csv", tmp_path / "out.csv"
    rows.to_csv(data, index=False)
    scored = scoring.score(_locate(data, schema), out, _risk, schema, rows=40)
    found = pd.read_csv(out)
    assert found["risk"].isna().to_numpy().nonzero()[0].tolist() == [150]
    assert found["reason"].notna().to_numpy().nonzero()[0].tolist() == [150]
    assert found.loc[150, "reason"] == "glucose: not a number; ward: unknown level"
    assert found.loc[150, "patient"] == "p0150"
    assert scored.broken == 1
    assert [(p.column, p.rows) for p in scored.problems] == [("glucose", 1), ("ward", 1)]


def test_a_folder_of_files_becomes_one_with_each_rows_file(tmp_path: Path, schema: Schema) -> None:
    """CSV and Parquet side by side; a column that one of them lacks is empty there."""
    folder = tmp_path / "batches"
    folder.mkdir()
    _rows(50).to_csv(folder / "a.csv", index=False)
    _rows(30).drop(columns="patient").to_parquet(folder / "b.parquet")
    out = tmp_path / "out.parquet"
    scoring.score(_locate(folder, schema), out, _risk, schema, workers=2, rows=16)
    found = pd.read_parquet(out)
    assert found["file"].tolist() == ["a.csv"] * 50 + ["b.parquet"] * 30
    assert found["patient"].isna().sum() == 30
    assert found["risk"].notna().all()


def test_all_columns_can_stand_beside_the_risk_as_they_came(tmp_path: Path, schema: Schema) -> None:
    """Types of Parquet columns survive, large whole numbers with gaps among them."""
    rows = clinic_rows(20)
    rows["patient"] = pd.array([2**60 + i if i % 3 else None for i in range(20)], dtype="Int64")
    data, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    rows.to_parquet(data)
    scoring.score(_locate(data, schema), out, _risk, schema, scoring.Request(beside="all"))
    found = pd.read_parquet(out, dtype_backend="numpy_nullable")
    assert list(found) == [*rows, "risk", "reason"]
    assert found["patient"].tolist() == rows["patient"].tolist()
    assert found["readmitted"].tolist() == rows["readmitted"].tolist()


@pytest.mark.parametrize(
    ("visits", "out", "said"),
    [
        ([[1, 2]], "out.csv", "column visits holds list.*CSV cannot hold.*write Parquet"),
        ([{"a": 1}], "out.csv.gz", "column visits holds struct"),
        ([b"\xff\xfe"], "out.csv", "column visits holds binary that is no UTF-8 text"),
    ],
    ids=["list", "struct", "binary"],
)
def test_a_column_that_the_output_cannot_hold_is_named_with_the_remedy(
    visits: list[object], out: str, said: str, tmp_path: Path, schema: Schema
) -> None:
    """Parquet holds it as it came; CSV, or files that differ about it, cannot."""
    folder = tmp_path / "batches"
    folder.mkdir()
    rows = _rows(3)
    rows.assign(visits=visits * 3).to_parquet(folder / "a.parquet")
    with pytest.raises(UserError, match=said):
        scoring.score(_locate(folder / "a.parquet", schema), tmp_path / out, _risk, schema)
    scoring.score(_locate(folder / "a.parquet", schema), tmp_path / "out.parquet", _risk, schema)
    rows.assign(visits=7).to_parquet(folder / "b.parquet")
    with pytest.raises(UserError, match=r"column visits holds .*(another file has otherwise|no UTF-8 text)"):
        scoring.score(_locate(folder, schema), tmp_path / "both.parquet", _risk, schema)
    assert not (tmp_path / "both.parquet").exists()


def test_bytes_that_are_text_go_into_csv_as_text(tmp_path: Path, schema: Schema) -> None:
    """Some writers mark no text as such."""
    data, out = tmp_path / "in.parquet", tmp_path / "out.csv"
    _rows(2).assign(patient=[b"p1", "p\u00e42".encode()]).to_parquet(data)
    scoring.score(_locate(data, schema), out, _risk, schema)
    assert pd.read_csv(out)["patient"].tolist() == ["p1", "p\u00e42"]


def test_a_file_that_lacks_a_column_is_refused_before_anything_is_written(
    tmp_path: Path, schema: Schema
) -> None:
    """The last of the files lacks a feature: no output, and the error names it."""
    folder = tmp_path / "batches"
    folder.mkdir()
    _rows(50).to_csv(folder / "a.csv", index=False)
    _rows(50).drop(columns="stage").to_csv(folder / "b.csv", index=False)
    out = tmp_path / "out.csv"
    with pytest.raises(ValidationError, match=r"b\.csv lacks 1 .*\n.*stage"):
        scoring.score(_locate(folder, schema), out, _risk, schema)
    assert not out.exists()


def test_a_file_that_breaks_off_leaves_the_earlier_output_alone(tmp_path: Path, schema: Schema) -> None:
    """A damaged line far down is found when it is read; what stood at `out` before still stands there."""
    data, out = tmp_path / "in.csv", tmp_path / "out.csv"
    _rows(500).to_csv(data, index=False)
    with data.open("a") as stream:
        stream.write("one,two\n")
    out.write_text("from yesterday")
    with pytest.raises(UserError, match=r"in\.csv has 2 values"):
        scoring.score(_locate(data, schema), out, _risk, schema, rows=50)
    assert out.read_text() == "from yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clinic.yaml", "in.csv", "out.csv"]


def test_a_failing_model_ends_it_without_output(tmp_path: Path, schema: Schema) -> None:
    """An error in one of the threads comes out as it is."""
    data = tmp_path / "in.csv"
    _rows(500).to_csv(data, index=False)

    def fails(frame: pd.DataFrame) -> NDArray[np.float64]:
        raise RuntimeError("no such tree")

    with pytest.raises(RuntimeError, match="no such tree"):
        scoring.score(_locate(data, schema), tmp_path / "out.csv", fails, schema, workers=2, rows=50)
    assert not (tmp_path / "out.csv").exists()


def test_only_a_few_chunks_are_under_way_at_once(tmp_path: Path, schema: Schema) -> None:
    """Memory stays flat because reading waits for writing: while the first chunk is held, few start."""
    data = tmp_path / "in.csv"
    _rows(2000).to_csv(data, index=False)
    held, started = threading.Event(), []

    def slow(frame: pd.DataFrame) -> NDArray[np.float64]:
        started.append(len(frame))
        if len(started) == 1:
            held.wait(30)
        elif len(started) >= 5:
            held.set()
        return _risk(frame)

    def release() -> None:
        time.sleep(1)
        held.set()

    threading.Thread(target=release, daemon=True).start()
    seen = []

    def counted(frame: pd.DataFrame) -> NDArray[np.float64]:
        risk = slow(frame)
        seen.append((len(started), held.is_set()))
        return risk

    scoring.score(_locate(data, schema), tmp_path / "out.csv", counted, schema, workers=2, rows=20)
    while_held = [count for count, free in seen if not free]
    assert max(while_held, default=0) <= 5
    assert sum(started) == 2000


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("", "name the file"),
        ("risks.xlsx", "should end in"),
        ("nowhere/risks.csv", "there is no folder"),
        ("in.csv", "one of the files to score"),
    ],
)
def test_an_output_that_cannot_be_is_refused_at_once(
    out: str, said: str, tmp_path: Path, schema: Schema
) -> None:
    """Before a row is read, with what to name instead."""
    _rows(10).to_csv(tmp_path / "in.csv", index=False)
    with pytest.raises(UserError, match=said):
        scoring.check_target(out, tmp_path, _locate(tmp_path / "in.csv", schema))


def test_a_column_named_risk_is_not_overwritten(tmp_path: Path, schema: Schema) -> None:
    """The person is asked to rename it."""
    data = tmp_path / "in.csv"
    _rows(10).assign(risk=1).to_csv(data, index=False)
    with pytest.raises(UserError, match="rename it"):
        scoring.score(_locate(data, schema), tmp_path / "out.csv", _risk, schema)


_SLOW = """
import sys, time
from pathlib import Path
from steps.data import sources
from steps.models import scoring
from steps.data.schema_file import load
folder = Path(sys.argv[1])
schema = load(folder / "clinic.yaml")
located = sources.locate(str(folder / "in.csv"), schema, folder, folder)
def slow(frame):
    print("scoring", flush=True)
    time.sleep(0.2)
    return frame["glucose"].fillna(0).to_numpy() / 100
scoring.score(located, folder / "out.csv", slow, schema, rows=20)
"""


def test_killed_half_way_it_leaves_nothing(tmp_path: Path, schema: Schema) -> None:
    """kill -9 after some chunks: neither the output nor a part of it is in the folder."""
    _rows(2000).to_csv(tmp_path / "in.csv", index=False)
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline() == "scoring\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clinic.yaml", "in.csv"]


def test_a_full_disk_is_said_plainly_and_leaves_nothing(tmp_path: Path) -> None:
    """The operating system's error becomes a sentence with a remedy."""
    with pytest.raises(DiskFullError, match="is full"), atomic.writing(tmp_path / "out") as name:
        Path(name).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; only root may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", ["out.parquet", "out.csv"])
def test_a_disk_that_is_really_full(name: str, small_disk: Path, tmp_path: Path, schema: Schema) -> None:
    """20,000 rows do not fit in 64 KiB."""
    data = tmp_path / "in.csv"
    _rows(20_000).to_csv(data, index=False)
    with pytest.raises(DiskFullError, match=name):
        scoring.score(_locate(data, schema), small_disk / name, _risk, schema, rows=1000)
    assert list(small_disk.iterdir()) == []


def test_a_finished_file_replaces_an_earlier_one_at_once(tmp_path: Path) -> None:
    """Until the block ends the old content stands; afterwards the new one, and no leftover."""
    path = tmp_path / "out"
    path.write_text("old")
    with atomic.writing(path) as name:
        Path(name).write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_too_many_rows_without_a_risk_leave_no_file(tmp_path: Path, schema: Schema) -> None:
    """`max_rejected` is the largest share; the message counts and says why; below it the file is written."""
    rows = _rows(100)
    rows["glucose"] = rows["glucose"].astype(object)
    rows.loc[:4, "glucose"] = "high"
    rows.to_csv(tmp_path / "in.csv", index=False)
    located, out = _locate(tmp_path / "in.csv", schema), tmp_path / "out.csv"
    with pytest.raises(UserError, match=r"(?s)5 of 100 rows would get no risk.*glucose: not a number"):
        scoring.score(located, out, _risk, schema, scoring.Request(max_rejected=0.04))
    assert not out.exists()
    assert scoring.score(located, out, _risk, schema, scoring.Request(max_rejected=0.05)).broken == 5
    assert out.exists()


def test_rows_with_a_level_that_no_training_row_had_are_counted_by_column(
    tmp_path: Path, schema: Schema, document: dict[str, Any]
) -> None:
    """A level with no training row, or one that the schema has got since; across chunks. Rejected rows and
    missing answers are none of them.
    """
    glucose, stage, ward = document["features"]
    glucose |= {"name": "glucose"}
    stage |= {"name": "stage", "counts": [20, 50, 30]}
    ward |= {"name": "ward", "levels": ["A1", "B2"], "bins": ["A1", "B2"], "counts": [60, 0]}
    document["golden"]["columns"] = ["glucose", "stage", "ward"]
    document["groups"] = None
    unseen = scoring.levels_never_seen(parse(document), schema)
    assert unseen == {"ward": ("B2", "NA")}
    rows = _rows(100).assign(ward="A1").astype({"glucose": object})
    rows.loc[[3, 40, 41], "ward"] = "B2"
    rows.loc[99, "ward"] = "NA"
    rows.loc[50, "ward"] = "?"
    rows.loc[41, "glucose"] = "high"
    rows.to_csv(tmp_path / "in.csv", index=False)
    located, out = _locate(tmp_path / "in.csv", schema), tmp_path / "out.csv"
    scored = scoring.score(located, out, _risk, schema, scoring.Request(unseen=unseen), workers=2, rows=30)
    assert (scored.broken, dict(scored.unseen)) == (1, {"ward": 3})
    assert not scoring.score(located, out, _risk, schema).unseen


def test_identifiers_of_newer_types_stand_as_text(tmp_path: Path, schema: Schema) -> None:
    """Views of text and UUIDs are written to CSV and Parquet as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(_rows(2), preserve_index=False)
    table = table.append_column("view", pa.array(["x", "y"], pa.string_view()))
    table = table.append_column("id", pa.array([b"\7" * 16, b"\1" * 16], pa.uuid()))
    pq.write_table(table, tmp_path / "in.parquet")
    for name in ("out.csv", "out.parquet"):
        scoring.score(_locate(tmp_path / "in.parquet", schema), tmp_path / name, _risk, schema)
        found = pd.read_csv(tmp_path / name) if name.endswith("csv") else pd.read_parquet(tmp_path / name)
        assert found["view"].tolist() == ["x", "y"]
        assert found["id"].iloc[0] == "07070707-0707-0707-0707-070707070707"
