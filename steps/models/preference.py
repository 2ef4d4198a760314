"""Choose between the best models of the families: the glass box, unless another is proven better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.models.families import GLASS_BOX, Family

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from steps.models.fitting import Fitted

# Another family is kept only if its log loss is proven smaller by more than this: a smaller gain is not worth
# giving up exact reasons.
MARGIN = 0.0005
_STANDARD_ERRORS = 1.96


@dataclass(frozen=True)
class Preference:
    """The family that is kept, and the cost of preferring a glass box.

    `cost` is the log loss of the kept model minus that of the best other family, with a 95 % interval, on
    validation rows; negative where the kept model is better. Without another family they are None.
    """

    kept: Family
    other: Family | None = None
    cost: float | None = None
    lower: float | None = None
    upper: float | None = None

    @property
    def sentence(self) -> str:
        """The kept family and the reason, in a sentence."""
        kept, other = self.kept.replace("_", " "), (self.other or "").replace("_", " ")
        if self.other is None:
            return f"{kept} is kept; no other family was searched"
        return (
            f"{kept} is kept; its log loss on validation rows is {self.cost:+.5f} against {other} "
            f"(95 % interval {self.lower:+.5f} to {self.upper:+.5f}; another family has to be proven better "
            f"than a glass box by {MARGIN:g})"
        )


def prefer(fitted: Mapping[Family, Fitted]) -> Preference:
    """Prefer the glass box, unless the log loss of another family is proven smaller by more than the margin.

    Without a glass box, prefer the model of least log loss. All were fitted and judged on the same rows.
    """
    losses = {family: model.validation_losses for family, model in fitted.items()}
    ranked = sorted(losses, key=lambda family: float(losses[family].mean()))
    kept = ranked[0]
    if GLASS_BOX in losses:
        proven = [f for f in ranked if f != GLASS_BOX and _interval(losses[GLASS_BOX], losses[f])[1] > MARGIN]
        kept = proven[0] if proven else GLASS_BOX
    losing = [family for family in ranked if family != kept]
    if not losing:
        return Preference(kept)
    return Preference(kept, losing[0], *_interval(losses[kept], losses[losing[0]]))


def _interval(losses: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of the paired difference and its 95 % limits, from the standard error over rows."""
    difference = losses - others
    mean = float(difference.mean())
    error = _STANDARD_ERRORS * float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return mean, mean - error, mean + error
