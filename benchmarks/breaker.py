"""What a breaker costs a healthy call, against Retry alone and against other breakers, in one run.

    python benchmarks/breaker.py [--check]

With --check, exit status 1 unless, sync and at rest: failures in a row cost at most 60 ns over
Retry alone, a failure-rate window at most 600 ns over a bare pipeline, and a keyed breaker less
than 1 µs over it. Each is the least of many interleaved rounds, in processor time.
"""

from __future__ import annotations

import sys
import time
import timeit
import warnings
from collections.abc import Callable
from typing import Any

import interlock
import pybreaker
import pyresilience

from resilience import CircuitBreaker, FailureRate, Pipeline, Retry, SlowCalls

ROUNDS = 25
CALLS = 20_000
BARE = "Pipeline()"
RETRY = "Retry()"
RUN = "Retry() + CircuitBreaker()"
RATE = "CircuitBreaker(trip=FailureRate(0.5))"
RATE_OF_100 = "CircuitBreaker(trip=FailureRate(0.5, calls=100))"
KEYED = 'CircuitBreaker(key="model")'
KEYED_RATE = 'CircuitBreaker(key="model", trip=FailureRate(0.5))'


def plain(x: int, model: str = "m") -> int:
    return x


def figures(candidates: dict[str, Callable[[int], Any]]) -> dict[str, float]:
    """Nanoseconds per call, rounds interleaved so that drift hits all alike."""
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(ROUNDS):
        for name, f in candidates.items():
            timer = timeit.Timer("f(1)", globals={"f": f}, timer=time.process_time)
            best[name] = min(best[name], timer.timeit(CALLS) / CALLS * 1e9)
    return best


def ours(*policies: Any) -> Callable[[int], Any]:
    return Pipeline(*policies).wrap(plain)


def theirs() -> dict[str, Callable[[int], Any]]:
    """The same function under the breakers of others, by their own decorators."""
    rate = interlock.Config(failure_rate_threshold=0.5)
    windowed = pyresilience.CircuitBreakerConfig(sliding_window_size=100, minimum_calls=20)
    return {
        "pybreaker, in a row": pybreaker.CircuitBreaker()(plain),
        "interlock-cb, rate": interlock.CircuitBreaker(name="m", config=rate)(plain),
        "pyresilience, in a row": pyresilience.resilient(
            circuit_breaker=pyresilience.CircuitBreakerConfig()
        )(plain),
        "pyresilience, rate": pyresilience.resilient(circuit_breaker=windowed)(plain),
    }


def main() -> int:
    """Print the figures and whether they are what they should be."""
    warnings.simplefilter("ignore")
    found = figures(
        {
            "undecorated": plain,
            BARE: ours(),
            RETRY: ours(Retry()),
            RUN: ours(Retry(), CircuitBreaker()),
            RATE: ours(CircuitBreaker(trip=FailureRate(0.5))),
            RATE_OF_100: ours(CircuitBreaker(trip=FailureRate(0.5, calls=100))),
            "CircuitBreaker(trip=FailureRate(0.5) | SlowCalls(10, 0.5))": ours(
                CircuitBreaker(trip=FailureRate(0.5) | SlowCalls(10, 0.5))
            ),
            KEYED: ours(CircuitBreaker(key="model")),
            KEYED_RATE: ours(CircuitBreaker(key="model", trip=FailureRate(0.5))),
            **theirs(),
        }
    )
    for name, ns in found.items():
        print(f"{name:<60} {ns:7.0f} ns {ns - found[BARE]:+7.0f} ns {ns / found[RUN]:7.2f} x")
    bounds = [
        ("in a row, over Retry alone", found[RUN] - found[RETRY], 60),
        ("a failure-rate window, over a bare pipeline", found[RATE] - found[BARE], 600),
        ("the same of 100 calls", found[RATE_OF_100] - found[BARE], 600),
        ("keyed, over a bare pipeline", found[KEYED] - found[BARE], 1000),
        ("keyed with a window, over a bare pipeline", found[KEYED_RATE] - found[BARE], 1000),
    ]
    print()
    for name, ns, most in bounds:
        print(f"{name:<60} {ns:7.0f} ns, at most {most} ns")
    return int("--check" in sys.argv and any(ns > most for _, ns, most in bounds))


if __name__ == "__main__":
    raise SystemExit(main())
