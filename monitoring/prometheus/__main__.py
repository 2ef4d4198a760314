"""Writes the recording rules: each formula is written once; `rules.yml` repeats it for windows and signals.

    python -m monitoring.prometheus           writes rules.yml
    python -m monitoring.prometheus --check   exits 1 if rules.yml is stale

Counts are summed over replicas; facts of the reference are the same in each replica and are taken once
(`max by`). A name gives the remaining labels (except `model_name` and `model_version`, which all rules on the
model keep), metric and operation. An unknown figure has no series.
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
    """The rules by depth: level 0 reads only raw metrics, level n only levels below n.

    `promtool tsdb create-blocks-from rules` does not see what its own rules produce, so a backfill takes one
    level after the other.
    """
    rules = [recorded for group in groups() for recorded in group.rules]
    names = {recorded.record for recorded in rules}
    depth: dict[str, int] = {}
    changed = True
    while changed:
        changed = False
        for recorded in rules:
            used = set(re.findall(r"[a-z_]+(?::[a-z_0-9]+)+", recorded.expr)) & names - {recorded.record}
            level_of_rule = max([depth.get(recorded.record, 0), *(depth.get(name, 0) + 1 for name in used)])
            changed = changed or level_of_rule != depth.get(recorded.record)
            depth[recorded.record] = level_of_rule
    return [
        [recorded for recorded in rules if depth[recorded.record] == level]
        for level in range(max(depth.values()) + 1)
    ]


def rule_file() -> str:
    """The text of rules.yml."""
    return "# Written by `python -m monitoring.prometheus`: change the formulas there.\n" + as_yaml(groups())


def main(argv: Sequence[str] | None = None) -> int:
    """Write rules.yml, or check whether it is stale."""
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
