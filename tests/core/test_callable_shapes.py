"""Callables of every shape are guarded: sync, async, both, and what only turns out to be async."""

from __future__ import annotations

import asyncio
import functools
import inspect
import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from resilience import (
    CircuitBreaker,
    Fallback,
    ModelFallback,
    Pipeline,
    RateLimit,
    Retry,
    resilient,
)
from resilience.testing import script, virtual_time
from support.calling import message_of, rest_and_full
from support.policies import Busy


class Flaky:
    """Raises once, then returns; in every shape a callable may have."""

    def __init__(self) -> None:
        self.made = 0

    def step(self) -> str:
        self.made += 1
        if self.made == 1:
            raise ConnectionError
        return "ok"

    async def astep(self) -> str:
        return self.step()

    def future(self) -> asyncio.Future[str]:
        made: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        try:
            made.set_result(self.step())
        except ConnectionError as error:
            made.set_exception(error)
        return made


def sync(result: Any) -> Any:
    """The result of a sync call; a coroutine instead of it is closed and refused."""
    if inspect.iscoroutine(result):
        result.close()
        pytest.fail("a sync call gave a coroutine")
    return result


class Callable_:
    def __init__(self, fn: Callable[[], Any]) -> None:
        self.fn = fn

    def __call__(self) -> Any:
        return self.fn()


class AsyncCallable(Callable_):
    async def __call__(self) -> Any:
        return await self.fn()


class Rare(Callable_):
    """Can be neither remembered (no weak references) nor hashed."""

    __slots__ = ("fn",)
    __hash__ = None  # type: ignore[assignment]


def looped(fn: Callable[[], Any]) -> Callable[[], Any]:
    """A function that says it wraps itself."""

    def itself() -> Any:
        return fn()

    itself.__wrapped__ = itself  # type: ignore[attr-defined]
    return itself


@pytest.mark.fault(85)
@pytest.mark.parametrize(
    "shape",
    [
        lambda flaky: flaky.step,
        lambda flaky: functools.partial(flaky.step),
        lambda flaky: lambda: flaky.step(),
        lambda flaky: Callable_(flaky.step),
        lambda flaky: functools.partial(Callable_(flaky.step)),
        lambda flaky: mock.Mock(side_effect=flaky.step),
        lambda flaky: functools.partial(operator.methodcaller("step"), flaky),
        lambda flaky: staticmethod(flaky.step).__func__,
        lambda flaky: Rare(flaky.step),
        lambda flaky: looped(flaky.step),
    ],
)
@rest_and_full
def test_every_sync_shape_is_guarded(shape: Any, listeners: Any) -> None:
    """Plain callables of every shape are retried."""
    flaky = Flaky()

    assert sync(Pipeline(Retry(wait=0), listeners=listeners).call(shape(flaky))) == "ok"
    assert flaky.made == 2


@pytest.mark.fault(85)
@pytest.mark.parametrize(
    "shape",
    [
        lambda flaky: flaky.astep,
        lambda flaky: functools.partial(flaky.astep),
        lambda flaky: lambda: flaky.astep(),
        lambda flaky: Callable_(flaky.astep),
        lambda flaky: AsyncCallable(flaky.astep),
        lambda flaky: functools.partial(AsyncCallable(flaky.astep)),
        lambda flaky: flaky.future,
        lambda flaky: mock.AsyncMock(side_effect=flaky.step),
        lambda flaky: functools.wraps(flaky.astep)(lambda: flaky.astep()),
    ],
)
@rest_and_full
@pytest.mark.parametrize("way", ["call", "wrap", "outcome"])
def test_every_async_shape_is_guarded(shape: Any, listeners: Any, way: str) -> None:
    """What gives an awaitable is awaited and retried, whatever it looks like before."""
    flaky = Flaky()
    pipeline = Pipeline(Retry(wait=0), listeners=listeners)

    async def main() -> Any:
        fn = shape(flaky)
        if way == "outcome":
            return (await pipeline.outcome(fn)).value
        return await (pipeline.call(fn) if way == "call" else pipeline.wrap(fn)())

    assert asyncio.run(main()) == "ok"
    assert flaky.made == 2


@pytest.mark.fault(85)
@rest_and_full
def test_one_function_of_two_colours(listeners: Any) -> None:
    """A helper used with an async client first serves a sync one as before, and the reverse."""
    fn = Pipeline(Retry(wait=0), listeners=listeners).wrap(lambda ask: ask())

    async def main(flaky: Flaky) -> Any:
        return await fn(flaky.astep)

    for _ in range(2):
        assert asyncio.run(main(Flaky())) == "ok"
        assert sync(fn(Flaky().step)) == "ok"


@pytest.mark.fault(85)
@rest_and_full
def test_objects_of_one_class_and_two_colours(listeners: Any) -> None:
    """What was learnt of one callable object says nothing of another of its class."""
    pipeline = Pipeline(Retry(wait=0), listeners=listeners)

    async def main(flaky: Flaky) -> Any:
        return await pipeline.call(Callable_(flaky.astep))

    assert asyncio.run(main(Flaky())) == "ok"
    assert sync(pipeline.call(Callable_(Flaky().step))) == "ok"


@pytest.mark.fault(85)
def test_builtins() -> None:
    """Functions written in C are guarded too."""
    assert Pipeline(Fallback("sorry")).call({}.__getitem__, 1) == "sorry"
    assert Pipeline(Fallback("sorry")).call(operator.truediv, 1, 0) == "sorry"
    assert Pipeline(Retry()).call(len, [1]) == 1
    assert Pipeline(Retry()).wrap(operator.itemgetter(0))("xyz") == "x"


