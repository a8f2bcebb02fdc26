"""Orders of policies that defeat one of them: what is said, and where the line is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    CircuitBreaker,
    ModelFallback,
    Pipeline,
    PolicyOrderWarning,
    Retry,
    Timeout,
)

TWO_RETRIES = (
    "two Retry policies in one pipeline: what the inner one gives up on, the outer one does not "
    "retry (unless again=True); keep one"
)
BREAKER_OUTSIDE = (
    "CircuitBreaker outside Retry: it hears only of calls whose retries have failed, and opens "
    "late; put it inside Retry"
)
NEVER_HEARS = (
    "CircuitBreaker with a Timeout outside it and none inside: a call cut from outside is no "
    "verdict, so it never hears of hung calls; put a Timeout inside it"
)
RETRY_OUTSIDE = (
    "Retry outside ModelFallback: every retry runs through the whole chain of models again; put "
    "it inside ModelFallback"
)
NO_TOTAL = (
    "attempt Timeout outside Retry with no total Timeout: it bounds all attempts at one model "
    "together, and nothing bounds the call; put it inside Retry and a total Timeout outermost"
)


def too_slow(attempts: int, each: int, total: int) -> str:
    return (
        f"{attempts} attempts of {each} s use up the total Timeout of {total} s before the second "
        f"model's turn; shorten the attempts' Timeout or lengthen the total"
    )


class Plain:
    """A policy of one's own, without a role."""

    def bind(self, call: Any, runtime: Any) -> Any:
        return call


MODELS = ModelFallback("a", "b")
EACH = [BREAKER_OUTSIDE, NEVER_HEARS]


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        (lambda: [Retry(), Retry()], [TWO_RETRIES]),
        (lambda: [Retry(), Plain(), Retry(), Retry()], [TWO_RETRIES]),
        (lambda: [CircuitBreaker(), Retry()], [BREAKER_OUTSIDE]),
        (lambda: [CircuitBreaker(), Retry(), CircuitBreaker()], [BREAKER_OUTSIDE]),
        (lambda: [Retry(), CircuitBreaker()], []),
        (lambda: [Timeout(60), CircuitBreaker(), CircuitBreaker()], [NEVER_HEARS]),
        (lambda: [Timeout(60), CircuitBreaker(), Timeout(5), CircuitBreaker()], [NEVER_HEARS]),
        (lambda: [Timeout(60), CircuitBreaker(), Timeout(5)], []),
        (lambda: [CircuitBreaker(), Timeout(5)], []),
        (lambda: [Retry(), MODELS], [RETRY_OUTSIDE]),
        (lambda: [MODELS, Retry()], []),
        (lambda: [MODELS, Timeout(9), Retry()], [NO_TOTAL]),
        (lambda: [Timeout(99), MODELS, Timeout(9), Retry()], []),
        (lambda: [MODELS, Retry(), Timeout(9)], []),
        (lambda: [Timeout(9), Retry()], []),
        (lambda: [Timeout(30), MODELS, Retry(attempts=2), Timeout(15)], [too_slow(2, 15, 30)]),
        (lambda: [Timeout(31), MODELS, Retry(attempts=2), Timeout(15)], []),
        (lambda: [Timeout(30), MODELS, Retry(attempts=2), Timeout(14)], []),
        (
            lambda: [Timeout(90), Timeout(30), MODELS, Retry(attempts=2), Timeout(15)],
            [too_slow(2, 15, 30)],
        ),
        (lambda: [Timeout(30), MODELS, Retry(attempts=2), Timeout(15), Timeout(5)], []),
        (lambda: [Timeout(30), MODELS, Retry(attempts=None), Timeout(15)], []),
        (lambda: [Timeout(30), MODELS, Retry(attempts=2), Timeout(lambda **kwargs: 15)], []),
        (lambda: [Timeout(lambda **kwargs: 3), MODELS, Retry(attempts=2), Timeout(15)], []),
        (lambda: [Timeout(30), MODELS, Retry(attempts=2)], []),
        (lambda: [MODELS, Retry(attempts=2), Timeout(15)], []),
        (lambda: [Timeout(30), Retry(attempts=2), Timeout(15)], []),
        (lambda: [Timeout(30), Retry(attempts=2), MODELS, Timeout(15)], [RETRY_OUTSIDE]),
        (lambda: [Retry(), Retry(), CircuitBreaker()], [TWO_RETRIES]),
        (lambda: [Timeout(60), CircuitBreaker(), Retry(), MODELS], [*EACH, RETRY_OUTSIDE]),
        (lambda: [Plain(), Plain()], []),
    ],
)
def test_what_is_said_of_an_order(policies: Callable[[], list[Any]], said: list[str]) -> None:
    """Each hazard is told once, in these words; orders that are fine are not warned of."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        Pipeline(*policies())

    assert [str(warning.message) for warning in warned] == said
    assert all(warning.category is PolicyOrderWarning for warning in warned)
