"""`guarded(fn)`: the handle of a guarded function, its outcomes and its variants."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import weakref
from typing import Any

import pytest
import trio

from conftest import World
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    Guarded,
    Model,
    ModelFallback,
    Outcome,
    Pipeline,
    Retry,
    Timeout,
    current_attempt,
    guarded,
    resilient,
)
from resilience.testing import script, virtual_time
from support.calling import awaited, error_of, message_of


def echo(**kwargs: Any) -> dict[str, Any]:
    return kwargs


class Bot:
    """Methods guarded in every way."""

    name = "bot"

    @resilient
    def chat(self, messages: str) -> tuple[str, str]:
        return self.name, messages

    @resilient(Retry())
    async def achat(self, messages: str) -> tuple[str, str]:
        return self.name, messages

    @classmethod
    @resilient(Retry())
    def made(cls, x: int) -> tuple[str, int]:
        return cls.name, x

    @resilient(Retry())
    @classmethod
    def made_too(cls, x: int) -> tuple[str, int]:
        return cls.name, x

    @staticmethod
    @resilient(Retry())
    def free(x: int) -> int:
        return x

    @resilient(Retry())
    @staticmethod
    def free_too(x: int) -> int:
        return x


class Heir(Bot):
    name = "heir"


@resilient
def at_module_level() -> int:
    """Docs."""
    return 1


# What has a handle


def test_a_guarded_function_has_a_handle() -> None:
    """With its pipeline; it prints as what it is."""
    pipeline = Pipeline(Retry())
    handle = guarded(pipeline.wrap(echo))

    assert isinstance(handle, Guarded)
    assert handle.pipeline is pipeline
    assert repr(handle) == f"<guarded echo under {pipeline!r}>"


@functools.wraps(at_module_level)
def wraps_a_guarded_one() -> int:
    return at_module_level()


bears_anothers_attributes = functools.update_wrapper(Pipeline().wrap(echo), at_module_level)


@pytest.mark.parametrize(
    "thing",
    [
        *(echo, len, 7, None, Bot, Bot().__init__, Pipeline(Retry())),
        *(wraps_a_guarded_one, bears_anothers_attributes),
    ],
)
def test_what_is_not_guarded_has_no_handle(thing: Any) -> None:
    """A function that wraps a guarded one, and bears all its attributes, is another function."""
    says = message_of(TypeError, guarded, thing)
    assert says.endswith(" is not guarded: decorate it with @resilient(...) first")
    assert says.partition(" ")[0] in (
        getattr(thing, "__qualname__", None),
        f"<{type(thing).__name__}>",
    )


def test_a_handle_is_not_made_by_hand() -> None:
    """It says what gives one."""
    for wrong in ((), (len,)):
        says = message_of(TypeError, Guarded, *wrong)
        assert "guarded(fn)" in says


def test_a_function_guarded_twice_has_the_outer_handle() -> None:
    """The inner one is that of what it wraps."""
    inner, outer = Pipeline(Retry()), Pipeline(Fallback(1))
    twice = outer.wrap(inner.wrap(echo))

    assert guarded(twice).pipeline is outer
    assert guarded(inspect.getattr_static(twice, "__wrapped__")).pipeline is inner


# Methods


def test_a_bound_method_keeps_its_self(world: World) -> None:
    """In outcomes and in variants, for a function of any colour."""
    pipeline = Pipeline(Retry(wait=1))
    fn = world.function(lambda bot, x: (bot.name, x))

    class Bot:
        name = "bot"
        chat = pipeline.wrap(fn)

    bot = Bot()
    assert world.run(bot.chat, 1) == ("bot", 1)
    assert world.run(guarded(bot.chat).outcome, 2).value == ("bot", 2)
    assert world.run(guarded(bot.chat).with_policies(Timeout(5)), 3) == ("bot", 3)
    assert world.run(guarded(bot.chat).replacing(Retry(attempts=1)), 4) == ("bot", 4)
    assert world.run(Bot.chat, bot, 5) == ("bot", 5)
    assert world.run(guarded(Bot.chat).outcome, bot, 6).value == ("bot", 6)


def test_methods_of_every_kind() -> None:
    """Class and static methods, guarded above or below their decorator, and async methods."""
    bot = Bot()
    assert bot.chat("hi") == ("bot", "hi")
    outcome = guarded(bot.chat).outcome("hi")
    assert isinstance(outcome, Outcome)
    assert outcome.value == ("bot", "hi")
    assert asyncio.run(awaited(bot.achat, "hi")) == ("bot", "hi")
    assert asyncio.run(awaited(guarded(bot.achat).outcome, "hi")).value == ("bot", "hi")
    assert (bot.made(1), Bot.made(1), Bot.made_too(1)) == (("bot", 1),) * 3
    assert (bot.free(2), Bot.free(2), Bot().free_too(2), Bot.free_too(2)) == (2,) * 4
    assert Bot.chat(bot, "hi") == ("bot", "hi")
    assert guarded(Bot.made_too).outcome(1).value == ("bot", 1)
    assert guarded(Heir().made).outcome(1).value == ("heir", 1)
    assert guarded(bot.made_too).with_policies(Retry())(1) == ("bot", 1)
    assert guarded(Bot.free).outcome(3).value == 3


@pytest.mark.fault(85)
def test_class_and_static_methods_of_every_colour(world: World) -> None:
    """Decorated above or below `classmethod` and `staticmethod`, they are guarded."""
    fn = world.function(lambda *args: args)

    class Bot:
        one = classmethod(Pipeline(Retry()).wrap(fn))
        two = staticmethod(Pipeline(Retry()).wrap(fn))
        three = Pipeline(Retry()).wrap(classmethod(fn))
        four = Pipeline(Retry()).wrap(staticmethod(fn))

    assert world.run(Bot().one, 1) == (Bot, 1)
    assert world.run(Bot().two, 1) == (1,)
    assert world.run(Bot().three, 1) == (Bot, 1)
    assert world.run(Bot().four, 1) == (1,)


def test_methods_are_bound_as_methods_are() -> None:
    """Two looks give equal methods with the object in them; of the class it is the function."""
    bot = Bot()

    assert bot.chat == bot.chat
    assert bot.chat.__self__ is bot  # type: ignore[attr-defined]
    assert bot.chat != Bot().chat
    assert hash(bot.chat) == hash(bot.chat)
    assert inspect.isfunction(Bot.chat)
    assert Heir().made(1) == ("heir", 1)
    assert str(inspect.signature(bot.chat)) == "(messages: 'str') -> 'tuple[str, str]'"
    assert inspect.iscoroutinefunction(bot.achat)


def test_a_class_method_guarded_above_its_decorator_is_a_class_method() -> None:
    """By the descriptor's own hand, too: it has the class of whoever asks."""
    made: Any = resilient(Retry())(classmethod(lambda cls: cls))

    assert type(made) is classmethod
    assert made.__get__(Heir())() is Heir
    assert made.__get__(None, Heir)() is Heir


