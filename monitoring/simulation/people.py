"""A cohort of people who do not exist: `python -m monitoring.simulation.people --rows 9000 --out F`.

The generator uses only the summary facts of a survey (`data/<name>-facts.json`, measured by
`benchmarks/survey_facts.py`): the share of each level; the correlations of a latent normal distribution whose
thresholds give those shares and the survey's rank correlations (a Gaussian copula); and logistic models of
the outcome given the answers (an effect for each level, and products of pairs).

Row i depends only on the facts, the seed, the scenario and i: the first rows of a large cohort are the small
cohort, and any part can be made without the rest. All sums run in a fixed order, outside BLAS, so that every
machine makes the same rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steps.data import atomic
from steps.data.errors import UserError
from steps.data.schema import Change, Code, Column, NumericColumn, Scenario, Schema
from steps.data.schema_file import load

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

BLOCK = 4096
WHOLE_SPAN = 1000
_NORMAL = NormalDist()
# The outermost bands end at this latent value.
_EDGE = 4.75
_GARBAGE_TEXT = "not-a-value"


@dataclass(frozen=True, slots=True)
class Answer:
    """The distribution of a column: a latent normal value in [cuts[b-1], cuts[b]) falls into band b."""

    name: str
    lows: tuple[Code, ...]
    highs: tuple[Code, ...]
    cuts: Floats
    decimals: int | None
    missing: float
    scores: Floats

    @property
    def limits(self) -> Floats:
        """Latent bounds of all bands, shape (bands + 1,)."""
        return np.concatenate([[-_EDGE], self.cuts, [_EDGE]])


@dataclass(frozen=True, slots=True)
class Stage:
    """A question about the outcome: is it among `yes`, given that it is among `yes` or `no`?

    The log odds are the intercept, plus effects[c][b] for band b of each column c, plus weight times the
    scores of both columns for each of `products`.
    """

    yes: tuple[Code, ...]
    no: tuple[Code, ...]
    intercept: float
    effects: tuple[Floats, ...]
    products: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a survey; `loadings` is lower triangular, shape (columns, columns), with unit rows."""

    answers: tuple[Answer, ...]
    loadings: Floats
    stages: tuple[Stage, ...]


def load_facts(path: Path, schema: Schema) -> Facts:
    """Read a facts file; UserError if it is absent, broken or about other columns than the schema's."""
    remedy = "measure it: python -m benchmarks.survey_facts SURVEY --schema SCHEMA"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such facts file; {remedy}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({type(error).__name__}); {remedy}") from None
    try:
        if tuple(document["columns"]) != schema.feature_names:
            raise UserError(f"{path} is about other columns than the schema {schema.name}; {remedy}")
        answers = tuple(build_answer(name, content) for name, content in document["columns"].items())
        stages = tuple(_build_stage(content, answers) for content in document["outcome"])
        return Facts(answers, np.array(document["loadings"], dtype=np.float64), stages)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no facts file of this version ({error!r}); {remedy}") from None


def build_answer(name: str, content: dict[str, Any]) -> Answer:
    """A column from its facts: `bands` of [low, high, share], `decimals` of a number, share `missing`.

    If at most WHOLE_SPAN whole numbers are possible, a band of several numbers is split into a band for each,
    equally wide in the latent value.
    """
    decimals = content.get("decimals")
    is_split = decimals == 0 and content["bands"][-1][1] - content["bands"][0][0] <= WHOLE_SPAN
    shares = np.cumsum([share for _, _, share in content["bands"]])
    inner = [_NORMAL.inv_cdf(min(max(share / shares[-1], 1e-9), 1 - 1e-9)) for share in shares[:-1].tolist()]
    limits = [-_EDGE, *inner, _EDGE]
    lows: list[Code] = []
    highs: list[Code] = []
    cuts: list[float] = []
    for (low, high, _), start, end in zip(content["bands"], limits[:-1], limits[1:], strict=True):
        values = list(range(int(low), int(high) + 1)) if is_split else [low]
        lows += values
        highs += [high] if len(values) == 1 else values
        cuts += [start + (end - start) * (k + 1) / len(values) for k in range(len(values))]
    bounds = np.array(cuts[:-1])
    return Answer(
        name, tuple(lows), tuple(highs), bounds, decimals, content["missing"], normal_scores(bounds)
    )


