"""How long a wait lasts, in figures and in words, without calling it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from resilience.waits import (
    LONGEST,
    Decorrelated,
    Exponential,
    Fixed,
    FullJitter,
    Linear,
    RetryAfter,
)

from .options import plain, title

__all__ = ["in_words", "longest_rejected", "longest_waits", "number", "seconds_text"]

_SHOWN = 3
"""Waits that are shown one by one."""


def longest_waits(wait: Any, times: float) -> tuple[float, float]:
    """Of so many waits, one before each retry: the longest, and all together, at most."""
    if not times:
        return 0.0, 0.0
    if math.isinf(times):
        longest = max(_range(wait, math.inf)[1], _asked(wait))
        return longest, math.inf if longest else 0.0
    each = [max(_range(wait, at)[1], _asked(wait)) for at in range(1, int(times) + 1)]
    return max(each), math.fsum(each)


def longest_rejected(wait: Any) -> float:
    """Seconds that a rejected call is waited for at most, if it is waited for."""
    if isinstance(wait, RetryAfter):
        return _asked(wait) if wait.too_long == "stop" else math.inf
    return LONGEST


def in_words(wait: Any, times: float) -> str:
    """The waits before so many retries, in plain words."""
    if isinstance(wait, RetryAfter):
        longest = seconds_text(plain(wait.longest))
        spread = f" and up to {wait.spread * 100:g} % more" if wait.spread else ""
        longer = "no retry" if wait.too_long == "stop" else f"{longest}"
        return (
            f"{in_words(wait.otherwise, times)}; or what the server asks{spread} "
            f"({longer} if that is more than {longest})"
        )
    ranges = list(_ranges(wait, times))
    if not ranges or math.isinf(ranges[0][1]):
        return f"as long as {_name(wait)} says"
    shown = [_range_text(*each) for each in ranges[:_SHOWN]]
    if len(set(ranges)) == 1:
        return shown[0] if len(ranges) == 1 else f"{shown[0]} each time"
    if len(ranges) == len(shown):
        return ", ".join(shown)
    last = _range_text(*ranges[-1])
    if last == shown[-1]:
        return f"{', '.join(shown[:-1])}, then {last} each time"
    return f"{', '.join(shown)} ... up to {last}"


def _ranges(wait: Any, times: float) -> Iterator[tuple[float, float]]:
    """The first waits, and the last one."""
    for at in range(1, int(min(times, _SHOWN)) + 1):
        yield _range(wait, at)
    if times > _SHOWN:
        yield _range(wait, times)


def _range(wait: Any, at: float) -> tuple[float, float]:
    """Seconds that the wait before a retry lasts at least and at most; not a server's own."""
    if isinstance(wait, RetryAfter):
        return _range(wait.otherwise, at)
    if isinstance(wait, Fixed):
        return plain(wait.seconds), plain(wait.seconds)
    if isinstance(wait, Linear):
        step = plain(wait.step)
        grown = plain(wait.initial) + (step * (at - 1) if step else 0.0)
        grown = min(grown, plain(wait.max))
        return grown, grown
    if isinstance(wait, Exponential):
        base = _grown(wait, at)
        return base * (1 - wait.jitter), base * (1 + wait.jitter)
    if isinstance(wait, FullJitter):
        return 0.0, _grown(wait, at)
    if isinstance(wait, Decorrelated):  # it grows with the wait before, a server's as well
        return plain(wait.initial), plain(wait.max)
    return 0.0, math.inf


def _grown(wait: Exponential | FullJitter, at: float) -> float:
    if math.isinf(at):
        return plain(wait.max if wait.factor > 1 and wait.initial else wait.initial)
    return wait._grown(wait.factor, int(at) - 1)


def _asked(wait: Any) -> float:
    """Seconds that are waited at most because a server asks for it."""
    if not isinstance(wait, RetryAfter):
        return 0.0
    return max(plain(wait.longest) * (1 + wait.spread), _asked(wait.otherwise))


def _name(wait: Any) -> str:
    name = title(wait)
    return name if not name.startswith("<") else type(wait).__name__


def _range_text(least: float, most: float) -> str:
    return seconds_text(most) if least == most else f"{number(least)} to {seconds_text(most)}"


def seconds_text(seconds: float) -> str:
    """Seconds as people write them."""
    return f"{number(seconds)} s"


def number(value: float) -> str:
    """Three figures, and no exponent."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
