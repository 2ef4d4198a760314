"""Data are found, fetched whole or not at all, and read as they stand; what is wrong is said plainly."""

from __future__ import annotations

import gzip
import hashlib
import socket
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.chain.pipeline import Chain
from steps.data import sources
from steps.data.downloads import Patience, download
from steps.data.files import SourceError
from steps.data.schema import Schema
from tests.made_up.clinic import clinic_rows, clinic_schema

ROOT = Path(__file__).resolve().parents[2]
IMPATIENT = Patience(connect=30, stall=30, tries=3, pause=0.0)
CSV = b"glucose,ward,stage,smoker,readmitted\n5.5,A1,1,0,no\n6,B2,2,1,yes\n"


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


def _locate(data: object, schema: Schema, base: Path) -> sources.Located:
    return sources.locate(str(data), schema, base / "cache", base, IMPATIENT)


def _read(data: object, schema: Schema, base: Path) -> pd.DataFrame:
    return sources.read(_locate(data, schema, base), schema)


# ---------------------------------------------------------------- files


def test_all_packings_give_the_same_rows(schema: Schema, tmp_path: Path) -> None:
    """CSV, with a byte order mark, gz, zip: one table; the format is known by content, not by name."""
    (tmp_path / "plain.csv").write_bytes(CSV)
    (tmp_path / "marked.csv").write_bytes(b"\xef\xbb\xbf" + CSV.replace(b"\n", b"\r\n"))
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(CSV, mtime=0))
    (tmp_path / "nameless").write_bytes(gzip.compress(CSV[:40], mtime=0) + gzip.compress(CSV[40:]))
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/rows.csv", CSV)
        archive.writestr("__MACOSX/data/._rows.csv", b"\0")
    for name in ("plain.csv", "marked.csv", "packed.csv.gz", "nameless", "packed.zip"):
        frame = _read(name, schema, tmp_path)
        assert frame.drop(columns="__file__").to_dict("list") == {
            "glucose": ["5.5", "6"],
            "ward": ["A1", "B2"],
            "stage": ["1", "2"],
            "smoker": ["0", "1"],
            "readmitted": ["no", "yes"],
        }
        assert frame["__file__"].tolist() == [name] * 2


