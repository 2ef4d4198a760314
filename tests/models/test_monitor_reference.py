"""`reference.json` holds what its own reader counts, and nothing that is anybody's."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monitoring import reference as reader
from steps.data.disclosure import coarse, coarse_parts
from steps.data.schema import MOST_MONITORED_GROUPS, Schema, Subgroup
from steps.models import families, fitting, monitor_reference
from steps.models.fitting import Fitted
from tests.made_up.clinic import clinic_schema
from tests.made_up.clinic_models import clinic_frame

INFO = {
    "name": "readmission-synthetic",
    "version": None,
    "run_id": "0" * 32,
    "family": "logistic_regression",
    "trained_at": 1790000000,
    "synthetic": True,
    "kind": "synthetic",
    "data_digest": "0123456789abcdef",
}


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


@pytest.fixture(scope="module")
def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    return clinic_frame(1500, 1), clinic_frame(700, 2)


@pytest.fixture(scope="module")
def fitted(schema: Schema, frames: tuple[pd.DataFrame, pd.DataFrame]) -> Fitted:
    return fitting.fit_model("logistic_regression", {}, fitting.Parts(*frames), schema, recall=0.8, seed=0)


@pytest.fixture(scope="module")
def document(schema: Schema, frames: tuple[pd.DataFrame, pd.DataFrame], fitted: Fitted) -> dict[str, Any]:
    return reader.document(
        monitor_reference.build_reference(
            fitted.model, *frames, schema, threshold=fitted.threshold, info=INFO
        )
    )


def test_it_is_json_that_its_reader_takes(document: dict[str, Any], tmp_path: Any) -> None:
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(document, allow_nan=False))
    assert reader.load(path).raw == document
    assert document["model"]["digest"] != ""
    assert document["data"]["rows"] == {"train": 1500, "validation": 700}


def test_the_readers_binning_gives_the_builders_shares_back(
    document: dict[str, Any], frames: tuple[pd.DataFrame, pd.DataFrame], fitted: Fitted, schema: Schema
) -> None:
    """Exactly, for features of training rows and scores of validation rows; nobody falls beside the bins."""
    train, validation = frames
    parsed = reader.parse(document)
    for feature in parsed.features:
        counts = feature.count(train[feature.name].to_numpy(dtype=object if feature.is_text else float))
        assert coarse_parts([*counts.bins, counts.missing]).tolist() == [*feature.counts, feature.missing]
        assert counts.missing == train[feature.name].isna().sum()
        assert counts.out_of_range == counts.unknown == 0
    risk = families.predict_risk(fitted.model, validation[list(schema.feature_names)])
    place = parsed.score.bin(risk)
    rows = np.bincount(place, minlength=len(parsed.score.bins))
    assert coarse(rows).tolist() == list(parsed.score.counts)
    means = np.bincount(place, weights=risk, minlength=len(rows)) / rows
    assert np.array(parsed.score.sums) / parsed.score.counts == pytest.approx(means, rel=1e-3)
    hits = np.bincount(place, weights=validation["__target__"], minlength=len(rows))
    assert coarse(hits).tolist() == list(parsed.score.positives)


def test_the_threshold_parts_the_score_bins(
    document: dict[str, Any], frames: tuple[pd.DataFrame, pd.DataFrame], fitted: Fitted, schema: Schema
) -> None:
    """Rows in bins from `threshold_bin` on are exactly those that the decision flags."""
    score = reader.parse(document).score
    risk = families.predict_risk(fitted.model, frames[1][list(schema.feature_names)])
    assert ((score.bin(risk) >= score.threshold_bin) == (risk >= fitted.threshold)).all()
    assert len(score.bins) == 20
    assert min(score.counts) > 0
    assert document["validation"]["recall"] >= 0.8


def test_golden_rows_come_from_the_schema_with_the_models_scores(
    document: dict[str, Any], fitted: Fitted, schema: Schema
) -> None:
    golden = document["golden"]
    rows = families.example_rows(schema, 8, nulls=True)
    assert [[None if cell != cell else cell for cell in row] for row in rows.to_numpy().tolist()] == golden[
        "rows"
    ]
    assert golden["scores"] == families.predict_risk(fitted.model, rows).tolist()
    assert any(None in row for row in golden["rows"])


def test_edges_are_rounded_deciles_within_the_schemas_range(document: dict[str, Any]) -> None:
    glucose = document["features"][0]
    assert glucose["bins"][0].startswith("[2,")
    assert glucose["bins"][-1].endswith(",40]")
    assert len(glucose["edges"]) == 9
    assert all(edge == round(edge, 1) for edge in glucose["edges"])
    ward = document["features"][1]
    assert (ward["bins"], ward["labels"]) == (["A1", "B2", "NA"], ["surgery", "medicine", "not assigned"])


@pytest.mark.parametrize(
    ("values", "edges"),
    [
        ([0.0] * 80 + [5.0] * 20, [5.0]),  # ties share a bin
        ([0.0] * 100, []),
        ([7.0] * 100, []),
        ([30.0] * 100, []),
        ([np.nan] * 5, []),
        ([0.0] * 5 + [30.0] * 95, [30.0]),
        ([1.00001, 1.00002, 1.00003] * 10, []),  # nobody's own digits
    ],
)
def test_no_bin_of_training_rows_is_empty(values: list[float], edges: list[float], schema: Schema) -> None:
    found = monitor_reference.inner_edges(np.array(values), 0.0, 30.0)
    assert found == edges


def test_no_edge_is_one_persons_value() -> None:
    """A decile of real values is somebody's, with decimals that nobody else has; edges are on a grid."""
    values = np.random.default_rng(3).uniform(2, 90, 2000).round(2)
    edges = monitor_reference.inner_edges(values, 2.0, 100.0)
    assert len(edges) == 9
    assert edges == sorted(set(edges))
    assert set(edges).isdisjoint(values[values != values.round(1)])
    counts = np.histogram(values, [2.0, *edges, 100.0])[0]
    assert counts.min() > 180


