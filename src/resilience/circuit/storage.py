"""The seam to whatever shares a circuit with others: a pybreaker storage, a Redis server.

A breaker's `storage=` gives each circuit a `SharedState`, the circuit as others see it. It must
never break a call: what it raises on its own account it keeps to itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

from resilience._core.semaphore import Semaphore
from resilience.errors import WorkersBusyError
from resilience.failures import Failure
from resilience.policy import Runtime

from .circuit import Circuit
from .permit import Permit
from .states import Change

__all__ = ["Jobs", "SharedState", "Sharing"]

T = TypeVar("T")


class SharedState(Protocol):
    """One circuit as others see it. Safe from any thread."""

    async def refresh(self, runtime: Runtime) -> None:
        """Before a call is admitted: publish what is still to be published; now and then, take
        over what others say."""

    async def claim(self, runtime: Runtime, permit: Permit) -> bool:
        """Before a trial: do the others leave it to us? False rejects the call."""
        ...

    def record(
        self,
        permit: Permit,
        failed: bool | None,
        now: float,
        cause: BaseException | None,
        failure: Failure | None,
    ) -> bool:
        """A call has ended, and the circuit knows: well, badly, or (None) without a verdict. Never
        waits; whether there is something to publish, soon or with the next call."""
        ...

    async def publish(self, runtime: Runtime) -> None:
        """Tell the others what was recorded."""

    def note(self, change: Change) -> None:
        """The circuit has changed state, by a call, by a manual command or by what others said.
        Never waits, but for a manual command outside any event loop."""


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

    async def run(self, runtime: Runtime, fn: Callable[[], T]) -> T:
        """The result of `fn`, once it is our turn."""
        if self._process != os.getpid():  # of a child of fork, whose jobs are not under way here
            self._semaphore, self._process = Semaphore(self._most), os.getpid()
        semaphore = self._semaphore
        if not semaphore.try_acquire() and not await semaphore.acquire(
            runtime, None, self._patience
        ):
            raise WorkersBusyError(workers=self._most)
        begun = False

        def job() -> T:
            nonlocal begun
            begun = True
            try:
                return fn()
            finally:
                semaphore.release()

        try:
            return await runtime.blocking(job)
        except BaseException as error:
            # One that was only given up, in an event loop, begins and ends by itself.
            if not begun and (isinstance(error, Exception) or not runtime.asynchronous):
                semaphore.release()
            raise
