"""What opens a circuit: rates and slow calls, at rest and not; and for how long."""

from __future__ import annotations

import time
from typing import Any

import pytest
import tenacity

from conftest import Takes, World
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    Consecutive,
    FailureRate,
    Pipeline,
    Retry,
    SlowCalls,
)
from resilience.failures import Advice, Failure, Kind, describe
from resilience.policies._window import CallWindow, TimeWindow
from resilience.testing import virtual_time
from resilience.waits import Exponential, RetryAfter


class BusyError(Exception):
    """An outage whose end the server has named."""


@describe.register(BusyError)
def _read(error: BusyError) -> Failure:
    return Failure(Kind.UNAVAILABLE, Advice.WAIT, retry_after=error.args[0], error=error)


def states(world: World, breaker: CircuitBreaker, *steps: Any) -> list[str]:
    """The state after each step of a script."""
    guarded = Pipeline(breaker).wrap(world.function(*steps))
    found = []
    for _ in steps:
        world.run(guarded.outcome)
        found.append(breaker.state)
    return found


def test_a_rate_opens_at_its_share_and_not_before_its_minimum(world: World) -> None:
    """Half of the calls failed, but the fourth call is the first that may open it."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=10, minimum=4))
    steps = ["ok", "ok", ConnectionError, ConnectionError]
    assert states(world, breaker, *steps) == ["closed"] * 3 + ["open"]


def test_a_success_never_opens(world: World) -> None:
    """Where the minimum is reached by a good call, the next bad one opens it."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=10, minimum=4))
    steps = [ConnectionError, ConnectionError, "ok", "ok", ConnectionError]
    assert states(world, breaker, *steps) == ["closed"] * 4 + ["open"]


def test_old_calls_leave_a_window_by_number(world: World) -> None:
    """Two failures of long ago are not two of the last four."""
    breaker = CircuitBreaker(trip=FailureRate(0.75, calls=4, minimum=4))
    bad = ConnectionError
    steps = [bad, bad, "ok", "ok", "ok", bad, bad, bad]
    assert states(world, breaker, *steps) == ["closed"] * 7 + ["open"]


def test_old_calls_leave_a_window_by_time(world: World) -> None:
    """Failures older than the window do not count, those within it do."""
    breaker = CircuitBreaker(trip=FailureRate(1, window=10, minimum=3))
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    for pause in (0, 5, 6.5, 0):
        world.clock.advance(pause)
        world.run(guarded.outcome)
    assert breaker.state == "open"
    assert breaker.snapshot().readings[0].calls == 3  # the first of four had gone


def test_slow_calls_open_it(world: World) -> None:
    """Slow is longer than the limit, whether the call succeeds or fails; at the limit is not."""
    breaker = CircuitBreaker(trip=SlowCalls(2, 0.5, calls=10, minimum=4))
    steps = [Takes(2, "ok"), Takes(0, "ok"), Takes(2.5, "ok"), Takes(3, ConnectionError)]
    assert states(world, breaker, *steps) == ["closed"] * 3 + ["open"]


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
    assert states(world, breaker, *[ConnectionError] * 3)[-1] == "open"


def test_fault_066_unmatched_errors_take_no_part_in_a_rate(world: World) -> None:
    """They are neither calls nor failures of the window."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=10, minimum=2))
    states(world, breaker, ValueError, ValueError, ConnectionError)
    (reading,) = breaker.snapshot().readings
    assert (reading.calls, reading.bad, breaker.state) == (1, 1, "closed")


def test_closing_empties_the_windows(world: World) -> None:
    """After a recovery the counts begin anew."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=4, minimum=2), reset_after=1)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, ConnectionError, "ok"))
    for pause in (0, 0, 2):
        world.clock.advance(pause)
        world.run(guarded.outcome)
    assert (breaker.state, breaker.snapshot().readings[0].calls) == ("closed", 0)


def test_windows_count_at_rest() -> None:
    """A pipeline at rest has every healthy call counted, sync, and goes on resting."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, minimum=4))
    pipeline = Pipeline(Retry(attempts=1), breaker)
    guarded = pipeline.wrap(lambda x: x)
    token = pipeline.rest.token
    assert token is not None
    assert [guarded(n) for n in range(5)] == list(range(5))
    assert breaker.snapshot().readings[0].calls == 5
    for _ in range(5):
        pipeline.outcome(_boom)
    assert pipeline.rest.token is None
    assert breaker.state == "open"


def test_windows_count_at_rest_when_keyed_and_below_a_chain() -> None:
    """The key is read from the arguments, each value's calls in its own window."""
    breaker = CircuitBreaker(key="model", trip=FailureRate(0.5))
    guarded = Pipeline(breaker).wrap(lambda model: [model])
    for model in "aab":
        assert guarded(model) == [model]
    counts = {key: breaker.circuit(key).snapshot().readings[0].calls for key in "ab"}
    assert counts == {"a": 2, "b": 1}


def test_windows_count_coroutines_at_rest() -> None:
    """An async call is counted when it has been awaited."""
    import asyncio

    async def fn() -> int:
        return 1

    breaker = CircuitBreaker(trip=FailureRate(0.5))
    guarded = Pipeline(breaker).wrap(fn)

    async def main() -> None:
        pending = guarded()
        assert breaker.snapshot().readings[0].calls == 0
        assert await pending == 1

    asyncio.run(main())
    assert breaker.snapshot().readings[0].calls == 1


