"""Timeout: each attempt or the whole call, enforced or passed on."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import trio

from conftest import Takes, World, async_worlds
from resilience import (
    CircuitBreaker,
    DeadlineExceededError,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    history,
)
from resilience.failures import Kind, describe


def fails(world: World, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Exception:
    """The error of a call that must fail."""
    with pytest.raises(Exception) as info:  # noqa: PT011
        world.run(fn, *args, **kwargs)
    return info.value


def coloured(world: World, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` in this world's colour, with its signature."""
    if not world.asynchronous:
        return fn

    @functools.wraps(fn)
    async def afn(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return afn


# Enforced


@pytest.mark.parametrize("limit", [5, 5.0, timedelta(seconds=5), lambda *args, **kwargs: 5])
def test_a_call_that_takes_too_long(world: World, limit: Any) -> None:
    """After `seconds` the caller has a DeadlineExceededError, a TimeoutError too."""
    error = fails(world, Pipeline(Timeout(limit)).wrap(world.function(Takes(9, "late"))))

    assert type(error) is DeadlineExceededError
    assert isinstance(error, TimeoutError)
    assert error.seconds == 5
    assert "5 s" in str(error)
    assert error.__cause__ is None
    assert world.clock.now() >= 1005


@pytest.mark.parametrize("world", ["asyncio", "trio"], indirect=True)
def test_an_async_call_is_cut_at_the_deadline(world: World) -> None:
    """Async: the call is cancelled at the very moment."""
    fails(world, Pipeline(Timeout(5)).wrap(world.function(Takes(9))))

    assert world.clock.now() == 1005


def test_a_call_that_is_in_time(world: World) -> None:
    """A result within the time is returned as it is."""
    fn = world.function(Takes(4.9, "in time"))

    assert world.run(Pipeline(Timeout(5)).wrap(fn)) == "in time"


def test_an_error_within_the_time_is_the_users(world: World) -> None:
    """Errors pass through untouched."""
    error = ValueError()

    assert fails(world, Pipeline(Timeout(5)).wrap(world.function(Takes(1, error)))) is error


@pytest.mark.parametrize("own", [TimeoutError(), TimeoutError("mine"), asyncio.TimeoutError()])
def test_fault_109_the_users_own_timeout_error_stays_itself(world: World, own: Exception) -> None:
    """A TimeoutError that the function raises is not taken for the policy's."""
    error = fails(world, Pipeline(Timeout(5)).wrap(world.function(Takes(1, own))))

    assert error is own
    assert not isinstance(error, DeadlineExceededError)


def test_a_deadline_error_of_the_function_stays_itself(world: World) -> None:
    """A DeadlineExceededError raised inside is passed on, not replaced by ours."""
    own = DeadlineExceededError(123)

    assert fails(world, Pipeline(Timeout(5)).wrap(world.function(own))) is own


def test_total_and_attempt(world: World) -> None:
    """Outside Retry it bounds the whole call, inside it each attempt."""
    fn = world.function(Takes(100))
    pipeline = Pipeline(Timeout(7), Retry(attempts=5, wait=1), Timeout(3))
    error = fails(world, pipeline.wrap(fn))

    # Attempts from 0 to 3 and from 4 to 7: the total ends no later than the second's own limit.
    assert type(error) is DeadlineExceededError
    assert len(world.calls) == 2
    assert [a.failure.kind for a in history(error)] == [Kind.TIMEOUT] * 2
    assert "2 attempts" in error.__notes__[0]


@pytest.mark.parametrize(("total", "inner", "seconds"), [(4, 9, 4), (9, 4, 4)])
def test_the_nearest_limit_ends_it(
    world: World, total: float, inner: float, seconds: float
) -> None:
    """Of nested limits the one that ends first is told in the error."""
    pipeline = Pipeline(Timeout(total), Timeout(inner))
    error = fails(world, pipeline.wrap(world.function(Takes(99))))

    assert type(error) is DeadlineExceededError
    assert error.seconds == seconds


def test_a_total_ends_a_later_attempt(world: World) -> None:
    """Time that ran out while a later attempt ran: our error, with the history of all."""
    fn = world.function(ConnectionError, Takes(99))
    error = fails(world, Pipeline(Timeout(5), Retry(wait=2)).wrap(fn))

    assert type(error) is DeadlineExceededError
    first, second = history(error)
    assert first.failure.kind is Kind.CONNECTION
    assert second.failure.error is error
    assert second.started == 2
    assert second.waited == 2


def test_a_function_of_the_arguments(world: World) -> None:
    """`seconds` may depend on the call's arguments."""

    def limit(*args: Any, size: int) -> float:
        return size / 10

    guarded = Pipeline(Timeout(limit)).wrap(world.function(Takes(5, "ok")))

    assert world.run(guarded, size=60) == "ok"
    assert fails(world, guarded, size=20).seconds == 2


@pytest.mark.parametrize("given", [0, -1, timedelta(seconds=-3)])
def test_fault_111_a_function_that_finds_the_time_up(world: World, given: Any) -> None:
    """A deadline that has passed before the call is a deadline, and nothing is sent."""
    error = fails(world, Pipeline(Timeout(lambda: given)).wrap(world.function("ok")))

    assert type(error) is DeadlineExceededError
    assert world.calls == []


@pytest.mark.parametrize("given", [float("nan"), "5", None, True])
def test_a_function_that_gives_no_time(world: World, given: Any) -> None:
    """What such a function gives is checked as the option is."""
    error = fails(world, Pipeline(Timeout(lambda: given)).wrap(world.function("ok")))

    assert type(error) in (TypeError, ValueError)
    assert "seconds" in str(error)
    assert world.calls == []


def test_our_own_limit_is_described_as_a_timeout() -> None:
    """TIMEOUT, and one retry is worth it."""
    failure = describe(DeadlineExceededError(3))

    assert (failure.kind, failure.advice.name, failure.retry_limit) == (Kind.TIMEOUT, "RETRY", 1)


@pytest.mark.parametrize(("on", "calls"), [(None, 2), (DeadlineExceededError, 5)])
def test_retried_once_unless_named(world: World, on: Any, calls: int) -> None:
    """By default an attempt that was cut is retried once; whoever names the error means it."""
    retry = Retry(attempts=5, wait=1) if on is None else Retry(attempts=5, wait=1, on=on)
    fails(world, Pipeline(retry, Timeout(2)).wrap(world.function(Takes(9))))

    assert len(world.calls) == calls


def test_each_model_has_its_time(world: World) -> None:
    """A cut attempt goes on to the next model."""
    fn = world.function(Takes(9), "ok")
    outcome = world.run(Pipeline(ModelFallback("a", "b"), Timeout(5)).wrap(fn).outcome)

    assert (outcome.value, outcome.served_by) == ("ok", "b")
    assert outcome.attempts[0].failure.kind is Kind.TIMEOUT
    assert outcome.attempts[0].duration >= 5


def test_a_guarded_function_inside_has_the_same_deadline(world: World) -> None:
    """A nested guarded function without a limit of its own is cut by the one outside."""
    inner = Pipeline(Retry()).wrap(world.function(Takes(99)))

    def outer() -> Any:
        return inner()

    async def aouter() -> Any:
        return await inner()

    error = fails(world, Pipeline(Timeout(5)).wrap(aouter if world.asynchronous else outer))
    assert type(error) is DeadlineExceededError
    assert len(world.calls) == 1


def test_a_deadline_ends_with_its_block(world: World) -> None:
    """A later call of another function is not under an earlier call's deadline."""
    breaker = CircuitBreaker()
    fails(world, Pipeline(Timeout(5), Timeout(3)).wrap(world.function(Takes(9))))

    assert world.run(Pipeline(Retry(), breaker).wrap(world.function(Takes(99, "ok")))) == "ok"


def test_an_outer_limit_is_not_the_inner_retrys_to_repeat(world: World) -> None:
    """When the total is up, nothing inside is tried again."""
    pipeline = Pipeline(Timeout(5), Retry(on=Exception, attempts=9, wait=0))
    fails(world, pipeline.wrap(world.function(Takes(9))))

    assert len(world.calls) == 1


class Bounded:
    """A policy of a user's own that bounds what is inside it, and may wait first."""

    def __init__(self, limit: float, wait: float = 0) -> None:
        self.limit, self.wait = limit, wait

    def bind(self, call: Any, runtime: Any) -> Any:
        async def waited(*args: Any, **kwargs: Any) -> Any:
            if self.wait:
                await runtime.sleep(self.wait)
            return await call(*args, **kwargs)

        async def bounded(*args: Any, **kwargs: Any) -> Any:
            return await runtime.within(self.limit, lambda: waited(*args, **kwargs))

        return bounded


@pytest.mark.parametrize("limit", [0, -1])
def test_a_time_that_is_up_already_leaves_no_attempt(world: World, limit: float) -> None:
    """A policy that has no time left to give: the function is not called."""
    error = fails(world, Pipeline(Bounded(limit)).wrap(world.function("ok")))

    assert type(error) is DeadlineExceededError
    assert error.seconds == limit
    assert world.calls == []


def test_a_policys_wait_is_cut_by_the_deadline(world: World) -> None:
    """One that is longer than the time left ends with it, and the function is not called."""
    error = fails(world, Pipeline(Bounded(5, wait=9)).wrap(world.function("ok")))

    assert type(error) is DeadlineExceededError
    assert world.clock.now() == 1005
    assert world.calls == []


@async_worlds
def test_a_task_that_outlives_the_deadline_is_free_of_it(world: World) -> None:
    """What a call has begun and left running retries as it likes once the call is over."""
    guarded = Pipeline(Retry(wait=9)).wrap(world.function(Takes(1, ConnectionError), "ok"))
    found: list[Any] = []

    async def inner() -> None:
        found.append(await guarded())

    async def begin(start: Callable[[], Any]) -> None:
        start()
        await world.clock.asleep(0.5)

    async def in_asyncio() -> None:
        tasks: list[Any] = []
        await Pipeline(Timeout(5)).call(begin, lambda: tasks.append(asyncio.create_task(inner())))
        await tasks[0]

    async def in_trio() -> None:
        async with trio.open_nursery() as nursery:
            await Pipeline(Timeout(5)).call(begin, lambda: nursery.start_soon(inner))

    asyncio.run(in_asyncio()) if world.name == "asyncio" else trio.run(in_trio)
    assert found == ["ok"]
    assert world.clock.sleeps == [9]


# Passed on


def left(world: World, *policies: Any, steps: Any = ("ok",), **kwargs: Any) -> list[Any]:
    """The `timeout=` that each attempt got."""
    world.run(Pipeline(*policies).wrap(world.function(*steps)).outcome, **kwargs)
    return [given.get("timeout") for _, given in world.calls]


def test_pass_as_hands_over_the_time(world: World) -> None:
    """With `pass_as` the callee gets the seconds as that argument, and nothing is enforced."""
    assert left(world, Timeout(5, pass_as="timeout"), steps=[Takes(9, "late")]) == [5]
    assert (
        world.run(Pipeline(Timeout(5, pass_as="t")).wrap(world.function(Takes(9, "late"))))
        == "late"
    )


def test_pass_as_hands_over_what_is_left(world: World) -> None:
    """Each attempt gets what is left of a total; waits and attempts are taken off."""
    steps = [Takes(2, ConnectionError()), Takes(1, ConnectionError()), "ok"]
    policies = Timeout(20, pass_as="timeout"), Retry(wait=3)

    assert left(world, *policies, steps=steps) == pytest.approx([20, 15, 11])


def test_pass_as_hands_over_the_nearest(world: World) -> None:
    """An enforced total that ends earlier is what is left."""
    steps = [Takes(4, ConnectionError()), "ok"]
    policies = Timeout(10), Retry(wait=1), Timeout(8, pass_as="timeout")

    assert left(world, *policies, steps=steps) == pytest.approx([8, 5])


@pytest.mark.parametrize(("own", "expected"), [(2, 2), (9, 5), (None, 5), ("httpx", "httpx")])
def test_the_callers_own_smaller_value_wins(world: World, own: Any, expected: Any) -> None:
    """A smaller number of the caller's stays, and so does what is no number."""
    assert left(world, Timeout(5, pass_as="timeout"), timeout=own) == [expected]


@pytest.mark.parametrize(("own", "expected"), [(2, 2), (9, 5)])
def test_the_callers_own_value_by_position(world: World, own: float, expected: float) -> None:
    """The argument is found where the caller gave it, by position too."""
    seen: list[float] = []

    def ask(prompt: str, timeout: float = 60) -> None:
        seen.append(timeout)

    world.run(Pipeline(Timeout(5, pass_as="timeout")).wrap(coloured(world, ask)), "hi", own)
    assert seen == [expected]


def test_pass_as_an_argument_the_function_does_not_take() -> None:
    """A function without that argument is refused with a TypeError at decoration, as with keys."""
    with pytest.raises(TypeError, match="'timeout'"):
        Pipeline(Timeout(5, pass_as="timeout")).wrap(lambda prompt: None)


def test_pass_as_with_nothing_left_starts_no_call(world: World) -> None:
    """When the time is up before an attempt, it is not started."""

    def adjust(attempt: Any, args: Any, kwargs: Any) -> Any:
        world.clock.advance(99)
        return args, kwargs

    policies = Timeout(5, pass_as="timeout"), Retry(wait=0, adjust=adjust)
    outcome = world.run(Pipeline(*policies).wrap(world.function(ConnectionError)).outcome)

    assert len(world.calls) == 1
    assert isinstance(outcome.error, (DeadlineExceededError, ConnectionError))


def test_a_wait_that_does_not_fit_a_passed_on_total_is_not_begun(world: World) -> None:
    """A total that is passed on is the nearest deadline for waits as well."""
    guarded = Pipeline(Timeout(5, pass_as="timeout"), Retry(wait=6)).wrap(
        world.function(ConnectionError)
    )

    assert type(fails(world, guarded)) is ConnectionError
    assert world.clock.sleeps == []


# Real threads and tasks


@pytest.mark.real
def test_a_sync_call_that_hangs_is_left_behind() -> None:
    """In real time the caller leaves at the deadline, and the function's thread goes on alone."""
    leave, left_by = threading.Event(), []

    def hang() -> None:
        leave.wait(10)
        left_by.append(threading.current_thread())

    began = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        Pipeline(Timeout(0.05)).call(hang)
    assert time.monotonic() - began < 1
    assert not left_by
    leave.set()


@pytest.mark.real
def test_the_chain_stays_in_the_callers_thread() -> None:
    """Only the user's function moves to a worker; predicates and waits run where the call is."""
    where: list[tuple[str, threading.Thread]] = []

    def fn() -> None:
        where.append(("fn", threading.current_thread()))
        raise ConnectionError

    def on(failure: Any) -> bool:
        where.append(("on", threading.current_thread()))
        return False

    with pytest.raises(ConnectionError):
        Pipeline(Timeout(5), Retry(on=on)).call(fn)
    me = threading.current_thread()
    assert [(what, thread is me) for what, thread in where] == [("fn", False), ("on", True)]


@pytest.mark.real
def test_a_cut_is_no_verdict_for_a_breaker_inside_in_real_time() -> None:
    """The same holds with a real thread: the late answer changes nothing."""
    breaker = CircuitBreaker(failures=1)
    leave = threading.Event()

    def hang() -> None:
        leave.wait(10)
        raise ConnectionError

    with pytest.warns(UserWarning, match="hung calls"):
        pipeline = Pipeline(Timeout(0.05), breaker)
    with pytest.raises(DeadlineExceededError):
        pipeline.call(hang)
    leave.set()
    time.sleep(0.02)
    assert breaker.state == "closed"


def by(way: str, pipeline: Pipeline, calls: list[int]) -> DeadlineExceededError:
    """What comes of a call in a real runtime that must not be made."""

    def fn() -> None:
        calls.append(1)

    async def afn() -> None:
        calls.append(1)

    async def main() -> None:
        await pipeline.call(afn)

    runs: dict[str, Callable[[], None]] = {
        "sync": lambda: pipeline.call(fn),
        "asyncio": lambda: asyncio.run(main()),
        "trio": lambda: trio.run(main),
    }
    with pytest.raises(DeadlineExceededError) as caught:
        runs[way]()
    return caught.value


@pytest.mark.real
@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
@pytest.mark.parametrize("limit", [0, -1])
def test_a_time_that_is_up_already_leaves_no_attempt_in_real_time(way: str, limit: float) -> None:
    """The same in the real runtimes."""
    calls: list[int] = []
    assert by(way, Pipeline(Bounded(limit)), calls).seconds == limit
    assert calls == []


@pytest.mark.real
@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
def test_a_policys_wait_is_cut_by_the_deadline_in_real_time(way: str) -> None:
    """The same in the real runtimes."""
    calls: list[int] = []
    began = time.monotonic()
    assert by(way, Pipeline(Bounded(0.05, wait=30)), calls).seconds == 0.05
    assert 0.05 <= time.monotonic() - began < 5
    assert calls == []


@pytest.mark.real
def test_a_limit_in_asyncio_needs_a_task() -> None:
    """Driven by hand from a loop's callback, a call has no task that could be cancelled."""
    calls: list[int] = []

    async def fn() -> None:
        calls.append(1)

    async def main() -> None:
        answer: Any = Pipeline(Timeout(5)).call(fn)
        done = asyncio.get_running_loop().create_future()

        def step() -> None:
            try:
                answer.send(None)
            except BaseException as error:
                done.set_result(error)

        asyncio.get_running_loop().call_soon(step)
        error = await done
        assert type(error) is RuntimeError
        assert "needs a running asyncio task" in str(error)

    asyncio.run(main())
    assert calls == []


@pytest.mark.real
def test_an_asyncio_call_is_cancelled_in_real_time() -> None:
    """The task inside is cancelled, its cleanup runs, and the cancel count is balanced."""
    events: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            events.append("cleaned up")

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await Pipeline(Timeout(0.02)).call(hang)
        task = asyncio.current_task()
        assert task is not None
        if hasattr(task, "cancelling"):
            assert task.cancelling() == 0

    asyncio.run(main())
    assert events == ["cleaned up"]


def test_repr() -> None:
    """It reads like the code that makes it."""
    assert repr(Timeout(5)) == "Timeout(5)"
    assert repr(Timeout(0.5, pass_as="t")) == "Timeout(0.5, pass_as='t')"
