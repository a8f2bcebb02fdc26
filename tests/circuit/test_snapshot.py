"""What a snapshot tells of a circuit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest

from conftest import World
from resilience import CircuitBreaker, FailureRate, Pipeline, SlowCalls
from resilience import guarded as handle
from resilience.failures import Kind
from resilience.testing import VirtualTime, virtual_time
from support.circuits import Told, admit, fail, rejected


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
        world.run(handle(guarded).outcome)
    world.clock.advance(12)
    error = rejected(world, guarded)
    now = breaker.snapshot()
    assert (now.state, now.name, now.key, now.refused) == ("open", "n", None, 1)
    assert (now.failure_rate, now.slow_rate) == (0.5, 0)
    assert (now.opened_for, now.retry_after) == (12, 18)
    assert now.opened_at is not None
    assert now.retry_at == now.opened_at + timedelta(seconds=30) == error.retry_at
    assert type(error.__cause__) is ConnectionError
    assert now.last_failure is not None
    assert (now.last_failure.kind, now.last_failure.error) == (Kind.CONNECTION, None)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        now.state = "closed"  # type: ignore[misc]


@pytest.mark.fault(35)
def test_snapshots_go_by_the_monotonic_clock() -> None:
    """A wall clock that jumps moves dates, not durations."""
    with virtual_time() as clock:
        breaker = CircuitBreaker(failures=1, reset_after=30)
        Pipeline(breaker).outcome(fail)
        clock.move_wall(-3600)
        clock.advance(10)
        now = breaker.snapshot()
        assert (now.opened_for, now.retry_after) == (10, 20)


def test_a_snapshot_as_plain_data() -> None:
    """Rules in words, words as strings."""
    with virtual_time():
        breaker = CircuitBreaker(trip=FailureRate(0.5, calls=4) | SlowCalls(5, 0.5, calls=4))
        Pipeline(breaker).outcome(fail)
        found = breaker.snapshot().to_dict()
    rate, slow = found["readings"]
    assert rate == {"rule": "FailureRate(0.5, calls=4)", "calls": 1, "bad": 1, "rate": 1.0}
    assert slow == {"rule": "SlowCalls(5, 0.5, calls=4)", "calls": 1, "bad": 0, "rate": 0.0}
    assert {type(fact) for fact in found["last_failure"].values()} == {str}


@pytest.mark.parametrize(
    ("key", "told"), [("eu", "eu"), (7, 7), (None, None), (("eu", 7), "('eu', 7)")]
)
def test_a_key_as_plain_data(key: Any, told: Any) -> None:
    """As it is where JSON has it, else in words."""
    breaker = CircuitBreaker(key=lambda: key)
    Pipeline(breaker).call(lambda: "ok")
    assert breaker.circuit(key).snapshot().to_dict()["key"] == told


def test_a_snapshot_without_a_rule_or_a_call_has_no_rate(world: World) -> None:
    """None, not nothing: neither without such a rule, nor before the first call."""
    rate = CircuitBreaker(trip=FailureRate(0.5, calls=4, minimum=4))
    slow = CircuitBreaker(trip=SlowCalls(2))

    assert rate.snapshot().failure_rate is None
    assert rate.snapshot().slow_rate is None
    assert slow.snapshot().failure_rate is None
    world.run(Pipeline(rate, slow).wrap(world.function("ok")))
    assert rate.snapshot().failure_rate == 0
    assert rate.snapshot().slow_rate is None
    assert slow.snapshot().slow_rate == 0


def test_what_opened_it_is_told_until_it_closes(world: World) -> None:
    """The windows stay as they were when it opened, also while it is half open or isolated."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=4, minimum=2), reset_after=10, successes=2)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, ConnectionError, "ok"))
    for _ in range(2):
        world.run(handle(guarded).outcome)
    assert breaker.snapshot().failure_rate == 1
    world.clock.advance(10)
    world.run(guarded)
    assert (breaker.state, breaker.snapshot().failure_rate) == ("half-open", 1)
    hold = breaker.isolate()
    assert breaker.snapshot().failure_rate == 1
    hold.release()
    assert breaker.snapshot().failure_rate is None


def test_a_snapshot_tells_how_the_trials_stand() -> None:
    """Those that went well, those that did not, and those under way."""
    with virtual_time() as clock:
        circuit = Told(trials=3, successes=5, failable_trials=2).circuit
        circuit.open()
        clock.advance(10)
        for _ in range(2):
            admit(circuit).succeed()
        admit(circuit).fail()
        held = admit(circuit)

        now = circuit.snapshot()
        assert (now.passed, now.failed, now.trials) == (2, 1, 1)
        assert held.trial


def opened(circuit: Any, clock: VirtualTime) -> float:
    circuit.open()
    return 0


def isolated(circuit: Any, clock: VirtualTime) -> float:
    circuit.isolate()
    return 0


def half_open(circuit: Any, clock: VirtualTime) -> float:
    circuit.open()
    clock.advance(10)
    admit(circuit).drop()
    return 10


@pytest.mark.parametrize("act", [opened, isolated, half_open])
def test_a_snapshot_tells_since_when_it_is_not_closed(
    act: Callable[[Any, VirtualTime], float],
) -> None:
    """Whatever it has been since."""
    with virtual_time() as clock:
        circuit = Told().circuit
        since = act(circuit, clock)
        clock.advance(3)
        assert circuit.snapshot().opened_for == since + 3
        circuit.close()
        assert circuit.snapshot().opened_for is None
