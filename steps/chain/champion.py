"""The champion of a registered model and the anchor of its comparisons: finding, loading, replacing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from monitoring import reference as references
from steps.chain import registry, tracking
from steps.data.errors import UserError
from steps.data.schema import registered_name
from steps.models import saved
from steps.models.candidate import Rival

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow.entities.model_registry import ModelVersion

    from steps.chain.attempts import Attempt
    from steps.chain.context import Context, StepRun
    from steps.chain.values import Values
    from steps.models.candidate import Role


@dataclass(frozen=True)
class Incumbents:
    """The versions of the registered model `name` that a candidate is compared with; None where absent."""

    name: str
    champion: ModelVersion | None
    anchor: ModelVersion | None

    @property
    def champion_number(self) -> str | None:
        return None if self.champion is None else str(self.champion.version)

    @property
    def anchor_number(self) -> str | None:
        return None if self.anchor is None else str(self.anchor.version)

    @property
    def by_role(self) -> list[tuple[Role, ModelVersion]]:
        """The versions that exist, by role."""
        versions: list[tuple[Role, ModelVersion | None]] = [
            ("champion", self.champion),
            ("anchor", self.anchor),
        ]
        return [(role, version) for role, version in versions if version is not None]


def incumbents(step: Context[Values], data: StepRun) -> Incumbents:
    """Champion and anchor of the registered model for the rows that preprocess prepared.

    A champion without an anchor becomes the anchor. An anchor without a champion is left over from a
    promotion that was interrupted; it is ignored, and the next promotion sets it again.
    """
    name = registered_name(step.schema, data.tags["data_kind"])
    champion = registry.alias_version(step.client, name, registry.CHAMPION)
    if champion is None:
        return Incumbents(name, None, None)
    anchor = registry.alias_version(step.client, name, registry.ANCHOR)
    if anchor is None:
        step.client.set_registered_model_alias(name, registry.ANCHOR, champion)
        step.log.info(
            "there was no anchor: version %s of %s, the champion, is the anchor from now on", champion, name
        )
        anchor = champion
    return Incumbents(
        name, step.client.get_model_version(name, champion), step.client.get_model_version(name, anchor)
    )


def load(step: Context[Values], role: Role, version: ModelVersion) -> Rival:
    """A registered version, loaded; an anchor whose files are gone has no model.

    Raises UserError where the files of the champion are gone.
    """
    run_id = str(version.run_id)
    if tracking.has_artifacts(step.client, run_id, ("model/MLmodel", "reference.json")):
        model = saved.load(step.fetch(run_id, "model"))
        reference = references.parse(step.fetch_json(run_id, "reference.json"))
        return Rival(role, str(version.version), model, reference)
    if role == "champion":
        raise UserError(
            f"the model of version {version.version} of {version.name}, the champion, is gone from run "
            f"{run_id[:8]}; no model can be compared with it. Restore its artifacts, or go back with -P "
            f"rollback={version.name}"
        )
    return Rival(role, str(version.version), None, None)


def run_tags(step: Context[Values], version: ModelVersion | None) -> Mapping[str, str] | None:
    """Tags of the run that fitted a version; None without a version."""
    if version is None:
        return None
    tags: Mapping[str, str] = step.client.get_run(str(version.run_id)).data.tags
    return tags


def install(step: Context[Values], attempt: Attempt) -> str:
    """Register the candidate of a promoted attempt and make it champion; the number of its version.

    The anchor moves before the champion: a process that is killed in between leaves the old champion in
    place, and the same command continues.
    """
    tags = {**attempt.version_tags, "promote_run_id": attempt.run_id}
    if attempt.approval is not None:
        tags |= {"approved_by": attempt.approval.user, "approved_because": attempt.approval.why[:500]}
    version = registry.register(step.client, attempt.model, str(attempt.candidate_run_id), tags)
    registry.wait_ready(step.client, attempt.model, version)
    if attempt.moves_anchor:
        step.client.set_registered_model_alias(attempt.model, registry.ANCHOR, version)
    registry.move_champion(step.client, attempt.model, version)
    return version


def promoted_line(version: str, previous: str | None, attempt: Attempt) -> str:
    """The message that a version became champion."""
    return (
        f"promote: version {version} of {attempt.model} is @champion now"
        + (f", version {previous} @previous" if previous else "")
        + (", and the @anchor of later comparisons" if attempt.moves_anchor else "")
    )
