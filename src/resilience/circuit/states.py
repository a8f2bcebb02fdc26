"""The states of a circuit, and what leads from one to another.

`TABLE` is the whole machine: an event that it does not list for a state changes nothing there.
The diagram in the docs is drawn from it. A state is an object, and what means nothing elsewhere
exists in its state alone; as long as it is the same object, nothing has happened.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar
from weakref import ref

from attrs import frozen

from resilience._core.idle import epochs

from .opening import Opening
from .trip import Gauge

__all__ = [
    "CLOSED",
    "DISABLED",
    "HALF_OPEN",
    "ISOLATED",
    "MANUAL",
    "OPEN",
    "TABLE",
    "UNCOUNTED",
    "Change",
    "Closed",
    "Disabled",
    "Event",
    "HalfOpen",
    "Isolated",
    "Open",
    "State",
]

# pybreaker's names for its three states, and two of ours.
CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half-open"
ISOLATED = "isolated"
DISABLED = "disabled"


class Event:
    """What can happen to a circuit. By others: what a shared storage says."""

    TRIPS = "a rule trips"
    TIME = "a call comes after the open time"
    PASSED = "the trials passed"
    FAILED = "the trials failed"
    OPENS = "open()"
    CLOSES = "close()"
    ISOLATES = "isolate()"
    RELEASED = "the last isolation is released"
    DISABLES = "disable()"
    TOLD_OPEN = "others have opened it"
    TOLD_CLOSED = "others have closed it"
    SHARED_OPEN = "the shared circuit is open"
    SHARED_CLOSED = "the shared circuit is closed"
    SHARED_ISOLATED = "the shared circuit is isolated"


MANUAL = (Event.OPENS, Event.CLOSES, Event.ISOLATES, Event.RELEASED, Event.DISABLES)
"""Manual commands: they are published even where nothing changes here."""

_ANY = (CLOSED, OPEN, HALF_OPEN, ISOLATED, DISABLED)

TABLE: dict[tuple[str, str], str] = {
    (CLOSED, Event.TRIPS): OPEN,
    (OPEN, Event.TIME): HALF_OPEN,
    (HALF_OPEN, Event.PASSED): CLOSED,
    (HALF_OPEN, Event.FAILED): OPEN,
    (ISOLATED, Event.RELEASED): CLOSED,
    (CLOSED, Event.TOLD_OPEN): OPEN,
    (OPEN, Event.TOLD_CLOSED): CLOSED,
    (HALF_OPEN, Event.TOLD_CLOSED): CLOSED,
    (CLOSED, Event.SHARED_OPEN): OPEN,
    (HALF_OPEN, Event.SHARED_OPEN): OPEN,
    (ISOLATED, Event.SHARED_OPEN): OPEN,
    (CLOSED, Event.SHARED_CLOSED): CLOSED,  # after having been something else in between
    (OPEN, Event.SHARED_CLOSED): CLOSED,
    (HALF_OPEN, Event.SHARED_CLOSED): CLOSED,
    (ISOLATED, Event.SHARED_CLOSED): CLOSED,
    (CLOSED, Event.SHARED_ISOLATED): ISOLATED,
    (OPEN, Event.SHARED_ISOLATED): ISOLATED,
    (HALF_OPEN, Event.SHARED_ISOLATED): ISOLATED,
    **{(state, Event.OPENS): OPEN for state in _ANY},
    **{(state, Event.CLOSES): CLOSED for state in _ANY},
    **{(state, Event.ISOLATES): ISOLATED for state in _ANY},
    **{(state, Event.DISABLES): DISABLED for state in _ANY},
}


@frozen
class Change:
    """A change of state; by a manual command, also to the state that it was in."""

    old: str
    new: str
    event: str = ""


class State:
    """What all states have: a name, and the epoch in which they began."""

    __slots__ = ("epoch",)

    name: ClassVar[str]
    epoch: int


class Closed(State):
    """Calls go through and are counted."""

    __slots__ = ("gauges", "ramp", "run")

    name = CLOSED

    def __init__(self, gauges: tuple[Gauge, ...], ramp: float | None = None) -> None:
        self.epoch = epochs.advance()
        self.run = 0
        """Failures in a row."""
        self.gauges = gauges
        self.ramp = ramp
        """Until when only a growing share of the calls is let through; None: all are."""


class Open(State):
    """Calls are rejected until a time."""

    __slots__ = ("asked", "asking", "cause", "until")

    name = OPEN

    def __init__(self, until: float, asked: Opening | None, cause: BaseException | None) -> None:
        self.epoch = epochs.advance()
        self.until = until
        self.asked = asked
        """What a wait is still to be asked with, for how long it is."""
        self.asking: ref[Any] | None = None
        """Whose turn it is to ask."""
        self.cause = cause

    @property
    def known(self) -> bool:
        """Whether `until` is the last word; until the wait has answered, it is a limit."""
        return self.asked is None and (self.asking is None or self.asking() is None)


class HalfOpen(State):
    """A few trials go through, and decide. A trial is the permit that was given for it."""

    __slots__ = ("_slots", "cause", "failed", "passed")

    name = HALF_OPEN

    def __init__(self, cause: BaseException | None) -> None:
        self.epoch = epochs.advance()
        # Weak: Ctrl-C between any two steps may lose a permit, whose slot is then free again.
        self._slots: tuple[ref[Any], ...] = ()
        self.passed = self.failed = 0
        self.cause = cause

    @property
    def slots(self) -> list[Any]:
        """The trials that have not ended, those that hang included."""
        return [trial for slot in self._slots if (trial := slot()) is not None]

    def trials(self, now: float) -> list[Any]:
        """The trials under way: none that hang, and none of the process that this one was forked
        from, whose threads are not here to end them."""
        found: list[Any] = []
        here = os.getpid()
        for slot in self._slots:
            trial = slot()
            if trial is not None and trial.process == here and trial.until > now:
                found.append(trial)
        return found

    def take(self, trial: Any) -> None:
        """Take a slot for a trial."""
        self._slots = (*self._slots, ref(trial))

    def free(self, trial: Any) -> bool:
        """Free the slot of a trial, and those that were lost; False if it has none."""
        found = False
        left = []
        for slot in self._slots:
            other = slot()
            if other is trial:
                found = True
            elif other is not None:
                left.append(slot)
        self._slots = tuple(left)
        return found


class Isolated(State):
    """Calls are rejected until the last of those who isolated it lets go."""

    __slots__ = ("holds",)

    name = ISOLATED

    def __init__(self, holds: set[object]) -> None:
        self.epoch = epochs.advance()
        self.holds = holds


class Disabled(State):
    """Calls go through and nothing is counted."""

    __slots__ = ()

    name = DISABLED

    def __init__(self) -> None:
        self.epoch = epochs.advance()


UNCOUNTED = Disabled()
"""No circuit is ever in this state: a call admitted in it goes through and counts nowhere."""
