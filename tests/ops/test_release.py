"""A release: what is exported, what its images are called and carry, and what would be pushed where."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monitoring import reference
from monitoring.deploy import build, check_images, rollout
from steps.chain.fingerprint import digest
from steps.chain.verdict import Verdict
from steps.data import release_facts
from steps.data.errors import UserError
from steps.models import saved
from steps.ops import keep_store, publish, release, retrain

TOLD = release_facts.ReleaseFacts(
    name="diabetes-risk-synthetic",
    version="3",
    run_id="0123abcd",
    git_commit="c0ffee",
    schema="diabetes-risk",
    data_kind="synthetic",
    data_digest="d1",
    dataset_digest="d2",
    model_digest="d3",
    synthetic=True,
    family="logistic_regression",
    metrics={"roc_auc": 0.83},
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ON_GITHUB = {
    "GITHUB_REPOSITORY": "Owner/repository",
    "GITHUB_REPOSITORY_OWNER": "Owner",
    "GITHUB_ACTOR": "somebody",
    "GH_TOKEN": "token",
}


@pytest.fixture(scope="module")
def exported(champion: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The champion's release."""
    import mlflow

    folder = tmp_path_factory.mktemp("build") / "release"
    client = mlflow.MlflowClient(champion.checkout.tracking_uri, champion.checkout.tracking_uri)
    release.export(client, champion.name, champion.version, folder, champion.schema)
    return folder


def test_a_release_is_complete(exported: Path, champion: Any) -> None:
    """Model, reference, report, card and evaluation, and a file that says what it is."""
    told = release_facts.read_facts(exported)
    assert (told.name, told.version, told.run_id) == (
        champion.name,
        champion.version,
        champion.run_id,
    )
    assert told.synthetic is True
    assert 0.8 < told.metrics["roc_auc"] < 0.9
    assert (exported / "model" / "MLmodel").exists()
    for name in publish.ATTACHED:
        assert (exported / name).stat().st_size > 0
    assert "## Verification" in (exported / "model_card.md").read_text(encoding="utf-8")


def test_a_release_has_one_persons_page_of_its_model(exported: Path, champion: Any) -> None:
    """With the model's own tables, its version, and the banner of made-up people."""
    page = (exported / release_facts.PAGE).read_text(encoding="utf-8")
    told = json.loads(page.split('<script type="application/json" id="page">')[1].split("</script>")[0])
    assert told["terms"] == json.loads((exported / "model" / "artifacts" / "terms.json").read_text())
    assert f"{champion.name}, version {champion.version}" in page
    assert 'href="terms.html"' in (exported / "report.html").read_text(encoding="utf-8")
    assert all((exported / name).stat().st_size > 1_000 for name in release_facts.TERMS_FILES)
    assert 'class="banner"' in page


