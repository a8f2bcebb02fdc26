"""Retry in detail: what is told in the note and the log, bad results, what tenacity is told."""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any

import pytest
import tenacity

from conftest import Takes, World
from resilience import (
    CircuitBreaker,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
)
from resilience._core import guarded
from resilience.errors import RejectedError
from resilience.failures import Advice, Failure, Kind, describe
from resilience.matching import status
from resilience.testing import virtual_time


class AskedError(Exception):
    """A rate limit whose server asked for a number of seconds, or for none."""

    def __init__(self, seconds: float | None = None, code: str | None = None) -> None:
        super().__init__("secret")
        self.seconds = seconds
        self.code = code


@describe.register(AskedError)
def _read(error: AskedError) -> Failure:
    return Failure(
        Kind.RATE_LIMIT, Advice.WAIT, status=429, code=error.code, retry_after=error.seconds
    )


def note(world: World, *policies: Any, steps: Any, **kwargs: Any) -> str:
    """The note on the error that comes out of a call."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        world.run(Pipeline(*policies).wrap(world.function(*steps)), **kwargs)
    (told,) = caught.value.__notes__  # type: ignore[attr-defined]
    return str(told)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What goes to the library's own logger."""
    caplog.set_level(logging.WARNING, logger="resilience")
    return caplog


# The note


def test_the_note_tells_each_attempt(world: World) -> None:
    """Its code, else its status, else its kind; the model, and the wait before, where there is."""
    steps = [AskedError(code="slow_down"), AskedError(), ConnectionError()]

    assert note(world, Retry(wait=2), steps=steps) == (
        "resilience: 3 attempts (slow_down, 429 after 2 s, connection after 2 s)"
    )


def test_the_note_tells_the_models(world: World) -> None:
    """With a chain, each attempt's model; waits are told only where there were any."""
    policies = ModelFallback("a", "b"), Retry(attempts=2, wait=0)

    assert note(world, *policies, steps=[ConnectionError()]) == (
        "resilience: 4 attempts (a: connection, a: connection, b: connection, b: connection)"
    )


def test_the_note_tells_good_attempts_too(world: World) -> None:
    """A bad result that was tried again was no failure of its attempt."""
    steps = ["bad", ConnectionError()]
    retry = Retry(attempts=2, wait=0, on_result=lambda result: result == "bad")

    assert note(world, retry, steps=steps) == "resilience: 2 attempts (ok, connection)"


def test_the_note_of_a_wait_that_says_stop(world: World) -> None:
    """An infinite wait of one's own is told as that."""
    wait = Retry(wait=lambda state: float("inf"))

    assert note(world, wait, steps=[ConnectionError()]) == (
        "resilience: 1 attempt (connection); no retry: the wait said to give up"
    )


def test_the_note_of_a_server_that_asks_too_much(world: World) -> None:
    """How long, and until when in UTC."""
    told = note(world, Retry(), steps=[AskedError(100.0)])

    assert told.startswith(
        "resilience: 1 attempt (429); no retry: the server asked for 100 s, longer than the "
        "longest wait (retry at "
    )
    assert told.endswith(" UTC)")


def test_the_note_of_a_time_that_no_calendar_has(world: World) -> None:
    """A wait beyond all dates is told without one."""
    assert note(world, Retry(), steps=[AskedError(1e300)]) == (
        "resilience: 1 attempt (429); no retry: the server asked for 1e+300 s, longer than the "
        "longest wait"
    )


def test_the_note_of_a_wait_that_would_not_have_fitted(world: World) -> None:
    """The wait and the time left, to the digit; none left is 0."""
    policies = Timeout(10), Retry(wait=9)
    assert note(world, *policies, steps=[Takes(7, ConnectionError())]) == (
        "resilience: 1 attempt (connection); "
        "no retry: a wait of 9 s would not have fitted into the 3 s left"
    )
    assert note(world, Retry(wait=9, within=5), steps=[Takes(7, ConnectionError())]) == (
        "resilience: 1 attempt (connection); "
        "no retry: a wait of 9 s would not have fitted into the 0 s left"
    )


def test_a_wait_as_long_as_the_time_left_is_not_begun(world: World) -> None:
    """No time would remain for the attempt."""
    assert "would not have fitted" in note(
        world, Retry(wait=5, within=5), steps=[ConnectionError()]
    )
    assert world.clock.sleeps == []


def test_the_note_of_an_open_circuit(world: World) -> None:
    """No wait for a circuit that has just opened."""
    assert note(world, Retry(), CircuitBreaker(failures=1), steps=[ConnectionError()]) == (
        "resilience: 1 attempt (connection); no retry: a circuit on its way is open"
    )


def test_the_note_of_a_free_model(world: World) -> None:
    """The wait for a limited model is left out while another one is free."""
    policies = ModelFallback("a", "b"), Retry(attempts=2)

    assert note(world, *policies, steps=[AskedError(1.0), ValueError()]).endswith(
        "; did not wait: another model is free"
    )


