"""Nothing is kept: no objects, threads, descriptors, frames or tracebacks."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from conftest import World, put_aside
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    WorkersBusyError,
    history,
)
from support.unprinted import caught

pytestmark = pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")

# Flat


def answer(*args: Any, model: str = "m") -> int:
    return 1


async def aanswer(*args: Any, model: str = "m") -> int:
    return 1


def fail(*args: Any, model: str = "m") -> None:
    raise ConnectionError


async def afail(*args: Any, model: str = "m") -> None:
    raise ConnectionError


def nobody(event: object) -> None:
    """A listener: keeps a pipeline from rest."""


def isolated() -> CircuitBreaker:
    breaker = CircuitBreaker()
    breaker.isolate()
    return breaker


def both(fn: Callable[..., Any]) -> Callable[..., Any]:
    return aanswer if fn is answer else afail


def descriptors() -> int:
    listing = Path("/proc/self/fd")
    return len(os.listdir(listing)) if listing.exists() else 0


def objects() -> int:
    """Live objects; what one collection frees may leave more to the next."""
    while gc.collect():
        pass
    return len(gc.get_objects())


def open_circuits(*policies: Any) -> tuple[Any, ...]:
    return (*policies, CircuitBreaker(failures=10**9))


SOAKS: dict[str, tuple[int, Callable[..., Any], Callable[[], Pipeline]]] = {
    "healthy at rest": (100_000, answer, lambda: Pipeline(*open_circuits(Fallback(1), Retry()))),
    "healthy chain at rest": (
        20_000,
        answer,
        lambda: Pipeline(ModelFallback("a", "b"), Retry(), CircuitBreaker(key="model")),
    ),
    "healthy, full path": (
        20_000,
        answer,
        lambda: Pipeline(*open_circuits(Fallback(1), Retry()), listeners=[nobody]),
    ),
    "failing": (
        10_000,
        fail,
        lambda: Pipeline(*open_circuits(Retry(attempts=2, wait=0))),
    ),
    "failing, all the way to the fallback": (
        4_000,
        fail,
        lambda: Pipeline(
            Fallback(1),
            ModelFallback("a", "b"),
            Retry(attempts=2, wait=0),
            CircuitBreaker(key="model", failures=3, reset_after=1e-5),
        ),
    ),
    "rejected": (10_000, answer, lambda: Pipeline(Retry(), isolated())),
    "timed": (5_000, answer, lambda: Pipeline(*open_circuits(Retry()), Timeout(20))),
}


def one_after_the_other(pipeline: Pipeline, fn: Callable[..., Any]) -> Callable[[int], None]:
    """So many sync calls, each with its error dropped."""
    guarded = pipeline.wrap(fn)

    def calls(number: int) -> None:
        for _ in range(number):
            try:
                guarded(1)
            except (ConnectionError, CircuitOpenError):
                pass

    return calls


def awaited(
    pipeline: Pipeline, fn: Callable[..., Any], run: Callable[..., Any]
) -> Callable[[int], None]:
    """The same in one event loop."""
    guarded = pipeline.wrap(fn)

    async def calls(number: int) -> None:
        for _ in range(number):
            try:
                await guarded(1)
            except (ConnectionError, CircuitOpenError):
                pass

    return lambda number: run(calls, number)


def in_asyncio(fn: Callable[..., Any], *args: Any) -> None:
    asyncio.run(fn(*args))


class Unread(logging.Handler):
    """Makes each line and keeps none; pytest keeps every record, and the slower a machine, the more
    there are."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