def test_a_release_that_cannot_have_a_page_goes_without(
    champion: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Here for a schema with other columns; the reason is a warning."""
    import mlflow

    client = mlflow.MlflowClient(champion.checkout.tracking_uri, champion.checkout.tracking_uri)
    fewer = replace(champion.schema, columns=champion.schema.columns[1:])
    release.export(client, champion.name, champion.version, tmp_path / "release", fewer)
    assert (tmp_path / "release" / "release.json").exists()
    assert not (tmp_path / "release" / release_facts.PAGE).exists()
    assert "asks for other columns than the schema" in caplog.text


def test_a_model_is_known_by_what_it_does_and_by_what_serves_it(exported: Path, champion: Any) -> None:
    """An updated package makes another model of it, which a container then gets."""
    import mlflow

    client = mlflow.MlflowClient(champion.checkout.tracking_uri, champion.checkout.tracking_uri)
    tags = client.get_model_version(champion.name, champion.version).tags
    pins = (exported / "model" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    code = saved.serving_code()
    assert any(pin.startswith("numpy==") for pin in pins)
    assert tags["model_digest"] == digest([tags["behaviour_digest"], pins, code])
    assert tags["model_digest"] != digest([tags["behaviour_digest"], [*pins[:-1], "uvloop==99"], code])


def test_a_release_s_reference_names_its_version(exported: Path, champion: Any) -> None:
    """The sidecar reads the version that was registered after the reference was built."""
    known = reference.load(exported / "reference.json")
    assert known.model.version == champion.version
    assert known.floors["roc_auc"] > 0.5


def test_the_floors_are_those_that_promote_judged_by(champion: Any, tmp_path: Path) -> None:
    """They may have changed since the model was trained."""
    import mlflow

    client = mlflow.MlflowClient(champion.checkout.tracking_uri, champion.checkout.tracking_uri)
    judged = client.get_model_version(champion.name, champion.version).tags["roc_auc_min"]
    client.set_model_version_tag(champion.name, champion.version, "roc_auc_min", "0.7777")
    try:
        release.export(client, champion.name, champion.version, tmp_path / "release", champion.schema)
    finally:
        client.set_model_version_tag(champion.name, champion.version, "roc_auc_min", judged)
    assert reference.load(tmp_path / "release" / "reference.json").floors["roc_auc"] == 0.7777


def test_a_version_that_is_not_there_is_named(champion: Any, tmp_path: Path) -> None:
    """No folder is left behind by an export that fails."""
    import mlflow

    client = mlflow.MlflowClient(champion.checkout.tracking_uri, champion.checkout.tracking_uri)
    with pytest.raises(UserError, match="has no version 99"):
        release.export(client, champion.name, "99", tmp_path / "release", champion.schema)
    assert list(tmp_path.iterdir()) == []


def test_images_of_synthetic_people_never_share_a_name_with_others() -> None:
    """The registered model's name is the images' name."""
    real = replace(TOLD, name="diabetes-risk", synthetic=False)
    assert set(build.names(TOLD)).isdisjoint(build.names(real))


def test_labels_say_what_an_image_is() -> None:
    """Version, run, commits, data, metrics and whether people are made up."""
    labels = build.labels(TOLD, "0.1.0", COMMIT, "2026-01-01T00:00:00Z")
    assert labels["synthetic"] == "true"
    assert labels["org.opencontainers.image.version"] == "3"
    assert labels["org.opencontainers.image.revision"] == COMMIT
    assert labels["model.metric.roc_auc"] == "0.8300"
    assert "synthetic people" in labels["org.opencontainers.image.description"]


def test_a_synthetic_model_is_a_demo_and_never_latest() -> None:
    """Everything else is tagged alike."""
    assert publish.tags(TOLD, COMMIT) == ("3", "git-0123456789ab", "demo")
    assert publish.tags(replace(TOLD, synthetic=False), COMMIT) == ("3", "git-0123456789ab", "latest")


def test_a_fork_without_secrets_pushes_nothing_and_says_so() -> None:
    """Missing credentials are notices, not errors."""
    plan = publish.plan(TOLD, COMMIT, {})
    assert all(not remote for remote in plan.images.values())
    assert plan.release is None
    assert len(plan.notices) == 3


def test_each_registry_gets_both_images_under_every_tag() -> None:
    """Names in registries are lower case."""
    plan = publish.plan(TOLD, COMMIT, {**ON_GITHUB, "DOCKERHUB_USERNAME": "Hub", "DOCKERHUB_TOKEN": "x"})
    assert plan.notices == ()
    assert plan.release == "diabetes-risk-synthetic-v3"
    remote = [name for names in plan.images.values() for name in names]
    assert len(remote) == 12
    assert "ghcr.io/owner/diabetes-risk-synthetic:demo" in remote
    assert "docker.io/hub/diabetes-risk-synthetic-exporter:3" in remote
    assert not any(name.endswith(":latest") for name in remote)


class Calls:
    """Commands that would have been run; images say that they were built from `revision`."""

    def __init__(self, revision: str) -> None:
        self.revision = revision
        self.seen: list[tuple[list[str], str | None]] = []

    def __call__(self, command: Sequence[str], given: str | None = None) -> subprocess.CompletedProcess[str]:
        self.seen.append((list(command), given))
        text = self.revision if "--format" in command else ""
        if "{{json .RepoDigests}}" in command:
            text = json.dumps([f"ghcr.io/owner/{command[-1].partition(':')[0]}@sha256:aa"])
        if command[:3] == ["gh", "release", "view"]:
            raise UserError("release not found")
        return subprocess.CompletedProcess(command, 0, text, "")


def test_publishing_pushes_what_the_plan_says(exported: Path) -> None:
    """Every name of the plan, the password by standard input only, a prerelease for made-up people."""
    plan = publish.plan(TOLD, COMMIT, ON_GITHUB)
    calls = Calls(COMMIT)
    digests = publish.publish(plan, TOLD, COMMIT, ON_GITHUB, exported, calls)
    pushed = [command[-1] for command, _ in calls.seen if command[:2] == ["docker", "push"]]
    assert pushed == [name for names in plan.images.values() for name in names]
    assert digests["ghcr.io/owner/diabetes-risk-synthetic"] == "sha256:aa"
    assert not any("token" in command for command, _ in calls.seen)
    created = next(command for command, _ in calls.seen if command[:3] == ["gh", "release", "create"])
    assert "--prerelease" in created
    assert COMMIT in created


def test_what_was_promoted_and_never_published_is_published_by_the_next_run() -> None:
    """A release that is whole says that publishing came to its end; half of one, or none, does not."""
    whole = {"assets": [{"name": name} for name in ("m-v3.tar.gz", *publish.ATTACHED)]}
    verdict = Verdict("unchanged", "m", "p", "3", "3")

    def github(stdout: object, error: str = "") -> keep_store.Gh:
        done = subprocess.CompletedProcess([], int(bool(error)), json.dumps(stdout), error)
        return lambda arguments: done

    assert not retrain.is_unpublished(verdict, ON_GITHUB, github(whole))
    assert retrain.is_unpublished(verdict, ON_GITHUB, github({"assets": whole["assets"][1:]}))
    assert retrain.is_unpublished(verdict, ON_GITHUB, github({}, "release not found"))
    for word in ("refused", "undecided"):
        assert not retrain.is_unpublished(Verdict(word, "m", "p", "3", "3"), ON_GITHUB, github({}, "no"))
    assert not retrain.is_unpublished(verdict, {}, github({}, "no token"))
    with pytest.raises(UserError, match="cannot find out whether m-v3 is published: HTTP 502"):
        retrain.is_unpublished(verdict, ON_GITHUB, github({}, "HTTP 502"))


@pytest.mark.parametrize("revision", ["another", f"{COMMIT}-dirty", ""])
def test_images_of_another_commit_are_not_pushed(exported: Path, revision: str) -> None:
    """Nothing is pushed that CI has not seen."""
    calls = Calls(revision)
    with pytest.raises(UserError, match="was built from"):
        publish.publish(publish.plan(TOLD, COMMIT, ON_GITHUB), TOLD, COMMIT, ON_GITHUB, exported, calls)
    assert all(command[1] != "push" for command, _ in calls.seen)


def test_the_plan_can_be_read() -> None:
    """For a job summary: what goes where, and what does not and why."""
    text = publish.described(publish.plan(TOLD, COMMIT, ON_GITHUB))
    assert "`ghcr.io/owner/diabetes-risk-synthetic:3`" in text
    assert "notice: Docker Hub is left out" in text


def test_rows_of_the_image_test_follow_the_reference(exported: Path) -> None:
    """Within ranges and levels, some missing, and the registered model answers each."""
    known = json.loads((exported / "reference.json").read_text())
    rows = check_images.made_rows(known, 200, seed=1)
    checked = reference.parse(known)
    missing = 0
    for feature in checked.features:
        values = check_images.column(rows, feature.name)
        counts = feature.count(values)
        assert (counts.out_of_range, counts.unknown) == (0, 0)
        missing += counts.missing
    assert missing > 0
    answers = check_images.expected(exported / "model", rows, known)
    assert len(answers) == 200
    same = json.dumps({"predictions": answers})
    assert check_images.largest_difference(same, answers) == 0
    assert check_images.largest_difference(json.dumps({"predictions": answers[:5]}), answers) == float("inf")


@pytest.mark.parametrize("text", ["-1", "soon"])
def test_limits_of_the_image_test_are_settings(text: str) -> None:
    """Defaults, other values, and an error that names the variable."""
    assert check_images.limits({}).start_seconds == 120
    assert check_images.limits({"IMAGE_TEST_MEMORY_MB": "800"}).memory_mb == 800
    with pytest.raises(UserError, match="IMAGE_TEST_ROWS"):
        check_images.limits({"IMAGE_TEST_ROWS": text})


def test_what_runs_is_remembered_beside_other_settings() -> None:
    """Deploying changes three lines of the settings file and leaves the others alone."""
    text = "ALERT_EMAIL=a@b\nVERSION=1\nMODEL_IMAGE=m\nEXPORTER_IMAGE=e\n"
    assert rollout.remembered(text) == {"VERSION": "1", "MODEL_IMAGE": "m", "EXPORTER_IMAGE": "e"}
    changed = rollout.with_pair(text, rollout.pair("diabetes-risk", "2", "ghcr.io/o/"))
    assert "ALERT_EMAIL=a@b" in changed
    assert rollout.remembered(changed)["MODEL_IMAGE"] == "ghcr.io/o/diabetes-risk"
    assert rollout.remembered("VERSION=1\n") == {}
