"""Drift of features and of the score: PSI, evidence, the alarm, and when it ends.

`steps/measures/evidence.py` is the numpy reference of every statistic, with its sources. A window is a label,
so everything after the counts is one rule for all windows.

**When an alarm ends.** A long window holds the faulty rows for days after the fault was mended. One that
rings is silenced as soon as a newer window of at least a day says with evidence of 1000 to 1 that rows are as
in training rather than as in the rest of the long window: a likelihood ratio of two given distributions, the
training one p and the shares q of the rows before the newer window, sum of c ln(p / q) over the newer counts
c. A drift that goes on makes that ratio negative. The long window stays silent for its own length, by when
the fault has left it: with fewer faulty rows in it the same could not be said again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from monitoring.prometheus.promql import (
    LN_10,
    MODEL,
    Counted,
    Rule,
    block,
    day_windows,
    log_gamma,
    rule,
    short_windows,
)

SHORT = ("1h", "6h", "12h")
DAYS = ("1d", "3d", "14d")
WINDOWS = (*SHORT, *DAYS)
# A newer window and the longer ones that it can overrule; below a day, day and night would do so in turn.
NEWER = (("1d", "3d"), ("1d", "14d"), ("3d", "14d"))
MENDED_LOG10 = 3

# As in steps/measures/evidence.py, which says why.
SMOOTHING = 0.5
TYPICAL_PSI = 0.1
PSI_FLOOR = 0.02
LOOKS_A_YEAR = 525_600
# Normal quantile of 0.999.
Z_999 = 3.0902

FATES = {
    "missing": "model_feature_missing_total",
    "out_of_range": "model_feature_out_of_range_total",
    "unknown_level": "model_feature_unknown_level_total",
}
LIMIT = "version:model_evidence:limit"


class Signal(NamedTuple):
    """A kind of thing that drifts: its name in rules, its counter and reference, and its label (or none).

    windows: those in which its counts are summed from days, which may be more than those of drift.
    """

    noun: str
    values: str
    reference: str
    label: str
    days: Sequence[str]

    @property
    def of(self) -> str:
        """The label that tells the signals of this kind apart, ready to stand before others."""
        return f"{self.label}, " if self.label else ""

    @property
    def level(self) -> str:
        """The same at the start of a recorded name."""
        return f"{self.label}_" if self.label else ""

    @property
    def one(self) -> str:
        """The first word of a recorded name with one series a signal."""
        return self.label or "version"

    @property
    def reference_rows(self) -> str:
        return f"{self.level}bin:{self.noun}_reference:rows"

    @property
    def counted(self) -> Counted:
        return Counted(
            f"{self.level}bin_window:{self.noun}:increase",
            f"{self.level}bin:{self.noun}:increase1d",
            self.values,
            f"{self.of}bin, {MODEL}",
            f"0 * {self.reference_rows}",
        )

    @property
    def rows(self) -> str:
        return f"{self.level}window:{self.noun}:rows"


FEATURES = Signal(
    "model_feature_values", "model_feature_values_total", "model_feature_reference_rows", "feature", DAYS
)


def silenced(mended: str, newer_windows: Sequence[tuple[str, str]]) -> str:
    """The windows that a newer one has silenced, for as long as they hold what was before it."""
    silencing = (
        f'max_over_time({mended}{{window="{window}"}}[{window}])'
        for window in dict.fromkeys(longer for _, longer in newer_windows)
    )
    return block("\nor ".join(silencing))


def day_rules(signal: Signal) -> list[Rule]:
    """Counts in windows of days."""
    return day_windows(signal.counted, signal.days)


def rules(signal: Signal) -> list[Rule]:
    """PSI, evidence and alarm of one kind of signal in each window."""
    of, level, one, noun = signal.of, signal.level, signal.one, signal.noun
    per_bin = f"on ({of}bin, {MODEL}) group_left ()"
    per_signal = f"on ({of}{MODEL}) group_left ()"
    per_window = f"on ({of}window, {MODEL}) group_left ()"
    windows = f'{{window=~"{"|".join(WINDOWS)}"}}'

    reference_rows, bins = signal.reference_rows, f"{one}:{noun}_reference:bins"
    reference_total, p = f"{one}:{noun}_reference:rows", f"{level}bin:{noun}_reference:ratio"
    counts, rows = signal.counted.name, signal.rows
    psi, evidence = f"{level}window:{noun}:psi", f"{level}window:{noun}:drift_evidence"
    mended = f"{level}newer_window:{noun}:mended_evidence"

    def share(window: str) -> str:
        return block(
            f"({counts}{window} + {SMOOTHING})\n"
            f"/ {per_window} ({rows}{window} + {per_signal} ({SMOOTHING} * {bins}))"
        )

    def share_before(newer: str, longer: str) -> str:
        """Of the rows of the longer window that are not in the newer one."""

        def before(series: str, labels: str) -> str:
            return f'({series}{{window="{longer}"}} - on ({labels}) {series}{{window="{newer}"}})'

        return block(
            f"(clamp_min({before(counts, f'{of}bin, {MODEL}')}, 0) + {SMOOTHING})\n"
            f"/ {per_signal} ({before(rows, f'{of}{MODEL}')} + {SMOOTHING} * {bins})"
        )

    def log_likelihood(prior: str) -> str:
        """ln of Polya's urn, filled with the prior by bin."""
        posterior, total = f"({counts}{windows} + {per_bin} ({prior}))", f"sum by ({of}{MODEL}) ({prior})"
        posterior_total = f"({rows}{windows} + {per_signal} {total})"
        return block(
            f"sum by ({of}window, {MODEL}) {block(log_gamma(posterior))}\n"
            f"- {per_signal} sum by ({of}{MODEL}) {block(log_gamma(f'({prior})'))}\n"
            f"- {block(log_gamma(posterior_total))}\n"
            f"+ {per_signal} {block(log_gamma(f'({total})'))}"
        )

    return [
        # The reference stays for an hour after its exporter went, so that a restart leaves no gap.
        rule(reference_rows, f"max by ({of}bin, {MODEL}) (last_over_time({signal.reference}[1h]))"),
        rule(reference_total, f"sum by ({of}{MODEL}) ({reference_rows})"),
        rule(bins, f"count by ({of}{MODEL}) ({reference_rows})"),
        rule(
            p, f"({reference_rows} + {SMOOTHING}) / {per_signal} ({reference_total} + {SMOOTHING} * {bins})"
        ),
        *short_windows(signal.counted, SHORT),
        rule(rows, f"sum by ({of}window, {MODEL}) ({counts})"),
        # PSI: sum of (q - p) ln(q / p); no PSI of no rows.
        rule(
            psi,
            f"sum by ({of}window, {MODEL})"
            f" (({share(windows)} - {per_bin} {p}) * ln({share(windows)} / {per_bin} {p}))\n"
            f"and {rows} > 0",
        ),
        # Evidence: log10 of P(counts | drift) / P(counts | same).
        rule(
            evidence,
            block(
                f"{log_likelihood(f'{p} * {per_signal} (clamp_min({bins} - 1, 1) / {TYPICAL_PSI})')}\n"
                f"- {log_likelihood(f'{reference_rows} + {SMOOTHING}')}"
            )
            + f" / {LN_10}",
        ),
        *(
            rule(
                mended,
                f'sum by ({of}{MODEL}) ({counts}{{window="{newer}"}} * on ({of}bin, {MODEL})\n'
                f"  ln({p} / on ({of}bin, {MODEL}) {share_before(newer, longer)}))\n"
                f"/ {LN_10} >= {MENDED_LOG10}\n"
                f'and on ({of}{MODEL}) ({psi}{{window="{longer}"}} >= {PSI_FLOOR})\n'
                f'and on ({of}{MODEL}) ({evidence}{{window="{longer}"}}'
                f" >= on ({MODEL}) group_left () {LIMIT})",
                newer=newer,
                window=longer,
            )
            for newer, longer in NEWER
        ),
        # Evidence and effect in the same window, unless mended since; rings at version:model_evidence:limit.
        rule(
            f"{one}:{noun}:drift_alarm",
            f"max by ({of}{MODEL}) (\n"
            f"  {evidence} * ({psi} >= bool {PSI_FLOOR})\n"
            f"  unless on ({of}window, {MODEL}) {silenced(mended, NEWER)}\n"
            f"  or 0 * {rows}\n)",
        ),
    ]


