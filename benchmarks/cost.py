"""What a call costs, as ratios to what one would write by hand, all in one run.

    python benchmarks/cost.py [--check] [--write]

With --check, exit status 1 if a figure is over its limit. With --write, the figures go into the
README. Each is the least of many interleaved rounds.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import subprocess
import sys
import tempfile
import timeit
import tracemalloc
import warnings
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import stamina
import tenacity

from resilience import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    ModelFallback,
    Pipeline,
    PolicyOrderWarning,
    Retry,
    Timeout,
)
from resilience.policy import Inner, Policy, Runtime

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "examples"))
README = ROOT / "README.md"
BEGIN = "<!-- figures: written by `make bench` -->"
END = "<!-- end of figures -->"
ROUNDS = 30
TASKS = 10_000


class Busy(Policy):
    """Does nothing, and is never at rest: the call takes the full path."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        return inner


# What is guarded, and what one would write by hand


def plain(x: int) -> int:
    return x


def with_model(x: int, *, model: str | None = None) -> int:
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


async def awith_model(x: int, *, model: str | None = None) -> int:
    return x


async def with_timeout(x: int) -> int:
    async with asyncio.timeout(5):
        return await aplain(x)


def stumbling() -> Callable[[int], int]:
    """Fails every other time."""
    made = 0

    def fn(x: int) -> int:
        nonlocal made
        made += 1
        if made & 1:
            raise ConnectionError
        return x

    return fn


def rejecting(call: Callable[[int], object]) -> Callable[[int], None]:
    def rejected(x: int) -> None:
        try:
            call(x)
        except CircuitOpenError:
            return

    return rejected


def raise_by_hand(x: int) -> None:
    raise CircuitOpenError(1.0, None, None, None)


def open_breaker() -> CircuitBreaker:
    breaker = CircuitBreaker(reset_after=1e6)
    breaker.open()
    return breaker


# Measuring


def least(calls: dict[str, Callable[[int], object]], number: int) -> dict[str, float]:
    """Nanoseconds a call."""
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            taken = timeit.timeit(lambda call=call: call(1), number=number)
            found[name] = min(found[name], taken / number * 1e9)
    return found


async def least_awaited(
    calls: dict[str, Callable[[int], Awaitable[object]]], number: int
) -> dict[str, float]:
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = timeit.default_timer()
            for _ in range(number):
                await call(1)
            found[name] = min(found[name], (timeit.default_timer() - began) / number * 1e9)
    return found


def three() -> list[Policy]:
    return [Fallback(0), Retry(), CircuitBreaker()]


def sync_calls() -> dict[str, Callable[[int], object]]:
    chain = [ModelFallback("a", "b"), Retry(), CircuitBreaker(key="model")]
    robust = Pipeline(*three())
    return {
        "by hand": by_hand,
        "undecorated": plain,
        "Retry, at rest": Pipeline(Retry()).wrap(plain),
        "Retry + CircuitBreaker + Fallback, at rest": Pipeline(*three()).wrap(plain),
        "the same by Pipeline.call": lambda x: robust.call(plain, x),
        "ModelFallback + Retry + CircuitBreaker(key=), at rest": Pipeline(*chain).wrap(with_model),
        "Retry + CircuitBreaker + Fallback, full path": Pipeline(Busy(), *three()).wrap(plain),
    }


def async_calls() -> dict[str, Callable[[int], Awaitable[object]]]:
    five = [
        Timeout(60.0),
        ModelFallback("a", "b"),
        Retry(attempts=2),
        CircuitBreaker(key="model"),
        Timeout(15.0),
    ]
    return {
        "asyncio.timeout": with_timeout,
        "undecorated": aplain,
        "Retry + CircuitBreaker + Fallback, at rest": Pipeline(*three()).wrap(aplain),
        "Retry + CircuitBreaker + Fallback, full path": Pipeline(Busy(), *three()).wrap(aplain),
        "Retry + CircuitBreaker + Timeout": Pipeline(Retry(), CircuitBreaker(), Timeout(5.0)).wrap(
            aplain
        ),
        "Timeout + ModelFallback + Retry + CircuitBreaker(key=) + Timeout": Pipeline(*five).wrap(
            awith_model
        ),
    }


Row = tuple[str, float, str, float, float | None]
"""What, nanoseconds, in times of what, how many times, and at most how many."""


def rows() -> Iterator[Row]:
    limits = {
        "Retry, at rest": 2.2,
        "Retry + CircuitBreaker + Fallback, at rest": 2.2,
        "ModelFallback + Retry + CircuitBreaker(key=), at rest": 5.0,
        "Retry + CircuitBreaker + Fallback, full path": 20.0,
    }
    found = least(sync_calls(), 10_000)
    for name, taken in found.items():
        if name != "by hand":
            ratio = taken / found["by hand"]
            yield f"{name}, sync", taken, "a `try/except`", ratio, limits.get(name)

    limits = {
        "Retry + CircuitBreaker + Fallback, at rest": 0.12,
        "Retry + CircuitBreaker + Fallback, full path": 0.65,
        "Retry + CircuitBreaker + Timeout": 1.0,
        "Timeout + ModelFallback + Retry + CircuitBreaker(key=) + Timeout": 1.9,
    }
    found = asyncio.run(least_awaited(async_calls(), 3_000))
    for name, taken in found.items():
        if name != "asyncio.timeout":
            ratio = taken / found["asyncio.timeout"]
            yield f"{name}, asyncio", taken, "`asyncio.timeout`", ratio, limits.get(name)

    yield from retry_rows()
    yield from other_rows()


