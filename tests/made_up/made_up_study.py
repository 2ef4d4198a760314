"""A made-up study with a text column, a real-valued one and a small group, to evaluate and report."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steps.data.schema import (
    Gates,
    LevelledColumn,
    NumericColumn,
    PointItem,
    PointScore,
    Schema,
    Subgroup,
    Target,
)

WARDS = MappingProxyType({"north": "north ward", "south": "south ward", "attic": "attic"})

SCHEMA = Schema(
    name="readmission",
    title="Readmission after surgery",
    disclaimer="Estimated probability of a recorded readmission; made up",
    columns=(
        LevelledColumn("ward", "nominal", "Ward | of <the> patient", levels=WARDS),
        NumericColumn("dose", "Dose of a drug", unit="mg", minimum=0.0, maximum=1000.0),
        NumericColumn("noise", "Nothing of use", minimum=-10.0, maximum=10.0),
        LevelledColumn(
            "grade",
            "ordinal",
            "Grade of the illness",
            levels=MappingProxyType({0.0: "0", 1.0: "1", 2.0: "2"}),
        ),
    ),
    target=Target(
        "back", "Back within 30 days", MappingProxyType({"n": "not back", "y": "back & ill"}), ("y",)
    ),
    gates=Gates(
        roc_auc_min=0.7,
        calibration_slope=(0.8, 1.2),
        observed_expected=(0.9, 1.1),
        roc_auc_margin=0.01,
    ),
    subgroups=(
        Subgroup("North", "ward", values=("north",)),
        Subgroup("South", "ward", values=("south",)),
        Subgroup("Attic", "ward", values=("attic",)),
        Subgroup("High dose", "dose", minimum=500.0, headline=True),
    ),
    point_scores=(
        PointScore(
            "Grade score",
            (PointItem(("grade",), MappingProxyType({0.0: 0, 1.0: 1, 2.0: 3})),),
            cut=3,
            made_for="showing <one> item.",
            lacks=("blood pressure",),
        ),
    ),
)


def rows(count: int = 1500, seed: int = 3) -> tuple[NDArray[np.int8], NDArray[np.float64], pd.DataFrame]:
    """Outcomes, the true risks and the frame; the last 12 rows are the attic's."""
    generator = np.random.default_rng(seed)
    dose = generator.uniform(0, 900, count)
    grade = generator.choice([0.0, 1.0, 2.0], count)
    ward = np.where(generator.random(count) < 0.5, "north", "south").astype(object)
    ward[-12:] = "attic"
    risk = 1 / (1 + np.exp(-(-3.4 + 0.003 * dose + 0.9 * grade)))
    frame = pd.DataFrame(
        {
            "ward": pd.Series(ward, dtype="str"),
            "dose": dose,
            "noise": generator.normal(size=count),
            "grade": grade,
        }
    )
    return (generator.random(count) < risk).astype(np.int8), risk, frame


def predict(frame: pd.DataFrame) -> NDArray[np.float64]:
    """The true risk of each row of `rows`."""
    dose, grade = frame["dose"].to_numpy(), frame["grade"].to_numpy()
    return np.asarray(1 / (1 + np.exp(-(-3.4 + 0.003 * dose + 0.9 * grade))))
