"""A fair bulkhead: so many calls at once, the others wait in order."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from attrs import field, frozen

from resilience.errors import RejectedError
from resilience.policy import BUSY, Call, Gate, Runtime, Semaphore, Verdict


class BulkheadFull(RejectedError):
    """The queue was full, or no permit came in time."""


@frozen(eq=False)
class Bulkhead(Gate):
    """Lets `limit` calls in at once; `queue` more wait in order, `patience` seconds at most.

    With `key`, a function of the call's arguments, for each of its values.
    """

    limit: int
    queue: int = 100
    patience: float = 1.0
    key: Callable[..., Hashable] | None = None
    rooms: dict[Hashable, Semaphore] = field(factory=dict, init=False, repr=False)
    resting = True

    def try_enter(self, call: Call, runtime: Runtime) -> Semaphore | None:
        room = self.room(call.args, call.kwargs)
        return room if room.try_acquire() else None

    async def enter(self, call: Call, runtime: Runtime) -> Semaphore:
        room = self.room(call.args, call.kwargs)
        if await room.acquire(runtime, call, self.patience):
            return room
        raise BulkheadFull

    def leave(self, permit: Semaphore, call: Call, error: Verdict) -> None:
        permit.release()

    def refuses(self, call: Call) -> bool:
        room = self.room(call.args, call.kwargs)
        return room.free == 0 and room.waiting >= self.queue

    def at_rest(self, fn: Callable[..., Any]) -> Any:
        only = None if self.key else self.room((), {})

        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            room = only or self.room(args, kwargs)
            return room if room.try_acquire() else BUSY

        def end(room: Semaphore, error: Verdict, result: Any) -> bool:
            room.release()
            return True

        return begin, end

    def room(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Semaphore:
        key = None if self.key is None else self.key(*args, **kwargs)
        found = self.rooms.get(key)
        return found or self.rooms.setdefault(key, Semaphore(self.limit, self.queue))

    def __reduce__(self) -> Any:  # what is learnt stays in this process
        return Bulkhead, (self.limit, self.queue, self.patience, self.key)


if __name__ == "__main__":
    import asyncio

    from resilience import Pipeline
    from resilience.testing import virtual_time

    async def main() -> None:
        @Pipeline(Bulkhead(limit=2, queue=1, patience=5))
        async def work(name: str) -> str:
            began = clock.now()
            await clock.asleep(3)  # a slow service, in virtual seconds
            return f"{name} from {began:g} to {clock.now():g} s"

        with virtual_time(start=0) as clock:
            for found in await asyncio.gather(*map(work, "abcd"), return_exceptions=True):
                print(found if isinstance(found, str) else type(found).__name__)

    asyncio.run(main())
