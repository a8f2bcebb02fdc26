"""An attempt, as data."""

from __future__ import annotations

from datetime import datetime

from attrs import field, frozen

from .failure import Failure
from .options import Value

__all__ = ["Attempt"]


# Without slots a frozen value is made in a third of the time.
@frozen(eq=False, repr=False, slots=False)
class Attempt(Value):
    """One try of the guarded function.

    `number` counts from 1 over the whole call, models and nested pipelines included; `started` is
    seconds after the call began; `waited` the seconds waited just before it; `failure` is None for
    an attempt that succeeded (or is still under way, where `duration` is None as well).
    `retry_at` is the time (aware, UTC) at which the server asked to be called again, if it did.
    `key` is the call's idempotency key, the same for all its attempts, if it has one.
    """

    number: int = 1
    started: float = 0.0
    duration: float | None = None
    model: str | None = None
    failure: Failure | None = None
    waited: float = 0.0
    retry_at: datetime | None = None
    key: str | None = field(default=None, repr=False)
