"""What answers a prediction: the document of a glass box, by numpy alone, or a pipeline of scikit-learn.

MLflow copies this one file beside a model and runs it in the container ("models from code"), and the steps
import the same file: a risk is the same wherever it is asked for. So it imports nothing else of this project.
`served_model.sha256` lists the digest of every released version of this file; a changed file adds a line.

**The document `terms.json`** is JSON of plain arrays, version 1:

    {"format": "terms", "version": 1,
     "columns": [
       {"name": "BMI", "kind": "number", "missing": [], "cuts": [19, 21, ...], "labels": ["below 19", ...]},
       {"name": "GenHlth", "kind": "levels", "levels": [1, 2, ...], "bins": [1, 2, ...],
        "labels": ["excellent", "very good", ...]}, ...],
     "terms": [
       {"columns": [0], "effects": [...], "spread": [...], "people": [...]},
       {"columns": [0, 1], "effects": [...], "spread": [...], "people": [...]}, ...],
     "intercept": -2.1, "intercept_spread": 0.01,
     "calibration": {"slope": 1.02, "intercept": 0.01} or null}

* A column cuts its values into bins. Bin 0 is "no answer": null, a value in `missing`, a level that is not
  listed. A number's bin is 1 plus the count of `cuts` that are at most the value, so a cut is the first value
  of the bin above it. A level's bin stands at the level's place in `bins`. `labels` names bins 1, 2, ...
* A term has one or two columns. `effects`, `spread` and `people` have one entry a bin, bin 0 first; with two
  columns the entry of bins i and j is number `i * (bins of the second column, bin 0 included) + j`.
* `effects` are log odds. `spread` is the standard deviation of an effect between models learned from other
  samples of as many people. `people` is how many training rows stand in a bin, to the nearest 10 and at least
  10 (so 10 means 1 to 14), 0 where there is none, null where it may not be shown.
* log odds of the outcome = slope * (intercept + sum of the terms' effects) + calibration's intercept, without
  calibration slope 1 and intercept 0; risk = 1 / (1 + exp(-log odds)).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bins = NDArray[np.intp]

VERSION = 1
TERMS_FILE, PIPELINE_FILE = "terms.json", "model.skops"
NO_ANSWER = "no answer"

# What skops may load of a fitted pipeline, each looked at: compiled trees, splines and calibrators hold
# arrays and numbers only; the two functions check and convert arrays; a partial binds arguments to a function
# that skops has to trust by itself. The list that a model's own MLmodel carries is never used.
TRUSTED_TYPES: list[str] = [
    "functools.partial",
    "numpy.dtype",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "scipy.interpolate._bsplines.BSpline",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sklearn.utils.validation.check_array",
]

# Rows are evaluated in blocks of this many, so that the intermediate tables stay in the processor's cache.
_BLOCK = 1024


class ModelFileError(ValueError):
    """A model file that is not what this module writes; the message names the place and the fault."""


@dataclass(frozen=True)
class Binning:
    """How one column's values become bins; see the module's docstring. A number column has no `levels`."""

    name: str
    labels: tuple[str, ...]
    cuts: tuple[float, ...] = ()
    missing: tuple[float, ...] = ()
    levels: tuple[float | str, ...] | None = None
    bins: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of bins, that of a missing answer included."""
        return len(self.labels) + 1

    @property
    def is_text(self) -> bool:
        """Whether the column holds text; all others hold numbers."""
        return any(isinstance(level, str) for level in self.levels or ())

    def label(self, place: int) -> str:
        """The bin in words."""
        return self.labels[place - 1] if place else NO_ANSWER


@dataclass(frozen=True, eq=False)
class Term:
    """One curve (one column) or one table (two) of log odds, with its spread and the people behind each bin.

    `effects` and `spread` have shape (bins,) or (bins of the first, bins of the second); so have `people`,
    where NaN means "not shown".
    """

    columns: tuple[int, ...]
    effects: Floats
    spread: Floats
    people: Floats


