"""What a policy keeps for each value of its key: made where first needed, forgotten when unused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from .arguments import slot_of
from .call import Call
from .locks import new_lock
from .options import warn_option_failed

__all__ = ["Keyed"]


T = TypeVar("T")

_LOOKED_AT = 2  # that may be forgotten whenever one is made: two out for one in


class Keyed(Generic[T]):
    """One `T` for each value of a key, an argument's name or a function of the call's arguments;
    one alone without a key. Whenever one is made, those unused for longest are forgotten if
    `may_go(which, now, crowded)` says so, `crowded` if there are more than `keep`. Safe from any
    thread.
    """

    __slots__ = ("_all", "_keep", "_key", "_lock", "_make", "_may_go")

    def __init__(
        self, key: Any, make: Callable[[], T], keep: int, may_go: Callable[[T, float, bool], bool]
    ) -> None:
        self._key = key
        self._make = make
        self._keep = keep
        self._may_go = may_go
        self._all: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = new_lock()
        if key is None:
            self._all[None] = make()

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        if isinstance(self._key, str):
            slot_of(fn, self._key, reading=True)

    def all(self) -> dict[Hashable, T]:
        """Those that exist, by the value of the key."""
        with self._lock:
            return dict(self._all)

    def of(self, call: Call, now: float) -> T | None:
        """The one for a call, made if need be; None if its key cannot be computed, and the log says
        so."""
        if self._key is None:
            return self._all[None]
        try:
            return self._at(self.value_of(call), now)
        except Exception as problem:
            warn_option_failed("key", problem)
            return None

    def found(self, call: Call) -> T | None:
        """The same if there is one already."""
        if self._key is None:
            return self._all[None]
        try:
            return self._all.get(self.value_of(call))
        except Exception:
            return None  # the call goes through, and there the log says why

    def value_of(self, call: Call) -> Hashable:
        """The key of a call; whatever its function raises, or TypeError without the argument."""
        key = self._key
        if key is None:
            return None
        if not isinstance(key, str):
            value: Hashable = key(*call.args, **call.kwargs)
            return value
        if key in call.kwargs:
            return call.kwargs[key]  # type: ignore[no-any-return]  # unhashable: found out by `_at`
        return call.slot(key, reading=True).read(call.args, call.kwargs)  # type: ignore[no-any-return]

    def _at(self, value: Hashable, now: float) -> T:
        with self._lock:
            found = self._all.get(value)
            if found is None:
                found = self._all.setdefault(value, self._make())
                self._forget(found, now)
            else:
                self._all.move_to_end(value)
            return found

    def _forget(self, fresh: T, now: float) -> None:
        for _ in range(_LOOKED_AT):
            key, oldest = next(iter(self._all.items()))
            crowded = len(self._all) > self._keep
            if oldest is fresh or not self._may_go(oldest, now, crowded):
                return
            self._all.pop(key, None)
