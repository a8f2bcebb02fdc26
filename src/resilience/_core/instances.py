"""The objects of one class that exist in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar
from weakref import WeakSet

from .locks import new_lock

__all__ = ["Instances"]

T = TypeVar("T")


class Instances(Generic[T]):
    """Those that were added and are still in use. `after_fork` is called with each of them in a
    forked child, where the calls of the parent's other threads are not under way. Safe from any
    thread.
    """

    def __init__(self, after_fork: Callable[[T], object] | None = None) -> None:
        self._all: WeakSet[T] = WeakSet()
        self._lock = new_lock()
        self._after_fork = after_fork
        if after_fork is not None and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def add(self, one: T) -> None:
        """Add one; it is not kept alive."""
        with self._lock:
            self._all.add(one)

    def __iter__(self) -> Iterator[T]:
        with self._lock:
            return iter(list(self._all))

    def _forked(self) -> None:
        assert self._after_fork is not None
        for one in self:
            self._after_fork(one)
