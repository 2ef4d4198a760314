"""The report of an exploration: one HTML file that loads nothing from anywhere, answers first.

It says nothing that is not in the documents of `steps.measures.exploration`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from steps.reports import html, svg
from steps.reports.html import count, percent

READS = ("templates/explore.html", "templates/report.css")

Weight = Literal["fine", "note", "mind"]

_MEASURES = {"rank correlation": "ρ", "correlation ratio": "η", "Cramér's V": "V"}


@dataclass(frozen=True)
class Answer:
    """One question with its answer, and how much it asks of the reader: nothing, a note, or care."""

    question: str
    answer: str
    weight: Weight = "fine"


def render(
    explorations: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any] | None = None, *, run: str = ""
) -> str:
    """The report of one data set, or of two side by side with their comparison."""
    subject = explorations[0]
    columns = {column["name"]: column for column in subject["columns"]}
    return (
        html.environment()
        .get_template("explore.html")
        .render(
            e=subject,
            others=explorations[1:],
            comparison=comparison,
            answers=[questions(one) for one in explorations],
            pictures=_pictures(explorations),
            ordered=_by_prediction(subject),
            columns=columns,
            run=run,
            measures=_MEASURES,
            synthetic=any(one["data"]["kind"] == "synthetic" for one in explorations),
        )
    )


def summary(e: Mapping[str, Any]) -> list[str]:
    """Lines for whoever waits at the terminal: size and outcome, what asks for care, what predicts."""
    asked = questions(e)
    care = [answer.question for answer in asked if answer.weight == "mind"]
    rate = e["data"]["prevalence"]["value"]
    hidden = "of too few to show" if e["data"]["has_outcome"] else "not in the data"
    outcome = percent(rate) if rate is not None else hidden
    lines = [f"{count(e['data']['rows'])} rows, outcome {outcome}"]
    lines.append(f"read with care: {'; '.join(care)}" if care else "nothing asks for special care")
    if e["prediction"]:
        best = ", ".join(f"{entry['name']} {entry['roc_auc']:.3f}" for entry in e["prediction"]["alone"][:3])
        lines.append(f"ROC AUC alone: {best}; all columns {e['prediction']['roc_auc']:.3f}")
    if e["schema"]["open_questions"]:
        lines.append(html.open_questions(e["schema"]["open_questions"]))
    return lines


def questions(e: Mapping[str, Any]) -> list[Answer]:
    """The first ten questions that a clinician asks of a data set, answered from the figures."""
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


def _who(e: Mapping[str, Any]) -> Answer:
    groups = [group for group in e["subgroups"] if not group["hidden"]]
    shown = [group for group in groups if group["headline"]]
    if groups:
        first = [group for group in groups if group["column"] == groups[0]["column"]]
        shown = [*first[:2], *(group for group in shown if group not in first)]
    parts = [f"{group['label']} {percent(group['share'], 0)}" for group in shown[:4]]
    files = len(e["files"])
    where = f" from {files} files" if files > 1 else ""
    small = [group["label"] for group in groups if group["share"] < 0.02]
    text = f"{count(e['data']['rows'])} people{where}" + (f": {', '.join(parts)}." if parts else ".")
    if small:
        text += f" Small groups: {', '.join(small)} (below 2 %)."
    return Answer("Who is in the data?", text, "note" if small else "fine")


def _how_common(e: Mapping[str, Any]) -> Answer:
    question = "How common is the outcome?"
    rate = e["data"]["prevalence"]
    if not e["data"]["has_outcome"]:
        return Answer(question, "The data carry no outcome, so nothing below speaks of risk.", "note")
    if rate["value"] is None:
        return Answer(question, "Fewer than 10 people have it, or lack it: not shown.", "mind")
    text = f"{percent(rate['value'])} (95 % interval {percent(rate['low'])} to {percent(rate['high'])})"
    if e["data"]["labelled"] is not None:
        text += f", {count(e['data']['positives'])} of {count(e['data']['labelled'])}"
    text += f" have it: {e['target']['meaning']}: {' or '.join(e['target']['positive'])}."
    labelled = e["data"]["labelled"]
    unlabelled = None if labelled is None else e["data"]["rows"] - labelled
    if unlabelled != 0:
        text += f" {count(unlabelled).capitalize()} rows have no outcome."
    rare = rate["value"] < 0.2
    if rare:
        text += (
            f" Always saying “no” would be right {percent(1 - rate['value'], 0)} of the time: "
            "accuracy says little here."
        )
    return Answer(question, text, "fine" if unlabelled == 0 else "note")


def _complete(e: Mapping[str, Any]) -> Answer:
    data = e["data"]
    lacking = sorted(
        ((column["missing"]["share"] or 0.0, column["name"]) for column in e["columns"]), reverse=True
    )
    lacking = [entry for entry in lacking if entry[0] > 0]
    few = [column["name"] for column in e["columns"] if column["missing"]["hidden"]]
    text, weight = "", "fine"
    if lacking:
        text = (
            f"{len(lacking)} of {len(e['columns'])} columns have missing values, most "
            f"{lacking[0][1]} ({percent(lacking[0][0])})."
        )
        weight = "note" if lacking[0][0] < 0.1 else "mind"
    elif not few:
        text = "No value is missing."
    if few:
        text = f"{text} A few values are missing in {', '.join(few)}; how many is not shown.".strip()
        weight = "note" if weight == "fine" else weight
    if data["rejected"] is None:
        text += " Fewer than 10 rows break the schema; they are left out here."
        weight = "note" if weight == "fine" else weight
    elif data["rejected"]:
        worst = next((f"{p['column']}: {p['rule']}" for p in e["problems"]), "")
        text += (
            f" {count(data['rejected'])} of {count(data['read'])} rows "
            f"({percent(data['rejected'] / data['read'])}) break the schema, first of all {worst}; "
            "they are left out here."
        )
        weight = "mind" if data["rejected"] > 0.01 * data["read"] or weight == "mind" else "note"
    else:
        text += " No row breaks the schema."
    for column in e["columns"]:
        if column["zeros"]:
            text += (
                f" {column['name']} is 0 for {percent(column['zeros'])}, and nothing else is near 0: "
                f"where 0 means “not "
                "measured”, say so with missing: [0] in the schema."
            )
            weight = "mind"
        if column["spike"]:
            spike = column["spike"]
            text += (
                f" One value of {column['name']}, {spike['value']:g}, stands in {percent(spike['share'])} "
                f"of the rows: was "
                "it filled in?"
            )
            weight = "mind"
    constant = [column["name"] for column in e["columns"] if column["constant"] or column["nearly_constant"]]
    if constant:
        text += f" (Nearly) the same for everybody: {', '.join(constant)}."
        weight = "note" if weight == "fine" else weight
    return Answer("Are the data complete and plausible?", text, weight)  # type: ignore[arg-type]


def _twice(e: Mapping[str, Any]) -> Answer:
    repeats, rows = e["repeats"], e["data"]["rows"]
    if not repeats["same_features"]:
        return Answer("Is anybody in it twice? Do equal answers disagree?", "No two rows are alike.")
    text = (
        f"{count(repeats['exact'])} rows ({percent(repeats['exact'] / max(1, rows))}) repeat "
        "another row exactly, outcome included."
    )
    if repeats["disagreeing_rows"]:
        text += (
            f" {count(repeats['disagreeing_patterns'])} sets of answers occur with both outcomes "
            f"({count(repeats['disagreeing_rows'])} rows), "
            f"so even a perfect rule is wrong about at least {percent(repeats['unavoidable_errors'])} "
            "of people."
        )
    text += (
        " They may be different people with the same coarse answers or the same person twice; the "
        "file cannot tell."
        " Rows are split by their values, so that copies fall on one side."
    )
    return Answer("Is anybody in it twice? Do equal answers disagree?", text, "mind")


def _order(e: Mapping[str, Any]) -> Answer:
    question, order = "Does the order of the rows mean something?", e["order"]
    if not order["stretches"]:
        return Answer(question, "There are too few rows to tell.")
    if not order["ordered"]:
        return Answer(
            question, f"No: none of {order['columns']} columns changes along the file beyond chance."
        )
    named = ", ".join(order["ordered"][:4]) + (", …" if len(order["ordered"]) > 4 else "")
    text = (
        f"Yes. The averages of {len(order['ordered'])} of {order['columns']} columns ({named}) change "
        "along the file, "
        f"in about {len(order['breaks']) + 1} distinct stretches, as in a file sorted by place or date. "
        "Never take its head as a sample, nor its tail as a test."
    )
    return Answer(question, text, "mind")


def _strongest(e: Mapping[str, Any]) -> Answer:
    question = "What goes with the outcome most?"
    if not e["prediction"]:
        return Answer(question, "Not measured: too few rows have an outcome of each kind.", "note")
    best = e["prediction"]["alone"][:4]
    text = ", ".join(f"{entry['name']} (ROC AUC {entry['roc_auc']:.3f} alone)" for entry in best) + "."
    adds = max(e["prediction"]["alone"], key=lambda entry: float(entry["adds"]))
    text += (
        f" What the others could least replace is {adds['name']}: without it, ROC AUC falls by "
        f"{adds['adds']:.3f}."
    )
    return Answer(question, text)


def _how_much(e: Mapping[str, Any]) -> Answer:
    question = "How much higher is the risk?"
    if not e["prediction"]:
        return Answer(question, "Not measured: too few rows have an outcome of each kind.", "note")
    parts = []
    for entry in e["prediction"]["alone"][:4]:
        column = next(column for column in e["columns"] if column["name"] == entry["name"])
        known = [level for level in column["levels"] if level["rate"] is not None]
        if len(known) > 1:
            low, high = (find(known, key=lambda level: float(level["rate"])) for find in (min, max))
            unit = f" {column['unit']}" if column["kind"] == "numeric" and column["unit"] else ""
            parts.append(
                f"{entry['name']}: {percent(low['rate'])} ({low['label']}{unit}) to "
                f"{percent(high['rate'])} ({high['label']}{unit})"
            )
    return Answer(question, "; ".join(parts) + ". These are associations, not effects: nobody was treated.")


def _same(e: Mapping[str, Any]) -> Answer:
    question = "Do any columns say the same thing?"
    found = e["associations"]
    if found["same"]:
        text = "; ".join(
            f"{p['first']} and {p['second']} ({p['measure']} {p['value']:+.2f})" for p in found["same"]
        )
        return Answer(question, f"Yes: {text}. One of each pair could go.", "mind")
    if not found["strongest"]:
        return Answer(question, "There is one column only.")
    best = found["strongest"][0]
    return Answer(
        question,
        f"No. The closest are {best['first']} and {best['second']} ({best['measure']} {best['value']:+.2f}).",
    )


def _leaks(e: Mapping[str, Any]) -> Answer:
    question = "Does any column give the outcome away?"
    if not e["prediction"] and not e["leaks"]:
        return Answer(question, "Not measured: too few rows have an outcome of each kind.", "note")
    if not e["leaks"]:
        best = e["prediction"]["alone"][0]
        return Answer(
            question,
            f"None looks like it: the best alone, {best['name']}, reaches ROC AUC "
            f"{best['roc_auc']:.3f} (suspicious from 0.95), "
            "and no level, value or end of a range goes with the outcome alone. Whether an answer was "
            "given before or after "
            "the diagnosis, data cannot say.",
        )
    parts = [
        f"{leak['name']} (ROC AUC {leak['roc_auc']:.3f} alone)"
        if leak["reason"] == "alone"
        else f"{leak['name']} (everybody, or nearly, has the outcome at {leak['label']})"
        if leak["reason"] == "values"
        else f"{leak['name']} (almost everybody with “{leak['label']}” has the outcome)"
        for leak in e["leaks"]
    ]
    return Answer(question, f"Suspected: {'; '.join(parts)}. Ask when and how it was recorded.", "mind")


def _predictable(e: Mapping[str, Any]) -> Answer:
    question = "How well can it be predicted, and would derived features help?"
    if not e["prediction"]:
        return Answer(question, "Not measured: too few rows have an outcome of each kind.", "note")
    found = e["prediction"]
    low, high = (found["roc_auc"] + sign * 1.96 * found["stderr"] for sign in (-1, 1))
    text = (
        f"One effect for each level of each column reaches ROC AUC {found['roc_auc']:.3f} "
        f"({low:.3f} to {high:.3f}) on held-out rows."
    )
    best = found["derived"][0] if found["derived"] else None
    if best is not None:
        helps = best["low"] > 0.002
        text += (
            f" Best of {len(found['derived'])} derived features tried: {best['name']}, {best['gain']:+.4f} "
            f"({best['low']:+.4f} to {best['high']:+.4f}). "
            + (
                "That is worth having."
                if helps
                else "That is real but small: the answers as they are hold nearly all of it."
                if best["low"] > 0
                else "That is no more than chance."
            )
        )
    return Answer(question, text)


def _by_prediction(e: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Columns, those first that tell most about the outcome; in the schema's order where nothing is known."""
    return sorted(e["columns"], key=lambda column: -(column["alone"]["roc_auc"] if column["alone"] else 0.0))


