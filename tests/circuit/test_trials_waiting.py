"""`wait_for_trial`: calls beyond the trials wait for the verdict."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from conftest import Takes, World
from resilience import CircuitBreaker, CircuitOpenError, DeadlineExceededError, Pipeline, Timeout
from resilience.testing import VirtualTime, virtual_time
from support.circuits import admit, in_tasks, opened, outcomes, slots_of
from support.polling import until
from support.states import ACTS, Act, made


@pytest.fixture
def clock() -> Iterator[VirtualTime]:
    """Virtual time from 0."""
    with virtual_time(start=0) as clock:
        yield clock


@in_tasks
def test_callers_wait_for_the_verdict(world: World) -> None:
    """They are let through when the trial goes well."""
    breaker = opened(world, wait_for_trial=10)
    guarded = Pipeline(breaker).wrap(world.function(Takes(3, "first"), "ok"))
    assert outcomes(world, guarded, [0, 1, 2]) == [("first", 3), ("ok", 3), ("ok", 3)]


@in_tasks
def test_callers_are_rejected_when_the_trial_fails(world: World) -> None:
    """At the moment of the verdict, not when their patience ends."""
    breaker = opened(world, wait_for_trial=10)
    guarded = Pipeline(breaker).wrap(world.function(Takes(3, ConnectionError)))
    assert outcomes(world, guarded, [0, 1]) == [(ConnectionError, 3), (CircuitOpenError, 3)]


@in_tasks
def test_callers_wait_no_longer_than_they_are_told(world: World) -> None:
    """Patience ends before the verdict: rejected."""
    breaker = opened(world, wait_for_trial=2)
    guarded = Pipeline(breaker).wrap(world.function(Takes(30, "ok")))
    assert outcomes(world, guarded, [0, 1]) == [("ok", 30), (CircuitOpenError, 3)]
    assert not breaker._only._waiting


@in_tasks
def test_those_who_wait_do_not_keep_one_another_awake(world: World) -> None:
    """Twenty callers wait for one verdict, and each looks again once."""
    breaker = opened(world, wait_for_trial=10)
    guarded = Pipeline(breaker).wrap(world.function(Takes(3, "first"), "ok"))
    circuit, looks = breaker._only, []
    queue = type(circuit)._queue

    def counting(self: Any, waiter: Any, now: float) -> float | None:
        looks.append(now)
        return queue(self, waiter, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(circuit), "_queue", counting)
        found = outcomes(world, guarded, [0.0, *[1.0] * 20])
    assert found == [("first", 3), *[("ok", 3)] * 20]
    assert len(looks) == 20


@in_tasks
def test_a_waiting_caller_takes_the_slot_of_a_hanging_trial(world: World) -> None:
    """It need not be woken for that: it knows when the trial is given up on."""
    breaker = opened(world, wait_for_trial=10, trial_timeout=4)
    guarded = Pipeline(breaker).wrap(world.function(Takes(30, "late"), "ok"))
    assert outcomes(world, guarded, [0, 1]) == [("late", 30), ("ok", 4)]
    assert breaker.state == "closed"


@in_tasks
def test_a_slot_given_back_wakes_a_waiting_caller(world: World) -> None:
    """A trial without a verdict frees its slot for who waits."""
    breaker = opened(world, wait_for_trial=10)
    guarded = Pipeline(breaker).wrap(world.function(Takes(3, ValueError), "ok"))
    assert outcomes(world, guarded, [0, 1]) == [(ValueError, 3), ("ok", 3)]


@pytest.mark.fault(11)
@in_tasks
def test_a_waiting_caller_can_be_cancelled(world: World) -> None:
    """By a deadline here; it leaves nothing behind, and takes no slot later."""
    breaker = opened(world, wait_for_trial=10)
    guarded = Pipeline(Timeout(2), breaker, Timeout(1)).wrap(world.function("ok"))
    held = admit(breaker._only)
    assert outcomes(world, guarded, [0]) == [(DeadlineExceededError, 2)]
    held.drop()
    assert (breaker._only._waiting, slots_of(breaker._only)) == ([], [])


@in_tasks
@pytest.mark.parametrize(
    ("command", "result"), [("close", "ok"), ("disable", "ok"), ("isolate", CircuitOpenError)]
)
def test_a_manual_command_wakes_who_waits(world: World, command: str, result: Any) -> None:
    """They are let through or rejected at that moment, not when their patience ends."""
    breaker = opened(world, wait_for_trial=10)
    held = admit(breaker._only)
    world.clock.at(world.clock.now() + 3, getattr(breaker, command))
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    assert outcomes(world, guarded, [0]) == [(result, 3)]
    assert held.trial


@in_tasks
def test_who_waits_no_longer_leaves_nothing_behind(world: World) -> None:
    """Though the trial is still under way."""
    breaker = opened(world, wait_for_trial=2)
    held = admit(breaker._only)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    assert outcomes(world, guarded, [0]) == [(CircuitOpenError, 2)]
    assert not breaker._only._waiting
    assert slots_of(breaker._only) == [held.permit]


@in_tasks
def test_less_than_a_second_is_waited(world: World) -> None:
    """Until the trial is given up on."""
    breaker = opened(world, wait_for_trial=10, trial_timeout=0.5)
    held = admit(breaker._only)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    assert outcomes(world, guarded, [0]) == [("ok", 0.5)]
    assert held.trial


@in_tasks
def test_callers_with_a_key_wait_for_their_own_circuit(world: World) -> None:
    """The verdict of another value's trial is none of theirs."""
    breaker = opened(world, wait_for_trial=10, key="model")
    breaker.circuit("b").open()
    world.clock.advance(10)
    first, other = admit(breaker.circuit("a")), admit(breaker.circuit("b"))
    world.clock.at(world.clock.now() + 1, other.succeed)
    world.clock.at(world.clock.now() + 2, first.succeed)
    guarded = Pipeline(breaker).wrap(world.function("ok"))

    async def ask() -> Any:
        return await guarded(model="a")

    assert outcomes(world, ask, [0]) == [("ok", 2)]


