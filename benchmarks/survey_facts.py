"""Facts of a survey for `monitoring/simulation/people.py`: `python -m benchmarks.survey_facts SURVEY`.

Writes the facts file that the schema names. It holds aggregates only: no cell of it counts fewer than
`SMALLEST_CELL` people, there is no table of more than one column, and coefficients are shrunk and rounded.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monitoring.simulation.people import (
    BLOCK,
    WHOLE_SPAN,
    Answer,
    Facts,
    Floats,
    Stage,
    build_answer,
    draw_answers,
    log_odds,
)
from steps.data.errors import UserError
from steps.data.schema import Code, Column, LevelledColumn, Schema, format_code
from steps.data.schema_file import load

SMALLEST_CELL = 20
ROOT = Path(__file__).resolve().parents[1]
# Bands of a column of many values, smallest share of a band with its own effect, terms of the expansion.
FRACTION_BANDS, EFFECT_SHARE, TERMS = 100, 0.01, 80
# Penalty on squared effects, smallest |z| of a product that is kept, people drawn to adjust the effects on.
RIDGE, PRODUCT_Z, SAMPLE = 5.0, 3.0, 120 * BLOCK

Bands = NDArray[np.int16]


def measure(survey: pd.DataFrame, schema: Schema) -> dict[str, Any]:
    """Facts of a survey with the schema's columns and target; rows with no outcome do not count."""
    codes = list(schema.target.levels)
    outcome = pd.Index(codes).get_indexer(survey[schema.target.name])
    survey, outcome = survey[outcome >= 0], outcome[outcome >= 0]
    survey = survey.assign(
        **{c.name: survey[c.name].mask(survey[c.name].isin(list(c.missing))) for c in schema.columns}
    )
    columns = {column.name: _marginal(survey[column.name], column) for column in schema.columns}
    answers = tuple(build_answer(name, content) for name, content in columns.items())
    bands = np.stack([_bands(survey[answer.name], answer) for answer in answers])
    ranks = np.corrcoef(np.vstack([_ranks(outcome), *(_ranks(band) for band in bands)]))
    latent = np.eye(len(answers))
    for left, right in combinations(range(len(answers)), 2):
        latent[left, right] = latent[right, left] = _latent_correlation(
            answers[left], answers[right], ranks[left + 1, right + 1]
        )
    loadings = np.round(np.linalg.cholesky(latent), 6)
    facts = Facts(answers, loadings, ())
    return {
        "about": "Summary facts of a survey; made by benchmarks/survey_facts.py.",
        "schema": schema.name,
        "rows": len(survey),
        "smallest_cell": SMALLEST_CELL,
        "target": {format_code(code): round(float(np.mean(outcome == k)), 6) for k, code in enumerate(codes)},
        "columns": columns,
        "rank_correlations": {
            "order": [schema.target.name, *schema.feature_names],
            "values": [[round(float(value), 4) for value in row] for row in ranks],
        },
        "loadings": [[float(value) for value in row] for row in loadings],
        "outcome": _fit_outcome(schema, facts, bands, outcome),
    }


def _marginal(values: pd.Series, column: Column) -> dict[str, Any]:
    """`bands` of [low, high, share], in order; `decimals` of a numeric column; share `missing`."""
    present = values.dropna()
    content: dict[str, Any] = {"missing": round(1 - len(present) / len(values), 6)}
    if isinstance(column, LevelledColumn):
        counts = [int((present == code).sum()) for code in column.codes]
        counts = [count if count >= SMALLEST_CELL else 0 for count in counts]
        table = [
            [_plain(code), _plain(code), count] for code, count in zip(column.codes, counts, strict=True)
        ]
    else:
        numbers = present.to_numpy(dtype=np.float64)
        content["decimals"] = next(d for d in range(7) if d == 6 or np.all(np.round(numbers, d) == numbers))
        few = content["decimals"] == 0 and np.ptp(numbers) <= WHOLE_SPAN
        table = _whole_bands(numbers) if few else _fraction_bands(numbers)
    content["bands"] = [[low, high, round(count / len(present), 6)] for low, high, count in table]
    return content


def _plain(code: Code) -> Code:
    return int(code) if isinstance(code, float) and code.is_integer() else code


