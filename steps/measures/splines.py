"""Restricted cubic splines: smooth curves that are linear beyond their outer knots.

Harrell 2015, Regression Modeling Strategies, 2.4.5; the cubic terms are divided by the squared range of the
knots, so that all columns have about the size of x.
"""

from __future__ import annotations

import numpy as np

from steps.measures.metrics import Floats

QUANTILES = (0.05, 0.275, 0.5, 0.725, 0.95)  # Harrell's positions of five knots


def restricted_cubic(x: Floats, knots: Floats) -> Floats:
    """Design (rows, knots) of a spline of x (rows,): a constant, x, and a cubic term for all knots but two.

    At least three knots, in ascending order.
    """
    last_knot, second_last_knot = knots[-1], knots[-2]
    gap, scale = last_knot - second_last_knot, (last_knot - knots[0]) ** 2
    ends = [np.maximum(x - knot, 0.0) ** 3 / scale for knot in (second_last_knot, last_knot)]
    terms = [
        np.maximum(x - knot, 0.0) ** 3 / scale
        - ends[0] * (last_knot - knot) / gap
        + ends[1] * (second_last_knot - knot) / gap
        for knot in knots[:-2]
    ]
    return np.column_stack([np.ones(len(x)), x, *terms])
