"""Time limits in detail: at the edge, passed on, nested, and functions that say how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from conftest import Takes, World
from resilience import CircuitBreaker, DeadlineExceededError, Pipeline, Retry, Timeout


def given(world: World, *policies: Any, steps: Any = ("ok",), **kwargs: Any) -> list[Any]:
    """The `timeout=` that each attempt got."""
    world.run(Pipeline(*policies).wrap(world.function(*steps)).outcome, **kwargs)
    return [kwargs.get("timeout") for _, kwargs in world.calls]


@pytest.mark.parametrize(
    ("own", "passed_on"),
    [(0, 0), (0.5, 0.5), (5, 5), (5.5, 5), (-1, 5), (True, True), (False, False)],
)
def test_a_number_of_the_callers_up_to_the_limit_is_kept(
    world: World, own: Any, passed_on: Any
) -> None:
    """Nothing and the limit itself are kept; a number that is no time, or too long, is not."""
    (found,) = given(world, Timeout(5, pass_as="timeout"), timeout=own)

    assert found == passed_on
    assert type(found) is (type(own) if found == own else float)


def test_the_least_that_is_passed_on(world: World) -> None:
    """A callee gets a millisecond at least: no client takes 0 for a limit."""
    policies = Timeout(5, pass_as="timeout"), Retry(wait=0)
    steps = [Takes(4.9995, ConnectionError()), "ok"]

    assert given(world, *policies, steps=steps) == pytest.approx([5, 0.001])


def test_a_limit_that_is_up_starts_no_call(world: World) -> None:
    """At the very end there is no time left: the attempt is not made."""
    policies = Timeout(5, pass_as="timeout"), Retry(wait=0)
    steps = [Takes(5, ConnectionError()), "ok"]

    assert given(world, *policies, steps=steps) == [5]


def test_two_limits_are_passed_on_under_two_names(world: World) -> None:
    """Each goes to its own argument; both tell what is left of the nearer one."""
    policies = Timeout(9, pass_as="total"), Timeout(5, pass_as="each")
    world.run(Pipeline(*policies).wrap(world.function("ok")))

    assert world.calls == [((), {"total": 5.0, "each": 5.0})]


def test_a_limit_is_passed_on_through_an_enforced_one(world: World) -> None:
    """An enforced limit between it and the function does not hide it."""
    policies = Timeout(9, pass_as="timeout"), Timeout(20)
    world.run(Pipeline(*policies).wrap(world.function("ok")))

    assert world.calls == [((), {"timeout": 9.0})]


def test_a_limit_of_a_call_further_out_is_not_passed_on(world: World) -> None:
    """Only the function that the limit is around gets it, not those that it calls."""
    inner = Pipeline(Timeout(30)).wrap(world.function("ok"))

    def call(**kwargs: Any) -> Any:
        return inner()

    async def acall(**kwargs: Any) -> Any:
        return await inner()

    outer = Pipeline(Timeout(5, pass_as="timeout"))
    world.run(outer.wrap(acall if world.asynchronous else call))

    assert world.calls == [((), {})]


def test_a_passed_on_limit_that_is_up_before_an_attempt(world: World) -> None:
    """At its very end there is no time left: no attempt, and the error has the limit's seconds."""

    def adjust(attempt: Any, args: Any, kwargs: Any) -> Any:
        world.clock.advance(3)
        return args, kwargs

    policies = Timeout(5, pass_as="timeout"), Retry(wait=2, adjust=adjust)
    outcome = world.run(Pipeline(*policies).wrap(world.function(ConnectionError)).outcome)

    assert isinstance(outcome.error, DeadlineExceededError)
    assert outcome.error.seconds == 5
    assert [attempt.number for attempt in outcome.attempts] == [1]


def test_seconds_by_the_arguments(world: World) -> None:
    """The function of the arguments gets them by place and by name."""
    seen: list[Any] = []

    def seconds(*args: Any, **kwargs: Any) -> Any:
        seen.append((args, kwargs))
        return timedelta(seconds=2)

    with pytest.raises(DeadlineExceededError) as caught:
        world.run(Pipeline(Timeout(seconds)).wrap(world.function(Takes(9))), 1, size=2)
    assert seen == [((1,), {"size": 2})]
    assert caught.value.seconds == 2


def test_seconds_that_are_no_number_are_refused_by_name(world: World) -> None:
    """The error names the option."""
    with pytest.raises(TypeError, match=r"^seconds must be a number, got 'x'$"):
        world.run(Pipeline(Timeout(lambda: "x")).wrap(world.function("ok")))


@pytest.mark.parametrize("left", [0, 0.0, -3, timedelta(0)])
def test_no_time_at_all(world: World, left: Any) -> None:
    """Where the function says that time is up, nothing is called, and the error says how long."""
    with pytest.raises(DeadlineExceededError) as caught:
        world.run(Pipeline(Timeout(lambda: left)).wrap(world.function("ok")))

    assert world.calls == []
    assert caught.value.seconds == (left if not isinstance(left, timedelta) else 0)


def test_half_a_second_is_a_time(world: World) -> None:
    """Less than a second is time enough to begin."""
    assert world.run(Pipeline(Timeout(lambda: 0.5)).wrap(world.function("ok"))) == "ok"


@pytest.mark.parametrize("seconds", [0, -1, timedelta(0)])
@pytest.mark.parametrize("pass_as", [None, "timeout"])
def test_a_limit_of_no_time_asks_nobody_inside(world: World, seconds: Any, pass_as: Any) -> None:
    """Not even an open circuit is heard of."""
    breaker = CircuitBreaker()
    breaker.open()
    limit = Timeout(lambda **kwargs: seconds, pass_as=pass_as)
    with pytest.raises(DeadlineExceededError):
        world.run(Pipeline(limit, breaker, Timeout(5)).wrap(world.function("ok")))
