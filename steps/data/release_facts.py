"""What a release in `build/release` is: its folder, its `release.json`, the project's version."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steps.data.errors import UserError

RELEASE = Path("build") / "release"
FACTS = "release.json"
PAGE = "risk.html"
# A glass box, term by term: a page and a table.
TERMS_FILES = ("terms.html", "terms.csv")


def project_version(project: Path) -> str:
    """The version of this project: the newest heading of CHANGELOG.md, its only home.

    Raises:
        UserError: the first heading of the second level is not a version number.
    """
    text = (project / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search(r"^## +(\S+)", text, re.MULTILINE)
    if heading is None or not re.fullmatch(r"\d+\.\d+\.\d+", heading[1]):
        raise UserError("the first `## ` heading of CHANGELOG.md should begin with a version such as 1.2.3")
    return heading[1]


def roc_auc(facts: Mapping[str, Any]) -> str:
    """A release's ROC AUC in words; it is undefined where the test rows hold one outcome only."""
    value = facts["metrics"].get("roc_auc")
    return "no ROC AUC" if value is None else f"ROC AUC {value:.4f}"


def read_facts(folder: Path) -> dict[str, Any]:
    """What the release in a folder is. Raises UserError if there is none."""
    try:
        document: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"there is no release in {folder}: `make release` exports the champion") from None
    return document
