"""What came back from a function: a plain value, an awaitable, a pending result, or something
that we must refuse.

Known by its type, and each type is looked at once: `inspect.isawaitable` alone costs as much as
a call.
"""

from __future__ import annotations

import contextlib
from inspect import CO_ITERABLE_COROUTINE
from types import AsyncGeneratorType, CodeType, GeneratorType
from typing import Any
from weakref import WeakKeyDictionary, ref

from resilience.sdks.streams import is_manager, is_stream

from .completion import Completion, PendingResult

__all__ = [
    "PLAIN",
    "Unguardable",
    "completion_of",
    "generators",
    "is_awaitable",
    "is_deferred",
    "is_plain",
    "is_raw_stream",
    "reading_of",
]

PLAIN: set[type] = {type(None), bool, int, float, str, bytes, list, tuple, dict, set}
"""Types whose values are results as they are. Grows as types are met, up to a bound."""

_BOUND = 4096

_DEFERRED_MANAGERS = (
    contextlib._GeneratorContextManager,
    contextlib._AsyncGeneratorContextManager,
)


class Unguardable(TypeError):
    """A result that cannot be guarded; no policy handles it."""


def completion_of(result: object) -> Completion | None:
    """The completion of a pending result; None for a result that is settled at its return."""
    if isinstance(result, PendingResult):
        return result.completion
    reading = reading_of(result)
    return None if reading is None else reading.completion


_GENERATORS = (GeneratorType, AsyncGeneratorType)

generators: WeakKeyDictionary[Any, ref[Any]] = WeakKeyDictionary()
"""The readings of guarded streams that are generators."""


def reading_of(result: object) -> Any:
    """By what a guarded stream is read; None for anything else."""
    if type(result) in _GENERATORS:
        found = generators.get(result)
        return None if found is None else found()
    return getattr(result, "_reading", None) if isinstance(result, PendingResult) else None


def is_raw_stream(result: object) -> bool:
    """Whether this is a stream that has not been opened under guard."""
    return is_stream(type(result)) and completion_of(result) is None


def is_deferred(result: object, *, asynchronous: bool) -> bool:
    """Whether nothing has been done yet for a result: an SDK's context manager, or a stream that
    only an event loop can read, in a sync call."""
    if is_manager(result):
        return True
    kind = type(result)
    return (
        not asynchronous
        and hasattr(kind, "__aiter__")
        and not hasattr(kind, "__iter__")
        and is_raw_stream(result)
    )


def is_awaitable(result: object) -> bool:
    """Whether `result` is to be awaited."""
    kind = type(result)
    if kind in PLAIN:
        return False
    if kind is GeneratorType:  # a coroutine of the old kind, made by types.coroutine
        code: CodeType = result.gi_code  # type: ignore[attr-defined]
        return bool(code.co_flags & CO_ITERABLE_COROUTINE)
    return hasattr(kind, "__await__")


def is_plain(result: Any) -> bool:
    """Whether the attempt is settled with this result, which is not to be awaited. Remembers the
    answer for its type.

    Raises `Unguardable` for a result that has not done anything yet, so that nothing in it would
    be guarded. Streams that are already open pass.
    """
    kind = type(result)
    if kind in PLAIN:
        return True
    if issubclass(kind, PendingResult) or is_stream(kind) or is_manager(result):
        return False
    if issubclass(kind, _DEFERRED_MANAGERS):
        raise Unguardable(
            f"the guarded function returned a context manager ({kind.__qualname__}), whose body "
            f"runs only later and would not be guarded; guard a function that makes the call "
            f"before it returns"
        )
    if not hasattr(kind, "__await__") and len(PLAIN) < _BOUND:
        PLAIN.add(kind)
    return True