def retry_rows() -> Iterator[Row]:
    stamina.instrumentation.set_on_retry_hooks([])
    with_tenacity = tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())
    with_stamina = stamina.retry(
        on=ConnectionError, attempts=3, wait_initial=0, wait_max=0, wait_jitter=0
    )
    found = least(
        {
            "resilience": Pipeline(Retry(attempts=3, wait=0)).wrap(stumbling()),
            "tenacity": with_tenacity(stumbling()),
            "stamina": with_stamina(stumbling()),
        },
        500,
    )
    for other in ("tenacity", "stamina"):
        ratio = found["resilience"] / found[other]
        yield "one failure, one retry, no wait, sync", found["resilience"], other, ratio, 0.25


def other_rows() -> Iterator[Row]:
    found = least(
        {
            "rejection": rejecting(Pipeline(Retry(), open_breaker()).wrap(plain)),
            "by hand": rejecting(raise_by_hand),
        },
        2_000,
    )
    ratio = found["rejection"] / found["by hand"]
    yield "rejection by an open circuit, sync", found["rejection"], "raising it by hand", ratio, 8.0

    with ThreadPoolExecutor(1) as pool:
        found = least(
            {
                "Timeout": Pipeline(Timeout(5)).wrap(plain),
                "pool": lambda x: pool.submit(plain, x).result(5),
            },
            300,
        )
    ratio = found["Timeout"] / found["pool"]
    yield "Timeout, sync", found["Timeout"], "a warm `ThreadPoolExecutor`", ratio, 1.2

    from bulkhead import Bulkhead as Example

    for name, policy in {"Bulkhead": Bulkhead(10), "the example's Bulkhead": Example(10)}.items():
        taken = least({name: Pipeline(policy).wrap(plain)}, 10_000)[name]
        yield f"{name}, at rest, sync", taken, "900 ns", taken / 900, 1.0

    bytes_added, added = asyncio.run(crowd())
    yield f"{TASKS:,} tasks at once, each", added * 1e3, "30 us", added / 30, 1.0
    yield f"{TASKS:,} tasks at once, memory each", bytes_added, "3.5 kB", bytes_added / 3500, 1.0

    alone, package, policies = imported(
        "import attrs, tenacity",
        "import resilience",
        "from resilience import resilient, Retry, CircuitBreaker, ModelFallback, Fallback",
    )
    more = package - alone
    yield "`import resilience` beyond attrs and tenacity", more * 1e9, "15 ms", more / 0.015, 1.0
    more = policies - alone
    yield "the same with resilient and four policies", more * 1e9, "15 ms", more / 0.015, None


async def crowd() -> tuple[float, float]:
    """Bytes and microseconds that Retry + CircuitBreaker + Timeout add to a task, of many."""
    release = asyncio.Event()

    async def wait(x: int) -> int:
        await release.wait()
        return x

    async def measure(fn: Callable[[int], Awaitable[int]]) -> tuple[float, float]:
        release.clear()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tasks = [asyncio.ensure_future(fn(1)) for _ in range(TASKS)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        release.set()
        await asyncio.gather(*tasks)
        release.clear()
        began = timeit.default_timer()
        tasks = [asyncio.ensure_future(fn(1)) for _ in range(TASKS)]
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*tasks)
        return taken / TASKS, (timeit.default_timer() - began) / TASKS * 1e6

    guarded = Pipeline(Retry(), CircuitBreaker(), Timeout(60.0)).wrap(wait)
    bare, ours = [], []
    for _ in range(4):
        bare.append(await measure(wait))
        ours.append(await measure(guarded))
    memory = min(m for m, _ in ours) - min(m for m, _ in bare)
    return memory, min(t for _, t in ours) - min(t for _, t in bare)


def imported(*codes: str) -> list[float]:
    """Seconds that each import takes in a new process, from compiled sources."""
    program = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    found = [float("inf")] * len(codes)
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(20):
            for place, code in enumerate(codes):
                run = subprocess.run(
                    [sys.executable, "-c", program.format(code)],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                found[place] = min(found[place], float(run.stdout))
    return found


def table(measured: list[Row]) -> str:
    lines = [
        f"Least of {ROUNDS} interleaved rounds in one run, CPython {platform.python_version()} "
        "(`make bench`). A call to an LLM takes 300,000 µs and more.",
        "",
        "| call | µs | times | of |",
        "|---|---|---|---|",
    ]
    for name, taken, of, ratio, _ in measured:
        if "memory" not in name and not of[0].isdigit():
            lines.append(f"| {name} | {taken / 1e3:.2f} | {ratio:.2g} | {of} |")
    return "\n".join(lines)


def main() -> int:
    warnings.simplefilter("ignore", PolicyOrderWarning)
    measured, failed = [], False
    for row in rows():
        name, taken, of, ratio, most = row
        measured.append(row)
        over = most is not None and ratio > most
        failed = failed or over
        limit = "" if most is None else f" (at most {most:g})"
        print(f"{name:76s} {taken:10.0f}   {ratio:7.3f} x {of}{limit}{'  OVER' if over else ''}")
    if "--write" in sys.argv:
        text = README.read_text(encoding="utf-8")
        start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        README.write_text(f"{text[:start]}\n{table(measured)}\n{text[end:]}", encoding="utf-8")
    return 1 if failed and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
