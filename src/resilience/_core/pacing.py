"""Queues of calls that start one after the other, in order, at a pace."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict

from .call import Call
from .locks import new_lock
from .runtime import Runtime, Waiter

__all__ = ["LATE", "Pace", "PacedQueue", "Turn"]

LATE = 0.1
"""Seconds, at most, that a call may be woken too late without the next ones being late for it."""


class Turn:
    """A call in the queue, and what it costs."""

    __slots__ = ("cost",)

    def __init__(self, cost: float) -> None:
        self.cost = cost


class PacedQueue(ABC):
    """Calls that wait for their turn. The first one starts when `ready` says so, then the next.

    Safe from any thread and any event loop, several at once included. A call that is cancelled,
    interrupted or out of time leaves the queue.
    """

    __slots__ = ("__weakref__", "_lock", "_queued", "_waiting")

    def __init__(self) -> None:
        self._lock = new_lock()
        self._waiting: OrderedDict[Turn, Waiter] = OrderedDict()
        self._queued = 0.0  # what those in the queue cost, all together

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiting)

    @abstractmethod
    async def ready(self, turn: Turn, runtime: Runtime, call: Call, end: float) -> float:
        """When the first in the queue may start, by the runtime's clock."""

    @abstractmethod
    def _go(self, turn: Turn, when: float) -> None:
        """Count that it starts, as of `when`. Under the lock."""

    async def wait(self, runtime: Runtime, call: Call, turn: Turn, end: float) -> bool:
        """Wait for the turn, until `end` at most: whether it has come."""
        try:
            try:
                came = await self._wait(runtime, call, turn, end)
            finally:
                self._leave(turn)
        except BaseException:
            self._leave(turn)  # Ctrl-C may have come in the first one
            raise
        return came

    async def _wait(self, runtime: Runtime, call: Call, turn: Turn, end: float) -> bool:
        while True:
            waiter = runtime.waiter()
            with self._lock:
                if turn not in self._waiting:
                    self._queued += turn.cost
                self._waiting[turn] = waiter
                first = next(iter(self._waiting)) is turn
            ready = await self.ready(turn, runtime, call, end) if first else math.inf
            now = runtime.now()
            with self._lock:
                if ready <= now:
                    self._go(turn, max(ready, now - LATE))
                    return True
            if now >= end or (ready > end and first):
                return False
            await waiter.wait(min(ready, end) - now, call)

    def wake(self) -> None:
        """Have the first in the queue look again."""
        with self._lock:
            waiter = next(iter(self._waiting.values()), None)
        if waiter is not None:
            waiter.set()

    def after_fork(self) -> None:
        """No call waits in the child."""
        self._waiting.clear()
        self._queued = 0.0

    def _leave(self, turn: Turn) -> None:
        with self._lock:
            if self._waiting.pop(turn, None) is not None:
                self._queued -= turn.cost
            if not self._waiting:
                self._queued = 0.0
        self.wake()


class Pace(PacedQueue):
    """Requests and tokens at a rate: two leaky buckets, which calls fill and which drain.

    Each is kept as the time at which it will be empty. A call may start when there is room for it;
    one of more tokens than the bucket holds, when that is empty.
    """

    __slots__ = (
        "each",
        "each_token",
        "empty",
        "empty_tokens",
        "forgotten",
        "room",
        "room_tokens",
    )

    each: float
    """Seconds that a request takes to drain;"""
    room: float
    """for how many seconds' worth of them there is room besides it."""
    each_token: float
    room_tokens: float

    def __init__(self, each: float, room: float, each_token: float, room_tokens: float) -> None:
        super().__init__()
        self.each, self.room = each, room
        self.each_token, self.room_tokens = each_token, room_tokens
        self.empty = self.empty_tokens = -math.inf
        self.forgotten = False

    def take(self, cost: float, now: float) -> bool:
        """Start at once, if nobody waits and there is room. For calls at rest: nothing is called in
        between, so that no signal handler comes in between either."""
        with self._lock:
            empty = self.empty
            if empty - self.room > now or self._waiting or self.forgotten:
                return False
            taken = cost * self.each_token
            if taken:
                empty_tokens = self.empty_tokens
                room = self.room_tokens - taken
                if empty_tokens - (room if room > 0.0 else 0.0) > now:
                    return False
                self.empty_tokens = (empty_tokens if empty_tokens > now else now) + taken
            self.empty = (empty if empty > now else now) + self.each
            return True

    def expected(self, cost: float, now: float) -> float:
        """When a call that comes now will start, if nothing else happens."""
        with self._lock:
            after = self._ready(cost)
            if self._waiting:
                queued = self._queued * self.each_token
                after = max(
                    max(self.empty, now) + self.each * len(self._waiting) - self.room,
                    max(self.empty_tokens, now)
                    + queued
                    - max(0.0, self.room_tokens - cost * self.each_token),
                )
            return max(now, after)

    async def ready(self, turn: Turn, runtime: Runtime, call: Call, end: float) -> float:
        with self._lock:
            return self._ready(turn.cost)

    def _ready(self, cost: float) -> float:
        by_requests = self.empty - self.room
        if not cost:
            return by_requests
        room = self.room_tokens - cost * self.each_token
        return max(by_requests, self.empty_tokens - max(0.0, room))

    def _go(self, turn: Turn, when: float) -> None:
        self.empty = max(self.empty, when) + self.each
        if turn.cost:
            self.empty_tokens = max(self.empty_tokens, when) + turn.cost * self.each_token

    def give_back(self, cost: float) -> None:
        """Take back a request that was not made after all."""
        with self._lock:
            self.empty -= self.each
        self.correct(-cost)

    def correct(self, tokens: float) -> None:
        """Count tokens used beyond the estimate; negative if there were fewer."""
        if not tokens:
            return
        with self._lock:
            self.empty_tokens += tokens * self.each_token
        if tokens < 0 and self._waiting:
            self.wake()

    def follow(
        self,
        tokens: bool,
        rate: float | None,
        remaining: float,
        blocked: float | None,
        room: float,
        now: float,
    ) -> None:
        """Adopt what a server says: its `rate` in requests or tokens a second; how many are
        `remaining`, where the bucket holds `room` seconds' worth; until when it is `blocked`."""
        with self._lock:
            each = self.each_token if tokens else self.each
            each = each if rate is None else 1.0 / rate
            full = max(0.0, room - (0.0 if tokens else each))
            least = now + (full if tokens else full + each) - remaining * each
            if blocked is not None:
                least = max(least, blocked + full)
            if tokens:
                self.each_token = each
                self.empty_tokens = max(self.empty_tokens, least)
            else:
                self.each, self.room = each, full
                self.empty = max(self.empty, least)
        self.wake()

    def unused(self, now: float) -> bool:
        """Whether it may be forgotten: it is as a new one would be. If so, it is not used again."""
        with self._lock:
            idle = not self._waiting and self.empty <= now and self.empty_tokens <= now
            self.forgotten = self.forgotten or idle
            return idle
