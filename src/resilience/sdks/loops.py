"""The connection that an async client has kept from an event loop that is closed by now: a second
`asyncio.run` with the same client meets it.

What asyncio raises then is a plain RuntimeError, known by where it was raised: by the loop, for
httpcore's connection. The pool drops that connection, and the next attempt makes a new one.
"""

from __future__ import annotations

from types import FrameType

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import misread
from resilience.sdks.places import frames, module_of
from resilience.sdks.verdict import Meaning

__all__ = ["read"]

_DEAD = Meaning(Kind.CONNECTION, Advice.RETRY)
"""Its request may have been sent: writing to a socket needs no loop."""

_POOLS = ("httpcore", "httpcore2")
_NEAREST = 16
"""Innermost frames that are looked at."""


def read(error: Exception) -> Failure | None:
    """A connection that was lost, where a closed loop refused to serve one; else None."""
    nearest = frames(error)[-_NEAREST:]
    if not nearest or not _refuses(nearest[-1]):
        return misread.read(error)
    for frame in reversed(nearest):
        package = module_of(frame).partition(".")[0]
        if package in _POOLS:
            return _DEAD.failure(error, package)
    return None


def _refuses(frame: FrameType) -> bool:
    """Whether this is where a loop says that it is closed: asyncio's own, or uvloop's."""
    return frame.f_code.co_name.rpartition(".")[2] == "_check_closed"
