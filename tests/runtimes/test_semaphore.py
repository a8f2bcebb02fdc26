"""The fair semaphore, and bulkheads made of it: never too many, in order, no permit is lost."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any

import pytest
import trio
import trio.testing

from conftest import World, async_worlds
from resilience import (
    DeadlineExceededError,
    ModelFallback,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
)
from resilience._core import semaphore as semaphores
from resilience._core.context import get_ambient
from resilience._core.guard import drive
from resilience._runtimes.asyncio_ import asyncio_
from resilience._runtimes.loops import runtime_for
from resilience._runtimes.threads import not_waiting, threads
from resilience.policy import Runtime, Semaphore
from resilience.testing import virtual_time
from support.arriving import Arrival, arriving, at_the_end_of_a_with, interrupt
from support.calling import rest_and_full, run_in
from support.concurrency import fast_switching, in_threads, run_apart  # noqa: F401
from support.gates import Bulkhead
from support.polling import until

both_loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])


def acquire(semaphore: Semaphore, patience: float = 20.0) -> bool:
    """In a thread."""
    return bool(drive(semaphore.acquire(threads, None, patience)))


async def pause(loop: str, seconds: float = 0.0) -> None:
    await (asyncio.sleep(seconds) if loop == "asyncio" else trio.sleep(seconds))


async def happens(loop: str, true: Callable[[], object]) -> None:
    """Wait for something that other tasks do."""
    for _ in range(5_000):
        if true():
            return
        await pause(loop, 0.001)


async def together(loop: str, *runs: Callable[[], Awaitable[Any]]) -> None:
    """Run them all at once, to their ends."""
    if loop == "asyncio":
        await asyncio.gather(*(run() for run in runs))
        return
    async with trio.open_nursery() as nursery:
        for run in runs:
            nursery.start_soon(run)


# Options


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ((0,), ValueError),
        ((True,), TypeError),
        ((1.5,), TypeError),
        ((1, -1), ValueError),
        ((1, "2"), TypeError),
        ((1, math.nan), ValueError),
    ],
)
def test_bad_numbers_are_refused(options: Any, error: type[Exception]) -> None:
    """At construction, by name."""
    with pytest.raises(error, match=r"^(permits|queue) must "):
        Semaphore(*options)


# One after the other


def test_a_queue_of_nobody() -> None:
    """Where all permits are taken, nobody waits for one."""
    semaphore = Semaphore(1, 0)
    assert acquire(semaphore)
    assert not acquire(semaphore)


def test_permits_are_counted() -> None:
    """What is taken is not free, what is given back is."""
    semaphore = Semaphore(2)
    assert [semaphore.try_acquire() for _ in range(3)] == [True, True, False]
    assert (semaphore.free, semaphore.waiting) == (0, 0)
    semaphore.release()
    assert semaphore.free == 1
    assert acquire(semaphore)
    assert not acquire(semaphore, 0.0)
    assert (semaphore.free, semaphore.waiting) == (0, 0)


@async_worlds
def test_who_had_to_wait_is_forgotten(world: World) -> None:
    """A semaphore keeps nothing of a call that came in, or of one that lost patience."""
    semaphore = Semaphore(1)
    assert semaphore.try_acquire()
    came: list[bool] = []

    async def ask(patience: float) -> None:
        runtime = runtime_for(get_ambient(), asynchronous=True)
        came.append(await semaphore.acquire(runtime, None, patience))

    async def give() -> None:
        await world.clock.asleep(2)
        semaphore.release()

    async def main() -> None:
        await together(world.name, lambda: ask(1), lambda: ask(5), give)

    world.run(main)
    assert came == [False, True]
    assert (semaphore.free, semaphore.waiting) == (0, 0)
    assert not semaphore._given


def test_a_call_waits_no_longer_than_its_time_limit() -> None:
    """However patient the policy is; a sync call, too."""
    bulkhead = Bulkhead(1, patience=60)
    assert bulkhead.slots.try_acquire()
    with virtual_time(start=0.0) as clock:
        guarded = Pipeline(Timeout(5), bulkhead).wrap(lambda: "ok")
        with pytest.raises(DeadlineExceededError):
            guarded()
        assert clock.now() == 5
    assert bulkhead.slots.waiting == 0


@rest_and_full
def test_a_bulkhead_lets_in_so_many(world: World, listeners: Any) -> None:
    """A call inside a call finds no permit, loses patience, and is rejected; then all are free."""
    bulkhead = Bulkhead(1, patience=5)
    pipeline = Pipeline(bulkhead, listeners=listeners)
    inner = pipeline.wrap(world.function("never"))

    def body(*args: Any) -> Any:
        return inner()

    async def abody(*args: Any) -> Any:
        return await inner()

    with pytest.raises(RejectedError):
        world.run(pipeline.wrap(abody if world.asynchronous else body))
    assert world.calls == []
    assert world.clock.now() == 1005
    assert (bulkhead.slots.free, bulkhead.slots.waiting) == (1, 0)
    assert world.run(inner) == "never"
    assert bulkhead.slots.free == 1


@pytest.mark.fault(32)
@pytest.mark.real
@both_loops
def test_a_full_queue_and_no_patience(loop: str) -> None:
    """Whoever finds the queue full is rejected at once; who loses patience leaves it."""
    semaphore = Semaphore(1, 2)
    assert semaphore.try_acquire()
    found: dict[str, bool] = {}

    async def main() -> None:
        runtime = runtime_for(None, asynchronous=True)

        async def ask(name: str, after: int, patience: float) -> None:
            while semaphore.waiting < after:
                await pause(loop)
            found[name] = await semaphore.acquire(runtime, None, patience)

        async def give() -> None:
            while "impatient" not in found:
                await pause(loop, 0.001)
            assert semaphore.waiting == 1
            semaphore.release()

        await together(
            loop,
            lambda: ask("impatient", 0, 0.05),
            lambda: ask("patient", 1, 20),
            lambda: ask("too many", 2, 20),
            give,
        )

    run_in(loop, main)
    assert list(found.items()) == [("too many", False), ("impatient", False), ("patient", True)]
    assert (semaphore.free, semaphore.waiting) == (0, 0)


@async_worlds
def test_waiting_holds_up_no_other_task(world: World) -> None:
    """Calls of one loop take turns by a bulkhead, in order, while others go on."""
    bulkhead = Bulkhead(2)
    order: list[int] = []
    inside: list[int] = []
    peak: list[int] = []

    @Pipeline(bulkhead)
    async def work(number: int) -> None:
        order.append(number)
        inside.append(number)
        peak.append(len(inside))
        await world.clock.asleep(3)
        inside.remove(number)

    async def main() -> None:
        await together(world.name, *((lambda n=n: work(n)) for n in range(6)))

    run_in(world.name, main)
    if world.name == "asyncio":  # trio begins tasks in a random order
        assert order == [0, 1, 2, 3, 4, 5]
    assert max(peak) == 2
    assert world.clock.now() == 1009
    assert bulkhead.verdicts == [None] * 6


# Many at once


@pytest.mark.fault(32)
@pytest.mark.real
def test_permits_are_given_in_the_order_of_asking() -> None:
    """Threads and tasks of two loops, queued one after the other: served in that order."""
    semaphore = Semaphore(1)
    assert semaphore.try_acquire()
    served: list[int] = []

    async def ask(runtime: Runtime, number: int) -> None:
        assert await semaphore.acquire(runtime, None, 20)
        served.append(number)
        semaphore.release()

    loops: dict[str, Any] = {}

    def in_asyncio() -> None:
        async def main() -> None:
            loops["asyncio"] = asyncio.get_running_loop()
            await over.wait()

        over = asyncio.Event()
        loops["asyncio over"] = over
        asyncio.run(main())

    def in_trio() -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery:
                loops["nursery"] = nursery
                loops["trio"] = trio.lowlevel.current_trio_token()
                await trio.sleep_forever()

        trio.run(main)

    workers = [threading.Thread(target=each, daemon=True) for each in (in_asyncio, in_trio)]
    for worker in workers:
        worker.start()
    until(lambda: {"asyncio", "trio"} <= loops.keys())
    tasks: list[Any] = []

    def queue(number: int) -> None:
        if number % 3 == 0:
            thread = threading.Thread(target=lambda: drive(ask(threads, number)), daemon=True)
            workers.append(thread)
            thread.start()
        elif number % 3 == 1:
            task = asyncio.run_coroutine_threadsafe(ask(asyncio_, number), loops["asyncio"])
            tasks.append(task)
        else:

            def spawn() -> None:
                from resilience._runtimes.trio_ import trio_

                loops["nursery"].start_soon(ask, trio_, number)

            loops["trio"].run_sync_soon(spawn)

    for number in range(90):
        queue(number)
        until(lambda number=number: semaphore.waiting == number + 1)  # type: ignore[misc]
    semaphore.release()
    until(lambda: len(served) == 90 and semaphore.free == 1)
    assert served == list(range(90))
    assert semaphore.waiting == 0
    loops["asyncio"].call_soon_threadsafe(loops["asyncio over"].set)
    loops["trio"].run_sync_soon(loops["nursery"].cancel_scope.cancel)
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()


class Crowd:
    """Counts who is inside at the same time, and how many came through."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.peak = self.through = 0

    def enter(self) -> None:
        with self.lock:
            self.inside += 1
            self.through += 1
            self.peak = max(self.peak, self.inside)

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1


