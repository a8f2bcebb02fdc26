"""Breakers in detail: calls at rest that a window counts, edges of rules, what a snapshot tells."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Takes, World
from resilience import CircuitBreaker, ModelFallback, Pipeline, history
from resilience.policies import FailureRate, SlowCalls


def counted(**options: Any) -> CircuitBreaker:
    """A breaker that has every healthy call counted, and opens when half of four have failed."""
    return CircuitBreaker(trip=FailureRate(0.5, calls=4, minimum=4), **options)


def stands(breaker: Any) -> tuple[int, int]:
    """Calls and failures in the window."""
    (reading,) = breaker.snapshot().readings
    return reading.calls, reading.bad


class Fetch:
    """Gives back its arguments, or fails; counts its calls."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[Any] = []
        self.error = error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        if self.error is not None:
            raise self.error
        return [*args, *kwargs.values()]


# At rest (in real time: virtual time is no rest)


def test_healthy_calls_at_rest_are_counted() -> None:
    """Each once, with its arguments, whatever kind of result it has."""
    breaker, fetch = counted(), Fetch()
    guarded = Pipeline(breaker).wrap(fetch)

    assert guarded(1, size=2) == [1, 2]
    assert stands(breaker) == (1, 0)
    thing = SimpleNamespace()
    assert Pipeline(breaker).call(lambda: thing) is thing
    assert Pipeline(breaker).call(lambda: thing) is thing
    assert stands(breaker) == (3, 0)
    assert fetch.calls == [((1,), {"size": 2})]


def test_a_failed_call_at_rest_is_counted() -> None:
    """The call is made once, its own error comes out with its attempt, and counts."""
    breaker, error = counted(), ConnectionError("mine")
    fetch = Fetch(error)
    with pytest.raises(ConnectionError) as caught:
        Pipeline(breaker).wrap(fetch)(1, size=2)

    assert caught.value is error
    assert fetch.calls == [((1,), {"size": 2})]
    assert stands(breaker) == (1, 1)
    (attempt,) = history(error)
    assert attempt.number == 1
    assert attempt.started == 0.0
    assert attempt.duration is not None
    assert 0 <= attempt.duration < 60


def test_a_call_inside_a_call_is_counted_in_full() -> None:
    """Where another call is under way, nothing is at rest; each counts all the same."""
    breaker = counted()
    inner = Pipeline(breaker).wrap(Fetch())
    outer = Pipeline(breaker).wrap(lambda *args, **kwargs: inner(*args, **kwargs))

    assert outer(1, size=2) == [1, 2]
    assert stands(breaker) == (2, 0)


def test_a_circuit_that_fails_meanwhile_does_not_lose_the_call() -> None:
    """A call that was begun at rest counts when it ends, although another has failed by then."""
    breaker = counted()
    guarded = Pipeline(breaker).wrap(Fetch())

    def meanwhile(result: Any) -> Any:
        with pytest.raises(ConnectionError):
            Pipeline(breaker).call(Fetch(ConnectionError()))
        return result

    assert Pipeline(breaker).call(meanwhile, "plain") == "plain"
    assert stands(breaker) == (2, 1)
    thing = SimpleNamespace()
    breaker.close()
    assert Pipeline(breaker).call(meanwhile, thing) is thing
    assert guarded(3) == [3]
    assert stands(breaker) == (3, 1)


def test_a_key_that_raises_after_a_healthy_call_at_rest(caplog: pytest.LogCaptureFixture) -> None:
    """The result is not lost, nothing is called twice, and the log says so."""
    caplog.set_level(logging.WARNING, logger="resilience")
    breaker, fetch = counted(key=lambda *args, **kwargs: args[9]), Fetch()
    guarded = Pipeline(breaker).wrap(fetch)

    assert guarded(1, size=2) == [1, 2]
    assert fetch.calls == [((1,), {"size": 2})]
    assert [record.getMessage() for record in caplog.records] == ["key raised IndexError"]


def test_each_keys_calls_at_rest_are_its_own() -> None:
    """The circuit is found by the call's arguments, below a chain by those it makes."""
    breaker = counted(key="model")
    guarded = Pipeline(ModelFallback("a", "b"), breaker).wrap(lambda *, model="x": model)

    assert [guarded(), guarded(model="b"), guarded(model="c"), guarded()] == ["a", "b", "c", "a"]
    assert [stands(breaker.circuit(name)) for name in "abc"] == [(2, 0), (1, 0), (1, 0)]


def test_awaited_calls_at_rest_are_counted() -> None:
    """Once, when they have been awaited; failures as well."""
    breaker = counted()

    async def fetch(fails: bool) -> str:
        if fails:
            raise ConnectionError
        return "ok"

    async def main() -> None:
        guarded = Pipeline(breaker).wrap(fetch)
        begun = guarded(False)
        assert stands(breaker) == (0, 0)
        assert await begun == "ok"
        with pytest.raises(ConnectionError):
            await guarded(True)

    asyncio.run(main())
    assert stands(breaker) == (2, 1)


# Rules and snapshots


def test_a_call_that_takes_just_so_long_is_not_slow(world: World) -> None:
    """Slow is what takes longer."""
    breaker = CircuitBreaker(trip=SlowCalls(2, calls=4, minimum=4))
    guarded = Pipeline(breaker).wrap(world.function(Takes(2, "ok"), Takes(2.5, "ok")))
    world.run(guarded)
    assert stands(breaker) == (1, 0)
    world.run(guarded)
    assert stands(breaker) == (2, 1)


def test_a_snapshot_without_a_rule_or_a_call_has_no_rate(world: World) -> None:
    """None, not nothing: neither without such a rule, nor before the first call."""
    rate, slow = counted(), CircuitBreaker(trip=SlowCalls(2))

    assert rate.snapshot().failure_rate is None
    assert rate.snapshot().slow_rate is None
    assert slow.snapshot().failure_rate is None
    world.run(Pipeline(rate, slow).wrap(world.function("ok")))
    assert rate.snapshot().failure_rate == 0
    assert rate.snapshot().slow_rate is None
    assert slow.snapshot().slow_rate == 0
