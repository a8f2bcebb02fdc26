"""Windows count the healthy calls of a pipeline at rest (virtual time is never at rest)."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    CircuitBreaker,
    FailureRate,
    ModelFallback,
    Pipeline,
    Retry,
    SlowCalls,
    history,
)
from resilience._core.guard import Guard
from resilience._core.idle import epochs
from resilience.errors import CircuitOpenError
from support.circuits import Told, admit, fail, model_first, rests
from support.concurrency import in_threads

RATE = FailureRate(0.5, calls=8, minimum=8)
ALL_SLOW = SlowCalls(1e-9, 0.5, calls=8, minimum=4)
"""Any call takes longer than a nanosecond."""


def odd() -> Any:
    """A result of a type that nobody has seen before."""

    class Odd: ...

    return Odd()


def plain() -> Any:
    return "plain"


def counts(circuit: Any) -> tuple[int, int]:
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
    if not inspect.iscoroutinefunction(fn):
        return fn(*args, **kwargs)

    async def main() -> Any:
        return await fn(*args, **kwargs)

    return asyncio.run(main())


def coloured(like: Any, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` in the colour of another function, with the same arguments as that."""
    if like is echo:
        return fn

    async def later(value: Any, *, model: str = "m") -> Any:
        return fn(value, model=model)

    return later


both_colours = pytest.mark.parametrize("fn", [echo, aecho])


def test_the_first_call_of_a_program_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No circuit has ever changed, and its own is made when it fails."""
    monkeypatch.setattr(epochs, "now", 0)
    breaker = CircuitBreaker(key="model", failures=1)
    with pytest.raises(ConnectionError):
        Pipeline(breaker).call(model_first, "bad")
    assert breaker.circuit("bad").state == "open"


@both_colours
@pytest.mark.parametrize("make", [plain, odd, lambda: None])
def test_healthy_calls_are_counted(fn: Any, make: Any) -> None:
    """Of both colours and of any type of result: what comes back is what was given."""
    result = make()
    breaker = CircuitBreaker(trip=RATE)
    guarded = Pipeline(breaker).wrap(fn)

    for _ in range(3):
        assert called(guarded, result, model="x") is result
    assert counts(breaker) == (3, 0)


@both_colours
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
    for way in ("run", "conduct"):
        monkeypatch.setattr(Guard, way, lambda *args, **kwargs: pytest.fail("in full"))

    assert called(guarded, result, model="m") is result


def test_what_is_called_at_rest_is_given_its_arguments_and_gives_its_result() -> None:
    """Each call once, whatever kind of result it has."""
    breaker = CircuitBreaker(trip=RATE)
    calls: list[Any] = []

    def fetch(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return [*args, *kwargs.values()]

    assert Pipeline(breaker).wrap(fetch)(1, size=2) == [1, 2]
    assert counts(breaker) == (1, 0)
    assert calls == [((1,), {"size": 2})]


def test_it_goes_on_resting_until_a_rule_trips() -> None:
    """A pipeline at rest stays so while healthy calls are counted; the failures open it."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, minimum=4))
    pipeline = Pipeline(Retry(attempts=1), breaker)
    guarded = pipeline.wrap(lambda x: x)
    assert rests(pipeline)
    assert [guarded(n) for n in range(5)] == list(range(5))
    assert rests(pipeline)
    assert counts(breaker)[0] == 5
    for _ in range(5):
        pipeline.outcome(fail)
    assert not rests(pipeline)
    assert breaker.state == "open"


def test_coroutines_are_counted_when_they_have_been_awaited() -> None:
    """Not when they are made."""
    breaker = CircuitBreaker(trip=RATE)
    guarded = Pipeline(breaker).wrap(aecho)

    async def main() -> None:
        begun = guarded("ok")
        assert counts(breaker) == (0, 0)
        assert await begun == "ok"

    asyncio.run(main())
    assert counts(breaker) == (1, 0)


# Failures


