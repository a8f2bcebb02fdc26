"""Streams under guard, in every world: opened within the attempt, watched to their end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import pickle
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from conftest import Takes, World, async_worlds
from resilience import (
    CircuitBreaker,
    DeadlineExceededError,
    Fallback,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
    Streaming,
    StreamInterruptedError,
    Timeout,
    guarded,
    history,
    register_stream,
    resilient,
)
from resilience.events import StreamEnded, StreamInterrupted, StreamRestarted, recording
from resilience.failures import Kind, describe
from resilience.policies.streaming import Restarted
from resilience.testing import virtual_time
from support.calling import error_of, passing
from support.gates import Bulkhead
from support.streams import Source, consumed

ITEMS = ["a", "b", "c"]

# To the first content


def test_a_stream_is_whole(world: World) -> None:
    """What the source gives, in order, as a generator."""
    source = Source(world, ITEMS)
    got = consumed(world, Pipeline(Retry()).wrap(source.function))

    assert got.items == ITEMS
    assert got.error is None
    assert inspect.isgenerator(got.stream) or inspect.isasyncgen(got.stream)
    assert source.closed == 1


def test_a_failure_before_content_is_retried(world: World) -> None:
    """At the first read as at the call itself; before the first item that carries content."""
    source = Source(world, [ConnectionError()], ["", ConnectionError()], ["", *ITEMS])
    pipeline = Pipeline(Retry(), Streaming(first_content=len))
    got = consumed(world, pipeline.wrap(source.function))

    assert got.items == ["", *ITEMS]
    assert len(source.calls) == 3
    assert source.closed == 3


def test_a_failure_before_content_falls_back(world: World) -> None:
    """To the next model, and to a value."""
    source = Source(world, [ConnectionError("a")], ITEMS)
    got = consumed(world, Pipeline(ModelFallback("a", "b")).wrap(source.function))
    assert got.items == ITEMS
    assert [kwargs["model"] for _, kwargs in source.calls] == ["a", "b"]

    source = Source(world, [ConnectionError()])
    assert world.run(Pipeline(Fallback("else")).wrap(source.function)) == "else"


@pytest.mark.parametrize("error", [ConnectionError(), RuntimeError()])
def test_a_failure_before_content_is_the_sources_own(world: World, error: Exception) -> None:
    """It comes out itself."""
    got = consumed(world, Pipeline(Retry(attempts=1)).wrap(Source(world, [error]).function))

    assert got.error is error


def test_an_empty_stream_is_complete(world: World) -> None:
    """Where nothing says how a complete one ends."""
    got = consumed(world, Pipeline(Retry()).wrap(Source(world, []).function))

    assert (got.items, got.error) == ([], None)


# After it


def test_a_failure_after_content_is_an_interruption(world: World) -> None:
    """With what was received; nothing is repeated."""
    error = ConnectionError("secret")
    source = Source(world, ["a", "b", error])
    with recording(StreamInterrupted) as events:
        got = consumed(world, Pipeline(ModelFallback("x"), Retry()).wrap(source.function))

    assert [(event.model, event.items) for event in events] == [("x", 2)]
    assert got.items == ["a", "b"]
    assert type(got.error) is StreamInterruptedError
    assert got.error.__cause__ is error
    assert got.error.received == ("a", "b")
    assert got.error.text == "ab"
    assert len(source.calls) == 1
    assert source.closed == 1


def test_of_very_many_items_an_interruption_has_the_last(world: World) -> None:
    """A stream may go on for as long as the program runs."""
    source = Source(world, [*range(10_005), ConnectionError()])
    got = consumed(world, Pipeline(Retry()).wrap(source.function))

    assert type(got.error) is StreamInterruptedError
    assert got.error.received == tuple(range(5, 10_005))


def test_an_interruption_tells_no_content() -> None:
    """Neither in its text nor in its `repr`; its pickle has it."""
    error = StreamInterruptedError(("secret",), "secret")
    error.__cause__ = ConnectionError("secret")

    assert "secret" not in str(error) + repr(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.received, copy.text) == (("secret",), "secret")
    assert pickle.loads(pickle.dumps(StreamInterruptedError((print, lambda: 0)))).received == ()


def test_an_interruption_means_what_interrupted(world: World) -> None:
    """`describe` reads its cause; the request was executed."""
    source = Source(world, ["a", ConnectionResetError()])
    got = consumed(world, Pipeline(Retry()).wrap(source.function))
    assert got.error is not None

    failure = describe(got.error)  # type: ignore[arg-type]
    assert failure.kind is Kind.CONNECTION
    assert failure.sent is True
    assert describe(StreamInterruptedError()).kind is Kind.SERVER


def test_an_interruption_has_its_history(world: World) -> None:
    """The attempts before it, and the one that it has ended."""
    source = Source(world, [ConnectionError()], ["a", TimeoutError()])
    got = consumed(world, Pipeline(Retry()).wrap(source.function))

    kinds = [a.failure and a.failure.kind for a in history(got.error)]  # type: ignore[arg-type]
    assert kinds == [Kind.CONNECTION, Kind.TIMEOUT]


def chunks(*texts: str | None, reason: str | None = None) -> list[Any]:
    """Items of OpenAI's, each with its text, or without anything; the last one with a reason."""
    made = []
    for number, text in enumerate(texts, 1):
        delta = None if text is None else SimpleNamespace(content=text)
        last = reason if number == len(texts) else None
        choice = SimpleNamespace(index=0, delta=delta, finish_reason=last)
        made.append(ChatCompletionChunk.model_construct(choices=[choice]))  # type: ignore[list-item]
    return made


@pytest.mark.parametrize("reason", [None, "stop"])
def test_items_of_an_sdk_are_read_as_that_sdks(world: World, reason: str | None) -> None:
    """Also where a generator of the user's passes them on: their text, and how they end."""
    items = chunks("o", None, "k", reason=reason)
    got = consumed(world, Pipeline(Retry()).wrap(Source(world, items).function))

    assert got.items == items
    if reason is None:
        assert type(got.error) is StreamInterruptedError
        assert got.error.text == "ok"
    else:
        assert got.error is None


class EmptyStream:
    """As of an SDK that is known, whose connection was cut before anything came."""

    __module__ = "openai"

    def __iter__(self) -> Any:
        return iter(())

    async def __aiter__(self) -> Any:
        for item in ():
            yield item


def test_an_empty_stream_of_an_sdk_is_cut(world: World) -> None:
    """A complete one has its terminator at least."""
    got = consumed(
        world, Pipeline(Retry(attempts=1)).wrap(world.function(lambda *args: EmptyStream()))
    )
    assert type(got.error) is StreamInterruptedError


def test_every_further_read_says_the_same(world: World) -> None:
    """A stream that broke off never looks complete."""
    fn = Pipeline(Retry(), Streaming()).wrap(registered(world, ["a", ConnectionError()]))
    errors: list[Any] = []

    def read() -> None:
        stream = fn()
        for _ in range(4):
            try:
                next(stream)
            except StreamInterruptedError as error:
                errors.append(error)

    async def aread() -> None:
        stream = await fn()
        for _ in range(4):
            try:
                await stream.__anext__()
            except StreamInterruptedError as error:
                errors.append(error)

    world.run(aread if world.asynchronous else read)
    assert len(errors) == 3
    assert len({id(error) for error in errors}) == 1


def test_a_read_beyond_the_end_is_the_end_again(world: World) -> None:
    """It ends once."""
    fn = Pipeline(Retry()).wrap(registered(world, ["a"]))

    def read() -> None:
        stream = fn()
        assert [list(stream), list(stream)] == [["a"], []]

    async def aread() -> None:
        stream = await fn()
        assert [item async for item in stream] == ["a"]
        assert [item async for item in stream] == []

    with recording(StreamEnded) as events:
        world.run(aread if world.asynchronous else read)
    assert [event.items for event in events] == [1]


