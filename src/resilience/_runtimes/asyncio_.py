"""The runtime of calls under asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from resilience._core.call import Call
from resilience._core.deadline import Deadline
from resilience._core.runtime import Inner, Waiter

from .threads import Real

__all__ = ["Asyncio", "TaskDeadline", "asyncio_", "together"]

_MOST_SHARED = 64
"""Durations for which calls of one loop share a timer; others have one for each call."""
_LONGEST = 1e9  # seconds


class TaskDeadline(Deadline):
    """A deadline that cancels the task it was made in, and knows its own cancellation.

    `asyncio.wait_for` loses a cancellation that falls into the tick of completion (3.11), and
    `asyncio.timeout` does not exist on 3.10 and cannot tell a TimeoutError of the user's own that
    comes after the deadline. Here an outer cancellation always wins, except that on 3.10 one that
    arrives in the very tick after the deadline cannot be told from ours.
    """

    __slots__ = ("_cancelling", "task")

    thread = pass_as = None

    def __init__(
        self, end: float, outer: Deadline | None, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        # All at once, as this is done for each call: what `Deadline` does is repeated here.
        self.end = end
        self.outer = outer
        self.passed_on = outer is not None and outer.passed_on
        self.ended = self.fired = False
        task: Any = _current_task(loop)
        self.task = task
        if task is None:
            raise RuntimeError("a time limit needs a running asyncio task")
        try:
            self._cancelling = task.cancelling()
        except AttributeError:  # Python 3.10 does not count them
            self._cancelling = 0

    def fire(self) -> None:
        """Time is up."""
        task = self.task
        if task is not None and not _cancelled_already(task):
            self.fired = True
            task.cancel()

    def close(self) -> bool:
        """The end, in whatever way: whether the task was cancelled by this deadline alone."""
        task, self.task = self.task, None
        self.ended = True
        return self.fired and task is not None and _uncancel(task) <= self._cancelling


class _Timers:
    """Deadlines of one loop and one duration, which end in the order in which they were set: one
    handle of the loop for all. Ended ones leave at once.

    `single`: for one deadline only, whose handle is cancelled with it. Otherwise only the handle
    and the calls under way keep it, so that nothing outlives a closed loop.
    """

    __slots__ = ("__weakref__", "_handle", "armed", "live", "loop", "single")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, single: bool = False) -> None:
        self.loop = loop
        self.single = single
        self.live: dict[TaskDeadline, None] = {}
        self.armed = False

    def arm(self, seconds: float) -> None:
        """Look again after so many seconds."""
        self.armed = True
        handle = self.loop.call_later(min(seconds, _LONGEST), self._due)
        if self.single:
            self._handle = handle

    def cancel(self) -> None:
        """The single deadline is over."""
        self._handle.cancel()

    def _due(self) -> None:
        self.armed = False
        now = time.monotonic()
        for deadline in list(self.live):
            if deadline.end > now and not self.single:  # that goes by the loop's clock
                self.arm(deadline.end - now)
                return
            del self.live[deadline]
            deadline.fire()


class Asyncio(Real):
    """Sleeps with `asyncio.sleep`, cancels what takes too long."""

    asynchronous = steps = True

    def __init__(self) -> None:
        self._shared: WeakKeyDictionary[Any, WeakValueDictionary[float, _Timers]] = (
            WeakKeyDictionary()
        )

    def bounded(self, seconds: float, inner: Inner) -> Inner:
        latest: Callable[[], _Timers | None] = _nothing

        async def timeout(call: Call) -> Any:
            nonlocal latest
            if seconds <= 0:
                raise call.expired(seconds)
            loop = _get_running_loop()
            timers = latest()
            if timers is None or timers.loop is not loop:
                timers = self._timers(loop, seconds)
                if not timers.single:  # that is one call's alone
                    latest = ref(timers)
            deadline = TaskDeadline(_monotonic() + seconds, call.deadline, loop)
            timers.live[deadline] = None
            if not timers.armed:
                timers.arm(seconds)
            try:
                return await inner(call.until(deadline))
            except asyncio.CancelledError:
                if not deadline.close():
                    raise
            finally:
                timers.live.pop(deadline, None)
                if timers.single:
                    timers.cancel()
                if deadline.fired:
                    deadline.close()
                else:  # what `close` does then
                    deadline.ended = True
                    deadline.task = None
            raise call.expired(seconds)

        return timeout

    def waiter(self) -> Waiter:
        return LoopWaiter()

    async def _sleep(self, seconds: float, call: Call) -> None:
        await asyncio.sleep(seconds)

    def _timers(self, loop: asyncio.AbstractEventLoop, seconds: float) -> _Timers:
        shared = self._shared.get(loop)
        if shared is None:
            shared = self._shared.setdefault(loop, WeakValueDictionary())
        timers = shared.get(seconds)
        if timers is None:
            if len(shared) >= _MOST_SHARED or not _goes_by_our_clock(loop):
                return _Timers(loop, single=True)
            timers = shared.setdefault(seconds, _Timers(loop))
        return timers


def _nothing() -> None:
    return None


class LoopWaiter:
    """A future of the loop that waits."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[bool] = self._loop.create_future()

    def set(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._end, True)
        except RuntimeError:
            return  # that loop is closed, and the call with it

    def _end(self, done: bool) -> None:
        if not self._done.done():
            self._done.set_result(done)

    async def wait(self, seconds: float, call: Call | None = None) -> bool:
        timer = self._loop.call_later(min(seconds, _LONGEST), self._end, False)
        try:
            return await self._done
        finally:
            timer.cancel()


_current_task = asyncio.current_task
_get_running_loop = asyncio.get_running_loop
_monotonic = time.monotonic


def _goes_by_our_clock(loop: asyncio.AbstractEventLoop) -> bool:
    return getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time


# Python 3.10 does not count a task's cancellations.


def _uncancel(task: asyncio.Task[Any]) -> int:
    try:
        return task.uncancel()  # type: ignore[attr-defined,no-any-return,unused-ignore]
    except AttributeError:
        return 0


def _cancelled_already(task: asyncio.Task[Any]) -> bool:
    """Whether a cancellation is on its way into a task that does not count them; `close` sees the
    others."""
    if hasattr(task, "cancelling"):
        return False
    waiter = getattr(task, "_fut_waiter", None)
    return getattr(task, "_must_cancel", False) or (waiter is not None and waiter.cancelled())


asyncio_ = Asyncio()


async def together(work: Callable[[], Coroutine[Any, Any, None]], number: int) -> None:
    """Run `work()` in so many tasks at once. The first error ends them all, and comes out."""
    tasks = [asyncio.ensure_future(work()) for _ in range(number)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
