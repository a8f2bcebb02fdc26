"""A clock that jumps to the next moment at which something is due."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from itertools import count
from typing import Any

__all__ = ["Clock"]


class Clock:
    """The moments of virtual time, and who is woken at them. For one thread or event loop."""

    def __init__(
        self, *, start: float = 1_000.0, wall: float = 1_800_000_000.0, seed: int = 0
    ) -> None:
        self._now = start
        self._offset = wall - start
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._waiting = 0
        self._pump: Any = None  # while somebody waits: asyncio's handle, or trio's scope
        self.sleeps: list[float] = []
        self.random: Callable[[], float] = random.Random(seed).random

    def now(self) -> float:
        """Seconds on the virtual clock."""
        return self._now

    def wall(self) -> float:
        """Virtual seconds since 1970."""
        return self._now + self._offset

    def move_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back; time itself does not pass."""
        self._offset += seconds

    def advance(self, seconds: float) -> None:
        """Let time pass; whatever becomes due happens on the way, in order."""
        self._pass_until(self._now + seconds, lambda: False)

    def _pass_until(self, end: float, enough: Callable[[], bool]) -> None:
        """Let time pass until `end`, or until something that happens on the way is enough."""
        while self._due and self._due[0][0] <= end:
            self._jump()
            if enough():
                return
        if end < math.inf:
            self._now = max(self._now, end)

    def at(self, when: float, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when the clock gets there, if it ever does; returns what calls it off."""
        entry = (when, next(self._numbers), wake)
        if when < math.inf:
            heapq.heappush(self._due, entry)

        def call_off() -> None:
            if entry in self._due:
                self._due.remove(entry)
                heapq.heapify(self._due)

        return call_off

    def _jump(self) -> None:
        """Go to the next moment at which something is due, if anything ever is."""
        if self._due:
            when, _, wake = heapq.heappop(self._due)
            self._now = max(self._now, when)
            wake()
