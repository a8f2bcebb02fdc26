"""Stop calling what keeps failing, and try it again now and then.

Inside `Retry`, so that every attempt counts; with a `Timeout` inside it, so that it hears of hung
calls. Not for errors of the caller's own: `SERVICE_FAULT` leaves those out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import datetime
from typing import Any, ClassVar

from attrs import Factory, field, frozen

from resilience._core.arguments import slot_of
from resilience._core.aside import hurried
from resilience._core.fields import (
    call_repr,
    checked,
    count,
    plain,
    seconds,
    suggesting,
    to_count,
    to_number,
    to_plain_function,
    to_text,
)
from resilience._core.history import charge, charged_inside
from resilience._core.identity import Identity
from resilience._core.record import Record, current
from resilience._core.rest import Heard, Rest
from resilience._core.world import now as world_now
from resilience.matching import SERVICE_FAULT, Match, to_match
from resilience.typing import Call, Runtime, Seconds

from ._admission import admitted
from ._circuit import Circuit
from ._circuits import Circuits
from ._limits import Limits
from ._opening import to_open_time
from ._permit import Isolation, Permit
from ._pybreaker import Listeners, Storages, to_listeners, to_storage
from ._snapshot import Snapshot
from ._states import BY_HAND, Change
from ._trip import Consecutive, FailureRate, SlowCalls, to_trip

__all__ = ["CircuitBreaker", "Consecutive", "FailureRate", "SlowCalls"]


def _to_key(name: str, value: Any) -> Any:
    return to_text(name, value) if isinstance(value, str) else to_plain_function(name, value)


def _to_optional_trip(value: Any) -> Any:
    return None if value is None else to_trip("trip", value)


def _to_tolerance(name: str, value: Any) -> float:
    found = to_number(name, value, 0.0)
    if found >= 1:
        raise ValueError(f"{name} must be less than 1, got {value!r}")
    return found


def _made(make: Callable[[Any], Any]) -> Any:
    """A field that is no option: made from the others."""
    return field(default=Factory(make, takes_self=True), init=False, repr=False)


@suggesting
@frozen(eq=False, repr=False)
class CircuitBreaker(Identity):
    """After `failures` in a row, refuse calls for `reset_after` seconds, then try `trials` at once.

    - `failures` (5): failures in a row that open the circuit. Or `trip` (None): a rule or several
      joined with `|`: `Consecutive(5)`, `FailureRate(0.5)`, `SlowCalls(10, 0.5)`.
    - `reset_after` (60): seconds for which it stays open; or a wait such as `Exponential(5)`, asked
      with the number of openings in a row. Longer, up to a day, if the failure that opened it says
      so.
    - `trials` (1): calls let through at the same time while half open; `successes` (1): how many
      of them must go well to close it. One that fails opens it again, unless `tolerate` (0), the
      share of trials that may fail, allows for it.
    - `trial_timeout` (None): seconds after which a trial that hangs is given up on: its place is
      free, and its answer changes nothing.
    - `wait_for_trial` (None): seconds for which calls beyond the trials wait for their verdict
      instead of being refused at once.
    - `ramp` (None): seconds after closing during which only a share of the calls is let through,
      which grows from none to all.
    - `on` (`SERVICE_FAULT`): what counts as a failure. No error is a success; any other error is
      neither, and so is a cancelled call, or one cut by a `Timeout` outside.
    - `on_result` (None): a function of the result, true if it counts as a failure.
    - `key` (None): an argument's name, or a function of the call's arguments: one circuit for each
      value, got with `circuit(value)`. A call whose key cannot be told (the function raises, the
      value is not hashable) is not guarded by this breaker, and the log says so. Closed circuits
      are forgotten when they are clean and unused for `forget_after` seconds (600), open ones when
      nobody has tried them for so long; the oldest of both when there are more than `keep`
      (100,000).
    - `name` (None): for people.
    - `storage` (None): a `resilience.shared.RedisCircuit`, to share circuits between processes; or
      a pybreaker storage; keyed, a function of the key that gives one.
      Read at most every `refresh` seconds (1). If it fails, the circuit goes on by itself.
    - `listeners`: pybreaker listeners.

    A refused call gets `CircuitOpenError`. The object is shared on purpose: every pipeline that
    holds it shares its circuit. Safe from any thread and any event loop.
    """

    role: ClassVar = "breaker"

    trip: Any = field(default=None, converter=_to_optional_trip, kw_only=True)
    failures: int | None = checked(
        to_count,
        Factory(lambda self: 5 if self.trip is None else None, takes_self=True),
        optional=True,
    )
    reset_after: Any = checked(to_open_time, 60.0)
    trials: int = count(1)
    successes: int = count(1)
    on: Match = checked(to_match, SERVICE_FAULT)
    on_result: Callable[[Any], Any] | None = checked(to_plain_function, None, optional=True)
    key: str | Callable[..., Hashable] | None = checked(_to_key, None, optional=True)
    name: str | None = checked(to_text, None, optional=True)
    storage: Any = field(default=None)
    listeners: tuple[Any, ...] = checked(to_listeners, ())
    refresh: Seconds = seconds(1.0, positive=False)
    tolerate: float = checked(_to_tolerance, 0.0)
    trial_timeout: Seconds | None = seconds(None, optional=True)
    wait_for_trial: Seconds | None = seconds(None, optional=True)
    ramp: Seconds | None = seconds(None, optional=True)
    keep: int = count(100_000)
    forget_after: Seconds = seconds(600.0)
    _limits: Limits = _made(lambda self: Limits.of(self))
    _circuits: Circuits = _made(
        lambda self: Circuits(
            self._limits, self.name, self.keep, plain(self.forget_after), self._changed
        )
    )
    _storages: Storages | None = _made(
        lambda self: Storages.of(self.storage, self.key is not None, plain(self.refresh))
    )
    _told: Listeners | None = _made(lambda self: Listeners.of(self.listeners))

    def __attrs_post_init__(self) -> None:
        to_storage("storage", self.storage, keyed=self.key is not None)
        if self.key is None:
            self._circuits.at(None)

    def __repr__(self) -> str:
        shown = call_repr(self)
        if self.key is not None:
            return shown
        return f"<{shown}: {self._only.shown}>"

    # By hand

    def circuit(self, value: Hashable) -> Circuit:
        """The circuit for one value of the key."""
        if self.key is None:
            raise TypeError(
                "this breaker has no key: use its own state, open(), close(), isolate()"
            )
        return self._circuits.at(value)

    @property
    def state(self) -> str:
        """ "closed", "open", "half-open", "isolated" or "disabled"."""
        return self._only.state

    @property
    def retry_at(self) -> datetime | None:
        """The time at which a call may be tried (aware, UTC); None while closed or isolated."""
        return self._only.retry_at

    def snapshot(self) -> Snapshot:
        """How the circuit stands now, as a value."""
        return self._only.snapshot()

    def open(self) -> None:
        """Open as failures would have: trials are let through after `reset_after` seconds."""
        self._only.open()

    def close(self) -> None:
        """Close, whatever has happened; answers of calls begun before change nothing.

        Ends all isolations, `disable()` and `shadow()`.
        """
        self._only.close()

    def isolate(self) -> Isolation:
        """Refuse all calls until what is returned is released (`release()`, or the end of a `with`
        block), the last of them if there are several; or until `close()`."""
        return self._only.isolate()

    def disable(self) -> None:
        """Let all calls through and count nothing, until `close()`."""
        self._only.disable()

    def shadow(self) -> None:
        """Until `close()`, count and report changes of state, but refuse nothing."""
        self._only.shadow()

    @property
    def _only(self) -> Circuit:
        if self.key is not None:
            raise TypeError("this breaker is keyed: use circuit(value) and ask that")
        return self._circuits[None]

    # At rest

    @property
    def rests(self) -> bool:
        """A healthy call needs nothing of a closed circuit, unless somebody is to hear of it."""
        return (
            self.on_result is None
            and self.storage is None
            and (self._told is None or not self._told.healthy)
        )

    @property
    def hears(self) -> Callable[[Callable[..., Any]], Heard] | None:
        """What counts a function's healthy calls at rest; None where only failures count."""
        return self._hearing if self._limits.rates else None

    def _hearing(self, fn: Callable[..., Any]) -> Heard:
        if self.key is None:
            return self._only.heard
        read, find, make = _reader(fn, self.key), self._circuits.find, self._circuits.at

        def heard(
            args: tuple[Any, ...], kwargs: dict[str, Any], epoch: int, began: float, ended: float
        ) -> bool:
            try:
                value = read(args, kwargs)
                circuit = find(value)
                if circuit is None:
                    circuit = make(value)
            except Exception:
                return False  # to be said in the full chain
            return circuit.heard(args, kwargs, epoch, began, ended)

        return heard

    def watch(self, rest: Rest) -> None:
        """Tell `rest` when a circuit ceases to be closed and clean, and when all are again."""
        self._circuits.watch(rest)

    # In the chain

    def fits(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        if isinstance(self.key, str):
            slot_of(fn, self.key, reading=True)

    def refuses(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether such a call would be refused now."""
        if not self._circuits.restless:
            return False
        record = current()
        try:
            circuit = self._circuit_for(record, args, kwargs)
        except Exception:
            return False  # it goes through, and there the log tells why
        return circuit.refuses(world_now(), record.calls)

    async def before_block(self, runtime: Runtime) -> None:
        """Hear what others say of the circuit where a block's `with` could not wait for it.

        Of a keyed breaker, only the block itself can tell which circuit that is.
        """
        if self._storages is not None and self.key is None:
            backing = await self._storages.attach(self._only, runtime)
            assert backing is not None  # only a keyed breaker's has to be made first
            await backing.refresh(runtime)

    def bind(self, call: Call, runtime: Runtime) -> Call:
        patience = plain(self.wait_for_trial) if self.wait_for_trial is not None else None
        waits = self._storages is not None or patience is not None

        async def broken(*args: Any, **kwargs: Any) -> Any:
            record = current()
            resumed = record.resumed
            try:
                circuit = self._circuit_for(record, args, kwargs)
            except Exception as problem:
                # At rest nobody would have asked for its key: it goes through here too.
                record.grumble("key", problem)
                return await call(*args, **kwargs)
            backing, wait = circuit.backing, patience
            if waits and hurried(record, runtime):
                backing, wait = self._storages and self._storages.later(circuit), None
            elif backing is None and self._storages is not None:
                backing = await self._storages.attach(circuit, runtime)
            if backing is not None:
                await backing.refresh(runtime)
            if resumed is not None:
                permit = circuit.resume(resumed.epoch, resumed.started)
            elif wait is None and backing is None:
                permit = circuit.admit(runtime.now(), runtime.random, record.calls)
            else:
                permit = await admitted(circuit, runtime, backing, wait, record.calls)
            if permit.part:
                return await call(*args, **kwargs)
            failed: bool | None = None
            try:
                if self._told is not None and record.ready is None:  # or it was told before
                    self._told.before_call(circuit, record.fn, args, kwargs)
                result = await call(*args, **kwargs)
            except Exception as error:
                failed = self._failed(record, permit, error)
                raise
            else:
                failed = record.bad(self.on_result, result)
                (permit.failed if failed else permit.succeeded)()
                if self._told is not None and not failed:
                    self._told.success(circuit)
                return result
            finally:
                permit.released()
                if circuit.refuses(runtime.now()):
                    record.opened = True
                if backing is not None:
                    if failed is not None:
                        await backing.verdict(runtime, permit, failed=failed)
                    else:
                        backing.released(permit)

        return broken

    def _failed(self, record: Record, permit: Permit, error: Exception) -> bool | None:
        """Count the error, unless it is none of ours or was counted in a call inside this one."""
        failure = record.failure(error)
        own = failure.error if failure.error is not None else error
        if not record.matches(self.on, failure):
            return None
        if charged_inside(own, permit.circuit, record):
            return None
        charge(own, permit.circuit, record)
        permit.failed(own, failure)
        if permit.circuit.backing is not None:
            permit.circuit.backing.blame(own, failure)
        if self._told is not None:
            self._told.failure(permit.circuit, own)
        return True

    def _circuit_for(
        self, record: Record, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Circuit:
        if self.key is None:
            return self._circuits[None]
        return self._circuits.at(_reader(record.fn, self.key)(args, kwargs))

    def _changed(self, circuit: Circuit, change: Change) -> None:
        backing = circuit.backing
        if backing is None and self._storages is not None and change.event in BY_HAND:
            backing = self._storages.at_hand(circuit)
        if backing is not None:
            backing.note(change)
        if self._told is not None and change.old != change.new:
            self._told.state_change(circuit, change)


def _reader(
    fn: Callable[..., Any], key: str | Callable[..., Hashable]
) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
    """What tells the key's value from a call's arguments."""
    if isinstance(key, str):
        return slot_of(fn, key, reading=True).read
    return lambda args, kwargs: key(*args, **kwargs)
