"""One circuit's far side: what it hears from the others, what it asks them, what it tells them.

While the server can be reached, a circuit that is open or half open there is so here too, and
trials need a place that the server has granted: a lease, which runs out if its process dies. While
it cannot, the circuit goes on by itself. Once it can again:

- what was done by hand (`close()`, `isolate()`) meanwhile is told, and holds for all;
- a circuit that opened here meanwhile opens the shared one, if that is closed;
- in all else the shared one is right.
"""

from __future__ import annotations

import functools
import math
import uuid
from typing import Any
from weakref import WeakKeyDictionary

from attrs import Factory, define, field, frozen

from resilience._core.around import around
from resilience._core.driver import drive
from resilience._core.locks import new_lock
from resilience._core.world import now as world_now
from resilience._runtimes import runtime_for
from resilience.failures import Failure
from resilience.policies._circuit import Circuit
from resilience.policies._opening import Opening, open_time
from resilience.policies._permit import Permit
from resilience.policies._states import BY_HAND, CLOSED, HALF_OPEN, ISOLATED, OPEN, Change, Event
from resilience.typing import Runtime

from .hand import Hand, News, at_once
from .link import Link, warn
from .script import FOREIGN, Reply

__all__ = ["Remote"]

_AT_ONCE = 0.05  # of the time between two looks: failures told more often go together
_ANY = "any"  # generation

