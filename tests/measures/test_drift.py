"""Drift: quiet on the same people; every scenario and subgroup gets the right act, and its names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monitoring.reference import Reference
from monitoring.simulation import people as cohort
from monitoring.simulation.people import Facts
from steps.data import documents, validation
from steps.data.errors import UserError
from steps.data.files import TARGET_COLUMN
from steps.data.schema import DriftLimits, Schema
from steps.data.schema_file import load
from steps.measures import concordance, drift, drift_verdict, evidence
from steps.measures.drift import Baseline, Incoming
from steps.measures.drift_document import DriftReport
from steps.measures.drift_performance import Standard
from steps.models import families, fitting
from steps.models.monitor_reference import build_reference
from steps.reports import drift as drift_page
from tests.conftest import ROOT


@dataclass(frozen=True)
class Trained:
    """A model of 15,000 made people, and what it was made from."""

    schema: Schema
    facts: Facts
    model: Any
    reference: Reference
    train: pd.DataFrame
    tested: Standard

    def people(
        self, rows: int, seed: int, scenario: str = "steady", day: float | None = None
    ) -> pd.DataFrame:
        """Rows as a file would hold them."""
        return cohort.generate(self.facts, self.schema, rows, seed, self.schema.scenario(scenario), day)

    def incoming(self, raw: pd.DataFrame, labelled: bool = True) -> Incoming:
        """The rows, checked and scored."""
        schema, raw = self.schema, raw.reset_index(drop=True)
        checked = validation.check(
            raw, schema, schema.target.name, schema.target.positive, require_target=False
        )
        risk = np.empty(0)
        if len(checked.valid):
            risk = families.predict_risk(self.model, checked.valid[list(schema.feature_names)])
        return Incoming(
            cells=validation.read_cells(raw, schema),
            valid=checked.valid,
            risk=risk,
            outcome=drift.outcome_of(checked.valid, TARGET_COLUMN) if labelled else None,
            problems=checked.problems,
            person=raw.get("person"),
        )

    def compared(
        self, incoming: Incoming, jointly: bool = False, limits: DriftLimits | None = None
    ) -> DriftReport:
        """The report; with `jointly` old and new are told apart by a classifier as well."""
        baseline = Baseline(self.reference, "a model", "1", self.tested, self.train if jointly else None)
        schema = self.schema if limits is None else replace(self.schema, drift=limits)
        return drift.compare(baseline, incoming, schema)


@pytest.fixture(scope="module")
def trained() -> Trained:
    schema = load(ROOT / "data" / "brfss2015.yaml")
    facts = cohort.read_facts(schema, ROOT)
    raw = cohort.generate(facts, schema, 27_000, 5)
    rows = validation.check(raw, schema, schema.target.name, schema.target.positive).valid
    train, validated, test = rows.iloc[:15_000], rows.iloc[15_000:21_000], rows.iloc[21_000:]
    fitted = fitting.fit_model(
        "logistic_regression", {}, fitting.Parts(train, validated), schema, recall=0.8, seed=0, threads=1
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
        "read": 27_500,
        "invalid": {"Income": 825},
    }
    reference = build_reference(fitted.model, train, validated, schema, threshold=fitted.threshold, info=info)
    risk = families.predict_risk(fitted.model, test[list(schema.feature_names)])
    tested = Standard("the test split", concordance.measure(test[TARGET_COLUMN].to_numpy(), risk))
    return Trained(schema, facts, fitted.model, reference, train, tested)


def _kinds(report: DriftReport, verdict: str | None = None) -> set[tuple[str, str]]:
    """Kind and subject of the reasons for a verdict, or of all."""
    return {(r.kind, r.about) for r in report.reasons if verdict in (None, r.verdict)}


# What each scenario of the schema is worth, without labels and with them.
VERDICTS = {
    "steady": ("quiet", "quiet"),
    "flash-crowd": ("quiet", "quiet"),
    "ageing-population": ("watch", "watch"),
    "obesity-wave": ("watch", "watch"),
    "broken-sensor": ("watch", "mend"),
    "missing-questions": ("mend", "mend"),
    "concept-shift": ("quiet", "retrain"),
    "garbage": ("mend", "mend"),
}
BROKEN = {"missing-questions": {"GenHlth", "Income"}, "garbage": {"BMI", "Age", "HighBP"}}


def test_every_scenario_of_the_schema_has_a_verdict_here(trained: Trained) -> None:
    """A new scenario must say what drift makes of it."""
    assert {scenario.name for scenario in trained.schema.scenarios} == set(VERDICTS)


@pytest.mark.parametrize("name", VERDICTS)
def test_each_scenario_gets_its_act_and_names_its_features(name: str, trained: Trained) -> None:
    """Of 12,000 people; concept shift is invisible without labels, and plain with them."""
    raw = trained.people(12_000, 9, name)
    with_labels = trained.incoming(raw)
    without = trained.compared(replace(with_labels, outcome=None))
    realised = trained.compared(with_labels)
    assert (without.verdict, realised.verdict) == VERDICTS[name]
    assert set(trained.schema.scenario(name).drifts) <= set(without.moved)
    assert set(without.broken) == BROKEN.get(name, set())
    if name in ("steady", "flash-crowd", "concept-shift", "missing-questions", "garbage"):
        assert without.moved == ()
    if name == "concept-shift":
        assert _kinds(realised) == {
            ("roc_auc", "ROC AUC"),
            ("observed_expected", "observed / expected"),
            ("calibration_slope", "calibration slope"),
        }
    if name == "broken-sensor":
        assert ("instrument", "BMI") in _kinds(without, "watch")
        assert ("instrument", "BMI") in _kinds(realised, "mend")
        assert without.instrument is not None
        assert without.instrument.scale == pytest.approx(1.3, abs=0.02)


@pytest.mark.parametrize(
    ("people", "moved"),
    [(lambda rows: rows["Sex"] == 0, "Sex"), (lambda rows: rows["Age"] >= 9, "Age")],
    ids=["women", "over 60"],
)
def test_other_people_are_watched_and_never_retrained_for(
    people: Callable[[pd.DataFrame], pd.Series], moved: str, trained: Trained
) -> None:
    """Their lower ROC AUC is what their risks promise; telling them from training rows changes nothing."""
    raw = trained.people(30_000, 10)
    incoming = trained.incoming(raw[people(raw)])
    without = trained.compared(replace(incoming, outcome=None), jointly=True)
    assert without.verdict == "watch"
    assert moved in without.moved
    assert trained.compared(incoming, jointly=True).verdict in ("watch", "recalibrate")


@pytest.mark.parametrize(
    ("change", "scale", "offset"),
    [
        (lambda bmi: np.round(1.3 * bmi), 1.3, 0.0),
        (lambda bmi: bmi + 4, 1.0, 4.0),
        (lambda bmi: np.round(0.85 * bmi), 0.85, 0.0),
    ],
)
def test_an_instrument_is_found_in_whole_numbers_and_by_its_offset_too(
    change: Callable[[pd.Series], pd.Series], scale: float, offset: float, trained: Trained
) -> None:
    """Without labels it is to be looked at; with labels that show the risks off with it, to be mended."""
    raw = trained.people(12_000, 11)
    raw["BMI"] = change(raw["BMI"]).clip(12, 99)
    incoming = trained.incoming(raw)
    found = trained.compared(replace(incoming, outcome=None))
    assert found.verdict == "watch"
    assert found.instrument is not None
    assert (found.instrument.scale, found.instrument.offset) == pytest.approx((scale, offset), abs=0.55)
    assert trained.compared(incoming).verdict == "mend"


def test_risks_that_are_off_are_recalibrated_and_not_trained_again(trained: Trained) -> None:
    """Outcomes of a world with one more unit of log odds: the ranking is as good as before."""
    raw = trained.people(12_000, 12)
    incoming = trained.incoming(raw)
    odds = incoming.risk / (1 - incoming.risk) * np.e
    outcome = (np.random.default_rng(0).random(len(odds)) < odds / (1 + odds)).astype(float)
    found = trained.compared(replace(incoming, outcome=outcome))
    assert found.verdict == "recalibrate"
    assert ("observed_expected", "observed / expected") in _kinds(found, "recalibrate")
    assert any("recalibrate=true" in line for line in drift_verdict.advice(found))


def test_a_few_rows_are_too_few_and_it_says_how_many_it_takes(trained: Trained) -> None:
    """Two impossible people (none of them valid), five possible ones, a hundred; twice as many as it takes
    are quiet, and a certain fault in a few rows is no less a fault."""
    impossible = trained.people(2, 1).assign(BMI=400)
    for raw in (impossible, trained.people(5, 1), trained.people(100, 1)):
        found = trained.compared(trained.incoming(raw))
        assert found.verdict == "too_few"
        assert f"{found.rows_needed.psi_0_25:,}" in found.reasons[0].text
        assert 100 < found.rows_needed.psi_0_25 < found.rows_needed.psi_0_1 < 2000
    enough = trained.people(2 * found.rows_needed.psi_0_25, 1)
    assert trained.compared(trained.incoming(enough)).verdict == "quiet"
    assert trained.compared(trained.incoming(trained.people(100, 1).assign(BMI=400))).verdict == "mend"


def test_as_many_rows_as_it_says_do_show_a_large_shift(trained: Trained) -> None:
    """The number of rows needed is neither a guess nor a bound: expected counts reach the evidence there."""
    found = trained.compared(trained.incoming(trained.people(500, 1)))
    each, counts = found.tests.each, [np.array(f.counts, float) for f in trained.reference.features]
    reached = []
    for then in counts:
        shares, tilt = evidence.shares(then), np.linspace(-1, 1, len(then))
        strengths = np.linspace(0, 10, 4001)
        tilted = shares * np.exp(strengths[:, None] * tilt)
        tilted /= tilted.sum(1, keepdims=True)
        psi = ((tilted - shares) * np.log(tilted / shares)).sum(1)
        shifted = tilted[np.argmin(np.abs(psi - 0.25))]
        reached.append(evidence.drift_evidence(found.rows_needed.psi_0_25 * shifted, then))
    assert min(reached) == pytest.approx(each, rel=0.05)


def test_a_row_that_is_invalid_in_one_column_counts_in_the_others(trained: Trained) -> None:
    """A file whose every row has a broken BMI still shows that Age has moved."""
    raw = trained.people(4000, 13, "ageing-population").assign(BMI=400)
    found = trained.compared(trained.incoming(raw))
    assert found.rows.valid == 0
    assert ("invalid", "BMI") in _kinds(found, "mend")
    assert ("moved", "Age") in _kinds(found, "watch")


def test_a_share_of_invalid_values_that_training_had_too_is_no_news(trained: Trained) -> None:
    """Three percent of Income were invalid then; as many now are quiet, six percent are not."""
    for share, verdict in ((0.03, "quiet"), (0.06, "mend")):
        raw = trained.people(12_000, 14).astype({"Income": object})
        raw.loc[np.random.default_rng(0).random(len(raw)) < share, "Income"] = 99
        found = trained.compared(trained.incoming(raw))
        assert found.verdict == verdict
        income = next(feature for feature in found.features if feature.name == "Income")
        assert income.invalid.then == pytest.approx(0.03)
        assert income.invalid.now == pytest.approx(share, abs=0.005)


def test_levels_that_no_training_row_had_are_counted_and_not_called_invalid(trained: Trained) -> None:
    """A level without a training row: shown as never seen, and mended from the limit on."""
    features = list(trained.reference.features)
    place = next(i for i, feature in enumerate(features) if feature.name == "Education")
    counts = (0, *features[place].counts[1:])
    features[place] = replace(features[place], counts=counts)
    baseline = Baseline(replace(trained.reference, features=tuple(features)), tested=trained.tested)
    raw = trained.people(6000, 15)
    raw.loc[:200, "Education"] = 1
    found = drift.compare(baseline, trained.incoming(raw), trained.schema)
    education = next(feature for feature in found.features if feature.name == "Education")
    assert education.unseen.now is not None
    assert education.unseen.now > 0.03
    assert education.invalid.now == 0
    assert ("unseen", "Education") in _kinds(found, "mend")
    assert any("never" in line or "no training row" in line for line in drift_page.notes(found))


def test_the_correction_covers_exactly_the_tests_that_are_made(trained: Trained) -> None:
    """Labels add four, the joint comparison one; each then has to reach more."""
    raw = trained.people(3000, 16)
    incoming = trained.incoming(raw)
    without = trained.compared(replace(incoming, outcome=None))
    levelled = sum(feature.kind != "numeric" for feature in trained.reference.features)
    assert without.tests.made == 3 * len(trained.reference.features) + levelled + 2
    assert trained.compared(incoming).tests.made == without.tests.made + 4
    assert trained.compared(incoming, jointly=True).tests.made == without.tests.made + 5
    assert 10**-without.tests.each * without.tests.made == pytest.approx(1e-3)


def test_rows_of_the_training_data_are_named(trained: Trained) -> None:
    """A file of training rows flatters the model, which the reader is told; new people are not accused."""
    columns = list(trained.schema.feature_names)
    old = trained.train.iloc[:3000][columns].assign(
        **{trained.schema.target.name: 2 * trained.train[TARGET_COLUMN].iloc[:3000]}
    )
    found = trained.compared(trained.incoming(old), jointly=True)
    assert found.known_rows is not None
    assert found.known_rows.share == 1
    assert any("are in the training data" in line for line in drift_page.summary(found))
    fresh = trained.compared(trained.incoming(trained.people(3000, 17)), jointly=True)
    assert fresh.known_rows is not None
    assert not drift.has_many_known_rows(fresh)


def test_repeated_people_are_worth_less(trained: Trained) -> None:
    """100 people, 40 rows each, look moved if every row is taken for somebody else."""
    rows = trained.people(100, 18)
    raw = pd.concat([rows] * 40, ignore_index=True)
    alone = trained.compared(trained.incoming(raw, labelled=False))
    known = trained.compared(trained.incoming(raw.assign(person=np.tile(np.arange(100), 40)), labelled=False))
    assert alone.verdict == "watch"
    assert known.verdict == "too_few"
    assert known.data.design_effect == pytest.approx(40)
    assert any("worth 100 independent" in line for line in drift_page.notes(known))


# ---------------------------------------------------------------- labels


def test_labels_of_the_flagged_are_weighted(trained: Trained) -> None:
    """Outcomes of 90 % of the flagged and 10 % of the rest: realised figures are those of everybody."""
    incoming = trained.incoming(trained.people(40_000, 19))
    assert incoming.outcome is not None
    everybody = trained.compared(incoming).realised
    threshold = trained.reference.score.threshold
    chance = np.where(incoming.risk >= threshold, 0.9, 0.1)
    known = np.random.default_rng(0).random(len(chance)) < chance
    found = trained.compared(replace(incoming, outcome=np.where(known, incoming.outcome, np.nan)))
    assert found.verdict == "quiet"
    assert everybody is not None
    assert found.realised is not None
    assert found.realised.weighted
    assert not everybody.weighted
    assert found.realised.ranking.realised.value == pytest.approx(everybody.ranking.realised.value, abs=0.02)
    assert found.realised.decision.recall == pytest.approx(everybody.decision.recall, abs=0.05)
    assert found.realised.observed_expected.value == pytest.approx(1, abs=0.1)
    shares = [band.share for band in found.realised.by_bin if band.share is not None]
    assert min(shares) < 0.2 < 0.8 < max(shares)
    assert "labelling depends on the predicted risk alone" in drift_page.render(found, trained.schema)


def test_a_band_of_risk_without_labels_withholds_the_verdict_on_ranking(trained: Trained) -> None:
    """Labels of the flagged alone, in a world of concept shift: the risks are off, the ranking is unknown."""
    incoming = trained.incoming(trained.people(12_000, 20, "concept-shift"))
    assert incoming.outcome is not None
    flagged = incoming.risk >= trained.reference.score.threshold
    found = trained.compared(replace(incoming, outcome=np.where(flagged, incoming.outcome, np.nan)))
    assert found.realised is not None
    assert found.realised.ranking.withheld is not None
    assert "no row has a label in" in found.realised.ranking.withheld
    assert "roc_auc" not in {kind for kind, _ in _kinds(found)}


def test_a_handful_of_labels_is_no_reason_for_anything(trained: Trained) -> None:
    """Eleven positives that all have low risks: shown, and nothing follows from it."""
    incoming = trained.incoming(trained.people(3000, 21))
    outcome = np.full(3000, np.nan)
    order = np.argsort(incoming.risk)
    outcome[order[:11]], outcome[order[-30:]] = 1, 0
    found = trained.compared(replace(incoming, outcome=outcome))
    assert found.realised is not None
    assert {reason.verdict for reason in found.reasons} <= {"watch"}
    assert trained.compared(replace(incoming, outcome=np.full(3000, np.nan))).realised is None


def test_the_loss_is_judged_against_the_test_split(trained: Trained) -> None:
    """A model that was as far below its promise when tested has lost nothing."""
    incoming = trained.incoming(trained.people(12_000, 20, "concept-shift"))
    bad = trained.compared(incoming).realised
    assert bad is not None
    assert bad.ranking.compared_with == "the test split"
    tested = Standard("the test split", replace(trained.tested.concordance, realised=0.70, expected=0.82))
    found = drift.compare(Baseline(trained.reference, tested=tested), incoming, trained.schema)
    assert found.verdict == "recalibrate"
    baseline = Baseline(trained.reference)
    fallback = drift.compare(baseline, incoming, trained.schema).realised
    assert fallback is not None
    assert fallback.ranking.compared_with == "validation rows"


@pytest.mark.parametrize(
    ("scenario", "day"),
    [("steady", None), ("obesity-wave", None), ("ageing-population", 22.0)],
)
def test_expected_performance_is_close_to_the_realised_under_covariate_shift(
    scenario: str, day: float | None, trained: Trained
) -> None:
    """At 100,000 rows the ROC AUC without labels is within 0.01 of that with them, which lies in its
    interval; recall within 0.02."""
    found = trained.compared(trained.incoming(trained.people(100_000, 77, scenario, day)))
    assert found.expected is not None
    assert found.realised is not None
    realised, expected = found.realised.ranking.realised.value, found.expected.roc_auc
    assert expected.value == pytest.approx(realised, abs=0.01)
    assert expected.low is not None and expected.high is not None and realised is not None
    assert expected.low <= realised <= expected.high
    assert found.expected.decision.recall == pytest.approx(found.realised.decision.recall, abs=0.02)


def test_the_figures_are_those_of_the_evidence_module(trained: Trained) -> None:
    """One formula for the report and for the monitoring's rules, on counts of which none is hidden."""
    incoming = trained.incoming(trained.people(2000, 3, "obesity-wave"))
    found = trained.compared(incoming)
    for feature, entry in zip(trained.reference.features, found.features, strict=True):
        counts = feature.count(incoming.valid[feature.name].to_numpy(dtype=np.float64)).bins
        if None in entry.now:
            assert entry.shift.psi == pytest.approx(evidence.psi(counts, feature.counts), abs=0.002)
            continue
        assert entry.shift.psi == evidence.psi(counts, feature.counts)
        assert entry.shift.evidence == evidence.drift_evidence(counts, feature.counts)
    score = np.bincount(trained.reference.score.bin(incoming.risk), minlength=20)
    assert found.score.shift.psi == evidence.psi(score, trained.reference.score.counts)


