"""Outcomes: what happened in a call, instead of only its value."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Takes, World
from resilience import (
    Attempt,
    BadResult,
    BadResultError,
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    ModelFallback,
    Outcome,
    Pipeline,
    Retry,
    guarded,
    history,
)
from resilience.failures import Kind


def test_the_outcome_of_a_success(world: World) -> None:
    """It tells the value, the attempts with their times and waits, and the time in all."""
    fn = world.function(Takes(1, ConnectionError()), Takes(2, "ok"))
    outcome = world.run(Pipeline(Retry(wait=4)).outcome, fn, model="m")

    assert isinstance(outcome, Outcome)
    assert (outcome.value, outcome.error, outcome.elapsed) == ("ok", None, 7)
    assert (outcome.served_by, outcome.degraded) == ("m", False)
    first, second = outcome.attempts
    assert isinstance(first, Attempt)
    assert (first.number, first.started, first.duration, first.waited) == (1, 0, 1, 0)
    assert (second.number, second.started, second.duration, second.waited) == (2, 5, 2, 4)
    assert first.failure is not None
    assert first.failure.kind is Kind.CONNECTION
    assert second.failure is None


def test_the_outcome_of_a_healthy_call(world: World) -> None:
    """It passes on arguments by place and by name, as `call` does; one attempt is in it."""
    outcome = world.run(Pipeline(Retry()).outcome, world.function("ok"), 1, size=2)

    assert (outcome.value, outcome.error) == ("ok", None)
    assert [a.number for a in outcome.attempts] == [1]
    assert world.calls == [((1,), {"size": 2})]


def test_the_outcome_of_a_failure(world: World) -> None:
    """The error is in it, not raised, with its note and history."""
    error = ConnectionError()
    fn = Pipeline(Retry(wait=1)).wrap(world.function(error))
    outcome = world.run(guarded(fn).outcome)

    assert outcome.error is error
    assert outcome.value is None
    assert outcome.attempts == history(error)
    assert len(error.__notes__) == 1


def test_the_outcome_of_a_rejection(world: World) -> None:
    """Our error, and no attempts."""
    breaker = CircuitBreaker()
    breaker.open()
    outcome = world.run(Pipeline(breaker).outcome, world.function("ok"))

    assert isinstance(outcome.error, CircuitOpenError)
    assert (outcome.attempts, outcome.elapsed, outcome.served_by) == ((), 0, None)


def test_the_outcome_of_an_interruption_is_the_interruption(world: World) -> None:
    """Ctrl-C is no outcome."""
    with pytest.raises(BaseException) as info:  # noqa: PT011
        world.run(Pipeline(Retry()).outcome, world.function(KeyboardInterrupt))
    assert type(info.value) is KeyboardInterrupt


def test_outcomes_are_values() -> None:
    """Outcomes and attempts are frozen."""
    for value, field in ((Outcome(1), "value"), (Attempt(), "number")):
        with pytest.raises(AttributeError):
            setattr(value, field, 5)


def test_an_outcome_shows_classes_and_no_texts() -> None:
    """What a value or an error holds may be a secret."""
    outcome = Outcome("secret", ValueError("secret"), (), "m", True, 1.5)
    assert repr(outcome) == (
        "Outcome(value=<str>, error=<ValueError>, attempts=(), served_by='m', degraded=True, "
        "elapsed=1.5)"
    )


def test_a_timeline_that_is_too_narrow() -> None:
    """Refused, by name, rule and value."""
    with pytest.raises(ValueError, match=r"^width must be .*60.* got 59$"):
        Outcome(1).timeline(59)


def test_an_outcome_names_the_model_only_of_a_success(world: World) -> None:
    """`served_by` is None where the call failed, and where a fallback's value came out."""
    chain = ModelFallback("a", "b")
    good = world.run(Pipeline(chain).outcome, world.function(ConnectionError(), "ok"))
    bad = world.run(Pipeline(chain).outcome, world.function(ConnectionError()))
    spare = world.run(Pipeline(Fallback(1), chain).outcome, world.function(ConnectionError()))

    assert (good.served_by, good.degraded) == ("b", True)
    assert (bad.served_by, type(bad.error)) == (None, ConnectionError)
    assert (spare.served_by, spare.value, spare.degraded) == (None, 1, True)


def is_bad(result: Any) -> bool:
    return bool(result == "bad")


def test_a_call_that_failed_after_a_bad_result_was_served_by_nobody(world: World) -> None:
    """An attempt that was answered, but badly, does not make its model the one that served."""
    retry = Retry(attempts=2, wait=0)
    fn = world.function("bad", ValueError())
    outcome = world.run(Pipeline(ModelFallback("a"), retry, BadResult(is_bad)).outcome, fn)

    assert type(outcome.error) is ValueError
    assert outcome.served_by is None
    assert [a.failure is None for a in outcome.attempts] == [False, False]


def test_an_outcome_is_the_calls_own_error_in_place_of_a_rejection(world: World) -> None:
    """If the call was made, an open circuit at the end does not hide the call's error."""
    breaker = CircuitBreaker(failures=1, key="model")
    chain = ModelFallback("a", "b")
    world.run(Pipeline(breaker).outcome, world.function(ConnectionError()), model="b")
    outcome = world.run(Pipeline(chain, breaker).outcome, world.function(TimeoutError()))

    assert type(outcome.error) is TimeoutError
    assert [attempt.model for attempt in outcome.attempts] == ["a"]


def test_an_outcome_unwraps(world: World) -> None:
    """`unwrap()` does what the call would have done: give the value, or raise the error itself."""
    error = KeyError("mine")
    good = world.run(Pipeline(Retry()).outcome, world.function("ok"))
    failed = world.run(Pipeline(Retry()).outcome, world.function(error))
    back = world.run(Pipeline(BadResult(is_bad)).outcome, world.function("bad"))
    raised = world.run(Pipeline(BadResult(is_bad, finally_="raise")).outcome, world.function("bad"))

    assert good.unwrap() == "ok"
    with pytest.raises(KeyError) as caught:
        failed.unwrap()
    assert caught.value is error
    assert back.value == back.unwrap() == "bad"
    assert isinstance(back.error, BadResultError)
    with pytest.raises(BadResultError):
        raised.unwrap()
