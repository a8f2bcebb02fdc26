"""What a limit keeps for each value of its key: made where first needed, forgotten when unused."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from .arguments import slot_of
from .call import Call
from .locks import new_lock
from .options import warn_option_failed

__all__ = ["Lanes"]

_LOOKED_AT = 2  # that may be forgotten whenever one is made: two out for one in


class _Lane(Protocol):
    def unused(self, now: float) -> bool:
        """Whether it may be forgotten: nothing is lost, and it is not used again."""
        ...


T = TypeVar("T", bound=_Lane)


class Lanes(Generic[T]):
    """One `T` for each value of a key, an argument's name or a function of the call's arguments;
    one alone, `only`, without a key. Safe from any thread; its lock is for making and forgetting.
    """

    __slots__ = ("_all", "_lock", "_make", "_queue", "key", "only")

    def __init__(self, key: Any, make: Callable[[Hashable], T]) -> None:
        self.key = key
        self._make = make
        self._lock = new_lock()
        self._all: dict[Hashable, T] = {}
        self._queue: deque[Hashable] = deque()  # of all; to be looked at first
        self.only: T | None = make(None) if key is None else None

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        if isinstance(self.key, str):
            slot_of(fn, self.key, reading=True)

    def reader(self, fn: Callable[..., Any]) -> Callable[[Any, Any], Hashable]:
        """For a keyed one: what gives the key of a call's `args` and `kwargs`."""
        if isinstance(self.key, str):
            return slot_of(fn, self.key, reading=True).read
        return partial(_apply, self.key)

    def all(self) -> dict[Hashable, T]:
        """Those that exist, by the value of the key."""
        with self._lock:
            return dict(self._all) if self.only is None else {None: self.only}

    def at(self, value: Hashable, now: float) -> T:
        """The one for a value. TypeError for one that is not hashable."""
        found = self._all.get(value)
        return self._made(value, now) if found is None else found

    def of(self, call: Call, now: float) -> T | None:
        """The one for a call; None if its key cannot be computed, and the log says so."""
        if self.only is not None:
            return self.only
        try:
            return self.at(self._value(call), now)
        except Exception as problem:
            warn_option_failed("key", problem)
            return None

    def found(self, call: Call) -> T | None:
        """The same if there is one already."""
        if self.only is not None:
            return self.only
        try:
            return self._all.get(self._value(call))
        except Exception:
            return None  # the call goes through, and there the log says why

    def _value(self, call: Call) -> Hashable:
        """The key of a call; whatever its function raises, or TypeError without the argument."""
        key, kwargs = self.key, call.kwargs
        if not isinstance(key, str):
            return _apply(key, call.args, kwargs)
        if key in kwargs:
            return kwargs[key]  # type: ignore[no-any-return]  # unhashable ones are found out by `at`
        return call.slot(key, reading=True).read(call.args, kwargs)  # type: ignore[no-any-return]

    def _made(self, value: Hashable, now: float) -> T:
        if self.only is not None:
            return self.only
        with self._lock:
            found = self._all.get(value)
            if found is None:
                for _ in range(min(_LOOKED_AT, len(self._queue))):
                    key = self._queue.popleft()
                    if key in self._all and self._all[key].unused(now):
                        del self._all[key]
                    else:
                        self._queue.append(key)
                found = self._all.setdefault(value, self._make(value))
                self._queue.append(value)
            return found


def _apply(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    found: Hashable = fn(*args, **kwargs)
    return found
