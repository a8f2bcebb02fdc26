"""Which event loop, if any, runs in this thread."""

from __future__ import annotations

import asyncio
import sys

__all__ = ["in_trio", "loop_runs_here"]


def in_trio() -> bool:
    """Whether the code that asks runs in a trio task."""
    trio = sys.modules.get("trio")
    if trio is None:
        return False
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def loop_runs_here() -> bool:
    """Whether this thread is running an event loop, asyncio's or trio's."""
    return asyncio._get_running_loop() is not None or in_trio()
