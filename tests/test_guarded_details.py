"""A guarded function: calls through `Pipeline.call`, awaitables, methods, variants."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import World
from resilience import (
    CircuitBreaker,
    Fallback,
    Guarded,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
    resilient,
    served_by,
)


def says(kind: type[Exception], make: Any, *args: Any, **kwargs: Any) -> str:
    """The message of the error that comes out."""
    with pytest.raises(kind) as caught:
        make(*args, **kwargs)
    return str(caught.value)


def echo(**kwargs: Any) -> dict[str, Any]:
    return kwargs


def test_a_guarded_function_is_made_by_a_pipeline() -> None:
    """The class itself makes none, and has no signature of a function."""
    assert says(TypeError, Guarded) == "make a Guarded with resilient(...) or Pipeline.wrap(fn)"
    assert says(AttributeError, lambda: Guarded.__signature__) == "__signature__"


# One call


def test_a_pipeline_calls_its_own_guarded_function_once_guarded(world: World) -> None:
    """`pipeline.call` of a function that the same pipeline guards does not guard it twice."""
    pipeline = Pipeline(Retry(attempts=2, again=True))
    guarded = pipeline.wrap(world.function(ConnectionError))
    with pytest.raises(ConnectionError):
        world.run(pipeline.call, guarded)

    assert len(world.calls) == 2


def test_a_pipeline_guards_another_ones_guarded_function(world: World) -> None:
    """A function that another pipeline guards is guarded all the same."""
    guarded = Pipeline(Retry(attempts=1)).wrap(world.function(ConnectionError))

    assert world.run(Pipeline(Fallback("spare")).call, guarded) == "spare"


def test_each_partial_is_looked_at() -> None:
    """A partial that binds the model is refused, though another one of the function was fine."""
    pipeline = Pipeline(ModelFallback("a", "b"))
    assert pipeline.call(functools.partial(echo, size=1)) == {"size": 1, "model": "a"}

    assert "already bound by a partial" in says(
        TypeError, pipeline.call, functools.partial(echo, model="c")
    )


def test_a_partial_may_bind_by_position() -> None:
    """What a partial has bound by its place cannot be chosen either; the rest can."""

    def ask(model: str, size: int = 0) -> tuple[str, int]:
        return model, size

    pipeline = Pipeline(ModelFallback("a", "b"))
    assert "already bound by a partial" in says(
        TypeError, pipeline.call, functools.partial(ask, "c")
    )
    assert pipeline.call(functools.partial(ask, size=2)) == ("a", 2)


def test_a_partial_of_what_has_no_signature() -> None:
    """Where no signature can be read, the argument is given by name."""

    class Unreadable:
        __signature__ = "none"

        def __call__(self, **kwargs: Any) -> dict[str, Any]:
            return kwargs

    assert Pipeline(ModelFallback("a", "b")).call(functools.partial(Unreadable())) == {"model": "a"}


# Awaitables


class Later:
    """Awaitable, and no coroutine."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize("policies", [[Retry()], [ModelFallback("a", "b")]], ids=["plain", "chain"])
def test_told_to_be_sync_it_hands_awaitables_out(policies: Any) -> None:
    """With `asynchronous=False` what comes back is the result, an awaitable or not."""
    later = Later(1)
    guarded = Pipeline(*policies, asynchronous=False).wrap(lambda **kwargs: later)

    assert guarded() is later
    assert guarded() is later


@pytest.mark.parametrize("chained", [False, True])
def test_an_awaitable_is_begun_once_when_a_circuit_stirs(chained: bool) -> None:
    """If a circuit has a failure between call and await, the awaitable there is still used."""
    breaker = CircuitBreaker(failures=5)
    calls: list[dict[str, Any]] = []

    def fetch(**kwargs: Any) -> Any:
        calls.append(kwargs)
        return Later("answer")

    chain = [ModelFallback(Model("a", options={"x": 1}), "b")] if chained else []
    guarded = Pipeline(*chain, breaker).wrap(fetch)

    async def main() -> Any:
        begun = guarded(options={"y": 2}) if chained else guarded()
        with pytest.raises(ConnectionError):
            await Pipeline(breaker).call(Later, ConnectionError())
        return await begun

    assert asyncio.run(main()) == "answer"
    assert calls == ([{"options": {"y": 2, "x": 1}, "model": "a"}] if chained else [{}])