@pytest.mark.fault(118)
@pytest.mark.real
@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
@pytest.mark.parametrize("name", SOAKS)
def test_many_calls_leave_nothing_behind(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live objects, threads, descriptors and allocated memory are as before."""
    log = logging.getLogger("resilience")
    monkeypatch.setattr(log, "handlers", [Unread()])
    monkeypatch.setattr(log, "propagate", False)
    number, fn, make = SOAKS[name]
    if way == "sync":
        calls = one_after_the_other(make(), fn)
    else:
        number = min(number, 50_000) // 4
        calls = awaited(make(), both(fn), in_asyncio if way == "asyncio" else trio.run)
    calls(300)
    put_aside()  # what other tests have left may go any time, with a thread or a cache
    before = objects(), threading.active_count(), descriptors()
    calls(number)
    after = objects(), threading.active_count(), descriptors()
    assert abs(after[0] - before[0]) <= 200
    assert (
        after[1] <= before[1] + 1
    )  # a worker that was about to park may have a second at its side
    assert after[2] <= before[2]

    tracemalloc.start()
    try:
        calls(50)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        calls(500)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - held < 50_000
    finally:
        tracemalloc.stop()


@pytest.mark.fault(118)
@pytest.mark.real
def test_many_late_calls_leave_nothing_behind() -> None:
    """Sync calls that time out: when their functions have ended, all is as before."""
    late = Pipeline(Timeout(0.0005)).wrap(lambda: time.sleep(0.001))

    def calls(number: int) -> None:
        for _ in range(number):
            try:
                late()
            except (DeadlineExceededError, WorkersBusyError):
                pass
        time.sleep(0.05)

    calls(100)
    put_aside()
    before = objects(), descriptors()
    calls(600)
    assert objects() - before[0] <= 200
    assert descriptors() <= before[1]


# Cycles


class Big:
    """A local that is expensive to keep."""


@pytest.fixture
def _no_collector() -> Iterator[None]:
    put_aside()
    gc.disable()
    yield
    gc.enable()


class Kept:
    """Makes functions with a big local, and tells how many of those are still alive."""

    def __init__(self) -> None:
        self.seen: list[weakref.ref[Big]] = []

    def alive(self) -> int:
        return sum(ref() is not None for ref in self.seen)

    def failing(self, *args: Any, model: str = "m") -> None:
        big = Big()
        self.seen.append(weakref.ref(big))
        raise ConnectionError

    async def afailing(self, *args: Any, model: str = "m") -> None:
        big = Big()
        self.seen.append(weakref.ref(big))
        raise ConnectionError

    async def hanging(self, *args: Any, model: str = "m") -> None:
        big = Big()
        self.seen.append(weakref.ref(big))
        await asyncio.sleep(30)


def shapes() -> dict[str, Pipeline]:
    retry = Retry(attempts=3, wait=0)
    return {
        "alone": Pipeline(),
        "full path": Pipeline(retry, CircuitBreaker(failures=99), listeners=[nobody]),
        "retried": Pipeline(retry, CircuitBreaker(failures=99)),
        "fallback used": Pipeline(Fallback("else"), retry, CircuitBreaker(failures=99)),
        "fallback function used": Pipeline(Fallback(call=lambda failure, *args: "else"), retry),
        "fallback passed over": Pipeline(Fallback("else", on=KeyError), retry),
        "model chain used": Pipeline(ModelFallback("a", "b"), retry, CircuitBreaker(key="model")),
        "opening and rejecting": Pipeline(Retry(attempts=9, wait=0), CircuitBreaker(failures=2)),
        "nested": Pipeline(Pipeline(Pipeline(retry)), CircuitBreaker(failures=99)),
        "timed": Pipeline(retry, CircuitBreaker(failures=99), Timeout(20)),
        "predicate raises": Pipeline(Retry(on=lambda failure: 1 / 0), CircuitBreaker(failures=99)),
    }


@pytest.mark.fault(64)
@pytest.mark.real
@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("shape", shapes())
@pytest.mark.parametrize("way", ["call", "outcome"])
def test_no_sync_call_makes_a_cycle(shape: str, way: str) -> None:
    """What the failing function had is freed with the error, without the collector."""
    pipeline, kept = shapes()[shape], Kept()
    for _ in range(3):
        if way == "outcome":
            pipeline.outcome(kept.failing)
        else:
            try:
                pipeline.call(kept.failing)
            except (ConnectionError, CircuitOpenError) as error:
                history(error)
    pipeline_circuits_close(pipeline)
    finish = time.monotonic() + 2
    while kept.alive() and time.monotonic() < finish and shape == "timed":
        time.sleep(0.001)  # the worker lets go of its job when it is done with it
    assert kept.alive() == 0
    assert len(kept.seen) >= 2


@pytest.mark.fault(64)
@pytest.mark.real
@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("shape", [*shapes(), "timed out"])
@pytest.mark.parametrize("way", ["call", "outcome"])
@pytest.mark.parametrize("run", [in_asyncio, trio.run], ids=["asyncio", "trio"])
def test_no_async_call_makes_a_cycle(shape: str, way: str, run: Any) -> None:
    """The same in an event loop, cancelled calls included."""
    kept = Kept()
    if shape == "timed out":
        pipeline = Pipeline(Retry(attempts=2, wait=0), CircuitBreaker(), Timeout(0.002))
        fn: Any = kept.hanging if run is in_asyncio else kept.afailing
    else:
        pipeline, fn = shapes()[shape], kept.afailing

    async def main() -> None:
        for _ in range(3):
            if way == "outcome":
                await pipeline.outcome(fn)
            else:
                try:
                    await pipeline.call(fn)
                except (ConnectionError, CircuitOpenError, DeadlineExceededError) as error:
                    history(error)
        pipeline_circuits_close(pipeline)
        if shape == "timed out" and run is in_asyncio:
            await asyncio.sleep(0)  # asyncio itself keeps what it has cancelled for a moment
        alive.append(kept.alive())

    alive: list[int] = []
    run(main)
    assert alive == [0]
    assert len(kept.seen) >= 2


def pipeline_circuits_close(pipeline: Pipeline) -> None:
    """An open circuit keeps the failure that opened it: that is no cycle."""
    for policy in pipeline._flat:
        if isinstance(policy, CircuitBreaker):
            for circuit in map(policy.circuit, "abm") if policy.key else (policy,):
                circuit.close()


@pytest.mark.fault(63)
@pytest.mark.usefixtures("_no_collector")
def test_a_circuit_keeps_its_failure_only_while_it_is_open(world: World) -> None:
    """It is the `__cause__` of every rejection, one object however many there are; then it goes."""
    seen: list[weakref.ref[Big]] = []

    def failing() -> None:
        big = Big()
        seen.append(weakref.ref(big))
        raise ConnectionError

    breaker = CircuitBreaker(failures=1)
    guarded = Pipeline(breaker).wrap(world.function(failing))
    for _ in range(2):
        try:
            world.run(guarded)
        except (ConnectionError, CircuitOpenError):
            pass
    assert breaker.state == "open"
    assert len(seen) == 1
    breaker.close()
    if world.asynchronous:
        gc.collect()  # an event loop that has ended may leave cycles of its own
    assert [ref() for ref in seen] == [None]


# One exception object, again and again


def length_of_traceback(error: BaseException) -> int:
    length, trace = 0, error.__traceback__
    while trace is not None:
        length, trace = length + 1, trace.tb_next
    return length


@pytest.mark.fault(62)
@pytest.mark.parametrize("listeners", [(), (nobody,)], ids=["rest", "full"])
def test_ten_thousand_attempts_at_one_exception(world: World, listeners: Any) -> None:
    """Its traceback stays short, it gets one note and no chain onto itself."""
    world.debug = False  # asyncio's would note the stack at each of a quarter of a million turns
    same = ConnectionError("one for all")
    policies = Retry(attempts=10_000, wait=0), CircuitBreaker(failures=10**6)
    guarded = Pipeline(*policies, listeners=listeners).wrap(world.function(same))
    begun = time.process_time()
    assert caught(world, guarded) is same
    assert len(world.calls) == 10_000
    assert length_of_traceback(same) < 60
    assert same.__context__ is same.__cause__ is None
    assert len(same.__notes__) == 1
    assert time.process_time() - begun < 10


@pytest.mark.fault(62)
def test_one_exception_over_many_calls_has_one_note(world: World) -> None:
    """The note is replaced, and neither history nor marks pile up."""
    same = ConnectionError("one for all")
    guarded = Pipeline(Retry(attempts=2, wait=0), CircuitBreaker(failures=10**6)).wrap(
        world.function(same)
    )
    for _ in range(30):
        assert caught(world, guarded) is same
    assert len(same.__notes__) == 1
    assert len(history(same)) == 2
    assert same.__context__ is same.__cause__ is None
