"""Another data set from its schema alone, data that cannot be used, and no row anywhere but in the cache."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from steps import preprocess as preprocess_step
from steps.chain import process
from tests.conftest import ROOT, check_out
from tests.made_up.clinic import SCHEMA

# A glucose that nobody else has, and a column that no schema knows.
CANARY, CANARY_NAME = 33.3712345678, "Canary Finch"


def clinic_people(count: int) -> pd.DataFrame:
    """Readmission follows from glucose, ward and stage; a few have no outcome, and one is the canary."""
    rng = np.random.default_rng(5)
    glucose = np.where(rng.random(count) < 0.1, 0.0, rng.uniform(2, 40, count).round(2))
    ward, stage = rng.choice(["A1", "B2", "NA", "?"], count), rng.choice([1, 2, 3, 9], count)
    log_odds = 0.12 * (glucose - 22) * (glucose > 0) + np.where(ward == "B2", 1.2, 0) + 0.5 * (stage == 3) - 1
    outcome = np.where(rng.random(count) < 1 / (1 + np.exp(-log_odds)), "yes", "no").astype(object)
    outcome[rng.random(count) < 0.02] = None
    smoker = rng.choice([0.0, 1.0, np.nan], count)
    frame = pd.DataFrame(
        {
            "glucose": glucose,
            "ward": ward,
            "stage": stage,
            "smoker": smoker,
            "readmitted": outcome,
            "name": "x",
        }
    )
    frame.loc[7, ["glucose", "readmitted", "name"]] = [CANARY, "yes", CANARY_NAME]
    return frame


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder but those of the cache, and every member of the archives among them."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or ".cache" in path.relative_to(folder).parts:
            continue
        yield path, path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield path / name, archive.read(name)


def test_another_data_set_runs_from_its_schema_alone_and_no_row_leaves_the_cache(tmp_path: Path) -> None:
    """Text columns, real values, sentinels, rows without outcome, another target: all from one YAML file.

    The canary, as text and as the eight bytes of a float, is in no artifact, log, report, model or database,
    and no edge of a bin is a glucose with decimals of its own.
    """
    checkout = check_out(tmp_path / "project")
    (checkout.folder / "data" / "clinic.yaml").write_text(SCHEMA, encoding="utf-8")
    data = tmp_path / "people.csv"
    clinic_people(3000).to_csv(data, index=False)
    code, output = checkout.mlflow_run(
        schema="data/clinic.yaml", data=data, max_evals=3, replicates=100, parallelism=2
    )
    assert code == 0, output
    client = mlflow.MlflowClient(checkout.tracking_uri, checkout.tracking_uri)
    version = client.get_model_version_by_alias("readmission", "champion")
    assert version.tags["data_kind"] == "private"
    (measured,) = client.search_runs(["0"], "tags.step = 'evaluate' and tags.model = 'tuned'")
    assert measured.data.metrics["roc_auc"] > 0.75

    folder = Path(client.get_run(version.run_id).info.artifact_uri.removeprefix("file://"))
    edges = json.loads((folder / "reference.json").read_text(encoding="utf-8"))["features"][0]["edges"]
    glucose = pd.read_csv(data)["glucose"]
    assert len(edges) == 9
    assert set(edges).isdisjoint(glucose[glucose != glucose.round(1)])

    (checkout.folder / "output.txt").write_text(output, encoding="utf-8")
    forbidden = {
        repr(CANARY).encode()[:9],
        CANARY_NAME.encode(),
        struct.pack("<d", CANARY),
        struct.pack("<f", CANARY),
    }
    found = {
        str(path) for path, content in contents(checkout.folder) for mark in forbidden if mark in content
    }
    assert not found
    assert any(CANARY_NAME.encode() not in content for _, content in contents(checkout.folder))
    cached = [pd.read_parquet(path) for path in checkout.folder.rglob(".cache/datasets/*/*.parquet")]
    assert any((frame.get("glucose") == CANARY).any() for frame in cached), "the canary was never there"


Preprocess = Callable[[Path], tuple[int, str]]


@pytest.fixture
def preprocess(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Preprocess]:
    """Exit code and output of the step with a file as its data; a traceback would fail the test."""
    uri = f"sqlite:///{store_folder / 'mlflow.db'}"
    monkeypatch.chdir(store_folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("ROWS_CACHE", str(store_folder / "cache"))
    mlflow.set_tracking_uri(uri)

    def ask(path: Path) -> tuple[int, str]:
        code = process.execute("preprocess", preprocess_step.work, ["--data", str(path)])
        out, err = capfd.readouterr()
        return code, out + err

    yield ask
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    return pd.read_parquet(ROOT / "data" / "cohort.parquet").head(3000)


def written(frame: pd.DataFrame, folder: Path) -> Path:
    path = folder / "people.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="BMI"), "- BMI"),
        (
            lambda frame: frame.assign(BMI=["heavy"] * 500 + [27] * (len(frame) - 500)),
            "BMI: not a number: 500",
        ),
        (lambda frame: frame.assign(Diabetes_012=0), "needs both outcomes"),
        (lambda frame: frame.head(0), "no rows"),
    ],
    ids=["missing column", "text in a number", "one outcome only", "no rows"],
)
def test_rows_that_cannot_be_used_are_an_error_that_names_the_thing(
    preprocess: Preprocess, people: pd.DataFrame, tmp_path: Path, change: Any, said: str
) -> None:
    """Exit code 1, one message, no traceback and no value of anybody's."""
    code, output = preprocess(written(change(people), tmp_path))
    assert code == 1, output
    assert said in output.partition("preprocess: error:")[2]
    assert "heavy" not in output


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (0 bytes)"),
        ("BMI,Größe\n1,2\n".encode("latin-1"), "is not UTF-8 text"),
        (None, "there is no file, folder or match"),
    ],
    ids=["empty", "not UTF-8", "absent"],
)
def test_a_file_that_cannot_be_read_is_an_error_that_says_why(
    preprocess: Preprocess, tmp_path: Path, content: bytes | None, said: str
) -> None:
    """Exit code 1 and the remedy."""
    path = tmp_path / "people.csv"
    if content is not None:
        path.write_bytes(content)
    code, output = preprocess(path)
    assert code == 1, output
    assert said in output.partition("preprocess: error:")[2]


def test_a_column_too_many_is_told_and_an_impossible_value_set_apart(
    preprocess: Preprocess, people: pd.DataFrame, tmp_path: Path
) -> None:
    """Neither stops the chain: the one is ignored with a warning, the other counted, with its reason kept."""
    frame = people.assign(Nickname="Finch")
    frame["BMI"] = frame["BMI"].astype(float)
    frame.loc[frame.index[5], "BMI"] = 412.5
    code, output = preprocess(written(frame, tmp_path))
    assert code == 0, output
    assert "columns that the schema does not know were ignored: Nickname" in output
    assert "BMI: out of range 12 to 99: fewer than 10 rows" in output
    assert "412" not in output
    assert "Finch" not in output
