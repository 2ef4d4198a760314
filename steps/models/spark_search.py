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
    """Search like `steps.models.search.search`, with the trials on the executors of a Spark session.

    Suggestions are made as in `search` (each family's defaults, random parameters, TPE), but from all trials
    that have finished by then: a cluster does not wait for its slowest trial, so trials after the first are
    not reproducible. Spark runs a trial again if its executor dies. `make_objective` must read from storage
    that every executor sees.
    """
    import numpy as np
    from hyperopt import SparkTrials, fmin, hp

    started = time.monotonic()
    minutes = limits.timeout_minutes
    seconds = None if minutes is None else max(1, math.ceil(60 * minutes))
    trials = SparkTrials(parallelism=limits.parallelism, timeout=seconds, spark_session=spark)
    with bar(limits.max_evals, progress) as progress_bar:
        running = _Running(space, limits, done, on_trial, progress_bar)
        if running.todo:
            branches = [
                {
                    "family": family,
                    **{
                        hyperparameter.name: expression(hp, f"{family}.{hyperparameter.name}", hyperparameter)
                        for hyperparameter in dimensions
                    },
                }
                for family, dimensions in space.items()
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
    finished_trials = running.trials
    return SearchResult(
        finished_trials, best(finished_trials, stopped_by), stopped_by, time.monotonic() - started
    )


class _Running:
    """The trials of one call, by number: hyperopt asks for them, and their results come back."""

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
        """The trials that are over, by number."""
        return tuple(self._results[number] for number in sorted(self._results))

    def suggest(self, new_ids: Sequence[int], domain: Any, so_far: Any, _: int) -> list[dict[str, Any]]:
        """hyperopt's `algo`: the next trials to run, under hyperopt's identities."""
        documents = []
        for identity in new_ids:
            number = self.todo[identity]
            pending = [given for trial, given in self._given.items() if trial not in self._results]
            assignment = Assignment(number, *self._suggester.suggest(number, self.trials, pending))
            self._given[number] = assignment
            documents.append(_new_document(assignment, self._space, identity, domain.cmd))
        return documents

    def harvest(self, so_far: SparkTrials, *_: Any) -> tuple[bool, list[Any]]:
        """Take over finished trials; returns whether to stop, for lack of progress or because of an error.

        It runs in a thread of hyperopt, where an exception would be lost and leave the search waiting.
        """
        try:
            self.take_over(so_far)
        except BaseException as error:
            self.lost.append(error)
        stalled = self._patience is not None and is_stalled(self.trials, self._patience)
        return bool(self.lost) or stalled, []

    def take_over(self, so_far: SparkTrials) -> None:
        """Keep the trials that have finished since the last call."""
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
    """Run a trial on an executor and return hyperopt's result; an error fails this trial only."""
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
    """Metrics of a finished trial, the reason of a failed trial, None while it is running."""
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
    """A trial to run on Spark, in hyperopt's format for the space of all families."""
    from hyperopt import JOB_STATE_NEW, STATUS_NEW

    values: dict[str, list[Value]] = {
        f"{family}.{hyperparameter.name}": [assignment.params[hyperparameter.name]]
        if family == assignment.family
        else []
        for family, dimensions in space.items()
        for hyperparameter in dimensions
    }
    values["family"] = [list(space).index(assignment.family)]
    return hyperopt_document(identity, values, command) | {
        "result": {"status": STATUS_NEW},
        "state": JOB_STATE_NEW,
    }
