"""Guarded functions and methods, as type checkers see them: as the functions that they guard.

Checked by mypy and pyright, never run. `with_stamina.py` has the same classes under stamina.
"""

# Each "ignore" is a line that both refuse.
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property, partial, singledispatch
from typing import Any, Generic, Protocol, TypeVar, overload

from typing_extensions import Self, assert_type, override

from resilience import Guarded, Outcome, Pipeline, Retry, Timeout, guarded, resilient

T = TypeVar("T")
robust = Pipeline(Retry(), Timeout(60))


# Functions: parameters, defaults, keywords and colour are kept.


@resilient
def bare(x: int, /, *, model: str = "m") -> str:
    return model * x


@resilient(Retry(attempts=5))
def decorated(x: int, /, *, model: str = "m") -> str:
    return model * x


@robust
def by_pipeline(x: int, /, *, model: str = "m") -> str:
    return model * x


@robust.wrap
def by_wrap(x: int, /, *, model: str = "m") -> str:
    return model * x


@resilient(name="named")
def named(x: int, /, *, model: str = "m") -> str:
    return model * x


@resilient
async def bare_later(x: int) -> str:
    return str(x)


@resilient(Retry(), Timeout(5))
async def later(x: int) -> str:
    return str(x)


@resilient(Retry())
def give_back(x: T, *others: T) -> list[T]:
    return [x, *others]


def functions() -> None:
    for ask in (bare, decorated, by_pipeline, by_wrap, named):
        assert_type(ask(1, model="x"), str)
    assert_type(give_back(1), list[int])
    assert_type(give_back("a", "b"), list[str])
    bare("1")  # type: ignore[arg-type]  # an int is wanted
    decorated(1, modle="x")  # type: ignore[call-arg]  # a typo
    by_pipeline(x=1)  # type: ignore[call-arg]  # positional only


async def async_functions() -> None:
    assert_type(await bare_later(1), str)
    assert_type(await later(1), str)
    coroutine: Coroutine[Any, Any, str] = later(1)
    assert_type(await coroutine, str)
    await later("1")  # type: ignore[arg-type]  # an int is wanted


def callables(ask: Callable[[int], str], fetch: Callable[[int], Awaitable[str]]) -> None:
    """Other callables keep their type, too."""
    assert_type(robust(ask), Callable[[int], str])
    assert_type(resilient(fetch), Callable[[int], Awaitable[str]])
    assert_type(robust.wrap(partial(decorated, 1))(), str)
    assert_type(robust.call(ask, 1), str)
    assert_type(robust.call(decorated, 1, model="x"), str)
    robust.call(ask, "1")  # type: ignore[arg-type]  # an int is wanted


# Overloads.


@overload
def size(of: str) -> int: ...
@overload
def size(of: bytes, exactly: bool) -> float: ...
@resilient(Retry())
def size(of: str | bytes, exactly: bool = False) -> float:
    return len(of)


@overload
def length(of: str) -> int: ...
@overload
def length(of: bytes, exactly: bool) -> float: ...
def length(of: str | bytes, exactly: bool = False) -> float:
    return len(of)


def overloads() -> None:
    wrapped = robust.wrap(length)
    decorated = resilient(Retry())(length)
    assert_type(size(""), int)
    assert_type(size(b"", True), float)
    assert_type(wrapped(""), int)
    assert_type(wrapped(b"", True), float)
    assert_type(decorated(""), int)
    assert_type(resilient(length)(b"", True), float)
    wrapped(b"")  # type: ignore[call-overload]  # neither of them


# Methods: guarded ones take the place of plain ones, and the other way round.


class Base(ABC):
    @abstractmethod
    def ask(self, question: str) -> str: ...

    @resilient(Retry())
    @abstractmethod
    def above(self, question: str) -> str: ...

    @abstractmethod
    @resilient(Retry())
    def below(self, question: str) -> str: ...

    @abstractmethod
    async def later(self, question: str) -> str: ...


class Bot(Base):
    @resilient(Retry())
    @override
    def ask(self, question: str) -> str:
        return question

    @override
    def above(self, question: str) -> str:
        return question

    @resilient
    @override
    def below(self, question: str) -> str:
        return question

    @override
    @resilient(Retry())
    async def later(self, question: str) -> str:
        return question


class Plain(Bot):
    @override
    def ask(self, question: str, more: int = 0) -> str:
        return super().ask(question)

    @override
    async def later(self, question: str) -> str:
        return await super().later(question)


class Again(Plain):
    @robust
    @override
    def ask(self, question: str, more: int = 0) -> str:
        return super().ask(question, more)


class Wrong(Bot):
    @resilient(Retry())
    def ask(self, question: int) -> str:  # type: ignore[override]  # a str is wanted
        return ""


async def overriding() -> None:
    Base()  # type: ignore[abstract]  # it is one
    for bot in (Bot(), Plain(), Again()):
        assert_type(bot.ask("a"), str)
        assert_type(Bot.ask(bot, "a"), str)
        assert_type(await bot.later("a"), str)
    assert_type(Again().ask("a", more=1), str)
    Bot().ask(1)  # type: ignore[arg-type]  # a str is wanted


# Protocols.