@async_worlds
@pytest.mark.fault(43)
def test_a_cancelled_read_stays_an_interruption(world: World) -> None:
    """A time limit of the consumer's own ends the read; the next one says that it is cut."""
    fn = Pipeline(Retry(), Streaming()).wrap(registered(world, ["a", Takes(9, "b"), "c"]))

    async def main() -> None:
        stream = await fn()
        assert await stream.__anext__() == "a"
        if world.name == "trio":
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.__anext__()
        else:
            task = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        with pytest.raises(StreamInterruptedError):
            await stream.__anext__()

    world.run(main)


# The verdict


def test_the_breaker_hears_at_the_end(world: World) -> None:
    """Of the interruption when it comes, of success only when the stream is complete."""
    breaker = CircuitBreaker(failures=1, reset_after=5)
    pipeline = Pipeline(Retry(attempts=1), breaker)
    assert consumed(world, pipeline.wrap(Source(world, ["a", ConnectionError()]).function)).error
    assert breaker.state == "open"

    world.clock.advance(5)
    states: list[str] = []

    def look(item: str) -> bool:
        states.append(breaker.state)
        return bool(item)

    watched = Pipeline(breaker, Streaming(first_content=look))
    consumed(world, watched.wrap(Source(world, ITEMS).function))
    assert states == ["half-open"] * 3
    assert breaker.state == "closed"


def test_the_verdict_is_what_interrupted(world: World) -> None:
    """The interruption itself where there is no other error."""
    bulkhead = Bulkhead(1)
    error = ConnectionError()
    consumed(world, Pipeline(bulkhead).wrap(Source(world, ["a", error]).function))
    cut = consumed(world, Pipeline(bulkhead).wrap(Source(world, chunks("hi")).function))

    assert type(cut.error) is StreamInterruptedError
    assert bulkhead.verdicts == [error, cut.error]


def test_a_consumer_that_stops_early_is_no_verdict(world: World) -> None:
    """Neither success nor failure: the trial's slot is free again, and the circuit half open."""
    breaker = CircuitBreaker(failures=1, reset_after=5)
    breaker.open()
    world.clock.advance(5)
    source = Source(world, ITEMS)
    got = consumed(world, Pipeline(breaker).wrap(source.function), most=2)

    assert got.items == ["a", "b"]
    assert source.closed == 1
    assert (breaker.state, breaker.snapshot().trials) == ("half-open", 0)


def test_a_read_that_is_interrupted_is_no_verdict(world: World) -> None:
    """As by Ctrl-C: the trial's slot is free again, and the circuit half open."""
    breaker = CircuitBreaker(failures=1, reset_after=5)
    breaker.open()
    world.clock.advance(5)
    source = Source(world, ["a", KeyboardInterrupt()])
    got = consumed(world, Pipeline(breaker).wrap(source.function))

    assert type(got.error) is KeyboardInterrupt
    assert (breaker.state, breaker.snapshot().trials) == ("half-open", 0)


@pytest.mark.filterwarnings("ignore:Async generator")  # trio's, of the source itself
@pytest.mark.parametrize("read", [0, 1])
def test_an_abandoned_stream_gives_its_permit_back(world: World, read: int) -> None:
    """When the last reference to it is dropped, whether it was read or not."""
    bulkhead = Bulkhead(1)
    source = Source(world, ITEMS)
    fn = Pipeline(bulkhead).wrap(source.function)

    async def main() -> None:
        stream = fn()
        stream = await stream if world.asynchronous else stream
        assert bulkhead.slots.free == 0
        for _ in range(read):
            await stream.__anext__() if world.asynchronous else next(stream)
        del stream
        gc.collect()
        if world.asynchronous:  # the loop closes what was dropped
            await world.clock.asleep(1)
        assert bulkhead.slots.free == 1

    if world.asynchronous:
        world.run(main)
    else:
        with contextlib.suppress(StopIteration):
            main().send(None)
    assert bulkhead.slots.free == 1


def test_the_outcome_is_up_to_the_first_content_and_the_streams_to_its_end(world: World) -> None:
    """`outcome()` returns with the stream; `stream.outcome` comes with its end."""
    fn = Pipeline(Retry()).wrap(registered(world, ["a", Takes(3, ConnectionError())]))

    async def main() -> None:
        outcome = guarded(fn).outcome()
        outcome = await outcome if world.asynchronous else outcome
        stream: Any = outcome.value
        assert outcome.error is None
        assert stream.outcome is None
        await stream.__anext__() if world.asynchronous else next(stream)
        with pytest.raises(StreamInterruptedError):
            await stream.__anext__() if world.asynchronous else next(stream)
        (attempt,) = stream.outcome.attempts
        assert attempt.failure.kind is Kind.CONNECTION
        assert attempt.duration == 3

    if world.asynchronous:
        world.run(main)
    else:
        with contextlib.suppress(StopIteration):
            main().send(None)


def test_an_outer_pipeline_hears_of_an_inner_ones_stream(world: World) -> None:
    """It is not opened twice, and both breakers hear of its end."""
    inner, outer = CircuitBreaker(failures=1), CircuitBreaker(failures=1)
    fn = Pipeline(inner).wrap(Source(world, ["a", ConnectionError()]).function)

    def call() -> Any:
        return fn()

    async def acall() -> Any:
        return await fn()

    got = consumed(world, Pipeline(outer).wrap(acall if world.asynchronous else call))
    assert got.items == ["a"]
    assert type(got.error) is StreamInterruptedError
    assert (inner.state, outer.state) == ("open", "open")


# Limits


@pytest.mark.fault(334)
@pytest.mark.parametrize(
    ("script", "options", "items", "seconds", "limit"),
    [
        ([Takes(5, "a")], {"first": 3}, [], 3, 3),
        (["", Takes(2, ""), Takes(2, "a")], {"first": 3}, [], 3, 3),
        (["a", Takes(5, "b")], {"idle": 3}, ["a"], 3, 3),
        (["a", Takes(2, ""), Takes(2, "b")], {"idle": 3}, ["a", ""], 3, 3),
        (["a", Takes(2, "b"), Takes(2, "c")], {"total": 3}, ["a", "b"], 3, 3),
        ([Takes(5, "a")], {"total": 3}, [], 3, 3),
    ],
)
def test_a_limit(
    world: World, script: list[Any], options: Any, items: list[str], seconds: float, limit: float
) -> None:
    """Before content it fails the attempt, after it the stream; what carries no content is no
    life."""
    began = world.clock.now()
    streaming = Streaming(first_content=len, **options)
    fn = Pipeline(Retry(attempts=1), streaming).wrap(Source(world, script).function)
    got = consumed(world, fn)

    assert got.items == items
    error = got.error.__cause__ if items else got.error  # type: ignore[union-attr]
    assert type(error) is DeadlineExceededError
    assert error.seconds == limit
    if world.asynchronous:  # a sync read cannot be cut by a clock of its own thread
        assert world.clock.now() - began == seconds


@pytest.mark.fault(334)
@pytest.mark.parametrize("options", [{"first": 3}, {"idle": 3}, {"total": 3}])
def test_a_limit_that_is_exceeded_by_an_end_or_an_error(world: World, options: Any) -> None:
    """Late is late, whatever comes."""
    first = [] if "first" in options else ["a"]
    for last in (Takes(5, ""), Takes(5, ConnectionError())):
        streaming = Streaming(first_content=len, complete=False, **options)
        source = Source(world, [*first, last])
        error = consumed(world, Pipeline(streaming).wrap(source.function)).error
        error = error.__cause__ if first else error  # type: ignore[union-attr]
        assert type(error) is DeadlineExceededError
        if not world.asynchronous:  # there the read goes on to its own end
            assert error.__cause__ is last.then or not last.then


