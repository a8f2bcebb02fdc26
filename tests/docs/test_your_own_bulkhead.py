"""The bulkhead of docs/your-own-policy.md: its limit, its queue, its permits, in every world."""

from __future__ import annotations

import gc
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from conftest import Takes, World, async_worlds
from resilience import (
    CircuitBreaker,
    DeadlineExceededError,
    ModelFallback,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    guarded,
    history,
)
from support.calling import error_of, rest_and_full, run_in
from support.functions import coloured
from support.gates import Stream
from support.own_policies import (
    Bulkhead,
    BulkheadFull,
    Chained,
    both_loops,
    cancelled,
    free,
    together,
    turns,
)
from support.polling import until


@async_worlds
def test_a_bulkhead_lets_so_many_in_and_the_others_in_order(world: World) -> None:
    """Six calls of three seconds, two at once: in the order in which they asked."""
    bulkhead = Bulkhead(2, patience=60)
    asked: list[int] = []
    begun: list[tuple[int, float]] = []
    inside = [0, 0]

    @Pipeline(bulkhead)
    async def work(number: int) -> None:
        begun.append((number, world.clock.now() - 1000))
        inside[0] += 1
        inside[1] = max(inside)
        await world.clock.asleep(3)
        inside[0] -= 1

    async def one(number: int) -> None:
        asked.append(number)
        await work(number)

    run_in(
        world.name,
        lambda: together(world.name, *((lambda n=number: one(n)) for number in range(6))),
    )
    assert [number for number, _ in begun] == asked
    assert [seconds for _, seconds in begun] == [0, 0, 3, 3, 6, 6]
    assert inside == [0, 2]
    assert free(bulkhead) == (2, 0)


@rest_and_full
@pytest.mark.real
def test_a_bulkhead_lets_threads_in_in_order(listeners: Any) -> None:
    """Three threads that asked one after the other get their permits in that order."""
    bulkhead = Bulkhead(1, patience=30)
    leave = threading.Event()
    begun: list[int] = []

    @Pipeline(bulkhead, listeners=listeners)
    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            leave.wait(30)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for number, thread in enumerate(threads):
        thread.start()
        until(lambda number=number: begun and free(bulkhead) == (0, number))
    leave.set()
    for thread in threads:
        thread.join()
    assert begun == [0, 1, 2, 3]
    assert free(bulkhead) == (1, 0)


def test_a_call_inside_the_only_call_loses_patience(world: World) -> None:
    """After so many seconds, in which the world goes on; the error is the inner call's."""
    bulkhead = Bulkhead(1, patience=4)
    guard = Pipeline(bulkhead)
    inner = guard.wrap(world.function("inner"))

    def call() -> Any:
        return inner()

    async def acall() -> Any:
        return await inner()

    error = error_of(world, guard.wrap(acall if world.asynchronous else call))
    assert type(error) is BulkheadFull
    assert world.clock.now() == 1004
    assert not world.calls
    assert free(bulkhead) == (1, 0)


@async_worlds
def test_who_finds_the_queue_full_is_rejected_at_once(world: World) -> None:
    """One is inside, one waits: the third gets its error before any time has passed."""
    bulkhead = Bulkhead(1, queue=1, patience=60)
    work = Pipeline(Retry(), bulkhead).wrap(world.function(Takes(3, "done")))
    ends: list[tuple[str, float]] = []

    async def one() -> None:
        try:
            found = await work()
        except RejectedError as error:
            found = type(error).__name__
        ends.append((found, world.clock.now() - 1000))

    run_in(world.name, lambda: together(world.name, one, one, one))
    assert ends == [("BulkheadFull", 0), ("done", 3), ("done", 6)]
    assert free(bulkhead) == (1, 0)


def test_a_rejection_is_for_the_policies_further_out(world: World) -> None:
    """A chain moves on from a model without room; a breaker does not count it."""
    breaker = CircuitBreaker(failures=1, key="model")
    bulkhead = Bulkhead(1, patience=1, key=lambda *, model: model)
    held = bulkhead.room((), {"model": "a"})
    assert held.try_acquire()
    chat = Pipeline(ModelFallback("a", "b"), Retry(), breaker, bulkhead).wrap(
        coloured(world, lambda *, model: model)
    )

    assert world.run(chat) == "b"
    assert breaker.circuit("a").state == "closed"
    held.release()
    assert world.run(chat) == "a"


def test_a_chain_does_not_wait_where_the_queue_is_full(world: World) -> None:
    """The bulkhead says that it would reject the call, so the model has no turn."""
    bulkhead = Bulkhead(1, queue=0, patience=60, key=lambda *, model: model)
    held = bulkhead.room((), {"model": "a"})
    assert held.try_acquire()
    chat = Pipeline(ModelFallback("a", "b"), bulkhead).wrap(coloured(world, lambda *, model: model))
    assert world.run(chat) == "b"
    assert world.clock.now() == 1000


