"""Deadlines, one inside the other: which counts, and that none outlives its Timeout."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from conftest import Takes, World
from resilience import (
    CircuitBreaker,
    DeadlineExceededError,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    resilient,
)
from resilience._core.deadline import Deadline, live, nearest
from resilience.testing import disabled, virtual_time


def test_the_innermost_deadline_that_is_not_over_counts() -> None:
    """However many inside of it are over."""
    total = Deadline(9.0, None)
    attempt = Deadline(3.0, total)
    inner = Deadline(1.0, attempt)

    assert live(inner) is inner
    attempt.ended = inner.ended = True
    assert live(inner) is total
    total.ended = True
    assert live(inner) is None
    assert live(None) is None


def test_what_is_behind_an_ended_deadline_is_let_go() -> None:
    """But not the one that was behind it and goes on; nor does any that is on the way get lost."""
    eldest = Deadline(9.0, None)
    total = Deadline(8.0, eldest)
    middle = Deadline(7.0, total)
    born_in = Deadline(6.0, middle)
    own = Deadline(5.0, born_in)
    total.ended = middle.ended = born_in.ended = True

    assert live(own) is own
    assert own.outer is born_in
    assert born_in.outer is eldest
    eldest.ended = True
    assert live(own) is own
    assert own.outer is born_in
    assert born_in.outer is None


def test_the_nearest_deadline() -> None:
    """Of those that are not over, the first to end; of two at once the outer one."""
    total = Deadline(5.0, None)
    attempt = Deadline(5.0, total)
    inner = Deadline(7.0, attempt)
    first = Deadline(1.0, inner)

    assert nearest(first) is first
    first.ended = True
    assert nearest(first) is total
    total.ended = True
    assert nearest(first) is attempt
    assert nearest(first, threaded=True) is None


def test_of_two_limits_that_end_together_the_outer_one_is_told() -> None:
    """It was there first; the inner one would have to be tried again."""

    def hangs() -> None:
        if clock.now() == 5:
            clock.sleep(99)
        raise ConnectionError

    with virtual_time(start=0) as clock, pytest.raises(DeadlineExceededError) as caught:
        Pipeline(Timeout(10), Retry(wait=5), Timeout(5)).call(hangs)
    assert caught.value.seconds == 10


@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_of_two_deadlines_at_the_same_instant_the_outer_one_counts(world: World) -> None:
    """Cut from outside is no verdict: the circuit between the two counts nothing, in any world."""
    breaker = CircuitBreaker(failures=1)
    pipeline = Pipeline(Timeout(1), Fallback("else"), breaker, Timeout(1))
    with pytest.raises(DeadlineExceededError):
        world.run(pipeline.call, world.function(Takes(2, "late")))
    assert breaker.state == "closed"


# After the Timeout


def test_a_task_that_outlives_a_timeout_is_free_of_it() -> None:
    """What was begun under a Timeout and goes on after it has no deadline any more."""
    waited: list[int] = []

    async def main(clock: Any) -> Any:
        async def late() -> str:
            waited.append(1)
            await clock.asleep(3)
            if len(waited) == 1:
                raise ConnectionError
            return "late"

        async def starts() -> Any:
            task = asyncio.ensure_future(Pipeline(Retry(wait=20)).call(late))
            await clock.asleep(1)
            return task

        return await (await Pipeline(Timeout(5)).call(starts))

    with virtual_time() as clock:
        assert asyncio.run(main(clock)) == "late"
    assert len(waited) == 2


def test_a_call_made_after_the_timeout_in_a_task_started_under_it_is_free_of_it() -> None:
    """Tasks started inside inherit the context, but not a deadline that is over."""

    @resilient(Retry(attempts=2, wait=1))
    async def flaky() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError
        return "ok"

    attempts: list[int] = []

    async def main() -> str:
        async def background() -> str:
            await left.wait()
            return str(await flaky())

        async def body() -> asyncio.Task[str]:
            return asyncio.create_task(background())

        left = asyncio.Event()
        task = await Pipeline(Timeout(0.5)).call(body)
        left.set()
        return await task

    with virtual_time():
        assert asyncio.run(main()) == "ok"
    assert len(attempts) == 2


# Passed on


def test_the_time_passed_on_concerns_the_pipelines_own_function_only(world: World) -> None:
    """A guarded call inside a call with `pass_as` gets the deadline, not the argument."""
    fetch = world.function(ConnectionError, lambda url: url)

    inner = Pipeline(Retry(attempts=2, wait=0)).wrap(lambda url: fetch(url))

    @resilient(Timeout(10, pass_as="timeout"))
    def outer(timeout: float | None = None) -> Any:
        assert timeout is not None
        return inner("u")

    @resilient(Timeout(10, pass_as="timeout"))
    async def aouter(timeout: float | None = None) -> Any:
        assert timeout is not None
        return await inner("u")

    assert world.run(aouter if world.asynchronous else outer) == "u"
    assert world.calls == [(("u",), {})] * 2


def test_a_call_begun_in_a_deadline_that_has_ended_passes_on_its_own_only() -> None:
    """Of those further out none is passed on, though the one that it was begun in is over and
    other calls have looked for the deadlines that are not."""
    given: list[set[str]] = []
    tasks: list[asyncio.Task[Any]] = []

    async def main(clock: Any) -> None:
        async def look(**limits: float) -> None:
            given.append(set(limits))
            if len(given) == 1:
                tasks.append(asyncio.create_task(meanwhile()))
                raise ConnectionError

        async def meanwhile() -> None:
            await clock.asleep(2)
            await Pipeline(Retry()).call(clock.asleep, 0)

        @resilient(Timeout(5, pass_as="middle"))
        async def middle(middle: float = 0) -> None:
            own = Pipeline(Timeout(50, pass_as="own"), Retry(wait=3))
            tasks.append(asyncio.create_task(own.call(look)))
            await clock.asleep(1)

        @resilient(Timeout(100, pass_as="outer"))
        async def outer(outer: float = 0) -> None:
            await middle()
            await clock.asleep(60)

        await outer()
        await asyncio.gather(*tasks)

    with virtual_time() as clock:
        asyncio.run(main(clock))
    assert given == [{"own"}, {"own"}]


def test_a_start_that_a_passed_on_deadline_prevents_is_no_attempt(world: World) -> None:
    """The first model overran the time: the second is not called, and not told of either."""

    def overrun(*, model: str, timeout: float) -> None:
        world.clock.advance(6)
        raise ConnectionError

    pipeline = Pipeline(Timeout(5, pass_as="timeout"), ModelFallback("a", "b"))
    outcome = world.run(pipeline.outcome, world.function(overrun))
    assert len(world.calls) == 1
    assert [attempt.number for attempt in outcome.attempts] == [1]


# Worlds inside of worlds


def test_policies_that_are_off_stay_off_in_a_virtual_world() -> None:
    """What was said outside of `virtual_time()` holds inside it."""

    def fails() -> None:
        raise ConnectionError

    with disabled(), virtual_time() as clock, pytest.raises(ConnectionError):
        Pipeline(Retry(wait=1)).call(fails)
    assert clock.sleeps == []