def test_the_classifier_sees_what_no_column_shows(trained: Trained) -> None:
    """Columns keep their shares but lose their association: no feature has moved, yet new is told apart."""
    raw = trained.people(12_000, 4)
    order = np.random.default_rng(0).permutation(len(raw))
    for name in ("GenHlth", "Age", "HighBP"):
        raw[name] = raw[name].to_numpy()[np.random.default_rng(len(name)).permutation(len(raw))]
    raw["PhysHlth"] = raw["PhysHlth"].to_numpy()[order]
    found = trained.compared(trained.incoming(raw, labelled=False), jointly=True)
    assert found.moved == ()
    assert ("separability", "all columns") in _kinds(found, "watch")
    assert found.separability is not None
    assert found.separability.roc_auc.value is not None
    assert found.separability.roc_auc.value > 0.6


def test_without_training_rows_all_but_the_joint_comparison_is_there(trained: Trained) -> None:
    """reference.json alone is enough for the rest, subgroups by levels among it, from counts of tens."""
    found = trained.compared(trained.incoming(trained.people(1500, 8)))
    assert found.separability is None
    assert found.known_rows is None
    shares = {group.name: group.then for group in found.subgroups}
    assert shares["Age 60 and over"] == pytest.approx(
        np.mean(trained.schema.subgroups[4].mask(trained.train)), abs=2e-3
    )
    assert shares["BMI 30 and over"] is None


