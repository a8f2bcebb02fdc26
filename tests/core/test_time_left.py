"""`deadline()` and `remaining()`: one deadline around several guarded calls."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections.abc import AsyncGenerator, Generator
from datetime import timedelta
from typing import Any

import pytest

from conftest import Takes, World, async_worlds
from resilience import (
    CircuitBreaker,
    DeadlineExceededError,
    Fallback,
    Pipeline,
    Retry,
    Timeout,
    deadline,
    guarded,
    remaining,
)
from resilience.testing import disabled
from support.calling import error_of, passing

WELL = "well"


def around(world: World, seconds: Any, fn: Any) -> Any:
    """`fn` called under a deadline, by a function of this world's colour."""

    def call(*args: Any) -> Any:
        with deadline(seconds):
            return fn(*args)

    async def acall(*args: Any) -> Any:
        async with deadline(seconds):
            return await fn(*args)

    return acall if world.asynchronous else call


def both(world: World, *fns: Any) -> Any:
    """Calls one function after the other, as a function of this world's colour."""

    def call() -> Any:
        return [fn() for fn in fns]

    async def acall() -> Any:
        return [await fn() for fn in fns]

    return acall if world.asynchronous else call


# What is bounded


@pytest.mark.fault(285)
def test_a_call_is_cut_when_time_is_up(world: World) -> None:
    """As by a Timeout outermost, though the pipeline has none."""
    fn = Pipeline(Retry()).wrap(world.function(Takes(9)))
    started = world.clock.now()

    assert type(error_of(world, around(world, 3, fn))) is DeadlineExceededError
    assert world.clock.now() - started == 3


@pytest.mark.fault(285)
def test_several_calls_share_it(world: World) -> None:
    """The second one has what the first one has left."""
    fn = Pipeline(Retry(attempts=1)).wrap(world.function(Takes(3, WELL)))
    started = world.clock.now()

    assert world.run(around(world, 6.5, both(world, fn, fn))) == [WELL, WELL]
    error = error_of(world, around(world, 5, both(world, fn, fn)))
    assert isinstance(error, DeadlineExceededError)
    assert (error.seconds, world.clock.now() - started) == (2, 11)


@pytest.mark.fault(285)
def test_a_call_that_comes_too_late_is_not_begun(world: World) -> None:
    """Nothing is sent; 0 seconds are up at once."""
    fn = Pipeline(Retry(wait=0)).wrap(world.function(WELL))

    for seconds in (0, timedelta(0), 2):
        late = passing(world, fn)
        if seconds == 2:
            slow = world.function(Takes(2))
            late = both(world, slow, fn)
        error = error_of(world, around(world, seconds, late))
        assert isinstance(error, DeadlineExceededError)
        assert error.seconds == 0
    assert [kwargs for _, kwargs in world.calls] == [{}]  # `slow` alone


@pytest.mark.fault(285)
def test_a_wait_that_does_not_fit_is_not_begun(world: World) -> None:
    """The call's own error comes out, at once."""
    fn = Pipeline(Retry(wait=5)).wrap(world.function(ConnectionError))

    assert type(error_of(world, around(world, 4, fn))) is ConnectionError
    assert world.clock.sleeps == []
    assert type(error_of(world, around(world, 6, fn))) is ConnectionError
    assert world.clock.sleeps == [5]


@pytest.mark.fault(285)
@pytest.mark.parametrize("nest", [(9, 2, 7), (2, 9), (2,), (7, None, 2, None)])
def test_the_nearest_counts(world: World, nest: tuple[Any, ...]) -> None:
    """However they are nested; None is no limit."""
    fn: Any = Pipeline(Retry()).wrap(world.function(Takes(8)))
    for seconds in reversed(nest):
        fn = around(world, seconds, fn)
    started = world.clock.now()

    assert type(error_of(world, fn)) is DeadlineExceededError
    assert world.clock.now() - started == 2


def test_a_nearer_timeout_of_the_calls_own_counts(world: World) -> None:
    """And a farther one does not."""
    step = Takes(9)
    for own, nearest in ((2, 2), (7, 4)):
        fn = Pipeline(Timeout(own)).wrap(world.function(step))
        started = world.clock.now()
        assert type(error_of(world, around(world, 4, fn))) is DeadlineExceededError
        assert world.clock.now() - started == nearest


def test_calls_in_functions_further_in_see_it(world: World) -> None:
    """Through a guarded function without a limit, and one with a longer one."""
    inmost = Pipeline(Retry(attempts=1)).wrap(world.function(Takes(9)))
    inner = Pipeline(Timeout(50)).wrap(passing(world, inmost))
    outer = Pipeline(Retry(attempts=1)).wrap(passing(world, inner))
    started = world.clock.now()

    assert type(error_of(world, around(world, 3, outer))) is DeadlineExceededError
    assert world.clock.now() - started == 3


