"""Going back to @previous, and the models that a person rolled back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steps.chain import registry, tracking, verdict
from steps.chain.verdict import Verdict
from steps.data.errors import UserError
from steps.data.schema import registered_names

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from steps.chain.context import Context, Result
    from steps.chain.values import Promote

# The tag of a version that a person rolled back.
ROLLED_BACK = "rolled_back"


def roll_back(step: Context[Promote]) -> Result:
    """Exchange @champion and @previous of the model that `rollback` names; "true" is the schema's model.

    The tags are set first, so that the same command repairs an interrupted rollback. Raises UserError where
    no model, or more than one, has a version to go back to.
    """
    requested = step.values.rollback
    names = registered_names(step.schema) if requested == "true" else (requested,)
    targets = {name: version for name in names if (version := _previous(step, name)) is not None}
    if not targets:
        raise UserError(f"there is no @previous version of {' or '.join(names)} to go back to")
    if len(targets) > 1:
        raise UserError(
            f"several models can go back; name one: {' or '.join(f'-P rollback={name}' for name in targets)}"
        )
    ((name, previous),) = targets.items()
    champion = registry.alias_version(step.client, name, registry.CHAMPION)
    if champion is not None:
        step.client.set_model_version_tag(name, champion, ROLLED_BACK, f"to version {previous}")
    if ROLLED_BACK in step.client.get_model_version(name, previous).tags:
        step.client.delete_model_version_tag(name, previous, ROLLED_BACK)
    registry.move_champion(step.client, name, previous)
    line = f"promote: version {previous} of {name} is @champion again, version {champion} @previous"
    anchor = registry.alias_version(step.client, name, registry.ANCHOR)
    return verdict.conclude(
        step, Verdict("rolled_back", name, step.run_id, previous, champion, anchor=anchor), [line]
    )


def rolled_back_version(step: Context[Promote], name: str, behaviour: str) -> ModelVersion | None:
    """The version of a registered model that has this behaviour digest and was rolled back, or None."""
    for version in step.client.search_model_versions(f"name = {tracking.quoted(name)}"):
        if ROLLED_BACK in version.tags and version.tags.get("behaviour_digest") == behaviour:
            return version
    return None


def _previous(step: Context[Promote], name: str) -> str | None:
    """The version that a model can go back to, or None."""
    previous = registry.alias_version(step.client, name, registry.PREVIOUS)
    return None if previous == registry.alias_version(step.client, name, registry.CHAMPION) else previous
