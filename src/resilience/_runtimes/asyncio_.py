"""The runtime of calls under asyncio."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

from resilience._core.base import plainly
from resilience._core.record import current
from resilience._core.scope import Scope
from resilience.errors import DeadlineExceededError

from . import workers

__all__ = ["Asyncio", "CancelScope", "asyncio_"]

T = TypeVar("T")


class Asyncio:
    """Sleeps with `asyncio.sleep`, goes by `time.monotonic`, cancels what takes too long."""

    asynchronous = True
    lasting = True
    now = staticmethod(time.monotonic)
    random = staticmethod(random.random)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def bell(self) -> LoopBell:
        loop = asyncio.get_running_loop()
        return LoopBell(lambda seconds, end: loop.call_later(seconds, end).cancel)

    async def within(self, seconds: float, thunk: Callable[[], Awaitable[T]]) -> T:
        record = current()
        if seconds <= 0:
            raise DeadlineExceededError(seconds)
        loop = asyncio.get_running_loop()
        with (
            record.scoped(Scope(self.now() + seconds, seconds, record.scope)),
            CancelScope(seconds, lambda fire: loop.call_later(seconds, fire)),
        ):
            return await thunk()

    async def blocking(self, fn: Callable[[], T]) -> T:
        return await workers.elsewhere(fn, self.bell())

    async def invoke(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return plainly(fn, args, kwargs)


class LoopBell:
    """A future of the loop that waits; `timer(seconds, end)` gives what calls the timer off."""

    def __init__(self, timer: Callable[[float, Callable[[], None]], Callable[[], object]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung: asyncio.Future[bool] = self._loop.create_future()
        self._timer = timer

    def ring(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._end, True)
        except RuntimeError:
            return  # that loop is closed, and the call with it

    def _end(self, rung: bool) -> None:
        if not self._rung.done():
            self._rung.set_result(rung)

    async def wait(self, seconds: float) -> bool:
        call_off = self._timer(seconds, lambda: self._end(False))
        try:
            return await self._rung
        finally:
            call_off()


class CancelScope:
    """Cancels the task it is entered in when a timer fires, and knows its own cancellation.

    `asyncio.wait_for` loses a cancellation that falls into the tick of completion (3.11), and
    `asyncio.timeout` does not exist on 3.10 and cannot tell a TimeoutError of the user's own that
    comes after the deadline. Here an outer cancellation always wins, except that on 3.10 one that
    arrives in the very tick after the deadline cannot be told from ours.
    """

    def __init__(self, seconds: float, timer: Callable[[Callable[[], None]], Any]) -> None:
        self._seconds = seconds
        self._timer = timer
        self._fired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit needs a running asyncio task")
        self._task = task
        self._cancelling = _cancelling(task)
        self._handle = self._timer(self._fire)

    def _fire(self) -> None:
        if _cancelled_already(self._task):
            return
        self._fired = True
        self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._handle.cancel()
        if not self._fired:
            return
        ours = _uncancel(self._task) <= self._cancelling
        if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise DeadlineExceededError(self._seconds) from None


def _cancelling(task: asyncio.Task[Any]) -> int:
    count = getattr(task, "cancelling", None)  # 3.11
    return count() if count is not None else 0


def _uncancel(task: asyncio.Task[Any]) -> int:
    uncancel = getattr(task, "uncancel", None)  # 3.11
    return uncancel() if uncancel is not None else 0


def _cancelled_already(task: asyncio.Task[Any]) -> bool:
    """On 3.10, which does not count: whether a cancellation is on its way into the task."""
    if hasattr(task, "cancelling"):
        return False  # counted, so __exit__ sees the other one
    waiter = getattr(task, "_fut_waiter", None)
    return getattr(task, "_must_cancel", False) or (waiter is not None and waiter.cancelled())


asyncio_ = Asyncio()
