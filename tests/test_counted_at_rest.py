"""Windows count the healthy calls of a pipeline at rest (virtual time is never at rest)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from resilience import CircuitBreaker, FailureRate, ModelFallback, Pipeline, Retry, SlowCalls
from resilience.errors import CircuitOpenError

RATE = FailureRate(0.5, calls=8, minimum=8)
ALL_SLOW = SlowCalls(1e-9, 0.5, calls=8, minimum=4)
"""Any call takes longer than a nanosecond."""


def odd() -> Any:
    """A result of a type that nobody has seen before."""

    class Odd: ...

    return Odd()


def plain() -> Any:
    return "plain"


def readings(circuit: Any) -> tuple[int, int]:
    """Calls and bad calls in the window."""
    (reading,) = circuit.snapshot().readings
    return reading.calls, reading.bad


def echo(value: Any, *, model: str = "m") -> Any:
    """Gives what it is given, raises it if it is an error."""
    if isinstance(value, Exception):
        raise value
    return value


async def aecho(value: Any, *, model: str = "m") -> Any:
    return echo(value, model=model)


def called(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call and, if that is its way, await."""
    if fn.__name__ == "echo":
        return fn(*args, **kwargs)

    async def main() -> Any:
        return await fn(*args, **kwargs)

    return asyncio.run(main())


@pytest.mark.parametrize("fn", [echo, aecho])
@pytest.mark.parametrize("make", [plain, odd, lambda: None])
def test_healthy_calls_are_counted(fn: Any, make: Any) -> None:
    """Of both colours and of any type of result: what comes back is what was given."""
    result = make()
    breaker = CircuitBreaker(trip=RATE)
    guarded = Pipeline(breaker).wrap(fn)

    for _ in range(3):
        assert called(guarded, result, model="x") is result
    assert readings(breaker) == (3, 0)


@pytest.mark.parametrize("fn", [echo, aecho])
@pytest.mark.parametrize("chain", [(), (ModelFallback("m", "n"),)])
@pytest.mark.parametrize(
    "policy",
    [
        lambda: Retry(),
        lambda: CircuitBreaker(trip=RATE),
        lambda: CircuitBreaker(trip=SlowCalls(1_000, calls=8)),
        lambda: CircuitBreaker(trip=RATE, key="model"),
        lambda: CircuitBreaker(trip=RATE, key="value"),
        lambda: CircuitBreaker(trip=RATE, key=lambda value, model: model),
    ],
)
@pytest.mark.parametrize("make", [plain, odd])
def test_healthy_calls_at_rest_do_not_go_the_whole_way(
    monkeypatch: pytest.MonkeyPatch, fn: Any, chain: Any, policy: Any, make: Any
) -> None:
    """Nor is the full chain told of them: they are counted, and that is all."""
    result = make()
    guarded = Pipeline(*chain, policy()).wrap(fn)
    monkeypatch.setattr(Pipeline, "run", lambda *args, **kwargs: pytest.fail("in full"))

    assert called(guarded, result, model="m") is result


@pytest.mark.parametrize("fn", [echo, aecho])
def test_failures_at_rest_are_counted_once(fn: Any) -> None:
    """The first attempt's own outcome counts; the call is not made again for it."""
    breaker = CircuitBreaker(trip=RATE)
    guarded = Pipeline(breaker).wrap(fn)
    error = ConnectionError("mine")

    with pytest.raises(ConnectionError) as caught:
        called(guarded, error, model="x")
    assert caught.value is error
    called(guarded, 1)
    assert readings(breaker) == (2, 1)


@pytest.mark.parametrize("fn", [echo, aecho])
def test_a_failure_at_rest_is_retried_with_the_same_arguments(fn: Any) -> None:
    """The second attempt is asked what the first was asked."""
    breaker = CircuitBreaker(trip=RATE)
    asked: list[tuple[Any, str]] = []

    def failing_once(value: Any, *, model: str = "m") -> Any:
        asked.append((value, model))
        if len(asked) == 1:
            raise ConnectionError
        return value

    async def later(value: Any, *, model: str = "m") -> Any:
        return failing_once(value, model=model)

    failing_once.__name__ = "echo"
    chosen = failing_once if fn is echo else later
    guarded = Pipeline(Retry(wait=0), breaker).wrap(chosen)

    assert called(guarded, 7, model="x") == 7
    assert asked == [(7, "x"), (7, "x")]
    assert readings(breaker) == (2, 1)


