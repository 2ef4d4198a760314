"""How often the alarms ring for nothing, and how many rows pass until they ring for something.

    python -m benchmarks.alarm_quality [--half-years 30] [--seeds 200]

A system of all the schema's features and a model's score, its rows drawn from the bundled cohort and binned
as the sidecar bins them, is looked at every hour with the formulas of the recording rules
(steps/measures/evidence.py). Traffic is Poisson, 1,000 rows a day; late labels 200 a day. Each half-year has
a reference of its own, itself a sample. The bound of one false alarm a year holds for independent rows; a
table apart counts alarms where they are not (`MIXES`). Writes benchmarks/results/alarm_quality.json and
prints the tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitoring.sidecar.counting import LOT_ROWS
from steps.measures import evidence

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results") / "alarm_quality.json"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Rows of a reference: what the targets are for, and what a small study has.
LARGE, SMALL = 150_000, 768
# Hours; the label windows of the recording rules are days.
WINDOWS = (1, 6, 12, 24, 72, 336)
LABEL_WINDOWS = (24, 168, 720, 2160)
HALF_YEAR = 24 * 365 // 2
ROWS_AN_HOUR = 1000 / 24
LABELS_AN_HOUR = 200 / 24
DAY = WINDOWS.index(24)
SHIFTS = (0.25, 0.10, 0.05)
RATIOS = (1.42, 1.24, 1.16)
# Median and 95th percentile of rows that a shift may go unseen, with a large reference.
TARGETS = {0.25: (700, 900), 0.10: (1200, 2400), 0.05: (3000, 3700)}
NEVER = np.inf
# Enough where an alarm rings several times a year.
DEPENDENT_HALF_YEARS = 4
# Seeds simulated at once, for memory.
CHUNK = 25


class Signal(NamedTuple):
    """One feature, or the score: the bin of each of the population's rows."""

    name: str
    codes: Ints
    bins: int

    @property
    def shares(self) -> Floats:
        """Share of the population in each bin."""
        return np.bincount(self.codes, minlength=self.bins) / len(self.codes)


class Rule(NamedTuple):
    """An alarm rule's value, which rings from `limit` on."""

    name: str
    limit: float


def in_windows(hourly: NDArray[np.float64] | Ints, windows: Sequence[int], warm_up: int) -> Floats:
    """Sums over the last hours at each look after `warm_up`.

    (..., hours, bins) -> (..., windows, looks, bins).
    """
    total = np.concatenate([np.zeros_like(hourly[..., :1, :]), hourly.cumsum(-2)], axis=-2)
    ends = np.arange(warm_up + 1, hourly.shape[-2] + 1)
    return np.stack([total[..., ends, :] - total[..., ends - window, :] for window in windows], axis=-3)


def alarm_rules(signals: int) -> tuple[Rule, ...]:
    """The rules compared: this project's, and what monitoring usually does."""
    return (
        Rule("evidence", evidence.evidence_limit(signals)),
        Rule("PSI > 0.2, 1 day", 0.2),
        Rule("PSI > 0.1, 1 day", 0.1),
        Rule("PSI > critical (0.999), 1 day", 1.0),
        Rule("PSI > 0.1 and > critical, 1 day", 0.1),
    )


def values_of(counts: Floats, reference: Floats) -> list[Floats]:
    """Each rule's value at each look.

    Counts (..., windows, looks, bins) and reference (..., bins) -> (..., looks).
    """
    around = reference[..., None, None, :]
    alarm = evidence.drift_alarm(counts, around).max(-2)
    day = counts[..., DAY, :, :]
    psi = evidence.psi(day, reference[..., None, :])
    rows, reference_rows = day.sum(-1), reference.sum(-1)[..., None]
    critical = evidence.psi_critical(rows, reference_rows, counts.shape[-1])
    return [alarm, psi, psi, psi / critical, psi * (psi > critical)]


def episodes(ringing: NDArray[np.bool_]) -> int:
    """How often an alarm starts, (..., looks)."""
    return int(ringing[..., 0].sum() + (ringing[..., 1:] & ~ringing[..., :-1]).sum())


