"""`key=`: which circuit a call goes through, and calls whose key cannot be computed."""

from __future__ import annotations

import functools
import logging
import threading
from typing import Any

import pybreaker
import pytest

from conftest import World
from resilience import CircuitBreaker, CircuitOpenError, FailureRate, ModelFallback, Pipeline
from support.calling import error_of
from support.circuits import admit, model_first, rests
from support.functions import coloured


@pytest.mark.parametrize(
    ("args", "kwargs", "value"),
    [(("bad 1",), {}, "bad 1"), ((), {"model": "bad 2"}, "bad 2"), ((), {}, "small")],
)
def test_key_by_argument_name(world: World, args: Any, kwargs: Any, value: str) -> None:
    """The key is the argument as given, by position or name, or its default in the signature."""
    breaker = CircuitBreaker(key="model", failures=1, name="models")
    guarded = Pipeline(breaker).wrap(coloured(world, model_first))
    breaker.circuit(value).open()

    error = error_of(world, guarded, *args, **kwargs)
    assert isinstance(error, CircuitOpenError)
    assert (error.name, error.key) == ("models", value)
    assert value in str(error)
    assert world.run(guarded, model="other") == "other"


def test_each_value_has_its_own_circuit(world: World) -> None:
    """Failures with one value leave the others alone."""
    breaker = CircuitBreaker(key="model", failures=2)
    guarded = Pipeline(breaker).wrap(coloured(world, model_first))
    for _ in range(2):
        error_of(world, guarded, "bad")
        world.run(guarded)

    assert breaker.circuit("bad").state == "open"
    assert breaker.circuit("small").state == "closed"
    assert type(error_of(world, guarded, "bad")) is CircuitOpenError
    assert error_of(world, guarded, "bad").__cause__.args == ("bad",)
    breaker.circuit("bad").close()
    assert type(error_of(world, guarded, "bad")) is ConnectionError


def test_key_by_function(world: World) -> None:
    """A function of the call's arguments gives the key."""
    breaker = CircuitBreaker(key=lambda *args, **kwargs: (len(args), len(kwargs)), failures=1)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    error_of(world, guarded, 1, two=2)

    assert breaker.circuit((1, 1)).state == "open"
    assert breaker.circuit((0, 0)).state == "closed"


def test_a_key_that_is_bound_or_positional_only(world: World) -> None:
    """A key is only read: it need not be possible to give another one."""
    breaker = CircuitBreaker(key="model", failures=1)
    pipeline = Pipeline(breaker)
    fn = world.function(ConnectionError)

    def positional(model: str, /) -> Any:
        return fn(model)

    error_of(world, pipeline.call, functools.partial(fn, model="bound"))
    error_of(world, pipeline.call, positional, "placed")
    assert (breaker.circuit("bound").state, breaker.circuit("placed").state) == ("open", "open")


def test_a_key_the_function_does_not_take() -> None:
    """A named key that no argument has is a TypeError at decoration."""
    with pytest.raises(TypeError, match="'model'"):
        Pipeline(CircuitBreaker(key="model")).wrap(lambda prompt: None)


def test_rest_depends_on_all_circuits() -> None:
    """It comes back with the last that closes, not with the first of two; also for pipelines made
    while they were open."""
    breaker = CircuitBreaker(key="model")
    before = Pipeline(breaker)
    breaker.circuit("a").open()
    breaker.circuit("b").open()
    after = Pipeline(breaker)
    breaker.circuit("a").close()
    assert [rests(each) for each in (before, after)] == [False, False]
    breaker.circuit("b").close()
    assert [rests(each) for each in (before, after)] == [True, True]


# A key that cannot be computed


def _raising(*args: Any, **kwargs: Any) -> Any:
    raise ZeroDivisionError("secret")


def every_other(*args: Any, **kwargs: Any) -> Any:
    """A key that is there when it is first asked for, and not the next time."""
    every_other.asked += 1  # type: ignore[attr-defined]
    return "key" if every_other.asked % 2 else _raising()  # type: ignore[attr-defined]


every_other.asked = 0  # type: ignore[attr-defined]


def circuit_memory(key: object) -> pybreaker.CircuitMemoryStorage:
    """A storage for each key."""
    return pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)


no_key = pytest.mark.parametrize(
    ("key", "model", "problem"),
    [(_raising, "m", "ZeroDivisionError"), ("model", ["secret"], "TypeError")],
    ids=["raises", "unhashable"],
)


@pytest.mark.parametrize("options", [{}, {"wait_for_trial": 5}, {"storage": circuit_memory}])
def test_a_key_that_comes_and_goes(world: World, options: dict[str, Any]) -> None:
    """The call goes through, by a circuit or by none."""
    breaker = CircuitBreaker(key=every_other, failures=1, name="odd", **options)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    assert [world.run(guarded) for _ in range(4)] == ["ok"] * 4


