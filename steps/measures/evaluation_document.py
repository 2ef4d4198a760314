"""`evaluation.json`: the figures of a model on a set of rows, as a typed document.

`steps.measures.evaluation` fills it; reports, gates and summaries read it. It holds aggregates, never a row.
A figure that is undefined, such as ROC AUC with one class only, is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steps.data import documents
from steps.data.errors import UserError
from steps.data.schema import Card
from steps.measures.concordance import Concordance
from steps.measures.survey_weights import Weighted

FORMAT = 2

# A group with fewer people with the outcome is shown with a caution.
FEW_EVENTS = 50


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; `method` names the kind of interval."""

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""


@dataclass(frozen=True)
class Performance:
    """The measures of `steps.measures.catalogue` for all rows."""

    roc_auc: Estimate
    observed_expected: Estimate
    calibration_slope: Estimate
    calibration_intercept: Estimate
    net_benefit: Estimate
    recall: Estimate
    specificity: Estimate
    precision: Estimate
    negative_predictive_value: Estimate
    flagged: Estimate
    brier: Estimate
    log_loss: Estimate
    average_precision: Estimate
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
    """Figures at a threshold."""

    threshold: float
    chosen: bool
    recall: float | None
    specificity: float | None
    precision: float | None
    negative_predictive_value: float | None
    flagged: float | None
    net_benefit: float | None


@dataclass(frozen=True)
class CalibrationGroup:
    """Mean risk and observed share of one group of about equal size, with Wilson's interval."""

    rows: int
    predicted: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True)
class SmoothCalibration:
    """Observed share as a smooth function of the risk, with its pointwise 95 % band.

    `e50` and `e90`: median and 90th percentile over people of the distance between curve and risk.
    `e50_by_chance` and `e90_by_chance`: what right risks show at most in 95 of 100 sets of as many people.
    """

    risk: tuple[float, ...]
    observed: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    e50: float
    e90: float
    e50_by_chance: float | None = None
    e90_by_chance: float | None = None


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per person at each threshold: of the model with its interval, of flagging everybody, and of
    each point score whose points were turned into risks on other rows, by its name.
    """

    threshold: tuple[float, ...]
    model: tuple[Estimate, ...]
    everybody: tuple[float, ...]
    point_scores: Mapping[str, tuple[float, ...]]


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
    """The data of a report's figures."""

    calibration: tuple[CalibrationGroup, ...]
    smooth_calibration: SmoothCalibration | None
    decision: DecisionCurve
    distribution: Distribution
    roc: RocCurve


@dataclass(frozen=True)
class GroupDifferences:
    """Figures of a subgroup less those of everybody else."""

    recall: Estimate
    false_positive_rate: Estimate
    precision: Estimate
    net_benefit: Estimate


@dataclass(frozen=True)
class Group:
    """Figures of one subgroup of the schema; `roc_auc_difference` is everybody's ROC AUC less the group's."""

    name: str
    column: str
    headline: bool
    rows: int
    positives: int
    prevalence: float
    roc_auc: Estimate
    roc_auc_difference: Estimate
    observed_expected: Estimate
    calibration_slope: Estimate
    recall: Estimate
    flagged: Estimate
    false_positive_rate: Estimate
    precision: Estimate
    net_benefit: Estimate
    differences: GroupDifferences

    @property
    def few(self) -> bool:
        """Whether there are so few people with the outcome that a report adds a caution."""
        return self.positives < FEW_EVENTS


@dataclass(frozen=True)
class Cell:
    """Calibration among the people who belong to two subgroups."""

    first: str
    second: str
    rows: int
    positives: int
    observed_expected: Estimate
    calibration_slope: Estimate

    @property
    def few(self) -> bool:
        """Whether there are so few people with the outcome that a report adds a caution."""
        return self.positives < FEW_EVENTS


@dataclass(frozen=True)
class Policy:
    """A way of deciding who is flagged, and its net benefit per person at the model's threshold."""

    name: str
    flagged: Estimate
    net_benefit: Estimate


@dataclass(frozen=True)
class Refitted:
    """The questions of a point score with new weights, by logistic regression on training rows.

    `roc_auc_difference`: the model's ROC AUC less this ROC AUC, which is the gain from the other questions.
    """

    rows: int
    roc_auc: Estimate
    roc_auc_difference: Estimate