@pytest.mark.parametrize("options", [{"first": 3}, {"first": 3, "idle": 9}, {"total": 3}])
def test_a_limit_holds_for_the_call_that_gives_the_stream(world: World, options: Any) -> None:
    """With its own arguments; what it raises late is the cause."""
    error = ConnectionError()
    fn = Pipeline(Streaming(**options)).wrap(world.function(Takes(5, error)))
    late = error_of(world, fn, 1, n=2)

    assert type(late) is DeadlineExceededError
    assert late.seconds == 3
    assert world.calls == [((1,), {"n": 2})]
    if not world.asynchronous:  # there the call goes on to its own end
        assert late.__cause__ is error


@async_worlds
@pytest.mark.parametrize("more", [{}, {"first": 3}])
def test_a_plain_function_may_give_the_stream(world: World, more: Any) -> None:
    """With `asynchronous=True`: nothing of it is awaited, whatever the limits."""
    stream = AsyncStream(Source(world, ITEMS)._async(ITEMS))
    fn = Pipeline(Streaming(**more), asynchronous=True).wrap(lambda: stream)

    assert consumed(world, fn).items == ITEMS


@pytest.mark.parametrize("options", [{"first": 3}, {"idle": 3}, {"total": 3}])
@pytest.mark.parametrize("own", [ConnectionError(), DeadlineExceededError(7)])
def test_what_the_call_raises_in_time_is_left_as_it_is(
    world: World, own: Exception, options: Any
) -> None:
    fn = Pipeline(Streaming(**options)).wrap(world.function(Takes(2, own)))

    assert error_of(world, fn) is own


def test_a_limit_that_is_exceeded_by_the_mere_end(world: World) -> None:
    """After a silence that was too long it is none: as of a connection that was cut for it."""

    def sync() -> Any:
        yield "a"
        world.clock.sleep(5)

    async def asynchronous() -> Any:
        yield "a"
        await world.clock.asleep(5)

    fn: Any = asynchronous if world.asynchronous else sync
    got = consumed(world, Pipeline(Streaming(idle=3, complete=False)).wrap(fn))
    assert got.items == ["a"]
    assert type(got.error) is StreamInterruptedError
    assert type(got.error.__cause__) is DeadlineExceededError


@pytest.mark.parametrize("options", [{"first": 3}, {"idle": 3}, {"total": 3}])
def test_an_error_in_time_is_left_as_it_is(world: World, options: Any) -> None:
    """Before content as after it."""
    error = ConnectionError()
    for script in ([error], ["a", error]):
        fn = Pipeline(Streaming(**options)).wrap(Source(world, script).function)
        got = consumed(world, fn)
        assert got.error is not None
        assert error in (got.error, got.error.__cause__)


@pytest.mark.parametrize("options", [{"first": 3}, {"idle": 3}, {"total": 3}])
def test_a_time_limit_of_the_sources_own_is_left_as_it_is(world: World, options: Any) -> None:
    """What it tells is its own time."""
    error = DeadlineExceededError(7)
    for script in ([error], ["a", error]):
        fn = Pipeline(Streaming(**options)).wrap(Source(world, script).function)
        got = consumed(world, fn)
        assert got.error is not None
        assert error in (got.error, got.error.__cause__)


def test_a_consumer_that_takes_all_the_time_gets_nothing_more(world: World) -> None:
    """The total is over at its very end."""
    fn = Pipeline(Streaming(total=3)).wrap(Source(world, ITEMS).function)
    items: list[str] = []

    def read() -> None:
        for item in fn():
            items.append(item)
            world.clock.sleep(3)

    async def aread() -> None:
        async for item in await fn():
            items.append(item)
            await world.clock.asleep(3)

    with pytest.raises(StreamInterruptedError) as caught:
        world.run(aread if world.asynchronous else read)
    assert items == ["a"]
    assert type(caught.value.__cause__) is DeadlineExceededError
    assert caught.value.__cause__.seconds == 3


def test_what_a_limited_stream_received_is_told(real_world: World) -> None:
    """Also in real time, where what is there is not waited for."""
    world = real_world
    fn = Pipeline(Streaming(idle=60)).wrap(Source(world, ["a", "b", ConnectionError()]).function)
    got = consumed(world, fn)

    assert type(got.error) is StreamInterruptedError
    assert got.error.received == ("a", "b")


@register_stream
class Told:
    """A stream of asyncio's whose second item comes when `go` is set."""

    def __init__(self) -> None:
        self.items = iter(ITEMS)
        self.go: Any = None
        self.cancelled = False

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> str:
        for item in self.items:
            if item == "b":
                self.go = asyncio.get_running_loop().create_future()
                try:
                    await self.go
                except asyncio.CancelledError:
                    self.cancelled = True
                    raise
            return item
        raise StopAsyncIteration


@pytest.mark.parametrize(("comes", "cancelled"), [(True, False), (False, True), (True, True)])
def test_a_read_that_waits_in_real_time(comes: bool, cancelled: bool) -> None:
    """It waits for what its stream waits for, which hears of a cancellation."""
    source = Told()

    async def ask() -> Told:
        return source

    async def main() -> None:
        stream: Any = await Pipeline(Streaming(idle=60)).call(ask)
        assert await stream.__anext__() == "a"
        read = asyncio.ensure_future(stream.__anext__())
        for _ in range(3):
            await asyncio.sleep(0)
        if comes:
            source.go.set_result(None)
        if cancelled:
            read.cancel()
            with pytest.raises(asyncio.CancelledError):
                await read
        else:
            assert [await read, *[item async for item in stream]] == ["b", "c"]

    asyncio.run(main())
    assert source.cancelled == cancelled


class Wire:
    """What a client reads of its connection."""

    def __init__(self, chunks: Any) -> None:
        self.chunks = chunks


class Body(Wire):
    def __iter__(self) -> Any:
        return self.chunks


class AsyncBody(Wire):
    def __aiter__(self) -> Any:
        return self.chunks


@register_stream
class Wired:
    """Shows its response; an empty chunk of that is a ping, and no item."""

    def __init__(self, chunks: Any) -> None:
        self.response = SimpleNamespace(stream=Body(chunks))

    def __iter__(self) -> Any:
        for chunk in self.response.stream:
            if chunk:
                yield chunk


@register_stream
class AsyncWired:
    def __init__(self, chunks: Any) -> None:
        self.response = SimpleNamespace(stream=AsyncBody(chunks))

    async def __aiter__(self) -> Any:
        async for chunk in self.response.stream:
            if chunk:
                yield chunk


def wired(world: World, *script: Any) -> Any:
    """A function whose stream shows the bytes that arrive."""
    fn = Source(world, [*script]).function

    def sync() -> Wired:
        return Wired(fn())

    async def asynchronous() -> AsyncWired:
        return AsyncWired(await fn())

    return asynchronous if world.asynchronous else sync


PINGS = ["a", Takes(2, ""), Takes(2, ""), Takes(2, "b")]


@pytest.mark.parametrize(
    ("alive", "script", "items"),
    [
        ("bytes", PINGS, ["a", "b"]),
        ("content", PINGS, ["a"]),
        ("bytes", ["a", Takes(2, ""), Takes(5, "b")], ["a"]),
    ],
)
def test_bytes_count_as_life_where_that_is_wanted(
    world: World, alive: str, script: list[Any], items: list[str]
) -> None:
    """Where the response can be seen: pings, too. Silence is none."""
    got = consumed(world, Pipeline(Streaming(idle=3, alive=alive)).wrap(wired(world, *script)))

    assert got.items == items
    if items == ["a"]:
        assert type(got.error) is StreamInterruptedError
        assert type(got.error.__cause__) is DeadlineExceededError
        assert got.error.__cause__.seconds == 3
    else:
        assert got.error is None


