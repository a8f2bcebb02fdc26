"""What happened in a call, instead of only its value."""

from __future__ import annotations

from typing import Generic, TypeVar

from attrs import frozen

from .attempt import Attempt

__all__ = ["Outcome"]

T = TypeVar("T")


@frozen
class Outcome(Generic[T]):
    """A call's value or its error, never both, and how it came about.

    `served_by` is the model that answered, `degraded` whether something other than the first
    choice did (a later model, a fallback). `elapsed` is in seconds.
    """

    value: T | None = None
    error: Exception | None = None
    attempts: tuple[Attempt, ...] = ()
    served_by: str | None = None
    degraded: bool = False
    elapsed: float = 0.0