def test_limits_of_the_schema_are_what_decides(trained: Trained) -> None:
    """With higher limits the same shift is quiet, and the same miscalibration watched."""
    incoming = trained.incoming(trained.people(6000, 2, "obesity-wave"), labelled=False)
    blind = DriftLimits(psi=5.0, roc_auc_loss=0.5)
    assert trained.compared(incoming).verdict == "watch"
    assert trained.compared(incoming, limits=blind).verdict == "quiet"
    shifted = trained.incoming(trained.people(12_000, 22, "concept-shift"))
    lenient = DriftLimits(roc_auc_loss=0.5, observed_expected=(0.1, 9.0), calibration_slope=(0.1, 9.0))
    found = trained.compared(shifted, limits=lenient)
    assert _kinds(found) == {("calibration_curve", "calibration curve")}
    assert found.verdict == "watch"


# ---------------------------------------------------------------- the same people


def _quiet_halves(trained: Trained, tries: int, rows: int, jointly: bool) -> int:
    """In how many tries a fresh half of the same people is quiet."""
    quiet = 0
    for seed in range(tries):
        people = trained.people(2 * rows, 1000 + seed)
        half = people.iloc[np.sort(np.random.default_rng(seed).permutation(len(people))[:rows])]
        quiet += trained.compared(trained.incoming(half), jointly).verdict == "quiet"
    return quiet


