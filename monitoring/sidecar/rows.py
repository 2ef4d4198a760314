"""Values of a request, parsed as the model's server parses them, and their bins."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from monitoring.reference import UNKNOWN, Feature, Groups


def number(value: Any) -> float:
    """A value of a number column as the model gets it, NaN for null. Raises ValueError for other values."""
    if value is None:
        return math.nan
    if isinstance(value, float | int | str):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    raise ValueError


def fate(feature: Feature, value: Any) -> int:
    """Bin or other class of a value; a value of the wrong type is an unknown level."""
    if feature.is_text:
        return feature.bin_value(value if value is None else str(value))
    try:
        return feature.bin_value(number(value))
    except ValueError:
        return UNKNOWN


def array(feature: Feature, column: Sequence[Any]) -> npt.NDArray[Any] | None:
    """A column for `Feature.bin`, or None if some value has the wrong type."""
    if feature.is_text:
        texts = [value if value is None else str(value) for value in column]
        return np.array(texts, dtype=object)
    try:
        numbers = np.array(column, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers.ndim == 1 else None


def group(groups: Groups, value: Any) -> int:
    """Index of a value's group, from 1; 0 for a value without a group or of the wrong type."""
    if groups.feature.is_text:
        return groups.index_of(value if value is None else str(value))
    try:
        return groups.index_of(number(value))
    except ValueError:
        return 0
