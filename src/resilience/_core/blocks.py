"""A block of code in place of a function: `for attempt in pipeline.attempts(): with attempt: ...`.

The very same chain is used. Its innermost step does not call a function but stops there with a
marker, and so does a wait; the loop drives the chain from outside: up to the block in `__enter__`
(admission), past it in `__exit__` (verdict), and the waiting is done in `next`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from types import coroutine
from typing import Any, Literal, TypeAlias, TypeVar
from weakref import WeakSet

from resilience._runtimes.loops import runtime_for
from resilience.policy import Policy

from .call import Call, Journal
from .context import get_ambient
from .guard import Guard, drive
from .options import warn
from .order import missing_keys
from .runtime import Inner, NoWaiter, Runtime, Waiter

__all__ = ["AttemptBlock", "Attempts"]

T = TypeVar("T")

_warned: WeakSet[Any] = WeakSet()
"""Pipelines whose blocks have been found to lack an argument."""

_Handled: TypeAlias = bool | Literal[False]  # so spelt, no checker takes every error for dealt with


class _Stop:
    """What the chain stops with: at a wait of so many seconds in a call; at the block, for None."""

    def __init__(self, seconds: float | None, call: Call | None = None) -> None:
        self.seconds = seconds
        self.call = call

    def __await__(self) -> Generator[_Stop, None, None]:
        yield self


_BLOCK = _Stop(None)


async def _block(**arguments: Any) -> None:
    """Stands for the block where the chain wants a function: it takes any argument."""
    await _BLOCK


_block.__qualname__ = "block"  # what events and the log call it


class _Stepping(Runtime):
    """A runtime that stops where another would wait before an attempt; else it is that other."""

    asynchronous = True  # the block's stand-in is awaited
    lasting = False

    def __init__(self, real: Runtime) -> None:
        self.real = real

    def now(self) -> float:
        return self.real.now()

    def random(self) -> float:
        return self.real.random()

    async def _sleep(self, seconds: float, call: Call) -> None:
        await _Stop(seconds, call)

    def bounded(self, seconds: float, inner: Inner) -> Inner:
        if self.real.asynchronous:
            return self.real.bounded(seconds, inner)

        async def deadline(call: Call) -> Any:
            if seconds <= 0:
                raise call.expired(seconds)
            return await inner(call)  # nothing cuts a sync block, but waits look at the deadline

        return deadline

    def waiter(self) -> Waiter:
        return self.real.waiter() if self.may_wait else NoWaiter()

    async def blocking(self, fn: Callable[[], T], call: Call | None = None) -> T:
        return await self.real.blocking(fn, call)

    def background(self, job: Callable[[Runtime], Coroutine[Any, Any, object]]) -> None:
        self.real.background(job)


class Attempts:
    """One call of a block: iterate over it, with `for` or `async for`, once."""

    def __init__(self, pipeline: Any, arguments: dict[str, Any]) -> None:
        self._guard = Guard(pipeline, _block)
        self._arguments = arguments
        self._journal: Journal | None = None
        self._runtime: _Stepping | None = None
        self._chain: Coroutine[Any, Any, Any] | None = None
        self._stopped: _Stop | None = None
        self._entered = True
        self._over = False

    def __iter__(self) -> Iterator[AttemptBlock]:
        self._begin(asynchronous=False)
        return self

    def __next__(self) -> AttemptBlock:
        drive(self._wait())
        return self._next(StopIteration)

    def __aiter__(self) -> AsyncIterator[AttemptBlock]:
        self._begin(asynchronous=True)
        return self

    async def __anext__(self) -> AttemptBlock:
        await self._wait()
        return self._next(StopAsyncIteration)

    def _begin(self, *, asynchronous: bool) -> None:
        if self._journal is not None:
            raise RuntimeError("attempts() is for one loop; call it again for another")
        policies: tuple[Policy, ...] = self._guard.pipeline._flat
        for policy in policies:
            policy.check_block(asynchronous=asynchronous)
        if self._guard.pipeline not in _warned:
            for hazard in missing_keys(policies, self._arguments):
                _warned.add(self._guard.pipeline)
                warn("%s", hazard)
        outer = get_ambient()
        self._journal = Journal(self._guard, outer)
        self._runtime = _Stepping(runtime_for(outer, asynchronous=asynchronous))

    async def _wait(self) -> None:
        """Wait before the next attempt, if that is what the chain has stopped for."""
        stopped = self._stopped
        if not self._over and stopped is not None and stopped.call is not None:
            assert self._runtime is not None
            await self._runtime.real._sleep(stopped.seconds or 0.0, stopped.call)

    def _next(self, end: type[Exception]) -> AttemptBlock:
        if self._over:
            raise end
        if not self._entered:
            raise RuntimeError("the attempt before was not entered: write `with attempt:`")
        self._entered = False
        return AttemptBlock(self)

    # For the block

    async def enter(self, *, may_wait: bool) -> None:
        """Go on to the block: admission. A rejection is raised here."""
        journal, runtime = self._journal, self._runtime
        assert journal is not None
        assert runtime is not None
        self._entered = True
        runtime.may_wait = may_wait or not runtime.real.asynchronous
        if self._chain is None:
            self._chain = self._guard.conduct((), self._arguments, journal=journal, runtime=runtime)
        if self._stopped is not _BLOCK:
            await self._step(None)
        if self._stopped is not _BLOCK:
            self._chain.close()
            raise RuntimeError(
                "a policy waited before the block, or ended the call without it, and a block has "
                "no place for that; guard a function"
            )

    async def leave(self, error: BaseException | None) -> bool:
        """Give the verdict; true if the error is dealt with, and another attempt may follow."""
        try:
            await self._step(error)
        except BaseException as out:
            if out is error:
                return False
            raise
        else:
            return error is not None
        finally:
            del error  # this frame is in its traceback

    async def _step(self, error: BaseException | None) -> None:
        """Let the chain go on to where it stops next: at a wait, at the block, or at its end."""
        assert self._chain is not None
        self._stopped = None
        try:
            self._stopped = await _advance(self._chain, error)
            self._over = self._stopped is None
        except BaseException:
            self._over = True
            raise
        finally:
            del error


@coroutine
def _advance(
    chain: Coroutine[Any, Any, Any], error: BaseException | None
) -> Generator[Any, Any, _Stop | None]:
    """Drive the chain to its next stop; None at its end. What else it waits for is the loop's."""
    try:
        try:
            found = chain.send(None) if error is None else chain.throw(error)
        finally:
            del error
        while type(found) is not _Stop:
            try:
                given = yield found
            except BaseException as interruption:
                found = chain.throw(interruption)
            else:
                found = chain.send(given)
    except StopIteration:
        return None
    return found


class AttemptBlock:
    """One attempt at the block. `number` (from 1) and `model` are known inside it."""

    number: int = 0
    model: str | None = None

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    def __enter__(self) -> AttemptBlock:
        drive(self._attempts.enter(may_wait=False))
        return self._inside()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> _Handled:
        try:
            return drive(self._attempts.leave(error))
        finally:
            del error, traceback  # this frame is in the error's traceback

    async def __aenter__(self) -> AttemptBlock:
        await self._attempts.enter(may_wait=True)
        return self._inside()

    async def __aexit__(
        self, kind: object, error: BaseException | None, traceback: object
    ) -> _Handled:
        try:
            return await self._attempts.leave(error)
        finally:
            del error, traceback

    def _inside(self) -> AttemptBlock:
        here = get_ambient()
        assert here is not None  # it is inside an attempt
        assert here.attempt is not None
        self.number = here.attempt.branch.number
        self.model = here.attempt.model
        return self
