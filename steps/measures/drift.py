"""Compare new data with the data that a model was trained on.

The comparison uses `reference.json` (counts of training rows, figures of validation rows) and the figures of
the test split. Only separability, and the search for rows that the model was trained on, need training rows;
both are left out where the training rows are not on this machine. The formulas are those of
`steps.measures.evidence` and `steps.measures.selection`, which the monitoring rules are tested against.
`steps.measures.drift_verdict` decides the verdict.
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

# Rows that are also in the training data are reported from this share above chance.
_MANY_KNOWN = 0.05


@dataclass(frozen=True)
class Incoming:
    """New data, checked and scored.

    `cells`: every row; `valid`: features of the valid rows, indexed by their position among all rows, with
    `risk` (valid,) and `outcome` (valid,), NaN where unlabelled, or None. `person` (rows,): an identifier of
    each row's person, or None. `problems`: the rules that values broke. `kind`, `digest`: of the data.
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
        """Number of rows, valid or not."""
        return len(self.cells.values)


@dataclass(frozen=True)
class Baseline:
    """The model that new data are compared with: reference, display name, test figures, training rows."""

    reference: Reference
    label: str = "the model"
    version: str | None = None
    tested: Standard | None = None
    trained_on: pd.DataFrame | None = None


def outcome_of(frame: pd.DataFrame, column: str) -> Floats | None:
    """The outcome as float64 with NaN where unlabelled; None if no row has an outcome."""
    if column not in frame:
        return None
    values = frame[column].to_numpy(dtype=np.float64)
    return None if np.isnan(values).all() else values


