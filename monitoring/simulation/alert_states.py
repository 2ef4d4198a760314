"""The state of a Grafana alert for one series of values: `for`, keep firing, no data, failure.

Grafana evaluates a rule at each interval and keeps a state for each series. This is its state machine for one
series, so that a scenario's alerts can be computed without a Grafana.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

State = Literal["Normal", "Pending", "Alerting", "Recovering", "NoData", "Error"]
Observation = float | Literal["no data", "failure"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "gt": lambda value, limit: value > limit,
    "gte": lambda value, limit: value >= limit,
    "lt": lambda value, limit: value < limit,
    "lte": lambda value, limit: value <= limit,
}


def seconds(duration: str) -> int:
    """Seconds of a duration such as 90s, 10m, 1h or 1h30m."""
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration))


def breaches(value: float, relation: str, limit: float) -> bool:
    """Whether a value is beyond the limit; NaN is not."""
    return _RELATIONS[relation](value, limit)


def final_state(
    observations: Sequence[Observation],
    relation: str,
    limit: float,
    *,
    lasts: int = 0,
    keep: int = 0,
    no_data: str = "NoData",
    failure: str = "Error",
    interval: int = 60,
) -> State:
    """State after a series of evaluations, `interval` seconds apart, starting from Normal.

    `lasts` and `keep` are `for` and `keepFiringFor` in seconds; `no_data` and `failure` are the rule's states
    for evaluations without data or with an error: OK, Alerting, KeepLast, NoData or Error.
    """
    state: State = "Normal"
    since = 0
    for moment, observation in enumerate(observations):
        elapsed = moment * interval
        beyond = _beyond(observation, relation, limit, no_data, failure)
        if beyond is None:
            continue
        if beyond in ("NoData", "Error"):
            state, since = ("NoData" if beyond == "NoData" else "Error"), elapsed
        elif beyond == "yes":
            if state not in ("Pending", "Alerting"):
                state, since = ("Alerting" if state == "Recovering" else "Pending"), elapsed
            if state == "Pending" and elapsed - since >= lasts:
                state, since = "Alerting", elapsed
        elif state in ("Alerting", "Recovering") and keep > 0:
            if state == "Alerting":
                state, since = "Recovering", elapsed
            if elapsed - since >= keep:
                state, since = "Normal", elapsed
        else:
            state, since = "Normal", elapsed
    return state


def _beyond(observation: Observation, relation: str, limit: float, no_data: str, failure: str) -> str | None:
    """Whether an observation breaches: "yes", "no", "NoData", "Error", or None where the state stays."""
    if isinstance(observation, float | int):
        return "yes" if breaches(float(observation), relation, limit) else "no"
    rule = no_data if observation == "no data" else failure
    return {"OK": "no", "Alerting": "yes", "KeepLast": None}.get(
        rule, "NoData" if observation == "no data" else "Error"
    )
