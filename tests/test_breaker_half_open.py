"""Half open and just closed: tolerance, hanging trials, waiting for a verdict, the ramp."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from conftest import Takes, World
from resilience import CircuitBreaker, CircuitOpenError, DeadlineExceededError, Pipeline, Timeout
from resilience.testing import virtual_time


def outcomes(world: World, fn: Callable[..., Any], starts: list[float]) -> list[Any]:
    """Calls begun at these seconds, in tasks of one loop: result or error, and when it ended."""
    found: list[Any] = [None] * len(starts)
    begin = world.clock.now()

    async def one(number: int, at: float) -> None:
        await world.clock.asleep(at)
        try:
            result: Any = await fn()
        except Exception as error:
            result = type(error)
        found[number] = (result, world.clock.now() - begin)

    async def in_asyncio() -> None:
        await asyncio.gather(*(one(n, at) for n, at in enumerate(starts)))

    async def in_trio() -> None:
        async with trio.open_nursery() as nursery:
            for number, at in enumerate(starts):
                nursery.start_soon(one, number, at)

    asyncio.run(in_asyncio()) if world.name == "asyncio" else trio.run(in_trio)
    return found


in_tasks = pytest.mark.parametrize("world", ["asyncio", "trio"], indirect=True)


def opened(world: World, **options: Any) -> CircuitBreaker:
    """A breaker whose open time has just ended."""
    breaker = CircuitBreaker(failures=1, reset_after=10, **options)
    breaker.open()
    world.clock.advance(10)
    return breaker


def test_a_tolerated_share_of_trials_may_fail(world: World) -> None:
    """With 4 successes wanted and a fifth tolerated: one failure of five closes, a second opens."""
    for steps, state in [
        (["ok", ConnectionError, "ok", "ok", "ok"], "closed"),
        (["ok", ConnectionError, "ok", "ok", ConnectionError], "open"),
    ]:
        breaker = opened(world, successes=4, tolerate=0.2)
        guarded = Pipeline(breaker).wrap(world.function(*steps))
        for _ in steps[:-1]:
            world.run(guarded.outcome)
            assert breaker.state == "half-open"
        world.run(guarded.outcome)
        assert breaker.state == state


@in_tasks
def test_a_hanging_trial_is_given_up_on(world: World) -> None:
    """After `trial_timeout` its place is free; what it says later changes nothing."""
    breaker = opened(world, trial_timeout=5)
    guarded = Pipeline(breaker).wrap(
        world.function(Takes(20, ConnectionError), Takes(1, "ok"), "ok")
    )
    found = outcomes(world, guarded, [0, 4, 5, 21])
    assert found == [(ConnectionError, 20), (CircuitOpenError, 4), ("ok", 6), ("ok", 21)]
    assert breaker.state == "closed"


@in_tasks
def test_fault_021_a_trial_that_ends_after_its_time_is_no_verdict(world: World) -> None:
    """Also where nobody came along in the meantime."""
    breaker = opened(world, trial_timeout=5)
    guarded = Pipeline(breaker).wrap(world.function(Takes(5, "ok"), "ok"))
    outcomes(world, guarded, [0])
    assert (breaker.state, breaker._only._places) == ("half-open", {})
    outcomes(world, guarded, [0])
    assert breaker.state == "closed"


@in_tasks
def test_callers_wait_for_the_verdict(world: World) -> None:
    """They are let through when the trial goes well."""
    breaker = opened(world, wait_for_trial=10)
    guarded = Pipeline(breaker).wrap(world.function(Takes(3, "first"), "ok"))
    assert outcomes(world, guarded, [0, 1, 2]) == [("first", 3), ("ok", 3), ("ok", 3)]


@in_tasks
def test_callers_are_refused_when_the_trial_fails(world: World) -> None:
    """At the moment of the verdict, not when their patience ends."""
    breaker = opened(world, wait_for_trial=10)
    guarded = Pipeline(breaker).wrap(world.function(Takes(3, ConnectionError)))
    assert outcomes(world, guarded, [0, 1]) == [(ConnectionError, 3), (CircuitOpenError, 3)]


@in_tasks
def test_callers_wait_no_longer_than_they_are_told(world: World) -> None:
    """Patience ends before the verdict: refused."""
    breaker = opened(world, wait_for_trial=2)
    guarded = Pipeline(breaker).wrap(world.function(Takes(30, "ok")))
    assert outcomes(world, guarded, [0, 1]) == [("ok", 30), (CircuitOpenError, 3)]
    assert not breaker._only._bells


@in_tasks
def test_a_waiting_caller_takes_the_place_of_a_hanging_trial(world: World) -> None:
    """It need not be woken for that: it knows when the trial is given up on."""
    breaker = opened(world, wait_for_trial=10, trial_timeout=4)
    guarded = Pipeline(breaker).wrap(world.function(Takes(30, "late"), "ok"))
    assert outcomes(world, guarded, [0, 1]) == [("late", 30), ("ok", 4)]
    assert breaker.state == "closed"


@in_tasks
def test_a_place_given_back_wakes_a_waiting_caller(world: World) -> None:
    """A trial without a verdict frees its place for who waits."""
    breaker = opened(world, wait_for_trial=10)
    guarded = Pipeline(breaker).wrap(world.function(Takes(3, ValueError), "ok"))
    assert outcomes(world, guarded, [0, 1]) == [(ValueError, 3), ("ok", 3)]


@in_tasks
def test_fault_011_a_waiting_caller_can_be_cancelled(world: World) -> None:
    """By a deadline here; it leaves nothing behind, and takes no place later."""
    breaker = opened(world, wait_for_trial=10)
    guarded = Pipeline(Timeout(2), breaker, Timeout(50)).wrap(world.function("ok"))
    permit = breaker._only.admit(world.clock.now())
    assert outcomes(world, guarded, [0]) == [(DeadlineExceededError, 2)]
    permit.released()
    assert (breaker._only._bells, breaker._only._places) == ([], {})


@in_tasks
@pytest.mark.parametrize(
    ("act", "result"), [("close", "ok"), ("disable", "ok"), ("isolate", CircuitOpenError)]
)
def test_what_is_done_by_hand_wakes_who_waits(world: World, act: str, result: Any) -> None:
    """They are let through or refused at that moment, not when their patience ends."""
    breaker = opened(world, wait_for_trial=10)
    held = breaker._only.admit(world.clock.now())
    world.clock.at(world.clock.now() + 3, getattr(breaker, act))
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    assert outcomes(world, guarded, [0]) == [(result, 3)]
    assert not held.settled


@in_tasks
def test_who_waits_no_longer_leaves_nothing_behind(world: World) -> None:
    """Though the trial is still under way."""
    breaker = opened(world, wait_for_trial=2)
    held = breaker._only.admit(world.clock.now())
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    assert outcomes(world, guarded, [0]) == [(CircuitOpenError, 2)]
    assert not breaker._only._bells
    assert not held.settled


@in_tasks
def test_less_than_a_second_is_waited(world: World) -> None:
    """Until the trial is given up on."""
    breaker = opened(world, wait_for_trial=10, trial_timeout=0.5)
    held = breaker._only.admit(world.clock.now())
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    assert outcomes(world, guarded, [0]) == [("ok", 0.5)]
    assert not held.settled


@in_tasks
def test_a_block_in_a_loop_does_not_wait_for_a_verdict(world: World) -> None:
    """`with` cannot; it is refused at once, and the verdict wakes nobody."""
    breaker = opened(world, wait_for_trial=10)
    permit = breaker._only.admit(world.clock.now())

    async def block() -> None:
        async for attempt in Pipeline(breaker).attempts():
            with attempt:
                raise AssertionError

    assert outcomes(world, block, [0]) == [(CircuitOpenError, 0)]
    permit.succeeded()
    assert breaker.state == "closed"


def test_a_sync_block_waits_for_the_verdict() -> None:
    """At `with`, as a call does; what is due on the clock gives the verdict."""
    entered: list[float] = []
    with virtual_time(start=0) as clock:
        breaker = CircuitBreaker(failures=1, reset_after=10, wait_for_trial=20)
        breaker.open()
        clock.advance(10)
        permit = breaker._only.admit(clock.now())
        clock.at(13, permit.succeeded)
        for attempt in Pipeline(breaker).attempts():
            with attempt:
                entered.append(clock.now())
    assert entered == [13]


def test_a_sync_caller_waits_by_the_clock() -> None:
    """In one thread, what is due on the clock gives the verdict, and the deadline ends it."""
    with virtual_time() as clock:
        breaker = CircuitBreaker(failures=1, reset_after=10, wait_for_trial=20)
        breaker.open()
        clock.advance(10)
        permit = breaker._only.admit(clock.now())
        start = clock.now()
        with pytest.raises(DeadlineExceededError):
            Pipeline(Timeout(2), breaker, Timeout(50)).call(lambda: 1)
        assert clock.now() - start == 2
        clock.at(start + 5, permit.succeeded)
        assert Pipeline(breaker).call(lambda: 1) == 1
        assert clock.now() - start == 5


@pytest.mark.real
def test_threads_and_loops_wait_for_a_thread() -> None:
    """A verdict in one thread wakes callers in threads, in asyncio and in trio."""
    breaker = CircuitBreaker(failures=1, reset_after=0.01, wait_for_trial=20)
    breaker.open()
    time.sleep(0.02)
    permit = breaker._only.admit(time.monotonic())
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
    while len(breaker._only._bells) < 3:
        time.sleep(0.001)
    begun = time.monotonic()
    permit.succeeded()
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
    trial = breaker._only.admit(time.monotonic())
    begun = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        Pipeline(Timeout(0.05), breaker, Timeout(50)).call(lambda: 1)
    assert time.monotonic() - begun < 5
    assert not trial.settled
    assert not breaker._only._bells


def test_fault_028_a_permit_that_is_lost_frees_its_place(world: World) -> None:
    """As Ctrl-C between any two steps may lose it: the next call is let through."""
    breaker = opened(world)
    permit = breaker._only.admit(world.clock.now())
    assert breaker.snapshot().trials == 1
    with pytest.raises(CircuitOpenError):
        world.run(Pipeline(breaker).wrap(world.function("ok")))

    del permit
    assert breaker.snapshot().trials == 0
    assert world.run(Pipeline(breaker).wrap(world.function("ok"))) == "ok"
    assert breaker.state == "closed"


def test_an_async_block_cannot_wait_for_a_verdict() -> None:
    """It is entered with `with`: beyond the trials it is refused at once."""
    breaker = CircuitBreaker(failures=1, reset_after=10, wait_for_trial=20)

    async def block() -> None:
        async for attempt in Pipeline(breaker).attempts():
            with attempt:
                raise AssertionError

    with virtual_time() as clock:
        breaker.open()
        clock.advance(10)
        trial = breaker._only.admit(clock.now())
        begun = clock.now()
        with pytest.raises(CircuitOpenError):
            asyncio.run(block())
        assert clock.now() == begun
        assert not trial.settled


# After closing


def test_after_closing_a_growing_share_is_let_through(world: World) -> None:
    """Chance decides against the share of the ramp's time that has passed."""
    breaker = opened(world, ramp=100)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    assert world.run(guarded) == "ok"
    assert breaker.state == "closed"
    world.clock.random = lambda: 0.31
    world.clock.advance(30)
    with pytest.raises(CircuitOpenError) as caught:
        world.run(guarded)
    assert caught.value.retry_after == pytest.approx(70)
    assert breaker.snapshot().ramp == pytest.approx(0.3)
    world.clock.advance(2)
    assert world.run(guarded) == "ok"
    world.clock.random = lambda: 0.999
    with pytest.raises(CircuitOpenError):
        world.run(guarded)
    world.clock.advance(68.1)
    assert world.run(guarded) == "ok"
    assert breaker.snapshot().ramp is None


