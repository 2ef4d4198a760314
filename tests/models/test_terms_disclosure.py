"""An attacker reads `terms.json` and solves for how many people stand behind each cell: few stay unknown."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linprog

from steps.data.disclosure import SMALLEST_CELL
from steps.data.schema_file import load
from steps.models import explainable_boosting, families, missing_answers, terms
from steps.models.served_model import parse_terms
from tests.conftest import ROOT


def possible(shown: float) -> tuple[float, float]:
    """Counts that a document may show as this one; see `disclosure.coarse`."""
    if shown <= 10:
        return (0, 0) if shown == 0 else (1, 14)
    return shown - 5, shown + 4


def possible_parts(shown: list[float]) -> list[tuple[float, float]]:
    """The same for the bins of a column, whose largest says nothing where there is a 10."""
    silent = shown.index(max(shown)) if 10 in shown else -1
    return [(0, np.inf) if place == silent else possible(count) for place, count in enumerate(shown)]


def test_two_missing_answers_do_not_follow_from_the_rest_of_their_column() -> None:
    """Of 1,492 people 745 say no and 745 yes: 750, 750 and 10 would leave one or two without an answer."""
    schema = load(ROOT / "data" / "brfss2015.yaml")
    cohort = pd.read_parquet(ROOT / "data" / "cohort.parquet").head(1492)
    X = cohort[list(schema.feature_names)].astype("float64")
    X["Smoker"] = np.repeat([0.0, 1.0, np.nan], [745, 745, 2])
    y = (cohort[schema.target.name] == 2).to_numpy(dtype="int8")
    params = families.check_params("explainable_boosting", {"interactions": 10})
    rows = missing_answers.as_they_are(X, y)
    fitted = explainable_boosting.fit(params, rows, schema, seed=0, bags=1, threads=1)
    place = schema.feature_names.index("Smoker")
    document = terms.to_document(fitted)
    shown = next(term["people"] for term in document["terms"] if term["columns"] == [place])
    assert sum(shown) == 1490  # the largest is what the others leave, so it narrows nothing
    missing, *others = possible_parts(shown)
    least = max(missing[0], len(X) - sum(high for _, high in others))
    most = min(missing[1], len(X) - sum(low for low, _ in others))
    assert most - least >= SMALLEST_CELL


def test_the_people_of_small_cells_cannot_be_solved_for() -> None:
    """Every pair's counts with those of its two columns and the number of rows: linear programming."""
    schema = load(ROOT / "data" / "brfss2015.yaml")
    cohort = pd.read_parquet(ROOT / "data" / "cohort.parquet").head(1500)
    X = cohort[list(schema.feature_names)].astype("float64")
    y = (cohort[schema.target.name] == 2).to_numpy(dtype="int8")
    params = families.check_params("explainable_boosting", {"interactions": 10})
    rows = missing_answers.with_hidden_answers(X, y, 0)
    fitted = explainable_boosting.fit(params, rows, schema, seed=0, bags=1, threads=1)
    bins = fitted.bins(X)
    document = terms.to_document(fitted)
    # The sizes in evaluation.json follow from what terms.json shows, and so say nothing more of anybody.
    assert terms.sizes(parse_terms(document)) == terms.sizes(fitted)
    mains = {term["columns"][0]: term["people"] for term in document["terms"] if len(term["columns"]) == 1}
    parts = {column: possible_parts(people) for column, people in mains.items()}
    small = 0
    for term in (term for term in document["terms"] if len(term["columns"]) == 2):
        first, second = term["columns"]
        shape = (len(mains[first]), len(mains[second]))
        true = np.zeros(shape)
        np.add.at(true, (bins[:, first], bins[:, second]), 1)
        cells = np.arange(true.size).reshape(shape)
        sums = list(zip([*cells, *cells.T], [*parts[first], *parts[second]], strict=True))
        masks = np.array([np.isin(cells.ravel(), members) for members, _ in sums], dtype=float)
        low, high = np.array([ends for _, ends in sums]).T
        high = np.minimum(high, len(X))
        for cell in np.flatnonzero((true.ravel() > 0) & (true.ravel() < SMALLEST_CELL)):
            goal = np.eye(true.size)[cell]
            ends = [
                linprog(
                    sign * goal,
                    A_ub=np.vstack([masks, -masks]),
                    b_ub=np.concatenate([high, -low]),
                    A_eq=np.ones((1, true.size)),
                    b_eq=[len(X)],
                    bounds=[possible(shown) for shown in term["people"]],
                )
                for sign in (1, -1)
            ]
            assert all(end.status == 0 for end in ends)
            least, most = ends[0].fun, -ends[1].fun
            assert (
                least <= 1 + 1e-6 and most >= SMALLEST_CELL - 1 - 1e-6
            )  # fewer than ten, and no more is known
            assert term["effects"][cell] == 0
            small += 1
    assert small > 20