@no_key
@pytest.mark.parametrize("options", [{}, {"wait_for_trial": 5}, {"storage": circuit_memory}])
def test_a_call_without_a_key_goes_through(
    world: World,
    caplog: pytest.LogCaptureFixture,
    key: Any,
    model: Any,
    problem: str,
    options: dict[str, Any],
) -> None:
    """A key that raises or cannot be hashed is never the call's own trouble; the log tells."""
    breaker = CircuitBreaker(key=key, failures=1, **options)
    guarded = Pipeline(breaker).wrap(world.function("ok", ConnectionError))

    assert world.run(guarded, model=model) == "ok"
    for _ in range(2):
        assert type(error_of(world, guarded, model=model)) is ConnectionError
    assert [each for each in caplog.messages if "raised" in each] == [
        f"CircuitBreaker(key=) raised {problem}"
    ] * 3


@no_key
def test_a_call_without_a_key_goes_through_at_rest(
    caplog: pytest.LogCaptureFixture, key: Any, model: Any, problem: str
) -> None:
    """The same, where nobody asks for the key of a healthy call."""

    def ok_or_not(well: bool, model: Any) -> str:
        if not well:
            raise ConnectionError
        return "ok"

    guarded = Pipeline(CircuitBreaker(key=key, failures=1)).wrap(ok_or_not)

    assert guarded(True, model) == "ok"
    with pytest.raises(ConnectionError):
        guarded(False, model)
    assert [each for each in caplog.messages if "raised" in each] == [
        f"CircuitBreaker(key=) raised {problem}"
    ]


def test_a_key_that_raises_now_and_then(world: World) -> None:
    """Whenever it is asked, a call that it does not answer for goes through."""
    asked: list[int] = []

    def key(**kwargs: Any) -> str:
        asked.append(1)
        if len(asked) % 3 == 0:
            raise LookupError
        return "m"

    breaker = CircuitBreaker(key=key, failures=1, wait_for_trial=1)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    assert [world.run(guarded, model="m") for _ in range(9)] == ["ok"] * 9


def test_a_key_that_raises_after_a_healthy_call_at_rest(caplog: pytest.LogCaptureFixture) -> None:
    """Where a window counts such calls: the result is not lost, nothing is called twice, and the
    log says so."""
    caplog.set_level(logging.WARNING, logger="resilience")
    calls: list[Any] = []

    def fetch(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return [*args, *kwargs.values()]

    breaker = CircuitBreaker(key=lambda *args, **kwargs: args[9], trip=FailureRate(0.5))
    guarded = Pipeline(breaker).wrap(fetch)

    assert guarded(1, size=2) == [1, 2]
    assert calls == [((1,), {"size": 2})]
    assert [each for each in caplog.messages if "raised" in each] == [
        "CircuitBreaker(key=) raised IndexError"
    ]


def test_a_key_that_cannot_be_hashed_after_a_healthy_call_at_rest() -> None:
    """The same for a value that no circuit can be found by."""
    breaker = CircuitBreaker(key=lambda value, model="m": [value], trip=FailureRate(0.5))

    assert Pipeline(breaker).call(lambda value: value, "made") == "made"


def test_a_call_whose_key_raises_goes_on_with_its_arguments(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first model was asked at rest, and failed; the second is asked the same."""
    calls: list[Any] = []

    def ask(*args: Any, **kwargs: Any) -> str:
        calls.append((args, kwargs))
        if len(calls) == 1:
            raise ConnectionError
        return "ok"

    def key(*args: Any, **kwargs: Any) -> Any:
        raise LookupError

    guarded = Pipeline(CircuitBreaker(key=key), ModelFallback("a", "b")).wrap(ask)
    assert guarded(1, size=2) == "ok"
    assert calls == [((1,), {"size": 2, "model": model}) for model in "ab"]
    assert [each for each in caplog.messages if "raised" in each] == [
        "CircuitBreaker(key=) raised LookupError"
    ]


def test_an_unhashable_value_has_no_circuit() -> None:
    """Asked for one, the breaker says what is wrong, without showing the value."""
    with pytest.raises(TypeError, match=r"^key must be hashable, got list$"):
        CircuitBreaker(key="model").circuit(["secret"])  # type: ignore[arg-type]


# Locks


@pytest.mark.real
def test_each_circuit_has_a_lock_of_its_own() -> None:
    """A thread that holds one circuit's lock holds up no other circuit's calls."""
    breaker = CircuitBreaker(key="model", failures=3)
    first, second = breaker.circuit("a"), breaker.circuit("b")
    done = threading.Event()

    def work() -> None:
        admit(second).fail()
        admit(second).succeed()
        admit(breaker.circuit("c")).fail()
        done.set()

    with first._lock:
        threading.Thread(target=work, daemon=True).start()
        assert done.wait(10)
