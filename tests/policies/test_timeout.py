"""Timeout, enforced: each attempt or the whole call, in virtual and in real time."""

from __future__ import annotations

import asyncio
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
    guarded,
    history,
)
from resilience.failures import Kind, describe
from resilience.policy import Call, Inner, Policy, Runtime
from support.calling import error_of, passing
from support.errors import note_of

# How long


@pytest.mark.parametrize("limit", [5, 5.0, timedelta(seconds=5), lambda *args, **kwargs: 5])
def test_a_call_that_takes_too_long(world: World, limit: Any) -> None:
    """After `seconds` the caller has a DeadlineExceededError, a TimeoutError too."""
    error = error_of(world, Pipeline(Timeout(limit)).wrap(world.function(Takes(9, "late"))))

    assert type(error) is DeadlineExceededError
    assert isinstance(error, TimeoutError)
    assert error.seconds == 5
    assert "5 s" in str(error)
    assert error.__cause__ is None
    assert world.clock.now() >= 1005


@async_worlds
def test_an_async_call_is_cut_at_the_deadline(world: World) -> None:
    """Async: the call is cancelled at the very moment."""
    error_of(world, Pipeline(Timeout(5)).wrap(world.function(Takes(9))))

    assert world.clock.now() == 1005


def test_a_call_that_is_in_time(world: World) -> None:
    """A result within the time is returned as it is."""
    fn = world.function(Takes(4.9, "in time"))

    assert world.run(Pipeline(Timeout(5)).wrap(fn)) == "in time"


def test_an_error_within_the_time_is_the_users(world: World) -> None:
    """Errors pass through untouched."""
    error = ValueError()

    assert error_of(world, Pipeline(Timeout(5)).wrap(world.function(Takes(1, error)))) is error


@pytest.mark.fault(109)
@pytest.mark.parametrize("own", [TimeoutError(), TimeoutError("mine"), asyncio.TimeoutError()])
def test_the_users_own_timeout_error_stays_itself(world: World, own: Exception) -> None:
    """A TimeoutError that the function raises is not taken for the policy's."""
    error = error_of(world, Pipeline(Timeout(5)).wrap(world.function(Takes(1, own))))

    assert error is own
    assert not isinstance(error, DeadlineExceededError)


def test_a_deadline_error_of_the_function_stays_itself(world: World) -> None:
    """A DeadlineExceededError raised inside is passed on, not replaced by ours."""
    own = DeadlineExceededError(123)

    assert error_of(world, Pipeline(Timeout(5)).wrap(world.function(own))) is own


def test_total_and_attempt(world: World) -> None:
    """Outside Retry it bounds the whole call, inside it each attempt."""
    fn = world.function(Takes(100))
    pipeline = Pipeline(Timeout(7), Retry(attempts=5, wait=1), Timeout(3))
    error = error_of(world, pipeline.wrap(fn))

    # Attempts from 0 to 3 and from 4 to 7: the total ends no later than the second's own limit.
    assert type(error) is DeadlineExceededError
    assert len(world.calls) == 2
    assert [a.failure.kind for a in history(error)] == [Kind.TIMEOUT] * 2
    assert "2 attempts" in note_of(error)


@pytest.mark.parametrize(("total", "inner", "seconds"), [(4, 9, 4), (9, 4, 4)])
@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_the_nearest_limit_ends_it(
    world: World, total: float, inner: float, seconds: float
) -> None:
    """Of nested limits the one that ends first is told in the error."""
    pipeline = Pipeline(Timeout(total), Timeout(inner))
    error = error_of(world, pipeline.wrap(world.function(Takes(99))))

    assert type(error) is DeadlineExceededError
    assert error.seconds == seconds


def test_a_total_ends_a_later_attempt(world: World) -> None:
    """Time that ran out while a later attempt ran: our error, with the history of all."""
    fn = world.function(ConnectionError, Takes(99))
    error = error_of(world, Pipeline(Timeout(5), Retry(wait=2)).wrap(fn))

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

    fn = Pipeline(Timeout(limit)).wrap(world.function(Takes(5, "ok")))

    assert world.run(fn, size=60) == "ok"
    assert error_of(world, fn, size=20).seconds == 2


def test_a_function_gets_the_arguments_by_place_and_by_name(world: World) -> None:
    """Just as the call has them; a timedelta does as seconds."""
    seen: list[Any] = []

    def seconds(*args: Any, **kwargs: Any) -> Any:
        seen.append((args, kwargs))
        return timedelta(seconds=2)

    error = error_of(world, Pipeline(Timeout(seconds)).wrap(world.function(Takes(9))), 1, size=2)
    assert seen == [((1,), {"size": 2})]
    assert error.seconds == 2


@pytest.mark.fault(111)
@pytest.mark.parametrize("given", [0, 0.0, -1, timedelta(0), timedelta(seconds=-3)])
@pytest.mark.parametrize("pass_as", [None, "timeout"])
def test_a_function_that_finds_the_time_up(world: World, given: Any, pass_as: str | None) -> None:
    """A deadline that has passed before the call is a deadline, and nothing is sent."""
    limit = Timeout(lambda **kwargs: given, pass_as=pass_as)
    error = error_of(world, Pipeline(limit).wrap(world.function("ok")))

    assert type(error) is DeadlineExceededError
    assert error.seconds == (given.total_seconds() if isinstance(given, timedelta) else given)
    assert world.calls == []


