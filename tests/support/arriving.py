"""What arrives between any two steps of a call: a signal handler, a finalizer, Ctrl-C."""

from __future__ import annotations

import dis
import linecache
import sys
from collections.abc import Callable, Container, Iterator
from types import TracebackType
from typing import Any

__all__ = ["Arrival", "arriving", "at_the_end_of_a_with", "interrupt"]


def arriving(
    act: Callable[[], object], step: int, call: Callable[[], object], files: Container[str]
) -> bool:
    """Make a call, and `act` before its bytecode of that number in these files; whether it
    has so many."""
    left = step

    def trace(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return trace_steps

    def trace_steps(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if event == "opcode":
            left -= 1
            if left == 0:
                sys.settrace(None)
                act()
        return trace_steps

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for this when tracing begins
    sys.settrace(trace)
    try:
        next(_apart(call))
    finally:
        sys.settrace(before)
    return left <= 0


def _apart(call: Callable[[], object]) -> Iterator[object]:
    """Where a trace function raises, in steps in which Python looks for no signal, the error that
    was being handled is left as such: for the thread, but not beyond a generator."""
    yield call()


class Arrival:
    """A lock at whose taking or release a handler comes in the thread that has it, once: at that
    of a number."""

    def __init__(self, lock: Any, act: Callable[[], object], at: int, *, leaving: bool) -> None:
        self.lock = lock
        self.left = at
        self._act = act
        self._leaving = leaving

    def __enter__(self) -> None:
        self.lock.__enter__()
        if not self._leaving:
            self._come()

    def __exit__(self, *exc_info: object) -> None:
        try:
            if self._leaving:
                self._come()
        finally:
            self.lock.__exit__(*exc_info)

    def _come(self) -> None:
        self.left -= 1
        if self.left == 0:
            self._act()

    def _is_owned(self) -> bool:
        return bool(self.lock._is_owned())


def interrupt() -> None:
    """Ctrl-C."""
    raise KeyboardInterrupt


def at_the_end_of_a_with(problem: BaseException, tracer: str = __file__) -> bool:
    """Whether `tracer` raised it at the line of a `with` itself, not in its body, or at a NOP.

    Between the body and the release of the lock Python looks for no signal; a trace function is
    called there all the same. Such a lock stays owned, which tells nothing of the code.
    """
    found: TracebackType | None = None
    at = problem.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename != tracer:
            found = at
        at = at.tb_next
    assert found is not None
    code = found.tb_frame.f_code
    line = linecache.getline(code.co_filename, found.tb_lineno or 0).lstrip()
    return line.startswith("with ") or dis.opname[code.co_code[found.tb_lasti]] == "NOP"
