"""The runtime of sync calls: the chain stays in the caller's thread.

A time limit only sets a deadline. When one is set, the user's function alone moves to a worker
thread and is waited for until the nearest deadline; a function that hangs is left behind there.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from resilience._core.base import plainly
from resilience._core.record import current
from resilience._core.scope import Expired, Scope

from . import workers
from .loops import loop_runs_here

__all__ = ["Threads", "threads"]

T = TypeVar("T")


class _Serving(threading.local):
    """The deadline whose caller waits for this worker thread; it needs no second worker."""

    scope: Scope | None = None


_serving = _Serving()


class Threads:
    """Sleeps with `time.sleep`, goes by `time.monotonic`."""

    asynchronous = False
    lasting = True
    now = staticmethod(time.monotonic)
    random = staticmethod(random.random)

    async def sleep(self, seconds: float) -> None:
        scope = current().deadline(enforced=True)
        left = seconds if scope is None else scope.end - self.now()
        if scope is None or seconds < left:
            time.sleep(seconds)
            return
        time.sleep(max(0.0, left))
        raise Expired(scope)

    async def within(self, seconds: float, thunk: Callable[[], Awaitable[T]]) -> T:
        record = current()
        scope = Scope(self.now() + seconds, seconds, record.scope)
        with record.scoped(scope):
            return await thunk()
        raise AssertionError  # for type checkers, who fear that the scope might swallow an error

    async def blocking(self, fn: Callable[[], T]) -> T:
        return fn()

    async def invoke(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        record = current()
        scope = record.deadline(enforced=True)
        if scope is None:
            return plainly(fn, args, kwargs)
        if scope.fired or scope.end <= self.now():
            raise Expired(scope)
        if scope is _serving.scope or not (record.facts.synchronous or not loop_runs_here()):
            # A function that may turn out to be async needs the loop that runs in this thread.
            return plainly(fn, args, kwargs)

        def call() -> Any:
            _serving.scope = scope
            try:
                return plainly(fn, args, kwargs)
            finally:
                _serving.scope = None

        job = workers.start(call)
        if not job.wait(scope.end - self.now()):
            scope.fired = True
            raise Expired(scope)
        return job.outcome()


threads = Threads()