@pytest.mark.parametrize("given", [0, -1, timedelta(0)])
@pytest.mark.parametrize("pass_as", [None, "timeout"])
def test_a_limit_of_no_time_asks_nobody_inside(
    world: World, given: Any, pass_as: str | None
) -> None:
    """Not even an open circuit is asked: its rejection would hide that time is up."""
    breaker = CircuitBreaker()
    breaker.open()
    limit = Timeout(lambda **kwargs: given, pass_as=pass_as)
    pipeline = Pipeline(limit, breaker, Timeout(5))

    assert type(error_of(world, pipeline.wrap(world.function("ok")))) is DeadlineExceededError


def test_half_a_second_is_a_time(world: World) -> None:
    """Less than a second is time enough to begin."""
    assert world.run(Pipeline(Timeout(lambda: 0.5)).wrap(world.function("ok"))) == "ok"


@pytest.mark.parametrize(
    ("given", "kind"),
    [(float("nan"), ValueError), ("5", TypeError), (None, TypeError), (True, TypeError)],
)
def test_a_function_that_gives_no_time(world: World, given: Any, kind: type[Exception]) -> None:
    """What such a function gives is checked as the option is: the error names it."""
    error = error_of(world, Pipeline(Timeout(lambda: given)).wrap(world.function("ok")))

    assert type(error) is kind
    assert str(error).startswith("seconds ")
    assert repr(given) in str(error)
    assert world.calls == []


def test_our_own_limit_is_described_as_a_timeout() -> None:
    """TIMEOUT, and worth all the attempts that the user gave."""
    failure = describe(DeadlineExceededError(3))

    assert (failure.kind, failure.advice.name, failure.retry_limit) == (Kind.TIMEOUT, "RETRY", None)


def test_each_model_has_its_time(world: World) -> None:
    """A cut attempt goes on to the next model."""
    fn = world.function(Takes(9), "ok")
    outcome = world.run(guarded(Pipeline(ModelFallback("a", "b"), Timeout(5)).wrap(fn)).outcome)

    assert (outcome.value, outcome.served_by) == ("ok", "b")
    assert outcome.attempts[0].failure.kind is Kind.TIMEOUT
    assert outcome.attempts[0].duration >= 5


def test_a_guarded_function_inside_has_the_same_deadline(world: World) -> None:
    """A nested guarded function without a limit of its own is cut by the one outside."""
    inner = Pipeline(Retry()).wrap(world.function(Takes(99)))
    error = error_of(world, Pipeline(Timeout(5)).wrap(passing(world, inner)))

    assert type(error) is DeadlineExceededError
    assert len(world.calls) == 1


def test_a_deadline_ends_with_its_block(world: World) -> None:
    """A later call of another function is not under an earlier call's deadline."""
    breaker = CircuitBreaker()
    error_of(world, Pipeline(Timeout(5), Timeout(3)).wrap(world.function(Takes(9))))

    assert world.run(Pipeline(Retry(), breaker).wrap(world.function(Takes(99, "ok")))) == "ok"


def test_an_outer_limit_is_not_the_inner_retrys_to_repeat(world: World) -> None:
    """When the total is up, nothing inside is tried again."""
    pipeline = Pipeline(Timeout(5), Retry(on=Exception, attempts=9, wait=0))
    error_of(world, pipeline.wrap(world.function(Takes(9))))

    assert len(world.calls) == 1


class Bounded(Policy):
    """A policy of a user's own that bounds what is inside it, and may wait first."""

    def __init__(self, limit: float, wait: float = 0) -> None:
        self.limit, self.wait = limit, wait

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def waiting(call: Call) -> Any:
            if self.wait:
                await runtime.sleep(self.wait, call)
            return await inner(call)

        async def bounded(call: Call) -> Any:
            return await runtime.within(self.limit, waiting, call)

        return bounded


@pytest.mark.parametrize("limit", [0, -1])
def test_a_time_that_is_up_already_leaves_no_attempt(world: World, limit: float) -> None:
    """A policy that has no time left to give: the function is not called."""
    error = error_of(world, Pipeline(Bounded(limit)).wrap(world.function("ok")))

    assert type(error) is DeadlineExceededError
    assert error.seconds == limit
    assert world.calls == []


def test_a_policys_wait_is_cut_by_the_deadline(world: World) -> None:
    """One that is longer than the time left ends with it, and the function is not called."""
    error = error_of(world, Pipeline(Bounded(5, wait=9)).wrap(world.function("ok")))

    assert type(error) is DeadlineExceededError
    assert world.clock.now() == 1005
    assert world.calls == []


@async_worlds
def test_a_task_that_outlives_the_deadline_is_free_of_it(world: World) -> None:
    """What a call has begun and left running retries as it likes once the call is over."""
    fn = Pipeline(Retry(wait=9)).wrap(world.function(Takes(1, ConnectionError), "ok"))
    found: list[Any] = []

    async def inner() -> None:
        found.append(await fn())

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

    with pytest.warns(UserWarning, match="hung"):
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
        assert "task" in str(error)

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
