"""What is known of the user's function: whether it is async, and whether it can be guarded."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from resilience._runtimes.loops import loop_runs_here

__all__ = ["Facts", "facts_of", "refuse_unguardable", "underlying"]


class Facts:
    """What has been learnt of one function, from its code and from what came back.

    `certain`: a coroutine function by its own code. `plain` and `awaitable`: such results were
    seen. A function that has shown both is looked at anew on every call.
    """

    __slots__ = ("awaitable", "certain", "plain", "vetted")

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.certain = inspect.iscoroutinefunction(fn)
        # A sync wrapper around a coroutine function mostly returns its coroutine, as OpenAI's
        # `create` does; but adapters that run it to the end look the same. So only code counts.
        self.plain = False
        self.awaitable = False
        self.vetted: WeakSet[object] = WeakSet()  # pipelines that have found it good

    @property
    def asynchronous(self) -> bool:
        """Whether a call is to be answered with an awaitable before the function is called.

        What was learnt counts where a loop runs to await it; elsewhere the result is looked at.
        """
        return self.certain or (self.awaitable and not self.plain and loop_runs_here())

    @property
    def synchronous(self) -> bool:
        """Whether the function may be called in a worker thread although a loop runs here."""
        return self.plain and not self.awaitable


_known: WeakKeyDictionary[Any, Facts] = WeakKeyDictionary()


def underlying(fn: Any) -> Any:
    """The function behind partials, bound methods and callable objects."""
    while True:
        kind = type(fn)
        if kind is FunctionType:
            return fn
        if kind is MethodType:
            fn = fn.__func__
        elif isinstance(fn, functools.partial):
            fn = fn.func
        elif inspect.isroutine(fn) or isinstance(fn, type):
            return fn
        else:
            method = inspect.getattr_static(type(fn), "__call__", None)
            return method if inspect.isfunction(method) else fn


def facts_of(fn: Any) -> Facts:
    """The facts of a function; bound methods share those of their function."""
    function = underlying(fn)
    try:
        facts = _known.get(function)
        if facts is None:
            facts = _known[function] = Facts(function)
    except TypeError:  # not hashable, or without weak references
        facts = Facts(function)
    return facts


def refuse_unguardable(fn: Any, *, decorating: bool) -> None:
    """Raise TypeError for what is not a function, or one whose work begins after it returns."""
    if inspect.iscoroutine(fn) or inspect.isawaitable(fn):
        raise TypeError(
            f"fn must be a function, not the {type(fn).__name__} it returned (it can be awaited "
            f"only once): pass the function and its arguments apart"
        )
    if isinstance(fn, property):
        raise TypeError("fn must be a function, got a property: decorate the function below it")
    if not callable(fn):
        raise TypeError(f"fn must be callable, got {type(fn).__name__}")
    if decorating and isinstance(fn, type):
        raise TypeError(
            f"fn must be a function, got the class {fn.__qualname__}: decorate its methods, or "
            f"use Pipeline.call to guard making one"
        )
    function = underlying(fn)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{getattr(function, '__qualname__', function)!s} is a generator function: its body "
            f"runs while it is iterated, which is not guarded yet; guard a function that makes "
            f"the call and returns"
        )
