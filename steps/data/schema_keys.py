"""The keys of a schema file: the meaning of each and the kind of its value.

The reader (`steps.data.schema_file`), the page docs/data.md and the JSON Schema for editors are all made from
these models, so all three know the same keys. Rules between keys are in `steps.data.schema_rules`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from steps.data.schema import Code, DriftLimits, Expectation, Operation, SourceKind, Take

_LIMITS = DriftLimits()

Kind = Literal["numeric", "binary", "ordinal", "nominal"]


class WrongValueError(ValueError):
    """A value of the right kind that is not allowed; the message says why."""


@dataclass(frozen=True, eq=False)
class _Reads:
    """How a value is read: the expected kind in words, a function that returns None for any other value, and
    the value's JSON Schema.
    """

    expected: str
    reads: Callable[[Any], Any]
    schema: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.schema)

    def _validate(self, value: object) -> object:
        try:
            parsed = self.reads(value)
        except WrongValueError as error:
            raise PydanticCustomError("wrong", "{text}", {"text": str(error)}) from None
        if parsed is None:
            raise PydanticCustomError("expected", "{expected}", {"expected": self.expected})
        return parsed


def as_code(value: float | str) -> Code:
    """The value of a level: text, or a number as a float."""
    return value if isinstance(value, str) else float(value)


def is_number(value: object) -> bool:
    """Whether a value is a finite number and not a truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def is_code(value: object) -> bool:
    """Whether a value can be that of a level: a number or text."""
    return is_number(value) or isinstance(value, str)


def _text(value: object) -> str | None:
    return " ".join(value.split()) or None if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _texts(value: Any) -> tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _codes(value: Any) -> tuple[Code, ...] | None:
    is_valid = isinstance(value, list) and bool(value) and all(map(is_code, value))
    return tuple(map(as_code, value)) if is_valid else None


def _pair(value: Any) -> tuple[float, float] | None:
    is_valid = (
        isinstance(value, list) and len(value) == 2 and all(map(is_number, value)) and value[0] < value[1]
    )
    return (float(value[0]), float(value[1])) if is_valid else None


def _share(value: Any) -> float | None:
    return float(value) if is_number(value) and 0 <= value <= 1 else None


def _labels(value: Any) -> dict[Code, str] | None:
    if not isinstance(value, Mapping) or len(value) < 2:
        return None
    if any(isinstance(item, bool) for pair in value.items() for item in pair):
        raise WrongValueError(
            "holds a truth value: yes, no, on, off, true and false without quotes are no texts in YAML; "
            'quote yes, no, on and off, as in {"yes": smokes, "no": "no"}'
        )
    if not all(map(is_code, value)):
        return None
    unnamed = [code for code, label in value.items() if not isinstance(label, str) or not label.strip()]
    if unnamed:
        raise WrongValueError(f"gives level {unnamed[0]!r} no label; a label is text")
    if len({isinstance(code, str) for code in value}) == 2:
        raise WrongValueError("mixes numbers and texts")
    return {as_code(code): str(label) for code, label in value.items()}


def _recoded(value: Any) -> dict[Code, Code | None] | None:
    is_valid = isinstance(value, Mapping) and bool(value) and all(map(is_code, value))
    if not is_valid or not all(code is None or is_code(code) for code in value.values()):
        return None
    return {as_code(old): None if new is None else as_code(new) for old, new in value.items()}


def _answers(value: Any) -> dict[str, Code] | None:
    is_valid = isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
    if not is_valid or not all(map(is_code, value.values())):
        return None
    return {name: as_code(code) for name, code in value.items()}


def _level_points(value: Any) -> dict[Code, int] | None:
    is_valid = isinstance(value, Mapping) and bool(value) and all(map(is_code, value))
    if not is_valid or not all(_whole(points) is not None for points in value.values()):
        return None
    return {as_code(code): points for code, points in value.items()}


