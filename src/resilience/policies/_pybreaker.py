"""pybreaker's storages and listeners, plugged into our circuits.

pybreaker itself is imported only when one of them is given: where redis is installed that import
takes some 400 ms.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any, cast
from weakref import WeakKeyDictionary

from attrs import define, field

from resilience._core.line import Line
from resilience._core.locks import new_lock
from resilience._core.world import wall
from resilience.failures import Failure
from resilience.typing import Runtime

from ._backing import Backing, Sharing
from ._circuit import Circuit
from ._later import Later
from ._permit import Permit
from ._states import CLOSED, DISABLED, HALF_OPEN, ISOLATED, OPEN, Change

__all__ = ["Listeners", "Storages", "Stored", "to_listeners", "to_storage"]

_logger = logging.getLogger("resilience")
_AT_ONCE = 8  # threads that one breaker's storages may have, or hold if they hang
_PATIENCE = 1.0  # seconds for which a call waits for one of them
_PYBREAKERS = {ISOLATED: OPEN, DISABLED: CLOSED}  # what it would call our own states


def to_listeners(name: str, value: Any) -> tuple[Any, ...]:
    """A tuple of pybreaker listeners."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of pybreaker listeners, got {value!r}")
    listeners = tuple(value)
    if listeners:
        from pybreaker import CircuitBreakerListener

        for listener in listeners:
            if not isinstance(listener, CircuitBreakerListener):
                raise TypeError(f"{name} must be pybreaker listeners, got {listener!r}")
    return listeners


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
class _Named:
    """A state as pybreaker's listeners expect it: something with a name."""

    name: str


@define(eq=False)
class _Breaker:
    """A circuit as pybreaker's listeners expect it."""

    circuit: Circuit

    @property
    def name(self) -> str | None:
        return self.circuit.name

    @property
    def key(self) -> Any:
        return self.circuit.key

    @property
    def current_state(self) -> str:
        return self.circuit.state

    @property
    def fail_counter(self) -> int:
        return self.circuit.failures

    @property
    def fail_max(self) -> int:
        """Failures in a row that open it; 0 where they are not counted so."""
        failures = self.circuit.limits.failures
        return int(failures) if math.isfinite(failures) else 0

    @property
    def reset_timeout(self) -> float:
        return self.circuit.open_time


