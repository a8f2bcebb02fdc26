"""A world whose time passes only when everybody waits.

For code that waits by this clock: scripted functions, other guarded calls. Real I/O (a socket, a
thread) looks like idleness to it, and the clock jumps past what is still under way.

Inside `virtual_time()` the waits, deadlines and open times of every guarded call go by a clock
that jumps straight to the next moment at which something is due. Nothing really sleeps.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from typing import Any

from resilience._core.around import Surroundings, around
from resilience._core.scope import Expired
from resilience._runtimes.loops import in_trio
from resilience.typing import Runtime

from ._worlds import Async, Asyncio, Sync, Trio

__all__ = ["VirtualTime", "virtual_time"]


class VirtualTime:
    """The clock: `now()`, `advance(seconds)`, and `sleeps`, the waits made so far in order.

    `sleep` and `asleep` let a scripted function take its (virtual) time. `random()` is seeded;
    assign another function to choose the jitter. For one thread or one event loop at a time.
    """

    def __init__(self, *, start: float = 1_000.0, wall: float = 1_800_000_000.0, seed: int = 0):
        self._now = start
        self._offset = wall - start
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._waiting = 0
        self._pump: Any = None  # asyncio's handle, while somebody waits in its loop
        self._stop: Any = None  # trio's scope, likewise
        self.sleeps: list[float] = []
        self.random: Callable[[], float] = random.Random(seed).random
        self._runtimes: dict[str, Runtime] = {}

    def now(self) -> float:
        """Seconds on the virtual clock."""
        return self._now

    def wall(self) -> float:
        """Virtual seconds since 1970."""
        return self._now + self._offset

    def move_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back; time itself does not pass."""
        self._offset += seconds

    def advance(self, seconds: float) -> None:
        """Let time pass; whatever becomes due happens on the way, in order."""
        self.pass_until(self._now + seconds, lambda: False)

    def pass_until(self, end: float, enough: Callable[[], bool]) -> None:
        """Let time pass until `end`, or until something that happens on the way is enough."""
        while self._due and self._due[0][0] <= end:
            self._step()
            if enough():
                return
        self._now = max(self._now, end)

    def sleep(self, seconds: float) -> None:
        """Take virtual time in a sync function; what is due meanwhile happens.

        In a guarded function whose deadline comes first, the call is left at the deadline, as a
        caller leaves a worker thread.
        """
        surroundings = around.get()
        call = surroundings.call if surroundings is not None else None
        scope = call.deadline(threaded=True) if call is not None else None
        if scope is not None and scope.end < self._now + seconds:
            self.advance(max(0.0, scope.end - self._now))
            raise Expired(scope)
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        """Take virtual time in an async function."""
        runtime = self.runtime(asynchronous=True)
        assert isinstance(runtime, Async)
        await runtime.rest(seconds)

    def runtime(self, *, asynchronous: bool) -> Runtime:
        """The runtime that goes by this clock for a call made here."""
        kind = "sync" if not asynchronous else "trio" if in_trio() else "asyncio"
        if kind not in self._runtimes:
            kinds: dict[str, type[Sync | Asyncio | Trio]] = {
                "sync": Sync,
                "asyncio": Asyncio,
                "trio": Trio,
            }
            self._runtimes[kind] = kinds[kind](self)
        return self._runtimes[kind]

    def at(self, when: float, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when the clock gets there; returns what calls it off."""
        entry = (when, next(self._numbers), wake)
        heapq.heappush(self._due, entry)

        def call_off() -> None:
            if entry in self._due:
                self._due.remove(entry)
                heapq.heapify(self._due)

        return call_off

    def jump(self) -> None:
        """Go to the next moment at which something is due, if anything ever is."""
        if self._due:
            self._step()

    def _step(self) -> None:
        when, _, wake = heapq.heappop(self._due)
        self._now = max(self._now, when)
        wake()


@contextmanager
def virtual_time(
    *, start: float = 1_000.0, wall: float = 1_800_000_000.0, seed: int = 0
) -> Generator[VirtualTime]:
    """Have guarded calls made in this context go by a virtual clock, which is given.

    Holds for the calling thread or task and the tasks it starts; others go by real time. Enter it
    before the event loop or inside it. `start` and `wall` are the first readings of the two
    clocks, `seed` that of the random numbers.
    """
    clock = VirtualTime(start=start, wall=wall, seed=seed)
    surroundings = Surroundings(around.get())
    surroundings.world = clock
    token = around.set(surroundings)
    try:
        yield clock
    finally:
        around.reset(token)
