"""Clocks that jump, stand still or are coarse; sleeps that err; and totals that hold."""

from __future__ import annotations

import random
import time
from email.utils import formatdate
from typing import Any

import pytest

from conftest import Takes, World
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    Retry,
    Timeout,
)
from resilience.failures import Advice, Failure, Kind, describe
from resilience.sdks.headers import pick
from resilience.testing import script
from resilience.waits import Fixed, RetryAfter
from support.calling import error_of


@pytest.mark.fault(36)
def test_a_suspended_machine_never_makes_a_wait_negative(world: World) -> None:
    """The wall clock has gone on for a day, the other has not: nothing leaves its bounds."""
    breaker = CircuitBreaker(failures=1, reset_after=10)
    fn = world.function(ConnectionError, "ok")

    assert type(error_of(world, Pipeline(breaker).wrap(fn))) is ConnectionError
    world.clock.move_wall(86_400)
    rejection = error_of(world, Pipeline(breaker).wrap(fn))
    assert isinstance(rejection, CircuitOpenError)
    assert rejection.retry_after == pytest.approx(10)
    world.clock.advance(10)
    assert world.run(Pipeline(breaker).wrap(fn)) == "ok"


@pytest.mark.fault(38)
def test_events_of_one_tick_keep_their_order(world: World) -> None:
    """With equal times it is the order of events that counts."""
    breaker = CircuitBreaker(failures=2, reset_after=0.001)

    def late(*args: Any) -> None:
        breaker.open()
        breaker.close()
        raise ConnectionError

    steps = [ConnectionError, "ok", ConnectionError, late, ConnectionError, ConnectionError]
    guarded: Any = Pipeline(breaker).wrap(world.function(*steps))
    states = []
    for _ in steps:
        try:
            world.run(guarded)
        except ConnectionError:
            pass
        states.append((breaker.state, breaker._only.failures))
    assert states == [
        *(("closed", 1), ("closed", 0), ("closed", 1)),
        ("closed", 0),  # begun before it was opened and closed, in the same tick
        *(("closed", 1), ("open", 0)),
    ]
    assert isinstance(error_of(world, guarded), CircuitOpenError)


class DatedError(Exception):
    """An error with a date to come back at."""

    def __init__(self, date: str) -> None:
        super().__init__()
        self.date = date


@describe.register(DatedError)
def _read(error: DatedError) -> Failure:
    wait = pick({"Retry-After": error.date}).wait
    return Failure(Kind.UNAVAILABLE, Advice.WAIT, retry_after=wait)


@pytest.mark.fault(39)
@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_date_is_read_once(world: World, jump: float) -> None:
    """What the wall clock does after the date was read changes nothing."""
    errors: list[DatedError] = []

    def dated(*args: Any) -> None:
        errors.append(DatedError(formatdate(world.clock.wall() + 10, usegmt=True)))
        raise errors[-1]

    read: list[Failure] = []

    def on(failure: Failure) -> bool:
        read.append(failure)
        world.clock.move_wall(jump)
        return True

    guarded = Pipeline(Retry(wait=RetryAfter(spread=0), on=on)).wrap(world.function(dated, "ok"))
    assert world.run(guarded) == "ok"
    assert len(read) == 1
    assert world.clock.sleeps == [pytest.approx(10, abs=1.1)]


@pytest.mark.fault(40)
@pytest.mark.real
@pytest.mark.parametrize("extra", [0.6, -1.0])
def test_a_sleep_that_errs(monkeypatch: pytest.MonkeyPatch, extra: float) -> None:
    """One that lasts too long adds no attempt after the deadline; one too short does no harm."""
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(max(0.0, seconds + extra)))
    made: list[float] = []
    begun = time.monotonic()

    def fail() -> None:
        made.append(time.monotonic() - begun)
        raise ConnectionError

    with pytest.raises((ConnectionError, DeadlineExceededError)):
        Pipeline(Timeout(0.5), Retry(attempts=4, wait=Fixed(0.1))).call(fail)
    assert len(made) == (1 if extra > 0 else 4)
    assert all(seconds < 0.5 for seconds in made)


@pytest.mark.fault(113)
@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")  # any times: the inner longer
def test_a_total_deadline_covers_it_all(world: World) -> None:
    """In random pipelines no attempt and no wait begins or ends after the total."""
    chance = random.Random(113)
    for _ in range(60):
        total = chance.uniform(0.1, 30)
        begun = world.clock.now()
        steps = [Takes(chance.uniform(0, 12), ConnectionError()) for _ in range(20)]
        pipeline = Pipeline(
            Timeout(total),
            Retry(attempts=20, wait=Fixed(chance.uniform(0, 5)), on=Exception),
            CircuitBreaker(failures=99),
            Timeout(chance.uniform(0.1, 10)),
        )
        started: list[float] = []
        fn = world.function(*steps)

        def noting(fn: Any = fn, started: list[float] = started, begun: float = begun) -> Any:
            started.append(world.clock.now() - begun)
            return fn()

        world.clock.sleeps.clear()
        error = error_of(world, pipeline.wrap(noting))
        assert isinstance(error, (ConnectionError, DeadlineExceededError))
        assert all(at < total for at in started)
        if world.asynchronous:  # a virtual sync function cannot be left, only found to be late
            assert world.clock.now() - begun <= total + 1e-6


@pytest.mark.fault(209)
def test_a_wait_of_no_time_is_no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync call that waits for 0 seconds goes on at once: a sleep of 0 costs 80 µs."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    service = script(ConnectionError(), ConnectionError(), "answer")
    assert Pipeline(Retry(wait=0)).call(service) == "answer"
    assert slept == []
