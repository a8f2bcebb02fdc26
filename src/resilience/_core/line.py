"""A few at once: jobs that may hang, in worker threads that are there for others too."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from resilience.errors import WorkersBusyError
from resilience.typing import Bell, Runtime

from .locks import new_lock

__all__ = ["Line"]

T = TypeVar("T")


class Line:
    """Up to `most` jobs are done at once, the others in turn. Safe from any thread and loop.

    A job that hangs keeps its place until it ends, whether anybody still waits for it or not. A
    call waits for its turn no longer than `patience` seconds: `WorkersBusyError` then. In a child
    of fork all places are free.
    """

    def __init__(self, most: int, patience: float) -> None:
        self._most = most
        self._patience = patience
        self._lock = new_lock()
        self._places: set[object] = set()
        self._waiting: dict[object, Bell] = {}  # in the order in which they came
        self._process = os.getpid()

    async def through(self, runtime: Runtime, fn: Callable[[], T]) -> T:
        """`runtime.blocking(fn)`, once it is our turn."""
        place = await self._enter(runtime)

        def job() -> T:
            try:
                return fn()
            finally:
                self._leave(place)

        try:
            return await runtime.blocking(job)
        except BaseException as error:
            if isinstance(error, Exception) or not runtime.asynchronous:
                self._leave(place)  # it may not have begun; a cancelled one ends by itself
            raise

    async def _enter(self, runtime: Runtime) -> object:
        place = object()
        with self._lock:
            if self._process != os.getpid():
                self._places.clear()
                self._waiting.clear()
                self._process = os.getpid()
            if len(self._places) < self._most:
                self._places.add(place)
                return place
            bell = runtime.bell()
            if bell is None:
                raise WorkersBusyError(workers=self._most)
            self._waiting[place] = bell
        try:
            await bell.wait(self._patience)
        except BaseException:
            self._leave(place)
            raise
        if place not in self._places:
            self._leave(place)
            raise WorkersBusyError(workers=self._most)
        return place

    def _leave(self, place: object) -> None:
        """Go, from a place or from the queue; the first in the queue gets the place."""
        bell = None
        with self._lock:
            self._waiting.pop(place, None)
            if place in self._places:
                self._places.remove(place)
                if self._waiting:
                    following = next(iter(self._waiting))
                    bell = self._waiting.pop(following)
                    self._places.add(following)
        if bell is not None:
            bell.ring()