@both_colours
def test_failures_at_rest_are_counted_once(fn: Any) -> None:
    """The first attempt's own outcome counts, and is told in the history; the call is not made
    again for it."""
    breaker = CircuitBreaker(trip=RATE)
    guarded = Pipeline(breaker).wrap(fn)
    error = ConnectionError("mine")

    with pytest.raises(ConnectionError) as caught:
        called(guarded, error, model="x")
    assert caught.value is error
    (attempt,) = history(error)
    assert (attempt.number, attempt.started) == (1, 0.0)
    assert attempt.duration is not None
    assert 0 <= attempt.duration < 60
    called(guarded, 1)
    assert counts(breaker) == (2, 1)


@both_colours
def test_a_failure_at_rest_is_retried_with_the_same_arguments(fn: Any) -> None:
    """The second attempt is asked what the first was asked."""
    breaker = CircuitBreaker(trip=RATE)
    asked: list[tuple[Any, str]] = []

    def failing_once(value: Any, *, model: str = "m") -> Any:
        asked.append((value, model))
        if len(asked) == 1:
            raise ConnectionError
        return value

    guarded = Pipeline(Retry(wait=0), breaker).wrap(coloured(fn, failing_once))

    assert called(guarded, 7, model="x") == 7
    assert asked == [(7, "x"), (7, "x")]
    assert counts(breaker) == (2, 1)


@both_colours
def test_a_chains_failure_at_rest_is_counted(fn: Any) -> None:
    """The first model's circuit opens; the call goes on with the second."""
    breaker = CircuitBreaker(failures=1, key="model")

    def ask(value: Any, *, model: str = "m") -> Any:
        if model == "first":
            raise ConnectionError
        return model

    guarded = Pipeline(ModelFallback("first", "second"), breaker).wrap(coloured(fn, ask))
    assert called(guarded, 1) == "second"
    assert [breaker.circuit(model).state for model in ("first", "second")] == ["open", "closed"]


# Whose window


@both_colours
@pytest.mark.parametrize("key", ["model", lambda value, model: model])
def test_each_key_has_its_own_count(fn: Any, key: Any) -> None:
    """Which circuit is told by the call's arguments."""
    breaker = CircuitBreaker(key=key, trip=RATE)
    guarded = Pipeline(breaker).wrap(fn)
    for model in ("a", "b", "a"):
        called(guarded, 1, model=model)

    assert counts(breaker.circuit("a")) == (2, 0)
    assert counts(breaker.circuit("b")) == (1, 0)


@pytest.mark.parametrize("make", [plain, odd])
@both_colours
def test_a_chains_first_model_is_counted(fn: Any, make: Any) -> None:
    """The circuit is that of the model that the chain has put in, or that the caller has asked
    for."""
    result = make()
    breaker = CircuitBreaker(key="model", trip=RATE)
    guarded = Pipeline(ModelFallback("first", "second"), breaker).wrap(fn)

    assert called(guarded, result) is result
    assert called(guarded, result, model="second") is result
    assert [counts(breaker.circuit(name)) for name in ("first", "second", "m")] == [
        (1, 0),
        (1, 0),
        (0, 0),
    ]


def test_two_breakers_count_the_same_call() -> None:
    """Each in its own window."""
    one, two = CircuitBreaker(trip=RATE), CircuitBreaker(trip=FailureRate(0.5))
    assert Pipeline(one, two).call(echo, 1) == 1
    assert (counts(one), counts(two)) == ((1, 0), (1, 0))


# Slow, late, and in between


@both_colours
@pytest.mark.parametrize("policies", [(), (ModelFallback("m"),)])
@pytest.mark.parametrize("make", [plain, odd])
@pytest.mark.parametrize("key", ["model", "value"])
def test_slow_calls_at_rest_open_the_circuit(fn: Any, policies: Any, make: Any, key: str) -> None:
    """Each is made once and gives its result; the fourth slow one opens it, and the next is
    rejected."""
    result = make()
    calls: list[Any] = []

    def counted(value: Any, *, model: str = "n") -> Any:
        calls.append(value)
        return value

    breaker = CircuitBreaker(trip=ALL_SLOW, key=key)
    guarded = Pipeline(*policies, breaker).wrap(coloured(fn, counted))

    for _ in range(4):
        assert called(guarded, result, model="m") is result
    assert breaker.circuit("m" if key == "model" else result).state == "open"
    with pytest.raises(CircuitOpenError):
        called(guarded, result, model="m")
    assert len(calls) == 4