def test_a_silence_of_bytes_tells_its_own_limit(world: World) -> None:
    """Not the one for all of it."""
    streaming = Streaming(idle=3, total=60, alive="bytes")
    got = consumed(world, Pipeline(streaming).wrap(wired(world, "a", Takes(5, "b"))))

    cause = got.error.__cause__  # type: ignore[union-attr]
    assert type(cause) is DeadlineExceededError
    assert cause.seconds == 3


def test_idle_does_not_limit_the_bytes_before_the_first_content(world: World) -> None:
    """`first` does; `idle` is between contents, whatever counts as life."""
    streaming = Streaming(idle=3, alive="bytes")
    got = consumed(world, Pipeline(streaming).wrap(wired(world, Takes(5, ""), Takes(5, "a"))))

    assert (got.items, got.error) == (["a"], None)


def test_items_count_as_life_where_bytes_cannot_be_seen(world: World) -> None:
    """`alive="bytes"` goes by items of any kind then."""
    source = Source(world, ["a", Takes(2, ""), Takes(2, ""), "b"])
    alive = Streaming(idle=3, first_content=len, complete=False, alive="bytes")

    assert consumed(world, Pipeline(alive).wrap(source.function)).items == ["a", "", "", "b"]


def test_what_the_consumer_takes_is_not_the_streams(world: World) -> None:
    """Time between reads is no idleness."""
    fn = Pipeline(Streaming(idle=3)).wrap(Source(world, ITEMS).function)

    async def main() -> list[str]:
        items = []
        async for item in await fn():
            await world.clock.asleep(5)
            items.append(item)
        return items

    def read() -> list[str]:
        items = []
        for item in fn():
            world.clock.sleep(5)
            items.append(item)
        return items

    assert world.run(main if world.asynchronous else read) == ITEMS


def test_a_timeout_ends_at_the_first_content(world: World) -> None:
    """Both the attempt's and the total one: reading goes on."""
    fn = Pipeline(Timeout(4), Retry(), Timeout(3)).wrap(
        Source(world, [Takes(2, "a"), Takes(5, "b")]).function
    )
    assert consumed(world, fn).items == ["a", "b"]


def test_a_silent_first_model_leads_on(world: World) -> None:
    """`first` is a timeout like any other; `Model(first=)` is the model's own."""
    from resilience import Model

    source = Source(world, [Takes(9, "slow")], [Takes(9, "b")])
    chain = ModelFallback("a", Model("b", first=10))
    got = consumed(world, Pipeline(chain, Retry(), Streaming(first=3)).wrap(source.function))

    assert got.items == ["b"]
    assert [kwargs["model"] for _, kwargs in source.calls] == ["a", "b"]


@pytest.mark.fault(322)
def test_an_attribute_of_the_same_name_makes_no_stream(world: World) -> None:
    """A result may have anything in it."""
    sensor = SimpleNamespace(_reading=21.5)
    fn = Pipeline(Retry(attempts=1), Streaming(first=3)).wrap(world.function(sensor))
    assert world.run(fn) is sensor


# The whole


def test_a_whole_stream_is_retried_to_its_end(world: World) -> None:
    """Nothing is given out before it is complete."""
    source = Source(world, ["a", "b", ConnectionError()], ["x", "y"])
    got = consumed(world, Pipeline(Retry(), Streaming(deliver="whole")).wrap(source.function))

    assert got.items == ["x", "y"]
    assert len(source.calls) == 2


def test_a_model_of_its_own_terms_keeps_those_from_outside(world: World) -> None:
    """A `Streaming` outside the chain holds for its models, too."""
    from resilience import Model

    source = Source(world, ["a", ConnectionError()], ["x", "y"])
    chain = ModelFallback(Model("a", first=5, prefill=False), "b")
    got = consumed(world, Pipeline(Streaming(deliver="whole"), chain).wrap(source.function))

    assert got.items == ["x", "y"]


# Fresh attempts


def test_restart(world: World) -> None:
    """A fresh attempt from the beginning, and an item that says so."""
    error = ConnectionError()
    source = Source(world, ["a", "b", error], ["x", "y"])
    fn = Pipeline(Retry(), Streaming(on_interrupted="restart")).wrap(source.function)
    got = consumed(world, fn, 1, n=2)

    assert got.items[:2] + got.items[3:] == ["a", "b", "x", "y"]
    assert isinstance(got.items[2], Restarted)
    assert got.items[2].after == 2
    assert got.items[2].error.__cause__ is error
    assert source.calls == [((1,), {"n": 2})] * 2


def test_a_restart_leaves_the_model_of_the_call(world: World) -> None:
    """Also one that is none of the chain's, which comes last then."""
    source = Source(world, ["a", ConnectionError()], ["x"])
    fn = Pipeline(ModelFallback("m", "n"), Streaming(on_interrupted="restart")).wrap(
        source.function
    )
    consumed(world, fn, model="other")

    assert [kwargs["model"] for _, kwargs in source.calls] == ["other", "m"]


@async_worlds
def test_a_sync_stream_in_an_event_loop_is_not_restarted(world: World) -> None:
    """Its next read cannot wait for a fresh attempt."""
    calls: list[int] = []

    def items() -> Iterator[str]:
        yield "a"
        raise ConnectionError

    async def ask() -> Iterator[str]:
        calls.append(1)
        return items()

    async def main() -> None:
        stream = await Pipeline(Streaming(on_interrupted="restart")).call(ask)
        assert next(stream) == "a"
        with pytest.raises(StreamInterruptedError):
            next(stream)

    with recording(StreamRestarted) as events:
        world.run(main)
    assert (len(calls), events) == (1, [])


def test_a_stream_whose_close_fails_is_restarted(world: World) -> None:
    """What has broken off is closed, and not asked how that went."""
    kind = AsyncFailing if world.asynchronous else Failing
    streams = [kind("a", ConnectionError()), kind("b")]
    streaming = Streaming(on_interrupted="restart")
    got = consumed(world, Pipeline(streaming).wrap(world.function(lambda *args: streams.pop(0))))
    assert (got.items, got.error) == (["a", "b"], None)


def test_a_stream_that_is_closed_while_it_is_read_is_not_restarted(world: World) -> None:
    """Its consumer wants no more of it."""
    given: list[Any] = []

    class Reset(Closed):
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            if not self.script:
                given[0].close()
            return self.take(ConnectionError)

    class AsyncReset(Closed):
        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            if not self.script:
                await given[0].close()
            return self.take(ConnectionError)

    def read() -> None:
        given.append(fn())
        assert next(given[0]) == "a"
        next(given[0])

    async def aread() -> None:
        given.append(await fn())
        assert await given[0].__anext__() == "a"
        await given[0].__anext__()

    kind = register_stream(AsyncReset if world.asynchronous else Reset)
    streaming = Streaming(on_interrupted="restart")
    fn = Pipeline(streaming).wrap(world.function(lambda *args: kind("a")))
    with pytest.raises(StreamInterruptedError):
        world.run(aread if world.asynchronous else read)
    assert len(world.calls) == 1


def test_restarts_end(world: World) -> None:
    """Three at most; then the interruption comes out."""
    source = Source(world, ["a", ConnectionError()])
    fn = Pipeline(Retry(), Streaming(on_interrupted="restart")).wrap(source.function)
    got = consumed(world, fn)

    assert [item for item in got.items if item == "a"] == ["a"] * 4
    assert type(got.error) is StreamInterruptedError
    assert len(source.calls) == 4


def test_a_restart_that_fails(world: World) -> None:
    """The interruption comes out, with what had been read."""
    source = Source(world, ["a", ConnectionError()], [ValueError("no")])
    got = consumed(world, Pipeline(Streaming(on_interrupted="restart")).wrap(source.function))

    assert got.items == ["a"]
    assert type(got.error) is StreamInterruptedError
    assert type(got.error.__cause__) is ConnectionError
    assert len(source.calls) == 2


