"""Which event loop, if any, runs in this thread."""

from __future__ import annotations

import asyncio
import sys
import threading

__all__ = ["here", "in_trio", "loop_runs_here"]


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


def here() -> tuple[int, int]:
    """What tells this thread and this task from all others."""
    task: object = None
    if asyncio._get_running_loop() is not None:
        task = asyncio.current_task()
    elif in_trio():
        task = sys.modules["trio"].lowlevel.current_task()
    return threading.get_ident(), id(task)
