"""What arrives between any two steps of a call: a signal handler, a finalizer, Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container
from typing import Any

__all__ = ["arriving", "interrupt"]


def arriving(
    act: Callable[[], object], step: int, call: Callable[[], object], files: Container[str]
) -> bool:
    """Make a call, and `act` before its bytecode of that number in these files; whether it
    has so many."""
    left = step

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                sys.settrace(None)
                act()
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for this when tracing begins
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return left <= 0


def interrupt() -> None:
    """Ctrl-C."""
    raise KeyboardInterrupt
