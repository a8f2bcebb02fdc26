"""Where an argument is found: in functions, methods and partials, and what is remembered."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from resilience import Model, ModelFallback, Pipeline
from resilience._core.arguments import NO_SLOT, Slot, slot_of, slot_to_read
from support.calling import message_of


@pytest.fixture
def ask() -> Any:
    """A function that nobody has looked at yet: what is found is remembered."""

    def ask(prompt: str, model: str = "x", *, size: int = 3, must: int) -> None: ...

    return ask


class Client:
    def ask(self, prompt: str, model: str = "x") -> None: ...

    def other(self, model: str) -> None: ...

    def __call__(self, model: str = "y") -> None: ...


def test_the_place_the_name_and_the_default(ask: Any) -> None:
    """By place where it has one, with its default where it has one."""
    assert slot_of(ask, "prompt") == Slot("prompt", 0)
    assert slot_of(ask, "model") == Slot("model", 1, "x")
    assert slot_of(ask, "size") == Slot("size", None, 3)
    assert slot_of(ask, "must") == Slot("must")


def test_a_default_is_what_is_read_if_nothing_is_given(ask: Any) -> None:
    """What the call gives; else the default; else what one asks for otherwise."""
    with_default, without = slot_of(ask, "model"), slot_of(ask, "must")

    assert with_default.read(("p", "y"), {}) == "y"
    assert with_default.read(("p",), {"model": "z"}) == "z"
    assert with_default.read(("p",), {}) == "x"
    assert with_default.read(("p",), {}, "w") == "x"
    assert without.read(("p",), {}, "w") == "w"
    assert without.read(("p",), {}) is None
    assert with_default.given(("p",), {}, "w") == "w"


def test_a_bound_method_has_one_place_less() -> None:
    """The same function bound and not bound is told apart, in any order."""
    client = Client()

    assert slot_of(client.ask, "model") == Slot("model", 1, "x")
    assert slot_of(Client.ask, "model") == Slot("model", 2, "x")
    assert slot_of(client.ask, "model") == Slot("model", 1, "x")
    assert slot_of(client.other, "model") == Slot("model", 0)
    assert slot_of(client, "model") == Slot("model", 0, "y")


def test_a_slot_is_found_once_for_each_function(ask: Any) -> None:
    """The signature is read once; bound methods of two objects share what was found."""
    assert slot_of(ask, "model") is slot_of(ask, "model")
    assert slot_of(Client().ask, "model") is slot_of(Client().ask, "model")
    assert slot_of(ask, "model") is not slot_of(ask, "prompt")


def test_what_cannot_be_remembered_is_looked_up_each_time() -> None:
    """A callable that has no hash, or no weak references, is read all the same."""

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return self is other

        def __call__(self, prompt: str, model: str = "x") -> None: ...

    class Slotted:
        __slots__ = ()

        def __call__(self, prompt: str, model: str = "x") -> None: ...

    for fn in (Unhashable(), Slotted()):
        assert slot_of(fn, "model") == Slot("model", 1, "x")


def test_what_has_no_signature_takes_it_by_name() -> None:
    """Of what cannot be read nothing is known but the name."""

    class Unreadable:
        __signature__ = "none"

        def __call__(self, **kwargs: Any) -> None: ...

    assert slot_of(Unreadable(), "model") == Slot("model")


def test_keywords_take_any_name() -> None:
    """Also one that is spelt like the catch-all itself."""

    def catches(prompt: str, **model: Any) -> None: ...

    assert slot_of(catches, "model") == Slot("model")
    assert slot_of(catches, "other") == Slot("other")


def test_what_cannot_be_given_is_refused_by_name() -> None:
    """The function's name, the argument's, and what to do."""

    def positional(model: str, /) -> None: ...

    def starred(*model: str) -> None: ...

    for fn, word in ((positional, "positional-only"), (starred, "takes no argument")):
        message = message_of(TypeError, slot_of, fn, "model")
        assert fn.__qualname__ in message
        assert "'model'" in message
        assert word in message


def test_what_is_only_read_may_be_bound_or_positional(ask: Any) -> None:
    """A partial's own value, where the call gives no other; the place of a positional-only one."""

    def positional(prompt: str, model: str = "x", /) -> None: ...

    def catches(**kwargs: Any) -> None: ...

    by_name = slot_of(functools.partial(ask, model="y"), "model", reading=True)
    assert (by_name.read(("p",), {}), by_name.read(("p",), {"model": "z"})) == ("y", "z")
    by_place = slot_of(functools.partial(ask, "p", "y"), "model", reading=True)
    assert by_place.read((), {}) == "y"
    caught = slot_of(functools.partial(catches, model="y"), "model", reading=True)
    assert caught.read((), {}) == "y"
    assert slot_of(positional, "model", reading=True) == Slot("model", 1, "x")
    assert "positional-only" in message_of(TypeError, slot_of, positional, "model")
    bound = functools.partial(ask, model="y")
    assert "leave it out of the partial" in message_of(TypeError, slot_of, bound, "model")


def test_what_may_not_be_there_is_looked_for_once(ask: Any) -> None:
    """The place of an argument to read, or that of one that is not there."""
    assert slot_to_read(ask, "model") == Slot("model", 1, "x")
    assert slot_to_read(Client().ask, "model") == Slot("model", 1, "x")
    assert slot_to_read(functools.partial(ask, model="y"), "model") == Slot("model", None, "y")
    assert slot_to_read(ask, "model") is slot_to_read(ask, "model")
    assert slot_to_read(ask, "other") is slot_to_read(ask, "other") is NO_SLOT


def test_what_is_not_there_cannot_be_read() -> None:
    """The same message as for what is to be given."""
    with pytest.raises(TypeError, match="takes no argument 'model'"):
        slot_of(lambda prompt: None, "model", reading=True)


def test_replacing_an_argument(ask: Any) -> None:
    """In place where it was given by place, else by name."""
    slot = slot_of(ask, "model")

    assert slot.replaced(("p", "y", 1), {}, "z") == (("p", "z", 1), {})
    assert slot.replaced(("p",), {"size": 1}, "z") == (("p",), {"size": 1, "model": "z"})
    assert slot.replaced((), {"model": "y"}, "z") == ((), {"model": "z"})
    assert slot_of(ask, "prompt").replaced(("p", "y"), {}, "q") == (("q", "y"), {})


def test_an_override_finds_a_positional_argument() -> None:
    """A model's override replaces the argument where the caller put it."""

    def chat(messages: str, temperature: float = 1.0, *, model: str) -> tuple[str, float, str]:
        return messages, temperature, model

    fn = Pipeline(ModelFallback(Model("a", temperature=0.0))).wrap(chat)
    assert fn("m", 0.5, model="a") == ("m", 0.0, "a")
