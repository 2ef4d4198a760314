"""False alarms of the alarm rules, and the number of rows until they detect a shift.

    python -m benchmarks.alarm_quality [--half-years 30] [--seeds 200]

All features of the schema and a model's score, with rows drawn from the bundled cohort and binned as the
sidecar bins them, are evaluated every hour with the formulas of the recording rules
(steps/measures/evidence.py), including the end of an alarm: a newer window with evidence of 1000 to 1 that
all is well silences a longer one. Traffic is Poisson, 1,000 rows a day; late labels 200 a day. Each half-year
has a reference of its own, itself a sample. The bound of one false alarm a year holds for independent rows;
a separate table counts alarms for dependent rows (`MIXES`). Writes benchmarks/results/alarm_quality.json and
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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitoring.reference import Reference
from monitoring.sidecar.counting import LOT_ROWS
from steps.measures import evidence

if TYPE_CHECKING:
    import pandas as pd

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results") / "alarm_quality.json"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Rows of a reference: the size that the targets are for, and that of a small study.
LARGE, SMALL = 150_000, 768
# Hours; the label windows of the recording rules are days.
WINDOWS = (1, 6, 12, 24, 72, 336)
LABEL_WINDOWS = (24, 168, 720, 2160)
HALF_YEAR = 24 * 365 // 2
ROWS_AN_HOUR = 1000 / 24
LABELS_AN_HOUR = 200 / 24
DAY = WINDOWS.index(24)
# Newer windows and the longer ones that they can silence, as (index, index): those of a day and more.
NEWER = tuple((n, o) for n in range(DAY, len(WINDOWS)) for o in range(n + 1, len(WINDOWS)))
LABEL_NEWER = tuple((n, o) for n in range(len(LABEL_WINDOWS)) for o in range(n + 1, len(LABEL_WINDOWS)))
# Looks before the first that counts: a newer window may have silenced an alarm in them.
HELD = WINDOWS[-1]
LABEL_HELD = LABEL_WINDOWS[-1]
WARM_UP = WINDOWS[-1] + HELD
# Days that a fault of labels lasts; hours that its alarm is kept without evidence.
FAULTY_LABEL_DAYS = 30
LABELS_KEEP = 24
# Hours from a fault's end until its alarm has ended.
END_HOURS = 26
SHIFTS = (0.25, 0.10, 0.05)
RATIOS = (1.42, 1.24, 1.16)
# Largest median and 95th percentile of the rows until a shift is detected, with a large reference.
TARGETS = {0.25: (700, 900), 0.10: (1200, 2400), 0.05: (3000, 3700)}
NEVER = np.inf
# Seeds for the end of an alarm of labels, half a year each.
ENDING_SEEDS = 60
# Half-years with dependent rows, where alarms ring several times a year.
DEPENDENT_HALF_YEARS = 4
# Rows after a shift for which counting in lots is compared with counting one by one.
LOT_HORIZON = 5000
# The delay that lots may cause: this share of the rows, and one lot.
LOT_SHARE = 0.10
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


def silence(
    alarm: Floats, is_mended: NDArray[np.bool_], window: int, limit: float, earlier_looks: int
) -> NDArray[np.bool_]:
    """Where a window is silent: a newer one was mended while it rang, within the window's own length.

    alarm, is_mended: (..., earlier_looks + looks); window: in looks -> (..., looks).
    """
    silencing = (is_mended & (alarm >= limit))[..., earlier_looks - window :]
    return np.lib.stride_tricks.sliding_window_view(silencing, window + 1, axis=-1).any(-1)


def drift_alarm(
    counts: Floats, reference: Floats, limit: float, spans: Sequence[int] = WINDOWS, earlier_looks: int = HELD
) -> Floats:
    """The project's rule: the most evidence of a window that no newer one has silenced.

    Counts (..., windows, earlier_looks + looks, bins), reference (..., bins), spans: the windows in looks
    -> (..., looks).
    """
    around = reference[..., None, None, :]
    alarm = evidence.drift_alarm(counts, around)
    result = alarm[..., earlier_looks:].copy()
    for new, long in NEWER:
        newer, longer = counts[..., new, :, :], counts[..., long, :, :]
        is_mended = (
            evidence.mended_evidence(newer, longer - newer, around[..., 0, :]) >= evidence.MENDED_LOG10
        )
        result[..., long, :] *= ~silence(alarm[..., long, :], is_mended, spans[long], limit, earlier_looks)
    most: Floats = result.max(-2)
    return most


def values_of(counts: Floats, reference: Floats, limit: float) -> list[Floats]:
    """Each rule's value at each look.

    Counts (..., windows, HELD + looks, bins) and reference (..., bins) -> (..., looks).
    """
    alarm = drift_alarm(counts, reference, limit)
    day = counts[..., DAY, HELD:, :]
    psi = evidence.psi(day, reference[..., None, :])
    rows, reference_rows = day.sum(-1), reference.sum(-1)[..., None]
    critical = evidence.psi_critical(rows, reference_rows, counts.shape[-1])
    return [alarm, psi, psi, psi / critical, psi * (psi > critical)]


def episodes(ringing: NDArray[np.bool_]) -> int:
    """How often an alarm starts, (..., looks)."""
    return int(ringing[..., 0].sum() + (ringing[..., 1:] & ~ringing[..., :-1]).sum())


class Rows(NamedTuple):
    """Traffic: index of each row's person and its hour, (rows,) each; and the people of the reference."""

    people: Ints
    hour: Ints
    reference: Ints


