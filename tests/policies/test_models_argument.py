"""ModelFallback: where the model's name goes among a function's arguments."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from conftest import World
from resilience import Model, ModelFallback, Pipeline
from support.calling import error_of, message_of
from support.functions import coloured


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        (("m", "p"), {}, (("m", "p"), ("a", "p"))),
        (("m",), {"prompt": "p"}, (("m", "p"), ("a", "p"))),
        ((), {"prompt": "p", "model": "m"}, (("m", "p"), ("a", "p"))),
        ((), {"prompt": "p"}, (("a", "p"),)),
    ],
)
def test_a_positional_model_is_replaced_in_place(
    world: World, args: Any, kwargs: Any, expected: Any
) -> None:
    """Where the model was positional it stays positional; else it is a keyword."""
    seen: list[Any] = []

    def ask(model: str = "?", prompt: str = "") -> None:
        seen.append((model, prompt))
        raise ConnectionError

    error_of(world, Pipeline(ModelFallback("a")).wrap(coloured(world, ask)), *args, **kwargs)
    assert tuple(seen) == expected


def test_a_model_by_its_place_is_where_a_call_begins() -> None:
    """At rest the model is found where the call gives it."""

    def ask(prompt: str, model: str = "x") -> str:
        return model

    fn = Pipeline(ModelFallback("a", "b")).wrap(ask)
    assert [fn("hi"), fn("hi", "b"), fn("hi", model="b")] == ["a", "b", "b"]


def test_methods_and_other_argument_names(world: World) -> None:
    """`argument=` names another parameter; a bound method's `self` does not shift it."""
    seen: list[str] = []

    def answer(engine: str, prompt: str) -> str:
        seen.append(engine)
        if len(seen) < 3:
            raise ConnectionError
        return prompt

    class Client:
        def ask(self, engine: str, prompt: str) -> str:
            return answer(engine, prompt)

    class AsyncClient:
        async def ask(self, engine: str, prompt: str) -> str:
            return answer(engine, prompt)

    method: Any = AsyncClient().ask if world.asynchronous else Client().ask
    pipeline = Pipeline(ModelFallback("a", "b", argument="engine"))

    assert world.run(pipeline.call, method, "own", "hi") == "hi"
    assert seen == ["own", "a", "b"]


def _positional_only(model: str, /) -> None: ...


def _no_such(prompt: str) -> None: ...


def _takes_any(**kwargs: Any) -> str:
    return str(kwargs["model"])


@pytest.mark.parametrize(
    ("fn", "word"),
    [
        (functools.partial(_takes_any, model="fixed"), "bound"),
        (_positional_only, "positional-only"),
        (_no_such, "'model'"),
        (lambda *model: None, "'model'"),
    ],
)
def test_an_argument_that_cannot_be_chosen_is_refused(fn: Any, word: str) -> None:
    """Bound, positional-only or missing: TypeError at decoration, and at first use in `call`."""
    pipeline = Pipeline(ModelFallback("a"))

    assert word in message_of(TypeError, pipeline.wrap, fn)
    assert word in message_of(TypeError, pipeline.call, fn)


def test_the_guarded_function_itself_must_take_the_model() -> None:
    """Also where every model of the chain has a function of its own."""
    chain = ModelFallback(Model("a", call=_takes_any))

    assert "'model'" in message_of(TypeError, Pipeline(chain).wrap, _no_such)


@pytest.mark.parametrize(
    ("chain", "missing"),
    [
        (ModelFallback(Model("a", extra=1)), "'extra'"),
        (ModelFallback("a", argument="engine"), "'engine'"),
        (ModelFallback("a", Model("b", call=_no_such)), "'model'"),
    ],
)
def test_arguments_that_a_function_does_not_take(chain: ModelFallback, missing: str) -> None:
    """Overrides, `argument=` and another model's function are looked at when it is decorated."""

    def ask(prompt: str, model: str = "x") -> None: ...

    assert missing in message_of(TypeError, Pipeline(chain).wrap, ask)


def test_each_function_has_its_own_places() -> None:
    """By its place in the guarded function; by name in the other model's, if it is there."""

    def ask(prompt: str, model: str = "x", size: int = 0) -> Any:
        raise ConnectionError

    def other(model: str, prompt: str, size: int = 0, *, extra: int) -> tuple[Any, ...]:
        return model, prompt, size, extra

    chain = ModelFallback("a", Model("b", call=other, extra=1))
    assert Pipeline(chain).call(ask, prompt="hi") == ("b", "hi", 0, 1)


def test_a_partial_that_binds_something_else_is_fine() -> None:
    """Only the model's own argument must be left open."""
    fn = functools.partial(_takes_any, temperature=0)

    assert Pipeline(ModelFallback("a")).call(fn) == "a"


def test_an_unreadable_signature_gets_a_keyword() -> None:
    """A builtin that does not tell its signature gets the model by keyword."""
    for fn in (dict, functools.partial(dict, prompt="p")):
        assert Pipeline(ModelFallback("a")).call(fn, prompt="p") == {"prompt": "p", "model": "a"}


class Slotted:
    """A callable that can be neither remembered (no weak references) nor hashed."""

    __slots__ = ("asked",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, prompt: str, model: str = "?") -> str:
        self.asked.append(model)
        if model == "a":
            raise ConnectionError
        return prompt


def test_a_callable_that_cannot_be_remembered() -> None:
    """Where its argument is, is found anew for each call."""
    ask = Slotted()

    for _ in range(2):
        assert Pipeline(ModelFallback("a", "b")).call(ask, "hi") == "hi"
    assert ask.asked == ["a", "b"] * 2
