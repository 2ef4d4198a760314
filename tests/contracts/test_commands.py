"""What the documents tell people to type exists, and all files of pins say the same."""

from __future__ import annotations

import re

import pytest
import yaml

from steps.chain import parameters
from steps.ops import retrain
from tests.conftest import ROOT

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "data/*.md", "monitoring/*.md", ".github/*.md")
    for path in ROOT.glob(pattern)
    if path.name not in ("CHANGELOG.md", "decisions.md", "upgrading.md")  # they speak of what was
)
OURS = ("steps", "monitoring", "docs", "benchmarks")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def commands() -> list[tuple[str, str]]:
    """(document, command) of every line of code and every span between backticks."""
    found = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        indented = re.findall(r"^ {4}(\S.*)$", text, flags=re.MULTILINE)
        found += [(name, " ".join(code.split())) for code in [*re.findall(r"`([^`]+)`", text), *indented]]
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    """To a file of this repository, and to a heading that it has."""
    document = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        path, _, heading = target.partition("#")
        if "://" in path:
            continue
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{name} links {target}"
        if heading:
            titles = re.findall(r"^#+ +(.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
            assert heading in slugs, f"{name} links {target}"


def test_the_readme_fits_on_few_screens() -> None:
    """What needs more room has a page of its own in docs/."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_module_that_is_run_by_name_exists() -> None:
    """`python -m name` in a document is a module or a package that can be run."""
    told = {(name, module) for name, code in commands() for module in re.findall(r"python -m ([\w.]+)", code)}
    ours = {(name, module) for name, module in told if module.split(".")[0] in OURS}
    assert ours
    for name, module in sorted(ours):
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), (name, module)


def test_every_word_after_make_is_a_target() -> None:
    """And every target that explains itself is declared to be no file."""
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    told = {(name, match[1]) for name, code in commands() if (match := re.match(r"make ([a-z-]+)", code))}
    assert told
    assert {(name, word) for name, word in told if word not in targets} == set()
    phony = set(MAKEFILE.partition(".PHONY:")[2].partition("\n\n")[0].replace("\\", " ").split())
    assert set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, flags=re.MULTILINE)) == phony


def test_all_words_run_in_one_experiment() -> None:
    """What one word has done, another finds in the same list."""
    assert f"RUN := {' '.join(retrain.MLFLOW_RUN)}\n" in MAKEFILE
    assert "\t@mlflow run" not in MAKEFILE


def test_every_mlflow_run_names_an_entry_point_and_its_parameters() -> None:
    """Without -e it is main."""
    declared = parameters.declared(ROOT)
    told = [(name, code) for name, code in commands() if code.startswith("mlflow run .")]
    assert told
    for name, code in told:
        step = match[1] if (match := re.search(r" -e (\S+)", code)) else "main"
        if step == "...":
            continue
        assert step in declared, (name, code)
        assert set(re.findall(r"-P (\w+)=", code)) <= set(declared[step]), (name, code)


def test_conda_yaml_and_the_lock_pin_the_same_versions() -> None:
    """So that conda, uv and make give one environment: exact pins everywhere, the same ones."""
    (pip,) = (
        entry["pip"]
        for entry in yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
        if isinstance(entry, dict)
    )
    locked = [
        line.partition("#")[0].strip()
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    assert sorted(pip) == sorted(locked)
    assert all(re.match(r"[A-Za-z0-9._-]+==\S+", pin) for pin in pip)
