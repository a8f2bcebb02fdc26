"""What a call keeps alive when it is over: nothing of its own, its error's or its successor's."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections import Counter
from typing import Any

import pytest
import trio

from resilience import (
    CircuitBreaker,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    current_attempt,
    history,
    resilient,
)
from resilience._core.call import Branch, Call, Journal
from resilience._core.context import Surroundings
from resilience._core.deadline import Deadline
from resilience._core.signals import Report
from resilience.testing import script, virtual_time
from support.calling import run_in
from support.gates import Bulkhead
from support.policies import Busy

# Errors


class Big:
    """A large local of the user's."""


@pytest.mark.fault(64)
@pytest.mark.parametrize("shape", ["returns", "retries", "falls", "chain", "outcome", "nested"])
@pytest.mark.parametrize("loop", ["sync", "asyncio", "trio"])
@pytest.mark.parametrize("first", [[], [Busy()]], ids=["rest", "full"])
def test_no_cycle_keeps_a_frame_alive(shape: str, loop: str, first: Any) -> None:
    """A large local of the user's function is freed with the error, without the collector."""
    seen: list[weakref.ref[Big]] = []

    def failing(**kwargs: Any) -> None:
        big = Big()
        seen.append(weakref.ref(big))
        raise ConnectionError

    async def afailing(**kwargs: Any) -> None:
        failing()

    shapes: dict[str, list[Any]] = {
        "returns": [],
        "retries": [Retry(wait=0), CircuitBreaker(failures=99)],
        "falls": [Fallback(None, on=KeyError), Retry(wait=0)],
        "chain": [ModelFallback("a", "b"), Retry(attempts=2, wait=0), CircuitBreaker(failures=99)],
        "outcome": [Retry(wait=0), CircuitBreaker(failures=99)],
        "nested": [Pipeline(Retry(wait=0)), CircuitBreaker(failures=99)],
    }
    pipeline = Pipeline(*first, *shapes[shape])
    fn = pipeline.wrap(failing if loop == "sync" else afailing)

    def kept() -> bool:
        if shape == "outcome":
            return isinstance(pipeline.outcome(failing).error, ConnectionError)
        try:
            fn()
        except ConnectionError as error:
            return len(history(error)) > 0 and seen[-1]() is not None
        return False

    async def akept() -> bool:
        if shape == "outcome":
            return isinstance((await pipeline.outcome(afailing)).error, ConnectionError)
        try:
            await fn()  # type: ignore[misc]
        except ConnectionError as error:
            return len(history(error)) > 0 and seen[-1]() is not None
        return False

    gc.collect()
    gc.disable()
    try:
        assert kept() if loop == "sync" else run_in(loop, akept)
        assert [ref() for ref in seen] == [None] * len(seen)
    finally:
        gc.enable()


def test_a_result_is_not_kept_either() -> None:
    """At rest, in full and in an outcome that is dropped, without the collector."""
    made: list[weakref.ref[Big]] = []

    def big() -> Big:
        found = Big()
        made.append(weakref.ref(found))
        return found

    gc.collect()
    gc.disable()
    try:
        for pipeline in (Pipeline(Retry()), Pipeline(Busy(), Retry(), Bulkhead(1))):
            pipeline.call(big)
            pipeline.outcome(big)
        assert [ref() for ref in made] == [None] * 4
    finally:
        gc.enable()


# Worlds


def test_a_pipeline_keeps_nothing_of_a_virtual_world() -> None:
    """What it has bound for the clock there is gone with the clock."""
    pipeline = Pipeline(Retry())
    with virtual_time() as clock:
        pipeline.call(lambda: None)
        gone = weakref.ref(clock)
    del clock
    gc.collect()
    assert gone() is None


# Tasks that start their own successor

KINDS = (Journal, Branch, Call, Surroundings, Report)


def alive() -> Counter[str]:
    """How many of our objects of each kind there are."""
    gc.collect()
    found = Counter(type(each).__name__ for each in gc.get_objects() if type(each) in KINDS)
    found["Deadline"] = sum(isinstance(each, Deadline) for each in gc.get_objects())
    return found