def test_a_stream_object_says_where_it_was_restarted(world: World) -> None:
    """Its items are the SDK's own only."""
    fn = Pipeline(Streaming(on_interrupted="restart")).wrap(
        registered(world, ["a", "b", ConnectionError()], ["x"])
    )
    with recording(StreamRestarted) as events:
        got = consumed(world, fn)

    assert got.items == ["a", "b", "x"]
    assert got.stream.restarts == (2,)
    assert [event.items for event in events] == [2]


def test_a_restarted_stream_object_has_the_fresh_ones_attributes(world: World) -> None:
    """As the SDK has noted them of what it has read. Closed, it is at its end."""
    fn = Pipeline(Streaming(on_interrupted="restart")).wrap(
        registered(world, ["a", ConnectionError()], ["x", "y"])
    )

    def read() -> None:
        stream = fn()
        usage = stream.usage
        assert [next(stream), next(stream)] == ["a", "x"]
        assert stream.usage == usage + 1
        stream.close()
        assert list(stream) == []

    async def aread() -> None:
        stream = await fn()
        usage = stream.usage
        assert [await stream.__anext__() for _ in range(2)] == ["a", "x"]
        assert stream.usage == usage + 1
        await stream.close()
        assert [item async for item in stream] == []

    world.run(aread if world.asynchronous else read)


def test_an_answer_is_continued(world: World) -> None:
    """A function gives the arguments that do so."""
    source = Source(world, ["a", "b", ConnectionError()], ["c"])

    def more(error: StreamInterruptedError, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "prefix": error.text}

    fn = Pipeline(Streaming(on_interrupted=more)).wrap(source.function)
    got = consumed(world, fn, 1)

    assert [item for item in got.items if isinstance(item, str)] == ["a", "b", "c"]
    assert source.calls == [((1,), {}), ((1,), {"prefix": "ab"})]


@pytest.mark.parametrize(
    ("more", "logged"),
    [
        (lambda error, args, kwargs: None, []),
        (lambda *args: 1 / 0, ["Streaming(on_interrupted=) raised ZeroDivisionError"]),
    ],
)
def test_a_function_may_give_up(world: World, more: Any, logged: list[str], caplog: Any) -> None:
    """With None, or by raising, which is logged: the interruption comes out."""
    source = Source(world, ["a", ConnectionError()])
    got = consumed(world, Pipeline(Streaming(on_interrupted=more)).wrap(source.function))

    assert type(got.error) is StreamInterruptedError
    assert len(source.calls) == 1
    assert [text for text in caplog.messages if "stream cut" not in text] == logged


@pytest.mark.parametrize(
    ("names", "asked"), [(["b"], ["a", "b"]), (["a"], ["a", "b"]), ([], ["a", "a"])]
)
def test_a_model_that_refuses_continuations(
    world: World, names: list[str], asked: list[str]
) -> None:
    """Its answer is restarted where it broke off itself; it is left out where another one did."""
    scripts = [["1", ConnectionError()], ["2"]]
    source = Source(world, *scripts)

    def more(error: StreamInterruptedError, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "prefix": error.text, "model": "b" if names == ["b"] else "a"}

    chain = ModelFallback(*(Model(name, prefill=name not in names) for name in "ab"))
    consumed(world, Pipeline(chain, Streaming(on_interrupted=more)).wrap(source.function))

    continued = ["prefix" in kwargs for _, kwargs in source.calls]
    if names == ["b"]:
        assert [kwargs["model"] for _, kwargs in source.calls] == ["a", "a"]
    else:
        assert [kwargs["model"] for _, kwargs in source.calls] == asked
    assert continued == [False, names != ["a"]]


@pytest.mark.fault(332)
def test_a_restart_begins_with_another_model(world: World) -> None:
    """The one that has just broken off comes last, and its own arguments stay its own."""
    source = Source(world, ["1", ConnectionError()], ["2", ConnectionError()], ["3"])
    chain = ModelFallback(Model("a", size=1), Model("b", size=2), "c")
    fn = Pipeline(chain, Streaming(on_interrupted="restart")).wrap(source.function)
    consumed(world, fn, text="hi")

    assert source.calls == [
        ((), {"text": "hi", "model": "a", "size": 1}),
        ((), {"text": "hi", "model": "b", "size": 2}),
        ((), {"text": "hi", "model": "c"}),
    ]


@pytest.mark.fault(332)
def test_a_restart_of_the_only_model(world: World) -> None:
    """It is that again."""
    source = Source(world, ["1", ConnectionError()], ["2"])
    fn = Pipeline(ModelFallback("a"), Streaming(on_interrupted="restart")).wrap(source.function)
    assert [item for item in consumed(world, fn).items if isinstance(item, str)] == ["1", "2"]


@pytest.mark.fault(332)
def test_another_models_restart_is_degraded(world: World) -> None:
    """As its answer would be."""
    chain = ModelFallback("a", "b")
    fn = Pipeline(chain, Streaming(on_interrupted="restart")).wrap(
        registered(world, ["1", ConnectionError()], ["2"])
    )
    outcome = consumed(world, fn).stream.outcome
    assert (outcome.served_by, outcome.degraded) == ("b", True)


def test_what_is_closed_after_a_restart_is_the_fresh_stream(world: World) -> None:
    """It is the one that is read; its outcome is the whole's."""
    source = Source(world, ["a", ConnectionError()], ["x", "y", "z"])
    bulkhead = Bulkhead(1)
    streaming = Streaming(on_interrupted="restart")
    got = consumed(world, Pipeline(bulkhead, streaming).wrap(source.function), most=3)

    assert [item for item in got.items if isinstance(item, str)] == ["a", "x"]
    assert source.closed == 2
    assert bulkhead.slots.free == 1


def test_the_outcome_of_a_restarted_stream_is_the_fresh_ones(world: World) -> None:
    """What broke off is not how it ended."""
    fn = Pipeline(Retry(), Streaming(on_interrupted="restart")).wrap(
        registered(world, ["a", ConnectionError()], ["x"])
    )
    got = consumed(world, fn)

    assert got.stream.outcome.error is None


@async_worlds
@pytest.mark.parametrize("fresh", [["a", Takes(3, "b")], [Takes(3, "a")]], ids=str)
def test_the_total_holds_over_restarts(world: World, fresh: list[Any]) -> None:
    """However many fresh attempts there are, before their first content as after it."""
    began = world.clock.now()
    source = Source(world, ["a", Takes(3, ConnectionError())], fresh)
    fn = Pipeline(Streaming(total=5, on_interrupted="restart")).wrap(source.function)
    got = consumed(world, fn)

    assert type(got.error) is StreamInterruptedError
    assert world.clock.now() - began == 5
    assert len(source.calls) == 2


def test_the_total_holds_for_what_is_there_already(real_world: World) -> None:
    """A consumer that takes its time is interrupted at its next read."""
    world = real_world
    fn = Pipeline(Streaming(total=1e-9)).wrap(Source(world, ITEMS).function)
    got = consumed(world, fn)

    assert got.items == []
    assert type(got.error) is DeadlineExceededError

    fn = Pipeline(Streaming(total=60)).wrap(Source(world, ITEMS).function)
    assert consumed(world, fn).items == ITEMS


def test_what_is_thrown_or_sent_arrives_in_the_fresh_generator(
    world: World,
) -> None:
    """That is the one that is read."""
    made: list[int] = []

    @resilient(Streaming(on_interrupted="restart"))
    def sync() -> Any:
        made.append(1)
        yield "a"
        if len(made) == 1:
            raise ConnectionError
        try:
            yield "b"
        except KeyError:
            yield (yield "caught")

    @resilient(Streaming(on_interrupted="restart"))
    async def asynchronous() -> Any:
        made.append(1)
        yield "a"
        if len(made) == 1:
            raise ConnectionError
        try:
            yield "b"
        except KeyError:
            yield (yield "caught")

    def play() -> None:
        stream = sync()
        assert [str(next(stream))[:1] for _ in range(4)] == ["a", "R", "a", "b"]
        assert stream.throw(KeyError()) == "caught"
        assert stream.send("sent") == "sent"

    async def aplay() -> None:
        stream = asynchronous()
        items = [str(await stream.__anext__())[:1] for _ in range(4)]
        assert items == ["a", "R", "a", "b"]
        assert await stream.athrow(KeyError()) == "caught"
        assert await stream.asend("sent") == "sent"
        await stream.aclose()

    world.run(aplay if world.asynchronous else play)