@pytest.mark.parametrize("threshold", [0.000001, 0.3, 0.5, 0.999999])
@pytest.mark.parametrize("distinct", [1, 3, 1000])
def test_score_edges_ascend_from_0_to_1_with_the_threshold_among_them(
    distinct: int, threshold: float
) -> None:
    """Also where a calibration leaves few distinct risks, 0 and 1 among them."""
    risk = np.repeat(np.linspace(0, 1, distinct), 1000 // distinct)
    edges = monitor_reference.score_edges(risk, threshold)
    assert edges == sorted(set(edges))
    assert (edges[0], edges[-1]) == (0.0, 1.0)
    assert threshold in edges
    assert len(edges) <= 21


def test_the_groups_that_the_schema_names_are_in_the_reference_and_no_other(
    schema: Schema, frames: tuple[pd.DataFrame, pd.DataFrame], fitted: Fitted, document: dict[str, Any]
) -> None:
    """People are placed by the reference as the schema's own masks place them."""
    assert "groups" not in document
    assert reader.MOST_GROUPS == MOST_MONITORED_GROUPS
    subgroups = (Subgroup("surgery", "ward", ("A1",)), Subgroup("others", "ward", ("B2", "NA")))
    by_group = dataclasses.replace(schema, monitor_by="ward", subgroups=subgroups)
    made = monitor_reference.build_reference(
        fitted.model, *frames, by_group, threshold=fitted.threshold, info=INFO
    )
    groups = reader.parse(json.loads(json.dumps(reader.document(made)))).groups
    assert groups is not None
    assert groups.names == tuple(group.name for group in by_group.monitored_groups)
    places = np.array([groups.index_of(value) for value in frames[0]["ward"]])
    for number, group in enumerate(by_group.monitored_groups, 1):
        assert (group.mask(frames[0]) == (places == number)).all()
    again = monitor_reference.recalibrated_reference(
        made, fitted.model, frames[1], by_group, threshold=fitted.threshold, run_id="1", trained_at=1
    )
    assert again.groups == made.groups


def test_columns_that_require_an_answer_are_named_and_no_other(
    schema: Schema, frames: tuple[pd.DataFrame, pd.DataFrame], fitted: Fitted, document: dict[str, Any]
) -> None:
    """Without one, the document is what readers of before the key wrote themselves."""
    assert not any("required" in feature for feature in document["features"])
    first = dataclasses.replace(schema.columns[0], required=True)
    asking = dataclasses.replace(schema, columns=(first, *schema.columns[1:]))
    made = monitor_reference.build_reference(
        fitted.model, *frames, asking, threshold=fitted.threshold, info=INFO
    )
    assert [feature.name for feature in made.features if feature.required] == [first.name]
    assert reader.parse(reader.document(made)) == made
