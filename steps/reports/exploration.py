"""The report of an exploration: one self-contained HTML file, answers first.

All its content comes from the document of `steps.measures.exploration_document`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from steps.data.documents import to_json
from steps.measures.exploration_document import (
    Column,
    Comparison,
    Exploration,
    Gain,
    Leak,
    Prediction,
    Subgroup,
)
from steps.reports import html, svg
from steps.reports.html import count, percent

READS = ("templates/explore.html", "templates/report.css")

Weight = Literal["fine", "note", "mind"]
Remark = tuple[str, Weight]
_WEIGHTS: tuple[Weight, ...] = ("fine", "note", "mind")

# A subgroup with a smaller share is named as small; only levels with this many rows set the axis of rates.
_SMALL_GROUP = 0.02
_RATED_ROWS = 100
# From these shares on, missing answers and rows that break the schema call for care.
_MUCH_MISSING = 0.1
_MANY_REJECTED = 0.01
# Smallest gain in ROC AUC, at the lower end of its interval, that is worth having.
_WORTH_HAVING = 0.002
_NOT_MEASURED = "Not measured: too few rows have an outcome of each kind."
_MEASURES = {"rank correlation": "ρ", "correlation ratio": "η", "Cramér's V": "V"}


@dataclass(frozen=True)
class Answer:
    """A question, its answer, and its weight: fine, a note, or `mind`, which calls for care."""

    question: str
    answer: str
    weight: Weight = "fine"


def render(
    explorations: Sequence[Exploration], comparison: Comparison | None = None, *, run: str = ""
) -> str:
    """The report of one data set, or of two side by side with their comparison."""
    subject = explorations[0]
    columns = {column.name: column for column in subject.columns}
    return (
        html.environment()
        .get_template("explore.html")
        .render(
            e=subject,
            others=explorations[1:],
            comparison=comparison,
            answers=[questions(exploration) for exploration in explorations],
            pictures=_pictures(explorations),
            ordered=_by_prediction(subject),
            columns=columns,
            run=run,
            measures=_MEASURES,
            synthetic=any(exploration.data.kind == "synthetic" for exploration in explorations),
        )
    )


def summary(e: Exploration) -> list[str]:
    """Lines for the terminal: size and outcome, points that call for care, the best predictors."""
    answers = questions(e)
    care = [answer.question for answer in answers if answer.weight == "mind"]
    rate = e.data.prevalence.value
    hidden = "of too few to show" if e.data.has_outcome else "not in the data"
    outcome = percent(rate) if rate is not None else hidden
    lines = [f"{count(e.data.rows)} rows, outcome {outcome}"]
    lines.append(f"read with care: {'; '.join(care)}" if care else "nothing asks for special care")
    if e.prediction:
        best = ", ".join(f"{entry.name} {entry.roc_auc:.3f}" for entry in e.prediction.alone[:3])
        lines.append(f"ROC AUC alone: {best}; all columns {e.prediction.roc_auc:.3f}")
    if e.schema.open_questions:
        lines.append(html.open_questions(e.schema.open_questions))
    return lines


def questions(e: Exploration) -> list[Answer]:
    """Answers to the first ten questions that a clinician asks about a data set, from its figures."""
    return [
        _who(e),
        _how_common(e),
        _complete(e),
        _twice(e),
        _order(e),
        _strongest(e),
        _how_much(e),
        _same(e),
        _leaks(e),
        _predictable(e),
    ]


def _who(e: Exploration) -> Answer:
    groups = [group for group in e.subgroups if not group.people.hidden]
    shown_groups = [group for group in groups if group.headline]
    if groups:
        first_column = [group for group in groups if group.column == groups[0].column]
        shown_groups = [*first_column[:2], *(group for group in shown_groups if group not in first_column)]
    parts = [f"{group.people.label} {percent(group.people.share, 0)}" for group in shown_groups[:4]]
    files = len(e.files)
    where = f" from {files} files" if files > 1 else ""
    small = [group.people.label for group in groups if (group.people.share or 0.0) < _SMALL_GROUP]
    text = f"{count(e.data.rows)} people{where}" + (f": {', '.join(parts)}." if parts else ".")
    if small:
        text += f" Small groups: {', '.join(small)} (below 2 %)."
    return Answer("Who is in the data?", text, "note" if small else "fine")


def _how_common(e: Exploration) -> Answer:
    question = "How common is the outcome?"
    rate = e.data.prevalence
    if not e.data.has_outcome:
        return Answer(question, "The data have no outcome, so there are no risks below.", "note")
    if rate.value is None:
        return Answer(question, "Fewer than 10 people have it, or lack it: not shown.", "mind")
    text = f"{percent(rate.value)} (95 % interval {percent(rate.low)} to {percent(rate.high)})"
    if e.data.labelled is not None:
        text += f", {count(e.data.positives)} of {count(e.data.labelled)}"
    text += f" have it: {e.target.meaning}: {' or '.join(e.target.positive)}."
    labelled = e.data.labelled
    unlabelled = None if labelled is None else e.data.rows - labelled
    if unlabelled != 0:
        text += f" {count(unlabelled).capitalize()} rows have no outcome."
    is_rare = rate.value < 0.2
    if is_rare:
        text += (
            f" Always saying “no” would be right {percent(1 - rate.value, 0)} of the time: "
            "accuracy says little here."
        )
    return Answer(question, text, "fine" if unlabelled == 0 else "note")


def _complete(e: Exploration) -> Answer:
    remarks = [*_missing(e), _rejected(e)]
    for column in e.columns:
        remarks += [(text, "mind") for text in _odd(column)]
    constant = [column.name for column in e.columns if column.constant or column.nearly_constant]
    if constant:
        remarks.append((f"(Nearly) the same for everybody: {', '.join(constant)}.", "note"))
    gravest = max((weight for _, weight in remarks), key=_WEIGHTS.index)
    return Answer("Are the data complete and plausible?", " ".join(text for text, _ in remarks), gravest)


def _odd(column: Column) -> Iterator[str]:
    """Sentences about impossible zeros and about a value that may have been filled in."""
    if column.zeros:
        yield (
            f"{column.name} is 0 for {percent(column.zeros)}, and nothing else is near 0: where 0 means "
            "“not measured”, say so with missing: [0] in the schema."
        )
    if column.spike:
        yield (
            f"{percent(column.spike.share)} of the rows have the same value of {column.name}, "
            f"{column.spike.value:g}: was it filled in?"
        )


def _missing(e: Exploration) -> list[Remark]:
    """Remarks about missing answers."""
    incomplete = [(column.missing.share, column.name) for column in e.columns if column.missing.share]
    few = [column.name for column in e.columns if column.missing.hidden]
    remarks: list[Remark] = []
    if incomplete:
        share, name = max(incomplete)
        columns = f"{len(incomplete)} of {len(e.columns)} columns"
        text = f"{columns} have missing values, most {name} ({percent(share)})."
        remarks.append((text, "note" if share < _MUCH_MISSING else "mind"))
    if few:
        remarks.append((f"A few values are missing in {', '.join(few)}; how many is not shown.", "note"))
    return remarks or [("No value is missing.", "fine")]


def _rejected(e: Exploration) -> Remark:
    """The remark about rows that break the schema."""
    rejected, read = e.data.rejected, e.data.read
    if rejected is None or read is None:
        return "Fewer than 10 rows break the schema; they are left out here.", "note"
    if not rejected:
        return "No row breaks the schema.", "fine"
    worst = next((f"{broken.column}: {broken.rule}" for broken in e.problems), "")
    text = (
        f"{count(rejected)} of {count(read)} rows ({percent(rejected / read)}) break the schema, "
        f"first of all {worst}; they are left out here."
    )
    return text, "mind" if rejected > _MANY_REJECTED * read else "note"


def _twice(e: Exploration) -> Answer:
    repeats, rows = e.repeats, e.data.rows
    if not repeats.same_features:
        return Answer("Is anybody in it twice? Do equal answers disagree?", "No two rows are alike.")
    text = (
        f"{count(repeats.exact)} rows ({percent(repeats.exact / max(1, rows))}) repeat "
        "another row exactly, outcome included."
    )
    if repeats.disagreeing_rows:
        text += (
            f" {count(repeats.disagreeing_patterns)} sets of answers occur with both outcomes "
            f"({count(repeats.disagreeing_rows)} rows), "
            f"so even a perfect rule is wrong about at least {percent(repeats.unavoidable_errors)} "
            "of people."
        )
    text += (
        " They may be different people with the same coarse answers or the same person twice; the "
        "file cannot tell."
        " Rows are split by their values, so that copies fall on one side."
    )
    return Answer("Is anybody in it twice? Do equal answers disagree?", text, "mind")


def _order(e: Exploration) -> Answer:
    question, order = "Does the order of the rows mean something?", e.order
    if not order.stretches:
        return Answer(question, "There are too few rows to tell.")
    if not order.ordered:
        return Answer(question, f"No: none of {order.columns} columns changes along the file beyond chance.")
    named = ", ".join(order.ordered[:4]) + (", …" if len(order.ordered) > 4 else "")
    text = (
        f"Yes. The averages of {len(order.ordered)} of {order.columns} columns ({named}) change "
        "along the file, "
        f"in about {len(order.breaks) + 1} distinct stretches, as in a file sorted by place or date. "
        "Never take its head as a sample, nor its tail as a test."
    )
    return Answer(question, text, "mind")


def _strongest(e: Exploration) -> Answer:
    question = "What goes with the outcome most?"
    if not e.prediction:
        return Answer(question, _NOT_MEASURED, "note")
    best = e.prediction.alone[:4]
    text = ", ".join(f"{entry.name} (ROC AUC {entry.roc_auc:.3f} alone)" for entry in best) + "."
    adds = max(e.prediction.alone, key=lambda entry: float(entry.adds))
    text += (
        f" What the others could least replace is {adds.name}: without it, ROC AUC falls by {adds.adds:.3f}."
    )
    return Answer(question, text)


def _how_much(e: Exploration) -> Answer:
    question = "How much higher is the risk?"
    if not e.prediction:
        return Answer(question, _NOT_MEASURED, "note")
    parts = []
    for entry in e.prediction.alone[:4]:
        column = next(column for column in e.columns if column.name == entry.name)
        rated = [level for level in column.levels if level.rate is not None]
        if len(rated) > 1:
            low, high = (find(rated, key=lambda level: level.rate or 0.0) for find in (min, max))
            unit = f" {column.unit}" if column.kind == "numeric" and column.unit else ""
            parts.append(
                f"{entry.name}: {percent(low.rate)} ({low.label}{unit}) to "
                f"{percent(high.rate)} ({high.label}{unit})"
            )
    return Answer(question, "; ".join(parts) + ". These are associations, not effects: nobody was treated.")


def _same(e: Exploration) -> Answer:
    question = "Do any columns say the same thing?"
    associations = e.associations
    if associations.same:
        text = "; ".join(f"{p.first} and {p.second} ({p.measure} {p.value:+.2f})" for p in associations.same)
        return Answer(question, f"Yes: {text}. One of each pair could go.", "mind")
    if not associations.strongest:
        return Answer(question, "There is one column only.")
    best = associations.strongest[0]
    return Answer(
        question,
        f"No. The closest are {best.first} and {best.second} ({best.measure} {best.value:+.2f}).",
    )


def _leaks(e: Exploration) -> Answer:
    question = "Does any column give the outcome away?"
    if not e.leaks and e.prediction is None:
        return Answer(question, _NOT_MEASURED, "note")
    if not e.leaks and e.prediction is not None:
        best = e.prediction.alone[0]
        return Answer(
            question,
            f"None looks like it: the best alone, {best.name}, reaches ROC AUC "
            f"{best.roc_auc:.3f} (suspicious from 0.95), "
            "and no level, value or end of a range goes with the outcome alone. Whether an answer was "
            "given before or after "
            "the diagnosis, data cannot say.",
        )
    parts = [_leak(leak) for leak in e.leaks]
    return Answer(question, f"Suspected: {'; '.join(parts)}. Ask when and how it was recorded.", "mind")


def _leak(leak: Leak) -> str:
    if leak.reason == "alone":
        return f"{leak.name} (ROC AUC {leak.roc_auc:.3f} alone)"
    if leak.reason == "values":
        return f"{leak.name} (everybody, or nearly, has the outcome at {leak.label})"
    return f"{leak.name} (almost everybody with “{leak.label}” has the outcome)"


def _predictable(e: Exploration) -> Answer:
    question = "How well can it be predicted, and do combinations of answers help?"
    if not e.prediction:
        return Answer(question, _NOT_MEASURED, "note")
    prediction = e.prediction
    low, high = (prediction.roc_auc + sign * 1.96 * prediction.stderr for sign in (-1, 1))
    text = (
        f"One effect for each level of each column reaches ROC AUC {prediction.roc_auc:.3f} "
        f"({low:.3f} to {high:.3f}) on held-out rows."
    )
    if prediction.together is not None:
        gain = prediction.together
        pairs = f"{len(prediction.interactions)} pairs"
        text += (
            f" An effect for each combination of the {pairs} that seem to interact "
            f"most adds {gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}). {_worth(gain)}"
        )
    return Answer(question, text)


def _worth(gain: Gain) -> str:
    if gain.low > _WORTH_HAVING:
        return "That is worth having."
    if gain.low > 0:
        return "That is real but small: the answers one by one hold nearly all of it."
    return "That is no more than chance." if gain.high > 0 else "That is a loss: combinations do not help."


def _by_prediction(e: Exploration) -> list[Column]:
    """Columns in descending order of their ROC AUC alone; in the schema's order without predictions."""
    return sorted(e.columns, key=lambda column: -(column.alone.roc_auc if column.alone else 0.0))


