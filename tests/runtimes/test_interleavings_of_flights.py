"""SingleFlight's callers, as threads, in the orders in which they can take turns."""

from __future__ import annotations

from collections.abc import Generator
from types import coroutine
from typing import Any

import pytest

from resilience import Pipeline, SingleFlight
from resilience._core.call import Call, Journal
from resilience._core.guard import drive
from resilience._runtimes.threads import Threads
from resilience.policies import single_flight
from support.interleaving import (
    Baton,
    Lock,
    WatchedDict,
    WatchedList,
    WatchedOrder,
    orders,
    watch_slots,
)
from support.scenes import is_found_out, watchable  # noqa: F401

pytestmark = [
    pytest.mark.real,
    pytest.mark.steady,
    pytest.mark.usefixtures("watchable", "_watched"),
]


@pytest.fixture
def _watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watch_slots(monkeypatch, single_flight._Flight, "leader", "over")
    monkeypatch.setattr(single_flight, "OrderedDict", WatchedOrder)


class Waiter:
    """Set by one thread, waited for by another."""

    def __init__(self) -> None:
        self.baton = Baton()
        self.baton.acquire()

    def set(self) -> None:
        self.baton.release()

    async def wait(self, seconds: float, call: Any) -> bool:
        return self.baton.acquire()


class Runtime(Threads):
    """One whose waits are watched."""

    may_wait = True

    def waiter(self) -> Any:
        return Waiter()


class Hurried(Runtime):
    """One whose waits are over at once, as by Ctrl-C."""

    def waiter(self) -> Any:
        class Stopped(Waiter):
            async def wait(self, seconds: float, call: Any) -> bool:
                raise KeyboardInterrupt

        return Stopped()


def fn() -> None:
    """What is called."""


class Flights:
    """One policy, and what each caller got of it."""

    def __init__(self) -> None:
        self.policy = SingleFlight()
        object.__setattr__(self.policy, "_lock", Lock())
        object.__setattr__(self.policy, "_flights", WatchedDict())
        self.guard = Pipeline()._guard(fn)
        self.made: list[str] = WatchedList()
        self.got: list[Any] = WatchedList()

    def call(self) -> Call:
        call = Call()
        call.journal = call.branch = Journal(self.guard, None)
        call.fn, call.args, call.kwargs = fn, (), {}
        call.model = call.alternatives = call.judge = call.terms = call.deadline = None
        return call

    def ask(self, how: str = "well", runtime: Runtime | None = None) -> None:
        async def inner(call: Call) -> object:
            self.made.append(how)
            if how == "stopped":
                raise KeyboardInterrupt
            return object()

        chain: Any = self.policy.bind(inner, runtime or Runtime())
        try:
            self.got.append(drive(chain(self.call())))
        except KeyboardInterrupt:
            self.got.append(None)

    def be_stopped(self) -> None:
        """Whoever makes the call is interrupted."""
        self.ask("stopped")

    def hurry(self) -> None:
        """Whoever waits is interrupted."""
        self.ask(runtime=Hurried())

    def holds(self) -> bool:
        """All are done, each with what some call has given; nothing is left."""
        answers = {id(each) for each in self.got if each is not None}
        made = self.made.count("well")
        return len(self.got) == 3 and len(answers) == made and not self.policy._flights


@pytest.mark.fault(289, 290)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Flights.ask, Flights.ask),
        (Flights.be_stopped, Flights.hurry),
        (Flights.be_stopped, Flights.be_stopped),
    ],
)
def test_callers_in_all_orders(one: Any, other: Any) -> None:
    """Nobody waits for ever, whoever is interrupted when; no answer is made that nobody gets."""
    kinds = orders(Flights, Flights.ask, one, other, holds=Flights.holds, stops=2)
    assert kinds > 1


@pytest.mark.parametrize("method", ["_leave", "_finish"])
def test_a_mistake_is_found_out(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lead is not passed on, or those who wait are not woken."""
    monkeypatch.setattr(SingleFlight, method, lambda *args: None)
    threads = Flights.ask, Flights.be_stopped, Flights.ask
    is_found_out(Flights, *threads, holds=Flights.holds)


@pytest.mark.fault(292)
def test_a_call_that_is_collected_while_another_joins_it() -> None:
    """A finalizer may close a call that was left behind at any moment, in any thread."""
    flights = Flights()

    @coroutine
    def suspended() -> Generator[None]:
        yield

    async def inner(call: Call) -> str:
        if not flights.made:
            flights.made.append("left behind")
            await suspended()
        return "answer"

    left: Any = flights.policy.bind(inner, Runtime())(flights.call())
    left.send(None)

    class Collecting(Runtime):
        def waiter(self) -> Any:
            left.close()
            return Waiter()

    other: Any = flights.policy.bind(inner, Collecting())(flights.call())
    assert drive(other) == "answer"
    assert not flights.policy._flights
