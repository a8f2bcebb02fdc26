"""What a call finds around it, reached through one context variable.

`around` is None in ordinary life: a pipeline at rest sets nothing, so looking there costs one
read. A full call sets its `Record`; tests set a virtual world or switch policies off.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

from .scope import Scope, live

if TYPE_CHECKING:
    from resilience.typing import World

    from .record import Record

__all__ = ["Surroundings", "around", "restore"]


class Surroundings:
    """The world a call runs in, whether policies are off, the deadline it is under."""

    disabled = False
    world: World | None = None
    scope: Scope | None = None
    _call: Record | None = None

    def __init__(self, outer: Surroundings | None) -> None:
        self.inherit(outer)
        if outer is not None:
            self._call = outer.call

    def inherit(self, outer: Surroundings | None) -> None:
        """Take over what holds for everything inside; never the call itself, whose successors
        would keep one another alive."""
        if outer is not None:
            self.disabled = outer.disabled
            self.world = outer.world
            self.scope = live(outer.scope)

    @property
    def call(self) -> Record | None:
        """The guarded call that all this is in, if it is in one."""
        return self._call


around: ContextVar[Surroundings | None] = ContextVar("resilience_around", default=None)


def restore(token: Token[Surroundings | None]) -> None:
    """Go back to what was around before."""
    try:
        around.reset(token)
    except ValueError:
        pass  # an abandoned coroutine is being closed in another context: nothing to restore