# Makes rows without a shift, from the signals, the hours and the rows of the reference.
Mix = Callable[[np.random.Generator, Sequence[Signal], int, int], Rows]


def independent(rng: np.random.Generator, signals: Sequence[Signal], hours: int, reference: int) -> Rows:
    """Every row is another person, as the evidence assumes."""
    population = len(signals[0].codes)
    sample = rng.integers(population, size=reference)
    rows = rng.poisson(ROWS_AN_HOUR, hours)
    return Rows(rng.integers(population, size=rows.sum()), np.repeat(np.arange(hours), rows), sample)


def in_lots(rng: np.random.Generator, signals: Sequence[Signal], hours: int, reference: int) -> Rows:
    """Independent rows as the sidecar counts them: each is counted with the last row of its lot."""
    rows = independent(rng, signals, hours, reference)
    counted_rows = len(rows.people) // LOT_ROWS * LOT_ROWS
    hour = rows.hour[:counted_rows].reshape(-1, LOT_ROWS)[:, -1].repeat(LOT_ROWS)
    return Rows(rows.people[:counted_rows], hour, rows.reference)


def five_times_a_day(rng: np.random.Generator, signals: Sequence[Signal], hours: int, reference: int) -> Rows:
    """Each person is asked about five times within 24 hours, with the same answers."""
    population = len(signals[0].codes)
    sample = rng.integers(population, size=reference)
    first = rng.poisson(ROWS_AN_HOUR / 5, hours)
    people = np.repeat(rng.integers(population, size=first.sum()), 5)
    hour = np.repeat(np.repeat(np.arange(hours), first), 5) + rng.integers(24, size=len(people))
    inside = hour < hours
    return Rows(people[inside], hour[inside], sample)


def fixed_list(rng: np.random.Generator, signals: Sequence[Signal], hours: int, reference: int) -> Rows:
    """Always the same 500 patients; the reference was made from the whole population."""
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
    """Two groups of people that alternate by the hour; the reference holds both in their shares.

    The first group is the population. A mixture lies between the groups, so they are further apart than
    either is from the reference: PSI grows with the square of the distance.
    """
    signal = max(signals, key=lambda candidate: candidate.bins)
    distance = psi / (1 - others_come.mean()) ** 2
    ratio = shifted(signal.shares, distance, rng) / signal.shares
    chance = np.cumsum(ratio[signal.codes])

    def others(size: int) -> Ints:
        return np.searchsorted(chance, rng.random(size) * chance[-1]).clip(max=len(chance) - 1)

    rows = independent(rng, signals, hours, reference)
    people, sample = rows.people.copy(), rows.reference.copy()
    is_other = others_come[rows.hour]
    people[is_other] = others(int(is_other.sum()))
    in_reference = rng.random(reference) < others_come.mean()
    sample[in_reference] = others(int(in_reference.sum()))
    return Rows(people, rows.hour, sample)


