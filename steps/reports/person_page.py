"""One person's page: `risk.html`, a single file in which a person answers questions and reads the risk.

It loads nothing from anywhere and works from disk. For a glass box the browser computes the risk from the
model's own document, `terms.json`; for other families it asks `/invocations` at the address of the page.
Templates: page.html, page.css, page.js, and a file of texts for each language (page.en.json).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from steps.data.schema import Column, LevelledColumn, Question, Schema
from steps.measures.evaluation_document import Evaluation
from steps.reports.html import TEMPLATES, environment

READS = ("templates/page.html", "templates/page.css", "templates/page.js", "templates/page.en.json")

# A risk is shown while at most this share of the questions is open: training hides each answer with
# probability 0.15, so it hardly ever sees rows with more open questions.
MOST_OPEN = 0.3


@dataclass(frozen=True)
class PageFacts:
    """Facts about the model for the page, besides its evaluation.

    `terms`: the parsed `terms.json`, None for a family that is not additive. `made`: when the page was made.
    """

    name: str
    version: str
    synthetic: bool
    terms: Mapping[str, Any] | None
    made: datetime


def render_page(schema: Schema, evaluation: Evaluation, facts: PageFacts, language: str = "en") -> str:
    """The page as HTML."""
    words = json.loads((TEMPLATES / f"page.{language}.json").read_text(encoding="utf-8"))
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    page = _page(schema, evaluation, facts, words)
    return (
        environment()
        .get_template("page.html")
        .render(
            page=page,
            facts=_about(schema, evaluation, facts, words),
            data=Markup(_embedded(page)),  # noqa: S704 - escaped for a script element by `_embedded`
            style=Markup(style),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            policy=_policy(style, script, asks_server=facts.terms is None),
        )
    )


def _page(
    schema: Schema, evaluation: Evaluation, facts: PageFacts, words: Mapping[str, Any]
) -> dict[str, Any]:
    outcome = schema.page.outcome or words["outcome"].format(meaning=schema.target.meaning)
    table = evaluation.per_1000
    unflagged = table.false_negatives + table.true_negatives
    return {
        "title": schema.page.title or schema.title,
        "disclaimer": schema.disclaimer,
        "outcome": outcome,
        "synthetic": facts.synthetic,
        "questions": [_question(schema.column(name), schema.page.question(name)) for name in _order(schema)],
        "most_open": int(MOST_OPEN * len(schema.columns)),
        "terms": facts.terms,
        "threshold": evaluation.threshold,
        "flagged_have": table.true_positives / table.flagged if table.flagged else 0.0,
        "unflagged_have": table.false_negatives / unflagged if unflagged else 0.0,
        "compare": _compare(schema, evaluation),
        "example": {name: _plain(value) for name, value in schema.page.example.items()},
        "words": words,
    }


def _order(schema: Schema) -> list[str]:
    """Names of the columns in the order of the questions: first as the schema lists them, then the others."""
    return list(dict.fromkeys((*schema.page.questions, *schema.feature_names)))


def _question(column: Column, question: Question) -> dict[str, Any]:
    entry = {
        "name": column.name,
        "ask": question.ask or column.meaning,
        "short": question.short or column.meaning,
        "group": question.group,
        "help": question.help,
        "unit": column.unit,
        "required": column.required,
    }
    if isinstance(column, LevelledColumn):
        levels = [{"value": _plain(code), "label": label} for code, label in column.levels.items()]
        return {**entry, "kind": "levels", "levels": levels}
    limits = {"minimum": _plain(column.minimum), "maximum": _plain(column.maximum)}
    return {**entry, "kind": "number", **limits, "whole": question.whole, "from": list(question.built_from)}


def _compare(schema: Schema, evaluation: Evaluation) -> dict[str, Any] | None:
    """Shares of the outcome among test people by subgroups of the column that the schema names."""
    column = schema.page.compare
    groups = {group.name: group for group in evaluation.subgroups if group.column == column}
    entries = [
        {
            "name": group.name,
            "values": None if group.values is None else [_plain(value) for value in group.values],
            "minimum": group.minimum,
            "maximum": group.maximum,
            "share": groups[group.name].prevalence,
        }
        for group in schema.subgroups
        if group.name in groups
    ]
    return {"column": column, "groups": entries} if entries else None


def _about(
    schema: Schema, evaluation: Evaluation, facts: PageFacts, words: Mapping[str, str]
) -> list[tuple[str, str]]:
    trained = evaluation.model.trained_at
    auc = evaluation.metrics.roc_auc.value
    lines = [
        (words["fact_model"], words["fact_version"].format(name=facts.name, version=facts.version)),
        (words["fact_trained"], f"{datetime.fromtimestamp(trained, UTC):%Y-%m-%d}" if trained else ""),
        (
            words["fact_data"],
            words["fact_data_value"].format(
                title=schema.title,
                rows=f"{evaluation.data.rows:,}",
                share=f"{100 * evaluation.data.prevalence:.1f}",
            ),
        ),
        (words["fact_auc"], "" if auc is None else f"{auc:.3f}"),
        (words["fact_made"], f"{facts.made:%Y-%m-%d}"),
    ]
    return [(name, value) for name, value in lines if value]


def _embedded(page: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element around it."""
    text = json.dumps(page, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _policy(style: str, script: str, *, asks_server: bool) -> str:
    """A content security policy: this style, this script, and no request except for a risk."""
    connect = "'self'" if asks_server else "'none'"
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            f"connect-src {connect}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _plain(value: float | str) -> float | int | str:
    """Whole numbers without a decimal point, so that a browser compares them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
