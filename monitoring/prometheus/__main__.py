"""Writes the recording rules: each formula stands once, `rules.yml` repeats it for windows and signals.

    python -m monitoring.prometheus           writes rules.yml
    python -m monitoring.prometheus --check   exits 1 if rules.yml is not what would be written

Counts are summed over replicas; what the reference says is the same from each of them and taken once
(`max by`). A name gives the labels that are left (but for `model_name` and `model_version`, which all rules
on the model keep), metric and operation. What is not known has no series.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from monitoring.prometheus import by_group, drift, performance, service
from monitoring.prometheus.promql import DAY_INTERVAL, MODEL, Group, Rule, as_yaml, count_of_day, rule

RULES = Path(__file__).with_name("rules.yml")


def groups() -> list[Group]:
    """All recording rules. Windows of days change slowly and cost most: they are counted less often.

    The counts of a day are one group, so that labels and rows are counted at the same moment.
    """
    counted = [
        *service.COUNTED.values(),
        *drift.counted(),
        *performance.counted(),
        *by_group.COUNTED,
    ]
    age = f"time() - max by ({MODEL}) (model_trained_timestamp_seconds)"
    return [
        Group("days", [count_of_day(one) for one in counted], DAY_INTERVAL),
        Group("service_days", service.day_rules(), "4m"),
        Group("service", service.rules(), "1m"),
        Group("features_days", drift.feature_day_rules(), "4m"),
        Group("features", drift.feature_rules(), "4m"),
        Group("scores_days", performance.score_day_rules(), "4m"),
        Group("scores", performance.score_rules(), "4m"),
        Group("labels", performance.label_rules(), "4m"),
        Group("people", by_group.rules(), "4m"),
        Group("model", [rule("version:model_age:seconds", age)], "1m"),
    ]


def levels() -> list[list[Rule]]:
    """The rules by depth: those of level 0 read only raw metrics, those of level n only levels below n.

    `promtool tsdb create-blocks-from rules` does not see what its own rules produce, so a backfill takes one
    level after the other.
    """
    rules = [one for group in groups() for one in group.rules]
    names = {one.record for one in rules}
    depth: dict[str, int] = {}
    changed = True
    while changed:
        changed = False
        for one in rules:
            used = set(re.findall(r"[a-z_]+(?::[a-z_0-9]+)+", one.expr)) & names - {one.record}
            at = max([depth.get(one.record, 0), *(depth.get(name, 0) + 1 for name in used)])
            changed = changed or at != depth.get(one.record)
            depth[one.record] = at
    return [[one for one in rules if depth[one.record] == level] for level in range(max(depth.values()) + 1)]


def rule_file() -> str:
    """The text of rules.yml."""
    return "# Written by `python -m monitoring.prometheus`: change the formulas there.\n" + as_yaml(groups())


def main(argv: Sequence[str] | None = None) -> int:
    """Write rules.yml, or say whether it is fresh."""
    parser = argparse.ArgumentParser(description="Write the recording rules of Prometheus.")
    parser.add_argument("--check", action="store_true", help="only say whether rules.yml is up to date")
    if not parser.parse_args(argv).check:
        RULES.write_text(rule_file(), encoding="utf-8")
        return 0
    if RULES.exists() and RULES.read_text(encoding="utf-8") == rule_file():
        return 0
    print(f"{RULES.name} is out of date: run python -m monitoring.prometheus", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