@pytest.mark.real
def test_a_slow_call_at_rest_is_slow() -> None:
    """What took too long is reported in the full chain, by real time."""
    breaker = CircuitBreaker(trip=SlowCalls(0.01, 1, calls=2, minimum=2))
    guarded = Pipeline(breaker).wrap(time.sleep)
    guarded(0.02)
    assert breaker.snapshot().slow_rate == 1
    guarded(0.02)
    assert breaker.state == "open"


def _boom() -> None:
    raise ConnectionError


@pytest.mark.parametrize(
    "make", [lambda: TimeWindow(10), lambda: CallWindow(7)], ids=["time", "calls"]
)
def test_windows_agree_with_a_list(make: Any) -> None:
    """Whatever comes when: the sums are those of the calls that a list says are in the window."""
    from random import Random

    chance, window = Random(5), make()
    now, calls = 0.0, []
    for _ in range(3000):
        now += chance.choice([0, 0.1, 0.9, 3, 25]) if chance.random() < 0.3 else 0
        bad = chance.random() < 0.4
        calls.append((now, bad))
        window.add(now, bad)
        if isinstance(window, TimeWindow):
            inside = [b for at, b in calls if at // 1 > now // 1 - 10]
        else:
            inside = [b for _, b in calls[-7:]]
        assert (window.calls, window.bad) == (len(inside), sum(inside))


# For how long


def opened(breaker: CircuitBreaker, world: World, *errors: Any) -> list[float | None]:
    """Each failure opens it; for how many seconds."""
    guarded = Pipeline(breaker).wrap(world.function(*errors))
    found = []
    for _ in errors:
        world.run(guarded.outcome)
        after = breaker.snapshot().retry_after
        found.append(after)
        world.clock.advance(after or 0)
    return found


def test_the_open_time_grows_with_each_opening_in_a_row(world: World) -> None:
    """A wait is asked with the number of openings since it was last closed, up to its cap."""
    wait = Exponential(1, factor=2, max=5, jitter=0)
    breaker = CircuitBreaker(failures=1, reset_after=wait)
    bad = ConnectionError
    assert opened(breaker, world, bad, bad, bad, bad, "ok", bad) == [1, 2, 4, 5, None, 1]


def test_a_tenacity_wait_says_how_long(world: World) -> None:
    """Waits of tenacity's stand where ours may."""
    wait = tenacity.wait_incrementing(start=3, increment=2)
    breaker = CircuitBreaker(failures=1, reset_after=wait)
    assert opened(breaker, world, *[ConnectionError] * 3) == [3, 5, 7]


def test_the_open_time_is_jittered(world: World) -> None:
    """By the world's chance, so that a crowd does not come back at once."""
    breaker = CircuitBreaker(failures=1, reset_after=Exponential(10, jitter=0.5))
    world.clock.random = lambda: 0.25
    assert opened(breaker, world, ConnectionError) == [7.5]


@pytest.mark.parametrize(("asked", "seconds"), [(90.0, 90.0), (5.0, 60.0)])
def test_the_servers_own_word_counts_when_it_is_longer(
    world: World, asked: float, seconds: float
) -> None:
    """Retry-After of the failure that opened it; never less than `reset_after`."""
    breaker = CircuitBreaker(failures=1)
    assert opened(breaker, world, BusyError(asked)) == [seconds]


@pytest.mark.parametrize(
    "wait", [RetryAfter(longest=1), lambda state: float("nan"), lambda state: 1 / 0, tenacity.wait]
)
def test_a_wait_that_does_not_say(world: World, wait: Any) -> None:
    """One that raises, gives nonsense or gives up: it opens for 60 s, and no call is broken."""
    if wait is tenacity.wait:
        wait = tenacity.wait_fixed(float("inf"))
    breaker = CircuitBreaker(failures=1, reset_after=wait)
    assert opened(breaker, world, BusyError(50.0)) == [60]


def test_no_lock_is_held_while_the_wait_is_asked(world: World) -> None:
    """It may ask the circuit itself, which is open already but does not know for how long."""
    seen = []

    def wait(state: Any) -> float:
        owned = breaker._only._lock._is_owned()
        seen.append((owned, breaker.state, breaker.retry_at, state.attempt_number))
        return 3

    breaker = CircuitBreaker(failures=1, reset_after=wait)
    assert opened(breaker, world, ConnectionError) == [3]
    assert seen == [(False, "open", None, 1)]


def test_fault_028_an_interrupt_while_the_wait_is_asked() -> None:
    """Ctrl-C in there comes out, and the circuit is tried again later all the same."""

    def wait(state: Any) -> float:
        raise KeyboardInterrupt

    breaker = CircuitBreaker(failures=1, reset_after=wait)
    with virtual_time() as clock:
        guarded = Pipeline(breaker).wrap(_boom)
        with pytest.raises(KeyboardInterrupt):
            guarded()
        with pytest.raises(CircuitOpenError):
            guarded()
        clock.advance(60)
        with pytest.raises(KeyboardInterrupt):
            guarded()
