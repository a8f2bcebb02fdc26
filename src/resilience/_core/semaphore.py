"""Permits for a few at once, in the order in which they were asked for."""

from __future__ import annotations

import math
from collections import OrderedDict

from .call import Call
from .locks import new_lock
from .options import to_count, to_number
from .runtime import Runtime, Waiter

__all__ = ["Semaphore"]


class Semaphore:
    """`permits` at once; the others wait in order, up to `queue` of them.

    Safe from any thread and any event loop, several at once included; those who are cancelled or
    lose patience leave the queue, and a permit given to them in that very moment goes on to the
    next.
    """

    __slots__ = ("_free", "_given", "_limit", "_lock", "_waiting")

    def __init__(self, permits: int, queue: float = math.inf) -> None:
        self._lock = new_lock()
        self._free = to_count("permits", permits)
        self._limit = queue if queue == math.inf else to_number("queue", queue, 0.0)
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()
        self._given: set[Waiter] = set()  # who was in the queue and has a permit now

    @property
    def free(self) -> int:
        """Permits that nobody has."""
        return self._free

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiting)

    def try_acquire(self) -> bool:
        """Take a permit if one is free."""
        with self._lock:
            if self._free > 0:  # then nobody waits
                self._free -= 1
                return True
            return False

    async def acquire(self, runtime: Runtime, call: Call | None, patience: float) -> bool:
        """Wait for a permit, for `patience` seconds at most: whether there was one."""
        waiter = runtime.waiter()
        try:
            with self._lock:
                if self.try_acquire():
                    return True
                if len(self._waiting) >= self._limit:
                    return False
                self._waiting[waiter] = None
                # A finalizer or a signal handler of this thread may have given one back just now.
                if self._free > 0:
                    return self._leave(waiter) or self.try_acquire()
            await waiter.wait(patience, call)
            return self._leave(waiter)
        except BaseException:
            if self._leave(waiter):
                self.release()
            raise

    def release(self) -> None:
        """Give a permit back; the first in the queue gets it."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            waiter, _ = self._waiting.popitem(last=False)
            self._given.add(waiter)
        waiter.set()

    def _leave(self, waiter: Waiter) -> bool:
        """Leave the queue, if it is in there; whether a permit has come."""
        with self._lock:
            self._waiting.pop(waiter, None)
            given = waiter in self._given
            self._given.discard(waiter)
            return given
