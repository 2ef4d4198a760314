"""Can champions get worse by one small loss after another? A thousand years of weekly attempts.

    python -m benchmarks.creep [--data SURVEY.parquet] [--histories 1000]

The decision is the real one, `steps.measures.promotion.judge`; its figures are drawn at random. If the survey
is available, 21 models are fitted first (four families of settings, each on its own half of the training
rows), and 20 of them are compared with the first on its test rows. This gives the covariance of the changes
of ROC AUC, log loss and net benefit, and how log loss and net benefit follow ROC AUC. It is kept in
`results/creep_noise.json` and scaled to other numbers of rows. Prints a line for each kind of challenger and
number of test rows.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.__main__ import MISSED, ROOT, SURVEY
from steps.data import split
from steps.data.files import TARGET_COLUMN
from steps.data.schema import Gates
from steps.data.schema_file import load
from steps.measures import metrics
from steps.measures.comparison import Change, Estimate, Figures, GroupChange, compare, measure
from steps.measures.delong import placements
from steps.measures.promotion import Against, judge
from steps.models import families, fitting

Floats = NDArray[np.float64]

KEPT = ROOT / "benchmarks" / "results" / "creep_noise.json"
ATTEMPTS = 52
ROWS = (500, 2_000, 6_000, 50_000)
MOST_CREEP, LEAST_POWER = 0.02, 0.95
GAIN = 0.003
_JUST_BEYOND = 1.02  # margins
_THRESHOLD = 0.14


@dataclass(frozen=True)
class Noise:
    """Random variation of figures and of their changes, from 20 real comparisons on `rows` test rows.

    `covariance` (3, 3): of the changes of ROC AUC, log loss and net benefit. `log_loss_of_area` and
    `benefit_of_area`: how much they change when ROC AUC rises by 1. `errors`: standard errors of ROC AUC,
    calibration slope and log(observed / expected) of one model. `groups`: for each subgroup the errors of
    log(observed / expected), of its distance from 1 against another model, and of the change of recall.
    `area_error_range`: smallest and largest error of a change of ROC AUC among the comparisons.
    """

    rows: int
    events: int
    log_loss: float
    covariance: list[list[float]]
    log_loss_of_area: float
    benefit_of_area: float
    errors: list[float]
    groups: dict[str, list[float]]
    area_error_range: list[float]


@dataclass(frozen=True)
class Truth:
    """A model's true figures minus those of the first champion."""

    area: float
    log_loss: float
    benefit: float


START = Truth(0.0, 0.0, 0.0)
Challenger = Callable[[int, Truth, Truth, np.random.Generator], Truth]


