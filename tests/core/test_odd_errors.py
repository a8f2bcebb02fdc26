"""Errors of every odd kind pass through every policy unharmed, are retried and told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import attrs
import pytest
import trio

from conftest import World
from resilience import CircuitBreaker, Fallback, ModelFallback, Pipeline, Retry, Timeout, history
from resilience import guarded as handle
from support.unprinted import caught

pytestmark = pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")


def nobody(event: object) -> None:
    """A listener: keeps a pipeline from rest."""


def in_asyncio(fn: Callable[..., Any], *args: Any) -> None:
    asyncio.run(fn(*args))


@dataclass(frozen=True)
class FrozenDataclassError(ConnectionError):
    code: str = "x"


@attrs.frozen
class FrozenAttrsError(ConnectionError):
    code: str = "x"


@attrs.define(slots=True)
class SlottedError(ConnectionError):
    code: str = "x"


class BareSlotsError(ConnectionError):
    __slots__ = ("code",)


class UnprintableError(ConnectionError):
    def __str__(self) -> str:
        raise RuntimeError("not printable")

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        raise RuntimeError("not printable")


class WordlessError(ConnectionError):
    def __str__(self) -> Any:
        return b"bytes"  # noqa: PLE0307

    __repr__ = __str__


class FalsyError(ConnectionError):
    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0


class UnbooleanError(ConnectionError):
    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __len__(self) -> int:
        raise RuntimeError("of no length")


class IncomparableError(ConnectionError):
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    def __hash__(self) -> int:
        raise RuntimeError("not hashable")


class EqualToAllError(ConnectionError):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class InventingError(ConnectionError):
    def __getattr__(self, name: str) -> Any:
        return type("Invented", (), {"__getattr__": lambda self, name: self})()


class SecretiveError(ConnectionError):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"nobody reads {name}")


class LyingError(ConnectionError):
    @property
    def __class__(self) -> Any:
        return KeyboardInterrupt


class ImpossibleError(ConnectionError):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("of no class")


class SealedError(ConnectionError):
    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError(f"nobody writes {name}")

    __delattr__ = __setattr__  # type: ignore[assignment]


class NotelessError(ConnectionError):
    def add_note(self, note: str) -> None:
        raise RuntimeError("no notes")


class OddNotesError(ConnectionError):
    def __init__(self) -> None:
        super().__init__()
        self.__notes__ = 7  # type: ignore[assignment]


class DictlessError(ConnectionError):
    __dict__ = property(lambda self: 1 / 0)  # type: ignore[assignment]


class Full(dict[str, Any]):
    def __setitem__(self, name: str, value: object) -> None:
        raise RuntimeError("nothing more goes in")


class FullError(ConnectionError):
    def __init__(self) -> None:
        super().__init__()
        self.__dict__ = Full()


class TracelessError(ConnectionError):
    __traceback__ = property(lambda self: 1 / 0)  # type: ignore[assignment]
    __cause__ = __context__ = __traceback__  # type: ignore[assignment]


class AwaitableError(ConnectionError):
    def __await__(self) -> Any:
        raise RuntimeError("not to be awaited")

    def __iter__(self) -> Any:
        raise RuntimeError("not to be iterated")

    def __call__(self) -> Any:
        raise RuntimeError("not to be called")


class Unhashable(type):
    def __hash__(cls) -> int:
        raise RuntimeError("a class that is not hashable")

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError("a class that is not comparable")


class Disowning(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("no instances")


class Nameless(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__", "__mro__", "__doc__"):
            raise RuntimeError(f"a class without {name}")
        return super().__getattribute__(name)

    def __repr__(cls) -> str:
        raise RuntimeError("a class without a text")


class UnhashableClassError(ConnectionError, metaclass=Unhashable):
    pass


class DisowningClassError(ConnectionError, metaclass=Disowning):
    pass


class NamelessClassError(ConnectionError, metaclass=Nameless):
    pass


ODD: dict[str, type[Exception]] = {
    "frozen dataclass": FrozenDataclassError,
    "frozen attrs": FrozenAttrsError,
    "slots": SlottedError,
    "bare slots": BareSlotsError,
    "unprintable": UnprintableError,
    "prints bytes": WordlessError,
    "falsy": FalsyError,
    "bool raises": UnbooleanError,
    "eq raises": IncomparableError,
    "eq true, unhashable": EqualToAllError,
    "getattr invents": InventingError,
    "getattribute raises": SecretiveError,
    "class lies": LyingError,
    "class raises": ImpossibleError,
    "setattr raises": SealedError,
    "add_note raises": NotelessError,
    "notes are a number": OddNotesError,
    "dict raises": DictlessError,
    "dict is full": FullError,
    "traceback raises": TracelessError,
    "awaitable": AwaitableError,
    "class unhashable": UnhashableClassError,
    "class disowns": DisowningClassError,
    "class nameless": NamelessClassError,
}


def everything(failure: Any) -> bool:
    return True


ODD_PIPELINES: dict[str, tuple[int, Callable[[], Pipeline]]] = {
    "at rest": (3, lambda: Pipeline(Retry(wait=0, on=everything), CircuitBreaker(failures=9))),
    "full path": (
        3,
        lambda: Pipeline(
            Fallback(1, on=KeyError),
            Retry(wait=0, on=everything),
            CircuitBreaker(failures=9, on=everything),
            listeners=[nobody],
        ),
    ),
    "models": (
        4,
        lambda: Pipeline(
            ModelFallback("a", "b", on=everything),
            Retry(attempts=2, wait=0, on=everything),
            CircuitBreaker(key="model", on=everything),
        ),
    ),
    "nested": (
        6,
        lambda: Pipeline(
            Retry(attempts=2, wait=0, on=everything, retry_exhausted=True),
            Pipeline(Retry(wait=0, on=everything)),
        ),
    ),
    "timed": (3, lambda: Pipeline(Retry(wait=0, on=everything), Timeout(20))),
    "opening": (
        2,
        lambda: Pipeline(Retry(wait=0, on=everything), CircuitBreaker(failures=2, on=everything)),
    ),
    "no retry": (1, lambda: Pipeline(Retry(wait=0, on=KeyError), CircuitBreaker())),
    "no policies": (1, lambda: Pipeline()),
}


def raising(world: World, *errors: BaseException) -> Callable[..., Any]:
    """A function whose nth call raises the nth error: they are too odd to be looked at."""
    calls = iter(errors)

    def fn(*args: Any, **kwargs: Any) -> None:
        world.calls.append((args, kwargs))
        raise next(calls)

    async def afn(*args: Any, **kwargs: Any) -> None:
        fn()

    return afn if world.asynchronous else fn


@pytest.mark.fault(56, 57, 58, 59)
@pytest.mark.parametrize("shape", ODD_PIPELINES)
@pytest.mark.parametrize("odd", ODD)
def test_odd_exceptions_pass_unharmed(world: World, odd: str, shape: str) -> None:
    """Retried when `on=` says so; the very object comes out, and its history can be asked for."""
    calls, make = ODD_PIPELINES[shape]
    errors = [ODD[odd]() for _ in range(calls)]
    error = caught(world, make().wrap(raising(world, *errors)), "m")
    assert error is errors[-1], "another error came out"
    assert len(world.calls) == calls
    told = history(errors[-1])
    assert isinstance(told, tuple)
    assert all(attempt.failure is not None for attempt in told)


@pytest.mark.fault(59, 62)
@pytest.mark.parametrize("odd", ODD)
def test_one_odd_exception_again_and_again(world: World, odd: str) -> None:
    """The same odd object raised by every attempt passes like any other."""
    error = ODD[odd]()
    guarded = Pipeline(Retry(wait=0, on=everything)).wrap(raising(world, *[error] * 3))
    assert caught(world, guarded) is error, "another error came out"
    assert len(world.calls) == 3


@pytest.mark.fault(56, 57, 58, 59)
@pytest.mark.parametrize("odd", ODD)
def test_odd_exceptions_have_fallbacks_and_outcomes(world: World, odd: str) -> None:
    """A fallback stands for them, an outcome holds them, a block retries them."""
    kind = ODD[odd]
    resort = Pipeline(Fallback("else"), Retry(wait=0, on=everything))
    assert world.run(resort.wrap(raising(world, kind(), kind(), kind()))) == "else"
    error = kind()
    guarded: Any = Pipeline(Retry(attempts=1)).wrap(raising(world, error))
    outcomes: list[Any] = []

    async def main() -> None:
        outcomes.append(await handle(guarded).outcome())

    if world.asynchronous:
        world.run(main)
    else:
        outcomes.append(handle(guarded).outcome())
    assert outcomes[0].error is error, "another error is in the outcome"
    if not world.asynchronous:
        numbers = []
        for attempt in Pipeline(Retry(wait=0, on=everything)).attempts():
            with attempt:
                numbers.append(attempt.number)
                if attempt.number < 3:
                    raise kind()
        assert numbers == [1, 2, 3]


@pytest.mark.fault(56, 59)
@pytest.mark.parametrize("odd", ODD)
def test_on_an_odd_class(world: World, odd: str) -> None:
    """Naming the odd class itself, or one above it, in `on=` has it retried."""
    for named in (ODD[odd], ConnectionError):
        world.calls.clear()
        errors = [ODD[odd]() for _ in range(3)]
        error = caught(world, Pipeline(Retry(wait=0, on=named)).wrap(raising(world, *errors)))
        assert error is errors[-1], "another error came out"
        assert len(world.calls) == 3


@pytest.mark.fault(59)
@pytest.mark.real
@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
@pytest.mark.parametrize("odd", ODD)
def test_odd_exceptions_pass_a_real_time_limit(odd: str, way: str) -> None:
    """The scopes of the real runtimes neither ask them nor write to them."""
    errors = [ODD[odd](), ODD[odd]()]
    calls = iter(errors)
    found: list[BaseException] = []
    pipeline = Pipeline(Timeout(20), Retry(attempts=2, wait=0, on=everything), Timeout(10))

    def fn() -> None:
        raise next(calls)

    async def afn() -> None:
        raise next(calls)

    async def main() -> None:
        try:
            await pipeline.call(afn)
        except BaseException as error:
            found.append(error)

    if way == "sync":
        try:
            pipeline.call(fn)
        except BaseException as error:
            found.append(error)
    else:
        (in_asyncio if way == "asyncio" else trio.run)(main)
    assert found[0] is errors[1], "another error came out"
