"""Ask a model about rows of another schema: levels and numbers that it does not know count as missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from monitoring.reference import OUT_OF_RANGE
from steps.data.errors import UserError
from steps.models import families

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from monitoring.reference import Reference


class CannotAskError(UserError):
    """The model cannot answer for these rows; the message says why."""


@dataclass(frozen=True)
class Asked:
    """Risks (rows,), and which rows (rows,) hold a level or a number that the model does not know."""

    risk: NDArray[np.float64]
    unknown: NDArray[np.bool_]


def ask(model: Any, reference: Reference, frame: pd.DataFrame, target: str) -> Asked:
    """Predict the risks of canonical rows; columns that the model does not take are ignored.

    `reference` is the model's own, `target` the name of the rows' outcome. Raises CannotAskError where the
    rows lack a column that the model needs, hold text for its numbers or numbers for its text, or have
    another outcome.
    """
    if str(reference.target["name"]) != target:
        raise CannotAskError(f"it answers for the outcome {reference.target['name']}, not {target}")
    missing = [feature.name for feature in reference.features if feature.name not in frame]
    if missing:
        raise CannotAskError(f"it needs {', '.join(missing)}, which these rows do not have")
    rows = frame[[feature.name for feature in reference.features]].copy()
    unknown = np.zeros(len(rows), dtype=np.bool_)
    for feature in reference.features:
        is_number = np.issubdtype(getattr(rows[feature.name].dtype, "type", object), np.number)
        if is_number == feature.is_text:
            kinds = ("text", "numbers") if feature.is_text else ("numbers", "text")
            raise CannotAskError(f"it takes {feature.name} as {kinds[0]}, and these rows hold {kinds[1]}")
        values = rows[feature.name].to_numpy(dtype=object if feature.is_text else np.float64)
        is_unknown = feature.bin(values) <= OUT_OF_RANGE
        if is_unknown.any():
            rows[feature.name] = rows[feature.name].mask(is_unknown)
            unknown |= is_unknown
    return Asked(families.predict_risk(model, rows), unknown)
