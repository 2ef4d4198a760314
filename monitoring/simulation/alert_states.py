"""What Grafana's alerting makes of one series of values: `for`, keep firing, no data, failure.

Grafana evaluates a rule at each interval and keeps a state for each series; this is that state machine for
one series, so that a scenario's alerts can be told without waiting for a Grafana.
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
    """Whether a value is beyond the limit; NaN never is."""
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

    `lasts` and `keep` are `for` and `keepFiringFor` in seconds; `no_data` and `failure` what the rule says of
    evaluations without data or with an error: Normal (OK), Alerting, KeepLast, or a state of their own.
    """
    state: State = "Normal"
    since = 0
    for moment, seen in enumerate(observations):
        now = moment * interval
        beyond = _beyond(seen, relation, limit, no_data, failure)
        if beyond is None:
            continue
        if beyond in ("NoData", "Error"):
            state, since = ("NoData" if beyond == "NoData" else "Error"), now
        elif beyond == "yes":
            if state not in ("Pending", "Alerting"):
                state, since = ("Alerting" if state == "Recovering" else "Pending"), now
            if state == "Pending" and now - since >= lasts:
                state, since = "Alerting", now
        elif state in ("Alerting", "Recovering") and keep > 0:
            if state == "Alerting":
                state, since = "Recovering", now
            if now - since >= keep:
                state, since = "Normal", now
        else:
            state, since = "Normal", now
    return state


def _beyond(seen: Observation, relation: str, limit: float, no_data: str, failure: str) -> str | None:
    """ "yes", "no", a state of its own, or None where the last state is kept."""
    if isinstance(seen, float | int):
        return "yes" if breaches(float(seen), relation, limit) else "no"
    rule = no_data if seen == "no data" else failure
    return {"OK": "no", "Alerting": "yes", "KeepLast": None}.get(
        rule, "NoData" if seen == "no data" else "Error"
    )