def _whole_bands(numbers: Floats) -> list[list[Any]]:
    """Whole numbers with their counts. Neighbours that are each below SMALLEST_CELL form one band, which is
    left out if it is still below.
    """
    bands: list[list[Any]] = []
    joined = False
    for value, count in zip(*np.unique(numbers.astype(np.int64), return_counts=True), strict=True):
        if count < SMALLEST_CELL and joined:
            bands[-1] = [bands[-1][0], int(value), bands[-1][2] + int(count)]
        else:
            bands.append([int(value), int(value), int(count)])
        joined = bool(count < SMALLEST_CELL) and bands[-1][2] * FRACTION_BANDS < len(numbers)
    return [band for band in bands if band[2] >= SMALLEST_CELL]


def _fraction_bands(numbers: Floats) -> list[list[Any]]:
    rare = min(SMALLEST_CELL / len(numbers), 0.1)
    edges = np.unique(np.quantile(numbers, np.linspace(rare, 1 - rare, FRACTION_BANDS + 1)))
    counts, _ = np.histogram(numbers, edges)
    return [[float(a), float(b), int(n)] for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True) if n]


def _bands(values: pd.Series, answer: Answer) -> Bands:
    """Band of each value, shape (rows,); a missing value goes into the middle band of the people."""
    if isinstance(answer.lows[0], str):
        band = pd.Index(answer.lows).get_indexer(values)
    else:
        numbers = values.to_numpy(dtype=np.float64)
        band = np.where(
            np.isnan(numbers), -1, np.searchsorted(np.array(answer.lows, float), numbers, side="right") - 1
        )
    middle = int(np.searchsorted(answer.cuts, 0.0))
    return np.where(band < 0, middle, band).astype(np.int16)


def _ranks(codes: NDArray[Any]) -> Floats:
    return pd.Series(codes).rank().to_numpy(dtype=np.float64)


def _expansion(answer: Answer) -> Floats:
    """Coefficients of the mid-rank of a band as a series of normalised Hermite polynomials, shape (TERMS,).

    For a step function f of a standard normal z with jumps d_m at c_m, the coefficient of the k-th polynomial
    is sum(d_m phi(c_m) He_(k-1)(c_m)) / sqrt(k!); follows from d/dz (phi He_(k-1)) = -phi He_k.
    """
    upper = np.array([_cdf(cut) for cut in answer.cuts] + [1.0])
    middle = upper - np.diff(np.concatenate([[0.0], upper])) / 2
    jumps = np.diff(middle) * np.exp(-(answer.cuts**2) / 2) / np.sqrt(2 * np.pi)
    previous, current = np.zeros_like(answer.cuts), np.ones_like(answer.cuts)
    coefficients = np.empty(TERMS)
    for k in range(1, TERMS + 1):
        # `current` is He_(k-1) / sqrt((k-1)!)
        coefficients[k - 1] = np.sum(jumps * current) / np.sqrt(k)
        previous, current = current, (answer.cuts * current - np.sqrt(k - 1) * previous) / np.sqrt(k)
    shares = np.diff(np.concatenate([[0.0], upper]))
    deviation = np.sqrt(np.sum(shares * (middle - 0.5) ** 2))
    return np.asarray(coefficients / deviation)


def _cdf(value: float) -> float:
    from statistics import NormalDist

    return NormalDist().cdf(value)


