"""One rate limit as it is in Redis: each call that waits, or goes, books its turn there.

While the server cannot be reached, each process goes on with its share of the limit: as many parts
as there were processes. Those that find the server again go on with their shares of it until all
have, or had time to.
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
        "_alone",
        "_foreign",
        "_key",
        "_more",
        "_owed",
        "_owner",
        "_pace",
        "_processes",
        "_server",
        "_settle",
        "_slot",
        "_telling",
        "forgotten",
    )

    def __init__(self, server: Server, key: str, pace: Pace, settle: float, owner: int) -> None:
        super().__init__()
        self._server = server
        self._key = key
        self._pace = pace  # what the server said last
        self._settle = settle
        self._owner = owner
        self._alone: Pace | None = None  # while the server is lost
        self._slot: tuple[float, float] | None = None  # a turn that is booked: when, and its cost
        self._owed = self._more = 0.0  # requests and tokens that the server is still to be told of
        self._processes = 1
        self._foreign = self._telling = self.forgotten = False

    # As of a `Pace`

    def expected(self, cost: float, now: float) -> float:
        """When a call that comes now will go, as far as this process knows."""
        pace = self._alone or self._pace
        ahead = max(0, len(self._waiting) - (self._slot is not None))
        return pace.expected(cost, now) + ahead * pace.each

    def correct(self, tokens: float) -> None:
        """So many tokens more were used than was thought, or fewer: told in the background."""
        if not tokens:
            return
        alone = self._alone
        if alone is not None:
            alone.correct(tokens)
            return
        self._pace.correct(tokens)
        with self._lock:
            self._more += tokens
            telling, self._telling = self._telling, True
        if not telling:
            sync_runtime().background(self._tell)

    def give_back(self, cost: float) -> None:
        """A request that was not made after all."""
        with self._lock:
            self._owed -= 1
        with self._pace._lock:
            self._pace.empty -= self._pace.each
        self.correct(-cost)

    def follow(self, *said: Any) -> None:
        """What a server of the service says of its limits; see `Pace.follow`."""
        self._pace.follow(*said)

    def unused(self, now: float) -> bool:
        """Whether it may be forgotten."""
        return not (self._waiting or self._telling) and (self._alone or self._pace).unused(now)

    async def _tell(self, runtime: Runtime) -> None:
        with self._lock:
            self._telling = False
        if self._more and not self._server.left_alone(runtime.now()):
            await self._book(Turn(0.0), runtime, -1.0)

    # Turns

    async def ready(self, turn: Turn, runtime: Runtime, call: Call, end: float) -> float:
        now = runtime.now()
        with self._lock:
            slot = self._slot
            if slot is not None and now <= slot[0] + LATE:
                if slot[1] != turn.cost:
                    self._more += turn.cost - slot[1]
                    self._slot = slot[0], turn.cost
                return slot[0]
            self._slot = None
        if not runtime.may_wait:
            return self._unasked(turn, now)
        booked = await self._book(turn, runtime, max(0.0, end - now))
        return self._by_itself(turn, runtime.now()) if booked is None else booked

    def _go(self, turn: Turn, when: float) -> None:
        slot, self._slot = self._slot, None
        if slot is None and self._alone is not None:
            self._alone._go(turn, when)

    def _unasked(self, turn: Turn, now: float) -> float:
        """Where nothing may be waited for: by what was known, and the server is told later."""
        with self._lock:
            when = self._pace._ready(turn.cost)
            if when <= now:
                self._pace._go(turn, now)
                self._owed += 1
                self._more += turn.cost
            return when

    def _by_itself(self, turn: Turn, now: float) -> float:
        """Without the server: with this process's share."""
        with self._lock:
            if self._alone is None:
                pace, number = self._pace, self._processes
                each = pace.each * number
                room = max(0.0, pace.room + pace.each - each)
                alone = Pace(each, room, pace.each_token * number, pace.room_tokens)
                alone.empty = now + room + each  # nothing is left of what was booked
                alone.empty_tokens = now + pace.room_tokens
                self._alone = alone
            return self._alone._ready(turn.cost)

    async def _book(self, turn: Turn, runtime: Runtime, longest: float) -> float | None:
        """When this turn comes, if that is in `longest` seconds, or would come; None without a
        server."""
        if self._foreign:
            return None
        pace = self._pace
        with self._lock:
            owed, self._owed = self._owed, 0.0
            more, self._more = self._more, 0.0
        known = 0 if self._alone is None else self._processes
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
        told = False
        try:
            reply = await self._server.ask(runtime, self._key, arguments)
            told = reply is not None
        finally:
            if not told:
                with self._lock:
                    self._owed += owed
                    self._more += more
        return self._follow(reply, turn, runtime.now())

    def _follow(self, reply: Any, turn: Turn, now: float) -> float | None:
        if reply is None:
            return None
        if reply[0] == FOREIGN:
            self._foreign = True
            warn(
                f"what Redis holds under {self._key!r} is no rate limit of this version; it is "
                f"left as it is, and this process uses the limit by itself"
            )
            return None
        wait, processes, requests, tokens = (float(part) for part in reply[1:])
        with self._lock:
            self._alone = None
            self._processes = int(processes)
            self._pace.empty = now + requests / 1e6
            self._pace.empty_tokens = now + tokens / 1e6
            at = now + wait / 1e6
            if reply[0] == "1":
                self._slot = at, turn.cost
            return at
