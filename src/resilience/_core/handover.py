"""What is handed from one way of running a call to another.

From a sync call to an async one, when an awaitable came back (`HandOver`, `Ready`); from a call at
rest to the full chain, when something happened (`Resumed`); and past coroutine frames (`Carried`).
"""

from __future__ import annotations

from types import CoroutineType
from typing import Any

__all__ = ["Carried", "HandOver", "Ready", "Resumed"]


class HandOver(BaseException):
    """Carries an awaitable, found where a plain result was expected, out through the chain.

    A BaseException, so that it is nobody's failure: permits go back, nothing is counted.
    """

    def __init__(self, awaitable: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.ready = Ready(awaitable, args, kwargs)


class Carried(Exception):
    """Carries a user's StopIteration past coroutine frames, where it would become RuntimeError."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Ready:
    """An awaitable that the function has already returned, good for the same arguments only.

    If nobody ever begins to await the guarded call (a task cancelled before its first step), a
    coroutine in here is closed rather than warned of: the caller did what is right for the call.
    """

    __slots__ = ("args", "awaitable", "kwargs")

    def __init__(self, awaitable: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.awaitable = awaitable
        self.args = args
        self.kwargs = kwargs

    def serves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return (
            len(args) == len(self.args)
            and kwargs.keys() == self.kwargs.keys()
            and all(map(_same, args, self.args))
            and all(_same(value, self.kwargs[name]) for name, value in kwargs.items())
        )

    def take(self) -> Any:
        """The awaitable, to be awaited now. Once."""
        awaitable, self.awaitable = self.awaitable, None
        return awaitable

    def discard(self) -> None:
        """Close a coroutine, cancel a future: whatever was begun is not left behind."""
        awaitable = self.take()
        for verb in ("close", "cancel"):
            if callable(end := getattr(awaitable, verb, None)):
                end()
                return

    def __del__(self) -> None:
        if type(self.awaitable) is CoroutineType:
            self.awaitable.close()


def _same(new: Any, old: Any) -> bool:
    """The same object; or, as model overrides are merged anew each time, a dict of the same."""
    return new is old or (
        type(new) is dict
        and type(old) is dict
        and new.keys() == old.keys()
        and all(_same(value, old[name]) for name, value in new.items())
    )


class Resumed:
    """The outcome of a first attempt that was made at rest, to be heard by the chain.

    `epoch` is what the pipeline noted before that attempt: circuits count the outcome as of then
    and do not ask it for admission again.
    """

    __slots__ = ("_error", "_result", "epoch", "started")

    def __init__(self, epoch: int, started: float, result: Any, error: Exception | None) -> None:
        self.epoch = epoch
        self.started = started
        self._result = result
        self._error = error

    def deliver(self) -> Any:
        """Return the result or raise the error. Once: nothing of it is kept."""
        result, error = self._result, self._error
        self._result = self._error = None
        if error is None:
            return result
        try:
            raise Carried(error) if issubclass(type(error), StopIteration) else error
        finally:
            del error
