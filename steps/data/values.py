"""Canonical values: one form for each value, however a file writes it (`1`, `1.0`, `"1"`, `True`).

Number columns become float64, text columns become categories of stripped text; null, empty and the schema's
missing codes become NaN. Validation and the split both start from these values, so they agree about them.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# Texts that mean "no value", besides null and the schema's own codes.
MISSING_TEXT = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "<NA>"})
_TRUTH = {"true": 1.0, "false": 0.0}


def numbers(
    values: pd.Series, missing: Iterable[float | str] = ()
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Float64 values with NaN for missing, and a mask of the values that are no finite number.

    A float32 is read by its shortest decimal, so 0.1 stays 0.1 in a file that stores single precision.
    """
    codes = [float(code) for code in missing if not isinstance(code, str)]
    words = frozenset(code for code in missing if isinstance(code, str))
    dtype = values.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        plain = values.to_numpy()
        if dtype == np.float32:
            singles, index = np.unique(plain, return_inverse=True)
            plain = np.array([float(str(value)) for value in singles])[index]
        result = plain.astype(np.float64)  # always a copy: missing codes are written into it
        wrong = np.isinf(result)
    else:
        index, unique = distinct(values)
        parsed = [_number(value, words) for value in unique]
        # One more entry at the end: index -1 means null and picks it.
        table = np.array([0.0 if value is None else value for value in parsed] + [math.nan])
        is_invalid = np.array([value is None for value in parsed] + [False])
        result, wrong = table[index], is_invalid[index]
    for code in codes:
        result[result == code] = np.nan
    result[wrong] = np.nan
    result += 0.0  # -0.0 becomes 0.0
    return result, wrong


def texts(
    values: pd.Series, levels: Iterable[float | str] = (), missing: Iterable[float | str] = ()
) -> tuple[NDArray[np.int64], list[str]]:
    """Index of each row's text (-1 where missing) and the distinct stripped texts it points into.

    A word such as `None` means missing unless the schema has it as a level. Whole numbers lose their `.0`,
    as text too where the schema knows them without.
    """
    level_texts = {text(level) for level in levels}
    codes = {text(code) for code in missing}
    nothing = (MISSING_TEXT - level_texts) | codes
    index, unique = distinct(values)
    positions: dict[str, int] = {}
    table = np.full(len(unique) + 1, -1, dtype=np.int64)
    for position, value in enumerate(unique):
        word = text(value)
        without_zeros = re.sub(r"\.0+$", "", word)
        if word not in level_texts | codes and without_zeros in level_texts | codes:
            word = without_zeros
        if word not in nothing:
            table[position] = positions.setdefault(word, len(positions))
    return table[index], list(positions)


def text(value: object) -> str:
    """The text of one value: stripped, and a whole number without its `.0`."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _number(value: object, words: frozenset[str]) -> float | None:
    """The number, NaN for a missing one, None for what is no finite number."""
    if isinstance(value, str):
        word = value.strip()
        if word in MISSING_TEXT or word in words:
            return math.nan
        if word.lower() in _TRUTH:
            return _TRUTH[word.lower()]
        if "_" in word:  # Python reads 1_000 as a number, data files do not
            return None
        value = word
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isinf(number) or (math.isnan(number) and isinstance(value, str)) else number


def distinct(values: pd.Series) -> tuple[NDArray[Any], pd.Index]:
    """Index of each row's value (-1 where null) and the distinct values it points into."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.cat.codes.to_numpy(), values.cat.categories
    return pd.factorize(values)