@pytest.mark.fault(22, 103)
@pytest.mark.real
@pytest.mark.usefixtures("fast_switching")
def test_32_threads_and_two_loops_never_exceed_the_permits() -> None:
    """One bulkhead for all of them: four at once at the most, and everybody's turn comes."""
    bulkhead, crowd = Bulkhead(4), Crowd()
    pipeline = Pipeline(bulkhead)

    @pipeline
    def work(number: int) -> None:
        crowd.enter()
        if number % 3 == 0:
            time.sleep(0.0001)
        crowd.leave()

    @pipeline
    async def awork(loop: str, number: int) -> None:
        crowd.enter()
        await pause(loop, 0.0001 if number % 3 == 0 else 0)
        crowd.leave()

    def one(n: int) -> None:
        if n >= 32:
            loop = ["asyncio", "trio"][n - 32]

            async def calls() -> None:
                for number in range(10):
                    await awork(loop, number)

            run_in(loop, lambda: together(loop, *([calls] * 30)))
            return
        for number in range(25):
            work(number)

    in_threads(34, one)
    assert crowd.through == 32 * 25 + 2 * 30 * 10
    assert crowd.peak <= 4
    assert crowd.inside == 0
    assert (bulkhead.slots.free, bulkhead.slots.waiting) == (4, 0)