def _pictures(explorations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    e = explorations[0]
    base = [one["data"]["prevalence"]["value"] for one in explorations]
    highs = [
        level["high"]
        for one in explorations
        for column in one["columns"]
        for level in column["levels"]
        if level["rate"] is not None and level["rows"] >= 100
    ]
    top = min(1.0, max([0.02, *highs]) * 1.02)
    by_name = [{column["name"]: column for column in one["columns"]} for one in explorations]
    found: dict[str, Any] = {
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
            column["name"]: svg.spark(column["levels"], f"{column['name']}: distribution and outcome rate")
            for column in e["columns"]
        },
        "heat": svg.heat_map(
            e["associations"]["names"],
            e["associations"]["matrix"],
            "Strength of association of each pair of columns",
        ),
        "trends": [
            (trend, svg.trend(trend, e["order"]["breaks"], f"Mean of {trend['name']} along the file"))
            for trend in e["order"]["trends"]
            if trend["name"] in e["order"]["ordered"]
        ],
    }
    groups = [_subgroup_row(group) for group in e["subgroups"]]
    rates = [group["high"] for group in groups if group["value"] is not None]
    if rates:
        found["groups"] = svg.intervals(
            groups, 0.0, max(rates) * 1.05, "Outcome rate of each subgroup", base[0], as_percent=True
        )
    if e["prediction"]:
        found |= _prediction_pictures(e["prediction"])
    return found


