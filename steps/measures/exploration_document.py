"""`exploration.json`: the exploration of a data set, or of two side by side, as a typed document.

`steps.measures.exploration` fills it; the report and the terminal read it. It holds aggregates, never a row;
small cells are None. A figure that is undefined is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from steps.measures.associations import Association

FORMAT = 2

LeakReason = Literal["alone", "level", "values"]


@dataclass(frozen=True)
class SchemaName:
    """The schema that the data were checked against; `open_questions`: topics of a draft's questions."""

    name: str
    title: str
    digest: str
    open_questions: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """The outcome: its meaning, and the levels that count as having it."""

    name: str
    meaning: str
    positive: tuple[str, ...]
    disclaimer: str


@dataclass(frozen=True)
class Share:
    """A share between 0 and 1 with its 95 % interval; None where hidden or undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Data:
    """The data set: rows read, valid, rejected, labelled, and with the outcome; None where few."""

    name: str
    kind: str
    read: int | None
    rows: int
    rejected: int | None
    labelled: int | None
    has_outcome: bool
    positives: int | None
    prevalence: Share
    extra_columns: tuple[str, ...]


@dataclass(frozen=True)
class BrokenRule:
    """A rule of the schema and how many rows break it, None where few."""

    column: str
    rule: str
    rows: int | None


@dataclass(frozen=True)
class Level:
    """People at a level, in a band, file or subgroup: rows, share of all, outcome rate with 95 % interval.

    All but the label are None where `hidden`.
    """

    label: str
    hidden: bool
    rows: int | None = None
    share: float | None = None
    rate: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Spike:
    """A value that a large share of the rows has."""

    value: float
    share: float


@dataclass(frozen=True)
class ColumnPrediction:
    """Held-out ROC AUC of one column alone, and what it adds to all others, with standard errors."""

    name: str
    roc_auc: float
    stderr: float
    adds: float
    adds_stderr: float


@dataclass(frozen=True)
class Column:
    """A column. `quantiles`: 5, 25, 50, 75 and 95 % of a numeric column, to four digits.

    `zeros`: share of zeros that cannot be; `spike`: a value that may have been filled in.
    """

    name: str
    meaning: str
    kind: str
    unit: str | None
    levels: tuple[Level, ...]
    missing: Level
    quantiles: tuple[float, ...] | None
    largest_share: float
    constant: bool
    nearly_constant: bool
    zeros: float | None
    spike: Spike | None
    empty_levels: tuple[str, ...]
    alone: ColumnPrediction | None


@dataclass(frozen=True)
class Repeats:
    """Rows that repeat another, and sets of answers that occur with both outcomes.

    `exact`: outcome included; `unavoidable_errors`: share of people about whom even a perfect rule is wrong.
    """

    same_features: int
    exact: int
    largest_group: int | None
    disagreeing_patterns: int
    disagreeing_rows: int
    unavoidable_errors: float | None


@dataclass(frozen=True)
class Trend:
    """A column along the file: means of consecutive stretches, each between 0 and 1 of its range."""

    name: str
    between: float
    p_value: float
    means: tuple[float | None, ...]
    overall: float
    stderr: float


@dataclass(frozen=True)
class Order:
    """Whether rows stand in random order: `ordered` columns, and `breaks` as shares of the file."""

    stretches: int
    columns: int
    ordered: tuple[str, ...]
    breaks: tuple[float, ...]
    trends: tuple[Trend, ...]


@dataclass(frozen=True)
class Associations:
    """Strength of each pair of columns: a matrix of `names`, the strongest, and equivalent pairs.

    `names` are ordered so that associated columns are side by side.
    """

    names: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    strongest: tuple[Association, ...]
    same: tuple[Association, ...]


@dataclass(frozen=True)
class Leak:
    """A column that probably holds the outcome itself; `label` names the level or the values."""

    name: str
    reason: LeakReason
    roc_auc: float
    label: str | None


@dataclass(frozen=True)
class Subgroup:
    """A subgroup of the schema, its column, and its people."""

    column: str
    headline: bool
    people: Level


@dataclass(frozen=True)
class PairPrediction:
    """Held-out ROC AUC of the outcome rates of two columns' combinations; `gain`: over the better alone."""

    first: str
    second: str
    roc_auc: float
    gain: float


@dataclass(frozen=True)
class Gain:
    """Gain over the ROC AUC of all columns, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Interaction:
    """A pair of columns, and the gain of a joint effect over the effects of each."""

    first: str
    second: str
    gain: Gain


@dataclass(frozen=True)
class RateTable:
    """Outcome rate of each combination of two columns' levels; None where hidden."""

    first: str
    second: str
    labels: tuple[tuple[str, ...], tuple[str, ...]]
    rates: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Prediction:
    """Predictive value of columns and pairs on held-out rows.

    `roc_auc`: of all columns, each with its own effect. `interactions`: the pairs with the strongest
    interaction on the rows learned from; `together`: the gain of all these pairs, None without pairs.
    """

    learned_rows: int
    judged_rows: int
    roc_auc: float
    stderr: float
    alone: tuple[ColumnPrediction, ...]
    pairs: tuple[PairPrediction, ...]
    pairs_tried: int
    best_pair: RateTable | None
    interactions: tuple[Interaction, ...]
    together: Gain | None


@dataclass(frozen=True)
class Exploration:
    """The exploration of one data set."""

    schema: SchemaName
    target: Target
    data: Data
    problems: tuple[BrokenRule, ...]
    columns: tuple[Column, ...]
    repeats: Repeats
    order: Order
    files: tuple[Level, ...]
    associations: Associations
    leaks: tuple[Leak, ...]
    subgroups: tuple[Subgroup, ...]
    prediction: Prediction | None
    suppressed_below: int


@dataclass(frozen=True)
class MovedColumn:
    """PSI of a column between two data sets with its 95 % interval, and the evidence (log10) of a shift."""

    name: str
    psi: float
    low: float
    high: float
    evidence: float


@dataclass(frozen=True)
class Comparison:
    """Two data sets: columns in order of their shift; a PSI below `psi_floor` does not matter."""

    columns: tuple[MovedColumn, ...]
    psi_floor: float


@dataclass(frozen=True)
class ExplorationDocument:
    """One data set, or two with their comparison."""

    explorations: tuple[Exploration, ...]
    comparison: Comparison | None = None
    format: int = FORMAT
