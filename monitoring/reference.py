"""The reference of a model (`reference.json`, format 1) and the binning of rows.

`document` is its only writer, used where the model is trained; `load` and `parse` are its only readers, so
both sides bin alike. Each value falls into exactly one of four classes: a bin of its feature, *missing* (null
or a missing code), *out of range* (numeric, outside the schema's closed interval) or *unknown level*. PSI and
drift evidence use bins only.
"""

import json
import math
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FORMAT = 1
MISSING, OUT_OF_RANGE, UNKNOWN = -1, -2, -3
KINDS = ("numeric", "binary", "ordinal", "nominal")
# Each group has its own series, and its index takes seven bits of a feedback token.
MOST_GROUPS = 20

Binned = npt.NDArray[np.int64]
Level = float | str


class ReferenceError(ValueError):  # noqa: A001 - the contract's name; the builtin of that name is for weakrefs
    """The document is not a usable reference; the message lists every problem found."""


class Counts(NamedTuple):
    """Values of one feature by class; the four parts sum to the number of values given."""

    bins: Binned
    missing: int
    out_of_range: int
    unknown: int


@dataclass(frozen=True)
class Feature:
    """A column of the model's input, its bins and the training rows' counts in them.

    `required`: a row without an answer here is refused. The file has the key only where it is true;
    references from before 2026-11-27 do not have it.
    """

    name: str
    kind: str
    type: str
    bins: tuple[str, ...]
    counts: tuple[int, ...]
    missing: int
    labels: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()
    edges: tuple[float, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    missing_codes: tuple[Level, ...] = ()
    required: bool = False
    codes: Mapping[Level, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Store the bin of every missing code and level, so that binning a value is one lookup."""
        codes: dict[Level, int] = {level: index for index, level in enumerate(self.levels)}
        codes.update(dict.fromkeys(self.missing_codes, MISSING))
        object.__setattr__(self, "codes", codes)

    @property
    def words(self) -> tuple[str, ...]:
        """The bins in words: labels of the levels, or ranges such as "22 to below 30"."""
        if self.kind != "numeric" or self.minimum is None or self.maximum is None:
            return self.labels if len(self.labels) == len(self.bins) else self.bins
        edges = [f"{edge:.6g}" for edge in (self.minimum, *self.edges, self.maximum)]
        below = [f"{low} to below {high}" for low, high in pairwise(edges[:-1])]
        return (*below, f"{edges[-2]} to {edges[-1]}")

    @property
    def is_text(self) -> bool:
        """Whether values arrive as strings."""
        return self.type == "string"

    def bin(self, values: npt.NDArray[Any]) -> Binned:
        """Bin index of each value; -1 missing, -2 out of range, -3 unknown level.

        `values` has shape (n,): float64 with NaN for missing, or, for a text feature, objects: str, or None
        or NaN for missing. A numeric value v falls into bin i with edges[i-1] <= v < edges[i].
        """
        if self.is_text:
            return np.fromiter((self.bin_value(value) for value in values), np.int64, len(values))
        values = np.asarray(values, dtype=np.float64)
        if self.kind == "numeric":
            index = np.searchsorted(np.asarray(self.edges, np.float64), values, side="right").astype(np.int64)
            index[~((values >= self.minimum) & (values <= self.maximum))] = OUT_OF_RANGE
        else:
            levels = np.asarray(self.levels, np.float64)
            order = np.argsort(levels)
            level_index = np.searchsorted(levels, values, sorter=order).clip(max=len(levels) - 1)
            index = np.where(levels[order][level_index] == values, order[level_index], UNKNOWN).astype(
                np.int64
            )
        missing = np.isnan(values)
        for code in self.missing_codes:
            missing |= values == code
        index[missing] = MISSING
        return index

    def bin_value(self, value: float | str | None) -> int:
        """Bin index of one value, like `bin`; several times faster than an array for a single row."""
        if value is None or value != value:
            return MISSING
        index = self.codes.get(value)
        if index is not None:
            return index
        if self.kind != "numeric":
            return UNKNOWN
        if not self.minimum <= value <= self.maximum:  # type: ignore[operator]
            return OUT_OF_RANGE
        return bisect_right(self.edges, value)

    def count(self, values: npt.NDArray[Any]) -> Counts:
        """Number of values in each bin and of each other class; `values` as for `bin`."""
        counts = np.bincount(self.bin(values) - UNKNOWN, minlength=len(self.bins) - UNKNOWN)
        return Counts(counts[-UNKNOWN:], int(counts[2]), int(counts[1]), int(counts[0]))


@dataclass(frozen=True)
class Score:
    """Bins of the predicted risk, with the validation rows, their sums of risks and their positives."""

    edges: tuple[float, ...]
    bins: tuple[str, ...]
    counts: tuple[int, ...]
    sums: tuple[float, ...]
    positives: tuple[int, ...]
    threshold: float
    threshold_bin: int

    @property
    def words(self) -> tuple[str, ...]:
        """The bins as ranges of risk, such as "4.1 to 6.3 %"."""
        return tuple(f"{100 * low:.3g} to {100 * high:.3g} %" for low, high in pairwise(self.edges))

    def bin(self, risks: npt.NDArray[np.float64]) -> Binned:
        """Bin index of each risk, shape (n,): edges[i] <= risk < edges[i+1], and the last bin is closed; -1
        for a value that is not a number from 0 to 1."""
        risks = np.asarray(risks, dtype=np.float64)
        index = np.searchsorted(np.asarray(self.edges), risks, side="right").astype(np.int64) - 1
        index = index.clip(0, len(self.bins) - 1)
        index[~((risks >= 0.0) & (risks <= 1.0))] = MISSING
        return index

    def bin_value(self, risk: float) -> int:
        """Bin index of one risk, like `bin`."""
        if not 0.0 <= risk <= 1.0:
            return MISSING
        return min(bisect_right(self.edges, risk) - 1, len(self.bins) - 1)


@dataclass(frozen=True)
class Group:
    """A group that the monitor counts: people at some levels of a feature, or in a range of a number."""

    name: str
    levels: tuple[Level, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    def has(self, value: Level) -> bool:
        """Whether a value of the feature, which is in one of its bins, belongs to the group."""
        if self.levels:
            return value in self.levels
        low, high = self.minimum, self.maximum
        return isinstance(value, float) and (low is None or low <= value) and (high is None or value <= high)


@dataclass(frozen=True)
class Groups:
    """The groups of one feature: no person is in two groups, and some may be in none."""

    feature: Feature
    members: tuple[Group, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups, in order."""
        return tuple(group.name for group in self.members)

    @property
    def key(self) -> int:
        """A 32-bit checksum of feature, names and members."""
        return zlib.crc32(json.dumps(_groups_document(self), sort_keys=True).encode())

    def index_of(self, value: Level | None) -> int:
        """Index of the value's group, from 1; 0 for a value that is not in a bin or not in any group."""
        if value is None or self.feature.bin_value(value) < 0:
            return 0
        return next((index for index, group in enumerate(self.members, 1) if group.has(value)), 0)


@dataclass(frozen=True)
class Model:
    """The model that the reference describes."""

    name: str
    version: str | None
    run_id: str
    family: str
    trained_at: float
    digest: str
    synthetic: bool


@dataclass(frozen=True)
class Golden:
    """Rows made from the schema, and the risks that the model gave them where it was trained."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Reference:
    """The facts about a model that a monitor needs; `raw` is the document as it was read."""

    model: Model
    features: tuple[Feature, ...]
    score: Score
    floors: Mapping[str, float]
    golden: Golden
    data: Mapping[str, Any]
    target: Mapping[str, Any]
    validation: Mapping[str, Any]
    groups: Groups | None = None
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)


def document(reference: Reference) -> dict[str, Any]:
    """The reference as JSON-able values of format 1, which `parse` reads back."""
    model, score, golden = reference.model, reference.score, reference.golden
    groups = {} if reference.groups is None else {"groups": _groups_document(reference.groups)}
    return {
        "format": FORMAT,
        "model": {
            "name": model.name,
            "version": model.version,
            "run_id": model.run_id,
            "family": model.family,
            "trained_at": model.trained_at,
            "digest": model.digest,
            "synthetic": model.synthetic,
        },
        "data": dict(reference.data),
        "target": dict(reference.target),
        "features": [_feature_document(feature) for feature in reference.features],
        "score": {
            "edges": list(score.edges),
            "bins": list(score.bins),
            "counts": list(score.counts),
            "sums": list(score.sums),
            "positives": list(score.positives),
            "threshold": score.threshold,
            "threshold_bin": score.threshold_bin,
        },
        "validation": dict(reference.validation),
        "floors": dict(reference.floors),
        "golden": {
            "columns": list(golden.columns),
            "rows": [list(row) for row in golden.rows],
            "scores": list(golden.scores),
        },
        **groups,
    }


def _groups_document(groups: Groups) -> dict[str, Any]:
    members = [
        {"name": group.name, "levels": list(group.levels)}
        if group.levels
        else {"name": group.name, "minimum": group.minimum, "maximum": group.maximum}
        for group in groups.members
    ]
    return {"feature": groups.feature.name, "members": members}


def _feature_document(feature: Feature) -> dict[str, Any]:
    values: dict[str, Any] = {"levels": list(feature.levels), "labels": list(feature.labels)}
    if feature.kind == "numeric":
        values = {"minimum": feature.minimum, "maximum": feature.maximum, "edges": list(feature.edges)}
    return {
        "name": feature.name,
        "kind": feature.kind,
        "type": feature.type,
        "missing_codes": list(feature.missing_codes),
        **values,
        "bins": list(feature.bins),
        "counts": list(feature.counts),
        "missing": feature.missing,
        **({"required": True} if feature.required else {}),
    }


def load(path: str | Path) -> Reference:
    """Read and check a reference file.

    Raises ReferenceError if it cannot be read, is not JSON or breaks a rule of the format.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReferenceError(f"reference {Path(path).name} cannot be read: {type(error).__name__}") from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ReferenceError(f"reference {Path(path).name} is not JSON") from error
    return parse(document)


def parse(document: Mapping[str, Any]) -> Reference:
    """Check a reference document and build a Reference from it.

    Raises ReferenceError naming every problem at once. Keys that format 1 does not define are kept in `raw`.
    """
    if not isinstance(document, Mapping):
        raise ReferenceError("reference: must be a JSON object")
    if document.get("format") != FORMAT:
        raise ReferenceError(f"reference: format must be {FORMAT}; build the reference again")
    problems: list[str] = []

    def part(name: str, build: Callable[[Any], Any]) -> Any:
        try:
            return build(document[name])
        except KeyError as error:
            missing = name if name not in document else f"{name}.{error.args[0]}"
            problems.append(f"{missing} is absent")
        except _BrokenError as error:
            problems.extend(f"{name}: {problem}" for problem in error.problems)
        except (TypeError, ValueError, AttributeError) as error:
            problems.append(f"{name} has a part of the wrong type ({type(error).__name__})")
        return None

    model = part("model", _model)
    features = part("features", _features)
    score = part("score", _score)
    golden = part("golden", _golden)
    floors = part("floors", lambda floors: {str(name): float(value) for name, value in floors.items()})
    data, target, validation = (part(name, dict) for name in ("data", "target", "validation"))
    groups = None
    if features and document.get("groups") is not None:
        groups = part("groups", lambda groups: _groups(groups, features))
    if golden and features and set(golden.columns) != {feature.name for feature in features}:
        problems.append("golden: columns differ from the features")
    if problems:
        raise ReferenceError("reference: " + "; ".join(problems))
    return Reference(model, features, score, floors, golden, data, target, validation, groups, document)


class _BrokenError(Exception):
    """Problems of one part, which `parse` collects into one ReferenceError."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = problems


def _refuse(**rules: bool) -> None:
    """Raise _BrokenError naming each rule that holds."""
    if problems := [name.replace("_", " ") for name, broken in rules.items() if broken]:
        raise _BrokenError(problems)


def _model(part: Mapping[str, Any]) -> Model:
    version = part.get("version")
    return Model(
        name=str(part["name"]),
        version=None if version is None else str(version),
        run_id=str(part["run_id"]),
        family=str(part.get("family", "")),
        trained_at=float(part["trained_at"]),
        digest=str(part["digest"]),
        synthetic=bool(part["synthetic"]),
    )


def _features(parts: Sequence[Mapping[str, Any]]) -> tuple[Feature, ...]:
    features: list[Feature] = []
    problems: list[str] = []
    for index, part in enumerate(parts):
        try:
            features.append(_feature(part))
        except KeyError as error:
            problems.append(f"feature {part.get('name', index)}: {error.args[0]} is absent")
        except _BrokenError as error:
            problems.extend(f"feature {part.get('name', index)}: {problem}" for problem in error.problems)
        except (TypeError, ValueError, AttributeError):
            problems.append(f"feature number {index} has a part of the wrong type")
    names = [feature.name for feature in features]
    if len(set(names)) < len(names):
        problems.append("two features have the same name")
    if not parts:
        problems.append("there is no feature")
    if problems:
        raise _BrokenError(problems)
    return tuple(features)


def _feature(part: Mapping[str, Any]) -> Feature:
    kind, dtype, bins = str(part["kind"]), str(part["type"]), tuple(map(str, part["bins"]))
    numeric, required = kind == "numeric", part.get("required", False)

    def level(value: Any) -> Level:
        return str(value) if dtype == "string" else float(value)

    edges = tuple(float(edge) for edge in part["edges"]) if numeric else ()
    levels = () if numeric else tuple(level(value) for value in part["levels"])
    counts, missing = tuple(int(count) for count in part["counts"]), int(part["missing"])
    minimum, maximum = (float(part["minimum"]), float(part["maximum"])) if numeric else (None, None)
    _refuse(
        unknown_kind=kind not in KINDS,
        unknown_type=dtype not in ("double", "string"),
        text_cannot_be_numeric=numeric and dtype == "string",
        edges_must_be_finite_and_ascend=not _ascends(edges),
        range_is_empty=minimum is not None and maximum is not None and not minimum <= maximum,
        levels_must_be_distinct=len(set(levels)) < len(levels),
        bins_do_not_fit_the_edges_or_levels=len(bins) != (len(edges) + 1 if numeric else len(levels)),
        bin_names_must_be_distinct=len(set(bins)) < len(bins) or not bins,
        counts_do_not_fit_the_bins=len(counts) != len(bins),
        counts_must_not_be_negative=min((*counts, missing)) < 0,
        required_must_be_true_or_false=not isinstance(required, bool),
    )
    return Feature(
        name=str(part["name"]),
        kind=kind,
        type=dtype,
        bins=bins,
        counts=counts,
        missing=missing,
        labels=tuple(map(str, part.get("labels", bins))),
        levels=levels,
        edges=edges,
        minimum=minimum,
        maximum=maximum,
        missing_codes=tuple(level(value) for value in part.get("missing_codes", ())),
        required=required,
    )


def _groups(part: Mapping[str, Any], features: Sequence[Feature]) -> Groups:
    feature = next((candidate for candidate in features if candidate.name == part["feature"]), None)
    if feature is None:
        raise _BrokenError(["feature is none of the features"])

    def group(member: Mapping[str, Any]) -> Group:
        levels = tuple(str(level) if feature.is_text else float(level) for level in member.get("levels", ()))
        ends = [member.get(key) for key in ("minimum", "maximum")]
        low, high = (None if end is None else float(end) for end in ends)
        return Group(str(member["name"]), levels, low, high)

    members = tuple(map(group, part["members"]))
    names = [member.name for member in members]
    _refuse(
        there_is_no_group=not members,
        more_than_20_groups=len(members) > MOST_GROUPS,
        group_names_must_be_distinct_and_not_empty=len(set(names)) < len(names) or "" in names,
        levels_must_be_those_of_the_feature=any(
            level not in feature.levels for member in members for level in member.levels
        ),
        a_group_of_a_feature_with_levels_must_have_levels=feature.kind != "numeric"
        and not all(member.levels for member in members),
    )
    return Groups(feature, members)


def _score(part: Mapping[str, Any]) -> Score:
    edges, bins = tuple(float(edge) for edge in part["edges"]), tuple(map(str, part["bins"]))
    counts, positives = tuple(map(int, part["counts"])), tuple(map(int, part["positives"]))
    sums = tuple(map(float, part["sums"]))
    threshold, threshold_bin = float(part["threshold"]), int(part["threshold_bin"])
    _refuse(
        edges_must_ascend_from_0_to_1=not _ascends(edges) or edges[:1] != (0.0,) or edges[-1:] != (1.0,),
        bins_do_not_fit_the_edges=len(bins) != len(edges) - 1,
        counts_sums_or_positives_do_not_fit_the_bins={len(counts), len(sums), len(positives)} != {len(bins)},
        counts_must_not_be_negative=min((*counts, *positives), default=0) < 0,
        threshold_is_not_the_lower_edge_of_its_bin=edges[threshold_bin : threshold_bin + 1] != (threshold,),
        more_than_100_bins=len(bins) > 100,
    )
    return Score(edges, bins, counts, sums, positives, threshold, threshold_bin)


def _golden(part: Mapping[str, Any]) -> Golden:
    golden = Golden(
        tuple(map(str, part["columns"])),
        tuple(tuple(row) for row in part["rows"]),
        tuple(map(float, part["scores"])),
    )
    _refuse(
        rows_do_not_fit_the_columns=any(len(row) != len(golden.columns) for row in golden.rows),
        scores_do_not_fit_the_rows=len(golden.scores) != len(golden.rows),
        scores_must_lie_from_0_to_1=not all(0.0 <= score <= 1.0 for score in golden.scores),
    )
    return golden


def _ascends(edges: Sequence[float]) -> bool:
    finite = all(math.isfinite(edge) for edge in edges)
    return finite and all(low < high for low, high in pairwise(edges))
