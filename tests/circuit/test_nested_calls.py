"""One circuit around a call and a call inside it: half open, the two are one trial."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from conftest import World
from resilience import CircuitBreaker, CircuitOpenError, Fallback, ModelFallback, Pipeline, Timeout
from resilience import guarded as handle
from support.calling import passing
from support.circuits import opened


@pytest.mark.fault(84)
@pytest.mark.parametrize(
    "options", [{}, {"wait_for_trial": 5}, {"key": "model"}, {"trials": 2, "successes": 1}]
)
def test_a_call_inside_a_trial_is_part_of_it(world: World, options: dict[str, Any]) -> None:
    """It goes through at once, and the one trial closes the circuit."""
    breaker = opened(world, **{"failures": 2, **options})
    pipeline = Pipeline(breaker)
    inner = pipeline.wrap(world.function("ok"))
    began = world.clock.now()

    assert world.run(pipeline.wrap(passing(world, inner)), model="a") == "ok"
    circuit = breaker.circuit("a") if breaker.key else breaker
    assert circuit.state == "closed"
    assert world.clock.now() == began


@pytest.mark.fault(84)
def test_an_outage_that_ends(world: World) -> None:
    """Guarded outside and inside by one pipeline: it opens, and recovers with the service."""
    breaker = CircuitBreaker(failures=2, reset_after=10)
    pipeline = Pipeline(breaker)
    inner = pipeline.wrap(world.function(ConnectionError, ConnectionError, ConnectionError, "ok"))
    outer = pipeline(passing(world, inner))
    seen = []
    for _ in range(6):
        world.run(handle(outer).outcome)
        seen.append(breaker.state)
        world.clock.advance(5)

    assert seen == ["closed", "open", "open", "open", "open", "closed"]
    assert len(world.calls) == 4


def test_a_failure_that_two_calls_pass_on_counts_once(world: World) -> None:
    """Guarded outside and inside by one closed circuit: one failure of the service is one."""
    breaker = CircuitBreaker(failures=9)
    pipeline = Pipeline(breaker)
    inner = pipeline.wrap(world.function(ConnectionError))
    world.run(handle(pipeline.wrap(passing(world, inner))).outcome)

    assert breaker.snapshot().failures == 1


def test_a_failure_inside_a_trial_is_the_trials(world: World) -> None:
    """Its error, once it has come out of the trial, counts there: the circuit opens again."""
    breaker = opened(world)
    pipeline = Pipeline(breaker)
    inner = pipeline.wrap(world.function(ConnectionError))

    with pytest.raises(ConnectionError):
        world.run(pipeline.wrap(passing(world, inner)))
    assert breaker.state == "open"


def test_a_failure_inside_that_the_trial_gets_over(world: World) -> None:
    """Only the trial's own end counts: what it caught inside does not open the circuit."""
    breaker = opened(world)
    inner = Pipeline(Fallback("else"), breaker).wrap(world.function(ConnectionError))

    assert world.run(Pipeline(breaker).wrap(passing(world, inner))) == "else"
    assert breaker.state == "closed"


def test_a_call_inside_a_timed_trial(world: World) -> None:
    """In a worker thread, too, it is known by the call it is in."""
    breaker = opened(world)
    inner = Pipeline(breaker).wrap(world.function("ok"))
    outer = Pipeline(breaker, Timeout(5)).wrap(passing(world, inner))

    assert world.run(outer) == "ok"
    assert breaker.state == "closed"


def test_a_circuit_of_another_key_is_another(world: World) -> None:
    """Inside a trial of one circuit, another one's trial is its own."""
    breaker = opened(world, key="model")
    breaker.circuit("b").open()
    world.clock.advance(10)
    inner = Pipeline(breaker).wrap(world.function(ConnectionError))
    outer = passing(world, lambda model: inner(model="b"))

    with pytest.raises(ConnectionError):
        world.run(Pipeline(breaker).wrap(outer), model="a")
    assert (breaker.circuit("b").state, breaker.circuit("a").state) == ("open", "open")


def test_a_model_chain_inside_a_trial_keeps_its_model(world: World) -> None:
    """Its circuit, half open with its only slot taken by the call around it, is free for it."""
    breaker = opened(world, key="model")
    inner = Pipeline(ModelFallback("b", "a"), breaker).wrap(world.function(ConnectionError, "ok"))
    outer = passing(world, lambda model: inner())

    assert world.run(Pipeline(breaker).wrap(outer), model="a") == "ok"
    assert [kwargs["model"] for _, kwargs in world.calls] == ["b", "a"]
    assert breaker.circuit("a").state == "closed"


def test_another_call_is_rejected_meanwhile() -> None:
    """A task of its own, begun beside the trial, is not inside it."""
    breaker = CircuitBreaker(reset_after=1e-9)
    breaker.open()
    pipeline = Pipeline(breaker)

    async def main() -> list[Any]:
        going, go_on = asyncio.Event(), asyncio.Event()

        async def trial() -> str:
            going.set()
            await go_on.wait()
            return await pipeline.call(inner)

        async def inner() -> str:
            return "ok"

        task = asyncio.ensure_future(pipeline.call(trial))
        await going.wait()
        other = await asyncio.gather(pipeline.call(inner), return_exceptions=True)
        go_on.set()
        return [await task, type(other[0])]

    assert asyncio.run(main()) == ["ok", CircuitOpenError]


@pytest.mark.real
def test_what_goes_on_after_the_trial_is_not_inside_it() -> None:
    """A thread begun in a trial that has ended needs a slot like everybody."""
    breaker = CircuitBreaker(reset_after=1e-9, successes=9)
    breaker.open()
    pipeline = Pipeline(breaker)
    ended, held = threading.Event(), threading.Event()
    found: list[Any] = []

    def late() -> None:
        ended.wait(9)
        found.append(pipeline.outcome(lambda: "ok").error)
        held.set()

    def trial() -> threading.Thread:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(late,))
        thread.start()
        return thread

    def holding() -> None:
        ended.set()
        held.wait(9)

    thread = pipeline.call(trial)
    pipeline.call(holding)
    thread.join()
    assert type(found[0]) is CircuitOpenError
    assert breaker.state == "half-open"
