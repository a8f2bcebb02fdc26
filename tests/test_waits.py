"""Waits: how long, how they are spread, and that tenacity can use them."""

from __future__ import annotations

import itertools
import math
import pickle
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import tenacity
from attrs import fields
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from conftest import World
from resilience import Pipeline, Retry
from resilience.failures import describe
from resilience.testing import virtual_time
from resilience.waits import (
    Decorrelated,
    Exponential,
    Fixed,
    FullJitter,
    Linear,
    RetryAfter,
    State,
)
from support.calling import message_of
from support.errors import rate_limit


def waits(world: World, wait: Any, calls: int = 6, *errors: Any) -> list[float]:
    """The waits between so many failing calls."""
    fn = world.function(*(errors or [ConnectionError]))
    outcome = world.run(Pipeline(Retry(attempts=calls, wait=wait)).outcome, fn)
    return [attempt.waited for attempt in outcome.attempts[1:]]


def state(number: int, error: Exception | None = None) -> tenacity.RetryCallState:
    """What tenacity hands to a wait after its nth attempt."""
    made = tenacity.RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    made.attempt_number = number
    made.set_exception((ConnectionError, error or ConnectionError(), None))
    return made


def state_of_a_runtime(error: Exception, chance: float) -> State:
    """What Retry asks a wait with, in a runtime whose random number is this one."""
    return State(
        None,
        (),
        {},
        number=1,
        started=0.0,
        ended=0.0,
        waited=0.0,
        failure=describe(error),
        error=error,
        result=None,
        chance=lambda: chance,
    )


# The sequences


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        (Fixed(), [1, 1, 1, 1, 1]),
        (Fixed(2.5), [2.5] * 5),
        (Fixed(timedelta(seconds=3)), [3] * 5),
        (Linear(), [0.5, 1.0, 1.5, 2.0, 2.5]),
        (Linear(1, 2, max=6), [1, 3, 5, 6, 6]),
        (Exponential(), [0.5, 0.75, 1.125, 1.6875, 2.53125]),
        (Exponential(1, factor=3, max=20, jitter=0), [1, 3, 9, 20, 20]),
        (Exponential(initial=0), [0, 0, 0, 0, 0]),
        (FullJitter(), [0.25, 0.5, 1, 2, 4]),
        (FullJitter(4, factor=4, max=30), [2, 8, 15, 15, 15]),
        (Decorrelated(), [1.0, 1.75, 2.875, 4.5625, 7.09375]),
        (Decorrelated(1, max=4), [2, 3.5, 4, 4, 4]),
        (RetryAfter(), [0.5, 0.75, 1.125, 1.6875, 2.53125]),
        (RetryAfter(otherwise=2), [2] * 5),
        (RetryAfter(otherwise=tenacity.wait_fixed(3)), [3] * 5),
    ],
    ids=repr,
)
def test_sequences(world: World, wait: Any, expected: list[float]) -> None:
    """Each wait's sequence, with chance in the middle."""
    world.clock.random = lambda: 0.5

    assert waits(world, wait) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("wait", "least", "most"),
    [
        (Exponential(10, jitter=0.2), 8, 12),
        (Exponential(10, jitter=1), 0, 20),
        (Exponential(10, jitter=0), 10, 10),
        (FullJitter(10), 0, 10),
        (Decorrelated(10), 10, 30),
        (RetryAfter(), 20, 25),
        (RetryAfter(spread=0), 20, 20),
        (RetryAfter(spread=2), 20, 60),
    ],
    ids=repr,
)
def test_bounds_of_the_first_wait(world: World, wait: Any, least: float, most: float) -> None:
    """At the two ends of chance lie the two documented bounds."""
    error = rate_limit(20) if isinstance(wait, RetryAfter) else ConnectionError()
    found = []
    for chance in (0.0, 1.0):
        world.clock.random = lambda chance=chance: chance
        found += waits(world, wait, 2, error)

    assert found == pytest.approx([least, most])


def test_the_cap_is_applied_before_the_jitter(world: World) -> None:
    """Late waits are spread too: they do not all land exactly on the cap."""
    found = waits(world, Exponential(20, factor=10, max=30), 12)[1:]

    assert len(set(found)) == len(found)
    assert min(found) >= 24
    assert max(found) <= 36


def test_decorrelated_grows_from_the_calls_own_last_wait(world: World) -> None:
    """Each wait lies between `initial` and three times the one before; nothing outlives a call."""
    wait = Decorrelated(1, max=1000)
    for found in (waits(world, wait, 8), waits(world, wait, 8)):
        assert 1 <= found[0] <= 3
        for before, after in itertools.pairwise(found):
            assert 1 <= after <= max(1, 3 * before)


# What the server asked for


