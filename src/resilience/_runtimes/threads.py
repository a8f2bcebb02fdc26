"""The runtime of sync calls: the chain stays in the caller's thread.

A time limit only sets a deadline. When one is set, the user's function alone moves to a worker
thread and is waited for until the nearest deadline; a function that hangs is left behind there.
"""

from __future__ import annotations

import math
import random
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from resilience._core.call import Call
from resilience._core.deadline import Deadline, nearest
from resilience._core.results import PLAIN, is_raw_stream
from resilience._core.runtime import Inner, NoWaiter, Runtime, Waiter
from resilience._core.signals import Expired
from resilience.errors import WorkersBusyError
from resilience.events import CallRejected, WorkerAbandoned

from . import workers
from .running import loop_runs_here

__all__ = ["Real", "Sync", "Threads", "not_waiting", "serving", "threads"]

T = TypeVar("T")
_LONGEST = 1e9  # seconds; time.sleep takes no more than some 9e9


class _Serving(threading.local):
    """The deadline that this worker thread works under, whose caller waits for it elsewhere."""

    deadline: Deadline | None = None

    def check(self) -> None:
        """Unwind a worker thread whose caller has left: no further attempt, no further wait."""
        if self.deadline is not None and self.deadline.fired:
            raise Expired(self.deadline)


serving = _Serving()


class Real(Runtime):
    """What has the real clock, chance, and worker threads."""

    now = staticmethod(time.monotonic)  # pyright: ignore[reportAssignmentType]  # without a frame
    random = staticmethod(random.random)  # pyright: ignore[reportAssignmentType]  # the same

    async def blocking(self, fn: Callable[[], T], call: Call | None = None) -> T:
        return await workers.elsewhere(fn, self.waiter(), call)

    def background(self, job: Callable[[Runtime], Coroutine[Any, Any, object]]) -> None:
        def work() -> None:
            try:
                job(threads).send(None)  # a sync runtime never suspends
            except StopIteration:
                return

        try:
            workers.start(work)
        except Exception:
            pass


class Sync(Runtime):
    """What sync calls have in common, in real time and in virtual time."""

    asynchronous = False

    def bounded(self, seconds: float, inner: Inner) -> Inner:
        async def timeout(call: Call) -> Any:
            end, thread = self.now() + seconds, threading.get_ident()
            return await call.within(Deadline(end, call.deadline, thread), seconds, inner)

        return timeout

    async def _sleep(self, seconds: float, call: Call) -> None:
        serving.check()
        self.take(seconds, nearest(call.deadline, threaded=True))

    def take(self, seconds: float, deadline: Deadline | None) -> None:
        """Stay in this thread for so long, but leave it at the deadline."""
        left = math.inf if deadline is None else deadline.end - self.now()
        self._pass(min(seconds, max(0.0, left)))
        if deadline is not None and left < seconds:
            raise Expired(deadline)

    @abstractmethod
    def _pass(self, seconds: float) -> None:
        """Let time go by."""

    def _prepare(self, call: Call) -> Callable[..., Any]:
        serving.check()
        deadline = nearest(call.deadline, threaded=True)
        if deadline is None:
            return call.fn
        if deadline.end <= self.now():
            raise Expired(deadline)
        return self._bounded(call, deadline)

    def _bounded(self, call: Call, deadline: Deadline) -> Callable[..., Any]:
        """What calls the function of a call and is left at the deadline."""
        return call.fn


class ThreadWaiter:
    """An event that a thread waits for."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.set = self._event.set

    async def wait(self, seconds: float, call: Call | None) -> bool:
        serving.check()
        deadline = None if call is None else nearest(call.deadline, threaded=True)
        left = math.inf if deadline is None else max(0.0, deadline.end - threads.now())
        done = self._event.wait(min(seconds, left, threading.TIMEOUT_MAX))
        if not done and deadline is not None and left <= seconds:
            raise Expired(deadline)
        return done


class Threads(Sync, Real):
    """Sleeps with `time.sleep`."""

    @property
    def may_wait(self) -> bool:  # type: ignore[override]  # here it depends on the caller
        """Not on the thread of an event loop: whom it waits for may be a task of that loop."""
        return not loop_runs_here()

    async def blocking(self, fn: Callable[[], T], call: Call | None = None) -> T:
        if call is None or nearest(call.deadline, threaded=True) is None:
            return fn()
        return await Real.blocking(self, fn, call)

    def check(self) -> None:
        serving.check()

    def watch(self, first: float | None, end: float | None, total: float | None) -> Any:
        from .watchdog import Watch  # imported where first needed

        return Watch(
            math.inf if first is None else first, math.inf if end is None else end, total or 0.0
        )

    def waiter(self) -> Waiter:
        return ThreadWaiter() if self.may_wait else NoWaiter()

    def _pass(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(min(seconds, _LONGEST))

    def _bounded(self, call: Call, deadline: Deadline) -> Callable[..., Any]:
        outer = serving.deadline
        if outer is not None and outer.end <= deadline.end:
            return call.fn  # the caller of this worker leaves first anyway
        return partial(self._in_worker, call, deadline)

    def _in_worker(self, call: Call, deadline: Deadline, /, *args: Any, **kwargs: Any) -> Any:
        fn = call.fn

        def work() -> Any:
            serving.deadline = deadline
            try:
                if call.terms is not None and call.terms.watch is not None:
                    call.terms.watch.thread = threading.get_ident()
                result = fn(*args, **kwargs)
                if type(result) in PLAIN or not (
                    hasattr(result, "__iter__") and is_raw_stream(result)
                ):
                    return result
                from resilience._core.streams import open_sync  # imported where first needed

                return open_sync(call, self, result)  # here, within the time of the call
            finally:
                serving.deadline = None

        try:
            job = workers.start(work)
            done = job.wait(deadline.end - self.now())
        except WorkersBusyError as busy:
            call.withdraw()
            call.emit(CallRejected, error=busy)
            raise
        except BaseException:  # Ctrl-C: what is left behind makes no further attempt either
            deadline.fired = True
            raise
        if not done:
            deadline.fired = True
            call.emit(WorkerAbandoned)
            raise Expired(deadline)
        return job.outcome()


class NotWaiting(Threads):
    """For a sync call of a function not yet known, where an event loop runs.

    The function is called on the spot, not in a worker thread: it may turn out to be async and to
    need that loop.
    """

    may_wait = False  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]  # always

    _bounded = Sync._bounded


threads = Threads()
not_waiting = NotWaiting()