# Partials


def echo(**kwargs: Any) -> dict[str, Any]:
    return kwargs


def test_each_partial_is_looked_at() -> None:
    """A partial that binds the model is refused, though another one of the function was fine."""
    pipeline = Pipeline(ModelFallback("a", "b"))
    assert pipeline.call(functools.partial(echo, size=1)) == {"size": 1, "model": "a"}

    assert "bound" in message_of(TypeError, pipeline.call, functools.partial(echo, model="c"))


def test_a_partial_may_bind_by_position() -> None:
    """What a partial has bound by its place cannot be chosen either; the rest can."""

    def ask(model: str, size: int = 0) -> tuple[str, int]:
        return model, size

    pipeline = Pipeline(ModelFallback("a", "b"))
    assert "bound" in message_of(TypeError, pipeline.call, functools.partial(ask, "c"))
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


REST_AND_FULL = pytest.mark.parametrize("first", [[], [Busy()]], ids=["rest", "full"])


@pytest.mark.parametrize(
    "policies", [[Retry()], [ModelFallback("a", "b")], [Busy()]], ids=["plain", "chain", "full"]
)
def test_with_asynchronous_false_awaitables_are_results(policies: Any) -> None:
    """What comes back is the result, an awaitable or not."""
    later = Later(1)
    fn = Pipeline(*policies, asynchronous=False).wrap(lambda **kwargs: later)

    assert fn() is later
    assert fn() is later


def test_with_asynchronous_false_a_call_in_a_loop_waits_on_the_spot() -> None:
    """The first one, too: there is nothing to find out."""

    pipeline = Pipeline(RateLimit(1, per=3), asynchronous=False)

    async def main() -> list[str]:
        return [pipeline.call(script(word)) for word in ("one", "two")]

    with virtual_time() as clock:
        began = clock.now()
        assert asyncio.run(main()) == ["one", "two"]
        assert clock.now() - began == 3


@REST_AND_FULL
def test_with_asynchronous_false_coroutines_are_results(first: Any) -> None:
    """The very coroutine, at rest and in full."""

    async def fetch() -> int:
        return 1

    begun = fetch()
    fn = Pipeline(*first, Retry(), asynchronous=False).wrap(lambda: begun)
    assert fn() is begun
    assert asyncio.run(begun) == 1


@pytest.mark.parametrize("fn", [lambda: 1, lambda: Later(1)], ids=["plain", "awaitable"])
def test_with_asynchronous_true_a_call_gives_an_awaitable(fn: Any) -> None:
    """Whatever the function gives: await it, and the result is there."""

    async def main() -> Any:
        return await Pipeline(Retry(), asynchronous=True).wrap(fn)()

    assert asyncio.run(main()) == 1


@REST_AND_FULL
def test_an_adapter_is_known_by_what_it_gives(first: Any) -> None:
    """What wraps a coroutine function is awaited at first, and no more after a plain result."""

    async def fetch() -> Any: ...

    class Answer: ...

    @functools.wraps(fetch)
    def adapted() -> Any:
        return Answer()

    async def main() -> None:
        begun: Any = Pipeline(*first, Retry()).wrap(adapted)()
        if inspect.isawaitable(begun):
            await begun
        found: Any = Pipeline(Busy()).wrap(adapted)()
        assert type(found) is Answer

    asyncio.run(main())


@REST_AND_FULL
def test_what_has_given_an_awaitable_is_called_when_it_is_awaited(first: Any) -> None:
    """As a coroutine function is."""
    calls: list[None] = []

    def fetch() -> Any:
        calls.append(None)
        return Later(None)

    async def main() -> None:
        await Pipeline(*first, Retry()).wrap(fetch)()
        assert len(calls) == 1
        begun = Pipeline(Busy()).wrap(fetch)()
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

        @resilient(Busy(), Retry())
        def ask(self) -> Any:
            calls.append(self)
            return self.answer

    class AsyncClient(Client): ...

    async def main() -> None:
        assert Client(1).ask() == 1
        assert await AsyncClient(Later(2)).ask() == 2
        assert await AsyncClient(Later(3)).ask() == 3
        assert Client(4).ask() == 4

    asyncio.run(main())
    assert len(calls) == 4


def test_a_function_of_both_kinds_is_awaited_when_a_circuit_is_busy() -> None:
    """One that has given plain results and awaitables is taken for what it gives this time."""
    breaker = CircuitBreaker(failures=5)

    class Answer: ...

    def fetch(later: bool) -> Any:
        return Later("answer") if later else Answer()

    fn = Pipeline(breaker).wrap(fetch)
    assert type(fn(False)) is Answer

    async def main() -> Any:
        begun = fn(True)
        with pytest.raises(ConnectionError):
            await Pipeline(breaker).call(Later, ConnectionError())
        return await begun

    assert asyncio.run(main()) == "answer"


def test_an_async_method_is_known_for_async_while_a_loop_runs() -> None:
    """Even on its first use with the circuit open, a Fallback's value is awaited."""

    def required(fn: Any) -> Any:
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return wrapper

    @required
    async def create() -> str:
        return "never"

    breaker = CircuitBreaker()
    breaker.open()
    fn: Any = Pipeline(Fallback("instead"), breaker).wrap(create)

    async def main() -> str:
        return str(await fn())

    assert asyncio.run(main()) == "instead"


def test_an_awaited_object_is_returned() -> None:
    """An object of any other class is a result as it is."""
    found = SimpleNamespace()

    async def find() -> Any:
        return found

    fn = Pipeline(Retry()).wrap(find)
    assert asyncio.run(fn()) is found
    assert asyncio.run(fn()) is found
