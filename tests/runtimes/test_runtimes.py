"""Cancellation, deadlines and event loops, in the real runtimes."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pybreaker
import pytest
import trio

from conftest import World
from resilience import (
    CircuitBreaker,
    DeadlineExceededError,
    Pipeline,
    Retry,
    Timeout,
    current_attempt,
    resilient,
)
from resilience._runtimes.loops import runtime_for
from resilience.policy import Call, Inner, Policy, Runtime, Waiter
from resilience.testing import disabled, virtual_time
from resilience.waits import Fixed

pytestmark = pytest.mark.real

uncounted = sys.version_info < (3, 11)  # 3.10 does not count cancellations


class Uncounted(asyncio.tasks._PyTask):  # type: ignore[name-defined,misc]
    """A task as Python 3.10 has them, on any version: it does not tell of its cancellations."""

    cancelling = uncancel = property()


def uncounting(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
    """A task factory."""
    return Uncounted(coro, loop=loop, **options)


kinds = pytest.mark.parametrize("kind", [None, uncounting], ids=["counted", "uncounted"])


@pytest.mark.fault(1)
@pytest.mark.parametrize("policies", [(), (Retry(),), (Retry(), CircuitBreaker(), Timeout(9))])
def test_a_cancelled_call_is_cancelled_at_once(policies: tuple[Any, ...]) -> None:
    """CancelledError itself, after one attempt."""
    attempts: list[int] = []

    async def hang() -> None:
        attempts.append(1)
        await asyncio.sleep(30)

    async def main() -> None:
        task = asyncio.create_task(Pipeline(*policies).call(hang))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert attempts == [1]


@pytest.mark.fault(3)
def test_a_cancelled_wait_ends_at_once() -> None:
    """Cancelled between attempts: gone within 10 ms or so, and no further attempt."""
    attempts: list[int] = []

    async def fail() -> None:
        attempts.append(1)
        raise ConnectionError

    async def main() -> float:
        task = asyncio.create_task(Pipeline(Retry(wait=Fixed(30))).call(fail))
        await asyncio.sleep(0.01)
        task.cancel()
        begun = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - begun

    assert asyncio.run(main()) < 0.1
    assert attempts == [1]


@pytest.mark.fault(5)
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02])
def test_a_cancellation_in_the_tick_of_completion_is_not_lost(delay: float) -> None:
    """cancel() in the tick in which the call under a Timeout completes: still cancelled."""

    async def main() -> str:
        done = asyncio.get_running_loop().create_future()

        async def call() -> str:
            await done
            return "done"

        async def job() -> str:
            await Pipeline(Timeout(30)).call(call)
            await asyncio.sleep(0)
            return "swallowed"

        task = asyncio.create_task(job())
        await asyncio.sleep(delay)
        done.set_result(None)
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return "cancelled"

    assert asyncio.run(main()) == "cancelled"


@pytest.mark.fault(6)
@kinds
def test_our_own_cancellation_leaves_the_task_uncancelled(kind: Any) -> None:
    """After a Timeout has fired, `task.cancelling()` is 0 and the task goes on."""

    async def job() -> Any:
        with pytest.raises(DeadlineExceededError):
            await Pipeline(Timeout(0.01)).call(asyncio.sleep, 30)
        await asyncio.sleep(0)
        task: Any = asyncio.current_task()
        assert isinstance(task, Uncounted) is (kind is uncounting)
        return task.cancelling() if hasattr(task, "cancelling") else 0

    async def main() -> Any:
        asyncio.get_running_loop().set_task_factory(kind)
        return await asyncio.create_task(job())

    assert asyncio.run(main()) == 0


@pytest.mark.fault(6)
@kinds
@pytest.mark.parametrize("first", ["deadline", "outer"])
def test_an_outer_cancellation_wins_over_a_deadline_of_the_same_tick(first: str, kind: Any) -> None:
    """Whoever came first: the outer CancelledError comes out."""
    if (uncounted or kind is uncounting) and first == "deadline":
        return  # cannot be told apart there; see TaskDeadline

    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(kind)
        fires: list[Callable[[], None]] = []
        call_later = loop.call_later

        def noted(delay: float, fire: Any, *args: Any, **kwargs: Any) -> Any:
            fires.append(fire)
            return call_later(delay, fire, *args, **kwargs)

        loop.call_later = noted  # type: ignore[method-assign,assignment]
        stuck = loop.create_future()

        async def hang() -> None:
            await stuck

        task = asyncio.create_task(Pipeline(Timeout(30)).call(hang))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        both = [fires[0], task.cancel]
        for each in both if first == "deadline" else reversed(both):
            each()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        except DeadlineExceededError:
            return "deadline"
        return "neither"

    assert asyncio.run(main()) == "cancelled"


@pytest.mark.fault(7)
def test_a_function_that_swallows_its_cancellation_is_not_waited_for_twice() -> None:
    """What it returns after the deadline is returned; nothing hangs, nothing stays cancelled."""

    async def stubborn() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "late"
        return "never"

    async def main() -> str:
        answer: str = await Pipeline(Timeout(0.01)).call(stubborn)
        await asyncio.sleep(0)
        return answer

    assert asyncio.run(main()) == "late"


@pytest.mark.fault(15)
def test_a_sibling_cancelled_is_no_failure_of_the_service() -> None:
    """A task cancelled because another failed does not charge the circuit."""
    breaker = CircuitBreaker(failures=1)

    async def main() -> None:
        guarded = Pipeline(breaker).wrap(asyncio.sleep)
        tasks = [asyncio.create_task(guarded(30)) for _ in range(5)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert breaker.state == "closed"
    assert breaker._only.failures == 0


@pytest.mark.fault(16)
@pytest.mark.parametrize("policies", [(Retry(),), (Retry(), CircuitBreaker(), Timeout(9))])
def test_trios_cancellation_passes(policies: tuple[Any, ...]) -> None:
    """`trio.Cancelled` is never caught, retried or counted."""
    attempts: list[int] = []

    async def hang() -> None:
        attempts.append(1)
        await trio.sleep(30)

    async def main() -> bool:
        with trio.move_on_after(0.02) as scope:
            await Pipeline(*policies).call(hang)
        return scope.cancelled_caught

    assert trio.run(main)
    assert attempts == [1]


def test_a_timeout_under_trio_cancels_and_is_told_from_an_outer_one() -> None:
    """Ours becomes DeadlineExceededError; the time it took is the time it was given."""

    async def main() -> float:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            await Pipeline(Timeout(0.05)).call(trio.sleep, 30)
        return time.monotonic() - begun

    assert trio.run(main) < 1


@pytest.mark.fault(109)
@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_the_functions_own_timeout_error_is_its_own(run: Any) -> None:
    """A TimeoutError raised by the user's code is not reported as the policy's."""
    mine = TimeoutError("mine")

    async def fail() -> None:
        raise mine

    def sync_fail() -> None:
        raise mine

    async def main() -> None:
        with pytest.raises(TimeoutError) as caught:
            await Pipeline(Timeout(5)).call(fail)
        assert caught.value is mine

    run(main() if run is asyncio.run else main)
    with pytest.raises(TimeoutError) as caught:
        Pipeline(Timeout(5)).call(sync_fail)
    assert caught.value is mine


def test_a_users_error_that_comes_after_the_deadline_is_the_users() -> None:
    """Code that turns its cancellation into an error of its own gets it out, in asyncio too."""

    async def tidy() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise TimeoutError("mine") from None

    async def main() -> None:
        with pytest.raises(TimeoutError, match="mine"):
            await Pipeline(Timeout(0.01)).call(tidy)
        await asyncio.sleep(0)

    asyncio.run(main())


class Noting(pybreaker.CircuitMemoryStorage):
    """A storage that notes which threads ask it."""

    def __init__(self) -> None:
        super().__init__("closed")
        self.threads: set[int] = set()

    @property
    def state(self) -> str:
        self.threads.add(threading.get_ident())
        return str(super().state)

    @state.setter
    def state(self, value: str) -> None:
        raise AssertionError("nothing has changed")


@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
def test_a_storage_is_asked_off_the_event_loop(way: str) -> None:
    """A slow one holds up no other task; in a sync call it is asked on the spot."""
    storage = Noting()
    pipeline = Pipeline(CircuitBreaker(storage=storage))

    async def fn() -> str:
        return "ok"

    async def main() -> str:
        return await pipeline.call(fn)

    found = pipeline.call(lambda: "ok") if way == "sync" else None
    found = asyncio.run(main()) if way == "asyncio" else found
    found = trio.run(main) if way == "trio" else found
    assert found == "ok"
    assert len(storage.threads) == 1
    assert (storage.threads == {threading.get_ident()}) is (way == "sync")


@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_a_waiter_may_be_set_when_nobody_waits(way: str) -> None:
    """After its time, and when the loop is no more: nothing happens."""
    waiters: list[Waiter] = []
    troubles: list[Any] = []

    async def main() -> None:
        if way == "asyncio":
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: troubles.append(context))
        waiter = runtime_for(None, asynchronous=True).waiter()
        assert not await waiter.wait(0, None)
        waiter.set()
        await (trio.sleep if way == "trio" else asyncio.sleep)(0.01)
        waiters.append(waiter)

    (asyncio.run if way == "asyncio" else trio.run)(main() if way == "asyncio" else main)
    for waiter in waiters:
        waiter.set()
    assert (len(waiters), troubles) == (1, [])


@pytest.mark.fault(17)
def test_a_shielded_pipeline_runs_once() -> None:
    """asyncio.shield around it: the outer task is cancelled, the call goes on, once."""
    attempts: list[int] = []

    async def slow() -> str:
        attempts.append(1)
        await asyncio.sleep(0.03)
        return "ok"

    async def main() -> str:
        inner = asyncio.ensure_future(Pipeline(Timeout(5), Retry()).call(slow))

        async def outer() -> str:
            return await asyncio.shield(inner)

        task = asyncio.create_task(outer())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await inner

    assert asyncio.run(main()) == "ok"
    assert attempts == [1]


@pytest.mark.fault(103)
def test_one_pipeline_serves_many_loops_and_threads() -> None:
    """Made at import, used from loops one after the other and from eight threads at once."""
    pipeline = Pipeline(Retry(wait=Fixed(0)), CircuitBreaker(failures=99), Timeout(5))

    async def work() -> int:
        if current_attempt().number == 1:
            raise ConnectionError
        await asyncio.sleep(0.001)
        return current_attempt().number

    guarded = pipeline.wrap(work)
    assert [asyncio.run(guarded()) for _ in range(3)] == [2, 2, 2]
    seen: list[int] = []
    threads = [
        threading.Thread(target=lambda: seen.append(asyncio.run(guarded()))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [2] * 8


@pytest.mark.fault(105)
def test_a_sync_call_inside_a_running_loop_works() -> None:
    """It blocks for as long as the call itself, and is timed once its kind is known."""

    @resilient(Timeout(0.2), Retry())
    def work() -> str:
        time.sleep(0.01)
        return "ok"

    async def main() -> list[str]:
        return [work(), work()]

    assert asyncio.run(main()) == ["ok", "ok"]


def test_an_async_deadline_does_not_move_sync_functions_inside_it_to_a_thread() -> None:
    """Only a sync Timeout may: code in a loop's thread counts on staying in it."""

    @resilient(Retry())
    def inner() -> int:
        return threading.get_ident()

    async def outer() -> list[int]:
        return [inner(), inner()]

    assert set(asyncio.run(_awaited(Pipeline(Timeout(5)).wrap(outer)))) == {threading.get_ident()}


