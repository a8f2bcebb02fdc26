"""pybreaker's storages, plugged into our circuits.

pybreaker itself is imported only when one is given: where redis is installed that import takes some
400 ms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, cast
from weakref import WeakKeyDictionary

from attrs import define, field

from resilience._core.clock import now as clock_now
from resilience._core.clock import wall
from resilience.policy import Call, Runtime

from .circuit import Circuit
from .machine import Holder, Permit
from .states import CLOSED, DISABLED, HALF_OPEN, ISOLATED, OPEN, Change, Ending, Event, State
from .storage import Jobs, Publisher, SharedState, Sharing, warn

__all__ = ["Storages", "to_storage"]

_AT_ONCE = 8  # threads that one breaker's storages may have, or hold if they hang
_PATIENCE = 1.0  # seconds for which a call waits for one of them
_KEPT = 1000  # verdicts kept while a storage hangs or no thread is to be had, the latest
_PYBREAKERS = {ISOLATED: OPEN, DISABLED: CLOSED}  # what it would call our own states
_BY_OTHERS = (Event.OTHERS_OPENED, Event.OTHERS_CLOSED)


def to_storage(name: str, value: Any, *, keyed: bool) -> Any:
    """A pybreaker storage; for a keyed breaker, a function of the key that gives one. Or what
    shares circuits in its own way."""
    if isinstance(value, Sharing) and not isinstance(value, type):
        return value
    if keyed:
        if not callable(value) or isinstance(value, type):
            raise TypeError(
                f"{name} must be a function of the key that gives a storage (one storage is one "
                f"circuit), got {value!r}"
            )
        return value
    from pybreaker import CircuitBreakerStorage

    if not isinstance(value, CircuitBreakerStorage):
        raise TypeError(f"{name} must be a pybreaker CircuitBreakerStorage, got {value!r}")
    return value


@define(eq=False)
class Storages(Publisher):
    """Gives circuits their shared states, made where they are first needed.

    A function that makes storages is called off the event loop; after a failure, again only every
    second.
    """

    storage: Any
    keyed: bool
    refresh: float
    _failed: WeakKeyDictionary[Circuit, float] = field(factory=WeakKeyDictionary, init=False)
    _warned: bool = field(default=False, init=False)
    _jobs: Jobs = field(factory=lambda: Jobs(_AT_ONCE, _PATIENCE), init=False)
    # How calls have ended that could not wait for the others.
    _late: deque[tuple[Permit, Ending]] = field(factory=lambda: deque(maxlen=_KEPT), init=False)

    async def refreshed(
        self, circuit: Circuit, runtime: Runtime, call: Call | None = None
    ) -> SharedState | None:
        """The circuit's shared state, after it has published and taken over what it has to, if that
        may wait; None while none can be had."""
        if not runtime.may_wait:
            return self.at_once(circuit)
        if self._late:
            await _publish(self, runtime, call)
        shared = await self._attach(circuit, runtime, call)
        if isinstance(shared, Stored):
            await shared.refresh(runtime, call)
        elif shared is not None:
            await shared.refresh(runtime)
        return shared

    def at_once(self, circuit: Circuit) -> SharedState | None:
        """It, without waiting: None where the storage is still to be made."""
        if circuit._storage is None and isinstance(self.storage, Sharing):
            with self._lock:
                if circuit._storage is None:
                    circuit._storage = self.storage.share(circuit, self.refresh)
        elif circuit._storage is None and not self.keyed:
            return self._attached(circuit, self.storage)
        return cast("SharedState | None", circuit._storage)

    def record(self, permit: Permit, ending: Ending) -> None:
        """A call has ended; tell the others in the background, if there is anything to tell."""
        runtime = permit.runtime
        assert runtime is not None  # no call of a shared circuit is at rest
        if not runtime.may_wait:
            self._late.append((permit, ending))
            runtime.background(self.publish)
            return
        shared = permit.circuit._storage
        if shared is not None and shared.record(permit, ending):
            runtime.background(shared.publish)

    @property
    def unpublished(self) -> bool:
        return bool(self._late)

    def _is_due(self, now: float) -> bool:
        return self.unpublished

    async def _publish_next(self, runtime: Runtime, holder: Holder) -> bool:
        """After a call that could not wait for the others: all that was left out around it."""
        permit, ending = self._late[0]
        shared = await self._attach(permit.circuit, runtime)
        if shared is not None and permit.trial and ending.failed is not None:
            await shared.claim(runtime, permit)
        self._late.popleft()
        if shared is not None:
            if shared.record(permit, ending):
                await shared.publish(runtime)
            await shared.refresh(runtime)
        return True

    async def _attach(
        self, circuit: Circuit, runtime: Runtime, call: Call | None = None
    ) -> SharedState | None:
        shared = self.at_once(circuit)
        if shared is not None:
            return shared
        failed = self._failed.get(circuit)
        if failed is not None and runtime.now() - failed < 1.0:
            return None
        try:
            storage = await self._jobs.run(runtime, lambda: self.storage(circuit.key), call)
        except Exception as problem:
            self._failed[circuit] = runtime.now()
            if not self._warned:
                self._warned = True
                _warn(circuit, problem)
            return None
        return self._attached(circuit, storage)

    def _attached(self, circuit: Circuit, storage: Any) -> SharedState:
        fresh = Stored(circuit, self.refresh, storage, self._jobs)
        if circuit.state != CLOSED:
            fresh.on_change(Change(CLOSED, circuit.state))  # moved by a manual command before
        with self._lock:
            if circuit._storage is None:
                circuit._storage = fresh
            return cast(SharedState, circuit._storage)


@define(eq=False)
class Stored(SharedState):
    """One circuit's storage: read now and then, written at failures and changes of state.

    A slow storage is kept off the event loop. One that raises is warned of once, and left alone
    for as long as between two readings; the circuit uses local state meanwhile.
    """

    storage: Any
    jobs: Jobs
    _opened: Any = field(default=None, init=False)  # the opening already taken over
    # To be written: whether calls have failed, and the last change.
    _verdicts: deque[bool] = field(factory=lambda: deque(maxlen=_KEPT), init=False)
    _unwritten: Change | None = field(default=None, init=False)
    _counting: bool = field(default=False, init=False)  # does the storage count failures?
    _failed: float | None = field(default=None, init=False)  # when it last raised
    _warned: bool = field(default=False, init=False)

    @property
    def unpublished(self) -> bool:
        return self._unwritten is not None or bool(self._verdicts)

    @property
    def reachable(self) -> bool:
        return not self._is_left_alone(clock_now())

    def on_change(self, change: Change) -> None:
        """What was taken over need not be written back."""
        if change.event not in _BY_OTHERS:
            self._unwritten = change

    def record(self, permit: Permit, ending: Ending) -> bool:
        """Keep a verdict to be written, if it is anything new."""
        failed = ending.failed
        if failed is None or (not failed and not self._counting and self._unwritten is None):
            return False
        if self._is_left_alone(ending.now):
            return False
        self._verdicts.append(failed)
        return True

    async def refresh(self, runtime: Runtime, call: Call | None = None) -> None:
        """Write what is to be written; else take over what others have written, if that is due."""
        if self.unpublished:
            await _publish(self, runtime, call)
            return
        now = runtime.now()
        with self._lock:
            if self._is_left_alone(now) or not self._is_time(now):
                return
            self._asked = now
        seen = self.circuit._state
        found: tuple[str, Any, Any] | None = await self._try(runtime, self._read, call)
        if found is not None:
            self._take_over(seen, *found, runtime.now())

    def _take_over(self, seen: State, state: str, opened: Any, counter: Any, now: float) -> None:
        failures = counter if isinstance(counter, int) else 0
        if failures > 0:
            self._counting = True
        if state != CLOSED and opened is not None and opened == self._opened:
            return  # an opening is taken over once; from then on our own clock counts
        if seen is self.circuit._state:
            self._opened = opened
        self.circuit._adopt(state, self._left(state, opened), now, failures, seen)

    def _is_due(self, now: float) -> bool:
        return self.unpublished and not self._is_left_alone(now)

    async def _publish_next(self, runtime: Runtime, holder: Holder) -> bool:
        def job() -> bool:
            try:
                self._write()
            finally:
                holder.thread = None
            return True

        return await self._try(runtime, job) is not None

    def _is_left_alone(self, now: float) -> bool:
        return self._failed is not None and now - self._failed < self.every

    async def _try(self, runtime: Runtime, fn: Callable[[], Any], call: Call | None = None) -> Any:
        try:
            return await self.jobs.run(runtime, fn, call)
        except Exception as problem:
            self._failed = runtime.now()
            if not self._warned:
                self._warned = True
                _warn(self.circuit, problem)
            return None

    # In a job

    def _read(self) -> tuple[str, Any, Any]:
        state = str(self.storage.state)
        return state, self.storage.opened_at if state != CLOSED else None, self.storage.counter

    def _write(self) -> None:
        change = self._unwritten
        failed = self._verdicts[0] if self._verdicts else None
        if failed:
            self._counting = True
            self.storage.increment_counter()
        elif self._counting and (failed is not None or (change and change.new == CLOSED)):
            self._counting = False
            self.storage.reset_counter()
        if failed is not None:
            self._verdicts.popleft()
        if change is not None:
            if change.new in (OPEN, ISOLATED):
                self.storage.opened_at = self._opened = self._stamp()
            self.storage.state = _PYBREAKERS.get(change.new, change.new)
            if self._unwritten is change:
                self._unwritten = None

    def _stamp(self) -> datetime:
        """Now, in UTC: aware where this pybreaker writes aware times (1.4), else naive (1.2)."""
        now = datetime.fromtimestamp(wall(), timezone.utc)
        return now if _writes_aware() else now.replace(tzinfo=None)

    def _left(self, state: str, opened: Any) -> float:
        """Seconds that the circuit stays open, by what the storage says of its opening."""
        limit = self.circuit._open_time()
        if state == HALF_OPEN:
            return 0.0
        if not isinstance(opened, datetime):
            return limit
        if opened.tzinfo is None:
            opened = opened.replace(tzinfo=timezone.utc)
        return float(min(limit, max(0.0, limit - (wall() - opened.timestamp()))))


async def _publish(publisher: Publisher, runtime: Runtime, call: Call | None) -> None:
    """Publish; in a sync call with a time limit in the background, as a storage may hang."""
    if runtime.asynchronous or call is None or call.deadline is None:
        await publisher.publish(runtime)
    else:
        runtime.background(publisher.publish)


def _warn(circuit: Circuit, problem: Exception) -> None:
    """Say that a storage fails."""
    warn(
        f"the storage of {circuit!r} failed ({type(problem).__name__}); the circuit uses local "
        f"state meanwhile"
    )


def _writes_aware() -> bool:
    import pybreaker

    return hasattr(pybreaker, "UTC")  # from 1.3 on
