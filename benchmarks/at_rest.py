"""What a healthy call costs, as ratios to a hand-written try/except wrapper, in one run.

    python benchmarks/at_rest.py [--check] [--write]

With --check, exit status 1 unless Retry + CircuitBreaker + Fallback, sync and at rest, costs at
most 2.5 times the wrapper. With --write, the figures go into the README. Each is the least of many
interleaved rounds.
"""

from __future__ import annotations

import asyncio
import platform
import sys
import timeit
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resilience import (
    CircuitBreaker,
    Fallback,
    ModelFallback,
    Pipeline,
    PolicyOrderWarning,
    Retry,
    Timeout,
    resilient,
)

LIMIT = 2.5
BASE = "try/except by hand"
README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- figures: written by `make bench` -->"
END = "<!-- end of figures -->"
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


def show(title: str, figures: dict[str, float]) -> None:
    print(f"\n{title}")
    for name, ns in figures.items():
        print(f"  {name:<66} {ns:7.0f} ns  {ns / figures[BASE]:6.2f} x")


def write(tables: dict[str, dict[str, float]]) -> None:
    """Put the figures into the README, between its two marks."""
    text = README.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    rows = [
        f"| {name}, {title} | {ns / figures[BASE]:.1f} |"
        for title, figures in tables.items()
        for name, ns in figures.items()
        if name != BASE
    ]
    version = platform.python_version()
    lines = [
        f"A healthy call, in times of a hand-written `try/except` wrapper around the same function "
        f"(least of {ROUNDS} interleaved rounds in one run, CPython {version}; `make bench`):",
        "",
        "| call | times a `try/except` |",
        "|---|---|",
        *rows,
    ]
    README.write_text(text[:begin] + "\n" + "\n".join(lines) + "\n" + text[end:])


def main() -> int:
    warnings.simplefilter("ignore", PolicyOrderWarning)
    rest = resilient(Fallback(None), Retry(), CircuitBreaker())
    looking = Pipeline(Fallback(None), Retry(on_result=lambda result: False), CircuitBreaker())
    timed = resilient(Retry(), CircuitBreaker(), Timeout(60))
    chain = resilient(ModelFallback("m", "n"), Retry(), CircuitBreaker())
    sync = sync_figures(
        {
            BASE: by_hand,
            "undecorated": plain,
            "Retry + CircuitBreaker + Fallback, at rest": rest(plain),
            "the same by Pipeline.call": lambda x: rest.call(plain, x),
            "ModelFallback + Retry + CircuitBreaker, at rest": chain(plain),
            "Retry(on_result=...) + CircuitBreaker + Fallback, full path": looking.wrap(plain),
            "Retry + CircuitBreaker + Timeout, full path in a worker thread": timed(plain),
        }
    )
    asynchronous = async_figures(
        {
            BASE: aby_hand,
            "undecorated": aplain,
            "Retry + CircuitBreaker + Fallback, at rest": rest(aplain),
            "Retry + CircuitBreaker + Timeout, full path": timed(aplain),
        }
    )
    tables = {"sync": sync, "asyncio": asynchronous}
    for title, figures in tables.items():
        show(title, figures)
    if "--write" in sys.argv:
        write(tables)
    ratio = sync["Retry + CircuitBreaker + Fallback, at rest"] / sync[BASE]
    print(f"\nsync, at rest: {ratio:.2f} times a try/except (at most {LIMIT})")
    return int("--check" in sys.argv and ratio > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
