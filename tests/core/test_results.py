"""What came back from a function: known by its type, awaited, refused, or a result as it is."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import types
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from openai import omit
from openai.lib.streaming.chat import AsyncChatCompletionStreamManager

from resilience import CircuitBreaker, Fallback, Pipeline, Retry
from resilience._core import results
from resilience._core.completion import Completion, PendingResult
from resilience._core.results import (
    PLAIN,
    Unguardable,
    completion_of,
    is_awaitable,
    is_plain,
    reading_of,
)
from support.calling import rest_and_full


class Promise:
    """An awaitable of no known kind."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __await__(self) -> Any:
        yield from ()
        return self.number


def test_awaitables_are_known_by_their_type() -> None:
    """Anything with `__await__`, and coroutines of the old kind; plain generators are not."""

    @types.coroutine
    def old() -> Any:
        yield

    def plain() -> Any:
        yield

    for _ in range(2):
        assert is_awaitable(Promise(1))
        assert is_awaitable(old())
        assert not is_awaitable(plain())
        assert not is_awaitable(SimpleNamespace())


def test_a_plain_results_type_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many of them and no more; the answer for another one is worked out each time."""

    class First: ...

    class Second: ...

    monkeypatch.setattr(results, "_BOUND", len(PLAIN) + 1)
    for _ in range(2):
        assert is_plain(First())
        assert is_plain(Second())
    assert First in PLAIN
    assert Second not in PLAIN


def test_a_pending_result_is_not_plain() -> None:
    """Nor is an awaitable ever taken for a plain type."""

    class Stream(PendingResult):
        def __init__(self) -> None:
            self.completion = Completion()

    stream = Stream()
    assert not is_plain(stream)
    assert not is_awaitable(stream)
    assert completion_of(stream) is stream.completion
    assert completion_of(7) is None
    is_plain(Promise(1))
    assert not {Stream, Promise} & PLAIN


def test_types_beyond_a_bound_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked at each time, so that classes made on the fly can be collected."""
    monkeypatch.setattr(results, "_BOUND", 0)
    pipeline = Pipeline(Retry())

    def plain() -> Any:
        return type("Fleeting", (), {})()

    def promise() -> Any:
        return type("Fleeting", (Promise,), {})(5)

    async def main() -> Any:
        return await pipeline.call(promise)

    fleeting = weakref.ref(type(pipeline.call(plain)))
    assert asyncio.run(main()) == 5
    gc.collect()
    assert fleeting() is None
    assert not any(kind.__name__ == "Fleeting" for kind in results.PLAIN)


# What is refused


def _generator() -> Any:
    yield 1


async def _async_generator() -> Any:
    yield 1


@pytest.mark.fault(85)
@pytest.mark.parametrize(
    "shape",
    [
        contextlib.contextmanager(_generator),
        contextlib.asynccontextmanager(_async_generator),
    ],
)
@rest_and_full
def test_what_cannot_be_guarded_yet_is_refused(shape: Any, listeners: Any) -> None:
    """A body that runs only when entered is refused loudly, never passed through unguarded."""
    with pytest.raises(TypeError, match="guarded"):
        Pipeline(Retry(), listeners=listeners).call(shape)


def test_a_refused_result_leaves_no_request_unawaited() -> None:
    """Of a result that passes nothing is touched."""

    async def request() -> None: ...

    class Stream:
        def __init__(self) -> None:
            self.request = request()
            self.other = SimpleNamespace(close=lambda: pytest.fail("closed"))

    stream = Stream()
    assert is_plain(stream)
    assert stream.request.cr_frame is not None
    stream.request.close()
    with pytest.raises(Unguardable, match="a context manager"):
        is_plain(contextlib.contextmanager(_generator)())
    assert not is_plain(_generator())


def test_the_request_of_a_manager_that_nobody_enters_is_closed() -> None:
    """What an async stream manager has not sent would be warned of as unawaited."""

    async def request() -> Any: ...

    unsent = request()
    manager: Any = AsyncChatCompletionStreamManager(unsent, response_format=omit, input_tools=omit)
    guarded = Pipeline(Retry()).wrap(lambda: manager)()
    assert isinstance(guarded, AsyncChatCompletionStreamManager)
    del guarded
    gc.collect()
    assert unsent.cr_frame is None


@pytest.mark.parametrize("policies", [[Retry()], [Retry(), CircuitBreaker()]])
def test_an_awaited_generator_is_a_stream(policies: Any) -> None:
    """What an awaitable gives is looked at like any result."""

    async def stream() -> Any:
        return _generator()

    async def main(fn: Any) -> Any:
        return await Pipeline(*policies).wrap(fn)()

    for fn in (stream, lambda: stream(), lambda: asyncio.ensure_future(stream())):
        given = asyncio.run(main(fn))
        assert reading_of(given) is not None
        assert list(given) == [1]


@rest_and_full
def test_a_result_that_cannot_be_guarded_is_the_programs_mistake(listeners: Any) -> None:
    """No policy handles it: it comes out of a Fallback too, after one attempt."""
    made: list[None] = []

    def lazy() -> Any:
        made.append(None)
        return contextlib.contextmanager(_generator)()

    pipeline = Pipeline(Fallback("else"), Retry(), listeners=listeners)
    with pytest.raises(TypeError, match="context manager"):
        pipeline.call(lazy)
    assert len(made) == 1