def _latent_correlation(left: Answer, right: Answer, rank_correlation: float) -> float:
    """Correlation of two latent normals whose bands have the given rank correlation.

    By Mehler's formula the rank correlation is sum_k a_k b_k rho^k, with the coefficients of both expansions;
    it rises with rho, so bisection finds it.
    """
    products = _expansion(left) * _expansion(right)
    powers = np.arange(1, TERMS + 1)
    low, high = -0.98, 0.98
    for _ in range(50):
        middle = (low + high) / 2
        if np.sum(products * middle**powers) < rank_correlation:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _fit_outcome(
    schema: Schema, facts: Facts, bands: Bands, outcome: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """One logistic model for each stage: fitted on the survey, then adjusted to its rates in the cohort.

    The survey gives the products of pairs; the effects are then moved until, among people drawn from the
    copula, the rate of the outcome in each band is the survey's: rank correlations with the target hold too.
    """
    shift = np.zeros(len(facts.answers))
    drawn = np.concatenate(
        [draw_answers(facts, 0, block, shift)[1] for block in range(SAMPLE // BLOCK)], axis=1
    )
    codes = tuple(schema.target.levels)
    possible = np.ones((len(codes), drawn.shape[1]))
    groups = [_effect_groups(answer, band) for answer, band in zip(facts.answers, bands, strict=True)]
    documents = []
    for number, (yes, no) in enumerate(_splits(schema)):
        is_in_stage = np.isin(outcome, [codes.index(code) for code in (*yes, *no)])
        positive = np.isin(outcome[is_in_stage], [codes.index(code) for code in yes]).astype(np.float64)
        grouped = np.stack([group[band] for group, band in zip(groups, bands[:, is_in_stage], strict=True)])
        scores = [
            answer.scores[band] for answer, band in zip(facts.answers, bands[:, is_in_stage], strict=True)
        ]
        products = _fit_products(grouped, scores, positive) if number == 0 else []
        rates = [np.bincount(group, positive) / np.maximum(np.bincount(group), 1) for group in grouped]
        weights = possible[codes.index(yes[0])]
        drawn_groups = np.stack([group[band] for group, band in zip(groups, drawn, strict=True)])
        flat = tuple(np.zeros(len(answer.lows)) for answer in facts.answers)
        offset = log_odds(facts, Stage(tuple(yes), tuple(no), 0.0, flat, tuple(products)), drawn)
        intercept, effects = _fit_effects(drawn_groups, offset, weights, rates)
        names = schema.feature_names
        documents.append(
            {
                "yes": [_plain(code) for code in yes],
                "no": [_plain(code) for code in no],
                "intercept": round(intercept, 4),
                "effects": {
                    name: [
                        [answer.lows[int(np.argmax(group == g))], round(float(effect), 3)]
                        for g, effect in enumerate(effect_of)
                    ]
                    for name, answer, group, effect_of in zip(
                        names, facts.answers, groups, effects, strict=True
                    )
                },
                "products": [[names[a], names[b], round(w, 4)] for a, b, w in products],
            }
        )
        odds = offset + intercept + sum(e[g] for e, g in zip(effects, drawn_groups, strict=True))
        chance = 1 / (1 + np.exp(-odds))
        for code in yes:
            possible[codes.index(code)] *= chance
        for code in no:
            possible[codes.index(code)] *= 1 - chance
    return documents


def _splits(schema: Schema) -> list[tuple[list[Code], list[Code]]]:
    """Questions that single out one level of the target: positive or not first, then one level at a time."""
    positive = list(schema.target.positive)
    negative = [code for code in schema.target.levels if code not in positive]
    splits = [(positive, negative)]
    for group in (positive, negative):
        splits += [([group[k]], group[:k]) for k in range(len(group) - 1, 0, -1)]
    return splits


def _effect_groups(answer: Answer, bands: Bands) -> NDArray[np.int64]:
    """Group of each band, shape (bands,): numeric bands join until they are EFFECT_SHARE of all."""
    if answer.decimals is None:
        return np.arange(len(answer.lows))
    shares = np.bincount(bands, minlength=len(answer.lows)) / len(bands)
    groups, group, filled = np.zeros(len(shares), dtype=np.int64), 0, 0.0
    for band, share in enumerate(shares):
        if filled >= EFFECT_SHARE and shares[band:].sum() >= EFFECT_SHARE:
            group, filled = group + 1, 0.0
        groups[band] = group
        filled += share
    return groups


def _fit_products(
    groups: NDArray[np.int64], scores: Sequence[Floats], positive: Floats
) -> list[tuple[int, int, float]]:
    """Products of pairs of scores that matter beside the effects: penalised logistic regression, twice."""
    pairs = list(combinations(range(len(scores)), 2))
    fitted: list[tuple[int, int, float]] = []
    for _ in range(2):
        if not pairs:
            return []
        weights, deviations = _logistic(groups, [scores[a] * scores[b] for a, b in pairs], positive)
        is_relevant = np.abs(weights / deviations) >= PRODUCT_Z
        fitted = [(a, b, float(w)) for (a, b), w in zip(pairs, weights, strict=True)]
        pairs = [pair for pair, keep in zip(pairs, is_relevant, strict=True) if keep]
    return fitted


def _logistic(
    groups: NDArray[np.int64], products: Sequence[Floats], positive: Floats
) -> tuple[Floats, Floats]:
    """Weights of the products and their standard errors, by Newton steps on blocks of rows."""
    starts = np.cumsum([0, *(int(group.max()) + 1 for group in groups)])
    size = int(starts[-1]) + len(products)
    beta = np.zeros(size)
    hessian = np.eye(size)
    for _ in range(8):
        gradient, hessian = -RIDGE * beta, RIDGE * np.eye(size)
        for first in range(0, len(positive), 20_000):
            rows = slice(first, first + 20_000)
            X = np.zeros((len(positive[rows]), size))
            for start, group in zip(starts, groups, strict=False):
                X[np.arange(len(X)), start + group[rows]] = 1
            X[:, int(starts[-1]) :] = np.stack([product[rows] for product in products], axis=1)
            chance = 1 / (1 + np.exp(-(X @ beta)))
            gradient += X.T @ (positive[rows] - chance)
            hessian += (X * (chance * (1 - chance))[:, None]).T @ X
        step = np.linalg.solve(hessian, gradient)
        beta += step
        if np.max(np.abs(step)) < 1e-4:
            break
    deviations = np.sqrt(np.diag(np.linalg.inv(hessian)))
    return beta[int(starts[-1]) :], deviations[int(starts[-1]) :]


def _fit_effects(
    groups: NDArray[np.int64], offset: Floats, weights: Floats, rates: Sequence[Floats]
) -> tuple[float, list[Floats]]:
    """Intercept and effects with which each group's weighted mean chance is its rate; mean effect 0."""
    sizes = [len(rate) for rate in rates]
    starts = np.cumsum([0, *sizes])
    people = [np.bincount(g, weights, n) for g, n in zip(groups, sizes, strict=True)]
    target_sums = np.concatenate([p * r for p, r in zip(people, rates, strict=True)])
    beta = np.zeros(int(starts[-1]))
    for _ in range(25):
        effects = np.split(beta, starts[1:-1])
        odds = offset + sum(e[g] for e, g in zip(effects, groups, strict=True))
        chance = 1 / (1 + np.exp(-odds))
        hessian = np.eye(len(beta))
        spread = weights * chance * (1 - chance)
        for a, b in combinations(range(len(sizes)), 2):
            table = np.bincount(groups[a] * sizes[b] + groups[b], spread, sizes[a] * sizes[b])
            table = table.reshape(sizes[a], sizes[b])
            hessian[starts[a] : starts[a + 1], starts[b] : starts[b + 1]] = table
            hessian[starts[b] : starts[b + 1], starts[a] : starts[a + 1]] = table.T
        expected = np.concatenate(
            [np.bincount(g, weights * chance, n) for g, n in zip(groups, sizes, strict=True)]
        )
        hessian[np.diag_indices(len(beta))] += np.concatenate(
            [np.bincount(g, spread, n) for g, n in zip(groups, sizes, strict=True)]
        )
        step = np.linalg.solve(hessian, target_sums - expected - beta)
        beta += step
        if np.max(np.abs(step)) < 1e-6:
            break
    effects = np.split(beta, starts[1:-1])
    means = [float(np.sum(p * e) / np.sum(p)) for p, e in zip(people, effects, strict=True)]
    return sum(means), [e - m for e, m in zip(effects, means, strict=True)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a survey and write its facts to the schema's file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.survey_facts", description=__doc__)
    parser.add_argument(
        "survey", type=Path, help="a Parquet or CSV file with the schema's columns and target"
    )
    parser.add_argument("--schema", type=Path, default=ROOT / "data" / "brfss2015.yaml")
    options = parser.parse_args(arguments)
    try:
        schema = load(options.schema)
        if schema.facts is None:
            raise UserError(
                f"the schema {schema.name} names no facts file: add facts: data/<name>-facts.json"
            )
        reader = pd.read_csv if options.survey.suffix == ".csv" else pd.read_parquet
        document = measure(reader(options.survey), schema)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    text = json.dumps(document, indent=1)
    (ROOT / schema.facts).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