@pytest.mark.parametrize("fn", [echo, aecho])
@pytest.mark.parametrize("key", ["model", lambda value, model: model])
def test_each_key_has_its_own_count(fn: Any, key: Any) -> None:
    """Which circuit is told by the call's arguments."""
    breaker = CircuitBreaker(key=key, trip=RATE)
    guarded = Pipeline(breaker).wrap(fn)
    for model in ("a", "b", "a"):
        called(guarded, 1, model=model)

    assert readings(breaker.circuit("a")) == (2, 0)
    assert readings(breaker.circuit("b")) == (1, 0)


@pytest.mark.parametrize("make", [plain, odd])
@pytest.mark.parametrize("fn", [echo, aecho])
def test_a_chains_first_model_is_counted(fn: Any, make: Any) -> None:
    """The circuit is that of the model that the chain has put in."""
    result = make()
    breaker = CircuitBreaker(key="model", trip=RATE)
    guarded = Pipeline(ModelFallback("first", "second"), breaker).wrap(fn)

    assert called(guarded, result) is result
    assert readings(breaker.circuit("first")) == (1, 0)
    assert readings(breaker.circuit("m")) == (0, 0)


@pytest.mark.parametrize("fn", [echo, aecho])
@pytest.mark.parametrize("policies", [(), (ModelFallback("m"),)])
@pytest.mark.parametrize("make", [plain, odd])
@pytest.mark.parametrize("key", ["model", "value"])
def test_slow_calls_at_rest_open_the_circuit(fn: Any, policies: Any, make: Any, key: str) -> None:
    """Each is made once and gives its result; the fourth slow one opens it, and the next is
    refused."""
    result = make()
    calls: list[Any] = []

    def counted(value: Any, *, model: str = "n") -> Any:
        calls.append(value)
        return value

    async def later(value: Any, *, model: str = "n") -> Any:
        return counted(value)

    counted.__name__ = "echo"
    breaker = CircuitBreaker(trip=ALL_SLOW, key=key)
    guarded = Pipeline(*policies, breaker).wrap(counted if fn is echo else later)

    for _ in range(4):
        assert called(guarded, result, model="m") is result
    assert breaker.circuit("m" if key == "model" else result).state == "open"
    with pytest.raises(CircuitOpenError):
        called(guarded, result, model="m")
    assert len(calls) == 4


@pytest.mark.parametrize("fn", [echo, aecho])
def test_a_chains_failure_at_rest_is_counted(fn: Any) -> None:
    """The first model's circuit opens; the call goes on with the second."""
    breaker = CircuitBreaker(failures=1, key="model")

    def ask(value: Any, *, model: str = "m") -> Any:
        if model == "first":
            raise ConnectionError
        return model

    async def later(value: Any, *, model: str = "m") -> Any:
        return ask(value, model=model)

    ask.__name__ = "echo"
    guarded = Pipeline(ModelFallback("first", "second"), breaker).wrap(ask if fn is echo else later)
    assert called(guarded, 1) == "second"
    assert [breaker.circuit(model).state for model in ("first", "second")] == ["open", "closed"]


@pytest.mark.parametrize("fn", [echo, aecho])
def test_a_success_from_before_a_change_is_not_counted(fn: Any) -> None:
    """A circuit that is opened and closed while the call runs has begun to count anew."""
    breaker = CircuitBreaker(trip=RATE)

    def meanwhile(value: Any, *, model: str = "m") -> Any:
        breaker.open()
        breaker.close()
        return value

    async def later(value: Any, *, model: str = "m") -> Any:
        return meanwhile(value)

    meanwhile.__name__ = "echo"
    guarded = Pipeline(breaker).wrap(meanwhile if fn is echo else later)

    assert called(guarded, 7) == 7
    assert readings(breaker) == (0, 0)


def test_a_key_that_cannot_be_worked_out_is_told_in_the_full_chain() -> None:
    """At rest the call was made: its result comes back, the trouble is not in its way."""
    breaker = CircuitBreaker(key=lambda value, model="m": [value], trip=RATE, name="odd")

    assert Pipeline(breaker).call(echo, "made") == "made"


def test_a_call_that_is_not_at_rest_goes_the_whole_way() -> None:
    """While a failure of another circuit is remembered, nothing is counted twice."""
    breaker = CircuitBreaker(key="model", trip=RATE)
    guarded = Pipeline(breaker).wrap(echo)
    breaker.circuit("down").open()

    assert guarded(1, model="up") == 1
    assert readings(breaker.circuit("up")) == (1, 0)
    with pytest.raises(CircuitOpenError):
        guarded(1, model="down")


def test_each_thread_is_counted() -> None:
    """Calls of several threads at rest are all in the window."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=1000, minimum=1000))
    guarded = Pipeline(breaker).wrap(echo)

    def calls() -> None:
        for _ in range(100):
            guarded(1)

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert readings(breaker) == (400, 0)