@pytest.mark.parametrize(("asked", "waited"), [(0.0, 1), (0.5, 0)])
def test_without_patience_only_no_wait_is_waited(world: World, asked: float, waited: int) -> None:
    """A server that asks for no wait at all is called again although another model is free."""
    policies = ModelFallback("a", "b"), Retry(attempts=2)
    outcome = world.run(
        Pipeline(*policies).wrap(world.function(AskedError(asked), "ok")).outcome,
    )

    assert outcome.attempts[-1].model == ("a" if waited else "b")


def test_patience_is_a_wait_that_is_still_waited(world: World) -> None:
    """Just as long as `patience` is still waited."""
    policies = ModelFallback("a", "b"), Retry(wait=2, patience=2)
    outcome = world.run(Pipeline(*policies).wrap(world.function(AskedError(), "ok")).outcome)

    assert outcome.attempts[-1].model == "a"


# Options that raise


def test_a_wait_that_is_no_number(world: World) -> None:
    """The call's own error comes out, with the name of what went wrong."""
    assert note(world, Retry(wait=lambda state: float("nan")), steps=[ConnectionError()]) == (
        "resilience: 1 attempt (connection); Retry gave up: its option raised ValueError"
    )


def test_a_wait_that_raises_after_a_bad_result(world: World, log: Any) -> None:
    """The result is returned, and the log says whose option raised what."""

    def wait(state: Any) -> float:
        raise KeyError("secret")

    retry = Retry(wait=wait, on_result=lambda result: True)
    assert world.run(Pipeline(retry).wrap(world.function("bad"))) == "bad"
    assert [(r.name, r.getMessage()) for r in log.records] == [
        ("resilience", "Retry raised KeyError")
    ]


def test_an_on_result_of_a_breaker_that_raises(world: World, log: Any) -> None:
    """The result is taken for good, and the log says so."""
    breaker = CircuitBreaker(failures=1, on_result=lambda result: result["missing"])
    guarded = Pipeline(breaker).wrap(world.function({}))

    assert world.run(guarded) == {}
    assert world.run(guarded) == {}
    assert {(r.name, r.getMessage()) for r in log.records} == {
        ("resilience", "on_result raised KeyError")
    }


def test_an_on_result_of_a_breaker_counts(world: World) -> None:
    """A bad result is a failure for the circuit."""
    breaker = CircuitBreaker(failures=1, on_result=lambda result: result == "bad")
    outcome = world.run(Pipeline(breaker).wrap(world.function("bad")).outcome)

    assert outcome.value == "bad"
    assert breaker.state == "open"


# Results


def test_a_bad_result_is_tried_again_with_adjusted_arguments(world: World) -> None:
    """`adjust` makes the next attempt's arguments after a bad result too."""

    def adjust(attempt: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "size": attempt.number * 10}

    retry = Retry(wait=0, on_result=lambda result: result == "bad", adjust=adjust)
    fn = world.function("bad", "bad", "good")

    assert world.run(Pipeline(retry).wrap(fn), size=1) == "good"
    assert [kwargs for _, kwargs in world.calls] == [{"size": 1}, {"size": 10}, {"size": 20}]


def test_a_bad_result_waits_as_long_as_an_error(world: World) -> None:
    """The wait sees the one before it."""

    def longer(state: Any) -> float:
        return float(state.upcoming_sleep) * 2 or 1.0

    retry = Retry(attempts=4, wait=longer, on_result=lambda result: True)
    world.run(Pipeline(retry).wrap(world.function("bad")))

    assert world.clock.sleeps == [1, 2, 4]


def test_tenacitys_words_see_results(world: World) -> None:
    """A tenacity predicate is asked about results, and told the very result."""
    by_result = tenacity.retry_if_result(lambda result: result == "bad")
    fn = world.function("bad", ConnectionError(), "good")

    with pytest.raises(ConnectionError):
        world.run(Pipeline(Retry(on=by_result, wait=0)).wrap(fn))
    assert world.run(Pipeline(Retry(on=by_result, wait=0)).wrap(world.function("good"))) == "good"


def test_tenacitys_words_see_the_call(world: World) -> None:
    """The state has the function, the arguments and the attempt's number."""
    seen: list[Any] = []

    def stop(state: tenacity.RetryCallState) -> bool:
        seen.append((state.fn, state.args, state.kwargs, state.attempt_number))
        assert state.outcome is not None
        seen.append(state.outcome.attempt_number)
        return state.attempt_number == 2

    fn = world.function(ConnectionError)
    with pytest.raises(ConnectionError):
        world.run(Pipeline(Retry(attempts=9, wait=0, stop=stop)).wrap(fn), 1, size=2)

    assert seen == [
        (fn, (1,), {"size": 2}, 1),
        1,
        (fn, (1,), {"size": 2}, 2),
        2,
    ]


