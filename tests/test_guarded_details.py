"""A guarded function: calls through `Pipeline.call`, awaitables, methods, variants."""

from __future__ import annotations

import asyncio
import functools
import inspect
import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import World
from resilience import (
    CircuitBreaker,
    FailureRate,
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


LOOKS = Retry(on_result=lambda result: False)
"""Never at rest: it looks at each result."""

REST_AND_FULL = [[Retry()], [LOOKS]]


def echo(**kwargs: Any) -> dict[str, Any]:
    return kwargs


def test_a_guarded_function_is_made_by_a_pipeline() -> None:
    """The class itself makes none, and has no signature of a function."""
    assert says(TypeError, Guarded) == "make a Guarded with resilient(...) or Pipeline.wrap(fn)"
    assert says(AttributeError, lambda: Guarded.__signature__) == "__signature__"


# One call


def test_what_is_no_function_is_not_called() -> None:
    """Nor guarded, by `call` as little as by `wrap`."""
    for guard in (Pipeline(Retry()).call, Pipeline(Retry()).wrap):
        assert says(TypeError, guard, 7) == "fn must be callable, got int"


@pytest.mark.parametrize("policies", [[], [Retry()], [CircuitBreaker(trip=FailureRate(0.5))]])
def test_arguments_arrive(policies: Any) -> None:
    """By name, at rest."""
    guarded = Pipeline(*policies).wrap(echo)

    assert guarded(size=1, fn=2) == {"size": 1, "fn": 2}


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


@pytest.mark.parametrize("policies", REST_AND_FULL, ids=["rest", "full"])
def test_told_to_be_sync_it_hands_coroutines_out(policies: Any) -> None:
    """The very coroutine, at rest and in full."""

    async def fetch() -> int:
        return 1

    begun = fetch()
    guarded = Pipeline(*policies, asynchronous=False).wrap(lambda: begun)
    assert guarded() is begun
    assert asyncio.run(begun) == 1


@pytest.mark.parametrize("fn", [lambda: 1, lambda: Later(1)], ids=["plain", "awaitable"])
def test_told_to_be_async_it_gives_an_awaitable(fn: Any) -> None:
    """Whatever the function gives: await it, and the result is there."""

    async def main() -> Any:
        return await Pipeline(Retry(), asynchronous=True).wrap(fn)()

    assert asyncio.run(main()) == 1


@pytest.mark.parametrize("first", REST_AND_FULL, ids=["rest", "full"])
def test_an_adapter_is_known_by_what_it_gives(first: Any) -> None:
    """What wraps a coroutine function is awaited at first, and no more after a plain result."""

    async def fetch() -> Any: ...

    class Answer: ...

    @functools.wraps(fetch)
    def adapted() -> Any:
        return Answer()

    async def main() -> None:
        begun = Pipeline(*first).wrap(adapted)()
        if inspect.isawaitable(begun):
            await begun
        found = Pipeline(LOOKS).wrap(adapted)()
        assert type(found) is Answer

    asyncio.run(main())


@pytest.mark.parametrize("first", REST_AND_FULL, ids=["rest", "full"])
def test_what_has_given_an_awaitable_is_called_when_it_is_awaited(first: Any) -> None:
    """As a coroutine function is."""
    calls: list[None] = []

    def fetch() -> Any:
        calls.append(None)
        return Later(None)

    async def main() -> None:
        await Pipeline(*first).wrap(fetch)()
        assert len(calls) == 1
        begun = Pipeline(LOOKS).wrap(fetch)()
        assert len(calls) == 1
        await begun
        assert len(calls) == 2

    asyncio.run(main())


def test_what_one_class_gives_says_nothing_of_another() -> None:
    """One guarded method may serve sync clients and async ones."""
    calls: list[Any] = []

    class Client:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        @resilient(LOOKS)
        def ask(self) -> Any:
            calls.append(self)
            return self.answer

    class AsyncClient(Client): ...

    async def main() -> None:
        assert Client(1).ask() == 1
        assert await AsyncClient(Later(2)).ask() == 2
        calls.clear()
        begun = AsyncClient(Later(3)).ask()
        assert calls == []
        assert await begun == 3
        assert Client(4).ask() == 4

    asyncio.run(main())


def test_another_models_awaitable_in_a_sync_call_is_refused() -> None:
    """It could not be awaited there; the message says what to do."""

    async def ask(**kwargs: Any) -> None: ...

    def fails(**kwargs: Any) -> None:
        raise ConnectionError

    guarded = Pipeline(ModelFallback("a", Model("b", call=ask))).wrap(fails)
    assert says(TypeError, guarded) == (
        "Model(call=...) returned an awaitable in a sync call; give it a sync function, or say "
        "asynchronous=True if the guarded one is async"
    )


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("chain", [[], [ModelFallback("a", "b")]], ids=["alone", "chain"])
def test_a_call_that_fails_at_rest_is_made_again_with_all_its_arguments(
    later: bool, chain: Any
) -> None:
    """Those by place and those by name."""
    calls: list[Any] = []

    def ask(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        if len(calls) == 1:
            raise ConnectionError
        return "ok"

    async def aask(*args: Any, **kwargs: Any) -> Any:
        return ask(*args, **kwargs)

    guarded = Pipeline(*chain, Retry(wait=0)).wrap(aask if later else ask)

    async def main() -> Any:
        return await guarded(1, size=2)

    assert (asyncio.run(main()) if later else guarded(1, size=2)) == "ok"
    assert calls == [((1,), {"size": 2, **({"model": "a"} if chain else {})})] * 2


@pytest.mark.parametrize("policy", [LOOKS, CircuitBreaker(on_result=lambda result: False)])
def test_an_awaitable_of_a_full_call_is_used_with_its_arguments(policy: Any) -> None:
    """What turns out to be async is not called a second time for it."""
    calls: list[Any] = []

    def fetch(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return Later("answer")

    async def main() -> Any:
        return await Pipeline(policy).wrap(fetch)(1, size=2)

    assert asyncio.run(main()) == "answer"
    assert calls == [((1,), {"size": 2})]


def test_a_function_of_both_kinds_is_awaited_when_a_circuit_stirs() -> None:
    """One that has given plain results and awaitables is taken for what it gives this time."""
    breaker = CircuitBreaker(failures=5)

    class Answer: ...

    def fetch(later: bool) -> Any:
        return Later("answer") if later else Answer()

    guarded = Pipeline(breaker).wrap(fetch)
    assert type(guarded(False)) is Answer

    async def main() -> Any:
        begun = guarded(True)
        with pytest.raises(ConnectionError):
            await Pipeline(breaker).call(Later, ConnectionError())
        return await begun

    assert asyncio.run(main()) == "answer"


@pytest.mark.parametrize("coroutine", [False, True])
def test_a_begun_call_keeps_its_arguments_when_a_circuit_stirs(coroutine: bool) -> None:
    """The awaitable that the function has given is still used, though not at rest any more."""
    breaker = CircuitBreaker(failures=5)
    calls: list[Any] = []

    async def answer() -> str:
        return "answer"

    def fetch(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return answer() if coroutine else Later("answer")

    async def main() -> Any:
        begun = Pipeline(breaker).wrap(fetch)(1, size=2)
        with pytest.raises(ConnectionError):
            await Pipeline(breaker).call(Later, ConnectionError())
        return await begun

    assert asyncio.run(main()) == "answer"
    assert calls == [((1,), {"size": 2})]


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


class AsksLater:
    """A callable object, async."""

    async def __call__(self, question: str, *, size: int = 7) -> float:
        return 1.0


@pytest.mark.parametrize("asynchronous", [None, True])
@pytest.mark.parametrize("fn", [AsksLater(), AsksLater().__call__, functools.partial(AsksLater())])
def test_a_guarded_function_has_its_functions_colour(fn: Any, asynchronous: Any) -> None:
    """Objects that are called, methods and partials of either have it, too."""
    guarded = Pipeline(Retry(), asynchronous=asynchronous).wrap(fn)

    assert inspect.iscoroutinefunction(guarded)
    assert guarded.__name__ == "__call__"
    assert guarded.__annotations__ == AsksLater.__call__.__annotations__


def test_told_to_be_sync_a_guarded_function_is_no_coroutine_function() -> None:
    """What comes back is whatever the function gives."""
    assert not inspect.iscoroutinefunction(Pipeline(Retry(), asynchronous=False).wrap(AsksLater()))


def test_a_guarded_sync_function_shows_no_code() -> None:
    """Nothing takes it for the function itself."""
    assert not hasattr(Pipeline(Retry()).wrap(echo), "__code__")


class Holder:
    """With guarded things of every kind."""

    @resilient(Retry())
    def method(self) -> Any:
        return self

    @classmethod
    @resilient(Retry())
    def of_class(cls) -> Any:
        return cls

    plain = Pipeline(Retry()).wrap(operator.itemgetter(0))


class Heir(Holder): ...


def test_a_method_is_reached_in_every_way() -> None:
    """From the object it is bound, from the class it is not; what is no function is never."""
    holder = Holder()

    assert holder.method() is holder
    assert Holder.method(holder) is holder
    assert holder.method.__self__ is holder
    assert holder.plain("xyz") == "x"
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


def test_a_function_of_a_class_pickles_by_its_qualified_name() -> None:
    """As functions do; a method by its object."""
    holder = Holder()

    assert Holder.method.__reduce__() == "Holder.method"
    assert holder.method.__reduce__() == (getattr, (holder, "method"))


def test_what_is_no_modules_function_does_not_pickle() -> None:
    """A guarded thing without a name or a module says so."""
    nameless: Callable[..., Any] = functools.partial(echo)

    for fn in (nameless, lambda: None, "text".__str__):
        thing = Pipeline().wrap(fn)
        assert "it pickles by name" in says(TypeError, thing.__reduce__)
    assert inspect.signature(Pipeline().wrap(nameless)) == inspect.signature(echo)
