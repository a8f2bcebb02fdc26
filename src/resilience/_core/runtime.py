"""What a policy may do besides calling inward: wait, look at a clock, draw a random number."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Protocol, TypeAlias, TypeVar

from resilience._runtimes.running import loop_here
from resilience.events import WaitBegan

from .attempt import Attempt
from .call import Call

__all__ = ["Inner", "NoWaiter", "Runtime", "Waiter"]

T = TypeVar("T")

Inner: TypeAlias = Callable[[Call], Awaitable[Any]]
"""The next thing inward: awaited with a call, in sync calls too."""


class Waiter(Protocol):
    """What one call waits for and another sets, once."""

    def set(self) -> object:
        """Wake the call that waits, or will, from any thread; nothing happens if it has gone."""

    async def wait(self, seconds: float, call: Call | None) -> bool:
        """Wait until it is set, for `seconds` at most and no longer than the deadline of the call,
        if it is one that waits: whether it was set. False at once where a call may not wait
        (`Runtime.may_wait`)."""
        ...


class NoWaiter:
    """Where a call may not wait."""

    def set(self) -> None:
        """Nobody waits."""

    async def wait(self, seconds: float, call: Call | None) -> bool:
        return False


def _failed(call: Call) -> Attempt | None:
    """The attempt after which a call waits: the last one of its model, or the last one of all."""
    attempts = call.journal.attempts
    own = (each for each in reversed(attempts) if each.model == call.model)
    return next(own, attempts[-1] if attempts else None)


class Runtime(ABC):
    """One for each world: threads, asyncio, trio, and the virtual ones of `resilience.testing`.

    Chosen anew for each call, and handed to `Policy.bind`. Nothing else in a policy may wait, look
    at a clock, draw a random number or leave the thread.
    """

    asynchronous: bool
    """Whether awaitables that come back from the user's function are awaited."""

    may_wait: bool = True
    """False where waiting would stop an event loop: the call runs on one, but is not awaited (its
    function is not known yet, or it is a block entered with `with` in an `async for`)."""

    steps: bool = False
    """Whether an awaitable may be begun before a time limit is set around the rest of it."""

    lasting: bool = True
    """Whether there is one such runtime for the whole process."""

    @abstractmethod
    def now(self) -> float:
        """Seconds on a clock that never jumps."""

    @abstractmethod
    def random(self) -> float:
        """A random number in [0, 1)."""

    async def sleep(self, seconds: float, call: Call) -> None:
        """Wait before the next attempt, no longer than the call's deadline."""
        call.branch.waiting += seconds
        if call.journal.guard.emit.listened[WaitBegan]:
            call.emit(WaitBegan, attempt=_failed(call), seconds=seconds)
        if seconds > 0 or self.asynchronous:  # a loop gets its turn in any case
            await self._sleep(seconds, call)

    @abstractmethod
    def bounded(self, seconds: float, inner: Inner) -> Inner:
        """`inner` under a deadline of so many seconds; `DeadlineExceededError` when it has passed.

        An error of the user's own comes out as itself, a TimeoutError included.
        """

    async def within(self, seconds: float, inner: Inner, call: Call) -> Any:
        """`await inner(call)` under a deadline, as `bounded`."""
        return await self.bounded(seconds, inner)(call)

    def check(self) -> None:  # noqa: B027
        """Unwind a thread whose caller has left it behind."""

    def watch(self, first: float | None, end: float | None, total: float | None) -> Any:
        """What ends the reads of a stream that take too long, where they cannot be cancelled: for
        `first` seconds until there is content, and at `end`. None where reads are cancelled."""
        return None

    def home(self) -> Hashable:
        """What a result that this call gets may be shared within: the event loop that runs here; in
        sync calls this process."""
        return loop_here() if self.asynchronous else os.getpid()

    @abstractmethod
    def waiter(self) -> Waiter:
        """Something to wait for in this call."""

    @abstractmethod
    async def blocking(self, fn: Callable[[], T], call: Call | None = None) -> T:
        """Run something slow that is not the user's function, off the event loop. In a sync call,
        no longer than the deadline of `call`: then it goes on in a worker thread."""

    @abstractmethod
    def background(self, job: Callable[[Runtime], Coroutine[Any, Any, object]]) -> None:
        """Run `job` with a sync runtime in a worker thread, and do not wait for it; where there is
        no thread to be had, not at all. From anywhere, a finalizer included."""

    @abstractmethod
    async def _sleep(self, seconds: float, call: Call) -> None:
        """Wait; `sleep` has recorded it."""

    _prepare: Callable[[Call], Callable[..., Any]]
    """Of a sync runtime: what calls the function of a call that has a deadline, before the attempt
    is opened."""
