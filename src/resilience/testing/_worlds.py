"""The runtimes that go by a virtual clock: of sync calls, of asyncio and of trio.

The clock jumps when everybody waits. A sync call waits alone; an event loop is watched by a pump.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from resilience._core.base import plainly
from resilience._core.record import current
from resilience._core.scope import Expired, Scope
from resilience._runtimes.asyncio_ import CancelScope
from resilience.errors import DeadlineExceededError

if TYPE_CHECKING:
    from .virtual import VirtualTime

__all__ = ["Async", "Asyncio", "Sync", "Trio"]

T = TypeVar("T")

_IDLE_ROUNDS = 25  # turns of an asyncio loop without news after which everybody is waiting


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


class Sync(_Virtual):
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

    def __init__(self, runtime: Async) -> None:
        self._runtime = runtime
        self._woken = runtime.waker()
        self._rung = False

    def ring(self) -> None:
        self._rung = True
        self._woken.set()

    async def wait(self, seconds: float) -> bool:
        await self._runtime.rest(seconds, self._woken)
        return self._rung


class Async(_Virtual, ABC):
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


class Asyncio(Async):
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


class Trio(Async):
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
