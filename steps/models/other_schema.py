"""Ask a model about rows of a schema that is not its own: what it does not know counts as missing."""

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
    """The model needs something that the rows do not have; the message says what."""


@dataclass(frozen=True)
class Asked:
    """Risks (rows,), and which rows (rows,) hold a level or a number that the model does not know."""

    risk: NDArray[np.float64]
    unknown: NDArray[np.bool_]


def ask(model: Any, reference: Reference, frame: pd.DataFrame, target: str) -> Asked:
    """A model's risks of canonical rows; columns that it does not take are left out.

    `reference` is the model's own, `target` the name of the rows' outcome. Raises CannotAskError where the
    rows lack a column that the model needs, hold text for its numbers or numbers for its text, or have
    another outcome.
    """
    if str(reference.target["name"]) != target:
        raise CannotAskError(f"it answers for the outcome {reference.target['name']}, not {target}")
    lacking = [feature.name for feature in reference.features if feature.name not in frame]
    if lacking:
        raise CannotAskError(f"it needs {', '.join(lacking)}, which these rows do not have")
    rows = frame[[feature.name for feature in reference.features]].copy()
    unknown = np.zeros(len(rows), dtype=np.bool_)
    for feature in reference.features:
        is_number = np.issubdtype(getattr(rows[feature.name].dtype, "type", object), np.number)
        if is_number == feature.is_text:
            kinds = ("text", "numbers") if feature.is_text else ("numbers", "text")
            raise CannotAskError(f"it takes {feature.name} as {kinds[0]}, and these rows hold {kinds[1]}")
        values = rows[feature.name].to_numpy(dtype=object if feature.is_text else np.float64)
        strange = feature.bin(values) <= OUT_OF_RANGE
        if strange.any():
            rows[feature.name] = rows[feature.name].mask(strange)
            unknown |= strange
    return Asked(families.predict_risk(model, rows), unknown)
