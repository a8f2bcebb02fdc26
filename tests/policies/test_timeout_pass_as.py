"""Timeout with `pass_as`: the time left is handed to the callee, and nothing is enforced."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Takes, World
from resilience import DeadlineExceededError, Pipeline, Retry, Timeout, guarded
from support.calling import error_of, message_of, passing
from support.functions import coloured


def given(world: World, *policies: Any, steps: Any = ("ok",), **kwargs: Any) -> list[Any]:
    """The `timeout=` that each attempt got."""
    world.run(guarded(Pipeline(*policies).wrap(world.function(*steps))).outcome, **kwargs)
    return [kwargs.get("timeout") for _, kwargs in world.calls]


# How much


def test_it_hands_over_the_time(world: World) -> None:
    """The callee gets the seconds as that argument, and nothing is enforced."""
    fn = Pipeline(Timeout(5, pass_as="t")).wrap(world.function(Takes(9, "late")))

    assert world.run(fn) == "late"
    assert world.calls == [((), {"t": 5.0})]


def test_it_hands_over_what_is_left(world: World) -> None:
    """Each attempt gets what is left of a total; waits and attempts are taken off."""
    steps = [Takes(2, ConnectionError()), Takes(1, ConnectionError()), "ok"]
    policies = Timeout(20, pass_as="timeout"), Retry(wait=3)

    assert given(world, *policies, steps=steps) == pytest.approx([20, 15, 11])


def test_it_hands_over_the_nearest(world: World) -> None:
    """An enforced total that ends earlier is what is left."""
    steps = [Takes(4, ConnectionError()), "ok"]
    policies = Timeout(10), Retry(wait=1), Timeout(8, pass_as="timeout")

    assert given(world, *policies, steps=steps) == pytest.approx([8, 5])


def test_the_least_that_is_passed_on(world: World) -> None:
    """A callee gets a millisecond at least: no client takes 0 for a limit."""
    policies = Timeout(5, pass_as="timeout"), Retry(wait=0)
    steps = [Takes(4.9995, ConnectionError()), "ok"]

    assert given(world, *policies, steps=steps) == pytest.approx([5, 0.001])


def test_two_limits_are_passed_on_under_two_names(world: World) -> None:
    """Each goes to its own argument; both tell what is left of the nearer one."""
    policies = Timeout(9, pass_as="total"), Timeout(5, pass_as="each")
    world.run(Pipeline(*policies).wrap(world.function("ok")))

    assert world.calls == [((), {"total": 5.0, "each": 5.0})]


def test_a_limit_is_passed_on_through_an_enforced_one(world: World) -> None:
    """An enforced limit between it and the function does not hide it."""
    assert given(world, Timeout(9, pass_as="timeout"), Timeout(20)) == [9.0]


def test_a_limit_of_a_call_further_out_is_not_passed_on(world: World) -> None:
    """Only the function that the limit is around gets it, not those that it calls."""
    inner = Pipeline(Timeout(30)).wrap(world.function("ok"))
    call = passing(world, lambda timeout: inner())
    world.run(Pipeline(Timeout(5, pass_as="timeout")).wrap(call))

    assert world.calls == [((), {})]


# What the caller gave


@pytest.mark.parametrize(
    ("own", "passed_on"),
    [
        (0, 0),
        (0.5, 0.5),
        (2, 2),
        (5, 5),
        (5.5, 5),
        (9, 5),
        (-1, 5),
        (None, 5),
        (True, True),
        (False, False),
        ("httpx", "httpx"),
    ],
)
def test_a_number_of_the_callers_up_to_the_limit_is_kept(
    world: World, own: Any, passed_on: Any
) -> None:
    """A smaller number stays, the limit itself too, and so does what is no number; a number that
    is no time, or too long, does not."""
    (found,) = given(world, Timeout(5, pass_as="timeout"), timeout=own)

    assert found == passed_on
    assert type(found) is (type(own) if found == own else float)


@pytest.mark.parametrize(("own", "expected"), [(2, 2), (9, 5)])
def test_the_callers_own_value_by_position(world: World, own: float, expected: float) -> None:
    """The argument is found where the caller gave it, by position too."""
    seen: list[float] = []

    def ask(prompt: str, timeout: float = 60) -> None:
        seen.append(timeout)

    world.run(Pipeline(Timeout(5, pass_as="timeout")).wrap(coloured(world, ask)), "hi", own)
    assert seen == [expected]


@pytest.mark.parametrize(
    ("seconds", "own", "passed_on"),
    [
        (5, None, 5000),
        (5, 2000, 2000),
        (5, 5001, 5000),
        (5, True, True),
        (5, "httpx", "httpx"),
        (0.0019, None, 1),
    ],
)
def test_an_argument_in_ms_gets_whole_milliseconds(
    world: World, seconds: float, own: Any, passed_on: Any
) -> None:
    """What the caller gave counts as milliseconds, too, by position and by name."""
    seen: list[Any] = []

    def ask(prompt: str, timeout_ms: Any = None) -> None:
        seen.append(timeout_ms)

    fn = Pipeline(Timeout(seconds, pass_as="timeout_ms")).wrap(coloured(world, ask))
    world.run(fn, "hi", own)
    world.run(fn, "hi", timeout_ms=own)
    assert seen == [passed_on] * 2


@pytest.mark.parametrize(
    ("own", "passed_on"),
    [
        (None, {"http_options": {"timeout": 5000}}),
        ({"seed": 1}, {"seed": 1, "http_options": {"timeout": 5000}}),
        ({"http_options": {"timeout": 2000}}, {"http_options": {"timeout": 2000}}),
        ({"http_options": {"timeout": 9000}}, {"http_options": {"timeout": 5000}}),
    ],
)
def test_googles_client_gets_it_in_its_config(world: World, own: Any, passed_on: Any) -> None:
    """It takes no `timeout`; the rest of the caller's config stays."""
    seen: list[Any] = []

    def generate_content(model: str, config: Any = None) -> None:
        seen.append(config)

    generate_content.__module__ = "google.genai.models"
    policy = Timeout(5, pass_as="timeout")
    fn = Pipeline(policy).wrap(coloured(world, generate_content))
    world.run(fn, "m", own)
    world.run(fn, "m", config=own)
    assert seen == [passed_on] * 2