# Those who leave


@pytest.mark.fault(28)
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # one that was just to be awaited
def test_ctrl_c_at_any_step_leaves_nobody_in_the_queue() -> None:
    """Neither between queueing and waiting, nor afterwards."""
    for step in count(1):
        semaphore = Semaphore(1)
        assert semaphore.try_acquire()
        call = partial(acquire, semaphore, 0.0)
        try:
            if not arriving(interrupt, step, call, {semaphores.__file__}):
                assert step > 50
                return
        except KeyboardInterrupt as problem:
            if semaphore._lock._is_owned() and at_the_end_of_a_with(problem):
                continue
        assert not semaphore._lock._is_owned(), step
        assert semaphore.waiting == 0, step
        semaphore.release()
        assert semaphore.free == 1, step


async def cut(loop: str, seconds: float, fn: Callable[[], Awaitable[Any]]) -> bool:
    """Run it and cancel it after so long: whether it was still under way."""
    if loop == "trio":
        with trio.move_on_after(seconds) as scope:
            await fn()
        return bool(scope.cancelled_caught)
    task = asyncio.ensure_future(fn())
    await asyncio.sleep(seconds)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


@pytest.mark.fault(4)
@pytest.mark.real
@both_loops
@pytest.mark.parametrize("seed", range(3))
def test_200_waiters_cancelled_and_timed_out_at_random(loop: str, seed: int) -> None:
    """In the queue, or with the permit on its way to them: all permits come back."""
    chance = random.Random(seed)
    bulkhead, crowd = Bulkhead(3, patience=0.03), Crowd()
    ends: list[str] = []

    async def work() -> None:
        crowd.enter()
        try:
            await pause(loop, chance.choice([0, 0, 0.001]))
        finally:
            crowd.leave()

    async def one(number: int) -> None:
        limits = [Timeout(chance.uniform(0.001, 0.03))] if number % 4 == 1 else []
        timed = Pipeline(*limits, bulkhead).wrap(work)
        await pause(loop, chance.uniform(0, 0.01))
        try:
            if number % 4 == 0:
                ends.append("cancelled" if await cut(loop, chance.uniform(0, 0.02), timed) else "")
            else:
                await timed()
                ends.append("")
        except (RejectedError, DeadlineExceededError) as error:
            ends.append(type(error).__name__)

    run_in(loop, lambda: together(loop, *((lambda n=n: one(n)) for n in range(200))))
    assert len(ends) == 200
    assert {"cancelled", "DeadlineExceededError", ""} <= set(ends)
    assert crowd.peak <= 3
    assert crowd.inside == 0
    assert (bulkhead.slots.free, bulkhead.slots.waiting) == (3, 0)
    assert [bulkhead.slots.try_acquire() for _ in range(4)] == [True, True, True, False]


