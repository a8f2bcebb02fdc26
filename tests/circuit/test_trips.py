"""What opens a circuit: failures in a row, a share of failures, a share of slow calls."""

from __future__ import annotations

import time

import pytest

from conftest import Takes, World
from resilience import (
    CircuitBreaker,
    Consecutive,
    FailureRate,
    Pipeline,
    SlowCalls,
)
from resilience import guarded as handle
from resilience.circuit.trip import Gauge
from support.calling import error_of
from support.circuits import states_after


def counts(breaker: CircuitBreaker) -> tuple[int, int]:
    """Calls and bad calls in its one window."""
    (reading,) = breaker.snapshot().readings
    return reading.calls, reading.bad


def test_a_rate_opens_at_its_share_and_not_before_its_minimum(world: World) -> None:
    """Half of the calls failed, but the fourth call is the first that may open it."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=10, minimum=4))
    steps = ["ok", "ok", ConnectionError, ConnectionError]
    assert states_after(world, breaker, *steps) == ["closed"] * 3 + ["open"]


def test_a_success_never_opens(world: World) -> None:
    """Where the minimum is reached by a good call, the next bad one opens it."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=10, minimum=4))
    steps = [ConnectionError, ConnectionError, "ok", "ok", ConnectionError]
    assert states_after(world, breaker, *steps) == ["closed"] * 4 + ["open"]


def test_old_calls_leave_a_window_by_number(world: World) -> None:
    """Two failures of long ago are not two of the last four."""
    breaker = CircuitBreaker(trip=FailureRate(0.75, calls=4, minimum=4))
    bad = ConnectionError
    steps = [bad, bad, "ok", "ok", "ok", bad, bad, bad]
    assert states_after(world, breaker, *steps) == ["closed"] * 7 + ["open"]


def test_old_calls_leave_a_window_by_time(world: World) -> None:
    """Failures older than the window do not count, those within it do."""
    breaker = CircuitBreaker(trip=FailureRate(1, window=10, minimum=3))
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    for pause in (0, 5, 6.5, 0):
        world.clock.advance(pause)
        world.run(handle(guarded).outcome)
    assert breaker.state == "open"
    assert counts(breaker)[0] == 3  # the first of four had gone


def test_slow_calls_open_it(world: World) -> None:
    """Slow is longer than the limit, whether the call succeeds or fails; at the limit is not."""
    breaker = CircuitBreaker(trip=SlowCalls(2, 0.5, calls=10, minimum=4))
    steps = [Takes(2, "ok"), Takes(0, "ok"), Takes(2.5, "ok"), Takes(3, ConnectionError)]
    assert states_after(world, breaker, *steps) == ["closed"] * 3 + ["open"]


def test_a_call_that_takes_just_so_long_is_not_slow(world: World) -> None:
    """Slow is what takes longer."""
    breaker = CircuitBreaker(trip=SlowCalls(2, calls=4, minimum=4))
    steps = [Takes(2, "ok"), Takes(2, ConnectionError), Takes(2.5, "ok")]
    guarded = Pipeline(breaker).wrap(world.function(*steps))
    world.run(guarded)
    assert counts(breaker) == (1, 0)
    error_of(world, guarded)
    assert counts(breaker) == (2, 0)
    world.run(guarded)
    assert counts(breaker) == (3, 1)


def test_a_slow_trial_has_gone_badly(world: World) -> None:
    """A circuit opened by slow calls does not close by one."""
    breaker = CircuitBreaker(trip=SlowCalls(2, 0.5, calls=2, minimum=2), reset_after=10)
    steps = [Takes(3, "ok"), Takes(3, "ok"), Takes(3, "ok"), "ok"]
    guarded = Pipeline(breaker).wrap(world.function(*steps))
    found = []
    for pause in (0, 0, 11, 11):
        world.clock.advance(pause)
        world.run(guarded)
        found.append(breaker.state)
    assert found == ["closed", "open", "open", "closed"]


def test_joined_rules_open_with_the_first_that_trips(world: World) -> None:
    """Three in a row open it long before the rate has its minimum."""
    breaker = CircuitBreaker(trip=FailureRate(0.5) | Consecutive(3) | SlowCalls(9, 0.5))
    assert states_after(world, breaker, *[ConnectionError] * 3)[-1] == "open"


def test_a_success_ends_a_run_beside_a_rate(world: World) -> None:
    """Where both are counted, failures in a row are still in a row."""
    breaker = CircuitBreaker(trip=FailureRate(1, calls=100) | Consecutive(3))
    bad = ConnectionError
    steps = [bad, bad, "ok", bad, bad, "ok", bad, bad, bad]
    assert states_after(world, breaker, *steps) == ["closed"] * 8 + ["open"]


@pytest.mark.fault(66)
def test_unmatched_errors_take_no_part_in_a_rate(world: World) -> None:
    """They are neither calls nor failures of the window."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=10, minimum=2))
    states_after(world, breaker, ValueError, ValueError, ConnectionError)
    assert (*counts(breaker), breaker.state) == (1, 1, "closed")


def test_closing_empties_the_windows(world: World) -> None:
    """After a recovery the counts begin anew."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=4, minimum=2), reset_after=1)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, ConnectionError, "ok"))
    for pause in (0, 0, 2):
        world.clock.advance(pause)
        world.run(handle(guarded).outcome)
    assert (breaker.state, counts(breaker)) == ("closed", (0, 0))


@pytest.mark.real
def test_a_slow_call_at_rest_is_slow() -> None:
    """What took too long is reported in the full chain, by real time."""
    breaker = CircuitBreaker(trip=SlowCalls(0.01, 1, calls=2, minimum=2))
    guarded = Pipeline(breaker).wrap(time.sleep)
    guarded(0.02)
    assert breaker.snapshot().slow_rate == 1
    guarded(0.02)
    assert breaker.state == "open"


# What a circuit keeps for a rule


@pytest.mark.parametrize(
    ("rule", "bad", "unused", "clean"),
    [
        (FailureRate(0.5), 0, 0.0, True),
        (FailureRate(0.5), 1, 59.9, False),
        (FailureRate(0.5), 1, 60.0, True),
        (FailureRate(0.5), 2, 0.0, False),
        (FailureRate(0.5, calls=9), 0, 0.0, True),
        (FailureRate(0.5, calls=9), 1, 1e9, False),
        (FailureRate(0.5, calls=9), 2, 1e9, False),
    ],
)
def test_whether_a_window_has_something_to_remember(
    rule: FailureRate, bad: int, unused: float, clean: bool
) -> None:
    """Bad calls, as long as they are in it."""
    gauge = Gauge(rule)
    for _ in range(bad):
        gauge.trips(0.0, True, 0.0)
    assert gauge.clean(unused) is clean
