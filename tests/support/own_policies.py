"""Policies that are written against the public contract alone: the examples in docs/, and what
their tests need."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from resilience.policy import Call, Inner, Policy, Runtime

sys.path.append(str(Path(__file__).parents[2] / "docs" / "examples"))

from bulkhead import Bulkhead, BulkheadFull
from in_flight import InFlight
from request_id import RequestId

__all__ = [
    "FILES",
    "Asks",
    "Bulkhead",
    "BulkheadFull",
    "Chained",
    "InFlight",
    "RequestId",
    "both_loops",
    "cancelled",
    "free",
    "together",
    "turns",
]

FILES = Path(__file__).parents[2] / "docs" / "examples"

both_loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])


class Chained(Policy):
    """Sees the calls that go the whole way."""

    resting = True

    def __init__(self) -> None:
        self.calls = 0

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def chained(call: Call) -> Any:
            self.calls += 1
            return await inner(call)

        return chained


class Asks(Policy):
    """Whether each call would be rejected, and when not."""

    def __init__(self) -> None:
        self.found: list[tuple[bool, float]] = []

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def asks(call: Call) -> Any:
            self.found.append((call.refuses(self), call.free_in()))
            return await inner(call)

        return asks


def free(bulkhead: Bulkhead, *args: Any, **kwargs: Any) -> tuple[int, int]:
    """Permits that nobody has, and calls in the queue."""
    room = bulkhead.room(args, kwargs)
    return room.free, room.waiting


async def together(loop: str, *runs: Callable[[], Awaitable[Any]]) -> None:
    """Run them all at once, to their ends."""
    if loop == "asyncio":
        await asyncio.gather(*(run() for run in runs))
        return
    async with trio.open_nursery() as nursery:
        for run in runs:
            nursery.start_soon(run)


async def turns(loop: str, number: int = 5) -> None:
    """Let other tasks have their turn."""
    for _ in range(number):
        await (asyncio.sleep(0) if loop == "asyncio" else trio.sleep(0))


async def cancelled(loop: str, fn: Callable[[], Awaitable[Any]], when: Callable[[], Any]) -> bool:
    """Run it, and cancel it as soon as `when()` is true: whether it was cut."""
    if loop == "asyncio":
        task = asyncio.ensure_future(fn())
        while not when():
            await asyncio.sleep(0)
        task.cancel()
        return isinstance((await asyncio.gather(task, return_exceptions=True))[0], BaseException)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fn)
            while not when():
                await trio.sleep(0)
            scope.cancel()
    return scope.cancelled_caught
