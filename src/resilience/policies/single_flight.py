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

from resilience._core.arguments import slot_of
from resilience._core.attempt import Attempt
from resilience._core.locks import new_lock
from resilience._core.options import (
    call_repr,
    checked,
    suggesting,
    to_plain_function,
    to_text,
    warn_option_failed,
)
from resilience.policy import Call, Inner, PendingResult, Policy, Report, Runtime, Waiter

__all__ = ["SingleFlight"]

_Place: TypeAlias = tuple[int, Hashable]


def _to_key(name: str, value: Any) -> Any:
    return to_text(name, value) if isinstance(value, str) else to_plain_function(name, value)


@suggesting
@frozen(eq=False, repr=False)
class SingleFlight(Policy):
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

    key: str | Callable[..., Any] | None = checked(_to_key, None, optional=True)
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

    def __copy__(self) -> SingleFlight:
        return self  # whoever has the policy shares its calls

    def __deepcopy__(self, memo: Any) -> SingleFlight:
        return self

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        if isinstance(self.key, str):
            slot_of(fn, self.key, reading=True)

    def check_block(self, *, asynchronous: bool) -> None:
        """Raise TypeError: a block has no result that could be shared."""
        raise TypeError(f"{self!r} has no result of a block of code to share; guard a function")

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def single_flight(call: Call) -> Any:
            place = self._place(call, runtime) if runtime.may_wait else None
            if place is None:
                return await inner(call)
            seat = _Seat(call)
            try:
                flight = self._board(place, seat, runtime)
                if flight is not None:
                    if flight.leader is not seat:
                        await seat.waiter.wait(math.inf, call)
                    if flight.leader is seat:
                        return await self._lead(flight, inner, runtime)
            finally:
                self._leave(seat)
            if seat.landed is None:
                return await inner(call)
            call.journal.begin(runtime)
            return _receive(seat)

        return single_flight

    def _place(self, call: Call, runtime: Runtime) -> _Place | None:
        """What equal calls have the same, and its hash; None if it cannot be computed."""
        key = self.key
        try:
            if key is None:
                value: Any = (call.args, call.kwargs)
            elif isinstance(key, str):
                value = call.slot(key, reading=True).read(call.args, call.kwargs)
            else:
                value = key(*call.args, **call.kwargs)
            place = (runtime.home(), call.fn, _frozen(value))
            return hash(place), place
        except Exception as problem:
            warn_option_failed("key", problem)
            return None

    def _board(self, place: _Place, seat: _Seat, runtime: Runtime) -> _Flight | None:
        """Take a seat in the flight that is under way, or as the leader of a new one. None for a
        call that is made inside that flight, or whose hash another one has just now."""
        journal = seat.call.journal
        number, _ = place
        with self._lock:
            while True:
                flight = self._flights.get(number)
                if flight is None:
                    seat.flight = flight = _Flight(place, seat)
                    self._flights[number] = flight
                    return flight
                if flight.place != place or seat.call.is_inside(flight.leader.call.journal):
                    return None
                seat.waiter = runtime.waiter()
                seat.flight = flight
                flight.joined[seat] = None
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
            self._land(flight, _landed(call, since, None, error))
            raise
        shared = None if _for_one_reader(result) else _landed(call, since, result, None)
        self._land(flight, shared)
        return result

    def _land(self, flight: _Flight, landed: _Landed | None) -> None:
        with self._lock:
            flight.over = True
            number, _ = flight.place
            if self._flights.get(number) is flight:
                del self._flights[number]
            flight.wake(landed)

    def _leave(self, seat: _Seat) -> None:
        """Give up a seat, in whatever way the call has ended. A leader whose flight has not landed
        passes the lead on."""
        flight, seat.flight = seat.flight, None
        if flight is None or (flight.over and not flight.joined):
            return
        with self._lock:
            flight.joined.pop(seat, None)
            if flight.leader is not seat:
                return
            if flight.over or not flight.joined:
                self._land(flight, None)  # whom Ctrl-C has left waiting makes its own call
                return
            flight.leader, _ = flight.joined.popitem(last=False)
            flight.leader.waiter.set()


class _Seat:
    """A caller's place in a flight; `landed` is what it gives, unless the caller leads it."""

    __slots__ = ("call", "flight", "landed", "waiter")

    waiter: Waiter

    def __init__(self, call: Call) -> None:
        self.call = call
        self.flight: _Flight | None = None
        self.landed: _Landed | None = None


class _Flight:
    """A call under way: who makes it, who waits for it in which order, whether it is over."""

    __slots__ = ("__weakref__", "joined", "keeps", "leader", "over", "place")

    def __init__(self, place: _Place, leader: _Seat) -> None:
        self.place = place
        self.leader = leader
        self.joined: OrderedDict[_Seat, None] = OrderedDict()
        self.keeps = self.over = False

    def wake(self, landed: _Landed | None) -> None:
        """Have all who wait go on, with what the call has given or, for None, on their own."""
        while self.joined:
            seat, _ = self.joined.popitem(last=False)
            seat.landed = landed
            seat.waiter.set()


class _Landed(NamedTuple):
    """What a call has given: a result or an error, and what happened on the way."""

    result: Any
    error: Exception | None
    traceback: TracebackType | None
    attempts: tuple[Attempt, ...]
    reports: tuple[Report, ...]
    served: str | None
    degraded: bool
    began: float


def _landed(call: Call, since: int, result: Any, error: Exception | None) -> _Landed:
    journal = call.journal
    return _Landed(
        result,
        error,
        None if error is None else _traceback_of(error),
        tuple(attempt for attempt in journal.attempts if attempt.number > since),
        tuple(report for report in call.branch.reports if report.number > since),
        journal.served,
        journal.degraded,
        journal.began or 0.0,
    )


_traceback_of = BaseException.__dict__["__traceback__"].__get__


def _receive(seat: _Seat) -> Any:
    """What another caller's call has given, as if this one had made it."""
    landed, seat.landed = seat.landed, None
    assert landed is not None
    journal, branch = seat.call.journal, seat.call.branch
    result, error, traceback, attempts, reports, served, degraded, began = landed
    del landed  # no frame of its traceback may hold the error
    numbers = journal.adopt(attempts, (journal.began or 0.0) - began)
    branch.number = max(numbers.values(), default=branch.number)
    for report in reports:
        branch.report(report._replace(number=numbers.get(report.number, branch.number)))
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
    """A value that can be hashed, with what is in dicts, lists and sets in place of those."""
    if isinstance(value, dict):
        return dict, frozenset((name, _frozen(each)) for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(_frozen, value))
    if isinstance(value, set):
        return set, frozenset(value)
    return value
