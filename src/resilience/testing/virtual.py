"""A world whose time passes only when everybody waits.

For code that waits by this clock: scripted functions, other guarded calls. Real I/O (a socket, a
thread) looks like idleness to it, and the clock jumps past what is still under way.

Inside `virtual_time()` the waits, deadlines and open times of every guarded call go by a clock
that jumps straight to the next moment at which something is due. Nothing really sleeps.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol, TypeVar

from resilience._core.around import Surroundings, around
from resilience._core.base import plainly
from resilience._core.record import current
from resilience._core.scope import Expired, Scope
from resilience._runtimes.asyncio_ import CancelScope
from resilience._runtimes.loops import in_trio
from resilience.errors import DeadlineExceededError
from resilience.typing import Runtime

__all__ = ["VirtualTime", "virtual_time"]

T = TypeVar("T")

_IDLE_ROUNDS = 25  # turns of an asyncio loop without news after which everybody is waiting


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
        assert isinstance(runtime, _Async)
        await runtime.rest(seconds)

    def runtime(self, *, asynchronous: bool) -> Runtime:
        """The runtime that goes by this clock for a call made here."""
        kind = "sync" if not asynchronous else "trio" if in_trio() else "asyncio"
        if kind not in self._runtimes:
            kinds: dict[str, type[_Sync | _Asyncio | _Trio]] = {
                "sync": _Sync,
                "asyncio": _Asyncio,
                "trio": _Trio,
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


class _Virtual:
    """What the three have in common."""

    def __init__(self, clock: VirtualTime) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.now()

    def random(self) -> float:
        return self._clock.random()

    async def blocking(self, fn: Callable[[], T]) -> T:
        return fn()

    async def invoke(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return plainly(fn, args, kwargs)


class _SyncBell:
    """In one thread, only what is due on the clock can ring it."""

    def __init__(self, clock: VirtualTime) -> None:
        self._clock = clock
        self._rung = False

    def ring(self) -> None:
        self._rung = True

    async def wait(self, seconds: float) -> bool:
        scope = current().deadline(threaded=True)
        end = self._clock.now() + seconds
        ours = scope is None or end < scope.end
        self._clock.pass_until(end if scope is None else min(end, scope.end), lambda: self._rung)
        if not self._rung and not ours and scope is not None:
            raise Expired(scope)
        return self._rung


class _Sync(_Virtual):
    asynchronous = False

    def bell(self) -> _SyncBell:
        return _SyncBell(self._clock)

    async def sleep(self, seconds: float) -> None:
        self._clock.sleeps.append(seconds)
        self._clock.sleep(seconds)

    async def within(self, seconds: float, thunk: Callable[[], Awaitable[T]]) -> T:
        record = current()
        with record.scoped(Scope(self.now() + seconds, seconds, record.scope, threaded=True)):
            return await thunk()

    async def invoke(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        record = current()
        scope = record.deadline(threaded=True)
        if scope is not None and scope.end <= self.now():
            raise record.unstarted(scope)
        try:
            return plainly(fn, args, kwargs)
        finally:
            # In real time the caller would have left at the deadline, whatever came later.
            if scope is not None and self.now() > scope.end:
                raise Expired(scope)


class _Waker(Protocol):
    def set(self) -> Any: ...
    async def wait(self) -> Any: ...


class _AsyncBell:
    """An event of the loop's kind, and a moment on the clock."""

    def __init__(self, runtime: _Async) -> None:
        self._runtime = runtime
        self._woken = runtime.waker()
        self._rung = False

    def ring(self) -> None:
        self._rung = True
        self._woken.set()

    async def wait(self, seconds: float) -> bool:
        await self._runtime.rest(seconds, self._woken)
        return self._rung


class _Async(_Virtual, ABC):
    asynchronous = True

    def bell(self) -> _AsyncBell:
        return _AsyncBell(self)

    @abstractmethod
    def waker(self) -> _Waker:
        """An event of this loop's kind."""

    @abstractmethod
    def pumped(self) -> _Pumped:
        """Lets the clock jump whenever all tasks wait, for as long as anybody is inside."""

    async def sleep(self, seconds: float) -> None:
        self._clock.sleeps.append(seconds)
        await self.rest(seconds)

    async def rest(self, seconds: float, woken: _Waker | None = None) -> None:
        woken = self.waker() if woken is None else woken
        call_off = self._clock.at(self.now() + seconds, woken.set)
        try:
            with self.pumped():
                await woken.wait()
        finally:
            call_off()


class _Asyncio(_Async):
    def waker(self) -> _Waker:
        return asyncio.Event()

    def pumped(self) -> _Pumped:
        return _Pumped(self._clock)

    async def within(self, seconds: float, thunk: Callable[[], Awaitable[T]]) -> T:
        record = current()
        if seconds <= 0:
            raise DeadlineExceededError(seconds)
        end = self.now() + seconds
        with (
            record.scoped(Scope(end, seconds, record.scope)),
            CancelScope(seconds, lambda fire: _Timer(self._clock, end, fire)),
            self.pumped(),
        ):
            return await thunk()


class _Timer:
    """Fires at its moment, but never in the midst of the task that it is for: a loop's timers do
    not either. A task that moves the clock past its own deadline hears of it when it next waits.
    """

    def __init__(self, clock: VirtualTime, when: float, fire: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._fire = fire
        self._call_off = clock.at(when, self._ring)

    def _ring(self) -> None:
        if asyncio.current_task(self._loop) is self._task:
            self._call_off = self._loop.call_soon(self._fire).cancel
        else:
            self._fire()

    def cancel(self) -> None:
        self._call_off()


class _Pumped:
    """While anybody waits: whenever the loop has nothing else to do, let the clock jump.

    A class, as contextlib would touch the traceback of an error that passes.
    """

    def __init__(self, clock: VirtualTime) -> None:
        self._clock = clock

    def __enter__(self) -> None:
        self._clock._waiting += 1
        if self._clock._waiting == 1:
            self.start()

    def __exit__(self, *error: object) -> None:
        self._clock._waiting -= 1
        if not self._clock._waiting:
            self.stop()

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        clock = self._clock

        def pump(rounds: int) -> None:
            if rounds == 0:
                clock.jump()
                rounds = _IDLE_ROUNDS
            clock._pump = loop.call_soon(pump, rounds - 1)

        pump(_IDLE_ROUNDS)

    def stop(self) -> None:
        self._clock._pump.cancel()


class _PumpedByTrio(_Pumped):
    """The same under trio, which can tell when all tasks are blocked."""

    def start(self) -> None:
        import trio
        import trio.testing

        clock = self._clock

        async def pump(stop: trio.CancelScope) -> None:
            with stop:
                while True:
                    await trio.testing.wait_all_tasks_blocked()
                    clock.jump()

        clock._stop = trio.CancelScope()
        trio.lowlevel.spawn_system_task(pump, clock._stop)

    def stop(self) -> None:
        self._clock._stop.cancel()


class _Trio(_Async):
    def waker(self) -> _Waker:
        import trio

        return trio.Event()

    def pumped(self) -> _Pumped:
        return _PumpedByTrio(self._clock)

    async def within(self, seconds: float, thunk: Callable[[], Awaitable[T]]) -> T:
        import trio

        record = current()
        if seconds <= 0:
            raise DeadlineExceededError(seconds)
        end = self.now() + seconds
        limit = trio.CancelScope()
        call_off = self._clock.at(end, limit.cancel)
        try:
            with record.scoped(Scope(end, seconds, record.scope)), limit, self.pumped():
                return await thunk()
        finally:
            call_off()
        raise DeadlineExceededError(seconds)


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
