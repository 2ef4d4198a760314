"""What the workflows promise: words that exist, least rights, pinned actions, and who may publish when."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from steps.data import release_facts
from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKE_WORDS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# What sends something where others can have it.
PUBLISHING = ("make publish", "docker/", "actions/attest")
# The only commands beside `make`, and why.
OTHER_COMMANDS = {
    "pip install \"$(grep '^mlflow==' requirements.lock)\"",  # what conda's user has before `mlflow run`
    "mlflow run . -e tune",  # typed exactly so
    'test "$RESULTS" = "success success success success success"',  # the gate
    'echo "::notice::not published, because this is not main; retrain on main publishes the champion"',
    'echo "::error::an alert retrains main only" && false',
    'echo "::notice::not attested, because GitHub attests private repositories in its Enterprise plan only"',
}


def _load(name: str) -> dict[str, Any]:
    document = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
    document["on"] = document.pop(True)  # YAML 1.1 reads the key `on` as true
    return document


def _steps() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for job, content in _load(path.stem)["jobs"].items():
            for step in content.get("steps", []):
                yield path.stem, job, step


def _publishes(step: dict[str, Any]) -> bool:
    text = step.get("uses", "") + step.get("run", "")
    return text.startswith(PUBLISHING) and text != "make publish-plan"


def test_each_job_is_a_few_make_words() -> None:
    """Every command is one word of the Makefile, so that a person can run what Actions runs."""
    for workflow, job, step in _steps():
        command = step.get("run")
        if command and command not in OTHER_COMMANDS:
            words = command.removeprefix("make ").removeprefix("PYTHON=python ").split()
            assert command.startswith("make "), f"{workflow}/{job}: {command}"
            assert set(words) <= MAKE_WORDS, f"{workflow}/{job}: {command}"


def test_actions_are_pinned_by_commit_with_the_tag_beside_it() -> None:
    """A tag can be moved; forty hexadecimal digits cannot."""
    pinned = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
    for path in WORKFLOWS:
        for line in path.read_text().splitlines():
            if "uses:" in line and "./.github/workflows/" not in line:
                assert pinned.search(line), f"{path.name}: {line.strip()}"


def test_one_action_has_one_version() -> None:
    """All workflows use the same commit of an action."""
    found: dict[str, set[str]] = {}
    for _, _, step in _steps():
        if "uses" in step:
            name, _, commit = step["uses"].partition("@")
            found.setdefault(name, set()).add(commit)
    assert all(len(commits) == 1 for commits in found.values()), found


def test_nobody_has_rights_that_no_job_names() -> None:
    """No right by default; jobs name theirs; few write; checkouts keep no credentials."""
    writing = {}
    for path in WORKFLOWS:
        document = _load(path.stem)
        assert document["permissions"] == {}, path.name
        for job, content in document["jobs"].items():
            assert "permissions" in content, f"{path.name}: {job}"
            rights = {name for name, right in content["permissions"].items() if right == "write"}
            if rights:
                writing[f"{path.stem}/{job}"] = rights
            assert "timeout-minutes" in content or "uses" in content, f"{path.name}: {job}"
    assert writing == {
        "retrain/train": {"contents"},
        "approve/approve": {"contents"},
        "retrain/publish": {"contents", "packages", "id-token", "attestations"},
        "alert/retrain": {"contents", "packages", "id-token", "attestations"},  # which it calls
        "digests/propose": {"contents", "pull-requests"},
    }
    for workflow, job, step in _steps():
        if "actions/checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False, f"{workflow}/{job}"


def test_publishing_needs_promotion_and_ci_of_the_same_commit() -> None:
    """Every step that pushes is in a job that needs both; the tests of the images stand before the push."""
    document = _load("retrain")
    jobs = document["jobs"]
    publishing = {(workflow, job) for workflow, job, step in _steps() if _publishes(step)}
    assert publishing == {("retrain", "publish")}
    job = jobs["publish"]
    assert set(job["needs"]) == {"ci", "train"}
    wanted = ("needs.ci.result == 'success'", "needs.train.outputs.publish == 'true'")
    assert job["if"] == " && ".join([*wanted, "github.ref == 'refs/heads/main'"])
    assert jobs["train"]["needs"] == "ci"
    assert jobs["train"]["outputs"]["publish"] == "${{ steps.retrain.outputs.publish }}"
    notices = [step["if"] for step in jobs["train"]["steps"] if "not main" in step.get("run", "")]
    assert notices == ["steps.retrain.outputs.publish == 'true' && github.ref != 'refs/heads/main'"]
    # Called from this commit's own file, so it tests this commit.
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    commands = [step.get("run") for step in job["steps"] if "run" in step]
    order = [commands.index(f"make {word}") for word in ("pack", "image-test", "stack-test", "publish")]
    assert order == sorted(order)


def test_the_gate_needs_every_other_job_of_ci() -> None:
    """One required check stands for all; it fails if a job fails, is skipped or is forgotten here."""
    jobs = _load("ci")["jobs"]
    assert set(jobs["gate"]["needs"]) == set(jobs) - {"gate"}
    assert jobs["gate"]["if"] == "always()"
    wanted = " ".join(["success"] * len(jobs["gate"]["needs"]))
    assert jobs["gate"]["steps"][0]["run"] == f'test "$RESULTS" = "{wanted}"'


def test_nothing_from_outside_becomes_code() -> None:
    """Commands hold no expression: texts of an event reach programs as environment variables."""
    for workflow, job, step in _steps():
        assert "${{" not in step.get("run", ""), f"{workflow}/{job}: {step['run']}"


def test_one_retraining_at_a_time() -> None:
    """A second run waits and is never cancelled: it writes the store."""
    assert _load("retrain")["concurrency"] == {"group": "retrain", "cancel-in-progress": False}


def test_each_push_to_main_runs_ci_once() -> None:
    """What starts retraining, which calls ci, does not start ci by itself."""
    assert _load("ci")["on"]["push"]["paths-ignore"] == _load("retrain")["on"]["push"]["paths"]


def test_the_dispatch_takes_what_an_alert_sends_and_no_data() -> None:
    """Grafana's message names a reason and a source; nothing it could send chooses rows or a ref."""
    document = _load("alert")
    template = (ROOT / "monitoring/grafana/provisioning/alerting/templates.yaml").read_text()
    sent = re.search(r'"inputs" \(coll\.Dict (.*)\)', template)
    assert sent is not None
    inputs = set(document["on"]["workflow_dispatch"]["inputs"])
    assert set(re.findall(r'"(\w+)" (?:\(printf|\.)', sent[1])) == inputs == {"reason", "source"}
    assert set(_load("retrain")["on"]["workflow_call"]["inputs"]) == inputs
    jobs = document["jobs"]
    assert jobs["retrain"]["if"] == "github.ref == 'refs/heads/main'"
    assert jobs["elsewhere"]["if"] == "github.ref != 'refs/heads/main'"
    assert jobs["elsewhere"]["steps"][0]["run"].endswith("&& false")


def test_the_project_s_version_stands_in_the_changelog_alone() -> None:
    """It is a version number, and no other file states it."""
    version = release_facts.project_version(ROOT)
    for name in ("pyproject.toml", "MLProject", "conda.yaml"):
        assert f'"{version}"' not in (ROOT / name).read_text()


@pytest.mark.real
def test_actionlint_and_zizmor_find_nothing() -> None:
    """Both linters, as `make lint-workflows` calls them."""
    for tool in ("go", "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: `make lint-workflows` needs it")
    done = subprocess.run(["make", "lint-workflows"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_approval_goes_through_a_protected_environment_on_main() -> None:
    """A reviewer can be asked for, and words from outside reach the command as variables alone."""
    job = _load("approve")["jobs"]["approve"]
    assert job["environment"] == "promotion"
    assert job["if"] == "github.ref == 'refs/heads/main'"
    (step,) = (step for step in job["steps"] if step.get("run") == "make approve")
    assert set(step["env"]) == {"CANDIDATE", "WHY"}
