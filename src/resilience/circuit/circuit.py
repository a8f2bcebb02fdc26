"""One circuit: whom it lets through, and what it makes of how their calls end.

State, gate and permits go by one lock (see `machine`). An answer counts only if the state is still
the one that its call was admitted in.
"""

from __future__ import annotations

import os
from datetime import datetime
from functools import partial
from typing import Any

from attrs import evolve

from resilience._core.clock import moment
from resilience._core.clock import now as clock_now
from resilience.errors import CircuitOpenError
from resilience.failures import Failure
from resilience.policy import Call, Runtime, Waiter

from .commands import Commanded
from .machine import Owner, is_ours, nothing
from .permit import Permit, is_inside, permit_of
from .snapshot import Snapshot
from .states import UNCOUNTED, Closed, Disabled, Event, HalfOpen, Open

__all__ = ["Circuit", "Permit"]


class Circuit(Commanded):
    """One circuit: `state`, `snapshot()`, and the manual commands `open()`, `close()`,
    `isolate()`, `disable()`, `shadow()`.

    Safe from any thread. `key` is its value in a keyed breaker.
    """

    __slots__ = ("_last_failure", "_seen", "_storage", "_used", "key")

    def __init__(self, owner: Owner, key: Any = None, epoch: int = 0) -> None:
        super().__init__(owner, epoch)  # it is good for calls begun before it was made
        self.key = key
        self._last_failure: Failure | None = None
        self._storage: Any = None  # what shares it with others
        self._used = self._seen = 0.0  # when a call last came; what that was when last looked at

    # For people

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
        return self._alone(self._read)

    def _read(self, nested: bool) -> Snapshot:
        now, state = clock_now(), self._state
        closed = state if type(state) is Closed else None
        half_open = state if type(state) is HalfOpen else None
        left = self._left(now)
        return Snapshot(
            state=state.name,
            shadow=self._shadow,
            name=self.name,
            key=self.key,
            failures=0 if closed is None else closed.run,
            readings=tuple(gauge.read(now) for gauge in self._gauges),
            trials=0 if half_open is None else len(half_open.trials(now)),
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
        key = "" if self.key is None else f" for {self.key!r}"
        return f"<circuit {self.name or 'without a name'}{key}: {self._shown}>"

    @property
    def _shown(self) -> str:
        return f"{self.state}, in shadow" if self._shadow else self.state

    # The gate

    def _refuses(self, now: float, call: Call | None = None) -> bool:
        """Whether a call would be rejected now; one inside a trial would not."""
        state = self._state
        if self._shadow or type(state) is Closed or type(state) is Disabled:
            return False
        if type(state) is Open:
            if state.asked is not None:
                self._ask(state)
            return now < state.until
        if type(state) is HalfOpen:
            trials = state.trials(now)
            return len(trials) >= self._owner.limits.trials and not is_inside(call, trials)
        return True

    def _admit(self, call: Call, runtime: Runtime) -> Permit | None:
        """A permit; None if the call must be rejected, or wait for a trial's verdict."""
        now = runtime.now()
        self._used = now
        state = self._state
        if type(state) is Open and state.asked is not None:
            self._ask(state)
        ramp = state.ramp if type(state) is Closed else None
        drawn = 0.0 if ramp is None else runtime.random()  # not under the lock
        nested = self._lock._is_owned() and self._working
        with self._lock:
            try:
                self._working = True
                permit = self._place(call, runtime, now, drawn, nested=nested)
            finally:
                self._working = nested
            arrived, changed = bool(self._inbox), bool(self._outbox)
        if nested:
            return permit
        try:
            if arrived or (ramp is not None and now >= ramp):
                self._do(partial(self._end_ramp, now))
            elif changed:
                self._publish()
        except BaseException:  # Ctrl-C in a listener: the slot is not lost
            if permit is not None:
                self._settle(permit, None, now)
            raise
        return permit

    def _place(
        self, call: Call, runtime: Runtime, now: float, drawn: float, *, nested: bool
    ) -> Permit | None:
        """`nested`: the call is made within a change of state. It gets no trial, nor does one of
        who is being told of a change: it might wait for itself."""
        state = self._state
        permit = None
        if type(state) is Closed:
            share = self._share(state, now)
            if share is None or drawn < share:
                permit = permit_of(self, state, now, runtime)
        elif type(state) is Disabled:
            permit = permit_of(self, state, now, runtime)
        elif not nested and not is_ours(self._publishing):
            permit = self._trial(call, runtime, now)
        if permit is None and self._shadow:
            self._refused += 1
            permit = permit_of(self, UNCOUNTED, now, runtime)
        return permit

    def _trial(self, call: Call, runtime: Runtime, now: float) -> Permit | None:
        """Leave to make a trial, if it is time for it and a slot is free."""
        state = self._state
        if type(state) is Open and now >= state.until and not is_ours(state.asking):
            state = self._move(Event.TIME, now) or state
        if type(state) is not HalfOpen:
            return None
        limits = self._owner.limits
        trials = state.trials(now)
        if trials:
            if is_inside(call, trials):
                return permit_of(self, None, now, runtime)
            if len(trials) >= limits.trials:
                return None
        permit = _new(Permit)
        permit.circuit = self
        permit.state = state
        permit.began = now
        permit.runtime = runtime
        permit.journal = call.journal
        permit.process = os.getpid()
        permit.until = now + limits.trial_timeout
        permit.lease = None
        state.take(permit)
        return permit

    def _refusal(self, now: float) -> CircuitOpenError:
        """What a call gets that is rejected."""
        with self._lock:
            self._refused += 1
        state = self._state
        left = self._left(now)
        if type(state) is Closed and state.ramp is not None:
            left = state.ramp - now
        refusal = CircuitOpenError(left, moment(left), self.name, self.key)
        refusal.__cause__ = self._cause
        return refusal

    def _resume(self, epoch: int, started: float) -> Permit:
        """The permit of a call that was begun at rest in `epoch`."""
        state = self._state
        return permit_of(self, state if state.epoch <= epoch else UNCOUNTED, started, None)

    def _queue(self, waiter: Waiter, now: float) -> float | None:
        """Have `waiter` set when there may be a slot. Seconds until there may be one without that;
        None where there is nothing to wait for."""

        def queue(nested: bool) -> float | None:
            state = self._state
            if type(state) is HalfOpen:
                if nested or is_ours(self._publishing):
                    return None  # it would wait for itself
                trials = state.trials(now)
                if len(trials) < self._owner.limits.trials:
                    return 0.0
                self._waiting.append(waiter)
                return float(min(trial.until for trial in trials) - now)
            there = type(state) is Disabled or (type(state) is Closed and state.ramp is None)
            return 0.0 if there else None

        return self._alone(queue)

    def _unqueue(self, waiter: Waiter) -> None:
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    # Verdicts

    def _settle(
        self,
        permit: Permit,
        failed: bool | None,
        now: float,
        cause: BaseException | None = None,
        failure: Failure | None = None,
    ) -> None:
        """A call has ended: well, badly, or (None) in a way that says nothing."""
        state = permit.state
        if state is not self._state:
            return  # it has no say, or is late: a state that has ended is never there again
        counts = failed is False and type(state) is Closed and bool(state.gauges)
        if counts and self._count_success(state, now - permit.began, now):
            self._owner.remember(self)
            return
        if type(state) is HalfOpen or (type(state) is Closed and failed is not None):
            self._do(partial(self._judge, permit, failed, now, cause, failure))

    def _judge(
        self,
        permit: Permit,
        failed: bool | None,
        now: float,
        cause: BaseException | None,
        failure: Failure | None,
    ) -> None:
        state, took = self._state, now - permit.began
        if permit.state is not state:
            return
        if type(state) is HalfOpen:
            if state.free(permit) and permit.until > now and failed is not None:
                self._judge_trial(state, failed, now, took, cause, failure)
        elif type(state) is Closed and failed is not None:
            if failed:
                self._note_failure(failure)
            state.run = state.run + 1 if failed else 0
            trips = state.run >= self._owner.limits.failures
            for gauge in state.gauges:
                trips = gauge.trips(now, failed, took) or trips
            if trips:
                self._move(Event.TRIPS, now, cause, failure)

    def _judge_trial(
        self,
        state: HalfOpen,
        failed: bool,
        now: float,
        took: float,
        cause: BaseException | None,
        failure: Failure | None,
    ) -> None:
        limits = self._owner.limits
        if failed:
            self._note_failure(failure)
        if failed or took > limits.slow_after:
            state.failed += 1
            if state.failed > limits.failable_trials:
                self._move(Event.FAILED, now, cause, failure)
        else:
            state.passed += 1
            if state.passed >= limits.successes:
                self._move(Event.PASSED, now)

    def _note_failure(self, failure: Failure | None) -> None:
        self._last_failure = None if failure is None else evolve(failure, error=None)

    def _count_success(self, state: Any, took: float, now: float) -> bool:
        """A call that was begun in this state went well. False if there is more to it: it was
        slow, or the circuit is being changed in this very thread."""
        if took > self._owner.limits.slow_after:
            return False
        if self._lock._is_owned() and self._working:
            return False
        with self._lock:
            try:
                self._working = True
                if state is self._state and type(state) is Closed:
                    state.run = 0
                    self._used = now
                    for gauge in state.gauges:
                        gauge.window.good(now)
            finally:
                self._working = False
            arrived = bool(self._inbox)
        if arrived:
            self._do(nothing)
        return True


_new = object.__new__
