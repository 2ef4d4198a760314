"""When requests travel together, and when they wait: decisions by a clock that the test moves."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from monitoring.sidecar.batching import MOST_SKIPPED, Batcher

WAIT = 0.003


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when the test says so."""

    now = 100.0

    def time(self) -> float:
        return self.now


@dataclass(eq=False)
class Person:
    """A member of a batch."""

    name: str
    started: float
    key: str = "k"
    row_count: int = 1


class Bench:
    """A batcher with its clock and its calls, which the test answers."""

    def __init__(
        self, wait: float = WAIT, most_requests: int = 64, most_rows: int = 100, calls: int = 1
    ) -> None:
        self.calls: list[tuple[list[str], str]] = []
        self._answers: list[asyncio.Future[None]] = []
        self.batcher = Batcher[Person](
            self._send, most_requests=most_requests, most_rows=most_rows, calls=calls, wait=wait
        )

    async def _send(self, members: Sequence[Person], reason: str, release: Callable[[], None]) -> None:
        self.calls.append(([member.name for member in members], reason))
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        await answer
        release()

    async def arrive(self, *names: str, **more: Any) -> None:
        """These people ask."""
        for name in names:
            self.batcher.put(Person(name, asyncio.get_running_loop().time(), **more))
            await self.pass_time(0.0001)

    async def answer(self, number: int = 0) -> None:
        """The container answers a call that is under way."""
        self._answers.pop(number).set_result(None)
        await self.pass_time(0)

    async def pass_time(self, seconds: float) -> None:
        """Time passes, and what is due happens."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        loop.now += seconds
        for _ in range(5):
            await asyncio.sleep(0)

    def left(self) -> tuple[list[str], str] | None:
        """The call that has left since the last question."""
        return self.calls.pop(0) if self.calls else None


def run(test: Coroutine[Any, Any, None]) -> None:
    loop = Loop()
    try:
        loop.run_until_complete(test)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def on_a_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run an asynchronous test with the clock of this file."""

    def wrapped() -> None:
        run(test())  # type: ignore[arg-type]

    wrapped.__doc__ = test.__doc__
    return wrapped


@on_a_loop
async def test_a_lone_client_never_waits() -> None:
    """However quickly it comes back."""
    bench = Bench()
    for _ in range(20):
        await bench.arrive("a")
        assert bench.left() == (["a"], "idle")
        await bench.answer()


@on_a_loop
async def test_what_waits_during_a_call_leaves_together() -> None:
    """As soon as the container has answered, if nobody is to be waited for."""
    bench = Bench(wait=0)
    await bench.arrive("a", "b", "c", "d")
    assert bench.left() == (["a"], "idle")
    await bench.answer()
    assert bench.left() == (["b", "c", "d"], "upstream_free")


@on_a_loop
async def test_clients_that_come_back_are_waited_for() -> None:
    """Two groups that take turns become one."""
    bench = Bench()
    await bench.arrive("a", "b", "c", "d")
    assert bench.left() == (["a"], "idle")
    await bench.answer()
    assert bench.left() is None, "a is expected back"
    await bench.arrive("a")
    assert bench.left() == (["b", "c", "d", "a"], "clients_back")
    await bench.answer()
    await bench.arrive("a", "b", "c")
    assert bench.left() is None
    await bench.arrive("d")
    assert bench.left() == (["a", "b", "c", "d"], "clients_back")


@on_a_loop
async def test_the_wait_has_an_end_and_a_wait_in_vain_is_not_repeated_soon() -> None:
    """After the first the next call does not wait, after another in vain the next two."""
    bench = Bench()
    skipped = []
    for _ in range(3):
        skipped.append(0)
        while True:
            await bench.arrive("a", "b")
            await bench.pass_time(WAIT + 0.001)  # a wait of before ends
            found = bench.left()
            assert found is not None
            await bench.answer()  # b waits, and a is expected back, but does not come
            found = bench.left()
            if found is None:
                await bench.pass_time(WAIT + 0.001)
                assert bench.left() == (["b"], "wait_over")
                await bench.answer()
                break
            assert found == (["b"], "upstream_free")
            skipped[-1] += 1
            await bench.answer()
    assert skipped[0] == 0
    assert 0 < skipped[1] < skipped[2] <= MOST_SKIPPED


@on_a_loop
async def test_a_call_carries_a_number_of_requests_and_of_rows() -> None:
    """The rest leaves with the next."""
    bench = Bench(wait=0, most_requests=3, most_rows=10)
    await bench.arrive("a")
    await bench.arrive("b", "c", "d", "e")
    await bench.answer()
    assert bench.calls == [(["a"], "idle"), (["b", "c", "d"], "full")]
    await bench.answer()
    await bench.arrive("f", "g", row_count=8)
    await bench.answer()
    await bench.answer()
    assert [names for names, _ in bench.calls[2:]] == [["e"], ["f"], ["g"]]


@on_a_loop
async def test_groups_that_differ_leave_apart_and_the_oldest_first() -> None:
    """By their key."""
    bench = Bench(wait=0)
    await bench.arrive("a")
    await bench.arrive("b", key="other")
    await bench.arrive("c")
    await bench.arrive("d", key="other")
    await bench.answer()
    await bench.answer()
    assert [names for names, _ in bench.calls] == [["a"], ["b", "d"], ["c"]]


@on_a_loop
async def test_so_many_calls_are_under_way() -> None:
    """Two here; the third waits for one of them."""
    bench = Bench(wait=0, calls=2)
    await bench.arrive("a", "b", "c")
    assert [names for names, _ in bench.calls] == [["a"], ["b"]]
    await bench.answer(1)
    assert [names for names, _ in bench.calls] == [["a"], ["b"], ["c"]]


@on_a_loop
async def test_length_and_oldest_start_are_those_of_what_waits() -> None:
    """For the metrics."""
    bench = Bench(wait=0)
    assert (bench.batcher.length, bench.batcher.oldest_start) == (0, None)
    await bench.arrive("a", "b", "c")
    assert bench.batcher.length == 2
    assert bench.batcher.oldest_start is not None
    await bench.answer()
    assert (bench.batcher.length, bench.batcher.oldest_start) == (0, None)