@pytest.mark.fault(4)
@pytest.mark.real
@pytest.mark.usefixtures("fast_switching")
def test_200_threads_that_lose_patience_at_random() -> None:
    """By their own patience or by a deadline: all permits come back."""
    bulkhead, crowd = Bulkhead(3, patience=0.004), Crowd()

    def work() -> None:
        crowd.enter()
        time.sleep(0.002)
        crowd.leave()

    ends: list[type | None] = []
    meeting = threading.Barrier(40)

    def one(number: int) -> None:
        chance = random.Random(number)
        limits = [Timeout(chance.uniform(0.001, 0.02))] if number % 2 else []
        for _ in range(5):
            meeting.wait(10)
            try:
                Pipeline(*limits, bulkhead).call(work)
                ends.append(None)
            except (RejectedError, DeadlineExceededError) as error:
                ends.append(type(error))

    in_threads(40, one)
    assert len(ends) == 200
    assert {None, RejectedError, DeadlineExceededError} <= {*ends}
    until(lambda: crowd.inside == 0)  # one that was left behind ends by itself
    assert crowd.peak <= 3 + ends.count(DeadlineExceededError)
    assert (bulkhead.slots.free, bulkhead.slots.waiting) == (3, 0)


@pytest.mark.fault(4)
@pytest.mark.real
@both_loops
def test_a_permit_given_in_the_moment_of_the_cancellation_goes_on(loop: str) -> None:
    """To the next in the queue; and if there is none, it is free again."""
    semaphore = Semaphore(1)
    assert semaphore.try_acquire()
    got: list[str] = []

    async def main() -> None:
        runtime = runtime_for(None, asynchronous=True)

        async def ask(name: str) -> None:
            if await semaphore.acquire(runtime, None, 20):
                got.append(name)

        if loop == "asyncio":
            tasks = [asyncio.ensure_future(ask(name)) for name in "abc"]
            await asyncio.sleep(0)
            semaphore.release()  # to "a", who does not know yet
            tasks[0].cancel()
            await happens(loop, lambda: got)
            semaphore.release()
            tasks[2].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return
        scopes = {name: trio.CancelScope() for name in "abc"}

        async def scoped(name: str) -> None:
            with scopes[name]:
                await ask(name)

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(scoped, name)
                await trio.testing.wait_all_tasks_blocked()
            semaphore.release()
            scopes["a"].cancel()
            await happens(loop, lambda: got)
            semaphore.release()
            scopes["c"].cancel()

    run_in(loop, main)
    assert got == ["b"]
    assert (semaphore.free, semaphore.waiting) == (1, 0)


@pytest.mark.real
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_waiter_whose_loop_has_ended_keeps_no_permit(loop: str) -> None:
    """Who was cancelled with the loop has left the queue; others go on."""
    semaphore = Semaphore(1)
    assert semaphore.try_acquire()

    async def main() -> None:
        runtime = runtime_for(None, asynchronous=True)
        await cut(loop, 0.005, lambda: semaphore.acquire(runtime, None, 20))

    run_in(loop, main)
    assert semaphore.waiting == 0
    semaphore.release()
    assert semaphore.free == 1


@pytest.mark.fault(28, 33)
def test_a_permit_given_back_while_one_is_asked_for() -> None:
    """By a finalizer that comes when none was free, and before the call is in the queue."""
    semaphore = Semaphore(1)
    assert semaphore.try_acquire()
    semaphore._lock = Arrival(semaphore._lock, semaphore.release, 1, leaving=True)  # type: ignore[assignment]
    assert acquire(semaphore, patience=0.0)
    assert (semaphore.free, semaphore.waiting) == (0, 0)


