"""Switch every policy off for a while."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from resilience._core.context import Surroundings, ambient, get_ambient
from resilience._core.idle import hold_off
from resilience._core.options import to_flag

__all__ = ["disabled"]


@contextmanager
def disabled(*, everywhere: bool = False) -> Generator[None]:
    """Within it, guarded functions are simply called: no retries, waits, circuits or limits.

    Holds for the calling thread or task and the tasks it starts, and for nobody else; with
    `everywhere`, for all calls of the process that begin meanwhile, in whatever thread.
    """
    if to_flag("everywhere", everywhere):
        hold_off(1)
        try:
            yield
        finally:
            hold_off(-1)
        return
    token = ambient.set(Surroundings(get_ambient(), disabled=True))
    try:
        yield
    finally:
        ambient.reset(token)