class Asks(Protocol):
    def ask(self, question: str) -> str: ...

    async def later(self, question: str) -> str: ...


class AsksByKeyword(Protocol):
    def __call__(self, x: int, /, *, model: str = ...) -> str: ...


class Asking(Protocol):
    @resilient(Retry())
    def ask(self, question: str) -> str:
        """A default of the protocol's own."""
        return question


class Default(Asking):
    pass


def use(asks: Asks, call: AsksByKeyword, asking: Asking) -> None:
    pass


def protocols() -> None:
    use(Bot(), bare, Plain())
    use(Plain(), decorated, Default())
    use(Again(), by_wrap, Again())
    use(Bot(), later, Plain())  # type: ignore[arg-type]  # another function


# Class and static methods, in both orders; properties; methods that return self.


class Maker:
    @classmethod
    @resilient(Retry())
    def below(cls, n: int) -> Self:
        return cls()

    @resilient(Retry())
    @classmethod
    def above(cls, n: int) -> Self:
        return cls()

    @classmethod
    @robust
    async def below_later(cls, n: int) -> Self:
        return cls()

    @staticmethod
    @resilient(Retry())
    def twice(n: int) -> int:
        return 2 * n

    @resilient(Retry())
    @staticmethod
    def twice_too(n: int) -> int:
        return 2 * n

    @property
    @resilient
    def size(self) -> int:
        return 1

    @size.setter
    @resilient
    def size(self, value: int) -> None:
        pass

    @cached_property
    @resilient(Retry())
    def cost(self) -> float:
        return 1.0

    @resilient(Retry())
    def itself(self) -> Self:
        return self


class Heir(Maker):
    pass


async def methods() -> None:
    heir = Heir()
    assert_type(Heir.below(1), Heir)
    assert_type(heir.below(1), Heir)
    assert_type(await Heir.below_later(1), Heir)
    assert_type(Heir.twice(1), int)
    assert_type(heir.twice(1), int)
    assert_type(heir.size, int)
    heir.size = 2
    assert_type(heir.cost, float)
    assert_type(heir.itself(), Heir)
    heir.size = "2"  # type: ignore[assignment]  # an int is wanted
    Heir.below("1")  # type: ignore[arg-type]  # an int is wanted
    Heir.twice("1")  # type: ignore[arg-type]  # an int is wanted
    assert_type(Heir.twice_too(1), int)
    assert_type(heir.twice_too(1), int)
    assert_type(Heir.above(1), Heir)
    assert_type(heir.above(1), Heir)


# Generics.


class Store(Generic[T]):
    def __init__(self, item: T) -> None:
        self.item = item

    @resilient(Retry())
    def get(self, default: T) -> T:
        return self.item or default

    @resilient(Retry())
    async def get_later(self) -> T:
        return self.item

    @classmethod
    @resilient
    def of(cls, item: T) -> Store[T]:
        return cls(item)


async def generics() -> None:
    store = Store(1)
    assert_type(store.get(2), int)
    assert_type(await store.get_later(), int)
    assert_type(Store("").get(""), str)
    assert_type(Store[str].of("a"), Store[str])
    store.get("")  # type: ignore[arg-type]  # an int is wanted


@singledispatch
@resilient
def kind(value: object) -> str:
    return "object"


@kind.register
@resilient
def _(value: int) -> str:
    return "int"


# The handle.


async def handles() -> None:
    assert_type(guarded(give_back).pipeline, Pipeline)
    assert_type(guarded(bare).outcome(1, model="x"), Outcome[str])
    assert_type(guarded(decorated).outcome(1).value, str | None)
    assert_type(guarded(decorated).outcome(1).unwrap(), str)
    assert_type(await guarded(later).outcome(1), Outcome[str])
    assert_type((await guarded(later).outcome(1)).unwrap(), str)
    assert_type(guarded(bare).with_policies(Timeout(5))(1, model="x"), str)
    assert_type(guarded(bare).replacing(Retry(attempts=1), at=0)(1), str)
    assert_type(await guarded(later).replacing(Retry(attempts=1))(1), str)
    assert_type(guarded(Bot().ask).outcome("a"), Outcome[str])
    assert_type(guarded(Bot.ask).outcome(Bot(), "a"), Outcome[str])
    assert_type(await guarded(Bot().later).outcome("a"), Outcome[str])
    assert_type(guarded(Heir.below).outcome(1).unwrap(), Heir)
    assert_type(guarded(Heir.twice).outcome(1), Outcome[int])
    assert_type(guarded(Store(1).get).outcome(1), Outcome[int])
    again = guarded(guarded(bare).with_policies(Timeout(5)))
    assert_type(again.outcome(1), Outcome[str])
    handle: Guarded[[int], Coroutine[Any, Any, str]] = guarded(later)
    assert_type(await handle.outcome(1), Outcome[str])
    guarded(bare).outcome("1")  # type: ignore[arg-type]  # an int is wanted
    guarded(bare).with_policies(Timeout(5))("1")  # type: ignore[arg-type]  # an int is wanted
    guarded(later).with_policies(Timeout)  # type: ignore[arg-type]  # a class, not a policy
    guarded(1)  # type: ignore[arg-type]  # no function
