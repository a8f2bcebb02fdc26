"""Which attempt is under way, and which model answered: for code inside or after a call."""

from __future__ import annotations

from contextvars import ContextVar

from .around import around
from .attempt import Attempt

__all__ = ["current_attempt", "note", "served_by"]

_served: ContextVar[str | None] = ContextVar("resilience_served", default=None)
_FIRST = Attempt()


def note(model: str | None) -> None:
    """A call with a model chain has been answered."""
    _served.set(model)


def current_attempt() -> Attempt:
    """The attempt under way, for code inside a guarded function.

    A healthy call's first attempt carries nothing but its number, 1; that is also what comes
    outside of any guarded function.
    """
    surroundings = around.get()
    record = surroundings.call if surroundings is not None else None
    return record.seen(record.tries[-1]) if record is not None and record.tries else _FIRST


def served_by() -> str | None:
    """The model that answered the last call with a `ModelFallback` in this thread or task.

    Inside the guarded function: the model of the attempt under way. None where no such call was
    made. A call that ran in a task of its own is known in that task only; its `Outcome` has the
    same fact.
    """
    surroundings = around.get()
    record = surroundings.call if surroundings is not None else None
    if record is not None and record.tries:
        return record.tries[-1].model
    return _served.get()
