"""What came back from a function: a plain value, an awaitable, a pending result, or something
that we must refuse.

Known by its type, and each type is looked at once: `inspect.isawaitable` alone costs as much as
a call.
"""

from __future__ import annotations

import contextlib
from inspect import CO_ITERABLE_COROUTINE
from types import AsyncGeneratorType, CodeType, CoroutineType, GeneratorType
from typing import Any

from .completion import Completion, PendingResult

__all__ = ["PLAIN", "Unguardable", "completion_of", "is_awaitable", "is_plain"]

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


def completion_of(result: object) -> Completion | None:
    """The completion of a pending result; None for a result that is settled at its return."""
    return result.completion if isinstance(result, PendingResult) else None


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
    awaitable = hasattr(kind, "__await__")
    if awaitable and len(_AWAITABLE) < _BOUND:
        _AWAITABLE.add(kind)
    return awaitable


def is_plain(result: Any) -> bool:
    """Whether the attempt is settled with this result, which is not to be awaited. Remembers the
    answer for its type.

    Raises `Unguardable` for a result that has not done anything yet, so that nothing in it would
    be guarded. Streams that are already open pass.
    """
    kind = type(result)
    if kind in PLAIN:
        return True
    if issubclass(kind, PendingResult):
        return False
    if what := _refused(kind):
        for held in getattr(result, "__dict__", {}).values():
            if type(held) is CoroutineType:  # the request an async stream manager has not sent
                held.close()
        raise Unguardable(
            f"the guarded function returned {what}, whose body runs only later and would not be "
            f"guarded; guard a function that makes the call before it returns"
        )
    if kind not in _AWAITABLE and not hasattr(kind, "__await__") and len(PLAIN) < _BOUND:
        PLAIN.add(kind)
    return True


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
