"""What a healthy call costs, as ratios to a hand-written try/except wrapper, in one run.

    python benchmarks/at_rest.py [--check]

With --check, exit status 1 unless Retry + CircuitBreaker + Fallback, sync and at rest, costs at
most 2.5 times the wrapper. Each figure is the least of many interleaved rounds.
"""

from __future__ import annotations

import asyncio
import sys
import timeit
import warnings
from collections.abc import Callable
from typing import Any

from resilience import (
    CircuitBreaker,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    resilient,
)

LIMIT = 2.5
ROUNDS = 25
CALLS = 40_000


def plain(x: int, model: str = "m") -> int:
    return x


def by_hand(*args: Any, **kwargs: Any) -> Any:
    try:
        return plain(*args, **kwargs)
    except Exception as error:
        return recover(error)


def recover(error: Exception) -> Any:
    raise error


async def aplain(x: int) -> int:
    return x


async def aby_hand(*args: Any, **kwargs: Any) -> Any:
    try:
        return await aplain(*args, **kwargs)
    except Exception as error:
        return recover(error)


def sync_figures(candidates: dict[str, Callable[[int], Any]]) -> dict[str, float]:
    """Nanoseconds per call, rounds interleaved so that drift hits all alike."""
    timers = {name: timeit.Timer("f(1)", globals={"f": f}) for name, f in candidates.items()}
    best = dict.fromkeys(timers, float("inf"))
    for _ in range(ROUNDS):
        for name, timer in timers.items():
            best[name] = min(best[name], timer.timeit(CALLS) / CALLS * 1e9)
    return best


def async_figures(candidates: dict[str, Callable[[int], Any]]) -> dict[str, float]:
    """The same for coroutine functions, awaited in one loop."""

    async def rounds() -> dict[str, float]:
        best = dict.fromkeys(candidates, float("inf"))
        for _ in range(ROUNDS):
            for name, f in candidates.items():
                start = timeit.default_timer()
                for _ in range(CALLS // 4):
                    await f(1)
                took = (timeit.default_timer() - start) / (CALLS // 4) * 1e9
                best[name] = min(best[name], took)
        return best

    return asyncio.run(rounds())


def table(title: str, figures: dict[str, float], base: str) -> None:
    print(f"\n{title}")
    for name, ns in figures.items():
        print(f"  {name:<58} {ns:7.0f} ns  {ns / figures[base]:5.2f} x")


def main() -> int:
    warnings.simplefilter("ignore")
    rest = resilient(Fallback(None), Retry(), CircuitBreaker())
    busy = Pipeline(Fallback(None), Retry(on_result=lambda r: False), CircuitBreaker())
    sync = sync_figures(
        {
            "undecorated": plain,
            "try/except by hand": by_hand,
            "Retry + CircuitBreaker + Fallback, at rest": rest(plain),
            "ModelFallback + Retry + CircuitBreaker, at rest": resilient(
                ModelFallback("m", "n"), Retry(), CircuitBreaker()
            )(plain),
            "Pipeline.call, at rest": lambda x: rest.call(plain, x),
            "Retry(on_result=) + CircuitBreaker + Fallback (full path)": busy.wrap(plain),
            "Timeout + Retry + CircuitBreaker (full path, a worker thread)": resilient(
                Retry(), CircuitBreaker(), Timeout(60)
            )(plain),
        }
    )
    table("sync", sync, "try/except by hand")
    a = async_figures(
        {
            "undecorated": aplain,
            "try/except by hand": aby_hand,
            "Retry + CircuitBreaker + Fallback, at rest": rest(aplain),
            "Retry + CircuitBreaker + Timeout (full path)": resilient(
                Retry(), CircuitBreaker(), Timeout(60)
            )(aplain),
        }
    )
    table("asyncio", a, "try/except by hand")
    ratio = sync["Retry + CircuitBreaker + Fallback, at rest"] / sync["try/except by hand"]
    print(f"\nsync, at rest: {ratio:.2f} times a try/except (at most {LIMIT})")
    return int("--check" in sys.argv and ratio > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
