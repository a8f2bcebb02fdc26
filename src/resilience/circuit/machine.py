"""What a circuit does: whom it lets through, what it makes of how their calls end, how it changes.

All of it goes by one lock, held for microseconds, never around the user's call, a wait or a
listener. A signal handler or a finalizer may arrive between any two steps, in the very thread that
has the lock: what it wants changed waits in the inbox, and is done next. Whether calls may be at
rest is decided last, by the state that is there then. An answer counts only if the state is still
the one that its call was admitted in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import ref

from resilience._core.clock import moment
from resilience._core.clock import now as clock_now
from resilience._core.identity import Identity
from resilience._core.idle import epochs
from resilience._core.locks import new_lock
from resilience.errors import CircuitOpenError
from resilience.failures import Failure
from resilience.policy import Call, Emitters, Runtime, Waiter

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
    UNCOUNTED,
    Change,
    Closed,
    Disabled,
    Event,
    HalfOpen,
    Isolated,
    Open,
    State,
)

if TYPE_CHECKING:
    from .trip import Gauge

__all__ = ["Holder", "Machine", "Owner", "Permit", "holding_thread", "permit_of"]

T = TypeVar("T")

_RAMPS = (Event.PASSED, Event.SHARED_CLOSED)
"""What closes a circuit after trials."""


class Owner(Protocol):
    """What keeps circuits. Called without a circuit's lock, but for a change within a change."""

    @property
    def limits(self) -> Limits: ...
    @property
    def name(self) -> str | None: ...

    def suspend(self, circuit: Any) -> None:
        """A circuit may change."""

    def update(self, circuit: Any) -> None:
        """It has changed, or has not."""

    def remember(self, circuit: Any) -> None:
        """A call of it was counted: if it was forgotten meanwhile, it is kept again."""

    @property
    def publish(self) -> Callable[[Any, Change], object]:
        """Publishes a change of its state to everybody."""
        ...

    @property
    def audience(self) -> Emitters | None:
        """Who hears of changes, and may be nobody; None where each is to be published."""
        ...


class Holder:
    """Whoever does what one thread at a time does, such as to publish.

    It is a local variable of the function that does it, and known by a weak reference: so it is
    over with that, however Ctrl-C may end it. A child of fork has no thread of its parent's.
    """

    __slots__ = ("__weakref__", "process", "thread")

    def __init__(self) -> None:
        self.thread: int | None = threading.get_ident()
        """None when it is over before that."""
        self.process = os.getpid()


def holding_thread(holder: ref[Holder] | None) -> int | None:
    """The thread that is at it; None if none is."""
    taken = None if holder is None else holder()
    return None if taken is None or taken.process != os.getpid() else taken.thread


class Permit:
    """Leave to make one call through a circuit, in one of its states.

    `state` is None for a call inside a trial of the same circuit: the trial is the one that
    counts. A trial's permit also has a `journal`, a `process`, an end and perhaps a lease.
    """

    __slots__ = (
        "__weakref__",
        "began",
        "circuit",
        "journal",
        "lease",
        "process",
        "runtime",
        "state",
        "until",
    )

    circuit: Any
    state: State | None
    began: float
    runtime: Runtime | None
    journal: Any
    """The trial's call: calls inside it need no slot of their own."""
    process: int
    until: float
    """When the trial is given up on."""
    lease: Any
    """What a shared storage has granted for the trial."""

    @property
    def trial(self) -> bool:
        """Whether it is a trial's."""
        return type(self.state) is HalfOpen


def permit_of(circuit: Any, state: State | None, began: float, runtime: Runtime | None) -> Permit:
    """A permit; made so, without an `__init__`, it costs half."""
    permit = _new(Permit)
    permit.circuit = circuit
    permit.state = state
    permit.began = began
    permit.runtime = runtime
    return permit


