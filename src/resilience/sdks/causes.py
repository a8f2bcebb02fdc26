"""What went wrong underneath an error: libraries wrap what they caught, each in its own way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from resilience.sdks import stdlib
from resilience.sdks.evidence import peek
from resilience.sdks.places import places
from resilience.sdks.verdict import Meaning

__all__ = ["came_through", "cause", "nearest"]

_DEEPEST = 8
"""How far a chain is followed: requests, urllib3, the socket, and some to spare."""


def cause(error: Exception) -> object:
    """What `error` was raised from."""
    return peek(error, "__cause__")


def nearest(
    error: object,
    known: Callable[[Exception], Meaning | None],
    below: Callable[[Exception], object] = cause,
) -> Meaning | None:
    """What `error` or the nearest error below it that is `known` stands for.

    A refused certificate counts from any depth: what hides it looks like a connection that failed.
    """
    found: Meaning | None = None
    for _ in range(_DEEPEST):
        if not isinstance(error, Exception):
            break
        meaning = known(error)
        if meaning is stdlib.UNTRUSTED:
            return meaning
        found = found or meaning
        error = below(error)
    return found


def came_through(error: Exception, package: str | None) -> bool:
    """Whether a package caught `error` on its way, so that it is no one else's who was handling it
    when he called."""
    frames = islice(places(error), _DEEPEST)
    return any(module.partition(".")[0] == package for module, _ in frames)
