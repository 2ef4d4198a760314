"""Drift: quiet on the same people, and every scenario of the schema gets its verdict and its names."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monitoring import reference as references
from monitoring.reference import Reference
from monitoring.simulation import people as cohort
from monitoring.simulation.people import Facts
from steps.chain import parameters
from steps.chain.values import Drift as DriftValues
from steps.data import validation as validate
from steps.data.files import TARGET_COLUMN
from steps.data.schema import Schema
from steps.data.schema_file import load
from steps.measures import drift as drifting
from steps.measures import evidence, metrics
from steps.measures.drift import Incoming, Limits
from steps.models import families, fitting
from steps.models.monitor_reference import build_reference
from steps.reports import drift
from tests.conftest import ROOT

_DEFAULTS = parameters.given(DriftValues, ROOT, {})
LIMITS = Limits(**{name: getattr(_DEFAULTS, name) for name in drifting.LIMITS})


@dataclass(frozen=True)
class Known:
    """A model of 15,000 made people, and what it was made from."""

    schema: Schema
    facts: Facts
    model: Any
    reference: Reference
    train: pd.DataFrame

    def people(
        self, rows: int, seed: int, scenario: str = "steady", day: float | None = None
    ) -> pd.DataFrame:
        """Rows as a file would hold them."""
        return cohort.generate(self.facts, self.schema, rows, seed, self.schema.scenario(scenario), day)

    def incoming(self, raw: pd.DataFrame, labelled: bool = True) -> Incoming:
        """The rows, checked and scored."""
        schema = self.schema
        checked = validate.check(
            raw, schema, schema.target.name, schema.target.positive, require_target=False
        )
        risk = families.predict_risk(self.model, checked.valid[list(schema.feature_names)])
        outcome = drifting.outcome_of(checked.valid, TARGET_COLUMN) if labelled else None
        return Incoming(checked.valid, risk, outcome, len(raw), checked.problems)

    def compared(self, incoming: Incoming, jointly: bool = False, limits: Limits = LIMITS) -> dict[str, Any]:
        """The document; with `jointly` old and new are told apart by a classifier as well."""
        return drifting.compare(
            self.reference, incoming, self.schema, limits, trained_on=self.train if jointly else None, seed=0
        )


@pytest.fixture(scope="module")
def known() -> Known:
    schema = load(ROOT / "data" / "brfss2015.yaml")
    facts = cohort.read_facts(schema, ROOT)
    raw = cohort.generate(facts, schema, 21_000, 5)
    rows = validate.check(raw, schema, schema.target.name, schema.target.positive).valid
    train, validation = rows.iloc[:15_000], rows.iloc[15_000:]
    fitted = fitting.fit_model(
        "logistic_regression", {}, train, validation, schema, recall=0.8, seed=0, threads=1
    )
    info = {
        "name": "diabetes-risk-synthetic",
        "version": None,
        "run_id": "none",
        "family": fitted.family,
        "trained_at": 0,
        "synthetic": True,
        "kind": "synthetic",
        "data_digest": "none",
    }
    document = build_reference(fitted.model, train, validation, schema, threshold=fitted.threshold, info=info)
    return Known(schema, facts, fitted.model, references.parse(document), train)


# What each scenario of the schema is worth, without labels and with them.
VERDICTS = {
    "steady": ("quiet", "quiet"),
    "flash-crowd": ("quiet", "quiet"),
    "ageing-population": ("retrain", "retrain"),
    "obesity-wave": ("retrain", "retrain"),
    "broken-sensor": ("retrain", "retrain"),
    # Labels show what missing answers do to the risks: they count as common ones, so the risks are too low.
    "missing-questions": ("watch", "retrain"),
    "concept-shift": ("quiet", "retrain"),
    "garbage": ("watch", "watch"),
}
BROKEN = {"missing-questions": {"GenHlth", "Income"}, "garbage": {"BMI", "Age", "HighBP"}}


def test_every_scenario_of_the_schema_has_a_verdict_here(known: Known) -> None:
    """A new scenario must say what drift makes of it."""
    assert {scenario.name for scenario in known.schema.scenarios} == set(VERDICTS)


@pytest.mark.parametrize("name", VERDICTS)
def test_each_scenario_gets_its_verdict_and_names_its_features(name: str, known: Known) -> None:
    """Of 12,000 people; concept shift is invisible without labels, and plain with them."""
    raw = known.people(12_000, 9, name)
    with_labels = known.incoming(raw)
    without = known.compared(replace(with_labels, outcome=None))
    realised = known.compared(with_labels)
    assert (without["verdict"], realised["verdict"]) == VERDICTS[name]
    assert set(known.schema.scenario(name).drifts) <= set(without["drifted"])
    assert set(without["broken"]) == BROKEN.get(name, set())
    if name in ("steady", "flash-crowd", "concept-shift", "missing-questions", "garbage"):
        assert without["drifted"] == []
    if name == "concept-shift":
        assert {reason["about"] for reason in realised["reasons"]} == {"ROC AUC", "calibration"}


def _quiet_halves(known: Known, tries: int, rows: int, jointly: bool) -> int:
    """In how many tries a fresh half of the same people is quiet."""
    quiet = 0
    for seed in range(tries):
        people = known.people(2 * rows, 1000 + seed)
        half = people.iloc[np.sort(np.random.default_rng(seed).permutation(len(people))[:rows])]
        quiet += known.compared(known.incoming(half.reset_index(drop=True)), jointly)["verdict"] == "quiet"
    return quiet


def test_a_fresh_random_half_of_the_same_people_is_quiet(known: Known) -> None:
    """Small and large halves, 16 in all; the large count is in the soak tests."""
    assert _quiet_halves(known, 8, 300, jointly=False) == 8
    assert _quiet_halves(known, 6, 3000, jointly=False) == 6
    assert _quiet_halves(known, 2, 2000, jointly=True) == 2


@pytest.mark.soak
def test_a_hundred_fresh_halves_are_quiet(known: Known) -> None:
    """At least 99 of 100, of 15,000 people each, joint comparison included."""
    assert _quiet_halves(known, 100, 15_000, jointly=True) >= 99


@pytest.mark.parametrize(
    ("scenario", "day"),
    [("steady", None), ("obesity-wave", None), ("ageing-population", 22.0)],
)
def test_expected_performance_is_close_to_the_realised_under_covariate_shift(
    scenario: str, day: float | None, known: Known
) -> None:
    """ROC AUC without labels within 0.01 of that with them, at 100,000 rows; recall within 0.02."""
    found = known.compared(known.incoming(known.people(100_000, 77, scenario, day)))
    assert found["expected"]["roc_auc"] == pytest.approx(found["realised"]["roc_auc"], abs=0.01)
    assert found["expected"]["recall"] == pytest.approx(found["realised"]["recall"], abs=0.02)


def test_expected_roc_auc_is_the_mean_over_outcomes_drawn_with_the_risks() -> None:
    """What calibrated risks promise, by simulation."""
    generator = np.random.default_rng(0)
    risk = generator.beta(1, 5, 3000)
    drawn = [metrics.roc_auc(generator.random(3000) < risk, risk) for _ in range(200)]
    assert drifting.expected_roc_auc(risk) == pytest.approx(np.mean(drawn), abs=0.002)


def test_the_figures_are_those_of_the_evidence_module(known: Known) -> None:
    """One formula for the report and for the monitoring's rules."""
    incoming = known.incoming(known.people(2000, 3, "obesity-wave"))
    found = known.compared(incoming)
    for feature, entry in zip(known.reference.features, found["features"], strict=True):
        counts = feature.count(incoming.frame[feature.name].to_numpy(dtype=np.float64)).bins
        assert entry["psi"] == evidence.psi(counts, feature.counts)
        assert entry["evidence"] == evidence.drift_evidence(counts, feature.counts)
    score = np.bincount(known.reference.score.bin(incoming.risk), minlength=20)
    assert found["score"]["psi"] == evidence.psi(score, known.reference.score.counts)


