"""Search over families and hyperparameters: hyperopt's TPE with parallel, reproducible, resumable trials.

hyperopt proposes, this module schedules. Suggestion i is made from exactly trials 0..i-2p, where p is the
parallelism, whatever else has finished: the same seed, parallelism and number of trials give the same trials,
and while p trials run up to p - 1 more may be waiting, so that a slow trial rarely idles a core. The trials
in between (i-2p+1..i-1) count as failed, finished or not, so that TPE does not propose the same point again
before its result is used (the "constant liar": Ginsbourger et al. 2010, Kriging is well-suited to parallelize
optimization). Whether to stop for lack of progress is decided from trials 0..i-2p too.

Trials run in the processes of `steps.models.search_workers`. A trial that raises is a failed trial with its
reason; a process that dies costs its trial one retry, then fails it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from steps.models.families import Family, Hyperparameter, Value
from steps.models.search_workers import Assignment, Objective, Pool, SearchError
from steps.models.trials import Space, Trial

# The first trials of each family, before TPE has enough to model: its defaults, then random parameters.
_FIRST_TRIALS = 4
# A smaller gain in log loss than this is not progress.
_MINIMUM_GAIN = 1e-5
# This many processes that die in a row, with no trial finished in between, mean a sick machine, not a bad
# trial.
_DEATHS_IN_A_ROW = 6


StoppedBy = Literal["max_evals", "no progress", "timeout"]


@dataclass(frozen=True)
class Limits:
    """Size, parallelism and seed of a search, and its other ends.

    patience: stop after so many trials in a row without a gain of 1e-5; None never stops. timeout_minutes:
    limit of one call; running trials are dropped, finished trials count.
    """

    max_evals: int
    parallelism: int
    seed: int
    timeout_minutes: float | None = None
    patience: int | None = None


@dataclass(frozen=True)
class SearchResult:
    """All trials by number, the best of them, and what ended the search."""

    trials: tuple[Trial, ...]
    best: Trial
    stopped_by: StoppedBy
    seconds: float

    @property
    def best_of_each(self) -> dict[Family, Trial]:
        """The trial of least loss of each family that has a finished one."""
        finished = sorted(
            (trial for trial in self.trials if trial.loss is not None),
            key=lambda trial: (trial.loss, trial.number),
            reverse=True,
        )
        return {trial.family: trial for trial in finished}


def search(
    make_objective: Callable[[], Objective],
    space: Space,
    limits: Limits,
    *,
    done: Iterable[Trial] = (),
    on_trial: Callable[[Trial], None] | None = None,
    progress: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """Look for the family and hyperparameters of least loss, and return every trial.

    make_objective: picklable; called once in each worker process. The objective takes a family and its
        parameters and returns metrics, "loss" among them; an exception fails that trial only.
    done: trials finished earlier; they are used as they are and not run again.
    on_trial: called in this process as soon as a trial has finished or failed.
    Ctrl-C ends the workers and raises KeyboardInterrupt; `on_trial` has been called for finished trials.
    Raises SearchError where no trial finished, or where workers keep dying.
    """
    if limits.max_evals < 1 or limits.parallelism < 1:
        raise SearchError(
            f"max_evals ({limits.max_evals}) and parallelism ({limits.parallelism}) must be at least 1"
        )
    started = clock()
    deadline = None if limits.timeout_minutes is None else started + 60 * limits.timeout_minutes
    schedule = _Schedule(space, limits, done)
    with (
        Pool(make_objective, min(limits.parallelism, schedule.remaining)) as pool,
        bar(limits.max_evals, progress) as progress_bar,
    ):
        for trial in schedule.trials:
            progress_bar.show(trial)
        while True:
            while pool.idle and (assignment := schedule.next()) is not None:
                pool.submit(assignment)
            if not pool.busy:
                break
            seconds_left = None if deadline is None else deadline - clock()
            if seconds_left is not None and seconds_left <= 0:
                schedule.stopped_by = "timeout"
                break
            for assignment, answer in pool.answers(seconds_left):
                ended = schedule.take(assignment, answer)
                if ended is None:
                    continue
                if on_trial is not None:
                    on_trial(ended)
                progress_bar.show(ended)
    trials = schedule.trials
    return SearchResult(trials, best(trials, schedule.stopped_by), schedule.stopped_by, clock() - started)


class _Schedule:
    """The order of the trials and their results, apart from the processes that run them."""

    def __init__(self, space: Space, limits: Limits, done: Iterable[Trial]) -> None:
        self._limits = limits
        self._suggester = Suggester(space, limits.seed)
        self._results = {trial.number: trial for trial in done if trial.number < limits.max_evals}
        self._end = limits.max_evals
        self._upcoming = 0
        self._given: dict[int, Assignment] = {}
        self._retries: list[Assignment] = []
        self._retried: set[int] = set()
        self._deaths = 0
        self.stopped_by: StoppedBy = "max_evals"

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials that are over, by number."""
        return tuple(self._results[number] for number in sorted(self._results) if number < self._end)

    @property
    def remaining(self) -> int:
        """The most trials that may still run."""
        return self._limits.max_evals - len(self._results)

    def next(self) -> Assignment | None:
        """The next trial to run; None while a result is awaited, and at the end of the search."""
        if self._retries:
            return self._retries.pop()
        while self._upcoming in self._results:
            self._upcoming += 1
        prefix_length = max(self._upcoming - 2 * self._limits.parallelism + 1, 0)
        if self._upcoming >= self._end or any(number not in self._results for number in range(prefix_length)):
            return None
        prefix = [self._results[number] for number in range(prefix_length)]
        if self._limits.patience is not None and is_stalled(prefix, self._limits.patience):
            self._end, self.stopped_by = self._upcoming, "no progress"
            return None
        pending = [self._results.get(n) or self._given[n] for n in range(prefix_length, self._upcoming)]
        assignment = Assignment(self._upcoming, *self._suggester.suggest(self._upcoming, prefix, pending))
        self._given[self._upcoming] = assignment
        self._upcoming += 1
        return assignment

    def take(self, assignment: Assignment, answer: Mapping[str, float] | str | None) -> Trial | None:
        """Record an answer; returns the trial, or None where its process died and it is tried once more.

        Raises SearchError where too many processes die in a row.
        """
        if answer is None:
            self._deaths += 1
            if self._deaths >= _DEATHS_IN_A_ROW:
                raise SearchError(
                    f"{self._deaths} worker processes died in a row, probably for lack of memory: "
                    f"lower parallelism (now {self._limits.parallelism}) or use a larger machine"
                )
            if assignment.number not in self._retried:
                self._retried.add(assignment.number)
                self._retries.append(assignment)
                return None
            answer = "its process died twice (killed, probably for lack of memory)"
        else:
            self._deaths = 0
        trial = finished(assignment, answer)
        self._results[trial.number] = trial
        return trial