# Traffic without a shift: independent rows, and rows that depend on each other as they may in practice.
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
    """Alarms without a shift, by rule, of all signals together; signals of the same rows are dependent."""
    rules = alarm_rules(len(signals) + 1)
    alarms = dict.fromkeys((rule.name for rule in rules), 0)
    for half_year in range(half_years):
        rng = np.random.default_rng([seed, half_year])
        length = hours + WARM_UP
        people, hour, sample = mix(rng, signals, length, reference_rows)
        for signal in signals:
            reference = np.bincount(signal.codes[sample], minlength=signal.bins).astype(float)
            cell = hour * signal.bins + signal.codes[people]
            hourly = np.bincount(cell, minlength=length * signal.bins).reshape(length, signal.bins)
            counts = in_windows(hourly, WINDOWS, WINDOWS[-1])
            for rule, value in zip(rules, values_of(counts, reference, rules[0].limit), strict=True):
                alarms[rule.name] += episodes(value >= rule.limit)
    return alarms


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
        is_too_far = ((tilted - shares) * np.log(tilted / np.maximum(shares, 1e-12))).sum() > psi
        low, high = (low, middle) if is_too_far else (middle, high)
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
    hourly = np.zeros((seeds, WARM_UP + after, len(shares)))
    reference = np.zeros((seeds, len(shares)))
    for seed in range(seeds):
        rng = np.random.default_rng([1, first_seed + seed])
        reference[seed] = rng.multinomial(reference_rows, shares)
        rows = rng.poisson(ROWS_AN_HOUR, hourly.shape[1])
        hourly[seed, :WARM_UP] = rng.multinomial(rows[:WARM_UP], shares)
        hourly[seed, WARM_UP:] = rng.multinomial(rows[WARM_UP:], shifted(shares, psi, rng))
    passed = hourly[:, WARM_UP:].sum(-1).cumsum(-1)
    values = values_of(in_windows(hourly, WINDOWS, WINDOWS[-1]), reference, rules[0].limit)
    return {rule.name: _first(value >= rule.limit, passed) for rule, value in zip(rules, values, strict=True)}


