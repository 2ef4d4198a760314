"""Search over families and hyperparameters: hyperopt's TPE with parallel, reproducible, resumable trials.

hyperopt proposes, this module schedules. Suggestion i is made from exactly trials 0..i-2p, where p is the
parallelism, whatever else has finished by then: the same seed, parallelism and number of trials give the same
trials, and while p trials run up to p - 1 more may be waiting, so that a slow one rarely idles a core. Trials
between (i-2p+1..i-1) enter as if they had failed, known or not, so that TPE does not propose the same place
again before it has heard from it (the "constant liar": Ginsbourger et al. 2010, Kriging is well-suited to
parallelize optimization). Whether to stop for lack of progress is decided from trials 0..i-2p too.

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

# Of each family, so many trials come before TPE has anything to model: its defaults, then random ones.
_FIRST_TRIALS = 4
# A smaller gain in log loss than this is not progress.
_MINIMUM_GAIN = 1e-5
# So many processes dying one after the other, with no trial finished between, is a sick machine, not a bad
# trial.
_DEATHS_IN_A_ROW = 6


StoppedBy = Literal["max_evals", "no progress", "timeout"]


@dataclass(frozen=True)
class Limits:
    """How many trials, how many at once, from which seed, and what else ends a search.

    patience: stop when so many trials in a row brought no gain of 1e-5; None never does. timeout_minutes: of
    one call; running trials are given up, finished ones count.
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
        parameters and returns metrics, "loss" among them; whatever it raises fails that trial only.
    done: trials finished earlier; they are taken as they are and not run again.
    on_trial: called in this process as soon as a trial has finished or failed.
    Ctrl-C ends the workers and comes out as KeyboardInterrupt; what finished has been handed to `on_trial`.
    Raises SearchError where no trial at all finished, or workers keep dying.
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
        bar(limits.max_evals, progress) as shown,
    ):
        for trial in schedule.trials:
            shown.show(trial)
        while True:
            while pool.idle and (assignment := schedule.next()) is not None:
                pool.submit(assignment)
            if not pool.busy:
                break
            left = None if deadline is None else deadline - clock()
            if left is not None and left <= 0:
                schedule.stopped_by = "timeout"
                break
            for assignment, answer in pool.answers(left):
                over = schedule.take(assignment, answer)
                if over is None:
                    continue
                if on_trial is not None:
                    on_trial(over)
                shown.show(over)
    trials = schedule.trials
    return SearchResult(trials, best(trials, schedule.stopped_by), schedule.stopped_by, clock() - started)


class _Schedule:
    """Which trial comes next and what became of those that were given, whoever runs them."""

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
        """Those that are over, by number."""
        return tuple(self._results[number] for number in sorted(self._results) if number < self._end)

    @property
    def remaining(self) -> int:
        """How many trials there may still be."""
        return self._limits.max_evals - len(self._results)

    def next(self) -> Assignment | None:
        """The next trial to run; None while a result is awaited, and when the search is at its end."""
        if self._retries:
            return self._retries.pop()
        while self._upcoming in self._results:
            self._upcoming += 1
        known = max(self._upcoming - 2 * self._limits.parallelism + 1, 0)
        if self._upcoming >= self._end or any(number not in self._results for number in range(known)):
            return None
        prefix = [self._results[number] for number in range(known)]
        if self._limits.patience is not None and is_stalled(prefix, self._limits.patience):
            self._end, self.stopped_by = self._upcoming, "no progress"
            return None
        pending = [self._results.get(n) or self._given[n] for n in range(known, self._upcoming)]
        assignment = Assignment(self._upcoming, *self._suggester.suggest(self._upcoming, prefix, pending))
        self._given[self._upcoming] = assignment
        self._upcoming += 1
        return assignment

    def take(self, assignment: Assignment, answer: Mapping[str, float] | str | None) -> Trial | None:
        """The trial that is now over; None where its process died and it is tried once more.

        Raises SearchError where processes die one after the other.
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
    """The trial that an assignment became: with metrics, or failed for a reason."""
    what = (assignment.number, assignment.family, assignment.params)
    if isinstance(answer, str):
        return Trial(*what, None, {}, answer)
    loss = float(answer.get("loss", math.nan))
    if not math.isfinite(loss):
        return Trial(*what, None, {}, "the loss is not a finite number")
    metrics = {
        name: float(value) for name, value in answer.items() if name != "loss" and math.isfinite(value)
    }
    return Trial(*what, loss, metrics)


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
    """hyperopt's TPE as a function of a trial's number and of the trials it may know.

    Families take turns and each is searched by itself, since the best of each family is wanted: a glass box
    is kept unless another family is proven better.
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

        prefix: the trials whose losses it may know; pending: those of which it only knows where they are.
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
    """The trial as hyperopt keeps those of its family; without a loss it counts among the worst."""
    from hyperopt import JOB_STATE_DONE, STATUS_FAIL, STATUS_OK

    values = {name: [value] for name, value in trial.params.items()}
    return hyperopt_document(trial.number, values, None) | {
        "result": {"status": STATUS_FAIL} if loss is None else {"status": STATUS_OK, "loss": loss},
        "state": JOB_STATE_DONE,
    }


def hyperopt_document(identity: int, values: dict[str, list[Value]], command: Any) -> dict[str, Any]:
    """A trial as hyperopt takes it, without state and result."""
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


def expression(hp: Any, label: str, one: Hyperparameter) -> Any:
    """hyperopt's range of a hyperparameter."""
    if one.log:
        return hp.loguniform(label, math.log(one.low), math.log(one.high))
    return hp.uniform(label, one.low, one.high)


class Bar:
    """Trials done, and the best so far."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._best: Trial | None = None

    def show(self, trial: Trial) -> None:
        """Count one more."""
        if trial.loss is not None and (self._best is None or trial.loss < (self._best.loss or math.inf)):
            self._best = trial
            auc = trial.metrics.get("roc_auc_mean")
            text = f"best: trial {trial.number}, {trial.family}, loss {trial.loss:.5f}"
            self._bar.set_postfix_str(text if auc is None else f"{text}, ROC AUC {auc:.4f}", refresh=False)
        self._bar.update()


@contextlib.contextmanager
def bar(total: int, shown: bool) -> Iterator[Bar]:
    """A progress bar over so many trials."""
    from tqdm import tqdm

    with tqdm(
        total=total, unit="trial", disable=None if shown else True, dynamic_ncols=True, leave=False
    ) as progress:
        yield Bar(progress)