@pytest.mark.fault(28, 33)
@pytest.mark.real
@pytest.mark.steady
def test_a_permit_given_back_at_any_step_of_asking_for_one() -> None:
    """By a finalizer or a signal handler of the very thread that asks: it is not overlooked."""
    code = """
import sys
from resilience._core import semaphore as module
from resilience._core import semaphore as semaphores
from resilience._core.guard import drive
from resilience._runtimes.threads import threads
from resilience.policy import Semaphore

def asked(step, patience):
    semaphore, left = Semaphore(1), step
    semaphore.try_acquire()
    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename != module.__file__ or frame.f_code.co_name == "release":
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                sys.settrace(None)
                semaphore.release()
        return trace
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for this when tracing begins
    sys.settrace(trace)
    got = drive(semaphore.acquire(threads, None, patience))
    sys.settrace(None)
    return left <= 0, got, semaphore.free, semaphore.waiting

steps, bad, late = 0, [], None
while True:
    steps += 1
    reached, *found = asked(steps, 0.005)
    if not reached:
        break
    if found not in ([True, 0, 0], [False, 1, 0]):  # the latter when its time was over
        bad.append((steps, found))
    if found[0] is False:
        late = steps if late is None else late
    elif late is not None:
        bad.append((steps, "overlooked"))
print(steps > 40, bad)
"""
    assert run_apart(code, measured=False) == ["True", "[]"]


# Where waiting would stop an event loop


@pytest.mark.fault(105, 210)
@pytest.mark.real
@both_loops
@rest_and_full
def test_a_bulkhead_never_blocks_a_loop_for_a_function_not_yet_known(
    loop: str, listeners: Any
) -> None:
    """Full, with all the patience in the world: the call is rejected at once, and the loop runs."""
    bulkhead = Bulkhead(1, patience=60)
    pipeline = Pipeline(Retry(), bulkhead, listeners=listeners)
    chain = Pipeline(ModelFallback("a", "b"), Retry(), bulkhead, listeners=listeners)
    assert bulkhead.slots.try_acquire()  # by another thread, say

    async def main() -> float:
        begun = time.monotonic()
        with pytest.raises(RejectedError):
            pipeline.call(lambda: "never")
        with pytest.raises(RejectedError):
            chain.call(lambda *, model: "never", model="a")
        took = time.monotonic() - begun
        bulkhead.slots.release()
        assert pipeline.call(lambda: "free") == "free"
        return took

    assert run_in(loop, main) < 1
    assert (bulkhead.slots.free, bulkhead.slots.waiting) == (1, 0)


@pytest.mark.fault(105)
@pytest.mark.real
@both_loops
@rest_and_full
def test_a_function_found_to_be_async_waits_without_blocking(loop: str, listeners: Any) -> None:
    """What comes back tells that it is async: the permit goes back until the result is awaited."""
    bulkhead, crowd = Bulkhead(1), Crowd()
    pipeline = Pipeline(bulkhead, listeners=listeners)
    begun: list[int] = []

    async def work(number: int) -> int:
        crowd.enter()
        await pause(loop, 0.001)
        crowd.leave()
        return number

    def create(number: int) -> Any:  # as OpenAI's: not a coroutine function
        begun.append(number)
        return work(number)

    async def main() -> None:
        calls = [pipeline.call(create, number) for number in range(20)]
        assert begun[0] == 0  # on the spot; then it is known
        assert (bulkhead.slots.free, bulkhead.slots.waiting) == (1, 0)
        found: list[int] = []

        async def await_it(call: Any) -> None:
            found.append(await call)

        await together(loop, *((lambda call=call: await_it(call)) for call in calls))
        assert sorted(found) == list(range(20))

    run_in(loop, main)
    assert sorted(begun) == list(range(20))
    assert crowd.peak == 1
    assert (bulkhead.slots.free, bulkhead.slots.waiting) == (1, 0)


@pytest.mark.fault(210)
def test_who_may_not_wait_does_not_queue() -> None:
    """The runtime of such a call says so, and its waiters are not waited for."""
    semaphore = Semaphore(1)
    assert drive(semaphore.acquire(not_waiting, None, 60))
    assert not drive(semaphore.acquire(not_waiting, None, 60))
    assert (semaphore.free, semaphore.waiting) == (0, 0)
    assert drive(not_waiting.waiter().wait(60, None)) is False  # it was not set
