"""Asyncio's deadlines share timers; nothing of calls that have ended is kept, nor of loops."""

from __future__ import annotations

import asyncio
import gc
import itertools
import tracemalloc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from resilience import DeadlineExceededError, Pipeline, Timeout
from resilience._runtimes.asyncio_ import Asyncio, asyncio_

pytestmark = pytest.mark.real

forever = Pipeline(Timeout(600))


class Big:
    """What a call is made with, and returns."""


async def echo(big: Any) -> Any:
    await asyncio.sleep(0)
    return big


def pending(loop: Any) -> int:
    """Timers of the loop that have not been called off."""
    return sum(not handle.cancelled() for handle in loop._scheduled)


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# Of calls


@pytest.mark.fault(118)
def test_calls_of_one_duration_share_one_timer() -> None:
    """A thousand at once or one after the other: the loop has one handle for all of them."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        found = []
        for _ in range(3):
            await asyncio.gather(*(forever.call(echo, n) for n in range(300)))
            found.append(pending(loop))
        for n in range(100):
            await forever.call(echo, n)
        return [*found, pending(loop)]

    assert asyncio.run(main()) == [1, 1, 1, 1]


@pytest.mark.fault(64, 118)
@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("limit", [600, lambda big: 600 + next(numbers)], ids=["shared", "own"])
def test_nothing_of_a_call_that_has_ended_is_kept(limit: Any) -> None:
    """Its arguments, its result and its task are freed at once, though its time is not up."""
    timed = Pipeline(Timeout(limit))
    seen: list[weakref.ref[Any]] = []

    async def main() -> None:
        for _ in range(70):  # more durations than share timers
            big = Big()
            task = asyncio.ensure_future(timed.call(echo, big))
            assert await task is big
            seen.extend((weakref.ref(big), weakref.ref(task)))
            del big, task
        await asyncio.sleep(0)  # the loop itself holds the last task for a moment
        alive.append(sum(each() is not None for each in seen))

    alive: list[int] = []
    asyncio.run(main())
    assert alive == [0]


numbers = itertools.count()


@pytest.mark.fault(118)
def test_computed_durations_take_no_memory_without_end() -> None:
    """Each call has another limit, an hour or more: a few timers are left, not one for each."""
    timed = Pipeline(Timeout(lambda number: 3600 + number / 1000))

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for number in range(500):
            await timed.call(echo, number)
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(500, 2_500):
                await timed.call(echo, number)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert pending(loop) <= 65
        assert len(loop._scheduled) < 500  # asyncio sweeps those that were called off
        assert grown < 100_000
        # Constant ones still work beside them, and go on to do so.
        with pytest.raises(DeadlineExceededError):
            await Pipeline(Timeout(0.01)).call(asyncio.sleep, 30)

    asyncio.run(main())


def test_deadlines_end_in_their_order_whatever_their_number() -> None:
    """Calls under one shared timer, set at different moments: each ends when its own time is up."""
    ends: list[tuple[int, float]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timed = Pipeline(Timeout(0.1))

        async def one(number: int) -> None:
            begun = loop.time()
            with pytest.raises(DeadlineExceededError):
                await timed.call(asyncio.sleep, 30)
            ends.append((number, loop.time() - begun))

        tasks = []
        for number in range(5):
            tasks.append(asyncio.ensure_future(one(number)))
            await asyncio.sleep(0.015)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert [number for number, _ in ends] == [0, 1, 2, 3, 4]
    assert all(0.099 < took < 1 for _, took in ends)


class Moved(asyncio.SelectorEventLoop):
    """Its time can be moved on."""

    by = 0.0

    def time(self) -> float:
        return super().time() + self.by

    async def moved(self, by: float, task: Any) -> bool:
        """Whether a task is done at so many seconds from the beginning."""
        self.by = by
        for _ in range(5):
            await asyncio.sleep(0)
        return bool(task.done())


@pytest.mark.fault(104)
def test_a_loop_with_a_clock_of_its_own() -> None:
    """Deadlines go by the loop's own time where it is not the system's."""

    loop = Moved()
    timed = Pipeline(Timeout(50))

    async def main() -> list[Any]:
        task = asyncio.ensure_future(timed.outcome(loop.create_future))
        found = [await loop.moved(by, task) for by in (0, 49, 51)]
        return [*found, type((await task).error)]

    try:
        assert loop.run_until_complete(main()) == [False, False, True, DeadlineExceededError]
    finally:
        loop.close()


@pytest.mark.fault(104)
def test_calls_at_once_in_a_loop_with_a_clock_of_its_own() -> None:
    """Each has its own deadline: it is neither cut by another's, nor spared with that one's end."""
    loop = Moved()
    timed = Pipeline(Timeout(50))

    async def main() -> list[list[bool]]:
        ended = loop.create_future()
        first = asyncio.ensure_future(timed.outcome(lambda: ended))
        second = asyncio.ensure_future(timed.outcome(loop.create_future))
        await loop.moved(0, second)
        third = asyncio.ensure_future(timed.outcome(loop.create_future))
        await loop.moved(30, third)
        ended.set_result("in time")
        found = []
        for by in (49, 51, 81):
            found.append([await loop.moved(by, task) for task in (first, second, third)])
        assert (await first).value == "in time"
        return found

    try:
        assert loop.run_until_complete(main()) == [
            [True, False, False],
            [True, True, False],
            [True, True, True],
        ]
    finally:
        loop.close()


# Of loops


@pytest.mark.fault(103, 118)
@pytest.mark.parametrize("leaving", ["ended", "abandoned"])
def test_nothing_of_a_closed_loop_is_kept(leaving: str) -> None:
    """Neither of those whose calls have ended, nor of those closed while calls were under way."""
    loops: list[weakref.ref[Any]] = []
    bigs: list[weakref.ref[Any]] = []

    async def hang(big: Any) -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        for _ in range(3):
            big = Big()
            bigs.append(weakref.ref(big))
            if leaving == "ended":
                await forever.call(echo, big)
            else:
                asyncio.ensure_future(forever.call(hang, big)).set_name("left behind")
        await asyncio.sleep(0)

    def one() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)  # of tasks destroyed while pending
        loops.append(weakref.ref(loop))
        loop.run_until_complete(main())
        loop.close()

    for _ in range(20):
        one()
    gc.collect()
    assert sum(each() is not None for each in loops) == 0
    assert sum(each() is not None for each in bigs) == 0
    assert len(asyncio_._shared) == 0


def test_two_loops_in_turn_share_no_timer_and_set_no_new_ones() -> None:
    """One runtime serves them all: each has its own handle, kept over the other's calls."""
    runtime = Asyncio()
    loops = [asyncio.new_event_loop(), asyncio.new_event_loop()]
    try:
        for loop in loops * 5:
            loop.run_until_complete(_within(runtime))
        assert [pending(loop) for loop in loops] == [1, 1]
    finally:
        for loop in loops:
            loop.close()


async def _within(runtime: Asyncio) -> None:
    async def inner(call: Any) -> None:
        await asyncio.sleep(0)

    class NoCall:
        deadline = None

        def until(self, deadline: Any) -> NoCall:
            return self

    call: Any = NoCall()
    await runtime.within(600, inner, call)
