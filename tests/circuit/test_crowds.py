"""Crowds at the moment the open time ends, and a hundred thousand calls that end badly."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from random import Random
from typing import Any

import pytest

from resilience import CircuitBreaker, CircuitOpenError, FailureRate, Pipeline
from resilience.testing import VirtualTime, virtual_time
from support.circuits import admit, slots_of
from support.concurrency import in_threads

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
THREADS = 64
TASKS = 1_000


@pytest.fixture
def short_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In debug mode asyncio records the whole stack for each task, only to show it."""
    monkeypatch.setattr(sys, "tracebacklimit", 1, raising=False)


class Round:
    """One crowd: the trials stay inside until all others have been rejected."""

    def __init__(self, rejections: int) -> None:
        self.inside: list[int] = []
        self.rejected: list[int] = []
        self.rejections = rejections
        self.over = threading.Event()

    def trial(self) -> None:
        self.inside.append(1)
        assert self.over.wait(30)

    def rejection(self) -> None:
        self.rejected.append(1)
        if len(self.rejected) == self.rejections:
            self.over.set()


@pytest.mark.real
@pytest.mark.fault(18)
@pytest.mark.parametrize("trials", [1, 3])
def test_64_threads_500_times_over(trials: int) -> None:
    """Exactly `trials` of 64 threads get through each time; 1,000 times with both parameters."""
    breaker = CircuitBreaker(trials=trials, successes=trials, reset_after=1e-6)
    rounds = [Round(THREADS - trials) for _ in range(500)]

    def prepare() -> None:
        breaker.open()
        time.sleep(1e-5)

    before = threading.Barrier(THREADS, prepare)

    def work(number: int) -> None:
        try:
            for this in rounds:
                before.wait(30)
                try:
                    Pipeline(breaker).call(this.trial)
                except CircuitOpenError:
                    this.rejection()
        except BaseException:
            before.abort()
            raise

    in_threads(THREADS, work, limit=55)
    assert [len(this.inside) for this in rounds] == [trials] * 500
    assert breaker.state == "closed"


@pytest.mark.fault(18)
@pytest.mark.usefixtures("short_stacks")
@pytest.mark.parametrize("trials", [1, 3])
def test_1000_tasks_over_and_over(trials: int) -> None:
    """Exactly `trials` of 1,000 tasks get through each time."""
    inside: list[int] = []

    async def main(clock: VirtualTime) -> None:
        async def trial() -> None:
            inside.append(1)
            await clock.asleep(1)

        guarded = Pipeline(breaker).wrap(trial)
        for _ in range(1000 if DEEP else 20):
            inside.clear()
            breaker.open()
            clock.advance(60)
            found = await asyncio.gather(*(guarded() for _ in range(TASKS)), return_exceptions=True)
            assert len(inside) == trials
            assert sum(type(each) is CircuitOpenError for each in found) == TASKS - trials
            assert breaker.state == "closed"

    with virtual_time() as clock:
        breaker = CircuitBreaker(trials=trials, successes=trials, reset_after=60)
        asyncio.run(main(clock))


@pytest.mark.fault(29)
@pytest.mark.parametrize("timeout", [None, 3.0], ids=["", "with a time for trials"])
def test_60000_calls_that_end_badly_lose_no_permit(timeout: Any) -> None:
    """Interrupted, raising what counts and what does not: all slots are there in the end."""
    chance = Random(11)
    breaker = CircuitBreaker(
        trip=FailureRate(0.5, calls=10, minimum=5),
        reset_after=5,
        trials=3,
        successes=6,
        tolerate=0.25,
        trial_timeout=timeout,
    )
    ends = [KeyboardInterrupt, GeneratorExit, SystemExit, ConnectionError, ValueError, None, None]

    def fn() -> None:
        clock.sleep(chance.choice([0, 0, 1, 4]))
        end = chance.choice(ends)
        if end is not None:
            raise end

    seen = set()
    with virtual_time() as clock:
        guarded = Pipeline(breaker).wrap(fn)
        for _ in range(30_000):
            try:
                guarded()
            except BaseException as error:
                if type(error) is CircuitOpenError:
                    clock.advance(1)
            seen.add(breaker.state)
            assert not slots_of(breaker._only)
        assert_slots_are_free(breaker, clock)
    assert seen == {"closed", "open", "half-open"}


@pytest.mark.fault(11, 28)
@pytest.mark.usefixtures("short_stacks")
def test_50000_cancelled_tasks_lose_no_permit() -> None:
    """Cancelled before their first step, while they wait for a verdict, and inside."""
    chance = Random(7)
    breaker = CircuitBreaker(
        failures=2, reset_after=5, trials=2, successes=3, wait_for_trial=4, ramp=2
    )

    async def main(clock: VirtualTime) -> None:
        async def fn() -> None:
            await asyncio.sleep(0)
            end = chance.choice([ConnectionError, ValueError, None, None])
            await asyncio.sleep(0)
            if end is not None:
                raise end

        guarded = Pipeline(breaker).wrap(fn)
        for _ in range(500):
            tasks = [asyncio.ensure_future(guarded()) for _ in range(100)]
            for _ in range(4):
                for task in tasks:
                    if chance.random() < 0.2:
                        task.cancel()
                await asyncio.sleep(0)
            clock.advance(chance.choice([0, 1, 5]))
            await asyncio.gather(*tasks, return_exceptions=True)
            assert (slots_of(breaker._only), breaker._only._waiting) == ([], [])

    with virtual_time() as clock:
        asyncio.run(main(clock))
        assert_slots_are_free(breaker, clock)


def assert_slots_are_free(breaker: CircuitBreaker, clock: VirtualTime) -> None:
    """Exactly as many trials as there are to be get through."""
    breaker.open()
    clock.advance(1000)
    held = [admit(breaker._only) for _ in range(breaker.trials)]
    with pytest.raises(CircuitOpenError):
        admit(breaker._only)
    assert all(each.trial for each in held)
