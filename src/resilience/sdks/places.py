"""Where an error was raised: some libraries have the same class for what never left and for what
was lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType, TracebackType

from resilience._core.anatomy import traceback_of

__all__ = ["frames", "module_of", "places"]

_MOST = 256


def frames(error: BaseException) -> list[FrameType]:
    """The frames that an error has come through, the outermost first; none if there are more than
    256."""
    found: list[FrameType] = []
    trace: TracebackType | None = traceback_of(error)
    while trace is not None:
        if len(found) == _MOST:
            return []
        found.append(trace.tb_frame)
        trace = trace.tb_next
    return found


def places(error: BaseException) -> Iterator[tuple[str, str]]:
    """Module and function of each of these frames."""
    for frame in frames(error):
        yield module_of(frame), frame.f_code.co_name


def module_of(frame: FrameType) -> str:
    """The name of the module whose code a frame runs; empty if it has none."""
    named = frame.f_globals.get("__name__")
    return named if isinstance(named, str) else ""
