"""Explore a data set before a model is fitted: one report that answers a clinician's first ten questions.

With `against`, the same report compares a second data set with the first. Aggregates only: no row leaves this
machine.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from steps.chain.context import Result
from steps.chain.fingerprint import digest
from steps.data import readers, reading, sources, validation
from steps.data.documents import to_json
from steps.data.files import FILE_COLUMN, TARGET_COLUMN
from steps.data.validation import ValidationError
from steps.measures import exploration
from steps.measures.exploration_document import ExplorationDocument
from steps.reports import exploration as exploration_report

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from steps.chain.context import Context
    from steps.chain.values import Explore
    from steps.data.schema import Schema
    from steps.data.sources import Located
    from steps.measures.exploration import Table


def work(step: Context[Explore]) -> Result:
    """Explore one data set, or two side by side; the result is the digest of all figures."""
    tables = [read_table(step.values.data, step.located, step.schema)]
    if step.values.against:
        located = step.chain.locate(step.values.against)
        tables.append(read_table(step.values.against, located, step.schema))
    explorations = [exploration.explore(tables[0], step.schema, step.values.seed)]
    comparison = None
    if len(tables) > 1:
        explorations.append(exploration.explore(tables[1], step.schema, step.values.seed, tables[0].frame))
        comparison = exploration.compare(tables[0], tables[1], step.schema)
    content = to_json(ExplorationDocument(tuple(explorations), comparison))
    step.log_json("exploration.json", content)
    step.log_text("explore.html", exploration_report.render(explorations, comparison, run=step.run_id))
    step.log_metrics(exploration.scalars(explorations[0]))
    lines = [f"explore: {line}" for line in exploration_report.summary(explorations[0])]
    tags = {"data_kind": tables[0].kind, "synthetic": str(tables[0].kind == "synthetic").lower()}
    return Result(digest(content), tags, [*lines, f"explore: explore.html is in run {step.run_id}"])


def read_table(name: str, located: Located, schema: Schema) -> Table:
    """A data set, read and checked, including the rows without an outcome.

    Raises UserError if it cannot be read, lacks a column, or has no row that fits the schema.
    """
    raw = sources.read(located, schema)
    checked = validation.check(
        raw, schema, located.target_column, located.positive, require_target=False, ignore=located.ignore
    )
    if checked.valid.empty:
        problems = validation.described(checked.problems, schema)
        raise ValidationError(f"{name}: none of {len(raw):,} rows fits the schema:\n{problems}")
    extra = [
        column
        for file in located.files
        for column in reading.plan(file, schema, located.target_column).renamed(readers.header(file))
        if column
        not in (
            *schema.feature_names,
            located.target_column,
            *located.ignore,
            schema.person,
            schema.survey_weight,
        )
    ]
    return exploration.Table(
        name=name_of(name, located),
        kind=located.kind,
        frame=checked.valid,
        read=len(raw),
        rejected=len(checked.rejected),
        problems=checked.problems,
        extra_columns=tuple(dict.fromkeys(extra)),
        answers=_answers(raw, checked.valid, located.target_column),
    )


def name_of(data: str, located: Located) -> str:
    """The name of a data set in a report: a source's name, else its file's name, never its folder."""
    if "/" not in data and "." not in data:
        return data
    names = [file.name for file in located.files]
    return names[0] if len(names) == 1 else f"{len(names)} files"


def _answers(raw: pd.DataFrame, valid: pd.DataFrame, target: str) -> NDArray[np.intp] | None:
    if target not in raw or TARGET_COLUMN not in valid or FILE_COLUMN not in valid:
        return None
    import pandas as pd

    codes, _ = pd.factorize(raw[target].iloc[np.asarray(valid.index)])
    return np.asarray(codes, dtype=np.intp)


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("explore", work))
