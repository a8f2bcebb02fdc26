"""What user code finds around it, reached through one context variable.

`ambient` is None in ordinary life: a call at rest sets nothing, so looking there costs one read.
An attempt on the full path sets its `Call`; tests set `Surroundings`, with a virtual world or with
policies switched off. Policies do not look here: what they need is passed to them.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

from .deadline import Deadline

__all__ = [
    "Ambient",
    "Surroundings",
    "World",
    "ambient",
    "everywhere",
    "get_ambient",
    "is_disabled",
    "record_served",
    "served",
]


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

    def runtime(self, *, asynchronous: bool, may_wait: bool = True) -> Any:
        """The runtime for a sync call, or for the event loop that runs here."""
        ...


class Ambient(Protocol):
    """What a `Call` and `Surroundings` have in common."""

    @property
    def world(self) -> World | None:
        """What replaces the real clocks, chance and runtimes; None in real life."""
        ...

    @property
    def disabled(self) -> bool:
        """Whether policies are switched off."""
        ...

    @property
    def deadline(self) -> Deadline | None:
        """The innermost deadline; it may have ended."""
        ...

    @property
    def attempt(self) -> Any:
        """The `Call` of the attempt that the code here belongs to; None outside of any."""
        ...


class Surroundings:
    """A world, or an off switch, for everything inside; the rest is as it is further out."""

    __slots__ = ("attempt", "deadline", "disabled", "world")

    def __init__(
        self, outer: Ambient | None, *, world: World | None = None, disabled: bool = False
    ) -> None:
        self.world = world
        self.disabled = disabled
        self.deadline: Deadline | None = None
        self.attempt: Any = None
        if outer is not None:
            self.world = world if world is not None else outer.world
            self.disabled = disabled or outer.disabled
            self.deadline = outer.deadline
            self.attempt = outer.attempt


ambient: ContextVar[Ambient | None] = ContextVar("resilience_ambient", default=None)
get_ambient = ambient.get


class _Everywhere:
    """The off switch for the whole process: `holders` counts who holds it down."""

    __slots__ = ("holders",)

    def __init__(self) -> None:
        self.holders = 0


everywhere = _Everywhere()


def is_disabled(outer: Ambient | None) -> bool:
    """Whether policies are switched off for a call that begins here."""
    return everywhere.holders > 0 or (outer is not None and outer.disabled)


served: ContextVar[str | None] = ContextVar("resilience_served", default=None)
record_served = served.set
"""Note the model that answers a call with a chain of models; None for a failed one."""