@both_colours
def test_a_success_from_before_a_change_is_not_counted(fn: Any) -> None:
    """A circuit that is opened and closed while the call runs has begun to count anew."""
    breaker = CircuitBreaker(trip=RATE)

    def meanwhile(value: Any, *, model: str = "m") -> Any:
        breaker.open()
        breaker.close()
        return value

    assert called(Pipeline(breaker).wrap(coloured(fn, meanwhile)), 7) == 7
    assert counts(breaker) == (0, 0)


def test_a_healthy_call_at_rest_is_counted_where_it_belongs() -> None:
    """In the window and against the run; a slow one is left to the full chain, a late one is
    nobody's."""
    circuit = Told(failures=3, rates=(SlowCalls(10), FailureRate(0.5))).circuit
    admit(circuit).fail()
    early = circuit._state

    assert circuit._count_success(early, 10.0, 20.0)
    assert circuit.failures == 0
    assert circuit._used == 20
    assert [reading.calls for reading in circuit.snapshot().readings] == [2, 2]
    assert not circuit._count_success(early, 10.5, 20.5)
    circuit.open()
    assert circuit._count_success(circuit._state, 1.0, 101.0)
    circuit.close()
    assert circuit._count_success(early, 1.0, 101.0)
    assert [reading.calls for reading in circuit.snapshot().readings] == [0, 0]


def test_a_circuit_that_fails_meanwhile_does_not_lose_the_call() -> None:
    """A call that was begun at rest counts when it ends, although another has failed by then."""
    breaker = CircuitBreaker(trip=RATE)

    def meanwhile(result: Any) -> Any:
        with pytest.raises(ConnectionError):
            Pipeline(breaker).call(fail)
        return result

    for result in (plain(), odd()):
        breaker.close()
        assert Pipeline(breaker).call(meanwhile, result) is result
        assert counts(breaker) == (2, 1)
    assert Pipeline(breaker).call(echo, [3]) == [3]
    assert counts(breaker) == (3, 1)


def test_a_call_inside_a_call_is_counted_in_full() -> None:
    """Where another call is under way, nothing is at rest; each counts all the same."""
    breaker = CircuitBreaker(trip=RATE)
    inner = Pipeline(breaker).wrap(echo)
    outer = Pipeline(breaker).wrap(lambda value: inner(value))

    assert outer(1) == 1
    assert counts(breaker) == (2, 0)


def test_a_call_that_is_not_at_rest_goes_the_whole_way() -> None:
    """While a failure of another circuit is remembered, nothing is counted twice."""
    breaker = CircuitBreaker(key="model", trip=RATE)
    guarded = Pipeline(breaker).wrap(echo)
    breaker.circuit("down").open()

    assert guarded(1, model="up") == 1
    assert counts(breaker.circuit("up")) == (1, 0)
    with pytest.raises(CircuitOpenError):
        guarded(1, model="down")


@both_colours
def test_a_cancelled_or_interrupted_call_is_not_counted(fn: Any) -> None:
    """Ctrl-C in a call at rest comes out; the window has not heard of it."""
    breaker = CircuitBreaker(trip=RATE)

    def interrupted(value: Any, *, model: str = "m") -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        called(Pipeline(breaker).wrap(coloured(fn, interrupted)), 1)
    assert counts(breaker) == (0, 0)


@pytest.mark.real
def test_each_thread_is_counted() -> None:
    """Calls of several threads at rest are all in the window."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=1000, minimum=1000))
    guarded = Pipeline(breaker).wrap(echo)
    barrier = threading.Barrier(4)

    def calls(number: int) -> None:
        barrier.wait(10)
        for _ in range(100):
            guarded(number)

    in_threads(4, calls)
    assert counts(breaker) == (400, 0)