def test_the_classifier_sees_what_no_column_shows(known: Known) -> None:
    """Two columns keep their shares but lose their association: no feature has moved, yet new is told from
    old.
    """
    raw = known.people(12_000, 4)
    order = np.random.default_rng(0).permutation(len(raw))
    for name in ("GenHlth", "Age", "HighBP"):
        raw[name] = raw[name].to_numpy()[np.random.default_rng(len(name)).permutation(len(raw))]
    raw["PhysHlth"] = raw["PhysHlth"].to_numpy()[order]
    found = known.compared(known.incoming(raw, labelled=False), jointly=True)
    assert found["drifted"] == []
    assert "separability" in {reason["about"] for reason in found["reasons"]}
    assert found["domain"]["roc_auc"] > 0.6


def test_without_training_rows_all_but_the_joint_comparison_is_there(known: Known) -> None:
    """reference.json alone is enough for the rest, subgroups by levels among it, from counts of tens."""
    found = known.compared(known.incoming(known.people(1500, 8)))
    assert found["domain"] is None
    shares = {group["name"]: group["then"] for group in found["subgroups"]}
    assert shares["Age 60 and over"] == pytest.approx(
        np.mean(known.schema.subgroups[4].mask(known.train)), abs=2e-3
    )
    assert shares["BMI 30 and over"] is None


def test_limits_are_what_decides(known: Known) -> None:
    """With a higher limit the same shift is only watched, with the highest it is quiet."""
    incoming = known.incoming(known.people(6000, 2, "obesity-wave"), labelled=False)
    lenient = replace(LIMITS, psi_retrain=5.0, roc_auc_loss=0.5)
    blind = replace(lenient, psi_watch=5.0)
    assert known.compared(incoming)["verdict"] == "retrain"
    assert known.compared(incoming, limits=lenient)["verdict"] == "watch"
    assert known.compared(incoming, limits=blind)["verdict"] == "quiet"


def test_the_report_says_what_cannot_be_seen_and_holds_no_row(known: Known) -> None:
    """Concept shift is named as invisible; a canary's value is in neither report nor document."""
    raw = known.people(3000, 6, "garbage").astype({"BMI": object})
    raw.loc[11, "BMI"] = "98765.4321"
    found = known.compared(known.incoming(raw, labelled=False), jointly=True)
    found["model"] |= {"label": "a model", "version": "1"}
    found["data"] = {"kind": "private", "digest": "none"}
    page = drift.render(found, known.schema)
    assert "concept shift" in page
    assert "98765" not in page + json.dumps(found)
    assert "BMI is not valid" in page
    assert drift.summary(found)[0].startswith("watch.")
    for loader in ("http://", "https://", "src=", "url("):
        assert loader not in page


def test_few_rows_and_few_outcomes_do_not_stop_it(known: Known) -> None:
    """Five people: nothing is claimed, and the verdict is quiet."""
    found = known.compared(known.incoming(known.people(5, 1)))
    assert found["verdict"] == "quiet"
    assert found["realised"] is None
    assert found["expected"] is None
