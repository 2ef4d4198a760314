"""Verdict, reasons and advice that follow from the differences between new data and a model's data.

* *mend*: more values are missing, invalid or of unseen levels; or one column's instrument has changed and the
  risks are off. The data are broken, and training would teach the fault, so this comes before all else.
* *retrain*: the model ranks people worse than a change of people explains.
* *recalibrate*: risks are too high, too low, too extreme or too timid, and the ranking is as good as before.
* *watch*: something has moved, with no sign that the model is worse for it.
* *too_few*: too few rows to detect even a large shift.
* *quiet*: enough rows, and none of the above.

A difference counts if it is certain (evidence over all tests together) and large enough (the schema's
limits). Shifts without labels give *watch* at most: a change of people is no reason to train.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steps.data.disclosure import FEW
from steps.measures.drift_document import (
    VERDICTS,
    DriftReport,
    Expected,
    FeatureDrift,
    Figure,
    Instrument,
    Kind,
    Realised,
    Reason,
    RowsNeeded,
    ScoreDrift,
    Separability,
    ShareChange,
    Shift,
    Verdict,
)
from steps.measures.drift_shifts import Yardstick
from steps.measures.intervals import Z
from steps.measures.selection import FEWEST_EFFECTIVE

# A column is named only if shuffling it costs the classifier of old and new rows at least this much ROC AUC.
_NAMED_PART = 0.002


def gravest(reasons: Sequence[Reason]) -> Verdict:
    """The gravest verdict of the reasons; quiet without reasons."""
    return max((reason.verdict for reason in reasons), key=VERDICTS.index, default="quiet")


def too_few(rows: float, needed: RowsNeeded) -> Reason:
    """The reason that there are too few rows; `rows` is their effective number."""
    return Reason(
        "too_few",
        "too_few",
        "rows",
        f"{rows:,.0f} rows are too few to tell: it takes {needed.psi_0_25:,} to see a large shift in any "
        f"feature (PSI 0.25), {needed.psi_0_1:,} to see a moderate one (PSI 0.1)",
    )


def of_feature(
    feature: FeatureDrift, instrument: Instrument | None, realised: Realised | None, yardstick: Yardstick
) -> Iterator[Reason]:
    """Reasons from a feature."""
    name = feature.name
    changes: tuple[tuple[Kind, str, ShareChange], ...] = (
        ("missing", "missing", feature.missing),
        ("invalid", "not valid", feature.invalid),
        ("unseen", "of a level that no training row had", feature.unseen),
    )
    for kind, description, change in changes:
        if change.counts and change.rises:
            rules = f" ({', '.join(feature.rules)})" if kind == "invalid" and feature.rules else ""
            yield Reason("mend", kind, name, f"{name} is {description}{rules} in {_shares(change)}")
    if feature.missing.counts and not feature.missing.rises:
        yield Reason(
            "watch", "answered", name, f"{name} is missing less often: in {_shares(feature.missing)}"
        )
    if not feature.shift.counts:
        return
    moved = f"{name} has moved: {_psi(feature.shift)}"
    if instrument is None or instrument.feature != name:
        yield Reason("watch", "moved", name, moved)
        return
    text = f"{moved}, it alone, as if {_reads(instrument)}"
    if realised is not None and is_off(
        realised.observed_expected, yardstick.limits.observed_expected, realised, yardstick
    ):
        yield Reason(
            "mend", "instrument", name, f"{text}; and the risks are off with it, so the instrument is wrong"
        )
    else:
        yield Reason("watch", "instrument", name, text)


def _reads(instrument: Instrument) -> str:
    if instrument.offset:
        return f"read {abs(instrument.offset):.3g} too {'high' if instrument.offset > 0 else 'low'}"
    return f"multiplied by {instrument.scale:.3g}"


def _shares(change: ShareChange) -> str:
    now = f"{FEW} rows" if change.now is None else f"{100 * change.now:.1f} % of rows"
    return f"{now}, {100 * change.then:.1f} % in training"


def _psi(shift: Shift) -> str:
    return f"PSI {shift.psi:.3f} ({shift.low:.3f} to {shift.high:.3f})"


def of_score(score: ScoreDrift) -> Iterator[Reason]:
    """Reasons from the predicted risks."""
    if score.shift.counts:
        yield Reason(
            "watch", "score", "predicted risk", f"The predicted risks have moved: {_psi(score.shift)}"
        )


def of_separability(separability: Separability | None, yardstick: Yardstick) -> Iterator[Reason]:
    """Reasons from separability: its ROC AUC counts if it is significantly above its limit."""
    if separability is None or separability.roc_auc.value is None:
        return
    stderr = separability.stderr * yardstick.design_effect**0.5
    if separability.roc_auc.value - yardstick.z * stderr < yardstick.limits.separability:
        return
    named = ", ".join(part.name for part in separability.columns[:3] if part.lost > _NAMED_PART)
    text = f"New rows can be told from training rows: ROC AUC {separability.roc_auc.value:.3f}"
    yield Reason("watch", "separability", "all columns", text + (f", by {named}" if named else ""))


def of_expected(expected: Expected | None, yardstick: Yardstick) -> Iterator[Reason]:
    """Reasons from the expected ROC AUC: other people may be harder to rank, which no training changes."""
    if expected is None or not _is_loss(expected.loss, expected.loss_stderr, yardstick):
        return
    assert expected.roc_auc.value is not None
    yield Reason(
        "watch",
        "expected_roc_auc",
        "expected ROC AUC",
        f"Expected ROC AUC, without labels, is {expected.roc_auc.value:.3f}, {expected.loss:.3f} lower than "
        "for validation rows: these people are harder to rank",
    )


def of_realised(realised: Realised | None, yardstick: Yardstick) -> Iterator[Reason]:
    """Reasons from labels: ranking and calibration."""
    if realised is None:
        return
    ranking = realised.ranking
    if ranking.withheld is None and _is_loss(ranking.loss, ranking.loss_stderr, yardstick):
        yield Reason(
            "retrain",
            "roc_auc",
            "ROC AUC",
            f"ROC AUC on {realised.rows:,} labelled rows is {ranking.realised.value:.3f} where these "
            f"people's risks promise {ranking.expected:.3f}; {ranking.loss:.3f} worse than on "
            f"{ranking.compared_with}",
        )
    limits = yardstick.limits
    off = False
    if is_off(realised.observed_expected, limits.observed_expected, realised, yardstick):
        off = True
        adjective = "low" if (realised.observed_expected.value or 0) > 1 else "high"
        text = f"The risks are too {adjective}: observed / expected {_figure(realised.observed_expected)}"
        yield Reason("recalibrate", "observed_expected", "observed / expected", text)
    if is_off(realised.calibration_slope, limits.calibration_slope, realised, yardstick):
        off = True
        adjective = "timid" if (realised.calibration_slope.value or 0) > 1 else "extreme"
        text = f"The risks are too {adjective}: calibration slope {_figure(realised.calibration_slope)}"
        yield Reason("recalibrate", "calibration_slope", "calibration slope", text)
    excess = realised.calibration_error - realised.calibration_error_by_chance
    certain = realised.calibration_evidence >= yardstick.each
    if not off and certain and excess >= limits.calibration_error:
        yield Reason(
            "watch",
            "calibration_curve",
            "calibration curve",
            f"The risks are off in some bands of risk: calibration error {realised.calibration_error:.3f}, "
            f"{realised.calibration_error_by_chance:.3f} by chance, evidence "
            f"10^{realised.calibration_evidence:.0f}",
        )


def _figure(figure: Figure) -> str:
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"


def is_off(figure: Figure, limits: tuple[float, float], realised: Realised, yardstick: Yardstick) -> bool:
    """Whether a figure that is ideally 1 is outside its limits and significantly different from 1.

    Never with fewer than 50 effective positives or negatives.
    """
    if figure.value is None or figure.low is None or figure.high is None:
        return False
    if min(realised.effective_positives, realised.effective_negatives) < FEWEST_EFFECTIVE:
        return False
    stderr = (figure.high - figure.low) / (2 * Z)
    return not limits[0] <= figure.value <= limits[1] and abs(figure.value - 1) > yardstick.z * stderr


def _is_loss(loss: float, stderr: float, yardstick: Yardstick) -> bool:
    """Whether a loss of ROC AUC reaches its limit and is significant."""
    return loss >= yardstick.limits.roc_auc_loss and loss > yardstick.z * stderr


def advice(report: DriftReport) -> list[str]:
    """Advice for people, most urgent first."""
    kinds = {reason.kind for reason in report.reasons}
    sentences = []
    if report.broken:
        sentences.append(
            f"Mend {', '.join(report.broken)} where it comes from. Training on such rows would teach the "
            "fault."
        )
    if report.instrument is not None:
        sentences.append(
            f"Look at how {report.instrument.feature} is measured: its device, unit, zero and coding. "
            "A changed instrument looks like changed people."
        )
    sentences += [_ACTS[report.verdict]] if report.verdict in _ACTS else []
    if "moved" in kinds:
        sentences.append(
            "Check that what has moved is still asked, measured and coded as before. If it is, these are "
            "other people, and no training makes them easier to predict."
        )
    if report.realised is None:
        sentences.append(
            "Without labels nobody can see whether the same answers still mean the same risk (concept "
            "shift): collect outcomes, from people of every band of risk."
        )
    elif report.realised.ranking.withheld is not None:
        sentences.append(
            f"The ranking is not judged: {report.realised.ranking.withheld}. Collect outcomes from people "
            "of every band of risk."
        )
    return sentences


_ACTS: dict[Verdict, str] = {
    "too_few": "Come back with more rows.",
    "watch": "Compare again with the next data; if it stays, collect labels of these people.",
    "recalibrate": (
        "Recalibrate: mlflow run . -e promote -P recalibrate=true -P data=<the labelled rows>. It changes "
        "intercept and slope of the risks, and is judged before it is promoted."
    ),
    "retrain": "Train on labelled rows of the new kind; promotion judges whether the result is better.",
}
