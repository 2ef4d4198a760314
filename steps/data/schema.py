"""The schema: everything that is known about the columns of a data set before a row of it is read.

`steps.data.schema_file` reads it from a YAML file and checks it, so the rest of the project trusts it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from steps.data.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Code = float | str
LevelledKind = Literal["binary", "ordinal", "nominal"]
Expectation = Literal["up", "down"]
SourceKind = Literal["synthetic", "public"]
Take = Literal["largest", "smallest"]
Operation = Literal[
    "shift", "add", "scale", "replace", "missing", "garbage", "outcome_shift", "outcome_slope", "rate"
]


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=_HasName)


@dataclass(frozen=True, slots=True)
class Format:
    """How tables of text are written; None where it is detected from their first lines."""

    separator: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class Spelling:
    """How files write one column under one name; `recode` maps values of a file, None is no answer."""

    name: str
    recode: Mapping[Code, Code | None] = field(default_factory=dict)
    divide_by: float = 1.0
    round_to: float | None = None

    @property
    def is_plain(self) -> bool:
        """Values need no conversion."""
        return not self.recode and self.divide_by == 1.0 and self.round_to is None


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """A feature that is a number within a closed range.

    `spellings`: the names that files may give it, its own first, and how they write it (none: its own name,
    no conversion). `required`: a row without an answer is refused. `may_lack`: in a file without the column
    all answers count as missing. `expect`: `up` where the risk should rise with the column.
    """

    name: str
    meaning: str
    minimum: float
    maximum: float
    unit: str | None = None
    missing: tuple[Code, ...] = ()
    spellings: tuple[Spelling, ...] = ()
    required: bool = False
    may_lack: bool = False
    expect: Expectation | None = None

    @property
    def kind(self) -> Literal["numeric"]:
        """Its kind in a schema file."""
        return "numeric"

    @property
    def is_text(self) -> Literal[False]:
        """Its values are numbers."""
        return False


@dataclass(frozen=True, slots=True)
class LevelledColumn:
    """A feature with a few values, each with a label, in the schema's order.

    The other fields are those of `NumericColumn`.
    """

    name: str
    kind: LevelledKind
    meaning: str
    levels: Mapping[Code, str]
    unit: str | None = None
    missing: tuple[Code, ...] = ()
    spellings: tuple[Spelling, ...] = ()
    required: bool = False
    may_lack: bool = False
    expect: Expectation | None = None

    @property
    def codes(self) -> tuple[Code, ...]:
        """The values of the levels in their order."""
        return tuple(self.levels)

    @property
    def is_text(self) -> bool:
        """The column holds text; all other columns hold numbers."""
        return any(isinstance(code, str) for code in self.codes)


Column = NumericColumn | LevelledColumn


@dataclass(frozen=True, slots=True)
class Target:
    """The outcome: its values and which of them count as positive."""

    name: str
    meaning: str
    levels: Mapping[Code, str]
    positive: tuple[Code, ...]
    missing: tuple[Code, ...] = ()
    spellings: tuple[Spelling, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set comes from. Only a file with this `sha256` counts as `kind`; all else is private."""

    name: str
    kind: SourceKind
    path: str | None = None
    url: str | None = None
    sha256: str | None = None
    target: str | None = None
    positive: tuple[Code, ...] | None = None
    ignore: tuple[str, ...] = ()
    note: str = ""
    format: Format = Format()


# The limit of `monitoring.reference`.
MOST_MONITORED_GROUPS = 20