def normal_scores(cuts: Floats) -> Floats:
    """Mean latent value in each band between the cuts, scaled to variance 1 over people; shape (bands,)."""
    shares = np.diff([0.0, *(_NORMAL.cdf(cut) for cut in cuts), 1.0])
    means = -np.diff([0.0, *(_NORMAL.pdf(cut) for cut in cuts), 0.0]) / np.maximum(shares, 1e-12)
    return np.asarray(means / np.sqrt(np.sum(shares * means**2)))


def _build_stage(content: dict[str, Any], answers: Sequence[Answer]) -> Stage:
    names = [answer.name for answer in answers]
    return Stage(
        yes=tuple(content["yes"]),
        no=tuple(content["no"]),
        intercept=float(content["intercept"]),
        effects=tuple(_spread(content["effects"][answer.name], answer) for answer in answers),
        products=tuple((names.index(a), names.index(b), float(w)) for a, b, w in content["products"]),
    )


def _spread(steps: Sequence[Sequence[Any]], answer: Answer) -> Floats:
    """Effects of all bands from [first value, effect] pairs, each valid until the next; shape (bands,)."""
    starts = [answer.lows.index(value) for value, _ in steps]
    bands = np.searchsorted(starts, np.arange(len(answer.lows)), side="right") - 1
    return np.array([float(effect) for _, effect in steps])[np.maximum(bands, 0)]


def generate(
    facts: Facts,
    schema: Schema,
    rows: int,
    seed: int,
    scenario: Scenario | None = None,
    day: float | None = None,
    first: int = 0,
) -> pd.DataFrame:
    """People `first` to `first + rows` of the cohort of a seed: target, then features in schema order.

    Columns hold the smallest whole-number type that fits (or float64, or text). A scenario changes them:

    * `shift` moves a column by a number of latent standard deviations, and the others by their correlations;
    * `add`, `scale` (both clipped to the column's range) and `replace` change the recorded value of a share
      of the people; their outcome stays;
    * `missing` removes a share of the answers;
    * `garbage` replaces a share by values out of range and by text, which makes a column of objects;
    * `outcome_shift` and `outcome_slope` change the log odds of a positive outcome for the same answers.

    `day` sets the progress of a slow change; None is the full change.
    """
    import pandas as pd

    changes = () if scenario is None else scenario.changes
    strength = 1.0 if scenario is None else scenario.strength(day)
    shift = _latent_shift(facts, changes, strength)
    slope, offset = _outcome_change(changes, strength)
    blocks = range(first // BLOCK, -(-(first + rows) // BLOCK))
    latent = np.empty((len(facts.answers), len(blocks) * BLOCK))
    outcome = np.empty(len(blocks) * BLOCK, dtype=np.int64)
    bands = np.empty(latent.shape, dtype=np.int16)
    for position, block in enumerate(blocks):
        block_rows = slice(position * BLOCK, (position + 1) * BLOCK)
        latent[:, block_rows], bands[:, block_rows] = draw_answers(facts, seed, block, shift)
        outcome[block_rows] = _draw_outcome(facts, schema, bands[:, block_rows], seed, block, slope, offset)
    keep = slice(first - blocks.start * BLOCK, first - blocks.start * BLOCK + rows)
    codes = np.array(tuple(schema.target.levels))
    columns: dict[str, Any] = {schema.target.name: _smallest(codes)[outcome[keep]]}
    for number, answer in enumerate(facts.answers):
        values = _values(answer, bands[number, keep], latent[number, keep])
        if answer.missing > 0:
            values = _blank(values, _uniform(seed, blocks, 2 + number)[keep] < answer.missing)
        columns[answer.name] = values
    for number, change in enumerate(changes):
        if change.column is not None and change.operation != "shift":
            chance = _uniform(seed, blocks, 1000 + number)[keep]
            columns[change.column] = _record(columns[change.column], change, schema, chance, strength)
    return pd.DataFrame(columns)


def _latent_shift(facts: Facts, changes: Sequence[Change], strength: float) -> Floats:
    """Shift of the independent normal values that moves columns, and others by their correlations."""
    names = [answer.name for answer in facts.answers]
    shift = np.zeros(len(names))
    for change in changes:
        if change.operation == "shift" and change.column is not None:
            shift += strength * change.value * facts.loadings[names.index(change.column)]
    return shift


def _outcome_change(changes: Sequence[Change], strength: float) -> tuple[float, float]:
    slope, offset = 1.0, 0.0
    for change in changes:
        if change.operation == "outcome_slope":
            slope *= 1.0 + strength * (change.value - 1.0)
        if change.operation == "outcome_shift":
            offset += strength * change.value
    return slope, offset


def _random(seed: int, block: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=(block, stream))))