def test_a_block_has_no_stream() -> None:
    """Said at once."""
    with pytest.raises(TypeError, match="Streaming"):
        iter(Pipeline(Streaming(first=3)).attempts())


@async_worlds
def test_a_restart_may_not_bring_a_stream(world: World) -> None:
    """A fallback's value is none: the interruption comes out."""
    source = Source(world, ["a", ConnectionError()], [ConnectionError()])
    pipeline = Pipeline(Fallback("else"), Streaming(on_interrupted="restart"))
    got = consumed(world, pipeline.wrap(source.function))

    assert type(got.error) is StreamInterruptedError


def test_limits_of_two_policies_hold_together(world: World) -> None:
    """The smaller one of each counts; what only one of them says holds, too."""
    source = Source(world, ["a", Takes(2, "b"), Takes(2, "c"), Takes(2, "d")])
    pipeline = Pipeline(Streaming(total=5), Pipeline(Streaming(idle=3)))
    got = consumed(world, pipeline.wrap(source.function))

    assert got.items == ["a", "b", "c"]
    assert type(got.error) is StreamInterruptedError
    assert type(got.error.__cause__) is DeadlineExceededError
    assert got.error.__cause__.seconds == 5


@pytest.mark.parametrize("swapped", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("other", [{}, {"first": 60}, {"idle": 60}, {"total": 60}], ids=str)
@pytest.mark.parametrize(
    ("options", "script"),
    [
        ({"first": 3}, [Takes(5, "a")]),
        ({"total": 3}, [Takes(5, "a")]),
        ({"idle": 3}, ["a", Takes(5, "b")]),
        ({"total": 3}, ["a", Takes(2, "b"), Takes(2, "c")]),
    ],
    ids=str,
)
def test_a_limit_holds_beside_those_of_another_policy(
    world: World, options: Any, script: list[Any], other: Any, swapped: bool
) -> None:
    """Wherever each of them stands, and it is the one that is told."""
    began = world.clock.now()
    policies = [Streaming(**options), Pipeline(Streaming(**other))]
    pipeline = Pipeline(*(policies[::-1] if swapped else policies))
    got = consumed(world, pipeline.wrap(Source(world, script).function))

    assert got.items == ([] if len(script) == 1 else ["a", "b"][: len(script) - 1])
    error = got.error.__cause__ if got.items else got.error  # type: ignore[union-attr]
    assert type(error) is DeadlineExceededError
    assert error.seconds == 3
    if world.asynchronous:
        assert world.clock.now() - began == 3


@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_the_first_content_is_due_over_all_the_attempts_inside(world: World) -> None:
    """A `Streaming` outside of `Retry` counts from its own beginning."""
    source = Source(world, [Takes(2, ConnectionError())], [Takes(2, "a")])
    pipeline = Pipeline(Streaming(first=3), Retry(attempts=2, wait=0), Pipeline(Streaming(first=9)))
    got = consumed(world, pipeline.wrap(source.function))

    assert type(got.error) is DeadlineExceededError
    assert len(source.calls) == 2


@pytest.mark.parametrize("outside", [True, False])
def test_what_a_streaming_asks_for_holds_beside_another(world: World, outside: bool) -> None:
    """Of two, it is enough that one of them restarts a stream, holds it back, or counts all that
    comes as life."""

    def items(streaming: Streaming, *scripts: Any) -> list[str]:
        policies = [streaming, Pipeline(Streaming(first_content=len))]
        policies = policies if outside else policies[::-1]
        return consumed(world, Pipeline(*policies).wrap(Source(world, *scripts).function)).items

    cut = ["a", ConnectionError()]
    assert items(Streaming(on_interrupted="restart"), cut, ITEMS)[-3:] == ITEMS
    assert items(Streaming(deliver="whole"), cut) == []
    pings = ["a", Takes(2, ""), Takes(2, ""), "b"]
    assert items(Streaming(idle=3, alive="bytes"), pings) == ["a", "", "", "b"]


@pytest.mark.parametrize(
    ("options", "lenient"),
    [
        ([{}], False),
        ([{"complete": False}], True),
        ([{"complete": False}, {}], True),
        ([{}, {"complete": False}], True),
    ],
)
def test_an_end_without_a_finish_reason(world: World, options: list[Any], lenient: bool) -> None:
    """It is an interruption, unless one of the policies takes it for an end."""
    chunk = ChatCompletionChunk.construct(choices=[])
    streamings = [Pipeline(Streaming(**each)) for each in options]
    got = consumed(world, Pipeline(*streamings).wrap(Source(world, [chunk]).function))

    assert (got.error is None) is lenient


def test_a_function_of_items_that_raises_is_logged(world: World, caplog: Any) -> None:
    """What is known of the item counts then."""
    source = Source(world, ITEMS)
    odd = Pipeline(Streaming(first_content=lambda item: 1 / 0))
    got = consumed(world, odd.wrap(source.function))
    assert set(caplog.messages) == {"Streaming(first_content=) raised ZeroDivisionError"}
    assert (got.items, got.error) == (ITEMS, None)


def test_items_may_compare_as_they_like(world: World) -> None:
    """An array's comparison is no truth value."""

    class Array:
        def __eq__(self, other: object) -> Any:
            raise ValueError("ambiguous")

        __hash__ = None  # type: ignore[assignment]

    items = [Array(), Array()]
    got = consumed(world, Pipeline(Retry()).wrap(Source(world, items).function))
    assert [item is given for item, given in zip(got.items, items, strict=True)] == [True, True]


def test_a_value_in_place_of_a_generator_is_its_only_item(world: World) -> None:
    """As a fallback gives one."""

    @resilient(Fallback("sorry"))
    def sync() -> Any:
        raise ConnectionError
        yield

    @resilient(Fallback("sorry"))
    async def asynchronous() -> Any:
        raise ConnectionError
        yield

    fn: Any = asynchronous if world.asynchronous else sync
    assert consumed(world, fn).items == ["sorry"]


@register_stream
class Tasks:
    """Gives a task for each item, as some classes do."""

    def __init__(self) -> None:
        self.items = iter(ITEMS)

    def __aiter__(self) -> Any:
        return self

    def __anext__(self) -> Any:
        async def one() -> str:
            for item in self.items:
                return item
            raise StopAsyncIteration

        return asyncio.ensure_future(one())


async def tasks() -> Tasks:
    return Tasks()


def test_a_read_may_be_any_awaitable() -> None:
    """In virtual time, and in real time, where what is there already needs no timer."""
    for time in (virtual_time, contextlib.nullcontext):
        with time() as clock:
            world = World("asyncio", clock)
            assert consumed(world, Pipeline(Streaming(idle=3)).wrap(tasks)).items == ITEMS


# Generator functions


def test_a_generator_function_stays_one(world: World) -> None:
    """Nothing runs before the first read; then failures are retried up to the first content."""
    made: list[int] = []

    @resilient(Retry())
    def sync(n: int) -> Iterator[int]:
        made.append(n)
        if len(made) < 3:
            raise ConnectionError
        yield from range(1, n)

    @resilient(Retry())
    async def asynchronous(n: int) -> Any:
        made.append(n)
        if len(made) < 3:
            raise ConnectionError
        for each in range(1, n):
            yield each

    fn: Any = asynchronous if world.asynchronous else sync
    check = inspect.isasyncgenfunction if world.asynchronous else inspect.isgeneratorfunction
    assert check(fn)
    stream = fn(4)
    assert made == []
    assert consumed(world, lambda: stream).items == [1, 2, 3]
    assert made == [4, 4, 4]


def test_a_generators_value_is_returned() -> None:
    """`yield from` gives what the generator returns."""

    @resilient(Retry())
    def numbers() -> Any:
        yield 1
        return "done"

    def outer() -> Any:
        found = yield from numbers()
        yield found

    assert list(outer()) == [1, "done"]


def test_an_async_generator_of_a_plain_function(world: World) -> None:
    """Some SDKs return one without an await: it is opened by its first read."""
    if not world.asynchronous:
        return
    source = Source(world, [ConnectionError()], ITEMS)

    def plain(*args: Any, **kwargs: Any) -> Any:
        return source._async(source._next(args, kwargs))

    stream = Pipeline(Retry()).wrap(plain)(1, text="Hi")
    assert inspect.isasyncgen(stream)
    assert consumed(world, lambda: stream).items == ITEMS
    assert source.calls == [((1,), {"text": "Hi"})] * 2


def test_items_of_a_generator_are_content_whatever_they_are(world: World) -> None:
    """A bare `yield` gives its turn to the consumer."""
    log: list[str] = []

    @contextlib.contextmanager
    @resilient(Retry())
    def session() -> Any:
        log.append("open")
        yield
        log.append("close")

    @contextlib.asynccontextmanager
    @resilient(Retry())
    async def asession() -> Any:
        log.append("open")
        yield
        log.append("close")

    async def main() -> None:
        async with asession():
            log.append("body")

    if world.asynchronous:
        world.run(main)
    else:
        with session():
            log.append("body")
    assert log == ["open", "body", "close"]


@pytest.mark.parametrize("policies", [(Retry(),), (Retry(), Streaming(idle=60))])
def test_what_is_sent_and_thrown_arrives(world: World, policies: Any) -> None:
    """In the generator; what it makes of it comes out."""
    log: list[Any] = []

    @resilient(*policies)
    def sync() -> Any:
        try:
            log.append((yield 1))
            yield 2
        except KeyError as error:
            log.append(error)
            yield 3
        raise ValueError

    @resilient(*policies)
    async def asynchronous() -> Any:
        try:
            log.append((yield 1))
            yield 2
        except KeyError as error:
            log.append(error)
            yield 3
        raise ValueError

    error = KeyError()

    def play() -> None:
        stream = sync()
        assert [next(stream), stream.send("x"), stream.throw(error)] == [1, 2, 3]
        with pytest.raises(KeyError):
            stream.throw(KeyError())

    async def aplay() -> None:
        stream = asynchronous()
        items = [await stream.__anext__(), await stream.asend("x"), await stream.athrow(error)]
        assert items == [1, 2, 3]
        with pytest.raises(KeyError):
            await stream.athrow(KeyError())

    world.run(aplay if world.asynchronous else play)
    assert log == ["x", error]


def test_what_comes_of_an_error_that_is_thrown_was_received(world: World) -> None:
    """Like any other item."""

    @resilient(Retry())
    def sync() -> Any:
        try:
            yield "a"
        except KeyError:
            yield "b"
        raise ConnectionError

    @resilient(Retry())
    async def asynchronous() -> Any:
        try:
            yield "a"
        except KeyError:
            yield "b"
        raise ConnectionError

    def play() -> None:
        stream = sync()
        assert [next(stream), stream.throw(KeyError())] == ["a", "b"]
        next(stream)

    async def aplay() -> None:
        stream = asynchronous()
        assert [await stream.__anext__(), await stream.athrow(KeyError())] == ["a", "b"]
        await stream.__anext__()

    with pytest.raises(StreamInterruptedError) as caught:
        world.run(aplay if world.asynchronous else play)
    assert caught.value.received == ("a", "b")


def test_control_flow_passes_a_stream(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after content: it comes out itself, and is no verdict."""
    from resilience._core import control_flow as known
    from resilience.failures import control_flow

    monkeypatch.setattr(known, "_added", set())
    monkeypatch.setattr(known, "answers", {})

    @control_flow
    class Signal(Exception): ...

    breaker = CircuitBreaker(failures=1, reset_after=5)
    breaker.open()
    world.clock.advance(5)
    error = Signal()
    kind = Async if world.asynchronous else Sync
    fn = Pipeline(breaker).wrap(world.function(lambda *args: kind("a", error, "b")))
    got = consumed(world, fn)
    assert got.error is error
    assert (breaker.state, breaker.snapshot().trials) == ("half-open", 0)
    again = consumed(world, lambda: got.stream)
    assert (again.items, again.error) == ([], None)


def test_an_interruption_is_not_wrapped_again(world: World) -> None:
    """However many guarded generators it passes."""
    error = ConnectionError()
    fn = Source(world, ["a", error]).function
    for _ in range(3):
        fn = Pipeline(Retry()).wrap(passing(world, fn))

    def outer() -> Any:
        yield from fn()

    async def aouter() -> Any:
        async for item in await fn():
            yield item

    got = consumed(world, Pipeline(Retry()).wrap(aouter if world.asynchronous else outer))
    assert got.error is not None
    assert got.error.__cause__ is error


def test_the_outcome_of_an_async_generator_function(world: World) -> None:
    """It has the stream, opened."""
    if not world.asynchronous:
        return

    @resilient(Retry())
    async def numbers() -> Any:
        yield 1
        yield 2

    async def main() -> list[int]:
        outcome: Any = await guarded(numbers).outcome()
        return [item async for item in outcome.unwrap()]

    assert world.run(main) == [1, 2]


# One's own classes


class Stream:
    """As of an SDK that nobody knows."""

    def __init__(self, source: Any, usage: int = 7) -> None:
        self.source = source
        self.usage = usage

    def __iter__(self) -> Any:
        return self.source

    def close(self) -> None:
        self.source.close()


class AsyncStream:
    def __init__(self, source: Any, usage: int = 7) -> None:
        self.source = source
        self.usage = usage

    def __aiter__(self) -> Any:
        return self.source

    async def aclose(self) -> None:
        await self.source.aclose()


register_stream(Stream)
register_stream(AsyncStream)


@async_worlds
def test_two_items_are_asked_for_before_either_is_awaited(world: World) -> None:
    """Each is the next one at the time at which it is awaited."""

    async def numbers() -> Any:
        for number in range(3):
            yield number

    @resilient(Retry())
    async def opened() -> AsyncStream:
        return AsyncStream(numbers())

    async def main() -> list[int]:
        stream: Any = await opened()
        first, second = stream.__anext__(), stream.__anext__()
        return [await first, await second, *[item async for item in stream]]

    assert world.run(main) == [0, 1, 2]


def registered(world: World, *scripts: list[Any]) -> Any:
    """A function whose streams are objects of a registered class; `usage` counts them."""
    source = Source(world, *scripts)
    fn = source.function

    def sync(*args: Any, **kwargs: Any) -> Any:
        return Stream(fn(*args, **kwargs), len(source.calls))

    async def asynchronous(*args: Any, **kwargs: Any) -> Any:
        return AsyncStream(await fn(*args, **kwargs), len(source.calls))

    return asynchronous if world.asynchronous else sync


def test_a_registered_class_is_guarded_and_kept(world: World) -> None:
    """The object is of its class, with its attributes, and reads under guard."""
    fn = Pipeline(Retry()).wrap(registered(world, [ConnectionError()], ITEMS))
    got = consumed(world, fn)

    assert got.items == ITEMS
    assert isinstance(got.stream, AsyncStream if world.asynchronous else Stream)
    assert type(got.stream).__name__ == ("AsyncStream" if world.asynchronous else "Stream")
    assert got.stream.usage == 2


@async_worlds
def test_a_stream_may_be_entered(world: World) -> None:
    """`async with` closes it, as the SDKs have it."""
    source = Source(world, ITEMS)

    async def ask() -> AsyncStream:
        return AsyncStream(await source.function())

    async def main() -> list[str]:
        async with await Pipeline(Retry()).call(ask) as stream:
            return [await stream.__anext__()]

    assert world.run(main) == ["a"]
    assert source.closed == 1


class Closed:
    """A stream of items and errors; what is to be closed of it is up to its subclasses."""

    def __init__(self, *script: Any) -> None:
        self.script = [*script]

    def take(self, end: type[Exception]) -> Any:
        step = self.script.pop(0) if self.script else end()
        if isinstance(step, Exception):
            raise step
        return step


class Sync(Closed):
    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.take(StopIteration)


class Async(Closed):
    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        return self.take(StopAsyncIteration)


class Failing(Sync):
    def close(self) -> None:
        raise OSError("close")


class AsyncFailing(Async):
    """Whose `close` is no coroutine function."""

    def close(self) -> None:
        raise OSError("close")


class AsyncClosing(Async):
    def close(self) -> None:
        self.script = ["closed"]


for each in (Sync, Async, Failing, AsyncFailing, AsyncClosing):
    register_stream(each)


def test_a_stream_that_cannot_be_closed(world: World) -> None:
    """Whoever stops early gives its permit back all the same."""
    bulkhead = Bulkhead(1)
    kind = Async if world.asynchronous else Sync
    fn = Pipeline(bulkhead).wrap(world.function(lambda *args: kind("a", "b")))
    got = consumed(world, fn, most=1)

    assert (got.items, got.error) == (["a"], None)
    assert bulkhead.slots.free == 1


@pytest.mark.parametrize("own", [True, False])
def test_what_is_closed_of_a_stream(own: bool) -> None:
    """The stream; the iterator that reads it where a stream itself cannot be closed."""
    closed: list[str] = []

    def items() -> Any:
        try:
            yield "a"
            raise ConnectionError
        finally:
            closed.append("iterator")

    class Iterated:
        def __iter__(self) -> Any:
            return items()

    class Owning(Iterated):
        def close(self) -> None:
            closed.append("stream")

    kind: Any = register_stream(Owning if own else Iterated)
    stream = Pipeline(Retry()).call(kind)
    assert next(stream) == "a"
    stream.close()
    assert closed == ["stream" if own else "iterator"]


def test_a_stream_that_fails_before_content_is_closed(world: World) -> None:
    """The attempt's own: nobody else has it."""
    closed: list[str] = []

    class Broken(Closed):
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            return self.take(StopIteration)

        def close(self) -> None:
            closed.append("closed")

    class AsyncBroken(Closed):
        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            return self.take(StopAsyncIteration)

        async def aclose(self) -> None:
            closed.append("closed")

    kind = register_stream(AsyncBroken if world.asynchronous else Broken)
    fn = Pipeline(Retry(attempts=2)).wrap(world.function(lambda *args: kind(ConnectionError())))
    assert type(consumed(world, fn).error) is ConnectionError
    assert closed == ["closed"] * 2


@async_worlds
def test_an_async_stream_may_have_a_sync_close(world: World) -> None:
    """It is called, and nothing of it is awaited."""
    stream = AsyncClosing("a", "b")
    got = consumed(world, Pipeline(Retry()).wrap(world.function(lambda *args: stream)), most=1)

    assert got.error is None or got.items == ["a"]
    assert stream.script == ["closed"]


def test_a_close_that_fails(world: World) -> None:
    """It is the consumer's own to hear of; an attempt that has failed goes by its failure."""
    kind = AsyncFailing if world.asynchronous else Failing
    streams = [kind(ConnectionError()), kind("a", "b")]
    fn = Pipeline(Retry(wait=0)).wrap(world.function(lambda *args: streams.pop(0)))
    got = consumed(world, fn, most=1)

    assert got.items == ["a"]
    assert type(got.error) is OSError
    assert streams == []


def test_what_a_user_says_of_a_class() -> None:
    """Which items carry content, and which one makes it complete."""

    @register_stream
    class Own(Stream): ...

    register_stream(Own, content=lambda item: item == "c", complete=lambda item: item == "end")
    scripts = [["x", ConnectionError()], ["x", "c"], ["x", "c", "end"]]
    retrying = Pipeline(Retry(wait=0))
    fn = retrying.wrap(lambda: Own(iter(scripts.pop(0)) if len(scripts) < 3 else gen()))

    def gen() -> Any:
        scripts.pop(0)
        yield "x"
        raise ConnectionError

    with pytest.raises(StreamInterruptedError):
        list(fn())
    assert list(retrying.call(lambda: Own(iter(scripts[0])))) == ["x", "c", "end"]


@pytest.mark.parametrize(
    ("args", "options", "word"),
    [
        ((3,), {}, "class"),
        ((int,), {}, "iterated"),
        ((type("Slotted", (), {"__slots__": (), "__iter__": iter}),), {}, "__slots__"),
        ((Stream,), {"content": 3}, "content"),
        ((Stream,), {"complete": "x"}, "complete"),
    ],
)
def test_what_is_no_stream_class(args: Any, options: Any, word: str) -> None:
    """A clear error."""
    with pytest.raises(TypeError, match=word):
        register_stream(*args, **options)


# Whatever happens

_STEPS = st.lists(st.sampled_from(["item", "empty", "fails"]), max_size=5)


@given(scripts=st.lists(_STEPS, min_size=1, max_size=4), whole=st.booleans(), restart=st.booleans())
@pytest.mark.parametrize("loop", ["sync", "asyncio", "trio"])
def test_no_stream_is_given_out_twice_in_part(
    loop: str, scripts: list[list[str]], whole: bool, restart: bool
) -> None:
    """What a consumer got is a prefix of one single attempt; with restarts, they say where."""
    with virtual_time() as clock:
        world = World(loop, clock)
        real: list[list[Any]] = [
            [
                ConnectionError() if step == "fails" else (f"{n}.{m}" if step == "item" else "")
                for m, step in enumerate(script)
            ]
            for n, script in enumerate(scripts)
        ]
        source = Source(world, *real)
        streaming = Streaming(
            deliver="whole" if whole else "live",
            on_interrupted="restart" if restart else None,
            first_content=len,
        )
        pipeline = Pipeline(Retry(attempts=2, wait=0), streaming)
        got = consumed(world, pipeline.wrap(source.function))

    pieces: list[list[Any]] = [[]]
    for item in got.items:
        pieces.append([]) if isinstance(item, Restarted) else pieces[-1].append(item)
    assert len(pieces) == 1 or restart
    for piece in pieces:
        full = [[x for x in script if isinstance(x, str)] for script in real]
        assert any(script[: len(piece)] == piece for script in full)
    if got.error is None and not any(isinstance(x, Exception) for x in real[-1]):
        assert pieces[-1] in [[x for x in s if isinstance(x, str)] for s in real]


@pytest.mark.parametrize(
    ("options", "kind", "word"),
    [
        ({"first": 0}, ValueError, "first"),
        ({"idle": -1}, ValueError, "idle"),
        ({"total": "3"}, TypeError, "total"),
        ({"deliver": "half"}, ValueError, "deliver"),
        ({"alive": "pings"}, ValueError, "alive"),
        ({"complete": 1}, TypeError, "complete"),
        ({"on_interrupted": "retry"}, ValueError, "on_interrupted"),
        ({"on_interrupted": 3}, TypeError, "on_interrupted"),
        ({"first_content": 3}, TypeError, "first_content"),
    ],
)
def test_bad_options(options: Any, kind: type[Exception], word: str) -> None:
    """Named at construction."""
    with pytest.raises(kind, match=word):
        Streaming(**options)
