"""Rate limits and holds against the figures that they are to reach, by simulation and in real time.

    python benchmarks/limits.py [--check] [--long]

Simulated by the library's own policies under the virtual clock: a herd of clients that are told the
same date, and waiters that are cancelled and run out of time. In real time: a batch of prompts
through the real client. With --check, exit status 1 if a figure is beyond its limit. With --long,
1,000 rounds of waiters instead of 20, and 10 million calls of 100,000 keys for the memory.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import timeit
import tracemalloc
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from attrs import frozen

from resilience import Hold, Pipeline, RateLimit, RateLimitExceededError, Retry, Timeout
from resilience.errors import DeadlineExceededError
from resilience.testing import virtual_time

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.limits import batch, herd, most_in

LONG = "--long" in sys.argv


@frozen
class Figure:
    """Something measured, in a unit, and what it is to be at most."""

    what: str
    found: float
    unit: str
    most: float | None = None

    def __str__(self) -> str:
        limit = "" if self.most is None else f" (at most {self.most:g})"
        over = "  OVER" if self.over else ""
        return f"{self.what:76s} {self.found:10.4g} {self.unit}{limit}{over}"

    @property
    def over(self) -> bool:
        return self.most is not None and self.found > self.most


# The herd


def herds() -> list[Figure]:
    found = []
    clients, ideal = 10_000, 500.0
    kinds: list[tuple[str, Callable[[], list[Any]], float | None]] = [
        ("Retry alone", lambda: [Retry(attempts=None)], None),
        ("Retry and Hold", lambda: [Retry(attempts=None), Hold()], 4.0),
    ]
    for name, policies, most in kinds:
        arrivals = herd(policies, clients, rate=ideal)
        peak = most_in(1.0, arrivals) / ideal
        found.append(Figure(f"{clients:,} clients told one date, {name}: peak", peak, "x", most))
        calls = len(arrivals) / clients
        found.append(Figure(f"  calls in all, of the ideal, in {max(arrivals):.0f} s", calls, "x"))
    return found


# Waiters


def waiters(rounds: int) -> Figure:
    """Rounds of 200 waiters that are cancelled and run out of time at random: how many of them have
    left somebody in the queue, have changed the order, or have lost or gained a turn."""
    bad = sum(not is_fair(seed) for seed in range(rounds))
    return Figure(f"{rounds:,} rounds of 200 waiters cancelled at random: wrong", bad, "rounds", 0)


def is_fair(seed: int) -> bool:
    chance = random.Random(seed)
    limit, went = RateLimit(requests=10, per=1, patience=None), Went([])

    async def one(number: int) -> None:
        async def work() -> None:
            went.calls.append((number, clock.now()))

        await clock.asleep(number / 1e6)
        limits = [Timeout(chance.uniform(0.5, 9))] if number % 4 == 1 else []
        task = asyncio.ensure_future(Pipeline(*limits, limit).wrap(work)())
        if number % 4 == 0:
            clock.at(clock.now() + chance.uniform(0, 9), partial(cut, task))
        try:
            await asyncio.gather(task)
        except (asyncio.CancelledError, DeadlineExceededError, RateLimitExceededError):
            pass

    async def main() -> None:
        await asyncio.gather(*map(one, range(200)))

    with virtual_time(start=0, seed=seed) as clock:
        asyncio.run(main())
    spaces = [later[1] - sooner[1] for sooner, later in pairwise(went.calls)]
    in_order = went.calls == sorted(went.calls)
    return in_order and all(0.0999 < each < 0.1001 for each in spaces) and limit.waiting == 0


def cut(task: asyncio.Future[None]) -> None:
    task.cancel()


@frozen
class Went:
    """Which calls went, and when."""

    calls: list[tuple[int, float]]


# Real time


def batches() -> list[Figure]:
    """200 prompts in 16 threads through the real client, to a gateway that allows 20 a second."""
    ideal = 10.0
    found = []
    kinds: list[tuple[str, list[Any], float | None, float | None]] = [
        ("Retry alone", [Retry(attempts=None)], None, None),
        ("RateLimit", [Retry(), RateLimit(requests=20, per=1)], 0, 1.05),
        ("Hold", [Retry(attempts=20), Hold()], 20, None),
    ]
    for name, policies, most, longest in kinds:
        answered, refused, took = batch(*policies)
        found += [
            Figure(f"200 prompts at 20 a second, {name}: refused", refused, "requests", most),
            Figure("  not answered", 200 - answered, "requests", 0),
            Figure(f"  time, of the ideal {ideal:g} s", took / ideal, "x", longest),
        ]
    return found


def costs() -> list[Figure]:
    """Of a healthy call at rest, beyond a pipeline without them."""

    def chat(messages: Any, *, model: str = "m", max_tokens: int = 9) -> Any:
        return {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}

    many = 10**9
    messages = [{"role": "user", "content": "word " * 100}]
    limits: dict[str, tuple[list[Any], float | None]] = {
        "Retry": ([], None),
        "RateLimit(requests=)": ([RateLimit(requests=many)], 900),
        "RateLimit(requests=, key=)": ([RateLimit(requests=many, key="model")], None),
        "RateLimit(requests=, tokens=)": ([RateLimit(requests=many, tokens=many)], None),
        "Hold": ([Hold(key="model")], 50),
    }
    calls = {
        name: Pipeline(Retry(), *policies).wrap(chat) for name, (policies, _) in limits.items()
    }
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(60):
        for name, call in calls.items():
            taken = timeit.timeit(partial(call, messages), number=2_000)
            least[name] = min(least[name], taken / 2_000 * 1e9)
    return [
        Figure(
            f"{name}, at rest, sync, beyond Retry alone", least[name] - least["Retry"], "ns", most
        )
        for name, (_, most) in limits.items()
        if name != "Retry"
    ]


def memory(calls: int, keys: int) -> Figure:
    """What is kept after so many calls of so many keys."""
    limit, hold = RateLimit(requests=10**6, per=1, key="user"), Hold(key="user")

    def nothing(*, user: int) -> None:
        return None

    fn = Pipeline(Retry(), hold, limit).wrap(nothing)
    for user in range(keys // 100):
        fn(user=user)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(calls):
        fn(user=number % keys)
    gc.collect()
    grown = (tracemalloc.get_traced_memory()[0] - before) / 1e3
    tracemalloc.stop()
    return Figure(f"memory after {calls:,} calls of {keys:,} keys", grown, "kB", 100)


def main() -> int:
    figures = [*herds(), waiters(1000 if LONG else 20), *batches(), *costs()]
    figures.append(memory(10_000_000 if LONG else 200_000, 100_000))
    for figure in figures:
        print(figure)
    return 1 if any(figure.over for figure in figures) and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
