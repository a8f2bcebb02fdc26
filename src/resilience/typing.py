"""The shapes that policies, runtimes and calls have. Write your own policy against these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

__all__ = ["Bell", "Call", "Policy", "Runtime", "Seconds", "World"]

T = TypeVar("T")

Seconds: TypeAlias = float | timedelta
"""A time as an option takes it. What is kept is always the number of seconds, a float."""

Call = Callable[..., Awaitable[Any]]
"""The next thing inward: awaited with the user's arguments, in sync calls too."""


class Bell(Protocol):
    """What one call waits for and another, in any thread or event loop, rings."""

    def ring(self) -> Any:
        """Wake the call that waits, or will; nothing happens if it has gone."""

    async def wait(self, seconds: float) -> bool:
        """Wait; whether it was rung within `seconds`. Once."""
        ...


class Runtime(Protocol):
    """The only thing that may wait, look at a clock, draw a random number or leave the thread."""

    @property
    def asynchronous(self) -> bool:
        """Whether awaitables that come back from the user's function are awaited."""
        ...

    def now(self) -> float:
        """Seconds on a clock that never jumps."""
        ...

    def random(self) -> float:
        """A random number in [0, 1)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def bell(self) -> Bell | None:
        """What wakes this call, from any thread; None where it cannot wait."""
        ...

    async def within(self, seconds: float, thunk: Callable[[], Awaitable[T]]) -> T:
        """Run `thunk` and await it; after `seconds`, `DeadlineExceededError` instead.

        An error of the user's own comes out as itself, a TimeoutError included.
        """
        ...

    async def blocking(self, fn: Callable[[], T]) -> T:
        """Run something slow that is not the user's function, off the event loop."""
        ...

    async def invoke(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call the user's function: the innermost step of every chain."""


class World(Protocol):
    """A clock, chance, and the runtimes that go by them: what `virtual_time()` puts in place."""

    def now(self) -> float:
        """Seconds on the clock for durations."""
        ...

    def wall(self) -> float:
        """Seconds since 1970."""
        ...

    def random(self) -> float:
        """A random number in [0, 1)."""
        ...

    def runtime(self, *, asynchronous: bool) -> Runtime:
        """The runtime for a sync call, or for the event loop that runs here."""
        ...


@runtime_checkable
class Policy(Protocol):
    """What a pipeline is made of.

    A policy that can sit out a healthy call says so with a `rests` attribute that is true
    (`resilience._core.rest` tells more of that agreement); others always run.
    """

    def bind(self, call: Call, runtime: Runtime) -> Call:
        """Return an `async def` around `call`; it awaits `call` and only waits by `runtime`."""
        raise NotImplementedError
