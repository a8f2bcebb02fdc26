"""The runtimes that go by a virtual clock: of sync calls, of asyncio and of trio.

The clock jumps when everybody waits. A sync call waits alone; an event loop is watched by a pump.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from resilience._core.call import Call
from resilience._core.deadline import Deadline, nearest
from resilience._core.runtime import Inner, NoWaiter, Runtime, Waiter
from resilience._core.signals import Expired
from resilience._runtimes.asyncio_ import TaskDeadline
from resilience._runtimes.threads import Sync as RealSync

from ._clock import Clock

__all__ = ["Async", "Asyncio", "Sync", "Trio"]

T = TypeVar("T")

_IDLE_ROUNDS = 25  # turns of an asyncio loop without news after which everybody is waiting


class _Virtual(Runtime):
    """What the three have in common."""

    lasting = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.now()

    def random(self) -> float:
        return self._clock.random()

    async def blocking(self, fn: Callable[[], T], call: Call | None = None) -> T:
        return fn()

    def background(self, job: Callable[[Runtime], Coroutine[Any, Any, object]]) -> None:
        """In virtual time nothing is slow: done at once."""
        try:
            job(Sync(self._clock)).send(None)
        except StopIteration:
            return


class _SyncWaiter:
    """In one thread, only what is due on the clock can set it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._done = False

    def set(self) -> None:
        self._done = True

    async def wait(self, seconds: float, call: Call | None) -> bool:
        deadline = None if call is None else nearest(call.deadline, threaded=True)
        end = self._clock.now() + seconds
        ours = deadline is None or end < deadline.end
        until = end if deadline is None else min(end, deadline.end)
        if not self._done:
            self._clock._pass_until(until, lambda: self._done)
        if self._done:
            return True
        if not ours and deadline is not None:
            raise Expired(deadline)
        if until == math.inf:
            raise RuntimeError("a call waits for ever: nothing is due that could end its wait")
        return False


class _Watch:
    """What `Watch` is in real time: it ends no wait, but finds, once the wait is over, that it was
    too long."""

    def __init__(self, clock: Clock, limit: float, end: float, total: float) -> None:
        self._clock = clock
        self._limit = limit
        self._end = end
        self._total = total
        self._since: float | None = clock.now()
        self._waited = 0.0
        self._flowing = False
        self._fired: float | None = None
        self.thread = 0
        self.stream: Any = None

    @property
    def fired(self) -> float | None:
        """The limit that was exceeded, in seconds."""
        now, since = self._clock.now(), self._since
        if self._fired is None and since is not None:
            if now > self._end:
                self._fired = self._total
            elif now - since + self._waited > self._limit:
                self._fired = self._limit
        return self._fired

    def limit_to(self, idle: float | None) -> None:
        """There was content: from now on limit each wait for more."""
        if self.fired is None:
            self._since = None
            self._flowing = True
            self._limit = math.inf if idle is None else idle

    def begin(self) -> None:
        """A wait begins."""
        self._since = self._clock.now()

    def end(self, content: bool) -> None:
        """There is an item."""
        if self.fired is None and self._since is not None:
            self._waited = 0.0 if content else self._waited + self._clock.now() - self._since
            self._since = None

    def touch(self) -> None:
        """There was a sign of life."""
        if self.fired is None and self._flowing:
            self._waited = 0.0
            self._since = None if self._since is None else self._clock.now()

    def stop(self) -> None:
        """It is over."""
        if self.fired is None:
            self._limit = self._end = math.inf
            self._since = None


class Sync(_Virtual, RealSync):
    def __init__(self, clock: Clock, *, may_wait: bool = True) -> None:
        super().__init__(clock)
        self.may_wait = may_wait

    def waiter(self) -> Waiter:
        return _SyncWaiter(self._clock) if self.may_wait else NoWaiter()

    def watch(self, first: float | None, end: float | None, total: float | None) -> Any:
        limit, last = (math.inf if each is None else each for each in (first, end))
        return _Watch(self._clock, limit, last, total or 0.0)

    async def sleep(self, seconds: float, call: Call) -> None:
        if seconds <= 0:  # not waited for, but a wait all the same
            self._clock.sleeps.append(seconds)
        await super().sleep(seconds, call)

    async def _sleep(self, seconds: float, call: Call) -> None:
        self._clock.sleeps.append(seconds)
        await super()._sleep(seconds, call)

    def _pass(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def _bounded(self, call: Call, deadline: Deadline) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            try:
                return call.fn(*args, **kwargs)
            finally:
                # In real time the caller would have left at the deadline, whatever came later.
                if self.now() > deadline.end:
                    raise Expired(deadline)

        return timed


class _Waker(Protocol):
    def set(self) -> Any: ...
    async def wait(self) -> Any: ...


class _AsyncWaiter:
    """An event of the loop's kind, and a moment on the clock."""

    def __init__(self, runtime: Async) -> None:
        self._runtime = runtime
        self._woken = runtime.waker()
        self._done = False

    def set(self) -> None:
        self._done = True
        self._woken.set()

    async def wait(self, seconds: float, call: Call | None) -> bool:
        await self._runtime.rest(seconds, self._woken)
        return self._done


class Async(_Virtual):
    asynchronous = True

    def waiter(self) -> Waiter:
        return _AsyncWaiter(self)

    @abstractmethod
    def waker(self) -> _Waker:
        """An event of this loop's kind."""

    @abstractmethod
    def start_pump(self) -> None:
        """From now on, let the clock jump whenever all tasks wait."""

    @abstractmethod
    def stop_pump(self) -> None:
        """No more."""

    async def _sleep(self, seconds: float, call: Call) -> None:
        self._clock.sleeps.append(seconds)
        await self.rest(seconds)

    async def rest(self, seconds: float, woken: _Waker | None = None) -> None:
        woken = self.waker() if woken is None else woken
        call_off = self._clock.at(self.now() + seconds, woken.set)
        try:
            with _Pumped(self):
                await woken.wait()
        finally:
            call_off()


class Asyncio(Async):
    def waker(self) -> _Waker:
        return asyncio.Event()

    def start_pump(self) -> None:
        loop = asyncio.get_running_loop()
        clock = self._clock

        def pump(rounds: int) -> None:
            if rounds == 0:
                clock._jump()
                rounds = _IDLE_ROUNDS
            clock._pump = loop.call_soon(pump, rounds - 1)

        pump(_IDLE_ROUNDS)

    def stop_pump(self) -> None:
        self._clock._pump.cancel()

    def bounded(self, seconds: float, inner: Inner) -> Inner:
        async def timeout(call: Call) -> Any:
            if seconds <= 0:
                raise call.expired(seconds)
            deadline = TaskDeadline(self.now() + seconds, call.deadline)
            timer = _Timer(self._clock, deadline.end, deadline.fire)
            try:
                with _Pumped(self):
                    return await inner(call.until(deadline))
            except asyncio.CancelledError:
                if not deadline.close():
                    raise
            finally:
                timer.cancel()
                if not deadline.ended:
                    deadline.close()
            raise call.expired(seconds)

        return timeout


class _Timer:
    """Fires at its moment, but never in the midst of the task that it is for: a loop's timers do
    not either. A task that moves the clock past its own deadline is cancelled when it next waits.
    """

    def __init__(self, clock: Clock, when: float, fire: Callable[[], None]) -> None:
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
    """While anybody is inside: whenever the loop has nothing else to do, let the clock jump.

    A class, as contextlib would touch the traceback of an error that passes.
    """

    def __init__(self, runtime: Async) -> None:
        self._runtime = runtime
        self._clock = runtime._clock

    def __enter__(self) -> None:
        self._clock._waiting += 1
        if self._clock._waiting == 1:
            self._runtime.start_pump()

    def __exit__(self, *error: object) -> None:
        self._clock._waiting -= 1
        if not self._clock._waiting:
            self._runtime.stop_pump()


class Trio(Async):
    def waker(self) -> _Waker:
        import trio

        return trio.Event()

    def start_pump(self) -> None:
        import trio
        import trio.testing

        clock = self._clock
        clock._pump = trio.CancelScope()

        async def pump(stop: trio.CancelScope) -> None:
            with stop:
                while True:
                    await trio.testing.wait_all_tasks_blocked()
                    clock._jump()

        trio.lowlevel.spawn_system_task(pump, clock._pump)

    def stop_pump(self) -> None:
        self._clock._pump.cancel()

    def bounded(self, seconds: float, inner: Inner) -> Inner:
        import trio

        async def timeout(call: Call) -> Any:
            if seconds <= 0:
                raise call.expired(seconds)
            deadline = Deadline(self.now() + seconds, call.deadline)
            limit = trio.CancelScope()
            call_off = self._clock.at(deadline.end, limit.cancel)
            try:
                with limit, _Pumped(self):
                    return await inner(call.until(deadline))
            finally:
                deadline.ended = True
                call_off()
            raise call.expired(seconds)

        return timeout