_OPENING = ("trip", "advise", "open", "failed")  # what may open, beside a look with failures
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
    _untold: News | None = field(default=None, init=False)
    _as_of: str | None = field(default=None, init=False)  # the generation that tripped
    _hand: Hand = field(default=Factory(lambda self: Hand(self.circuit), True), init=False)
    _asked: int = field(default=0, init=False)
    _heard: int = field(default=0, init=False)  # the latest question that was answered
    _leases: WeakKeyDictionary[Permit, _Lease] = field(factory=WeakKeyDictionary, init=False)
    _owed: list[_Lease] = field(factory=list, init=False)  # places to be given back some time
    _failed: int = field(default=0, init=False)  # in a row, not yet told
    _blame: tuple[BaseException, Failure] | None = field(default=None, init=False)  # the last
    _foreign: bool = field(default=False, init=False)  # the key is somebody else's: on its own
    _well: float | None = field(default=None, init=False)  # when a call last went well

    # For the policy

    def note(self, change: Change) -> None:
        """Tell what was done by hand; remember that a rule has tripped, until it can be told.

        Verdicts of trials are told with their places; what was heard from others is no news.
        """
        if change.event == Event.TRIPS and not self.circuit.shadowed:
            self._untold = News("advise" if self.advisory else "trip")
            self._as_of = _ANY if self.link.broken or self._foreign else self._generation
        elif change.event in BY_HAND:
            with self._lock:
                news = self._hand.command(change.event)
                self._untold = news or self._untold
            if news is not None:
                at_once(functools.partial(self._tell_now, news))

    async def refresh(self, runtime: Runtime) -> None:
        """Tell what is still to be told; hear what others have done, at most every `every`."""
        untold = self._untold
        if untold is not None and not self._foreign:
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
        if self.advisory or self.circuit.shadowed or self._alone(runtime.now()):
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

    def blame(self, cause: BaseException, failure: Failure) -> None:
        """Remember a failure until it is told: it may be the one that opens the shared circuit."""
        if self.circuit.state in (CLOSED, HALF_OPEN):
            self._blame = cause, failure

    async def verdict(self, runtime: Runtime, permit: Permit, *, failed: bool) -> None:
        """Tell what a call has taught, if that is anything new."""
        now = runtime.now()
        lease = self._leases.pop(permit, None)
        if lease is not None and now - permit.began >= self.circuit.limits.trial_timeout:
            self._give_back(lease)  # it has been given up on here: it has no say
            return
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
            self._untold, self._as_of = News("trip"), _ANY
        if not failed:
            self._well = now
            self._forget()
        elif self.circuit.counts(permit):
            self._failed += 1
        untold = self._untold
        if untold is not None and not self._foreign:
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

    async def _tell(self, runtime: Runtime, news: News) -> None:
        if await self._ask(runtime, news.op, telling=news) is None:
            self._as_of = _ANY  # told later, it counts whatever has happened to the others

    def _tell_now(self, news: News) -> None:
        runtime = runtime_for(around.get(), asynchronous=False)
        if drive(self._ask(runtime, news.op, telling=news, by_itself=True)) is None:
            warn(
                f"the others have not heard of {news.op}() for {self.circuit!r}; they will with "
                f"the next call here"
            )

    def _give_back(self, lease: _Lease) -> None:
        self.link.tell(self.key, self._arguments("left", lease, None))

    async def _ask(
        self,
        runtime: Runtime,
        op: str,
        lease: _Lease | None = None,
        *,
        telling: News | None = None,
        by_itself: bool = False,
    ) -> Reply | None:
        """Ask, and follow the answer; `by_itself`, outside any call, leave that to the next call:
        listeners are to hear of one change after the other, in a thread that makes calls."""
        failed, blame = self._failed, self._blame
        self._asked = number = self._asked + 1
        arguments = self._arguments(op, lease, runtime.now(), telling)
        reply = await self.link.ask(runtime, self.key, arguments, anyway=by_itself)
        if reply is None or self._is_foreign(reply):
            return None
        owed, self._owed = self._owed, []
        for each in owed:
            self._give_back(each)
        if reply.mended:
            warn(f"what Redis held of {self.circuit!r} made no sense; the circuit is closed again")
        self._failed = max(0, self._failed - failed)
        if (failed or lease is not None) and self._blame is blame:
            self._blame = None
        if telling is not None and self._untold is telling:
            self._untold = None
        if by_itself:
            with self._lock:
                self._heard, self._looked = max(self._heard, number), None
        elif self._untold is None:
            cause = blame[0] if reply.opened and blame is not None else None
            self._follow(op, reply, number, runtime.now(), cause)
        return reply

    def _arguments(
        self, op: str, lease: _Lease | None, now: float | None, news: News | None = None
    ) -> tuple[Any, ...]:
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
            _micro(self._open_for(op)),
            _micro(self.lease),
            lease.token if lease is not None else self._hand.name,
            self._failed,
            -1 if self._well is None or now is None else _micro(now - self._well),
            limits.missable,
            news.order if news is not None else 0,
        )

    # What is heard

    def _follow(
        self, op: str, reply: Reply, number: int, now: float, cause: BaseException | None
    ) -> None:
        """Be as the shared circuit is, unless later news has been heard."""
        with self._lock:
            if number < self._heard:
                return
            known, self._generation, self._heard = self._generation, reply.generation, number
            news = known is not None and known != reply.generation
            if news:
                self._forget()
        if reply.state == ISOLATED:
            if self.circuit.state != ISOLATED:
                self.circuit.follow(ISOLATED, 0.0, now)
        elif reply.generation == "0" and self.circuit.held:
            with self._lock:
                self._untold = self._hand.numbered(
                    "isolate"
                )  # flushed, but somebody here still holds it
        elif self.advisory:
            if self.circuit.state == ISOLATED:
                self.circuit.follow(CLOSED, 0.0, now)
            if known != reply.generation and op not in ("advise", "open") and self.circuit.closed:
                self._heed(reply, now)
        elif reply.state == HALF_OPEN:
            self._follow_trials(op, reply, now, news=news)
        elif self.circuit.state != reply.state or (news and op in _QUESTIONS):
            self.circuit.follow(reply.state, reply.left, now, cause)
        if not self.advisory:
            self.circuit.recount(reply.openings)

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

    def _is_foreign(self, reply: Reply) -> bool:
        known, self._foreign = self._foreign, reply.state == FOREIGN
        if self._foreign and not known:
            warn(
                f"what Redis holds under {self.key!r} is no circuit of this version; "
                f"{self.circuit!r} leaves it as it is, and goes on by itself"
            )
        return self._foreign

    # Sums

    def _forget(self) -> None:
        """The failures that are not told yet are in a row with no later one."""
        self._failed, self._blame = 0, None

    def _alone(self, now: float) -> bool:
        """Whether it is of no use to ask for a place."""
        return self._foreign or self.link.lost(now)

    def _due(self, now: float, every: float) -> bool:
        return self._looked is None or now - self._looked >= every

    @property
    def _pooled(self) -> bool:
        """Whether failures in a row are counted over all processes."""
        return not self.advisory and self.circuit.limits.failures < math.inf

    def _open_for(self, op: str) -> float:
        """Seconds to stay open, if it may be now that the shared circuit opens."""
        if op not in _OPENING and not (op == "look" and self._failed and self._pooled):
            return 0.0
        left = self.circuit.retry_after
        if left:
            return left  # it has opened here
        number = self.circuit.openings + (self.circuit.state != OPEN)  # this one included
        opening = Opening(number, world_now(), *(self._blame or (None, None)))
        wait = open_time(self.circuit.limits.reset_after, opening)
        return opening.ends(wait) - opening.now


def _micro(seconds: float) -> int:
    return int(min(max(0.0, seconds), 30 * 86400.0) * 1e6)