@pytest.mark.parametrize("asked", [0, 0.5, 12, 60])
def test_retry_after_is_never_less(world: World, asked: float) -> None:
    """What the server asked for is waited at least, up to `longest` itself."""
    (found,) = waits(world, RetryAfter(), 2, rate_limit(asked))

    assert asked <= found <= asked * 1.25


def test_a_server_that_says_now_is_believed_once(world: World) -> None:
    """From the second time on, the backoff is waited: nobody is asked 1,000 times a second."""
    assert waits(world, RetryAfter(Fixed(2)), 4, rate_limit(0.0)) == [0, 2, 2]


def test_retry_after_too_long_stops_or_clamps(world: World) -> None:
    """Above `longest`, "stop" begins no wait and "clamp" waits `longest` at least."""
    assert waits(world, RetryAfter(longest=10), 6, rate_limit(10.1)) == []
    (found,) = waits(world, RetryAfter(longest=10, too_long="clamp"), 2, rate_limit(1e9))

    assert 10 <= found <= 12.5


def test_retry_after_without_a_word_asks_the_other(world: World) -> None:
    """A failure without a hint waits `otherwise`, however the one before it was."""
    wait = RetryAfter(otherwise=Fixed(9), spread=0)

    assert waits(world, wait, 4, rate_limit(None), rate_limit(4), rate_limit(None)) == [9, 4, 9]


@pytest.mark.parametrize(("resets", "expected"), [(False, [1, 1]), (True, [40, 60])])
def test_reset_headers_are_waited_by_only_where_asked_for(
    world: World, resets: bool, expected: list[float]
) -> None:
    """`resets=True` waits until the limit is full again, at most `longest`."""
    wait = RetryAfter(otherwise=1, spread=0, resets=resets)
    errors = rate_limit(reset_after=40.0), rate_limit(reset_after=400.0)

    assert waits(world, wait, 3, *errors) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"retry_after": 3.0}, 3),
        ({"retry_after": 3.0, "reset_after": 40.0}, 3),
        ({}, 7),
    ],
)
def test_retry_after_goes_before_the_resets(
    world: World, facts: dict[str, float], expected: float
) -> None:
    """A server's own Retry-After is what it asks for now; with neither, `otherwise` is waited."""
    wait = RetryAfter(otherwise=Fixed(7), spread=0, resets=True)

    assert waits(world, wait, 2, rate_limit(**facts)) == [expected]


# Far into a sequence


@pytest.mark.parametrize("wait", [Exponential(), Linear(), FullJitter(), Decorrelated()], ids=repr)
@pytest.mark.parametrize("number", [1, 2000, 10**9])
def test_never_an_overflow(wait: Any, number: int) -> None:
    """However many attempts there were, the wait is finite and within the cap and its jitter."""
    found = wait(state(number))

    assert math.isfinite(found)
    assert 0 <= found <= 36


@given(
    initial=st.floats(0, 1e6),
    factor=st.floats(1, 1e6),
    most=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
    number=st.integers(1, 10**6),
)
def test_exponential_stays_within_its_bounds(
    initial: float, factor: float, most: float, jitter: float, number: int
) -> None:
    """Any valid exponential gives seconds from 0 up to its cap and jitter."""
    try:
        wait = Exponential(initial, factor=factor, max=most, jitter=jitter)
    except ValueError:
        assert initial > most  # the one combination that may be refused
        return
    assert 0 <= wait(state(number)) <= most * (1 + jitter) + 1e-9


def test_where_the_power_overflows_the_cap_is_left() -> None:
    """To the digit; and nothing to begin with stays nothing."""
    far = state(9999)
    far.chance = lambda: 0.5  # type: ignore[attr-defined]

    assert Exponential(1, jitter=0)(far) == 30
    assert Exponential(0, jitter=0)(far) == 0
    assert FullJitter(1)(far) == 15


# Under tenacity, and directly


def test_tenacity_can_use_them() -> None:
    """Under tenacity's own engine our waits work as its own do, a hint included."""
    slept: list[float] = []
    errors = [rate_limit(3), ConnectionError(), ConnectionError()]
    retrying = tenacity.Retrying(
        wait=RetryAfter(otherwise=Exponential(1, jitter=0), spread=0),
        stop=tenacity.stop_after_attempt(4),
        sleep=slept.append,
    )

    def fn() -> str:
        if errors:
            raise errors.pop(0)
        return "ok"

    assert retrying(fn) == "ok"
    assert slept == [3, 1.5, 2.25]


def test_chance_is_real_outside_virtual_time() -> None:
    """Asked by tenacity itself, a spread wait draws a new number each time."""
    drawn = {Exponential(initial=10, jitter=0.5)(state(1)) for _ in range(50)}

    assert len(drawn) > 10
    assert all(5 <= wait <= 15 for wait in drawn)


