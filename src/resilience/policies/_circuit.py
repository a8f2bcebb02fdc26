"""The circuit itself: a small machine shared by many calls, which admits or refuses them.

Decisions are made under a lock held for microseconds, never around the user's call, a wait or a
listener. An answer counts only if the circuit has not changed state since its call was admitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from attrs import define, evolve, field

from resilience._core.locks import new_lock
from resilience._core.rest import epochs
from resilience._core.world import chance, moment
from resilience._core.world import now as world_now
from resilience.errors import CircuitOpenError
from resilience.failures import Failure

from ._limits import Limits
from ._opening import OTHERWISE, Opening, open_time
from ._permit import Bell, Isolation, Permit
from ._snapshot import Snapshot
from ._states import CLOSED, DISABLED, HALF_OPEN, ISOLATED, OPEN, TABLE, Change, Event
from ._trip import Gauge

__all__ = ["CLOSED", "HALF_OPEN", "ISOLATED", "OPEN", "Change", "Circuit", "Limits", "Permit"]


def _untold(circuit: Circuit, what: Any = None) -> None:
    """Where nobody is to be told."""


@define(eq=False, repr=False)
class Circuit:
    """One circuit: `state`, `snapshot()`, and by hand `open()`, `close()`, `isolate()`,
    `disable()`, `shadow()`.

    Safe from any thread. `key` is its value in a keyed breaker.
    """

    limits: Limits
    name: str | None = None
    key: Any = None
    _changed: Callable[[Circuit, Change], None] = field(default=_untold)
    _stirred: Callable[[Circuit, bool], None] = field(default=_untold)
    _counted: Callable[[Circuit], None] = field(default=_untold)
    backing: Any = field(default=None, init=False)
    """What shares it with others: see `_backing`."""
    used: float = field(default=0.0, init=False)
    """When a call last came along."""
    seen: float = field(default=0.0, init=False)
    """What `used` was when it was last asked whether it may be forgotten."""
    _lock: Any = field(factory=new_lock, init=False)
    _state: str = field(default=CLOSED, init=False)
    _shadow: bool = field(default=False, init=False)
    _run: int = field(default=0, init=False)  # failures in a row while closed
    _gauges: tuple[Gauge, ...] = field(init=False)
    _passed: int = field(default=0, init=False)  # trials that went well while half open
    _missed: int = field(default=0, init=False)  # trials that did not
    _places: dict[Permit, float] = field(factory=dict, init=False)  # trials, given up on when
    _until: float = field(default=0.0, init=False)  # end of the open time
    _asked: Opening | None = field(default=None, init=False)  # an open time not yet known
    _openings: int = field(default=0, init=False)  # in a row, without closing
    _opened: float | None = field(default=None, init=False)  # since when it is not closed
    _ramp: float | None = field(default=None, init=False)  # end of the time after closing
    _since: int = field(default=0, init=False)  # epoch of the last change of state
    _cause: BaseException | None = field(default=None, init=False)
    _last: Failure | None = field(default=None, init=False)
    _refused: int = field(default=0, init=False)
    _isolations: set[Isolation] = field(factory=set, init=False)
    _bells: list[Bell] = field(factory=list, init=False)  # of calls that wait for a verdict

    def __attrs_post_init__(self) -> None:
        self._gauges = tuple(map(Gauge, self.limits.rates))

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
        now = world_now()
        with self._lock:
            left = self._left(now)
            return Snapshot(
                state=self._state,
                shadow=self._shadow,
                name=self.name,
                key=self.key,
                failures=self._run,
                readings=tuple(gauge.read(now) for gauge in self._gauges),
                trials=sum(end > now for end in self._places.values()),
                passed=self._passed,
                missed=self._missed,
                opened_at=None if self._opened is None else moment(self._opened - now),
                opened_for=None if self._opened is None else now - self._opened,
                retry_at=moment(left),
                retry_after=left,
                refused=self._refused,
                ramp=self._share(now),
                last_failure=self._last,
            )

    def __repr__(self) -> str:
        key = "" if self.key is None else f" for {self.key!r}"
        return f"<circuit {self.name or 'without a name'}{key}: {self.shown}>"

    # For the policy

    @property
    def shown(self) -> str:
        """The state, and whether it only reports."""
        return f"{self._state}, in shadow" if self._shadow else self._state

    @property
    def closed(self) -> bool:
        return self._state == CLOSED

    @property
    def open_time(self) -> float:
        """Seconds for which it stays open; by a wait, what that would say now."""
        wait = self.limits.reset_after
        return open_time(wait, Opening(max(1, self._openings), world_now(), self._cause, None))

    @property
    def forgettable(self) -> bool:
        """Whether it is just closed; asked without its lock."""
        return self._state == CLOSED and not self._shadow and self._ramp is None

    def clean(self, now: float, idle: float) -> bool:
        """Whether it was unused for `idle` seconds and has nothing to remember."""
        unused = now - self.used
        return unused >= idle and self._run == 0 and all(g.clean(unused) for g in self._gauges)

    @property
    def calm(self) -> bool:
        """Whether a healthy call needs no admission here."""
        if self._state == CLOSED:
            return self._ramp is None and (self._run == 0 or bool(self._gauges))
        return self._state == DISABLED

    def admit(self, now: float, draw: Callable[[], float] = chance) -> Permit:
        """Leave to make a call, or `CircuitOpenError`."""
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
            permit = self._place(now, drawn)
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

    def refuses(self, now: float) -> bool:
        """Whether a call would be refused now."""
        if self._state in (CLOSED, DISABLED) or self._shadow:
            return False
        self._ask()
        with self._lock:
            if self._state == OPEN:
                return now < self._until
            return self._state == ISOLATED or (self._state == HALF_OPEN and self._full(now))

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

    def follow(self, state: str, left: float, now: float) -> None:
        """Be what the shared circuit is: open for `left` seconds, closed or isolated. Where it has
        been anything else in between, answers of calls begun before change nothing."""
        event = {OPEN: Event.SHARED_OPEN, CLOSED: Event.SHARED_CLOSED}.get(
            state, Event.SHARED_ISOLATED
        )
        with self._lock:
            change = self._move(event, now)
            if self._state == OPEN:
                self._until = now + left
        self._tell(change)

    def counts(self, permit: Permit) -> bool:
        """Whether a call's answer is from this stretch of the state, and it is a closed one."""
        return self._state == CLOSED and self._since <= permit.epoch

    @property
    def shadowed(self) -> bool:
        """Whether it only reports."""
        return self._shadow

    @property
    def held(self) -> bool:
        """Whether it was isolated by hand here."""
        return bool(self._isolations)

    def count(self, failures: int) -> None:
        """Take over a storage's count of failures, if it is higher."""
        with self._lock:
            if self._state == CLOSED and failures > self._run:
                self._run = failures
                self._note_calm()

    # The machine; all of it under the lock

    def _place(self, now: float, drawn: float) -> Permit | None:
        if self._state == CLOSED:
            share = self._share(now)
            if share is None and self._ramp is not None:
                self._ramp = None
                self._note_calm()
            return Permit(self, epochs.now, now) if share is None or drawn < share else None
        if self._state == DISABLED:
            return Permit(self, epochs.now, now)
        if self._state != HALF_OPEN or self._full(now):
            return None
        permit = Permit(self, epochs.now, now, trial=True)
        self._places[permit] = now + self.limits.trial_timeout
        return permit

    def _full(self, now: float) -> bool:
        """Whether all trial places are taken; trials that hang are given up on here."""
        while self._places:
            oldest, end = next(iter(self._places.items()))
            if end > now:
                break
            del self._places[oldest]
        return len(self._places) >= self.limits.trials

    @property
    def _out(self) -> int:
        return len(self._places)

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
            if not permit.trial or self._places.pop(permit, 0.0) > now:
                if failed and self._state in (CLOSED, HALF_OPEN):
                    self._last = last
                change = self._judge(failed, now, now - permit.began, cause, failure)
        self._tell(change, freed=permit.trial)
        return change

    def _judge(
        self,
        failed: bool | None,
        now: float,
        took: float,
        cause: BaseException | None,
        failure: Failure | None,
    ) -> Change | None:
        if failed is None:
            return None
        if self._state == HALF_OPEN:
            if failed or took > self.limits.slower:
                self._missed += 1
                if self._missed > self.limits.missable:
                    return self._open(Event.BADLY, now, cause, failure)
                return None
            self._passed += 1
            return self._move(Event.WELL, now) if self._passed >= self.limits.successes else None
        if self._state != CLOSED:
            return None
        before, self._run = self._run, self._run + 1 if failed else 0
        trips = self._run >= self.limits.failures
        for gauge in self._gauges:
            trips = gauge.trips(now, failed, took) or trips
        if trips:
            return self._open(Event.TRIPS, now, cause, failure)
        if self._run != before and not self._gauges:
            self._note_calm()
        self._counted(self)
        return None

    def _open(
        self, event: str, now: float, cause: BaseException | None, failure: Failure | None
    ) -> Change | None:
        change = self._move(event, now)
        opening = Opening(self._openings, now, cause, failure)
        if not callable(self.limits.reset_after):
            self._until = opening.ends(self.limits.reset_after)
        else:
            self._until, self._asked = math.inf, opening  # to be asked without the lock
        self._cause = cause
        return change

    def _move(self, event: str, now: float) -> Change | None:
        new = TABLE.get((self._state, event))
        if new is None:
            return None
        old, self._state = self._state, new
        self._since = epochs.advance()
        self._run = self._passed = self._missed = 0
        self._places.clear()
        self._isolations = set()
        self._asked = self._ramp = None
        if new == OPEN:
            self._openings += 1
        if new in (CLOSED, DISABLED):
            self._openings = self._refused = 0
            self._opened = None
            for gauge in self._gauges:
                gauge.clear()
            if event in (Event.WELL, Event.SHARED_CLOSED) and old != CLOSED and self.limits.ramp:
                self._ramp = now + self.limits.ramp
        elif self._opened is None:
            self._opened = now
        if new in (CLOSED, DISABLED, ISOLATED):
            self._cause = None
        self._note_calm()
        return None if old == new else Change(old, new, event)

    def _released(self, isolation: Isolation) -> None:
        change = None
        with self._lock:
            if isolation in self._isolations:
                self._isolations.remove(isolation)
                if not self._isolations:
                    change = self._move(Event.FREES, world_now())
        self._tell(change)

    def _note_calm(self) -> None:
        self._stirred(self, self.calm)

    def _share(self, now: float) -> float | None:
        """The share of calls let through after closing; None for all."""
        if self._ramp is None or now >= self._ramp:
            return None
        return 1.0 - (self._ramp - now) / self.limits.ramp

    def _left(self, now: float) -> float | None:
        if self._state == OPEN:
            return max(0.0, self._until - now) if self._until < math.inf else None
        return 0.0 if self._state == HALF_OPEN else None

    # Without the lock

    def _ask(self) -> None:
        """Ask the wait how long to stay open, if that is still to be done."""
        opening, seconds = self._asked, OTHERWISE
        if opening is None:
            return
        try:
            seconds = open_time(self.limits.reset_after, opening)
        finally:
            with self._lock:
                if self._asked is opening:
                    self._asked = None
                    self._until = opening.ends(seconds)

    def _tell(self, change: Change | None, *, freed: bool = False) -> None:
        self._ask()
        if self._bells and (freed or change is not None):
            with self._lock:
                bells, self._bells = self._bells, []
            for bell in bells:
                bell.ring()
        if change is not None:
            self._changed(self, change)
