"""The circuit itself, shared by many calls: it admits or refuses them, and hears how they ended.

Decisions are made under a lock held for microseconds, never around the user's call, a wait or a
listener. An answer counts only if the circuit has not changed state since its call was admitted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from typing import Any
from weakref import ref

from attrs import define, evolve, field

from resilience._core.locks import new_lock
from resilience._core.rest import epochs
from resilience._core.world import chance, moment
from resilience._core.world import now as world_now
from resilience.errors import CircuitOpenError
from resilience.failures import Failure

from ._limits import Limits
from ._machine import Machine
from ._opening import OTHERWISE, open_time
from ._permit import Bell, Isolation, Permit
from ._snapshot import Snapshot
from ._states import CLOSED, DISABLED, HALF_OPEN, ISOLATED, OPEN, Change, Event

__all__ = ["CLOSED", "HALF_OPEN", "ISOLATED", "OPEN", "Change", "Circuit", "Limits", "Permit"]


@define(eq=False, repr=False)
class Circuit(Machine):
    """One circuit: `state`, `snapshot()`, and by hand `open()`, `close()`, `isolate()`,
    `disable()`, `shadow()`.

    Safe from any thread. `key` is its value in a keyed breaker.
    """

    backing: Any = field(default=None, init=False)
    """What shares it with others: see `_backing`."""
    used: float = field(default=0.0, init=False)
    """When a call last came along."""
    seen: float = field(default=0.0, init=False)
    """What `used` was when it was last asked whether it may be forgotten."""
    _lock: Any = field(factory=new_lock, init=False)
    _bells: list[Bell] = field(factory=list, init=False)  # of calls that wait for a verdict

    # For people

    @property
    def state(self) -> str:
        """ "closed", "open", "half-open", "isolated" or "disabled".

        An open circuit whose time is up says "open" until a call comes along and tries it.
        """
        return self._state

    @property
    def failures(self) -> int:
        """Failures in a row since the last success, while closed."""
        return self._run

    @property
    def retry_after(self) -> float | None:
        """Seconds until a call may be tried; None while closed, or where nobody knows."""
        with self._lock:
            return self._left(world_now())

    @property
    def retry_at(self) -> datetime | None:
        """The time at which a call may be tried (aware, UTC); None while closed or isolated."""
        return moment(self.retry_after)

    def open(self) -> None:
        """Open as failures would have: trials are let through after `reset_after` seconds."""
        with self._lock:
            self._shadow = False
            change = self._open(Event.OPENS, world_now(), None, None)
        self._tell(change)

    def close(self) -> None:
        """Close, whatever has happened; answers of calls begun before change nothing.

        Ends all isolations, `disable()` and `shadow()`.
        """
        self._command(Event.CLOSES)

    def isolate(self) -> Isolation:
        """Refuse all calls until told otherwise.

        What is returned ends it with `release()`, or at the end of a `with` block; it closes when
        the last of several has ended. `close()` and the other commands end all of them.
        """
        isolation = Isolation(self)
        with self._lock:
            self._shadow = False
            others = set(self._isolations)
            change = self._move(Event.ISOLATES, world_now())
            self._isolations = others | {isolation}
        self._tell(change)
        return isolation

    def disable(self) -> None:
        """Let all calls through and count nothing, until told otherwise."""
        self._command(Event.DISABLES)

    def shadow(self) -> None:
        """Close, and from then on count and report changes of state but refuse nothing."""
        self._command(Event.CLOSES, shadow=True)

    def _command(self, event: str, *, shadow: bool = False) -> None:
        with self._lock:
            self._shadow = shadow
            change = self._move(event, world_now())
        self._tell(change)

    def snapshot(self) -> Snapshot:
        """How it stands now, as a value."""
        with self._lock:
            return self._read(world_now())

    def __repr__(self) -> str:
        key = "" if self.key is None else f" for {self.key!r}"
        return f"<circuit {self.name or 'without a name'}{key}: {self.shown}>"

    # For the policy

    def forgettable(self, now: float, idle: float, *, crowded: bool) -> bool:
        """Whether it may be forgotten; asked without its lock.

        Closed: if it was unused for `idle` seconds and has nothing to remember. Open or half open:
        if it might have been tried for so long, and nobody has. If there are too many, any of these
        may be.
        """
        if self._shadow:
            return False
        if self._state == CLOSED and self._ramp is None:
            return crowded or self._clean(now - self.used, idle)
        if self._state == OPEN:
            due = self._until
        elif self._state == HALF_OPEN and not self._trials(now):
            due = self.used
        else:
            return False
        return now - due >= (0.0 if crowded else idle)

    def _clean(self, unused: float, idle: float) -> bool:
        return unused >= idle and self._run == 0 and all(g.clean(unused) for g in self._gauges)

    def end_ramp(self, now: float) -> None:
        """Be plainly closed again if the time after closing is over."""
        with self._lock:
            self._end_ramp(now)

    def admit(
        self, now: float, draw: Callable[[], float] = chance, calls: tuple[int, ...] = ()
    ) -> Permit:
        """Leave to make a call, or `CircuitOpenError`.

        `calls` are the numbers of the call and of those it is in. Inside a trial of this circuit
        it needs no place of its own: it would wait for itself.
        """
        epoch = epochs.now  # read first: a change that falls in between makes it out of date
        self.used = now
        if self._state == DISABLED or (self._state == CLOSED and self._ramp is None):
            return Permit(self, epoch, now)
        self._ask()
        drawn = draw() if self._ramp is not None else 0.0  # not under the lock
        change = None
        with self._lock:
            if self._state == OPEN and now >= self._until:
                change = self._move(Event.TIME, now)
            permit = self._place(now, drawn, calls)
            if permit is None and self._shadow:
                self._refused += 1
                permit = Permit(self, epochs.now, now, settled=True)  # with no say
        if permit is None:  # and no change: half open, a circuit has a place for whoever found it
            raise self.refusal(now)
        try:
            self._tell(change)
        except BaseException:  # Ctrl-C in a listener: the place is not lost
            permit.released()
            raise
        return permit

    def refusal(self, now: float) -> CircuitOpenError:
        """What a call gets that is not admitted."""
        with self._lock:
            self._refused += 1
            left = self._left(now) if self._ramp is None else self._ramp - now
            refusal = CircuitOpenError(left, moment(left), self.name, self.key)
            refusal.__cause__ = self._cause
            return refusal

    def resume(self, epoch: int, started: float) -> Permit:
        """The permit of a call that was begun at rest in `epoch`."""
        return Permit(self, epoch, started)

    def heard(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        epoch: int,
        began: float,
        ended: float,
    ) -> bool:
        """A call begun and ended at rest went well. False if there is more to it: it was slow."""
        if ended - began > self.limits.slower:
            return False
        with self._lock:
            if self._since <= epoch and self._state == CLOSED:
                self._run = 0
                self.used = ended
                for gauge in self._gauges:
                    gauge.window.good(ended)
        return True

    def refuses(self, now: float, calls: tuple[int, ...] = ()) -> bool:
        """Whether a call would be refused now; `calls` as for `admit`."""
        if self._state in (CLOSED, DISABLED) or self._shadow:
            return False
        self._ask()
        with self._lock:
            if self._state == OPEN:
                return now < self._until
            return self._state == ISOLATED or (
                self._state == HALF_OPEN and self._full(now) and not self._tried_by(calls, now)
            )

    def queue(self, bell: Bell, now: float) -> float | None:
        """Have `bell` rung when there may be a place. Seconds until there may be one without it
        being rung; None where there is nothing to wait for."""
        with self._lock:
            if self._state == HALF_OPEN and self._full(now):
                self._bells.append(bell)
                return next(iter(self._places.values())) - now
            there = self._state in (HALF_OPEN, DISABLED) or (
                self._state == CLOSED and self._ramp is None
            )
            return 0.0 if there else None

    def leave(self, bell: Bell) -> None:
        """The call waits no longer."""
        with self._lock:
            if bell in self._bells:
                self._bells.remove(bell)

    def adopt(self, state: str, left: float, now: float) -> None:
        """Take over what a shared storage says, if it says something else."""
        change = None
        with self._lock:
            if state == CLOSED:
                change = self._move(Event.TOLD_CLOSED, now)
            elif state in (OPEN, HALF_OPEN):
                change = self._move(Event.TOLD_OPEN, now)
                if change is not None:
                    self._until = now + left
        self._tell(change)

    def follow(
        self, state: str, left: float, now: float, cause: BaseException | None = None
    ) -> None:
        """Be what the shared circuit is: open for `left` seconds, closed or isolated. Where it has
        been anything else in between, answers of calls begun before change nothing. `cause`: what
        has opened it, if that is known here."""
        event = {OPEN: Event.SHARED_OPEN, CLOSED: Event.SHARED_CLOSED}.get(
            state, Event.SHARED_ISOLATED
        )
        with self._lock:
            change = self._move(event, now)
            if self._state == OPEN:
                self._until = now + left
                self._cause = self._cause if cause is None else cause
        self._tell(change)

    def recount(self, openings: int) -> None:
        """Take over how often the shared circuit has opened in a row."""
        with self._lock:
            if self._state in (OPEN, HALF_OPEN):
                self._openings = openings

    def count(self, failures: int) -> None:
        """Take over a storage's count of failures, if it is higher."""
        with self._lock:
            if self._state == CLOSED and failures > self._run:
                self._run = failures
                self._note_calm()

    # A call's beginning and end; `_place` under the lock

    def _place(self, now: float, drawn: float, calls: tuple[int, ...]) -> Permit | None:
        if self._state in (CLOSED, DISABLED):  # which never has a ramp
            self._end_ramp(now)
            share = self._share(now)
            return Permit(self, epochs.now, now) if share is None or drawn < share else None
        if self._state != HALF_OPEN:
            return None
        if self._tried_by(calls, now):
            return Permit(self, epochs.now, now, settled=True, part=True)
        if self._full(now):
            return None
        call = calls[0] if calls else None
        permit = Permit(self, epochs.now, now, trial=True, call=call, process=os.getpid())
        self._places[ref(permit)] = now + self.limits.trial_timeout
        return permit

    def _settle(
        self,
        permit: Permit,
        *,
        failed: bool | None,
        cause: BaseException | None = None,
        failure: Failure | None = None,
    ) -> Change | None:
        if (
            failed is False
            and self._run == 0
            and self._state == CLOSED
            and not permit.trial
            and not self._gauges
        ):
            permit.settled = True  # a healthy call of a healthy circuit: nothing to count
            return None
        change = None
        now = world_now()
        last = evolve(failure, error=None) if failure is not None else None
        with self._lock:
            if permit.settled:
                return None
            permit.settled = True
            if self._since > permit.epoch:
                return None  # the circuit has changed since; its trial places are new ones too
            if not permit.trial or self._places.pop(ref(permit), 0.0) > now:
                if failed and self._state in (CLOSED, HALF_OPEN):
                    self._last = last
                change = self._judge(failed, now, now - permit.began, cause, failure)
        self._tell(change, freed=permit.trial)
        return change

    def _released(self, isolation: Isolation) -> None:
        change = None
        with self._lock:
            if isolation in self._isolations:
                self._isolations.remove(isolation)
                if not self._isolations:
                    change = self._move(Event.FREES, world_now())
        self._tell(change)

    # Without the lock

    def _ask(self) -> None:
        """Ask the wait how long to stay open, if that is still to be done.

        Once for each opening, whoever comes along meanwhile; the wait itself may, too.
        """
        opening = self._asked
        if opening is None:
            return
        with self._lock:
            epoch = self._since
            if self._asked is not opening or self._asking == epoch:
                return  # of another opening, whoever opened it asks
            self._asking = epoch
        until = opening.ends(OTHERWISE)
        try:
            until = opening.ends(open_time(self.limits.reset_after, opening))
        finally:
            with self._lock:
                if self._since == epoch:
                    self._until, self._asked = until, None

    def _tell(self, change: Change | None, *, freed: bool = False) -> None:
        self._ask()
        if self._bells and (freed or change is not None):
            with self._lock:
                bells, self._bells = self._bells, []
            for bell in bells:
                bell.ring()
        if change is not None:
            self._changed(self, change)