def test_the_model_is_noted_when_the_call_is_awaited() -> None:
    """Of two calls begun, `served_by` tells the one that was awaited last."""
    guarded = Pipeline(ModelFallback("a", "b")).wrap(lambda **kwargs: Later(kwargs["model"]))

    async def main() -> list[Any]:
        first, second = guarded(model="a"), guarded(model="b")
        told = [await first, served_by()]
        return [*told, await second, served_by()]

    assert asyncio.run(main()) == ["a", "a", "b", "b"]


def test_an_awaited_generator_is_refused() -> None:
    """What an awaitable gives is looked at like any result, at rest and in full."""

    async def stream() -> Any:
        def lines() -> Any:
            yield "line"

        return lines()

    for policies in ([Retry()], [Retry(), CircuitBreaker()]):
        with pytest.raises(TypeError, match="the guarded function returned a generator"):
            asyncio.run(Pipeline(*policies).wrap(lambda: stream())())


def test_an_awaited_object_is_returned() -> None:
    """An object of any other class is a result as it is."""
    found = SimpleNamespace()

    async def find() -> Any:
        return found

    guarded = Pipeline(Retry()).wrap(find)
    assert asyncio.run(guarded()) is found
    assert asyncio.run(guarded()) is found


# Variants


def test_variants_keep_the_colour() -> None:
    """What the pipeline was told of async and sync holds in its variants too."""
    guarded = Pipeline(Retry(), asynchronous=False, name="named").wrap(echo)

    assert guarded.with_policies(Retry()).pipeline.asynchronous is False
    replaced = guarded.replacing(Retry(attempts=7)).pipeline
    assert replaced.asynchronous is False
    assert replaced.name == "named"


def test_replacing_says_what_it_found() -> None:
    """None of the type, or how many."""
    none = Pipeline(Fallback(1)).wrap(echo)
    two = Pipeline(Fallback(1), Fallback(2)).wrap(echo)

    assert says(ValueError, none.replacing, Retry()) == (
        "replacing needs exactly one Retry in the pipeline, found none in Pipeline(Fallback(1))"
    )
    assert "found 2 of them in Pipeline(" in says(ValueError, two.replacing, Fallback(3))


# Being like a function


class Holder:
    """With guarded things of every kind."""

    @resilient(Retry())
    def method(self) -> Any:
        return self

    @classmethod
    @resilient(Retry())
    def of_class(cls) -> Any:
        return cls

    plain = Pipeline(Retry()).wrap(functools.partial(echo, size=1))


class Heir(Holder): ...


def test_a_method_is_reached_in_every_way() -> None:
    """From the object it is bound, from the class it is not; what is no function is never."""
    holder = Holder()

    assert holder.method() is holder
    assert Holder.method(holder) is holder
    assert holder.method.__self__ is holder
    assert holder.plain() == {"size": 1}
    assert Holder.__dict__["plain"].__get__(holder) is Holder.__dict__["plain"]


def test_a_class_method_has_its_class() -> None:
    """Through the class, an heir, or an object of one; and by the descriptor's own hand."""
    assert Holder.of_class() is Holder
    assert Heir.of_class() is Heir
    assert Heir().of_class() is Heir

    guarded = Pipeline(Retry()).wrap(Holder.__dict__["method"])
    made = resilient(Retry())(classmethod(lambda cls: cls))
    assert made.__get__(Heir())() is Heir
    assert made.__get__(None, Heir)() is Heir
    assert guarded.__get__(None, Heir) is guarded


def test_two_are_equal_if_function_and_pipeline_are() -> None:
    """As bound methods are: made anew at each look, and the same all the same."""
    pipeline = Pipeline(Retry())
    holder = Holder()

    assert holder.method == holder.method
    assert hash(holder.method) == hash(holder.method)
    assert holder.method != Holder().method
    assert pipeline.wrap(echo) == pipeline.wrap(echo)
    assert pipeline.wrap(echo) != Pipeline(Retry()).wrap(echo)
    assert pipeline.wrap(echo) != pipeline.wrap(len)
    assert len({pipeline.wrap(echo), pipeline.wrap(echo), Pipeline(Retry()).wrap(echo)}) == 2
    assert len({hash(pipeline.wrap(fn)) for fn in (echo, len, says)}) == 3
    assert pipeline.wrap(echo) != echo


def test_what_is_no_modules_function_does_not_pickle() -> None:
    """A guarded thing without a name or a module says so."""
    nameless: Callable[..., Any] = functools.partial(echo)

    for thing in (Pipeline().wrap(nameless), Pipeline().wrap(lambda: None)):
        assert "it pickles by name" in says(TypeError, thing.__reduce__)
    assert inspect.signature(Pipeline().wrap(nameless)) == inspect.signature(echo)