@dataclass(frozen=True)
class Calibration:
    """Log odds of the terms to log odds of the outcome: slope * log odds + intercept."""

    slope: float
    intercept: float


NO_CALIBRATION = Calibration(1.0, 0.0)


class Terms:
    """A glass box: an additive model whose terms are tables. Every method takes a frame of raw features."""

    def __init__(
        self,
        columns: Sequence[Binning],
        terms: Sequence[Term],
        intercept: float,
        intercept_spread: float = 0.0,
        calibration: Calibration = NO_CALIBRATION,
    ) -> None:
        self.columns, self.terms = tuple(columns), tuple(terms)
        self.intercept, self.intercept_spread, self.calibration = intercept, intercept_spread, calibration
        # All effects stand in one array. A term's entry for bins i, j is at offset + i * step_i + j * step_j;
        # a term of one column names its column twice, the second time with step 0.
        sizes = np.array([term.effects.size for term in self.terms], dtype=np.intp)
        self._offset = np.cumsum(sizes) - sizes
        self._first = np.array([term.columns[0] for term in self.terms], dtype=np.intp)
        self._second = np.array([term.columns[-1] for term in self.terms], dtype=np.intp)
        pairs = [len(term.columns) == 2 for term in self.terms]
        self._step_first = np.array(
            [
                self.columns[term.columns[-1]].size if pair else 1
                for term, pair in zip(terms, pairs, strict=True)
            ],
            dtype=np.intp,
        )
        self._step_second = np.array(pairs, dtype=np.intp)
        flat = [term.effects.ravel() for term in self.terms]
        self._effects = calibration.slope * (np.concatenate(flat) if flat else np.zeros(0))
        self._numbers = [column.name for column in self.columns if not column.is_text]
        self._cuts, self._codes = _Cuts(self.columns), _Codes(self.columns)

    @property
    def baseline(self) -> float:
        """Log odds before any term: the calibrated intercept."""
        return self.calibration.slope * self.intercept + self.calibration.intercept

    def bins(self, frame: pd.DataFrame) -> Bins:
        """Bin of each answer, shape (rows, columns); 0 is a missing answer."""
        result = np.empty((len(frame), len(self.columns)), dtype=np.intp)
        numbers = to_numbers(frame, self._numbers)
        for block in _blocks(len(result)):
            result[block, self._cuts.places] = self._cuts.bins(numbers[block])
            result[block, self._codes.places] = self._codes.bins(numbers[block])
        for place, column in enumerate(self.columns):
            if column.is_text:
                result[:, place] = _text_bins(frame[column.name], column)
        return result

    def entries(self, bins: Bins) -> Bins:
        """Where each term's effect stands among those of all terms in a row, shape (rows, terms)."""
        first, second = bins[:, self._first], bins[:, self._second]
        return np.asarray(self._offset + first * self._step_first + second * self._step_second)

    def effects(self, bins: Bins) -> Floats:
        """Calibrated log odds that each term adds to the baseline, shape (rows, terms)."""
        return self._effects[self.entries(bins)]

    def log_odds(self, frame: pd.DataFrame) -> Floats:
        """Calibrated log odds of the outcome, shape (rows,); a row's are the same alone and among others."""
        bins = self.bins(frame)
        result = np.empty(len(bins))
        for block in _blocks(len(bins)):
            result[block] = self.baseline + self.effects(bins[block]).sum(axis=1)
        return result

    def risk(self, frame: pd.DataFrame) -> Floats:
        """Probability of the outcome, shape (rows,)."""
        return _sigmoid(self.log_odds(frame))

    def answers(self, frame: pd.DataFrame, count: int) -> list[dict[str, Any]]:
        """Risk and reasons of each row: baseline + the `count` largest effects + the others = its log odds.

        These are sums of the model, exact to rounding, and no causes.
        """
        bins = self.bins(frame)
        effects = self.effects(bins)
        risks = _sigmoid(self.baseline + effects.sum(axis=1))
        order = np.argsort(-np.abs(effects), axis=1, kind="stable")
        rows = zip(bins, effects, risks, order[:, :count], order[:, count:], strict=True)
        return [
            {
                "risk": float(risk),
                "baseline_log_odds": self.baseline,
                "reasons": [self._reason(term, places, row[term]) for term in largest],
                "other_log_odds": float(row[rest].sum()),
                "missing": [self.columns[place].name for place in np.flatnonzero(places == 0)],
            }
            for places, row, risk, largest, rest in rows
        ]

    def _reason(self, term: int, bins: Bins, effect: float) -> dict[str, Any]:
        columns = self.terms[term].columns
        return {
            "columns": [self.columns[place].name for place in columns],
            "levels": [self.columns[place].label(int(bins[place])) for place in columns],
            "log_odds": float(effect),
        }


