"""Streams that a test scripts, and what a consumer got of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Factory, define

from conftest import Takes, World


class Source:
    """A function of a world's colour whose nth call returns a stream of the nth script: items,
    exceptions to raise, `Takes(seconds, item)`. The last script is repeated."""

    def __init__(self, world: World, *scripts: list[Any]) -> None:
        self.world = world
        self.scripts = scripts
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.closed = 0

    @property
    def function(self) -> Callable[..., Any]:
        """The function."""

        def stream(*args: Any, **kwargs: Any) -> Any:
            return self._sync(self._next(args, kwargs))

        async def astream(*args: Any, **kwargs: Any) -> Any:
            return self._async(self._next(args, kwargs))

        return astream if self.world.asynchronous else stream

    def _next(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        self.calls.append((args, kwargs))
        return self.scripts[min(len(self.calls), len(self.scripts)) - 1]

    def _sync(self, script: list[Any]) -> Any:
        try:
            for step in script:
                if isinstance(step, Takes):
                    self.world.clock.sleep(step.seconds)
                    step = step.then
                if isinstance(step, BaseException):
                    raise step
                yield step
        finally:
            self.closed += 1

    async def _async(self, script: list[Any]) -> Any:
        try:
            for step in script:
                if isinstance(step, Takes):
                    await self.world.clock.asleep(step.seconds)
                    step = step.then
                if isinstance(step, BaseException):
                    raise step
                yield step
        finally:
            self.closed += 1


@define
class Got:
    """What a consumer got."""

    items: list[Any] = Factory(list)
    error: BaseException | None = None
    stream: Any = None


def consumed(
    world: World, fn: Callable[..., Any], *args: Any, most: int = 10**9, **kwargs: Any
) -> Got:
    """Call, and read the stream to its end, or close it after `most` items."""
    got = Got()

    def read() -> None:
        try:
            got.stream = stream = fn(*args, **kwargs)
            for item in stream:
                got.items.append(item)
                if len(got.items) == most:
                    stream.close()
        except BaseException as error:
            got.error = error

    async def aread() -> None:
        try:
            got.stream = stream = fn(*args, **kwargs)
            if not hasattr(stream, "__aiter__"):
                got.stream = stream = await stream
            async for item in stream:
                got.items.append(item)
                if len(got.items) == most:
                    await stream.aclose()
        except BaseException as error:
            got.error = error

    world.run(aread if world.asynchronous else read)
    return got
