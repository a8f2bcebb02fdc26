"""How long a circuit stays open: what a wait is asked with, and what is made of its answer."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tenacity

from conftest import World
from resilience import CircuitBreaker, CircuitOpenError, Pipeline
from resilience import guarded as handle
from resilience.circuit.circuit import Circuit
from resilience.failures import Advice, Failure, Kind, describe
from resilience.testing import virtual_time
from resilience.waits import Exponential, RetryAfter
from support.circuits import fail, rejected


class BusyError(Exception):
    """An outage whose end the server has named."""


@describe.register(BusyError)
def _read(error: BusyError) -> Failure:
    return Failure(Kind.UNAVAILABLE, Advice.WAIT, retry_after=error.args[0])


def open_times(breaker: CircuitBreaker, world: World, *errors: Any) -> list[float | None]:
    """Each failure opens it; for how many seconds."""
    guarded = Pipeline(breaker).wrap(world.function(*errors))
    found = []
    for _ in errors:
        world.run(handle(guarded).outcome)
        after = breaker.snapshot().retry_after
        found.append(after)
        world.clock.advance(after or 0)
    return found


# Seconds that grow, or as the server says


def test_the_open_time_grows_with_each_opening_in_a_row(world: World) -> None:
    """A wait is asked with the number of openings since it was last closed, up to its cap."""
    wait = Exponential(1, factor=2, max=5, jitter=0)
    breaker = CircuitBreaker(failures=1, reset_after=wait)
    bad = ConnectionError
    assert open_times(breaker, world, bad, bad, bad, bad, "ok", bad) == [1, 2, 4, 5, None, 1]


def test_a_tenacity_wait_says_how_long(world: World) -> None:
    """Waits of tenacity's stand where ours may."""
    wait = tenacity.wait_incrementing(start=3, increment=2)
    breaker = CircuitBreaker(failures=1, reset_after=wait)
    assert open_times(breaker, world, *[ConnectionError] * 3) == [3, 5, 7]


def test_the_open_time_is_jittered(world: World) -> None:
    """By the world's chance, so that a crowd does not come back at once."""
    breaker = CircuitBreaker(failures=1, reset_after=Exponential(10, jitter=0.5))
    world.clock.random = lambda: 0.25
    assert open_times(breaker, world, ConnectionError) == [7.5]


@pytest.mark.parametrize(("asked", "seconds"), [(90.0, 90.0), (5.0, 60.0), (61.0, 61.0)])
def test_the_servers_own_word_counts_when_it_is_longer(
    world: World, asked: float, seconds: float
) -> None:
    """`Retry-After` of the failure that opened it lengthens the open time, never shortens it."""
    breaker = CircuitBreaker(failures=1, reset_after=60)
    assert open_times(breaker, world, BusyError(asked)) == [seconds]


@pytest.mark.parametrize(("own", "seconds"), [(5.0, 86_400.0), (172_800.0, 172_800.0)])
@pytest.mark.parametrize("asked", [86_401.0, 999_999_999.0, 1e300])
def test_a_servers_word_counts_up_to_a_day(own: float, seconds: float, asked: float) -> None:
    """A `Retry-After` of years does not open a circuit for years; `reset_after` itself may."""
    with virtual_time():
        breaker = CircuitBreaker(failures=1, reset_after=own)
        with pytest.raises(BusyError):
            Pipeline(breaker).call(_raise, BusyError(asked))
        assert breaker.snapshot().retry_after == seconds


def _raise(error: Exception) -> None:
    raise error


# What a wait is asked with


