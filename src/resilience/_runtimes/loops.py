"""Which event loop, if any, runs in this thread, and which runtime is that of a call made here.

Neither asyncio nor trio is imported before a coroutine is awaited.
"""

from __future__ import annotations

from functools import lru_cache
from sys import modules
from typing import cast

from resilience._core.context import Ambient
from resilience._core.runtime import Runtime

from .running import in_trio, loop_runs_here
from .threads import not_waiting, serving, threads

__all__ = ["in_trio", "loop_runs_here", "loop_runtime", "runtime_for"]


def runtime_for(outer: Ambient | None, *, asynchronous: bool, unknown: bool = False) -> Runtime:
    """The runtime for a call made here and now. Chosen anew for each call, never remembered.

    `unknown`: the function is called as a sync one, but may turn out to need the loop.
    """
    may_wait = not (unknown and loop_runs_here())
    if outer is not None and outer.world is not None:
        found = outer.world.runtime(asynchronous=asynchronous, may_wait=may_wait)
        return cast(Runtime, found)
    if not asynchronous:
        serving.check()
        return threads if may_wait else not_waiting
    return loop_runtime()


def loop_runtime() -> Runtime:
    """The real runtime of the event loop that runs here."""
    return _trio() if "trio" in modules and in_trio() else _of_asyncio or _asyncio()


_of_asyncio: Runtime | None = None


def _asyncio() -> Runtime:
    global _of_asyncio
    from .asyncio_ import asyncio_

    _of_asyncio = asyncio_
    return asyncio_


@lru_cache(1)  # an import statement takes too long to be executed for each call
def _trio() -> Runtime:
    from .trio_ import trio_

    return trio_
