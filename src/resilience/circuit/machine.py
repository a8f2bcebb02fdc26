"""The state of a circuit and how it changes: one change at a time, under one lock.

The lock is held for microseconds, never around the user's call, a wait or a listener. A signal
handler or a finalizer may arrive between any two steps of a change, in the very thread that makes
it: what it wants changed waits in the inbox, and is done next. Whether calls may be at rest is
decided last, by the state that is there then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from weakref import ref

from resilience._core.clock import now as clock_now
from resilience._core.identity import Identity
from resilience._core.locks import new_lock
from resilience.failures import Failure
from resilience.policy import Waiter

from .limits import Limits
from .opening import OTHERWISE, Opening, open_time
from .states import (
    CLOSED,
    DISABLED,
    HALF_OPEN,
    ISOLATED,
    MANUAL,
    OPEN,
    TABLE,
    Change,
    Closed,
    Disabled,
    Event,
    HalfOpen,
    Isolated,
    Open,
    State,
)
from .trip import Gauge

__all__ = ["Machine", "Owner", "is_ours", "nothing"]

T = TypeVar("T")


class Owner(Protocol):
    """What keeps circuits. Called without a circuit's lock, but for a change within a change."""

    limits: Limits
    name: str | None

    def suspend(self, circuit: Any) -> None:
        """A circuit may change."""

    def update(self, circuit: Any) -> None:
        """It has changed, or has not."""

    def remember(self, circuit: Any) -> None:
        """A call of it was counted: if it was forgotten meanwhile, it is kept again."""

    def publish(self, circuit: Any, change: Change) -> None:
        """Tell everybody of a change of its state."""


class Turn:
    """A turn to do without the lock what one thread at a time does.

    It is a local variable of the function that does it, and known by a weak reference: so it is
    over with that, however Ctrl-C may end it.
    """

    __slots__ = ("__weakref__", "thread")

    thread: int


def is_ours(turn: ref[Turn] | None) -> bool:
    """Whether it is this thread's turn: whoever asks is user code that is being called in it."""
    taken = None if turn is None else turn()
    return taken is not None and taken.thread == threading.get_ident()


