"""One mapping of a YAML file while it is read: takes known keys, checks their values, notes every problem."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

Code = float | str


def parse(text: str, problems: list[str]) -> object:
    """The document, with repeated keys as problems (YAML itself lets the last one win silently)."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def construct_mapping(loader: Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is a list or mapping", key_node.start_mark
                )
            if key in seen:
                problems.append(f"line {line}: the key {key!r} stands twice in one mapping")
            seen.add(key)
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, construct_mapping)
    return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader with one more check


class Entry:
    """One mapping of the file while it is read: takes its keys one by one and notes what is wrong with them.

    A value that is absent or wrong comes back as None after its problem is noted, so reading goes on and the
    person sees everything at once.
    """

    def __init__(self, content: object, where: str, problems: list[str]) -> None:
        self.where = where
        self.problems = problems
        self.taken: set[object] = set()
        self.content: Mapping[Any, Any] = content if isinstance(content, Mapping) else {}
        self.is_mapping = isinstance(content, Mapping)
        if not self.is_mapping:
            self.problem(f"expected keys and values, found {_kind_of(content)}")

    def problem(self, text: str) -> None:
        """Note something to mend in this mapping."""
        self.problems.append(f"{self.where}: {text}")

    def has(self, key: str) -> bool:
        """The key is there and is not null."""
        return self.content.get(key) is not None

    def take(self, key: str, expected: str, reads: Callable[[Any], bool], required: bool = True) -> Any:
        """The value of a key, or None with a problem if it is absent though required, or not as expected."""
        self.taken.add(key)
        value = self.content.get(key)
        if value is None:
            if required and self.is_mapping:
                self.problem(f"{key} is missing; it should be {expected}")
            return None
        if not reads(value):
            self.problem(f"{key} should be {expected}, found {_kind_of(value)}")
            return None
        return value

    def text(self, key: str, required: bool = True) -> str | None:
        """Text, its white space reduced to single spaces."""
        value = self.take(key, "text", lambda v: isinstance(v, str) and bool(v.strip()), required)
        return None if value is None else " ".join(value.split())

    def number(self, key: str, required: bool = True) -> float | None:
        """A finite number."""
        value = self.take(key, "a number", _is_number, required)
        return None if value is None else float(value)

    def whole(self, key: str) -> int | None:
        """A whole number."""
        return cast("int | None", self.take(key, "a whole number", is_whole))

    def flag(self, key: str) -> bool:
        """True or false; false where absent."""
        return bool(self.take(key, "true or false", lambda v: isinstance(v, bool), required=False))

    def choice(self, key: str, choices: Sequence[str]) -> str | None:
        """One of the given words."""
        return cast(
            "str | None",
            self.take(key, f"one of {', '.join(choices)}", lambda v: v in choices and isinstance(v, str)),
        )

    def codes(self, key: str, required: bool = False) -> tuple[Code, ...] | None:
        """A list of values of levels."""
        value = self.take(
            key,
            "a list of numbers or texts",
            lambda v: isinstance(v, list) and bool(v) and all(is_code(item) for item in v),
            required,
        )
        return None if value is None else tuple(as_code(item) for item in value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where absent."""
        value = self.take(
            key,
            "a list of texts",
            lambda v: isinstance(v, list) and all(isinstance(item, str) for item in v),
            required=False,
        )
        return tuple(value or ())

    def pair(self, key: str, required: bool = True) -> tuple[float, float] | None:
        """Two numbers, the lower one first."""
        value = self.take(
            key,
            "two numbers, lower and upper",
            lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_number, v)) and v[0] < v[1],
            required,
        )
        return None if value is None else (float(value[0]), float(value[1]))

    def labels(self, key: str, required: bool) -> Mapping[Code, str] | None:
        """Levels with their labels, in order."""
        value = self.take(
            key,
            "levels with a label each",
            lambda v: isinstance(v, Mapping) and len(v) >= 2 and all(map(is_code, v)),
            required,
        )
        if value is None:
            return None
        for code, label in value.items():
            if not isinstance(label, str) or not label.strip():
                self.problem(f"the label of level {code!r} should be text, found {_kind_of(label)}")
        if len({isinstance(code, str) for code in value}) == 2:
            self.problem(f"{key} mixes numbers and texts")
        return MappingProxyType({as_code(code): str(label) for code, label in value.items()})

    def entries(self, key: str, noun: str, required: bool = False) -> list[Entry]:
        """A list of mappings, each to be read in its turn."""
        value = self.take(key, f"a list of {noun}s", lambda v: isinstance(v, list), required)
        if value is not None and required and not value:
            self.problem(f"{key} is empty")
        found = []
        for number, content in enumerate(value or [], start=1):
            name = content.get("name") if isinstance(content, Mapping) else None
            found.append(Entry(content, f"{noun} {name if isinstance(name, str) else number}", self.problems))
        return found

    def entry(self, key: str, required: bool = True) -> Entry | None:
        """A mapping within this one."""
        value = self.take(key, "keys and values", lambda v: isinstance(v, Mapping), required)
        return None if value is None else Entry(value, key, self.problems)

    def finish(self) -> None:
        """Note every key that nobody took."""
        for key in self.content:
            if key not in self.taken:
                known = ", ".join(sorted(str(name) for name in self.taken))
                self.problem(f"unknown key {key!r}; known are {known}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_whole(value: object) -> bool:
    """A whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_code(value: object) -> bool:
    """A number or text: what the value of a level may be."""
    return _is_number(value) or isinstance(value, str)


def as_code(value: float | str) -> Code:
    """The value of a level: text, or a number as a float."""
    return value if isinstance(value, str) else float(value)


def _kind_of(value: object) -> str:
    """What a value is, for a person who reads YAML rather than Python."""
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()} (quote yes, no, on and off where text is meant)"
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value)