class Rows(NamedTuple):
    """Traffic: who is asked about and in which hour, (rows,) each; and whom a reference was made from."""

    people: Ints
    when: Ints
    reference: Ints


# Rows of a time in which nothing shifts, from a system, its hours and the rows of the reference.
Mix = Callable[[np.random.Generator, Sequence[Signal], int, int], Rows]


def independent(rng: np.random.Generator, signals: Sequence[Signal], hours: int, reference: int) -> Rows:
    """Every row is somebody else: what the evidence assumes."""
    population = len(signals[0].codes)
    sample = rng.integers(population, size=reference)
    rows = rng.poisson(ROWS_AN_HOUR, hours)
    return Rows(rng.integers(population, size=rows.sum()), np.repeat(np.arange(hours), rows), sample)


def in_lots(rng: np.random.Generator, signals: Sequence[Signal], hours: int, reference: int) -> Rows:
    """The same rows as the sidecar counts them: each comes with the last of its lot."""
    rows = independent(rng, signals, hours, reference)
    whole = len(rows.people) // LOT_ROWS * LOT_ROWS
    when = rows.when[:whole].reshape(-1, LOT_ROWS)[:, -1].repeat(LOT_ROWS)
    return Rows(rows.people[:whole], when, rows.reference)


def five_times_a_day(rng: np.random.Generator, signals: Sequence[Signal], hours: int, reference: int) -> Rows:
    """Each person is asked about five times within 24 hours, with the same answers."""
    population = len(signals[0].codes)
    sample = rng.integers(population, size=reference)
    first = rng.poisson(ROWS_AN_HOUR / 5, hours)
    people = np.repeat(rng.integers(population, size=first.sum()), 5)
    when = np.repeat(np.repeat(np.arange(hours), first), 5) + rng.integers(24, size=len(people))
    inside = when < hours
    return Rows(people[inside], when[inside], sample)


def fixed_list(rng: np.random.Generator, signals: Sequence[Signal], hours: int, reference: int) -> Rows:
    """Always the same 500 patients, while the reference was made from everybody."""
    rows = independent(rng, signals, hours, reference)
    patients = rng.integers(len(signals[0].codes), size=500)
    return rows._replace(people=patients[rng.integers(500, size=len(rows.people))])


