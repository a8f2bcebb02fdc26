"""What came back from a function: a plain value, an awaitable, or something we must refuse.

Known by its type, and each type is looked at once: `inspect.isawaitable` alone costs as much as
a call.
"""

from __future__ import annotations

import contextlib
from inspect import CO_ITERABLE_COROUTINE
from types import AsyncGeneratorType, CodeType, CoroutineType, GeneratorType
from typing import Any

__all__ = ["PLAIN", "Unguardable", "check", "is_awaitable"]

PLAIN: set[type] = {type(None), bool, int, float, str, bytes, list, tuple, dict, set}
"""Types whose values are results as they are. Grows as types are met, up to a bound."""

_AWAITABLE: set[type] = {CoroutineType}
_BOUND = 4096

_LAZY_MANAGERS = (
    contextlib._GeneratorContextManager,
    contextlib._AsyncGeneratorContextManager,
)


class Unguardable(TypeError):
    """A result that cannot be guarded; no policy handles it."""


def is_awaitable(result: object) -> bool:
    """Whether `result` is to be awaited. Remembers the answer for its type."""
    kind = type(result)
    if kind in PLAIN:
        return False
    if kind in _AWAITABLE:
        return True
    if kind is GeneratorType:  # a coroutine of the old kind, made by types.coroutine
        code: CodeType = result.gi_code  # type: ignore[attr-defined]
        return bool(code.co_flags & CO_ITERABLE_COROUTINE)
    known = _AWAITABLE if hasattr(kind, "__await__") else PLAIN
    if known is PLAIN and _refused(kind):
        return False
    if len(known) >= _BOUND:
        return known is _AWAITABLE
    known.add(kind)
    return known is _AWAITABLE


def check(result: Any) -> None:
    """Refuse a result that has not done anything yet, so that nothing in it would be guarded.

    Raises TypeError. Streams that are already open pass.
    """
    kind = type(result)
    if kind not in PLAIN and (what := _refused(kind)):
        for held in getattr(result, "__dict__", {}).values():
            if type(held) is CoroutineType:  # the request an async stream manager has not sent
                held.close()
        raise Unguardable(
            f"the guarded function returned {what}, whose body runs only later and would not be "
            f"guarded; guard a function that makes the call before it returns"
        )


def _refused(kind: type) -> str | None:
    if kind is GeneratorType:
        return "a generator"
    if kind is AsyncGeneratorType:
        return "an async generator"
    if issubclass(kind, _LAZY_MANAGERS):
        return f"a context manager ({kind.__qualname__})"
    from resilience.sdks import is_stream_manager

    if is_stream_manager(kind):
        return f"a stream manager ({kind.__module__}.{kind.__qualname__})"
    return None
