"""Clocks and chance, as the world around the caller has them.

Outside the runtimes this is the only module that touches them; inside `virtual_time()` it tells
the virtual ones.
"""

from __future__ import annotations

import functools
import math
import random
import time
from datetime import datetime, timedelta, timezone

from .around import around

__all__ = ["chance", "moment", "monotonic", "now", "wall"]

monotonic = functools.partial(time.monotonic)
"""The real clock for durations; used where a pipeline at rest notes when a call began.

Taken once, as the runtimes take theirs, and not as the function itself, which those who freeze time
for a test replace in every module: one half of a call would go by their clock, the other by ours.
"""


def now() -> float:
    """Seconds on the clock for durations."""
    surroundings = around.get()
    if surroundings is None or surroundings.world is None:
        return monotonic()
    return surroundings.world.now()


def wall() -> float:
    """Seconds since 1970, for dates that come from servers and for telling people a time."""
    surroundings = around.get()
    if surroundings is None or surroundings.world is None:
        return time.time()
    return surroundings.world.wall()


def chance() -> float:
    """A random number in [0, 1)."""
    surroundings = around.get()
    if surroundings is None or surroundings.world is None:
        return random.random()
    return surroundings.world.random()


def moment(seconds: float | None) -> datetime | None:
    """The UTC time in `seconds` from now; None where there is none, or none that fits a date."""
    if seconds is None or not math.isfinite(seconds):
        return None
    try:
        return datetime.fromtimestamp(wall(), timezone.utc) + timedelta(seconds=seconds)
    except (OverflowError, ValueError, OSError):
        return None