class Machine(Identity):
    """A state, its changes, and those who are to be told of them. Safe from any thread."""

    __slots__ = (
        "__weakref__",
        "_gauges",
        "_inbox",
        "_lock",
        "_opened",
        "_openings",
        "_outbox",
        "_owner",
        "_publishing",
        "_refused",
        "_shadow",
        "_state",
        "_waiting",
        "_working",
    )

    def __init__(self, owner: Owner, epoch: int) -> None:
        self._owner = owner
        self._gauges = self._fresh_gauges()  # what it counted while it was last closed
        self._state: State = Closed(self._gauges)
        self._state.epoch = epoch
        self._shadow = False
        self._openings = 0  # in a row, without closing
        self._opened: float | None = None  # since when it is not closed
        self._refused = 0  # calls, since it was last closed
        self._lock = new_lock()
        self._working = False  # whether a change is being made, in the thread that has the lock
        self._inbox: list[Callable[[], object]] = []  # changes still to be made
        self._outbox: list[Change] = []  # those still to be published
        self._publishing: ref[Turn] | None = None  # whose turn it is to publish
        self._waiting: list[Waiter] = []  # of calls that wait for a trial's verdict

    @property
    def _idle(self) -> bool:
        """Whether a healthy call needs no admission here."""
        state = self._state  # read once, here as everywhere: a handler may change it between looks
        if type(state) is Closed:
            return state.ramp is None and (state.run == 0 or bool(state.gauges))
        return type(state) is Disabled

    @property
    def _cause(self) -> BaseException | None:
        """What has opened it."""
        state = self._state
        return state.cause if isinstance(state, (Open, HalfOpen)) else None

    # Changes

    def _do(self, change: Callable[[], object]) -> None:
        """Make a change, alone; then decide whether calls may be at rest, and publish it."""
        nested = self._lock._is_owned() and self._working
        try:
            self._owner.suspend(self)
            with self._lock:
                if nested:  # within a change in this very thread, which goes on with ours
                    self._inbox.append(change)
                    return
                while True:
                    try:
                        self._working = True
                        change()
                    finally:
                        self._working = False
                    if not self._inbox:
                        break
                    change = self._inbox.pop(0)
                state, waiting, changed = self._state, self._waiting, bool(self._outbox)
                if waiting:
                    self._waiting = []
        finally:
            self._owner.update(self)
        if type(state) is Open and state.asked is not None:
            self._ask(state)
        for waiter in waiting:  # for a trial's verdict
            waiter.set()
        if changed:
            self._publish()

    def _alone(self, act: Callable[[bool], T]) -> T:
        """Do what changes no state under the lock. `act` is told whether it is done within a change
        of state; such changes as arrive within it are made afterwards."""
        nested = self._lock._is_owned() and self._working
        with self._lock:
            try:
                self._working = True
                found = act(nested)
            finally:
                self._working = nested
            arrived = bool(self._inbox)
        if arrived and not nested:
            self._do(nothing)
        return found

    def _move(
        self,
        event: str,
        now: float,
        cause: BaseException | None = None,
        failure: Failure | None = None,
        holds: set[object] | None = None,
    ) -> State | None:
        """Go to the state that `event` leads to; None if it leads nowhere from here."""
        old = self._state
        name = TABLE.get((old.name, event))
        if name is None:
            return None
        new: State
        if name == OPEN:
            self._openings += 1
            new = self._opened_by(Opening(self._openings, now, cause, failure))
        elif name == HALF_OPEN:
            new = HalfOpen(old.cause if type(old) is Open else None)
        elif name == ISOLATED:
            new = Isolated(holds or set())
        else:
            self._openings = self._refused = 0
            self._gauges = self._fresh_gauges()
            new = Disabled() if name == DISABLED else self._closed_by(event, old, now)
        if name in (CLOSED, DISABLED):
            self._opened = None
        elif self._opened is None:
            self._opened = now
        self._state = new
        if isinstance(old, (Open, HalfOpen)):
            old.cause = None  # or the next failure would keep it, by the permit of its trial
        if old.name != name or event in MANUAL:
            self._outbox.append(Change(old.name, name, event))
        return new

    def _opened_by(self, opening: Opening) -> Open:
        reset_after = self._owner.limits.reset_after
        if callable(reset_after):
            # To be asked without the lock; it ends some time even if that is not to be.
            return Open(opening.ends(OTHERWISE), opening, opening.cause)
        return Open(opening.ends(reset_after), None, opening.cause)

    def _closed_by(self, event: str, old: State, now: float) -> Closed:
        limits = self._owner.limits
        ramps = limits.ramp and event in (Event.PASSED, Event.SHARED_CLOSED)
        ramp = now + limits.ramp if ramps and old.name != CLOSED else None
        return Closed(self._gauges, ramp)

    def _fresh_gauges(self) -> tuple[Gauge, ...]:
        return tuple(map(Gauge, self._owner.limits.rates))

    def _end_ramp(self, now: float) -> None:
        state = self._state
        if type(state) is Closed and state.ramp is not None and now >= state.ramp:
            state.ramp = None

    # Without the lock: user code runs here

    def _ask(self, state: Open) -> None:
        """Ask the wait how long to stay open, if that is still to be done: once for each opening,
        whoever comes along meanwhile."""
        if self._lock._is_owned() and self._working:
            return  # whoever opens it asks, without the lock
        turn = None
        try:
            with self._lock:
                opening = state.asked
                if opening is None:
                    return
                turn = Turn()
                turn.thread = threading.get_ident()
                state.asking, state.asked = ref(turn), None
            state.until = opening.ends(open_time(self._owner.limits.reset_after, opening))
        finally:
            turn = None

    def _publish(self) -> None:
        """Publish each change of state, in order.

        One thread at a time publishes; what others change meanwhile is published by it, too.
        """
        turn = None
        while self._outbox:
            try:
                with self._lock:
                    if self._publishing is not None and self._publishing() is not None:
                        return
                    turn = Turn()
                    turn.thread = threading.get_ident()
                    self._publishing = ref(turn)
                while self._outbox:
                    self._owner.publish(self, self._outbox.pop(0))
            finally:
                turn = None

    # Sums

    def _left(self, now: float) -> float | None:
        """Seconds until a call may be tried; None while closed, or where nobody knows."""
        state = self._state
        if type(state) is Open:
            return max(0.0, state.until - now) if state.known else None
        return 0.0 if type(state) is HalfOpen else None

    def _share(self, state: Closed, now: float) -> float | None:
        """The share of calls let through after closing; None for all."""
        if state.ramp is None or now >= state.ramp:
            return None
        return 1.0 - (state.ramp - now) / self._owner.limits.ramp

    def _open_time(self) -> float:
        """Seconds for which it stays open; by a wait, what that would say now."""
        opening = Opening(max(1, self._openings), clock_now(), self._cause, None)
        return open_time(self._owner.limits.reset_after, opening)


def nothing() -> None:
    """A change that only has the inbox emptied."""
