"""Promoted, refused or undecided: each requirement at its limit, and what a year of attempts may spend."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from steps.data.schema import Gates
from steps.measures import promotion
from steps.measures.comparison import Change, Estimate, Figures, GroupChange
from steps.measures.promotion import Against, Finding, Judgement, error_of_attempt, judge, z_of

LIMITS = Gates(roc_auc_min=0.8, calibration_slope=(0.8, 1.25), observed_expected=(0.85, 1.18))
GOOD = Figures(
    events=840,
    non_events=5160,
    roc_auc=Estimate(0.83, 0.006),
    log_loss=Estimate(0.31, 0.004),
    calibration_slope=Estimate(1.0, 0.04),
    observed_expected=Estimate(1.0, 0.03, log=True),
    groups={"North": Estimate(1.05, 0.05, log=True), "South": Estimate(0.9, 0.08, log=True)},
)
SAME = Change(
    events=840,
    non_events=5160,
    log_loss=0.31,
    roc_auc_change=Estimate(0.0, 0.001),
    log_loss_change=Estimate(0.0, 0.0007),
    net_benefit_change=Estimate(0.0, 0.001),
    groups={
        "North": GroupChange(Estimate(0.0, 0.02), Estimate(0.0, 0.01)),
        "South": GroupChange(Estimate(0.0, 0.02), Estimate(0.0, 0.02)),
    },
)


def against(change: Change, label: str = "the champion") -> Against:
    return Against(label, change)


def found(judgement: Judgement, start: str) -> Finding:
    return next(finding for finding in judgement.findings if finding.name.startswith(start))


def outcomes(judgement: Judgement) -> dict[str, str]:
    return {f.name: f.outcome for f in judgement.findings if f.outcome not in ("passed", "shown")}


def test_a_good_first_model_is_promoted() -> None:
    """Without a champion floors and ranges decide."""
    judged = judge(GOOD, None, None, LIMITS, 1)
    assert (judged.verdict, judged.reason, outcomes(judged)) == ("promoted", None, {})


@pytest.mark.parametrize(
    ("change", "verdict", "name"),
    [
        ({"roc_auc": Estimate(0.77, 0.006)}, "refused", "ROC AUC"),
        ({"roc_auc": Estimate(0.805, 0.006)}, "undecided", "ROC AUC"),
        ({"calibration_slope": Estimate(0.7, 0.04)}, "refused", "calibration slope"),
        ({"calibration_slope": Estimate(1.2, 0.04)}, "undecided", "calibration slope"),
        ({"observed_expected": Estimate(1.3, 0.03, log=True)}, "refused", "observed / expected"),
        ({"observed_expected": Estimate(0.87, 0.03, log=True)}, "undecided", "observed / expected"),
        ({"roc_auc": Estimate(math.nan, math.nan)}, "undecided", "ROC AUC"),
    ],
)
def test_floors_and_ranges_are_judged_by_intervals(
    change: dict[str, Estimate], verdict: str, name: str
) -> None:
    """All of the interval outside: refused. A limit inside it, or no figure: undecided."""
    judged = judge(replace(GOOD, **change), None, None, LIMITS, 1)
    assert (judged.verdict, judged.reason, list(outcomes(judged))) == (verdict, "limits", [name])


def test_a_schema_without_limits_asks_for_no_floor_of_roc_auc() -> None:
    """A poor model of a hard outcome can be a first model."""
    judged = judge(replace(GOOD, roc_auc=Estimate(0.6, 0.01)), None, None, Gates(), 1)
    assert judged.verdict == "promoted"
    assert "ROC AUC" not in [finding.name for finding in judged.findings]


def test_not_worse_by_more_than_the_margin_is_what_promotes() -> None:
    """Proven within the margin, proven beyond it, and neither."""
    champion = against(SAME)
    assert judge(GOOD, champion, champion, LIMITS, 1).verdict == "promoted"
    worse = against(replace(SAME, roc_auc_change=Estimate(-0.009, 0.001)))
    judged = judge(GOOD, worse, against(SAME, "the anchor"), LIMITS, 1)
    assert judged.verdict == "refused"
    assert outcomes(judged) == {"change of ROC AUC against the champion": "refused"}
    line = found(judged, "change of ROC AUC against")
    assert line.limit == "≥ −0.005"
    assert line.high == pytest.approx(-0.009 + 1.96 * 0.001, abs=1e-4)
    unsure = against(replace(SAME, roc_auc_change=Estimate(0.0, 0.003)))
    judged = judge(GOOD, unsure, against(SAME, "the anchor"), LIMITS, 1)
    assert judged.verdict == "undecided"
    # (1.96 + 0.84) * 0.003 / 0.005 = 1.68, squared times 840.
    assert judged.events == pytest.approx(840 * ((1.96 + 0.8416) * 0.6) ** 2, abs=10)


def test_a_loss_of_calibration_alone_is_seen_by_log_loss() -> None:
    """ROC AUC does not move, log loss rises by 2 % of the champion's."""
    champion = against(replace(SAME, log_loss_change=Estimate(0.0062, 0.0007)))
    judged = judge(GOOD, champion, champion, LIMITS, 1)
    assert "change of log loss against the champion" in outcomes(judged)
    assert judged.verdict == "refused"


