"""Results whose work begins later than the call: when they are entered, or first iterated.

The call itself has done nothing yet. The policies go around that later step.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from resilience.sdks.streams import is_manager

from .in_hand import Args, InHand, Kwargs
from .outcome import Outcome
from .results import reading_of

__all__ = ["async_generator_closure", "deferred"]


def deferred(guard: Any, args: Args, kwargs: Kwargs, first: InHand, outcome: bool) -> Any:
    """What stands for a deferred result: an async generator, or a context manager of its class.

    With `outcome`: a coroutine of the `Outcome` that has such a stream, opened; or one that has the
    manager, of which there was no attempt yet.
    """
    if not is_manager(first.ready):
        opening = _calling(guard, first, lambda made: made)
        if outcome:
            return opening.conduct(args, kwargs, None, True)
        return async_generator_closure(guard.fn, opening)(*args, **kwargs)
    manager = first.ready
    cls: Any = type(manager)  # a class is hashable, which mypy does not see
    entered: Any = object.__new__(_class_for(cls))
    entered.__dict__ = manager.__dict__
    entered._entering = _Entering(guard, args, kwargs, first)
    return Outcome(entered) if outcome else entered


def _calling(guard: Any, first: InHand, step: Callable[..., Any]) -> Any:
    """A guard of the same pipeline, whose attempts take a `step` with the function's result."""
    fn = guard.fn

    @functools.wraps(fn)
    def attempt(*args: Any, **kwargs: Any) -> Any:
        made = first.take() if first.ready is not None and first.serves(args, kwargs) else None
        return step(fn(*args, **kwargs) if made is None else made)

    return type(guard)(guard.pipeline, attempt)


def async_generator_closure(fn: Callable[..., Any], guard: Any) -> Callable[..., Any]:
    """The guarded function of one that is an async generator. No async generator can hand over to
    another as `yield from` does: this one passes on what its consumer sends and throws."""

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        stream = await guard.conduct(args, kwargs)
        if not hasattr(stream, "__anext__"):  # a value that stands for it
            yield stream
            return
        try:
            item = await stream.__anext__()
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:
                    item = await stream.athrow(error)
                else:
                    item = await stream.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            await stream.aclose()

    return guarded


class _Entering:
    """One guarded context manager: the call to make when it is entered, and what was entered."""

    def __init__(self, guard: Any, args: Args, kwargs: Kwargs, first: InHand) -> None:
        self.guard = guard
        self.args, self.kwargs = args, kwargs
        self.first = first
        self.manager: Any = None
        self.value: Any = None

    def __del__(self) -> None:
        for held in getattr(self.first.ready, "__dict__", {}).values():
            if type(held) is CoroutineType:  # the request that nobody has sent
                held.close()

    def enter(self) -> Any:
        """What the manager gives, entered under guard."""
        try:
            self.value = _calling(self.guard, self.first, self._enter).run(self.args, self.kwargs)
        except BaseException:
            self._give_up()
            raise
        return self.value

    async def aenter(self) -> Any:
        """The same in an event loop."""
        attempt = _calling(self.guard, self.first, self._aenter)
        try:
            self.value = await attempt.conduct(self.args, self.kwargs)
        except Exception:
            await self._agive_up()
            raise
        return self.value

    def _enter(self, manager: Any) -> Any:
        self._give_up()
        value = manager.__enter__()
        self.manager = manager
        return value

    async def _aenter(self, manager: Any) -> Any:
        await self._agive_up()
        if type(manager) is CoroutineType:  # of an async function, called again
            manager = await manager
        value = await manager.__aenter__()
        self.manager = manager
        return value

    def _give_up(self) -> None:
        """Leave what a failed attempt has entered."""
        manager, self.manager = self.manager, None
        if manager is not None:
            with contextlib.suppress(Exception):
                manager.__exit__(None, None, None)

    async def _agive_up(self) -> None:
        """The same in an event loop."""
        manager, self.manager = self.manager, None
        if manager is not None:
            with contextlib.suppress(Exception):
                await manager.__aexit__(None, None, None)

    def left(self) -> Any:
        """The manager to leave, if anything was entered; its stream is abandoned, unless it has
        ended."""
        value, self.value = self.value, None
        reading = reading_of(value)
        if reading is not None:
            reading.abandon()
        manager, self.manager = self.manager, None
        return manager


class _Manager:
    """A context manager of an SDK, guarded when it is entered."""

    __slots__ = ()

    _entering: _Entering

    def __enter__(self) -> Any:
        return self._entering.enter()

    def __exit__(self, *exc_info: Any) -> Any:
        manager = self._entering.left()
        return None if manager is None else manager.__exit__(*exc_info)

    async def __aenter__(self) -> Any:
        return await self._entering.aenter()

    async def __aexit__(self, *exc_info: Any) -> Any:
        manager = self._entering.left()
        return None if manager is None else await manager.__aexit__(*exc_info)


@functools.lru_cache(256)
def _class_for(cls: Any) -> type:
    facts = {"__slots__": ("_entering",), "__module__": cls.__module__}
    return type(cls.__name__, (_Manager, cls), facts)