def test_chance_is_the_clocks_in_virtual_time() -> None:
    """There tenacity's own loop draws seeded numbers too: a test comes out the same each time."""

    def drawn(seed: int) -> list[float]:
        with virtual_time(seed=seed):
            return [Exponential(initial=10, jitter=0.5)(state(1)) for _ in range(5)]

    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.parametrize(
    ("wait", "least", "most"),
    [
        (Exponential(1, jitter=0.5), 0.5, 1.5),
        (FullJitter(1), 0.0, 1.0),
        (Decorrelated(1), 1.0, 3.0),
        (RetryAfter(spread=0.5), 8.0, 12.0),
    ],
    ids=repr,
)
def test_a_wait_draws_from_what_it_is_asked_with(wait: Any, least: float, most: float) -> None:
    """The random numbers are those of the runtime that asks, not of the world."""
    assert wait(state_of_a_runtime(rate_limit(8), 0.0)) == pytest.approx(least)
    assert wait(state_of_a_runtime(rate_limit(8), 1.0)) == pytest.approx(most)


def test_decorrelated_begins_where_no_wait_is_known() -> None:
    """Without a word on the wait before, it counts as `initial`."""
    known = SimpleNamespace(chance=lambda: 1.0, upcoming_sleep=2.0)

    assert Decorrelated(0.1)(SimpleNamespace(chance=lambda: 1.0)) == pytest.approx(0.3)
    assert Decorrelated(0.1)(known) == pytest.approx(6.0)


def test_without_an_outcome_nothing_was_asked() -> None:
    """A state with no outcome in it has no server's word either."""
    nothing = SimpleNamespace(attempt_number=1, outcome=None)

    assert RetryAfter(otherwise=Fixed(3))(nothing) == 3


def test_they_add_and_chain() -> None:
    """`+` with another wait, ours or tenacity's, and `wait_chain`, give the sum and the chain."""
    assert (Fixed(1) + Linear(2))(state(1)) == 3
    assert (tenacity.wait_fixed(1) + Fixed(2))(state(1)) == 3
    assert (Fixed(1) + tenacity.wait_fixed(2) + Fixed(4))(state(1)) == 7
    chain = tenacity.wait_chain(Fixed(1), Linear(5))
    assert [chain(state(number)) for number in (1, 2)] == [1, 5.5]


def test_a_stop_survives_adding() -> None:
    """What means "give up" still does after a sum."""
    assert (RetryAfter(longest=1) + Fixed(3))(state(1, rate_limit(2))) == math.inf


# As values


@pytest.mark.parametrize(
    ("wait", "text"),
    [
        (Fixed(), "Fixed()"),
        (Fixed(2), "Fixed(seconds=2)"),
        (Exponential(), "Exponential()"),
        (Exponential(initial=1, jitter=0.5), "Exponential(initial=1, jitter=0.5)"),
        (RetryAfter(), "RetryAfter()"),
        (RetryAfter(too_long="clamp"), "RetryAfter(too_long='clamp')"),
        (RetryAfter(otherwise=Linear(step=1)), "RetryAfter(otherwise=Linear(step=1))"),
    ],
    ids=str,
)
def test_they_read_like_the_code_that_makes_them(wait: Any, text: str) -> None:
    """The repr is code; equal waits are equal, and pickle keeps them so."""
    assert repr(wait) == text
    assert pickle.loads(pickle.dumps(wait)) == wait


@pytest.mark.fault(79)
@pytest.mark.parametrize(
    "wait", [Fixed(), Linear(), Exponential(), FullJitter(), Decorrelated(), RetryAfter()], ids=repr
)
def test_they_cannot_be_changed(wait: Any) -> None:
    """Waits are frozen: mutable backoff objects break overlapping calls."""
    with pytest.raises(FrozenInstanceError):
        setattr(wait, fields(type(wait))[0].name, 5)


class Unequal(tenacity.wait.wait_base):
    """A wait of a user's own that will not be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, retry_state: Any) -> float:
        return 1.0

    def __repr__(self) -> str:
        return "Unequal()"


def test_a_value_that_cannot_be_compared_is_printed() -> None:
    """Whether it is the default is not known then, so it is shown."""
    assert repr(Retry(wait=RetryAfter(Unequal()))) == (
        "Retry(wait=RetryAfter(otherwise=Unequal()))"
    )


@pytest.mark.parametrize("value", [None, True, False, Exponential])
def test_what_is_no_wait(value: Any) -> None:
    """The message tells of both that may be given, a wait and seconds."""
    message = message_of(TypeError, Retry, wait=value)

    assert message.startswith("wait must be a wait such as Exponential() or seconds")
    assert message.endswith(repr(value))
