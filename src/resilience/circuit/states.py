"""What a circuit can be, what can happen to it, and what that leads to.

`TABLE` is the whole machine: an event that it does not list for a state changes nothing there.
The diagram in the docs is drawn from it. A state is an object, and what means nothing elsewhere
exists in its state alone; as long as it is the same object, nothing has happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from weakref import ref

from resilience.failures import Failure

from .opening import Opening

if TYPE_CHECKING:
    from .trip import Gauge

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
    OTHERS_OPENED = "others have opened it"
    OTHERS_CLOSED = "others have closed it"
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
    (CLOSED, Event.OTHERS_OPENED): OPEN,
    (OPEN, Event.OTHERS_CLOSED): CLOSED,
    (HALF_OPEN, Event.OTHERS_CLOSED): CLOSED,
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


class Change(NamedTuple):
    """A change of state; by a manual command, also to the state that it was in."""

    old: str
    new: str
    event: str = ""
    rejected: int = 0
    """Calls, since it was last closed."""


class Ending(NamedTuple):
    """How a call has ended: well, badly, or without a verdict (`failed` is None)."""

    failed: bool | None
    now: float
    cause: BaseException | None = None
    failure: Failure | None = None


class State:
    """What all states have: a name, and the epoch in which they began. The machine makes them."""

    __slots__ = ("epoch",)
    name: ClassVar[str]
    epoch: int


class Closed(State):
    """Calls go through and are counted."""

    __slots__ = ("gauges", "permit", "ramp", "run")
    name = CLOSED
    gauges: tuple[Gauge, ...]
    ramp: float | None
    """Until when only a growing share of the calls is let through; None: all are."""
    run: int
    """Failures in a row."""
    permit: Any
    """Of all calls that are not timed, in one runtime; none until there was one."""


class Open(State):
    """Calls are rejected until a time."""

    __slots__ = ("asked", "cause", "until")
    name = OPEN
    until: float
    asked: Opening | None
    """What a wait is still to be asked with, for how long it is; `until` is a limit meanwhile."""
    cause: BaseException | None


class HalfOpen(State):
    """A few trials go through, and decide."""

    __slots__ = ("cause", "failed", "passed", "slots")
    name = HALF_OPEN
    cause: BaseException | None
    passed: int
    failed: int
    slots: tuple[ref[Any], ...]
    """The permits of the trials that have not ended. Weak: Ctrl-C between any two steps may lose a
    permit, whose slot is then free again."""


class Isolated(State):
    """Calls are rejected until the last of those who isolated it lets go."""

    __slots__ = ("holds",)
    name = ISOLATED
    holds: set[object]


class Disabled(State):
    """Calls go through and nothing is counted."""

    __slots__ = ()
    name = DISABLED


UNCOUNTED = Disabled()
"""No circuit is ever in this state: a call admitted in it goes through and counts nowhere."""
