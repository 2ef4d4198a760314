"""Worker processes of a search, one thread each: they build an objective once, then answer assignments.

OpenMP threads times processes must never exceed the cores. A process that dies (out of memory, for example)
is replaced. No process outlives the search, even if that ends by Ctrl-C or kill -9.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.data.errors import UserError
from steps.models.families import Family, Value
from steps.models.trials import failure_reason

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

Objective = Callable[[Family, Mapping[str, Value]], Mapping[str, float]]

_SINGLE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    "1",
)


class SearchError(UserError):
    """No trial finished, or worker processes keep dying on this machine."""


@dataclass(frozen=True)
class Assignment:
    """A trial to run."""

    number: int
    family: Family
    params: Mapping[str, Value]


@dataclass
class Worker:
    """A process, the parent's end of its pipe, and its present assignment."""

    process: SpawnProcess
    connection: Connection
    assignment: Assignment | None = None


class Pool:
    """Single-threaded worker processes with one assignment each; a dead process is replaced."""

    def __init__(self, make_objective: Callable[[], Objective], size: int) -> None:
        self._make_objective = make_objective
        self._size = size
        self._workers: list[Worker] = []

    def __enter__(self) -> Pool:
        try:
            for _ in range(self._size):
                self._workers.append(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.process.close()
            worker.connection.close()
        self._workers.clear()

    @property
    def idle(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.assignment is None]

    @property
    def busy(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.assignment is not None]

    def submit(self, assignment: Assignment) -> None:
        """Give the assignment to an idle worker; if that worker has died, `answers` reports it."""
        worker = self.idle[0]
        worker.assignment = assignment
        with contextlib.suppress(OSError):
            worker.connection.send(assignment)

    def answers(self, timeout: float | None) -> Iterator[tuple[Assignment, Mapping[str, float] | str | None]]:
        """Each answered assignment with its metrics, its failure, or None if its process died.

        Yields nothing if the timeout (seconds) passes first. Raises SearchError where a worker cannot make
        its objective.
        """
        from multiprocessing.connection import wait

        busy = {worker.connection: worker for worker in self.busy}
        for connection in wait(list(busy), timeout):
            worker = busy[connection]  # type: ignore[index]
            assignment, worker.assignment = worker.assignment, None
            assert assignment is not None
            try:
                status, answer = worker.connection.recv()
            except (EOFError, OSError):
                worker.process.join()
                worker.process.close()
                worker.connection.close()
                self._workers[self._workers.index(worker)] = self._start()
                yield assignment, None
                continue
            if status == "unusable":
                raise SearchError(f"a worker process could not prepare the trials: {answer}")
            yield assignment, answer

    def _start(self) -> Worker:
        from multiprocessing import get_context

        context = get_context("spawn")
        parent_end, worker_end = context.Pipe()
        process = context.Process(target=_work, args=(worker_end, self._make_objective), daemon=True)
        with _without_interrupts(), _environment(_SINGLE_THREAD):
            process.start()
        worker_end.close()
        return Worker(process, parent_end)


def _work(connection: Connection, make_objective: Callable[[], Objective]) -> None:
    """Body of a worker process: build the objective, then answer assignments in turn."""
    from multiprocessing import parent_process

    parent = parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent.join,), daemon=True).start()
    objective: Objective | None = None
    while True:
        try:
            assignment: Assignment = connection.recv()
        except (EOFError, OSError):
            return
        answer: tuple[str, Mapping[str, float] | str]
        if objective is None:
            try:
                objective = make_objective()
            except Exception as error:
                connection.send(("unusable", failure_reason(error)))
                return
        try:
            answer = ("ok", dict(objective(assignment.family, assignment.params)))
        except Exception as error:
            answer = ("fail", failure_reason(error))
        try:
            connection.send(answer)
        except OSError:
            return


def _end_with(wait_for_parent: Callable[[], None]) -> None:
    """End this process when its parent is gone (kill -9), even in the middle of a fit."""
    wait_for_parent()
    os._exit(1)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes that never receive Ctrl-C, not even at their start; this process receives it later."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it unblocks SIGINT when it starts, so it must be running already
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
