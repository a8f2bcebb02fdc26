"""One circuit's far side: what it hears from the others, what it asks them, what it tells them.

While the server can be reached, a circuit that is open or half open there is so here too, and
trials need a place that the server has granted: a lease, which runs out if its process dies. While
it cannot, the circuit goes on by itself. Once it can again:

- what was done by hand (`close()`, `isolate()`) meanwhile is told, and holds for all;
- a circuit that opened here meanwhile opens the shared one, if that is closed;
- in all else the shared one is right.
"""

from __future__ import annotations

import math
import uuid
from typing import Any

from attrs import define, field, frozen

from resilience._core.locks import new_lock
from resilience._core.world import now as world_now
from resilience.policies._circuit import Circuit
from resilience.policies._opening import Opening, open_time
from resilience.policies._permit import Permit
from resilience.policies._states import CLOSED, HALF_OPEN, ISOLATED, OPEN, Change, Event
from resilience.typing import Runtime

from .link import Link, warn
from .script import Reply

__all__ = ["Remote"]

_AT_ONCE = 0.05  # of the time between two looks: failures told more often go together
_ANY = "any"  # generation

_OPS = {
    Event.TRIPS: "trip",
    Event.OPENS: "open",
    Event.CLOSES: "close",
    Event.FREES: "close",
    Event.ISOLATES: "isolate",
}
"""What of a circuit's own doing is told to the others, and how."""

_QUESTIONS = ("look", "enter")  # in which another generation is the others' doing


@frozen
class _Lease:
    """A trial's place, as the server has granted it."""

    token: str
    generation: str


