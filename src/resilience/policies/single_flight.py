"""One call for several callers that ask for the same at the same time.

For reads that are slow or dear: an answer to one prompt, a token, a price list. Outside `Retry` and
`CircuitBreaker`, as a rule. It is no cache: a call that comes after the answer is a new one. Not
for calls that are to do something each time they are made.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from attrs import field, frozen

from resilience._core.anatomy import traceback_of
from resilience._core.attempt import Attempt
from resilience._core.identity import Identity
from resilience._core.keyed import check_key, key_of, key_title
from resilience._core.locks import new_lock
from resilience._core.options import (
    call_repr,
    checked,
    suggesting,
    to_key,
    warn_option_failed,
)
from resilience.policy import (
    Call,
    Effect,
    Inner,
    PendingResult,
    Policy,
    Report,
    Runtime,
    Waiter,
)

__all__ = ["SingleFlight"]

_Key: TypeAlias = tuple[int, Hashable]


@suggesting
@frozen(eq=False, repr=False)
class SingleFlight(Identity, Policy):
    """Calls that are equal and under way at the same time become one: the first caller makes it,
    the others wait for what it gives.

    - `key` (None): what makes two calls of a function equal: an argument's name, or a function of
      the call's arguments; by default all arguments. Dicts, lists and sets are compared by what is
      in them. A call whose key cannot be computed or hashed is made by itself, and the log says so.

    All of them get the very same result, which none should change, or the very same exception.
    Nothing is kept: a call that comes after the end is a new one. If the caller that makes the call
    is cancelled, out of time or stopped by Ctrl-C, the next of those who wait makes it anew. If one
    of those who wait is cancelled, the others do not notice.

    Results are shared among sync calls of all threads, and among the tasks of one event loop; never
    across event loops or processes. A sync call on an event loop's own thread must not wait, so it
    is made by itself; so is one that is made inside the very call that it would wait for. A stream
    has one reader: where the result is a stream or any other iterator, each caller makes a call of
    its own, those who wait as soon as the first one has its stream.

    Safe from any thread. A pickled one shares with nobody in the other process.
    """

    role: ClassVar[str | None] = "single_flight"

    key: str | Callable[..., Any] | None = checked(to_key, None, optional=True)
    _lock: Any = field(factory=new_lock, init=False, repr=False)
    _flights: WeakValueDictionary[int, _Flight] = field(
        factory=WeakValueDictionary, init=False, repr=False
    )
    """By the hash of what is equal. Each is kept by its callers alone, so that none outlives a
    closed loop; nor is what is equal kept here, which may lead to those callers."""

    def __repr__(self) -> str:
        return call_repr(self)

    def __reduce__(self) -> Any:
        return SingleFlight, (self.key,)

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        check_key(self.key, fn)

    def check_block(self, *, asynchronous: bool) -> None:
        """Raise TypeError: a block has no result that could be shared."""
        raise TypeError(f"{self!r} has no result of a block of code to share; guard a function")

    def effect(self) -> Effect:
        key = "all arguments" if self.key is None else key_title(self.key)
        return Effect(
            line=f"makes one call of those under way that are equal by {key}; a caller whose "
            f"shared call was cancelled, or gave a stream, then makes its own"
        )

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def single_flight(call: Call) -> Any:
            key = self._key_of(call, runtime) if runtime.may_wait else None
            if key is None:
                return await inner(call)
            caller = _Caller(call)
            try:
                flight = self._join(key, caller, runtime)
                if flight is not None:
                    if flight.leader is not caller:
                        await caller.waiter.wait(math.inf, call)
                    if flight.leader is caller:
                        return await self._lead(flight, inner, runtime)
            finally:
                self._leave(caller)
            if caller.shared is None:
                return await inner(call)
            call.journal.begin(runtime)
            return _receive(caller)

        return single_flight

    def _key_of(self, call: Call, runtime: Runtime) -> _Key | None:
        """What equal calls have the same, and its hash; None if it cannot be computed."""
        key = self.key
        try:
            value = (call.args, call.kwargs) if key is None else key_of(key, call)
            equal = (runtime.home(), call.fn, _frozen(value))
            return hash(equal), equal
        except Exception as problem:
            warn_option_failed("SingleFlight(key=)", problem)
            return None

    def _join(self, key: _Key, caller: _Caller, runtime: Runtime) -> _Flight | None:
        """Join the flight that is under way, or begin one. None for a
        call that is made inside that flight, or whose hash another one has just now."""
        journal = caller.call.journal
        number, _ = key
        with self._lock:
            while True:
                flight = self._flights.get(number)
                if flight is None:
                    caller.flight = flight = _Flight(key, caller)
                    self._flights[number] = flight
                    return flight
                if flight.key != key or caller.call.is_inside(flight.leader.call.journal):
                    return None
                caller.waiter = runtime.waiter()
                caller.flight = flight
                flight.waiting[caller] = None
                if not flight.over:  # a finalizer in this thread may have ended it just now
                    break
            if journal.keeps:  # whoever makes the call records its attempts for this one, too
                flight.keeps = flight.leader.call.journal.keeps = True
            return flight

    async def _lead(self, flight: _Flight, inner: Inner, runtime: Runtime) -> Any:
        call = flight.leader.call
        journal, since = call.journal, call.branch.number
        journal.begin(runtime)
        if flight.keeps:
            journal.keeps = True
        try:
            result = await inner(call)
        except Exception as error:
            self._finish(flight, _share(call, since, None, error))
            raise
        shared = None if _for_one_reader(result) else _share(call, since, result, None)
        self._finish(flight, shared)
        return result

    def _finish(self, flight: _Flight, shared: _Shared | None) -> None:
        with self._lock:
            flight.over = True
            number, _ = flight.key
            if self._flights.get(number) is flight:
                del self._flights[number]
            flight.wake(shared)

    def _leave(self, caller: _Caller) -> None:
        """A caller's call has ended, in whatever way. A leader who has nothing to share passes the
        lead on."""
        flight, caller.flight = caller.flight, None
        if flight is None or (flight.over and not flight.waiting):
            return
        with self._lock:
            flight.waiting.pop(caller, None)
            if flight.leader is not caller:
                return
            if flight.over or not flight.waiting:
                self._finish(flight, None)  # whom Ctrl-C has left waiting makes its own call
                return
            flight.leader, _ = flight.waiting.popitem(last=False)
            flight.leader.waiter.set()


class _Caller:
    """One of the callers of a flight; `shared` is what the leader's call has given."""

    __slots__ = ("call", "flight", "shared", "waiter")

    waiter: Waiter

    def __init__(self, call: Call) -> None:
        self.call = call
        self.flight: _Flight | None = None
        self.shared: _Shared | None = None


