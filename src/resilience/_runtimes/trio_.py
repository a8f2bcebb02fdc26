"""The runtime of calls under trio. Imported only where trio already runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import trio

from resilience._core.call import Call
from resilience._core.deadline import Deadline
from resilience._core.runtime import Inner, Waiter

from .threads import Real

__all__ = ["Trio", "together", "trio_"]


class TrioWaiter:
    """An event of the trio run that waits."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._done = trio.Event()

    def set(self) -> None:
        try:
            self._token.run_sync_soon(self._done.set)
        except trio.RunFinishedError:
            return  # and the call with it

    async def wait(self, seconds: float, call: Call | None = None) -> bool:
        with trio.move_on_after(seconds):
            await self._done.wait()
        return self._done.is_set()


class Trio(Real):
    """Sleeps with `trio.sleep`, cancels what takes too long."""

    asynchronous = True

    def bounded(self, seconds: float, inner: Inner) -> Inner:
        async def timeout(call: Call) -> Any:
            if seconds <= 0:
                raise call.expired(seconds)
            deadline = Deadline(self.now() + seconds, call.deadline)
            try:
                with trio.move_on_after(seconds):
                    return await inner(call.until(deadline))
            finally:
                deadline.ended = True
            raise call.expired(seconds)

        return timeout

    def waiter(self) -> Waiter:
        return TrioWaiter()

    async def _sleep(self, seconds: float, call: Call) -> None:
        await trio.sleep(seconds)


trio_ = Trio()


async def together(work: Callable[[], Coroutine[Any, Any, None]], number: int) -> None:
    """Run `work()` in so many tasks at once. The first error ends them all, and comes out as
    itself, in no group."""
    errors: list[BaseException] = []

    async def one() -> None:
        try:
            await work()
        except (trio.Cancelled, GeneratorExit):
            raise
        except BaseException as error:
            errors.append(error)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(one)
    except BaseException as error:  # Ctrl-C in this very task is in a group
        group = getattr(error, "exceptions", ())
        errors += [each for each in group if isinstance(each, KeyboardInterrupt)]
        if not errors:
            raise
    if errors:
        raise errors[0]