@pytest.mark.fault(88)
@pytest.mark.parametrize("failing", [False, True])
def test_a_guarded_method_does_not_keep_its_object_alive(failing: bool) -> None:
    """The decorator holds no instance, nor does anything that a call leaves."""

    class Bot:
        @resilient(Retry(attempts=1), CircuitBreaker())
        def chat(self) -> None:
            if failing:
                raise ConnectionError

    bot = Bot()
    if failing:
        with pytest.raises(ConnectionError):
            bot.chat()
    else:
        bot.chat()
    gone = weakref.ref(bot)
    del bot
    if failing:
        gc.collect()
    assert gone() is None


@pytest.mark.fault(88)
def test_the_circuit_of_a_method_is_the_classs() -> None:
    """All instances share it; closing it lets go of the failure that opened it."""
    breaker = CircuitBreaker(failures=1)

    class Bot:
        @resilient(Retry(attempts=1), breaker)
        def chat(self) -> None:
            raise ConnectionError

    bot = Bot()
    with pytest.raises(ConnectionError):
        bot.chat()
    with pytest.raises(CircuitOpenError):
        Bot().chat()
    gone = weakref.ref(bot)
    breaker.close()
    del bot
    gc.collect()
    assert gone() is None


# A guarded function is a function


@pytest.mark.fault(87)
def test_it_looks_like_the_function() -> None:
    """Name, docs, signature, hints, module, wrapped function and colour are the function's."""

    def plain(x: int, *, y: str = "z") -> float:
        """Docs."""
        return x

    async def asynchronous(x: int) -> None: ...

    made: Any = resilient(plain)
    assert made.__name__ == "plain"
    assert made.__doc__ == "Docs."
    assert made.__wrapped__ is plain
    assert made.__module__ == __name__
    assert made.__qualname__ == plain.__qualname__
    assert inspect.isfunction(made)
    assert inspect.signature(made) == inspect.signature(plain)
    assert made.__annotations__ == plain.__annotations__
    assert not inspect.iscoroutinefunction(made)
    assert not inspect.iscoroutinefunction(at_module_level)
    assert inspect.iscoroutinefunction(resilient(asynchronous))


class AsksLater:
    """A callable object, async."""

    async def __call__(self, question: str, *, size: int = 7) -> float:
        return 1.0


