"""How long a circuit stays open: what a wait is asked with, and what is made of its answer."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from resilience import CircuitBreaker, Pipeline
from resilience.failures import Advice, Failure, Kind, describe
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


@pytest.mark.parametrize(("asked", "seconds"), [(2.0, 5.0), (30.0, 30.0)])
def test_the_servers_own_word_when_that_is_longer(asked: float, seconds: float) -> None:
    """`Retry-After` of the failure that opened it lengthens the open time, never shortens it."""
    with virtual_time():
        breaker = CircuitBreaker(failures=1, reset_after=5.0)
        with pytest.raises(Busy):
            Pipeline(breaker).call(fail, Busy(asked))
        assert breaker.snapshot().retry_after == seconds
