"""What retries add to an outage, and whether a service comes back: budgets and breakers, simulated.

    python benchmarks/do_no_harm.py [--check]

Three layers of three attempts around a backend that is dead, or that fails now and then; and a
service that serves 1,000 calls a second, to which 700 are offered, after ten seconds at a tenth of
that. The library's own policies run, in a world of events with a clock of its own
(tests/support/overload.py). With --check the exit status is 1 if a figure is not as promised.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from resilience import CircuitBreaker, FailureRate, Pipeline, Retry, RetryBudget
from resilience.policy import Policy

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.overload import Course, Storm, layered, weather

SEEDS = 3
REQUESTS = 3_000
ROUNDS, CALLS = 25, 20_000
ENOUGH = 1_001  # calls after which a budget of 10 % is full


def tenth() -> RetryBudget:
    """A tenth of the calls, and nothing in any case."""
    return RetryBudget(0.1, reserve=0)


def breaker() -> CircuitBreaker:
    return CircuitBreaker(trip=FailureRate(0.5, calls=20), reset_after=5, trials=3)


def layers() -> Iterator[bool]:
    """Whether each figure of the layers is as promised."""
    none: list[list[Policy]] = [[], [], []]
    shared, outermost = tenth(), tenth()
    of_each: list[list[Policy]] = [[tenth()], [tenth()], [tenth()]]
    one: list[list[Policy]] = [[shared], [shared], [shared]]
    ways = {
        "no budget": (none, 27.0),
        "one budget, in each layer": (one, 1.10),
        "one budget, in the outermost layer": ([[outermost], [], []], 1.10),
        "a budget of its own in each layer": (of_each, 1.33),
    }
    print("three layers of three attempts, the backend is dead: calls that reach it per request")
    for name, (budgets, most) in ways.items():
        load = layered(budgets, failing=1, requests=REQUESTS).load
        print(f"  {name:<44} {load:6.3f}, at most {most:g}")
        yield load <= most
    yield layered(none, failing=1, requests=10).load == 27
    one = [[budget := tenth()], [budget], [budget]]
    well = layered(one, failing=0.05, requests=20_000).well
    print(f"  {'one budget, 5 % fail at random: go well':<44} {well:8.3%}, at least 99.9 %")
    yield well >= 0.999


def storms() -> Iterator[bool]:
    """Whether the service comes back in time."""
    ways: dict[str, tuple[Callable[[], Sequence[Policy]], float, int]] = {
        "three attempts": (lambda: [Retry()], math.inf, 1),
        "with a budget of 10 %": (lambda: [tenth(), Retry()], 20, SEEDS),
        "with the default budget": (lambda: [RetryBudget(), Retry()], 20, SEEDS),
        "with a breaker and that budget": (lambda: [tenth(), Retry(), breaker()], 5, SEEDS),
    }
    print("a service at a tenth for 10 s, with 70 % of what it can serve offered to it")
    for name, (policies, most, seeds) in ways.items():
        courses = [weather(evolve(Storm(), seed=seed), policies) for seed in range(seeds)]
        print(f"  {name:<44} {_shown(courses)}")
        slowest = max(course.recovered for course in courses)
        yield slowest <= most if most < math.inf else slowest == math.inf


def _shown(courses: Sequence[Course]) -> str:
    times = sorted({course.recovered for course in courses})
    after = "never" if times[0] == math.inf else f"after {times[0]:g} to {times[-1]:g} s"
    lost = sum(course.lost for course in courses) / len(courses)
    sent = max(course.sent for course in courses)
    return f"comes back {after}, {lost:,.0f} requests lost, {sent:.2f} times sent"


def plain(x: int) -> int:
    return x


def cost() -> Iterator[bool]:
    """Whether a budget costs next to nothing at rest."""
    names = {"Retry()": Pipeline(Retry()), "RetryBudget(), Retry()": Pipeline(tenth(), Retry())}
    found: dict[str, Any] = {}
    for name, pipeline in names.items():
        fn = pipeline.wrap(plain)
        for _ in range(ENOUGH):
            fn(1)
        found[name] = fn
    best = dict.fromkeys(found, math.inf)
    for _ in range(ROUNDS):
        for name, fn in found.items():
            timer = timeit.Timer("f(1)", globals={"f": fn}, timer=time.process_time)
            best[name] = min(best[name], timer.timeit(CALLS) / CALLS * 1e9)
    without, with_it = best.values()
    print(
        f"a call at rest: {without:.0f} ns, with a budget {with_it - without:+.0f} ns, at most 50"
    )
    yield with_it - without <= 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    logging.getLogger("resilience").setLevel(logging.CRITICAL)
    well = [*cost(), *layers(), *storms()]
    return int(check and not all(well))


if __name__ == "__main__":
    raise SystemExit(main())
