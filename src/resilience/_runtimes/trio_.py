"""The runtime of calls under trio. Imported only where trio already runs."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from resilience._core.base import plainly
from resilience._core.record import current
from resilience._core.scope import Scope
from resilience.errors import DeadlineExceededError

from . import workers

__all__ = ["Trio", "trio_"]

T = TypeVar("T")


class TrioBell:
    """An event of the trio run that waits."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._rung = trio.Event()

    def ring(self) -> None:
        try:
            self._token.run_sync_soon(self._rung.set)
        except trio.RunFinishedError:
            return  # and the call with it

    async def wait(self, seconds: float) -> bool:
        with trio.move_on_after(seconds):
            await self._rung.wait()
        return self._rung.is_set()


class Trio:
    """Sleeps with `trio.sleep`, goes by `time.monotonic`, cancels what takes too long."""

    asynchronous = True
    lasting = True
    now = staticmethod(time.monotonic)
    random = staticmethod(random.random)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def bell(self) -> TrioBell:
        return TrioBell()

    async def within(self, seconds: float, thunk: Callable[[], Awaitable[T]]) -> T:
        record = current()
        if seconds <= 0:
            raise DeadlineExceededError(seconds)
        with (
            record.scoped(Scope(self.now() + seconds, seconds, record.scope)),
            trio.move_on_after(seconds),
        ):
            return await thunk()
        raise DeadlineExceededError(seconds)

    async def blocking(self, fn: Callable[[], T]) -> T:
        return await workers.elsewhere(fn, self.bell())

    async def invoke(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return plainly(fn, args, kwargs)


trio_ = Trio()
