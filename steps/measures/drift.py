"""Whether new data are still what a model knows, and what to do if they are not.

Everything is measured against `reference.json` (counts of training rows, figures of validation rows) and the
figures of the test split; only telling old from new, and finding rows that the model was trained on, need
training rows, and are left out where those are not on this machine. The formulas are those of
`steps.measures.evidence` and `steps.measures.selection`, which the monitoring's rules are tested against.
`steps.measures.drift_verdict` says what follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from steps.data.disclosure import SMALLEST_CELL, coarse, hidden_lines, is_small, shown
from steps.data.documents import defined
from steps.data.files import TARGET_COLUMN
from steps.measures import drift_performance, drift_shifts, drift_verdict, metrics, separability
from steps.measures.drift_document import (
    VERDICTS,
    Data,
    DriftReport,
    FeatureDrift,
    Figure,
    KnownRows,
    Limits,
    Model,
    Reason,
    Rows,
    Separability,
    SubgroupDrift,
    Tests,
)
from steps.measures.drift_performance import Scored, Standard
from steps.measures.drift_shifts import Yardstick
from steps.measures.repeated_people import design_effect

if TYPE_CHECKING:
    import pandas as pd

    from monitoring.reference import Reference
    from steps.data.schema import Schema, Subgroup
    from steps.data.validation import Cells, Problem

Floats = NDArray[np.float64]

# Rows that stand in the training data are worth a sentence from this share above chance.
_MANY_KNOWN = 0.05


@dataclass(frozen=True)
class Incoming:
    """New data, checked and scored.

    `cells`: every row; `valid`: features of the valid ones, indexed by their place among all, with `risk`
    (valid,) and `outcome` (valid,), NaN where unlabelled, or None. `person` (rows,): an identifier of each
    row's person, or None. `problems`: which rules values broke. `kind`, `digest`: what the data are.
    """

    cells: Cells
    valid: pd.DataFrame
    risk: Floats
    outcome: Floats | None
    problems: tuple[Problem, ...] = ()
    person: pd.Series[Any] | None = None
    kind: str = "private"
    digest: str = ""

    @property
    def read(self) -> int:
        """Rows that came."""
        return len(self.cells.values)


@dataclass(frozen=True)
class Known:
    """What is known of the model: its reference, its name for people, its test figures, its training rows."""

    reference: Reference
    label: str = "the model"
    version: str | None = None
    tested: Standard | None = None
    trained_on: pd.DataFrame | None = None


def outcome_of(frame: pd.DataFrame, column: str) -> Floats | None:
    """The outcome as float64 with NaN where unlabelled; None if no row has any."""
    if column not in frame:
        return None
    values = frame[column].to_numpy(dtype=np.float64)
    return None if np.isnan(values).all() else values


def compare(known: Known, incoming: Incoming, schema: Schema, *, seed: int = 0) -> DriftReport:
    """Everything that is found, the verdict and its reasons among it; aggregates only."""
    reference = known.reference
    yardstick, tests = _yardstick(known, incoming, schema)
    data = reference.data
    features = tuple(
        drift_shifts.feature_drift(feature, incoming.cells, incoming.problems, data, yardstick)
        for feature in reference.features
    )
    score = drift_shifts.score_drift(reference, incoming.risk, yardstick)
    found = _separability(known, incoming, schema, seed)
    apart = list(drift_verdict.of_separability(found, yardstick))
    moved = score.shift.counts or bool(apart) or any(feature.shift.counts for feature in features)
    scored = Scored(incoming.risk, incoming.outcome, _valid_design_effect(incoming), moved)
    expected = drift_performance.expected(reference, scored)
    tested = known.tested or drift_performance.standard_of_validation(reference)
    realised = drift_performance.realised(reference, tested, scored)
    instrument = drift_shifts.find_instrument(features, reference, incoming.cells, yardstick)
    reasons: list[Reason] = [
        *(
            reason
            for feature in features
            for reason in drift_verdict.of_feature(feature, instrument, realised, yardstick)
        ),
        *drift_verdict.of_score(score),
        *drift_verdict.of_realised(realised, yardstick),
        *drift_verdict.of_expected(expected, yardstick),
        *apart,
    ]
    needed, worth = drift_shifts.rows_needed(reference, yardstick), incoming.read / yardstick.design_effect
    if not reasons and worth < needed.psi_0_25:
        reasons = [drift_verdict.too_few(worth, needed)]
    model = reference.model
    return DriftReport(
        verdict=drift_verdict.gravest(reasons),
        reasons=_gravest_first(reasons, features),
        tests=tests,
        limits=_limits(schema),
        model=Model(known.label, known.version, model.digest, model.family, model.synthetic),
        data=Data(incoming.kind, incoming.digest, incoming.person is not None, yardstick.design_effect),
        rows=Rows(
            read=incoming.read,
            valid=len(incoming.valid),
            labelled=int(scored.labelled.sum()),
            training=int(data["rows"]["train"]),
            validation=int(data["rows"]["validation"]),
        ),
        rows_needed=needed,
        known_rows=_known_rows(known.trained_on, incoming, schema),
        features=features,
        instrument=instrument,
        score=score,
        expected=expected,
        realised=realised,
        separability=found,
        subgroups=_subgroups(known, incoming, schema),
        disclaimer=schema.disclaimer,
    )


def _limits(schema: Schema) -> Limits:
    limits = schema.drift
    return Limits(
        psi=limits.psi,
        share=limits.share,
        roc_auc_loss=limits.roc_auc_loss,
        observed_expected=limits.observed_expected,
        calibration_slope=limits.calibration_slope,
        calibration_error=limits.calibration_error,
        separability=limits.separability,
    )


def _gravest_first(reasons: Sequence[Reason], features: Sequence[FeatureDrift]) -> tuple[Reason, ...]:
    """The gravest first; of equal ones the figures of all people, then the features by size of shift."""
    sizes = {feature.name: feature.shift.psi for feature in features}
    return tuple(
        sorted(
            reasons, key=lambda reason: (-VERDICTS.index(reason.verdict), -sizes.get(reason.about, math.inf))
        )
    )


# ---------------------------------------------------------------- what each test has to reach


def _yardstick(known: Known, incoming: Incoming, schema: Schema) -> tuple[Yardstick, Tests]:
    """Evidence and quantile for exactly the tests that are made (Bonferroni)."""
    limits = schema.drift
    made = sum(
        # The shift; missing; invalid; levels never seen, which a numeric feature has not.
        (len(feature.bins) > 1) + 2 + (feature.kind != "numeric")
        for feature in known.reference.features
    )
    made += 1  # the score
    made += separability.is_measurable(known.trained_on, incoming.valid)
    made += len(incoming.risk) >= SMALLEST_CELL  # the expected ROC AUC
    if _is_labelled(incoming):
        made += 4  # ranking, observed / expected, slope, curve
    each = limits.evidence + math.log10(made)
    z = -float(special.ndtri(10**-each / 2))
    effect = design_effect(incoming.person) if incoming.person is not None else 1.0
    return Yardstick(each, z, limits, effect), Tests(made, limits.evidence, each, z)


def _is_labelled(incoming: Incoming) -> bool:
    if incoming.outcome is None:
        return False
    positives, negatives = np.sum(incoming.outcome == 1), np.sum(incoming.outcome == 0)
    return bool(min(positives, negatives) >= drift_performance.FEWEST_OUTCOMES)


def _valid_design_effect(incoming: Incoming) -> float:
    if incoming.person is None:
        return 1.0
    return design_effect(incoming.person.iloc[incoming.valid.index.to_numpy()])


def _separability(known: Known, incoming: Incoming, schema: Schema, seed: int) -> Separability | None:
    if known.trained_on is None or not separability.is_measurable(known.trained_on, incoming.valid):
        return None
    return separability.measure(known.trained_on, incoming.valid, schema, seed)


# ---------------------------------------------------------------- rows that the model was trained on


def _known_rows(trained_on: pd.DataFrame | None, incoming: Incoming, schema: Schema) -> KnownRows | None:
    """How many valid rows stand in the training data, and how many would by chance; None if unknown.

    By chance: new people of the same kind have an answer sheet that training knows with probability
    1 - (sheets of one training row only) / (training rows) (Good, Biometrika 40, 1953). Labelled rows are
    compared together with their outcome.
    """
    if trained_on is None or incoming.valid.empty:
        return None
    from pandas.util import hash_pandas_object

    names = list(schema.feature_names)
    labelled = incoming.outcome is not None and not np.isnan(incoming.outcome).any()
    columns = [*names, TARGET_COLUMN] if labelled else names
    new = incoming.valid[names].assign(**{TARGET_COLUMN: incoming.outcome}) if labelled else incoming.valid
    then = hash_pandas_object(
        trained_on[columns].astype({TARGET_COLUMN: float} if labelled else {}), index=False
    )
    now = hash_pandas_object(new[columns], index=False)
    _, sheets = np.unique(then, return_counts=True)
    rows = int(np.isin(now, then).sum())
    return KnownRows(
        rows=shown(rows),
        share=None if is_small(rows) else rows / len(now),
        by_chance=1 - float((sheets == 1).sum()) / len(then),
    )


def has_many_known_rows(report: DriftReport) -> bool:
    """Whether so many rows stand in the training data that realised figures flatter the model."""
    known = report.known_rows
    return known is not None and known.share is not None and known.share >= known.by_chance + _MANY_KNOWN


# ---------------------------------------------------------------- subgroups


def _subgroups(known: Known, incoming: Incoming, schema: Schema) -> tuple[SubgroupDrift, ...]:
    """Share of each subgroup then and now, and its figures now; small ones without.

    Subgroups of one column are one table: see `steps.data.disclosure`.
    """
    masks = [np.asarray(group.mask(incoming.valid)) for group in schema.subgroups]
    outcome = np.full(len(incoming.valid), np.nan) if incoming.outcome is None else incoming.outcome
    hidden = np.zeros(len(masks), dtype=np.bool_)
    for column in {group.column for group in schema.subgroups}:
        own = [i for i, group in enumerate(schema.subgroups) if group.column == column]
        members, place = np.unique(np.array([masks[i] for i in own]), axis=1, return_inverse=True)
        rows, positives, negatives = (
            np.bincount(place.ravel(), weights, members.shape[1]).astype(np.float64)
            for weights in (None, outcome == 1, outcome == 0)
        )
        hidden[own] = hidden_lines(members, rows, positives, negatives)
    return tuple(
        _subgroup(group, mask, bool(hide), known, incoming)
        for group, mask, hide in zip(schema.subgroups, masks, hidden, strict=True)
    )


_UNKNOWN = Figure(None, None, None)


def _subgroup(
    group: Subgroup, mask: NDArray[np.bool_], hidden: bool, known: Known, incoming: Incoming
) -> SubgroupDrift:
    then = _share_then(known, group)
    if hidden:
        return SubgroupDrift(group.name, group.headline, True, then, _UNKNOWN, None, None, _UNKNOWN)
    rows = int(mask.sum())
    low, high = metrics.wilson_interval(rows, len(mask))
    observed, ratio = _observed(incoming, mask)
    return SubgroupDrift(
        name=group.name,
        headline=group.headline,
        hidden=False,
        then=then,
        now=Figure(rows / max(1, len(mask)), defined(low), defined(high)),
        risk=float(incoming.risk[mask].mean()) if rows else None,
        observed=observed,
        observed_expected=ratio,
    )


def _observed(incoming: Incoming, mask: NDArray[np.bool_]) -> tuple[float | None, Figure]:
    """Observed share of a subgroup's labelled rows, and observed / expected of the same rows.

    As they are, not weighted: a subgroup has too few labels in each band of risk.
    """
    if incoming.outcome is None:
        return None, _UNKNOWN
    labelled = mask & ~np.isnan(incoming.outcome)
    y, risk = incoming.outcome[labelled], incoming.risk[labelled]
    if min(y.sum(), len(y) - y.sum()) < SMALLEST_CELL:
        return None, _UNKNOWN
    stderr = math.sqrt(float((risk * (1 - risk)).sum())) / float(risk.sum())
    return float(y.mean()), drift_performance.figure(float(y.sum() / risk.sum()), stderr)


def _share_then(known: Known, group: Subgroup) -> float | None:
    """Share of training rows in a group.

    Of levels it follows from the reference, so that it says no more than that does. Of a range of numbers it
    is counted, in tens; None where few are inside or outside, and where there are no training rows.
    """
    share = _share_of_levels(known.reference, group)
    if share is not None or known.trained_on is None:
        return share
    mask = np.asarray(group.mask(known.trained_on))
    inside = int(mask.sum())
    if is_small(inside) or is_small(len(mask) - inside):
        return None
    return float(coarse([inside])[0] / max(1, len(mask)))


def _share_of_levels(reference: Reference, group: Subgroup) -> float | None:
    """Share of training rows with these levels, from the reference's bins; None for ranges of numbers."""
    feature = next(feature for feature in reference.features if feature.name == group.column)
    if group.values is None or feature.kind == "numeric":
        return None
    levels = set(group.values)
    rows = sum(count for level, count in zip(feature.levels, feature.counts, strict=True) if level in levels)
    return float(rows / max(1, int(reference.data["rows"]["train"])))


def flat(report: DriftReport) -> dict[str, float]:
    """Flat numbers to log as metrics."""
    found = {f"psi {feature.name}": feature.shift.psi for feature in report.features}
    found |= {"psi score": report.score.shift.psi}
    found |= {"rows": report.rows.read, "valid_rows": report.rows.valid}
    figures: Mapping[str, Figure | None] = {
        "expected_roc_auc": report.expected.roc_auc if report.expected else None,
        "realised_roc_auc": report.realised.ranking.realised if report.realised else None,
        "observed_expected": report.realised.observed_expected if report.realised else None,
        "separability_roc_auc": report.separability.roc_auc if report.separability else None,
    }
    found |= {name: figure.value for name, figure in figures.items() if figure and figure.value is not None}
    return {name: float(value) for name, value in found.items()}
