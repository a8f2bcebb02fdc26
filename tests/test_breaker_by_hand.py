"""A hand on the switch: isolate, disable, shadow; and what a snapshot tells."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import pybreaker
import pytest

from conftest import World
from resilience import CircuitBreaker, CircuitOpenError, FailureRate, Pipeline, SlowCalls
from resilience.failures import Kind
from resilience.testing import virtual_time


def boom() -> None:
    """A failing service."""
    raise ConnectionError


def test_isolations_are_counted(world: World) -> None:
    """It stays isolated until the last of them is released; releasing twice counts once."""
    breaker = CircuitBreaker(reset_after=1)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    first, second = breaker.isolate(), breaker.isolate()
    first.release()
    first.release()
    world.clock.advance(1000)
    with pytest.raises(CircuitOpenError) as caught:
        world.run(guarded)
    assert (caught.value.retry_after, caught.value.retry_at) == (None, None)
    second.release()
    assert (breaker.state, world.run(guarded)) == ("closed", "ok")


def test_an_isolation_for_a_block() -> None:
    """`with` releases it, also when the block raises."""
    breaker = CircuitBreaker()
    with breaker.isolate() as hold:
        assert breaker.state == "isolated"
        assert repr(hold) == f"<isolation of {breaker._only!r}>"
    assert breaker.state == "closed"
    with pytest.raises(ValueError, match="text"), breaker.isolate():
        raise ValueError("text")
    assert breaker.state == "closed"


@pytest.mark.parametrize("command", ["open", "close", "disable", "shadow"])
def test_another_command_ends_all_isolations(command: str) -> None:
    """What is released after it changes nothing, not even a later isolation."""
    breaker = CircuitBreaker()
    hold = breaker.isolate()
    getattr(breaker, command)()
    state = breaker.state
    hold.release()
    assert breaker.state == state != "isolated"
    breaker.isolate()
    hold.release()
    assert breaker.state == "isolated"


def test_disabled_lets_all_through_and_counts_nothing(world: World) -> None:
    """Failures do not open it, and none of them is left when it is closed again."""
    breaker = CircuitBreaker(failures=2)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    breaker.disable()
    for _ in range(5):
        with pytest.raises(ConnectionError):
            world.run(guarded)
    assert (breaker.state, breaker.snapshot().failures) == ("disabled", 0)
    breaker.close()
    with pytest.raises(ConnectionError):
        world.run(guarded)
    assert (breaker.state, breaker.snapshot().failures) == ("closed", 1)


def test_a_disabled_circuit_is_at_rest() -> None:
    """It costs what a healthy one costs."""
    breaker = CircuitBreaker()
    pipeline = Pipeline(breaker)
    breaker.open()
    assert pipeline.rest.token is None
    breaker.disable()
    assert pipeline.rest.token is not None


class Told(pybreaker.CircuitBreakerListener):
    """Hears of changes."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []

    def state_change(self, cb: Any, old: Any, new: Any) -> None:
        self.changes.append((old.name, new.name))


def test_a_command_that_changes_nothing_is_no_change() -> None:
    """Listeners hear of changes of state only."""
    told = Told()
    breaker = CircuitBreaker(listeners=[told])
    breaker.close()
    breaker.open()
    breaker.open()
    assert told.changes == [("closed", "open")]


def test_a_shadow_counts_and_reports_and_refuses_nothing(world: World) -> None:
    """It opens, is tried and closes as it would, while every call goes through."""
    told = Told()
    breaker = CircuitBreaker(failures=2, reset_after=10, listeners=[told])
    breaker.shadow()
    bad = ConnectionError
    guarded = Pipeline(breaker).wrap(world.function(bad, bad, bad, "ok", "ok"))
    for _ in range(3):
        with pytest.raises(ConnectionError):
            world.run(guarded)
    assert (breaker.state, breaker.snapshot().shadow, breaker.snapshot().refused) == (
        "open",
        True,
        1,
    )
    assert world.run(guarded) == "ok"  # open, and no trial: no verdict
    world.clock.advance(10)
    assert world.run(guarded) == "ok"
    assert told.changes == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]
    assert len(world.calls) == 5


def test_a_shadow_ends_with_a_command(world: World) -> None:
    """From then on it refuses."""
    breaker = CircuitBreaker(failures=1)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    breaker.shadow()
    breaker.close()
    with pytest.raises(ConnectionError):
        world.run(guarded)
    with pytest.raises(CircuitOpenError):
        world.run(guarded)


def test_a_snapshot_tells_it_all(world: World) -> None:
    """State, counts, rates, since when, until when, and the last failure without its error."""
    breaker = CircuitBreaker(
        trip=FailureRate(0.5, calls=4, minimum=2) | SlowCalls(5, 1, calls=4, minimum=4),
        reset_after=30,
        name="n",
    )
    guarded = Pipeline(breaker).wrap(world.function("ok", ConnectionError))
    before = breaker.snapshot()
    assert (before.state, before.failure_rate, before.slow_rate) == ("closed", None, None)
    assert (before.opened_at, before.opened_for, before.retry_at) == (None, None, None)
    for _ in range(2):
        world.run(guarded.outcome)
    world.clock.advance(12)
    with pytest.raises(CircuitOpenError) as caught:
        world.run(guarded)
    now = breaker.snapshot()
    assert (now.state, now.name, now.key, now.refused) == ("open", "n", None, 1)
    assert (now.failure_rate, now.slow_rate) == (0.5, 0)
    assert (now.opened_for, now.retry_after) == (12, 18)
    assert now.opened_at is not None
    assert now.retry_at == now.opened_at + timedelta(seconds=30) == caught.value.retry_at
    assert type(caught.value.__cause__) is ConnectionError
    assert now.last_failure is not None
    assert (now.last_failure.kind, now.last_failure.error) == (Kind.CONNECTION, None)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        now.state = "closed"  # type: ignore[misc]


def test_fault_035_snapshots_go_by_the_monotonic_clock() -> None:
    """A wall clock that jumps moves dates, not durations."""
    with virtual_time() as clock:
        breaker = CircuitBreaker(failures=1, reset_after=30)
        Pipeline(breaker).outcome(boom)
        clock.move_wall(-3600)
        clock.advance(10)
        now = breaker.snapshot()
        assert (now.opened_for, now.retry_after) == (10, 20)


def test_commands_of_a_keyed_breaker_are_its_circuits() -> None:
    """Each value's circuit has them all; the breaker itself refuses to guess."""
    breaker = CircuitBreaker(key="model")
    circuit = breaker.circuit("a")
    for command in ("isolate", "disable", "shadow", "open", "close", "snapshot"):
        getattr(circuit, command)()
        with pytest.raises(TypeError, match="keyed"):
            getattr(breaker, command)()
    assert breaker.circuit("b").state == "closed"
