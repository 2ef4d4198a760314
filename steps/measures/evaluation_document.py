"""`evaluation.json`: what is known of one model on one set of rows, as a typed document.

`steps.measures.evaluation` fills it; reports, gates and summaries read it. It holds aggregates, never a row.
A figure that is undefined, such as ROC AUC with one class only, is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steps.data import documents
from steps.data.errors import UserError
from steps.measures.concordance import Concordance

FORMAT = 2


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; `method` names the kind of interval."""

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = "bootstrap"


@dataclass(frozen=True)
class Difference:
    """A figure of two models on the same rows and their difference, `first` less `second`, paired."""

    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    method: str = "paired bootstrap"


@dataclass(frozen=True)
class Performance:
    """The measures of `steps.measures.catalogue` for all rows."""

    roc_auc: Estimate
    calibration_slope: Estimate
    calibration_intercept: Estimate
    observed_expected: Estimate
    average_precision: Estimate
    brier: Estimate
    log_loss: Estimate
    recall: Estimate
    specificity: Estimate
    precision: Estimate
    flagged: Estimate
    accuracy: Estimate
    f1: Estimate


@dataclass(frozen=True)
class Per1000:
    """Decisions and outcomes of 1,000 people: whole numbers that add up to 1,000."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def flagged(self) -> int:
        """People who are flagged."""
        return self.true_positives + self.false_positives

    @property
    def positives(self) -> int:
        """People with the outcome."""
        return self.true_positives + self.false_negatives


@dataclass(frozen=True)
class Choice:
    """What a threshold would mean."""

    threshold: float
    chosen: bool
    recall: float | None
    specificity: float | None
    precision: float | None
    flagged: float | None


@dataclass(frozen=True)
class CalibrationGroup:
    """Mean risk and observed share of one group of about equal size, with Wilson's interval."""

    rows: int
    predicted: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per person at each threshold: of the model with its interval, and of flagging everybody."""

    threshold: tuple[float, ...]
    model: tuple[Estimate, ...]
    everybody: tuple[float, ...]


@dataclass(frozen=True)
class Distribution:
    """Counts of risks between edges (edges: one more than counts), by outcome."""

    edges: tuple[float, ...]
    negative: tuple[int, ...]
    positive: tuple[int, ...]


@dataclass(frozen=True)
class RocCurve:
    """Points of an ROC curve, from (0, 0) to (1, 1)."""

    false_positive_rate: tuple[float, ...]
    recall: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """What the figures of a report are drawn from."""

    calibration: tuple[CalibrationGroup, ...]
    decision: DecisionCurve
    distribution: Distribution
    roc: RocCurve


@dataclass(frozen=True)
class Group:
    """Figures of one subgroup of the schema."""

    name: str
    column: str
    headline: bool
    rows: int
    positives: int
    prevalence: float
    roc_auc: Estimate
    roc_auc_difference: Estimate
    observed_expected: Estimate
    recall: Estimate
    flagged: Estimate


@dataclass(frozen=True)
class PointScoreResult:
    """A point score on the same rows as the model.

    `model_flagged` is the share that the model flags at the score's recall, `fewer_flagged` what that saves.
    """

    name: str
    cut: int
    item_count: int
    lacks: tuple[str, ...]
    made_for: str
    roc_auc: Estimate
    roc_auc_difference: Estimate
    average_precision: Estimate
    recall: Estimate
    specificity: Estimate
    flagged: Estimate
    model_flagged: Estimate
    fewer_flagged: Estimate
    roc: RocCurve


@dataclass(frozen=True)
class ColumnImportance:
    """Loss of ROC AUC when one column is shuffled: mean and standard deviation over repeats."""

    name: str
    meaning: str
    loss: float | None
    spread: float | None


@dataclass(frozen=True)
class Importance:
    """Permutation importance of every column on a sample of rows, the largest first."""

    rows: int
    repeats: int
    roc_auc: float | None
    columns: tuple[ColumnImportance, ...]


@dataclass(frozen=True)
class MissingAnswer:
    """Figures of all rows with the answers to some columns taken away."""

    columns: tuple[str, ...]
    roc_auc: float | None
    observed_expected: Estimate
    flagged: float


@dataclass(frozen=True)
class MissingAnswers:
    """What one answer less costs, on a sample of rows: with all answers, then without each column, last
    without those that scenarios of the schema leave out together."""

    rows: int
    complete: MissingAnswer
    entries: tuple[MissingAnswer, ...]


@dataclass(frozen=True)
class SchemaFacts:
    """Which schema the rows follow."""

    name: str
    title: str
    digest: str


@dataclass(frozen=True)
class Feature:
    """A column that the model reads."""

    name: str
    meaning: str
    unit: str | None = None


@dataclass(frozen=True)
class TargetFacts:
    """What is estimated."""

    name: str
    meaning: str
    positive: tuple[str, ...]
    disclaimer: str


@dataclass(frozen=True)
class ModelFacts:
    """What is known of the model; all of it may be unknown."""

    name: str | None = None
    family: str | None = None
    role: str | None = None
    run_id: str | None = None
    digest: str | None = None
    trained_at: float | None = None  # seconds since 1970, UTC
    recall_target: float | None = None
    synthetic: bool = False


@dataclass(frozen=True)
class DataFacts:
    """What is known of the rows: `kind` is synthetic, public or private."""

    rows: int
    positives: int
    prevalence: float
    kind: str = "private"
    digest: str | None = None


@dataclass(frozen=True)
class Method:
    """How intervals were made: their level, bootstrap replicates and seed; and the smallest count shown."""

    level: float
    replicates: int
    seed: int
    smallest_cell: int


@dataclass(frozen=True)
class Evaluation:
    """Everything that is reported about one model on one set of rows."""

    schema: SchemaFacts
    features: tuple[Feature, ...]
    target: TargetFacts
    model: ModelFacts
    data: DataFacts
    method: Method
    threshold: float
    metrics: Performance
    per_1000: Per1000
    choices: tuple[Choice, ...]
    curves: Curves
    subgroups: tuple[Group, ...] = ()
    hidden_subgroups: tuple[str, ...] = ()
    point_scores: tuple[PointScoreResult, ...] = ()
    importance: Importance | None = None
    concordance: Concordance | None = None
    missing_answers: MissingAnswers | None = None
    synthetic: bool = False
    format: int = FORMAT


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows, paired."""

    rows: int
    level: float
    replicates: int
    metrics: Mapping[str, Difference]


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """The document as `evaluation.json` holds it."""
    content: dict[str, Any] = documents.to_json(evaluation)
    return content


def from_json(content: object) -> Evaluation:
    """The evaluation that `to_json` wrote.

    Raises:
        UserError: the document has another format or shape.
    """
    written = content.get("format") if isinstance(content, Mapping) else None
    if written != FORMAT:
        raise UserError(
            f"evaluation.json has format {written!r}, and this version reads format {FORMAT}: "
            "run the evaluate step again"
        )
    return documents.from_json(Evaluation, content, "evaluation.json")


def scalars(evaluation: Evaluation) -> dict[str, float]:
    """Flat numbers to log as metrics: the overall ones with their intervals, and each subgroup's ROC AUC."""
    flat: dict[str, float | None] = {
        "rows": evaluation.data.rows,
        "prevalence": evaluation.data.prevalence,
    }
    for name, estimate in vars(evaluation.metrics).items():
        flat[name], flat[f"{name}_low"], flat[f"{name}_high"] = estimate.value, estimate.low, estimate.high
    for group in evaluation.subgroups:
        flat[f"roc_auc {group.name}"] = group.roc_auc.value
    return {name: float(value) for name, value in flat.items() if value is not None}
