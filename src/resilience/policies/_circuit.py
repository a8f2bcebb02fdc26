"""The circuit itself: a small machine shared by many calls, which admits or refuses them.

Decisions are made under a lock held for microseconds, never around the user's call. An answer
counts only if the circuit has not changed state since its call was admitted.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from attrs import define, field, frozen

from resilience._core.locks import new_lock
from resilience._core.rest import epochs
from resilience._core.world import moment
from resilience._core.world import now as world_now
from resilience.errors import CircuitOpenError

__all__ = ["CLOSED", "HALF_OPEN", "ISOLATED", "OPEN", "Change", "Circuit", "Limits", "Permit"]

# pybreaker's names for its three states, and one of ours.
CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half-open"
ISOLATED = "isolated"


@frozen
class Limits:
    """What makes a circuit open and close."""

    failures: int = 5
    reset_after: float = 60.0
    trials: int = 1
    successes: int = 1


@frozen
class Change:
    """A change of state."""

    old: str
    new: str


@define(eq=False)
class Permit:
    """Leave to make one call. It is settled once: by a verdict, or given back without one."""

    circuit: Circuit
    epoch: int
    trial: bool = False
    settled: bool = False

    def succeeded(self) -> Change | None:
        """The call went well."""
        return self.circuit._settle(self, failed=False)

    def failed(self, cause: BaseException | None = None) -> Change | None:
        """The call failed in a way that tells against the service."""
        return self.circuit._settle(self, failed=True, cause=cause)

    def released(self) -> None:
        """No verdict: cancelled, interrupted, or failed for a reason of the caller's own."""
        if not self.settled:
            self.circuit._settle(self, failed=None)