@pytest.mark.fault(111)
def test_a_deadline_already_over_does_not_start_the_call() -> None:
    """With no time left nothing is sent."""
    calls: list[int] = []
    with virtual_time() as clock:

        def spend() -> None:
            clock.advance(5)
            raise ConnectionError

        def second() -> None:
            calls.append(1)

        pipeline = Pipeline(Timeout(1, pass_as="timeout"))
        with pytest.raises(ConnectionError):
            pipeline.call(lambda timeout: spend())
        with pytest.raises(DeadlineExceededError):
            Pipeline(Timeout(1)).call(lambda: clock.sleep(2) or second())
    assert calls == []


def test_switched_off_policies_do_nothing() -> None:
    """`disabled()` calls straight through, in its own context only."""
    attempts: list[int] = []

    @resilient(Retry(wait=Fixed(0)))
    def fail() -> None:
        attempts.append(1)
        raise ConnectionError

    with disabled(), pytest.raises(ConnectionError):
        fail()
    assert len(attempts) == 1
    with pytest.raises(ConnectionError):
        fail()
    assert len(attempts) == 4


async def _awaited(fn: Any) -> Any:
    return await fn()


def test_a_function_said_to_be_sync_is_timed_from_its_first_call_in_a_loop() -> None:
    """`asynchronous=False` settles it: no first call on the spot."""

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            Pipeline(Timeout(0.02), asynchronous=False).call(time.sleep, 0.3)

    asyncio.run(main())


