"""A first schema for a table that has none: columns described from their values, and questions for a person.

Pure: a frame of text or numbers in, a document of YAML out. The draft holds the levels and wider ranges of
the columns; it is for the person who has the table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from steps.data import values as canonical
from steps.data.disclosure import SMALLEST_CELL
from steps.data.errors import UserError
from steps.data.schema import format_code

_MOST_LEVELS = 30
_MOST_ORDERED = 12
_NO_ANSWER = frozenset(
    {"?", ".", "-", "--", "*", "unknown", "not known", "missing", "no answer", "refused", "n.a."}
)
_CODES = (
    -9.0, -8.0, -1.0, 7.0, 8.0, 9.0, 77.0, 88.0, 98.0, 99.0, 777.0, 888.0, 998.0, 999.0, 9999.0, 99999.0,
)  # fmt: skip
_OUTCOMES = re.compile(
    r"outcome|target|label|class|diagnos|diabet|disease|readmi|die[ds]?\b|dead|death|mortal|event|relapse"
    r"|surviv|status",
    re.IGNORECASE,
)
_IDENTIFIERS = re.compile(
    r"(^|_|\b)(id|nr|no|number|mrn|ssn|patient|person|name|key|uuid)(\b|_|$)", re.IGNORECASE
)
_YES = ("1", "yes", "true", "positive", "ill", "diabetic")
_GIVES_AWAY = 0.95


@dataclass
class Draft:
    """Columns by name, questions for a person, and the columns that were left out with the reason."""

    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    questions: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def ask(self, about: str, question: str) -> None:
        """Note a question that only a person can answer."""
        self.questions.append((about, question))


def draft(
    frame: pd.DataFrame, name: str, title: str, outcome: str | None = None
) -> tuple[dict[str, Any], Draft]:
    """The document of a schema, and the draft that it was made from.

    `outcome`: the column that a person named as the outcome. Raises UserError if no column can be one.
    """
    result = Draft()
    for column in frame.columns:
        _describe(str(column), frame[column], result)
    target = _target(frame, result, outcome)
    _ask_about_leaks(frame, result, target)
    if not result.columns:
        raise UserError(
            "no column is left to learn from: " + "; ".join(f"{n} {reason}" for n, reason in result.left_out)
        )
    numeric = [name for name, column in result.columns.items() if column["kind"] == "numeric"]
    if numeric:
        result.ask(
            "columns",
            "Units of numbers are not in the data: add `unit` to " + ", ".join(numeric[:8])
            + (", ..." if len(numeric) > 8 else ""),
        )  # fmt: skip
        result.ask(
            "columns",
            "Each range is that of the data and a quarter more on either side, so it checks little: set "
            "minimum and maximum to what is possible.",
        )
    document = {
        "name": name,
        "title": title,
        "target": target,
        "columns": [{"name": name, **column} for name, column in result.columns.items()],
        "open_questions": [{"about": about, "question": text} for about, text in result.questions],
    }
    return document, result


def _describe(name: str, values: pd.Series, draft: Draft) -> None:
    """Add one column to the draft: as a feature, or as left out with the reason."""
    index, distinct = canonical.distinct(values)
    words = [canonical.text(value) for value in distinct]
    rows = np.bincount(index[index >= 0], minlength=len(words)) if len(words) else np.zeros(0, dtype=int)
    peopled = [(word, int(count)) for word, count in zip(words, rows, strict=True) if count]
    peopled = [pair for pair in peopled if pair[0] not in canonical.MISSING_TEXT]
    total = sum(count for _, count in peopled)
    tokens = [word for word, _ in peopled if word.lower() in _NO_ANSWER]
    answers = [word for word, _ in peopled if word.lower() not in _NO_ANSWER]
    numbers = sorted({number for word in answers if (number := _number(word)) is not None})
    if all(_number(word) is not None for word in answers):
        answers = [format_code(number) for number in numbers]  # 1 and 1.0 are the same level
    if name.startswith("__") or not answers:
        draft.left_out.append((name, "has a name that the project keeps" if answers else "is empty"))
    elif len(answers) == 1:
        draft.left_out.append((name, "is the same for everybody"))
    elif _is_identifier(name, answers, numbers, total):
        draft.left_out.append((name, "tells people apart: an identifier, or the number of the row"))
    elif _are_dates(values, answers):
        draft.left_out.append(
            (name, "holds dates: a model takes an age or a number of days; work it out first")
        )
    elif len(numbers) == len(answers):
        _describe_numbers(name, numbers, dict(peopled), draft)
    elif len(answers) > _MOST_LEVELS:
        draft.left_out.append((name, "is free text, or has too many levels to learn from"))
    else:
        _describe_texts(name, sorted(answers), draft)
    if tokens and name in draft.columns:
        draft.columns[name]["missing"] = [*draft.columns[name].get("missing", []), *tokens]
        draft.ask(
            name, f"{', '.join(repr(token) for token in tokens)}: treated as “no answer”. Is that right?"
        )


def _describe_numbers(name: str, numbers: Sequence[float], rows: dict[str, int], draft: Draft) -> None:
    suspects = _suspects(numbers, rows)
    others = [number for number in numbers if number not in suspects]
    if suspects:
        listed = ", ".join(format_code(code) for code in suspects)
        draft.ask(name, f"May {listed} mean “no answer”? Then add missing: [{listed}].")
    is_whole = all(number == round(number) for number in numbers)
    if len(numbers) == 2:
        draft.columns[name] = {
            "kind": "binary", "meaning": name, "levels": {_plain(n): format_code(n) for n in numbers},
        }  # fmt: skip
        draft.ask(name, "What do its two values mean? They are the labels of levels.")
    elif is_whole and len(numbers) <= _MOST_ORDERED:
        draft.columns[name] = {
            "kind": "ordinal", "meaning": name, "levels": {_plain(n): format_code(n) for n in numbers},
        }  # fmt: skip
        draft.ask(name, "Do its values have an order? If not, it is nominal. What do they mean?")
    else:
        low, high = _wider(others)
        low, high = min([low, *suspects]), max([high, *suspects])
        draft.columns[name] = {
            "kind": "numeric",
            "meaning": name,
            "minimum": _plain(low),
            "maximum": _plain(high),
        }


def _describe_texts(name: str, answers: Sequence[str], draft: Draft) -> None:
    binary = len(answers) == 2
    draft.columns[name] = {
        "kind": "binary" if binary else "nominal",
        "meaning": name,
        "levels": {answer: answer for answer in answers},
    }
    if len({answer.lower() for answer in answers}) < len(answers):
        draft.ask(name, "Levels differ only in upper and lower case: join them with recode.")
    if len(answers) > 2:
        draft.ask(name, "Do the levels have an order? Then recode them to ascending numbers, kind: ordinal.")


def _suspects(numbers: Sequence[float], rows: dict[str, int]) -> list[float]:
    """Values that look like codes for a missing answer: far from all others, or zeros far from the rest."""
    if len(numbers) < 4:
        return []
    suspects = []
    ordered = sorted(numbers)
    for end, neighbour in ((-1, -2), (0, 1)):
        code, nearest = ordered[end], ordered[neighbour]
        others = [number for number in ordered if number != code]
        span = max(others) - min(others)
        if (code in _CODES and abs(code - nearest) > max(1.0, 0.5 * span)) or (
            code in (-1.0, -8.0, -9.0) and nearest >= 0
        ):
            suspects.append(code)
    zeros = sum(count for word, count in rows.items() if _number(word) == 0)
    positive = [number for number in ordered if number > 0]
    if (
        ordered[0] == 0
        and zeros >= SMALLEST_CELL
        and len(positive) > 10
        and positive[0] > 0.2 * np.median(positive)
    ):
        suspects.append(0.0)
    return sorted(set(suspects))


def _wider(numbers: Sequence[float]) -> tuple[float, float]:
    """A range a quarter wider on either side, with round limits, and not below 0 unless the numbers are."""
    low, high = min(numbers), max(numbers)
    span = (high - low) or 1.0
    grain = 10.0 ** np.floor(np.log10(span / 4))
    lower = np.floor((low - span / 4) / grain) * grain
    upper = np.ceil((high + span / 4) / grain) * grain
    return (max(0.0, float(lower)) if low >= 0 else float(lower)), float(f"{upper:.10g}")


def _is_identifier(name: str, answers: Sequence[str], numbers: Sequence[float], total: int) -> bool:
    unique = total > 20 and len(answers) > 0.95 * total
    is_whole = len(numbers) == len(answers) and all(number == round(number) for number in numbers)
    if unique and (not numbers or is_whole):
        counted = is_whole and max(numbers) - min(numbers) < 1.2 * len(answers)
        return not is_whole or counted or bool(_IDENTIFIERS.search(name)) or name == ""
    return not name.strip() or name.lower().startswith("unnamed:")


def _are_dates(values: pd.Series, answers: Sequence[str]) -> bool:
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return True
    shaped = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([T ].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}([T ].*)?")
    return sum(bool(shaped.fullmatch(answer)) for answer in answers) > 0.9 * len(answers)


def _target(frame: pd.DataFrame, draft: Draft, outcome: str | None) -> dict[str, Any]:
    """The outcome: the named column, or the likeliest one together with a question about it."""
    candidates = [name for name, column in draft.columns.items() if 2 <= len(column.get("levels", ())) <= 10]
    if outcome is not None and outcome not in candidates:
        reason = "it has too many values, or one" if outcome in frame.columns else "there is no such column"
        raise UserError(
            f"{outcome} cannot be the outcome: {reason}. Columns of few values: {', '.join(candidates)}"
        )
    if not candidates:
        raise UserError("no column can be the outcome: one of two to ten values is needed")
    name = outcome or _likeliest(candidates, draft)
    column = draft.columns.pop(name)
    draft.questions[:] = [(about, text) for about, text in draft.questions if about != name]
    levels = list(column["levels"])
    yes = [level for level in levels if str(level).lower() in _YES]
    positive = yes[0] if yes else levels[-1]
    listed = ", ".join(map(str, levels))
    question = f"Which of {listed} counts as “has the outcome”? It is taken to be {positive}."
    if outcome is None:
        question += f" Is {name} the outcome?"
        others = [candidate for candidate in candidates if candidate != name]
        question += f" Others could be: {', '.join(others[:6])}." if others else ""
    question += " Correct target, then delete this entry."
    draft.questions.insert(0, ("target", question))
    missing = {key: column[key] for key in ("missing",) if key in column}
    return {"name": name, "meaning": name, "levels": column["levels"], "positive": [positive], **missing}


def _likeliest(candidates: Sequence[str], draft: Draft) -> str:
    """The column that is most probably the outcome: by its name, by two values, by standing last."""
    likely = [name for name in candidates if _OUTCOMES.search(name)]
    binary = [name for name in candidates if len(draft.columns[name]["levels"]) == 2]
    likely_binary = [name for name in likely if name in binary]
    return next(names[-1] for names in (likely_binary, likely, binary, candidates) if names)


def _ask_about_leaks(frame: pd.DataFrame, draft: Draft, target: dict[str, Any]) -> None:
    """Ask about columns that nearly determine the outcome: they may have been filled in after it."""
    positive_texts = {canonical.text(code) for code in target["positive"]}
    outcome = frame[target["name"]].map(canonical.text).isin(positive_texts).to_numpy()
    plain = max(outcome.mean(), 1 - outcome.mean())
    if plain == 1:
        return
    for name in draft.columns:
        codes, _ = pd.factorize(frame[name], use_na_sentinel=False)
        hits, rows = np.bincount(codes, weights=outcome), np.bincount(codes)
        several = rows >= SMALLEST_CELL
        covered = rows[several].sum()
        if covered <= 0.5 * len(outcome):
            continue
        right = np.maximum(hits, rows - hits)[several].sum() / covered
        if right > _GIVES_AWAY and right > plain + 0.03:
            draft.ask(
                name, "It nearly determines the outcome by itself. Was it known before? If not, delete it."
            )


def _number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if np.isfinite(number) and "_" not in word else None


def _plain(number: float) -> int | float:
    return int(number) if float(number).is_integer() else float(f"{number:.10g}")