_CODE = {"type": ["number", "string"]}
Text = Annotated[str, _Reads("text", _text, {"type": "string"})]
Number = Annotated[float, _Reads("a number", _number, {"type": "number"})]
Whole = Annotated[int, _Reads("a whole number", _whole, {"type": "integer"})]
Flag = Annotated[bool, _Reads("true or false", _flag, {"type": "boolean"})]
Share = Annotated[float, _Reads("a number between 0 and 1", _share, {"type": "number"})]
Texts = Annotated[
    tuple[str, ...], _Reads("a list of texts", _texts, {"type": "array", "items": {"type": "string"}})
]
Codes = Annotated[
    tuple[Code, ...], _Reads("a list of numbers or texts", _codes, {"type": "array", "items": _CODE})
]
Pair = Annotated[
    tuple[float, float],
    _Reads("two numbers, lower and upper", _pair, {"type": "array", "items": {"type": "number"}}),
]
Labels = Annotated[
    dict[Code, str],
    _Reads(
        "two or more levels with a label each, numbers or texts",
        _labels,
        {"type": "object", "additionalProperties": {"type": "string"}},
    ),
]
Recode = Annotated[
    dict[Code, Code | None],
    _Reads(
        "values of a file, each with the value it stands for (null: no answer)",
        _recoded,
        {"type": "object", "additionalProperties": {"type": ["number", "string", "null"]}},
    ),
]
LevelPoints = Annotated[
    dict[Code, int],
    _Reads(
        "levels with whole points each",
        _level_points,
        {"type": "object", "additionalProperties": {"type": "integer"}},
    ),
]


Answers = Annotated[
    dict[str, Code],
    _Reads("answers by column", _answers, {"type": "object", "additionalProperties": _CODE}),
]


class Keys(BaseModel):
    """A mapping of the file. A key without a value counts as absent; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        return {key: value for key, value in content.items() if value is not None}


class FormatKeys(Keys):
    """How tables of text are written, where their first lines are ambiguous."""

    separator: Literal[",", ";", "\t", "|"] | None = Field(
        default=None, description="What stands between two values."
    )
    decimal: Literal[".", ","] | None = Field(default=None, description="The decimal sign of numbers.")
    thousands: Literal[".", ",", " ", "'"] | None = Field(
        default=None,
        description="What groups the digits of large numbers, as in 1,234.5; by default nothing does.",
    )
    encoding: Literal["utf-8", "utf-16", "latin-1", "cp1252"] | None = Field(
        default=None,
        description="How letters are stored. Latin-1 and cp1252 cannot be told apart: they must be named.",
    )


class AliasKeys(Keys):
    """Another name of a column, with the values that files of that name have."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, content: Any) -> Any:
        return {"name": content} if isinstance(content, str) else content

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(core)]}

    name: Text = Field(description="The column's name in the file.")
    recode: Recode | None = Field(
        default=None, description="What its values stand for, in place of the column's recode."
    )
    divide_by: Number | None = Field(default=None, description="Numbers of this file are divided by it.")


