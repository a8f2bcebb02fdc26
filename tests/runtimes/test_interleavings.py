"""The net under tests in every order of threads; and the smallest things that threads share.

See support/interleaving.py. Each machine is tried again without one of its locks, or with a mistake
in it: then an order that breaks it must be found. That is how each of these tests is known to be
able to fail.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from resilience import CircuitOpenError
from resilience._core.guard import drive
from resilience._core.idle import Idle, epochs
from resilience.circuit.circuit import Circuit
from resilience.policy import Semaphore
from support.interleaving import (
    Broken,
    Lock,
    Stuck,
    WatchedList,
    WatchedOrder,
    every_order,
    orders,
    watch,
    watch_slots,
)
from support.scenes import Scene, check, is_found_out, watchable, without  # noqa: F401

pytestmark = [pytest.mark.real, pytest.mark.steady, pytest.mark.usefixtures("watchable")]


# The net under the tests


class CheckThenTake:
    """How a place must not be taken: looked for first, taken afterwards."""

    def __init__(self) -> None:
        self.out = 0
        self.taken: list[bool] = []
        watch(self)

    def take(self) -> None:
        free = self.out < 1
        if free:
            self.out += 1
        self.taken.append(free)

    def holds(self) -> bool:
        return self.taken.count(True) == 1


class UnderLock(CheckThenTake):
    """And how it must."""

    def __init__(self) -> None:
        self.lock = Lock()
        super().__init__()

    def take(self) -> None:
        with self.lock:
            super().take()


def test_a_place_looked_for_and_then_taken_is_found_out() -> None:
    """The mistake itself, in its barest form; under a lock it is none."""
    is_found_out(CheckThenTake, *[CheckThenTake.take] * 2, holds=CheckThenTake.holds)
    with pytest.raises(Broken, match="1 writes out"):
        every_order(CheckThenTake, *[CheckThenTake.take] * 2, holds=CheckThenTake.holds)
    assert every_order(UnderLock, *[UnderLock.take] * 2, holds=UnderLock.holds) == 2
    assert every_order(UnderLock, *[UnderLock.take] * 3, holds=UnderLock.holds) == 6


class Crossed:
    """Two locks, taken in two ways round."""

    def __init__(self) -> None:
        self.left, self.right = Lock(), Lock()

    def take(self, one: Lock, other: Lock) -> None:
        with one, other:
            pass


def test_locks_taken_in_two_ways_round_are_found_out() -> None:
    """Threads that wait for one another are reported, with the way there."""
    with pytest.raises(Stuck, match="1 enters lock"):
        every_order(
            Crossed,
            lambda scene: scene.take(scene.left, scene.right),
            lambda scene: scene.take(scene.right, scene.left),
            holds=lambda scene: True,
        )


class Written:
    """Small programs of reads, writes and additions, some of them under locks."""

    def __init__(self) -> None:
        self.locks = [Lock(), Lock()]
        self.seen: list[list[int]] = [[], [], []]
        self.x = self.y = 0
        watch(self, but=["locks", "seen"])

    @classmethod
    def random(cls, chance: random.Random, length: int) -> list[Any]:
        """Lines of a program: an action and a name, or a lock and a program under it."""
        lines: list[Any] = []
        while length > 0:
            if length > 1 and chance.random() < 0.35:
                inner = chance.randint(1, length - 1)
                lines.append((chance.randrange(2), cls.random(chance, inner)))
                length -= inner + 1
            else:
                lines.append((chance.choice("rwa"), chance.choice("xy")))
                length -= 1
        return lines

    def run(self, me: int, lines: list[Any]) -> None:
        for action, what in lines:
            if action == "r":
                self.seen[me].append(getattr(self, what))
            elif action == "w":
                setattr(self, what, me + 1)
            elif action == "a":
                setattr(self, what, getattr(self, what) * 3 + me + 1)
            else:
                with self.locks[action]:
                    self.run(me, what)

    @classmethod
    def points(cls, lines: list[Any]) -> int:
        """How often such a program can be stopped."""
        nested = [what for action, what in lines if isinstance(action, int)]
        return len(lines) + sum(action == "a" for action, _ in lines) + sum(map(cls.points, nested))

    @classmethod
    def outcomes(cls, search: Any, programs: list[Any]) -> set[Any]:
        """All that can come out; a program may end in a deadlock as well."""
        found: set[Any] = set()

        def note(scene: Written) -> bool:
            found.add((scene.x, scene.y, str(scene.seen)))
            return True

        threads = [
            lambda scene, me=me, lines=lines: scene.run(me, lines)
            for me, lines in enumerate(programs)
        ]
        try:
            search(cls, *threads, holds=note)
        except Stuck:
            return {"deadlock"}
        return found


@pytest.mark.parametrize("threads", [2, 3])
def test_one_order_of_each_kind_gives_all_that_all_orders_give(threads: int) -> None:
    """Over random programs: nothing that can come out is overlooked."""
    chance = random.Random(threads)
    tried = 0
    while tried < 30:
        programs = [Written.random(chance, chance.randint(1, 4)) for _ in range(threads)]
        if sum(map(Written.points, programs)) > 8:
            continue
        tried += 1
        assert Written.outcomes(every_order, programs) == Written.outcomes(orders, programs)


# Epochs


class Counting(Scene):
    """Circuits that change at once: each change is an epoch of its own."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.before = epochs.now
        self.one: list[int] = []
        self.other: list[int] = []

    def advance(self) -> None:
        self.one = [epochs.advance()]

    def advance_twice(self) -> None:
        self.other = [epochs.advance(), epochs.advance()]

    def holds(self) -> bool:
        given = [number - self.before for number in self.one + self.other]
        return sorted(given) == [1, 2, 3] and epochs.now == self.before + 3