def _sigmoid(log_odds: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-log_odds)))


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, rows, _BLOCK))


# Columns of one kind are compared together, with the first cut or level of each, then the second, and so on:
# a search in each column by itself would cost a single row more than all the rest. NaN fills up what a column
# has less of: nothing is equal to it or above it. `places` are the columns' places among all, `_among` those
# among the columns of numbers.


class _Cuts:
    """The columns that are cut where a bin begins."""

    def __init__(self, columns: Sequence[Binning]) -> None:
        self.places = [place for place, column in enumerate(columns) if column.levels is None]
        numbers = [column for column in columns if not column.is_text]
        self._among = [place for place, column in enumerate(numbers) if column.levels is None]
        self._cuts = _padded([columns[place].cuts for place in self.places], math.nan)
        self._missing = _padded([columns[place].missing for place in self.places], math.nan)

    def bins(self, numbers: Floats) -> Bins:
        """Bins of these columns, shape (rows, columns), from all columns of numbers."""
        values = numbers[:, self._among]
        bins = np.ones(values.shape, dtype=np.intp)
        for cuts in self._cuts:
            bins += values >= cuts
        missing = np.isnan(values)
        for codes in self._missing:
            missing |= values == codes
        bins[missing] = 0
        return bins


class _Codes:
    """The columns whose levels are numbers."""

    def __init__(self, columns: Sequence[Binning]) -> None:
        numbers = [column for column in columns if not column.is_text]
        self._among = [place for place, column in enumerate(numbers) if column.levels is not None]
        self.places = [columns.index(numbers[place]) for place in self._among]
        self._levels = _padded([columns[place].levels or () for place in self.places], math.nan)
        self._bins = _padded([columns[place].bins for place in self.places], 0).astype(np.intp)

    def bins(self, numbers: Floats) -> Bins:
        """Bins of these columns, shape (rows, columns), from all columns of numbers."""
        values = numbers[:, self._among]
        bins = np.zeros(values.shape, dtype=np.intp)
        for levels, places in zip(self._levels, self._bins, strict=True):
            bins += (values == levels) * places
        return bins


def _text_bins(values: pd.Series, column: Binning) -> Bins:
    import pandas as pd

    bins = dict(zip(column.levels or (), column.bins, strict=True))
    codes, texts = pd.factorize(values)
    return np.array([*(bins.get(str(text), 0) for text in texts), 0], dtype=np.intp)[codes]


def _padded(lists: Sequence[Sequence[Any]], fill: float) -> Floats:
    """The lists as the columns of one array, as long as the longest; shape (longest, lists)."""
    array = np.full((max([0, *map(len, lists)]), len(lists)), fill)
    for place, values in enumerate(lists):
        array[: len(values), place] = values
    return array


