"""`script(...)` and `disabled()`: for tests of code that uses the library."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conftest import World
from resilience import CircuitBreaker, Fallback, ModelFallback, Pipeline, Retry
from resilience.testing import disabled, script, virtual_time
from support.calling import error_of, rest_and_full


def test_disabled_switches_everything_off(world: World) -> None:
    """Within `disabled()` functions are simply called; outside all is as before."""
    breaker = CircuitBreaker(failures=1)
    fn = world.function(ConnectionError)
    guarded = Pipeline(Fallback("sorry"), ModelFallback("a"), Retry(), breaker).wrap(fn)
    with disabled():
        assert type(error_of(world, guarded)) is ConnectionError
        assert world.calls == [((), {})]
        breaker.open()
        assert type(error_of(world, guarded)) is ConnectionError
    assert world.run(guarded) == "sorry"
    assert len(world.calls) == 2


@pytest.mark.fault(281)
@rest_and_full
def test_disabled_everywhere(real_world: World, listeners: Any) -> None:
    """Every thread, at rest or not, that runs already or is started later; pipelines made
    meanwhile; until the last that switched off has gone."""
    world = real_world
    breaker = CircuitBreaker(failures=1)
    pipeline = Pipeline(ModelFallback("a"), Retry(wait=0), breaker, listeners=listeners)
    fn = pipeline.wrap(world.function(ConnectionError))
    threads = ThreadPoolExecutor(1)

    def elsewhere(call: Any) -> Any:
        return threads.submit(error_of, world, call).result()

    assert threads.submit(len, "").result() == 0
    with disabled(everywhere=True):
        with disabled(everywhere=True):
            pass
        assert type(elsewhere(fn)) is ConnectionError
        assert world.calls == [((), {})]
        assert type(elsewhere(Pipeline(Retry(wait=0)).wrap(fn))) is ConnectionError
        assert len(world.calls) == 2
        assert breaker.state == "closed"
    elsewhere(fn)
    assert breaker.state == "open"
    assert len(world.calls) == 3
    assert world.calls[-1] == ((), {"model": "a"})
    threads.shutdown()


def test_a_call_that_began_before_is_handed_out_as_it_is(real_world: World) -> None:
    """One at rest that fails while policies are switched off is not retried."""
    world = real_world
    switch = disabled(everywhere=True)

    def failing() -> None:
        switch.__enter__()
        raise ConnectionError

    fn = Pipeline(Retry(wait=0)).wrap(world.function(failing))
    try:
        assert type(error_of(world, fn)) is ConnectionError
        assert len(world.calls) == 1
    finally:
        switch.__exit__(None, None, None)


def test_everywhere_is_true_or_false() -> None:
    """Anything else is refused by name."""
    with pytest.raises(TypeError, match=r"^everywhere must"), disabled(everywhere=1):  # type: ignore[arg-type]
        pass


def test_a_script_does_its_steps() -> None:
    """It raises, calls and returns what it was given, repeats its last step, and keeps the
    arguments of each call."""
    with virtual_time() as clock:
        fn: Any = script(ConnectionError, TimeoutError("x"), lambda *args, **kw: (args, kw), "last")
        guarded = Pipeline(Retry()).wrap(fn)

        assert guarded(1, two=2) == ((1,), {"two": 2})
        assert [guarded(), guarded()] == ["last", "last"]
        assert fn.calls == [((1,), {"two": 2})] * 3 + [((), {})] * 2
        assert len(clock.sleeps) == 2


def test_an_async_script() -> None:
    """The same for async functions, whose steps may be async."""

    async def step() -> str:
        return "async"

    with virtual_time():
        fn = script(ConnectionError, step, asynchronous=True)
        assert asyncio.run(Pipeline(Retry()).call(fn)) == "async"


def test_a_script_needs_a_step() -> None:
    """An empty script is a ValueError."""
    with pytest.raises(ValueError, match="steps"):
        script()


def test_a_wait_of_nothing_is_a_wait_too(world: World) -> None:
    """`clock.sleeps` has it in every world, though nothing is waited for."""
    error_of(world, Pipeline(Retry(attempts=3, wait=0)).call, world.function(ConnectionError))
    assert world.clock.sleeps == [0, 0]
    assert world.clock.now() == 1_000
