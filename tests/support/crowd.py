"""Several calls at once, in real time, in each world: threads, asyncio tasks, trio tasks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

__all__ = ["Crowd", "Making", "in_thread", "run_crowd"]


class Making:
    """A call that is being made, in the background."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.over = False
        self.cancel: Callable[[], object] = lambda: None

    def ended(self, task: object) -> None:
        """The task is done."""
        self.over = True

    async def run(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            self.result = await fn(*args, **kwargs)
        except BaseException as error:
            self.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.over = True


class Crowd:
    """Starts calls in one event loop, and waits for things to become true there."""

    def __init__(self, nursery: trio.Nursery | None) -> None:
        self._nursery = nursery
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Making:
        """Begin a call in a task of its own."""
        making = Making()
        if self._nursery is None:
            task = asyncio.create_task(making.run(fn, args, kwargs))
            task.add_done_callback(making.ended)  # one cancelled at once does not even run
            self._tasks.append(task)
            making.cancel = task.cancel
            return making
        scope = trio.CancelScope()

        async def scoped() -> None:
            with scope:
                await making.run(fn, args, kwargs)

        making.cancel = scope.cancel
        self._nursery.start_soon(scoped)
        return making

    def event(self) -> Any:
        """An event of this loop's kind."""
        return asyncio.Event() if self._nursery is None else trio.Event()

    async def until(self, true: Callable[[], Any]) -> None:
        """Let other tasks run until something becomes true."""
        end = time.monotonic() + 15
        while not true():
            await self.turn()
            assert time.monotonic() < end, "it never became true"

    async def turn(self) -> None:
        """Let every other task have a turn."""
        await (asyncio.sleep(0) if self._nursery is None else trio.sleep(0))

    async def ended(self) -> None:
        """Wait for all calls."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


def run_crowd(loop: str, body: Callable[[Crowd], Awaitable[None]]) -> None:
    """Run `body` in a new event loop, and then all calls to their ends."""

    async def in_asyncio() -> None:
        crowd = Crowd(None)
        await asyncio.wait_for(body(crowd), 20)
        await asyncio.wait_for(crowd.ended(), 20)

    async def in_trio() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                await body(Crowd(nursery))

    if loop == "asyncio":
        asyncio.run(in_asyncio())
    else:
        trio.run(in_trio)


def in_thread(fn: Callable[..., Any], *args: Any) -> tuple[threading.Thread, Making]:
    """Begin a sync call in a thread of its own."""
    making = Making()

    def run() -> None:
        try:
            making.result = fn(*args)
        except BaseException as error:
            making.error = error
        finally:
            making.over = True

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, making
