"""A candidate for promotion on its test rows: alone, and beside the champion and the anchor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from steps.data.files import TARGET_COLUMN
from steps.measures import comparison, promotion
from steps.measures.promotion import Against, Finding, Judgement
from steps.models import cross_validation, families, other_schema
from steps.models.families import Family

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from monitoring.reference import Reference
    from steps.data.schema import Schema

Role = Literal["champion", "anchor"]
_FOLDS = 5


@dataclass(frozen=True)
class Rival:
    """A registered version that the candidate is compared with; `model` is None where it is gone."""

    role: Role
    version: str
    model: Any
    reference: Reference | None


@dataclass(frozen=True)
class Judged:
    """The judgement, and for each role without a comparison the reason."""

    judgement: Judgement
    not_compared: Mapping[Role, str]


def judge(
    model: Any,
    rivals: Sequence[Rival],
    test: pd.DataFrame,
    schema: Schema,
    shown_groups: Collection[str],
    attempt: int,
) -> Judged:
    """Compare the candidate with its rivals, and decide.

    `test` holds features and outcome; `attempt` counts the promotion attempts of the last 365 days. Of the
    schema's subgroups only `shown_groups` are judged: the others are too small to be published.
    """
    outcome = test[TARGET_COLUMN].to_numpy()
    groups = {group.name: group.mask(test) for group in schema.subgroups if group.name in shown_groups}
    risk = families.predict_risk(model, test[list(schema.feature_names)])
    comparisons: dict[Role, Against] = {}
    not_compared: dict[Role, str] = {}
    for rival in rivals:
        twin = next((earlier for earlier in rivals if earlier.version == rival.version), rival)
        if twin.role in comparisons:
            comparisons[rival.role] = replace(comparisons[twin.role], label=f"the {rival.role}")
            continue
        try:
            comparisons[rival.role] = _against(rival, test, risk, schema, groups)
        except other_schema.CannotAskError as error:
            reason = f"version {rival.version}, the {rival.role}, cannot be compared with: {error}"
            not_compared[rival.role] = reason
    figures = comparison.measure(outcome, risk, groups)
    champion, anchor = comparisons.get("champion"), comparisons.get("anchor")
    judgement = promotion.judge(figures, champion, anchor, schema.gates, max(attempt, 1))
    return Judged(judgement, not_compared)


def _against(
    rival: Rival,
    test: pd.DataFrame,
    risk: NDArray[np.float64],
    schema: Schema,
    groups: Mapping[str, NDArray[np.bool_]],
) -> Against:
    """Compare the candidate with another version on the same rows. Raises CannotAskError."""
    if rival.model is None or rival.reference is None:
        raise other_schema.CannotAskError("its model is gone from the store")
    answers = other_schema.ask(rival.model, rival.reference, test, schema.target.name)
    outcome, is_known = test[TARGET_COLUMN].to_numpy(), ~answers.unknown
    threshold = rival.reference.score.threshold
    change = comparison.compare(
        outcome[is_known],
        risk[is_known],
        answers.risk[is_known],
        threshold,
        {name: mask[is_known] for name, mask in groups.items()},
    )
    label = f"the {rival.role}"
    if is_known.all():
        return Against(label, change)
    on_all_rows = comparison.compare(outcome, risk, answers.risk, threshold, groups)
    return Against(label, change, on_all_rows, int(answers.unknown.sum()))


def cross_validated(
    family: str, settings: Mapping[str, Any], rows: pd.DataFrame, schema: Schema, seed: int
) -> Finding:
    """Cross-validated ROC AUC of a candidate's settings, for data with few test rows."""
    sample = cross_validation.sample(rows, schema, cross_validation.TRIAL_ROWS)
    folds = cross_validation.folds(sample, schema, _FOLDS)
    measured = cross_validation.cross_validate(cast(Family, family), settings, sample, schema, folds, seed)
    mean, spread = measured["roc_auc_mean"], measured["roc_auc_spread"]
    detail = f"on all {len(sample):,} rows; the interval is one standard deviation over the folds"
    name = f"ROC AUC in {_FOLDS}-fold cross-validation"
    return Finding(name, mean, mean - spread, mean + spread, "", "shown", detail)
