"""Half open: exactly as many trials as allowed, tolerance, hanging trials, slots that come back."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import copy_context
from typing import Any

import pytest
import trio

from conftest import Takes, World
from resilience import CircuitBreaker, CircuitOpenError, Pipeline
from resilience import guarded as handle
from support.circuits import admit, fail, in_tasks, opened, outcomes, rejected, slots_of
from support.concurrency import fast_switching, in_threads  # noqa: F401


def together(world: World, fn: Any, number: int) -> list[Any]:
    """The results or errors of so many calls made at once, in tasks."""
    return [found for found, _ in outcomes(world, fn, [0.0] * number)]


# How many at once


@pytest.mark.fault(18)
@in_tasks
@pytest.mark.parametrize("trials", [1, 3])
@pytest.mark.parametrize("outcome", ["ok", ConnectionError(), ValueError()])
def test_exactly_k_trials_among_64_tasks(world: World, trials: int, outcome: Any) -> None:
    """At the end of the open time exactly `trials` of 64 tasks get through, however they end."""
    breaker = CircuitBreaker(trials=trials, successes=trials, reset_after=60)
    for _ in range(3):
        world.calls.clear()
        breaker.open()
        world.clock.advance(60)
        found = together(world, Pipeline(breaker).wrap(world.function(Takes(1, outcome))), 64)

        assert len(world.calls) == trials
        assert found.count(CircuitOpenError) == 64 - trials
        if outcome == "ok":
            assert breaker.state == "closed"


@pytest.mark.real
@pytest.mark.fault(18)
@pytest.mark.parametrize("trials", [1, 3])
@pytest.mark.parametrize("outcome", [None, ConnectionError(), ValueError()])
def test_exactly_k_trials_among_64_threads(trials: int, outcome: Any) -> None:
    """The same for threads: the trials hang until all others have been rejected."""
    breaker = CircuitBreaker(trials=trials, successes=trials, reset_after=1e-6)
    for _ in range(5):
        breaker.open()
        time.sleep(1e-4)
        barrier = threading.Barrier(64)
        leave = threading.Event()
        inside: list[int] = []
        turned_away: list[int] = []

        def trial(inside: list[int] = inside, leave: threading.Event = leave) -> None:
            inside.append(1)
            assert leave.wait(10)
            if outcome is not None:
                raise outcome

        guarded = Pipeline(breaker).wrap(trial)

        def one(
            number: int,
            guarded: Any = guarded,
            barrier: threading.Barrier = barrier,
            leave: threading.Event = leave,
            turned_away: list[int] = turned_away,
        ) -> None:
            barrier.wait(10)
            try:
                guarded()
            except CircuitOpenError:
                turned_away.append(number)
                if len(turned_away) == 64 - trials:
                    leave.set()
            except Exception:
                pass

        in_threads(64, one)
        assert len(inside) == trials
        assert len(turned_away) == 64 - trials


def test_half_open_and_full_is_worth_trying_soon(world: World) -> None:
    """A call rejected because all slots are taken may come back at once."""
    breaker = opened(world)
    inner: list[CircuitOpenError] = []
    pipeline = Pipeline(breaker)
    elsewhere = copy_context()  # not inside the trial

    def trial() -> str:
        with pytest.raises(CircuitOpenError) as info:
            elsewhere.run(pipeline.call, lambda: "second")
        inner.append(info.value)
        return "first"

    assert world.run(pipeline.wrap(world.function(trial))) == "first"
    assert inner[0].retry_after == 0.0


# What the trials decide


def test_a_tolerated_share_of_trials_may_fail(world: World) -> None:
    """With 4 successes wanted and a fifth tolerated: one failure of five closes, a second opens."""
    for steps, state in [
        (["ok", ConnectionError, "ok", "ok", "ok"], "closed"),
        (["ok", ConnectionError, "ok", "ok", ConnectionError], "open"),
    ]:
        breaker = opened(world, successes=4, tolerate=0.2)
        guarded = Pipeline(breaker).wrap(world.function(*steps))
        for _ in steps[:-1]:
            world.run(handle(guarded).outcome)
            assert breaker.state == "half-open"
        world.run(handle(guarded).outcome)
        assert breaker.state == state


@in_tasks
def test_a_hanging_trial_is_given_up_on(world: World) -> None:
    """After `trial_timeout` its slot is free; what it says later changes nothing."""
    breaker = opened(world, trial_timeout=5)
    guarded = Pipeline(breaker).wrap(
        world.function(Takes(20, ConnectionError), Takes(1, "ok"), "ok")
    )
    found = outcomes(world, guarded, [0, 4, 5, 21])
    assert found == [(ConnectionError, 20), (CircuitOpenError, 4), ("ok", 6), ("ok", 21)]
    assert breaker.state == "closed"


@pytest.mark.fault(21)
@in_tasks
def test_a_trial_that_ends_after_its_time_is_no_verdict(world: World) -> None:
    """Also where nobody came along in the meantime."""
    breaker = opened(world, trial_timeout=5)
    guarded = Pipeline(breaker).wrap(world.function(Takes(5, "ok"), "ok"))
    outcomes(world, guarded, [0])
    assert (breaker.state, slots_of(breaker._only)) == ("half-open", [])
    outcomes(world, guarded, [0])
    assert breaker.state == "closed"


# Slots come back


@pytest.mark.fault(11)
@in_tasks
def test_a_cancelled_trial_gives_its_slot_back(world: World) -> None:
    """Many cancelled trials later it is still half open, and admits exactly k."""
    breaker = opened(world, trials=2)
    guarded = Pipeline(breaker).wrap(world.function(Takes(1000, "ok")))

    async def cancelled() -> None:
        if world.name == "asyncio":
            task = asyncio.create_task(guarded())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guarded)
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

    async def main() -> None:
        for _ in range(50):
            await cancelled()

    world.run(main)
    assert breaker.state == "half-open"
    assert len(world.calls) == 50
    assert together(world, guarded, 8).count("ok") == 2


@pytest.mark.fault(28)
def test_a_permit_that_is_lost_frees_its_slot(world: World) -> None:
    """As Ctrl-C between any two steps may lose it: the next call is let through."""
    breaker = opened(world)
    held = [admit(breaker._only)]
    assert breaker.snapshot().trials == 1
    rejected(world, Pipeline(breaker).wrap(world.function("ok")))

    held.clear()
    assert breaker.snapshot().trials == 0
    assert world.run(Pipeline(breaker).wrap(world.function("ok"))) == "ok"
    assert breaker.state == "closed"


def test_slots_that_were_lost_are_not_kept(world: World) -> None:
    """However many permits are lost, nothing of them is left when a trial ends."""
    breaker = opened(world, successes=9)
    for _ in range(100):
        admit(breaker._only)
    assert slots_of(breaker._only) == []
    admit(breaker._only).drop()
    assert breaker._only._state.slots == ()  # type: ignore[attr-defined]


def test_the_trials_of_a_parent_process_are_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forked child does not have the threads that would end them."""
    from resilience.circuit import machine

    breaker = opened(world)
    held = admit(breaker._only)
    parent = held.permit.process
    monkeypatch.setattr(machine.os, "getpid", lambda: parent + 1)
    assert breaker.snapshot().trials == 0
    assert world.run(Pipeline(breaker).wrap(world.function("ok"))) == "ok"
    assert breaker.state == "closed"


