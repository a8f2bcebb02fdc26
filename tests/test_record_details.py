"""What is kept of a call: its attempts, the note and the history on its error."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from conftest import Takes, World
from resilience import (
    CircuitBreaker,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
    current_attempt,
    history,
)
from resilience._core import history as marks
from resilience._core import record as records
from resilience.failures import Advice, Failure, Kind, describe
from resilience.testing import virtual_time


class LimitedError(Exception):
    """A rate limit: the server asks for half a minute. Counts how often it is read."""

    read = 0


@describe.register(LimitedError)
def _read(error: LimitedError) -> Failure:
    error.read += 1
    return Failure(Kind.RATE_LIMIT, Advice.WAIT, retry_after=30.0)


def error_of(world: World, pipeline: Pipeline, *steps: Any, **kwargs: Any) -> Any:
    """The error that comes out."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        world.run(pipeline.wrap(world.function(*steps)), **kwargs)
    return caught.value


class Instead:
    """A policy of a user's own that has its word on each call, before or after."""

    def __init__(self, *, before: Exception | None = None, after: Exception | None = None) -> None:
        self.before = before
        self.after = after
        self.calls = 0

    def bind(self, call: Callable[..., Any], runtime: Any) -> Callable[..., Any]:
        async def spoken(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.before is not None and self.calls in (2, 3):
                raise self.before
            try:
                return await call(*args, **kwargs)
            except Exception as error:
                raise error if self.after is None else self.after from None

        return spoken


# Attempts


def test_an_attempt_tells_when_the_server_asked_to_be_called_again(world: World) -> None:
    """As a time, in UTC."""
    error = error_of(world, Pipeline(Retry(attempts=1)), LimitedError)
    (attempt,) = history(error)

    assert attempt.retry_at == datetime.fromtimestamp(world.clock.wall() + 30, timezone.utc)


def test_an_attempt_tells_the_model_that_is_given_by_its_place(world: World) -> None:
    """The chain's word counts, wherever it has put the name in the arguments."""
    fails = world.function(ConnectionError())

    def ask(engine: str) -> Any:
        return fails(engine)

    guarded = Pipeline(ModelFallback("a", Model("b"), argument="engine")).wrap(ask)
    with pytest.raises(ConnectionError) as caught:
        world.run(guarded, "a")

    assert [attempt.model for attempt in history(caught.value)] == ["a", "b"]


def test_an_error_is_read_once_for_each_attempt(world: World) -> None:
    """However many policies ask what it means."""
    policies = Retry(attempts=2, wait=0), CircuitBreaker(), CircuitBreaker(), CircuitBreaker()
    error = error_of(world, Pipeline(ModelFallback("a"), *policies), LimitedError("mine"))

    assert error.read == 2


def test_an_error_put_in_its_place_is_read_as_what_it_is(world: World) -> None:
    """A policy of one's own may turn a passing failure into a lasting one."""
    translated = Instead(after=ValueError("lasting"))
    error = error_of(world, Pipeline(Retry(wait=0), translated), ConnectionError())

    assert (type(error), translated.calls) == (ValueError, 1)


def test_waits_without_an_attempt_between_them_add_up(world: World) -> None:
    """An attempt tells the whole time waited since the last one."""
    refusing = Instead(before=ConnectionError())
    pipeline = Pipeline(Retry(attempts=5, wait=3), refusing)

    def look(*args: Any) -> float:
        return current_attempt().waited

    assert world.run(pipeline.call, world.function(ConnectionError(), look)) == 9
    assert refusing.calls == 4


def test_half_of_what_is_kept_of_an_endless_call_is_its_beginning() -> None:
    """The other half is its end."""
    kept = 1_000

    class Endless(Exception): ...

    made: list[None] = []

    def fails() -> None:
        made.append(None)
        raise ConnectionError if len(made) <= kept + 7 else Endless

    with virtual_time(), pytest.raises(Endless) as caught:
        Pipeline(Retry(attempts=None, wait=0)).call(fails)
    numbers = [attempt.number for attempt in history(caught.value)]
    assert numbers == [*range(1, kept // 2 + 1), *range(kept // 2 + 9, kept + 9)]


# The note


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (7, ["connection"] * 7),
        (8, ["connection"] * 8),
        (9, [*["connection"] * 4, "...", *["connection"] * 4]),
        (30, [*["connection"] * 4, "...", *["connection"] * 4]),
    ],
)
def test_the_note_tells_eight_attempts(world: World, made: int, told: list[str]) -> None:
    """Of more than that, the first four and the last four."""
    error = error_of(world, Pipeline(Retry(attempts=made, wait=0)), ConnectionError())

    assert error.__notes__ == [f"resilience: {made} attempts ({', '.join(told)})"]


def test_a_stop_iteration_wins_over_a_refusal() -> None:
    """If the call was made, its own error comes out, whatever it is."""
    stop = StopIteration("mine")

    def stops(model: str) -> None:
        raise stop

    breaker = CircuitBreaker(failures=1, key="model")
    breaker.circuit("b").open()
    pipeline = Pipeline(ModelFallback("a", "b", on=lambda failure: True), breaker)
    with pytest.raises(StopIteration) as caught:
        pipeline.call(stops, "a")
    assert caught.value is stop
    assert pipeline.outcome(stops, "a").error is stop


# The history


def test_looking_leaves_an_error_as_it_is() -> None:
    """No attempts are behind an error of no guarded call, and asking changes nothing."""
    error = ValueError("mine")

    assert history(error) == ()
    assert vars(error) == {}


def test_an_attribute_of_the_same_name_is_left_alone(world: World) -> None:
    """If the user has something of his own there, the error passes unmarked."""
    error = ConnectionError("mine")
    error.__resilience__ = "mine"  # type: ignore[attr-defined]

    assert error_of(world, Pipeline(Retry(wait=0)), error) is error
    assert history(error) == ()
    assert vars(error) == {"__resilience__": "mine"}


def test_an_error_does_not_hold_itself() -> None:
    """It is freed when nobody holds it any more, without the collector."""

    class MineError(ConnectionError): ...

    def fails() -> None:
        raise MineError

    def held() -> weakref.ref[MineError]:
        try:
            Pipeline(Retry(wait=0)).call(fails)
        except MineError as error:
            return weakref.ref(error)
        raise AssertionError

    gc.disable()
    try:
        assert held()() is None
    finally:
        gc.enable()


def test_a_circuit_twice_on_the_way_counts_once(world: World) -> None:
    """An error that it has heard of further in is not counted again."""
    breaker = CircuitBreaker(failures=2)
    error_of(world, Pipeline(breaker, breaker), ConnectionError())
    assert breaker.state == "closed"
    error_of(world, Pipeline(breaker, breaker), ConnectionError())
    assert breaker.state == "open"


def test_what_a_task_inside_has_given_up_on_is_not_tried_again() -> None:
    """A guarded call in a task of its own belongs to the attempt that started it."""
    calls: list[None] = []

    async def fails() -> None:
        calls.append(None)
        raise ConnectionError

    async def starts() -> Any:
        return await asyncio.ensure_future(Pipeline(Retry(attempts=2, wait=0)).call(fails))

    async def main() -> Any:
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await Pipeline(Retry(attempts=5, wait=0)).call(starts)

    with virtual_time():
        asyncio.run(main())
    assert len(calls) == 4


def test_a_clock_of_coarse_ticks_tells_inside_from_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an inner Retry has given up on within the tick is not tried again."""
    monkeypatch.setattr(marks, "monotonic", lambda: 7.0)
    monkeypatch.setattr(records, "monotonic", lambda: 7.0)
    inner = Pipeline(Retry(attempts=2, wait=0)).wrap(world.function(Takes(0, ConnectionError())))
    with pytest.raises(ConnectionError):
        world.run(Pipeline(Retry(attempts=5, wait=0)).call, inner)

    assert len(world.calls) == 2
