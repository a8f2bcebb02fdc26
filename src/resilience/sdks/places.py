"""Where an error was raised: some libraries have the same class for what never left and for what
was lost on the way."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["places"]

_MOST = 256
"""Frames looked at."""

_traceback = BaseException.__dict__["__traceback__"].__get__  # past any property of the error's own


def places(error: BaseException) -> Iterator[tuple[str, str]]:
    """Module and function of each frame that the error has come through, the outermost first."""
    trace = _traceback(error)
    for _ in range(_MOST):
        if trace is None:
            return
        module = trace.tb_frame.f_globals.get("__name__")
        yield module if isinstance(module, str) else "", trace.tb_frame.f_code.co_name
        trace = trace.tb_next