def test_a_wait_is_asked_like_tenacitys() -> None:
    """With the number of openings in a row, the failure, the time, and nothing waited before."""
    asked: list[Any] = []

    def wait(state: Any) -> float:
        asked.append(state)
        return 5.0

    breaker = CircuitBreaker(failures=1, reset_after=wait)
    error = BusyError(1.0)
    with virtual_time() as clock:
        for _ in range(2):
            began = clock.now()
            with pytest.raises(BusyError):
                Pipeline(breaker).call(_raise, error)
            assert asked[-1].start_time == asked[-1].outcome_timestamp == began
            clock.advance(5.0)

    assert [state.attempt_number for state in asked] == [1, 2]
    last = asked[-1]
    assert last.outcome.failed
    assert last.outcome.exception() is error
    assert last.outcome.attempt_number == 2
    assert last.failure.retry_after == 1.0
    assert last.upcoming_sleep == 0.0
    assert (last.args, last.kwargs) == ((), {})
    assert 0 <= last.chance() < 1


def test_a_circuit_opened_by_a_command_has_no_failure() -> None:
    """A wait sees an outcome without an error, and no failure."""
    asked: list[Any] = []

    def wait(state: Any) -> float:
        asked.append(state)
        return 5.0

    with virtual_time():
        breaker = CircuitBreaker(reset_after=wait)
        breaker.open()
        (state,) = asked
        assert not state.outcome.failed
        assert state.outcome.result() is None
        assert getattr(state, "failure", None) is None


def test_no_lock_is_held_while_the_wait_is_asked(world: World) -> None:
    """It may ask the circuit itself, which is open already but does not know for how long."""
    seen = []

    def wait(state: Any) -> float:
        seen.append((breaker._only._lock._is_owned(), breaker.state, state.attempt_number))
        seen.append((breaker.retry_at, breaker.snapshot().retry_after))
        return 3

    breaker = CircuitBreaker(failures=1, reset_after=wait)
    assert open_times(breaker, world, ConnectionError) == [3]
    assert seen == [(False, "open", 1), (None, None)]


def test_a_wait_that_closes_the_circuit() -> None:
    """A command given meanwhile holds: nobody wants to know the open time any more."""

    def wait(state: Any) -> float:
        breaker.close()
        return 5.0

    with virtual_time():
        breaker = CircuitBreaker(failures=1, reset_after=wait)
        with pytest.raises(ConnectionError):
            Pipeline(breaker).call(fail)
        assert (breaker.state, breaker.snapshot().retry_after) == ("closed", None)


@pytest.mark.parametrize("takes", [0, 1000])
def test_a_wait_that_calls_through_the_breaker(takes: float) -> None:
    """However long it takes, it is rejected like everybody, is not asked again, and what it then
    says holds."""
    found: list[Exception | None] = []

    def wait(state: Any) -> float:
        clock.advance(takes)
        found.append(pipeline.outcome(fail).error)
        return 2000.0

    with virtual_time() as clock:
        breaker = CircuitBreaker(failures=1, reset_after=wait, wait_for_trial=50)
        pipeline = Pipeline(breaker)
        with pytest.raises(ConnectionError):
            pipeline.call(fail)
        assert [type(error) for error in found] == [CircuitOpenError]
        assert breaker.snapshot().retry_after == 2000 - takes
        clock.advance(2000)
        assert pipeline.call(lambda: "ok") == "ok"


@pytest.mark.parametrize("ends", ["answers", "is interrupted"])
def test_what_others_say_while_the_wait_is_asked_holds(ends: str) -> None:
    """The shared circuit's open time is not overwritten by an answer that comes after it."""

    def wait(state: Any) -> float:
        breaker._only._follow("open", 7.0, clock.now())
        if ends == "is interrupted":
            raise KeyboardInterrupt
        return 2000.0

    with virtual_time() as clock:
        breaker = CircuitBreaker(reset_after=wait)
        with contextlib.suppress(KeyboardInterrupt):
            breaker.open()
        assert breaker.snapshot().retry_after == 7