@dataclass(frozen=True)
class PointScoreResult:
    """A point score on the same rows as the model.

    `model_flagged` is the share that the model flags at the score's recall, `fewer_flagged` how much less
    that is. `net_benefit` is at the model's threshold, for people flagged from the score's own cut on.
    """

    name: str
    cut: int
    cut_because: str
    item_count: int
    lacks: tuple[str, ...]
    differs: tuple[str, ...]
    made_for: str
    roc_auc: Estimate
    roc_auc_difference: Estimate
    recall: Estimate
    specificity: Estimate
    flagged: Estimate
    net_benefit: Estimate
    model_flagged: Estimate
    fewer_flagged: Estimate
    roc: RocCurve
    refitted: Refitted | None = None


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
class TermSize:
    """A term of an additive model: its columns, and its mean absolute effect on people's log odds."""

    columns: tuple[str, ...]
    size: float


@dataclass(frozen=True)
class MissingAnswer:
    """Figures of all rows with the answers to some columns taken away."""

    columns: tuple[str, ...]
    roc_auc: float | None
    observed_expected: Estimate
    flagged: float


@dataclass(frozen=True)
class MissingAnswers:
    """Figures of a sample of rows with all answers, then without each column, and last without the columns
    that scenarios of the schema leave out together."""

    rows: int
    complete: MissingAnswer
    entries: tuple[MissingAnswer, ...]


@dataclass(frozen=True)
class SchemaFacts:
    """The schema of the rows, the questions that its data lack, and a person's words about the data.

    `open_questions`: the topics of a drafted schema's questions; their texts are left out, as they may quote
    a value.
    `by_person`: rows are divided by the person, whom a column of the schema names, and not by their values.
    """

    name: str
    title: str
    digest: str
    lacks: tuple[str, ...] = ()
    card: Card = field(default_factory=Card)
    open_questions: tuple[str, ...] = ()
    by_person: bool = False


@dataclass(frozen=True)
class Feature:
    """A column that the model reads."""

    name: str
    meaning: str
    unit: str | None = None


@dataclass(frozen=True)
class TargetFacts:
    """The outcome that is estimated."""

    name: str
    meaning: str
    positive: tuple[str, ...]
    disclaimer: str


@dataclass(frozen=True)
class ModelFacts:
    """Facts about the model; each may be unknown.

    `preference`: the family that a search kept, and the cost of preferring a glass box.
    """

    name: str | None = None
    family: str | None = None
    role: str | None = None
    run_id: str | None = None
    digest: str | None = None
    trained_at: float | None = None  # seconds since 1970, UTC
    recall_target: float | None = None
    threshold_odds: float | None = None
    calibration: str | None = None
    hyperparameters: Mapping[str, float | int | str] = field(default_factory=dict)
    search: str | None = None
    preference: str | None = None
    synthetic: bool = False


@dataclass(frozen=True)
class Part:
    """Rows of one part of the data and how many have the outcome; None where that is hidden."""

    name: str
    rows: int | None
    positives: int | None


@dataclass(frozen=True)
class OutcomeLevel:
    """Risks of the people at one level of the outcome.

    `roc_auc_without`: ROC AUC of all other people, for one of several levels that count as no outcome.
    """

    name: str
    positive: bool
    rows: int
    mean_risk: float
    flagged: float
    roc_auc_without: Estimate | None = None


@dataclass(frozen=True)
class DataFacts:
    """Facts about the rows: `kind` is synthetic, public or private; `parts` are the parts of the data."""

    rows: int
    positives: int
    prevalence: float
    kind: str = "private"
    digest: str | None = None
    parts: tuple[Part, ...] = ()
    source_note: str = ""


@dataclass(frozen=True)
class ChanceOfRecall:
    """Range by chance of the recall of a threshold that was chosen for `target` on other rows.

    The recall is between `low` and `high` 95 times in 100, given the people with the outcome on both sides.
    """

    target: float
    chosen_on: int
    measured_on: int
    low: float
    high: float


@dataclass(frozen=True)
class Method:
    """Level, bootstrap replicates and seed of the intervals, and the smallest count shown."""

    level: float
    replicates: int
    seed: int
    smallest_cell: int


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one model on one set of rows."""

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
    policies: tuple[Policy, ...]
    curves: Curves
    outcome_levels: tuple[OutcomeLevel, ...] = ()
    subgroups: tuple[Group, ...] = ()
    hidden_subgroups: tuple[str, ...] = ()
    cells: tuple[Cell, ...] = ()
    hidden_cells: int = 0
    chance_of_recall: ChanceOfRecall | None = None
    point_scores: tuple[PointScoreResult, ...] = ()
    importance: Importance | None = None
    terms: tuple[TermSize, ...] = ()
    concordance: Concordance | None = None
    missing_answers: MissingAnswers | None = None
    weighted: Weighted | None = None
    synthetic: bool = False
    format: int = FORMAT


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


def threshold_odds(evaluation: Evaluation) -> float:
    """How many false alarms one person found is worth at the threshold."""
    return (1 - evaluation.threshold) / evaluation.threshold if evaluation.threshold > 0 else float("inf")


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
