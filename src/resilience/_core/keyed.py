"""A policy's `key`, and what it keeps for each value: made where first needed, forgotten when
unused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from .arguments import slot_of
from .call import Call
from .locks import new_lock
from .options import title, warn_option_failed

__all__ = ["Keyed", "check_key", "key_of", "key_reader", "key_title", "model_in"]

T = TypeVar("T")

_LOOKED_AT = 2  # that may be forgotten whenever one is made: two out for one in


def check_key(key: Any, fn: Callable[..., Any]) -> None:
    """Raise TypeError for a function without the argument that is the key."""
    if isinstance(key, str):
        slot_of(fn, key, reading=True)


def key_of(key: Any, call: Call) -> Any:
    """The value of the key for a call; whatever its function raises, or TypeError without the
    argument."""
    if key is None:
        return None
    if not isinstance(key, str):
        return key(*call.args, **call.kwargs)
    if key in call.kwargs:
        return call.kwargs[key]
    return call.slot(key, reading=True).read(call.args, call.kwargs)


def key_reader(key: Any, fn: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """What gives the value of the key, of a call's `args` and `kwargs`."""
    if isinstance(key, str):
        return slot_of(fn, key, reading=True).read
    return lambda args, kwargs: key(*args, **kwargs)


def key_title(key: Any) -> str:
    """The key for people."""
    return key if isinstance(key, str) else title(key)


def model_in(key: Any, value: Hashable) -> str | None:
    """A value of the key, if it is a model's name: where the key is the argument `model`."""
    return value if key == "model" and isinstance(value, str) else None


class Keyed(Generic[T]):
    """One `T` for each value of a policy's key; without a key one alone, which is `only`.

    Whenever one is made, two others are looked at, and forgotten if `may_go(which, now, crowded)`
    says so. With `keep` these are the ones unused for longest, and they are `crowded` if there are
    more than `keep`; without, all come round in turn. Safe from any thread; no lock is taken for
    one that exists, except with `keep`.
    """

    __slots__ = ("_all", "_keep", "_lock", "_make", "_may_go", "key", "only", "policy")

    def __init__(
        self,
        policy: str,
        key: Any,
        make: Callable[[Hashable], T],
        may_go: Callable[[T, float, bool], bool],
        keep: int | None = None,
    ) -> None:
        self.policy = policy
        self.key = key
        self._make = make
        self._may_go = may_go
        self._keep = keep
        self._lock = new_lock()
        self._all: OrderedDict[Hashable, T] = OrderedDict()
        self.only: T | None = None
        if key is None:
            self.only = self._all[None] = make(None)

    def all(self) -> dict[Hashable, T]:
        """Those that exist, by the value of the key."""
        with self._lock:
            return dict(self._all)

    def of(self, call: Call, now: float) -> T | None:
        """The one for a call, made if need be; None if its key cannot be computed, and the log says
        so."""
        if self.only is not None:
            return self.only
        try:
            return self.at(key_of(self.key, call), now)
        except Exception as problem:
            warn_option_failed(f"{self.policy}(key=)", problem)
            return None

    def found(self, call: Call) -> T | None:
        """The same if there is one already."""
        if self.only is not None:
            return self.only
        try:
            return self._all.get(key_of(self.key, call))
        except Exception:
            return None  # the call goes through, and there the log says why

    def at(self, value: Hashable, now: float) -> T:
        """The one for a value, made if need be. TypeError for one that is not hashable."""
        found = self._all.get(value)
        if found is None:
            return self._made(value, now)
        if self._keep is not None:
            with self._lock:
                if value in self._all:
                    self._all.move_to_end(value)
        return found

    def drop(self, which: T) -> None:
        """One that is not used again: nobody is to find it any more."""
        with self._lock:
            for value, each in list(self._all.items()):
                if each is which:
                    self._all.pop(value, None)

    def _made(self, value: Hashable, now: float) -> T:
        with self._lock:
            found = self._all.get(value)
            if found is None:
                found = self._all.setdefault(value, self._make(value))
                self._forget(found, now)
            return found

    def _forget(self, fresh: T, now: float) -> None:
        for _ in range(_LOOKED_AT):
            value, oldest = next(iter(self._all.items()))
            if oldest is fresh:
                return
            crowded = self._keep is not None and len(self._all) > self._keep
            if self._may_go(oldest, now, crowded):
                self._all.pop(value, None)
            elif self._keep is not None:
                return
            elif value in self._all:
                self._all.move_to_end(value)
