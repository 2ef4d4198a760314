"""`drift.json`: differences of new data from a model's data, and the verdict, as a typed document.

`steps.measures.drift` fills it; the report, the terminal, the job summary and `make retrain` read it. It
holds aggregates, never a row; small cells are None. An undefined figure is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FORMAT = 2

Verdict = Literal["quiet", "too_few", "watch", "recalibrate", "retrain", "mend"]
# In ascending order of urgency; broken data come first, since they hide everything else.
VERDICTS: tuple[Verdict, ...] = ("quiet", "too_few", "watch", "recalibrate", "retrain", "mend")

Kind = Literal[
    "too_few",
    "missing",
    "answered",
    "invalid",
    "unseen",
    "moved",
    "instrument",
    "score",
    "separability",
    "expected_roc_auc",
    "roc_auc",
    "observed_expected",
    "calibration_slope",
    "calibration_curve",
]


@dataclass(frozen=True)
class Reason:
    """A reason for a verdict: `about` names the feature or the figure, `text` explains it."""

    verdict: Verdict
    kind: Kind
    about: str
    text: str


@dataclass(frozen=True)
class Tests:
    """Number of tests, and the evidence (log10) and normal quantile that each needs to count.

    All tests together give a false alarm in one of 10^`together` comparisons.
    """

    made: int
    together: float
    each: float
    z: float


@dataclass(frozen=True)
class Limits:
    """Smallest differences that count, besides the evidence (`DriftLimits` of the schema)."""

    psi: float
    share: float
    roc_auc_loss: float
    observed_expected: tuple[float, float]
    calibration_slope: tuple[float, float]
    calibration_error: float
    separability: float


@dataclass(frozen=True)
class Model:
    """The model whose data the new data are compared with."""

    label: str
    version: str | None
    digest: str
    family: str
    synthetic: bool


@dataclass(frozen=True)
class Data:
    """The new data. `design_effect`: the factor by which repeated people inflate counts; 1 if every person
    comes once, or if rows name no person (`people_known` is false)."""

    kind: str
    digest: str
    people_known: bool
    design_effect: float


@dataclass(frozen=True)
class Rows:
    """Rows: `read`; `valid` and scored; `labelled` of these; `training` and `validation` of the model."""

    read: int
    valid: int
    labelled: int
    training: int
    validation: int


@dataclass(frozen=True)
class RowsNeeded:
    """Rows needed to detect a shift of PSI 0.1 and of 0.25 in any feature."""

    psi_0_1: int
    psi_0_25: int


@dataclass(frozen=True)
class KnownRows:
    """Rows whose answers and outcome all equal those of a training row; `by_chance` is the share expected of
    new people of the same kind, `rows` None where they are few."""

    rows: int | None
    share: float | None
    by_chance: float


@dataclass(frozen=True)
class Shift:
    """PSI with its 95 % interval and the evidence (log10) of a shift; `counts`: certain and large enough."""

    psi: float
    low: float
    high: float
    evidence: float
    counts: bool


@dataclass(frozen=True)
class ShareChange:
    """A share of rows in training and now, None where hidden, and the evidence (log10) that they differ.

    `counts`: certain and large enough; `rises`: more now than then.
    """

    then: float
    now: float | None
    evidence: float
    counts: bool
    rises: bool


@dataclass(frozen=True)
class FeatureDrift:
    """One feature.

    `then`, `now`: shares of `labels` in training and now, None where hidden; where the number of rows without
    an answer is hidden, those rows count in the denominator of `now`. `unseen`: values of levels that no
    training row had. `rules`: the rules that invalid values break.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    then: tuple[float, ...]
    now: tuple[float | None, ...]
    shift: Shift
    missing: ShareChange
    invalid: ShareChange
    unseen: ShareChange
    rules: tuple[str, ...]

    @property
    def broken(self) -> bool:
        """Whether more values are missing, invalid or of unseen levels than in training."""
        return any(change.counts and change.rises for change in (self.missing, self.invalid, self.unseen))


