"""Guarded methods in the classes that people write: what comes out of `@resilient` is a function.

Each test runs at rest and on the full path, and the function under the policies fails first: so the
policies are there, not only the function.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import functools
import inspect
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import attrs
import pydantic
import pytest

from resilience import Pipeline, Retry, guarded, resilient
from resilience.testing import script


@pytest.fixture(params=[(), (lambda event: None,)], ids=["rest", "full"])
def twice(request: pytest.FixtureRequest) -> Pipeline:
    """A decorator that calls again once."""
    return Pipeline(Retry(attempts=2, wait=0), listeners=request.param)


def stumbling() -> Callable[[], Any]:
    """Fails every other time, first of all the first."""
    return script(*[ConnectionError(), None] * 10)


# Classes that are made by somebody's code


@pytest.mark.fault(208)
def test_methods_of_a_pydantic_model(twice: Pipeline) -> None:
    """Methods of all kinds; none of them is taken for a field."""
    stumble = stumbling()

    class User(pydantic.BaseModel):
        name: str

        @twice
        def greet(self, times: int) -> str:
            stumble()
            return self.name * times

        @twice
        async def greet_later(self, times: int) -> str:
            stumble()
            return self.name * times

        @classmethod
        @twice
        def made(cls, name: str) -> tuple[type, str]:
            stumble()
            return cls, name

        @twice
        @staticmethod
        def free(times: int) -> int:
            stumble()
            return times

    class Guest(User):
        pass

    user = Guest(name="a")
    assert user.greet(2) == "aa"
    assert asyncio.run(user.greet_later(3)) == "aaa"
    assert Guest.made("b") == (Guest, "b")
    assert user.free(4) == 4
    assert len(stumble.calls) == 8  # type: ignore[attr-defined]
    assert list(Guest.model_fields) == ["name"]
    assert user.model_copy(update={"name": "c"}).greet(2) == "cc"
    assert guarded(user.greet).outcome(2).unwrap() == "aa"
    assert user.model_dump() == {"name": "a"}


@pytest.mark.fault(208)
def test_hooks_of_a_pydantic_model(twice: Pipeline) -> None:
    """Validators, serializers and computed fields that ask somebody, and are guarded."""
    stumble = stumbling()

    class User(pydantic.BaseModel):
        name: str
        size: int = 0

        @pydantic.field_validator("name")
        @classmethod
        @twice
        def known(cls, name: str) -> str:
            stumble()
            return name.strip()

        @pydantic.model_validator(mode="after")
        @twice
        def whole(self) -> Any:
            stumble()
            self.size = len(self.name)
            return self

        @pydantic.field_serializer("name")
        @twice
        def shown(self, name: str) -> str:
            stumble()
            return name + "!"

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        @twice
        def shouted(self) -> str:
            stumble()
            return self.name.upper()

    user = User(name=" a ")
    assert user.model_dump() == {"name": "a!", "size": 1, "shouted": "A"}
    assert len(stumble.calls) == 8  # type: ignore[attr-defined]


@pytest.mark.fault(208)
def test_methods_of_a_dataclass_with_slots(twice: Pipeline) -> None:
    """The class is made anew by the decorator; its methods are fields neither before nor after."""
    stumble = stumbling()

    @dataclasses.dataclass(slots=True)
    class Point:
        x: int
        called: int = 0

        @twice
        def plus(self, y: int) -> int:
            self.called += 1
            stumble()
            return self.x + y

    point = Point(1)
    assert point.plus(2) == 3
    assert point.called == 2
    assert [field.name for field in dataclasses.fields(Point)] == ["x", "called"]
    assert not hasattr(point, "__dict__")
    assert guarded(point.plus).outcome(5).unwrap() == 6


@pytest.mark.fault(208)
def test_methods_of_an_attrs_class(twice: Pipeline) -> None:
    """With slots, too: they find their class by its name and by `__class__`'s name."""
    stumble = stumbling()

    @attrs.define
    class Point:
        x: int
        called: int = 0

        @twice
        def plus(self, y: int) -> int:
            self.called += 1
            stumble()
            return self.x + y

        @classmethod
        @twice
        def origin(cls) -> Any:
            stumble()
            return cls(0)

    point = Point(1)
    assert point.plus(2) == 3
    assert point.called == 2
    assert [field.name for field in attrs.fields(Point)] == ["x", "called"]
    assert Point.origin() == Point(0)
    assert attrs.evolve(point, x=7).plus(1) == 8


