"""Calls that overlap in one circuit: an answer counts only if the circuit has not changed since."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from conftest import World
from resilience import CircuitBreaker, Pipeline
from support.policies import Busy


class Overlapping:
    """Calls that are begun and ended by the test, each in a thread that waits in between."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._guarded = pipeline.wrap(self._body)
        self._gates: dict[int, threading.Event] = {}
        self._begun: dict[int, threading.Event] = {}
        self._good: dict[int, bool] = {}
        self._threads: dict[int, threading.Thread] = {}
        self.results: dict[int, Any] = {}

    def _body(self, number: int) -> str:
        self._begun[number].set()
        assert self._gates[number].wait(5)
        if not self._good[number]:
            raise ConnectionError(number)
        return "ok"

    def begin(self, number: int) -> None:
        self._gates[number], self._begun[number] = threading.Event(), threading.Event()

        def run() -> None:
            try:
                self.results[number] = self._guarded(number)
            except Exception as error:
                self.results[number] = error
                self._begun[number].set()

        self._threads[number] = threading.Thread(target=run)
        self._threads[number].start()
        assert self._begun[number].wait(5)

    def end(self, number: int, *, good: bool) -> None:
        self._good[number] = good
        self._gates[number].set()
        self._threads[number].join(5)


PATHS = pytest.mark.parametrize("first", [[], [Busy()]], ids=["rest", "full"])


@pytest.mark.real
@PATHS
def test_a_circuit_whose_run_of_failures_is_ended_again_and_again_stays_closed(first: Any) -> None:
    """16 calls in flight that end failure, success, failure, ...: never five failures in a row."""
    breaker = CircuitBreaker(failures=5)
    calls = Overlapping(Pipeline(*first, breaker))
    for number in range(16):
        calls.begin(number)
    for number in range(16):
        calls.end(number, good=number % 2 == 1)
    assert (breaker.state, breaker.snapshot().failures) == ("closed", 0)
    assert {type(calls.results[number]) for number in range(0, 16, 2)} == {ConnectionError}


@pytest.mark.real
@PATHS
def test_a_call_begun_before_the_opening_keeps_its_own_error(first: Any) -> None:
    """Six in flight, all fail: the fifth opens the circuit, the sixth still has its own error."""
    breaker = CircuitBreaker(failures=5)
    calls = Overlapping(Pipeline(*first, breaker))
    for number in range(6):
        calls.begin(number)
    for number in range(6):
        calls.end(number, good=False)
    assert breaker.state == "open"
    assert type(calls.results[5]) is ConnectionError
    assert calls.results[5].args == (5,)


@pytest.mark.real
@pytest.mark.fault(21)
@PATHS
def test_failures_of_before_the_opening_change_nothing_after_close(first: Any) -> None:
    """Four begun before the opening fail after `close()`: the circuit has no failure on record."""
    breaker = CircuitBreaker(failures=5)
    calls = Overlapping(Pipeline(*first, breaker))
    for number in range(9):
        calls.begin(number)
    for number in range(4, 9):
        calls.end(number, good=False)
    assert breaker.state == "open"
    breaker.close()
    for number in range(4):
        calls.end(number, good=False)
    assert (breaker.state, breaker.snapshot().failures) == ("closed", 0)


@pytest.mark.fault(21)
def test_a_success_of_before_the_opening_does_not_close_it(world: World) -> None:
    """An answer counts only if the circuit has not changed since its call was admitted."""
    breaker = CircuitBreaker(failures=1)

    def open_meanwhile(*args: Any) -> str:
        breaker.open()
        return "late"

    assert world.run(Pipeline(breaker).wrap(world.function(open_meanwhile))) == "late"
    assert breaker.state == "open"