@dataclass(frozen=True)
class Instrument:
    """The only feature that has moved, as if its scale or its zero had changed."""

    feature: str
    scale: float
    offset: float
    psi: float
    psi_left: float


@dataclass(frozen=True)
class ScoreDrift:
    """The predicted risks: shares by score bin among validation rows and now."""

    shift: Shift
    bins: tuple[str, ...]
    then: tuple[float, ...]
    now: tuple[float | None, ...]
    threshold: float


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Decision:
    """Decisions at the threshold: shares, None where undefined."""

    recall: float | None
    precision: float | None
    flagged: float
    prevalence: float


@dataclass(frozen=True)
class Expected:
    """Performance expected from the risks alone. `loss`: of expected ROC AUC against validation rows.

    `people_error` is the typical error of the expected ROC AUC on other people, measured on validation
    subgroups; the interval includes it.
    """

    roc_auc: Figure
    then: float
    loss: float
    loss_stderr: float
    people_error: float
    decision: Decision
    decision_then: Decision


@dataclass(frozen=True)
class LabelledBin:
    """Labels of one score bin: `share` labelled, mean `risk`, `observed` share with its interval; None where
    hidden."""

    bin: str
    rows: int | None
    labels: int | None
    share: float | None
    risk: float | None
    observed: Figure


@dataclass(frozen=True)
class Ranking:
    """Realised and expected ROC AUC on the same rows, and the same two figures of the test.

    `loss`: expected less realised, less the same difference of `compared_with`. `withheld`: why there is no
    verdict.
    """

    realised: Figure
    expected: float
    compared_with: str
    then_realised: float
    then_expected: float | None
    loss: float
    loss_stderr: float
    withheld: str | None


@dataclass(frozen=True)
class Realised:
    """Figures of the rows that have an outcome, weighted by how completely their score bin is labelled."""

    rows: int
    positives: int
    effective_positives: float
    effective_negatives: float
    labelled_share: float
    weighted: bool
    by_bin: tuple[LabelledBin, ...]
    ranking: Ranking
    observed_expected: Figure
    calibration_slope: Figure
    calibration_error: float
    calibration_error_by_chance: float
    calibration_evidence: float
    decision: Decision


@dataclass(frozen=True)
class ColumnPart:
    """ROC AUC that the classifier of old and new rows loses when a column is shuffled."""

    name: str
    lost: float


@dataclass(frozen=True)
class Separability:
    """How well boosted trees tell new rows from training rows: ROC AUC on held-out rows."""

    rows: int
    roc_auc: Figure
    stderr: float
    columns: tuple[ColumnPart, ...]


@dataclass(frozen=True)
class SubgroupDrift:
    """A subgroup's share in training and now, and its figures now; None where hidden or unknown."""

    name: str
    headline: bool
    hidden: bool
    then: float | None
    now: Figure
    risk: float | None
    observed: float | None
    observed_expected: Figure


@dataclass(frozen=True)
class DriftReport:
    """The result of a comparison; `verdict` is that of the gravest of `reasons`."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    tests: Tests
    limits: Limits
    model: Model
    data: Data
    rows: Rows
    rows_needed: RowsNeeded
    known_rows: KnownRows | None
    features: tuple[FeatureDrift, ...]
    instrument: Instrument | None
    score: ScoreDrift
    expected: Expected | None
    realised: Realised | None
    separability: Separability | None
    subgroups: tuple[SubgroupDrift, ...]
    disclaimer: str
    run_id: str = ""
    format: int = FORMAT

    @property
    def moved(self) -> tuple[str, ...]:
        """Features whose values have moved, in the schema's order."""
        return tuple(feature.name for feature in self.features if feature.shift.counts)

    @property
    def broken(self) -> tuple[str, ...]:
        """Features with more missing, invalid or unseen values than in training."""
        return tuple(feature.name for feature in self.features if feature.broken)
