"""The states of a circuit, and what leads from one to another.

`TABLE` is the whole machine: an event that it does not list for a state changes nothing there.
The diagram in the docs is drawn from it.
"""

from __future__ import annotations

from attrs import frozen

__all__ = [
    "BY_HAND",
    "CLOSED",
    "DISABLED",
    "HALF_OPEN",
    "ISOLATED",
    "OPEN",
    "TABLE",
    "Change",
    "Event",
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
    WELL = "the trials went well"
    BADLY = "the trials went badly"
    OPENS = "open()"
    CLOSES = "close()"
    ISOLATES = "isolate()"
    FREES = "the last isolation is released"
    DISABLES = "disable()"
    TOLD_OPEN = "others have opened it"
    TOLD_CLOSED = "others have closed it"
    SHARED_OPEN = "the shared circuit is open"
    SHARED_CLOSED = "the shared circuit is closed"
    SHARED_ISOLATED = "the shared circuit is isolated"


BY_HAND = (Event.OPENS, Event.CLOSES, Event.ISOLATES, Event.FREES, Event.DISABLES)
"""What people do: others are to hear of it even where nothing changes here."""

_ANY = (CLOSED, OPEN, HALF_OPEN, ISOLATED, DISABLED)

TABLE: dict[tuple[str, str], str] = {
    (CLOSED, Event.TRIPS): OPEN,
    (OPEN, Event.TIME): HALF_OPEN,
    (HALF_OPEN, Event.WELL): CLOSED,
    (HALF_OPEN, Event.BADLY): OPEN,
    (ISOLATED, Event.FREES): CLOSED,
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
    """A change of state; by hand, also to the state that it was in."""

    old: str
    new: str
    event: str = ""