def rows_counted_in_lots(
    shares: Floats, psi: float, reference_rows: int, seeds: int, signals: int
) -> tuple[Floats, Floats]:
    """Rows after a shift until the alarm rings: counted one by one, and in lots as the sidecar does.

    Both are evaluated after every row of even traffic; each seed has the same rows for both. (seeds,) each;
    inf if it did not ring within `LOT_HORIZON` rows.
    """
    limit, spans = evidence.evidence_limit(signals), [round(w * ROWS_AN_HOUR) for w in WINDOWS]
    earlier_looks = spans[-1]
    ends = np.arange(spans[-1] + 1, spans[-1] + earlier_looks + LOT_HORIZON + 1)
    rows_until = np.full((2, seeds), NEVER)
    for seed in range(seeds):
        rng = np.random.default_rng([3, seed])
        reference = rng.multinomial(reference_rows, shares).astype(float)
        before = rng.choice(len(shares), spans[-1] + earlier_looks, p=shares)
        after = rng.choice(len(shares), LOT_HORIZON, p=shifted(shares, psi, rng))
        rows = np.eye(len(shares), dtype=np.float32)[np.concatenate([before, after])]
        total = np.concatenate([np.zeros_like(rows[:1]), rows.cumsum(0, dtype=np.float64)])
        for index, size in enumerate((1, LOT_ROWS)):
            counted = [
                total[row_ends // size * size] for row_ends in (ends, *(ends - span for span in spans))
            ]
            counts = np.stack([counted[0] - earlier for earlier in counted[1:]])
            ringing = drift_alarm(counts, reference, limit, spans, earlier_looks) >= limit
            if ringing.any():
                rows_until[index, seed] = ringing.argmax() + 1
    return rows_until[0], rows_until[1]


def hours_until_the_end(
    shares: Floats, psi: float, reference_rows: int, seeds: int, signals: int, days: int = 14
) -> tuple[int, Floats]:
    """How many seeds ring in a fault of one day, and for how many hours after it each of them rings.

    Before the fault runs as much quiet traffic as the longest window holds, and after it `days` of it.
    """
    limit = evidence.evidence_limit(signals)
    last = []
    for seed in range(seeds):
        rng = np.random.default_rng([4, seed])
        reference = rng.multinomial(reference_rows, shares).astype(float)
        rows = rng.poisson(ROWS_AN_HOUR, WARM_UP + 24 * (1 + days))
        hourly = rng.multinomial(rows, shares).astype(float)
        fault = slice(WARM_UP, WARM_UP + 24)
        hourly[fault] = rng.multinomial(rows[fault], shifted(shares, psi, rng))
        ringing = drift_alarm(in_windows(hourly, WINDOWS, WINDOWS[-1]), reference, limit) >= limit
        if ringing[:24].any():
            after = np.flatnonzero(ringing[24:])
            last.append(float(after[-1] + 1) if len(after) else 0.0)
    return len(last), np.array(last)


def _first(ringing: NDArray[np.bool_], passed: Floats) -> Floats:
    """The value of `passed` at the first look that rang, (seeds, looks) -> (seeds,); inf if none rang."""
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


def _label_sums(risk: Floats, edges: Floats, outcome: Floats, hour: Ints, hours: int) -> list[Floats]:
    """Labels, positives and sums of risk by hour and score bin, (hours, bins) each."""
    bins = len(edges) + 1
    cell = hour * bins + np.searchsorted(edges, risk, side="right")
    size = hours * bins
    sums = (np.bincount(cell, weights, minlength=size) for weights in (None, outcome, risk))
    return [total.reshape(hours, bins).astype(float) for total in sums]


def calibration_alarm(labels: Floats, positives: Floats, risks: Floats, limit: float) -> Floats:
    """The rule's value: the most evidence of a window whose calibration error reaches its floor.

    (windows, LABEL_HELD + looks, bins) each -> (looks,); a longer window is silent where a newer one is
    mended.
    """
    larger_evidence = evidence.calibration_evidence(positives, labels, risks).larger
    error = np.abs(positives - risks).sum(-1) / np.maximum(labels.sum(-1), 1)
    alarm = larger_evidence * (error >= evidence.CALIBRATION_FLOOR)
    result = alarm[:, LABEL_HELD:].copy()
    sums = np.stack([positives, labels, risks])
    for new, long in LABEL_NEWER:
        newer, longer = sums[:, new], sums[:, long]
        is_mended = evidence.calibration_mended_evidence(newer, longer - newer) >= evidence.MENDED_LOG10
        result[long] *= ~silence(alarm[long], is_mended, LABEL_WINDOWS[long], limit, LABEL_HELD)
    most: Floats = result.max(0)
    return most


def calibration_looks(
    risk: Floats, after: Floats, seed: int, hours: int, limit: float, faulty_hours: int | None = None
) -> tuple[Floats, Floats]:
    """Alarm value and labels so far at each of `hours` looks.

    The chances of the outcome are the risks, and `after` from the first look on, for `faulty` hours if given.
    """
    rng = np.random.default_rng([2, seed])
    warm_up = LABEL_WINDOWS[-1] + LABEL_HELD
    labels = rng.poisson(LABELS_AN_HOUR, warm_up + hours)
    hour = np.repeat(np.arange(len(labels)), labels)
    people = rng.integers(len(risk), size=labels.sum())
    is_faulty = (hour >= warm_up) & (hour < warm_up + (hours if faulty_hours is None else faulty_hours))
    chance = np.where(is_faulty, after[people], risk[people])
    outcome = (rng.random(len(people)) < chance).astype(float)
    # A token carries the risk in two bytes.
    carried = np.round(risk[people] * 65535) / 65535
    edges = np.quantile(risk, np.arange(1, 20) / 20)
    sums = (
        in_windows(hourly, LABEL_WINDOWS, LABEL_WINDOWS[-1])
        for hourly in _label_sums(carried, edges, outcome, hour, len(labels))
    )
    return calibration_alarm(*sums, limit), labels[warm_up:].cumsum()


def calibration_false_alarms(risk: Floats, half_years: int, signals: int, hours: int = HALF_YEAR) -> int:
    """Alarms of a perfectly calibrated model."""
    limit = evidence.evidence_limit(signals)
    return sum(
        episodes(calibration_looks(risk, risk, half_year, hours, limit)[0] >= limit)
        for half_year in range(half_years)
    )


def labels_until_alarm(risk: Floats, ratio: float, seeds: int, signals: int, days: int = 120) -> Floats:
    """Labels after the outcome has changed by observed / expected `ratio` until the alarm, for every seed."""
    limit = evidence.evidence_limit(signals)
    after = outcome_chance(risk, ratio)
    labels = []
    for seed in range(seeds):
        value, passed = calibration_looks(risk, after, 1000 + seed, 24 * days, limit)
        labels.append(_first((value >= limit)[None], passed[None].astype(float))[0])
    return np.array(labels)


def labels_until_the_end(
    risk: Floats, ratio: float, seeds: int, signals: int, days: int = FAULTY_LABEL_DAYS
) -> tuple[Floats, Floats]:
    """Labels from the end of a fault of so many days until the alarm is over, and how often it began.

    As in Grafana, the alarm continues for a day after the last evidence (`keepFiringFor`), so that a value
    around the limit is one alarm. Of the seeds that rang, (seeds that rang,) each.
    """
    limit, keep = evidence.evidence_limit(signals), LABELS_KEEP
    after, hours = outcome_chance(risk, ratio), 24 * days + LABEL_WINDOWS[-1] + 24
    ends, starts = [], []
    for seed in range(seeds):
        value, passed = calibration_looks(risk, after, 2000 + seed, hours, limit, 24 * days)
        is_ringing = np.concatenate([np.zeros(keep, dtype=bool), value >= limit])
        is_shown = np.lib.stride_tricks.sliding_window_view(is_ringing, keep + 1).any(-1)
        if is_shown[: 24 * days].any():
            last = np.flatnonzero(is_shown)[-1]
            ends.append(max(float(passed[last] - passed[24 * days - 1]), 0.0))
            starts.append(float(episodes(is_shown[None])))
    return np.array(ends), np.array(starts)


def summary(passed: Floats) -> dict[str, float | None]:
    """Median, 95th percentile and worst; None where it never rang."""
    ordered = np.sort(passed)
    shares = {"median": 0.5, "p95": 0.95, "worst": 1.0}
    quantiles = {
        name: ordered[max(int(np.ceil(share * len(ordered))) - 1, 0)] for name, share in shares.items()
    }
    return {name: None if np.isinf(value) else float(value) for name, value in quantiles.items()}


def one_of_each_size(signals: Sequence[Signal]) -> list[Signal]:
    """Of each number of bins the feature with the evenest and the one with the most uneven shares."""
    chosen = []
    for bins in sorted({signal.bins for signal in signals}):
        alike = sorted(
            (signal for signal in signals if signal.bins == bins), key=lambda one: one.shares.max()
        )
        chosen += [alike[0], alike[-1]][: len(alike)]
    return chosen


class Bundled(NamedTuple):
    """A model of the bundled cohort: the sidecar's reference, all of its rows, and their risks."""

    reference: Reference
    everyone: pd.DataFrame
    risks: Floats


def bundled(schema_path: Path) -> Bundled:
    """Prepare the bundled cohort, fit a logistic regression to it and write its reference."""
    import pandas as pd

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
    reference = build_reference(model, train, validation, schema, threshold=threshold, info=info)
    everyone = pd.concat(prepared.tables.values())
    return Bundled(reference, everyone, families.predict_risk(model, everyone[list(schema.feature_names)]))


def system(schema_path: Path) -> tuple[list[Signal], Floats]:
    """Signals of the bundled cohort, binned by the sidecar's own code, and the risks of a model of it."""
    reference, everyone, risk = bundled(schema_path)
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
    """The content of all tables."""
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
                rows_by_rule = rows_until_alarm(signal.shares, psi, rows, seeds, count)
                detection.append(
                    {
                        "signal": signal.name,
                        "bins": signal.bins,
                        "largest_share": round(float(signal.shares.max()), 3),
                        "reference_rows": rows,
                        "psi": psi,
                        "rows": {name: summary(passed) for name, passed in rows_by_rule.items()},
                    }
                )
    result["detection"] = detection
    result |= {"lots": [], "ends": []}
    for signal in one_of_each_size(signals):
        for psi in SHIFTS:
            one_by_one, in_lots_of = rows_counted_in_lots(signal.shares, psi, LARGE, seeds, count)
            rang, hours = hours_until_the_end(signal.shares, psi, LARGE, seeds, count)
            case = {"signal": signal.name, "bins": signal.bins, "psi": psi}
            pair = {"one by one": summary(one_by_one), "in lots": summary(in_lots_of)}
            result["lots"].append(case | {"rows": pair})
            result["ends"].append(case | {"rang": rang, "hours": summary(hours) if rang else None})
    result["dependence"] = {
        "half_years": DEPENDENT_HALF_YEARS,
        "alarms": {
            name: false_alarms(signals, LARGE, DEPENDENT_HALF_YEARS, mix=mix) for name, mix in MIXES.items()
        },
    }
    result["calibration"] = {
        "false_alarms": calibration_false_alarms(risk, half_years, count),
        "labels": {str(ratio): summary(labels_until_alarm(risk, ratio, seeds, count)) for ratio in RATIOS},
        "ends": {},
    }
    for ratio in RATIOS:
        ends, starts = labels_until_the_end(risk, ratio, min(seeds, ENDING_SEEDS), count)
        if len(ends):
            case = {"rang": len(ends), "labels": summary(ends), "times": summary(starts)}
            result["calibration"]["ends"][str(ratio)] = case
    return result


def _commit() -> str:
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def missed(result: Mapping[str, Any]) -> list[str]:
    """The missed targets, in words."""
    problems = [
        f"{by_rule['evidence']} false alarms with a reference of {rows} rows"
        for rows, by_rule in result["false_alarms"].items()
        if by_rule["evidence"] > 1
    ]
    if result["calibration"]["false_alarms"] > 1:
        problems.append(f"{result['calibration']['false_alarms']} false alarms of the calibration")
    for case in result["detection"]:
        limits = dict(zip(("median", "p95"), TARGETS[case["psi"]], strict=True))
        rows = case["rows"]["evidence"]
        if case["reference_rows"] == LARGE and any((rows[at] or NEVER) > limits[at] for at in limits):
            problems.append(
                f"{case['signal']}, {case['bins']} bins, PSI {case['psi']}: {rows}, limits {limits}"
            )
    problems += [
        f"{case['signal']}, PSI {case['psi']}: {at} {lots[at]} rows in lots, {single[at]} one by one"
        for case in result["lots"]
        for single, lots in [(case["rows"]["one by one"], case["rows"]["in lots"])]
        for at in ("median", "p95")
        if single[at] is not None and (lots[at] or NEVER) > (1 + LOT_SHARE) * single[at] + LOT_ROWS
    ]
    problems += [
        f"{case['signal']}, PSI {case['psi']}: ends {case['hours']} hours after the fault"
        for case in result["ends"]
        if case["rang"] and case["hours"]["p95"] > END_HOURS
    ]
    return problems


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
    lines += lots_and_ends(result)
    lines += dependence_table(result["dependence"], rules)
    calibration = result["calibration"]
    lines += [
        "",
        f"Calibration, 200 labels a day: {calibration['false_alarms']} false alarms in {years:g} years",
        "",
        "| observed / expected | labels until the alarm |",
        "|---|---|",
        *(f"| {ratio} | {_cell(labels)} |" for ratio, labels in calibration["labels"].items()),
        "",
        f"A miscalibration of {FAULTY_LABEL_DAYS} days that was mended (labels until its alarm is over)",
        "",
        "| observed / expected | seeds that rang | labels until the end | alarms |",
        "|---|---|---|---|",
        *(
            f"| {ratio} | {case['rang']} | {_cell(case['labels'])} | {_cell(case['times'])} |"
            for ratio, case in calibration["ends"].items()
        ),
    ]
    return "\n".join(lines)


def lots_and_ends(result: Mapping[str, Any]) -> list[str]:
    """The delay of counting in lots, and how long an alarm continues after a fault of a day, in Markdown."""
    lines = [
        "",
        (
            f"Rows until the alarm, looked at after every row, counted one by one and in lots of {LOT_ROWS};"
            " hours from the end of a fault of one day until its alarm has ended"
            " (median / 95th percentile / worst of the seeds that rang)"
        ),
        "",
        "| signal (bins) | PSI | one by one | in lots | seeds that rang in a day | hours until the end |",
        "|---|---|---|---|---|---|",
    ]
    for case, end in zip(result["lots"], result["ends"], strict=True):
        rows, hours = case["rows"], "-" if end["hours"] is None else _cell(end["hours"])
        lines.append(
            f"| {case['signal']} ({case['bins']}) | {case['psi']:.2f} | {_cell(rows['one by one'])}"
            f" | {_cell(rows['in lots'])} | {end['rang']} | {hours} |"
        )
    return lines


def dependence_table(dependence: Mapping[str, Any], rules: Sequence[str]) -> list[str]:
    """Alarms a year by kind of traffic without a shift, in Markdown."""
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
    """Measure, write the result and print the tables; exit code 1 if a target is missed."""
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