def _pictures(explorations: Sequence[Exploration]) -> dict[str, Any]:
    e = explorations[0]
    base = [exploration.data.prevalence.value for exploration in explorations]
    highs = [
        level.high
        for exploration in explorations
        for column in exploration.columns
        for level in column.levels
        if level.high is not None and level.rate is not None and (level.rows or 0) >= _RATED_ROWS
    ]
    top = min(1.0, max([0.02, *highs]) * 1.02)
    by_name = [
        {column.name: to_json(column) for column in exploration.columns} for exploration in explorations
    ]
    pictures: dict[str, Any] = {
        "levels": {
            name: svg.levels(
                [columns[name] for columns in by_name],
                top,
                base,
                f"{name}: share and outcome rate of each level",
            )
            for name in by_name[0]
        },
        "sparks": {
            name: svg.spark(column["levels"], f"{name}: distribution and outcome rate")
            for name, column in by_name[0].items()
        },
        "heat": svg.heat_map(
            e.associations.names, e.associations.matrix, "Strength of association of each pair of columns"
        ),
        "trends": [
            (trend, svg.trend(to_json(trend), e.order.breaks, f"Mean of {trend.name} along the file"))
            for trend in e.order.trends
            if trend.name in e.order.ordered
        ],
    }
    rates = [group.people.high for group in e.subgroups if group.people.high is not None]
    if rates:
        rows = [_subgroup_row(group) for group in e.subgroups]
        pictures["groups"] = svg.intervals(
            rows, 0.0, max(rates) * 1.05, "Outcome rate of each subgroup", base[0], as_percent=True
        )
    if e.prediction:
        pictures |= _prediction_pictures(e.prediction)
    return pictures


