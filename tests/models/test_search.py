"""The search is reproducible, resumable and hard to kill, whatever its trials do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from steps import tune
from steps.models.families import SPACE, Hyperparameter
from steps.models.search import Limits, SearchResult, search
from steps.models.search_workers import SearchError
from steps.models.trials import RecordError, Space, Trial, from_record, to_record
from steps.reports import search_plots
from tests.conftest import ROOT
from tests.made_up import search_objectives as objectives

TWO: Space = {
    "logistic_regression": (Hyperparameter("x", 0.1, 10.0, default=1.0, log=True),),
    "random_forest": (Hyperparameter("x", 0, 20, default=10, integer=True),),
}


def run(make: Any, **options: Any) -> SearchResult:
    """A search of 14 trials, two at once; any limit and any other argument can be given."""
    limits = {"max_evals": 14, "parallelism": 2, "seed": 5}
    named = {field.name for field in fields(Limits)}
    limits |= {name: value for name, value in options.items() if name in named}
    others = {name: value for name, value in options.items() if name not in named}
    return search(make, TWO, Limits(**limits), **others)


def essence(result: SearchResult) -> list[tuple[int, str, Mapping[str, float], float | None]]:
    return [(t.number, t.family, t.params, t.loss) for t in result.trials]


@pytest.fixture(scope="module")
def plain() -> SearchResult:
    return run(objectives.make_bowl)


def test_trials_do_not_depend_on_which_ends_first(plain: SearchResult) -> None:
    """Same seed, parallelism and number of trials: the same trials and the same winner."""
    uneven = run(partial(objectives.make_bowl, 0.08))
    assert essence(uneven) == essence(plain)
    assert uneven.best.number == plain.best.number


def test_another_seed_gives_other_trials(plain: SearchResult) -> None:
    other = run(objectives.make_bowl, seed=6)
    assert essence(other)[:2] == essence(plain)[:2]  # each family's defaults come first
    assert essence(other)[2:] != essence(plain)[2:]


def test_a_suggestion_knows_exactly_the_trials_before_it_less_2p_minus_1(plain: SearchResult) -> None:
    """Another loss of trial 8 changes nothing up to trial 11, and with 2 at once something afterwards."""
    tampered = [replace(t, loss=-50.0 if t.number == 8 else t.loss) for t in plain.trials if t.number <= 8]
    after = run(objectives.make_bowl, done=tampered, max_evals=30)
    before = run(objectives.make_bowl, done=plain.trials, max_evals=30)
    same = [a.params == b.params for a, b in zip(after.trials, before.trials, strict=True)]
    assert all(same[:12])
    assert not all(same[12:])


def test_it_goes_on_from_any_trials_that_finished(plain: SearchResult) -> None:
    """Trials handed in are not run again, gaps are filled, and the result is as if never interrupted."""
    done = [trial for trial in plain.trials if trial.number in (0, 1, 2, 4, 7)]
    ran: list[Trial] = []
    resumed = run(objectives.make_bowl, done=done, on_trial=ran.append)
    assert essence(resumed) == essence(plain)
    assert sorted(trial.number for trial in ran) == [3, 5, 6, *range(8, 14)]


def test_a_finished_search_starts_no_process(plain: SearchResult) -> None:
    again = run(objectives.make_unusable, done=plain.trials)
    assert essence(again) == essence(plain)


def test_it_finds_what_is_good(plain: SearchResult) -> None:
    """TPE with 30 trials gets nearer to the best place than the families' defaults."""
    found = run(objectives.make_bowl, done=plain.trials, max_evals=30)
    assert found.best.family == "logistic_regression"
    assert found.best.loss is not None
    assert found.best.loss < 0.05


def test_a_trial_that_raises_fails_alone_and_says_why() -> None:
    """The reason is the error's type and place; its message, which may quote a value, stays out."""
    result = run(partial(objectives.make_failing, ("random_forest",)), max_evals=8)
    failed = [trial for trial in result.trials if trial.loss is None]
    assert failed
    assert {trial.reason for trial in failed} == {"ValueError in tests.made_up.search_objectives.objective"}
    assert result.best.family == "logistic_regression"


def test_a_killed_process_costs_its_trial_a_retry() -> None:
    """Killed twice the trial has failed; the others go on in new processes."""
    result = run(partial(objectives.make_killed, ("random_forest",)), max_evals=4)
    assert [trial.family for trial in result.trials if trial.loss is None] == [
        trial.family for trial in result.trials if trial.family == "random_forest"
    ]
    assert "died twice" in next(trial.reason for trial in result.trials if trial.loss is None)


def test_a_process_killed_once_changes_nothing(plain: SearchResult, tmp_path: Path) -> None:
    result = run(partial(objectives.make_killed_once, tmp_path / "killed"))
    assert essence(result) == essence(plain)


def test_without_any_finished_trial_it_says_what_to_do() -> None:
    both = ("logistic_regression", "random_forest")
    with pytest.raises(SearchError, match=r"all 4 trials failed.*ValueError in.*the same command tries them"):
        run(partial(objectives.make_failing, both), max_evals=4)
    with pytest.raises(SearchError, match="lower parallelism"):
        run(partial(objectives.make_killed, both))
    with pytest.raises(SearchError, match=r"train\.parquet"):
        run(objectives.make_unusable)
    with pytest.raises(SearchError, match="at least 1"):
        run(objectives.make_bowl, max_evals=0)