def test_each_key_has_a_room(world: World) -> None:
    """Who has none for its model does not keep others from theirs."""
    bulkhead = Bulkhead(1, patience=1, key=lambda who, *, model: model)
    assert bulkhead.room(("me",), {"model": "full"}).try_acquire()
    ask = Pipeline(bulkhead).wrap(coloured(world, lambda who, *, model: model))

    assert world.run(ask, "me", model="empty") == "empty"
    assert type(error_of(world, ask, "me", model="full")) is BulkheadFull
    assert free(bulkhead, "you", model="empty") == (1, 0)


@async_worlds
@pytest.mark.parametrize("inside", [True, False])
def test_a_timeout_cuts_the_wait_for_a_permit(world: World, inside: bool) -> None:
    """One outside the bulkhead does; one inside it begins when the permit is there."""
    bulkhead = Bulkhead(1, patience=60)
    policies = [bulkhead, Timeout(2)] if inside else [Timeout(2), bulkhead]
    work = Pipeline(*policies).wrap(world.function(Takes(1.5, "done")))
    ends: list[str] = []

    async def one() -> None:
        try:
            ends.append(await work())
        except DeadlineExceededError:
            ends.append("late")

    run_in(world.name, lambda: together(world.name, one, one))
    assert ends == (["done", "done"] if inside else ["done", "late"])
    assert free(bulkhead) == (1, 0)


@rest_and_full
@pytest.mark.parametrize("error", [ValueError, ConnectionError, KeyboardInterrupt])
def test_permits_come_back(real_world: World, listeners: Any, error: type[BaseException]) -> None:
    """After an error of any kind; a healthy call has the room again."""
    bulkhead = Bulkhead(1, patience=0.001)
    work = Pipeline(Retry(attempts=2, wait=0), bulkhead, listeners=listeners).wrap(
        real_world.function(error, "ok", error, error, "ok")
    )
    ends: list[str] = []
    while len(ends) < 2:
        try:
            ends.append(real_world.run(work))
        except error:
            pass
        assert free(bulkhead) == (1, 0)
    assert ends == ["ok", "ok"]
    assert len(real_world.calls) == 5


@rest_and_full
@both_loops
def test_a_cancelled_call_gives_its_permit_back(loop: str, listeners: Any) -> None:
    """Whether it was inside or in the queue; those behind it go on."""
    bulkhead = Bulkhead(1, patience=30)
    leave: list[None] = []
    begun: list[int] = []

    @Pipeline(bulkhead, listeners=listeners)
    async def work(number: int) -> int:
        begun.append(number)
        while not leave:
            await turns(loop, 1)
        return number

    async def main() -> None:
        assert await cancelled(loop, lambda: work(0), lambda: begun)
        assert free(bulkhead) == (1, 0)

        async def last() -> None:
            while free(bulkhead) != (0, 1):
                await turns(loop, 1)
            await together(loop, lambda: work(3), cut)

        async def cut() -> None:
            assert await cancelled(loop, lambda: work(2), lambda: free(bulkhead)[1] >= 2)
            while free(bulkhead)[1] < 2:
                await turns(loop, 1)
            leave.append(None)

        await together(loop, lambda: work(1), lambda: work(4), last)

    run_in(loop, main)
    assert 2 not in begun
    assert begun[-1] == 3
    assert free(bulkhead) == (1, 0)


@rest_and_full
@pytest.mark.real
@both_loops
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_no_event_loop_is_blocked_by_a_sync_call(loop: str, known: bool, listeners: Any) -> None:
    """One on a loop's thread cannot wait for what a task of that loop has: it is rejected at
    once."""
    bulkhead = Bulkhead(1, patience=8)
    guard = Pipeline(Timeout(60), bulkhead, listeners=listeners)
    sync = guard.wrap(lambda: "sync")
    if known:
        assert sync() == "sync"
    leave: list[None] = []

    @guard
    async def hold() -> None:
        while not leave:
            await turns(loop, 1)

    async def main() -> float:
        began = time.monotonic()

        async def ask() -> None:
            while free(bulkhead)[0]:
                await turns(loop, 1)
            with pytest.raises(RejectedError):
                sync()
            leave.append(None)

        await together(loop, hold, ask)
        return time.monotonic() - began

    assert run_in(loop, main) < 4
    assert free(bulkhead) == (1, 0)


def test_a_bulkhead_is_kept_at_rest(real_world: World) -> None:
    """Healthy calls take their permits without the whole way; one that fails goes it, and does not
    ask for a second permit."""
    bulkhead, chained = Bulkhead(1, queue=1), Chained()
    inside: list[tuple[int, int]] = []

    def work(fails: bool) -> str:
        inside.append(free(bulkhead))
        if fails:
            raise ConnectionError
        return "ok"

    fn = Pipeline(chained, bulkhead, Retry(attempts=2, wait=0)).wrap(coloured(real_world, work))
    assert [real_world.run(fn, False) for _ in range(3)] == ["ok"] * 3
    assert chained.calls == 0
    assert len(history(error_of(real_world, fn, True))) == 2
    assert chained.calls == 1
    assert real_world.run(fn, False) == "ok"
    assert chained.calls == 1
    assert inside == [(0, 0)] * 6
    assert free(bulkhead) == (1, 0)


