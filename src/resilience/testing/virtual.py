"""A world whose time passes only when everybody waits.

For code that waits by this clock: scripted functions, other guarded calls. Real I/O (a socket, a
thread) looks like idleness to it, and the clock jumps past what is still under way.

Inside `virtual_time()` the waits, deadlines and open times of every guarded call go by a clock
that jumps straight to the next moment at which something is due. Nothing really sleeps.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from resilience._core.context import Surroundings, ambient, get_ambient
from resilience._core.deadline import nearest
from resilience._core.runtime import Runtime
from resilience._runtimes.loops import in_trio

from ._clock import Clock
from ._worlds import Async, Asyncio, Sync, Trio

__all__ = ["VirtualTime", "virtual_time"]


class VirtualTime(Clock):
    """The clock: `now()`, `advance(seconds)`, and `sleeps`, the waits made so far in order.

    `sleep` and `asleep` let a scripted function take its (virtual) time. `random()` is seeded;
    assign another function to choose the jitter. For one thread or one event loop at a time.
    """

    def sleep(self, seconds: float) -> None:
        """Take virtual time in a sync function; what is due meanwhile happens.

        In a guarded function whose deadline comes first, the call is left at the deadline, as a
        caller leaves a worker thread.
        """
        here = get_ambient()
        call = None if here is None else here.attempt
        deadline = None if call is None else nearest(call.deadline, threaded=True)
        Sync(self).take(seconds, deadline)

    async def asleep(self, seconds: float) -> None:
        """Take virtual time in an async function."""
        runtime = self.runtime(asynchronous=True)
        assert isinstance(runtime, Async)
        await runtime.rest(seconds)

    def runtime(self, *, asynchronous: bool, may_wait: bool = True) -> Runtime:
        """The runtime that goes by this clock for a call made here."""
        if not asynchronous:
            return Sync(self, may_wait=may_wait)
        return Trio(self) if in_trio() else Asyncio(self)


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
    token = ambient.set(Surroundings(get_ambient(), world=clock))
    try:
        yield clock
    finally:
        ambient.reset(token)
