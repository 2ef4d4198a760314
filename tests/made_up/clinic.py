"""A small made-up data set unlike the bundled one: text, real values, a sentinel, an outcome in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from steps.data.schema import Schema
from steps.data.schema_file import load

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = """
name: readmission
title: Readmission of a made-up clinic
disclaimer: Made up for tests.
target:
  name: readmitted
  meaning: Back within a month
  levels: {"no": at home, "yes": back in hospital}
  positive: ["yes"]
columns:
  - {name: glucose, kind: numeric, meaning: Glucose, unit: mmol/l, minimum: 2, maximum: 40, missing: [0]}
  - name: ward
    kind: nominal
    meaning: Ward
    levels: {A1: surgery, B2: medicine, NA: not assigned}
    missing: ["?"]
  - {name: stage, kind: ordinal, meaning: Stage, levels: {1: mild, 2: moderate, 3: severe}, missing: [9]}
  - {name: smoker, kind: binary, meaning: Smokes, levels: {0: "no", 1: "yes"}}
sources:
  - {name: shipped, kind: synthetic, path: shipped.csv, sha256: null}
  - {name: remote, kind: public, url: "http://127.0.0.1:1/r.csv", target: back, positive: [1], ignore: [ID]}
gates:
  roc_auc_min: 0.5
  calibration_slope: [0.5, 2]
  observed_expected: [0.5, 2]
  roc_auc_margin: 0.1
"""


def clinic_schema(folder: Path, *changes: tuple[str, str]) -> Schema:
    """The schema, with some of its text replaced."""
    text = SCHEMA
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "clinic.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def clinic_rows(count: int, seed: int = 1) -> pd.DataFrame:
    """Valid rows with every value that the schema knows, missing ones too."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "glucose": np.where(rng.random(count) < 0.1, 0.0, rng.uniform(2, 40, count).round(1)),
            "ward": rng.choice(["A1", "B2", "NA", "?"], count),
            "stage": rng.choice([1, 2, 3, 9], count),
            "smoker": rng.choice([0.0, 1.0, np.nan], count),
            "readmitted": rng.choice(["no", "yes"], count, p=[0.7, 0.3]),
        }
    )
