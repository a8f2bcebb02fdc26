"""Functions of a world's colour."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from conftest import World


def coloured(world: World, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` in this world's colour, with its signature."""
    if not world.asynchronous:
        return fn

    @functools.wraps(fn)
    async def afn(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return afn
