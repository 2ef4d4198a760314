"""Does the band on one person's page cover the variation of a risk between samples of people?

    python -m benchmarks.person_band --folder .cache/datasets/<digest> [--rows 18000] [--models 8]

Glass boxes are fitted on samples of `rows` people that overlap as little as the data allow. For each of them,
the 90 % band of a person (`terms.json`: spread of every term that the answers meet) is compared with the
risks that all the other models give this person: the share that lies inside, on average over people in no
sample, with complete answers and with one answer missing. The width of the bands shows whether a missing
answer widens them. Writes benchmarks/results/person_band.txt.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steps.data.schema import Schema
from steps.data.schema_file import load
from steps.models import fitting
from steps.models.families import GLASS_BOX
from steps.models.served_model import Terms

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results") / "person_band.txt"
# As in steps/reports/templates/page.js; this benchmark is the reason for the second factor, 1.15.
BAND = 1.645 * 1.15

Floats = NDArray[np.float64]


def samples(rows: int, size: int, count: int, seed: int) -> list[NDArray[np.intp]]:
    """`count` samples of `size` row numbers: disjoint while the rows suffice, then from a new permutation."""
    generator = np.random.default_rng(seed)
    drawn: list[NDArray[np.intp]] = []
    while len(drawn) < count:
        order = generator.permutation(rows)
        drawn += [order[start : start + size] for start in range(0, rows - size + 1, size)]
    return drawn[:count]


def band(terms: Terms, frame: pd.DataFrame) -> tuple[Floats, Floats]:
    """Lower and upper log odds of the 90 % band of each row, as the page computes it."""
    bins = terms.bins(frame)
    variance = np.full(len(frame), terms.intercept_spread**2)
    for term in terms.terms:
        variance += term.spread[tuple(bins[:, column] for column in term.columns)] ** 2
    margin = BAND * abs(terms.calibration.slope) * np.sqrt(variance)
    middle = terms.log_odds(frame)
    return middle - margin, middle + margin


def inside(models: list[Terms], frame: pd.DataFrame) -> tuple[Floats, Floats]:
    """Share of other models' risks within a model's band, by person; and the mean width as a risk."""
    log_odds = np.stack([model.log_odds(frame) for model in models])
    shares, widths = [], []
    for number, model in enumerate(models):
        low, high = band(model, frame)
        other_models = np.delete(log_odds, number, axis=0)
        shares.append(((other_models >= low) & (other_models <= high)).mean(axis=0))
        widths.append(1 / (1 + np.exp(-high)) - 1 / (1 + np.exp(-low)))
    return np.mean(shares, axis=0), np.mean(widths, axis=0)


def line(name: str, models: list[Terms], frame: pd.DataFrame) -> str:
    """One row of the table."""
    shares, widths = inside(models, frame)
    low, high = np.quantile(shares, [0.05, 0.95])
    return (
        f"{name:28}{shares.mean():8.3f}{low:10.2f} to {high:.2f}"
        f"{np.median(widths):12.3f}{np.mean(widths):10.3f}"
    )


def without(frame: pd.DataFrame, column: str, schema: Schema) -> pd.DataFrame:
    """The rows with one answer missing."""
    return frame.assign(**{column: None if schema.column(column).is_text else np.nan})


def main() -> int:
    """Fit and compare the models, print the table and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.person_band", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="a prepared data set in .cache/datasets")
    parser.add_argument("--schema", type=Path, default=ROOT / "data" / "brfss2015.yaml")
    parser.add_argument("--rows", type=int, default=18_000)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--people", type=int, default=200)
    arguments = parser.parse_args()
    schema = load(arguments.schema)
    train = pd.read_parquet(arguments.folder / "train.parquet")
    test = pd.read_parquet(arguments.folder / "test.parquet")[list(schema.feature_names)]
    frame = test.sample(arguments.people, random_state=0)
    started = time.monotonic()
    models: list[Terms] = []
    for number, rows in enumerate(samples(len(train), arguments.rows, arguments.models, seed=1)):
        part = train.iloc[np.sort(rows)].reset_index(drop=True)
        fitted = fitting.fit(GLASS_BOX, {}, part, schema, seed=number, threads=1)
        assert isinstance(fitted, Terms)
        models.append(fitted)
        print(
            f"model {number + 1} of {arguments.models}, {time.monotonic() - started:.0f} s", file=sys.stderr
        )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}: {arguments.models} glass boxes, each on a sample of",
        f"{arguments.rows:,} of {len(train):,} people; {arguments.people} other people",
        "",
        f"{'':28}{'inside':>8}{'people, 5-95 %':>18}{'width, median':>12}{'mean':>10}",
        line("complete answers", models, frame),
        *(line(f"without {name}", models, without(frame, name, schema)) for name in schema.feature_names),
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
