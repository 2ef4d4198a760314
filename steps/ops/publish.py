"""`make publish-plan` and `make publish`: show where each part of a release goes, and send it there.

Images go to GHCR and Docker Hub under the model's version and the commit, and as `latest`, or as `demo` for a
model of synthetic people; the other files are attached to a GitHub release. A registry without credentials is
left out with a notice. Only images that were built from the published commit, without changed files, are
pushed.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from steps.chain import pipeline, process
from steps.data import atomic
from steps.data.errors import UserError
from steps.data.release_facts import PAGE, RELEASE, TERMS_FILES, ReleaseFacts, read_facts
from steps.ops.keep_store import Gh
from steps.reports import job_summary

log = logging.getLogger("steps.ops")

ATTACHED = ("release.json", "reference.json", "evaluation.json", "report.html", "model_card.md")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Registry:
    """A container registry, the account that images belong to, and the user who pushes them."""

    host: str
    owner: str
    user: str
    password: str


@dataclass(frozen=True)
class Plan:
    """What would be published: local image -> names in registries, the GitHub release, and notices."""

    images: Mapping[str, tuple[str, ...]]
    release: str | None
    notices: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The plan as JSON values."""
        images = {local: list(remote) for local, remote in self.images.items()}
        return {"images": images, "release": self.release, "notices": list(self.notices)}


def registries(environment: Mapping[str, str]) -> tuple[list[Registry], list[str]]:
    """Registries with credentials in the environment, and a notice for each other one."""
    usable, notices = [], []
    owner = environment.get("GITHUB_REPOSITORY_OWNER", "")
    token = environment.get("GH_TOKEN", "")
    if owner and token:
        usable.append(Registry("ghcr.io", owner.lower(), environment.get("GITHUB_ACTOR", owner), token))
    else:
        notices.append("ghcr.io is left out: no GH_TOKEN and GITHUB_REPOSITORY_OWNER")
    user, password = environment.get("DOCKERHUB_USERNAME", ""), environment.get("DOCKERHUB_TOKEN", "")
    if user and password:
        usable.append(Registry("docker.io", user.lower(), user, password))
    else:
        notices.append("Docker Hub is left out: set the secrets DOCKERHUB_USERNAME and DOCKERHUB_TOKEN")
    return usable, notices


def tags(facts: ReleaseFacts, commit: str) -> tuple[str, ...]:
    """Tags of a release's images: version, commit, and `latest` or, for synthetic people, `demo`."""
    return facts.version, f"git-{commit[:12]}", "demo" if facts.synthetic else "latest"


def plan(facts: ReleaseFacts, commit: str, environment: Mapping[str, str]) -> Plan:
    """The plan that `publish` would carry out."""
    reachable, notices = registries(environment)
    name = facts.name
    images = {
        f"{part}:{facts.version}": tuple(
            f"{registry.host}/{registry.owner}/{part}:{tag}"
            for registry in reachable
            for tag in tags(facts, commit)
        )
        for part in (name, f"{name}-exporter")
    }
    can_release = bool(environment.get("GH_TOKEN") and environment.get("GITHUB_REPOSITORY"))
    if not can_release:
        notices.append("no GitHub release: no GH_TOKEN and GITHUB_REPOSITORY")
    return Plan(images, release_tag(name, facts.version) if can_release else None, tuple(notices))


def release_tag(name: str, version: str) -> str:
    """The GitHub release of a version."""
    return f"{name}-v{version}"


def is_published(name: str, version: str, gh: Gh) -> bool:
    """Whether a version's GitHub release is complete; `publish` sends it last.

    Raises:
        UserError: GitHub does not answer.
    """
    tag = release_tag(name, version)
    answer = gh(["release", "view", tag, "--json", "assets"])
    if answer.returncode != 0 and "release not found" not in answer.stderr:
        raise UserError(f"cannot find out whether {tag} is published: {answer.stderr.strip()}")
    assets = json.loads(answer.stdout)["assets"] if answer.returncode == 0 else []
    return {f"{tag}.tar.gz", *ATTACHED} <= {asset["name"] for asset in assets}


