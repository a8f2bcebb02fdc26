"""Policies that let calls in, and results that are settled later, for tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from resilience import RejectedError
from resilience.policy import (
    BUSY,
    NO_VERDICT,
    Call,
    Completion,
    Gate,
    PendingResult,
    Runtime,
    Semaphore,
    Verdict,
)


class Bulkhead(Gate):
    """So many calls at once; the others wait in order. `verdicts` is how each of them ended."""

    resting = True

    def __init__(self, limit: int, *, queue: float = math.inf, patience: float = math.inf) -> None:
        self.slots = Semaphore(limit, queue)
        self.patience = patience
        self.verdicts: list[Verdict] = []

    def try_enter(self, call: Call, runtime: Runtime) -> bool | None:
        return True if self.slots.try_acquire() else None

    async def enter(self, call: Call, runtime: Runtime) -> bool:
        if not await self.slots.acquire(runtime, call, self.patience):
            raise RejectedError
        return True

    def leave(self, permit: Any, call: Call, error: Verdict) -> None:
        self.verdicts.append(error)
        self.slots.release()

    def at_rest(
        self, fn: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[..., bool]] | None:
        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return True if self.slots.try_acquire() else BUSY

        def end(held: Any, error: Verdict, result: Any) -> bool:
            self.leave(held, None, error)  # type: ignore[arg-type]  # it looks at no call
            return True

        return begin, end


class Stream(PendingResult):
    """A result that is settled when it is at its end, has failed, or is abandoned."""

    def __init__(self) -> None:
        self.completion = Completion()

    def end(self) -> None:
        self.completion.settle(None)

    def fail(self, error: Exception) -> None:
        self.completion.settle(error)

    def close(self) -> None:
        self.completion.settle(NO_VERDICT)

    def __del__(self) -> None:
        self.close()
