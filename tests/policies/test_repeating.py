"""What may be repeated, and with what: waits, streams, arguments and calls with effects."""

from __future__ import annotations

import io
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import tenacity

from conftest import World
from resilience import BadResult, CircuitBreaker, ModelFallback, Pipeline, Retry
from resilience.waits import Decorrelated, Exponential, Fixed, FullJitter, Linear, RetryAfter
from support.calling import error_of
from support.errors import note_of


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    "wait",
    [
        *(Exponential(jitter=0), FullJitter(), Decorrelated(), Linear(), RetryAfter(), Fixed(1)),
        tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(2)),
        tenacity.wait_incrementing(1, 1, 5),
    ],
    ids=lambda wait: type(wait).__name__,
)
def test_a_wait_is_never_used_up(world: World, wait: Any) -> None:
    """One wait object serves call after call, and far beyond the end of its sequence."""
    guarded = Pipeline(Retry(attempts=200, wait=wait)).wrap(world.function(ConnectionError))
    for _ in range(2):
        assert type(error_of(world, guarded)) is ConnectionError
    waits = world.clock.sleeps
    assert len(waits) == 398
    assert all(0 <= seconds <= 1000 for seconds in waits)
    if not isinstance(wait, (FullJitter, Decorrelated, RetryAfter)):
        assert waits[:199] == waits[199:]


@pytest.mark.fault(26)
def test_an_iterator_is_no_wait() -> None:
    """What can be used up is refused."""
    with pytest.raises(TypeError, match="wait"):
        Retry(wait=iter([1, 2, 3]))


class Stream:
    """Two items, then the line is cut."""

    def __init__(self) -> None:
        self.items = iter("ab")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for item in self.items:
            return item
        raise ConnectionError("cut")


@pytest.mark.fault(86)
def test_a_stream_is_not_begun_again(world: World) -> None:
    """What fails while an open stream is read is the reader's; the call is not made again."""
    stream = Stream()
    breaker = CircuitBreaker(failures=1)
    got: Any = world.run(Pipeline(Retry(), breaker).wrap(world.function(stream)))
    assert got is stream
    with pytest.raises(ConnectionError, match="cut"):
        list(got)
    assert len(world.calls) == 1
    assert breaker.state == "closed"


class Cursor(Iterator[int]):
    """As of a database: it is executed, and then iterated."""

    def execute(self) -> None: ...

    def __next__(self) -> int:
        raise StopIteration


def generator() -> Iterator[int]:
    yield 1


def begun() -> Iterator[int]:
    items = generator()
    next(items)
    return items


def pipe() -> io.BufferedReader:
    read, write = os.pipe()
    os.close(write)
    return os.fdopen(read, "rb")


def read_file() -> io.BytesIO:
    file = io.BytesIO(b"body")
    file.read(1)
    return file


async def async_generator() -> AsyncIterator[int]:
    yield 1


def begun_async() -> AsyncIterator[int]:
    items = async_generator()
    with pytest.raises(StopIteration):
        items.__anext__().__await__().__next__()
    return items


def closed_file() -> io.BytesIO:
    file = io.BytesIO(b"body")
    file.close()
    return file


def spooled(read: bool) -> Any:
    """A temporary file, which is in memory as yet, and was written or was read too."""
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115  # the test closes it
    file.write(b"body")
    file.seek(0)
    if read:
        file.read()
    return file


def named(read: bool) -> Any:
    """One with a name, which is on disk."""
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115  # the test closes it
    file.write(b"body")
    file.seek(int(read))
    return file


class AsyncItems:
    """An iterator that is no generator."""

    async def __anext__(self) -> int:
        raise StopAsyncIteration


def close(body: Any) -> None:
    """What has to be closed."""
    getattr(body, "close", getattr(body, "cleanup", int))()