# Which errors


def test_an_inner_retry_of_two_is_not_repeated(world: World) -> None:
    """What a Retry of two attempts has given up on, one outside does not try again."""
    inner = Pipeline(Retry(attempts=2, wait=0)).wrap(world.function(ConnectionError))

    async def acall() -> Any:
        return await inner()

    with pytest.raises(ConnectionError):
        world.run(Pipeline(Retry(wait=0)).wrap(acall if world.asynchronous else lambda: inner()))
    assert len(world.calls) == 2


def test_a_single_attempt_has_not_used_an_error_up(world: World) -> None:
    """A Retry of one attempt leaves the error to one outside."""
    inner = Pipeline(Retry(attempts=1)).wrap(world.function(ConnectionError))

    async def acall() -> Any:
        return await inner()

    with pytest.raises(ConnectionError):
        world.run(Pipeline(Retry(wait=0)).wrap(acall if world.asynchronous else lambda: inner()))
    assert len(world.calls) == 3


def test_a_refusal_is_never_retried(world: World) -> None:
    """Not even by a Retry for everything."""
    breaker = CircuitBreaker(failures=1)
    guarded = Pipeline(Retry(on=Exception, wait=0), breaker).wrap(world.function(ConnectionError))
    for _ in range(3):
        with pytest.raises(Exception):  # noqa: B017, PT011
            world.run(guarded)

    assert len(world.calls) == 1
    assert world.clock.sleeps == []


class BusyError(RejectedError):
    """A refusal of a policy of one's own."""


@describe.register(BusyError)
def _read_busy(error: BusyError) -> Failure:
    return Failure(Kind.OVERLOADED, Advice.RETRY)


def test_a_refusal_is_one_whatever_is_said_of_it(world: World) -> None:
    """Even if its reader advises to call again, nothing is waited for it."""

    class Refuses:
        def bind(self, call: Any, runtime: Any) -> Any:
            async def refused(*args: Any, **kwargs: Any) -> Any:
                if world.calls:
                    raise BusyError
                return await call(*args, **kwargs)

            return refused

    with pytest.raises(ConnectionError):
        world.run(Pipeline(Retry(wait=1), Refuses()).call, world.function(ConnectionError()))
    assert world.clock.sleeps == [1]


def test_the_traceback_of_one_error_does_not_grow() -> None:
    """An exception object that each attempt raises has its last two journeys in it at most."""
    error = ConnectionError("mine")

    def depth(attempts: int) -> int:
        error.__traceback__ = None

        def fails() -> None:
            raise error

        with virtual_time(), pytest.raises(ConnectionError):
            Pipeline(Retry(attempts=attempts, wait=0)).call(fails)
        return len(traceback.extract_tb(error.__traceback__))

    assert depth(3) <= depth(2)
    assert depth(9) <= depth(2)


def test_time_spent_at_rest_is_time_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """`within` begins with the first attempt, though the chain has only heard of its failure."""
    monkeypatch.setattr(guarded, "monotonic", lambda: time.monotonic() - 100)
    calls: list[None] = []

    def fails() -> None:
        calls.append(None)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Pipeline(Retry(wait=0, within=50)).call(fails)
    assert len(calls) == 1
    with pytest.raises(ConnectionError):
        Pipeline(Retry(wait=0, within=500)).call(fails)
    assert len(calls) == 4


def test_a_status_is_matched_as_one(world: World) -> None:
    """`on=` a status follows the failure's status."""
    fn = world.function(AskedError(), ConnectionError())
    with pytest.raises(ConnectionError):
        world.run(Pipeline(Retry(on=status(429), wait=0)).wrap(fn))
    assert len(world.calls) == 2


def test_a_good_result_is_not_asked_about_as_an_error(world: World, log: Any) -> None:
    """Where `on` is for failures, only `on_result` is asked about a result."""
    retry = Retry(on=ConnectionError, on_result=lambda result: False)

    assert world.run(Pipeline(retry).wrap(world.function("good"))) == "good"
    assert log.records == []


def test_a_bad_result_is_not_waited_for_beyond_the_time(world: World, log: Any) -> None:
    """`within` bounds the waits for bad results too."""
    retry = Retry(wait=3, within=5, attempts=9, on_result=lambda result: True)

    assert world.run(Pipeline(retry).wrap(world.function("bad"))) == "bad"
    assert world.clock.sleeps == [3]
    assert log.records == []


def test_a_wait_may_say_stop_after_a_bad_result(world: World, log: Any) -> None:
    """An infinite wait ends it quietly: the result is returned."""
    retry = Retry(wait=lambda state: float("inf"), on_result=lambda result: True)

    assert world.run(Pipeline(retry).wrap(world.function("bad"))) == "bad"
    assert len(world.calls) == 1
    assert log.records == []