# Locks


@pytest.mark.real
@pytest.mark.fault(19)
@pytest.mark.parametrize("failing_before", [False, True])
def test_no_lock_is_held_while_user_code_runs(failing_before: bool) -> None:
    """Eight threads are inside the function at the same time, at rest and not."""
    breaker = CircuitBreaker()
    meeting = threading.Barrier(8)
    guarded = Pipeline(breaker).wrap(lambda: meeting.wait(10))
    if failing_before:
        with pytest.raises(ConnectionError):
            Pipeline(breaker).call(fail)

    in_threads(8, lambda number: guarded())


@pytest.mark.real
@pytest.mark.fault(19)
def test_trials_run_at_the_same_time() -> None:
    """Four trials are inside the function at the same time."""
    breaker = CircuitBreaker(trials=4, successes=4, reset_after=1e-9)
    breaker.open()
    meeting = threading.Barrier(4)
    guarded = Pipeline(breaker).wrap(lambda: meeting.wait(10))
    in_threads(4, lambda number: guarded())
    assert breaker.state == "closed"


@pytest.mark.real
@pytest.mark.usefixtures("fast_switching")
def test_threads_count_every_failure_once() -> None:
    """Sixteen threads failing sixteen times each open it with the very last failure."""
    breaker = CircuitBreaker(failures=256, reset_after=1000)
    in_threads(15, lambda number: [Pipeline(breaker).outcome(fail) for _ in range(16)])
    for _ in range(15):
        Pipeline(breaker).outcome(fail)
    assert breaker.state == "closed"
    Pipeline(breaker).outcome(fail)
    assert breaker.state == "open"