@dataclass(frozen=True, slots=True)
class Subgroup:
    """People whose figures are shown on their own: some levels of a column, or a range of a numeric one."""

    name: str
    column: str
    values: tuple[Code, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    headline: bool = False

    def mask(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows belong to it, shape (rows,); rows with a missing value do not. Bounds are inclusive."""
        series = frame[self.column]
        if self.values is not None:
            return np.asarray(series.isin(list(self.values)), dtype=np.bool_)
        numbers = np.asarray(series, dtype=np.float64)
        lower, upper = self.bounds
        return np.asarray((numbers >= lower) & (numbers <= upper), dtype=np.bool_)

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest number of a numeric column's subgroup, infinite where there is no limit."""
        return (
            -math.inf if self.minimum is None else self.minimum,
            math.inf if self.maximum is None else self.maximum,
        )

    def overlaps(self, other: Subgroup) -> bool:
        """Whether a person may belong to this and to another subgroup of the same column."""
        if self.values is not None and other.values is not None:
            return not set(self.values).isdisjoint(other.values)
        (low, high), (other_low, other_high) = self.bounds, other.bounds
        return max(low, other_low) <= min(high, other_high)


@dataclass(frozen=True, slots=True)
class Gates:
    """Limits of a promotion; `steps/measures/promotion.py` judges by them. A schema may leave out all of
    them.

    `roc_auc_min`: floor of ROC AUC, none by default. `calibration_slope` and `observed_expected`: ranges that
    a whole interval must lie in; the defaults are wide enough for a well calibrated model with 100 events in
    the test part. Against champion and anchor, `roc_auc_margin` is the largest loss of ROC AUC,
    `log_loss_margin` the largest rise of log loss as a share of theirs. In each subgroup,
    `subgroup_observed_expected` is the range and `subgroup_recall_margin` the largest loss of recall.
    `prevalence_change`: from this odds ratio on (or below its inverse), a change of the share of outcomes
    since the champion's data needs a person's approval. `ignored`: one sentence for each key of an older
    schema that is no longer read.
    """

    roc_auc_min: float | None = None
    calibration_slope: tuple[float, float] = (0.5, 2.0)
    observed_expected: tuple[float, float] = (0.67, 1.5)
    roc_auc_margin: float = 0.005
    log_loss_margin: float = 0.01
    subgroup_observed_expected: tuple[float, float] = (0.8, 1.25)
    subgroup_recall_margin: float = 0.05
    prevalence_change: float = 1.25
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """Thresholds from which `drift` reports a difference: the key `drift` of a schema, with its defaults.

    `evidence`: log10, for all tests of one comparison together; 3 is one false alarm in a thousand
    comparisons. `psi`: size of a shift. `share`: change of the share of missing, invalid or never seen
    values. `roc_auc_loss`: fall of the ROC AUC, expected or realised. `observed_expected` and
    `calibration_slope`: ranges in which the risks are right. `calibration_error`: expected calibration error
    beyond that of chance. `separability`: ROC AUC of telling new rows from training rows.
    """

    evidence: float = 3.0
    psi: float = 0.02
    share: float = 0.01
    roc_auc_loss: float = 0.01
    observed_expected: tuple[float, float] = (0.9, 1.1)
    calibration_slope: tuple[float, float] = (0.85, 1.15)
    calibration_error: float = 0.015
    separability: float = 0.55


@dataclass(frozen=True, slots=True)
class Question:
    """How one column is asked for on one person's page; everything has a default from the column.

    `built_from`: the measures that the page asks for in place of the number itself; height in centimetres
    and weight in kilograms give a body mass index. `whole`: the number is rounded, as the data hold it.
    """

    ask: str | None = None
    short: str | None = None
    group: str | None = None
    help: str | None = None
    built_from: tuple[Literal["height", "weight"], ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class PersonPage:
    """One person's page: `outcome` ends "About 24 of 100 people with these answers ...".

    `compare` names a column with whose subgroups an answer is compared; `example` holds made-up answers.
    """

    title: str | None = None
    outcome: str | None = None
    compare: str | None = None
    example: Mapping[str, Code] = field(default_factory=dict)
    questions: Mapping[str, Question] = field(default_factory=dict)

    def question(self, name: str) -> Question:
        """How a column is asked for."""
        return self.questions.get(name, Question())


@dataclass(frozen=True, slots=True)
class PointBand:
    """Points for numbers in [lower, upper); None means no limit."""

    lower: float | None
    upper: float | None
    points: int


@dataclass(frozen=True, slots=True)
class PointItem:
    """One question of a point score.

    With several columns the largest or the smallest of their points counts, as `take` says: a form that gives
    a point unless fruit or vegetables are eaten daily takes the smallest.
    """

    columns: tuple[str, ...]
    points: Mapping[Code, int] | tuple[PointBand, ...]
    take: Take = "largest"

    def score(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """Points of each row, shape (rows,); a missing value gives none."""
        choose = np.maximum if self.take == "largest" else np.minimum
        return np.asarray(choose.reduce([self._score_column(frame[name]) for name in self.columns]))

    def _score_column(self, series: pd.Series[Any]) -> NDArray[np.int64]:
        total = np.zeros(len(series), dtype=np.int64)
        if isinstance(self.points, tuple):
            numbers = np.asarray(series, dtype=np.float64)
            for band in self.points:
                lower = -np.inf if band.lower is None else band.lower
                upper = np.inf if band.upper is None else band.upper
                total[(numbers >= lower) & (numbers < upper)] = band.points
        else:
            for code, points in self.points.items():
                total[np.asarray(series == code, dtype=np.bool_)] = points
        return total


@dataclass(frozen=True, slots=True)
class PointScore:
    """A score that is added up by hand, to compare a model with.

    `lacks` names items of the published form that these data do not have, `differs` says where a question of
    these data differs from the form's, `cut_because` why people are flagged from `cut` points on.
    """

    name: str
    items: tuple[PointItem, ...]
    cut: int
    made_for: str
    lacks: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    cut_because: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that its items read, each once."""
        return tuple(dict.fromkeys(name for item in self.items for name in item.columns))

    def points(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """Sum of the items' points for each row, shape (rows,); from `cut` on a person is flagged."""
        return np.asarray(np.add.reduce([item.score(frame) for item in self.items], dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Change:
    """One change that a scenario makes to the traffic; `monitoring.simulation.people` describes each."""

    operation: Operation
    value: float
    column: str | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way in which the world, or the data, changes; the simulator plays it.

    No change until day `starts`, then `ramp` days to the full change; `drifts` names the columns whose values
    then have a population stability index of 0.1 or more.
    """

    name: str
    title: str
    description: str
    changes: tuple[Change, ...] = ()
    starts: float = 0.0
    ramp: float = 0.0
    drifts: tuple[str, ...] = ()

    def strength(self, day: float | None) -> float:
        """Share of the full change on a day (0 is the first); without a day, the full change."""
        if day is None or day >= self.starts + self.ramp:
            return 1.0
        return 0.0 if day < self.starts else (day - self.starts) / self.ramp

    def rate(self, day: float | None = None) -> float:
        """The factor by which the usual number of requests is multiplied on a day."""
        factors = [change.value for change in self.changes if change.operation == "rate"]
        return 1.0 + self.strength(day) * (float(np.prod(factors)) - 1.0)


@dataclass(frozen=True, slots=True)
class Card:
    """Statements about the data and the study that only a person can make, for report and model card.

    Each is a sentence or two; the report says which are empty. `people`: who is in the data, how many of how
    many, and where that is published. `outcome`: how it was determined. `cross_sectional`: the outcome was
    present, or not, when the questions were answered, so a model's risk is not a forecast.
    """

    people: str = ""
    setting: str = ""
    outcome: str = ""
    weighting: str = ""
    intended_use: str = ""
    inequalities: str = ""
    ethics: str = ""
    funding: str = ""
    conflicts: str = ""
    protocol: str = ""
    registration: str = ""
    involvement: str = ""
    cross_sectional: bool = False


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question that a drafted schema leaves to a person: `about` is `target` or the name of a column."""

    about: str
    question: str


@dataclass(frozen=True, slots=True)
class Schema:
    """Everything that is known about a data set before a row of it is read."""

    name: str
    title: str
    disclaimer: str
    columns: tuple[Column, ...]
    target: Target
    gates: Gates
    sources: tuple[Source, ...] = ()
    subgroups: tuple[Subgroup, ...] = ()
    monitor_by: str | None = None
    point_scores: tuple[PointScore, ...] = ()
    scenarios: tuple[Scenario, ...] = ()
    facts: str | None = None
    drift: DriftLimits = DriftLimits()
    person: str | None = None
    lacks: tuple[str, ...] = ()
    card: Card = Card()
    page: PersonPage = PersonPage()
    format: Format = Format()
    survey_weight: str | None = None
    open_questions: tuple[OpenQuestion, ...] = ()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features in the schema's order."""
        return tuple(column.name for column in self.columns)

    @property
    def monitored_groups(self) -> tuple[Subgroup, ...]:
        """The subgroups of `monitor_by`, by which the sidecar counts; they are disjoint.

        A subgroup that shares people with an earlier one is left out.
        """
        chosen: list[Subgroup] = []
        for group in self.subgroups:
            if group.column == self.monitor_by and not any(map(group.overlaps, chosen)):
                chosen.append(group)
        return tuple(chosen)

    @property
    def open_topics(self) -> tuple[str, ...]:
        """The subjects of the open questions of a draft, one for each question."""
        return tuple(question.about for question in self.open_questions)

    @property
    def digest(self) -> str:
        """64 hex digits of the whole content; the file's comments and layout do not count."""
        return _digest(self)

    @property
    def data_digest(self) -> str:
        """64 hex digits of what decides whether two models can be compared: columns, values and target.

        Meanings, labels and units do not count.
        """
        return _digest(
            [
                [[c.name, c.kind, *_limits(c), c.missing] for c in self.columns],
                [self.target.name, tuple(self.target.levels), self.target.positive],
            ]
        )

    def digest_of(self, *parts: str) -> str:
        """64 hex digits of some of the schema's fields or properties, for what depends on those alone."""
        return _digest([getattr(self, part) for part in parts])

    def column(self, name: str) -> Column:
        """The feature of this name."""
        return _named(self.columns, name, "column")

    def source(self, name: str) -> Source:
        """The source of this name."""
        return _named(self.sources, name, "source")

    def scenario(self, name: str) -> Scenario:
        """The scenario of this name."""
        return _named(self.scenarios, name, "scenario")


def registered_name(schema: Schema, kind: str) -> str:
    """Name of the registered model; models of synthetic people have one of their own."""
    return f"{schema.name}-synthetic" if kind == "synthetic" else schema.name


def registered_names(schema: Schema) -> tuple[str, str]:
    """Names of the registered models of a schema: of real data, of synthetic people."""
    return registered_name(schema, "private"), registered_name(schema, "synthetic")


def format_code(code: Code) -> str:
    """A level's value as text: 1 for 1.0, 0.5 for 0.5, text unchanged."""
    return code if isinstance(code, str) else f"{code:.15g}"


def _named(items: Sequence[Named], name: str, noun: str) -> Named:
    for item in items:
        if item.name == name:
            return item
    names = ", ".join(item.name for item in items) or "none"
    raise UserError(f"the schema has no {noun} {name!r}; it has: {names}")


def _limits(column: Column) -> tuple[float | None, float | None, tuple[Code, ...]]:
    """Smallest and largest number of a numeric column; the codes of one with levels."""
    if isinstance(column, NumericColumn):
        return column.minimum, column.maximum, ()
    return None, None, column.codes


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(_plain(content), ensure_ascii=False).encode()).hexdigest()


def _plain(content: Any) -> Any:
    """Content as JSON takes it, with the order of mappings kept: the order of levels matters."""
    if is_dataclass(content):
        return {field.name: _plain(getattr(content, field.name)) for field in fields(content)}
    if isinstance(content, Mapping):
        return [[_plain(key), _plain(value)] for key, value in content.items()]
    if isinstance(content, list | tuple):
        return [_plain(item) for item in content]
    return content
