"""What others have a circuit do: manual commands, and what a shared storage says of it."""

from __future__ import annotations

from resilience._core.clock import now as clock_now

from .isolation import Isolation
from .machine import Machine
from .states import CLOSED, HALF_OPEN, OPEN, Closed, Event, HalfOpen, Isolated, Open

__all__ = ["Commanded"]


class Commanded(Machine):
    """A state that others may change."""

    __slots__ = ()

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

        self._do(change)
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

        self._do(change)

    def _release(self, isolation: Isolation) -> None:
        def change() -> None:
            state = self._state
            if type(state) is Isolated and isolation in state.holds:
                state.holds.discard(isolation)
                if not state.holds:
                    self._move(Event.RELEASED, clock_now())

        self._do(change)

    # What a shared storage says

    @property
    def _isolated_here(self) -> bool:
        """Whether it was isolated by a manual command here."""
        state = self._state
        return type(state) is Isolated and bool(state.holds)

    def _adopt(self, state: str, left: float, now: float) -> None:
        """Take over what a storage says, if it says something else."""
        if state not in (CLOSED, OPEN, HALF_OPEN):
            return  # a state of somebody else's own

        def change() -> None:
            moved = self._move(Event.TOLD_CLOSED if state == CLOSED else Event.TOLD_OPEN, now)
            if type(moved) is Open:
                moved.until, moved.asked = now + left, None

        self._do(change)

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

        self._do(change)

    def _recount(self, openings: int) -> None:
        """Take over how often the shared circuit has opened in a row."""
        if type(self._state) in (Open, HalfOpen):
            self._openings = openings

    def _count(self, failures: int) -> None:
        """Take over a storage's count of failures, if it is higher."""

        def change() -> None:
            state = self._state
            if type(state) is Closed and failures > state.run:
                state.run = failures

        self._do(change)
