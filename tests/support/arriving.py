"""What arrives between any two steps of a call: a signal handler, a finalizer, Ctrl-C."""

from __future__ import annotations

import dis
import linecache
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from types import CodeType, TracebackType
from typing import Any

__all__ = ["Arrival", "arriving", "at_the_end_of_a_with", "interrupt"]


def arriving(
    act: Callable[[], object], step: int, call: Callable[[], object], files: Iterable[str]
) -> bool:
    """Make a call, and `act` before its bytecode of that number in these files; whether it
    has so many."""
    if sys.version_info >= (3, 12):
        return _arriving_by_events(act, step, call, files)
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
                if sys.version_info >= (3, 11):  # 3.10 has copies of locals until the next step
                    sys.settrace(None)
                act()
        return trace_steps

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        next(_apart(call))
    finally:
        sys.settrace(before)
    return left <= 0


def _arriving_by_events(
    act: Callable[[], object], step: int, call: Callable[[], object], files: Iterable[str]
) -> bool:
    """The same. Where a trace function had tracing end, 3.13 misses the first steps of the next."""
    monitoring: Any = sys.monitoring
    left, tool, here = step, 4, threading.get_ident()
    loaded = {getattr(module, "__file__", None) for module in [*sys.modules.values()]}
    codes = [code for file in files if file in loaded for code in _codes(file)]

    def count(code: CodeType, offset: int) -> None:
        nonlocal left
        if threading.get_ident() == here:
            left -= 1
            if left == 0:
                stop()
                act()

    def stop() -> None:
        for code in codes:
            monitoring.set_local_events(tool, code, 0)

    if monitoring.get_tool(tool) is None:
        monitoring.use_tool_id(tool, "arriving")
    monitoring.register_callback(tool, monitoring.events.INSTRUCTION, count)
    try:
        for code in codes:
            monitoring.set_local_events(tool, code, monitoring.events.INSTRUCTION)
        next(_apart(call))
    finally:
        stop()
        monitoring.register_callback(tool, monitoring.events.INSTRUCTION, None)
    return left <= 0


@cache
def _codes(file: str) -> list[CodeType]:
    """Each code object of a module of the library."""
    (module,) = [each for each in sys.modules.values() if getattr(each, "__file__", "") == file]
    owners = [module, *(each for each in vars(module).values() if isinstance(each, type))]
    found: list[CodeType] = []
    for each in [value for owner in owners for value in vars(owner).values()]:
        each = getattr(each, "fget", None) or getattr(each, "__func__", each)
        code = getattr(each, "__code__", None)
        if isinstance(code, CodeType) and code.co_filename == file:
            found.append(code)
    for code in found:  # which grows
        found += [part for part in code.co_consts if isinstance(part, CodeType)]
    return found


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
