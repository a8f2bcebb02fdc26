"""A policy that has two attempts of one call under way at once, in every world."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import trio

from resilience._runtimes.loops import in_trio
from resilience.policy import Call, Inner, Policy, Runtime

__all__ = ["Twice"]

Run = Callable[[], Coroutine[Any, Any, Any]]


class Twice(Policy):
    """Calls two models at the same time, or one twice; the first of them that answers wins.

    If both fail, the second one's error comes out.
    """

    def __init__(self, first: str = "one", second: str = "two", *, resting: bool = False) -> None:
        self.models = first, second
        self.resting = resting

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def twice(call: Call) -> Any:
            branches = call.branches(2)
            for branch, model in zip(branches, self.models, strict=True):
                branch.model = model or call.model
            found = await _together(runtime, [partial(_outcome, inner, each) for each in branches])
            for good, result in found:
                if good:
                    return result
            raise found[1][1]

        return twice


async def _outcome(inner: Inner, call: Call) -> tuple[bool, Any]:
    try:
        return True, await inner(call)
    except Exception as error:
        return False, error


async def _together(runtime: Runtime, runs: list[Run]) -> list[tuple[bool, Any]]:
    if not runtime.asynchronous:
        return _in_threads(runs)
    if not in_trio():
        return list(await asyncio.gather(*(run() for run in runs)))
    found: list[Any] = [None] * len(runs)

    async def keep(at: int, run: Run) -> None:
        found[at] = await run()

    async with trio.open_nursery() as nursery:
        for at, run in enumerate(runs):
            nursery.start_soon(keep, at, run)
    return found


def _in_threads(runs: list[Run]) -> list[tuple[bool, Any]]:
    """In a sync call nothing suspends: each coroutine is run to its end in one go."""
    found: list[Any] = [None] * len(runs)

    def work(at: int, run: Run) -> None:
        try:
            run().send(None)
        except StopIteration as end:
            found[at] = end.value

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(work, at, run))
        for at, run in enumerate(runs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