@pytest.mark.fault(208)
def test_methods_of_an_enum(twice: Pipeline) -> None:
    """A guarded function is a method of the members, not a member."""
    stumble = stumbling()

    class Colour(enum.Enum):
        RED = 1
        BLUE = 2

        @twice
        def told(self, often: int) -> list[str]:
            stumble()
            return [self.name] * often

        @classmethod
        @twice
        def first(cls) -> Any:
            stumble()
            return next(iter(cls))

        @twice
        @staticmethod
        def free() -> int:
            stumble()
            return 7

    assert [colour.name for colour in Colour] == ["RED", "BLUE"]
    assert Colour.RED.told(2) == ["RED", "RED"]
    assert Colour.first() is Colour.RED
    assert Colour.free() == Colour.BLUE.free() == 7
    assert guarded(Colour.BLUE.told).outcome(1).unwrap() == ["BLUE"]


def test_methods_of_a_named_tuple(twice: Pipeline) -> None:
    """They are no items of it."""
    stumble = stumbling()

    class Pair(NamedTuple):
        one: int
        two: int = 2

        @twice
        def both(self) -> int:
            stumble()
            return self.one + self.two

    assert Pair(1).both() == 3
    assert Pair._fields == ("one", "two")


@pytest.mark.fault(208)
def test_a_guarded_method_meets_a_protocol(twice: Pipeline) -> None:
    """As an implementation, and as a default that is inherited."""
    stumble = stumbling()

    @runtime_checkable
    class Asks(Protocol):
        def ask(self, question: str) -> str: ...

        @twice
        def ask_twice(self, question: str) -> str:
            stumble()
            return self.ask(question) + self.ask(question)

    class Bot:
        @twice
        def ask(self, question: str) -> str:
            return question

        @twice
        def ask_twice(self, question: str) -> str:
            return question

    class Heir(Asks):
        @twice
        def ask(self, question: str) -> str:
            stumble()
            return question

    assert isinstance(Bot(), Asks)
    assert not isinstance(object(), Asks)
    assert Heir().ask_twice("a") == "aa"


@pytest.mark.parametrize("guarded_first", [True, False], ids=["above", "below"])
def test_an_abstract_method_stays_abstract(twice: Pipeline, guarded_first: bool) -> None:
    """Guarded above or below `abstractmethod`, until a guarded or plain one takes its place."""

    def ask(self: Any, question: str) -> str:
        return question + "!"

    made: Any = twice(abstractmethod(ask)) if guarded_first else abstractmethod(twice(ask))
    Base = type("Base", (ABC,), {"ask": made})

    class Bot(Base):
        @twice
        def ask(self, question: str) -> str:
            return str(super().ask(question))

    class Plain(Base):
        def ask(self, question: str) -> str:
            return str(super().ask(question))

    with pytest.raises(TypeError):
        Base()
    assert Bot().ask("a") == Plain().ask("a") == "a!"


def test_guarded_and_plain_methods_override_one_another(twice: Pipeline) -> None:
    """`super()` finds the guarded one as any other."""
    stumble = stumbling()

    class Bot:
        @twice
        def ask(self) -> str:
            stumble()
            return "bot"

    class Heir(Bot):
        def ask(self) -> str:
            return super().ask() + " heir"

    class Last(Heir):
        @twice
        def ask(self) -> str:
            stumble()
            return super().ask() + " last"

    assert Last().ask() == "bot heir last"


# Descriptors and dispatch


def test_properties(twice: Pipeline) -> None:
    """The functions below `property` and `cached_property` are guarded; a cache is filled once."""
    stumble = stumbling()

    class Bot:
        asked = 0
        kept: ClassVar[list[int]] = []

        @property
        @twice
        def size(self) -> int:
            stumble()
            return 7

        @size.setter
        @twice
        def size(self, value: int) -> None:
            stumble()
            self.kept.append(value)

        @functools.cached_property
        @twice
        def costly(self) -> int:
            self.asked += 1
            stumble()
            return self.asked

    bot = Bot()
    bot.size = 5
    assert bot.size == 7
    assert bot.kept == [5]
    assert (bot.costly, bot.costly) == (2, 2)


@pytest.mark.parametrize(
    "descriptor",
    [
        property(lambda self: 1),
        functools.cached_property(lambda self: 1),
        functools.singledispatchmethod(lambda self, x: 1),
        functools.partialmethod(print),
    ],
    ids=lambda descriptor: type(descriptor).__name__,
)
def test_a_descriptor_is_no_function(descriptor: Any) -> None:
    """It is refused by name: the function below it is to be decorated."""
    with pytest.raises(TypeError) as refused:
        resilient(Retry())(descriptor)
    assert type(descriptor).__name__ in str(refused.value)
    assert "below" in str(refused.value)


