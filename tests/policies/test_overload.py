"""Whole systems in trouble, simulated: what retries add, and whether a service comes back.

Smaller versions of benchmarks/do_no_harm.py, which has the figures.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import pytest

from resilience import CircuitBreaker, FailureRate, Retry, RetryBudget
from resilience.policy import Policy
from support.overload import Storm, layered, weather

SMALL = Storm(rate=100, horizon=40)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "resilience")


def tenth() -> RetryBudget:
    return RetryBudget(0.1, reserve=0)


@pytest.mark.fault(82, 380)
def test_layers_of_retries_in_an_outage() -> None:
    """27 times the load without a budget; a tenth more with one, wherever it stands; and with one
    in each layer no more than their product."""
    assert layered([[], [], []], failing=1, requests=20).load == 27
    shared = tenth()
    assert layered([[shared], [shared], [shared]], failing=1, requests=500).load <= 1.10
    assert layered([[tenth()], [], []], failing=1, requests=500).load <= 1.10
    assert layered([[tenth()], [tenth()], [tenth()]], failing=1, requests=500).load <= 1.33


@pytest.mark.fault(380)
def test_random_failures_are_made_good() -> None:
    """A tenth is enough where a twentieth fails."""
    shared = tenth()
    found = layered([[shared], [shared], [shared]], failing=0.05, requests=5_000)
    assert found.well >= 0.999
    assert 1.04 < found.load <= 1.10


@pytest.mark.fault(385)
@pytest.mark.parametrize(
    ("policies", "least", "most"),
    [
        (lambda: [Retry()], math.inf, math.inf),
        (lambda: [tenth(), Retry()], 10, 20),
        (lambda: [RetryBudget(0.1, of="successes", burst=10, reserve=0), Retry()], 10, 20),
        (
            lambda: [
                tenth(),
                Retry(),
                CircuitBreaker(trip=FailureRate(0.5, calls=20), reset_after=5, trials=3),
            ],
            0,
            5,
        ),
    ],
    ids=["retries", "budget", "successes", "breaker"],
)
def test_a_service_comes_back(
    policies: Callable[[], Sequence[Policy]], least: float, most: float
) -> None:
    """After a brown-out in which its queue has filled up: retries alone keep it full for ever."""
    assert least <= weather(SMALL, policies).recovered <= most
