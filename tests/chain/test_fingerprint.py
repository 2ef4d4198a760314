"""Fingerprints: what counts as a change of a step, and what does not."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from sklearn.pipeline import Pipeline

from steps.chain.fingerprint import Fingerprint, code, digest
from steps.chain.pipeline import STEPS
from steps.models import saved
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
    old = Fingerprint({"data": "aa"}, {"seed": "0"}, {"steps/a.py": "1"}, {"numpy": "2.4.5"}, {"uvloop": "1"})
    new = Fingerprint({"data": "bb"}, {"seed": "1"}, {"steps/b.py": "1"}, {"numpy": "2.4.6"}, {"uvloop": "2"})
    assert Fingerprint.from_tags(old.tags()) == old
    assert new.changes_since(old) == [
        "data changed",
        "seed 0 -> 1",
        "steps/a.py is gone",
        "steps/b.py is new",
        "numpy 2.4.5 -> 2.4.6",
        "uvloop 1 -> 2",
    ]


def test_what_only_serves_a_model_is_no_part_of_its_fit() -> None:
    """Another pin is another fingerprint and the same fit; another version of what fits is neither."""
    one = Fingerprint({}, {}, {}, {"numpy": "2"}, {"uvloop": "1"})
    served = Fingerprint({}, {}, {}, {"numpy": "2"}, {"uvloop": "2"})
    fitted = Fingerprint({}, {}, {}, {"numpy": "3"}, {"uvloop": "1"})
    assert (served.digest == one.digest, served.fit_digest == one.fit_digest) == (False, True)
    assert fitted.fit_digest != one.fit_digest


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
    names = {path.name for path in (ROOT / "steps" / "reports" / "templates").iterdir()}
    of_steps = {name for name in names if not name.startswith("page.")}  # no step makes one person's page
    assert found == {f"steps/reports/templates/{name}" for name in of_steps}
    evaluated = code("steps.evaluate", ROOT)
    assert {"steps/reports/templates/report.html", "steps/reports/templates/model_card.md"} <= set(evaluated)
    assert "steps/measures/promotion.py" not in evaluated


# What a step imports and no number depends on, with the reason.
NO_NUMBERS = {
    "joblib": "runs work side by side",
    "mlflow": "keeps what a run leaves; it counts as a pin where it serves a model",
    "pydantic": "checks documents and schemas and refuses those that do not fit",
    "pydantic_core": "tells how",
    "pyspark": "runs trials or scores elsewhere, and is not among the pins of the runtime",
    "requests": "fetches files, which are known by their digest",
    "skops": "writes and reads a fitted model; it counts as a pin where it serves one",
    "threadpoolctl": "limits threads",
    "tqdm": "draws bars",
    "urllib3": "fetches files, which are known by their digest",
    "yaml": "reads the schema, whose content counts by itself",
}
DISTRIBUTIONS = {"sklearn": "scikit-learn", "interpret": "interpret-core"}


def imported(step: str) -> set[str]:
    """Packages from elsewhere that a step's code imports, however deep, in functions too."""
    names: set[str] = set()
    for file in code(f"steps.{step}", ROOT):
        tree = (
            ast.parse((ROOT / file).read_text(encoding="utf-8")) if file.endswith(".py") else ast.Module([])
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"steps", "monitoring"}


@pytest.mark.parametrize("step", [step for step, spec in STEPS.items() if spec.results])
def test_a_package_that_a_step_imports_counts_or_is_known_to_decide_no_number(step: str) -> None:
    """A new import has to be reviewed: it goes into STEPS, or into the list above with its reason."""
    deciding = {DISTRIBUTIONS.get(name, name) for name in imported(step) - NO_NUMBERS.keys()}
    assert deciding <= set(STEPS[step].packages)


def test_every_pin_of_a_served_model_counts_where_a_model_is_packed() -> None:
    """What `keep_model` writes into a model's requirements decides the fit or is a pin."""
    served = {pin.partition("==")[0] for pin in saved.pip_requirements(Pipeline([]))}
    for step in ("train", "tune"):
        assert served <= {*STEPS[step].packages, *STEPS[step].pins}
        assert not set(STEPS[step].packages) & set(STEPS[step].pins)


def test_fitting_does_not_depend_on_how_anything_is_drawn() -> None:
    """No report, plot or palette is code of train or tune; of evaluate they are."""
    for step in ("train", "tune"):
        assert not [file for file in code(f"steps.{step}", ROOT) if file.startswith("steps/reports/")]
    assert "steps/reports/palette.py" in code("steps.evaluate", ROOT)
