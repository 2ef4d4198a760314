"""When requests travel together, and when they wait: decisions by a clock that the test moves."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from monitoring.sidecar.batching import FAITHFUL_AFTER, Batcher

WAIT = 0.003
SOON = 30.0


@dataclass(eq=False)
class Person:
    """A member of a batch."""

    client: str
    started: float
    key: str = "k"
    row_count: int = 1


@dataclass
class Calls:
    """Calls as they leave; the test answers them."""

    left: queue.Queue[tuple[list[Any], str, Callable[[], None]]] = field(default_factory=queue.Queue)
    answered: dict[int, threading.Event] = field(default_factory=dict)

    def send(self, members: Sequence[Any], reason: str, release: Callable[[], None]) -> None:
        gate = self.answered.setdefault(id(members), threading.Event())
        self.left.put((list(members), reason, release))
        gate.wait(SOON)
        self.answered.pop(id(members), None)

    def next(self) -> tuple[list[str], str, Callable[[], None]]:
        members, reason, release = self.left.get(timeout=SOON)
        return [member.client for member in members], reason, release

    def none_leaves(self) -> bool:
        try:
            self.left.get(timeout=0.05)
        except queue.Empty:
            return True
        return False


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A batcher with its clock and its calls."""

    batcher: Batcher
    clock: Clock
    calls: Calls

    def arrive(self, *clients: str, **more: Any) -> None:
        for client in clients:
            self.batcher.submit(Person(client, self.clock.now, **more))

    def answer(self, clients: Sequence[str], release: Callable[[], None]) -> None:
        release()
        for client in clients:
            self.batcher.returned(client)
        for gate in list(self.calls.answered.values()):
            gate.set()

    def round(self, *clients: str) -> tuple[list[str], str]:
        """These clients arrive, one call carries them, they are answered."""
        self.arrive(*clients)
        sent, reason, release = self.calls.next()
        while len(sent) < len(clients):  # the first may have left before the others came
            self.answer(sent, release)
            more, reason, release = self.calls.next()
            sent += more
        self.answer(sent, release)
        return sent, reason


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(wait: float = WAIT, most_requests: int = 64, most_rows: int = 100, calls: int = 1) -> Bench:
        clock, sent = Clock(), Calls()
        batcher = Batcher(
            sent.send,
            most_requests=most_requests,
            most_rows=most_rows,
            calls=calls,
            wait=wait,
            clock=clock,
        )
        batcher.start()
        made.append(Bench(batcher, clock, sent))
        return made[-1]

    yield make
    for each in made:
        each.batcher.close()
        for gate in list(each.calls.answered.values()):
            gate.set()


def test_a_request_that_finds_nothing_under_way_leaves_at_once(bench: Callable[..., Bench]) -> None:
    """No clock moves, nothing else arrives."""
    each = bench()
    each.arrive("a")
    assert each.calls.next()[:2] == (["a"], "idle")


def test_what_arrives_meanwhile_leaves_together(bench: Callable[..., Bench]) -> None:
    """In the order of arrival, when the call before has its answer."""
    each = bench()
    each.arrive("a")
    first = each.calls.next()
    each.arrive("b", "c", "d")
    assert each.calls.none_leaves()
    assert each.batcher.length == 3
    each.clock.now += 0.5
    assert each.batcher.oldest_wait == pytest.approx(0.5)
    each.answer(first[0], first[2])
    assert each.calls.next()[:2] == (["b", "c", "d"], "upstream_free")
    assert (each.batcher.length, each.batcher.oldest_wait) == (0, 0.0)


def test_only_requests_of_one_key_travel_together_and_the_oldest_go_first(
    bench: Callable[..., Bench],
) -> None:
    """A busy key cannot starve another."""
    each = bench()
    each.arrive("a")
    first = each.calls.next()
    each.arrive("b", key="x")
    each.clock.now += 0.1
    each.arrive("c", "d", key="y")
    each.arrive("e", key="x")
    each.answer(first[0], first[2])
    second = each.calls.next()
    assert second[0] == ["b", "e"]
    each.answer(second[0], second[2])
    assert each.calls.next()[0] == ["c", "d"]


def test_a_batch_ends_at_its_limits(bench: Callable[..., Bench]) -> None:
    """Of requests and of rows; a request with more rows than the limit still travels, by itself."""
    each = bench(most_requests=2, most_rows=5)
    each.arrive("a")
    first = each.calls.next()
    each.arrive("b", "c", "d", row_count=2)
    each.arrive("e", row_count=9)
    each.answer(first[0], first[2])
    sent = []
    for _ in range(3):
        members, _, release = each.calls.next()
        sent.append(members)
        each.answer(members, release)
    assert sent == [["b", "c"], ["d"], ["e"]]


