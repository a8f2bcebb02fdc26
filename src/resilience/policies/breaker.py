"""Stop calling what keeps failing, and try it again now and then.

Inside `Retry`, so that every attempt counts; with a `Timeout` inside it, so that it hears of hung
calls. Not for errors of the caller's own: `SERVICE_FAULT` leaves those out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from attrs import Factory, field, fields, frozen

from resilience._core.clock import monotonic
from resilience._core.clock import now as clock_now
from resilience._core.identity import Identity
from resilience._core.instances import Instances
from resilience._core.keyed import check_key, key_reader, key_title
from resilience._core.options import (
    Seconds,
    call_repr,
    checked,
    count,
    plain,
    seconds,
    suggesting,
    to_count,
    to_key,
    to_number,
    to_text,
    warn_option_failed,
)
from resilience.circuit.circuit import Circuit, Isolation
from resilience.circuit.limits import Limits
from resilience.circuit.listeners import Listeners, emit, to_listeners
from resilience.circuit.machine import Permit, permit_of
from resilience.circuit.opening import to_open_time
from resilience.circuit.registry import Circuits
from resilience.circuit.states import MANUAL, Change, Closed, Disabled, Ending, Open
from resilience.errors import RejectedError
from resilience.failures import Failure, Kind
from resilience.matching import SERVICE_FAULT, Match, On, kind, to_match
from resilience.policy import (
    BUSY,
    NO_VERDICT,
    Call,
    Effect,
    Emitter,
    Emitters,
    Gate,
    Idle,
    InHand,
    Runtime,
    Verdict,
)
from resilience.waits import Exponential, to_wait

if TYPE_CHECKING:  # imported where first needed, as few breakers have a storage
    from resilience.circuit.pybreaker import Storages
    from resilience.circuit.snapshot import Snapshot
    from resilience.circuit.storage import SharedState

__all__ = ["CircuitBreaker"]


def _to_optional_trip(value: Any) -> Any:
    if value is None:
        return None
    from resilience.circuit.trip import to_trip  # imported where first needed

    return to_trip("trip", value)


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
class CircuitBreaker(Identity, Gate):
    """After `failures` in a row, reject calls for `reset_after` seconds, then try `trials` at once.

    - `failures` (5): failures in a row that open the circuit. Or `trip` (None): a rule or several
      joined with `|`: `Consecutive(5)`, `FailureRate(0.5)`, `SlowCalls(10, 0.5)`.
    - `reset_after` (`Exponential(5, factor=2, max=12)`): seconds for which it stays open; or a
      wait, asked with the number of openings in a row. Longer, up to a day, if the failure that
      opened it says so.
    - `trials` (1): calls let through at the same time while half open; `successes` (1): how many
      of them must go well to close it. One that fails opens it again, unless `tolerate` (0), the
      share of trials that may fail, allows for it.
    - `trial_timeout` (None): seconds after which a trial that hangs is given up on: its slot is
      free, and its answer changes nothing.
    - `wait_for_trial` (None): seconds for which calls beyond the trials wait for their verdict
      instead of being rejected at once.
    - `ramp` (None): seconds after closing during which only a share of the calls is let through,
      which grows from none to all.
    - `on` (`SERVICE_FAULT`): what counts as a failure. No error is a success; any other error is
      neither, and so is a cancelled call, one cut by a `Timeout` outside, or a rejection of ours.
    - `key` (None): an argument's name, or a function of the call's arguments: one circuit for each
      value, got with `circuit(value)`. A call whose key cannot be computed (the function raises,
      the value is not hashable) is not guarded by this breaker, and the log says so. Closed
      circuits are forgotten when they are clean and unused for `forget_after` seconds (600), open
      ones when nobody has tried them for so long; the oldest of both when there are more than
      `keep` (100,000).
    - `name` (None): for people.
    - `storage` (None): a `resilience.shared.RedisCircuit`, to share circuits between processes; or
      a pybreaker storage; keyed, a function of the key that gives one.
      Read at most every `refresh` seconds (1). If it fails, the circuit uses local state.
    - `listeners`: pybreaker listeners.

    A rejected call gets `CircuitOpenError`. The object is shared on purpose: every pipeline that
    holds it shares its circuit. It pickles as its options: its circuits begin anew in the other
    process. Safe from any thread and any event loop.
    """

    role: ClassVar[str | None] = "breaker"

    trip: Any = field(default=None, converter=_to_optional_trip, kw_only=True)
    failures: int | None = checked(
        to_count,
        Factory(lambda self: 5 if self.trip is None else None, takes_self=True),
        optional=True,
        metadata={"shown": 5},
    )
    reset_after: Any = checked(to_open_time, Factory(lambda: Exponential(5, factor=2, max=12)))
    trials: int = count(1)
    successes: int = count(1)
    on: On = checked(to_match, SERVICE_FAULT)
    key: str | Callable[..., Hashable] | None = checked(to_key, None, optional=True)
    name: str | None = checked(to_text, None, optional=True)
    storage: Any = field(default=None)
    listeners: Sequence[Any] = checked(to_listeners, ())
    refresh: Seconds = seconds(1.0, positive=False)
    tolerate: float = checked(_to_tolerance, 0.0)
    trial_timeout: Seconds | None = seconds(None, optional=True)
    wait_for_trial: Seconds | None = seconds(None, optional=True)
    ramp: Seconds | None = seconds(None, optional=True)
    keep: int = count(100_000)
    forget_after: Seconds = seconds(600.0)
    _emitters: Emitters = _made(lambda self: Emitters())
    _circuits: Circuits = _made(
        lambda self: Circuits(
            Limits.of(self),
            self.name,
            self.keep,
            plain(self.forget_after),
            self._publish,
            self._emitters if self.storage is None and not self.listeners else None,
        )
    )
    _listeners: Listeners | None = _made(lambda self: Listeners.of(tuple(self.listeners)))
    _storages: Storages | None = _made(lambda self: None if self.storage is None else _shared(self))
    _one: Circuit | None = _made(lambda self: None if self.key else self._circuits.at(None))
    # A healthy call needs nothing of a closed circuit, unless somebody is to hear of it.
    resting: bool = _made(
        lambda self: (
            self.storage is None and (self._listeners is None or not self._listeners.healthy)
        )
    )
    _at_once: bool = _made(lambda self: self.resting and not self._circuits.limits.rates)

    def __repr__(self) -> str:
        shown = call_repr(self)
        if self.key is not None:
            return shown
        return f"<{shown}: {self._only._shown}>"

    def __reduce__(self) -> Any:
        options = {each.name: getattr(self, each.name) for each in fields(type(self)) if each.init}
        if self.trip is not None:
            del options["failures"]
        return partial(type(self), **options), ()

    def __attrs_post_init__(self) -> None:
        breakers.add(self)

    def circuits(self) -> dict[Hashable, Circuit]:
        """The circuits that exist, by the value of the key; one for None without a key. Asking
        makes none."""
        return self._circuits.all()

    # Manual commands

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
        """Reject all calls until what is returned is released (`release()`, or the end of a `with`
        block), the last of them if there are several; or until `close()`."""
        return self._only.isolate()

    def disable(self) -> None:
        """Let all calls through and count nothing, until `close()`."""
        self._only.disable()

    def shadow(self) -> None:
        """Until `close()`, count and report changes of state, but reject nothing."""
        self._only.shadow()

    @property
    def _only(self) -> Circuit:
        if self._one is None:
            raise TypeError("this breaker is keyed: use circuit(value) and ask that")
        return self._one

    def attach(self, emitter: Emitter) -> None:
        self._emitters.add(emitter)

    # At rest

    def watch(self, idle: Idle) -> None:
        self._circuits.watch(idle)

    def busy(self) -> bool:
        return self._circuits.busy()

    def at_rest(
        self, fn: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[..., bool]] | None:
        """Healthy calls are counted where a rule looks at a share of the calls."""
        if not self._circuits.limits.rates:
            return None
        read = None if self.key is None else key_reader(self.key, fn)

        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            try:
                circuit = self._one if read is None else self._circuits.at(read(args, kwargs))
            except Exception:
                return BUSY  # to be said on the full path
            assert circuit is not None
            return circuit, circuit._state, monotonic()

        def end(held: Any, error: Verdict, result: Any) -> bool:
            circuit, state, began = held
            if error is not None:
                return True
            now = monotonic()
            return bool(circuit._count_success(state, now - began, now))

        return begin, end

    # Explained

    def effect(self) -> Effect:
        from resilience._core.schedule import in_words

        whose = "one circuit" if self.key is None else f"a circuit for each {key_title(self.key)}"
        rule = f"{self.failures} failures in a row" if self.trip is None else f"{self.trip!r}"
        open_time = in_words(to_wait("reset_after", self.reset_after), math.inf)
        return Effect(
            line=f"{whose}: after {rule} rejects calls for {open_time}, then lets {self.trials} "
            f"through to try",
            waits=plain(self.wait_for_trial or 0.0),
            reactions=(
                (kind(Kind.REJECTED), ""),
                (cast(Match, self.on), "counted by the circuit"),
            ),
        )

    # On the full path

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        check_key(self.key, fn)

    def refuses(self, call: Call) -> bool:
        circuit = self._one or self._circuit_of(call, asking=True)
        if circuit is None or type(circuit._state) is Closed:
            return False
        return circuit._refuses(clock_now(), call)

    def free_in(self, call: Call) -> float:
        circuit = self._one or self._circuit_of(call, asking=True)
        if circuit is None or not circuit._refuses(clock_now(), call):
            return 0.0
        left = circuit.retry_after
        return left or math.inf  # nobody knows when an isolation or a trial ends

    def try_enter(self, call: Call, runtime: Runtime) -> Any:
        circuit = self._one
        if circuit is None:
            circuit = self._circuit_of(call)
            if circuit is None:
                return _UNGUARDED
            circuit._used = runtime.now()
        state = circuit._state
        if self._at_once and type(state) is Closed and state.ramp is None:
            permit = state.permit
            if permit is None or permit.runtime is not runtime:
                permit = state.permit = permit_of(circuit, state, 0.0, runtime)
            return permit
        if self._storages is not None or self.wait_for_trial is not None:
            return None
        if type(state) is Open and state.asked is None and not circuit._shadow:
            now = runtime.now()
            if now < state.until:
                raise circuit._refusal(now)
        admitted = circuit._admit(call, runtime)
        if admitted is None:
            raise circuit._refusal(runtime.now())
        if self._listeners is not None:
            try:
                self._announce(admitted, call)
            except BaseException:
                self._give_back(admitted)
                raise
        return admitted

    async def enter(self, call: Call, runtime: Runtime) -> Any:
        circuit = self._one or self._circuit_of(call)
        if circuit is None:
            return _UNGUARDED
        shared = None
        if self._storages is not None:
            shared = await self._storages.refreshed(circuit, runtime, call)
        end = runtime.now() + plain(self.wait_for_trial or 0.0)
        while (permit := circuit._admit(call, runtime)) is None:
            if not await circuit._wait(call, runtime, end):
                raise circuit._refusal(runtime.now())
        try:
            asked = shared if permit.trial and runtime.may_wait else None
            if asked is not None and not await asked.claim(runtime, permit):
                raise circuit._refusal(runtime.now())
            self._announce(permit, call)
        except BaseException:
            self._give_back(permit)
            raise
        return permit

    def resume(self, permit: Any, call: Call, in_hand: InHand) -> Any:
        if permit is not None:
            circuit, state, began = permit
            return permit_of(circuit, state, began, None)
        circuit = self._one or self._circuit_of(call)
        return _UNGUARDED if circuit is None else circuit._resume(in_hand.epoch, in_hand.started)

    def leave(self, permit: Any, call: Call, error: Verdict) -> None:
        circuit, state = permit.circuit, permit.state
        if error is None and self._at_once and type(state) is Closed and state.run == 0:
            return  # a healthy call of a healthy circuit
        if state is None:
            return
        failed: bool | None = False
        cause = failure = None
        if error is not None:
            failed, cause, failure = self._judge(permit, call, error)
        runtime: Runtime | None = permit.runtime
        now = clock_now() if runtime is None else runtime.now()
        circuit._settle(permit, failed, now, cause, failure)
        if self._listeners is not None:
            if cause is not None:
                self._listeners.failure(circuit, cause)
            elif failed is False:
                self._listeners.success(circuit)
        if self._storages is None or type(state) is Disabled:
            return
        if error is not NO_VERDICT or (runtime is not None and runtime.may_wait):
            # Else the function turned out to be async: the call goes on, and asks by itself.
            self._storages.record(permit, Ending(failed, now, cause, failure))

    def _judge(
        self, permit: Permit, call: Call, error: Any
    ) -> tuple[bool | None, BaseException | None, Failure | None]:
        """Whether an error counts, and what it is then. Not if it is none of ours, or was counted
        in a call further in; and our own rejections say nothing about the service."""
        if error is NO_VERDICT:
            return None, None, None
        failure = call.failure(error)
        own = cast(Exception, failure.error)
        if issubclass(type(own), RejectedError) or not call.matches(cast(Match, self.on), failure):
            return None, None, None
        circuit = permit.circuit
        for report in call.reported(call.branch.number - 1, own):
            if circuit in report.circuits:
                return None, None, None
        call.report(own, circuits=(circuit,))
        return True, own, failure

    def _circuit_of(self, call: Call, *, asking: bool = False) -> Circuit | None:
        """The circuit for a call; None if its key cannot be computed. For one that is only `asking`
        also if there is none yet; where it comes to calling, the log says why."""
        key = self.key
        try:  # as `key_of`, without its call
            if not isinstance(key, str):
                assert key is not None
                value = key(*call.args, **call.kwargs)
            elif key in call.kwargs:
                value = call.kwargs[key]
            else:
                value = call.slot(key, reading=True).read(call.args, call.kwargs)
            return self._circuits.find(value) if asking else self._circuits.at(value)
        except Exception as problem:
            if not asking:
                warn_option_failed("CircuitBreaker(key=)", problem)
            return None

    def _announce(self, permit: Permit, call: Call) -> None:
        """Tell listeners of a call, unless it was begun before and they have heard of it."""
        if self._listeners is None or permit.state is None or call.branch.in_hand is not None:
            return
        self._listeners.before_call(permit.circuit, call.fn, call.args, call.kwargs)

    def _give_back(self, permit: Permit) -> None:
        """Ctrl-C or a cancellation before the call, or a slot that others have: it is not lost."""
        now = clock_now()
        permit.circuit._settle(permit, None, now)
        if self._storages is not None:
            self._storages.record(permit, Ending(None, now))

    def _publish(self, circuit: Circuit, change: Change) -> None:
        shared: SharedState | None = circuit._storage
        if shared is None and self._storages is not None and change.event in MANUAL:
            shared = self._storages.at_once(circuit)
        if shared is not None:
            shared.on_change(change)
        if change.old != change.new:
            emit(self._emitters, circuit, change)
            if self._listeners is not None:
                self._listeners.state_change(circuit, change)


_UNGUARDED = permit_of(None, None, 0.0, None)
"""The permit of a call whose key cannot be computed."""


def _shared(breaker: Any) -> Storages:
    from resilience.circuit.pybreaker import Storages, to_storage

    keyed = breaker.key is not None
    return Storages(to_storage("storage", breaker.storage, keyed=keyed), keyed, breaker.refresh)


breakers: Instances[CircuitBreaker] = Instances()
