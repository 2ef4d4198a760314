"""Typed documents as JSON: frozen dataclasses out to plain values, and plain values back, checked.

Every document that one room writes and another reads (an evaluation, an exploration, a drift report, a
verdict) is a frozen dataclass. This module is the only way from it to JSON and back, so that "undefined" is
`null` in all of them and a document of another shape is refused where it is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from steps.data.errors import UserError

Document = TypeVar("Document")

_SHOWN_PROBLEMS = 5


def defined(value: float) -> float | None:
    """The number itself, or None where it is undefined (NaN) or infinite: JSON has neither."""
    return float(value) if math.isfinite(value) else None


def to_json(content: Any) -> Any:
    """Plain JSON values of a document: dictionaries, lists, texts, numbers; NaN and infinity become None."""
    if is_dataclass(content):
        return {field.name: to_json(getattr(content, field.name)) for field in fields(content)}
    if isinstance(content, Mapping):
        return {str(key): to_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [to_json(item) for item in content]
    return defined(content) if isinstance(content, float) else content


def from_json(kind: type[Document], content: object, name: str) -> Document:
    """A document of this kind from plain JSON values; `name` is what an error calls it.

    Keys that the dataclass does not have are left out, so that a newer writer may add some.

    Raises:
        UserError: a value is absent or of another type. The message names its place, never the value.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        descriptions = [
            f"{'.'.join(map(str, problem['loc'])) or 'all of it'}: {problem['type']}" for problem in problems
        ]
        remainder = (
            f", and {len(descriptions) - _SHOWN_PROBLEMS} more" if len(descriptions) > _SHOWN_PROBLEMS else ""
        )
        shown = descriptions[:_SHOWN_PROBLEMS]
        raise UserError(
            f"{name} is not a document that this version reads ({'; '.join(shown)}{remainder}); "
            "make it again with the step that writes it"
        ) from None
