"""Just closed: for `ramp` seconds only a growing share of the calls is let through."""

from __future__ import annotations

import pytest

from conftest import World
from resilience import CircuitBreaker, CircuitOpenError, Pipeline
from resilience.testing import virtual_time
from support.calling import error_of
from support.circuits import Told, admit, opened, rejected, rests


def test_after_closing_a_growing_share_is_let_through(world: World) -> None:
    """Chance decides against the share of the ramp's time that has passed."""
    breaker = opened(world, ramp=100)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    assert world.run(guarded) == "ok"
    assert breaker.state == "closed"
    world.clock.random = lambda: 0.31
    world.clock.advance(30)
    assert rejected(world, guarded).retry_after == pytest.approx(70)
    assert breaker.snapshot().ramp == pytest.approx(0.3)
    world.clock.advance(2)
    assert world.run(guarded) == "ok"
    world.clock.random = lambda: 0.999
    rejected(world, guarded)
    world.clock.advance(68.1)
    assert world.run(guarded) == "ok"
    assert breaker.snapshot().ramp is None


def test_chance_has_a_say_only_on_the_ramp(world: World) -> None:
    """Elsewhere nobody's random numbers are used up; a share is let through to the point."""
    told = Told(ramp=20.0)
    told.circuit.open()
    world.clock.advance(10)
    world.clock.random = lambda: pytest.fail("drawn")
    admit(told.circuit).succeed()
    world.clock.advance(5)

    world.clock.random = lambda: 0.2499
    admit(told.circuit)
    world.clock.random = lambda: 0.25
    with pytest.raises(CircuitOpenError) as caught:
        admit(told.circuit)
    assert caught.value.retry_after == 15


def test_the_ramp_ends_rest_and_rest_comes_back() -> None:
    """A pipeline is at rest again with the first call after the ramp."""
    breaker = CircuitBreaker(failures=1, reset_after=10, ramp=5)
    pipeline = Pipeline(breaker)
    with virtual_time() as clock:
        breaker.open()
        clock.advance(10)
        pipeline.call(lambda: 1)
        assert breaker.state == "closed"
        assert not rests(pipeline)
        clock.advance(5)
        pipeline.call(lambda: 1)
        assert rests(pipeline)


def test_a_failure_on_the_ramp_counts(world: World) -> None:
    """The rules hold there; a manual command that closes it wants no ramp."""
    breaker = opened(world, ramp=100)
    guarded = Pipeline(breaker).wrap(world.function("ok", ConnectionError, "ok"))
    world.run(guarded)
    world.clock.random = lambda: 0.0
    world.clock.advance(1)
    error_of(world, guarded)
    assert breaker.state == "open"
    breaker.close()
    world.clock.random = lambda: 0.999
    assert world.run(guarded) == "ok"


def test_nobody_waits_for_the_ramp(world: World) -> None:
    """`wait_for_trial` is for verdicts; the ramp rejects at once."""
    breaker = opened(world, ramp=100, wait_for_trial=50)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    world.run(guarded)
    begun = world.clock.now()
    rejected(world, guarded)
    assert world.clock.now() == begun


@pytest.mark.parametrize("meanwhile", ["closed again", "isolated"])
def test_a_ramp_that_is_over_when_a_call_comes_ends_no_other(meanwhile: str) -> None:
    """Another thread may have changed the circuit since the call looked at it."""

    def drawn() -> float:
        circuit.isolate() if meanwhile == "isolated" else circuit.open()
        if meanwhile == "closed again":
            circuit._follow("closed", 0.0, clock.now())
        return 0.0

    with virtual_time() as clock:
        circuit = Told(ramp=20.0).circuit
        circuit.open()
        circuit._follow("closed", 0.0, clock.now())
        clock.advance(20)
        clock.random = drawn
        with pytest.raises(CircuitOpenError):
            admit(circuit)
        assert circuit.snapshot().ramp == (None if meanwhile == "isolated" else 0.0)