@define(eq=False)
class Remote:
    """Made for a circuit where it is first called. Safe from any thread."""

    link: Link
    circuit: Circuit
    key: str
    every: float
    lease: float
    advisory: bool
    _lock: Any = field(factory=new_lock, init=False)
    _looked: float | None = field(default=None, init=False)
    _generation: str | None = field(default=None, init=False)  # of the last reply
    _untold: Change | None = field(default=None, init=False)
    _as_of: str | None = field(default=None, init=False)  # the generation that tripped
    _asked: int = field(default=0, init=False)
    _heard: int = field(default=0, init=False)  # the latest question that was answered
    _leases: dict[Permit, _Lease] = field(factory=dict, init=False)
    _owed: list[_Lease] = field(factory=list, init=False)  # places to be given back some time
    _failed: int = field(default=0, init=False)  # in a row, not yet told
    _well: float | None = field(default=None, init=False)  # when a call last went well

    # For the policy

    def note(self, change: Change) -> None:
        """Remember what was done by hand, and that a rule has tripped, until it can be told.

        Verdicts of trials are told with their places; what was heard from others is no news.
        """
        if change.event in _OPS and not self.circuit.shadowed:
            self._untold = change
            self._as_of = _ANY if self.link.broken else self._generation

    async def refresh(self, runtime: Runtime) -> None:
        """Tell what is still to be told; hear what others have done, at most every `every`."""
        untold = self._untold
        if untold is not None:
            await self._tell(runtime, untold)
            return
        now = runtime.now()
        with self._lock:
            if not self._due(now, self.every):
                return
            self._looked = now
        await self._ask(runtime, "look")

    async def claim(self, runtime: Runtime, permit: Permit) -> bool:
        """Whether a trial may be made here, by the others' leave."""
        if self.advisory or self.circuit.shadowed or self.link.lost(runtime.now()):
            return True
        lease = _Lease(uuid.uuid4().hex, self._generation or "0")
        try:
            reply = await self._ask(runtime, "enter", lease)
        except BaseException:
            self._give_back(lease)
            self._owed.append(lease)  # again later: the question may still be on its way
            raise
        if reply is None:
            self._owed.append(lease)  # a server that hangs may grant it when it goes on
            return True
        if reply.state == CLOSED:
            return True
        if reply.granted:
            self._leases[permit] = _Lease(lease.token, reply.generation)
        return reply.granted

    async def verdict(self, runtime: Runtime, permit: Permit, *, failed: bool) -> None:
        """Tell what a call has taught, if that is anything new."""
        now = runtime.now()
        lease = self._leases.pop(permit, None)
        if lease is not None:
            bad = failed or now - permit.began > self.circuit.limits.slower
            op = "failed" if bad else "passed"
            try:
                if await self._ask(runtime, op, lease) is None:
                    self._owed.append(lease)
            except BaseException:  # cancelled while it waits for the server: told all the same
                self.link.tell(self.key, self._arguments(op, lease, None))
                raise
            return
        if failed and permit.trial and self.circuit.state == OPEN and not self.advisory:
            # Tried alone, without the others.
            self._untold, self._as_of = Change(CLOSED, OPEN, Event.TRIPS), _ANY
        if not failed:
            self._well, self._failed = now, 0
        elif self.circuit.counts(permit):
            self._failed += 1
        untold = self._untold
        if untold is not None:
            await self._tell(runtime, untold)
        elif self._failed and self._pooled and self._due(now, self.every * _AT_ONCE):
            self._looked = now
            await self._ask(runtime, "look")

    def released(self, permit: Permit) -> None:
        """Give a trial's place back. Waits for nothing: the call may be on its way out."""
        lease = self._leases.pop(permit, None)
        if lease is not None:
            self._give_back(lease)

    # With the server

    async def _tell(self, runtime: Runtime, change: Change) -> None:
        op = "open" if self.advisory and change.new == OPEN else _OPS[change.event]
        if await self._ask(runtime, op, telling=change) is None:
            self._as_of = _ANY  # told later, it counts whatever has happened to the others

    def _give_back(self, lease: _Lease) -> None:
        self.link.tell(self.key, self._arguments("left", lease, None))

    async def _ask(
        self,
        runtime: Runtime,
        op: str,
        lease: _Lease | None = None,
        *,
        telling: Change | None = None,
    ) -> Reply | None:
        failed = self._failed
        self._asked = number = self._asked + 1
        reply = await self.link.ask(runtime, self.key, self._arguments(op, lease, runtime.now()))
        if reply is None:
            return None
        owed, self._owed = self._owed, []
        for each in owed:
            self._give_back(each)
        if reply.mended:
            warn(f"what Redis held of {self.circuit!r} made no sense; the circuit is closed again")
        self._failed = max(0, self._failed - failed)
        if telling is not None and self._untold is telling:
            self._untold = None
        if self._untold is None:
            self._follow(op, reply, number, runtime.now())
        return reply

    def _arguments(self, op: str, lease: _Lease | None, now: float | None) -> tuple[Any, ...]:
        limits = self.circuit.limits
        generation = lease.generation if lease is not None else self._generation
        if op == "trip":
            generation = self._as_of
        return (
            op,
            generation or "0",
            limits.trials,
            limits.successes,
            int(limits.failures) if self._pooled else 0,
            _micro(self._open_for()),
            _micro(self.lease),
            lease.token if lease is not None else "",
            self._failed,
            -1 if self._well is None or now is None else _micro(now - self._well),
            limits.missable,
        )

    # What is heard

    def _follow(self, op: str, reply: Reply, number: int, now: float) -> None:
        """Be as the shared circuit is, unless later news has been heard."""
        with self._lock:
            if number < self._heard:
                return
            known, self._generation, self._heard = self._generation, reply.generation, number
            news = known is not None and known != reply.generation
            if news:
                self._failed = 0
        if reply.state == ISOLATED or self.circuit.state == ISOLATED:
            self._follow_hand(reply, now)
        elif self.advisory:
            if known != reply.generation and op != "open" and self.circuit.closed:
                self._heed(reply, now)
        elif reply.state == HALF_OPEN:
            self._follow_trials(op, reply, now, news=news)
        elif self.circuit.state != reply.state or (news and op in _QUESTIONS):
            self.circuit.follow(reply.state, reply.left, now)

    def _follow_trials(self, op: str, reply: Reply, now: float, *, news: bool) -> None:
        """Half open: a trial of ours goes on as it is; without one, we are open until we ask."""
        if op == "enter" and not reply.granted:
            self.circuit.follow(OPEN, self.every, now)
        elif op != "enter" and (news or self.circuit.state != HALF_OPEN):
            self.circuit.follow(OPEN, 0.0 if reply.granted else self.every, now)

    def _heed(self, reply: Reply, now: float) -> None:
        """Advice: open as long as the others are, if that is still so, and then try for itself."""
        if reply.state == OPEN and reply.left > 0:
            self.circuit.follow(OPEN, reply.left, now)

    def _follow_hand(self, reply: Reply, now: float) -> None:
        if reply.state == ISOLATED:
            if self.circuit.state != ISOLATED:
                self.circuit.follow(ISOLATED, 0.0, now)
        elif reply.generation == "0" and self.circuit.held:
            # Flushed, but somebody here still holds it.
            self._untold = Change(CLOSED, ISOLATED, Event.ISOLATES)
        else:
            self.circuit.follow(CLOSED, 0.0, now)

    # Sums

    def _due(self, now: float, every: float) -> bool:
        return self._looked is None or now - self._looked >= every

    @property
    def _pooled(self) -> bool:
        """Whether failures in a row are counted over all processes."""
        return not self.advisory and self.circuit.limits.failures < math.inf

    def _open_for(self) -> float:
        """Seconds to stay open, if it is now that the shared circuit opens."""
        left = self.circuit.retry_after
        if left:
            return left
        wait = self.circuit.limits.reset_after
        if isinstance(wait, float):
            return wait
        return open_time(wait, Opening(1, world_now(), None, None))


def _micro(seconds: float) -> int:
    return int(min(max(0.0, seconds), 30 * 86400.0) * 1e6)
