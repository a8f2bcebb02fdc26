"""Crowds at the moment the open time ends, and a hundred thousand calls that end badly."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from random import Random
from typing import Any

import pytest

from resilience import CircuitBreaker, CircuitOpenError, FailureRate, Pipeline
from resilience.testing import VirtualTime, virtual_time

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
THREADS = 64
TASKS = 1_000


class Round:
    """One crowd: the trials stay inside until all others have been refused."""

    def __init__(self, refusals: int) -> None:
        self.inside: list[int] = []
        self.refused: list[int] = []
        self.refusals = refusals
        self.over = threading.Event()

    def trial(self) -> None:
        self.inside.append(1)
        assert self.over.wait(30)

    def refusal(self) -> None:
        self.refused.append(1)
        if len(self.refused) == self.refusals:
            self.over.set()


@pytest.mark.real
@pytest.mark.parametrize("trials", [1, 3])
def test_fault_018_64_threads_500_times_over(trials: int) -> None:
    """Exactly `trials` of 64 threads get through each time; 1,000 times with both parameters."""
    breaker = CircuitBreaker(trials=trials, successes=trials, reset_after=1e-6)
    rounds = [Round(THREADS - trials) for _ in range(500)]
    problems: list[BaseException] = []

    def prepare() -> None:
        breaker.open()
        time.sleep(1e-5)

    before = threading.Barrier(THREADS, prepare)

    def work() -> None:
        try:
            for this in rounds:
                before.wait(30)
                try:
                    Pipeline(breaker).call(this.trial)
                except CircuitOpenError:
                    this.refusal()
        except BaseException as problem:
            problems.append(problem)
            before.abort()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(55)
    assert not problems
    assert [len(this.inside) for this in rounds] == [trials] * 500
    assert (breaker.state, breaker._only._places) == ("closed", {})


@pytest.mark.parametrize("trials", [1, 3])
def test_fault_018_1000_tasks_over_and_over(trials: int) -> None:
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
        breaker = CircuitBreaker(trials=trials, successes=trials)
        asyncio.run(main(clock))


@pytest.mark.parametrize("timeout", [None, 3.0], ids=["", "with a time for trials"])
def test_fault_029_60000_calls_that_end_badly_lose_no_permit(timeout: Any) -> None:
    """Interrupted, raising what counts and what does not: all trial places are there in the end."""
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
            assert not breaker._only._places
        places_are_free(breaker, clock)
    assert seen == {"closed", "open", "half-open"}


def test_fault_011_fault_028_50000_cancelled_tasks_lose_no_permit() -> None:
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
            assert (breaker._only._places, breaker._only._bells) == ({}, [])

    with virtual_time() as clock:
        asyncio.run(main(clock))
        places_are_free(breaker, clock)


def places_are_free(breaker: CircuitBreaker, clock: VirtualTime) -> None:
    """Exactly as many trials as there are to be get through."""
    breaker.open()
    clock.advance(1000)
    circuit = breaker._only
    permits = [circuit.admit(clock.now()) for _ in range(circuit.limits.trials)]
    with pytest.raises(CircuitOpenError):
        circuit.admit(clock.now())
    assert all(permit.trial for permit in permits)
