"""A bulkhead's permits and queue, in every order of threads.

See support/interleaving.py. The scene is tried again without its lock, or with a mistake in it:
then an order that breaks it must be found.
"""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from resilience.policies.bulkhead import _Permit, _Room, _Rooms
from resilience.policy import BUSY
from support.interleaving import WatchedList, WatchedOrder, WatchedSet
from support.scenes import Scene, check, is_found_out, watchable, without  # noqa: F401

pytestmark = [
    pytest.mark.real,
    pytest.mark.steady,
    pytest.mark.usefixtures("watchable", "_no_collector"),
]


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """What an order has left asleep leaves the queue when it is collected: not in another one."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Suspended:
    """Awaited, it suspends."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Waiting:
    """A runtime whose waiters are woken by nobody who does not set them."""

    patient = True
    """Else time is up as soon as one waits."""

    def __init__(self) -> None:
        self.woken: list[None] = WatchedList()

    def now(self) -> float:
        return 0.0

    def waiter(self) -> Any:
        return self

    def set(self) -> None:
        self.woken.append(None)

    async def wait(self, seconds: float, call: Any) -> bool:
        if self.patient:
            await Suspended()
        return bool(self.woken)


class Impatient(Waiting):
    patient = False


class Cancelled(Waiting):
    async def wait(self, seconds: float, call: Any) -> bool:
        raise KeyboardInterrupt


class Permits(Scene):
    """One permit, which somebody has; others ask for it."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.rooms = _Rooms(1, 9)
        self.rooms._lock = self.lock("bulkhead")
        self.room = _Room(1, self.rooms._lock)
        self.room.inside = WatchedSet()
        self.room.waiting = WatchedOrder()
        self.rooms._all[None] = self.room
        self.first: _Permit = self.room.begin()
        self.got: list[_Permit] = WatchedList()
        self.asleep: list[Any] = WatchedList()

    def release(self) -> None:
        self.first.give_back()

    def release_twice(self) -> None:
        self.first.give_back()
        self.first.give_back()

    def release_hastily(self) -> None:
        """As it must not be: first a look at the queue, and then out."""
        somebody = bool(self.room.waiting)
        assert self.first.reference is not None
        self.room.inside.discard(self.first.reference)
        if somebody:
            with self.room.lock:
                self.room.let_in()

    def try_it(self) -> None:
        permit = self.room.begin()
        if permit is not BUSY:
            self.got.append(permit)

    def ask(self, runtime: Any) -> None:
        call: Any = SimpleNamespace(model=None, emit=lambda kind, **facts: None)
        waits = self.rooms.wait(None, self.room, runtime, call, 1.0)
        try:
            waits.send(None)
        except StopIteration as done:
            if done.value is not None:
                self.got.append(done.value)
        except KeyboardInterrupt:
            return
        else:
            self.asleep.append(waits)

    def wait(self) -> None:
        self.ask(Waiting())

    def lose_patience(self) -> None:
        self.ask(Impatient())

    def be_cancelled(self) -> None:
        self.ask(Cancelled())

    def holds(self) -> bool:
        """One is inside at the most, and nobody sleeps in front of a free permit."""
        room = self.room
        inside = len(room.inside)
        for waits in self.asleep:  # whoever was let in leaves again
            waits.close()
        out = inside - len(self.got)
        nobody_sleeps = inside == 1 or not self.asleep
        return inside <= 1 and 0 <= out <= len(self.asleep) and nobody_sleeps and not room.waiting


releases = pytest.mark.parametrize("release", [Permits.release, Permits.release_twice])


@pytest.mark.fault(4, 22, 370)
@pytest.mark.parametrize("other", [Permits.lose_patience, Permits.try_it])
@releases
@without("bulkhead")
def test_a_permit_given_back_while_others_ask(
    release: Any, other: Any, without: str | None
) -> None:
    """One of them gets it, or it is free; also if he gives up in that very moment."""
    check(Permits, without, release, Permits.wait, other, holds=Permits.holds, stops=2)


@pytest.mark.fault(4, 22, 370)
@pytest.mark.parametrize("other", [Permits.wait, Permits.be_cancelled])
@releases
def test_a_permit_given_back_while_two_queue(release: Any, other: Any) -> None:
    """The first of them gets it, or who has queued behind one that is cancelled."""
    check(Permits, None, release, Permits.wait, other, holds=Permits.holds)


@pytest.mark.fault(370)
def test_who_looks_at_the_queue_before_it_is_out_is_found_out() -> None:
    """The one who has just queued would sleep in front of a free permit."""
    is_found_out(Permits, Permits.release_hastily, Permits.wait, holds=Permits.holds, stops=2)
