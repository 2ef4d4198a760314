"""The trials of a search, and how a tracking store holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from steps.data.errors import UserError
from steps.models.families import Family, Hyperparameter, Value

Space = Mapping[Family, Sequence[Hyperparameter]]

_REASON_LENGTH = 500


class RecordError(UserError):
    """A recorded trial that does not fit the present search space."""


@dataclass(frozen=True)
class Trial:
    """A trial that is over. `loss` is None where it failed, and `reason` then says why."""

    number: int
    family: Family
    params: Mapping[str, Value]
    loss: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


def failure_reason(error: BaseException) -> str:
    """Why a trial failed, without any value of a row.

    Messages of this project and of the operating system hold no value and are kept. A library's message may
    quote one ("could not convert string to float: ..."), so other errors give only their type and function.
    """
    kind = type(error).__name__
    if isinstance(error, UserError | OSError):
        return f"{kind}: {error}"[:_REASON_LENGTH]
    function, trace = "", error.__traceback__
    while trace is not None:
        function = f" in {trace.tb_frame.f_globals.get('__name__', '?')}.{trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return f"{kind}{function}"[:_REASON_LENGTH]


@dataclass(frozen=True)
class TrialRecord:
    """A trial in a tracking store: a flat dictionary each of parameters, metrics and tags."""

    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


def to_record(trial: Trial) -> TrialRecord:
    """The trial as flat parameters, metrics and tags; `from_record` gives the same trial back."""
    params = {"family": trial.family, **{name: repr(value) for name, value in trial.params.items()}}
    metrics = dict(trial.metrics) if trial.loss is None else {**trial.metrics, "loss": trial.loss}
    tags = {"trial": str(trial.number), "trial_status": "failed" if trial.loss is None else "finished"}
    if trial.reason:
        tags["trial_reason"] = trial.reason
    return TrialRecord(params, metrics, tags)


def from_record(
    params: Mapping[str, str], metrics: Mapping[str, float], tags: Mapping[str, str], space: Space
) -> Trial:
    """The trial that `to_record` recorded. Raises RecordError where the record does not fit the space."""
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
    trial_metrics = {name: float(value) for name, value in metrics.items() if name != "loss"}
    return Trial(number, family, values, loss, trial_metrics, tags.get("trial_reason", ""))
