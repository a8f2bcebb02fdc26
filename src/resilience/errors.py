"""The exceptions of this library. Ours come out only when *we* reject a call, or time runs out.

    Exception
    └── ResilienceError
        ├── RejectedError            a policy rejected the call; retry_after, retry_at
        │   ├── CircuitOpenError     name, key, model; __cause__ is the failure that opened it
        │   ├── BulkheadFullError    limit, waiting, waited, name, key, model
        │   ├── RateLimitExceededError   name, model; __cause__ is the failure that told of it
        │   ├── SpendLimitExceededError   limit, per, spent, most, name, key, model
        │   └── WorkersBusyError     no worker thread was free for a call with a time limit
        ├── DeadlineExceededError    seconds; also a TimeoutError
        ├── BadResultError           a check of `BadResult` rejected the result; result, failure
        ├── BatchStoppedError        a batch was stopped before this call had ended; under_way
        └── StreamInterruptedError   a stream broke off after content; received, text

A failing call's own exception always comes out as itself. All of these pickle and copy.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import define, evolve, field, fields

from ._core.options import fields_repr

__all__ = [
    "BadResultError",
    "BatchStoppedError",
    "BulkheadFullError",
    "CircuitOpenError",
    "DeadlineExceededError",
    "RateLimitExceededError",
    "RejectedError",
    "ResilienceError",
    "SpendLimitExceededError",
    "StreamInterruptedError",
    "WorkersBusyError",
]


@define(eq=False, repr=False, slots=False)
class ResilienceError(Exception):
    """The root of everything this library raises on its own behalf."""

    __repr__ = fields_repr

    def __reduce__(self) -> tuple[Any, ...]:
        # Fields are positional for the same reason: an exception is rebuilt from its arguments;
        # whatever else it carries (notes) travels as the third item.
        values = tuple(getattr(self, field.name) for field in fields(type(self)))
        return type(self), values, dict(self.__dict__)


@define(eq=False, repr=False, slots=False)
class RejectedError(ResilienceError):
    """A policy rejected the call before it began; nothing was sent.

    `retry_after` (seconds) and `retry_at` (an aware UTC datetime) say when a call may be let
    through; None where that is unknown, as with an isolated circuit.
    """

    retry_after: float | None = None
    retry_at: datetime | None = None

    def __str__(self) -> str:
        return f"the call was rejected{self._when()}"

    def _when(self) -> str:
        return "" if self.retry_after is None else f"; retry after {_seconds(self.retry_after)}"


@define(eq=False, repr=False, slots=False)
class CircuitOpenError(RejectedError):
    """The circuit is open (or half open with all its slots for trials taken).

    `name` is the breaker's, `key` the value of a keyed breaker's key (None for a plain one), and
    `model` the same where the key is the argument "model": no other key is in the text or the repr.
    `__cause__` is the failure that opened the circuit, where there was one.
    """

    name: str | None = None
    key: Any = field(default=None, repr=False)
    model: str | None = None

    def __str__(self) -> str:
        circuit = "circuit" if self.name is None else f"circuit {self.name!r}"
        model = "" if self.model is None else f" for {self.model!r}"
        return f"{circuit}{model} is open{self._when()}"


@define(eq=False, repr=False, slots=False)
class BulkheadFullError(RejectedError):
    """The bulkhead's `limit` calls are under way, and none ended in time for this one.

    `waiting` calls were in its queue; `waited` is how many seconds this one was, 0 where the queue
    was full. `name` is the bulkhead's, `key` the value of its key (None without one), and `model`
    the same where the key is the argument "model": no other key is in the text or the repr.
    """

    name: str | None = None
    key: Any = field(default=None, repr=False)
    model: str | None = None
    limit: int = 0
    waiting: int = 0
    waited: float = 0.0

    def __str__(self) -> str:
        bulkhead = "bulkhead" if self.name is None else f"bulkhead {self.name!r}"
        model = "" if self.model is None else f" for {self.model!r}"
        waited = f"; waited {self.waited:.3g} s" if self.waited >= 0.001 else ""
        return f"{bulkhead}{model} is full: {self.limit} under way, {self.waiting} waiting{waited}"


@define(eq=False, repr=False, slots=False)
class RateLimitExceededError(RejectedError):
    """A `RateLimit` or a `Hold` would let the call through only after its deadline, or later than
    it may wait.

    `name` is the policy's; `model` the model whose limit it is, where the policy's key is the
    argument "model". `__cause__` is the error by which a server told a `Hold` to stay away.
    """

    name: str | None = None
    model: str | None = None

    def __str__(self) -> str:
        limit = "rate limit" if self.name is None else f"rate limit {self.name!r}"
        model = "" if self.model is None else f" for {self.model!r}"
        return f"{limit}{model} exceeded{self._when()}"


@define(eq=False, repr=False, slots=False)
class WorkersBusyError(RejectedError):
    """No worker thread is free, so a sync call with a time limit could not be started.

    `workers` is how many are running. If the system could not start another thread, `__cause__`
    is its error.
    """

    workers: int = 0

    def __str__(self) -> str:
        if self.__cause__ is not None:
            return f"no worker thread could be started ({self.workers} are running)"
        return f"no worker thread is free for a call with a time limit ({self.workers} are busy)"


@define(eq=False, repr=False, slots=False)
class SpendLimitExceededError(RejectedError):
    """An attempt that may cost `most` could bring what is spent in `per` seconds to more than the
    `limit`, of which `spent` is gone or reserved for attempts under way.

    `name` is the policy's, `key` the value of its key, and `model` the same where the key is the
    argument "model".
    """

    name: str | None = None
    key: Any = field(default=None, repr=False)
    model: str | None = None
    limit: float = 0.0
    per: float = 0.0
    spent: float = 0.0
    most: float = 0.0

    def __str__(self) -> str:
        limit = "spend limit" if self.name is None else f"spend limit {self.name!r}"
        model = "" if self.model is None else f" for {self.model!r}"
        return (
            f"{limit}{model} of {self.limit:.6g} in {self.per:.6g} s: {self.spent:.6g} is spent or "
            f"reserved, and this attempt may cost {self.most:.6g}{self._when()}"
        )


@define(eq=False, repr=False, slots=False)
class DeadlineExceededError(ResilienceError, TimeoutError):
    """A `Timeout` of `seconds` ran out while the call was under way."""

    seconds: float = 0.0

    def __str__(self) -> str:
        return f"no answer within {_seconds(self.seconds)}"


@define(eq=False, repr=False, slots=False)
class BadResultError(ResilienceError):
    """A check of `BadResult` rejected the function's result.

    `failure` says what the result means, as `describe` does for an error. `result` is None once
    another attempt has been made. It is not part of the error's text, and not of its pickle if it
    cannot be pickled.
    """

    result: Any = field(default=None, repr=False)
    failure: Any = None
    given_back: bool = field(default=False, repr=False)
    """Whether the result is returned where nothing helps, rather than this raised."""

    def __str__(self) -> str:
        what = "" if self.failure is None else f": {self.failure.code or self.failure.kind}"
        return f"a check rejected the result{what}"

    def __reduce__(self) -> tuple[Any, ...]:
        _, _, facts = super().__reduce__()
        if getattr(self.failure, "error", None) is not None:
            facts["failure"] = evolve(self.failure, error=None)
        if not _pickles(self.result):
            facts["result"] = None
        return type(self), (), facts

    def __copy__(self) -> BadResultError:
        made = type(self)()
        made.__dict__.update(self.__dict__)
        return made


@define(eq=False, repr=False, slots=False)
class StreamInterruptedError(ResilienceError):
    """A stream broke off after content had been read, or ended without being complete.

    `received` holds its items (the last 10,000 of a long stream), `text` their text where it is
    known. `__cause__` is the error that the SDK raised, if any. The error's own text contains
    neither; items that cannot be pickled are not part of its pickle.
    """

    received: tuple[Any, ...] = field(default=(), repr=False)
    text: str = field(default="", repr=False)

    def __str__(self) -> str:
        cause = self.__cause__
        why = "it ended before it was complete" if cause is None else type(cause).__name__
        count = len(self.received)
        return f"the stream broke off after {count} item{'s' if count != 1 else ''}: {why}"

    def __reduce__(self) -> tuple[Any, ...]:
        received = self.received if _pickles(self.received) else ()
        return type(self), (received, self.text), dict(self.__dict__, received=received)


@define(eq=False, repr=False, slots=False)
class BatchStoppedError(ResilienceError):
    """A batch was stopped before this call was made, or while it was `under_way`.

    `__cause__` is the error that stopped the batch, where it was one of `stop_on`.
    """

    under_way: bool = False

    def __str__(self) -> str:
        when = "while this call was under way" if self.under_way else "before this call was made"
        return f"the batch was stopped {when}"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 999.5 else f"{value:.0f} s"


def _pickles(value: object) -> bool:
    import pickle

    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
