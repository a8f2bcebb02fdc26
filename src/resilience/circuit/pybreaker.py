"""pybreaker's storages, plugged into our circuits.

pybreaker itself is imported only when one is given: where redis is installed that import takes some
400 ms.
"""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

from attrs import define, field

from resilience._core.clock import wall
from resilience._core.locks import new_lock
from resilience.failures import Failure
from resilience.policy import Runtime

from .circuit import Circuit
from .permit import Permit
from .states import CLOSED, DISABLED, HALF_OPEN, ISOLATED, OPEN, Change
from .storage import Jobs, SharedState, Sharing

__all__ = ["Storages", "Stored", "to_storage"]

_logger = logging.getLogger("resilience")
_AT_ONCE = 8  # threads that one breaker's storages may have, or hold if they hang
_PATIENCE = 1.0  # seconds for which a call waits for one of them
_UNWRITTEN = 1000  # verdicts kept while a storage hangs, the latest
_PYBREAKERS = {ISOLATED: OPEN, DISABLED: CLOSED}  # what it would call our own states


def to_storage(name: str, value: Any, *, keyed: bool) -> Any:
    """A pybreaker storage; for a keyed breaker, a function of the key that gives one. Or what
    shares circuits in its own way."""
    if value is None or (isinstance(value, Sharing) and not isinstance(value, type)):
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
class Storages:
    """Gives circuits their shared states, made where they are first needed.

    A function that makes storages is called off the event loop; after a failure, again only every
    second.
    """

    storage: Any
    keyed: bool
    refresh: float
    _failed: WeakKeyDictionary[Circuit, float] = field(factory=WeakKeyDictionary, init=False)
    _warned: bool = field(default=False, init=False)
    _lock: Any = field(factory=new_lock, init=False)
    _jobs: Jobs = field(factory=lambda: Jobs(_AT_ONCE, _PATIENCE), init=False)

    @classmethod
    def of(cls, storage: Any, keyed: bool, refresh: float) -> Storages | None:
        """None where there is no storage."""
        return None if storage is None else cls(storage, keyed, refresh)

    async def attach(self, circuit: Circuit, runtime: Runtime) -> SharedState | None:
        """The circuit's shared state; None while none can be had."""
        shared = self.at_once(circuit)
        if shared is not None or not runtime.may_wait:
            return shared
        storage = await self._made(circuit, runtime)
        return None if storage is None else self._attached(circuit, storage)

    async def refreshed(self, circuit: Circuit, runtime: Runtime) -> SharedState | None:
        """The same, after it has published and taken over what it has to, if that may wait."""
        shared = await self.attach(circuit, runtime)
        if shared is not None and runtime.may_wait:
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

    def record(
        self,
        permit: Permit,
        failed: bool | None,
        now: float,
        cause: BaseException | None,
        failure: Failure | None,
    ) -> None:
        """A call has ended; tell the others in the background, if there is anything to tell."""
        runtime = permit.runtime
        assert runtime is not None  # no call of a shared circuit is at rest
        if not runtime.may_wait:
            if failed is not None:
                late = partial(self._catch_up, permit, failed, now, cause, failure)
                runtime.background(late)
            return
        shared = permit.circuit._storage
        if shared is not None and shared.record(permit, failed, now, cause, failure):
            runtime.background(shared.publish)

    async def _catch_up(
        self,
        permit: Permit,
        failed: bool | None,
        now: float,
        cause: BaseException | None,
        failure: Failure | None,
        runtime: Runtime,
    ) -> None:
        """After a call that could not wait for the others: all that was left out before it, too."""
        shared = await self.attach(permit.circuit, runtime)
        if shared is None:
            return
        if permit.trial:
            await shared.claim(runtime, permit)
        if shared.record(permit, failed, now, cause, failure):
            await shared.publish(runtime)
        await shared.refresh(runtime)

    def _attached(self, circuit: Circuit, storage: Any) -> SharedState:
        fresh = Stored(storage, circuit, self.refresh, self._jobs)
        if circuit.state != CLOSED:
            fresh.note(Change(CLOSED, circuit.state))  # moved by a manual command before
        with self._lock:
            if circuit._storage is None:
                circuit._storage = fresh
            return cast(SharedState, circuit._storage)

    async def _made(self, circuit: Circuit, runtime: Runtime) -> Any:
        failed = self._failed.get(circuit)
        if failed is not None and runtime.now() - failed < 1.0:
            return None
        try:
            return await self._jobs.run(runtime, lambda: self.storage(circuit.key))
        except Exception as problem:
            self._failed[circuit] = runtime.now()
            if not self._warned:
                self._warned = True
                _warn(circuit, problem)
            return None