def test_a_proven_loss_of_net_benefit_refuses_and_an_unproven_one_does_not() -> None:
    """Only what is proven worse counts here: there is no margin."""
    for value, verdict in ((-0.003, "refused"), (-0.0015, "promoted")):
        champion = against(replace(SAME, net_benefit_change=Estimate(value, 0.001)))
        assert judge(GOOD, champion, champion, LIMITS, 1).verdict == verdict


def test_a_subgroup_that_is_proven_wrong_is_named() -> None:
    """Observed / expected of 2 among the South refuses, unless the champion is proven further off still."""
    off = replace(GOOD, groups={**GOOD.groups, "South": Estimate(2.05, 0.08, log=True)})
    judged = judge(off, None, None, LIMITS, 1)
    assert judged.verdict == "refused"
    assert "South" in found(judged, "observed / expected of a subgroup").detail
    groups = {**SAME.groups, "South": GroupChange(Estimate(-0.3, 0.05), Estimate(0.0, 0.02))}
    better = against(replace(SAME, groups=groups))
    assert judge(off, better, better, LIMITS, 1).verdict == "promoted"


def test_a_proven_loss_of_recall_in_a_subgroup_refuses() -> None:
    """From 94 to 70 % in one group, with as many people flagged in all."""
    groups = {**SAME.groups, "North": GroupChange(Estimate(0.0, 0.02), Estimate(-0.24, 0.03))}
    champion = against(replace(SAME, groups=groups))
    judged = judge(GOOD, champion, champion, LIMITS, 1)
    assert judged.verdict == "refused"
    assert "North" in found(judged, "change of recall in a subgroup").detail


def test_groups_share_the_error() -> None:
    """What is proven among two groups is not among twenty."""
    ratio = Estimate(1.25 * math.exp(2.5 * 0.08), 0.08, log=True)
    few = replace(GOOD, groups={"South": ratio, "North": Estimate(1.0, 0.05, log=True)})
    many = replace(few, groups={**few.groups, **{str(i): Estimate(1.0, 0.1, log=True) for i in range(18)}})
    assert judge(few, None, None, LIMITS, 1).verdict == "refused"
    assert judge(many, None, None, LIMITS, 1).verdict == "promoted"


def test_too_few_events_decide_nothing() -> None:
    """A replacement needs 300 events, a first model 100 of both; what would refuse is shown."""
    few = replace(GOOD, events=299)
    champion = against(replace(SAME, events=299, roc_auc_change=Estimate(-0.1, 0.001)))
    judged = judge(few, champion, champion, LIMITS, 1)
    assert (judged.verdict, judged.reason, judged.events) == ("undecided", "events", 300)
    assert {finding.outcome for finding in judged.findings[1:]} == {"shown"}
    assert judge(few, None, None, LIMITS, 1).verdict == "promoted"
    for counts in ({"events": 99}, {"non_events": 99}):
        judged = judge(replace(GOOD, **counts), None, None, LIMITS, 1)
        assert (judged.verdict, judged.events) == ("undecided", 100)


def test_a_year_of_attempts_spends_less_than_two_percent_against_the_anchor() -> None:
    """Half of it in 1 / (k (k + 1)), half evenly; a later attempt needs a wider interval."""
    assert 0.012 < sum(error_of_attempt(k) for k in range(1, 53)) <= 0.0125
    assert z_of(error_of_attempt(1)) < z_of(error_of_attempt(10)) < z_of(error_of_attempt(52))
    anchor = against(replace(SAME, roc_auc_change=Estimate(-0.001, 0.0013)), "the anchor")
    assert judge(GOOD, against(SAME), anchor, LIMITS, 1).verdict == "promoted"
    assert judge(GOOD, against(SAME), anchor, LIMITS, 20).verdict == "undecided"


def test_the_anchor_moves_only_to_what_is_proven_better_in_both() -> None:
    """Better ranking alone does not move it."""
    better = replace(SAME, roc_auc_change=Estimate(0.004, 0.001), log_loss_change=Estimate(-0.003, 0.0007))
    assert judge(GOOD, against(SAME), against(better, "the anchor"), LIMITS, 1).beats_anchor
    ranks = replace(better, log_loss_change=Estimate(0.0, 0.0007))
    assert not judge(GOOD, against(SAME), against(ranks, "the anchor"), LIMITS, 1).beats_anchor


def test_rows_with_unknown_levels_are_shown_and_the_others_decide() -> None:
    """A model that does not know a level is not blamed for it, nor is it hidden."""
    worse = replace(SAME, roc_auc_change=Estimate(-0.02, 0.001))
    champion = Against("the champion", SAME, all_rows=worse, unknown=70)
    judged = judge(GOOD, champion, against(SAME, "the anchor"), LIMITS, 1)
    assert judged.verdict == "promoted"
    shown = found(judged, "change of ROC AUC against the champion, all rows")
    assert (shown.outcome, shown.value) == ("shown", -0.02)
    assert "70 rows more" in shown.detail


@pytest.mark.parametrize(
    ("events", "rows", "outcome"),
    [(4200, 30000, "passed"), (4500, 30000, "passed"), (2100, 4200, "undecided"), (12, 60, "passed")],
)
def test_the_share_of_the_outcome_is_judged_by_size_and_evidence(
    events: int, rows: int, outcome: str
) -> None:
    """14 % in the champion's data: 15 % is near, 50 % is not, and 12 of 60 prove nothing."""
    judged = promotion.prevalence_finding(events, rows, 840, 6000, Gates())
    assert judged.outcome == outcome
