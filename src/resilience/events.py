"""One frozen record for each thing that happens in a call, for a pipeline's listeners.

A listener is a function of one event. It runs in the calling thread or task, outside every lock;
if it raises, the call does not notice (the error goes to the `resilience` logger). No event holds
the call's arguments or its result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from attrs import field, frozen

from ._core.attempt import Attempt

__all__ = ["AttemptEnded", "CallEnded", "Event", "Listener", "WaitBegan"]


def _class_of(error: Exception | None) -> str:
    return "None" if error is None else f"<{type(error).__qualname__}>"


@frozen
class AttemptEnded:
    """An attempt has succeeded, failed, or been cut by a time limit."""

    pipeline: str | None
    attempt: Attempt


@frozen
class WaitBegan:
    """`seconds` will be waited before the next attempt, after the attempt given."""

    pipeline: str | None
    attempt: Attempt
    seconds: float


@frozen
class CallEnded:
    """The call is over, with a value (`error` is None) or with the error that comes out."""

    pipeline: str | None
    attempts: tuple[Attempt, ...]
    elapsed: float
    served_by: str | None
    degraded: bool
    error: Exception | None = field(repr=_class_of)  # its text may hold a secret


Event: TypeAlias = "AttemptEnded | WaitBegan | CallEnded"
Listener: TypeAlias = "Callable[[Event], object]"