def _uniform(seed: int, blocks: range, stream: int) -> Floats:
    return np.concatenate([np.empty(0), *(_random(seed, block, stream).random(BLOCK) for block in blocks)])


def draw_answers(facts: Facts, seed: int, block: int, shift: Floats) -> tuple[Floats, NDArray[np.int16]]:
    """Latent values of a block of people and their bands, both of shape (columns, BLOCK)."""
    independent = _random(seed, block, 0).standard_normal((BLOCK, len(shift))).T + shift[:, None]
    independent = np.ascontiguousarray(independent)
    latent = np.zeros_like(independent)
    for row, loadings in enumerate(facts.loadings):
        for column in np.flatnonzero(loadings):
            latent[row] += loadings[column] * independent[column]
    bands = np.empty(latent.shape, dtype=np.int16)
    for number, answer in enumerate(facts.answers):
        bands[number] = np.searchsorted(answer.cuts, latent[number], side="right")
    return latent, bands


def log_odds(facts: Facts, stage: Stage, bands: NDArray[np.int16]) -> Floats:
    """Log odds of `stage.yes` for people whose answers fall into `bands`, shape (columns, people)."""
    total = np.full(bands.shape[1], stage.intercept)
    for effects, band in zip(stage.effects, bands, strict=True):
        total += effects[band]
    scores = [answer.scores[band] for answer, band in zip(facts.answers, bands, strict=True)]
    for first, second, weight in stage.products:
        total += weight * scores[first] * scores[second]
    return total


def _draw_outcome(
    facts: Facts,
    schema: Schema,
    bands: NDArray[np.int16],
    seed: int,
    block: int,
    slope: float,
    offset: float,
) -> NDArray[np.int64]:
    """Position of each person's outcome among the target's levels, shape (BLOCK,)."""
    codes = tuple(schema.target.levels)
    chances = _random(seed, block, 1).random((BLOCK, len(facts.stages)))
    possible = np.ones((len(codes), BLOCK), dtype=np.bool_)
    for number, stage in enumerate(facts.stages):
        is_asked = possible[codes.index(stage.yes[0])] & possible[codes.index(stage.no[0])]
        odds = log_odds(facts, stage, bands)
        if number == 0 and (slope, offset) != (1.0, 0.0):
            odds = stage.intercept + slope * (odds - stage.intercept) + offset
        answer = chances[:, number] < 1.0 / (1.0 + np.exp(-odds))
        for code in stage.yes:
            possible[codes.index(code)] &= answer | ~is_asked
        for code in stage.no:
            possible[codes.index(code)] &= ~answer | ~is_asked
    return np.asarray(np.argmax(possible, axis=0))


def _values(answer: Answer, bands: NDArray[np.int16], latent: Floats) -> Any:
    """The answers of the people, as an array of numbers or a pandas text array."""
    import pandas as pd

    if isinstance(answer.lows[0], str):
        return pd.array(np.array(answer.lows, dtype=object)[bands], dtype="str")
    lows = np.array(answer.lows, dtype=np.float64)
    if answer.decimals is None or answer.lows == answer.highs:
        return _smallest(lows)[bands]
    highs, limits = np.array(answer.highs, dtype=np.float64), answer.limits
    part = (latent - limits[bands]) / (limits[bands + 1] - limits[bands])
    return np.round(lows[bands] + np.clip(part, 0.0, 1.0) * (highs[bands] - lows[bands]), answer.decimals)