class ColumnKeys(Keys):
    """One feature: what it means, which values it may take, and how files write it."""

    name: Text = Field(
        description="Its name, in the file and in the model's input. No name starts with `__`."
    )
    kind: Kind = Field(
        description="`numeric`: a number within a range. `binary`: two levels. `ordinal`: levels in "
        "ascending order, as numbers. `nominal`: levels without an order."
    )
    meaning: Text = Field(description="What was asked or measured, in a few words.")
    unit: Text | None = Field(default=None, description="Its unit, such as kg/m².")
    minimum: Number | None = Field(
        default=None, description="The smallest possible number; numeric columns only."
    )
    maximum: Number | None = Field(
        default=None, description="The largest possible number; numeric columns only."
    )
    levels: Labels | None = Field(
        default=None,
        description="The possible values, each with a label; all other kinds. Quote `yes`, `no`, `on` and "
        "`off`: YAML reads them as truth values.",
    )
    missing: Codes | None = Field(
        default=None,
        description="Values that mean “no answer”, besides an empty cell: numbers, or texts such as `?`.",
    )
    aliases: tuple[AliasKeys, ...] = Field(
        default=(),
        description="Other names that files give the column, each a text, or a mapping with a recode of "
        "its own.",
    )
    recode: Recode | None = Field(
        default=None,
        description="What values of a file stand for, such as `{Yes: 1, No: 0, 9: null}`; null is no answer. "
        "What it does not name stays as it is.",
    )
    divide_by: Number | None = Field(
        default=None, description="Numbers of files are divided by it; numeric columns only."
    )
    round_to: Number | None = Field(
        default=None, description="Numbers of files are rounded to a multiple of it; numeric columns only."
    )
    required: Flag = Field(
        False,
        description="A row without an answer here is refused: by training, `score`, the served page, and the "
        "sidecar where its guard rejects.",
    )
    may_lack: Flag = Field(
        False,
        description="A file may lack the whole column: its answers then count as missing, with a message.",
    )
    expect: Expectation | None = Field(
        default=None,
        description="`up` where the risk should rise with the column, `down` where it should fall: the page "
        "of a glass box then names where it does not. Nothing is forced.",
    )


class TargetKeys(Keys):
    """The outcome."""

    name: Text = Field(description="The column that holds it; not one of the features.")
    meaning: Text = Field(description="What the outcome is, in a few words.")
    levels: Labels = Field(description="Its possible values, each with a label.")
    positive: Codes = Field(description="The values that count as “has the outcome”; not all of them.")
    missing: Codes | None = Field(
        default=None, description="Values that mean “not known”: such rows are set aside."
    )
    aliases: tuple[AliasKeys, ...] = Field(
        default=(), description="Other names of the column, as for a feature."
    )
    recode: Recode | None = Field(
        default=None, description="What values of a file stand for, as for a feature."
    )


class SourceKeys(Keys):
    """A data set that has a name: `-P data=name`."""

    name: Text = Field(description="What it is called.")
    kind: SourceKind = Field(
        description="`synthetic`: people who do not exist. `public`: rows that anybody may have. Only a file "
        "with the stated `sha256` counts as such; all else is private."
    )
    path: Text | None = Field(default=None, description="Its path, relative to the project; or else `url`.")
    url: Text | None = Field(default=None, description="Where it can be downloaded, https:// or http://.")
    sha256: Text | None = Field(default=None, description="64 hexadecimal digits of its content, in quotes.")
    target: Text | None = Field(
        default=None, description="The column of the outcome, if it has another name in this file."
    )
    positive: Codes | None = Field(default=None, description="The values that are positive there.")
    ignore: Texts = Field(default=(), description="Columns of the file that are known and not used.")
    format: FormatKeys | None = Field(
        default=None, description="How this source is written; it overrides the schema's `format`."
    )
    note: Text | None = Field(default=None, description="A note on it, shown in reports.")


class SubgroupKeys(Keys):
    """People whose figures are shown on their own."""

    column: Text = Field(description="The feature that defines it.")
    name: Text | None = Field(
        default=None,
        description="What it is called. Without it, and with nothing else, each level becomes a subgroup.",
    )
    values: Codes | None = Field(default=None, description="The levels that belong to it.")
    minimum: Number | None = Field(
        default=None, description="For a numeric column: the smallest number of it."
    )
    maximum: Number | None = Field(
        default=None, description="For a numeric column: the largest number of it."
    )
    headline: Flag = Field(default=False, description="Reports name it first.")


