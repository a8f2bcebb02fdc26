"""ModelFallback and Fallback in detail: what is printed and refused, odd names, functions asked."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import World
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
)
from resilience.failures import Advice, Failure, Kind, describe
from resilience.matching import status


class BusyError(Exception):
    """A rate limit."""


@describe.register(BusyError)
def _read(error: BusyError) -> Failure:
    return Failure(Kind.RATE_LIMIT, Advice.WAIT)


def says(kind: type[Exception], make: Any, *args: Any, **kwargs: Any) -> str:
    """The message that a bad value is refused with."""
    with pytest.raises(kind) as caught:
        make(*args, **kwargs)
    return str(caught.value)


def echo(**kwargs: Any) -> dict[str, Any]:
    return kwargs


# Printed and refused


def test_a_models_overrides_are_printed_without_secrets() -> None:
    """Dicts as dicts, leaf by leaf; what may be a key or a prompt is left out, at any depth."""
    model = Model("a", seed=1, extra={"top": 2, "api_key": "sk-1", "deep": {"auth": "x", 3: 4}})

    assert repr(model) == (
        "Model('a', seed=1, extra={'top': 2, 'api_key': ..., 'deep': {'auth': ..., 3: 4}})"
    )
    assert repr(Model("a", headers={"x": 1})) == "Model('a', headers=...)"


def test_a_chain_is_printed_as_the_code_that_makes_it() -> None:
    """Options at their defaults are left out."""
    assert repr(ModelFallback("a", Model("b"))) == "ModelFallback('a', 'b')"
    assert repr(ModelFallback("a", on=status(500), argument="engine", per_model=5)) == (
        "ModelFallback('a', on=status(500), argument='engine', per_model=Timeout(5))"
    )


def test_what_a_chain_refuses() -> None:
    """No models, no name, what is no model."""
    assert says(ValueError, ModelFallback) == "models must name at least one model, got none"
    assert says(ValueError, ModelFallback, None) == "models must be names or Model(...), got None"
    assert says(TypeError, ModelFallback, 3) == "models must be names or Model(...), got 3"
    for make in (lambda **given: ModelFallback("a", **given), lambda **given: Fallback(1, **given)):
        assert says(TypeError, make, on=3.5).startswith("on must be an exception class, a status")


def test_a_policy_around_each_model_need_not_be_callable() -> None:
    """`per_model` takes any policy: what has a `bind`."""

    class Counting:
        bound = 0

        def bind(self, call: Any, runtime: Any) -> Any:
            Counting.bound += 1
            return call

    policy = Counting()
    assert not callable(policy)
    assert Pipeline(ModelFallback("a", "b", per_model=policy)).call(echo) == {"model": "a"}
    assert Counting.bound == 1
    assert says(TypeError, ModelFallback, "a", per_model="x").startswith("per_model must be")


def test_a_fallback_takes_one_thing() -> None:
    """Neither a value nor a function, and both, are refused as such."""
    assert says(TypeError, Fallback) == "Fallback takes a value or call=, got neither"
    assert says(TypeError, Fallback, 1, call=echo) == "Fallback takes a value or call=, got both"


def test_an_async_fallback_of_a_sync_call_is_named() -> None:
    """The message says which function it was."""

    async def spare(failure: Failure) -> None: ...

    def fails() -> None:
        raise ConnectionError

    message = says(TypeError, Pipeline(Fallback(call=spare)).call, fails)
    assert message.startswith(f"Fallback(call={spare.__qualname__}) is async, but the call is sync")


def test_arguments_go_through_a_fallback(world: World) -> None:
    """The function gets the call's own arguments, by place and by name."""
    world.run(Pipeline(Fallback(1), Retry()).wrap(world.function("ok")), 1, 2, size=3)

    assert world.calls == [((1, 2), {"size": 3})]


# Names


@pytest.mark.parametrize("named", ["", None, 3, ["a"], {"name": "a"}])
@pytest.mark.parametrize("full", [False, True])
def test_an_odd_name_starts_with_the_first_model(named: Any, full: bool) -> None:
    """What is no name of a model counts as none given, at rest and in full."""
    policies = [ModelFallback("a", "b"), *([Retry(on_result=lambda result: False)] if full else [])]

    assert Pipeline(*policies).call(echo, model=named)["model"] == "a"


@pytest.mark.parametrize("full", [False, True])
def test_a_stranger_is_asked_first(world: World, full: bool) -> None:
    """A name that is not in the chain is tried, then the chain from its start."""
    policies = [ModelFallback("a", "b"), *([Retry(attempts=1)] if full else [])]
    fn = world.function(ConnectionError(), ConnectionError(), "ok")

    assert world.run(Pipeline(*policies).wrap(fn), model="c") == "ok"
    assert [kwargs["model"] for _, kwargs in world.calls] == ["c", "a", "b"]


def test_the_argument_is_looked_for_where_it_is() -> None:
    """By its place in the guarded function; by name in the other model's, if it is there."""

    def ask(prompt: str, model: str = "x", size: int = 0) -> Any:
        raise ConnectionError

    def other(model: str, prompt: str, size: int = 0, *, extra: int) -> tuple[Any, ...]:
        return model, prompt, size, extra

    chain = ModelFallback("a", Model("b", call=other, extra=1))
    assert Pipeline(chain).call(ask, prompt="hi") == ("b", "hi", 0, 1)
    assert "takes no argument 'extra'" in says(
        TypeError, Pipeline(ModelFallback(Model("a", extra=1))).wrap, ask
    )
    assert "takes no argument 'model'" in says(
        TypeError, Pipeline(ModelFallback("a")).wrap, lambda prompt: None
    )
    assert "takes no argument 'engine'" in says(
        TypeError, Pipeline(ModelFallback("a", argument="engine")).wrap, ask
    )


