"""Fingerprints: what counts as a change of a step, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from steps.chain.fingerprint import Fingerprint, code, digest
from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three modules: a imports b inside a function, b imports c relatively, c reads a template."""
    steps = tmp_path / "steps"
    steps.mkdir()
    (steps / "__init__.py").write_text("")
    (steps / "a.py").write_text("def run():\n    from steps.b import f\n    return f()\n")
    (steps / "b.py").write_text(
        '"""Doc."""\nfrom . import c\n\n\ndef f():\n    """Doc of f."""\n    return c.VALUE\n'
    )
    (steps / "c.py").write_text('READS = ("page.html",)\nVALUE = 1\n')
    (steps / "page.html").write_text("<p>")
    (steps / "other.py").write_text("VALUE = 2\n")
    return tmp_path


def test_follows_imports_however_deep_and_the_files_they_read(project: Path) -> None:
    """The closure holds every module of the repository that is imported, and templates, and nothing else."""
    expected = {"steps/__init__.py", "steps/a.py", "steps/b.py", "steps/c.py", "steps/page.html"}
    assert set(code("steps.a", project)) == expected


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("a.py", "return f()", "return f()  # a comment"),
        ("a.py", "def run():\n", "def run():\n\n\n"),
        ("b.py", '"""Doc of f."""', '"""Another text."""'),
        ("b.py", '"""Doc."""\n', ""),
        ("c.py", "VALUE = 1", "VALUE = 1\nif __name__ == '__main__':\n    import steps.other\n"),
        ("c.py", "VALUE = 1", "VALUE = 1\nif TYPE_CHECKING:\n    from steps.other import VALUE as V\n"),
    ],
)
def test_comments_layout_docstrings_and_wiring_do_not_count(
    project: Path, file: str, old: str, new: str
) -> None:
    """A change that cannot change a result leaves the fingerprint alone."""
    before = code("steps.a", project)
    path = project / "steps" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert code("steps.a", project) == before


@pytest.mark.parametrize(
    ("file", "old", "new"), [("c.py", "VALUE = 1", "VALUE = 3"), ("page.html", "<p>", "<b>")]
)
def test_a_change_deep_below_counts_and_is_named(project: Path, file: str, old: str, new: str) -> None:
    """A change in what is imported, or read, two modules down is a change, and says where."""
    before = Fingerprint({}, {}, code("steps.a", project), {})
    path = project / "steps" / file
    path.write_text(path.read_text().replace(old, new))
    after = Fingerprint({}, {}, code("steps.a", project), {})
    assert after.digest != before.digest
    assert after.changes_since(before) == [f"steps/{file} changed"]


def test_a_file_that_is_named_and_absent_is_an_error(project: Path) -> None:
    """A module that lists a file it reads which is not there is a fault of the project, not a silent gap."""
    (project / "steps" / "page.html").unlink()
    with pytest.raises(FileNotFoundError, match=r"page\.html"):
        code("steps.a", project)


def test_survives_the_tags_of_a_run_and_explains_each_part() -> None:
    """A fingerprint read back from tags is the same, and a difference names part, old and new."""
    old = Fingerprint({"data": "aa"}, {"seed": "0"}, {"steps/a.py": "1"}, {"numpy": "2.4.5"})
    new = Fingerprint({"data": "bb"}, {"seed": "1"}, {"steps/b.py": "1"}, {"numpy": "2.4.6"})
    assert Fingerprint.from_tags(old.tags()) == old
    assert new.changes_since(old) == [
        "data changed",
        "seed 0 -> 1",
        "steps/a.py is gone",
        "steps/b.py is new",
        "numpy 2.4.5 -> 2.4.6",
    ]


def test_order_of_keys_does_not_matter() -> None:
    """The digest is of the content, not of how a dictionary was filled."""
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_each_step_depends_on_its_own_computation_and_not_on_the_chain() -> None:
    """A change of the driver reruns nothing; a change of the split reruns everything that uses it."""
    for step in ("preprocess", "train", "tune", "evaluate"):
        files = code(f"steps.{step}", ROOT)
        assert not {
            "steps/chain/pipeline.py",
            "steps/chain/tracking.py",
            "steps/main.py",
            "steps/promote.py",
        } & set(files)
    assert "steps/data/split.py" in code("steps.preprocess", ROOT)
    assert "steps/evaluate.py" not in code("steps.promote", ROOT)


def test_every_template_is_code_of_a_step() -> None:
    """A template that no module names in READS could change without a report being made again."""
    steps = ("evaluate", "explore", "drift")
    found = {file for step in steps for file in code(f"steps.{step}", ROOT) if "/templates/" in file}
    templates = (ROOT / "steps" / "reports" / "templates").iterdir()
    assert found == {f"steps/reports/templates/{path.name}" for path in templates}
    evaluated = code("steps.evaluate", ROOT)
    assert {"steps/reports/templates/report.html", "steps/reports/templates/model_card.md"} <= set(evaluated)
    assert "steps/measures/gates.py" not in evaluated
