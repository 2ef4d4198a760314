"""The search on a Spark cluster, through hyperopt's SparkTrials."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from steps.models.families import Value
from steps.models.search import (
    Bar,
    Limits,
    SearchResult,
    StoppedBy,
    Suggester,
    bar,
    best,
    expression,
    finished,
    hyperopt_document,
    is_stalled,
)
from steps.models.search_workers import Assignment, Objective
from steps.models.trials import Space, Trial, failure_reason

if TYPE_CHECKING:
    from hyperopt import SparkTrials


def search(
    make_objective: Callable[[], Objective],
    space: Space,
    limits: Limits,
    spark: Any,
    *,
    done: Iterable[Trial] = (),
    on_trial: Callable[[Trial], None] | None = None,
    progress: bool = False,
) -> SearchResult:
    """As `steps.models.search.search`, with the trials on the executors of a Spark session.

    The suggestions are those of `search` (each family's defaults, random ones, TPE), made from whatever has
    finished by then: a cluster is not held up by its slowest trial, so which trials come after the first is
    not reproducible. A trial whose executor dies is run again by Spark. What `make_objective` reads must be
    on storage that all executors see.
    """
    import numpy as np
    from hyperopt import SparkTrials, fmin, hp

    started = time.monotonic()
    minutes = limits.timeout_minutes
    seconds = None if minutes is None else max(1, math.ceil(60 * minutes))
    trials = SparkTrials(parallelism=limits.parallelism, timeout=seconds, spark_session=spark)
    with bar(limits.max_evals, progress) as shown:
        running = _Running(space, limits, done, on_trial, shown)
        if running.todo:
            branches = [
                {"family": family, **{one.name: expression(hp, f"{family}.{one.name}", one) for one in own}}
                for family, own in space.items()
            ]
            fmin(
                partial(_on_executor, make_objective),
                hp.choice("family", branches),
                algo=running.suggest,
                max_evals=len(running.todo),
                trials=trials,
                rstate=np.random.default_rng(limits.seed),
                early_stop_fn=running.harvest,
                show_progressbar=False,
                return_argmin=False,
                verbose=False,
            )
            trials.refresh()
            if not running.lost:
                running.take_over(trials)
    if running.lost:
        raise running.lost[0]
    stopped_by: StoppedBy = "max_evals"
    if trials.fmin_cancelled_reason:
        stopped_by = "timeout" if "timeout" in trials.fmin_cancelled_reason else "no progress"
    found = running.trials
    return SearchResult(found, best(found, stopped_by), stopped_by, time.monotonic() - started)


class _Running:
    """The trials of one call: what hyperopt asks for and what comes back, by number."""

    def __init__(
        self,
        space: Space,
        limits: Limits,
        done: Iterable[Trial],
        on_trial: Callable[[Trial], None] | None,
        shown: Bar,
    ) -> None:
        self._space, self._patience = space, limits.patience
        self._suggester = Suggester(space, limits.seed)
        self._results = {trial.number: trial for trial in done if trial.number < limits.max_evals}
        self._given: dict[int, Assignment] = {}
        self._on_trial, self._shown = on_trial, shown
        self.todo = [number for number in range(limits.max_evals) if number not in self._results]
        self.lost: list[BaseException] = []
        for trial in self.trials:
            shown.show(trial)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Those that are over, by number."""
        return tuple(self._results[number] for number in sorted(self._results))

    def suggest(self, new_ids: Sequence[int], domain: Any, so_far: Any, _: int) -> list[dict[str, Any]]:
        """What hyperopt's `algo` is: the next trials to run, under hyperopt's identities."""
        documents = []
        for identity in new_ids:
            number = self.todo[identity]
            pending = [one for other, one in self._given.items() if other not in self._results]
            assignment = Assignment(number, *self._suggester.suggest(number, self.trials, pending))
            self._given[number] = assignment
            documents.append(_new_document(assignment, self._space, identity, domain.cmd))
        return documents

    def harvest(self, so_far: SparkTrials, *_: Any) -> tuple[bool, list[Any]]:
        """Take over what has finished; whether to stop, for lack of progress or because that failed.

        It runs in a thread of hyperopt, where an exception would be lost and leave the search waiting.
        """
        try:
            self.take_over(so_far)
        except BaseException as error:
            self.lost.append(error)
        stalled = self._patience is not None and is_stalled(self.trials, self._patience)
        return bool(self.lost) or stalled, []

    def take_over(self, so_far: SparkTrials) -> None:
        """Keep what has finished since the last call."""
        for document in list(so_far.trials):
            number = self.todo[document["tid"]]
            answer = _answer(document)
            if number in self._results or number not in self._given or answer is None:
                continue
            trial = finished(self._given[number], answer)
            self._results[number] = trial
            if self._on_trial is not None:
                self._on_trial(trial)
            self._shown.show(trial)


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


def _answer(document: Mapping[str, Any]) -> Mapping[str, float] | str | None:
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


def _new_document(assignment: Assignment, space: Space, identity: int, command: Any) -> dict[str, Any]:
    """A trial to run on Spark, as hyperopt queues it in the space of all families."""
    from hyperopt import JOB_STATE_NEW, STATUS_NEW

    values: dict[str, list[Value]] = {
        f"{family}.{one.name}": [assignment.params[one.name]] if family == assignment.family else []
        for family, dimensions in space.items()
        for one in dimensions
    }
    values["family"] = [list(space).index(assignment.family)]
    return hyperopt_document(identity, values, command) | {
        "result": {"status": STATUS_NEW},
        "state": JOB_STATE_NEW,
    }
