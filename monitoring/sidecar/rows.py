"""Values as a request brings them, read as the model's server reads them, and their fates."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from monitoring.reference import UNKNOWN, Feature, Groups


def number(value: Any) -> float:
    """A value of a number column as the model gets it, NaN for null; raises ValueError if it is none."""
    if value is None:
        return math.nan
    if isinstance(value, float | int | str):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    raise ValueError


def fate(feature: Feature, value: Any) -> int:
    """Bin or other fate of a value; one that cannot be read as the feature's type is an unknown level."""
    if feature.is_text:
        return feature.bin_value(value if value is None else str(value))
    try:
        return feature.bin_value(number(value))
    except ValueError:
        return UNKNOWN


def array(feature: Feature, column: Sequence[Any]) -> npt.NDArray[Any] | None:
    """A column as `Feature.bin` takes it, or None if some value cannot be read as the feature's type."""
    if feature.is_text:
        texts = [value if value is None else str(value) for value in column]
        return np.array(texts, dtype=object)
    try:
        numbers = np.array(column, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers.ndim == 1 else None


def group(groups: Groups, value: Any) -> int:
    """Place of a value's group, from 1; 0 if it has none or cannot be read as the feature's type."""
    if groups.feature.is_text:
        return groups.place(value if value is None else str(value))
    try:
        return groups.place(number(value))
    except ValueError:
        return 0