def _smallest(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in the smallest type that holds them; text and fractions stay as they are."""
    if values.dtype.kind != "f" or not np.all(values == np.rint(values)):
        return values
    largest = float(np.max(np.abs(values), initial=0.0))
    for kind in (np.int8, np.int16, np.int32):
        if largest <= np.iinfo(kind).max:
            return values.astype(kind)
    return values


def _blank(values: Any, chosen: NDArray[np.bool_]) -> Any:
    """The answers with the chosen ones left out."""
    import pandas as pd

    series = pd.Series(values)
    return series.astype("float64").mask(chosen) if series.dtype.kind in "iuf" else series.mask(chosen)


def _record(values: Any, change: Change, schema: Schema, chance: Floats, strength: float) -> Any:
    """The recorded answers under a change; `chance` (uniform) decides which people it affects.

    While a change builds up, the share of affected people grows.
    """
    if change.column is None:
        return values
    column = schema.column(change.column)
    if change.operation == "missing":
        return _blank(values, chance < strength * change.value)
    if change.operation == "garbage":
        return _spoil(values, column, chance / max(strength * change.value, 1e-12))
    numbers = np.asarray(values, dtype=np.float64)
    is_whole = np.asarray(values).dtype.kind == "i"
    if change.operation == "replace":
        changed = np.full_like(numbers, change.value)
    else:
        changed = numbers + change.value if change.operation == "add" else numbers * change.value
        if isinstance(column, NumericColumn):
            changed = np.clip(changed, column.minimum, column.maximum)
    changed = np.where(chance < strength * change.share, changed, numbers)
    return np.rint(changed).astype(np.int32) if is_whole else changed


def _spoil(values: Any, column: Column, chance: Floats) -> Any:
    """The answers as objects; where `chance` is below 1, a far too large number, a text or -1."""
    import pandas as pd

    codes = (column.maximum,) if isinstance(column, NumericColumn) else column.codes
    far = 1000.0 + max((code for code in codes if isinstance(code, float)), default=0.0)
    rubbish = [_GARBAGE_TEXT, "", "-1"] if column.is_text else [far, _GARBAGE_TEXT, -1.0]
    spoilt = pd.Series(values).astype(object)
    spoilt_rows = np.flatnonzero(chance < 1.0)
    spoilt.iloc[spoilt_rows] = np.array(rubbish, dtype=object)[(3 * chance[spoilt_rows]).astype(np.int64)]
    return spoilt


def chunks(
    facts: Facts,
    schema: Schema,
    rows: int,
    seed: int,
    scenario: Scenario | None = None,
    day: float | None = None,
    size: int = 64 * BLOCK,
) -> Iterator[pd.DataFrame]:
    """The frames of `generate` for all rows, `size` at a time."""
    for first in range(0, rows, size):
        yield generate(facts, schema, min(size, rows - first), seed, scenario, day, first)


def write(frames: Iterator[pd.DataFrame], path: Path, rows: int) -> None:
    """Write frames to a Parquet or CSV file one by one; the file is complete or absent."""
    from tqdm import tqdm

    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic.writing(path) as name,
        tqdm(total=rows, unit=" rows", unit_scale=True, disable=None) as bar,
    ):
        save = _save_csv if path.suffix == ".csv" else _save_parquet
        for done in save(frames, Path(name)):
            bar.update(done)


def _save_csv(frames: Iterator[pd.DataFrame], path: Path) -> Iterator[int]:
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, frame in enumerate(frames):
            frame.to_csv(file, index=False, header=number == 0)
            yield len(frame)


def _save_parquet(frames: Iterator[pd.DataFrame], path: Path) -> Iterator[int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    try:
        for frame in frames:
            table = pa.Table.from_pandas(_with_text(frame), preserve_index=False).replace_schema_metadata()
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=19)
            writer.write_table(table)
            yield len(frame)
    finally:
        if writer is not None:
            writer.close()


def _with_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of mixed objects as text, the only type that holds them all in a file."""
    mixed = frame.select_dtypes("object").columns
    return frame.assign(**{name: frame[name].map(str, na_action="ignore").astype("str") for name in mixed})


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.simulation.people", description="Make people who do not exist."
    )
    parser.add_argument("--rows", type=int, required=True, help="how many people")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same people")
    parser.add_argument("--out", type=Path, required=True, help="a .parquet or .csv file")
    parser.add_argument("--schema", type=Path, default=Path("data/brfss2015.yaml"))
    parser.add_argument("--scenario", help="a scenario of the schema, in full strength or on a --day")
    parser.add_argument("--day", type=float, help="day of the scenario, from 0")
    options = parser.parse_args(arguments)
    if options.rows < 1 or options.seed < 0:
        parser.error("--rows should be at least 1, --seed at least 0")
    if options.out.suffix not in (".parquet", ".csv"):
        parser.error("--out should end in .parquet or .csv")
    return options


def read_facts(schema: Schema, base: Path) -> Facts:
    """The facts that a schema names, relative to the project's folder."""
    if schema.facts is None:
        raise UserError(f"the schema {schema.name} names no facts file: add facts: data/<name>-facts.json")
    return load_facts(base / schema.facts, schema)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a cohort; 1 with one message if that cannot be done."""
    options = parse_args(arguments)
    try:
        schema = load(options.schema)
        facts = read_facts(schema, Path(__file__).resolve().parents[2])
        scenario = schema.scenario(options.scenario) if options.scenario else None
        people = chunks(facts, schema, options.rows, options.seed, scenario, options.day)
        write(people, options.out, options.rows)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
