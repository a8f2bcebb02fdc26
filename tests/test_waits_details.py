"""Waits, asked directly: where their random numbers come from, and what they do without facts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from resilience import Retry
from resilience.failures import Advice, Failure, Kind
from resilience.waits import Decorrelated, Exponential, Fixed, FullJitter, RetryAfter

ASKED = Failure(Kind.RATE_LIMIT, Advice.WAIT, retry_after=8.0)


def state(**facts: Any) -> Any:
    """What a wait is handed, with only these facts in it."""
    return SimpleNamespace(**{"attempt_number": 1, "outcome": None, **facts})


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
def test_a_wait_draws_from_what_it_is_handed(wait: Any, least: float, most: float) -> None:
    """The random numbers are those of the runtime that asks, not of the world."""
    assert wait(state(failure=ASKED, chance=lambda: 0.0)) == pytest.approx(least)
    assert wait(state(failure=ASKED, chance=lambda: 1.0)) == pytest.approx(most)


def test_decorrelated_begins_where_no_wait_is_known() -> None:
    """Without a word on the wait before, it counts as `initial`."""
    assert Decorrelated(0.1)(state(chance=lambda: 1.0)) == pytest.approx(0.3)
    assert Decorrelated(0.1)(state(chance=lambda: 1.0, upcoming_sleep=2.0)) == pytest.approx(6.0)


def test_without_an_outcome_nothing_was_asked() -> None:
    """A state with no outcome in it has no server's word either."""
    assert RetryAfter(otherwise=Fixed(3))(state()) == 3


def test_a_wait_far_into_a_sequence() -> None:
    """Where the power overflows, the cap is left; nothing to begin with stays nothing."""
    far = state(attempt_number=9999, chance=lambda: 0.5)

    assert Exponential(1, jitter=0)(far) == 30
    assert Exponential(0, jitter=0)(far) == 0
    assert FullJitter(1)(far) == 15


def test_resets_that_nobody_told() -> None:
    """With neither Retry-After nor a reset, `otherwise` is waited."""
    told = state(failure=Failure(Kind.RATE_LIMIT, Advice.WAIT))

    assert RetryAfter(resets=True, otherwise=Fixed(3))(told) == 3


@pytest.mark.parametrize("value", [None, True, False, Exponential])
def test_what_is_no_wait(value: Any) -> None:
    """The message tells of both that may be given."""
    with pytest.raises(TypeError) as caught:
        Retry(wait=value)
    assert str(caught.value) == (
        f"wait must be a wait such as Exponential() or seconds, got {value!r}"
    )