def test_an_argument_the_function_does_not_take() -> None:
    """A function without that argument is refused at decoration, as with keys."""
    pipeline = Pipeline(Timeout(5, pass_as="timeout"))

    assert "'timeout'" in message_of(TypeError, pipeline.wrap, lambda prompt: None)


# At the end of the time


@pytest.mark.parametrize("late", [0, 1, 99])
def test_a_limit_that_is_up_starts_no_call(world: World, late: float) -> None:
    """At the very end there is no time left: the attempt is not made."""
    policies = Timeout(5, pass_as="timeout"), Retry(wait=0)
    steps = [Takes(5 + late, ConnectionError()), "ok"]

    assert given(world, *policies, steps=steps) == [5]


@pytest.mark.parametrize("later", [3, 99])
def test_a_limit_that_is_up_before_an_attempt(world: World, later: float) -> None:
    """The time ran out while no attempt ran: none is made, and the error has the limit's
    seconds."""

    def adjust(attempt: Any, args: Any, kwargs: Any) -> Any:
        world.clock.advance(later)
        return args, kwargs

    policies = Timeout(5, pass_as="timeout"), Retry(wait=2, adjust=adjust)
    fn = Pipeline(*policies).wrap(world.function(ConnectionError))
    outcome = world.run(guarded(fn).outcome)

    assert isinstance(outcome.error, DeadlineExceededError)
    assert outcome.error.seconds == 5
    assert [attempt.number for attempt in outcome.attempts] == [1]


@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_an_enforced_limit_further_out_ends_it(world: World) -> None:
    """What is only passed on does not take another limit's end for its own."""
    policies = Timeout(5), Timeout(50, pass_as="timeout")
    error = error_of(world, Pipeline(*policies).wrap(world.function(Takes(9))))

    assert type(error) is DeadlineExceededError
    assert error.seconds == 5
    assert world.calls == [((), {"timeout": 5.0})]


@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_a_wait_that_does_not_fit_a_passed_on_total_is_not_begun(world: World) -> None:
    """A total that is passed on is the nearest deadline for waits as well."""
    fn = Pipeline(Timeout(5, pass_as="timeout"), Retry(wait=6)).wrap(
        world.function(ConnectionError)
    )

    assert type(error_of(world, fn)) is ConnectionError
    assert world.clock.sleeps == []
