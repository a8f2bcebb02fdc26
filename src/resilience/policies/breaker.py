"""Stop calling what keeps failing, and try it again now and then.

Inside `Retry`, so that every attempt counts; with a `Timeout` inside it, so that it hears of hung
calls. Not for errors of the caller's own: `SERVICE_FAULT` leaves those out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from datetime import datetime
from typing import Any, ClassVar
from weakref import WeakSet

from attrs import Factory, field, frozen

from resilience._core.arguments import slot_of
from resilience._core.fields import (
    call_repr,
    checked,
    count,
    plain,
    seconds,
    suggesting,
    to_plain_function,
    to_text,
)
from resilience._core.history import charge, charged_inside
from resilience._core.locks import new_lock
from resilience._core.record import Record, current
from resilience._core.rest import Rest
from resilience._core.world import now as world_now
from resilience.matching import SERVICE_FAULT, Match, as_match
from resilience.typing import Call, Runtime, Seconds

from ._circuit import CLOSED, Change, Circuit, Limits, Permit
from ._pybreaker import Factories, Listeners, Stored, to_listeners, to_storage

__all__ = ["CircuitBreaker"]


def _to_match(name: str, value: Any) -> Match:
    return as_match(value, field=name)


def _to_key(name: str, value: Any) -> Any:
    return to_text(name, value) if isinstance(value, str) else to_plain_function(name, value)


@suggesting
@frozen(eq=False, repr=False)
class CircuitBreaker:
    """After `failures` in a row, refuse calls for `reset_after` seconds, then try `trials` at once.

    - `failures` (5): failures in a row that open the circuit.
    - `reset_after` (60): seconds for which it stays open.
    - `trials` (1): calls let through at the same time while half open; `successes` (1): how many
      of them must go well to close it. One that fails opens it again.
    - `on` (`SERVICE_FAULT`): what counts as a failure. No error is a success; any other error is
      neither, and so is a cancelled call, or one cut by a `Timeout` outside.
    - `on_result` (None): a function of the result, true if it counts as a failure.
    - `key` (None): an argument's name, or a function of the call's arguments: one circuit for each
      value, got with `circuit(value)`.
    - `name` (None): for people.
    - `storage` (None): a pybreaker storage to share state through; keyed, a function of the key.
      Read at most every `refresh` seconds (1). If it fails, the circuit goes on by itself.
    - `listeners`: pybreaker listeners.

    A refused call gets `CircuitOpenError`. The object is shared on purpose: every pipeline that
    holds it shares its circuit. Safe from any thread and any event loop.
    """

    role: ClassVar = "breaker"

    failures: int = count(5)
    reset_after: Seconds = seconds(60.0)
    trials: int = count(1)
    successes: int = count(1)
    on: Match = checked(_to_match, SERVICE_FAULT)
    on_result: Callable[[Any], Any] | None = checked(to_plain_function, None, optional=True)
    key: str | Callable[..., Hashable] | None = checked(_to_key, None, optional=True)
    name: str | None = checked(to_text, None, optional=True)
    storage: Any = field(default=None)
    listeners: tuple[Any, ...] = checked(to_listeners, ())
    refresh: Seconds = seconds(1.0, positive=False)
    _lock: Any = field(factory=new_lock, init=False, repr=False)
    _circuits: dict[Hashable, Circuit] = field(factory=dict, init=False, repr=False)
    _stored: dict[Hashable, Stored] = field(factory=dict, init=False, repr=False)
    _hurdle: Factories = field(factory=Factories, init=False, repr=False)
    _restless: set[int] = field(factory=set, init=False, repr=False)
    _resting: WeakSet[Rest] = field(factory=WeakSet, init=False, repr=False)
    _told: Listeners | None = field(
        default=Factory(lambda self: Listeners.of(self.listeners), takes_self=True),
        init=False,
        repr=False,
    )

    def __attrs_post_init__(self) -> None:
        to_storage("storage", self.storage, keyed=self.key is not None)
        if self.key is None:
            self._circuit(None)

    def __repr__(self) -> str:
        return call_repr(self)

    # By hand

    def circuit(self, value: Hashable) -> Circuit:
        """The circuit for one value of the key."""
        if self.key is None:
            raise TypeError(
                "this breaker has no key: use its own state, open(), close(), isolate()"
            )
        return self._circuit(value)

    @property
    def state(self) -> str:
        """ "closed", "open", "half-open" or "isolated"."""
        return self._only.state

    @property
    def retry_at(self) -> datetime | None:
        """The time at which a call may be tried (aware, UTC); None while closed or isolated."""
        return self._only.retry_at

    def open(self) -> None:
        """Open as failures would have: trials are let through after `reset_after` seconds."""
        self._only.open()

    def close(self) -> None:
        """Close, whatever has happened; answers of calls begun before change nothing."""
        self._only.close()

    def isolate(self) -> None:
        """Refuse all calls until `close()`."""
        self._only.isolate()

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

    def watch(self, rest: Rest) -> None:
        """Tell `rest` when a circuit ceases to be closed and clean, and when all are again."""
        with self._lock:
            self._resting.add(rest)
            if self._restless:
                rest.stir(self)

    def _stirred(self, circuit: Circuit, calm: bool) -> None:
        with self._lock:
            before = bool(self._restless)
            (self._restless.discard if calm else self._restless.add)(id(circuit))
            resting = list(self._resting)
            for rest in resting:
                if self._restless and not before:
                    rest.stir(self)
                elif not self._restless:
                    rest.settle(self)  # a new token: what was noted before is out of date

    # In the chain

    def fits(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        if isinstance(self.key, str):
            slot_of(fn, self.key)

    def refuses(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether such a call would be refused now."""
        if not self._restless:
            return False
        return self._circuit_for(current(), args, kwargs).refuses(world_now())

    def bind(self, call: Call, runtime: Runtime) -> Call:
        async def broken(*args: Any, **kwargs: Any) -> Any:
            record = current()
            try:
                circuit = self._circuit_for(record, args, kwargs)
            except Exception as problem:
                if record.resumed is None:
                    raise
                record.grumble("key", problem)  # the call was made at rest: its outcome counts
                return await call(*args, **kwargs)
            stored = None
            if self.storage is not None:
                stored = self._stored.get(circuit.key) or await self._attach(circuit, runtime)
            if stored is not None:
                await stored.refresh(runtime)
            if record.resumed is None:
                permit = circuit.admit(runtime.now())
            else:
                permit = circuit.resume(record.resumed.epoch)
            failed: bool | None = None
            try:
                if self._told is not None:
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
                if stored is not None and failed is not None:
                    await stored.verdict(runtime, failed=failed)

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
        permit.failed(own)
        if self._told is not None:
            self._told.failure(permit.circuit, own)
        return True

    # Circuits

    def _circuit_for(
        self, record: Record, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Circuit:
        if self.key is None:
            return self._circuits[None]
        if isinstance(self.key, str):
            value = slot_of(record.fn, self.key).read(args, kwargs)
        else:
            value = self.key(*args, **kwargs)
        return self._circuit(value)

    def _circuit(self, value: Hashable) -> Circuit:
        try:
            circuit = self._circuits.get(value)
        except TypeError:
            raise TypeError(f"key must be hashable, got a {type(value).__name__}") from None
        if circuit is None:
            limits = Limits(self.failures, plain(self.reset_after), self.trials, self.successes)
            fresh = Circuit(limits, self.name, value, self._changed, self._stirred)
            circuit = self._circuits.setdefault(value, fresh)
        return circuit

    async def _attach(self, circuit: Circuit, runtime: Runtime) -> Stored | None:
        """The circuit's storage, made where it is first needed; None while none can be had."""
        make = functools.partial(self.storage, circuit.key) if self.key is not None else None
        storage = await self._hurdle.get(runtime, circuit, make) if make else self.storage
        if storage is None:
            return None
        fresh = Stored(storage, circuit, plain(self.refresh))
        if not circuit.closed:
            fresh.note(Change(CLOSED, circuit.state))  # moved by hand before
        return self._stored.setdefault(circuit.key, fresh)

    def _changed(self, circuit: Circuit, change: Change) -> None:
        stored = self._stored.get(circuit.key)
        if stored is not None:
            stored.note(change)
        if self._told is not None:
            self._told.state_change(circuit, change)