def _subgroup_row(group: Subgroup) -> dict[str, Any]:
    people = group.people
    if people.rate is None:
        note = "too few with or without the outcome" if people.hidden else "no outcome"
        return {"label": people.label, "value": None, "note": note}
    return {
        "label": f"{people.label} ({percent(people.share, 0)})",
        "value": people.rate,
        "low": people.low,
        "high": people.high,
        "strong": group.headline,
    }


def _row(label: str, value: float, low: float, high: float, strong: bool = False) -> dict[str, Any]:
    return {"label": label, "value": value, "low": low, "high": high, "strong": strong}


def _gain_row(label: str, gain: Gain) -> dict[str, Any]:
    return _row(label, gain.value, gain.low, gain.high, gain.low > 0)


def _prediction_pictures(prediction: Prediction) -> dict[str, str]:
    alone, adds = [], []
    for entry in prediction.alone:
        value, spread = entry.roc_auc, 1.96 * entry.stderr
        alone.append(_row(entry.name, value, value - spread, value + spread))
        value, spread = entry.adds, 1.96 * entry.adds_stderr
        is_clear = value > 1.5 * spread and value > 0.001
        adds.append(_row(entry.name, value, value - spread, value + spread, is_clear))
    pairs = [_gain_row(f"{pair.first} × {pair.second}", pair.gain) for pair in prediction.interactions]
    if prediction.together is not None:
        pairs.append(_gain_row("all of these pairs", prediction.together))
    end = max(0.75, *(row["high"] for row in alone))
    pictures = {"alone": svg.intervals(alone, 0.5, end, "ROC AUC of each column alone")}
    for name, rows, alt in (
        ("adds", adds, "ROC AUC lost without each column"),
        ("interactions", pairs, "ROC AUC gained by an effect of each pair"),
    ):
        if rows:
            low = min(0.0, *(row["low"] for row in rows))
            high = max(0.002, *(row["high"] for row in rows))
            pictures[name] = svg.intervals(rows, low, high, alt, 0.0, 4)
    if prediction.best_pair:
        pair = prediction.best_pair
        names = (pair.first, pair.second)
        pictures["pair"] = svg.rate_table(
            *pair.labels, pair.rates, names, f"Outcome rate by {' and '.join(names)}"
        )
    return pictures
