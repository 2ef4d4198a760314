"""How fast one person's page is drawn, and drawn again after an answer: `python -m benchmarks.person_page`.

Opens `build/release/risk.html` (`make page`) in headless Chromium, each time in a fresh context, and prints
medians with their 5th and 95th percentiles: the first paint, the model alone, and one change of an answer
until the page is drawn again. Writes benchmarks/results/person_page.txt.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results") / "person_page.txt"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
FIRST_PAINT = """() => new Promise(resolve => new PerformanceObserver(list => resolve(
    list.getEntriesByName("first-contentful-paint")[0].startTime
)).observe({type: "paint", buffered: true}))"""
MODEL = """() => {
    const { compute } = riskPage.model(riskPage.page.terms);
    const start = performance.now();
    for (let at = 0; at < 200; at += 1) compute(riskPage.page.example);
    return (performance.now() - start) / 200;
}"""
CHANGE = """() => new Promise(resolve => {
    const inputs = document.querySelectorAll("#q0-0, #q0-1");
    const start = performance.now();
    inputs[inputs[0].checked ? 1 : 0].click();
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
})"""


def measure(page_file: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round, by measurement."""
    from playwright.sync_api import sync_playwright

    milliseconds: dict[str, list[float]] = {"first paint": [], "the model alone": [], "a change, drawn": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        for _ in range(rounds):
            context = browser.new_context()
            page = context.new_page()
            page.goto(page_file.as_uri())
            milliseconds["first paint"].append(page.evaluate(FIRST_PAINT))
            page.click("#example")
            milliseconds["the model alone"].append(page.evaluate(MODEL))
            milliseconds["a change, drawn"].append(page.evaluate(CHANGE))
            context.close()
        browser.close()
    return milliseconds


def main() -> int:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.person_page", description=__doc__)
    parser.add_argument("--page", type=Path, default=ROOT / "build" / "release" / "risk.html")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}, {arguments.rounds} rounds;",
        f"the page has {arguments.page.stat().st_size / 1000:.0f} KB",
        f"{'milliseconds':20}{'median':>8}{'5 %':>8}{'95 %':>8}",
    ]
    for name, times in measure(arguments.page, arguments.rounds).items():
        low, middle, high = np.quantile(times, [0.05, 0.5, 0.95])
        lines.append(f"{name:20}{middle:8.2f}{low:8.2f}{high:8.2f}")
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
