"""What is known of the user's function: whether it is async, and whether it can be guarded."""

from __future__ import annotations

import functools
import inspect
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from resilience._runtimes.loops import loop_runs_here
from resilience.sdks.retries import source_of
from resilience.sdks.streams import makes_manager

__all__ = ["Facts", "facts_of", "refuse_unguardable", "underlying"]


class Facts:
    """What has been learnt of one function, from its code and from what came back.

    `certain`: a coroutine function by its own code. `likely`: it wraps one, as OpenAI's `create`
    does, and mostly returns its coroutine (an adapter that runs it to the end looks the same).
    `plain` and `awaitable`: such results were seen. One that has shown both is looked at anew on
    every call. `of_client`: it is a method of a client, which may retry by itself.
    """

    __slots__ = ("awaitable", "certain", "checked", "likely", "of_client", "plain")

    def __init__(self, fn: Any) -> None:
        call = inspect.getattr_static(type(fn), "__call__")  # every class has one: that of `type`
        self.certain = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(call)
        self.likely = inspect.iscoroutinefunction(_unwrapped(fn)) and not makes_manager(fn)
        self.plain = False
        self.awaitable = False
        self.checked: WeakSet[object] = WeakSet()  # pipelines that have found it good
        self.of_client = source_of(fn) is not None

    @property
    def asynchronous(self) -> bool:
        """Whether a call is to be answered with an awaitable before the function is called.

        What is not certain counts where a loop runs to await it; elsewhere the result is looked
        at.
        """
        if self.certain:
            return True
        return (self.awaitable or self.likely) and not self.plain and loop_runs_here()


_known: WeakKeyDictionary[Any, Facts] = WeakKeyDictionary()
_methods: WeakKeyDictionary[Any, dict[type, Facts]] = WeakKeyDictionary()


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
        else:
            method = inspect.getattr_static(kind, "__call__")
            return method if inspect.isfunction(method) else fn


def facts_of(fn: Any) -> Facts:
    """The facts of a function; of a method, for the class it is bound to, as one class may serve
    sync and async clients by the same function; of a callable object, its own."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    bound = type(fn) is MethodType
    try:
        return _methods[fn.__func__][type(fn.__self__)] if bound else _known[fn]
    except TypeError:  # not hashable, or without weak references
        return Facts(fn)
    except KeyError:
        facts = Facts(fn)
    if bound:
        return _methods.setdefault(fn.__func__, {}).setdefault(type(fn.__self__), facts)
    return _known.setdefault(fn, facts)


def _unwrapped(fn: Any) -> Any:
    try:
        return inspect.unwrap(fn)
    except ValueError:  # a cycle
        return fn


def refuse_unguardable(fn: Any, *, decorating: bool) -> None:
    """Raise TypeError for what is not a function."""
    if inspect.isawaitable(fn):
        raise TypeError(
            f"fn must be a function, not the {type(fn).__name__} it returned (it can be awaited "
            f"only once): pass the function and its arguments apart"
        )
    if not callable(fn):
        if hasattr(type(fn), "__get__"):  # a property or the like
            raise TypeError(
                f"fn must be a function, got {type(fn).__name__}: decorate the function below it"
            )
        raise TypeError(f"fn must be callable, got {type(fn).__name__}")
    if decorating and isinstance(fn, type):
        raise TypeError(
            f"fn must be a function, got the class {fn.__qualname__}: decorate its methods, or "
            f"use Pipeline.call to guard making one"
        )
