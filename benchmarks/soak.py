"""Many calls, and then a look at what is left: objects, threads and descriptors must be as before.

    python benchmarks/soak.py [--calls N] [--minutes M] [--streams S]

N healthy calls at rest (10 million), an N-th part of them on every other way a call can take: a
tenth failing ones (1 million), and fewer on the full path, refused, timed, in asyncio and trio.
At most M minutes (8): on a slow machine each way ends at its share of the time, with a notice.
Then S streams (10,000) of the real SDKs over sockets, each abandoned at a random point: by break,
close, exception, cancellation, garbage collection, or never read. Exit status 1 unless every way
is flat, and no connection, permit, task or thread of a stream is left.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from attrs import frozen

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
)

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.abandoning import abandon

STREAMS = (
    "openai",
    "openai-async",
    "anthropic-stream",
    "anthropic-stream-async",
    "auriko",
    "auriko-async",
    "cohere",
    "cohere-async",
)
BATCHES = 20
OBJECTS = 100  # live ones more or fewer, after all the calls of one way
KILOBYTES = 100.0  # allocated more by 2,000 calls at the end
SAMPLE = 1_000


@frozen
class Way:
    """One way that a call can take: `share` of all calls, at most `time` of all the minutes."""

    name: str
    share: float
    time: float
    calls: Callable[[int], None]


def answer(x: int, model: str = "m") -> int:
    return x


async def aanswer(x: int, model: str = "m") -> int:
    return x


def fail(x: int, model: str = "m") -> int:
    raise ConnectionError


async def afail(x: int, model: str = "m") -> int:
    raise ConnectionError


def sync(pipeline: Pipeline, fn: Callable[..., Any]) -> Callable[[int], None]:
    """So many sync calls; what they raise is dropped."""
    guarded = pipeline.wrap(fn)

    def calls(number: int) -> None:
        for _ in range(number):
            try:
                guarded(1)
            except (ConnectionError, CircuitOpenError):
                pass

    return calls


def looped(
    pipeline: Pipeline, fn: Callable[..., Any], run: Callable[..., Any]
) -> Callable[[int], None]:
    """The same, awaited in one loop."""
    guarded = pipeline.wrap(fn)

    async def calls(number: int) -> None:
        for _ in range(number):
            try:
                await guarded(1)
            except (ConnectionError, CircuitOpenError):
                pass

    return lambda number: run(calls, number)


def in_asyncio(fn: Callable[..., Any], number: int) -> None:
    asyncio.run(fn(number))


def hear(event: object) -> None:
    """Keeps a pipeline from rest."""


def ways() -> list[Way]:
    def breaker() -> CircuitBreaker:
        return CircuitBreaker(failures=10**12)

    rest = Pipeline(Fallback(None), Retry(), breaker())
    full = Pipeline(Fallback(None), Retry(), breaker(), listeners=[hear])
    failing = Pipeline(Retry(attempts=2, wait=0), breaker())
    once = Pipeline(Retry(attempts=1), breaker())
    chain = Pipeline(
        Fallback(None),
        ModelFallback("a", "b"),
        Retry(attempts=2, wait=0),
        CircuitBreaker(key="model", failures=3, reset_after=1e-4),
    )
    timed = Pipeline(Retry(), breaker(), Timeout(60))
    shut = CircuitBreaker()
    shut.isolate()
    refusing = Pipeline(Retry(), shut)
    return [
        Way("healthy, at rest", 1, 0.08, sync(rest, answer)),
        Way("failing", 0.1, 0.45, sync(once, fail)),
        Way("failing after a retry", 0.02, 0.1, sync(failing, fail)),
        Way("failing through models to the fallback", 0.01, 0.08, sync(chain, fail)),
        Way("healthy, full path", 0.05, 0.06, sync(full, answer)),
        Way("refused", 0.03, 0.04, sync(refusing, answer)),
        Way("timed, in a worker", 0.01, 0.03, sync(timed, answer)),
        Way("asyncio, healthy, at rest", 0.1, 0.03, looped(rest, aanswer, in_asyncio)),
        Way("asyncio, failing", 0.01, 0.05, looped(failing, afail, in_asyncio)),
        Way("asyncio, timed", 0.01, 0.03, looped(timed, aanswer, in_asyncio)),
        Way("trio, failing", 0.005, 0.03, looped(failing, afail, trio.run)),
        Way("trio, timed", 0.005, 0.02, looped(timed, aanswer, trio.run)),
    ]


def descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def census() -> tuple[int, int, int]:
    """Live objects, threads, descriptors."""
    gc.collect()
    gc.collect()
    return len(gc.get_objects()), threading.active_count(), descriptors()


def allocated(calls: Callable[[int], None]) -> float:
    """Kilobytes that 2,000 more calls leave behind."""
    tracemalloc.start()
    try:
        calls(SAMPLE)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        calls(2 * SAMPLE)
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / 1024
    finally:
        tracemalloc.stop()


def soak(way: Way, number: int, seconds: float) -> bool:
    """Make the calls, report, and tell whether all is as before."""
    way.calls(min(number, SAMPLE))
    before = census()
    begun = time.perf_counter()
    made = 0
    for batch in range(1, BATCHES + 1):
        way.calls(number * batch // BATCHES - made)
        made = number * batch // BATCHES
        took = time.perf_counter() - begun
        if sys.stdout.isatty():
            print(f"\r{way.name}: {made:,} of {number:,}", end="", flush=True)
        if took * (batch + 1) / batch > seconds and batch < BATCHES:
            print(f"\r{way.name}: cut at {made:,} of {number:,} calls, its {seconds:.0f} s are up")
            break
    after = census()
    took = time.perf_counter() - begun
    objects, threads, files = (new - old for new, old in zip(after, before, strict=True))
    kilobytes = allocated(way.calls)
    flat = abs(objects) <= OBJECTS and threads <= 1 and files <= 0 and kilobytes < KILOBYTES
    print(
        f"\r{'flat    ' if flat else 'NOT FLAT'} {way.name:<42} {made:>11,} calls {took:6.1f} s  "
        f"objects {objects:+d}, threads {threads:+d}, descriptors {files:+d}, {kilobytes:+.1f} kB",
        flush=True,
    )
    return flat


def streams(number: int) -> bool:
    """Abandon so many streams, report, and tell whether nothing is left of them."""
    gc.freeze()  # the SDKs' own objects are many, and to be collected again and again
    fine = True
    for name in STREAMS:
        begun = time.perf_counter()
        left = abandon(name, number // len(STREAMS))
        took = time.perf_counter() - begun
        fine = fine and left.nothing
        print(
            f"{'nothing ' if left.nothing else 'NOT SO  '} {f'streams abandoned, {name}':<42} "
            f"{left.streams:>11,} calls {took:6.1f} s  connections {left.connections}, permits "
            f"{left.permits}, tasks {left.tasks}, threads {left.threads}",
            flush=True,
        )
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=10_000_000, help="healthy calls at rest")
    parser.add_argument("--minutes", type=float, default=8.0, help="the longest it may take")
    parser.add_argument("--streams", type=int, default=10_000, help="abandoned streams")
    options = parser.parse_args()
    if options.calls < 1 or not options.minutes > 0:
        parser.error("--calls and --minutes must be positive")
    begun = time.perf_counter()
    flat = [
        soak(way, max(BATCHES, int(options.calls * way.share)), options.minutes * 60 * way.time)
        for way in ways()
    ]
    minutes = (time.perf_counter() - begun) / 60
    print(f"{sum(flat)} of {len(flat)} ways are flat, after {minutes:.1f} minutes")
    return int(not (all(flat) & streams(options.streams)))


if __name__ == "__main__":
    raise SystemExit(main())