def test_it_stops_where_nothing_gets_better() -> None:
    """Patience is counted in trials whose outcome the next suggestion may know, so it is reproducible."""
    result = run(objectives.make_flat, patience=3, max_evals=50)
    assert result.stopped_by == "no progress"
    # Trial 0 sets the best, 1 to 3 bring nothing, and trial 6 was the last to start without knowing 3.
    assert len(result.trials) == 7


def test_the_timeout_gives_up_running_trials_and_keeps_finished_ones() -> None:
    finished: list[Trial] = []
    result = run(
        partial(objectives.make_endless, ("random_forest",)),
        timeout_minutes=10,
        on_trial=finished.append,
        clock=lambda: 3600.0 if finished else 0.0,
    )
    assert result.stopped_by == "timeout"
    assert [trial.number for trial in result.trials] == [0]


def test_each_worker_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment of the search says."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert run(objectives.make_threads, max_evals=2).best.loss == 1


PROGRAM = """
from functools import partial
from steps.models.search import Limits, search
from tests.made_up import search_objectives
from tests.models import test_search

if __name__ == "__main__":
    try:
        search(
            partial(search_objectives.make_endless, ("random_forest",)), test_search.TWO,
            Limits(max_evals=9, parallelism=2, seed=0),
            on_trial=lambda trial: print("finished", trial.number, flush=True),
        )
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_search(end: signal.Signals, tmp_path: Path) -> None:
    """After Ctrl-C in a terminal (all processes get it) and after kill -9 of the search alone."""
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "finished 0\n"
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    if end == signal.SIGINT:
        os.killpg(process.pid, end)
    else:
        process.kill()
    output, errors = process.communicate(timeout=120)
    assert psutil.wait_procs(workers, timeout=120)[1] == []
    if end == signal.SIGINT:
        *finished, last = output.splitlines()  # trials may have finished before the signal came
        assert last == "interrupted"
        assert all(line.startswith("finished ") for line in finished)
        assert errors == ""


def test_a_trial_comes_back_from_its_record_as_it_was(plain: SearchResult) -> None:
    """Through strings and numbers as a tracking store keeps them, failed trials too."""
    failed = Trial(3, "random_forest", {"x": 7}, None, {}, "ValueError: no")
    for trial in (*plain.trials, failed):
        record = to_record(trial)
        assert all(isinstance(value, str) for value in (*record.params.values(), *record.tags.values()))
        assert from_record(record.params, record.metrics, record.tags, TWO) == trial


def test_failed_trials_are_tried_again(plain: SearchResult) -> None:
    """A search whose trials all failed for lack of a file or of memory can go on once that is mended."""
    failed = Trial(3, "random_forest", {"x": 7}, None, {}, "OSError: disk full")
    runs = [SimpleNamespace(data=to_record(trial)) for trial in (failed, plain.trials[4])]
    runs.append(SimpleNamespace(data=SimpleNamespace(params={}, metrics={}, tags={"trial": "5"})))
    step: Any = SimpleNamespace(chain=SimpleNamespace(find_runs=lambda tags: runs))
    assert tune.finished_trials(step, "key", TWO) == [plain.trials[4]]


def test_a_record_of_another_space_is_refused(plain: SearchResult) -> None:
    record = to_record(plain.trials[0])
    with pytest.raises(RecordError, match="start the tuning afresh"):
        from_record(record.params, record.metrics, record.tags, SPACE)


def made_up(count: int) -> list[Trial]:
    """Trials of boosting whose loss depends on the learning rate alone, and one failed forest."""
    space = SPACE["histogram_gradient_boosting"]
    result = []
    for number in range(count):
        shares = [(number * (2 * place + 1) * 0.381966) % 1 for place in range(len(space))]
        values = zip(space, shares, strict=True)
        params = {one.name: one.round(one.low * (one.high / one.low) ** share) for one, share in values}
        loss = 0.3 + (space[0].position(params["learning_rate"]) - 0.4) ** 2
        result.append(Trial(number, "histogram_gradient_boosting", params, loss, {"roc_auc_mean": 0.8}))
    return [*result, Trial(count, "random_forest", {}, None, {}, "out of luck")]


@pytest.mark.parametrize("count", [0, 1, 30])
def test_pictures_are_drawn_of_any_search(count: int) -> None:
    """PNG files, byte for byte the same for the same trials; also where every trial failed."""
    pictures = search_plots.pictures(made_up(count), SPACE)
    assert set(pictures) == {"history", "families"}
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
    assert pictures == search_plots.pictures(made_up(count), SPACE)


def test_every_default_can_be_searched() -> None:
    """Defaults lie inside the ranges, and the edges of a range survive rounding."""
    for family, hyperparameters in SPACE.items():
        for one in hyperparameters:
            assert one.low <= one.default <= one.high, family
            assert one.round(one.low) == one.low
            assert one.round(one.high) == one.high
            assert (one.position(one.low), one.position(one.high)) == pytest.approx((0, 1))