def weekends(rng: np.random.Generator, signals: Sequence[Signal], hours: int, reference: int) -> Rows:
    """Other people on two days of seven: PSI 0.035 of one feature between them and the reference."""
    return _in_turns(rng, signals, hours, reference, 0.035, (np.arange(hours) // 24) % 7 >= 5)


def nights(rng: np.random.Generator, signals: Sequence[Signal], hours: int, reference: int) -> Rows:
    """Other people in 12 hours of 24: PSI 0.068 of one feature between them and the reference."""
    return _in_turns(rng, signals, hours, reference, 0.068, np.arange(hours) % 24 < 12)


def _in_turns(
    rng: np.random.Generator,
    signals: Sequence[Signal],
    hours: int,
    reference: int,
    psi: float,
    others_come: NDArray[np.bool_],
) -> Rows:
    """Two groups of people by the hour; the reference holds both in the shares in which they come.

    The first group is the population. A mixture lies between the groups, so they are further apart than
    either is from the reference: PSI grows with the square of the distance.
    """
    signal = max(signals, key=lambda one: one.bins)
    apart = psi / (1 - others_come.mean()) ** 2
    ratio = shifted(signal.shares, apart, rng) / signal.shares
    chance = np.cumsum(ratio[signal.codes])

    def others(size: int) -> Ints:
        return np.searchsorted(chance, rng.random(size) * chance[-1]).clip(max=len(chance) - 1)

    rows = independent(rng, signals, hours, reference)
    people, sample = rows.people.copy(), rows.reference.copy()
    theirs = others_come[rows.when]
    people[theirs] = others(int(theirs.sum()))
    in_reference = rng.random(reference) < others_come.mean()
    sample[in_reference] = others(int(in_reference.sum()))
    return Rows(people, rows.when, sample)


# What happens in practice where rows are not independent; nothing has shifted in any of them.
MIXES: Mapping[str, Mix] = {
    "independent rows": independent,
    "independent rows, counted in lots": in_lots,
    "each person five times a day": five_times_a_day,
    "a fixed list of 500 patients": fixed_list,
    "other people at weekends (PSI 0.035)": weekends,
    "other people at night (PSI 0.068)": nights,
}


def false_alarms(
    signals: Sequence[Signal],
    reference_rows: int,
    half_years: int,
    hours: int = HALF_YEAR,
    seed: int = 0,
    mix: Mix = independent,
) -> dict[str, int]:
    """Alarms by rule of all signals together when nothing has shifted; rows stay whole, so signals depend."""
    rules = alarm_rules(len(signals) + 1)
    found = dict.fromkeys((rule.name for rule in rules), 0)
    for half_year in range(half_years):
        rng = np.random.default_rng([seed, half_year])
        length = hours + WINDOWS[-1]
        people, when, sample = mix(rng, signals, length, reference_rows)
        for signal in signals:
            reference = np.bincount(signal.codes[sample], minlength=signal.bins).astype(float)
            cell = when * signal.bins + signal.codes[people]
            hourly = np.bincount(cell, minlength=length * signal.bins).reshape(length, signal.bins)
            counts = in_windows(hourly, WINDOWS, WINDOWS[-1])
            for rule, value in zip(rules, values_of(counts, reference), strict=True):
                found[rule.name] += episodes(value >= rule.limit)
    return found


def shifted(shares: Floats, psi: float, rng: np.random.Generator) -> Floats:
    """Shares in a random direction from `shares` at a PSI of `psi`: exponential tilting, by bisection."""
    direction = rng.normal(size=len(shares))
    direction = (direction - direction.mean()) / np.abs(direction - direction.mean()).max()
    low, high = 0.0, 50.0
    for _ in range(80):
        middle = (low + high) / 2
        log_share = np.log(np.maximum(shares, 1e-12)) + middle * direction
        tilted: Floats = np.exp(log_share - log_share.max())
        tilted /= tilted.sum()
        far = ((tilted - shares) * np.log(tilted / np.maximum(shares, 1e-12))).sum() > psi
        low, high = (low, middle) if far else (middle, high)
    return tilted


def rows_until_alarm(
    shares: Floats,
    psi: float,
    reference_rows: int,
    seeds: int,
    signals: int,
    days: int = 14,
    first_seed: int = 0,
) -> dict[str, Floats]:
    """Rows after a shift until each rule rings, for every seed; inf if it did not within `days`.

    Before the shift runs as much quiet traffic as the longest window holds; each seed shifts in a direction
    of its own.
    """
    if seeds > CHUNK:
        parts = [
            rows_until_alarm(
                shares, psi, reference_rows, min(CHUNK, seeds - first), signals, days, first + first_seed
            )
            for first in range(0, seeds, CHUNK)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    rules = alarm_rules(signals)
    after = 24 * days
    hourly = np.zeros((seeds, WINDOWS[-1] + after, len(shares)))
    reference = np.zeros((seeds, len(shares)))
    for seed in range(seeds):
        rng = np.random.default_rng([1, first_seed + seed])
        reference[seed] = rng.multinomial(reference_rows, shares)
        rows = rng.poisson(ROWS_AN_HOUR, hourly.shape[1])
        hourly[seed, : WINDOWS[-1]] = rng.multinomial(rows[: WINDOWS[-1]], shares)
        hourly[seed, WINDOWS[-1] :] = rng.multinomial(rows[WINDOWS[-1] :], shifted(shares, psi, rng))
    passed = hourly[:, WINDOWS[-1] :].sum(-1).cumsum(-1)
    values = values_of(in_windows(hourly, WINDOWS, WINDOWS[-1]), reference)
    return {rule.name: _first(value >= rule.limit, passed) for rule, value in zip(rules, values, strict=True)}


def _first(ringing: NDArray[np.bool_], passed: Floats) -> Floats:
    """What had passed at the first look that rang, (seeds, looks) -> (seeds,); inf if none did."""
    first = ringing.argmax(-1)
    return np.where(ringing.any(-1), np.take_along_axis(passed, first[:, None], -1)[:, 0], NEVER)


def outcome_chance(risk: Floats, ratio: float) -> Floats:
    """Chances of the outcome with the log odds off by the constant that makes observed / expected `ratio`."""
    logit = np.log(risk / (1 - risk))
    low, high = -5.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (low, middle)
            if (1 / (1 + np.exp(-logit - middle))).sum() > ratio * risk.sum()
            else (middle, high)
        )
    return 1 / (1 + np.exp(-logit - low))


def _label_sums(risk: Floats, edges: Floats, outcome: Floats, when: Ints, hours: int) -> list[Floats]:
    """Labels, positives and sums of risk by hour and score bin, (hours, bins) each."""
    bins = len(edges) + 1
    cell = when * bins + np.searchsorted(edges, risk, side="right")
    size = hours * bins
    sums = (np.bincount(cell, weights, minlength=size) for weights in (None, outcome, risk))
    return [total.reshape(hours, bins).astype(float) for total in sums]


def calibration_alarm(labels: Floats, positives: Floats, risks: Floats) -> Floats:
    """The rule's value: evidence where the calibration error reaches its floor, largest over windows."""
    found = evidence.calibration_evidence(positives, labels, risks).larger
    error = np.abs(positives - risks).sum(-1) / np.maximum(labels.sum(-1), 1)
    value: Floats = (found * (error >= evidence.CALIBRATION_FLOOR)).max(-2)
    return value


def calibration_looks(
    risk: Floats, chance_before: Floats, chance_after: Floats, seed: int, hours: int
) -> tuple[Floats, Floats]:
    """Alarm value and labels so far at each of `hours` looks; the chances change after the warm-up."""
    rng = np.random.default_rng([2, seed])
    warm_up = LABEL_WINDOWS[-1]
    labels = rng.poisson(LABELS_AN_HOUR, warm_up + hours)
    when = np.repeat(np.arange(len(labels)), labels)
    people = rng.integers(len(risk), size=labels.sum())
    chance = np.where(when < warm_up, chance_before[people], chance_after[people])
    outcome = (rng.random(len(people)) < chance).astype(float)
    # A token carries the risk in two bytes.
    carried = np.round(risk[people] * 65535) / 65535
    edges = np.quantile(risk, np.arange(1, 20) / 20)
    sums = (
        in_windows(hourly, LABEL_WINDOWS, warm_up)
        for hourly in _label_sums(carried, edges, outcome, when, len(labels))
    )
    return calibration_alarm(*sums), labels[warm_up:].cumsum()


def calibration_false_alarms(risk: Floats, half_years: int, signals: int, hours: int = HALF_YEAR) -> int:
    """Alarms of a perfectly calibrated model."""
    limit = evidence.evidence_limit(signals)
    return sum(
        episodes(calibration_looks(risk, risk, risk, half_year, hours)[0] >= limit)
        for half_year in range(half_years)
    )


def labels_until_alarm(risk: Floats, ratio: float, seeds: int, signals: int, days: int = 120) -> Floats:
    """Labels after the outcome has changed by observed / expected `ratio` until the alarm, for every seed."""
    limit = evidence.evidence_limit(signals)
    after = outcome_chance(risk, ratio)
    found = []
    for seed in range(seeds):
        value, passed = calibration_looks(risk, risk, after, 1000 + seed, 24 * days)
        found.append(_first((value >= limit)[None], passed[None].astype(float))[0])
    return np.array(found)


def summary(passed: Floats) -> dict[str, float | None]:
    """Median, 95th percentile and worst; None where it never rang."""
    ordered = np.sort(passed)
    at = {"median": 0.5, "p95": 0.95, "worst": 1.0}
    places = {name: ordered[max(int(np.ceil(share * len(ordered))) - 1, 0)] for name, share in at.items()}
    return {name: None if np.isinf(value) else float(value) for name, value in places.items()}


def one_of_each_size(signals: Sequence[Signal]) -> list[Signal]:
    """Of each number of bins the feature with the evenest and the one with the most uneven shares."""
    chosen = []
    for bins in sorted({signal.bins for signal in signals}):
        alike = sorted(
            (signal for signal in signals if signal.bins == bins), key=lambda one: one.shares.max()
        )
        chosen += [alike[0], alike[-1]][: len(alike)]
    return chosen


def system(schema_path: Path) -> tuple[list[Signal], Floats]:
    """Signals of the bundled cohort, binned by the sidecar's own code, and the risks of a model of it."""
    import pandas as pd

    from monitoring import reference as reader
    from steps.data import prepared as preparation
    from steps.data import sources
    from steps.data.files import TARGET_COLUMN
    from steps.data.schema_file import load
    from steps.models import families, fitting
    from steps.models.monitor_reference import build_reference

    schema = load(schema_path)
    located = sources.locate("cohort", schema, PROJECT / ".cache", PROJECT)
    prepared = preparation.prepare(sources.chunks(located, schema), schema, located, max_rejected=0.01)
    train, validation = prepared.tables["train"], prepared.tables["validation"]
    model = fitting.fit("logistic_regression", {}, train, schema, seed=0, threads=1)
    info = {
        "name": schema.name,
        "version": None,
        "run_id": "",
        "family": "",
        "trained_at": 0,
        "synthetic": True,
    }
    info |= {"kind": located.kind, "data_digest": prepared.digest}
    y = validation[TARGET_COLUMN].to_numpy()
    risk = families.predict_risk(model, validation[list(schema.feature_names)])
    threshold = fitting.choose_threshold(y, risk, 0.80)
    document = build_reference(model, train, validation, schema, threshold=threshold, info=info)
    reference = reader.parse(document)
    everyone = pd.concat(prepared.tables.values())
    risk = families.predict_risk(model, everyone[list(schema.feature_names)])
    signals = []
    for feature in reference.features:
        values = everyone[feature.name].to_numpy(dtype=object if feature.is_text else np.float64)
        codes = feature.bin(values)
        signals.append(Signal(feature.name, codes, len(feature.bins)))
    kept = np.all([signal.codes >= 0 for signal in signals], axis=0)
    signals = [signal._replace(codes=signal.codes[kept]) for signal in signals]
    signals.append(Signal("score", reference.score.bin(risk[kept]), len(reference.score.bins)))
    return signals, risk


def measure(schema_path: Path, half_years: int, seeds: int) -> dict[str, Any]:
    """Everything that the tables show."""
    signals, risk = system(schema_path)
    count = len(signals) + 1
    result: dict[str, Any] = {
        "measured": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "signals": len(signals),
        "half_years": half_years,
        "seeds": seeds,
        "limit": evidence.evidence_limit(count),
        "targets": {str(psi): target for psi, target in TARGETS.items()},
        "false_alarms": {str(rows): false_alarms(signals, rows, half_years) for rows in (LARGE, SMALL)},
    }
    detection = []
    for signal in one_of_each_size(signals):
        for rows in (LARGE, SMALL):
            for psi in SHIFTS:
                found = rows_until_alarm(signal.shares, psi, rows, seeds, count)
                detection.append(
                    {
                        "signal": signal.name,
                        "bins": signal.bins,
                        "largest_share": round(float(signal.shares.max()), 3),
                        "reference_rows": rows,
                        "psi": psi,
                        "rows": {name: summary(passed) for name, passed in found.items()},
                    }
                )
    result["detection"] = detection
    result["dependence"] = {
        "half_years": DEPENDENT_HALF_YEARS,
        "alarms": {
            name: false_alarms(signals, LARGE, DEPENDENT_HALF_YEARS, mix=mix) for name, mix in MIXES.items()
        },
    }
    result["calibration"] = {
        "false_alarms": calibration_false_alarms(risk, half_years, count),
        "labels": {str(ratio): summary(labels_until_alarm(risk, ratio, seeds, count)) for ratio in RATIOS},
    }
    return result


def _commit() -> str:
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def missed(result: Mapping[str, Any]) -> list[str]:
    """Where a target is missed, in words."""
    found = [
        f"{by_rule['evidence']} false alarms with a reference of {rows} rows"
        for rows, by_rule in result["false_alarms"].items()
        if by_rule["evidence"] > 1
    ]
    if result["calibration"]["false_alarms"] > 1:
        found.append(f"{result['calibration']['false_alarms']} false alarms of the calibration")
    for case in result["detection"]:
        limits = dict(zip(("median", "p95"), TARGETS[case["psi"]], strict=True))
        rows = case["rows"]["evidence"]
        if case["reference_rows"] == LARGE and any((rows[at] or NEVER) > limits[at] for at in limits):
            found.append(f"{case['signal']}, {case['bins']} bins, PSI {case['psi']}: {rows}, limits {limits}")
    return found


def _cell(rows: Mapping[str, float | None]) -> str:
    return " / ".join("never" if value is None else f"{value:,.0f}" for value in rows.values())


def tables(result: Mapping[str, Any]) -> str:
    """The result in Markdown."""
    rules = list(result["false_alarms"][str(LARGE)])
    years = result["half_years"] / 2
    lines = [
        f"False alarms of {result['signals']} signals in {years:g} years, looked at every hour",
        "",
        "| reference rows | " + " | ".join(rules) + " |",
        "|---|" + "---|" * len(rules),
    ]
    for rows, by_rule in result["false_alarms"].items():
        lines.append(f"| {int(rows):,} | " + " | ".join(f"{by_rule[rule]:,}" for rule in rules) + " |")
    for reference_rows in (LARGE, SMALL):
        lines += [
            "",
            (
                f"Rows until the alarm, median / 95th percentile / worst of {result['seeds']} seeds,"
                f" reference of {reference_rows:,} rows"
            ),
            "",
            "| signal (bins) | PSI | " + " | ".join(rules) + " |",
            "|---|---|" + "---|" * len(rules),
        ]
        for case in result["detection"]:
            if case["reference_rows"] == reference_rows:
                cells = " | ".join(_cell(case["rows"][rule]) for rule in rules)
                lines.append(f"| {case['signal']} ({case['bins']}) | {case['psi']:.2f} | {cells} |")
    lines += dependence_table(result["dependence"], rules)
    calibration = result["calibration"]
    lines += [
        "",
        f"Calibration, 200 labels a day: {calibration['false_alarms']} false alarms in {years:g} years",
        "",
        "| observed / expected | labels until the alarm |",
        "|---|---|",
        *(f"| {ratio} | {_cell(labels)} |" for ratio, labels in calibration["labels"].items()),
    ]
    return "\n".join(lines)


def dependence_table(dependence: Mapping[str, Any], rules: Sequence[str]) -> list[str]:
    """Alarms a year where rows are not independent, in Markdown."""
    years = dependence["half_years"] / 2
    return [
        "",
        f"Alarms a year where nothing has shifted, by how rows come, mean of {years:g} years",
        "",
        "| rows | " + " | ".join(rules) + " |",
        "|---|" + "---|" * len(rules),
        *(
            f"| {name} | " + " | ".join(f"{alarms[rule] / years:,.1f}" for rule in rules) + " |"
            for name, alarms in dependence["alarms"].items()
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write, print; 1 if a target is missed."""
    parser = argparse.ArgumentParser(
        description="Measure false alarms and detection of drift and miscalibration."
    )
    parser.add_argument("--schema", type=Path, default=PROJECT / "data" / "brfss2015.yaml")
    parser.add_argument("--half-years", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    started = time.monotonic()
    result = measure(options.schema, options.half_years, options.seeds)
    result["seconds"] = round(time.monotonic() - started)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(tables(result))
    problems = missed(result)
    for problem in problems:
        print(f"missed: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
