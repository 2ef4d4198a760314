"""Facts of a release in `build/release`: its folder, its `release.json`, the project's version."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from steps.data import documents
from steps.data.errors import UserError

RELEASE = Path("build") / "release"
FACTS = "release.json"
PAGE = "risk.html"
# A glass box, term by term: a page and a table.
TERMS_FILES = ("terms.html", "terms.csv")


@dataclass(frozen=True)
class ReleaseFacts:
    """Facts of a version in `release.json`: its origin, its training data, its performance.

    `metrics`: figures of the test rows, to four digits; undefined ones are left out.
    """

    name: str
    version: str
    run_id: str
    git_commit: str
    schema: str
    data_kind: str
    data_digest: str
    dataset_digest: str
    model_digest: str
    synthetic: bool
    family: str
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def roc_auc_in_words(self) -> str:
        """Its ROC AUC, which is undefined where the test rows hold one outcome only."""
        value = self.metrics.get("roc_auc")
        return "no ROC AUC" if value is None else f"ROC AUC {value:.4f}"


def project_version(project: Path) -> str:
    """The version of this project: the newest heading of CHANGELOG.md, which alone holds it.

    Raises:
        UserError: the first heading of the second level is not a version number.
    """
    text = (project / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search(r"^## +(\S+)", text, re.MULTILINE)
    if heading is None or not re.fullmatch(r"\d+\.\d+\.\d+", heading[1]):
        raise UserError("the first `## ` heading of CHANGELOG.md should begin with a version such as 1.2.3")
    return heading[1]


def read_facts(folder: Path) -> ReleaseFacts:
    """The facts of the release in a folder. Raises UserError if there is none, or if they are malformed."""
    try:
        text = (folder / FACTS).read_text(encoding="utf-8")
    except OSError:
        raise UserError(f"there is no release in {folder}: `make release` exports the champion") from None
    try:
        content = json.loads(text)
    except ValueError:
        raise UserError(
            f"{FACTS} in {folder} is no JSON: `make release` exports the champion again"
        ) from None
    return documents.from_json(ReleaseFacts, content, FACTS)


def write_facts(folder: Path, facts: ReleaseFacts) -> None:
    """Write `release.json` into a folder that is being filled."""
    (folder / FACTS).write_text(json.dumps(documents.to_json(facts), indent=1) + "\n", encoding="utf-8")