ONCE = [
    pytest.param(lambda: iter([1, 2]), id="iterator"),
    pytest.param(lambda: map(str, [1]), id="map"),
    pytest.param(begun, id="begun generator"),
    pytest.param(read_file, id="file that was read"),
    pytest.param(pipe, id="pipe"),
    pytest.param(lambda: {"body": [iter("ab")]}, id="iterator in a body"),
    pytest.param(begun_async, id="begun async generator"),
    pytest.param(closed_file, id="file that is closed"),
    pytest.param(lambda: spooled(read=True), id="temporary file that was read"),
    pytest.param(lambda: named(read=True), id="named temporary file that was read"),
    pytest.param(AsyncItems, id="async iterator"),
    pytest.param(lambda: [*range(99), iter("ab")], id="iterator among a hundred items"),
]
ANEW = [
    pytest.param(generator, id="generator that was not begun"),
    pytest.param(async_generator, id="async generator that was not begun"),
    pytest.param(lambda: io.BytesIO(b"body"), id="file at its beginning"),
    pytest.param(lambda: spooled(read=False), id="temporary file at its beginning"),
    pytest.param(lambda: named(read=False), id="named temporary file at its beginning"),
    pytest.param(tempfile.TemporaryDirectory, id="temporary folder"),
    pytest.param(lambda: [[[iter("ab")]]], id="iterator too deep to be looked for"),
    pytest.param(lambda: [*range(100), iter("ab")], id="iterator after a hundred items"),
    pytest.param(lambda: [1, 2], id="list"),
    pytest.param(itertools.count, id="endless iterator"),
    pytest.param(Cursor, id="cursor"),
]


@pytest.mark.fault(90)
@pytest.mark.parametrize("make", ONCE)
def test_what_can_be_read_only_once_is_not_sent_again(
    world: World, make: Callable[[], Any]
) -> None:
    """It would go out empty: the one attempt's error comes out, with a note; in a chain too."""
    for policies in ([Retry()], [ModelFallback("a", "b")], [ModelFallback("a", "b"), Retry()]):
        world.calls.clear()
        body, first = make(), ConnectionError()
        fn = Pipeline(*policies).wrap(world.function(first, "empty"))
        assert error_of(world, fn, body=body) is first
        assert len(world.calls) == 1
        assert "body" in note_of(first)
        close(body)


@pytest.mark.fault(90)
def test_the_note_says_which_argument_it_is(world: World) -> None:
    """By its place, from 1, or by its name."""
    fn = Pipeline(Retry()).wrap(world.function(ConnectionError))

    second = note_of(error_of(world, fn, "hi", iter("ab")))
    assert second.endswith("no retry: argument 2 can be read only once")
    named = note_of(error_of(world, fn, "hi", body=iter("ab")))
    assert named.endswith("no retry: argument 'body' can be read only once")


@pytest.mark.fault(90)
@pytest.mark.parametrize("make", ANEW)
def test_what_can_be_read_again_is_sent_again(world: World, make: Callable[[], Any]) -> None:
    """The very object, as the caller gave it."""
    body = make()
    assert world.run(Pipeline(Retry()).wrap(world.function(ConnectionError(), "ok")), body) == "ok"
    assert [args[0] is body for args, _ in world.calls] == [True, True]
    close(body)


@pytest.mark.fault(90)
def test_adjust_can_make_the_argument_anew(world: World) -> None:
    """Then it is sent again, and each attempt reads its own."""

    def read(body: Iterator[int]) -> list[int]:
        items = list(body)
        if len(world.calls) == 1:
            raise ConnectionError
        return items

    fresh = Retry(adjust=lambda attempt, args, kwargs: ((iter([1, 2]),), kwargs))
    assert world.run(Pipeline(fresh).wrap(world.function(read)), iter([1, 2])) == [1, 2]


@pytest.mark.fault(119)
@pytest.mark.parametrize(
    ("error", "calls"),
    [(ConnectionRefusedError(), 3), (ConnectionResetError(), 1), (TimeoutError(), 1)],
)
def test_what_must_not_be_repeated(world: World, error: Exception, calls: int) -> None:
    """Only failures where surely nothing was executed are retried."""
    guarded = Pipeline(Retry(idempotent=False)).wrap(world.function(error))
    assert error_of(world, guarded) is error
    assert len(world.calls) == calls


@pytest.mark.fault(119)
@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
def test_bookkeeping_never_undoes_a_success(world: World, listeners: Any) -> None:
    """Whatever a user's option does with the answer, the function is not run again."""

    def broken(*args: Any) -> bool:
        raise ConnectionError("of the option")

    pipeline = Pipeline(
        Retry(idempotent=False), CircuitBreaker(), BadResult(broken), listeners=listeners
    )
    assert world.run(pipeline.wrap(world.function("ok"))) == "ok"
    assert len(world.calls) == 1
