"""The pipelines that are to know when a policy is busy."""

from __future__ import annotations

from typing import Any
from weakref import ref

from .locks import new_lock

__all__ = ["Idles"]


class Idles:
    """What `Policy.watch` was given by each pipeline, kept weakly. Safe from any thread, and from a
    signal handler or finalizer between any two steps."""

    __slots__ = ("_all", "_lock")

    def __init__(self) -> None:
        self._all: tuple[ref[Any], ...] = ()
        self._lock = new_lock()

    def add(self, idle: Any) -> None:
        """Keep one more."""
        with self._lock:
            alive = [each for each in self._all if each() is not None]
            self._all = (*alive, ref(idle))

    def update(self) -> None:
        """Have each ask its policies again whether they are busy."""
        for reference in self._all:
            idle = reference()
            if idle is not None:
                idle.update()