@both_loops
def test_a_call_that_finds_no_room_at_rest_waits_for_it(loop: str) -> None:
    """It goes the whole way, where it can wait; the one inside has never noticed."""
    bulkhead, chained = Bulkhead(1, patience=30), Chained()

    @Pipeline(chained, bulkhead)
    async def work() -> str:
        await turns(loop)
        return "ok"

    run_in(loop, lambda: together(loop, work, work, work))
    assert chained.calls == 2
    assert free(bulkhead) == (1, 0)


@rest_and_full
@pytest.mark.parametrize("end", ["end", "fail", "close", "forget"])
def test_a_stream_keeps_its_permit_to_its_end(real_world: World, listeners: Any, end: str) -> None:
    """Or until it fails, is closed, or is forgotten."""
    bulkhead = Bulkhead(1, queue=0)
    fn = Pipeline(bulkhead, listeners=listeners).wrap(real_world.function(lambda: Stream()))
    stream = real_world.run(fn)
    assert free(bulkhead) == (0, 0)
    assert type(error_of(real_world, fn)) is BulkheadFull
    if end == "forget":
        del stream
        gc.collect()
    else:
        getattr(stream, end)(*[ConnectionError()] * (end == "fail"))
    assert free(bulkhead) == (1, 0)


def test_a_bulkhead_around_a_block() -> None:
    """Each attempt at the block has a permit while it lasts."""
    bulkhead = Bulkhead(1, queue=0)
    inside: list[tuple[int, int]] = []
    for attempt in Pipeline(Retry(attempts=2, wait=0), bulkhead).attempts():
        with attempt:
            inside.append(free(bulkhead))
            if attempt.number == 1:
                raise ConnectionError
    assert inside == [(0, 0), (0, 0)]
    assert free(bulkhead) == (1, 0)


@async_worlds
def test_a_block_waits_for_its_permit(world: World) -> None:
    """In an `async for`, by `async with`."""
    bulkhead = Bulkhead(1, patience=60)
    ends: list[float] = []

    async def one() -> None:
        async for attempt in Pipeline(bulkhead).attempts():
            async with attempt:
                await world.clock.asleep(2)
        ends.append(world.clock.now() - 1000)

    run_in(world.name, lambda: together(world.name, one, one))
    assert ends == [2, 4]


def test_a_bulkhead_in_another_process_begins_anew() -> None:
    """It pickles as its options, while permits are out."""
    bulkhead = Bulkhead(1, queue=7, patience=2.5)
    assert bulkhead.room((), {}).try_acquire()
    other = pickle.loads(pickle.dumps(Pipeline(Retry(), bulkhead))).policies[1]
    assert repr(other) == repr(bulkhead)
    assert (free(bulkhead), free(other)) == ((0, 0), (1, 0))


@rest_and_full
@pytest.mark.real
def test_threads_and_loops_share_a_bulkhead(listeners: Any) -> None:
    """Never more inside than its limit, and everybody's turn comes."""
    bulkhead = Bulkhead(3, queue=1000, patience=60)
    guard = Pipeline(bulkhead, listeners=listeners)
    inside: set[object] = set()
    crowds: list[int] = []

    def begin() -> object:
        me = object()
        inside.add(me)
        crowds.append(len(inside))
        return me

    @guard
    def work() -> None:
        inside.discard(begin())

    def in_a_loop(loop: str) -> None:
        @guard
        async def awork() -> None:
            me = begin()
            await turns(loop, 1)
            inside.discard(me)

        async def several() -> None:
            for _ in range(10):
                await awork()

        run_in(loop, lambda: together(loop, *[several] * 10))

    def several_times() -> None:
        for _ in range(50):
            work()

    jobs: list[Callable[[], None]] = [several_times] * 6
    jobs += [lambda: in_a_loop("asyncio"), lambda: in_a_loop("trio")]
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(crowds) == 6 * 50 + 2 * 100
    assert max(crowds) <= 3
    assert free(bulkhead) == (3, 0)


def test_variants_of_a_function_share_its_policies(real_world: World) -> None:
    """Replacing another policy leaves the bulkhead where it is."""
    bulkhead = Bulkhead(1, queue=0)
    fn = Pipeline(Retry(), bulkhead).wrap(coloured(real_world, lambda: free(bulkhead)))
    assert real_world.run(guarded(fn).replacing(Retry(attempts=1))) == (0, 0)
    assert free(bulkhead) == (1, 0)
