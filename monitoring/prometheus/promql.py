"""Building blocks of the recording rules: rules, groups, windows, and formulas that PromQL lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import NamedTuple

# How often the counts of a day are read from the counters: all samples of a day, of every replica. What reads
# them looks back over two of those times, so that a restart leaves no gap.
DAY_INTERVAL, DAY_HOLDS = "10m", "21m"
# The labels that every series about a model keeps.
MODEL = "model_name, model_version"
LN_10 = math.log(10)
LOG_GAMMA_CONSTANT = 1 - math.log(2 * math.pi) / 2


class Rule(NamedTuple):
    """A recording rule; rules may share a name if their labels differ."""

    record: str
    expr: str
    labels: Mapping[str, str]


class Group(NamedTuple):
    """Rules that are evaluated in this order, so that a rule sees the new results of earlier rules.

    interval: how often. At most 4m, since an instant query looks back five minutes; counts of a day are read
    by `last_over_time` alone.
    """

    name: str
    rules: Sequence[Rule]
    interval: str


class Counted(NamedTuple):
    """A counter to read in windows: the recorded names, its selector, and the remaining labels.

    name: of the increases by window; days: of the increase in one day, from which longer windows are summed;
    absent: the value of a series that is not exported.
    """

    name: str
    days: str
    counter: str
    by: str = ""
    absent: str = ""


def rule(record: str, expr: str, **labels: str) -> Rule:
    """A recording rule."""
    return Rule(record, expr.strip(), labels)


def block(expr: str) -> str:
    """The expression in brackets, on separate lines."""
    return "(\n" + indent(expr.strip(), "  ") + "\n)"


def log_gamma(x: str) -> str:
    """PromQL for ln Gamma(x) + x + `LOG_GAMMA_CONSTANT`, x > 0, within 5e-4.

    What is linear in x cancels in every ratio of these rules. Stirling's series at x + 1 with its tail as a
    continued fraction (Stieltjes), and back by one factor: each mention of x is a join of all bins.
    """
    z = f"({x} + 1)"
    return f"({x} + 0.5) * ln{z} - ln({x}) + 1 / (12 * {z} + 0.4 / {z})"


def increase(counted: Counted, window: str) -> str:
    """Increase of a counter in a window of at most a day, summed over replicas."""
    total = f"sum by ({counted.by}) (increase({counted.counter}[{window}]))"
    return f"{total}\nor {counted.absent}" if counted.absent else total


def count_of_day(counted: Counted) -> Rule:
    """The increase of the last day, from which all windows of days are made."""
    return rule(counted.days, increase(counted, "1d"))


def sum_of_days(counted: Counted, days: int) -> str:
    """Increase in the last `days` days, from what was recorded of each: raw samples would be millions.

    The increase of one day is read from the counters, so it holds what they counted while Prometheus was
    away; where Prometheus was away when a day ended, the last record within six hours before stands in.
    """
    today = f"last_over_time({counted.days}[{DAY_HOLDS}])"
    earlier = [
        f'or label_replace(last_over_time({counted.days}[6h] offset {day}d), "day", "{day}", "", "")'
        for day in range(1, days)
    ]
    return f"sum by ({counted.by}) {block(chr(10).join([today, *earlier]))}" if earlier else today


def short_windows(counted: Counted, windows: Sequence[str]) -> list[Rule]:
    """Increases in windows of less than a day."""
    return [rule(counted.name, increase(counted, window), window=window) for window in windows]


def day_windows(counted: Counted, windows: Sequence[str]) -> list[Rule]:
    """Increases in windows of days such as `1d` and `14d`."""
    return [
        rule(counted.name, sum_of_days(counted, int(window.removesuffix("d"))), window=window)
        for window in windows
    ]


def below(series: str, by: str) -> str:
    """PromQL for the sum of `series` over all lower bins, by bin and `by` (which the series has too).

    PromQL has no running sum over a label. A bin is two digits, so what lies below it is what has a smaller
    first digit, and what has the same first and a smaller second: two joins, whatever the number of bins.
    """
    split = (
        f'label_replace(label_replace({series}, "ten", "$1", "bin", "(.).+"), "one", "$1", "bin", ".+(.)")'
    )
    tens = "\nor ".join(
        f'label_replace(sum by ({by}) ({series}{{bin=~"[0-{ten - 1}]."}}), "ten", "{ten}", "", "")'
        for ten in range(1, 10)
    )
    ones = "\nor ".join(
        f'label_replace(sum by (ten, {by}) (label_replace({series}{{bin=~".[0-{digit - 1}]"}},'
        f' "ten", "$1", "bin", "(.).+")), "one", "{digit}", "", "")'
        for digit in range(1, 10)
    )
    zero = block(f"0 * {split}")
    lower_tens = f"{zero} + on (ten, {by}) group_left () {block(tens)} or {zero}"
    lower_ones = f"{zero} + on (ten, one, {by}) group_left () {block(ones)} or {zero}"
    return block(f"sum by (bin, {by}) {block(lower_tens)}\n+ sum by (bin, {by}) {block(lower_ones)}")


def as_yaml(rule_groups: Sequence[Group]) -> str:
    """A Prometheus rule file."""
    lines = ["groups:"]
    for group in rule_groups:
        lines += [f"  - name: {group.name}", f"    interval: {group.interval}", "    rules:"]
        for recorded in group.rules:
            lines += [f"      - record: {recorded.record}"]
            if recorded.labels:
                pairs = ", ".join(f'{name}: "{value}"' for name, value in recorded.labels.items())
                lines += [f"        labels: {{{pairs}}}"]
            lines += ["        expr: |-", indent(recorded.expr, " " * 10)]
    return "\n".join(lines) + "\n"
