"""Orders of policies that defeat one of them: which are warned of, and where the line is."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from tenacity import wait_fixed

from resilience import (
    BadResult,
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Hold,
    IdempotencyKey,
    ModelFallback,
    Pipeline,
    PolicyOrderWarning,
    RateLimit,
    Retry,
    RetryBudget,
    SingleFlight,
    SpendLimit,
    Streaming,
    Timeout,
)
from resilience.waits import Decorrelated, Exponential, FullJitter, Linear, RetryAfter
from support.policies import Busy

TWO_RETRIES = "two"
BREAKER_OUTSIDE = "late"
NEVER_COUNTED = "hung"
RETRY_OUTSIDE = "chain"
NO_TOTAL = "together"
TOO_SLOW = "shorten"
CHECK_OUTSIDE = "innermost"
COUNTED_FOR_EACH = "callers"
NEVER_EQUAL = "equals"
HIDES = "hides"
ALL_ATTEMPTS = "content"
NOT_SHARED = "everybody"
NEVER_FIRES = "fires"
NO_WAIT_FITS = "fits"
KEEPS_PERMIT = "keeps"
NOT_SEEN = "extra"
COSTS_MORE = "reserves"
BEYOND = "beyond"
HEARS = "hears"
WORDS = (
    *(TWO_RETRIES, BREAKER_OUTSIDE, NEVER_COUNTED, RETRY_OUTSIDE),
    *(NO_TOTAL, TOO_SLOW, CHECK_OUTSIDE, COUNTED_FOR_EACH, NEVER_EQUAL, HIDES, ALL_ATTEMPTS),
    *(NOT_SHARED, NEVER_FIRES, NO_WAIT_FITS, KEEPS_PERMIT, NOT_SEEN, COSTS_MORE),
    *(BEYOND, HEARS),
)
"""A word of each hazard's reason that no other one has."""

MODELS = ModelFallback("a", "b")
CHECK = BadResult(lambda result: False)
SPENDING = SpendLimit(1, per=60, price=lambda *used: 0)