def measure_noise(data: Path) -> Noise:
    """Fit, compare, and average over the comparisons."""
    schema = load(ROOT / "data" / "brfss2015.yaml")
    frame = pd.read_parquet(data).astype(float)
    outcome = frame[schema.target.name].isin(schema.target.positive).to_numpy().astype(np.int8)
    features = frame[list(schema.feature_names)]
    part = split.assign(features, schema)
    test, train = part == 2, np.flatnonzero(part == 0)
    y = outcome[test].astype(float)
    groups = {group.name: group.mask(frame[test]) for group in schema.subgroups}
    risks = []
    for number, (family, settings) in enumerate(_settings()):
        chosen = np.sort(np.random.default_rng(number).permutation(train)[: len(train) // 2])
        rows = features.iloc[chosen].assign(**{TARGET_COLUMN: outcome[chosen]})
        model = fitting.fit(family, settings, rows, schema, seed=number)
        risks.append(np.asarray(families.predict_risk(model, features[test])))
        print(f"fit {number}: {family}, ROC AUC {metrics.roc_auc(y, risks[-1]):.4f}", flush=True)
    return _noise_of(y, risks, groups)


def _settings() -> list[tuple[families.Family, dict[str, float]]]:
    boosted: list[tuple[families.Family, dict[str, float]]] = [
        ("histogram_gradient_boosting", {"max_iter": iterations, "learning_rate": 0.1})
        for iterations in (100, 100, 100, 100, 100, 100, 100, 150, 150, 80, 80)
    ]
    logistic: list[tuple[families.Family, dict[str, float]]] = [
        ("logistic_regression", {"C": strength, "knots": knots})
        for strength, knots in ((0.3, 5), (0.3, 5), (0.3, 4), (1.0, 5), (0.1, 6), (0.03, 3))
    ]
    forests: list[tuple[families.Family, dict[str, float]]] = [
        ("random_forest", {"min_samples_leaf": leaf, "max_samples": 0.2}) for leaf in (40, 40, 60, 80)
    ]
    return [*boosted, *logistic, *forests]


def _noise_of(y: Floats, risks: list[Floats], groups: dict[str, NDArray[np.bool_]]) -> Noise:
    first, figures = risks[0], measure(y, risks[0], groups)
    changes = [compare(y, risk, first, _THRESHOLD, groups) for risk in risks[1:]]
    areas, losses, benefits = (
        np.array([getattr(change, name).value for change in changes])
        for name in ("roc_auc_change", "log_loss_change", "net_benefit_change")
    )
    covariance = np.mean([_covariance(y, risk, first) for risk in risks[1:]], axis=0)
    errors = [change.roc_auc_change.error for change in changes]
    return Noise(
        rows=len(y),
        events=int(y.sum()),
        log_loss=figures.log_loss.value,
        covariance=covariance.tolist(),
        log_loss_of_area=float(areas @ losses / (areas @ areas)),
        benefit_of_area=float(areas @ benefits / (areas @ areas)),
        errors=[figures.roc_auc.error, figures.calibration_slope.error, figures.observed_expected.error],
        groups={
            name: [
                figures.groups[name].error,
                float(np.mean([change.groups[name].distance.error for change in changes])),
                float(np.mean([change.groups[name].recall.error for change in changes])),
            ]
            for name in groups
        },
        area_error_range=[min(errors), max(errors)],
    )


def _covariance(y: Floats, new: Floats, old: Floats) -> Floats:
    """Covariance (3, 3) of the three changes, from each row's influence on them."""
    first, second = placements(y, new), placements(y, old)
    influence = np.empty((len(y), 3))
    for case, moved in ((1, first.positive - second.positive), (0, first.negative - second.negative)):
        influence[y == case, 0] = (moved - moved.mean()) / len(moved)
    losses = metrics.log_losses(y, new) - metrics.log_losses(y, old)
    worth = np.where(y == 1, 1.0, -_THRESHOLD / (1 - _THRESHOLD))
    benefits = ((new >= _THRESHOLD).astype(float) - (old >= _THRESHOLD)) * worth
    influence[:, 1] = (losses - losses.mean()) / len(y)
    influence[:, 2] = (benefits - benefits.mean()) / len(y)
    covariance: Floats = influence.T @ influence
    return covariance


def challengers(noise: Noise, limits: Gates) -> dict[str, Challenger]:
    """The kinds of challengers: the true figures of each attempt's candidate, given champion and anchor."""
    margin, loss_margin = limits.roc_auc_margin, limits.log_loss_margin * noise.log_loss

    def moved(area: float) -> Truth:
        return Truth(area, noise.log_loss_of_area * area, noise.benefit_of_area * area)

    def equal(k: int, champion: Truth, anchor: Truth, chance: np.random.Generator) -> Truth:
        return START

    def wandering(mean: float) -> Challenger:
        def draw(k: int, champion: Truth, anchor: Truth, chance: np.random.Generator) -> Truth:
            return moved(champion.area + chance.normal(mean, 0.003))

        return draw

    def beyond(k: int, champion: Truth, anchor: Truth, chance: np.random.Generator) -> Truth:
        return moved(anchor.area - _JUST_BEYOND * margin)

    def ranks_worse(k: int, champion: Truth, anchor: Truth, chance: np.random.Generator) -> Truth:
        return replace(anchor, area=anchor.area - _JUST_BEYOND * margin)

    def lure(k: int, champion: Truth, anchor: Truth, chance: np.random.Generator) -> Truth:
        if k <= 12:
            return moved(0.0005 * k)
        return moved(anchor.area - _JUST_BEYOND * margin)

    def miscalibrated(k: int, champion: Truth, anchor: Truth, chance: np.random.Generator) -> Truth:
        return replace(anchor, log_loss=anchor.log_loss + _JUST_BEYOND * loss_margin)

    return {
        "equal refits": equal,
        "0.002 worse than the champion, ± 0.003": wandering(-0.002),
        "just beyond the margin": beyond,
        "just beyond it, log loss as the anchor's": ranks_worse,
        "lure the anchor up, then just beyond": lure,
        "just beyond it in log loss alone": miscalibrated,
    }


class Year:
    """Attempts on new test rows each time; the random error of every model is drawn anew for each."""

    def __init__(self, noise: Noise, rows: int, limits: Gates, chance: np.random.Generator) -> None:
        self.noise, self.limits, self.chance = noise, limits, chance
        self.scale = noise.rows / rows
        self.events = round(noise.events / self.scale)
        self.rows = rows
        # Half of a change's variance comes from each of the two models.
        self.luck = np.linalg.cholesky(np.array(noise.covariance) * self.scale / 2)
        area, loss, benefit = np.sqrt(np.diag(noise.covariance) * self.scale)
        self.errors = (float(area), float(loss), float(benefit))

    def attempt(self, k: int, candidate: Truth, champion: Truth, anchor: Truth) -> tuple[str, bool]:
        """The verdict on a candidate, and whether the anchor moves to it."""
        models = {id(champion): self._draw(), id(anchor): self._draw()}
        luck = self._draw()
        figures = self._figures(candidate)
        judged = judge(
            figures,
            Against("the champion", self._change(candidate, luck, champion, models[id(champion)])),
            Against("the anchor", self._change(candidate, luck, anchor, models[id(anchor)])),
            self.limits,
            k,
        )
        return judged.verdict, judged.beats_anchor

    def _draw(self) -> Floats:
        drawn: Floats = self.luck @ self.chance.standard_normal(3)
        return drawn

    def _figures(self, model: Truth) -> Figures:
        area, slope, ratio = (error * math.sqrt(self.scale) for error in self.noise.errors)
        normal = self.chance.standard_normal(3 + len(self.noise.groups))
        groups = {
            name: Estimate(
                math.exp(luck * errors[0] * math.sqrt(self.scale)),
                errors[0] * math.sqrt(self.scale),
                log=True,
            )
            for luck, (name, errors) in zip(normal[3:], self.noise.groups.items(), strict=True)
        }
        return Figures(
            self.events,
            self.rows - self.events,
            Estimate(0.828 + model.area + normal[0] * area, area),
            Estimate(self.noise.log_loss, 0.0),
            Estimate(1 + normal[1] * slope, slope),
            Estimate(math.exp(normal[2] * ratio), ratio, log=True),
            groups,
        )

    def _change(self, candidate: Truth, luck: Floats, rival: Truth, rival_luck: Floats) -> Change:
        drawn = luck - rival_luck
        normal = self.chance.standard_normal((2, len(self.noise.groups))) * math.sqrt(self.scale)
        return Change(
            self.events,
            self.rows - self.events,
            self.noise.log_loss + rival.log_loss,
            Estimate(candidate.area - rival.area + drawn[0], self.errors[0]),
            Estimate(candidate.log_loss - rival.log_loss + drawn[1], self.errors[1]),
            Estimate(candidate.benefit - rival.benefit + drawn[2], self.errors[2]),
            {
                name: GroupChange(
                    Estimate(first * errors[1], errors[1] * math.sqrt(self.scale)),
                    Estimate(second * errors[2], errors[2] * math.sqrt(self.scale)),
                )
                for first, second, (name, errors) in zip(*normal, self.noise.groups.items(), strict=True)
            },
        )


@dataclass(frozen=True)
class Outcome:
    """Share of histories that end beyond a margin of the anchor, and shares of the attempts' verdicts."""

    crept: float
    promoted: float
    undecided: float


def play(noise: Noise, rows: int, draw: Challenger, limits: Gates, histories: int) -> Outcome:
    """Simulate a year of attempts many times."""
    chance = np.random.default_rng(17)
    year = Year(noise, rows, limits, chance)
    crept, verdicts = 0, {"promoted": 0, "undecided": 0, "refused": 0}
    for _ in range(histories):
        champion = anchor = START
        for k in range(1, ATTEMPTS + 1):
            candidate = draw(k, champion, anchor, chance)
            verdict, moves = year.attempt(k, candidate, champion, anchor)
            verdicts[verdict] += 1
            if verdict == "promoted":
                champion = candidate
                anchor = candidate if moves else anchor
        crept += (
            champion.area < anchor.area - limits.roc_auc_margin - 1e-12
            or champion.log_loss > anchor.log_loss + limits.log_loss_margin * noise.log_loss + 1e-12
        )
    attempts = histories * ATTEMPTS
    return Outcome(crept / histories, verdicts["promoted"] / attempts, verdicts["undecided"] / attempts)


def first_attempts(noise: Noise, rows: int, gain: float, limits: Gates, tries: int) -> float:
    """Share of promotions among first attempts with a candidate that is better by `gain`."""
    year = Year(noise, rows, limits, np.random.default_rng(18))
    better = Truth(gain, noise.log_loss_of_area * gain, noise.benefit_of_area * gain)
    return float(np.mean([year.attempt(1, better, START, START)[0] == "promoted" for _ in range(tries)]))


def main() -> int:
    """Exit code 3 if too many histories get worse, or too few better challengers are promoted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.creep", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=SURVEY)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--measure", action="store_true", help="fit and compare again, even if it was kept")
    chosen = parser.parse_args()
    if chosen.measure or not KEPT.exists():
        if not chosen.data.exists():
            print("the survey is needed to measure the noise: name it with --data (data/README.md)")
            return 1
        KEPT.write_text(json.dumps(asdict(measure_noise(chosen.data)), indent=1) + "\n", encoding="utf-8")
    noise = Noise(**json.loads(KEPT.read_text(encoding="utf-8")))
    limits = Gates(roc_auc_min=0.8)
    errors = np.sqrt(np.diag(noise.covariance))
    print(
        f"standard error of a change on {noise.rows:,} rows: ROC AUC {errors[0]:.5f} (from "
        f"{noise.area_error_range[0]:.5f} to {noise.area_error_range[1]:.5f}), log loss {errors[1]:.5f}, "
        f"net benefit {errors[2]:.5f}; correlation of the first two "
        f"{noise.covariance[0][1] / errors[0] / errors[1]:.2f}\n"
    )
    missed = False
    print(f"{'challengers':42}{'test rows':>10}{'beyond':>9}{'promoted':>10}{'undecided':>11}")
    for name, draw in challengers(noise, limits).items():
        for rows in ROWS:
            outcome = play(noise, rows, draw, limits, chosen.histories)
            missed |= outcome.crept > MOST_CREEP
            print(
                f"{name:42}{rows:10,}{outcome.crept:9.3f}{outcome.promoted:10.3f}{outcome.undecided:11.3f}",
                flush=True,
            )
    print(f"\n{'first attempt':42}{'test rows':>10}{'promoted':>19}")
    for gain in (0.0, GAIN):
        for rows in ROWS:
            share = first_attempts(noise, rows, gain, limits, chosen.histories)
            missed |= gain == GAIN and rows >= 6_000 and share < LEAST_POWER
            print(f"{f'better by {gain:g}':42}{rows:10,}{share:19.3f}", flush=True)
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
