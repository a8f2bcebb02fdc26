"""The runtime of calls under trio. Imported only where trio already runs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import trio

from resilience._core.call import Call
from resilience._core.deadline import Deadline
from resilience._core.runtime import Inner, Runtime, Waiter

from . import workers
from .threads import run_in_background

__all__ = ["Trio", "trio_"]

T = TypeVar("T")


class TrioWaiter:
    """An event of the trio run that waits."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._done = trio.Event()

    def set(self) -> None:
        try:
            self._token.run_sync_soon(self._done.set)
        except trio.RunFinishedError:
            return  # and the call with it

    async def wait(self, seconds: float, call: Call | None = None) -> bool:
        with trio.move_on_after(seconds):
            await self._done.wait()
        return self._done.is_set()


class Trio(Runtime):
    """Sleeps with `trio.sleep`, goes by `time.monotonic`, cancels what takes too long."""

    asynchronous = True
    now = staticmethod(time.monotonic)  # pyright: ignore[reportAssignmentType]  # without a frame
    random = staticmethod(random.random)  # pyright: ignore[reportAssignmentType]  # the same

    def bounded(self, seconds: float, inner: Inner) -> Inner:
        async def timeout(call: Call) -> Any:
            if seconds <= 0:
                raise call.expired(seconds)
            deadline = Deadline(self.now() + seconds, call.deadline)
            try:
                with trio.move_on_after(seconds):
                    return await inner(call.until(deadline))
            finally:
                deadline.ended = True
            raise call.expired(seconds)

        return timeout

    def waiter(self) -> Waiter:
        return TrioWaiter()

    async def blocking(self, fn: Callable[[], T]) -> T:
        return await workers.elsewhere(fn, self.waiter())

    def background(self, job: Callable[[Runtime], Coroutine[Any, Any, object]]) -> None:
        run_in_background(job)

    async def _sleep(self, seconds: float, call: Call) -> None:
        await trio.sleep(seconds)


trio_ = Trio()
