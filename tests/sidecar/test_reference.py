"""Reading reference.json and binning rows."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring import reference as reference_file
from monitoring.reference import (
    MISSING,
    OUT_OF_RANGE,
    UNKNOWN,
    Reference,
    load,
    parse,
)
from tests.made_up.sidecars import small_document

NUMBERS = st.one_of(st.floats(), st.integers(-5, 105).map(float), st.sampled_from([12.0, 22.0, 30.0, 98.0]))
FEATURES = {feature.name: feature for feature in parse(small_document()).features}


def test_a_numeric_value_falls_into_the_bin_whose_lower_edge_it_reaches(reference: Reference) -> None:
    """Inner edges belong to the upper bin, both ends of the range to the outer bins."""
    values = np.array([12, 21.9, 22, 29.9, 30, 98])
    assert reference.features[0].bin(values).tolist() == [0, 0, 1, 1, 2, 2]


def test_values_that_are_in_no_bin_have_a_fate_of_their_own(reference: Reference) -> None:
    """Missing, out of range and unknown level are told apart and never counted in a bin."""
    bmi, age, city = reference.features
    assert bmi.bin(np.array([np.nan, 11.9, 98.1, np.inf, -np.inf])).tolist() == [
        MISSING,
        *[OUT_OF_RANGE] * 4,
    ]
    assert age.bin(np.array([3, 1, 2, 9, np.nan, 4, 1.5, np.inf])).tolist() == [
        0,
        1,
        2,
        MISSING,
        MISSING,
        UNKNOWN,
        UNKNOWN,
        UNKNOWN,
    ]
    texts = np.array(["Oslo", "Bergen", "unknown", None, math.nan, "Paris", ""], dtype=object)
    assert city.bin(texts).tolist() == [0, 1, MISSING, MISSING, MISSING, UNKNOWN, UNKNOWN]


def test_counts_add_up_to_the_values_given(reference: Reference) -> None:
    """Every value has exactly one fate."""
    counts = reference.features[0].count(np.array([13.0, 25.0, 25.0, 200.0, np.nan]))
    assert (counts.bins.tolist(), counts.missing, counts.out_of_range, counts.unknown) == ([1, 2, 0], 1, 1, 0)
    nothing = reference.features[2].count(np.array([], dtype=object))
    assert (nothing.bins.tolist(), *nothing[1:]) == ([0, 0], 0, 0, 0)


@pytest.mark.parametrize("name", ["BMI", "Age"])
@given(values=st.lists(NUMBERS, max_size=20))
def test_one_value_is_binned_as_in_an_array(name: str, values: list[float]) -> None:
    """The way for single rows and the way for many agree on any number."""
    feature = FEATURES[name]
    assert [feature.bin_value(value) for value in values] == feature.bin(np.array(values)).tolist()


def test_a_risk_falls_into_the_bin_whose_lower_edge_it_reaches_and_one_into_the_last(
    reference: Reference,
) -> None:
    """The last bin is closed; what is no number from 0 to 1 is in none."""
    risks = np.array([0.0, 0.19, 0.2, 0.5, 1.0, -0.1, 1.1, np.nan])
    assert reference.score.bin(risks).tolist() == [0, 0, 1, 2, 2, -1, -1, -1]
    assert [reference.score.bin_value(risk) for risk in risks] == reference.score.bin(risks).tolist()


def test_a_value_belongs_to_the_group_of_its_level_or_range(
    reference: Reference, document: dict[str, Any]
) -> None:
    """Counted from 1; 0 for a missing, unknown or invalid value, and for one that no group names."""
    by_age = reference.groups
    assert by_age is not None
    assert [by_age.index_of(value) for value in (1.0, 2.0, 3.0, 9.0, 4.0, None)] == [1, 1, 2, 0, 0, 0]
    ranges = [{"name": "thin", "maximum": 20}, {"name": "heavy", "minimum": 30, "maximum": None}]
    document["groups"] = {"feature": "BMI", "members": ranges}
    by_bmi = parse(document).groups
    assert by_bmi is not None
    assert [by_bmi.index_of(value) for value in (20.0, 20.1, 30.0, 98.0, 99.0, float("nan"))] == [
        1,
        0,
        2,
        2,
        0,
        0,
    ]
    assert by_bmi.key != by_age.key
    document["groups"] = {"feature": "city", "members": [{"name": "coast", "levels": ["Bergen"]}]}
    by_city = parse(document).groups
    assert by_city is not None
    assert [by_city.index_of(value) for value in ("Bergen", "Oslo", "unknown", None)] == [1, 0, 0, 0]


def test_groups_are_written_as_they_are_read(reference: Reference, document: dict[str, Any]) -> None:
    """By the one writer; a reference of before has none, and says nothing of them."""
    assert reference_file.document(reference)["groups"] == document["groups"]
    del document["groups"]
    assert parse(document).groups is None
    assert "groups" not in reference_file.document(parse(document))


def test_bins_have_words(reference: Reference) -> None:
    """Labels of levels, ranges of numbers, levels themselves where nobody gave labels; ranges of risk."""
    assert [feature.words for feature in reference.features] == [
        ("12 to below 22", "22 to below 30", "30 to 98"),
        ("old", "young", "middle"),
        ("Oslo", "Bergen"),
    ]
    assert reference.score.words == ("0 to 20 %", "20 to 50 %", "50 to 100 %")


def test_a_reference_is_read_from_a_file(tmp_path: Path, document: dict[str, Any]) -> None:
    """What `load` reads is what `parse` makes of the document."""
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert load(path) == parse(document)
    assert load(path).raw == document


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 2}'])
def test_a_file_that_is_no_reference_is_refused(tmp_path: Path, content: str | None) -> None:
    """Absent, no JSON, another shape, another format: a ReferenceError each."""
    path = tmp_path / "reference.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(reference_file.ReferenceError):
        load(path)


def test_every_problem_of_a_reference_is_named_at_once(document: dict[str, Any]) -> None:
    """One message lists what is wrong with features, score and parts that are absent."""
    broken = copy.deepcopy(document)
    broken["features"][0]["edges"] = [30.0, 22.0]
    del broken["features"][1]["levels"]
    broken["features"][2]["counts"] = [1]
    broken["score"]["threshold"] = 0.4
    broken["golden"]["columns"] = ["BMI"]
    del broken["model"]
    with pytest.raises(reference_file.ReferenceError) as raised:
        parse(broken)
    for part in (
        "feature BMI: edges",
        "feature Age: levels is absent",
        "feature city: counts",
        "threshold is not the lower edge",
        "model is absent",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("features", 0, "bins"), ["a", "a", "b"]),
        (("features", 0, "minimum"), 99),
        (("features", 0, "kind"), "other"),
        (("features", 0, "type"), "string"),
        (("features", 1, "name"), "BMI"),
        (("features", 1, "missing"), -1),
        (("features",), []),
        (("features", 0), 3),
        (("score", "edges"), [0.0, 0.5, 0.2, 1.0]),
        (("score", "edges"), [0.1, 0.2, 0.5, 1.0]),
        (("score", "sums"), [1.0]),
        (("floors",), {"roc_auc": None}),
        (("golden", "rows"), [[1]]),
        (("model", "trained_at"), "yesterday"),
        (("groups", "feature"), "weight"),
        (("groups", "members"), []),
        (("groups", "members"), [{"name": str(number), "levels": [1]} for number in range(21)]),
        (("groups", "members"), [{"name": "a", "levels": [1]}, {"name": "a", "levels": [2]}]),
        (("groups", "members"), [{"name": "a", "levels": [7]}]),
        (("groups", "members"), [{"name": "a", "minimum": 1}]),
    ],
)
def test_a_reference_that_breaks_a_rule_is_refused(
    document: dict[str, Any], path: tuple[Any, ...], value: object
) -> None:
    """Whatever would make binning or series wrong is found when the file is read."""
    part: Any = document
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(reference_file.ReferenceError):
        parse(document)