class Listeners:
    """Tells pybreaker listeners; what they raise is logged and goes no further."""

    def __init__(self, listeners: tuple[Any, ...]) -> None:
        from pybreaker import CircuitBreakerListener as Base

        self._all = listeners
        self.healthy = any(
            getattr(type(each), event) is not getattr(Base, event)
            for each in listeners
            for event in ("before_call", "success")
        )
        """Whether one of them hears of healthy calls."""

    @classmethod
    def of(cls, listeners: tuple[Any, ...]) -> Listeners | None:
        """None where there are none, so that pybreaker is not imported for nothing."""
        return cls(listeners) if listeners else None

    def before_call(
        self, circuit: Circuit, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._each(lambda each: each.before_call(_Breaker(circuit), fn, *args, **kwargs))

    def failure(self, circuit: Circuit, error: BaseException) -> None:
        self._each(lambda each: each.failure(_Breaker(circuit), error))

    def success(self, circuit: Circuit) -> None:
        self._each(lambda each: each.success(_Breaker(circuit)))

    def state_change(self, circuit: Circuit, change: Change) -> None:
        old, new = _Named(change.old), _Named(change.new)
        self._each(lambda each: each.state_change(_Breaker(circuit), old, new))

    def _each(self, tell: Callable[[Any], None]) -> None:
        for each in self._all:
            try:
                tell(each)
            except Exception as problem:
                _logger.error("a pybreaker listener raised %s", type(problem).__name__)


@define(eq=False)
class Storages:
    """Gives circuits their backings, made where they are first needed.

    A function that makes storages is called off the event loop; after a failure, again only every
    second.
    """

    storage: Any
    keyed: bool
    refresh: float
    _failed: WeakKeyDictionary[Circuit, float] = field(factory=WeakKeyDictionary, init=False)
    _warned: bool = field(default=False, init=False)
    _lock: Any = field(factory=new_lock, init=False)
    _line: Line = field(factory=lambda: Line(_AT_ONCE, _PATIENCE), init=False)

    @classmethod
    def of(cls, storage: Any, keyed: bool, refresh: float) -> Storages | None:
        """None where there is no storage."""
        return None if storage is None else cls(storage, keyed, refresh)

    async def attach(self, circuit: Circuit, runtime: Runtime) -> Backing | None:
        """The circuit's backing; None while none can be had."""
        shared = self.at_hand(circuit)
        if shared is not None:
            return shared
        if circuit.backing is not None:
            return cast(Backing, circuit.backing)
        storage = await self._made(circuit, runtime) if self.keyed else self.storage
        if storage is None:
            return None
        fresh = Stored(storage, circuit, self.refresh, self._line)
        if not circuit.closed:
            fresh.note(Change(CLOSED, circuit.state))  # moved by hand before
        with self._lock:
            if circuit.backing is None:
                circuit.backing = fresh
            return cast(Backing, circuit.backing)

    def at_hand(self, circuit: Circuit) -> Backing | None:
        """The backing of a circuit that somebody moves by hand, if that takes no waiting."""
        if not isinstance(self.storage, Sharing):
            return None
        with self._lock:
            if circuit.backing is None:
                circuit.backing = self.storage.share(circuit, self.refresh)
            return cast(Backing, circuit.backing)

    def later(self, circuit: Circuit) -> Later:
        """What stands for the backing in a call that may wait for nothing."""
        return Later(lambda runtime: self.attach(circuit, runtime))

    async def _made(self, circuit: Circuit, runtime: Runtime) -> Any:
        failed = self._failed.get(circuit)
        if failed is not None and runtime.now() - failed < 1.0:
            return None
        try:
            return await self._line.through(runtime, lambda: self.storage(circuit.key))
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
    for as long as between two readings; the circuit goes on by itself.
    """

    storage: Any
    circuit: Circuit
    every: float
    line: Line
    _lock: Any = field(factory=new_lock, init=False)
    _read: float | None = field(default=None, init=False)
    _opened: Any = field(default=None, init=False)  # the opening already taken over
    _unwritten: Change | None = field(default=None, init=False)
    _counting: bool = field(default=False, init=False)  # does the storage count failures?
    _writing: bool = field(default=False, init=False)
    _failed: float | None = field(default=None, init=False)  # when it last raised
    _warned: bool = field(default=False, init=False)

    def note(self, change: Change) -> None:
        """Remember a change of our own, made by a call or by hand, until it can be written."""
        self._unwritten = change

    async def refresh(self, runtime: Runtime) -> None:
        """Take over what others have written, at most every so many seconds."""
        now = runtime.now()
        if self._left_alone(now):
            return
        if self._unwritten is not None:
            await self._write_change(runtime)
            return
        with self._lock:
            if self._read is not None and now - self._read < self.every:
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
                self.circuit.count(counter)
        elif opened == self._opened and opened is not None:
            return  # an opening is taken over once; from then on our own clock counts
        else:
            self._opened = opened
        self.circuit.adopt(state, self._left(state, opened), runtime.now())
        self._unwritten = None  # what was taken over need not be written back

    async def claim(self, runtime: Runtime, permit: Permit) -> bool:
        """A storage knows of no trial places: each process has its own."""
        return True

    def blame(self, cause: BaseException, failure: Failure) -> None:
        """A storage has no place for it."""

    def released(self, permit: Permit) -> None:
        """Nothing was learnt, nothing is written."""

    async def verdict(self, runtime: Runtime, permit: Permit, *, failed: bool) -> None:
        """Write what a call has taught, if that is anything new."""
        if not failed and not self._counting and self._unwritten is None:
            return
        if not self._left_alone(runtime.now()):
            await self._try(runtime, lambda: self._write(failed))

    def _left_alone(self, now: float) -> bool:
        return self._failed is not None and now - self._failed < self.every

    async def _write_change(self, runtime: Runtime) -> None:
        """Write what is still to be written, unless another call is at it."""
        with self._lock:
            if self._writing:
                return
            self._writing = True
        try:
            await self._try(runtime, lambda: self._write(None))
        finally:
            self._writing = False

    def _told(self) -> tuple[str, Any, Any]:
        state = str(self.storage.state)
        return state, self.storage.opened_at if state != CLOSED else None, self.storage.counter

    def _write(self, failed: bool | None) -> None:
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

    def _stamp(self) -> datetime:
        """Now, in UTC: aware where this pybreaker writes aware times (1.4), else naive (1.2)."""
        now = datetime.fromtimestamp(wall(), timezone.utc)
        return now if _writes_aware() else now.replace(tzinfo=None)

    def _left(self, state: str, opened: Any) -> float:
        """Seconds that the circuit stays open, by what the storage says of its opening."""
        limit = self.circuit.open_time
        if state == HALF_OPEN:
            return 0.0
        if not isinstance(opened, datetime):
            return limit
        if opened.tzinfo is None:
            opened = opened.replace(tzinfo=timezone.utc)
        return float(min(limit, max(0.0, limit - (wall() - opened.timestamp()))))

    async def _try(self, runtime: Runtime, fn: Callable[[], Any]) -> Any:
        try:
            return await self.line.through(runtime, fn)
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
            f"the storage of {circuit!r} failed ({type(problem).__name__}); the circuit goes on "
            f"by itself",
            RuntimeWarning,
            stacklevel=3,
        )
    except RuntimeWarning as warning:
        _logger.error("%s", warning)


def _writes_aware() -> bool:
    import inspect

    import pybreaker

    return "utcnow" not in inspect.getsource(pybreaker.CircuitBreaker.open)
