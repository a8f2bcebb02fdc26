"""Who listens to what: to all pipelines, and to each one.

A listener runs in the thread or task of the call, outside of every lock of ours. Whatever it does,
the call goes on as without it: what it raises goes to the log, and so does one that is slow; what
it calls through pipelines of its own sends it no events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import get_ident
from types import BuiltinMethodType, MethodType
from typing import Any, Protocol, TypeAlias, TypeVar
from weakref import WeakSet

from .clock import monotonic
from .locks import new_lock
from .options import title, warn

__all__ = [
    "SLOW",
    "ByClass",
    "Enter",
    "Follower",
    "Subscription",
    "add",
    "announce",
    "anybody",
    "deliverers",
    "entering",
    "follow",
]

SLOW = 0.1
"""Seconds that a listener may take; longer holds up the call, and an event loop with it."""


Enter: TypeAlias = "Callable[[int, int], Callable[[], object] | None]"
"""Sets context variables for the function of an attempt, right before it is called, in its thread
or task: given the number of the call and of the attempt, returns what restores them there, after
the function has returned. It never raises."""


V = TypeVar("V")


class ByClass(dict[type, V]):
    """A value for each class of events, which its subclasses have, too."""

    def __missing__(self, kind: type) -> V:
        found = self[kind] = next(self[each] for each in kind.__mro__ if each in self)
        return found


class Subscription:
    """A function and the classes of events that it gets; calling it ends that."""

    __slots__ = ("_complained", "_inside", "callback", "deliver", "enter", "kinds", "who")

    def __init__(
        self,
        callback: Callable[[Any], object],
        kinds: tuple[type, ...],
        *,
        trusted: bool = False,
        enter: Enter | None = None,
    ) -> None:
        self.callback = callback
        method = isinstance(callback, (BuiltinMethodType, MethodType))
        self.who: object = callback if method else id(callback)
        """Equal for the same function, and for the same method of the same object. Another object
        may have no hash."""
        self.kinds = kinds
        self.enter = enter
        self.deliver = callback if trusted else self._guarded
        """What publishes: the function itself, where it cannot raise, take long or call us."""
        self._inside: set[int] = set()  # threads in which it is running
        self._complained = False

    def __call__(self) -> None:
        """Listen no longer. Doing it twice changes nothing."""
        _remove(self)

    def _guarded(self, event: object) -> None:
        thread = get_ident()
        if thread in self._inside:
            return
        began = monotonic()
        try:
            self._inside.add(thread)
            self.callback(event)
        except Exception as problem:
            # Not its traceback: that would bring along the call's own error, and its text.
            self._complain(f"raised {type(problem).__name__}", event)
        finally:
            self._inside.discard(thread)
        took = monotonic() - began
        if took > SLOW:
            self._complain(f"took {took:.2g} s, in which its call had to wait", event)

    def _complain(self, what: str, event: object) -> None:
        """Once: it may fail at every event."""
        if not self._complained:
            self._complained = True
            name = title(self.callback)
            warn("the listener %s %s at %s", name, what, type(event).__name__)


class Follower(Protocol):
    """What is to know who listens."""

    def refresh(self) -> None:
        """Look anew who listens, and of what the log writes lines. Under the lock."""
        ...

    def refreshed(self) -> None:
        """It has. Without the lock."""
        ...


_changing = new_lock()
_all: tuple[Subscription, ...] = ()
_followers: WeakSet[Any] = WeakSet()


def follow(follower: Follower) -> None:
    """Refresh it now, and whenever somebody begins or ceases to listen, for as long as it lives."""
    with _changing:
        _followers.add(follower)
        follower.refresh()


def add(subscription: Subscription) -> Subscription:
    """Listen to all pipelines, those that exist included."""
    global _all
    with _changing:
        _all = (*_all, subscription)
    announce()
    return subscription


def _remove(subscription: Subscription) -> None:
    global _all
    with _changing:
        _all = tuple(each for each in _all if each is not subscription)
    announce()


def anybody() -> bool:
    """Whether somebody listens to all pipelines."""
    return bool(_all)


def announce() -> None:
    """Have all followers look anew."""
    with _changing:
        followers: list[Follower] = list(_followers)
        for follower in followers:
            follower.refresh()
    for follower in followers:
        follower.refreshed()


def entering(own: Sequence[Subscription] = ()) -> tuple[Enter, ...]:
    """What is to be called before the function of an attempt."""
    return tuple(each.enter for each in (*own, *_all) if each.enter is not None)


def deliverers(kind: type, own: Sequence[Subscription] = ()) -> tuple[Callable[[Any], object], ...]:
    """Whom to give an event of this class: those who listen to one pipeline, then to all."""
    # One that listens to two pipelines gets the event of a circuit that is in both once.
    found = {each.who: each for each in (*own, *_all) if issubclass(kind, each.kinds)}
    return tuple(each.deliver for each in found.values())