def test_the_ramp_ends_rest_and_rest_comes_back() -> None:
    """A pipeline is at rest again with the first call after the ramp."""
    breaker = CircuitBreaker(failures=1, reset_after=10, ramp=5)
    pipeline = Pipeline(breaker)
    with virtual_time() as clock:
        breaker.open()
        clock.advance(10)
        pipeline.call(lambda: 1)
        assert (breaker.state, pipeline.rest.token) == ("closed", None)
        clock.advance(5)
        pipeline.call(lambda: 1)
        assert pipeline.rest.token is not None


def test_a_failure_on_the_ramp_counts(world: World) -> None:
    """The rules hold there, and a hand that closes wants no ramp."""
    breaker = opened(world, ramp=100)
    guarded = Pipeline(breaker).wrap(world.function("ok", ConnectionError, "ok"))
    world.run(guarded)
    world.clock.random = lambda: 0.0
    world.clock.advance(1)
    with pytest.raises(ConnectionError):
        world.run(guarded)
    assert breaker.state == "open"
    breaker.close()
    world.clock.random = lambda: 0.999
    assert world.run(guarded) == "ok"


def test_nobody_waits_for_the_ramp(world: World) -> None:
    """`wait_for_trial` is for verdicts; the ramp refuses at once."""
    breaker = opened(world, ramp=100, wait_for_trial=50)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    world.run(guarded)
    begun = world.clock.now()
    with pytest.raises(CircuitOpenError):
        world.run(guarded)
    assert world.clock.now() == begun
