"""The runtime of sync calls: the chain stays in the caller's thread.

A time limit only sets a deadline. When one is set, the user's function alone moves to a worker
thread and is waited for until the nearest deadline; a function that hangs is left behind there.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from resilience._core.base import plainly
from resilience._core.record import current
from resilience._core.scope import Expired, Scope
from resilience.errors import WorkersBusyError

from . import workers
from .loops import loop_runs_here

__all__ = ["Threads", "threads"]

T = TypeVar("T")
_LONGEST = 1e9  # seconds; time.sleep takes no more than some 9e9


class _Serving(threading.local):
    """The deadline that this worker thread works under, whose caller waits for it elsewhere."""

    scope: Scope | None = None

    def check(self) -> None:
        """Unwind a worker thread whose caller has left: no further attempt, no further wait."""
        if self.scope is not None and self.scope.fired:
            raise Expired(self.scope)


_serving = _Serving()


class ThreadBell:
    """An event that a thread waits for, no longer than its call's deadline."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        self.ring = self._rung.set

    async def wait(self, seconds: float) -> bool:
        _serving.check()
        scope = current().deadline(threaded=True)
        left = math.inf if scope is None else max(0.0, scope.end - Threads.now())
        rung = self._rung.wait(min(seconds, left, threading.TIMEOUT_MAX))
        if not rung and scope is not None and left <= seconds:
            raise Expired(scope)
        return rung


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
            time.sleep(min(seconds, _LONGEST))
            return
        time.sleep(max(0.0, scope.end - self.now()))
        raise Expired(scope)

    def bell(self) -> ThreadBell:
        return ThreadBell()

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
            raise record.unstarted(scope)
        serving = _serving.scope
        if serving is not None and serving.end <= scope.end:
            return plainly(fn, args, kwargs)  # the caller of this worker leaves first anyway
        if not record.facts.synchronous and record.settled is not False and loop_runs_here():
            # Not yet known: it may turn out to be async and to need the loop that runs here.
            return plainly(fn, args, kwargs)

        def call() -> Any:
            _serving.scope = scope
            try:
                return plainly(fn, args, kwargs)
            finally:
                _serving.scope = None

        try:
            job = workers.start(call)
            done = job.wait(scope.end - self.now())
        except WorkersBusyError:
            record.withdraw(record.tries[-1])
            raise
        except BaseException:  # Ctrl-C: what is left behind makes no further attempt either
            scope.fired = True
            raise
        if not done:
            scope.fired = True
            raise Expired(scope)
        return job.outcome()


threads = Threads()
