"""What an error means, as a value: `Failure`, its `Kind` and its `Advice`."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, final

from attrs import field, fields, frozen

from .options import Value, to_seconds

__all__ = ["Advice", "Failure", "Kind", "kind_text"]


class _Word(str, Enum):
    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __str__(self) -> str:
        return str.__str__(self.value)


@final
class Advice(_Word):
    """What to do about it."""

    RETRY = "retry"
    """The same call may work when repeated."""
    WAIT = "wait"
    """As RETRY, but no earlier than `retry_after` (without one: after the backoff)."""
    FALLBACK = "fallback"
    """Another model may do, this one will not."""
    STOP = "stop"
    """Nobody but the caller can put it right."""


@final
class Kind(_Word):
    """What happened; `advice` is what is usually done about it."""

    _value_: str
    advice: Advice

    def __new__(cls, word: str, advice: Advice) -> Kind:
        kind = str.__new__(cls, word)
        kind._value_ = word
        kind.advice = advice
        return kind

    CONNECTION = "connection", Advice.RETRY
    TIMEOUT = "timeout", Advice.RETRY
    RATE_LIMIT = "rate_limit", Advice.WAIT
    QUOTA = "quota", Advice.STOP
    UNAVAILABLE = "unavailable", Advice.WAIT
    OVERLOADED = "overloaded", Advice.WAIT
    SERVER = "server", Advice.RETRY
    AUTH = "auth", Advice.STOP
    PERMISSION = "permission", Advice.STOP
    INVALID = "invalid", Advice.STOP
    NOT_FOUND = "not_found", Advice.FALLBACK
    CONTEXT_LENGTH = "context_length", Advice.FALLBACK
    CONTENT_FILTER = "content_filter", Advice.STOP
    UNSUPPORTED = "unsupported", Advice.FALLBACK
    CONFLICT = "conflict", Advice.STOP
    CANCELLED = "cancelled", Advice.STOP
    REJECTED = "rejected", Advice.RETRY
    """One of our own policies rejected the call."""
    UNKNOWN = "unknown", Advice.RETRY


_KIND_TEXTS = {
    Kind.CONNECTION: "connection error",
    Kind.SERVER: "server error",
    Kind.AUTH: "authentication failed",
    Kind.PERMISSION: "permission denied",
    Kind.INVALID: "invalid request",
    Kind.UNKNOWN: "unknown error",
}
"""Those whose own word says too little by itself."""


def kind_text(kind: Kind) -> str:
    """A kind in words."""
    return _KIND_TEXTS.get(kind) or kind.value.replace("_", " ")


# Without slots a frozen value is made in two thirds of the time.
@final
@frozen(eq=False, repr=False, slots=False)
class Failure(Value):
    """An exception, read. Values compare by what they say; `error` takes no part in that."""

    kind: Kind
    advice: Advice
    status: int | None = field(default=None, kw_only=True)
    """The HTTP status; None where there was none (a connection that failed)."""
    code: str | None = field(default=None, kw_only=True)
    """The server's machine-readable code, such as "upstream_error"."""
    type: str | None = field(default=None, kw_only=True)
    """The server's class of error, such as "rate_limit_error"."""
    retry_after: float | None = field(default=None, kw_only=True)
    """Seconds that the server asked to be left alone for; finite, and 0 or more."""
    reset_after: float | None = field(default=None, kw_only=True)
    """Seconds until the rate limit is full again, by the reset headers, where there is no
    `retry_after`. More than one request needs: only `RetryAfter(resets=True)` waits by it."""
    request_id: str | None = field(default=None, kw_only=True)
    provider: str | None = field(default=None, kw_only=True)
    """Who failed behind a gateway, where the gateway says so."""
    sdk: str | None = field(default=None, kw_only=True)
    """The package whose exception this is; None for the standard library's and unknown ones."""
    retry_limit: int | None = field(default=None, kw_only=True)
    """How many retries are worth it at most; None leaves that to the policy."""
    sent: bool | None = field(default=None, kw_only=True)
    """Might the request have been executed? None where nobody can tell."""
    elsewhere: bool | None = field(default=None, kw_only=True)
    """May another model help? False where a rate limit is the account's own and holds for all."""
    error: Exception | None = field(default=None, kw_only=True, eq=False)

    @classmethod
    def _of(cls, facts: dict[str, Any]) -> Failure:
        """A failure of facts that were checked already, all of them given: for readers that make
        one from a table, at a third of the cost."""
        failure = object.__new__(cls)
        failure.__dict__.update(facts)
        return failure

    def _without_error(self) -> Failure:
        """The same, without what keeps frames alive."""
        failure = object.__new__(Failure)
        failure.__dict__.update(self.__dict__, error=None)
        return failure

    def __attrs_post_init__(self) -> None:
        # By hand: a validator for each would make a failure twice as dear.
        if type(self.kind) is not Kind:
            raise TypeError(f"kind must be a Kind, got {self.kind!r}")
        if type(self.advice) is not Advice:
            raise TypeError(f"advice must be an Advice, got {self.advice!r}")
        if self.retry_after is not None:
            _check_seconds("retry_after", self.retry_after)
        if self.reset_after is not None:
            _check_seconds("reset_after", self.reset_after)

    def __repr__(self) -> str:
        # The error's own text may raise, be endless or hold a secret: only its class is shown.
        facts = {item.name: getattr(self, item.name) for item in fields(Failure)}
        error = facts.pop("error")
        shown = [f"{name}={value!r}" for name, value in facts.items() if value is not None]
        if error is not None:
            shown.append(f"error=<{type(error).__qualname__}>")
        return f"Failure({', '.join(shown)})"


def _check_seconds(name: str, value: float) -> None:
    if not (type(value) is float and 0.0 <= value < math.inf):
        to_seconds(name, value, positive=False)