class Machine(Identity):
    """One circuit's state, gate and verdicts. Safe from any thread."""

    __slots__ = (
        "__weakref__",
        "_gauges",
        "_inbox",
        "_last_failure",
        "_lock",
        "_opened",
        "_openings",
        "_outbox",
        "_owner",
        "_publishing",
        "_refused",
        "_seen",
        "_shadow",
        "_state",
        "_storage",
        "_used",
        "_waiting",
        "key",
    )

    def __init__(self, owner: Owner, key: Any = None) -> None:
        self._owner = owner
        self.key = key
        self._gauges = owner.limits.gauges()  # what it counted when last closed
        self._state: State = _closed(self._gauges, None)
        self._state.epoch = 0  # it is good for calls begun before it was made
        self._shadow = False
        self._openings = 0  # in a row, without closing
        self._opened: float | None = None  # since when it is not closed
        self._refused = 0  # calls, since it was last closed
        self._last_failure: Failure | None = None
        self._storage: Any = None  # what shares it with others
        # When a call last came; what that was when the circuit was last looked at.
        self._used = 0.0
        self._seen = 0.0
        self._lock: Any = new_lock()
        # Changes that are still to be made; those still to be published, and who is at that.
        self._inbox: list[Callable[[], object]] = []
        self._outbox: list[Change] = []
        self._publishing: ref[Holder] | None = None
        self._waiting: list[Waiter] = []  # of calls, for a trial's verdict

    @property
    def _idle(self) -> bool:
        """Whether a healthy call needs no admission here."""
        state = self._state  # read once, here as everywhere: a handler may change it between looks
        if type(state) is Closed:
            return state.ramp is None and (state.run == 0 or bool(state.gauges))
        return type(state) is Disabled

    # The gate

    def _refuses(self, now: float, call: Call | None = None) -> bool:
        """Whether a call would be rejected now; one inside a trial would not."""
        state = self._state
        if self._shadow or type(state) is Closed or type(state) is Disabled:
            return False
        if type(state) is HalfOpen:
            trials = self._trials(state, now)
            return len(trials) >= self._owner.limits.trials and not _is_inside(call, trials)
        return type(state) is not Open or now < state.until

    def _admit(self, call: Call, runtime: Runtime) -> Permit | None:
        """A permit; None if the call must be rejected, or wait for a trial's verdict."""
        now = self._used = runtime.now()
        state = self._state
        ramp = state.ramp if type(state) is Closed else None
        drawn = 0.0 if ramp is None else runtime.random()  # not under the lock
        nested = self._lock._is_owned()
        with self._lock:
            permit = self._grant(call, runtime, now, drawn, nested=nested)
        try:
            if ramp is not None and now >= ramp:
                self._apply(partial(self._end_ramp, now))
            elif self._inbox:
                self._apply(self._catch_up)
            elif self._outbox:
                self._publish()
        except BaseException:  # Ctrl-C in a listener: the slot is not lost
            if permit is not None:
                self._settle(permit, None, now)
            raise
        return permit

    def _grant(
        self, call: Call, runtime: Runtime, now: float, drawn: float, *, nested: bool
    ) -> Permit | None:
        """`nested`: the call is made by a handler that came while this thread had the lock. It gets
        no trial, nor does one of who is being told of a change: it might wait for itself."""
        state = self._state
        permit = None
        if type(state) is Closed:
            share = self._share(state, now)
            if share is None or drawn < share:
                permit = permit_of(self, state, now, runtime)
        elif type(state) is Disabled:
            permit = permit_of(self, state, now, runtime)
        elif not nested and holding_thread(self._publishing) != threading.get_ident():
            permit = self._trial(call, runtime, now)
        if permit is None and self._shadow:
            self._refused += 1
            permit = permit_of(self, UNCOUNTED, now, runtime)
        return permit

    def _trial(self, call: Call, runtime: Runtime, now: float) -> Permit | None:
        """Leave to make a trial, if it is time for it and a slot is free."""
        state = self._state
        if type(state) is Open and now >= state.until:
            state = self._move(Event.TIME, now) or state
        if type(state) is not HalfOpen:
            return None
        limits = self._owner.limits
        trials = self._trials(state, now)
        if trials and _is_inside(call, trials):
            return permit_of(self, None, now, runtime)
        if len(trials) >= limits.trials:
            return None
        permit = permit_of(self, state, now, runtime)
        permit.journal = call.journal
        permit.process = os.getpid()
        permit.until = now + limits.trial_timeout
        permit.lease = None
        state.slots = tuple(map(ref, (*trials, permit)))
        return permit

    def _trials(self, state: HalfOpen, now: float) -> list[Permit]:
        """The trials under way: none that hang, and none of the process that this one was forked
        from, whose threads are not here to end them."""
        trials: list[Permit] = []
        for slot in state.slots:
            trial = slot()
            if trial is not None and trial.until > now and trial.process == os.getpid():
                trials.append(trial)
        return trials

    @property
    def _model(self) -> str | None:
        """The value of the key, where that is the name of a model."""
        key = self.key
        return key if self._owner.limits.by_model and isinstance(key, str) else None

    def _refusal(self, now: float) -> CircuitOpenError:
        """What a call gets that is rejected."""
        with self._lock:
            self._refused += 1
            state = self._state
        if self._inbox:
            self._apply(self._catch_up)
        ramp = state.ramp if type(state) is Closed else None
        left = self._left(now) if ramp is None else ramp - now
        refusal = CircuitOpenError(left, moment(left), self._owner.name, self.key, self._model)
        refusal.__cause__ = self._cause
        return refusal

    def _resume(self, epoch: int, started: float) -> Permit:
        """The permit of a call that was begun at rest in `epoch`."""
        state = self._state
        return permit_of(self, state if state.epoch <= epoch else UNCOUNTED, started, None)

    # Waiting for a trial's verdict

    async def _wait(self, call: Call, runtime: Runtime, end: float) -> bool:
        """Wait for a verdict; False if there is no point in asking again."""
        now = runtime.now()
        if now >= end or not runtime.may_wait or self._lock._is_owned():
            return False
        waiter = runtime.waiter()
        try:
            due = self._locked(partial(self._queue, waiter, now))
            if due is not None:
                await waiter.wait(min(due, end - now), call)
        finally:
            self._locked(partial(self._unqueue, waiter))
        return due is not None

    def _queue(self, waiter: Waiter, now: float) -> float | None:
        """Have `waiter` set when there may be a slot. Seconds until there may be one without that;
        None where there is nothing to wait for."""
        state = self._state
        if type(state) is HalfOpen:
            if holding_thread(self._publishing) == threading.get_ident():
                return None  # it would wait for itself
            trials = self._trials(state, now)
            if len(trials) < self._owner.limits.trials:
                return 0.0
            self._waiting.append(waiter)
            return min(trial.until for trial in trials) - now
        there = type(state) is Disabled or (type(state) is Closed and state.ramp is None)
        return 0.0 if there else None

    def _unqueue(self, waiter: Waiter) -> None:
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
        state, took = permit.state, now - permit.began
        if state is not self._state:
            return  # it has no say, or is late: a state that has ended is never there again
        counts = type(state) is Closed and failed is False and state.gauges
        if counts and self._count_success(state, took, now):
            self._owner.remember(self)
            return

        def judge() -> None:
            if state is not self._state:
                return
            if type(state) is HalfOpen and not (_free(state, permit) and permit.until > now):
                return
            if failed is None:
                return
            if failed:
                self._last_failure = None if failure is None else failure._without_error()
            event = self._verdict(state, failed, now, took)
            if event is not None:
                self._move(event, now, cause, failure)

        if type(state) is HalfOpen or (type(state) is Closed and failed is not None):
            self._apply(judge)

    def _verdict(self, state: Any, failed: bool, now: float, took: float) -> str | None:
        """Count how a call has ended; the event, if that leads to another state."""
        limits = self._owner.limits
        if type(state) is Closed:
            state.run = state.run + 1 if failed else 0
            trips = state.run >= limits.failures
            for gauge in state.gauges:
                trips = gauge.trips(now, failed, took) or trips
            return Event.TRIPS if trips else None
        if failed or took > limits.slow_after:
            state.failed += 1
            return Event.FAILED if state.failed > limits.failable_trials else None
        state.passed += 1
        return Event.PASSED if state.passed >= limits.successes else None

    def _count_success(self, state: Any, took: float, now: float) -> bool:
        """A call that was begun in this state went well. False if there is more to it: it was
        slow, or this very thread has the lock."""
        if took > self._owner.limits.slow_after or self._lock._is_owned():
            return False
        with self._lock:
            if state is self._state and type(state) is Closed:
                state.run = 0
                self._used = now
                for gauge in state.gauges:
                    gauge.window.good(now)
        if self._inbox:
            self._apply(self._catch_up)
        return True

    # Changes

    def _apply(self, change: Callable[[], object]) -> None:
        """Make a change, alone; then decide whether calls may be at rest, and publish it."""
        try:
            self._owner.suspend(self)
            if self._lock._is_owned():  # this very thread, a few frames further out: it goes on
                self._inbox.append(change)
                return
            while True:
                with self._lock:
                    change()
                    waiting, self._waiting = self._waiting, []
                for waiter in waiting:
                    waiter.set()
                if not self._inbox:
                    break
                change = self._catch_up
        finally:
            self._owner.update(self)
        if self._outbox:
            self._publish()

    def _catch_up(self) -> None:
        """Make the changes that have arrived while a thread had the lock."""
        while self._inbox:
            self._inbox.pop(0)()

    def _locked(self, act: Callable[[], T]) -> T:
        """Do under the lock what changes no state; then make the changes that have arrived."""
        with self._lock:
            found = act()
        if self._inbox:
            self._apply(self._catch_up)
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
        rejected = self._refused
        new: State
        if name == OPEN:
            self._openings += 1
            new = self._opened_by(Opening(self._openings, now, cause, failure))
        elif name == HALF_OPEN:
            new = half_open = HalfOpen()
            half_open.cause = old.cause if type(old) is Open else None
            half_open.passed = half_open.failed = 0
            half_open.slots = ()
        elif name == ISOLATED:
            new = isolated = Isolated()
            isolated.holds = holds or set()
        else:
            ramp = self._owner.limits.ramp if event in _RAMPS and old.name != CLOSED else 0.0
            new = self._afresh(name, now + ramp if ramp else None)
        new.epoch = epochs.advance()
        if name in (CLOSED, DISABLED):
            self._opened = None
        elif self._opened is None:
            self._opened = now
        self._state = new
        if isinstance(old, (Open, HalfOpen)):
            old.cause = None  # or the next failure would keep it, by the permit of its trial
        elif type(old) is Closed:
            old.permit = None  # which leads back here
        if old.name != name or event in MANUAL:
            audience = self._owner.audience
            asks = type(new) is Open and new.asked is not None  # a wait, which is asked then, too
            if asks or audience is None or audience.heard:
                self._outbox.append(Change(old.name, name, event, rejected))
        return new

    def _afresh(self, name: str, ramps_until: float | None) -> State:
        """Closed or disabled, with nothing counted."""
        limits = self._owner.limits
        self._openings = self._refused = 0
        self._gauges = limits.gauges() if limits.rates else ()
        return Disabled() if name == DISABLED else _closed(self._gauges, ramps_until)

    def _opened_by(self, opening: Opening) -> Open:
        reset_after = self._owner.limits.reset_after
        new = Open()
        new.cause = opening.cause
        # A wait is to be asked without the lock; it ends some time even if that is not to be.
        new.asked = opening if callable(reset_after) else None
        new.until = opening.ends(OTHERWISE if callable(reset_after) else reset_after)
        return new

    def _end_ramp(self, now: float) -> None:
        state = self._state
        if type(state) is Closed and state.ramp is not None and now >= state.ramp:
            state.ramp = None

    # Without the lock: user code runs here

    def _publish(self) -> None:
        """Ask the wait how long to stay open, and publish each change of state, in order.

        One thread at a time publishes; what others change meanwhile is published by it, too.
        """
        holder = None
        while self._outbox and not self._lock._is_owned():
            try:
                holder = self._locked(self._begin_publishing)
                if holder is None:
                    return
                while self._outbox:
                    state = self._state
                    if type(state) is Open:
                        self._ask_open_time(state)
                    self._owner.publish(self, self._outbox.pop(0))
            finally:
                holder = None

    def _begin_publishing(self) -> Holder | None:
        """None while another thread publishes, or another frame of this one."""
        if holding_thread(self._publishing) is not None:
            return None
        holder = Holder()
        self._publishing = ref(holder)
        return holder

    def _ask_open_time(self, state: Open) -> None:
        """Ask the wait how long to stay open, once for each opening."""
        opening, until = state.asked, state.until

        def answer() -> None:
            if state.asked is opening:  # others may have said so meanwhile
                state.until, state.asked = until, None

        if opening is not None:
            try:
                until = opening.ends(open_time(self._owner.limits.reset_after, opening))
            finally:
                self._locked(answer)

    # Sums

    @property
    def _cause(self) -> BaseException | None:
        """What has opened it."""
        state = self._state
        return state.cause if isinstance(state, (Open, HalfOpen)) else None

    def _left(self, now: float) -> float | None:
        """Seconds until a call may be tried; None while closed, or where nobody knows."""
        state = self._state
        if type(state) is Open:
            return max(0.0, state.until - now) if state.asked is None else None
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


def _closed(gauges: tuple[Gauge, ...], ramp: float | None) -> Closed:
    state = Closed()
    state.gauges = gauges
    state.ramp = ramp
    state.run = 0
    state.permit = None
    return state


def _is_inside(call: Call | None, trials: list[Permit]) -> bool:
    """Whether a call is one of these trials, or was made inside one."""
    return call is not None and any(call.is_inside(trial.journal) for trial in trials)


def _free(state: HalfOpen, trial: Permit) -> bool:
    """Free the slot of a trial; False if it has none."""
    slots, own = state.slots, ref(trial)
    if own not in slots:
        return False
    at = slots.index(own)
    state.slots = slots[:at] + slots[at + 1 :]
    return True


_new = object.__new__
