"""Streams under guard: opened up to their first content within the attempt, watched to their end.

What the consumer gets is an object of the SDK's own class, or a generator for a generator. It
reads by a `Reading`, which knows how far the stream is, and settles the attempt's completion: at
the end, at an interruption, or when it is abandoned.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from functools import lru_cache, partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, NoReturn
from weakref import ref

from attrs import define, evolve, frozen

from resilience.errors import DeadlineExceededError, StreamInterruptedError
from resilience.events import (
    Event,
    StreamEnded,
    StreamInterrupted,
    StreamRestarted,
    StreamStarted,
)
from resilience.sdks.streams import (
    Format,
    Seen,
    bound_helpers,
    format_of,
    server_error,
    watch_bytes,
    watch_for_terminator,
)
from resilience.sdks.tokens import tokens_of_stream

from .call import Call, attempt_of
from .completion import Completion, PendingResult
from .control_flow import control_flow_in
from .entering import stepping
from .results import PLAIN, completion_of, generators, is_raw_stream, reading_of
from .runtime import Runtime
from .signals import NO_VERDICT

__all__ = [
    "KEPT",
    "PLAIN_TERMS",
    "Reading",
    "Restarted",
    "Terms",
    "open_async",
    "open_sync",
]

KEPT = 10_000
"""The most items kept for `StreamInterruptedError.received`: the last ones."""

_LEAST = 0.001
"""Seconds for a read that has begun, so that it is cancelled and not dropped."""

RESTARTS = 3
"""Fresh attempts that one stream is continued with at most."""


@define(eq=False)
class Terms:
    """On what terms one attempt's stream is read; see `Streaming`."""

    first: float | None = None
    begins_by: float | None = None
    """When the time for the first content is over, by the runtime's clock."""
    idle: float | None = None
    end: float | None = None
    """When the time for all of it is over, by the runtime's clock,"""
    total: float = 0.0
    """that is, after so many seconds."""
    complete: bool = True
    whole: bool = False
    content: Callable[[Any], object] | None = None
    alive_by_bytes: bool = False
    """Whether whatever the server sends counts for `idle`."""
    resume: Any = None
    """What gives the arguments of a fresh attempt after an interruption; `RESTART` for the same."""
    watch: Any = None
    """What watches this attempt's reads in a sync call."""

    def limited(self, fn: Callable[..., Any], call: Call, runtime: Runtime) -> Callable[..., Any]:
        """`fn`, which gives the stream, within the time for the first content."""
        watch, first = self.watch, self.first
        if watch is not None:

            def watched(*args: Any, **kwargs: Any) -> Any:
                try:
                    result = fn(*args, **kwargs)
                except Exception as error:
                    watch.stop()
                    if watch.fired is None or isinstance(error, DeadlineExceededError):
                        raise
                    raise DeadlineExceededError(watch.fired) from error
                except BaseException:
                    watch.stop()
                    raise
                if type(result) in PLAIN or not (
                    is_raw_stream(result) or completion_of(result) is not None
                ):
                    watch.stop()  # it is no stream
                return result

            return watched
        if first is None or not runtime.asynchronous:
            return fn

        async def bounded(*args: Any, **kwargs: Any) -> Any:
            async def made(call: Call) -> Any:
                result = fn(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result

            return await runtime.within(first, made, call)

        return bounded


PLAIN_TERMS = Terms()
RESTART = "restart"
_GENERATORS = (GeneratorType, AsyncGeneratorType)


@frozen
class Restarted:
    """An item of a generator's stream that says: what follows is from a fresh attempt.

    `after` is how many items had been given out before; `error` is what had interrupted them.
    """

    after: int
    error: Exception


class Reading:
    """One stream, from its first item to its end.

    For one consumer at a time, in any thread or task. Only what the consumer holds refers to this:
    when that is dropped, the stream is abandoned.
    """

    __slots__ = (
        "__weakref__",
        "_all_count",
        "_closed",
        "_content",
        "_format",
        "_has_content",
        "_item",
        "_judges_items",
        "_limited",
        "_look",
        "_number",
        "_over",
        "_pull",
        "_received",
        "_seen",
        "_source",
        "_stream",
        "_terms",
        "_waited",
        "call",
        "completion",
        "error",
        "opened",
        "outcome",
        "ready",
        "restarts",
        "runtime",
        "successor",
        "watch",
    )

    def __init__(
        self, call: Call, runtime: Runtime, stream: Any, *, asynchronous: bool = False
    ) -> None:
        # Long, but only a list of what a stream has to remember.
        terms: Terms = call.terms or PLAIN_TERMS
        self._over = True  # until it is whole
        self.completion = Completion()
        self.call, self.runtime = call, runtime
        self.outcome: Any = None
        """The whole call's, once the stream has ended."""
        self.ready: deque[Any] = deque()
        """Items that have been read and not yet been given out."""
        self.opened = False
        """Whether the consumer has it: what goes wrong now is an interruption."""
        self.restarts: tuple[int, ...] = ()
        """After how many items a fresh attempt began."""
        self.successor: Any = None
        """The guarded stream of the latest fresh attempt."""
        self._number, self._waited = 0, 0.0
        self._all_count = False
        """Whether any item is as good as content for the limit between contents."""
        self._terms = terms
        self._limited = not (terms.first is terms.idle is terms.end is None)
        self.watch = terms.watch
        self._stream = stream
        self._received: deque[Any] = deque(maxlen=None if terms.whole else KEPT)
        self.completion.tokens = partial(tokens_of_stream, self._received)
        self._seen = Seen()
        self._item: type | None = None
        self._format: Format | None = None
        self._closed = self._content = self._has_content = False
        self.error: Exception | None = None
        """What reading has failed with."""
        self._judges_items = (
            terms.content is not None or terms.alive_by_bytes or terms.resume is not None
        )
        watch_for_terminator(stream, self._seen)
        if terms.alive_by_bytes and terms.idle is not None:
            self._watch_bytes(terms.idle, asynchronous)
        if terms.watch is not None:
            terms.watch.stream = stream
        step = "__anext__" if asynchronous else "__next__"
        if not hasattr(stream, step):
            stream = stream.__aiter__() if asynchronous else iter(stream)
        self._source, self._pull = stream, getattr(stream, step)
        emit = call.journal.guard.emit
        if emit.enters and type(stream) in _GENERATORS:
            enter = partial(emit.enter, call.journal.serial, call.branch.number)
            self._pull = stepping(enter, self._pull, asynchronous=asynchronous)
        self._over = False

    def __del__(self) -> None:
        self.abandon()

    # Reading

    def read(self, pull: Callable[[], Any] | None = None) -> Any:
        """The next item, in a sync call, by `pull` if it is given; StopIteration at a complete
        end."""
        if self._over:
            return self._read_on(StopIteration) if self.successor is None else next(self.successor)
        watch, end = self.watch, self._terms.end
        try:
            if end is not None and self.runtime.now() >= end:
                raise DeadlineExceededError(self._terms.total)
            if watch is None or not self._has_content:
                item = self._pull() if pull is None else pull()
                self._accept(item)
            else:
                watch.begin()
                item = self._pull() if pull is None else pull()
                self._accept(item)
                watch.end(self._content)
            if watch is None or watch.fired is None:
                return item
            error = self._break(None)  # what looks like an end is the watchdog's doing
        except StopIteration:
            ended = self._end()
            if ended is None:
                raise
            error = ended
        except Exception as found:
            error = self._break(found)
        except BaseException:
            self._interrupt()
            raise
        return self._go_on(error)

    async def take(self) -> Any:
        """The next item, in an event loop, where it may have been read before."""
        return self.ready.popleft() if self.ready else await self.aread()

    async def aread(self, pull: Callable[[], Any] | None = None) -> Any:  # noqa: C901
        """The same in an event loop; StopAsyncIteration at a complete end."""
        # In one piece, as each item of each stream comes through here.
        if self._over:
            if self.successor is None:
                self._read_on(StopAsyncIteration)
            return await self.successor.__anext__()
        left = limit = 0.0
        end = self._terms.end
        try:
            if end is not None and self.runtime.now() >= end:
                raise DeadlineExceededError(self._terms.total)
            reading = self._pull() if pull is None else pull()
            if not self._limited:
                item = await reading
                self._accept(item)
                return item
            runtime = self.runtime
            if runtime.steps:  # what is there needs no time limit
                there, reading = _begin(reading)
                if there:
                    self._accept(reading)
                    if self._content:
                        self._waited = 0.0
                    return reading
            left, limit = self._limit()
            began = runtime.now()
            item = await runtime.within(left, lambda _: reading, self.call)
            self._accept(item)
            self._waited = 0.0 if self._content else self._waited + runtime.now() - began
            return item
        except StopAsyncIteration:
            error = self._end()
            if error is None:
                raise
        except Exception as found:
            if type(found) is DeadlineExceededError and found.seconds == left:  # ours
                found = DeadlineExceededError(limit)
            error = self._break(found)
        except BaseException:
            self._interrupt()
            raise
        return await self._ago_on(error)

    def _go_on(self, error: Exception) -> Any:
        """The next item after an interruption: a fresh attempt's, or the error."""
        again = None if self.runtime.asynchronous else self._fresh(error)
        if again is None:
            raise error
        self._close(quietly=True)
        guard, args, kwargs = again
        try:
            restarted = self._succeeded_by(guard.run(args, kwargs), error)
        except Exception:
            raise error from error.__cause__
        finally:
            del error, again  # whose traceback leads here
        return restarted or next(self.successor)

    async def _ago_on(self, error: Exception) -> Any:
        """The same in an event loop."""
        again = self._fresh(error)
        if again is None:
            raise error
        await self._aclose(quietly=True)
        guard, args, kwargs = again
        try:
            restarted = self._succeeded_by(await guard.conduct(args, kwargs), error)
        except Exception:
            raise error from error.__cause__
        finally:
            del error, again
        return restarted or await self.successor.__anext__()

    def _fresh(self, error: Exception) -> tuple[Any, Any, Any] | None:
        """The guard and the arguments of a fresh attempt after an interruption; None for none."""
        terms, call = self._terms, self.call
        guard = call.journal.guard
        if terms.resume is None or not self.opened or self._closed or guard.restarts >= RESTARTS:
            return None
        if terms.end is not None and self.runtime.now() >= terms.end:
            return None
        place = call.place
        given: Any = (call.args, call.kwargs) if place is None else place.arguments
        prefill = place is None or place.model.prefill
        continues = prefill and callable(terms.resume)
        if continues:
            given = terms.resume(error, *given)
            if given is None:
                return None
        if not call.afford():
            return None
        fresh = type(guard)(guard.pipeline, guard.fn)
        fresh.restarts, fresh.continues = guard.restarts + 1, continues
        fresh.stream_end = terms.end
        call.emit(StreamRestarted, items=len(self._received))
        return fresh, *given

    def _succeeded_by(self, stream: Any, error: Exception) -> Restarted | None:
        """Another attempt's stream goes on where this one broke off."""
        if reading_of(stream) is None:
            raise error  # it is none, but a value that stands for it
        self.successor = stream
        self.restarts = (*self.restarts, self._number)
        self.error = None
        if type(stream).__name__ == type(self._stream).__name__ and hasattr(stream, "__dict__"):
            self._stream.__dict__.clear()  # `usage` and the like are that one's
            self._stream.__dict__.update(stream.__dict__)
        return Restarted(self._number, error) if type(self._stream) in _GENERATORS else None

    def _limit(self) -> tuple[float, float]:
        """Seconds that the next item may take, and the limit that this is the rest of."""
        terms = self._terms
        left = math.inf, 0.0
        if not self._has_content:
            if terms.begins_by is not None and terms.first is not None:
                left = terms.begins_by - self.runtime.now(), terms.first
        elif terms.idle is not None:
            left = terms.idle - self._waited, terms.idle
        if terms.end is not None:
            left = min(left, (terms.end - self.runtime.now(), terms.total))
        return max(_LEAST, left[0]), left[1]

    def open(self) -> None:
        """Read up to the first content, or to the end where the whole is wanted."""
        try:
            while True:
                self.runtime.check()
                self.ready.append(self.read())
                if self._content and not self._terms.whole:
                    break
        except StopIteration:
            pass
        except BaseException:
            self.close(quietly=True)
            raise
        self.opened = True

    async def aopen(self) -> None:
        """The same in an event loop."""
        try:
            while True:
                self.ready.append(await self.aread())
                if self._content and not self._terms.whole:
                    break
        except StopAsyncIteration:
            pass
        except Exception:
            await self.aclose(quietly=True)
            raise
        self.opened = True

    def _watch_bytes(self, idle: float, asynchronous: bool) -> None:
        """Have the limit between contents go by what the server sends, where that can be seen; by
        items of any kind elsewhere."""
        within, call, pulled = self.runtime.within, self.call, _next_chunk
        watch = self.watch
        own = ref(self)  # the response keeps nobody alive who reads it

        async def bounded(chunks: Any) -> Any:
            reading = own()
            if reading is None or not reading._has_content:
                return await pulled(chunks)
            return await within(idle, lambda _: pulled(chunks), call)

        self._all_count = not watch_bytes(
            self._stream,
            bounded if asynchronous else None,
            (lambda: None) if watch is None else watch.touch,
        )
        if asynchronous and not self._all_count:
            self._terms = evolve(self._terms, idle=None)

    def _accept(self, item: Any) -> None:
        """Note an item, and whether it carries content. Raises for one that is an error."""
        if type(item) is not self._item:
            self._item = type(item)
            self._format = format_of(type(item), type(self._stream))
            self._look = self._format.look
        self._received.append(item)
        content = self._look(item, self._seen)
        if self._judges_items:
            content = self._counts(item, content)
        self._content = content
        if content and not self._has_content:
            self._has_content = True
            self._emit(StreamStarted)
            if self.watch is not None:  # from now on it limits each wait for more
                self.watch.limit_to(self._terms.idle)

    def _counts(self, item: Any, content: bool) -> bool:
        """Whether an item counts as content, by the terms."""
        self._number += 1
        own = None if self._terms.content is None else self._terms.content(item)  # None: as known
        return self._all_count or (content if own is None else bool(own))

    # The end

    def _end(self) -> Exception | None:
        """The source has ended: None if it is complete, else what is to be raised."""
        if self.watch is not None and self.watch.fired is not None:
            return self._break(None)
        form = self._format
        says_so = format_of(type(None), type(self._stream)).ends if form is None else form.ends
        if says_so and self._terms.complete and not self._seen.complete:
            return self._break(None)
        self._over = True
        self._emit(StreamEnded, items=len(self._received))
        self._settle(None)
        return None

    def _break(self, error: Exception | None) -> Exception:
        """Reading has failed with an error, or (None) ended too early: what is to be raised."""
        watch = self.watch
        error = None if error is None else server_error(error, self._seen)
        if watch is not None and watch.fired is not None:
            late = DeadlineExceededError(watch.fired)
            late.__cause__ = error
            error = late
        if error is not None and control_flow_in(error):
            self._over = True
            self._settle(NO_VERDICT)
            return error
        verdict = error
        if error is None or (self.opened and type(error) is not StreamInterruptedError):
            verdict = self._interrupted_by(error)
        assert verdict is not None
        self._over, self.error = True, verdict
        if self.opened:
            failure = self.call.failure(verdict)
            self.call.emit(
                StreamInterrupted,
                model=attempt_of(self.call).model,
                items=len(self._received),
                failure=failure,
            )
        self._settle(verdict if error is None else error)
        return verdict

    def _is_left(self) -> bool:
        """Whether the attempt has ended without this stream: it is opened in a worker thread that
        was left behind, and says nothing more of its call."""
        deadline = self.call.deadline
        while deadline is not None and deadline is not self.call.journal.born_in:
            if deadline.fired:
                return True
            deadline = deadline.outer
        return False

    def _emit(self, kind: type[Event], **facts: Any) -> None:
        if self._is_left():
            return
        call = self.call
        took = self.runtime.now() - call.branch.started
        call.emit(kind, model=attempt_of(call).model, seconds=took, **facts)

    def throw(self, error: BaseException) -> Any:
        """The next item of a generator that the consumer throws an error into; what comes out is
        between the two."""
        if self.successor is not None:
            return self.successor.throw(error)
        try:
            item = self._source.throw(error)
        except BaseException:
            self.abandon()
            raise
        self._accept(item)
        return item

    async def athrow(self, error: BaseException) -> Any:
        """The same in an event loop."""
        if self.successor is not None:
            return await self.successor.athrow(error)
        try:
            item = await self._source.athrow(error)
        except BaseException:
            self.abandon()
            raise
        self._accept(item)
        return item

    def send(self, value: Any) -> Any:
        """The next item of a generator that gets `value`."""
        if self.successor is not None:
            return self.successor.send(value)
        return self.read(None if value is None else partial(self._source.send, value))

    async def asend(self, value: Any) -> Any:
        """The same in an event loop."""
        if self.successor is not None:
            return await self.successor.asend(value)
        return await self.aread(None if value is None else partial(self._source.asend, value))

    def _interrupt(self) -> None:
        """Reading was cancelled. The SDK's stream would look complete from now on."""
        self._over, self.error = True, self._interrupted_by(None)
        self._settle(NO_VERDICT)

    def _interrupted_by(self, error: Exception | None) -> StreamInterruptedError:
        text = "".join(map(self._text_of, self._received))
        interruption = StreamInterruptedError(tuple(self._received), text)
        interruption.__cause__ = error
        return interruption

    def _text_of(self, item: Any) -> str:
        try:
            return format_of(type(item), type(self._stream)).text(item)
        except Exception:
            return ""

    def _read_on(self, over: type[Exception]) -> NoReturn:
        """A read beyond the end: an interruption stays one."""
        raise over if self.error is None else self.error

    def abandon(self) -> None:
        """Nobody reads on. Whoever stops early says nothing about the service."""
        if not self._over:
            self._over = True
            self._settle(None if self._seen.complete else NO_VERDICT)

    def _settle(self, verdict: BaseException | None) -> None:
        if self.watch is not None:
            self.watch.stop()
        if not self._is_left():
            self.call.journal.guard.emit.tokens_used(self.call, tokens_of_stream, self._received)
        self.completion.settle(verdict)

    def close(self, *, quietly: bool = False) -> None:
        """Abandon the stream, and close it."""
        self._closed = True
        self.abandon()
        successor, self.successor = self.successor, None
        if successor is not None:
            successor.close()
        else:
            self._close(quietly=quietly)

    def _close(self, *, quietly: bool) -> None:
        end = getattr(self._stream, "close", None) or getattr(self._source, "close", None)
        if end is not None:
            _quietly(end) if quietly else end()

    async def aclose(self, *, quietly: bool = False) -> None:
        """The same in an event loop."""
        self._closed = True
        self.abandon()
        successor, self.successor = self.successor, None
        if successor is not None:
            await successor.aclose()
        else:
            await self._aclose(quietly=quietly)

    async def _aclose(self, *, quietly: bool) -> None:
        for stream in (self._stream, self._source):
            end = getattr(stream, "aclose", None) or getattr(stream, "close", None)
            if end is not None:
                try:
                    done = end()
                    if inspect.isawaitable(done):
                        await done
                except Exception:
                    if not quietly:
                        raise
                return


def _begin(reading: Any) -> tuple[bool, Any]:
    """Begin an awaitable: whether it has ended, and its result or what is still to be awaited."""
    if type(reading) is not CoroutineType and not hasattr(reading, "send"):
        reading = reading.__await__()
    try:
        trap = reading.send(None)
    except StopIteration as end:
        return True, end.value
    return False, _Begun(reading, trap)


class _Begun:
    """An awaitable that was begun, and waits for what `trap` says."""

    __slots__ = ("_begun", "_trap")

    def __init__(self, begun: Any, trap: Any) -> None:
        self._begun = begun
        self._trap = trap

    def __await__(self) -> Generator[Any, Any, Any]:
        begun, trap = self._begun, self._trap
        try:
            while True:
                try:
                    sent = yield trap
                except BaseException as error:
                    trap = begun.throw(error)
                else:
                    trap = begun.send(sent)
        except StopIteration as end:
            return end.value


async def _next_chunk(chunks: Any) -> Any:
    return await chunks.__anext__()


def _quietly(end: Callable[[], object]) -> None:
    try:
        end()
    except Exception:
        return


# What the consumer holds


class _Guarded(PendingResult):
    """An object of an SDK's stream class that reads by a `Reading`.

    It shares all attributes with the SDK's own object. The SDK's helpers (`get_final_message`,
    `until_done`) iterate this one, so they are guarded too.
    """

    __slots__ = ()

    _reading: Reading

    @property
    def completion(self) -> Completion:  # type: ignore[override]
        return self._reading.completion

    @property
    def outcome(self) -> Any:
        """The `Outcome` of the call to the end of the stream; None until then."""
        reading = self._reading
        return reading.outcome if reading.successor is None else reading.successor.outcome

    @property
    def restarts(self) -> tuple[int, ...]:
        """After how many items a fresh attempt began, for each; see `Streaming`."""
        return self._reading.restarts


class _Sync(_Guarded):
    __slots__ = ()

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        reading = self._reading
        return reading.ready.popleft() if reading.ready else reading.read()

    def close(self) -> None:
        self._reading.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Async(_Guarded):
    __slots__ = ()

    def __aiter__(self) -> Any:
        return self

    def __anext__(self) -> Any:
        reading = self._reading
        return reading.take() if reading.ready else reading.aread()

    async def close(self) -> None:
        await self._reading.aclose()

    aclose = close

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


@lru_cache(256)
def _class_for(cls: Any, *, asynchronous: bool) -> type:
    base = _Async if asynchronous else _Sync
    facts = {"__slots__": ("_reading",), "__module__": cls.__module__, **bound_helpers(cls)}
    return type(cls.__name__, (base, cls), facts)


def _for_consumer(reading: Reading, stream: Any, *, asynchronous: bool = False) -> Any:
    """What the consumer gets."""
    cls: Any = type(stream)  # a class is hashable, which mypy does not see
    if cls is GeneratorType:
        given: Any = _generator(reading)
        generators[given] = ref(reading)
    elif cls is AsyncGeneratorType:
        given = _async_generator(reading)
        generators[given] = ref(reading)
    else:
        kind = _class_for(cls, asynchronous=asynchronous)
        given = object.__new__(kind)
        given.__dict__ = stream.__dict__
        given._reading = reading
    return given


def _generator(reading: Reading) -> Generator[Any, Any, Any]:
    try:
        item = reading.ready.popleft() if reading.ready else reading.read()
        while True:
            try:
                sent = yield item
            except GeneratorExit:
                raise
            except BaseException as error:
                item = reading.throw(error)
            else:
                item = reading.ready.popleft() if reading.ready else reading.send(sent)
    except StopIteration as end:
        return end.value
    finally:
        reading.close()


async def _async_generator(reading: Reading) -> AsyncGenerator[Any, Any]:
    try:
        item = reading.ready.popleft() if reading.ready else await reading.aread()
        while True:
            try:
                sent = yield item
            except GeneratorExit:
                raise
            except BaseException as error:
                item = await reading.athrow(error)
            else:
                item = reading.ready.popleft() if reading.ready else await reading.asend(sent)
    except StopAsyncIteration:
        return
    finally:
        await reading.aclose()


def open_sync(call: Call, runtime: Runtime, stream: Any) -> Any:
    """Read a stream up to its first content: what to give to the consumer."""
    reading = Reading(call, runtime, stream)
    reading.open()
    return _for_consumer(reading, stream)


async def open_async(call: Call, runtime: Runtime, stream: Any) -> Any:
    """The same in an event loop."""
    reading = Reading(call, runtime, stream, asynchronous=True)
    await reading.aopen()
    return _for_consumer(reading, stream, asynchronous=True)