def to_numbers(frame: pd.DataFrame, names: Sequence[str]) -> Floats:
    """The columns as doubles with NaN for a missing answer, shape (rows, names), in column-major order.

    Whole numbers, booleans, pandas' nullable types and categories are taken. Raises ValueError for text.
    """
    if not names:
        return np.empty((len(frame), 0))
    # Picking columns takes longer than everything else that a single row needs.
    picked = frame if list(frame.columns) == list(names) else frame[list(names)]
    try:
        array = picked.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):  # columns of several kinds: each by itself
        array = np.column_stack([_to_numbers(frame[name]) for name in names])
    return np.asfortranarray(array)


def _to_numbers(values: pd.Series) -> Floats:
    present = values.notna().to_numpy()
    result = np.full(len(values), np.nan)
    try:
        result[present] = values[present].to_numpy(dtype=object).astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"the column {values.name} should hold numbers") from None
    return result


# The reader of terms.json. It trusts nothing: whoever can write the file can write anything into it.


def parse_terms(document: object) -> Terms:
    """The glass box of a parsed `terms.json`. Raises ModelFileError that names the fault."""
    try:
        return _terms(document)
    except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
        if isinstance(error, ModelFileError):
            raise
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(f"this is no document of terms: {what}") from None


def _terms(document: Any) -> Terms:
    _require(isinstance(document, Mapping) and document.get("format") == "terms", "it has another format")
    version = document["version"]
    _require(version == VERSION, f"its version is {version!r}, and this release reads version {VERSION}")
    columns = [_binning(entry) for entry in document["columns"]]
    names = [column.name for column in columns]
    _require(len(set(names)) == len(names), "two columns have the same name")
    terms = [_term(entry, columns) for entry in document["terms"]]
    calibration = document["calibration"]
    return Terms(
        columns,
        terms,
        _finite([document["intercept"]], "intercept").item(),
        _finite([document["intercept_spread"]], "intercept_spread").item(),
        NO_CALIBRATION
        if calibration is None
        else Calibration(*_finite([calibration["slope"], calibration["intercept"]], "calibration").tolist()),
    )


def _binning(entry: Any) -> Binning:
    name, labels = entry["name"], tuple(entry["labels"])
    _require(isinstance(name, str) and all(isinstance(label, str) for label in labels), "a name is no text")
    if entry["kind"] == "number":
        cuts, missing = _finite(entry["cuts"], name), _finite(entry["missing"], name)
        _require(bool(np.all(np.diff(cuts) > 0)), f"the cuts of {name} do not ascend")
        _require(len(labels) == len(cuts) + 1, f"{name} has {len(cuts)} cuts and {len(labels)} labels")
        return Binning(name, labels, tuple(cuts.tolist()), tuple(missing.tolist()))
    _require(entry["kind"] == "levels", f"the kind of {name} is {entry['kind']!r}")
    levels, bins = tuple(entry["levels"]), tuple(entry["bins"])
    texts = {isinstance(level, str) for level in levels}
    _require(len(levels) == len(bins) == len(set(levels)) > 0, f"the levels of {name} do not fit their bins")
    _require(len(texts) == 1, f"the levels of {name} mix texts and numbers")
    _require(all(type(place) is int and 1 <= place <= len(labels) for place in bins), f"bins of {name}")
    if texts == {False}:
        levels = tuple(_finite(levels, name).tolist())
    return Binning(name, labels, levels=levels, bins=bins)


def _term(entry: Any, columns: Sequence[Binning]) -> Term:
    places = tuple(entry["columns"])
    _require(
        all(type(place) is int and 0 <= place < len(columns) for place in places)
        and len(places) == len(set(places)) in (1, 2),
        "a term should name one or two columns by their places",
    )
    what = "the term of " + " and ".join(columns[place].name for place in places)
    shape = tuple(columns[place].size for place in places)
    size = math.prod(shape)
    people = [math.nan if count is None else count for count in entry["people"]]
    arrays = (_finite(entry["effects"], what), _finite(entry["spread"], what), np.array(people, dtype=float))
    _require(all(array.shape == (size,) for array in arrays), f"{what} should have {size} entries")
    effects, spread, counts = (array.reshape(shape) for array in arrays)
    return Term(places, effects, spread, counts)