def test_an_override_by_place(world: World) -> None:
    """An argument given by its place is replaced there; a dict is merged with what was given."""

    def ask(options: Any, model: str = "x") -> Any:
        return options, model

    chain = ModelFallback(Model("a", options={"x": {"y": 1}}))
    assert Pipeline(chain).call(ask, {"x": {"z": 2}, "w": 3}) == (
        {"x": {"z": 2, "y": 1}, "w": 3},
        "a",
    )
    assert Pipeline(chain).call(ask, None) == ({"x": {"y": 1}}, "a")
    assert Pipeline(chain).call(ask, [1]) == ({"x": {"y": 1}}, "a")


# Circuits


def test_a_circuit_around_a_model_is_asked_whether_it_is_free(world: World) -> None:
    """With a breaker by `per_model`, the wait is left out only while another one is closed."""
    breakers = {name: CircuitBreaker(failures=1, on=status(500)) for name in "ab"}
    pipeline = Pipeline(ModelFallback("a", "b", per_model=breakers.get), Retry(attempts=2, wait=7))

    fn = world.function(BusyError(), "ok")
    assert world.run(pipeline.wrap(fn)) == "ok"
    assert [kwargs["model"] for _, kwargs in world.calls] == ["a", "b"]
    assert world.clock.sleeps == []

    breakers["b"].isolate()
    fn = world.function(BusyError(), "ok")
    world.calls.clear()
    assert world.run(pipeline.wrap(fn)) == "ok"
    assert [kwargs["model"] for _, kwargs in world.calls] == ["a", "a"]
    assert world.clock.sleeps == [7]


def test_a_policy_that_is_no_circuit_turns_nobody_away(world: World) -> None:
    """With another policy by `per_model`, a model counts as free."""
    pipeline = Pipeline(ModelFallback("a", "b", per_model=30), Retry(attempts=2, wait=7))
    fn = world.function(BusyError(), ValueError())

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        world.run(pipeline.wrap(fn))
    assert world.clock.sleeps == []
    assert caught.value.__notes__[0].endswith(  # type: ignore[attr-defined]
        "; did not wait: another model is free"
    )


def test_a_circuit_with_a_key_of_its_own_is_asked_with_the_arguments(world: World) -> None:
    """Whether a model is free is asked of the circuit that its call would meet."""
    breaker = CircuitBreaker(failures=1, key=lambda *args, **kwargs: (args, kwargs["model"]))
    pipeline = Pipeline(
        ModelFallback("a", "b", per_model=lambda name: breaker), Retry(attempts=2, wait=7)
    )
    fn = world.function(ConnectionError(), ConnectionError(), "ok")
    assert world.run(pipeline.wrap(fn), 1, model="b") == "ok"
    world.calls.clear()

    assert world.run(pipeline.wrap(world.function(BusyError(), "ok")), 2) == "ok"
    assert [kwargs["model"] for _, kwargs in world.calls] == ["a", "b"]

    world.calls.clear()
    assert world.run(pipeline.wrap(world.function(BusyError(), "ok")), 1) == "ok"
    assert [kwargs["model"] for _, kwargs in world.calls] == ["a", "a"]


def test_the_guarded_function_itself_must_take_the_model() -> None:
    """Also where every model of the chain has a function of its own."""
    chain = ModelFallback(Model("a", call=echo))

    assert "takes no argument 'model'" in says(TypeError, Pipeline(chain).wrap, lambda prompt: None)


def test_a_model_by_its_place_is_where_a_call_begins() -> None:
    """At rest the model is found where the call gives it."""

    def ask(prompt: str, model: str = "x") -> str:
        return model

    guarded = Pipeline(ModelFallback("a", "b")).wrap(ask)
    assert [guarded("hi"), guarded("hi", "b"), guarded("hi", model="b")] == ["a", "b", "b"]


def test_every_model_gets_the_calls_own_arguments(world: World) -> None:
    """Those after the first one too."""
    fn = world.function(ConnectionError(), "ok")
    world.run(Pipeline(ModelFallback("a", "b")).wrap(fn), 1, size=2)

    assert world.calls == [((1,), {"size": 2, "model": "a"}), ((1,), {"size": 2, "model": "b"})]


@pytest.mark.parametrize("on", [ConnectionError, Advice.RETRY])
def test_the_last_models_error_comes_out(world: World, on: Any) -> None:
    """By name or by advice, after the last one there is no other."""
    fn = world.function(ConnectionError("first"), ConnectionError("last"))

    with pytest.raises(ConnectionError, match="last"):
        world.run(Pipeline(ModelFallback("a", "b", on=on)).wrap(fn))


def test_the_last_models_refusal_comes_out(world: World) -> None:
    """Where every circuit is open, nothing was called, and the refusal says so."""
    breaker = CircuitBreaker(failures=1, key="model")
    fn = world.function(ConnectionError())
    guarded = Pipeline(ModelFallback("a", "b"), breaker).wrap(fn)
    with pytest.raises(ConnectionError):
        world.run(guarded)
    world.calls.clear()

    with pytest.raises(CircuitOpenError):
        world.run(guarded)
    assert world.calls == []


def test_a_model_whose_circuit_cannot_be_told_is_free(world: World) -> None:
    """Its key raises while one looks ahead: nobody refuses such a call."""

    def key(*, model: str) -> str:
        if model == "b":
            raise ZeroDivisionError
        return model

    breaker = CircuitBreaker(failures=1, key=key)
    breaker.circuit("down").open()
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=7), breaker)
    assert world.run(pipeline.wrap(world.function(BusyError(), "ok"))) == "ok"
    assert [kwargs["model"] for _, kwargs in world.calls] == ["a", "b"]
    assert world.clock.sleeps == []