def test_one_inside_a_guarded_function(world: World) -> None:
    """Bounds the calls in its block, and its error is that function's own: it is retried."""
    inner = Pipeline(Retry(attempts=1)).wrap(world.function(Takes(9), Takes(1, WELL)))
    outer = Pipeline(Timeout(50), Retry(wait=0)).wrap(around(world, 3, inner))
    started = world.clock.now()

    assert world.run(outer) == WELL
    assert world.clock.now() - started == 4


def test_it_is_handed_on_by_pass_as(world: World) -> None:
    """What is left of it, where that is less than the limit to be passed."""
    fn = Pipeline(Timeout(30, pass_as="timeout")).wrap(world.function(Takes(2, WELL)))

    world.run(around(world, 5, both(world, fn, fn)))
    assert [kwargs for _, kwargs in world.calls] == [{"timeout": 5.0}, {"timeout": 3.0}]


def test_it_is_no_verdict_for_a_breaker(world: World) -> None:
    """A call that is cut from outside says nothing about the service."""
    breaker = CircuitBreaker(failures=1)
    fn = Pipeline(breaker).wrap(world.function(Takes(9)))

    error_of(world, around(world, 3, fn))
    assert breaker.state == "closed"


def test_no_fallback_stands_in_for_it(world: World) -> None:
    """It is around the whole of the pipeline: what is left of the block has no time either."""
    fn = Pipeline(Fallback(WELL)).wrap(world.function(Takes(9)))

    assert type(error_of(world, around(world, 3, fn))) is DeadlineExceededError


def test_an_outcome_has_it(world: World) -> None:
    """With the attempt that it has cut."""
    fn = Pipeline(Retry()).wrap(world.function(Takes(9)))
    outcome = world.run(around(world, 3, guarded(fn).outcome))

    assert type(outcome.error) is DeadlineExceededError
    assert [attempt.duration for attempt in outcome.attempts] == [3]


# What is not


def test_code_between_the_calls_is_not_cut(world: World) -> None:
    """A function that is not guarded goes on to its end."""
    assert world.run(around(world, 3, world.function(Takes(9, WELL)))) == WELL


def test_after_the_block_there_is_none(world: World) -> None:
    """Nor after one that an error has left."""
    fn = Pipeline(Retry(wait=0)).wrap(world.function(Takes(9, ValueError("mine")), WELL))

    assert type(error_of(world, around(world, 20, fn))) is ValueError
    assert remaining() is None
    assert world.run(fn) == WELL


@pytest.mark.parametrize("world", ["asyncio"], indirect=True)
def test_a_task_that_outlives_the_block_ignores_it(world: World) -> None:
    """It began under the deadline, and ends without one."""
    fn = Pipeline(Retry()).wrap(world.function(Takes(9, WELL)))

    async def late() -> Any:
        await asyncio.sleep(0)
        return await fn(), remaining()

    async def main() -> Any:
        with deadline(3):
            task = asyncio.create_task(late())
        return await task

    assert world.run(main) == (WELL, None)


def test_switched_off_with_the_policies(world: World) -> None:
    """Within `disabled()` nothing is limited."""
    fn = Pipeline(Retry()).wrap(world.function(Takes(9, WELL)))
    with disabled():
        assert world.run(around(world, 3, fn)) == WELL