SHAPES: dict[str, Any] = {
    "full": lambda: [Busy(), Retry()],
    "listener": lambda: [Retry()],
    "gates": lambda: [Busy(), Retry(), CircuitBreaker(), Bulkhead(9)],
    "timeout": lambda: [Retry(), Timeout(99)],
    "two timeouts": lambda: [Timeout(999), Retry(), Timeout(99)],
    "passed on": lambda: [Timeout(99, pass_as="limit"), Retry()],
}
POLLS = 300


def poller(shape: str) -> Pipeline:
    listeners = [lambda event: None] if shape == "listener" else []
    return Pipeline(*SHAPES[shape](), listeners=listeners)


def check_growth(before: Counter[str], after: Counter[str]) -> None:
    assert {kind: count for kind, count in (after - before).items() if count > 20} == {}


@pytest.mark.fault(201)
@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_asyncio_task_that_starts_its_successor_keeps_no_chain(
    shape: str, overlapping: bool
) -> None:
    """A poller that reschedules itself from inside a guarded call does not grow, whether or not
    the next one begins before it has ended."""
    before = alive()

    async def main() -> Counter[str]:
        done: asyncio.Future[Counter[str]] = asyncio.get_running_loop().create_future()
        task: list[Any] = []

        @poller(shape)
        async def poll(left: int, limit: float = 0) -> None:
            if not left:
                done.set_result(alive())
                return
            task.append(asyncio.create_task(poll(left - 1)))
            task.pop(0)
            for _ in range(5 * overlapping):
                await asyncio.sleep(0)

        task.append(asyncio.create_task(poll(POLLS)))
        return await done

    check_growth(before, asyncio.run(main()))


@pytest.mark.fault(201)
@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_trio_task_that_starts_its_successor_keeps_no_chain(
    shape: str, overlapping: bool
) -> None:
    """The same under trio."""
    before = alive()

    async def main() -> Counter[str]:
        found: list[Counter[str]] = []

        @poller(shape)
        async def poll(left: int, limit: float = 0) -> None:
            if not left:
                found.append(alive())
                return
            nursery.start_soon(poll, left - 1)
            for _ in range(5 * overlapping):
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll, POLLS)
        return found[0]

    check_growth(before, trio.run(main))


@pytest.mark.fault(201)
@pytest.mark.real
@pytest.mark.parametrize("shape", SHAPES)
def test_a_thread_that_starts_its_successor_keeps_no_chain(shape: str) -> None:
    """The same in threads that are started with a copy of the context."""
    before = alive()
    found: list[Counter[str]] = []
    threads: list[threading.Thread] = []
    done = threading.Event()

    @poller(shape)
    def poll(left: int, limit: float = 0) -> None:
        for each in threads[: -2 if left else -1]:  # never more than three at a time
            each.join()
        if not left:
            found.append(alive())
            done.set()
            return
        context = contextvars.copy_context()
        threads.append(threading.Thread(target=context.run, args=(poll, left - 1), daemon=True))
        threads[-1].start()

    poll(POLLS // 3)
    assert done.wait(30)
    check_growth(before, found[0])


@pytest.mark.fault(201)
def test_a_successor_that_fails_at_once_is_its_own_call() -> None:
    """What a task that outlives its starter reports reaches nobody, and is not kept."""
    seen: list[int] = []

    async def main() -> None:
        tasks: list[asyncio.Task[Any]] = []

        @resilient(Busy(), Retry(attempts=2, wait=0))
        async def poll(left: int) -> None:
            seen.append(current_attempt().number)
            if left and current_attempt().number == 1:
                tasks.append(asyncio.create_task(poll(left - 1)))
            raise ConnectionError

        tasks.append(asyncio.create_task(poll(20)))
        for task in tasks:
            with pytest.raises(ConnectionError) as caught:
                await task
            assert len(history(caught.value)) == 2

    asyncio.run(main())
    assert sorted(seen) == [1] * 21 + [2] * 21


def test_a_call_that_is_made_very_often_keeps_nothing() -> None:
    """At rest, failing and rejected ones by turns."""
    steps = script(*[1, ConnectionError, 1, ConnectionError, ConnectionError] * 60)
    fn = Pipeline(Fallback(0), Retry(attempts=2, wait=0), CircuitBreaker(failures=2)).wrap(steps)
    fn()
    before = alive()
    for _ in range(200):
        fn()
    check_growth(before, alive())
