"""How many of the latest calls were bad: by time or by number, in fixed memory, O(1) a call.

Not safe from many threads; a circuit asks under its lock.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["CallWindow", "TimeWindow", "Window"]

SLICES = 10


class Window(Protocol):
    """What both kinds do."""

    calls: int
    bad: int

    def add(self, now: float, bad: bool) -> None:
        """Count a call."""

    def good(self, now: float) -> None:
        """Count a good call: the same, for less."""

    def turn(self, now: float) -> None:
        """Drop what is too old by now."""


class TimeWindow:
    """The calls of the last `seconds`, in ten slices: the oldest tenth goes all at once."""

    __slots__ = ("_bads", "_counts", "_end", "_newest", "_width", "bad", "calls")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / SLICES
        self._counts = [0] * SLICES
        self._bads = [0] * SLICES
        self._newest = 0
        self._end = 0.0  # of the newest slice
        self.calls = 0
        self.bad = 0

    def turn(self, now: float) -> None:
        if now < self._end:
            return
        newest = int(now // self._width)
        for number in range(max(newest - SLICES, self._newest) + 1, newest + 1):
            at = number % SLICES
            self.calls -= self._counts[at]
            self.bad -= self._bads[at]
            self._counts[at] = self._bads[at] = 0
        self._newest = newest
        self._end = (newest + 1) * self._width

    def add(self, now: float, bad: bool) -> None:
        self.good(now)
        if bad:
            self._bads[self._newest % SLICES] += 1
            self.bad += 1

    def good(self, now: float) -> None:
        if now >= self._end:
            self.turn(now)
        self._counts[self._newest % SLICES] += 1
        self.calls += 1


class CallWindow:
    """The last `size` calls, one byte each."""

    __slots__ = ("_at", "_ring", "_size", "bad", "calls")

    def __init__(self, size: int) -> None:
        self._ring = bytearray(size)
        self._size = size
        self._at = 0
        self.calls = 0
        self.bad = 0

    def turn(self, now: float) -> None:
        """Calls do not age here."""

    def add(self, now: float, bad: bool) -> None:
        at = self._at
        self.good(now)
        if bad:
            self._ring[at] = 1
            self.bad += 1

    def good(self, now: float) -> None:
        at, size = self._at, self._size
        if self.calls < size:
            self.calls += 1
        elif self._ring[at]:
            self._ring[at] = 0
            self.bad -= 1
        at += 1
        self._at = at if at < size else 0
