"""The seam to whatever shares a circuit with others: a pybreaker storage, a Redis server.

A breaker's `storage=` gives each circuit a `SharedState`, the circuit as others see it. It must
never break a call: what it raises on its own account it keeps to itself.
"""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast, runtime_checkable
from weakref import WeakSet, ref

from attrs import define, field

from resilience._core.locks import new_lock
from resilience._core.outside import drive, start_job, sync_runtime
from resilience._core.semaphore import Semaphore
from resilience.errors import WorkersBusyError
from resilience.policy import Call, Runtime

from .circuit import Circuit
from .machine import Holder, Permit, holding_thread
from .states import Change, Ending

__all__ = ["Jobs", "Publisher", "SharedState", "Sharing", "warn"]

T = TypeVar("T")

_AT_EXIT = 1.0  # seconds for which the end of a program waits for a thread that is publishing
_MOST = 5.0  # seconds for which it waits in all
_LANES = 8  # threads that publish it


@define(eq=False)
class Publisher(ABC):
    """Something to be published: in the background, with the next call, or at the end of the
    program. Safe from any thread, and after a fork.

    One thread at a time publishes; what is recorded meanwhile is published by it, too.
    """

    _lock: Any = field(factory=new_lock, init=False)
    _publishing: ref[Holder] | None = field(default=None, init=False)  # who is at it
    _asked: float | None = field(default=None, init=False)  # when the others were last asked

    def __attrs_post_init__(self) -> None:
        _all.add(self)

    @property
    @abstractmethod
    def unpublished(self) -> bool:
        """Whether anything recorded here is still to be published."""

    @abstractmethod
    def _is_due(self, now: float) -> bool:
        """Whether to publish now."""

    @abstractmethod
    async def _publish_next(self, runtime: Runtime, holder: Holder) -> bool:
        """Publish one thing. False if that fails: the others follow with a later call. What goes on
        when this is cancelled keeps `holder` as long as it does."""

    async def publish(self, runtime: Runtime) -> None:
        """Tell the others what was recorded, unless another thread is at it."""
        while True:
            holder = self._begin_publishing(runtime.now())
            if holder is None:
                return
            try:
                done = await self._publish_next(runtime, holder)
            finally:
                del holder  # or the traceback of an error would keep it
            if not done or not self.unpublished:  # as it is now that others may begin
                return

    def _may_begin(self, now: float) -> bool:
        return holding_thread(self._publishing) is None and self._is_due(now)

    def _begin_publishing(self, now: float) -> Holder | None:
        with self._lock:
            if not self._may_begin(now):
                return None
            holder = Holder()
            self._publishing = ref(holder)
            return holder

    async def _finish(self, runtime: Runtime, end: float) -> None:
        """Publish what is left at the end of the program, or let whoever is at it do so."""
        while holding_thread(self._publishing) is not None and runtime.now() < end:
            await runtime.waiter().wait(0.005, None)
        if self.unpublished:
            self._asked = None
            await self.publish(runtime)


_all: WeakSet[Publisher] = WeakSet()


@atexit.register
def _finish() -> None:
    """A program may end right after a failure or a command: it is published first, but a storage
    that hangs does not keep the program from its end."""
    runtime = sync_runtime()
    began = runtime.now()
    late = [each for each in list(_all) if each.unpublished or holding_thread(each._publishing)]
    jobs = []
    for lane in filter(None, (late[first::_LANES] for first in range(_LANES))):

        def publish(lane: list[Publisher] = lane) -> None:
            for publisher in lane:
                drive(publisher._finish(runtime, began + _AT_EXIT))

        try:
            jobs.append(start_job(publish))
        except WorkersBusyError:  # Python 3.12 starts no new threads at the end
            publish()
    for job in jobs:
        job.wait(began + _MOST - runtime.now())


@define(eq=False)
class SharedState(Publisher):
    """One circuit as others see it."""

    circuit: Circuit
    every: float
    """Seconds between two looks at the others."""

    @property
    @abstractmethod
    def reachable(self) -> bool:
        """Whether the storage replied when it was last asked."""

    @abstractmethod
    def record(self, permit: Permit, ending: Ending) -> bool:
        """A call has ended, and the circuit knows. Never waits; whether there is something to
        publish, soon or with the next call."""

    @abstractmethod
    def on_change(self, change: Change) -> None:
        """The circuit has changed state, by a call, by a manual command or by what others said.
        Never waits, but for a manual command outside any event loop."""

    async def claim(self, runtime: Runtime, permit: Permit) -> bool:
        """Before a trial: do the others leave it to us? False rejects the call."""
        return True

    async def refresh(self, runtime: Runtime) -> None:
        """Before a call is admitted: publish what is still to be published; now and then, take
        over what others say."""
        await self.publish(runtime)

    def _is_time(self, now: float) -> bool:
        """Whether to look at the others again."""
        return self._asked is None or now - self._asked >= self.every


def warn(text: str) -> None:
    """Warn. Where warnings are errors, the call goes on too."""
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    except RuntimeWarning as warning:
        logging.getLogger("resilience").error("%s", warning)


@runtime_checkable
class Sharing(Protocol):
    """A `storage=` that serves any number of circuits."""

    def share(self, circuit: Circuit, refresh: float) -> SharedState:
        """A circuit's shared state; called once, and no waiting. Read every `refresh` seconds."""
        ...


class Jobs:
    """Jobs that may hang: up to `most` at once, off the event loop.

    One that hangs keeps its permit until it ends, whether anybody still waits for it or not. A call
    waits for its turn no longer than `patience` seconds: `WorkersBusyError` then.
    """

    def __init__(self, most: int, patience: float) -> None:
        self._most = most
        self._patience = patience
        self._semaphore = Semaphore(most)
        self._process = os.getpid()

    async def run(self, runtime: Runtime, fn: Callable[[], T], call: Call | None = None) -> T:
        """The result of `fn`, once it is our turn; in a sync call by its deadline."""
        if self._process != os.getpid():  # of a child of fork, whose jobs are not under way here
            self._semaphore, self._process = Semaphore(self._most), os.getpid()
        semaphore = self._semaphore
        if not semaphore.try_acquire() and not await semaphore.acquire(
            runtime, None, self._patience
        ):
            raise WorkersBusyError(workers=self._most)
        left: list[Callable[[], object]] = [
            semaphore.release
        ]  # taken once: by the job, or by who gives up before it begins

        def job() -> Any:
            release = _taken(left)
            if release is None:
                return None  # nobody waits for it
            try:
                return fn()
            finally:
                release()

        try:
            return cast(T, await runtime.blocking(job, call))
        finally:
            release = _taken(left)
            if release is not None:
                release()


def _taken(left: list[Callable[[], object]]) -> Callable[[], object] | None:
    try:
        return left.pop()  # one step: nobody else gets it
    except IndexError:
        return None