def _subgroup_row(group: Mapping[str, Any]) -> dict[str, Any]:
    if group["hidden"]:
        return {"label": group["label"], "value": None, "note": "too few with or without the outcome"}
    return {
        "label": f"{group['label']} ({percent(group['share'], 0)})",
        "value": group["rate"],
        "low": group["low"],
        "high": group["high"],
        "strong": group["headline"],
    }


def _row(label: str, value: float, low: float, high: float, strong: bool = False) -> dict[str, Any]:
    return {"label": label, "value": value, "low": low, "high": high, "strong": strong}


def _prediction_pictures(found: Mapping[str, Any]) -> dict[str, str]:
    alone, adds = [], []
    for entry in found["alone"]:
        value, spread = entry["roc_auc"], 1.96 * entry["stderr"]
        alone.append(_row(entry["name"], value, value - spread, value + spread))
        value, spread = entry["adds"], 1.96 * entry["adds_stderr"]
        clear = value > 1.5 * spread and value > 0.001
        adds.append(_row(entry["name"], value, value - spread, value + spread, clear))
    derived = [
        _row(entry["name"], entry["gain"], entry["low"], entry["high"], entry["low"] > 0)
        for entry in found["derived"]
    ]
    end = max(0.75, *(entry["high"] for entry in alone))
    pictures = {"alone": svg.intervals(alone, 0.5, end, "ROC AUC of each column alone")}
    for name, rows, alt in (
        ("adds", adds, "ROC AUC lost without each column"),
        ("derived", derived, "ROC AUC gained by each derived feature"),
    ):
        if rows:
            low = min(0.0, *(row["low"] for row in rows))
            high = max(0.002, *(row["high"] for row in rows))
            pictures[name] = svg.intervals(rows, low, high, alt, 0.0, 4)
    if found["best_pair"]:
        pair = found["best_pair"]
        names = (str(pair["first"]), str(pair["second"]))
        pictures["pair"] = svg.rate_table(
            pair["labels"][0],
            pair["labels"][1],
            pair["rates"],
            names,
            f"Outcome rate by {' and '.join(names)}",
        )
    return pictures
