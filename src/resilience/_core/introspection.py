"""Which attempt is under way, and which model answered: for code inside or after a call."""

from __future__ import annotations

from .attempt import Attempt
from .call import attempt_of
from .context import get_ambient, served

__all__ = ["current_attempt", "served_by"]

_FIRST = Attempt()


def current_attempt() -> Attempt:
    """The attempt under way, for code inside a guarded function.

    A healthy call's first attempt carries nothing but its number, 1; that is also what comes
    outside of any guarded function.
    """
    return _under_way() or _FIRST


def served_by() -> str | None:
    """The model that answered the last call with a `ModelFallback` in this thread or task.

    Inside the guarded function: the model of the attempt under way. None where no such call was
    made. A call that ran in a task of its own is known in that task only; its `Outcome` has the
    same fact.
    """
    attempt = _under_way()
    return served.get() if attempt is None else attempt.model


def _under_way() -> Attempt | None:
    here = get_ambient()
    call = None if here is None else here.attempt
    return attempt_of(call) if call is not None and call.branch.number else None
