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
from functools import partial
from typing import Any, Literal

from steps.models.families import Family, Hyperparameter, Value
from steps.models.search_workers import Assignment, Objective, Pool, SearchError
from steps.models.trials import Space, Trial, failure_reason

# Of each family, so many trials come before TPE has anything to model: its defaults, then random ones.
_FIRST_TRIALS = 4
# A smaller gain in log loss than this is not progress.
_MINIMUM_GAIN = 1e-5
# So many processes dying one after the other, with no trial finished between, is a sick machine, not a bad
# trial.
_DEATHS_IN_A_ROW = 6


@dataclass(frozen=True)
class SearchResult:
    """All trials by number, the best of them, and what ended the search."""

    trials: tuple[Trial, ...]
    best: Trial
    stopped_by: Literal["max_evals", "no progress", "timeout"]
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
    *,
    max_evals: int,
    parallelism: int,
    seed: int,
    timeout_minutes: float | None = None,
    patience: int | None = None,
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
    patience: stop when so many trials in a row brought no gain of 1e-5; None never does.
    timeout_minutes: of this call; running trials are given up, finished ones count.
    Ctrl-C ends the workers and comes out as KeyboardInterrupt; what finished has been handed to `on_trial`.
    Raises SearchError where no trial at all finished, or workers keep dying.
    """
    if max_evals < 1 or parallelism < 1:
        raise SearchError(f"max_evals ({max_evals}) and parallelism ({parallelism}) must be at least 1")
    started = clock()
    deadline = None if timeout_minutes is None else started + 60 * timeout_minutes
    results = {trial.number: trial for trial in done if trial.number < max_evals}
    suggester = _Suggester(space, seed)
    stopped_by: Literal["max_evals", "no progress", "timeout"] = "max_evals"
    limit, upcoming, deaths = max_evals, 0, 0
    given: dict[int, Assignment] = {}
    retries: list[Assignment] = []
    retried: set[int] = set()

    with (
        Pool(make_objective, min(parallelism, max_evals - len(results))) as pool,
        _bar(max_evals, progress) as bar,
    ):
        for trial in sorted(results.values(), key=lambda trial: trial.number):
            bar.show(trial)
        while True:
            while pool.idle:
                if retries:
                    pool.submit(retries.pop())
                    continue
                while upcoming in results:
                    upcoming += 1
                known = max(upcoming - 2 * parallelism + 1, 0)
                if upcoming >= limit or any(number not in results for number in range(known)):
                    break
                prefix = [results[number] for number in range(known)]
                if patience is not None and _is_stalled(prefix, patience):
                    limit, stopped_by = upcoming, "no progress"
                    break
                pending = [results.get(number) or given[number] for number in range(known, upcoming)]
                given[upcoming] = Assignment(upcoming, *suggester.suggest(upcoming, prefix, pending))
                pool.submit(given[upcoming])
                upcoming += 1
            if not pool.busy:
                break
            remaining = None if deadline is None else deadline - clock()
            if remaining is not None and remaining <= 0:
                stopped_by = "timeout"
                break
            for assignment, answer in pool.answers(remaining):
                if answer is None:
                    deaths += 1
                    if deaths >= _DEATHS_IN_A_ROW:
                        raise SearchError(
                            f"{deaths} worker processes died in a row, probably for lack of memory: "
                            f"lower parallelism (now {parallelism}) or use a larger machine"
                        )
                    if assignment.number not in retried:
                        retried.add(assignment.number)
                        retries.append(assignment)
                        continue
                    answer = "its process died twice (killed, probably for lack of memory)"
                else:
                    deaths = 0
                trial = _trial(assignment, answer)
                results[trial.number] = trial
                if on_trial is not None:
                    on_trial(trial)
                bar.show(trial)

    trials = tuple(results[number] for number in sorted(results) if number < limit)
    return SearchResult(trials, _best(trials, stopped_by), stopped_by, clock() - started)


def search_on_spark(
    make_objective: Callable[[], Objective],
    space: Space,
    spark: Any,
    *,
    max_evals: int,
    parallelism: int,
    seed: int,
    timeout_minutes: float | None = None,
    patience: int | None = None,
    done: Iterable[Trial] = (),
    on_trial: Callable[[Trial], None] | None = None,
    progress: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """As `search`, with the trials on the executors of a Spark session, through hyperopt's SparkTrials.

    The suggestions are those of `search` (each family's defaults, random ones, TPE), made from whatever has
    finished by then: a cluster is not held up by its slowest trial, so which trials come after the first is
    not reproducible. A trial whose executor dies is run again by Spark. What `make_objective` reads must be
    on storage that all executors see.
    """
    import numpy as np
    from hyperopt import SparkTrials, fmin, hp

    started = clock()
    results = {trial.number: trial for trial in done if trial.number < max_evals}
    todo = [number for number in range(max_evals) if number not in results]
    suggester = _Suggester(space, seed)
    given: dict[int, Assignment] = {}
    lost: list[BaseException] = []
    seconds = None if timeout_minutes is None else max(1, math.ceil(60 * timeout_minutes))
    trials = SparkTrials(parallelism=parallelism, timeout=seconds, spark_session=spark)
    branches = [
        {"family": family, **{one.name: _expression(hp, f"{family}.{one.name}", one) for one in dimensions}}
        for family, dimensions in space.items()
    ]

    def suggest(new_ids: Sequence[int], domain: Any, so_far: Any, _: int) -> list[dict[str, Any]]:
        documents = []
        for identity in new_ids:
            number = todo[identity]
            known = [results[other] for other in sorted(results)]
            pending = [assignment for other, assignment in given.items() if other not in results]
            given[number] = Assignment(number, *suggester.suggest(number, known, pending))
            documents.append(_new_document(given[number], space, identity, domain.cmd))
        return documents

    with _bar(max_evals, progress) as bar:
        for trial in sorted(results.values(), key=lambda trial: trial.number):
            bar.show(trial)

        def harvest(so_far: Any, *_: Any) -> tuple[bool, list[Any]]:
            """Take over what has finished; whether to stop, for lack of progress or because that failed.

            It runs in a thread of hyperopt, where an exception would be lost and leave the search waiting.
            """
            try:
                take_over(so_far)
            except BaseException as error:
                lost.append(error)
            prefix = [results[number] for number in sorted(results)]
            return bool(lost) or (patience is not None and _is_stalled(prefix, patience)), []

        def take_over(so_far: Any) -> None:
            for document in list(so_far.trials):
                number = todo[document["tid"]]
                answer = _spark_answer(document)
                if number in results or number not in given or answer is None:
                    continue
                trial = _trial(given[number], answer)
                results[number] = trial
                if on_trial is not None:
                    on_trial(trial)
                bar.show(trial)

        if todo:
            fmin(
                partial(_on_executor, make_objective),
                hp.choice("family", branches),
                algo=suggest,
                max_evals=len(todo),
                trials=trials,
                rstate=np.random.default_rng(seed),
                early_stop_fn=harvest,
                show_progressbar=False,
                return_argmin=False,
                verbose=False,
            )
            trials.refresh()
            if not lost:
                take_over(trials)
    if lost:
        raise lost[0]
    stopped_by: Literal["max_evals", "no progress", "timeout"] = "max_evals"
    if trials.fmin_cancelled_reason:
        stopped_by = "timeout" if "timeout" in trials.fmin_cancelled_reason else "no progress"
    found = tuple(results[number] for number in sorted(results))
    return SearchResult(found, _best(found, stopped_by), stopped_by, clock() - started)


def _on_executor(make_objective: Callable[[], Objective], point: Mapping[str, Any]) -> dict[str, Any]:
    """One trial on an executor of Spark, as hyperopt takes its result; an error fails this one alone."""
    values = dict(point)
    family = values.pop("family")
    try:
        answer = dict(make_objective()(family, values))
    except Exception as error:
        return {"status": "fail", "reason": failure_reason(error)}
    loss = float(answer.get("loss", math.nan))
    if not math.isfinite(loss):
        return {"status": "fail", "reason": "the loss is not a finite number"}
    return {"status": "ok", "loss": loss, "metrics": answer}


def _spark_answer(document: Mapping[str, Any]) -> Mapping[str, float] | str | None:
    """Metrics of a finished trial, the reason of a failed one, None of one that is not done."""
    from hyperopt import JOB_STATE_DONE, JOB_STATE_ERROR

    if document["state"] == JOB_STATE_ERROR:
        return f"its Spark task failed: {document['misc'].get('error', ('unknown',))[0]}"
    if document["state"] != JOB_STATE_DONE:
        return None
    result = document["result"]
    return (
        dict(result["metrics"]) if result["status"] == "ok" else str(result.get("reason", "no reason given"))
    )


def _trial(assignment: Assignment, answer: Mapping[str, float] | str) -> Trial:
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


def _best(trials: Sequence[Trial], stopped_by: str) -> Trial:
    finished = [trial for trial in trials if trial.loss is not None]
    if not finished:
        if trials:
            raise SearchError(
                f"all {len(trials)} trials failed; the first because {trials[0].reason}. Mend that, then the "
                "same command tries them again"
            )
        raise SearchError(f"no trial finished (stopped by {stopped_by}): raise timeout_minutes")
    return min(finished, key=lambda trial: (trial.loss, trial.number))


def _is_stalled(prefix: Sequence[Trial], patience: int) -> bool:
    """Whether none of the prefix's last `patience` trials improved the best loss by the minimum gain."""
    best, since = math.inf, 0
    for trial in prefix:
        if trial.loss is not None and trial.loss < best - _MINIMUM_GAIN:
            best, since = trial.loss, 0
        else:
            since += 1
    return since >= patience


class _Suggester:
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
            family: Domain(lambda _: 0.0, {d.name: _expression(hp, d.name, d) for d in dimensions})
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
    return _hyperopt_document(trial.number, values, None) | {
        "result": {"status": STATUS_FAIL} if loss is None else {"status": STATUS_OK, "loss": loss},
        "state": JOB_STATE_DONE,
    }


def _new_document(assignment: Assignment, space: Space, identity: int, command: Any) -> dict[str, Any]:
    """A trial to run on Spark, as hyperopt queues it in the space of all families."""
    from hyperopt import JOB_STATE_NEW, STATUS_NEW

    values: dict[str, list[Value]] = {
        f"{family}.{one.name}": [assignment.params[one.name]] if family == assignment.family else []
        for family, dimensions in space.items()
        for one in dimensions
    }
    values["family"] = [list(space).index(assignment.family)]
    return _hyperopt_document(identity, values, command) | {
        "result": {"status": STATUS_NEW},
        "state": JOB_STATE_NEW,
    }


def _hyperopt_document(identity: int, values: dict[str, list[Value]], command: Any) -> dict[str, Any]:
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


def _expression(hp: Any, label: str, one: Hyperparameter) -> Any:
    if one.log:
        return hp.loguniform(label, math.log(one.low), math.log(one.high))
    return hp.uniform(label, one.low, one.high)


class _Bar:
    """Trials done, and the best so far."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._best: Trial | None = None

    def show(self, trial: Trial) -> None:
        if trial.loss is not None and (self._best is None or trial.loss < (self._best.loss or math.inf)):
            self._best = trial
            auc = trial.metrics.get("roc_auc_mean")
            text = f"best: trial {trial.number}, {trial.family}, loss {trial.loss:.5f}"
            self._bar.set_postfix_str(text if auc is None else f"{text}, ROC AUC {auc:.4f}", refresh=False)
        self._bar.update()


@contextlib.contextmanager
def _bar(total: int, shown: bool) -> Iterator[_Bar]:
    from tqdm import tqdm

    with tqdm(
        total=total, unit="trial", disable=None if shown else True, dynamic_ncols=True, leave=False
    ) as bar:
        yield _Bar(bar)