@define(eq=False, repr=False)
class Circuit:
    """One circuit: `state`, `retry_at`, and `open()`, `close()`, `isolate()` by hand.

    Safe from any thread. `key` is its value in a keyed breaker.
    """

    limits: Limits
    name: str | None = None
    key: Any = None
    _changed: Callable[[Circuit, Change], None] = field(default=lambda circuit, change: None)
    _stirred: Callable[[Circuit, bool], None] = field(default=lambda circuit, calm: None)
    _lock: Any = field(factory=new_lock, init=False)
    _state: str = field(default=CLOSED, init=False)
    _run: int = field(default=0, init=False)  # failures in a row while closed
    _passed: int = field(default=0, init=False)  # trials that went well while half open
    _out: int = field(default=0, init=False)  # trials under way
    _until: float = field(default=0.0, init=False)  # end of the open time
    _since: int = field(default=0, init=False)  # epoch of the last change of state
    _cause: BaseException | None = field(default=None, init=False)

    # For people

    @property
    def state(self) -> str:
        """ "closed", "open", "half-open" or "isolated".

        An open circuit whose time is up says "open" until a call comes along and tries it.
        """
        return self._state

    @property
    def failures(self) -> int:
        """Failures in a row since the last success, while closed."""
        return self._run

    @property
    def retry_after(self) -> float | None:
        """Seconds until a call may be tried; None while closed, or isolated by hand."""
        with self._lock:
            return self._left(world_now())

    @property
    def retry_at(self) -> datetime | None:
        """The time at which a call may be tried (aware, UTC); None while closed or isolated."""
        return moment(self.retry_after)

    def open(self) -> None:
        """Open as failures would have: trials are let through after `reset_after` seconds."""
        with self._lock:
            change = self._open(world_now(), None)
        self._tell(change)

    def close(self) -> None:
        """Close, whatever has happened; answers of calls begun before change nothing."""
        with self._lock:
            change = self._move(CLOSED)
        self._tell(change)

    def isolate(self) -> None:
        """Refuse all calls until `close()`."""
        with self._lock:
            change = self._move(ISOLATED)
        self._tell(change)

    def __repr__(self) -> str:
        key = "" if self.key is None else f" for {self.key!r}"
        return f"<circuit {self.name or 'without a name'}{key}: {self._state}>"

    # For the policy

    @property
    def closed(self) -> bool:
        return self._state == CLOSED

    def admit(self, now: float) -> Permit:
        """Leave to make a call, or `CircuitOpenError`."""
        epoch = epochs.now  # read first: a change that falls in between makes it out of date
        if self._state == CLOSED:
            return Permit(self, epoch)
        permit = change = None
        with self._lock:
            if self._state == OPEN and now >= self._until:
                change = self._move(HALF_OPEN)
            if self._state == CLOSED:
                permit = Permit(self, epochs.now)
            elif self._state == HALF_OPEN and self._out < self.limits.trials:
                self._out += 1
                permit = Permit(self, epochs.now, trial=True)
            left, cause = self._left(now), self._cause
        try:
            self._tell(change)
        except BaseException:  # Ctrl-C in a listener: the place is not lost
            if permit is not None:
                permit.released()
            raise
        if permit is not None:
            del cause
            return permit
        try:
            raise CircuitOpenError(left, moment(left), self.name, self.key) from cause
        finally:
            del cause

    def resume(self, epoch: int) -> Permit:
        """The permit of a call that was begun at rest in `epoch`."""
        return Permit(self, epoch)

    def refuses(self, now: float) -> bool:
        """Whether a call would be refused now."""
        if self._state == CLOSED:
            return False
        with self._lock:
            if self._state == OPEN:
                return now < self._until
            return self._state != CLOSED and (
                self._state == ISOLATED or self._out >= self.limits.trials
            )

    def adopt(self, state: str, left: float, now: float) -> None:
        """Take over what a shared storage says, if it says something else."""
        change = None
        with self._lock:
            if state == CLOSED and self._state in (OPEN, HALF_OPEN):
                change = self._move(CLOSED)
            elif state in (OPEN, HALF_OPEN) and self._state == CLOSED:
                change = self._open(now, None)
                self._until = now + left
        self._tell(change)

    def count(self, failures: int) -> None:
        """Take over a storage's count of failures, if it is higher."""
        with self._lock:
            if self._state == CLOSED and failures > self._run:
                self._run = failures
                self._note_calm()

    # The machine; all of it under the lock

    def _settle(
        self, permit: Permit, *, failed: bool | None, cause: BaseException | None = None
    ) -> Change | None:
        if failed is False and self._state == CLOSED and self._run == 0 and not permit.trial:
            permit.settled = True  # a healthy call of a healthy circuit: nothing to count
            return None
        with self._lock:
            if permit.settled:
                return None
            permit.settled = True
            if self._since > permit.epoch:
                return None  # the circuit has changed since; its trial places are new ones too
            if permit.trial:
                self._out -= 1
            change = self._judge(failed, cause)
        self._tell(change)
        return change

    def _judge(self, failed: bool | None, cause: BaseException | None) -> Change | None:
        if failed is None or self._state in (OPEN, ISOLATED):
            return None
        if self._state == HALF_OPEN:
            if failed:
                return self._open(world_now(), cause)
            self._passed += 1
            return self._move(CLOSED) if self._passed >= self.limits.successes else None
        self._run = self._run + 1 if failed else 0
        if self._run >= self.limits.failures:
            return self._open(world_now(), cause)
        self._note_calm()
        return None

    def _open(self, now: float, cause: BaseException | None) -> Change | None:
        change = self._move(OPEN)
        self._until = now + self.limits.reset_after
        self._cause = cause
        return change

    def _move(self, state: str) -> Change | None:
        old, self._state = self._state, state
        self._since = epochs.advance()
        self._run = self._passed = self._out = 0
        if state in (CLOSED, ISOLATED):
            self._cause = None
        self._note_calm()
        return None if old == state else Change(old, state)

    def _note_calm(self) -> None:
        self._stirred(self, self._state == CLOSED and self._run == 0)

    def _left(self, now: float) -> float | None:
        if self._state == OPEN:
            return max(0.0, self._until - now)
        return 0.0 if self._state == HALF_OPEN else None

    def _tell(self, change: Change | None) -> None:
        if change is not None:
            self._changed(self, change)