class GateKeys(Keys):
    """Limits of a promotion; what each does is in docs/training.md."""

    roc_auc_min: Share | None = Field(default=None, description="Floor of ROC AUC.")
    roc_auc_margin: Share | None = Field(
        default=None, description="Largest loss of ROC AUC; 0.005 by default."
    )
    log_loss_margin: Share | None = Field(
        default=None, description="Largest rise of log loss, as a share; 0.01 by default."
    )
    subgroup_recall_margin: Share | None = Field(
        default=None, description="Largest loss of recall in a subgroup; 0.05 by default."
    )
    calibration_slope: Pair | None = Field(default=None, description="Range of the calibration slope.")
    observed_expected: Pair | None = Field(default=None, description="Range of observed / expected.")
    subgroup_observed_expected: Pair | None = Field(
        default=None, description="The same within each subgroup."
    )
    prevalence_change: Number | None = Field(
        default=None,
        description="Odds ratio above 1 from which another share of outcomes needs a person's approval.",
    )
    average_precision_min: Number | None = Field(
        default=None, description="Key of older schemas; ignored with a warning."
    )
    subgroup_gap_max: Number | None = Field(
        default=None, description="Key of older schemas; ignored with a warning."
    )
    champion_loss_max: Number | None = Field(
        default=None, description="Key of older schemas; ignored with a warning."
    )


class DriftKeys(Keys):
    """Thresholds from which `drift` reports a difference; each has a default."""

    evidence: Number | None = Field(
        default=None,
        description="log10, all tests of one comparison together: 3 is one false alarm in 1,000 comparisons; "
        f"{_LIMITS.evidence:g} by default.",
    )
    psi: Number | None = Field(
        default=None,
        description=f"Size of a shift of a feature or of the predicted risks, as population stability index; "
        f"{_LIMITS.psi:g} by default.",
    )
    share: Number | None = Field(
        default=None,
        description="Change of the share of missing, invalid or never seen values; "
        f"{_LIMITS.share:g} by default.",
    )
    roc_auc_loss: Number | None = Field(
        default=None,
        description="Fall of the expected ROC AUC, or loss of the realised one beyond what the people "
        f"explain; {_LIMITS.roc_auc_loss:g} by default.",
    )
    observed_expected: Pair | None = Field(
        default=None,
        description="Range in which the risks are right on the whole; "
        f"{list(_LIMITS.observed_expected)} by default.",
    )
    calibration_slope: Pair | None = Field(
        default=None,
        description="Range in which the risks are neither too extreme nor too timid; "
        f"{list(_LIMITS.calibration_slope)} by default.",
    )
    calibration_error: Number | None = Field(
        default=None,
        description=f"Expected calibration error beyond that of chance; {_LIMITS.calibration_error:g} by "
        "default.",
    )
    separability: Number | None = Field(
        default=None,
        description=f"ROC AUC of telling new rows from training rows; {_LIMITS.separability:g} by default.",
    )