class _Flight:
    """A call under way: who makes it, who waits for it in which order, whether it is over."""

    __slots__ = ("__weakref__", "keeps", "key", "leader", "over", "waiting")

    def __init__(self, key: _Key, leader: _Caller) -> None:
        self.key = key
        self.leader = leader
        self.waiting: OrderedDict[_Caller, None] = OrderedDict()
        self.keeps = self.over = False

    def wake(self, shared: _Shared | None) -> None:
        """Have all who wait go on, with what the call has given or, for None, on their own."""
        while self.waiting:
            caller, _ = self.waiting.popitem(last=False)
            caller.shared = shared
            caller.waiter.set()


class _Shared(NamedTuple):
    """What a call has given: a result or an error, and what happened on the way."""

    result: Any
    error: Exception | None
    traceback: TracebackType | None
    attempts: tuple[Attempt, ...]
    reports: tuple[Report, ...]
    served: str | None
    degraded: bool
    began: float


def _share(call: Call, since: int, result: Any, error: Exception | None) -> _Shared:
    journal = call.journal
    return _Shared(
        result,
        error,
        None if error is None else traceback_of(error),
        tuple(attempt for attempt in journal.attempts if attempt.number > since),
        tuple(report for report in call.branch.reports if report.number > since),
        journal.served,
        journal.degraded,
        journal.began or 0.0,
    )


def _receive(caller: _Caller) -> Any:
    """What another caller's call has given, as if this one had made it."""
    shared, caller.shared = caller.shared, None
    assert shared is not None
    journal, branch = caller.call.journal, caller.call.branch
    result, error, traceback, attempts, reports, served, degraded, began = shared
    del shared  # no frame of its traceback may hold the error
    numbers = journal.adopt(attempts, (journal.began or 0.0) - began)
    branch.number = max(numbers.values(), default=branch.number)
    for report in reports:
        branch.report(report._replace(number=branch.number))
    if served is not None or degraded:
        journal.answered_by(served, degraded=degraded)
    if error is None:
        return result
    try:
        # The traceback of the call alone: those of all who share the error would add up.
        raise BaseException.with_traceback(error, traceback)
    finally:
        del error, traceback, attempts, reports


def _for_one_reader(result: Any) -> bool:
    kind = type(result)
    return (
        issubclass(kind, PendingResult) or hasattr(kind, "__next__") or hasattr(kind, "__anext__")
    )


def _frozen(value: Any) -> Any:
    """A value that can be hashed, with what is in dicts, lists and sets in place of those, and told
    from an equal one of another type: 1, 1.0 and True are three."""
    if isinstance(value, dict):
        return dict, frozenset((_frozen(name), _frozen(each)) for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(_frozen, value))
    if isinstance(value, set):
        return set, frozenset(map(_frozen, value))
    return type(value), value
