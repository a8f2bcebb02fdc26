"""Catching errors that nobody may print: `pytest.raises` and `asyncio.run` would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conftest import World

__all__ = ["caught"]


def caught(world: World, fn: Callable[..., Any], *args: Any) -> BaseException:
    """The error that comes out of a call."""
    found: list[BaseException] = []

    def call() -> None:
        try:
            fn(*args)
        except BaseException as error:
            found.append(error)

    async def acall() -> None:
        try:
            await fn(*args)
        except BaseException as error:
            found.append(error)

    world.run(acall if world.asynchronous else call)
    return found[0]