def test_as_many_calls_are_under_way_as_the_container_has_workers(bench: Callable[..., Bench]) -> None:
    """The third waits for one of two."""
    each = bench(calls=2)
    each.arrive("a")
    each.calls.next()
    each.arrive("b")
    each.calls.next()
    each.arrive("c")
    assert each.calls.none_leaves()


def faithful(each: Bench, *clients: str) -> None:
    """Let clients come back at once often enough to be waited for."""
    for _ in range(FAITHFUL_AFTER + 1):
        each.round(*clients)
        each.clock.now += WAIT / 10


def test_a_batch_waits_for_clients_that_keep_coming_back(bench: Callable[..., Bench]) -> None:
    """Both travel together though the first of them found nothing under way."""
    each = bench()
    faithful(each, "a", "b")
    each.arrive("a")
    assert each.calls.none_leaves()
    each.arrive("b")
    assert each.calls.next()[:2] == (["a", "b"], "clients_back")


def test_it_waits_no_longer_than_the_setting(bench: Callable[..., Bench]) -> None:
    """Whoever does not come back is not waited for again."""
    each = bench()
    faithful(each, "a", "b")
    each.arrive("a")
    assert each.calls.none_leaves()
    each.clock.now += WAIT
    sent = each.calls.next()
    assert sent[:2] == (["a"], "wait_over")
    each.answer(sent[0], sent[2])
    each.clock.now += WAIT / 10
    each.arrive("a")
    assert each.calls.next()[:2] == (["a"], "idle")


def test_after_a_wait_in_vain_the_next_is_left_out(bench: Callable[..., Bench]) -> None:
    """Where the clients cannot all be back in time, waiting costs time; but it is tried again."""
    each = bench()
    faithful(each, "a", "b")
    each.arrive("a")
    assert each.calls.none_leaves()
    each.clock.now += WAIT
    sent = each.calls.next()
    assert sent[1] == "wait_over"
    each.answer(sent[0], sent[2])
    faithful(each, "a", "b")
    each.arrive("a")
    sent = each.calls.next()
    assert sent[0] == ["a"]
    each.answer(sent[0], sent[2])
    faithful(each, "a", "b")
    each.arrive("a")
    assert each.calls.none_leaves()


def test_a_lone_client_never_waits(bench: Callable[..., Bench]) -> None:
    """It is the only one that could come back, and it has."""
    each = bench()
    for _ in range(10):
        assert each.round("a") == (["a"], "idle")
        each.clock.now += WAIT / 10


def test_random_arrivals_never_wait(bench: Callable[..., Bench]) -> None:
    """Clients that come back later than the wait are not expected, whatever the pairs they arrived in."""
    each = bench()
    for _ in range(10):
        each.round("a", "b")
        each.clock.now += WAIT * 2
    each.arrive("a")
    assert each.calls.next()[0] == ["a"]


def test_an_expectation_ends_with_the_wait(bench: Callable[..., Bench]) -> None:
    """A request long after a busy time leaves at once, though others of that time never came back."""
    each = bench()
    faithful(each, "a", "b")
    each.clock.now += 60
    each.arrive("z")
    assert each.calls.next()[:2] == (["z"], "idle")


def test_a_wait_of_0_is_never(bench: Callable[..., Bench]) -> None:
    """Clients that come back are not waited for."""
    each = bench(wait=0.0)
    for _ in range(FAITHFUL_AFTER + 2):
        each.round("a", "b")
    each.arrive("a")
    assert each.calls.next()[0] == ["a"]


def test_the_clients_remembered_are_bounded(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection for every request costs no memory."""
    monkeypatch.setattr("monitoring.sidecar.batching.REMEMBERED_CLIENTS", 10)
    each = bench()
    for number in range(40):
        each.round(f"a{number}", f"b{number}")
    assert len(each.batcher._seen) <= 12


def test_closing_sends_what_waits(bench: Callable[..., Bench]) -> None:
    """The threads end when the queue is empty, not before."""
    each = bench()
    each.arrive("a")
    first = each.calls.next()
    each.arrive("b")
    each.batcher.close()
    each.answer(first[0], first[2])
    assert each.calls.next()[0] == ["b"]
