"""How long a circuit stays open: what a wait is asked with, and what is made of its answer."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resilience import CircuitBreaker, CircuitOpenError, Pipeline
from resilience.failures import Advice, Failure, Kind, describe
from resilience.policies._circuit import Circuit
from resilience.testing import virtual_time


class Busy(Exception):
    """A failure that says when to come back."""


@describe.register(Busy)
def _read(error: Busy) -> Failure:
    return Failure(Kind.UNAVAILABLE, Advice.WAIT, retry_after=error.args[0])


def fail(error: Exception) -> None:
    raise error


def test_a_wait_is_asked_like_tenacitys() -> None:
    """With the number of openings in a row, the failure, the time, and nothing waited before."""
    asked: list[Any] = []

    def wait(state: Any) -> float:
        asked.append(state)
        return 5.0

    breaker = CircuitBreaker(failures=1, reset_after=wait)
    error = Busy(1.0)
    with virtual_time() as clock:
        for _ in range(2):
            began = clock.now()
            with pytest.raises(Busy):
                Pipeline(breaker).call(fail, error)
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


def test_a_circuit_opened_by_hand_has_no_failure() -> None:
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
        assert not hasattr(state, "failure")


def test_a_wait_that_closes_the_circuit() -> None:
    """What is done by hand meanwhile holds: nobody wants to know the open time any more."""

    def wait(state: Any) -> float:
        breaker.close()
        return 5.0

    with virtual_time():
        breaker = CircuitBreaker(failures=1, reset_after=wait)
        with pytest.raises(ConnectionError):
            Pipeline(breaker).call(fail, ConnectionError())
        assert (breaker.state, breaker.snapshot().retry_after) == ("closed", None)


def test_a_wait_that_calls_through_the_breaker() -> None:
    """It is refused like everybody, is not asked again, and what it then says holds."""
    refused: list[Exception | None] = []

    def wait(state: Any) -> float:
        refused.append(pipeline.outcome(fail, ConnectionError()).error)
        return 5.0

    with virtual_time() as clock:
        breaker = CircuitBreaker(failures=1, reset_after=wait)
        pipeline = Pipeline(breaker)
        with pytest.raises(ConnectionError):
            pipeline.call(fail, ConnectionError())
        assert [type(error) for error in refused] == [CircuitOpenError]
        assert breaker.snapshot().retry_after == 5
        clock.advance(5)
        assert pipeline.call(lambda: "ok") == "ok"


def test_fault_019_calls_in_other_threads_while_the_wait_is_asked() -> None:
    """They are refused at once, for nobody knows how long; one opening is one question."""
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
        pipeline.call(fail, ConnectionError())
    assert seen == [1, None, None, None]
    assert 4 < (breaker.snapshot().retry_after or 0) <= 5


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Ctrl-C when the wait is about to be asked, until what is given here is called."""

    def interrupt(circuit: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Circuit, "_ask", interrupt)
        yield patch.undo


def test_fault_028_ctrl_c_before_the_wait_is_asked(interrupted: Callable[[], None]) -> None:
    """The next call asks it, and the open time is counted from the opening all the same."""
    breaker = CircuitBreaker(failures=1, reset_after=lambda state: 90.0)
    with virtual_time() as clock:
        with pytest.raises(KeyboardInterrupt):
            Pipeline(breaker).call(fail, ConnectionError())
        interrupted()
        clock.advance(1)
        with pytest.raises(CircuitOpenError) as info:
            Pipeline(breaker).call(lambda: "ok")
        assert info.value.retry_after == 89


def test_fault_028_a_wait_that_is_never_asked(
    interrupted: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of the question, the circuit is tried after a minute."""
    breaker = CircuitBreaker(failures=1, reset_after=lambda state: 90.0)
    with virtual_time() as clock:
        with pytest.raises(KeyboardInterrupt):
            Pipeline(breaker).call(fail, ConnectionError())
        interrupted()
        monkeypatch.setattr(Circuit, "_ask", lambda circuit: None)
        clock.advance(60)
        assert Pipeline(breaker).call(lambda: "ok") == "ok"


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
            Pipeline(breaker).call(fail, ConnectionError())
        assert breaker.snapshot().retry_after == seconds

    assert [(r.name, r.getMessage()) for r in caplog.records] == (
        [("resilience", told)] if told else []
    )


@pytest.mark.parametrize(("own", "seconds"), [(5.0, 86_400.0), (172_800.0, 172_800.0)])
@pytest.mark.parametrize("asked", [86_401.0, 999_999_999.0, 1e300])
def test_a_servers_word_counts_up_to_a_day(own: float, seconds: float, asked: float) -> None:
    """A `Retry-After` of years does not open a circuit for years; `reset_after` itself may."""
    with virtual_time():
        breaker = CircuitBreaker(failures=1, reset_after=own)
        with pytest.raises(Busy):
            Pipeline(breaker).call(fail, Busy(asked))
        assert breaker.snapshot().retry_after == seconds


@pytest.mark.parametrize(("asked", "seconds"), [(2.0, 5.0), (30.0, 30.0)])
def test_the_servers_own_word_when_that_is_longer(asked: float, seconds: float) -> None:
    """`Retry-After` of the failure that opened it lengthens the open time, never shortens it."""
    with virtual_time():
        breaker = CircuitBreaker(failures=1, reset_after=5.0)
        with pytest.raises(Busy):
            Pipeline(breaker).call(fail, Busy(asked))
        assert breaker.snapshot().retry_after == seconds
