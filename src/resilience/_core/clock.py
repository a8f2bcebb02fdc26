"""Clocks and chance, as the world around the caller has them.

For what happens outside calls, where there is no runtime to ask: manual commands, snapshots,
tenacity's own use of our waits. Inside `virtual_time()` these are the virtual ones.
"""

from __future__ import annotations

import functools
import math
import random
import time
from datetime import datetime, timezone

from .context import get_ambient

__all__ = ["chance", "moment", "monotonic", "now", "wall"]

monotonic = functools.partial(time.monotonic)
"""The real clock for durations; used where a call at rest notes when it began.

Taken once, and not as the function itself, which those who freeze time for a test replace in every
module: one half of a call would go by their clock, the other by ours.
"""


def now() -> float:
    """Seconds on the clock for durations."""
    here = get_ambient()
    if here is None or here.world is None:
        return monotonic()
    return here.world.now()


def wall() -> float:
    """Seconds since 1970, for dates that come from servers, and for people."""
    here = get_ambient()
    if here is None or here.world is None:
        return time.time()
    return here.world.wall()


def chance() -> float:
    """A random number in [0, 1)."""
    here = get_ambient()
    if here is None or here.world is None:
        return random.random()
    return here.world.random()


def moment(seconds: float | None) -> datetime | None:
    """The UTC time in `seconds` from now; None where there is none, or none that fits a date."""
    if seconds is None or not math.isfinite(seconds):
        return None
    try:
        return datetime.fromtimestamp(wall() + seconds, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None