# Blocks


@pytest.mark.fault(210)
@in_tasks
def test_a_block_in_a_loop_does_not_wait_with_a_plain_with(world: World) -> None:
    """`with` cannot; it is rejected at once, and the verdict wakes nobody."""
    breaker = opened(world, wait_for_trial=10)
    held = admit(breaker._only)

    async def block() -> None:
        async for attempt in Pipeline(breaker).attempts():
            with attempt:
                raise AssertionError

    assert outcomes(world, block, [0]) == [(CircuitOpenError, 0)]
    assert not breaker._only._waiting
    held.succeed()
    assert breaker.state == "closed"


@in_tasks
def test_a_block_entered_with_async_with_waits(world: World) -> None:
    """As a call does."""
    breaker = opened(world, wait_for_trial=10)
    held = admit(breaker._only)
    world.clock.at(world.clock.now() + 3, held.succeed)

    async def block() -> str:
        async for attempt in Pipeline(breaker).attempts():
            async with attempt:
                return "entered"
        raise AssertionError

    assert outcomes(world, block, [0]) == [("entered", 3)]


def test_a_sync_block_waits_for_the_verdict(clock: VirtualTime) -> None:
    """At `with`, as a call does; what is due on the clock gives the verdict."""
    entered: list[float] = []
    breaker = CircuitBreaker(failures=1, reset_after=10, wait_for_trial=20)
    breaker.open()
    clock.advance(10)
    held = admit(breaker._only)
    clock.at(13, held.succeed)
    for attempt in Pipeline(breaker).attempts():
        with attempt:
            entered.append(clock.now())
    assert entered == [13]


def test_a_sync_caller_waits_by_the_clock(clock: VirtualTime) -> None:
    """In one thread, what is due on the clock gives the verdict, and the deadline ends it."""
    breaker = CircuitBreaker(failures=1, reset_after=10, wait_for_trial=20)
    breaker.open()
    clock.advance(10)
    held = admit(breaker._only)
    with pytest.raises(DeadlineExceededError):
        Pipeline(Timeout(2), breaker, Timeout(1)).call(lambda: 1)
    assert clock.now() == 12
    clock.at(15, held.succeed)
    assert Pipeline(breaker).call(lambda: 1) == 1
    assert clock.now() == 15


@pytest.mark.fault(210)
def test_a_sync_call_in_an_event_loop_does_not_wait(clock: VirtualTime) -> None:
    """Of a function not yet known, which must not block the loop: rejected at once."""
    breaker = CircuitBreaker(failures=1, reset_after=10, wait_for_trial=20)
    breaker.open()
    clock.advance(10)
    held = admit(breaker._only)

    async def main() -> None:
        with pytest.raises(CircuitOpenError):
            Pipeline(breaker).call(lambda: 1)

    asyncio.run(main())
    assert (clock.now(), held.trial) == (10, True)


# Real threads and loops


@pytest.mark.real
def test_threads_and_loops_wait_for_a_thread() -> None:
    """A verdict in one thread wakes callers in threads, in asyncio and in trio."""
    breaker = CircuitBreaker(failures=1, reset_after=0.01, wait_for_trial=20)
    breaker.open()
    time.sleep(0.02)
    held = admit(breaker._only)
    pipeline = Pipeline(breaker)

    async def fn() -> int:
        return 2

    results: list[int] = []

    async def main() -> None:
        results.append(await pipeline.call(fn))

    threads = [
        threading.Thread(target=lambda: results.append(pipeline.call(lambda: 1))),
        threading.Thread(target=lambda: asyncio.run(main())),
        threading.Thread(target=lambda: trio.run(main)),
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(breaker._only._waiting) == 3)
    begun = time.monotonic()
    held.succeed()
    for thread in threads:
        thread.join(10)
    assert time.monotonic() - begun < 5
    assert sorted(results) == [1, 2, 2]


@pytest.mark.real
def test_a_sync_caller_waits_no_longer_than_its_deadline() -> None:
    """A `Timeout` outside ends the wait."""
    breaker = CircuitBreaker(failures=1, reset_after=0.01, wait_for_trial=20)
    breaker.open()
    time.sleep(0.02)
    held = admit(breaker._only)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        Pipeline(Timeout(0.05), breaker, Timeout(0.04)).call(lambda: 1)
    assert time.monotonic() - begun < 5
    assert slots_of(breaker._only) == [held.permit]
    assert not breaker._only._waiting


# Whether there is anything to wait for


@pytest.mark.parametrize(
    ("act", "due"),
    list(zip(ACTS, [0.0, None, 0.0, 4.0, None, 0.0, None, None], strict=True)),
)
def test_how_long_to_wait_for_a_verdict(clock: VirtualTime, act: Act, due: float | None) -> None:
    """Only where trials are under way; where there is a slot, not at all."""
    circuit = made(act, clock).circuit
    waiter: Any = object()

    assert circuit._queue(waiter, clock.now()) == due
    assert (waiter in circuit._waiting) is (due == 4)
    circuit._unqueue(waiter)
    assert not circuit._waiting
