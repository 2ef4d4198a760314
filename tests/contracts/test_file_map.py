"""README <-> modules: every module has its one line, and it is what the module says of itself."""

from __future__ import annotations

from docs.tools import file_map
from tests.conftest import ROOT


def test_the_list_of_modules_in_the_readme_is_fresh() -> None:
    """`python -m docs.tools.file_map` brings it up to date."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert file_map.rewritten(text, ROOT) == text


def test_every_module_says_what_it_is() -> None:
    """No line is empty."""
    assert not [line for line in file_map.lines(ROOT) if line.endswith("|  |")]
