"""What is inside an exception: the members of a group, what it was raised from, what it says."""

from __future__ import annotations

from collections.abc import Iterator
from types import CoroutineType
from typing import Any

__all__ = [
    "cause_of",
    "causes",
    "facts_of",
    "is_group",
    "leaves",
    "members",
    "peek",
    "traceback_of",
    "words_of",
]

# An exception's own attributes, past any property of its class.
facts_of = BaseException.__dict__["__dict__"].__get__
cause_of = BaseException.__dict__["__cause__"].__get__
traceback_of = BaseException.__dict__["__traceback__"].__get__

_MOST = 256
"""Members looked at, of any depth, groups included."""

_DEEPEST = 16
"""How far a chain of causes is followed; it may be a ring."""

_LONGEST = 10_000
"""Characters of a text that are looked at."""

_HOMES = ("builtins", "exceptiongroup", "exceptiongroup._exceptions")


def is_group(cls: type) -> bool:
    """Whether a class is one of groups: Python's, or that of the `exceptiongroup` package."""
    return any(map(_is_root, cls.__mro__))


def _is_root(cls: type) -> bool:
    return cls.__name__ == "BaseExceptionGroup" and cls.__module__ in _HOMES


def members(error: object) -> tuple[object, ...] | None:
    """What a group holds; None for anything else."""
    for base in type(error).__mro__:
        if _is_root(base):
            return tuple(base.__dict__["exceptions"].__get__(error))
    return None


def leaves(error: object) -> Iterator[object]:
    """The members that are no groups, depth first; `error` itself if it is none. ValueError where
    there are more than 256."""
    pending = [error]
    for _ in range(1 + _MOST):
        one = pending.pop()
        held = members(one)
        if held is None:
            yield one
        else:
            pending.extend(reversed(held))
        if not pending:
            return
    raise ValueError("too many members")


def causes(error: object) -> Iterator[BaseException]:
    """What `error` was raised from, the nearest first."""
    for _ in range(_DEEPEST):
        if not issubclass(type(error), BaseException):
            return
        cause: BaseException | None = cause_of(error)
        if cause is not None:
            yield cause
        error = cause


def words_of(error: object) -> str:
    """The text of an error, and what its response or its bad result says, as far as that has been
    read."""
    found = [_text(error)]
    for name in ("response", "result"):
        carrier = peek(error, name)
        told = carrier.get("error") if type(carrier) is dict else peek(carrier, "error")
        found += [_text(peek(carrier, "_content")), _text(told)]  # httpx's and requests' bytes
    return "\n".join(found)


def peek(thing: object, name: str) -> Any:
    """The attribute, or None if there is none or reading it raises."""
    try:
        value = getattr(thing, name, None)
    except Exception:
        return None
    if type(value) is CoroutineType:  # someone's async property; closed, so that nothing warns
        value.close()
        return None
    return value


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value[:_LONGEST].decode(errors="replace")
    try:
        return str(value)[:_LONGEST]
    except Exception:
        return ""
