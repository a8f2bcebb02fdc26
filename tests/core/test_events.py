"""Listeners: one frozen event for each thing that happens in a call."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from conftest import World
from resilience import BadResult, CircuitBreaker, ModelFallback, Pipeline, Retry, Timeout
from resilience.events import AttemptEnded, CallEnded, WaitBegan
from resilience.failures import Kind
from support.calling import error_of, rest_and_full


def test_listeners_get_what_happens_in_order(world: World) -> None:
    """Attempts, waits, the end: one event each, in order, with the pipeline's name."""
    seen: list[Any] = []
    pipeline = Pipeline(Retry(wait=2), name="chat", listeners=[seen.append])
    world.run(pipeline.wrap(world.function(ConnectionError, "ok")), "a prompt")

    assert [type(event) for event in seen] == [AttemptEnded, WaitBegan, AttemptEnded, CallEnded]
    assert {event.pipeline for event in seen} == {"chat"}
    failed, wait, succeeded, end = seen
    assert failed.attempt.failure.kind is Kind.CONNECTION
    assert wait.seconds == 2
    assert wait.attempt.number == 1
    assert (succeeded.attempt.number, succeeded.attempt.waited) == (2, 2)
    assert (len(end.attempts), end.elapsed, end.error) == (2, 2, None)
    assert end.attempts == (failed.attempt, succeeded.attempt)


def test_the_end_of_a_call_has_the_error_that_comes_out(world: World) -> None:
    """A failure, and a rejection, which has no attempts."""
    seen: list[Any] = []
    breaker = CircuitBreaker(failures=1)
    fn = Pipeline(breaker, listeners=[seen.append]).wrap(world.function(ConnectionError))
    first, second = error_of(world, fn), error_of(world, fn)

    ends = [event for event in seen if type(event) is CallEnded]
    assert [end.error for end in ends] == [first, second]
    assert [len(end.attempts) for end in ends] == [1, 0]


def test_the_end_of_a_call_tells_who_served(world: World) -> None:
    """The model that answered, and that it was not the first choice."""
    seen: list[Any] = []
    pipeline = Pipeline(ModelFallback("a", "b"), listeners=[seen.append])
    world.run(pipeline.call, world.function(ConnectionError(), "ok"))

    assert (seen[-1].served_by, seen[-1].degraded) == ("b", True)


def test_the_end_of_a_call_with_a_bad_result_has_its_error(world: World) -> None:
    """The bad result is returned; the event has what was bad about it."""
    seen: list[Any] = []
    pipeline = Pipeline(BadResult(lambda result: result == "bad"), listeners=[seen.append])

    assert world.run(pipeline.call, world.function("bad")) == "bad"
    assert seen[-1].error.result == "bad"
    assert [a.failure is None for a in seen[-1].attempts] == [False]


def test_an_attempt_that_a_timeout_has_cut_is_an_event(world: World) -> None:
    """With the time that it took, and the timeout as its failure."""
    seen: list[Any] = []

    def hang() -> None:
        world.clock.sleep(9)

    async def ahang() -> None:
        await world.clock.asleep(9)

    pipeline = Pipeline(Timeout(5), listeners=[seen.append])
    error_of(world, pipeline.call, ahang if world.asynchronous else hang)

    assert [type(event) for event in seen] == [AttemptEnded, CallEnded]
    assert (seen[0].attempt.duration, seen[0].attempt.failure.kind) == (5, Kind.TIMEOUT)


def test_listeners_get_events_of_healthy_calls_in_real_time() -> None:
    """Where somebody listens, nothing is done at rest."""
    seen: list[Any] = []
    Pipeline(Retry(), listeners=[seen.append]).call(lambda: None)

    assert [type(event) for event in seen] == [AttemptEnded, CallEnded]


def test_what_a_listener_raises_is_logged_by_its_class(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by its text, which may tell of the call; the call does not notice."""

    def raises(event: Any) -> None:
        raise KeyError("a secret")

    assert world.run(Pipeline(Retry(), listeners=[raises]).call, world.function("ok")) == "ok"
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


def test_events_are_values(world: World) -> None:
    """They are frozen."""
    seen: list[Any] = []
    world.run(
        Pipeline(Retry(wait=2), listeners=[seen.append]).call, world.function(TimeoutError, "ok")
    )

    for event in seen:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            event.pipeline = "other"


@pytest.mark.fault(116)
def test_no_secret_is_in_an_events_repr(world: World) -> None:
    """Neither arguments nor results nor the text of an error, of any kind of event."""
    seen: list[Any] = []
    pipeline = Pipeline(
        Retry(attempts=2, wait=2), BadResult(lambda r: r == "SECRET"), listeners=[seen.append]
    )
    error_of(world, pipeline.call, world.function(ConnectionError("SECRET")), "SECRET", x="SECRET")
    world.run(pipeline.call, world.function("SECRET", "SECRET"), "SECRET")
    world.run(pipeline.call, world.function(TimeoutError("SECRET"), "a SECRET"), "SECRET")

    assert {type(event) for event in seen} == {AttemptEnded, WaitBegan, CallEnded}
    assert "SECRET" not in repr(seen)
    assert "ConnectionError" in repr(seen)


@rest_and_full
def test_no_event_without_a_call(listeners: Any) -> None:
    """Making a pipeline or guarding a function is none; a part's listeners get the whole's."""
    seen: list[Any] = []
    part = Pipeline(Retry(), name="part", listeners=[seen.append])
    whole = Pipeline(part, name="whole", listeners=listeners)
    fn = whole.wrap(lambda: 1)
    assert seen == []
    fn()
    assert [event.pipeline for event in seen] == ["whole", "whole"]
