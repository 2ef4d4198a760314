"""`make digests`: write the present digest of each image's tag into compose.yaml.

A tag can move to other content; a digest cannot. `make propose-digests` puts the change into a pull request,
so that a person sees that a tag has moved.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

from monitoring.deploy.docker import docker
from steps.chain.pipeline import PROJECT
from steps.data.errors import UserError

COMPOSE = PROJECT / "monitoring" / "deploy" / "compose.yaml"
BRANCH = "image-digests"
TITLE = "Digests of the stack's images"
_IMAGE = re.compile(
    r"^(?P<key> +image: )(?P<tag>[\w./-]+:[\w.-]+)(?:@sha256:[0-9a-f]{64})?(?P<rest>.*)$", re.M
)


def with_digests(text: str, resolve: Callable[[str], str]) -> str:
    """compose.yaml with `@sha256:...` after each tag that is not a variable; `resolve` gives the digest."""
    return _IMAGE.sub(
        lambda match: f"{match['key']}{match['tag']}@{resolve(match['tag'])}{match['rest']}", text
    )


def digest(tag: str) -> str:
    """Ask the registry for the digest of a tag. Raises UserError if it gives none."""
    answer = docker("buildx", "imagetools", "inspect", tag, "--format", "{{.Manifest.Digest}}")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", answer):
        raise UserError(f"the registry gives no digest of {tag}: {answer[:100]}")
    return answer


def propose() -> str:
    """Commit compose.yaml to its own branch and open a pull request; returns a sentence about the result."""
    if not _run("git", "status", "--porcelain", str(COMPOSE)):
        return "every digest is as it was"
    author = ["-c", "user.name=github-actions", "-c", "user.email=actions@users.noreply.github.com"]
    _run("git", "switch", "--force-create", BRANCH)
    _run("git", *author, "commit", "--message", TITLE, str(COMPOSE))
    _run("gh", "auth", "setup-git")
    _run("git", "push", "--force", "origin", BRANCH)
    if _run("gh", "pr", "list", "--head", BRANCH, "--json", "number", "--jq", ".[].number"):
        return "the open pull request has the new digests"
    body = "A tag of an image of the stack means other content than before, or got its first digest."
    return _run("gh", "pr", "create", "--head", BRANCH, "--title", TITLE, "--body", body)


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> int:
    """Write or propose; exit code 1 with the reason if that fails."""
    action = sys.argv[1] if len(sys.argv) > 1 else "write"
    try:
        if action == "propose":
            print(f"digests: {propose()}")
        else:
            text = COMPOSE.read_text(encoding="utf-8")
            COMPOSE.write_text(with_digests(text, digest), encoding="utf-8")
    except UserError as error:
        print(f"digests: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