@pytest.mark.fault(21)
@without("epochs")
def test_every_change_is_an_epoch_of_its_own(without: str | None) -> None:
    """None is given out twice, and none goes back."""
    check(Counting, without, Counting.advance, Counting.advance_twice, holds=Counting.holds)


# Being at rest


class Past(Scene):
    """Two circuits in one pipeline. One is opened, and called at once by whoever has opened it;
    the other one closes."""

    epochs = False

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        breakers = self.breaker(), self.breaker()
        self.left, self.right = (breaker._only for breaker in breakers)
        self.guarded = self.pipeline(*breakers).wrap(lambda: "through")
        self.outcome: object = None
        self.right.open()

    def open_and_call(self) -> None:
        self.left.open()
        self.outcome = self.error_of(self.guarded)

    def close(self) -> None:
        self.right.close()

    def holds(self) -> bool:
        """The call is rejected."""
        return self.outcome is CircuitOpenError


def test_no_call_goes_past_a_circuit_from_the_moment_that_it_was_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever another circuit of the same pipeline does in that very moment."""
    watch_slots(monkeypatch, Idle, "period", "_version")
    watch_slots(monkeypatch, Circuit, "_state")
    assert orders(Past, Past.open_and_call, Past.close, holds=Past.holds, stops=3) > 1


# Permits


class NoTime:
    """A runtime whose waiters note whether they were set, and wait for nothing: time is up."""

    def __init__(self) -> None:
        self.woken: list[NoTime] = WatchedList()

    def waiter(self) -> Any:
        return self

    def set(self) -> None:
        self.woken.append(self)

    async def wait(self, seconds: float, call: Any) -> bool:
        return bool(self.woken)


class Cancelled(NoTime):
    """One whose wait is broken off."""

    async def wait(self, seconds: float, call: Any) -> bool:
        raise KeyboardInterrupt


class Permits(Scene):
    """One permit, which somebody has; others ask for it, and lose patience at once."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.semaphore = Semaphore(1, 1)
        self.semaphore._lock = self.lock("semaphore")
        self.semaphore._waiting = WatchedOrder()
        assert self.semaphore.try_acquire()
        self.got: list[str] = WatchedList()
        self.given: list[str] = WatchedList()

    def release(self) -> None:
        self.semaphore.release()
        self.given.append("first")

    def try_it(self) -> None:
        if self.semaphore.try_acquire():
            self.got.append("tried")

    def ask(self, runtime: Any, name: str) -> None:
        try:
            if drive(self.semaphore.acquire(runtime, None, 0.0)):
                self.got.append(name)
        except KeyboardInterrupt:
            return

    def wait(self) -> None:
        self.ask(NoTime(), "waited")

    def wait_too(self) -> None:
        self.ask(NoTime(), "waited too")

    def be_cancelled(self) -> None:
        self.ask(Cancelled(), "cancelled")

    def hasty(self) -> None:
        """As it must not be: the queue is left without a look at whether a permit has come."""
        runtime: Any = NoTime()
        if not self.semaphore.try_acquire():
            self.semaphore._waiting[runtime] = None
            self.semaphore._waiting.pop(runtime, None)
        else:
            self.got.append("hasty")

    def holds(self) -> bool:
        """Permits out and permits free are one: none is lost, and none is there twice."""
        free, waiting = self.semaphore.free, self.semaphore.waiting
        return free + len(self.got) == len(self.given) == 1 and waiting == 0


@pytest.fixture
def _watched_permits(monkeypatch: pytest.MonkeyPatch) -> None:
    watch_slots(monkeypatch, Semaphore, "_free", "_waiting")


@pytest.mark.fault(4, 22)
@pytest.mark.usefixtures("_watched_permits")
@pytest.mark.parametrize("other", [Permits.wait, Permits.be_cancelled, Permits.try_it])
@without("semaphore")
def test_a_permit_given_back_while_another_asks(other: Any, without: str | None) -> None:
    """He gets it, or it is free; also if he gives up in that very moment."""
    check(Permits, without, Permits.release, Permits.wait_too, other, holds=Permits.holds, stops=2)


@pytest.mark.fault(4)
@pytest.mark.usefixtures("_watched_permits")
def test_a_queue_left_without_looking_is_found_out() -> None:
    """The permit that has come meanwhile is lost."""
    is_found_out(Permits, Permits.release, Permits.hasty, holds=Permits.holds)
