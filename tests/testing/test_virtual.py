"""Virtual time: who wakes when, and what happens at the edges of the clock."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
import trio

from conftest import World, async_worlds
from resilience import DeadlineExceededError, Pipeline, Retry, Timeout, testing
from resilience.policy import Call, Inner, Policy, Runtime, Waiter
from resilience.testing import virtual_time


def run(world: World, main: Any) -> Any:
    """Run async code that is not one guarded call."""
    return asyncio.run(main()) if world.name == "asyncio" else trio.run(main)


async def settled(world: World) -> None:
    """Let every other task go as far as it can."""
    for _ in range(5):
        await (asyncio.sleep(0) if world.name == "asyncio" else trio.lowlevel.checkpoint())


def test_advancing_wakes_those_whose_time_comes_in_order(world: World) -> None:
    """`advance` passes their moments on the way; a later one still waits."""
    if not world.asynchronous:
        world.clock.advance(7)
        assert world.clock.now() == 1007
        return
    woken: list[int] = []

    async def sleeper(seconds: int) -> None:
        await world.clock.asleep(seconds)
        woken.append(seconds)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for seconds in (5, 3, 9):
                nursery.start_soon(sleeper, seconds)
            await forth()

    async def amain() -> None:
        tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (5, 3, 9)]
        await forth()
        await asyncio.gather(*tasks)

    async def forth() -> None:
        await settled(world)
        world.clock.advance(7)
        assert world.clock.now() == 1007
        await settled(world)
        assert sorted(woken) == [3, 5]

    run(world, amain if world.name == "asyncio" else main)
    assert woken[2] == 9
    assert world.clock.now() == 1009


@async_worlds
def test_a_clock_with_nothing_due_stands_still(world: World) -> None:
    """Code that goes on after its deadline waits for things that are not the clock's."""
    stubborn: list[Any] = []

    async def work() -> str:
        try:
            await world.clock.asleep(30)
        except (asyncio.CancelledError, trio.Cancelled) as cancelled:
            stubborn.append(type(cancelled))
            if world.name == "trio":
                with trio.CancelScope(shield=True):
                    await later()
                raise
            await later()
        return "late"

    async def later() -> None:
        for _ in range(100):
            await settled(world)

    async def main() -> Any:
        return await Pipeline(Timeout(5)).call(work)

    if world.name == "asyncio":
        assert run(world, main) == "late"
    else:
        with pytest.raises(DeadlineExceededError):
            run(world, main)
    assert len(stubborn) == 1
    assert world.clock.now() == 1005


def test_time_that_is_up_before_an_attempt_begins(world: World) -> None:
    """As in real time: whatever has taken it, the function is not called any more."""

    def slow(attempt: Any, args: Any, kwargs: Any) -> Any:
        world.clock.advance(9)
        return args, kwargs

    retry = Retry(adjust=slow, wait=1)
    with pytest.raises(DeadlineExceededError):
        world.run(Pipeline(Timeout(5), retry).wrap(world.function(ConnectionError)))
    assert len(world.calls) == 1


@pytest.mark.parametrize("waits", [False, True])
@async_worlds
def test_a_task_that_moves_the_clock_past_its_own_deadline(world: World, waits: bool) -> None:
    """It is cut where it next waits; if it waits no more, nothing of the deadline is left over."""

    async def work() -> str:
        world.clock.advance(9)
        if waits:
            await world.clock.asleep(1)
        return "late"

    async def main() -> None:
        outcome = await Pipeline(Timeout(5)).outcome(work)
        await settled(world)
        assert type(outcome.error) is (DeadlineExceededError if waits else type(None))
        assert outcome.value == (None if waits else "late")

    run(world, main)


class Waiting(Policy):
    """Waits for a waiter before each call; `act` gets it first. Returns whether it was set."""

    def __init__(self, seconds: float, act: Callable[[Waiter], object]) -> None:
        self.seconds = seconds
        self.act = act

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def waiting(call: Call) -> bool:
            waiter = runtime.waiter()
            self.act(waiter)
            done = await waiter.wait(self.seconds, call)
            await inner(call)
            return done

        return waiting


@pytest.mark.parametrize("seconds", [5, math.inf])
def test_a_waiter_that_was_set_before_takes_no_time(world: World, seconds: float) -> None:
    """It is not waited for, however long that might have been."""
    pipeline = Pipeline(Waiting(seconds, lambda waiter: waiter.set()))
    assert world.run(pipeline.wrap(world.function("ok"))) is True
    assert world.clock.now() == 1000


@pytest.mark.parametrize("seconds", [5, math.inf])
def test_a_waiter_is_set_on_the_clock(world: World, seconds: float) -> None:
    """Time passes until then and no further; nobody is woken at the end of time."""
    pipeline = Pipeline(Waiting(seconds, lambda waiter: world.clock.at(1003, waiter.set)))
    assert world.run(pipeline.wrap(world.function("ok"))) is True
    assert world.clock.now() == 1003
    world.clock.advance(100)
    assert world.clock.now() == 1103


def test_a_waiter_that_nobody_sets(world: World) -> None:
    """Its time passes, or the call's deadline comes first."""
    pipeline = Pipeline(Waiting(5, id))
    assert world.run(pipeline.wrap(world.function("ok"))) is False
    assert world.clock.now() == 1005
    with pytest.raises(DeadlineExceededError):
        world.run(Pipeline(Timeout(2), pipeline).wrap(world.function("ok")))
    assert world.clock.now() == 1007


def test_waiting_for_ever_in_one_thread_is_said() -> None:
    """Nothing could happen meanwhile: that is a mistake of the program, and time stays finite."""
    with virtual_time() as clock:
        with pytest.raises(RuntimeError, match="ever"):
            Pipeline(Waiting(math.inf, id)).call(int)
        assert clock.now() == 1000


def test_what_the_kit_does_not_have() -> None:
    """The package makes its gateway on demand; any other name is an AttributeError."""
    assert testing.Gateway.__name__ == "Gateway"
    with pytest.raises(AttributeError, match="no attribute 'Gatevay'"):
        testing.Gatevay  # noqa: B018