def _factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **options)


LOOPS: dict[str, tuple[bool, Any]] = {"debug": (True, None), "factory": (False, _factory)}
if sys.version_info >= (3, 12):
    LOOPS["eager"] = False, asyncio.eager_task_factory


@pytest.mark.fault(104)
@pytest.mark.parametrize(("debug", "factory"), LOOPS.values(), ids=LOOPS)
def test_loops_of_another_kind(debug: bool, factory: Any) -> None:
    """Debug mode, a task factory of the user's own, tasks that begin at once."""
    made: list[int] = []

    async def flaky(number: int) -> int:
        made.append(number)
        if number % 2 and made.count(number) == 1:
            raise ConnectionError
        await asyncio.sleep(30 if number % 5 == 4 else 0)
        return number

    guarded = Pipeline(Retry(attempts=2, wait=0), CircuitBreaker(failures=99), Timeout(0.05)).wrap(
        flaky
    )

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_task_factory(factory)
        tasks = [asyncio.create_task(guarded(number)) for number in range(10)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(main(), debug=debug)
    assert [each if isinstance(each, int) else type(each) for each in found] == [
        *(0, 1, 2, 3, DeadlineExceededError, 5, 6, 7, 8, DeadlineExceededError)
    ]


class Slow(Policy):
    """Does something slow of its own before each call."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def slow(call: Call) -> Any:
            return await runtime.blocking(lambda: "slow", call), await inner(call)

        return slow


def test_a_policy_may_do_something_slow(world: World) -> None:
    """Away from an event loop; in a sync call, in place."""
    assert world.run(Pipeline(Slow()).wrap(world.function("ok"))) == ("slow", "ok")