def run(command: Sequence[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command. Raises UserError with the end of its error output if it fails."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not installed") from None
    if done.returncode != 0:
        raise UserError(f"{' '.join(command[:3])} failed:\n{done.stderr.strip()[-1500:]}")
    return done


def publish(
    planned: Plan,
    facts: ReleaseFacts,
    commit: str,
    environment: Mapping[str, str],
    folder: Path,
    call: Run,
) -> dict[str, str]:
    """Carry out the plan; returns the digests of the pushed images, by remote name without tag.

    Raises:
        UserError: an image was not built from this commit, or a command failed.
    """
    for local in planned.images:
        form = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
        built = call(["docker", "image", "inspect", "--format", form, local]).stdout.strip()
        if built != commit:
            raise UserError(
                f"{local} was built from {built or 'no commit'}, not from {commit}: `make image` again"
            )
    for registry in registries(environment)[0]:
        call(
            ["docker", "login", registry.host, "--username", registry.user, "--password-stdin"],
            registry.password,
        )
    digests: dict[str, str] = {}
    for local, remotes in planned.images.items():
        for remote in remotes:
            call(["docker", "tag", local, remote])
            call(["docker", "push", "--quiet", remote])
        listed = call(["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", local]).stdout
        names = {remote.rpartition(":")[0] for remote in remotes}
        for entry in json.loads(listed or "[]"):
            name, _, digest = entry.partition("@")
            full = name if name in names else f"docker.io/{name}"
            if full in names:
                digests[full] = digest
    if planned.release:
        _release(planned.release, facts, commit, folder, call)
    return digests


def _release(tag: str, facts: ReleaseFacts, commit: str, folder: Path, call: Run) -> None:
    packed = folder.with_name(f"{tag}.tar.gz")
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(folder / "model", "model")
    optional = [name for name in (PAGE, *TERMS_FILES) if (folder / name).exists()]
    files = [str(packed), *(str(folder / name) for name in [*ATTACHED, *optional])]
    kind = "synthetic people: for trying out only" if facts.synthetic else f"{facts.data_kind} data"
    notes = (
        f"Version {facts.version} of {facts.name}, trained on {kind}. {facts.roc_auc_in_words} on the test "
        "split; model card and report are attached."
    )
    try:
        call(["gh", "release", "view", tag])
    except UserError:
        floating = ["--prerelease", "--latest=false"] if facts.synthetic else []
        call(
            ["gh", "release", "create", tag, "--title", tag, "--notes", notes, "--target", commit, *floating]
        )
    call(["gh", "release", "upload", tag, *files, "--clobber"])


def described(planned: Plan) -> str:
    """The plan for a person or a job summary."""
    lines = ["## What is published", ""]
    for local, remotes in planned.images.items():
        lines += [f"* `{local}`", *(f"  * `{remote}`" for remote in remotes or ("nowhere",))]
    lines.append(f"* GitHub release `{planned.release}`" if planned.release else "* no GitHub release")
    return "\n".join([*lines, *(f"* notice: {text}" for text in planned.notices), ""])


def main() -> int:
    """Show the plan, or carry it out; exit code 1 with the reason if that fails."""
    action = sys.argv[1] if len(sys.argv) == 2 else ""
    if action not in ("plan", "publish"):
        print("usage: python -m steps.ops.publish plan|publish", file=sys.stderr)
        return 2
    return process.command("publish", partial(_act, action))


def _act(action: str) -> int:
    folder = pipeline.PROJECT / RELEASE
    summary = job_summary.Out(os.environ.get("GITHUB_STEP_SUMMARY"), os.environ.get("GITHUB_OUTPUT"))
    facts = read_facts(folder)
    commit = run(["git", "-C", str(pipeline.PROJECT), "rev-parse", "HEAD"]).stdout.strip()
    planned = plan(facts, commit, os.environ)
    for notice in planned.notices:
        print(f"::notice::{notice}" if os.environ.get("GITHUB_ACTIONS") else f"notice: {notice}")
    if action == "plan":
        summary.add(described(planned))
        atomic.write_text(folder.parent / "publish.json", json.dumps(planned.document(), indent=1) + "\n")
        return 0
    digests = publish(planned, facts, commit, os.environ, folder, run)
    for name, digest in sorted(digests.items()):
        log.info("publish: %s@%s", name, digest)
    for part, key in ((facts.name, "model"), (f"{facts.name}-exporter", "exporter")):
        name = next((n for n in sorted(digests) if n.startswith("ghcr.io/") and n.endswith(f"/{part}")), "")
        summary.set(**{f"{key}_name": name, f"{key}_digest": digests.get(name, "")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
