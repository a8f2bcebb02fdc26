"""One frozen record for each thing that happens in a call, for a pipeline's listeners.

A listener is a function of one event. It runs in the calling thread or task, outside every lock;
if it raises, the call does not notice (the error goes to the `resilience` logger). No event holds
the call's arguments or its result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

from attrs import frozen

from ._core.attempt import Attempt

__all__ = ["AttemptEnded", "CallEnded", "Event", "Listener", "WaitBegan", "announcer"]


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
    error: Exception | None


Event: TypeAlias = "AttemptEnded | WaitBegan | CallEnded"
Listener: TypeAlias = "Callable[[Event], object]"


def announcer(listeners: Sequence[Listener]) -> Callable[[Event], None] | None:
    """A function that tells every listener, or None where nobody listens."""
    if not listeners:
        return None

    def announce(event: Event) -> None:
        for listener in listeners:
            try:
                listener(event)
            except Exception as problem:
                # Not its traceback: that would bring along the call's own error, and its text.
                logging.getLogger("resilience").error(
                    "a listener raised %s", type(problem).__name__
                )

    return announce
