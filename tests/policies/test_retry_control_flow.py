"""Retry: what is no failure of the call passes straight through it, and is never retried."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
import trio

from conftest import Takes, World
from resilience import CircuitBreaker, Pipeline, Retry, guarded, history, resilient
from resilience.matching import TRANSIENT
from resilience.testing import virtual_time
from support.calling import error_of

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


@pytest.mark.fault(10)
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_control_flow_passes_straight_through(world: World, stop: type[BaseException]) -> None:
    """What is no `Exception` is never retried, whatever `on` says, and never noted on."""
    error = stop()
    retry = Retry(on=lambda failure: True)

    with pytest.raises(BaseException) as info:  # noqa: PT011
        world.run(Pipeline(retry, CircuitBreaker(failures=1)).wrap(world.function(error)))

    assert info.value is error
    assert len(world.calls) == 1
    assert not hasattr(error, "__notes__")


@pytest.mark.fault(9)
def test_keyboard_interrupt_during_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a wait leaves at once: no further attempt."""
    calls: list[int] = []

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)

    def fn() -> None:
        calls.append(1)
        raise ConnectionError

    with pytest.raises(KeyboardInterrupt):
        Pipeline(Retry()).call(fn)
    assert len(calls) == 1


@pytest.mark.fault(1, 2, 3)
@pytest.mark.parametrize("on", [TRANSIENT, Exception, lambda failure: True])
@pytest.mark.parametrize("where", ["call", "wait"])
def test_a_cancelled_task_under_asyncio(on: Any, where: str) -> None:
    """A cancelled task leaves at once, from the call or the wait, whatever `on` says."""
    with virtual_time() as clock:
        world = World("asyncio", clock)
        step = Takes(1000) if where == "call" else ConnectionError
        breaker = CircuitBreaker(failures=2)
        fn = Pipeline(Retry(on=on, wait=1000), breaker).wrap(world.function(step))

        async def main() -> None:
            task = asyncio.create_task(fn())
            for _ in range(5):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert len(world.calls) == 1
        assert clock.now() == 1000.0  # no time has passed
        assert breaker.state == "closed"


@pytest.mark.fault(1, 2, 3)
@pytest.mark.parametrize("where", ["call", "wait"])
def test_cancelled_under_trio(where: str) -> None:
    """trio's Cancelled is never caught: no further attempt, no verdict."""
    with virtual_time() as clock:
        world = World("trio", clock)
        step = Takes(1000) if where == "call" else ConnectionError
        breaker = CircuitBreaker(failures=2)
        fn = Pipeline(Retry(on=Exception, wait=1000), breaker).wrap(world.function(step))

        async def main() -> None:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fn)
                    for _ in range(3):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            assert scope.cancelled_caught

        trio.run(main)
        assert len(world.calls) == 1
        assert clock.now() == 1000.0
        assert breaker.state == "closed"


@pytest.mark.fault(60)
def test_an_exception_group_with_a_cancellation_is_never_retried(world: World) -> None:
    """A BaseExceptionGroup is not an Exception, so no policy touches it."""
    group = BaseExceptionGroup("x", [asyncio.CancelledError(), ConnectionError()])

    with pytest.raises(BaseExceptionGroup) as info:
        world.run(Pipeline(Retry(on=lambda failure: True)).wrap(world.function(group)))

    assert len(world.calls) == 1
    assert info.value is group


# StopIteration, which Python turns into RuntimeError where it leaves a coroutine


@pytest.mark.fault(68)
@pytest.mark.parametrize("full", [False, True])
def test_stop_iteration_comes_out_as_itself(full: bool) -> None:
    """A function's own StopIteration is neither turned into RuntimeError nor retried."""
    same = StopIteration("mine")
    calls: list[int] = []

    @resilient
    def fn() -> None:
        calls.append(1)
        raise same

    if full:
        assert guarded(fn).outcome().error is same
    else:
        with pytest.raises(StopIteration) as info:
            fn()
        assert info.value is same
    assert len(calls) == 1


@pytest.mark.fault(68)
def test_stop_iteration_is_retried_when_named() -> None:
    """Named in `on=`, StopIteration is retried like any other error."""
    with virtual_time() as clock:
        world = World("sync", clock)
        fn = Pipeline(Retry(on=StopIteration)).wrap(world.function(StopIteration, "ok"))
        assert fn() == "ok"
        fn = Pipeline(Retry(on=StopIteration)).wrap(world.function(StopIteration("last")))
        with pytest.raises(StopIteration, match="last") as info:
            fn()
    assert len(history(info.value)) == 3


@pytest.mark.fault(68)
def test_stop_iteration_comes_out_in_place_of_a_rejection() -> None:
    """Where the circuit has opened before its retry."""
    same = StopIteration("mine")
    with virtual_time() as clock:
        fn = World("sync", clock).function(same)
        pipeline = Pipeline(Retry(on=Exception), CircuitBreaker(failures=1, on=Exception))
        with pytest.raises(StopIteration) as info:
            pipeline.call(fn)
    assert info.value is same


@pytest.mark.fault(68)
def test_stop_async_iteration(world: World) -> None:
    """StopAsyncIteration comes out as itself after one call."""
    error = error_of(world, Pipeline(Retry()).wrap(world.function(StopAsyncIteration)))

    assert type(error) is StopAsyncIteration
    assert len(world.calls) == 1