def _fate(name: str) -> Counted:
    return Counted(
        "fate_feature_window:model_feature_values:increase",
        f"feature:model_feature_{name}:increase1d",
        FATES[name],
        f"feature, {MODEL}",
    )


def feature_day_rules() -> list[Rule]:
    """Counts of features in windows of days, and of the values that are in no bin."""
    return [
        *day_rules(FEATURES),
        *(
            counting_rule
            for name in FATES
            for counting_rule in _with_fate(name, day_windows(_fate(name), ("1d",)))
        ),
    ]


def counted() -> list[Counted]:
    """Counters of features, in windows."""
    return [FEATURES.counted, *map(_fate, FATES)]


def feature_rules() -> list[Rule]:
    """Drift of each feature, and the values that are in no bin."""
    fates, share = (
        "fate_feature_window:model_feature_values:increase",
        "fate_feature_window:model_feature_values",
    )
    values = "feature_window:model_feature_values:total"
    per_value = f"on (feature, window, {MODEL}) group_left ()"
    z2 = Z_999**2
    features = f"group by (feature, {MODEL}) (last_over_time({FEATURES.reference}[1h]))"
    return [
        # Features, score and calibration share one false alarm a year.
        rule(LIMIT, f"log10({LOOKS_A_YEAR} * (2 + count by ({MODEL}) ({features})))"),
        *rules(FEATURES),
        *(
            counting_rule
            for name in FATES
            for counting_rule in _with_fate(name, short_windows(_fate(name), ("1h",)))
        ),
        rule(
            values,
            f'{FEATURES.rows}{{window=~"1h|1d"}}\n'
            f"+ on (feature, window, {MODEL}) sum by (feature, window, {MODEL}) ({fates})",
        ),
        rule(f"{share}:ratio", f"{fates} / {per_value} ({values} > 0)\nor 0 * {fates}"),
        # What the share is at least, with confidence 0.999 (Wilson, JASA 22, 1927): one odd row is no alarm.
        rule(
            f"{share}:ratio_lower",
            f"clamp_min(\n  ({fates} + {z2 / 2}\n"
            f"    - {Z_999} * sqrt({fates} - {fates} ^ 2 / {per_value} ({values} > 0) + {z2 / 4}))\n"
            f"  / {per_value} ({values} + {z2}), 0)\nor 0 * {fates}",
        ),
    ]


def _with_fate(name: str, counting: Sequence[Rule]) -> list[Rule]:
    """The rules with the label `fate`."""
    return [
        counting_rule._replace(labels={"fate": name, **counting_rule.labels}) for counting_rule in counting
    ]
