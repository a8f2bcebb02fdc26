"""What happened in a call, instead of only its value."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from attrs import frozen

from resilience.errors import BadResultError

from .attempt import Attempt

__all__ = ["Outcome"]

T = TypeVar("T")


@frozen
class Outcome(Generic[T]):
    """A call's value or its error, and how it came about: both only for a bad result that is given
    back.

    `served_by` is the model that answered, `degraded` whether something other than the first
    choice did (a later model, a fallback). `elapsed` is in seconds.
    """

    value: T | None = None
    error: Exception | None = None
    attempts: tuple[Attempt, ...] = ()
    served_by: str | None = None
    degraded: bool = False
    elapsed: float = 0.0

    def unwrap(self) -> T:
        """What the call itself would have done: return the value, or raise the error."""
        error = self.error
        if error is None or (type(error) is BadResultError and error.given_back):
            return cast(T, self.value)
        raise error
