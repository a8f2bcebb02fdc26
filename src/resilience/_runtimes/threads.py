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
    """The deadline that this worker thread works under, whose caller waits for it elsewhere."""

    scope: Scope | None = None

    def check(self) -> None:
        """Unwind a worker thread whose caller has left: no further attempt, no further wait."""
        if self.scope is not None and self.scope.fired:
            raise Expired(self.scope)


_serving = _Serving()


class Threads:
    """Sleeps with `time.sleep`, goes by `time.monotonic`."""

    asynchronous = False
    lasting = True
    now = staticmethod(time.monotonic)
    random = staticmethod(random.random)

    async def sleep(self, seconds: float) -> None:
        _serving.check()
        scope = current().deadline(threaded=True)
        if scope is None or self.now() + seconds < scope.end:
            time.sleep(seconds)
            return
        time.sleep(max(0.0, scope.end - self.now()))
        raise Expired(scope)

    async def within(self, seconds: float, thunk: Callable[[], Awaitable[T]]) -> T:
        record = current()
        scope = Scope(self.now() + seconds, seconds, record.scope, threaded=True)
        with record.scoped(scope):
            return await thunk()

    async def blocking(self, fn: Callable[[], T]) -> T:
        return fn()

    async def invoke(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        record = current()
        if _serving.scope is not None:
            _serving.check()
        if record.scope is None or (scope := record.deadline(threaded=True)) is None:
            return plainly(fn, args, kwargs)
        if scope.end <= self.now():
            raise Expired(scope)
        known = record.facts.synchronous or record.settled is False
        if scope is _serving.scope or (not known and loop_runs_here()):
            # Either this thread is the scope's worker already; or the function is not yet known
            # and may turn out to be async, and then it needs the loop that runs in this thread.
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
