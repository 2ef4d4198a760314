"""Split rows into training, validation and test by a hash of each row's canonical feature values, or of its
person where the schema names a column for that.

So exact repeats of a row are always in the same part, and a row never changes its part when the data grows,
is reordered, or writes 1 as 1.0 or "1". The target does not influence the split.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from steps.data import values as canonical
from steps.data.files import PERSON_COLUMN
from steps.data.schema import LevelledColumn

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from steps.data.schema import Schema

PARTS = ("train", "validation", "test")
# Of five equal shares of the hash, how many each part takes: 60, 20 and 20 per cent.
_SHARES = np.array([0, 0, 0, 1, 2], dtype=np.int8)
_MISSING = np.uint64(0x7FF8_0000_0000_0000)  # the one NaN that stands for all


def assign(frame: pd.DataFrame, schema: Schema) -> NDArray[np.int8]:
    """Part of each row as an index into PARTS (0 train, 1 validation, 2 test), shape (rows,)."""
    return part(group_keys(frame, schema))


def part(keys: NDArray[np.uint64]) -> NDArray[np.int8]:
    """Index into PARTS for each row key: the key's high half, scaled to five equal shares."""
    share = ((keys >> np.uint64(32)) * np.uint64(len(_SHARES))) >> np.uint64(32)
    return _SHARES[share.astype(np.intp)]


def row_keys(frame: pd.DataFrame, schema: Schema) -> NDArray[np.uint64]:
    """A 64-bit key of each row's canonical feature values, shape (rows,).

    mix(sum over columns of mix(bits XOR key of the column's name)) modulo 2**64. `bits` are the value's
    float64 bits, or for text the first eight bytes of its BLAKE2b digest; the sum makes the order of columns
    irrelevant.
    """
    total = np.zeros(len(frame), dtype=np.uint64)
    for column in schema.columns:
        values = frame[column.name]
        if isinstance(column, LevelledColumn) and column.is_text:
            index, words = canonical.texts(values, column.codes, column.missing)
            table = np.array([_word_bits(word) for word in words] + [int(_MISSING)], dtype=np.uint64)
            bits = table[index]
        else:
            number, _ = canonical.numbers(values, column.missing)
            bits = number.view(np.uint64)
            bits[np.isnan(number)] = _MISSING
        total += mix(bits ^ np.uint64(_word_bits(column.name)))
    return mix(total)


def group_keys(frame: pd.DataFrame, schema: Schema) -> NDArray[np.uint64]:
    """The key that decides a row's part, shape (rows,): of its person where the data name one, else its own.

    All rows of a person are then in one part; two people with equal answers may be in different parts.
    """
    return by_person(frame, row_keys(frame, schema))


def by_person(frame: pd.DataFrame, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Group keys, given the row keys."""
    if PERSON_COLUMN not in frame:
        return keys
    person = np.asarray(frame[PERSON_COLUMN], dtype=np.uint64)
    return np.where(person != 0, mix(person), keys)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function: a bijection of 64 bits in which each input bit moves every output bit.

    Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _word_bits(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
