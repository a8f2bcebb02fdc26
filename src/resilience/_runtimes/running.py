"""Whether an event loop runs in this thread. Neither asyncio nor trio is imported for that."""

from __future__ import annotations

import sys
from collections.abc import Hashable

__all__ = ["in_trio", "loop_here", "loop_runs_here"]

_modules = sys.modules


def in_trio() -> bool:
    """Whether the code that asks runs in a trio task."""
    trio = _modules.get("trio")
    if trio is None:
        return False
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def loop_runs_here() -> bool:
    """Whether this thread is running an event loop, asyncio's or trio's."""
    asyncio = _modules.get("asyncio")
    running = getattr(asyncio, "_get_running_loop", None)  # it may be just being imported
    return (running is not None and running() is not None) or in_trio()


def loop_here() -> Hashable:
    """The event loop that this thread is running, or trio's token for its run; None without one."""
    asyncio = _modules.get("asyncio")
    loop: Hashable = None if asyncio is None else asyncio._get_running_loop()
    return _modules["trio"].lowlevel.current_trio_token() if in_trio() else loop