@define(eq=False)
class Stored:
    """One circuit's storage: read now and then, written at failures and changes of state.

    A slow storage is kept off the event loop. One that raises is warned of once, and left alone
    for as long as between two readings; the circuit uses local state meanwhile.
    """

    storage: Any
    circuit: Circuit
    every: float
    jobs: Jobs
    _lock: Any = field(factory=new_lock, init=False)
    _read: float | None = field(default=None, init=False)
    _opened: Any = field(default=None, init=False)  # the opening already taken over
    # To be written: whether calls have failed.
    _verdicts: deque[bool] = field(factory=lambda: deque(maxlen=_UNWRITTEN), init=False)
    _unwritten: Change | None = field(default=None, init=False)
    _counting: bool = field(default=False, init=False)  # does the storage count failures?
    _writing: bool = field(default=False, init=False)
    _failed: float | None = field(default=None, init=False)  # when it last raised
    _warned: bool = field(default=False, init=False)

    def note(self, change: Change) -> None:
        """Remember a change of our own, by a call or a manual command, until it can be written."""
        self._unwritten = change

    async def refresh(self, runtime: Runtime) -> None:
        """Take over what others have written, at most every so many seconds."""
        if self._unwritten is not None or self._verdicts:
            await self.publish(runtime)
            return
        now = runtime.now()
        with self._lock:
            due = self._read is None or now - self._read >= self.every
            if self._writing or self._left_alone(now) or not due:
                return
            self._read = now
        told = await self._try(runtime, self._told)
        if told is None:
            return
        state, opened, counter = told
        if state == CLOSED:
            self._opened = None
            if isinstance(counter, int) and counter > 0:
                self._counting = True
                self.circuit._count(counter)
        elif opened == self._opened and opened is not None:
            return  # an opening is taken over once; from then on our own clock counts
        else:
            self._opened = opened
        self.circuit._adopt(state, self._left(state, opened), runtime.now())
        self._unwritten = None  # what was taken over need not be written back

    async def claim(self, runtime: Runtime, permit: Permit) -> bool:
        """A storage knows of no trial slots: each process has its own."""
        return True

    def record(
        self,
        permit: Permit,
        failed: bool | None,
        now: float,
        cause: BaseException | None,
        failure: Failure | None,
    ) -> bool:
        """Keep a verdict to be written, if it is anything new."""
        if failed is None or (not failed and not self._counting and self._unwritten is None):
            return False
        if self._left_alone(now):
            return False
        self._verdicts.append(failed)
        return True

    async def publish(self, runtime: Runtime) -> None:
        """Write what is to be written, unless another call is at it."""
        with self._lock:
            if self._writing or self._left_alone(runtime.now()):
                return
            self._writing = True
        try:
            while self._verdicts or self._unwritten is not None:
                failed = self._verdicts.popleft() if self._verdicts else None
                if await self._try(runtime, partial(self._write, failed)) is None:
                    return
        finally:
            self._writing = False

    def _left_alone(self, now: float) -> bool:
        return self._failed is not None and now - self._failed < self.every

    def _told(self) -> tuple[str, Any, Any]:
        state = str(self.storage.state)
        return state, self.storage.opened_at if state != CLOSED else None, self.storage.counter

    def _write(self, failed: bool | None) -> bool:
        change = self._unwritten
        if failed:
            self._counting = True
            self.storage.increment_counter()
        elif self._counting and (failed is not None or (change and change.new == CLOSED)):
            self._counting = False
            self.storage.reset_counter()
        if change is not None:
            if change.new in (OPEN, ISOLATED):
                self.storage.opened_at = self._opened = self._stamp()
            self.storage.state = _PYBREAKERS.get(change.new, change.new)
            if self._unwritten is change:
                self._unwritten = None
        return True

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

    async def _try(self, runtime: Runtime, fn: Callable[[], Any]) -> Any:
        try:
            return await self.jobs.run(runtime, fn)
        except Exception as problem:
            self._failed = runtime.now()
            self._warn(problem)
            return None

    def _warn(self, problem: Exception) -> None:
        if not self._warned:
            self._warned = True
            _warn(self.circuit, problem)


def _warn(circuit: Circuit, problem: Exception) -> None:
    """Say that a storage fails. Where warnings are errors, the call goes on too."""
    try:
        warnings.warn(
            f"the storage of {circuit!r} failed ({type(problem).__name__}); the circuit uses local "
            f"state meanwhile",
            RuntimeWarning,
            stacklevel=3,
        )
    except RuntimeWarning as warning:
        _logger.error("%s", warning)


def _writes_aware() -> bool:
    import inspect

    import pybreaker

    return "utcnow" not in inspect.getsource(pybreaker.CircuitBreaker.open)