def hazards(policies: list[Any]) -> tuple[list[str], list[str]]:
    """The hazards that a pipeline of these policies is warned of, and their messages."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        Pipeline(*policies)
    assert all(warning.category is PolicyOrderWarning for warning in warned)
    messages = [str(warning.message) for warning in warned]
    found = [[word for word in WORDS if re.search(rf"\b{word}\b", told)] for told in messages]
    assert all(len(words) == 1 for words in found), messages
    return [word for (word,) in found], messages


@pytest.mark.fault(325)
@pytest.mark.parametrize(
    ("policies", "said"),
    [
        (lambda: [Retry(), Retry()], [TWO_RETRIES]),
        (lambda: [Retry(), Busy(), Retry(), Retry()], [TWO_RETRIES]),
        (lambda: [CircuitBreaker(), Retry()], [BREAKER_OUTSIDE]),
        (lambda: [CircuitBreaker(), Retry(), CircuitBreaker()], [BREAKER_OUTSIDE]),
        (lambda: [Retry(), CircuitBreaker()], []),
        (lambda: [Timeout(60), CircuitBreaker(), CircuitBreaker()], [NEVER_COUNTED]),
        (lambda: [Timeout(60), CircuitBreaker(), Timeout(5), CircuitBreaker()], [NEVER_COUNTED]),
        (lambda: [Timeout(60), CircuitBreaker(), Timeout(5)], []),
        (lambda: [CircuitBreaker(), Timeout(5)], []),
        (lambda: [Retry(), MODELS], [RETRY_OUTSIDE]),
        (lambda: [MODELS, Retry()], []),
        (lambda: [Retry(), RetryBudget()], [NOT_SEEN]),
        (lambda: [MODELS, RetryBudget(), Retry()], [NOT_SEEN]),
        (lambda: [RetryBudget(), MODELS, Retry()], []),
        (lambda: [SPENDING, Retry()], [COSTS_MORE]),
        (lambda: [SPENDING, MODELS], [COSTS_MORE]),
        (lambda: [MODELS, Retry(), SPENDING], []),
        (lambda: [MODELS, Timeout(9), Retry()], [NO_TOTAL]),
        (lambda: [Timeout(99), MODELS, Timeout(9), Retry()], []),
        (lambda: [MODELS, Retry(), Timeout(9)], []),
        (lambda: [Timeout(9), Retry()], []),
        (lambda: [Timeout(30), MODELS, Retry(attempts=2), Timeout(15)], [TOO_SLOW]),
        (lambda: [Timeout(31), MODELS, Retry(attempts=2), Timeout(15)], []),
        (lambda: [Timeout(30), MODELS, Retry(attempts=2), Timeout(14)], []),
        (lambda: [Timeout(90), Timeout(30), MODELS, Retry(attempts=2), Timeout(15)], [TOO_SLOW]),
        (lambda: [Timeout(30), MODELS, Retry(attempts=2), Timeout(15), Timeout(5)], []),
        (lambda: [Timeout(30), MODELS, Retry(attempts=None), Timeout(15)], []),
        (lambda: [Timeout(30), MODELS, Retry(attempts=2), Timeout(lambda **kwargs: 15)], []),
        (lambda: [Timeout(lambda **kwargs: 3), MODELS, Retry(attempts=2), Timeout(15)], []),
        (lambda: [Timeout(30), MODELS, Retry(attempts=2)], []),
        (lambda: [MODELS, Retry(attempts=2), Timeout(15)], []),
        (lambda: [Timeout(30), Retry(attempts=2), Timeout(15)], []),
        (lambda: [Timeout(30), Retry(attempts=2), MODELS, Timeout(15)], [RETRY_OUTSIDE]),
        (lambda: [Retry(), Retry(), CircuitBreaker()], [TWO_RETRIES]),
        (
            lambda: [Timeout(60), CircuitBreaker(), Retry(), MODELS],
            [BREAKER_OUTSIDE, NEVER_COUNTED, RETRY_OUTSIDE],
        ),
        (lambda: [Busy(), Busy()], []),
        (lambda: [Fallback(1), MODELS, Retry(), CircuitBreaker()], []),
        (lambda: [Retry(), Fallback(1)], [HIDES]),
        (lambda: [Streaming(first=3), Retry()], [ALL_ATTEMPTS]),
        (lambda: [Retry(), Streaming(first=3)], []),
        (lambda: [CircuitBreaker(), Fallback(1)], [HIDES]),
        (lambda: [Timeout(9), MODELS, Fallback(1)], [HIDES]),
        (lambda: [Retry(on=429), Retry(on=ConnectionError)], []),
        (lambda: [Retry(on=429), Retry(on=[503, 429])], [TWO_RETRIES]),
        (lambda: [Retry(on=429), Retry(on=503), Retry(on=[503])], [TWO_RETRIES]),
        (lambda: [Retry(), CircuitBreaker(), CHECK], []),
        (lambda: [CHECK, Retry()], [CHECK_OUTSIDE]),
        (lambda: [Retry(), CHECK, CircuitBreaker(), MODELS], [RETRY_OUTSIDE, CHECK_OUTSIDE]),
        (lambda: [SingleFlight(), IdempotencyKey(), Retry(), CircuitBreaker()], []),
        (lambda: [CircuitBreaker(), SingleFlight()], [COUNTED_FOR_EACH]),
        (lambda: [IdempotencyKey(), SingleFlight()], [NEVER_EQUAL]),
        (lambda: [IdempotencyKey(), SingleFlight("q")], []),
        (lambda: [Retry(), SingleFlight()], [NOT_SHARED]),
        (lambda: [SingleFlight(), Retry()], []),
        (lambda: [Retry(on=429), SingleFlight(), Retry(on=503)], [NOT_SHARED]),
        (lambda: [Timeout(1), Timeout(5)], [NEVER_FIRES]),
        (lambda: [Timeout(5), Timeout(5)], [NEVER_FIRES]),
        (lambda: [Timeout(5), Timeout(1)], []),
        (lambda: [Timeout(9), Retry(), Timeout(3), Timeout(15)], [NEVER_FIRES]),
        (lambda: [Timeout(1), Timeout(lambda **kwargs: 5)], []),
        (lambda: [Timeout(lambda **kwargs: 1), Timeout(5)], []),
        (lambda: [Timeout(1, pass_as="timeout"), Timeout(5)], []),
        (lambda: [Timeout(1), Timeout(5, pass_as="timeout")], [NEVER_FIRES]),
        (lambda: [Timeout(1, pass_as="t"), Timeout(5, pass_as="t")], [NEVER_FIRES]),
        (lambda: [Timeout(1), Retry(wait=30)], [NO_WAIT_FITS]),
        (lambda: [Timeout(30), Retry(wait=30)], [NO_WAIT_FITS]),
        (lambda: [Timeout(31), Retry(wait=30)], []),
        (lambda: [Timeout(1, pass_as="timeout"), Retry(wait=30)], [NO_WAIT_FITS]),
        (lambda: [Timeout(lambda **kwargs: 1), Retry(wait=30)], []),
        (lambda: [Timeout(lambda **kwargs: 1), Timeout(2), Retry(wait=30)], [NO_WAIT_FITS]),
        (lambda: [Retry(wait=30), Timeout(1)], []),
        (lambda: [Timeout(1), Retry(attempts=1, wait=30)], []),
        (lambda: [Timeout(1), Retry(wait=Linear(2))], [NO_WAIT_FITS]),
        (lambda: [Timeout(1), Retry(wait=Decorrelated(2))], [NO_WAIT_FITS]),
        (lambda: [Timeout(1), Retry(wait=Exponential(2))], [NO_WAIT_FITS]),
        (lambda: [Timeout(1), Retry(wait=Exponential(1.2))], []),
        (lambda: [Timeout(1), Retry(wait=FullJitter(2))], []),
        (lambda: [Timeout(1), Retry(wait=RetryAfter(otherwise=30))], []),
        (lambda: [Timeout(1), Retry(wait=wait_fixed(30))], []),
        (lambda: [Timeout(0.1), Retry()], []),
        (lambda: [Bulkhead(1), Retry()], [KEEPS_PERMIT]),
        (lambda: [Retry(), Bulkhead(1), Retry(on=429), Bulkhead(1)], [TWO_RETRIES, KEEPS_PERMIT]),
        (lambda: [MODELS, Retry(), Bulkhead(1)], []),
        (lambda: [RateLimit(9), Retry()], [BEYOND]),
        (lambda: [Retry(), RateLimit(9)], []),
        (lambda: [Hold(), Retry()], [HEARS]),
        (lambda: [Retry(), Hold()], []),
    ],
)
def test_what_is_said_of_an_order(policies: Callable[[], list[Any]], said: list[str]) -> None:
    """Each hazard is told once, with its reason; orders that are fine are not warned of."""
    assert hazards(policies())[0] == said


def test_attempts_that_use_up_the_total_are_told_in_figures() -> None:
    """How many attempts, the seconds of each, and the nearest total."""
    policies = [Timeout(90), Timeout(30), MODELS, Retry(attempts=2), Timeout(20), Timeout(15)]
    (message,) = hazards(policies)[1]

    assert re.findall(r"\d+", message) == ["2", "15", "30"]