@pytest.mark.real
@pytest.mark.fault(19)
def test_calls_in_other_threads_while_the_wait_is_asked() -> None:
    """They are rejected at once, for nobody knows how long; one opening is one question."""
    seen: list[Any] = []

    def call() -> None:
        error = pipeline.outcome(lambda: "ok").error
        assert isinstance(error, CircuitOpenError)
        seen.append(error.retry_after)

    def wait(state: Any) -> float:
        seen.append(state.attempt_number)
        others = [threading.Thread(target=call) for _ in range(3)]
        for other in others:
            other.start()
        for other in others:
            other.join(9)
        return 5.0

    breaker = CircuitBreaker(failures=1, reset_after=wait)
    pipeline = Pipeline(breaker)
    with pytest.raises(ConnectionError):
        pipeline.call(fail)
    assert seen == [1, None, None, None]
    assert 4 < (breaker.snapshot().retry_after or 0) <= 5


# Ctrl-C


@pytest.mark.fault(28)
def test_an_interrupt_while_the_wait_is_asked() -> None:
    """Ctrl-C in there comes out, and the circuit is tried again later all the same."""

    def wait(state: Any) -> float:
        raise KeyboardInterrupt

    breaker = CircuitBreaker(failures=1, reset_after=wait)
    with virtual_time() as clock:
        guarded = Pipeline(breaker).wrap(fail)
        with pytest.raises(KeyboardInterrupt):
            guarded()
        with pytest.raises(CircuitOpenError) as caught:
            guarded()
        assert caught.value.retry_after == 60
        clock.advance(60)
        with pytest.raises(KeyboardInterrupt):
            guarded()


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Ctrl-C when the wait is about to be asked, until what is given here is called."""

    def interrupt(circuit: Any, state: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Circuit, "_ask_open_time", interrupt)
        yield patch.undo


@pytest.mark.fault(28)
def test_ctrl_c_before_the_wait_is_asked(interrupted: Callable[[], None]) -> None:
    """The next call asks it, and the open time is counted from the opening all the same."""
    breaker = CircuitBreaker(failures=1, reset_after=lambda state: 90.0)
    with virtual_time() as clock:
        with pytest.raises(KeyboardInterrupt):
            Pipeline(breaker).call(fail)
        interrupted()
        clock.advance(1)
        world = World("sync", clock)
        assert rejected(world, Pipeline(breaker).wrap(world.function("ok"))).retry_after == 89


@pytest.mark.fault(28)
def test_a_wait_that_is_never_asked(
    interrupted: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of the question, the circuit is tried after a minute."""
    breaker = CircuitBreaker(failures=1, reset_after=lambda state: 90.0)
    with virtual_time() as clock:
        with pytest.raises(KeyboardInterrupt):
            Pipeline(breaker).call(fail)
        interrupted()
        monkeypatch.setattr(Circuit, "_ask_open_time", lambda circuit, state: None)
        clock.advance(60)
        assert Pipeline(breaker).call(lambda: "ok") == "ok"


# What is made of its answer


@pytest.mark.parametrize(
    ("answer", "seconds", "told"),
    [
        (0.25, 0.25, None),
        (0.0, 0.0, None),
        (-3.0, 0.0, None),
        (math.inf, 60.0, None),
        (math.nan, 60.0, "reset_after raised ValueError"),
        ("soon", 60.0, "reset_after raised ValueError"),
        (None, 60.0, "reset_after raised TypeError"),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_minute(
    answer: Any, seconds: float, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The circuit opens whatever the wait says; a wait that is wrong is told of by class."""
    with virtual_time(), caplog.at_level(logging.ERROR, logger="resilience"):
        breaker = CircuitBreaker(failures=1, reset_after=lambda state: answer)
        with pytest.raises(ConnectionError):
            Pipeline(breaker).call(fail)
        assert breaker.snapshot().retry_after == seconds

    assert [(r.name, r.getMessage()) for r in caplog.records] == (
        [("resilience", told)] if told else []
    )


@pytest.mark.parametrize(
    "wait", [RetryAfter(longest=1), lambda state: 1 / 0, tenacity.wait_fixed(math.inf)]
)
def test_a_wait_that_does_not_say(world: World, wait: Any) -> None:
    """One that raises or gives up: it opens for 60 s, and no call is broken."""
    breaker = CircuitBreaker(failures=1, reset_after=wait)
    assert open_times(breaker, world, BusyError(50.0)) == [60]
