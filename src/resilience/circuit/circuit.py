"""One circuit, as people and shared storages see it: its state, and what they have it do."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from resilience._core.clock import moment
from resilience._core.clock import now as clock_now

from .machine import Machine
from .states import CLOSED, HALF_OPEN, OPEN, Closed, Event, HalfOpen, Isolated, Open, State

if TYPE_CHECKING:
    from .snapshot import Snapshot

__all__ = ["Circuit", "Isolation"]


class Isolation:
    """A hold on a circuit: as long as anybody has one, it rejects all calls."""

    __slots__ = ("_circuit",)

    def __init__(self, circuit: Any) -> None:
        self._circuit = circuit

    def release(self) -> None:
        """Let go; the circuit closes with the last of its isolations. Again: nothing happens."""
        self._circuit._release(self)

    def __enter__(self) -> Isolation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<isolation of {self._circuit!r}>"


class Circuit(Machine):
    """One circuit: `state`, `snapshot()`, and the manual commands `open()`, `close()`,
    `isolate()`, `disable()`, `shadow()`.

    Safe from any thread. `key` is its value in a keyed breaker, `model` the same where the
    key is the argument "model".
    """

    __slots__ = ()

    @property
    def name(self) -> str | None:
        """The breaker's."""
        return self._owner.name

    @property
    def state(self) -> str:
        """ "closed", "open", "half-open", "isolated" or "disabled".

        An open circuit whose time is up says "open" until a call comes along and tries it.
        """
        return self._state.name

    @property
    def failures(self) -> int:
        """Failures in a row since the last success, while closed."""
        state = self._state
        return state.run if type(state) is Closed else 0

    @property
    def retry_after(self) -> float | None:
        """Seconds until a call may be tried; None while closed, or where nobody knows."""
        return self._left(clock_now())

    @property
    def retry_at(self) -> datetime | None:
        """The time at which a call may be tried (aware, UTC); None while closed or isolated."""
        return moment(self.retry_after)

    def snapshot(self) -> Snapshot:
        """How it stands now, as a value."""
        from .snapshot import Snapshot  # not under the lock

        return self._locked(partial(self._read, Snapshot))

    def _read(self, made: type[Snapshot]) -> Snapshot:
        now, state = clock_now(), self._state
        closed = state if type(state) is Closed else None
        half_open = state if type(state) is HalfOpen else None
        left = self._left(now)
        return made(
            state=state.name,
            shadow=self._shadow,
            name=self.name,
            key=self.key,
            failures=0 if closed is None else closed.run,
            readings=tuple(gauge.read(now) for gauge in self._gauges),
            trials=0 if half_open is None else len(self._trials(half_open, now)),
            passed=0 if half_open is None else half_open.passed,
            failed=0 if half_open is None else half_open.failed,
            opened_at=None if self._opened is None else moment(self._opened - now),
            opened_for=None if self._opened is None else now - self._opened,
            retry_at=moment(left),
            retry_after=left,
            refused=self._refused,
            ramp=None if closed is None else self._share(closed, now),
            last_failure=self._last_failure,
        )

    def __repr__(self) -> str:
        # What else is a key may be a secret.
        model = "" if self._model is None else f" for {self._model!r}"
        return f"<circuit {self.name or 'without a name'}{model}: {self._shown}>"

    @property
    def _shown(self) -> str:
        return f"{self.state}, in shadow" if self._shadow else self.state

    # Manual commands

    def open(self) -> None:
        """Open as failures would have: trials are let through after `reset_after` seconds."""
        self._command(Event.OPENS)

    def close(self) -> None:
        """Close, whatever has happened; answers of calls begun before change nothing.

        Ends all isolations, `disable()` and `shadow()`.
        """
        self._command(Event.CLOSES)

    def isolate(self) -> Isolation:
        """Reject all calls until told otherwise.

        What is returned ends it with `release()`, or at the end of a `with` block; it closes when
        the last of several has ended. `close()` and the other commands end all of them.
        """
        isolation = Isolation(self)

        def change() -> None:
            self._shadow = False
            before = self._state
            holds = before.holds if type(before) is Isolated else set()
            self._move(Event.ISOLATES, clock_now(), holds={*holds, isolation})

        self._apply(change)
        return isolation

    def disable(self) -> None:
        """Let all calls through and count nothing, until told otherwise."""
        self._command(Event.DISABLES)

    def shadow(self) -> None:
        """Close, and from then on count and report changes of state but reject nothing."""
        self._command(Event.CLOSES, shadow=True)

    def _command(self, event: str, *, shadow: bool = False) -> None:
        def change() -> None:
            self._shadow = shadow
            self._move(event, clock_now())

        self._apply(change)

    def _release(self, isolation: Isolation) -> None:
        def change() -> None:
            state = self._state
            if type(state) is Isolated and isolation in state.holds:
                state.holds.discard(isolation)
                if not state.holds:
                    self._move(Event.RELEASED, clock_now())

        self._apply(change)

    # What a shared storage says

    @property
    def _isolated_here(self) -> bool:
        """Whether it was isolated by a manual command here."""
        state = self._state
        return type(state) is Isolated and bool(state.holds)

    def _adopt(
        self, state: str, left: float, now: float, failures: int = 0, seen: State | None = None
    ) -> None:
        """Take over what a storage says, and its count of failures if that is higher; unless the
        circuit has changed since it was `seen` so: what was read is older then."""

        def change() -> None:
            if state not in (CLOSED, OPEN, HALF_OPEN):
                return  # a state of somebody else's own
            if seen is not None and seen is not self._state:
                return
            here = self._state
            if type(here) is Closed and failures > here.run:
                here.run = failures
            moved = self._move(Event.OTHERS_CLOSED if state == CLOSED else Event.OTHERS_OPENED, now)
            if type(moved) is Open:
                moved.until, moved.asked = now + left, None

        self._apply(change)

    def _follow(
        self, state: str, left: float, now: float, cause: BaseException | None = None
    ) -> None:
        """Be what the shared circuit is: open for `left` seconds, closed or isolated. Where it has
        been anything else in between, answers of calls begun before change nothing. `cause`: what
        has opened it, if that is known here."""
        events = {OPEN: Event.SHARED_OPEN, CLOSED: Event.SHARED_CLOSED}

        def change() -> None:
            self._move(events.get(state, Event.SHARED_ISOLATED), now, cause)
            here = self._state
            if type(here) is Open:
                here.until, here.asked = now + left, None
                here.cause = here.cause if cause is None else cause

        self._apply(change)

    def _recount(self, openings: int) -> None:
        """Take over how often the shared circuit has opened in a row."""
        if type(self._state) in (Open, HalfOpen):
            self._openings = openings
