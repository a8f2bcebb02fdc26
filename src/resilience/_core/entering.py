"""The code of a generator finds the context variables of its attempt at every step, not only at the
one that the attempt makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["stepping"]

Entering: TypeAlias = Callable[[], Callable[[], object]]


def stepping(enter: Entering, step: Callable[[], Any], *, asynchronous: bool) -> Callable[[], Any]:
    """A step of a generator, with `enter` called before it, and what that returns after it."""

    def entered() -> Any:
        restore = enter()
        try:
            return step()
        finally:
            restore()

    async def aentered() -> Any:
        restore = enter()
        try:
            return await step()
        finally:
            restore()

    return aentered if asynchronous else entered