@pytest.mark.real
@pytest.mark.steady
def test_it_holds_for_its_own_thread() -> None:
    """A thread that is started inside has none, unless it is given the context."""
    seen: list[float | None] = []

    def look() -> None:
        seen.append(remaining())

    with deadline(60):
        context = contextvars.copy_context()
        for target in (look, lambda: context.run(look)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert seen[0] is None
    assert seen[1] is not None


# Blocks of code


@pytest.mark.fault(285)
@pytest.mark.parametrize("world", ["sync"], indirect=True)
def test_a_sync_block_is_not_begun_too_late(world: World) -> None:
    """No wait that does not fit, no block with no time left; the block itself is not cut."""
    made: list[int] = []

    def run(seconds: float, wait: float, takes: float) -> None:
        with deadline(seconds):
            for attempt in Pipeline(Retry(wait=wait, attempts=None)).attempts():
                with attempt:
                    made.append(attempt.number)
                    world.clock.sleep(takes)
                    raise ConnectionError

    with pytest.raises(DeadlineExceededError) as caught:
        run(0, 1, 1)
    assert made == []
    assert caught.value.seconds == 0
    with pytest.raises(ConnectionError):
        run(0.5, 1, 0)
    assert made == [1]
    made.clear()
    with pytest.raises(ConnectionError):
        run(5, 2, 1)
    assert made == [1, 2]
    with pytest.raises(ConnectionError):
        run(5, 2, 9)
    assert made == [1, 2, 1]


def test_one_inside_the_loop_is_around_one_block(world: World) -> None:
    """It is over before the wait for the next attempt: that need not fit."""
    made: list[int] = []

    def run() -> None:
        for attempt in Pipeline(Retry(wait=9)).attempts():
            with deadline(5), attempt:
                body(attempt.number)

    async def arun() -> None:
        async for attempt in Pipeline(Retry(wait=9)).attempts():
            async with deadline(5), attempt:
                body(attempt.number)

    def body(number: int) -> None:
        made.append(number)
        if number < 3:
            raise ConnectionError

    world.run(arun if world.asynchronous else run)
    assert made == [1, 2, 3]


@async_worlds
def test_an_async_block_is_cut(world: World) -> None:
    """As by a Timeout."""

    async def main() -> None:
        with deadline(3):
            async for attempt in Pipeline(Retry()).attempts():
                async with attempt:
                    await world.clock.asleep(9)

    started = world.clock.now()
    assert type(error_of(world, main)) is DeadlineExceededError
    assert world.clock.now() - started == 3


# What is left


def test_remaining(world: World) -> None:
    """Seconds to the nearest deadline, a Timeout's included; 0 afterwards; None without one."""
    seen: list[float | None] = []

    def look() -> None:
        seen.append(remaining())

    look()
    world.run(Pipeline(Timeout(7)).wrap(world.function(look)))
    world.run(Pipeline(Timeout(7, pass_as="t")).wrap(world.function(lambda t: look())))
    with deadline(5):
        look()
        world.run(Pipeline(Timeout(7)).wrap(world.function(look)))
        world.run(Pipeline(Timeout(2)).wrap(world.function(look)))
        world.clock.advance(4)
        look()
        with deadline(9):
            look()
            world.clock.advance(1)
            look()
            world.clock.advance(90)
        look()
    look()
    assert seen == [None, 7, 7, 5, 5, 2, 1, 1, 0, 0, None]


def test_remaining_without_anything_around() -> None:
    """As in a plain program, outside of any call."""
    assert remaining() is None


@pytest.mark.real
@pytest.mark.steady
def test_remaining_in_a_worker_thread() -> None:
    """A timed sync call runs its function there."""
    with deadline(60):
        left = Pipeline(Retry()).call(remaining)
    assert left is not None
    assert 0 < left <= 60


# The block itself


@pytest.mark.fault(72, 73)
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, ValueError),
        (timedelta(seconds=-1), ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        ("5", TypeError),
        (True, TypeError),
    ],
)
def test_bad_times(value: Any, error: type[Exception]) -> None:
    """Refused before the block, by name, rule and value."""
    with pytest.raises(error, match=r"^seconds must be") as caught:
        deadline(value)
    assert repr(value) in str(caught.value)


def test_it_is_for_one_block() -> None:
    """Entered twice, it says so."""
    block = deadline(5)
    with block:
        pass
    with pytest.raises(RuntimeError) as caught:
        block.__enter__()
    assert "call it again" in str(caught.value)


def test_left_in_another_context() -> None:
    """A generator may be closed where it was not begun: no error, and the deadline has ended."""

    def steps() -> Generator[None]:
        with deadline(5):
            yield

    generator = steps()
    context = contextvars.copy_context()
    context.run(next, generator)
    assert context.run(remaining) is not None
    generator.close()
    assert context.run(remaining) is None


# Streams


def stream(world: World, first: float, rest: float) -> Any:
    """A function of this world's colour whose stream has two items, which take their time."""

    def items() -> Generator[str]:
        world.clock.sleep(first)
        yield "a"
        world.clock.sleep(rest)
        yield "b"

    async def aitems() -> AsyncGenerator[str]:
        await world.clock.asleep(first)
        yield "a"
        await world.clock.asleep(rest)
        yield "b"

    def opening() -> Any:
        return items()

    async def aopening() -> Any:
        return aitems()

    return aopening if world.asynchronous else opening


@pytest.mark.parametrize(("first", "rest", "whole"), [(2, 9, True), (9, 0, False)])
def test_a_stream_is_inside_until_its_first_content(
    world: World, first: float, rest: float, whole: bool
) -> None:
    """What comes later may take longer, also where it is read within the block."""
    fn = Pipeline(Retry()).wrap(stream(world, first, rest))

    def read() -> list[str]:
        with deadline(3):
            return list(fn())

    async def aread() -> list[str]:
        async with deadline(3):
            return [item async for item in await fn()]

    reading = aread if world.asynchronous else read
    if whole:
        assert world.run(reading) == ["a", "b"]
    else:
        assert type(error_of(world, reading)) is DeadlineExceededError
