"""Rules that rows must follow if the guard rejects; messages name columns and rules, never values."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from monitoring.reference import MISSING, OUT_OF_RANGE, UNKNOWN, Feature, Reference
from monitoring.sidecar import rows as values

UNREADABLE = "The rows could not be read, so they could not be checked against the model's schema."
RULES = {OUT_OF_RANGE: "out of range", UNKNOWN: "unknown level"}
NOT_A_NUMBER, NOT_TEXT, ABSENT, NO_ANSWER = "not a number", "not text", "absent", "no answer"


class Violation(NamedTuple):
    """A rule that `rows` rows break in one column of the reference."""

    column: str
    rule: str
    rows: int


def violations(reference: Reference, columns: Mapping[str, Sequence[Any]]) -> list[Violation]:
    """Every broken rule, by column in the reference's order. A missing value breaks a rule only where the
    column requires an answer. Other columns break no rule: the server ignores them."""
    broken_rules: list[Violation] = []
    for feature in reference.features:
        column = columns.get(feature.name)
        if column is None:
            broken_rules.append(Violation(feature.name, ABSENT, 0))
            continue
        broken: dict[str, int] = {}
        for value in column:
            rule = _rule(feature, value)
            if rule is not None:
                broken[rule] = broken.get(rule, 0) + 1
        broken_rules.extend(Violation(feature.name, rule, rows) for rule, rows in broken.items())
    return broken_rules


def _rule(feature: Feature, value: Any) -> str | None:
    if feature.is_text:
        if value is not None and not isinstance(value, str):
            return NOT_TEXT
        return _broken_by(feature, feature.bin_value(value))
    try:
        return _broken_by(feature, feature.bin_value(values.number(value)))
    except ValueError:
        return NOT_A_NUMBER


def _broken_by(feature: Feature, bin_index: int) -> str | None:
    if bin_index == MISSING:
        return NO_ANSWER if feature.required else None
    return RULES.get(bin_index)
