"""Update the tables of `data/README.md`: `python -m benchmarks.data_card [SURVEY]`.

Writes the table of columns from the schema and, if the survey is given, the tables that compare the cohort
with it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from steps.data.errors import UserError
from steps.data.schema import Column, NumericColumn, Schema, format_code
from steps.data.schema_file import load

ROOT = Path(__file__).resolve().parents[1]
MARGINAL_LIMIT, RANK_LIMIT, ROC_AUC_LIMIT = 0.01, 0.02, 0.815


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Largest difference of a value's share in each column, and all rank correlations of both."""

    marginals: pd.Series
    survey_ranks: pd.DataFrame
    cohort_ranks: pd.DataFrame

    @property
    def rank_differences(self) -> pd.Series:
        """Absolute difference of the rank correlation of each pair of columns, each pair once."""
        differences = (self.survey_ranks - self.cohort_ranks).abs()
        upper = np.triu(np.ones(differences.shape, dtype=bool), k=1)
        return differences.where(upper).stack().dropna()


def compare(cohort: pd.DataFrame, survey: pd.DataFrame) -> Fidelity:
    """Compare the cohort with the survey, column by column and pair by pair."""
    names = list(survey.columns)
    marginals = {
        name: survey[name]
        .value_counts(normalize=True)
        .sub(cohort[name].value_counts(normalize=True), fill_value=0.0)
        .abs()
        .max()
        for name in names
    }
    return Fidelity(pd.Series(marginals), survey.rank().corr(), cohort[names].rank().corr())


def risk_ranking(train: pd.DataFrame, test: pd.DataFrame, schema: Schema) -> tuple[float, float]:
    """ROC AUC and average precision on `test` of a default histogram gradient boosting of `train`."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    from steps.models.families import check_params, predict_risk
    from steps.models.pipelines import build

    features, positive = list(schema.feature_names), list(schema.target.positive)
    family = "histogram_gradient_boosting"
    model = build(family, check_params(family, {}), schema, seed=0)
    model.fit(train[features].astype("float64"), train[schema.target.name].isin(positive).astype("int8"))
    risk = predict_risk(model, test[features].astype("float64"))
    outcome = test[schema.target.name].isin(positive)
    return float(roc_auc_score(outcome, risk)), float(average_precision_score(outcome, risk))


def column_table(schema: Schema) -> str:
    """Markdown table of the schema's columns: name, kind, values, meaning."""
    lines = ["| column | kind | values | meaning |", "|---|---|---|---|"]
    lines += [f"| `{c.name}` | {c.kind} | {_values(c)} | {c.meaning} |" for c in schema.columns]
    target = schema.target
    levels = "; ".join(f"{format_code(code)} {label}" for code, label in target.levels.items())
    positive = " or ".join(format_code(code) for code in target.positive)
    lines.append(f"| `{target.name}` | target, positive: {positive} | {levels} | {target.meaning} |")
    return "\n".join(lines)


def _values(column: Column) -> str:
    unit = f" {column.unit}" if column.unit else ""
    if isinstance(column, NumericColumn):
        return f"{column.minimum:g} to {column.maximum:g}{unit}"
    levels = "; ".join(f"{format_code(code)} {label}" for code, label in column.levels.items())
    return f"{levels} ({column.unit})" if column.unit else levels


def fidelity_tables(cohort: pd.DataFrame, survey: pd.DataFrame, schema: Schema) -> str:
    """Markdown: the limits with the measured differences, then column by column."""
    from steps.data.split import PARTS, assign

    fidelity = compare(cohort, survey)
    target = schema.target.name
    pairs = fidelity.rank_differences
    part = assign(survey, schema)
    test = survey[part == PARTS.index("test")]
    on_all_rows = risk_ranking(cohort, survey, schema)
    on_test_rows = risk_ranking(cohort, test, schema)
    train = survey[part == PARTS.index("train")]
    real = risk_ranking(train, test, schema)
    of_target = (fidelity.survey_ranks[target] - fidelity.cohort_ranks[target]).abs()
    rows = {
        "share of any value of any column, largest difference": (
            MARGINAL_LIMIT,
            f"{fidelity.marginals.max():.4f} (`{fidelity.marginals.idxmax()}`)",
        ),
        f"rank correlation of any of {len(pairs)} pairs, largest difference": (
            RANK_LIMIT,
            f"{pairs.max():.4f} ({' and '.join(f'`{name}`' for name in pairs.idxmax())})",
        ),
        "rank correlation with the target, largest difference": (RANK_LIMIT, f"{of_target.max():.4f}"),
        "ROC AUC on all of the survey of a model that has seen only the cohort": (
            f"at least {ROC_AUC_LIMIT}",
            f"{on_all_rows[0]:.4f}",
        ),
    }
    trained = {"the cohort": (len(cohort), on_test_rows), "the survey's training rows": (len(train), real)}
    lines = ["| what | limit | measured |", "|---|---|---|"]
    lines += [f"| {title} | {limit} | {measured} |" for title, (limit, measured) in rows.items()]
    lines += [
        "",
        "Histogram gradient boosting with this project's default parameters, on the survey's test rows:",
        "",
        "| trained on | rows | ROC AUC | average precision |",
        "|---|---|---|---|",
    ]
    lines += [f"| {title} | {n:,} | {auc:.4f} | {ap:.4f} |" for title, (n, (auc, ap)) in trained.items()]
    lines += [
        "",
        "| column | largest difference of a share | mean | cohort's | correlation with target | cohort's |",
        "|---|---|---|---|---|---|",
    ]
    for name in survey.columns:
        ranks = (fidelity.survey_ranks.loc[name, target], fidelity.cohort_ranks.loc[name, target])
        correlations = " | ".join("" if name == target else f"{rank:+.3f}" for rank in ranks)
        means = f"{survey[name].mean():.3f} | {cohort[name].mean():.3f}"
        lines.append(f"| `{name}` | {fidelity.marginals[name]:.4f} | {means} | {correlations} |")
    return "\n".join(lines)


def section(card: str, name: str) -> str:
    """Text between the marks of a section of the card."""
    start, end = _marks(name)
    if card.count(start) != 1 or card.count(end) != 1:
        raise UserError(f"the data card should have the lines {start} and {end} once each")
    return card.split(start)[1].split(end)[0].strip()


def with_section(card: str, name: str, text: str) -> str:
    """The card with the text between the marks of a section replaced."""
    section(card, name)
    start, end = _marks(name)
    before, after = card.split(start)
    return f"{before}{start}\n{text}\n{end}{after.split(end)[1]}"


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: python -m benchmarks.data_card -->", f"<!-- end of {name} -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the card's tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_card", description=__doc__)
    parser.add_argument(
        "survey", nargs="?", type=Path, help="the real survey, as Parquet, for the fidelity table"
    )
    options = parser.parse_args(arguments)
    path = ROOT / "data" / "README.md"
    try:
        schema = load(ROOT / "data" / "brfss2015.yaml")
        card = with_section(path.read_text(encoding="utf-8"), "columns", column_table(schema))
        if options.survey is not None:
            cohort = pd.read_parquet(ROOT / "data" / "cohort.parquet")
            tables = fidelity_tables(cohort, pd.read_parquet(options.survey), schema)
            card = with_section(card, "fidelity", tables)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    path.write_text(card, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
