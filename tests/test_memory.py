"""Nothing is kept: no objects, threads, descriptors, frames or tracebacks; odd errors pass."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from conftest import World, put_aside
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    WorkersBusyError,
    history,
)

pytestmark = pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")

# Flat


def answer(*args: Any, model: str = "m") -> int:
    return 1


async def aanswer(*args: Any, model: str = "m") -> int:
    return 1


def fail(*args: Any, model: str = "m") -> None:
    raise ConnectionError


async def afail(*args: Any, model: str = "m") -> None:
    raise ConnectionError


def nobody(event: object) -> None:
    """A listener: keeps a pipeline from rest."""


def isolated() -> CircuitBreaker:
    breaker = CircuitBreaker()
    breaker.isolate()
    return breaker


def both(fn: Callable[..., Any]) -> Callable[..., Any]:
    return aanswer if fn is answer else afail


def descriptors() -> int:
    listing = Path("/proc/self/fd")
    return len(os.listdir(listing)) if listing.exists() else 0


def objects() -> int:
    """Live objects; what one collection frees may leave more to the next."""
    while gc.collect():
        pass
    return len(gc.get_objects())


def open_circuits(*policies: Any) -> tuple[Any, ...]:
    return (*policies, CircuitBreaker(failures=10**9))


SOAKS: dict[str, tuple[int, Callable[..., Any], Callable[[], Pipeline]]] = {
    "healthy at rest": (100_000, answer, lambda: Pipeline(*open_circuits(Fallback(1), Retry()))),
    "healthy chain at rest": (
        20_000,
        answer,
        lambda: Pipeline(ModelFallback("a", "b"), Retry(), CircuitBreaker(key="model")),
    ),
    "healthy, full path": (
        20_000,
        answer,
        lambda: Pipeline(*open_circuits(Fallback(1), Retry()), listeners=[nobody]),
    ),
    "failing": (
        10_000,
        fail,
        lambda: Pipeline(*open_circuits(Retry(attempts=2, wait=0))),
    ),
    "failing, all the way to the fallback": (
        4_000,
        fail,
        lambda: Pipeline(
            Fallback(1),
            ModelFallback("a", "b"),
            Retry(attempts=2, wait=0),
            CircuitBreaker(key="model", failures=3, reset_after=1e-5),
        ),
    ),
    "refused": (10_000, answer, lambda: Pipeline(Retry(), isolated())),
    "timed": (5_000, answer, lambda: Pipeline(*open_circuits(Retry()), Timeout(20))),
}


def one_after_the_other(pipeline: Pipeline, fn: Callable[..., Any]) -> Callable[[int], None]:
    """So many sync calls, each with its error dropped."""
    guarded = pipeline.wrap(fn)

    def calls(number: int) -> None:
        for _ in range(number):
            try:
                guarded(1)
            except (ConnectionError, CircuitOpenError):
                pass

    return calls


def awaited(
    pipeline: Pipeline, fn: Callable[..., Any], run: Callable[..., Any]
) -> Callable[[int], None]:
    """The same in one event loop."""
    guarded = pipeline.wrap(fn)

    async def calls(number: int) -> None:
        for _ in range(number):
            try:
                await guarded(1)
            except (ConnectionError, CircuitOpenError):
                pass

    return lambda number: run(calls, number)


def in_asyncio(fn: Callable[..., Any], *args: Any) -> None:
    asyncio.run(fn(*args))


@pytest.mark.real
@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
@pytest.mark.parametrize("name", SOAKS)
def test_fault_118_many_calls_leave_nothing_behind(name: str, way: str) -> None:
    """Live objects, threads, descriptors and allocated memory are as before."""
    number, fn, make = SOAKS[name]
    if way == "sync":
        calls = one_after_the_other(make(), fn)
    else:
        number = min(number, 50_000) // 4
        calls = awaited(make(), both(fn), in_asyncio if way == "asyncio" else trio.run)
    calls(300)
    put_aside()  # what other tests have left may go any time, with a thread or a cache
    before = objects(), threading.active_count(), descriptors()
    calls(number)
    after = objects(), threading.active_count(), descriptors()
    assert abs(after[0] - before[0]) <= 200
    assert (
        after[1] <= before[1] + 1
    )  # a worker that was about to park may have a second at its side
    assert after[2] <= before[2]

    tracemalloc.start()
    try:
        calls(50)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        calls(500)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - held < 50_000
    finally:
        tracemalloc.stop()


@pytest.mark.real
def test_fault_118_many_late_calls_leave_nothing_behind() -> None:
    """Sync calls that time out: when their functions have ended, all is as before."""
    late = Pipeline(Timeout(0.0005)).wrap(lambda: time.sleep(0.001))

    def calls(number: int) -> None:
        for _ in range(number):
            try:
                late()
            except (DeadlineExceededError, WorkersBusyError):
                pass
        time.sleep(0.05)

    calls(100)
    put_aside()
    before = objects(), descriptors()
    calls(600)
    assert objects() - before[0] <= 200
    assert descriptors() <= before[1]


# Cycles


class Big:
    """A local that is expensive to keep."""


@pytest.fixture
def _no_collector() -> Iterator[None]:
    put_aside()
    gc.disable()
    yield
    gc.enable()


class Kept:
    """Makes functions with a big local, and tells how many of those are still alive."""

    def __init__(self) -> None:
        self.seen: list[weakref.ref[Big]] = []

    def alive(self) -> int:
        return sum(ref() is not None for ref in self.seen)

    def failing(self, *args: Any, model: str = "m") -> None:
        big = Big()
        self.seen.append(weakref.ref(big))
        raise ConnectionError

    async def afailing(self, *args: Any, model: str = "m") -> None:
        big = Big()
        self.seen.append(weakref.ref(big))
        raise ConnectionError

    async def hanging(self, *args: Any, model: str = "m") -> None:
        big = Big()
        self.seen.append(weakref.ref(big))
        await asyncio.sleep(30)


def shapes() -> dict[str, Pipeline]:
    retry = Retry(attempts=3, wait=0)
    return {
        "alone": Pipeline(),
        "full path": Pipeline(retry, CircuitBreaker(failures=99), listeners=[nobody]),
        "retried": Pipeline(retry, CircuitBreaker(failures=99)),
        "fallback used": Pipeline(Fallback("else"), retry, CircuitBreaker(failures=99)),
        "fallback function used": Pipeline(Fallback(call=lambda failure, *args: "else"), retry),
        "fallback passed over": Pipeline(Fallback("else", on=KeyError), retry),
        "model chain used": Pipeline(ModelFallback("a", "b"), retry, CircuitBreaker(key="model")),
        "opening and refusing": Pipeline(Retry(attempts=9, wait=0), CircuitBreaker(failures=2)),
        "nested": Pipeline(Pipeline(Pipeline(retry)), CircuitBreaker(failures=99)),
        "timed": Pipeline(retry, CircuitBreaker(failures=99), Timeout(20)),
        "predicate raises": Pipeline(Retry(on=lambda failure: 1 / 0), CircuitBreaker(failures=99)),
    }


@pytest.mark.real
@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("shape", shapes())
@pytest.mark.parametrize("way", ["call", "outcome"])
def test_fault_064_no_sync_call_makes_a_cycle(shape: str, way: str) -> None:
    """What the failing function had is freed with the error, without the collector."""
    pipeline, kept = shapes()[shape], Kept()
    for _ in range(3):
        if way == "outcome":
            pipeline.outcome(kept.failing)
        else:
            try:
                pipeline.call(kept.failing)
            except (ConnectionError, CircuitOpenError) as error:
                history(error)
    pipeline_circuits_close(pipeline)
    finish = time.monotonic() + 2
    while kept.alive() and time.monotonic() < finish and shape == "timed":
        time.sleep(0.001)  # the worker lets go of its job when it is done with it
    assert kept.alive() == 0
    assert len(kept.seen) >= 2


@pytest.mark.real
@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("shape", [*shapes(), "timed out"])
@pytest.mark.parametrize("way", ["call", "outcome"])
@pytest.mark.parametrize("run", [in_asyncio, trio.run], ids=["asyncio", "trio"])
def test_fault_064_no_async_call_makes_a_cycle(shape: str, way: str, run: Any) -> None:
    """The same in an event loop, cancelled calls included."""
    kept = Kept()
    if shape == "timed out":
        pipeline = Pipeline(Retry(attempts=2, wait=0), CircuitBreaker(), Timeout(0.002))
        fn: Any = kept.hanging if run is in_asyncio else kept.afailing
    else:
        pipeline, fn = shapes()[shape], kept.afailing

    async def main() -> None:
        for _ in range(3):
            if way == "outcome":
                await pipeline.outcome(fn)
            else:
                try:
                    await pipeline.call(fn)
                except (ConnectionError, CircuitOpenError, DeadlineExceededError) as error:
                    history(error)
        pipeline_circuits_close(pipeline)
        if shape == "timed out" and run is in_asyncio:
            await asyncio.sleep(0)  # asyncio itself keeps what it has cancelled for a moment
        alive.append(kept.alive())

    alive: list[int] = []
    run(main)
    assert alive == [0]
    assert len(kept.seen) >= 2


def pipeline_circuits_close(pipeline: Pipeline) -> None:
    """An open circuit keeps the failure that opened it: that is no cycle."""
    for policy in pipeline.flat:
        if isinstance(policy, CircuitBreaker):
            for circuit in list(policy._circuits.values()):
                circuit.close()


@pytest.mark.usefixtures("_no_collector")
def test_fault_063_a_circuit_keeps_its_failure_only_while_it_is_open(world: World) -> None:
    """It is the `__cause__` of every refusal, one object however many there are; then it goes."""
    seen: list[weakref.ref[Big]] = []

    def failing() -> None:
        big = Big()
        seen.append(weakref.ref(big))
        raise ConnectionError

    breaker = CircuitBreaker(failures=1)
    guarded = Pipeline(breaker).wrap(world.function(failing))
    for _ in range(2):
        try:
            world.run(guarded)
        except (ConnectionError, CircuitOpenError):
            pass
    assert breaker.state == "open"
    assert len(seen) == 1
    breaker.close()
    if world.asynchronous:
        gc.collect()  # an event loop that has ended may leave cycles of its own
    assert [ref() for ref in seen] == [None]


# One exception object, again and again


def length_of_traceback(error: BaseException) -> int:
    length, trace = 0, error.__traceback__
    while trace is not None:
        length, trace = length + 1, trace.tb_next
    return length


@pytest.mark.parametrize("listeners", [(), (nobody,)], ids=["rest", "full"])
def test_fault_062_ten_thousand_attempts_at_one_exception(world: World, listeners: Any) -> None:
    """Its traceback stays short, it gets one note and no chain onto itself."""
    world.debug = False  # asyncio's would note the stack at each of a quarter of a million turns
    same = ConnectionError("one for all")
    policies = Retry(attempts=10_000, wait=0), CircuitBreaker(failures=10**6)
    guarded = Pipeline(*policies, listeners=listeners).wrap(world.function(same))
    begun = time.perf_counter()
    assert caught(world, guarded) is same
    assert len(world.calls) == 10_000
    assert length_of_traceback(same) < 60
    assert same.__context__ is same.__cause__ is None
    assert len(same.__notes__) == 1
    assert time.perf_counter() - begun < 15


def test_fault_062_one_exception_over_many_calls_has_one_note(world: World) -> None:
    """The note is replaced, and neither history nor marks pile up."""
    same = ConnectionError("one for all")
    guarded = Pipeline(Retry(attempts=2, wait=0), CircuitBreaker(failures=10**6)).wrap(
        world.function(same)
    )
    for _ in range(30):
        assert caught(world, guarded) is same
    assert len(same.__notes__) == 1
    assert len(history(same)) == 2
    assert same.__context__ is same.__cause__ is None


# Odd exceptions


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
            Retry(attempts=2, wait=0, on=everything, again=True),
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


def caught(world: World, fn: Callable[..., Any], *args: Any) -> BaseException:
    """The error that comes out of a call; pytest.raises and asyncio.run would print it."""
    found: list[BaseException] = []

    def call() -> None:
        try:
            fn(*args)
        except BaseException as error:
            found.append(error)

    async def acall() -> None:
        try:
            await fn(*args)
        except BaseException as error:
            found.append(error)

    world.run(acall if world.asynchronous else call)
    return found[0]


@pytest.mark.parametrize("shape", ODD_PIPELINES)
@pytest.mark.parametrize("odd", ODD)
def test_fault_056_057_058_059_odd_exceptions_pass_unharmed(
    world: World, odd: str, shape: str
) -> None:
    """Retried when `on=` says so; the very object comes out, and its history can be asked for."""
    calls, make = ODD_PIPELINES[shape]
    errors = [ODD[odd]() for _ in range(calls)]
    error = caught(world, make().wrap(raising(world, *errors)), "m")
    assert error is errors[-1], "another error came out"
    assert len(world.calls) == calls
    told = history(errors[-1])
    assert isinstance(told, tuple)
    assert all(attempt.failure is not None for attempt in told)


@pytest.mark.parametrize("odd", ODD)
def test_fault_059_062_one_odd_exception_again_and_again(world: World, odd: str) -> None:
    """The same odd object raised by every attempt passes like any other."""
    error = ODD[odd]()
    guarded = Pipeline(Retry(wait=0, on=everything)).wrap(raising(world, *[error] * 3))
    assert caught(world, guarded) is error, "another error came out"
    assert len(world.calls) == 3


@pytest.mark.parametrize("odd", ODD)
def test_fault_056_057_058_059_odd_exceptions_have_fallbacks_and_outcomes(
    world: World, odd: str
) -> None:
    """A fallback stands for them, an outcome holds them, a block retries them."""
    kind = ODD[odd]
    resort = Pipeline(Fallback("else"), Retry(wait=0, on=everything))
    assert world.run(resort.wrap(raising(world, kind(), kind(), kind()))) == "else"
    error = kind()
    guarded: Any = Pipeline(Retry(attempts=1)).wrap(raising(world, error))
    outcomes: list[Any] = []

    async def main() -> None:
        outcomes.append(await guarded.outcome())

    if world.asynchronous:
        world.run(main)
    else:
        outcomes.append(guarded.outcome())
    assert outcomes[0].error is error, "another error is in the outcome"
    if not world.asynchronous:
        numbers = []
        for attempt in Pipeline(Retry(wait=0, on=everything)).attempts():
            with attempt:
                numbers.append(attempt.number)
                if attempt.number < 3:
                    raise kind()
        assert numbers == [1, 2, 3]


@pytest.mark.parametrize("odd", ODD)
def test_fault_056_059_on_an_odd_class(world: World, odd: str) -> None:
    """Naming the odd class itself, or one above it, in `on=` has it retried."""
    for named in (ODD[odd], ConnectionError):
        world.calls.clear()
        errors = [ODD[odd]() for _ in range(3)]
        error = caught(world, Pipeline(Retry(wait=0, on=named)).wrap(raising(world, *errors)))
        assert error is errors[-1], "another error came out"
        assert len(world.calls) == 3


@pytest.mark.real
@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
@pytest.mark.parametrize("odd", ODD)
def test_fault_059_odd_exceptions_pass_a_real_time_limit(odd: str, way: str) -> None:
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
