"""Restricted cubic splines: smooth curves that are straight beyond their outer knots.

Harrell 2015, Regression Modeling Strategies, 2.4.5; the cubic terms are divided by the squared range of the
knots, so that all columns have about the size of x.
"""

from __future__ import annotations

import numpy as np

from steps.measures.metrics import Floats

QUANTILES = (0.05, 0.275, 0.5, 0.725, 0.95)  # where Harrell puts five knots


def restricted_cubic(x: Floats, knots: Floats) -> Floats:
    """Design (rows, knots) of a spline of x (rows,): a constant, x, and a cubic term for all knots but two.

    Knots ascend and are at least three.
    """
    last, before = knots[-1], knots[-2]
    gap, scale = last - before, (last - knots[0]) ** 2
    ends = [np.maximum(x - knot, 0.0) ** 3 / scale for knot in (before, last)]
    terms = [
        np.maximum(x - knot, 0.0) ** 3 / scale
        - ends[0] * (last - knot) / gap
        + ends[1] * (before - knot) / gap
        for knot in knots[:-2]
    ]
    return np.column_stack([np.ones(len(x)), x, *terms])
