"""Check rows against the schema, set invalid ones aside with their reasons, split by a hash of the values.

Rows stay in this machine's cache; the tracking store gets digests, counts and shares. Rows are uploaded only
if they are known to be synthetic or public (the schema lists their file by its sha256), or with
`publish_rows=true`.
"""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

from steps.chain.context import Result
from steps.data import disclosure, sources
from steps.data import prepared as preparation
from steps.data.documents import to_json
from steps.data.errors import UserError
from steps.data.validation import ValidationError, described

if TYPE_CHECKING:
    from steps.chain.context import Context
    from steps.chain.values import Preprocess
    from steps.data.schema import Schema


def work(step: Context[Preprocess]) -> Result:
    """Read, check, split and store the data; the result is the digest of its three tables."""
    _refuse_open_target(step.schema)
    located = step.located
    try:
        with closing(sources.chunks(located, step.schema, progress=True)) as raw:
            prepared = preparation.prepare(raw, step.schema, located, step.values.max_rejected)
    except preparation.TooManyRejectedError as error:
        where = preparation.store_rejected(error.rejected, step.cache)
        raise ValidationError(f"{error}\nThe rejected rows are in {where}, each with its reasons.") from None
    folder = preparation.store(prepared, step.cache)
    step.log_json("profile.json", to_json(prepared.profile))
    step.log_text("schema.yaml", (step.project / step.values.schema).read_text(encoding="utf-8"))
    rows = {name: len(table) for name, table in prepared.tables.items()}
    set_aside = disclosure.shown(len(prepared.rejected))
    step.log_metrics(
        {f"{name}_rows": count for name, count in rows.items()}
        | ({} if set_aside is None else {"rejected_rows": set_aside})
    )
    step.log_datasets({name: (prepared.digest, count) for name, count in rows.items()})
    if located.kind != "private" or step.values.publish_rows:
        step.client.log_artifacts(step.run_id, str(folder), "rows")
    counts = ", ".join(f"{count:,} {name}" for name, count in rows.items())
    lines = [f"preprocess: {note}" for note in sources.notes(located, step.schema)]
    lines += [f"preprocess: {warning}" for warning in prepared.profile.warnings]
    if len(prepared.rejected):
        lines.append(f"preprocess: set apart, with reasons, in {folder / 'rejected.parquet'}:")
        lines += described(prepared.problems, step.schema).splitlines()
    tags = {
        "data_kind": located.kind,
        "synthetic": str(located.kind == "synthetic").lower(),
        "data_digest": located.digest,
    }
    return Result(prepared.digest, tags, lines, f"{counts} rows of {located.kind} data")


def _refuse_open_target(schema: Schema) -> None:
    """Raise UserError for a drafted schema whose outcome is a guess that no person has confirmed."""
    for question in schema.open_questions:
        if question.about == "target":
            raise UserError(
                f"the schema is a draft, and only a person knows its outcome. {question.question}"
            )


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("preprocess", work))