@pytest.mark.fault(87)
@pytest.mark.parametrize("asynchronous", [None, True])
@pytest.mark.parametrize("fn", [AsksLater(), AsksLater().__call__, functools.partial(AsksLater())])
def test_it_has_the_functions_colour(fn: Any, asynchronous: Any) -> None:
    """Callable objects, methods and partials of either have it, too."""
    made = Pipeline(Retry(), asynchronous=asynchronous).wrap(fn)

    assert inspect.iscoroutinefunction(made)
    assert asyncio.run(made("why")) == 1.0
    assert inspect.signature(made) == inspect.signature(fn)


def test_with_asynchronous_false_it_is_no_coroutine_function() -> None:
    """What comes back is whatever the function gives."""
    made: Any = Pipeline(Retry(), asynchronous=False).wrap(AsksLater())
    assert not inspect.iscoroutinefunction(made)
    assert asyncio.run(made("why")) == 1.0


@pytest.mark.fault(87)
def test_callables_without_a_name() -> None:
    """Objects without `__name__` are guarded, and printed, all the same."""
    fn: Any = functools.partial(lambda x: x, 5)
    made = Pipeline(Retry()).wrap(fn)

    assert made() == 5
    assert "partial" in repr(guarded(made))
    assert inspect.signature(Pipeline().wrap(functools.partial(echo))) == inspect.signature(echo)


@pytest.mark.fault(24)
def test_it_pickles_and_copies_as_functions_do() -> None:
    """One of a module by its name, a bound method with its object; a local one is refused."""
    assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level
    assert copy.deepcopy(at_module_level) is copy.copy(at_module_level) is at_module_level
    bound = pickle.loads(pickle.dumps(Bot().chat))
    assert bound("hi") == ("bot", "hi")
    assert pickle.loads(pickle.dumps(Bot.chat)) is Bot.chat
    for local in (lambda: None, functools.partial(echo)):
        with pytest.raises((AttributeError, pickle.PicklingError)):
            pickle.dumps(resilient(local))


def test_each_wrapping_is_a_function_of_its_own() -> None:
    """As with any decorator: nothing else equals it, the function itself included."""
    pipeline = Pipeline(Retry())
    made = pipeline.wrap(echo)

    assert made == made
    assert len({made, pipeline.wrap(echo), echo}) == 3


def test_one_function_under_asyncio_then_trio_then_virtual_time() -> None:
    """The runtime is chosen for each call, not when the function is decorated."""

    @resilient(Timeout(30), Retry(wait=0))
    async def ask() -> str:
        attempts.append(current_attempt().number)
        if len(attempts) % 2:
            raise ConnectionError
        return "ok"

    attempts: list[int] = []
    assert asyncio.run(awaited(ask)) == "ok"
    assert trio.run(awaited, ask) == "ok"
    with virtual_time():
        assert asyncio.run(awaited(ask)) == "ok"
        assert trio.run(awaited, ask) == "ok"
    assert attempts == [1, 2] * 4


# Variants


def test_with_policies(world: World) -> None:
    """`with_policies` is the function under these policies only; the original stays."""
    fn = Pipeline(Retry(wait=1)).wrap(world.function(ConnectionError))
    once = guarded(fn).with_policies(Fallback("sorry"))

    assert world.run(once) == "sorry"
    assert len(world.calls) == 1
    error_of(world, fn)
    assert len(world.calls) == 4
    assert inspect.isfunction(once)
    assert [type(policy) for policy in guarded(once).pipeline.policies] == [Fallback]


def test_replacing(world: World) -> None:
    """`replacing` is the same pipeline with the one policy of that type replaced in its place."""
    breaker = CircuitBreaker(failures=99)
    fn = Pipeline(Retry(), breaker).wrap(world.function(ConnectionError))
    error_of(world, guarded(fn).replacing(Retry(attempts=1)))

    assert len(world.calls) == 1
    both = guarded(fn).replacing(CircuitBreaker(name="x"), Retry(attempts=1))
    assert [repr(policy) for policy in guarded(both).pipeline.policies] == [
        "Retry(attempts=1)",
        "<CircuitBreaker(name='x'): closed>",
    ]
    one = guarded(fn).replacing(Retry(attempts=1))
    assert guarded(one).pipeline.policies[1] is breaker


def test_replacing_nothing_is_an_error() -> None:
    """Where there is none of that type, ValueError names the type and the pipeline."""
    fn = Pipeline(Retry()).wrap(echo)

    message = message_of(ValueError, guarded(fn).replacing, Timeout(5))
    assert "Timeout" in message
    assert "Retry()" in message