def test_parquet_keeps_numbers_and_reads_all_else_as_text(schema: Schema, tmp_path: Path) -> None:
    """Integers with nulls, decimals, booleans, dates, categories: each arrives as number or as text."""
    table = pa.table(
        {
            "glucose": pa.array([5, None], pa.int32()),
            "ward": pa.array(["A1", "B2"]).dictionary_encode(),
            "stage": pa.array([1, 2], pa.decimal128(5, 1)),
            "smoker": pa.array([True, None]),
            "readmitted": pa.array(["no", "yes"], pa.large_string()),
            "day": pa.array([0, 1], pa.date32()),
            "code": pa.array([7, 8], pa.int16()).dictionary_encode(),
            "empty": pa.nulls(2),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    (frame,) = sources.chunks(_locate("rows.parquet", schema, tmp_path), schema)
    assert frame["glucose"].tolist() == pytest.approx([5.0, np.nan], nan_ok=True)
    assert frame["stage"].tolist() == [1.0, 2.0]
    assert frame["smoker"].tolist() == [True, None]
    assert frame["ward"].tolist() == ["A1", "B2"]
    assert frame["readmitted"].tolist() == ["no", "yes"]
    assert frame["day"].tolist() == ["1970-01-01", "1970-01-02"]
    assert frame["code"].tolist() == [7, 8]
    assert frame["empty"].isna().all()


def test_a_pandas_index_is_no_column(schema: Schema, tmp_path: Path) -> None:
    """What pandas writes for its index into a Parquet file does not count as data."""
    clinic_rows(5).iloc[::2].to_parquet(tmp_path / "rows.parquet")
    (frame,) = sources.chunks(_locate("rows.parquet", schema, tmp_path), schema)
    assert list(frame.columns) == ["glucose", "ward", "stage", "smoker", "readmitted", "__file__"]


def test_batches_in_folders_and_globs_remember_their_file(schema: Schema, tmp_path: Path) -> None:
    """A folder gives its data files in order of name; a glob may reach into folders, then names say which."""
    for day, count in (("2024-02", 3), ("2024-01", 2)):
        (tmp_path / "batches" / day).mkdir(parents=True)
        clinic_rows(count).to_csv(tmp_path / "batches" / f"{day}.csv", index=False)
        clinic_rows(count).to_parquet(tmp_path / "batches" / day / "rows.parquet", index=False)
    (tmp_path / "batches" / "README.txt").write_text("not data")
    folder = _read("batches", schema, tmp_path)
    assert folder["__file__"].tolist() == ["2024-01.csv"] * 2 + ["2024-02.csv"] * 3
    deep = _read("batches/*/rows.parquet", schema, tmp_path)
    assert deep["__file__"].tolist() == ["2024-01/rows.parquet"] * 2 + ["2024-02/rows.parquet"] * 3
    assert len(_read("batches/**/2024*", schema, tmp_path)) == 5


def test_files_of_different_format_join(schema: Schema, tmp_path: Path) -> None:
    """CSV and Parquet batches, one without an optional column, make one table."""
    clinic_rows(2).to_csv(tmp_path / "a.csv", index=False)
    clinic_rows(2).drop(columns="smoker").to_parquet(tmp_path / "b.parquet", index=False)
    frame = _read("*.*", schema, tmp_path)
    assert frame["__file__"].tolist() == ["a.csv", "a.csv", "b.parquet", "b.parquet"]
    assert frame["smoker"].isna().tolist()[2:] == [True, True]
    assert [str(value) for value in frame["stage"]] == [str(value) for value in clinic_rows(2)["stage"]] * 2


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_chunks_cover_every_row_once(schema: Schema, tmp_path: Path, suffix: str) -> None:
    """Chunks have at most the asked rows, none of two files, and join to the whole, column choice or not."""
    rows = clinic_rows(1_000).assign(number=np.arange(1_000))
    for part, name in ((rows[:700], "a"), (rows[700:], "b")):
        path = tmp_path / f"{name}.{suffix}"
        part.to_csv(path, index=False) if suffix == "csv" else part.to_parquet(path, index=False)
    located = _locate(f"*.{suffix}", schema, tmp_path)
    frames = list(sources.chunks(located, schema, rows=300))
    assert [len(frame) for frame in frames] == [300, 300, 100, 300]
    assert [int(number) for frame in frames for number in frame["number"]] == list(range(1_000))
    assert all(frame["__file__"].nunique() == 1 for frame in frames)
    narrow = next(sources.chunks(located, schema, columns=["number", "absent"]))
    assert list(narrow.columns) == ["number", "__file__"]


def test_quoted_values_may_hold_commas_and_line_breaks(schema: Schema, tmp_path: Path) -> None:
    """Standard CSV quoting is understood, in the header too."""
    (tmp_path / "rows.csv").write_bytes(b'"stage","a, note"\n1,"x, y"\n2,"line\nbreak"\n')
    (frame,) = sources.chunks(_locate("rows.csv", schema, tmp_path), schema)
    assert frame["a, note"].tolist() == ["x, y", "line\nbreak"]


def _zip_of(**members: bytes) -> bytes:
    import io

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def _encrypted(archive: bytes) -> bytes:
    """A zip archive whose only member is marked as encrypted, in both of its headers."""
    content = bytearray(archive)
    content[6] |= 1
    content[archive.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def _spoilt(content: bytes) -> bytes:
    """Content with one byte in its middle turned over."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


SECRET = "424242"
LONG = CSV + f"{SECRET},A1,1,0,no\n".encode() * 200_000


def _parquet_bytes() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"stage": np.arange(10_000.0)}), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty (0 bytes)"),
        (b"\n", "first line of rows is empty"),
        (CSV.splitlines()[0] + b"\n", "has a header but no rows"),
        (CSV.splitlines()[0], "has a header but no rows"),
        (CSV.split(b"\n", 1)[1], "holds numbers, not names of columns"),
        (b"stage,ward,stage\n1,A1,2\n", "the columns 1, 3 of rows share a name"),
        (b"stage,__target__\n1,1\n", "__target__, a name this project keeps"),
        (CSV.replace(b"\n", b"\r"), "end in a carriage return alone"),
        (b"x" * 200_000, "first lines of rows cannot be read as a table"),
        (
            CSV + f"{SECRET},A1,1,0\n".encode(),
            "has 4 values in row 3 after the header, where its header has 5 columns",
        ),
        (LONG + f"{SECRET},A1,1,0,no,9\n".encode(), "has 6 values in row 200003 after the header"),
        (
            LONG + f"{SECRET},\xe9,1,0,no\n".encode("latin-1"),
            "is not UTF-8 text in row 200003 after the header",
        ),
        ("stäge,ward\n1,A1\n".encode("latin-1"), "is not UTF-8 text. If it comes from Excel"),
        (b'{"stage": 1}\n{"stage": 2}\n', "it is JSON"),
        (b"$FL2@(#) SPSS DATA FILE", "it is an SPSS file"),
        (b"<stata_dta><header>", "it is a Stata file"),
        (b"HEADER RECORD*******LIBRARY HEADER RECORD!!!!!!!" + b" " * 400, "a SAS transport file of a kind"),
        (b"<!DOCTYPE html><title>Sign in</title>", "is a web page"),
        (b"SQLite format 3\0", "SQLite database"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it holds binary data"),
        (b"BZh91AY&SY", "compressed with bzip2"),
        (gzip.compress(LONG, mtime=0)[:-9], "is a damaged gzip file"),
        (gzip.compress(LONG, mtime=0)[:-8] + b"\0" * 8, "is a damaged gzip file"),
        (b"\x1f\x8b not gzip at all", "is a damaged gzip file"),
        (gzip.compress(gzip.compress(CSV), mtime=0), "is packed twice"),
        (gzip.compress(CSV.splitlines()[0], mtime=0), "has a header but no rows"),
        (_zip_of(**{"rows.csv": LONG})[:-30], "is a damaged zip file"),
        (_spoilt(_zip_of(**{"rows.csv": LONG})), "is a damaged zip file"),
        (_spoilt(gzip.compress(LONG, mtime=0)), "is a damaged gzip file"),
        (_zip_of(**{"a.csv": CSV, "b.csv": CSV}), "holds 2 files (a.csv, b.csv), one is expected"),
        (_zip_of(**{"[Content_Types].xml": b"x", "xl/workbook.xml": b"x"}), "is a damaged Excel workbook"),
        (_zip_of(), "zip archive without a file"),
        (_encrypted(_zip_of(**{"a.csv": CSV})), "is encrypted"),
        (_parquet_bytes()[:-100], "is a damaged Parquet file"),
        (b"PAR1" + _parquet_bytes()[100:], "is a damaged Parquet file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(schema: Schema, tmp_path: Path, content: bytes, says: str) -> None:
    """Each damage has its own sentence, which names the file and never a value in it."""
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(SourceError) as caught:
        _read("rows", schema, tmp_path)
    assert says in str(caught.value)
    assert "rows" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_nested_columns_are_refused(schema: Schema, tmp_path: Path) -> None:
    """A column of lists is neither number nor text."""
    pq.write_table(pa.table({"stage": [1.0], "visits": [[1, 2]]}), tmp_path / "rows.parquet")
    with pytest.raises(SourceError, match="column visits holds list"):
        list(sources.chunks(_locate("rows.parquet", schema, tmp_path), schema))


def test_what_is_not_there_is_said(schema: Schema, tmp_path: Path) -> None:
    """No such file, a folder without data, a folder that may not be read, no name at all."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no file, folder or match at nothing\.csv .* shipped, remote"):
        _locate("nothing.csv", schema, tmp_path)
    with pytest.raises(SourceError, match="a folder without a data file in it"):
        _locate("empty", schema, tmp_path)
    with pytest.raises(SourceError, match="no data is named"):
        _locate(" ", schema, tmp_path)
    with pytest.raises(SourceError, match="only http and https are fetched"):
        _locate("s3://bucket/rows.csv", schema, tmp_path)
    with pytest.raises(SourceError, match="looks like a URL but is not valid"):
        _locate("http://[::1", schema, tmp_path)
    with pytest.raises(SourceError, match="no home folder"):
        _locate("~nosuchuser/rows.csv", schema, tmp_path)
    with pytest.raises(SourceError, match="File name too long"):
        _locate("a" * 300, schema, tmp_path)


def test_a_path_that_exists_only_where_the_caller_stands_says_so(
    schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step starts in the project's folder: the message says where paths start, or names the full path."""
    (tmp_path / "project").mkdir()
    (tmp_path / "caller").mkdir()
    (tmp_path / "caller" / "mine.csv").write_bytes(CSV)
    monkeypatch.setenv("PWD", str(tmp_path / "project"))
    with pytest.raises(SourceError, match="relative paths start in the project's folder"):
        sources.locate("mine.csv", schema, tmp_path / "cache", tmp_path / "project")
    monkeypatch.setenv("PWD", str(tmp_path / "caller"))
    with pytest.raises(SourceError, match="where you stand") as caught:
        sources.locate("mine.csv", schema, tmp_path / "cache", tmp_path / "project")
    assert f"-P data={tmp_path / 'caller' / 'mine.csv'}" in str(caught.value)


# ---------------------------------------------------------------- what the schema says of the files


def test_kind_follows_from_content_alone(tmp_path: Path) -> None:
    """Rows are synthetic only if every file is byte for byte a listed source, under whatever name."""
    digest = hashlib.sha256(CSV).hexdigest()
    schema = clinic_schema(
        tmp_path, ("path: shipped.csv, sha256: null", f'path: shipped.csv, sha256: "{digest}"')
    )
    (tmp_path / "shipped.csv").write_bytes(CSV)
    (tmp_path / "copy.csv").write_bytes(CSV)
    (tmp_path / "mine.csv").write_bytes(CSV + b"7,A1,1,0,no\n")
    assert _locate("shipped", schema, tmp_path).kind == "synthetic"
    assert _locate("copy.csv", schema, tmp_path).kind == "synthetic"
    assert _locate("mine.csv", schema, tmp_path).kind == "private"
    assert _locate("*.csv", schema, tmp_path).kind == "private"
    (tmp_path / "shipped.csv").write_bytes(CSV + b"7,A1,1,0,no\n")
    with pytest.raises(SourceError, match="is not the file that the schema describes"):
        _locate("shipped", schema, tmp_path)
    (tmp_path / "shipped.csv").unlink()
    with pytest.raises(SourceError, match="should be at shipped"):
        _locate("shipped", schema, tmp_path)


def test_a_copy_of_a_source_is_read_with_its_outcome_column(schema: Schema, tmp_path: Path) -> None:
    """A file that has a source's own outcome column instead of the schema's is coded like that source."""
    own = _located_of(CSV, schema, tmp_path)
    assert (own.target_column, own.positive, own.ignore) == ("readmitted", ("yes",), ())
    theirs = _located_of(CSV.replace(b"readmitted", b"back"), schema, tmp_path)
    assert (theirs.target_column, theirs.positive, theirs.ignore) == ("back", (1.0,), ("ID",))
    assert theirs.kind == "private"
    (tmp_path / "other.csv").write_bytes(CSV)
    with pytest.raises(SourceError, match="code the outcome in different ways"):
        _locate("*.csv", schema, tmp_path)


def _located_of(content: bytes, schema: Schema, base: Path) -> sources.Located:
    (base / "rows.csv").write_bytes(content)
    return _locate("rows.csv", schema, base)


def test_digest_follows_content_and_names_not_places(schema: Schema, tmp_path: Path) -> None:
    """A moved data set keeps its digest; another content, name or reading changes it."""
    (tmp_path / "elsewhere").mkdir()
    first = _located_of(CSV, schema, tmp_path).digest
    assert _located_of(CSV, schema, tmp_path / "elsewhere").digest == first
    assert _located_of(CSV + b"7,A1,1,0,no\n", schema, tmp_path).digest != first
    assert _located_of(CSV.replace(b"readmitted", b"back"), schema, tmp_path).digest != first


# ---------------------------------------------------------------- downloads


@dataclass
class Server:
    """A web server that answers as each test tells it, and remembers what it was asked."""

    url: str
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    asked: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.asked.append(dict(self.headers))
            assert state.answer is not None
            self.close_connection = True
            state.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that hangs up is part of these tests."""

    monkeypatch.setenv("NO_PROXY", "*")
    with Quiet(("127.0.0.1", 0), Handler) as http:
        state = Server(f"http://127.0.0.1:{http.server_address[1]}/rows.csv")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def _send(body: bytes, *, length: int | None = -1, status: int = 200, **headers: str) -> Callable[..., None]:
    """An answer; `length` is what the server claims, None for no claim."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        if length is not None:
            handler.send_header("Content-Length", str(len(body) if length == -1 else length))
        for name, value in {"Connection": "close", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def _in_turn(*answers: Callable[[BaseHTTPRequestHandler], None]) -> Callable[..., None]:
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def _stalls(handler: BaseHTTPRequestHandler) -> None:
    _send(CSV[:30], length=len(CSV))(handler)
    handler.wfile.flush()
    handler.connection.recv(1)  # until the client gives up


def _resets(handler: BaseHTTPRequestHandler) -> None:
    _send(CSV[:30], length=len(CSV))(handler)
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def _drops_at_once(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


def _kept_files(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "downloads").iterdir() if path.suffix != ".json")


def test_a_download_is_kept_by_content(server: Server, tmp_path: Path, schema: Schema) -> None:
    """The file is named by its sha256, is private unless the schema lists it, and reads like any other."""
    server.answer = _send(CSV)
    located = _locate(server.url, schema, tmp_path)
    digest = hashlib.sha256(CSV).hexdigest()
    assert [(file.name, file.sha256, file.bytes) for file in located.files] == [
        ("rows.csv", digest, len(CSV))
    ]
    assert located.kind == "private"
    assert _kept_files(tmp_path / "cache") == [digest]
    assert sources.read(located, schema)["stage"].tolist() == ["1", "2"]


def test_an_unchanged_download_is_not_sent_again(server: Server, tmp_path: Path) -> None:
    """The server's validators are sent back; after 304 the kept file serves, if it still has its content."""
    server.answer = _send(CSV, ETag='"v1"', Last_Modified="Tue, 01 Jan 2024 00:00:00 GMT")
    first = download(server.url, tmp_path, patience=IMPATIENT)
    server.answer = _send(b"", status=304, ETag='"v1"')
    assert download(server.url, tmp_path, patience=IMPATIENT) == first
    assert server.asked[-1]["If-None-Match"] == '"v1"'
    assert server.asked[-1]["If-Modified-Since"] == "Tue, 01 Jan 2024 00:00:00 GMT"
    first.path.write_bytes(CSV[:-1])
    server.answer = _send(CSV, ETag='"v1"')
    assert download(server.url, tmp_path, patience=IMPATIENT) == first
    assert "If-None-Match" not in server.asked[-1]
    assert first.path.read_bytes() == CSV


def test_new_content_at_an_address_is_noticed(server: Server, tmp_path: Path) -> None:
    """A server without validators is asked for everything again."""
    server.answer = _send(CSV)
    first = download(server.url, tmp_path, patience=IMPATIENT)
    server.answer = _send(CSV + b"7,A1,1,0,no\n")
    second = download(server.url, tmp_path, patience=IMPATIENT)
    assert first.sha256 != second.sha256
    assert first.path.read_bytes() == CSV


def test_a_stated_checksum_is_checked_and_spares_the_server(server: Server, tmp_path: Path) -> None:
    """A source of the schema is fetched once, and never taken with another content."""
    digest = hashlib.sha256(CSV).hexdigest()
    server.answer = _send(CSV + b"tampered")
    with pytest.raises(SourceError, match="its sha256 is .*, the schema says " + digest):
        download(server.url, tmp_path, digest, IMPATIENT)
    assert _kept_files(tmp_path) == []
    assert len(server.asked) == 1
    server.answer = _send(CSV)
    for _ in range(3):
        assert download(server.url, tmp_path, digest, IMPATIENT).sha256 == digest
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (_resets, "broke off 3 times|cannot be reached"),
        (_send(CSV[:30], length=len(CSV)), "broke off 3 times: .* announced 64 bytes and sent 30"),
        (_send(CSV, length=30), "broke off 3 times: .* announced 30 bytes and sent 64"),
        (
            _send(b"5\r\nstage\r\n40\r\nbroken", length=None, Transfer_Encoding="chunked"),
            "broke off 3 times: .* ended before",
        ),
    ],
    ids=["resets", "sends less than announced", "sends more than announced", "breaks off a chunk"],
)
def test_a_server_that_breaks_off_or_lies(server: Server, tmp_path: Path, bad: Any, says: str) -> None:
    """It is tried again, and what it sent whole is taken; if it never does, nothing is kept."""
    server.answer = _in_turn(bad, bad, _send(CSV))
    assert download(server.url, tmp_path, patience=IMPATIENT).path.read_bytes() == CSV
    assert len(server.asked) == 3
    server.answer = bad
    with pytest.raises(SourceError, match=says):
        download(f"{server.url}?again", tmp_path, patience=IMPATIENT)
    assert _kept_files(tmp_path) == [hashlib.sha256(CSV).hexdigest()]


def test_a_server_that_stalls(server: Server, tmp_path: Path) -> None:
    """Seconds without a byte end a try; the next may succeed."""
    server.answer = _in_turn(_stalls, _send(CSV))
    patience = Patience(connect=30, stall=1.0, tries=10, pause=0.0)
    assert download(server.url, tmp_path, patience=patience).path.read_bytes() == CSV
    server.answer = _stalls
    with pytest.raises(SourceError, match="no byte came in time"):
        download(
            f"{server.url}?again", tmp_path, patience=Patience(connect=30, stall=0.2, tries=2, pause=0.0)
        )
    assert _kept_files(tmp_path) == [hashlib.sha256(CSV).hexdigest()]


def test_passing_faults_are_tried_again(server: Server, tmp_path: Path) -> None:
    """An unavailable server and a dropped connection are passing faults."""
    server.answer = _in_turn(_send(b"later", status=503), _drops_at_once, _send(CSV))
    assert download(server.url, tmp_path, patience=IMPATIENT).path.read_bytes() == CSV


@pytest.mark.parametrize(
    ("answer", "asked", "says"),
    [
        (_send(b"gone", status=404), 1, "answered 404 Not Found"),
        (_send(b"no", status=403), 1, "answered 403 Forbidden"),
        (_send(b"ill", status=500), 3, "answered 500"),
        (_drops_at_once, 3, "cannot be reached"),
        (_send(b""), 1, "is empty"),
    ],
    ids=["404", "403", "500", "drops", "empty"],
)
def test_lasting_faults_are_said(server: Server, tmp_path: Path, answer: Any, asked: int, says: str) -> None:
    """The message names the address, without the secrets in it, and what was answered."""
    server.answer = answer
    address = server.url.replace("http://", "http://user:pass@") + "?token=secret"
    with pytest.raises(SourceError) as caught:
        download(address, tmp_path, patience=IMPATIENT)
    assert str(caught.value).startswith(server.url)
    assert says in str(caught.value)
    assert "pass" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(server.asked) == asked
    assert _kept_files(tmp_path) == []


def test_a_password_comes_from_netrc_and_never_from_a_parameter(
    server: Server, schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow records parameters: a URL with a user is refused with the remedy, which works."""
    with pytest.raises(SourceError, match=r"this run have recorded it.*\.netrc.*DATA_URI") as caught:
        Chain(None, schema, "", tmp_path).locate("http://user:hidden@127.0.0.1/rows.csv")  # type: ignore[arg-type]
    assert "hidden" not in str(caught.value)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.answer = _send(CSV)
    download(server.url, tmp_path, patience=IMPATIENT)
    assert server.asked[-1]["Authorization"] == "Basic dXNlcjpoaWRkZW4="


def test_nobody_listening_is_said(tmp_path: Path, server: Server) -> None:
    """A refused connection and an unknown host have their own words."""
    with pytest.raises(SourceError, match="connection was refused"):
        download("http://127.0.0.1:9/rows.csv", tmp_path, patience=IMPATIENT)
    with pytest.raises(SourceError, match="host name is unknown"):
        download("http://no-such-host.invalid/rows.csv", tmp_path, patience=Patience(tries=1))
