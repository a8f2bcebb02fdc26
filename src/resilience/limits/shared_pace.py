"""One rate limit as it is in Redis: each call books its turn there before it starts.

While the server cannot be reached, each process uses its share of the limit: one part of as many as
there were processes. A process that finds the server again keeps to its share until all have found
it, or had time to.
"""

from __future__ import annotations

import os
import uuid
from typing import Any

from resilience._core.outside import sync_runtime
from resilience._core.pacing import LATE, Pace, PacedQueue, Turn
from resilience.circuit.redis.clients import Server
from resilience.circuit.storage import warn
from resilience.policy import Call, Runtime

from .script import FOREIGN, micro

__all__ = ["SharedPace"]

_ID = uuid.uuid4().hex


class SharedPace(PacedQueue):
    """For one value of a limit's key. The first in this process's queue asks the server; the others
    wait behind it."""

    __slots__ = (
        "_foreign",
        "_key",
        "_local",
        "_owner",
        "_pace",
        "_processes",
        "_server",
        "_settle",
        "_slot",
        "_unreported",
        "_unreported_tokens",
        "forgotten",
    )

    def __init__(self, server: Server, key: str, pace: Pace, settle: float, owner: int) -> None:
        super().__init__()
        self._server = server
        self._key = key
        self._pace = pace  # what the server said last
        self._settle = settle
        self._owner = owner
        self._local: Pace | None = None  # while the server is lost
        self._slot: tuple[float, float] | None = None  # a turn that is booked: when, and its cost
        self._unreported = self._unreported_tokens = 0.0  # that the server does not know of yet
        self._processes = 1
        self._foreign = self.forgotten = False

    # As of a `Pace`

    def expected(self, cost: float, now: float) -> float:
        """When a call that comes now will start, as far as this process knows."""
        pace = self._local or self._pace
        ahead = max(0, len(self._waiting) - (self._slot is not None))
        return pace.expected(cost, now) + ahead * pace.each

    def correct(self, tokens: float) -> None:
        """Count tokens used beyond the estimate, and report them in the background."""
        local = self._local
        if local is not None:
            local.correct(tokens)
            return
        self._pace.correct(tokens)
        with self._lock:
            self._unreported_tokens += tokens
        sync_runtime().background(self._report)

    def give_back(self, cost: float) -> None:
        """Take back a request that was not made after all."""
        local = self._local
        if local is not None:
            local.give_back(cost)
            return
        with self._lock:
            self._unreported -= 1
        with self._pace._lock:
            self._pace.empty -= self._pace.each
        self.correct(-cost)

    def follow(self, *said: Any) -> None:
        """What the service says of its limits; see `Pace.follow`."""
        self._pace.follow(*said)

    def unused(self, now: float) -> bool:
        """Whether it may be forgotten."""
        return not self._waiting and (self._local or self._pace).unused(now)

    async def _report(self, runtime: Runtime) -> None:
        if self._unreported_tokens:
            await self._book(Turn(0.0), runtime, -1.0)

    # Turns

    async def ready(self, turn: Turn, runtime: Runtime, call: Call, end: float) -> float:
        now = runtime.now()
        with self._lock:
            slot = self._slot
            if slot is not None and now <= slot[0] + LATE:
                if slot[1] != turn.cost:
                    self._unreported_tokens += turn.cost - slot[1]
                    self._slot = slot[0], turn.cost
                return slot[0]
            self._slot = None
        if not runtime.may_wait:
            return self._without_asking(turn, now)
        booked = await self._book(turn, runtime, max(0.0, end - now))
        return self._on_local_share(turn, runtime.now()) if booked is None else booked

    def _go(self, turn: Turn, when: float) -> None:
        slot, self._slot = self._slot, None
        if slot is None and self._local is not None:
            self._local._go(turn, when)

    def _without_asking(self, turn: Turn, now: float) -> float:
        """For a call that must not wait: decide by what is known, and report it later."""
        with self._lock:
            when = self._pace._ready(turn.cost)
            if when <= now:
                self._pace._go(turn, now)
                self._unreported += 1
                self._unreported_tokens += turn.cost
            return when

    def _on_local_share(self, turn: Turn, now: float) -> float:
        """When the turn comes by this process's share of the limit, without the server."""
        with self._lock:
            if self._local is None:
                pace, number = self._pace, self._processes
                each = pace.each * number
                room = max(0.0, pace.room + pace.each - each)
                local = Pace(each, room, pace.each_token * number, pace.room_tokens)
                local.empty = now + room + each  # nothing is left of what was booked
                local.empty_tokens = now + pace.room_tokens
                self._local = local
            return self._local._ready(turn.cost)

    async def _book(self, turn: Turn, runtime: Runtime, longest: float) -> float | None:
        """When this turn comes, if that is in `longest` seconds, or would come; None without a
        server."""
        if self._foreign:
            return None
        pace = self._pace
        with self._lock:
            owed, self._unreported = self._unreported, 0.0
            more, self._unreported_tokens = self._unreported_tokens, 0.0
        known = 0 if self._local is None else self._processes
        arguments = (
            "take",
            *map(micro, (pace.each, pace.room, pace.each_token, pace.room_tokens)),
            f"{turn.cost:.3f}",
            f"{owed:.0f}",
            f"{more:.3f}",
            micro(longest),
            f"{_ID}-{os.getpid()}-{self._owner}",
            known,
            micro(self._settle),
        )
        reported = False
        try:
            reply = await self._server.ask(runtime, self._key, arguments)
            reported = reply is not None
        finally:
            if not reported:
                with self._lock:
                    self._unreported += owed
                    self._unreported_tokens += more
        return self._follow(reply, turn, runtime.now())

    def _follow(self, reply: Any, turn: Turn, now: float) -> float | None:
        if reply is None:
            return None
        if reply[0] == FOREIGN:
            self._foreign = True
            warn(
                f"the data in Redis under {self._key!r} are no rate limit of this version; they "
                f"are left alone, and this process uses its local limit"
            )
            return None
        wait, processes, requests, tokens = (float(part) for part in reply[1:])
        with self._lock:
            self._local = None
            self._processes = int(processes)
            self._pace.empty = now + requests / 1e6
            self._pace.empty_tokens = now + tokens / 1e6
            at = now + wait / 1e6
            if reply[0] == "1":
                self._slot = at, turn.cost
            return at
