"""The arguments of a call: where one is, how to replace it, whether all can be sent again."""

from __future__ import annotations

import functools
import inspect
import io
import itertools
from collections.abc import Callable
from inspect import Parameter
from types import AsyncGeneratorType, GeneratorType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from attrs import frozen

from resilience.sdks.time_limits import limit_in, takes_config, with_limit

from .options import Value, title

__all__ = ["NO_SLOT", "Slot", "slot_of", "slot_to_read", "time_slot", "used_up"]

_MISSING = object()

_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})
_ENDLESS = (itertools.count, itertools.cycle, itertools.repeat)
_DEEP = 2  # dicts, lists and tuples are looked into so far,
_PARTS = 100  # and at so many of their items


@frozen(eq=False, repr=False)
class Slot(Value):
    """The place of one argument: its name, its position if it has one, its default."""

    name: str
    position: int | None = None
    default: Any = _MISSING

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any], otherwise: Any = None) -> Any:
        """The argument as given in a call; else its default in the signature; else `otherwise`."""
        given = self.given(args, kwargs, _MISSING)
        if given is not _MISSING:
            return given
        return otherwise if self.default is _MISSING else self.default

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any], otherwise: Any = None) -> Any:
        """The argument as given in a call, else `otherwise`."""
        if self.name in kwargs:
            return kwargs[self.name]
        if self.position is not None and self.position < len(args):
            return args[self.position]
        return otherwise

    def replaced(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments with another value: in place where it was positional."""
        at = self.position
        if at is not None and at < len(args):
            return (*args[:at], value, *args[at + 1 :]), kwargs
        replaced = kwargs.copy()  # takes half of what `{**kwargs, ...}` does
        replaced[self.name] = value
        return args, replaced


NO_SLOT = Slot("")
"""Of an argument that is not there: nothing is ever read from it."""


class _Milliseconds(Slot):
    """The place of a time limit in whole milliseconds, as its name says."""

    __slots__ = ()

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any], otherwise: Any = None) -> Any:
        found = Slot.given(self, args, kwargs, otherwise)
        return found / 1000 if isinstance(found, (int, float)) else found

    def replaced(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return Slot.replaced(self, args, kwargs, max(1, int(value * 1000)))


class _InConfig(Slot):
    """The place of a time limit in the argument `config` of Google's client."""

    __slots__ = ()

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any], otherwise: Any = None) -> Any:
        found = limit_in(Slot.given(self, args, kwargs))
        return otherwise if found is None else found

    def replaced(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        config = with_limit(Slot.given(self, args, kwargs), value)
        return Slot.replaced(self, args, kwargs, config)


def time_slot(fn: Callable[..., Any], name: str) -> Slot:
    """The place of a time limit: that of argument `name`, in milliseconds if the name ends in
    `_ms`; and `timeout` of Google's client, which has no such argument, is in its `config`."""
    if name == "timeout" and takes_config(fn):
        slot = slot_of(fn, "config")
        return _InConfig(slot.name, slot.position)
    slot = slot_of(fn, name)
    return _Milliseconds(slot.name, slot.position) if name.endswith("_ms") else slot


_slots: WeakKeyDictionary[Any, dict[tuple[str, bool, bool], Slot]] = WeakKeyDictionary()


def slot_of(fn: Callable[..., Any], name: str, *, reading: bool = False) -> Slot:
    """The slot of argument `name`, found once for each function.

    Raises TypeError if the argument is not there at all; and, unless it is only for `reading`, if
    it is bound already or positional-only.
    """
    found, bound = _slots_of(fn)
    slot = found.get((name, bound, reading))
    if slot is None or slot is NO_SLOT:
        slot = found[name, bound, reading] = _find(fn, name, reading)
    return slot


def slot_to_read(fn: Callable[..., Any], name: str) -> Slot:
    """The same to read from; `NO_SLOT` if the argument is not there."""
    found, bound = _slots_of(fn)
    slot = found.get((name, bound, True))
    if slot is None:
        try:
            slot = _find(fn, name, True)
        except TypeError:
            slot = NO_SLOT
        found[name, bound, True] = slot
    return slot


def _slots_of(fn: Any) -> tuple[dict[tuple[str, bool, bool], Slot], bool]:
    """What was found for a function before; and whether it is a bound method."""
    bound = type(fn) is MethodType
    try:
        return _slots.setdefault(fn.__func__ if bound else fn, {}), bound
    except Exception:  # not hashable, or without weak references
        return {}, bound


def _find(fn: Callable[..., Any], name: str, reading: bool) -> Slot:
    named = title(fn)
    if isinstance(fn, functools.partial) and (value := _bound(fn, name)) is not _MISSING:
        if reading:
            return Slot(name, None, value)
        raise TypeError(
            f"argument {name!r} of {named} is already bound by a partial, so it cannot be "
            f"chosen per call; leave it out of the partial"
        )
    try:
        parameters = inspect.signature(fn).parameters
    except Exception:  # unreadable: a builtin, an odd callable
        return Slot(name)
    parameter = parameters.get(name)
    if parameter is None or parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
        if any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
            return Slot(name)
        raise TypeError(f"{named} takes no argument {name!r} and no **kwargs to pass it in")
    if parameter.kind is Parameter.POSITIONAL_ONLY and not reading:
        raise TypeError(f"argument {name!r} of {named} is positional-only; make it a keyword")
    default = _MISSING if parameter.default is Parameter.empty else parameter.default
    if parameter.kind is Parameter.KEYWORD_ONLY:
        return Slot(name, None, default)
    return Slot(name, list(parameters).index(name), default)


def _bound(fn: Any, name: str) -> Any:
    """What a partial has bound as an argument; `_MISSING` if it has not."""
    if name in fn.keywords:
        return fn.keywords[name]
    try:
        if name in inspect.signature(fn).parameters:
            return _MISSING
        return inspect.signature(fn.func).bind_partial(*fn.args).arguments.get(name, _MISSING)
    except Exception:
        return _MISSING


def used_up(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The argument that can be read only once and may have been read; None if there is none.

    Those are iterators, pipes, and files that do not stand at their beginning.
    """
    for name, value in (*enumerate(args, 1), *kwargs.items()):
        if type(value) not in _PLAIN and _is_used(value, _DEEP):
            return f"argument {name!r}"
    return None


def _is_used(value: Any, deep: int) -> bool:
    kind: Any = type(value)
    if isinstance(value, (dict, list, tuple)):
        parts = value.values() if isinstance(value, dict) else value
        return deep > 0 and any(
            type(part) not in _PLAIN and _is_used(part, deep - 1)
            for part in itertools.islice(parts, _PARTS)
        )
    if isinstance(value, GeneratorType):
        return inspect.getgeneratorstate(value) != inspect.GEN_CREATED
    if isinstance(value, AsyncGeneratorType):
        frame = value.ag_frame
        return frame is None or frame.f_lineno != frame.f_code.co_firstlineno
    if kind.__module__ == "tempfile":
        value = getattr(value, "_file", None) or getattr(value, "file", None)
    if isinstance(value, io.IOBase):
        return _is_read(value)
    iterator = hasattr(kind, "__next__") or hasattr(kind, "__anext__")
    # A database cursor is executed anew, and then iterated.
    return iterator and kind not in _ENDLESS and not hasattr(kind, "execute")


def _is_read(file: io.IOBase) -> bool:
    try:
        return file.readable() and (not file.seekable() or file.tell() > 0)
    except (OSError, ValueError):  # closed, or being iterated
        return True
