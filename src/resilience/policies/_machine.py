"""What a circuit is made of and how it changes: the machine, without its lock.

`Circuit` takes the lock around all that is here, and tells others afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from weakref import ref

from attrs import define, field

from resilience._core.identity import Identity
from resilience._core.rest import epochs
from resilience._core.world import moment
from resilience._core.world import now as world_now
from resilience.failures import Failure

from ._limits import Limits
from ._opening import OTHERWISE, Opening, open_time
from ._permit import Isolation, Permit
from ._snapshot import Snapshot
from ._states import BY_HAND, CLOSED, DISABLED, HALF_OPEN, ISOLATED, OPEN, TABLE, Change, Event
from ._trip import Gauge

__all__ = ["Machine"]


def _untold(circuit: Any, what: Any = None) -> None:
    """Where nobody is to be told."""


@define(eq=False, repr=False)
class Machine(Identity):
    """The state of one circuit, its counts and trial places. Not safe from other threads."""

    limits: Limits
    name: str | None = None
    key: Any = None
    _changed: Callable[[Any, Change], None] = field(default=_untold)
    _stirred: Callable[[Any, bool], None] = field(default=_untold)
    _counted: Callable[[Any], None] = field(default=_untold)
    _state: str = field(default=CLOSED, init=False)
    _shadow: bool = field(default=False, init=False)
    _run: int = field(default=0, init=False)  # failures in a row while closed
    _gauges: tuple[Gauge, ...] = field(init=False)
    _passed: int = field(default=0, init=False)  # trials that went well while half open
    _missed: int = field(default=0, init=False)  # trials that did not
    _places: dict[ref[Permit], float] = field(factory=dict, init=False)  # given up on when
    _until: float = field(default=0.0, init=False)  # end of the open time
    _asked: Opening | None = field(default=None, init=False)  # an open time not yet known
    _asking: int = field(default=0, init=False)  # epoch of the opening whose time is being asked
    _openings: int = field(default=0, init=False)  # in a row, without closing
    _opened: float | None = field(default=None, init=False)  # since when it is not closed
    _ramp: float | None = field(default=None, init=False)  # end of the time after closing
    _since: int = field(default=0, init=False)  # epoch of the last change of state
    _cause: BaseException | None = field(default=None, init=False)
    _last: Failure | None = field(default=None, init=False)
    _refused: int = field(default=0, init=False)  # calls, since it was last closed
    _isolations: set[Isolation] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._gauges = tuple(map(Gauge, self.limits.rates))

    @property
    def calm(self) -> bool:
        """Whether a healthy call needs no admission here."""
        if self._state == CLOSED:
            return self._ramp is None and (self._run == 0 or bool(self._gauges))
        return self._state == DISABLED

    @property
    def ramp(self) -> float | None:
        """The end of the time after closing in which only some calls are let through."""
        return self._ramp

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
    def openings(self) -> int:
        """In a row, without having closed."""
        return self._openings

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

    def _full(self, now: float) -> bool:
        """Whether all trial places are taken."""
        if len(self._places) >= self.limits.trials:
            kept = set(self._trials(now))
            for place in list(self._places):
                if place() not in kept:
                    # One by one, not a new dict: a signal's handler may call between any two steps.
                    self._places.pop(place, None)
        return len(self._places) >= self.limits.trials

    def _trials(self, now: float) -> list[Permit]:
        """The trials under way: none that hang; none of the process that this one was forked from,
        whose threads are not here to end them; none whose permit was lost, as Ctrl-C between any
        two steps of ours may have it."""
        here = os.getpid()
        permits = [(place(), end) for place, end in list(self._places.items())]
        return [
            permit
            for permit, end in permits
            if permit is not None and permit.process == here and end > now
        ]

    def _tried_by(self, calls: tuple[int, ...], now: float) -> bool:
        """Whether one of these calls has a trial place."""
        return any(permit.call in calls for permit in self._trials(now))

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
            # To be asked without the lock; it ends some time even if that is not to be.
            self._until, self._asked = opening.ends(OTHERWISE), opening
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
        return Change(old, new, event) if old != new or event in BY_HAND else None

    def _note_calm(self) -> None:
        self._stirred(self, self.calm)

    def _end_ramp(self, now: float) -> None:
        if self._ramp is not None and now >= self._ramp:
            self._ramp = None
            self._note_calm()

    def _share(self, now: float) -> float | None:
        """The share of calls let through after closing; None for all."""
        if self._ramp is None or now >= self._ramp:
            return None
        return 1.0 - (self._ramp - now) / self.limits.ramp

    def _left(self, now: float) -> float | None:
        if self._state == OPEN:
            return max(0.0, self._until - now) if self._asked is None else None
        return 0.0 if self._state == HALF_OPEN else None

    def _read(self, now: float) -> Snapshot:
        left = self._left(now)
        return Snapshot(
            state=self._state,
            shadow=self._shadow,
            name=self.name,
            key=self.key,
            failures=self._run,
            readings=tuple(gauge.read(now) for gauge in self._gauges),
            trials=len(self._trials(now)),
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