def _finite(values: Any, what: str) -> Floats:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    _require(numbers and all(math.isfinite(value) for value in values), f"{what} holds what is no number")
    return np.array(values, dtype=np.float64)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ModelFileError(f"this is no document of terms: {message}")


# Reading model files


def read_terms(path: Path) -> Terms:
    """The glass box in a file. Raises ModelFileError."""
    try:
        return parse_terms(json.loads(path.read_text(encoding="utf-8")))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ModelFileError(f"{path.name} is no JSON") from None


def read_pipeline(path: Path) -> Any:
    """The fitted pipeline in a skops file. Raises ModelFileError naming the types that it may not load."""
    import skops.io

    unknown = untrusted_types(path)
    if unknown:
        raise ModelFileError(f"{path.name} wants types that are not trusted: {', '.join(unknown)}")
    return skops.io.load(path, trusted=TRUSTED_TYPES)


def untrusted_types(path: Path) -> list[str]:
    """Types that a skops file would load and nobody has looked at. Raises ModelFileError."""
    import zipfile

    import skops.io

    try:
        return [name for name in skops.io.get_untrusted_types(file=path) if name not in TRUSTED_TYPES]
    except (zipfile.BadZipFile, KeyError, TypeError, AttributeError, ImportError, ValueError) as error:
        raise ModelFileError(f"{path.name} is no skops file: {type(error).__name__}") from None


# What MLflow calls in the container


class Served:
    """A model with its answers, as the server gives them: probabilities of both classes, or reasons."""

    def __init__(self, artifacts: Mapping[str, str], config: Mapping[str, Any]) -> None:
        self._terms = read_terms(Path(artifacts["terms"])) if "terms" in artifacts else None
        self._pipeline = None if self._terms else read_pipeline(Path(artifacts["pipeline"]))
        self._numbers, self._texts = config.get("numbers", []), config.get("texts", [])

    def answer(self, frame: pd.DataFrame, params: Mapping[str, Any] | None) -> Any:
        """Probabilities of both classes, shape (rows, 2); with `reasons`, one dictionary a row."""
        count = int((params or {}).get("reasons", 0))
        if count < 0:
            raise ValueError("params: reasons should be 0 or more")
        if self._terms is not None and count:
            return self._terms.answers(frame, count)
        risk = self._risk(frame)
        if count:
            return [{"risk": float(one), "reasons": None} for one in risk]
        return np.column_stack([1.0 - risk, risk])

    def _risk(self, frame: pd.DataFrame) -> Floats:
        if self._terms is not None:
            return self._terms.risk(frame)
        assert self._pipeline is not None
        return np.asarray(self._pipeline.predict_proba(plain_frame(frame, self._numbers, self._texts))[:, 1])


def plain_frame(frame: pd.DataFrame, numbers: Sequence[str], texts: Sequence[str]) -> pd.DataFrame:
    """The frame with doubles and texts alone, as pipelines were fitted on; see `to_numbers`."""
    import pandas as pd

    plain = pd.DataFrame(to_numbers(frame, numbers), columns=list(numbers), index=frame.index)
    for name in texts:
        plain[name] = frame[name].astype("str")
    return plain


def _register() -> None:
    """Hand MLflow the model that this file is."""
    from mlflow.models import set_model
    from mlflow.pyfunc.model import PythonModel

    class ServedModel(PythonModel):
        def load_context(self, context: Any) -> None:
            self.served = Served(context.artifacts, context.model_config or {})

        def predict(
            self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
        ) -> Any:
            return self.served.answer(model_input, params)

    set_model(ServedModel())


# MLflow runs a copy of this file under a name of its own; the steps import it under this project's.
if __name__.startswith("code_model_"):
    import pandas as pd  # MLflow looks the type of `predict`'s input up by this name

    _register()
