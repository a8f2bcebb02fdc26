"""Switch every policy off for a while."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from resilience._core.context import Surroundings, ambient, get_ambient

__all__ = ["disabled"]


@contextmanager
def disabled() -> Generator[None]:
    """Within it, guarded functions are simply called: no retries, waits, circuits or limits.

    Holds for the calling thread or task and the tasks it starts, and for nobody else.
    """
    token = ambient.set(Surroundings(get_ambient(), disabled=True))
    try:
        yield
    finally:
        ambient.reset(token)
