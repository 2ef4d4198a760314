"""How often the intervals of an evaluation hold the truth where few people have the outcome.

    python -m benchmarks.coverage [--samples 4000] [--replicates 200]

Recall with 10 to 17 people with the outcome, over true recalls from 0.5 to 0.98, and ROC AUC with 10 to 25 of
them among 300 people, over true values from 0.65 to 0.9: risks are normal in either group. Each interval is
said to hold the truth in 95 of 100 samples; bootstrap percentiles stand beside, as evaluations had them
before. Exit code 3 where the mean over the true values is below 93 %.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from benchmarks.__main__ import MISSED
from steps.measures import intervals, metrics
from steps.measures.delong import placements

RECALLS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
AREAS = (0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
ENOUGH = 0.93
PEOPLE = 300

Interval = Callable[[np.ndarray, np.ndarray], tuple[float, float]]


def recall_coverage(positives: int, truth: float, samples: int, seed: int) -> tuple[float, float]:
    """Share of samples whose interval holds the true recall: Wilson's, and bootstrap percentiles."""
    generator = np.random.default_rng(seed)
    hits_of_samples = generator.binomial(positives, truth, samples)
    wilson, percentiles = {}, {}
    for hits in np.unique(hits_of_samples):
        estimate = intervals.wilson(int(hits), positives)
        wilson[hits] = estimate.low <= truth <= estimate.high
        drawn = generator.binomial(positives, hits / positives, 2000) / positives
        low, high = np.quantile(drawn, (0.025, 0.975))
        percentiles[hits] = low <= truth <= high
    return (
        float(np.mean([wilson[hits] for hits in hits_of_samples])),
        float(np.mean([percentiles[hits] for hits in hits_of_samples])),
    )


def area_coverage(
    positives: int, truth: float, samples: int, replicates: int, seed: int
) -> tuple[float, float]:
    """Share of samples whose interval holds the true ROC AUC: DeLong's on log odds, bootstrap percentiles.

    The bootstrap is tried on every tenth sample.
    """
    generator = np.random.default_rng(seed)
    shift = np.sqrt(2) * NormalDist().inv_cdf(truth)
    y = (np.arange(PEOPLE) < positives).astype(np.int8)
    covered = np.zeros(2)
    for sample in range(samples):
        score = generator.normal(size=PEOPLE) + shift * y
        delong = placements(y, score)
        estimate = intervals.logit_delong(delong.roc_auc, delong.standard_error, positives)
        covered[0] += estimate.low <= truth <= estimate.high
        if sample % 10:
            continue
        ranking = metrics.rank(y, score)
        weights = np.concatenate(list(metrics.bootstrap_weights(PEOPLE, replicates, seed + sample)))
        low, high = metrics.interval(metrics.roc_auc_of_counts(metrics.count(ranking, weights)))
        covered[1] += low <= truth <= high
    return float(covered[0] / samples), float(covered[1] / len(range(0, samples, 10)))


def main() -> int:
    """Print a line for each number of people with the outcome, and last the smallest mean coverage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--replicates", type=int, default=200)
    chosen = parser.parse_args()
    smallest = 1.0
    for name, sizes, truths in (
        ("recall", (10, 12, 14, 17), RECALLS),
        ("ROC AUC", (10, 15, 20, 25), AREAS),
    ):
        print(f"{name}, true values {', '.join(f'{truth:g}' for truth in truths)}")
        print(f"{'with the outcome':>18}{'closed form':>13}{'worst':>8}{'bootstrap':>11}{'worst':>8}")
        for positives in sizes:
            if name == "recall":
                shares = [recall_coverage(positives, t, chosen.samples, positives) for t in truths]
            else:
                shares = [
                    area_coverage(positives, t, chosen.samples, chosen.replicates, positives) for t in truths
                ]
            closed, drawn = np.array(shares).T
            print(
                f"{positives:18}{closed.mean():13.3f}{closed.min():8.3f}{drawn.mean():11.3f}{drawn.min():8.3f}",
                flush=True,
            )
            smallest = min(smallest, float(closed.mean()))
    print(f"smallest mean of the closed forms: {smallest:.3f}, wanted {ENOUGH:g}")
    return MISSED if smallest < ENOUGH else 0


if __name__ == "__main__":
    sys.exit(main())
