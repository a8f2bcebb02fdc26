"""Where waiting happens: threads for sync calls, asyncio and trio for async ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loops import in_trio
from .threads import threads

if TYPE_CHECKING:
    from resilience._core.around import Surroundings
    from resilience.typing import Runtime

__all__ = ["runtime_for"]


def runtime_for(surroundings: Surroundings | None, *, asynchronous: bool) -> Runtime:
    """The runtime for a call made here and now. Chosen anew for each call, never remembered."""
    if surroundings is not None and surroundings.world is not None:
        return surroundings.world.runtime(asynchronous=asynchronous)
    if not asynchronous:
        return threads
    if in_trio():
        from .trio_ import trio_

        return trio_
    from .asyncio_ import asyncio_

    return asyncio_