def test_a_fresh_random_half_of_the_same_people_is_quiet(trained: Trained) -> None:
    """Small and large halves, 14 in all; the large count is in the soak tests."""
    assert _quiet_halves(trained, 6, 700, jointly=False) == 6
    assert _quiet_halves(trained, 6, 3000, jointly=False) == 6
    assert _quiet_halves(trained, 2, 2000, jointly=True) == 2


@pytest.mark.soak
def test_of_a_thousand_fresh_halves_two_percent_at_most_are_not_quiet(trained: Trained) -> None:
    """Of 5,000 people each, joint comparison and labels included."""
    assert _quiet_halves(trained, 1000, 5000, jointly=True) >= 980


# ---------------------------------------------------------------- document and page


def test_the_document_comes_back_as_it_went(trained: Trained) -> None:
    """One writer, one reader; another shape is refused with the place named."""
    found = trained.compared(trained.incoming(trained.people(3000, 23, "broken-sensor")), jointly=True)
    content = json.loads(json.dumps(documents.to_json(found), allow_nan=False))
    assert documents.from_json(DriftReport, content, "drift.json") == found
    with pytest.raises(UserError, match=r"drift\.json.*verdict"):
        documents.from_json(DriftReport, {**content, "verdict": "fine"}, "drift.json")


