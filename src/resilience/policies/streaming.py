"""Bound and guard a stream: time to its first content, between contents, for all of it.

Innermost, or just outside an attempt's `Timeout`. Streams are guarded up to their first content
without it, too; this says on what terms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

from attrs import frozen

from resilience._core.options import (
    Seconds,
    call_repr,
    checked,
    flag,
    plain,
    seconds,
    suggesting,
    to_one_of,
    to_plain_function,
    warn_option_failed,
)
from resilience._core.results import reading_of
from resilience._core.streams import PLAIN_TERMS, RESTART, RESTARTS, Restarted, Terms
from resilience.policy import Call, Effect, Inner, Policy, Runtime

__all__ = ["Restarted", "Streaming"]


def _to_resume(name: str, value: Any) -> Any:
    if isinstance(value, str):
        if value != RESTART:
            raise ValueError(f"{name} must be 'restart', a function or None, got {value!r}")
        return value
    return to_plain_function(name, value)


@suggesting
@frozen(eq=False, repr=False)
class Streaming(Policy):
    """Bound and guard the stream that a call returns.

    - `first` (None): seconds from the beginning of the attempt to the first content; a result that
      is no stream is content. A `Model("...", first=120)` has its own.
    - `idle` (None): seconds of waiting from one content to the next. Pings and other items without
      content do not count as life.
    - `total` (None): seconds for all of it, reading included.
    - `complete` (True): an end without a finish reason and without terminator is an interruption.
    - `deliver` ("live"): "whole" holds a stream back until it is complete, so that an interruption
      at any point is a failure like any other, and retry and fallback apply to the very end.
    - `alive` ("content"): with "bytes", whatever the server sends counts for `idle`, pings too; for
      clients that do not show their response, items of any kind.
    - `on_interrupted` (None): what to do when a stream breaks off that the consumer has begun to
      read. "restart" goes on with a fresh attempt from the beginning, three times at most: a
      generator gives a `Restarted` item first, `stream.restarts` says where. A function of the
      `StreamInterruptedError`, `args` and `kwargs` returns the `(args, kwargs)` of an attempt that
      continues the answer, or None to give up; a `Model("...", prefill=False)` is restarted, or
      left out.
    - `first_content` (None): a function of an item, whether it carries content; by default that is
      known for each SDK.

    What is exceeded before the first content is a `DeadlineExceededError` of the attempt; after it
    a `StreamInterruptedError`. Async reads are cancelled; a sync read is ended by shutting its
    socket down, so one that waits for no socket goes on. Values only: safe from any thread.
    """

    role: ClassVar[str | None] = "streaming"

    first: Seconds | None = seconds(None, optional=True)
    idle: Seconds | None = seconds(None, optional=True)
    total: Seconds | None = seconds(None, optional=True)
    complete: bool = flag(True)
    deliver: str = checked(to_one_of("live", "whole"), "live")
    alive: str = checked(to_one_of("content", "bytes"), "content")
    on_interrupted: str | Callable[..., Any] | None = checked(_to_resume, None, optional=True)
    first_content: Callable[[Any], object] | None = checked(to_plain_function, None, optional=True)

    def __repr__(self) -> str:
        return call_repr(self)

    def check_block(self, *, asynchronous: bool) -> None:
        """Raise TypeError: a block has no result that could be a stream."""
        raise TypeError(f"{self!r} has no stream of a block of code to read; guard a function")

    def effect(self) -> Effect:
        limits = (
            ("the first content", self.first),
            ("each next one", self.idle),
            ("all of it", self.total),
        )
        parts = [f"{plain(limit):g} s for {what}" for what, limit in limits if limit is not None]
        line = f"bounds a stream: {', '.join(parts)}" if parts else "guards a stream to its end"
        if self.deliver == "whole":
            line += "; holds it back until it is complete"
        if self.on_interrupted is None:
            return Effect(line=line)
        return Effect(
            line=f"{line}; up to {RESTARTS} more calls of all this if it breaks off",
            restarts=RESTARTS,
        )

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def streaming(call: Call) -> Any:
            terms = self._terms(call, runtime)
            watch, call = terms.watch, call.replace(terms=terms)
            if watch is None:
                return await inner(call)
            try:
                result = await inner(call)
            except BaseException:
                watch.stop()
                raise
            reading = reading_of(result)
            if reading is None or reading.watch is not watch:
                watch.stop()  # it is no stream, or one that others watch
            return result

        return streaming

    def _terms(self, call: Call, runtime: Runtime) -> Terms:
        """On what terms the stream of this attempt is read: those of further out hold, too."""
        outer: Terms = call.terms or PLAIN_TERMS
        own = self.first if call.place is None else call.place.model.first or self.first
        first, idle, total = (
            None if each is None else plain(each) for each in (own, self.idle, self.total)
        )
        limit = _least(first, total)
        idle = _least(idle, outer.idle)
        watch, begins_by = None, outer.begins_by
        end = _least(outer.end, call.journal.guard.stream_end)
        if any(each is not None for each in (limit, idle, begins_by, end)):
            now = runtime.now()
            end = _least(end, None if total is None else now + total)
            begins_by = _least(begins_by, None if limit is None else now + limit)
            total = _least(total, outer.total or None)
            watch = runtime.watch(None if begins_by is None else begins_by - now, end, total)
        resume = None if self.on_interrupted is None else self._continued
        return Terms(
            first=_least(limit, outer.first),
            begins_by=begins_by,
            idle=idle,
            end=end,
            total=total or 0.0,
            complete=self.complete and outer.complete,
            whole=self.deliver == "whole" or outer.whole,
            content=outer.content if self.first_content is None else self._is_content,
            alive_by_bytes=self.alive == "bytes" or outer.alive_by_bytes,
            resume=(RESTART if self.on_interrupted == RESTART else resume) or outer.resume,
            watch=watch,
        )

    def _is_content(self, item: Any) -> object:
        """What the user's function says of an item; None, and a warning, if it raises."""
        try:
            return cast(Callable[[Any], object], self.first_content)(item)
        except Exception as problem:
            warn_option_failed("Streaming(first_content=)", problem)
            return None

    def _continued(self, error: Exception, args: Any, kwargs: Any) -> Any:
        """The arguments that continue an answer; None to give up."""
        try:
            found = cast(Callable[..., Any], self.on_interrupted)(error, args, kwargs)
            if found is None:
                return None
            args, kwargs = found
            return tuple(args), dict(kwargs)
        except Exception as problem:
            warn_option_failed("Streaming(on_interrupted=)", problem)
            return None


def _least(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
