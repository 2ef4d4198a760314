"""The trials of a search: what one is, how a tracking store holds it, and what all of them together say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from steps.data.errors import UserError
from steps.models.families import Family, Hyperparameter, Value

Space = Mapping[Family, Sequence[Hyperparameter]]

# A family needs so many finished trials before the importance of its hyperparameters means anything.
_ENOUGH_TRIALS = 8
_REASON_LENGTH = 500


class RecordError(UserError):
    """A recorded trial that is not one of the search space at hand."""


@dataclass(frozen=True)
class Trial:
    """One trial that is over. `loss` is None where it failed, and `reason` then says why."""

    number: int
    family: Family
    params: Mapping[str, Value]
    loss: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


def failure_reason(error: BaseException) -> str:
    """Why a trial failed, without any value of a row.

    Messages of this project and of the operating system hold none and are kept. Those of libraries may quote
    one ("could not convert string to float: ..."), so of other errors only type and place are told.
    """
    kind = type(error).__name__
    if isinstance(error, UserError | OSError):
        return f"{kind}: {error}"[:_REASON_LENGTH]
    place, trace = "", error.__traceback__
    while trace is not None:
        place = f" in {trace.tb_frame.f_globals.get('__name__', '?')}.{trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return f"{kind}{place}"[:_REASON_LENGTH]


@dataclass(frozen=True)
class Record:
    """A trial as a tracking store holds it: one flat dictionary each of parameters, metrics and tags."""

    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


def to_record(trial: Trial) -> Record:
    """The trial as flat parameters, metrics and tags; `from_record` gives the same trial back."""
    params = {"family": trial.family, **{name: repr(value) for name, value in trial.params.items()}}
    metrics = dict(trial.metrics) if trial.loss is None else {**trial.metrics, "loss": trial.loss}
    tags = {"trial": str(trial.number), "trial_status": "failed" if trial.loss is None else "finished"}
    if trial.reason:
        tags["trial_reason"] = trial.reason
    return Record(params, metrics, tags)


def from_record(
    params: Mapping[str, str], metrics: Mapping[str, float], tags: Mapping[str, str], space: Space
) -> Trial:
    """The trial that `to_record` wrote down. Raises RecordError where the record is not one of this space."""
    try:
        family = cast(Family, params["family"])
        values = {
            hyperparameter.name: (int if hyperparameter.integer else float)(params[hyperparameter.name])
            for hyperparameter in space[family]
        }
        number, failed = int(tags["trial"]), tags["trial_status"] == "failed"
        loss = None if failed else float(metrics["loss"])
    except (KeyError, ValueError) as error:
        raise RecordError(
            f"a recorded trial does not fit the search space ({error}): start the tuning afresh"
        ) from error
    others = {name: float(value) for name, value in metrics.items() if name != "loss"}
    return Trial(number, family, values, loss, others, tags.get("trial_reason", ""))


def _loss(trial: Trial) -> float:
    return float("inf") if trial.loss is None else trial.loss


def importance(trials: Sequence[Trial], space: Space) -> dict[Family, dict[str, float]]:
    """Share of each hyperparameter in what its family's loss depends on; the shares of a family sum to 1.

    A random forest learns the ranks of the finished trials' losses from their hyperparameters on the scale of
    the search; a hyperparameter counts by how much worse the forest gets when its values are shuffled
    (permutation importance: Breiman 2001, Random Forests; for hyperparameters, as in Hutter et al. 2014 with
    fANOVA). Ranks keep one disastrous trial from drowning the rest. Families with fewer than 8 finished
    trials are left out. It describes where the search has looked, and says nothing of what was never tried.
    """
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    result: dict[Family, dict[str, float]] = {}
    for family, hyperparameters in space.items():
        own = [trial for trial in trials if trial.family == family and trial.loss is not None]
        if len(own) < _ENOUGH_TRIALS:
            continue
        X = np.array([[h.position(trial.params[h.name]) for h in hyperparameters] for trial in own])
        ranks = np.argsort(np.argsort([_loss(trial) for trial in own])) / (len(own) - 1)
        forest = RandomForestRegressor(100, min_samples_leaf=2, random_state=0).fit(X, ranks)
        found = permutation_importance(forest, X, ranks, n_repeats=20, random_state=0).importances_mean.clip(
            min=0
        )
        if found.sum() > 0:
            result[family] = {
                h.name: float(share) for h, share in zip(hyperparameters, found / found.sum(), strict=True)
            }
    return result