def compare(baseline: Baseline, incoming: Incoming, schema: Schema, *, seed: int = 0) -> DriftReport:
    """Measure all differences and decide the verdict with its reasons; aggregates only."""
    reference = baseline.reference
    yardstick, tests = _yardstick(baseline, incoming, schema)
    data = reference.data
    features = tuple(
        drift_shifts.feature_drift(feature, incoming.cells, incoming.problems, data, yardstick)
        for feature in reference.features
    )
    score = drift_shifts.score_drift(reference, incoming.risk, yardstick)
    separated = _separability(baseline, incoming, schema, seed)
    separability_reasons = list(drift_verdict.of_separability(separated, yardstick))
    people_moved = (
        score.shift.counts or bool(separability_reasons) or any(feature.shift.counts for feature in features)
    )
    scored = Scored(incoming.risk, incoming.outcome, _valid_design_effect(incoming), people_moved)
    expected = drift_performance.expected(reference, scored)
    tested = baseline.tested or drift_performance.standard_of_validation(reference)
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
        *separability_reasons,
    ]
    needed, effective_rows = (
        drift_shifts.rows_needed(reference, yardstick),
        incoming.read / yardstick.design_effect,
    )
    if not reasons and effective_rows < needed.psi_0_25:
        reasons = [drift_verdict.too_few(effective_rows, needed)]
    model = reference.model
    return DriftReport(
        verdict=drift_verdict.gravest(reasons),
        reasons=_gravest_first(reasons, features),
        tests=tests,
        limits=_limits(schema),
        model=Model(baseline.label, baseline.version, model.digest, model.family, model.synthetic),
        data=Data(incoming.kind, incoming.digest, incoming.person is not None, yardstick.design_effect),
        rows=Rows(
            read=incoming.read,
            valid=len(incoming.valid),
            labelled=int(scored.labelled.sum()),
            training=int(data["rows"]["train"]),
            validation=int(data["rows"]["validation"]),
        ),
        rows_needed=needed,
        known_rows=_known_rows(baseline.trained_on, incoming, schema),
        features=features,
        instrument=instrument,
        score=score,
        expected=expected,
        realised=realised,
        separability=separated,
        subgroups=_subgroups(baseline, incoming, schema),
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
    """The gravest reasons first; within a verdict, figures of all people before features by size of shift."""
    sizes = {feature.name: feature.shift.psi for feature in features}
    return tuple(
        sorted(
            reasons, key=lambda reason: (-VERDICTS.index(reason.verdict), -sizes.get(reason.about, math.inf))
        )
    )


# ---------------------------------------------------------------- the evidence that each test needs


def _yardstick(baseline: Baseline, incoming: Incoming, schema: Schema) -> tuple[Yardstick, Tests]:
    """The evidence and quantile that each test needs, by Bonferroni over the tests that are made."""
    limits = schema.drift
    test_count = sum(
        # The shift; missing; invalid; levels never seen, which a numeric feature does not have.
        (len(feature.bins) > 1) + 2 + (feature.kind != "numeric")
        for feature in baseline.reference.features
    )
    test_count += 1  # the score
    test_count += separability.is_measurable(baseline.trained_on, incoming.valid)
    test_count += len(incoming.risk) >= SMALLEST_CELL  # the expected ROC AUC
    if _is_labelled(incoming):
        test_count += 4  # ranking, observed / expected, slope, curve
    evidence_needed = limits.evidence + math.log10(test_count)
    z = -float(special.ndtri(10**-evidence_needed / 2))
    effect = design_effect(incoming.person) if incoming.person is not None else 1.0
    return Yardstick(evidence_needed, z, limits, effect), Tests(
        test_count, limits.evidence, evidence_needed, z
    )


def _is_labelled(incoming: Incoming) -> bool:
    if incoming.outcome is None:
        return False
    positives, negatives = np.sum(incoming.outcome == 1), np.sum(incoming.outcome == 0)
    return bool(min(positives, negatives) >= drift_performance.FEWEST_OUTCOMES)


def _valid_design_effect(incoming: Incoming) -> float:
    if incoming.person is None:
        return 1.0
    return design_effect(incoming.person.iloc[incoming.valid.index.to_numpy()])


def _separability(baseline: Baseline, incoming: Incoming, schema: Schema, seed: int) -> Separability | None:
    if baseline.trained_on is None or not separability.is_measurable(baseline.trained_on, incoming.valid):
        return None
    return separability.measure(baseline.trained_on, incoming.valid, schema, seed)


# ---------------------------------------------------------------- rows that the model was trained on


def _known_rows(trained_on: pd.DataFrame | None, incoming: Incoming, schema: Schema) -> KnownRows | None:
    """How many valid rows are also in the training data, and how many would be by chance; None if unknown.

    By chance, a new person of the same kind gives answers that a training row has too with probability
    1 - (training rows with unique answers) / (training rows) (Good, Biometrika 40, 1953). Labelled rows are
    compared together with their outcome.
    """
    if trained_on is None or incoming.valid.empty:
        return None
    from pandas.util import hash_pandas_object

    names = list(schema.feature_names)
    labelled = incoming.outcome is not None and not np.isnan(incoming.outcome).any()
    columns = [*names, TARGET_COLUMN] if labelled else names
    new = incoming.valid[names].assign(**{TARGET_COLUMN: incoming.outcome}) if labelled else incoming.valid
    training_hashes = hash_pandas_object(
        trained_on[columns].astype({TARGET_COLUMN: float} if labelled else {}), index=False
    )
    new_hashes = hash_pandas_object(new[columns], index=False)
    _, repeats = np.unique(training_hashes, return_counts=True)
    rows = int(np.isin(new_hashes, training_hashes).sum())
    return KnownRows(
        rows=shown(rows),
        share=None if is_small(rows) else rows / len(new_hashes),
        by_chance=1 - float((repeats == 1).sum()) / len(training_hashes),
    )


def has_many_known_rows(report: DriftReport) -> bool:
    """Whether so many rows are in the training data that realised figures flatter the model."""
    known_rows = report.known_rows
    return (
        known_rows is not None
        and known_rows.share is not None
        and known_rows.share >= known_rows.by_chance + _MANY_KNOWN
    )


# ---------------------------------------------------------------- subgroups


def _subgroups(baseline: Baseline, incoming: Incoming, schema: Schema) -> tuple[SubgroupDrift, ...]:
    """Share of each subgroup in training and now, and its figures now; small subgroups are hidden.

    Subgroups of one column are one table: see `steps.data.disclosure`.
    """
    masks = [np.asarray(group.mask(incoming.valid)) for group in schema.subgroups]
    outcome = np.full(len(incoming.valid), np.nan) if incoming.outcome is None else incoming.outcome
    hidden = np.zeros(len(masks), dtype=np.bool_)
    for column in {group.column for group in schema.subgroups}:
        indices = [i for i, group in enumerate(schema.subgroups) if group.column == column]
        members, pattern_of_row = np.unique(
            np.array([masks[i] for i in indices]), axis=1, return_inverse=True
        )
        rows, positives, negatives = (
            np.bincount(pattern_of_row.ravel(), weights, members.shape[1]).astype(np.float64)
            for weights in (None, outcome == 1, outcome == 0)
        )
        hidden[indices] = hidden_lines(members, rows, positives, negatives)
    return tuple(
        _subgroup(group, mask, bool(hide), baseline, incoming)
        for group, mask, hide in zip(schema.subgroups, masks, hidden, strict=True)
    )


_UNKNOWN = Figure(None, None, None)


def _subgroup(
    group: Subgroup, mask: NDArray[np.bool_], hidden: bool, baseline: Baseline, incoming: Incoming
) -> SubgroupDrift:
    then = _share_then(baseline, group)
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

    Rows are not weighted: a subgroup has too few labels in each band of risk.
    """
    if incoming.outcome is None:
        return None, _UNKNOWN
    labelled = mask & ~np.isnan(incoming.outcome)
    y, risk = incoming.outcome[labelled], incoming.risk[labelled]
    if min(y.sum(), len(y) - y.sum()) < SMALLEST_CELL:
        return None, _UNKNOWN
    stderr = math.sqrt(float((risk * (1 - risk)).sum())) / float(risk.sum())
    return float(y.mean()), drift_performance.figure(float(y.sum() / risk.sum()), stderr)


def _share_then(baseline: Baseline, group: Subgroup) -> float | None:
    """Share of training rows in a group.

    For levels it follows from the reference, so that it discloses no more than the reference. For a range of
    numbers it is counted, in tens; None where few rows are inside or outside, or without training rows.
    """
    share = _share_of_levels(baseline.reference, group)
    if share is not None or baseline.trained_on is None:
        return share
    mask = np.asarray(group.mask(baseline.trained_on))
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
    numbers = {f"psi {feature.name}": feature.shift.psi for feature in report.features}
    numbers |= {"psi score": report.score.shift.psi}
    numbers |= {"rows": report.rows.read, "valid_rows": report.rows.valid}
    figures: Mapping[str, Figure | None] = {
        "expected_roc_auc": report.expected.roc_auc if report.expected else None,
        "realised_roc_auc": report.realised.ranking.realised if report.realised else None,
        "observed_expected": report.realised.observed_expected if report.realised else None,
        "separability_roc_auc": report.separability.roc_auc if report.separability else None,
    }
    numbers |= {name: figure.value for name, figure in figures.items() if figure and figure.value is not None}
    return {name: float(value) for name, value in numbers.items()}