class BandKeys(Keys):
    """Points for numbers from `from` up to, not including, `to`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_: Number | None = Field(None, alias="from", description="Lower end; the first band has none.")
    to: Number | None = Field(default=None, description="Upper end; the last band has none.")
    points: Whole = Field(description="Points of the band.")


class ItemKeys(Keys):
    """One question of a point score."""

    column: Text | None = Field(default=None, description="The column it asks.")
    columns: Texts | None = Field(default=None, description="Or several, of which one counts.")
    take: Take | None = Field(
        default=None, description="With several columns: whose points count; `largest` by default."
    )
    points: Annotated[
        Annotated[tuple[BandKeys, ...], Tag("bands")] | Annotated[LevelPoints, Tag("levels")],
        Discriminator(lambda value: "bands" if isinstance(value, list | tuple) else "levels"),
    ] = Field(description="Points of each level; for a numeric column a list of bands that join without gap.")


class PointScoreKeys(Keys):
    """A score that people add up by hand, to compare a model with."""

    name: Text = Field(description="What it is called.")
    made_for: Text = Field(description="What it was made for, and how these data differ.")
    items: tuple[ItemKeys, ...] = Field(min_length=1, description="Its questions.")
    cut: Whole = Field(description="Points from which a person is flagged.")
    cut_because: Text | None = Field(default=None, description="The reason for this cut.")
    lacks: Texts = Field(default=(), description="Items of the published form that the data do not have.")
    differs: Texts = Field(default=(), description="Where a question of the data differs from the form's.")


class CardKeys(Keys):
    """Statements about the data and the study that only a person can make, for report and model card."""

    people: Text | None = Field(
        default=None, description="Who is in the data, how many of how many, and where that stands."
    )
    setting: Text | None = Field(default=None, description="Where and when the data were collected.")
    outcome: Text | None = Field(default=None, description="How the outcome was found out.")
    weighting: Text | None = Field(default=None, description="Whether people represent others, and how.")
    intended_use: Text | None = Field(default=None, description="Who may use the model for what.")
    inequalities: Text | None = Field(default=None, description="Whom the model may serve worse.")
    ethics: Text | None = Field(default=None, description="Approval and consent.")
    funding: Text | None = Field(default=None, description="Who paid.")
    conflicts: Text | None = Field(default=None, description="Interests of the people who made it.")
    protocol: Text | None = Field(default=None, description="Where the plan of the study stands.")
    registration: Text | None = Field(default=None, description="Where the study is registered.")
    involvement: Text | None = Field(
        default=None, description="What patients and the public had to do with it."
    )
    cross_sectional: Flag = Field(
        default=False, description="The outcome was present, or not, when the questions were answered."
    )


class ChangeKeys(Keys):
    """One change that a scenario makes to the traffic: exactly one operation, mostly of one column."""

    column: Text | None = Field(default=None, description="The column that changes.")
    share: Number | None = Field(
        default=None, description="Share of the people whom it concerns; all by default."
    )
    shift: Number | None = Field(
        default=None, description="Moves everybody by so many steps or standard deviations."
    )
    add: Number | None = Field(default=None, description="Adds a number.")
    scale: Number | None = Field(default=None, description="Multiplies a number.")
    replace: Number | None = Field(default=None, description="Replaces all values by one.")
    missing: Number | None = Field(default=None, description="Share of answers that go missing.")
    garbage: Number | None = Field(default=None, description="Share of answers that become rubbish.")
    outcome_shift: Number | None = Field(
        default=None, description="Adds to everybody's log odds of the outcome."
    )
    outcome_slope: Number | None = Field(
        default=None, description="Multiplies the effect of the answers on the outcome."
    )
    rate: Number | None = Field(default=None, description="Multiplies the number of requests.")

    @property
    def operations(self) -> dict[Operation, float]:
        """The operations that are given, with their values."""
        names: tuple[Operation, ...] = get_args(Operation)
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class ScenarioKeys(Keys):
    """A way in which the world, or the data, changes; the simulator plays it."""

    name: Text = Field(description="Small letters, digits and single hyphens.")
    title: Text = Field(description="What it is called.")
    description: Text = Field(description="What happens.")
    changes: tuple[ChangeKeys, ...] = Field(default=(), description="What it does to the traffic.")
    starts: Number = Field(default=0.0, description="Day on which it starts.")
    ramp: Number = Field(default=0.0, description="Days until it is complete.")
    drifts: Texts = Field(default=(), description="Columns whose PSI reaches 0.1.")


class PageQuestionKeys(Keys):
    """How one column is asked for on one person's page."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    ask: Text | None = Field(default=None, description="The question; the column's meaning by default.")
    short: Text | None = Field(default=None, description="A short name, for the reasons.")
    group: Text | None = Field(default=None, description="The heading that it stands under.")
    help: Text | None = Field(default=None, description="A sentence that helps to answer.")
    from_: Texts = Field(
        default=(),
        alias="from",
        description="`[height, weight]`: the page asks for these and works out a body mass index.",
    )
    whole: Flag = Field(default=False, description="The number is rounded, as the data hold it.")


