"""The connection that an async client has kept from an event loop that is closed by now: a second
`asyncio.run` with the same client meets it.

What asyncio raises then is a plain RuntimeError, known by where it was raised: by the loop, for
httpcore's connection. The pool drops that connection, and the next attempt makes a new one.
"""

from __future__ import annotations

from itertools import islice
from types import FrameType, TracebackType

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import misread
from resilience.sdks.verdict import Meaning

__all__ = ["read"]

_DEAD = Meaning(Kind.CONNECTION, Advice.RETRY)
"""Its request may have been sent: writing to a socket needs no loop."""

_POOLS = ("httpcore", "httpcore2")
_DEEPEST = 256
_NEAREST = 16
"""Frames that are passed on the way to the innermost, and how many of these are looked at."""


def read(error: Exception) -> Failure | None:
    """A connection that was lost, where a closed loop refused to serve one; else None."""
    frames = _innermost(error.__traceback__)
    if not frames or not _refuses(frames[0]):
        return misread.read(error)
    for frame in frames:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in _POOLS:
            return _DEAD.failure(error, package)
    return None


def _refuses(frame: FrameType) -> bool:
    """Whether this is where a loop says that it is closed: asyncio's own, or uvloop's."""
    return frame.f_code.co_name.rpartition(".")[2] == "_check_closed"


def _innermost(trace: TracebackType | None) -> list[FrameType]:
    """The last frames of a traceback, the innermost first; none of one that is endless."""
    frames: list[FrameType] = []
    while trace is not None:
        if len(frames) == _DEEPEST:
            return []
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    return list(islice(reversed(frames), _NEAREST))