def finished(assignment: Assignment, answer: Mapping[str, float] | str) -> Trial:
    """The trial of a completed assignment: with metrics, or failed with a reason."""
    identity = (assignment.number, assignment.family, assignment.params)
    if isinstance(answer, str):
        return Trial(*identity, None, {}, answer)
    loss = float(answer.get("loss", math.nan))
    if not math.isfinite(loss):
        return Trial(*identity, None, {}, "the loss is not a finite number")
    metrics = {
        name: float(value) for name, value in answer.items() if name != "loss" and math.isfinite(value)
    }
    return Trial(*identity, loss, metrics)


def best(trials: Sequence[Trial], stopped_by: str) -> Trial:
    """The trial of least loss. Raises SearchError where none has finished."""
    finished = [trial for trial in trials if trial.loss is not None]
    if not finished:
        if trials:
            raise SearchError(
                f"all {len(trials)} trials failed; the first because {trials[0].reason}. Mend that, then the "
                "same command tries them again"
            )
        raise SearchError(f"no trial finished (stopped by {stopped_by}): raise timeout_minutes")
    return min(finished, key=lambda trial: (trial.loss, trial.number))


def is_stalled(prefix: Sequence[Trial], patience: int) -> bool:
    """Whether none of the prefix's last `patience` trials improved the best loss by the minimum gain."""
    best, since = math.inf, 0
    for trial in prefix:
        if trial.loss is not None and trial.loss < best - _MINIMUM_GAIN:
            best, since = trial.loss, 0
        else:
            since += 1
    return since >= patience


