"""Where a function takes a given argument, and how to read and replace it in a call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

from attrs import frozen

from .options import title

__all__ = ["Slot", "slot_of"]

_MISSING = object()


@frozen
class Slot:
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
        return args, {**kwargs, self.name: value}


_slots: WeakKeyDictionary[Any, dict[tuple[str, bool, bool], Slot]] = WeakKeyDictionary()


def slot_of(fn: Callable[..., Any], name: str, *, reading: bool = False) -> Slot:
    """The slot of argument `name`, found once for each function.

    Raises TypeError if the argument is not there at all; and, unless it is only for `reading`, if
    it is bound already or positional-only.
    """
    bound = type(fn) is MethodType
    function: Any = fn.__func__ if bound else fn  # type: ignore[attr-defined]
    try:
        found = _slots.setdefault(function, {})
    except TypeError:  # not hashable, or without weak references
        return _find(fn, name, reading)
    slot = found.get((name, bound, reading))
    if slot is None:
        slot = found[name, bound, reading] = _find(fn, name, reading)
    return slot


def _find(fn: Callable[..., Any], name: str, reading: bool) -> Slot:
    named = title(fn)
    if isinstance(fn, functools.partial) and _binds(fn, name):
        if reading:
            return Slot(name, None, _bound(fn, name))
        raise TypeError(
            f"argument {name!r} of {named} is already bound by a partial, so it cannot be "
            f"chosen per call; leave it out of the partial"
        )
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):  # unreadable: a builtin, an odd callable
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


def _binds(fn: Any, name: str) -> bool:
    """Whether a partial, or one it is made of, has the argument already."""
    if name in fn.keywords:
        return True
    try:
        inner = inspect.signature(fn.func).parameters
        return name in inner and name not in inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return False


def _bound(fn: Any, name: str) -> Any:
    """What a partial has bound as this argument."""
    if name in fn.keywords:
        return fn.keywords[name]
    return inspect.signature(fn.func).bind_partial(*fn.args).arguments[name]
