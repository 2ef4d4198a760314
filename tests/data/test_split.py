"""The split follows from the values of a row and from nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data import split
from tests.made_up.clinic import clinic_rows, clinic_schema

if TYPE_CHECKING:
    from steps.data.schema import Schema


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


ROW = st.fixed_dictionaries(
    {
        "glucose": st.one_of(
            st.just(0), st.integers(2, 40), st.integers(20, 400).map(lambda tenth: tenth / 10)
        ),
        "ward": st.sampled_from(["A1", "B2", "NA", "?", None]),
        "stage": st.sampled_from([1, 2, 3, 9, None]),
        "smoker": st.sampled_from([0, 1, None]),
    }
)
ROWS = st.lists(ROW, min_size=1, max_size=30)


def _as_float_text(value: object) -> str | None:
    return None if value is None else f" {float(value)} "  # type: ignore[arg-type]


def _as_short_text(value: object) -> str:
    return "" if value is None else f"{value:g}"


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_one_value_in_several_spellings_is_one_value(schema: Schema, rows: list[dict[str, object]]) -> None:
    """1, 1.0, "1", "1.0", a category, a nullable integer and the codes for missing lead to the same keys."""
    plain = pd.DataFrame(rows, dtype=object)
    expected = split.row_keys(plain, schema)
    numeric = ["glucose", "stage", "smoker"]
    floats = plain.assign(**{name: plain[name].astype(float) for name in numeric})
    long_text = plain.assign(**{name: plain[name].map(_as_float_text) for name in numeric})
    short_text = plain.assign(**{name: plain[name].map(_as_short_text) for name in numeric})
    codes_as_null = floats.assign(
        glucose=floats["glucose"].replace(0, np.nan),
        stage=floats["stage"].replace(9, np.nan),
        ward=plain["ward"].map(lambda word: None if word == "?" else word),
    )
    single = floats.assign(glucose=floats["glucose"].astype(np.float32))
    categories = short_text.astype(dict.fromkeys(numeric, "category"))
    nullable = plain.assign(**{name: plain[name].astype("Int64") for name in ("stage", "smoker")})
    for frame in (floats, long_text, short_text, codes_as_null, single, categories, nullable):
        assert split.row_keys(frame, schema).tolist() == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, more=ROWS, seed=st.integers(0, 1000))
def test_a_row_keeps_its_part_when_data_grow_or_move(
    schema: Schema, rows: list[dict[str, object]], more: list[dict[str, object]], seed: int
) -> None:
    """Order of rows and columns, rows added before and after, and other columns change no row's part."""
    frame = pd.DataFrame(rows, dtype=object)
    parts = split.assign(frame, schema)
    order = np.random.default_rng(seed).permutation(len(frame))
    assert split.assign(frame.iloc[order], schema).tolist() == parts[order].tolist()
    assert split.assign(frame[frame.columns[::-1]].assign(note="x"), schema).tolist() == parts.tolist()
    grown = pd.concat(
        [pd.DataFrame(more, dtype=object), frame, pd.DataFrame(more, dtype=object)], ignore_index=True
    )
    assert split.assign(grown, schema)[len(more) : len(more) + len(rows)].tolist() == parts.tolist()


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, outcomes=st.randoms(use_true_random=False))
def test_repeats_never_straddle(schema: Schema, rows: list[dict[str, object]], outcomes: object) -> None:
    """Rows alike in their features share a part, whatever their outcome."""
    frame = pd.DataFrame(rows * 3, dtype=object)
    frame["readmitted"] = [outcomes.choice(["no", "yes"]) for _ in range(len(frame))]  # type: ignore[attr-defined]
    first, second, third = np.split(split.assign(frame, schema), 3)
    assert first.tolist() == second.tolist() == third.tolist()


def test_parts_take_sixty_twenty_twenty(schema: Schema) -> None:
    """Shares of distinct rows are 60, 20 and 20 per cent, within chance (four standard errors)."""
    rows = clinic_rows(40_000).assign(glucose=2 + np.arange(40_000) / 2_000)
    shares = np.bincount(split.assign(rows, schema), minlength=3) / len(rows)
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.01)


def test_every_feature_counts_and_the_target_does_not(schema: Schema) -> None:
    """A change of any one feature changes the key; one of the outcome does not; swapped values do."""
    row = pd.DataFrame(
        {"glucose": [3.0], "ward": ["A1"], "stage": [1.0], "smoker": [0.0], "readmitted": ["no"]}
    )
    key = split.row_keys(row, schema)[0]
    for change in (
        {"glucose": 3.1},
        {"ward": "B2"},
        {"stage": 2.0},
        {"smoker": None},
        {"stage": 0.0, "smoker": 1.0},
    ):
        assert split.row_keys(row.assign(**change), schema)[0] != key
    assert split.row_keys(row.assign(readmitted="yes"), schema)[0] == key


def test_keys_are_the_ones_of_every_earlier_release(schema: Schema) -> None:
    """The keys of these rows must never change: a changed key moves people between training and test."""
    rows = pd.DataFrame(
        {
            "glucose": [5.5, 0, 40, -0.0],
            "ward": ["A1", "NA", "?", None],
            "stage": [1, 2, 9, None],
            "smoker": [0, 1, None, None],
        }
    )
    keys = split.row_keys(rows, schema)
    assert [f"{key:016x}" for key in keys] == [
        "35eba2d76e5f582b",
        "5447d251b10c7a96",
        "b24bbf8abae63da5",
        "8147e8ed00a09ca3",
    ]
    assert split.part(keys).tolist() == [0, 0, 1, 0]


def test_mix_is_splitmix64() -> None:
    """The first outputs of SplitMix64 seeded with 0 (reference implementation by S. Vigna)."""
    step = np.uint64(0x9E3779B97F4A7C15)
    states = np.arange(3, dtype=np.uint64) * step
    assert [f"{value:016x}" for value in split.mix(states)] == [
        "e220a8397b1dcdaf",
        "6e789e6aa1b965f4",
        "06c45d188009454f",
    ]
