"""The classes of `functions.py` under stamina's decorator: the yardstick for the types of ours.

stamina 26.1 keeps a function's type by a ParamSpec. Under mypy and pyright that refuses only what
ought to be refused: the lines with an "ignore", the same as in `functions.py`. It also accepts
`above` and `twice_too`, decorators over `classmethod` and `staticmethod`, which fail when they run.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property, partial, singledispatch
from typing import Generic, Protocol, TypeVar, overload

import stamina
from typing_extensions import Self, assert_type, override

T = TypeVar("T")
retry = stamina.retry(on=ConnectionError, attempts=3)


@retry
def decorated(x: int, /, *, model: str = "m") -> str:
    return model * x


@retry
async def later(x: int) -> str:
    return str(x)


@retry
def give_back(x: T, *others: T) -> list[T]:
    return [x, *others]


async def functions(ask: Callable[[int], str]) -> None:
    assert_type(decorated(1, model="x"), str)
    assert_type(give_back(1), list[int])
    assert_type(await later(1), str)
    assert_type(retry(ask)(1), str)
    assert_type(retry(partial(decorated, 1))(), str)
    decorated("1")  # type: ignore[arg-type]  # an int is wanted


@overload
def size(of: str) -> int: ...
@overload
def size(of: bytes, exactly: bool) -> float: ...
@retry
def size(of: str | bytes, exactly: bool = False) -> float:
    return len(of)


@overload
def length(of: str) -> int: ...
@overload
def length(of: bytes, exactly: bool) -> float: ...
def length(of: str | bytes, exactly: bool = False) -> float:
    return len(of)


def overloads() -> None:
    wrapped = retry(length)
    assert_type(size(""), int)
    assert_type(wrapped(""), int)
    assert_type(wrapped(b"", True), float)


class Base(ABC):
    @abstractmethod
    def ask(self, question: str) -> str: ...

    @retry
    @abstractmethod
    def above(self, question: str) -> str: ...

    @abstractmethod
    @retry
    def below(self, question: str) -> str: ...

    @abstractmethod
    async def later(self, question: str) -> str: ...


class Bot(Base):
    @retry
    @override
    def ask(self, question: str) -> str:
        return question

    @override
    def above(self, question: str) -> str:
        return question

    @retry
    @override
    def below(self, question: str) -> str:
        return question

    @override
    @retry
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
    @retry
    @override
    def ask(self, question: str, more: int = 0) -> str:
        return super().ask(question, more)


class Wrong(Bot):
    @retry
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


class Asks(Protocol):
    def ask(self, question: str) -> str: ...

    async def later(self, question: str) -> str: ...


class AsksByKeyword(Protocol):
    def __call__(self, x: int, /, *, model: str = ...) -> str: ...


class Asking(Protocol):
    @retry
    def ask(self, question: str) -> str:
        return question


class Default(Asking):
    pass


def use(asks: Asks, call: AsksByKeyword, asking: Asking) -> None:
    pass


def protocols() -> None:
    use(Bot(), decorated, Plain())
    use(Plain(), decorated, Default())
    use(Again(), decorated, Again())
    use(Bot(), later, Plain())  # type: ignore[arg-type]  # another function


class Maker:
    @classmethod
    @retry
    def below(cls, n: int) -> Self:
        return cls()

    @retry
    @classmethod
    def above(cls, n: int) -> Self:
        return cls()

    @classmethod
    @retry
    async def below_later(cls, n: int) -> Self:
        return cls()

    @staticmethod
    @retry
    def twice(n: int) -> int:
        return 2 * n

    @retry
    @staticmethod
    def twice_too(n: int) -> int:
        return 2 * n

    @property
    @retry
    def size(self) -> int:
        return 1

    @size.setter
    @retry
    def size(self, value: int) -> None:
        pass

    @cached_property
    @retry
    def cost(self) -> float:
        return 1.0

    @retry
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


class Store(Generic[T]):
    def __init__(self, item: T) -> None:
        self.item = item

    @retry
    def get(self, default: T) -> T:
        return self.item or default

    @retry
    async def get_later(self) -> T:
        return self.item

    @classmethod
    @retry
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
@retry
def kind(value: object) -> str:
    return "object"


@kind.register
@retry
def _(value: int) -> str:
    return "int"
