"""What the documents tell people to type exists, and all files of pins say the same."""

from __future__ import annotations

import re

import yaml

from steps.chain import parameters
from steps.ops import retrain
from tests.conftest import ROOT

DOCUMENTS = ("README.md", "data/README.md", "monitoring/RUNBOOK.md", ".github/CONTRIBUTING.md")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def commands() -> list[tuple[str, str]]:
    """(document, command) of every line of code and every span between backticks."""
    found = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        indented = re.findall(r"^ {4}(\S.*)$", text, flags=re.MULTILINE)
        found += [(name, " ".join(code.split())) for code in [*re.findall(r"`([^`]+)`", text), *indented]]
    return found


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