class PageKeys(Keys):
    """One person's page."""

    title: Text | None = Field(default=None, description="Its title.")
    outcome: Text | None = Field(
        default=None, description="Ends the sentence “About 24 of 100 people with these answers ...”."
    )
    compare: Text | None = Field(
        default=None, description="A column with subgroups, with which an answer is compared."
    )
    example: Answers | None = Field(default=None, description="Made-up answers by column.")
    questions: dict[str, PageQuestionKeys] = Field(
        default_factory=dict, description="How columns are asked for, by their names."
    )


class OpenQuestionKeys(Keys):
    """A question that a drafted schema leaves to a person."""

    about: Text = Field(description="`target`, or the name of a column.")
    question: Text = Field(description="The question. Delete the entry once the schema answers it.")


class SchemaKeys(Keys):
    """The whole file."""

    name: Text = Field(
        description="Name of the model and of its registered versions: small letters, digits and single "
        "hyphens."
    )
    title: Text = Field(description="Title of reports.")
    disclaimer: Text | None = Field(
        default=None, description="What a risk does not mean; shown below each risk."
    )
    target: TargetKeys = Field(description="The outcome.")
    columns: tuple[ColumnKeys, ...] = Field(min_length=1, description="The features, in the model's order.")
    sources: tuple[SourceKeys, ...] = Field(default=(), description="Data sets with a name.")
    format: FormatKeys | None = Field(
        default=None, description="How files of text are written, where they are ambiguous."
    )
    person: Text | None = Field(
        default=None,
        description="A column by which a person is recognised, beside the features. It is never stored: "
        "only a hash of it is, all rows of a person are on the same side of the split and in one fold of the "
        "tuning, and `drift` counts a person who comes five times as one.",
    )
    survey_weight: Text | None = Field(
        default=None,
        description="A column that says how many people a row stands for, beside the features. `evaluate` "
        "shows its figures weighted too; nothing else uses it.",
    )
    subgroups: tuple[SubgroupKeys, ...] = Field(
        default=(), description="People whose figures are shown on their own."
    )
    monitor_by: Text | None = Field(
        default=None,
        description="A column with subgroups, by which the sidecar counts flagged people and late labels; a "
        "subgroup that shares people with an earlier one is left out.",
    )
    gates: GateKeys | None = Field(default=None, description="Limits of a promotion.")
    drift: DriftKeys | None = Field(default=None, description="Limits of drift.")
    point_scores: tuple[PointScoreKeys, ...] = Field(
        default=(), description="Scores to compare a model with."
    )
    lacks: Texts = Field(
        default=(),
        description="Attributes by which fairness cannot be judged, because they are not in the data.",
    )
    card: CardKeys | None = Field(
        default=None, description="Statements that only a person can make, for report and model card."
    )
    page: PageKeys | None = Field(default=None, description="One person's page.")
    scenarios: tuple[ScenarioKeys, ...] = Field(default=(), description="Scenarios of the simulator.")
    facts: Text | None = Field(
        default=None, description="File of aggregates that the simulator draws people from."
    )
    open_questions: tuple[OpenQuestionKeys, ...] = Field(
        default=(),
        description="Questions of a draft. The chain refuses a schema with a question about the "
        "target; others are warnings.",
    )


def model_of(annotation: Any) -> type[Keys] | None:
    """The model of a key's mapping, or of the entries of its list; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, Keys):
        return annotation
    inner = (model_of(part) for part in get_args(annotation))
    return next((model for model in inner if model is not None), None)


def in_words(field: FieldInfo) -> str:
    """The kind of value that a key should have, in words."""
    for part in (*field.metadata, *_flat(field.annotation)):
        if isinstance(part, _Reads):
            return part.expected
    choices = [part for part in _flat(field.annotation) if isinstance(part, str)]
    if choices:
        return "one of " + ", ".join(choices)
    return "a list of keys and values" if get_origin(field.annotation) is tuple else "keys and values"


def _flat(annotation: Any) -> Iterator[Any]:
    """The arguments of an annotation and, recursively, their arguments."""
    for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield part
        yield from _flat(part)