class Suggester:
    """hyperopt's TPE as a function of a trial's number and of the trials that it may use.

    Families take turns and each is searched separately, since `preference.prefer` compares the best model of
    each family.
    """

    def __init__(self, space: Space, seed: int) -> None:
        from hyperopt import hp
        from hyperopt.base import Domain

        self._space, self._seed = space, seed
        self._families = list(space)
        self._domains = {
            family: Domain(lambda _: 0.0, {d.name: expression(hp, d.name, d) for d in dimensions})
            for family, dimensions in space.items()
        }

    def suggest(
        self, number: int, prefix: Sequence[Trial], pending: Sequence[Trial | Assignment]
    ) -> tuple[Family, dict[str, Value]]:
        """Family and parameters of a trial. The first trials are each family's defaults.

        prefix: trials whose losses it may use; pending: trials of which it may use only the parameters.
        """
        import numpy as np
        from hyperopt import tpe
        from hyperopt.base import Trials

        family = self._families[number % len(self._families)]
        dimensions = self._space[family]
        if number < len(self._families):
            return family, {d.name: d.default for d in dimensions}
        trials = Trials()
        documents = [_document(trial, trial.loss) for trial in prefix if trial.family == family]
        documents += [_document(trial, None) for trial in pending if trial.family == family]
        trials.insert_trial_docs(documents)
        trials.refresh()
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0]) % 2**31
        (document,) = tpe.suggest(
            [number], self._domains[family], trials, seed, n_startup_jobs=_FIRST_TRIALS, verbose=False
        )
        drawn = {name: values[0] for name, values in document["misc"]["vals"].items()}
        return family, {d.name: d.round(float(drawn[d.name])) for d in dimensions}


def _document(trial: Trial | Assignment, loss: float | None) -> dict[str, Any]:
    """The trial in hyperopt's format, within its family; without a loss it counts as failed."""
    from hyperopt import JOB_STATE_DONE, STATUS_FAIL, STATUS_OK

    values = {name: [value] for name, value in trial.params.items()}
    return hyperopt_document(trial.number, values, None) | {
        "result": {"status": STATUS_FAIL} if loss is None else {"status": STATUS_OK, "loss": loss},
        "state": JOB_STATE_DONE,
    }


def hyperopt_document(identity: int, values: dict[str, list[Value]], command: Any) -> dict[str, Any]:
    """A trial in hyperopt's format, without state and result."""
    misc = {
        "tid": identity,
        "cmd": command,
        "workdir": None,
        "idxs": {label: [identity] * len(drawn) for label, drawn in values.items()},
        "vals": values,
    }
    return {
        "tid": identity, "spec": None, "misc": misc, "exp_key": None, "owner": None, "version": 0,
        "book_time": None, "refresh_time": None,
    }  # fmt: skip


def expression(hp: Any, label: str, hyperparameter: Hyperparameter) -> Any:
    """A hyperparameter's range as a hyperopt expression."""
    if hyperparameter.log:
        return hp.loguniform(label, math.log(hyperparameter.low), math.log(hyperparameter.high))
    return hp.uniform(label, hyperparameter.low, hyperparameter.high)


class Bar:
    """A progress bar: trials done, and the best so far."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._best: Trial | None = None

    def show(self, trial: Trial) -> None:
        """Count a trial, and show it if it is the best so far."""
        if trial.loss is not None and (self._best is None or trial.loss < (self._best.loss or math.inf)):
            self._best = trial
            auc = trial.metrics.get("roc_auc_mean")
            text = f"best: trial {trial.number}, {trial.family}, loss {trial.loss:.5f}"
            self._bar.set_postfix_str(text if auc is None else f"{text}, ROC AUC {auc:.4f}", refresh=False)
        self._bar.update()


@contextlib.contextmanager
def bar(total: int, shown: bool) -> Iterator[Bar]:
    """A progress bar over `total` trials."""
    from tqdm import tqdm

    with tqdm(
        total=total, unit="trial", disable=None if shown else True, dynamic_ncols=True, leave=False
    ) as progress:
        yield Bar(progress)
