"""A glass box of any schema with made-up effects, and an evaluation of it on made-up rows."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from steps.data.schema import Column, NumericColumn, Schema
from steps.measures import evaluation
from steps.measures.evaluation_document import DataFacts, Evaluation, ModelFacts
from steps.measures.scored_rows import scored_rows
from steps.models.served_model import Binning, Calibration, Term, Terms

PAIRS = 6
COUNTS = (0.0, 10.0, math.nan, 250.0, 4_310.0)


def binning(column: Column) -> Binning:
    """Ten bins of a number, a bin for each level otherwise."""
    if isinstance(column, NumericColumn):
        cuts = np.unique(np.round(np.linspace(column.minimum, column.maximum, 11)[1:-1], 1))
        ends = [f"{column.minimum:g}", *(f"{cut:g}" for cut in cuts)]
        labels = tuple(f"from {end}" for end in ends)
        missing = tuple(code for code in column.missing if not isinstance(code, str))
        return Binning(column.name, labels, tuple(cuts.tolist()), missing)
    return Binning(
        column.name,
        tuple(column.levels.values()),
        levels=column.codes,
        bins=tuple(range(1, len(column.codes) + 1)),
    )


def glass_box(schema: Schema, seed: int = 0) -> Terms:
    """A term for each column and some pairs; a tenth of the bins have nobody or few people behind them."""
    generator = np.random.default_rng(seed)
    columns = [binning(column) for column in schema.columns]

    def term(*places: int) -> Term:
        shape = tuple(columns[place].size for place in places)
        people = generator.choice(
            [0.0, 10.0, math.nan, 250.0, 4_310.0], p=[0.05, 0.03, 0.02, 0.3, 0.6], size=shape
        )
        return Term(places, generator.normal(0, 0.4, shape), np.abs(generator.normal(0, 0.05, shape)), people)

    pairs = [(i, (i + 3) % len(columns)) for i in range(min(PAIRS, len(columns) - 1))]
    terms = [term(place) for place in range(len(columns))] + [
        term(*pair) for pair in pairs if len(set(pair)) == 2
    ]
    return Terms(columns, terms, -1.8, 0.02, Calibration(1.04, 0.03))


def people(schema: Schema, count: int, seed: int = 0) -> pd.DataFrame:
    """Rows of every kind: answered, missing, never seen, out of range."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(index=range(count))
    for column in schema.columns:
        if isinstance(column, NumericColumn):
            width = column.maximum - column.minimum
            values = generator.uniform(column.minimum - 0.05 * width, column.maximum + 0.05 * width, count)
            values = np.where(generator.random(count) < 0.5, np.round(values), values)
            frame[column.name] = np.where(generator.random(count) < 0.1, np.nan, values)
        else:
            strange = "never seen" if column.is_text else 77.0
            codes = np.array([*column.codes, strange, None], dtype=object)
            frame[column.name] = pd.Series(generator.choice(codes, count), dtype=object)
            if not column.is_text:
                frame[column.name] = frame[column.name].astype(float)
    return frame


def evaluated(schema: Schema, terms: Terms, threshold: float = 0.2) -> Evaluation:
    """An evaluation of the glass box on 2,000 rows whose outcomes follow its risks."""
    frame = people(schema, 2_000)
    risk = terms.risk(frame)
    outcome = (np.random.default_rng(1).random(len(risk)) < risk).astype(np.float64)
    rows = scored_rows(outcome, risk, frame)
    about = ModelFacts(
        name=schema.name, family="explainable_boosting", trained_at=1_790_000_000, synthetic=True
    )
    data = DataFacts(len(rows.y), rows.positives, rows.prevalence, "synthetic")
    sampled = evaluation.Bootstrap(0, 100)
    return evaluation.evaluate(rows, schema, threshold, sampled, about=evaluation.About(about, data))
