"""A block of code in place of a function: `for attempt in pipeline.attempts(): with attempt: ...`.

The very same chain is used. Its innermost step does not call a function but stops there with a
marker, and so does a wait; the loop drives the chain from outside: up to the call in `__enter__`
(admission), past it in `__exit__` (verdict), and the waiting is done in `next`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from resilience._runtimes import runtime_for
from resilience.typing import Bell, Runtime

from .around import around, restore
from .callables import facts_of
from .driver import drive
from .record import Record

if TYPE_CHECKING:
    from .pipeline import Pipeline

__all__ = ["AttemptBlock", "Attempts"]

T = TypeVar("T")


class _Pause:
    """What the chain stops with: at a wait of so many seconds; at the block, for None."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator[_Pause, None, None]:
        yield self


_BLOCK = _Pause(None)


class _Stepping:
    """A runtime that stops where another would wait or call; otherwise it is that other one."""

    lasting = False

    def __init__(self, real: Runtime) -> None:
        self.real = real
        self.asynchronous = False  # a block is never awaited by the chain
        self.now = real.now
        self.random = real.random

    async def sleep(self, seconds: float) -> None:
        await _Pause(seconds)

    def bell(self) -> Bell | None:
        """None in an async loop: a block is entered with `with`, and that cannot wait there."""
        return None if self.real.asynchronous else self.real.bell()

    async def within(self, seconds: float, thunk: Callable[[], Awaitable[T]]) -> T:
        return await self.real.within(seconds, thunk)

    async def blocking(self, fn: Callable[[], T]) -> T:
        return fn()

    async def invoke(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        await _BLOCK


def _block(**arguments: Any) -> None:
    """Stands for the block where the chain wants a function: it takes any argument."""


class Attempts:
    """One call of a block: iterate over it, with `for` or `async for`, once."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._chain: Coroutine[Any, Any, Any] | None = None
        self._record: Record | None = None
        self._real: Runtime | None = None
        self._stopped: _Pause | None = None
        self._begun = self._over = False

    def __iter__(self) -> Iterator[AttemptBlock]:
        self._begin(asynchronous=False)
        return self

    def __next__(self) -> AttemptBlock:
        seconds = self._wait()
        if seconds is not None:
            assert self._real is not None
            drive(_coroutine(self._real.sleep(seconds)))
        return self._next(StopIteration)

    def __aiter__(self) -> AsyncIterator[AttemptBlock]:
        self._begin(asynchronous=True)
        return self

    async def __anext__(self) -> AttemptBlock:
        seconds = self._wait()
        if seconds is not None:
            assert self._real is not None
            await self._real.sleep(seconds)
        if not self._over:
            await self._prepare()
        return self._next(StopAsyncIteration)

    def _begin(self, *, asynchronous: bool) -> None:
        if self._begun:
            raise RuntimeError("attempts() is for one loop; call it again for another")
        self._begun = True
        for policy in self._pipeline.flat:
            check = getattr(policy, "fits_block", None)
            if check is not None:
                check(asynchronous=asynchronous)
        outer = around.get()
        self._record = Record(outer, _block, facts_of(_block), asynchronous)
        self._real = runtime_for(self._record, asynchronous=asynchronous)
        self._pipeline.equip(self._record)

    async def _prepare(self) -> None:
        """Let policies ask now what they could not wait for in `with`, on an event loop."""
        assert self._record is not None
        assert self._real is not None
        token = around.set(self._record)
        try:
            for policy in self._pipeline.flat:
                before_block = getattr(policy, "before_block", None)
                if before_block is not None and not self._record.disabled:
                    await before_block(self._real)
        finally:
            restore(token)

    def _wait(self) -> float | None:
        """Seconds to wait before the next attempt, if the chain has stopped for that."""
        stopped = self._stopped
        if self._over or stopped is None or stopped.seconds is None:
            return None
        return stopped.seconds

    def _next(self, end: type[Exception]) -> AttemptBlock:
        if self._over:
            raise end
        assert self._record is not None
        return AttemptBlock(self, self._record)

    # For the block

    def enter(self) -> None:
        """Go on to the block: admission. What refuses raises here."""
        if self._chain is None:
            assert self._record is not None
            assert self._real is not None
            self._chain = self._pipeline.conduct(self._record, runtime=_Stepping(self._real))
        if self._stopped is not _BLOCK:
            self._step(None)
        if self._stopped is not _BLOCK:
            self._chain.close()
            raise RuntimeError(
                "a policy waited before the block, or ended the call without it, and a block has "
                "no place for that; guard a function"
            )

    def leave(self, error: BaseException | None) -> bool:
        """Give the verdict; true if the error is dealt with, and another attempt may follow."""
        try:
            self._step(error)
        except BaseException as out:
            if out is error:
                return False
            raise
        return error is not None

    def _step(self, error: BaseException | None) -> None:
        """Let the chain go on to where it stops next: at a wait, at the block, or at its end."""
        assert self._chain is not None
        self._stopped = None
        try:
            self._stopped = self._chain.send(None) if error is None else self._chain.throw(error)
        except StopIteration:
            self._over = True
        except BaseException:
            self._over = True
            raise


class AttemptBlock:
    """One attempt at the block. `number` (from 1) and `model` are known inside it."""

    number = 0
    model: str | None = None

    def __init__(self, attempts: Attempts, record: Record) -> None:
        self._attempts = attempts
        self._record = record

    def __enter__(self) -> AttemptBlock:
        self._attempts.enter()
        self.number = self._record.made
        self.model = self._record.model
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | Literal[False]:
        return self._attempts.leave(error)


async def _coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable
