"""Calls that tests make, and what comes out of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import trio

from conftest import World

rest_and_full = pytest.mark.parametrize(
    "listeners", [(), (lambda event: None,)], ids=["rest", "full"]
)
"""For a test outside of virtual time: a pipeline with a listener is never at rest."""


def error_of(world: World, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The error of a call that must fail."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        world.run(fn, *args, **kwargs)
    return caught.value


def message_of(kind: type[Exception], fn: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The message of the error that comes out of a plain call."""
    with pytest.raises(kind) as caught:
        fn(*args, **kwargs)
    return str(caught.value)


def passing(world: World, fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the user's that calls `fn`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    async def acall(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return acall if world.asynchronous else call


async def awaited(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call and await."""
    return await fn(*args, **kwargs)


def run_in(loop: str, fn: Callable[[], Any]) -> Any:
    """Run an async function under asyncio or trio."""
    return asyncio.run(fn()) if loop == "asyncio" else trio.run(fn)
