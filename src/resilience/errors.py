"""The exceptions of this library. Ours come out only when *we* refused, or when time ran out.

    Exception
    └── ResilienceError
        ├── RejectedError            we refused to start the call; retry_after, retry_at
        │   ├── CircuitOpenError     name, key; __cause__ is the failure that opened it
        │   └── WorkersBusyError     no worker thread was free for a call with a time limit
        └── DeadlineExceededError    seconds; also a TimeoutError

A failing call's own exception always comes out as itself. All of these pickle and copy.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import define, fields

__all__ = [
    "CircuitOpenError",
    "DeadlineExceededError",
    "RejectedError",
    "ResilienceError",
    "WorkersBusyError",
    "is_refusal",
]


@define(eq=False, slots=False)
class ResilienceError(Exception):
    """The root of everything this library raises on its own behalf."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Fields are positional for the same reason: an exception is rebuilt from its arguments;
        # whatever else it carries (notes) travels as the third item.
        values = tuple(getattr(self, field.name) for field in fields(type(self)))
        return type(self), values, dict(self.__dict__)


@define(eq=False, slots=False)
class RejectedError(ResilienceError):
    """The call was refused before it began; nothing was sent.

    `retry_after` (seconds) and `retry_at` (an aware UTC datetime) tell when it is worth coming
    back; None where nobody knows, as with a circuit that was isolated by hand.
    """

    retry_after: float | None = None
    retry_at: datetime | None = None

    def __str__(self) -> str:
        return f"the call was refused{self._when()}"

    def _when(self) -> str:
        return "" if self.retry_after is None else f"; retry after {self.retry_after:.3g} s"


@define(eq=False, slots=False)
class CircuitOpenError(RejectedError):
    """The circuit is open (or half open with all its trial places taken).

    `name` is the breaker's, `key` the value of a keyed breaker's key (None for a plain one).
    `__cause__` is the failure that opened the circuit, where there was one.
    """

    name: str | None = None
    key: Any = None

    def __str__(self) -> str:
        circuit = "circuit" if self.name is None else f"circuit {self.name!r}"
        key = "" if self.key is None else f" for {self.key!r}"
        return f"{circuit}{key} is open{self._when()}"


@define(eq=False, slots=False)
class WorkersBusyError(RejectedError):
    """Every worker thread is taken, so a sync call with a time limit could not be started."""

    workers: int = 0

    def __str__(self) -> str:
        return f"all {self.workers} worker threads for calls with a time limit are busy"


@define(eq=False, slots=False)
class DeadlineExceededError(ResilienceError, TimeoutError):
    """A `Timeout` of `seconds` ran out while the call was under way."""

    seconds: float = 0.0

    def __str__(self) -> str:
        return f"no answer within {self.seconds:.3g} s"


def is_refusal(error: BaseException) -> bool:
    """Whether an error is one of our refusals; by its type, as `__class__` may lie."""
    return issubclass(type(error), RejectedError)