def test_the_report_says_what_cannot_be_seen_and_holds_no_row(trained: Trained) -> None:
    """Concept shift is named as invisible; a canary's value is in neither report nor document."""
    raw = trained.people(3000, 6, "garbage").astype({"BMI": object})
    raw.loc[11, "BMI"] = "98765.4321"
    found = trained.compared(trained.incoming(raw, labelled=False), jointly=True)
    page = drift_page.render(found, trained.schema)
    assert "concept shift" in page
    assert "98765" not in page + json.dumps(documents.to_json(found))
    assert "BMI is not valid" in page
    assert "assumes that every row is another person" in page
    assert f"{found.tests.made} tests were made" in page
    assert drift_page.summary(found)[0].startswith("mend.")
    for loader in ("http://", "https://", "src=", "url("):
        assert loader not in page


def test_no_count_of_a_few_people_is_written_down(trained: Trained) -> None:
    """Three invalid values among 800 rows: counted, and hidden together with what would give them away."""
    raw = trained.people(800, 24).astype({"BMI": object})
    raw.loc[:2, "BMI"] = "none"
    found = trained.compared(trained.incoming(raw))
    bmi = next(feature for feature in found.features if feature.name == "BMI")
    assert bmi.invalid.rises
    assert bmi.invalid.now is None
    assert "fewer than 10" in drift_page.render(found, trained.schema)