def test_single_dispatch(twice: Pipeline) -> None:
    """Guarded implementations of a generic function, and a guarded generic function."""
    stumble = stumbling()

    @functools.singledispatch
    @twice
    def kind(value: object) -> str:
        stumble()
        return "object"

    @kind.register
    @twice
    def _(value: int) -> str:
        stumble()
        return "int"

    above: Any = twice(functools.singledispatch(lambda value: "object"))

    @above.register
    def _(value: int) -> str:
        stumble()
        return "int"

    assert (kind("a"), kind(1)) == ("object", "int")
    assert (above("a"), above(1)) == ("object", "int")
    assert len(stumble.calls) == 6  # type: ignore[attr-defined]


def test_single_dispatch_of_methods(twice: Pipeline) -> None:
    """The implementations of a generic method are guarded each."""
    stumble = stumbling()

    class Bot:
        name = "bot"

        @functools.singledispatchmethod
        @twice
        def kind(self, value: object) -> str:
            stumble()
            return f"{self.name} object"

        @kind.register
        @twice
        def _(self, value: int) -> str:
            stumble()
            return f"{self.name} int"

        @kind.register
        @classmethod
        @twice
        def _(cls, value: str) -> str:
            stumble()
            return f"{cls.__name__} str"

    bot = Bot()
    assert (bot.kind(1.5), bot.kind(1), bot.kind("a")) == ("bot object", "bot int", "Bot str")


def test_a_partial_method_of_a_guarded_one(twice: Pipeline) -> None:
    """It is bound as that of a plain function is."""
    stumble = stumbling()

    class Bot:
        @twice
        def ask(self, question: str, *, size: int) -> tuple[str, int]:
            stumble()
            return question, size

        ask_big = functools.partialmethod(ask, size=7)

    assert Bot().ask_big("a") == ("a", 7)


@pytest.mark.fault(208)
def test_weak_methods(twice: Pipeline) -> None:
    """A weak reference to a bound guarded method lives as long as its object."""

    class Bot:
        @twice
        def ask(self) -> int:
            return 7

    bot = Bot()
    ask = weakref.WeakMethod(bot.ask)
    found = ask()
    assert found is not None
    assert found() == 7
    assert found == bot.ask
    del bot, found
    assert ask() is None


@pytest.mark.fault(208)
@pytest.mark.parametrize("explicit", [False, True], ids=["implicit", "classmethod"])
def test_functions_that_a_class_takes_for_class_methods(twice: Pipeline, explicit: bool) -> None:
    """`__init_subclass__` and `__class_getitem__` are, guarded, what they are unguarded."""
    stumble = stumbling()
    heirs: list[tuple[str, int]] = []
    way: Any = classmethod if explicit else (lambda fn: fn)

    class Base:
        @way
        @twice
        def __init_subclass__(cls, size: int = 0) -> None:
            stumble()
            heirs.append((cls.__name__, size))

        @way
        @twice
        def __class_getitem__(cls, item: type) -> tuple[str, type]:
            stumble()
            return cls.__name__, item

        @twice
        def __new__(cls) -> Any:
            stumble()
            return object.__new__(cls)

    class Heir(Base, size=7):
        pass

    assert heirs == [("Heir", 7)]
    assert Heir[int] == ("Heir", int)  # type: ignore[index, comparison-overlap]
    assert type(Heir()) is Heir


def test_a_function_wrapped_by_other_decorators(twice: Pipeline) -> None:
    """`lru_cache` above a guarded function keeps what it gives, not its failures; `wraps` finds
    name and signature."""
    stumble = stumbling()

    @functools.lru_cache
    @twice
    def ask(x: int) -> int:
        stumble()
        return x

    @functools.wraps(ask.__wrapped__)
    def outer(*args: Any) -> int:
        return ask(*args)

    assert (ask(1), ask(1), ask(2)) == (1, 1, 2)
    assert ask.cache_info().hits == 1
    assert len(stumble.calls) == 4  # type: ignore[attr-defined]
    assert str(inspect.signature(outer)) == "(x: 'int') -> 'int'"
    with pytest.raises(TypeError):
        guarded(outer)


def test_a_wrapper_that_is_not_finished_yet(twice: Pipeline) -> None:
    """One whose closure still has an empty cell is no guarded function, and can be guarded."""
    guarded_one = twice.wrap(lambda: "guarded")

    @functools.wraps(guarded_one)
    def wrapper() -> str:
        return str(later())

    with pytest.raises(TypeError):
        guarded(wrapper)
    outer = twice.wrap(wrapper)
    later = script(ConnectionError(), "later")
    assert outer() == "later"