@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_replacing_one_of_several() -> None:
    """`at=` says which: 0 is the outermost, -1 the innermost; without it, ValueError lists them."""
    fn = Pipeline(Timeout(9), Retry(), Timeout(8)).wrap(echo)

    def seconds(**at: Any) -> list[Any]:
        made = guarded(fn).replacing(Timeout(5), **at)
        return [p.seconds for p in guarded(made).pipeline.policies if isinstance(p, Timeout)]

    assert seconds(at=0) == [5, 8]
    assert seconds(at=1) == seconds(at=-1) == [9, 5]
    assert message_of(ValueError, guarded(fn).replacing, Timeout(5)) == (
        "there are 2 policies of type Timeout: say which to replace with at= "
        "(0: Timeout(9), 1: Timeout(8))"
    )
    for at in (2, -3):
        assert "at" in message_of(ValueError, guarded(fn).replacing, Timeout(5), at=at)


def test_replacing_in_a_nested_pipeline(world: World) -> None:
    """Policies of nested pipelines are found; the rest of them, and their options, stay."""
    breaker = CircuitBreaker()
    part = Pipeline(Retry(attempts=5), breaker, name="part", asynchronous=world.asynchronous)
    fn = Pipeline(Fallback(1), part, name="whole").wrap(world.function(ConnectionError))
    made = guarded(fn).replacing(Retry(attempts=2, wait=0))
    assert world.run(made) == 1
    assert len(world.calls) == 2

    pipeline = guarded(made).pipeline
    inner = pipeline.policies[1]
    assert isinstance(inner, Pipeline)
    assert (pipeline.name, inner.name, inner.asynchronous) == ("whole", "part", world.asynchronous)
    assert inner.policies[1] is breaker
    two = Pipeline(Pipeline(Fallback(1), Fallback(2)), Fallback(3)).wrap(echo)
    changed = guarded(guarded(two).replacing(Fallback(9), at=1)).pipeline
    assert [repr(policy) for policy in changed._flat] == [
        "Fallback(1)",
        "Fallback(9)",
        "Fallback(3)",
    ]


def test_replacing_keeps_the_pipelines_name_and_listeners(world: World) -> None:
    """The same pipeline, but for one policy."""
    seen: list[Any] = []
    pipeline = Pipeline(Retry(), name="chat", listeners=[seen.append])
    replaced = guarded(pipeline.wrap(world.function("ok"))).replacing(Retry(attempts=1))
    world.run(replaced)

    assert guarded(replaced).pipeline.name == "chat"
    assert [event.pipeline for event in seen] == ["chat"] * 4


def test_variants_keep_the_colour() -> None:
    """What the pipeline was told of async and sync holds in its variants too."""
    fn = Pipeline(Retry(), asynchronous=False, name="named").wrap(echo)

    once = guarded(fn).with_policies(Retry())
    assert guarded(once).pipeline.asynchronous is False
    replaced = guarded(guarded(fn).replacing(Retry(attempts=7))).pipeline
    assert replaced.asynchronous is False
    assert replaced.name == "named"


def test_variants_guard_the_function_itself() -> None:
    """Not the guarded one: no second layer of policies."""
    body = script(ConnectionError)
    fn = Pipeline(Retry(attempts=3, wait=0)).wrap(body)
    with pytest.raises(ConnectionError):
        guarded(guarded(fn).with_policies(Retry(attempts=2, wait=0))).replacing(Retry(attempts=1))()
    assert len(body.calls) == 1  # type: ignore[attr-defined]


# Secrets


@pytest.mark.fault(116)
def test_no_secret_in_a_repr_or_a_message() -> None:
    """Not the arguments of a partial, not the overrides that may hold a key."""

    def create(*, model: str, api_key: str) -> None: ...

    secret: Any = functools.partial(create, api_key="sk-SECRET")
    bound: Any = functools.partial(secret, model="m")
    made = Pipeline().wrap(secret)
    shown = [repr(made), repr(guarded(made))]
    shown.append(
        repr(ModelFallback(Model("b", extra_headers={"Authorization": "Bearer sk-SECRET"})))
    )
    shown.append(message_of(TypeError, Pipeline(ModelFallback("a")).wrap, bound))
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)) as unpicklable:
        pickle.dumps(made)
    shown.append(str(unpicklable.value))
    assert not [each for each in shown if "SECRET" in each]


@pytest.mark.fault(396)
def test_a_pipeline_calls_a_guarded_method_of_its_own(world: World) -> None:
    """With its `self`, and under its policies once, not in themselves."""
    pipeline = Pipeline(Retry(attempts=2, wait=0))
    seen: list[Any] = []

    class Bot:
        def ask(self, question: str) -> Any:
            seen.append((self, question))
            raise ConnectionError

        async def aask(self, question: str) -> Any:
            return self.ask(question)

        guarded_ask = pipeline.wrap(ask)
        guarded_aask = pipeline.wrap(aask)

    bot = Bot()
    method = bot.guarded_aask if world.asynchronous else bot.guarded_ask
    with pytest.raises(ConnectionError):
        world.run(pipeline.call, method, "why?")
    assert seen == [(bot, "why?")] * 2
