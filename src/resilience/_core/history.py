"""What a call's error carries with it: the attempts that were made, and one note that tells them.

Kept in the exception's own `__dict__`, which every exception has, frozen and slotted ones too. An
exception that refuses even that passes unmarked; nothing here ever raises.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from attrs import Factory, define, evolve

from .attempt import Attempt
from .world import monotonic

if TYPE_CHECKING:
    from .record import Record

__all__ = ["charge", "charged_since", "history", "remember", "spend", "spent_since"]

_KEY = "__resilience__"


@define(eq=False)
class _Mark:
    attempts: tuple[Attempt, ...] = ()
    own: frozenset[int] = frozenset()  # numbers of the attempts that failed with this very error
    note: str | None = None
    spent: float | None = None  # when a Retry gave up on it, on the real clock
    charged: dict[int, float] = Factory(dict)  # when which circuit counted it

    def __reduce__(self) -> Any:
        # Failures hold SDK errors, and most of those do not pickle: the facts travel, they do not.
        attempts = tuple(_without_error(attempt) for attempt in self.attempts)
        return _Mark, (attempts, frozenset(), self.note, self.spent)


def history(error: Exception) -> tuple[Attempt, ...]:
    """The attempts behind an error that came out of a guarded call, in order; else empty.

    Each has its failure; the failures' `error` are the exceptions themselves.
    """
    mark = _mark(error)
    if mark is None:
        return ()
    return tuple(
        evolve(attempt, failure=evolve(attempt.failure, error=error))
        if attempt.number in mark.own and attempt.failure is not None
        else attempt
        for attempt in mark.attempts
    )


def spend(error: Exception) -> None:
    """Note that a Retry has used up its attempts on this error."""
    mark = _mark(error, make=True)
    if mark is not None:
        mark.spent = monotonic()


def spent_since(error: Exception, since: float) -> bool:
    """Whether a Retry further in has used up its attempts on this error, in this attempt."""
    mark = _mark(error)
    return mark is not None and mark.spent is not None and mark.spent >= since


def charge(error: Exception, circuit: object) -> None:
    """Note that a circuit has counted this error."""
    mark = _mark(error, make=True)
    if mark is not None:
        mark.charged[id(circuit)] = monotonic()


def charged_since(error: Exception, circuit: object, since: float) -> bool:
    """Whether the circuit has counted this error already, further in, in this attempt."""
    mark = _mark(error)
    return mark is not None and mark.charged.get(id(circuit), -math.inf) >= since


def remember(error: Exception, record: Record) -> None:
    """Give the error its history and its note; those of a pipeline further in are replaced."""
    mark = _mark(error, make=True)
    if mark is None or (mark.attempts and not record.adds() and spent_since(error, record.since)):
        return  # nothing to add to what a pipeline further in has told
    # The error itself is left out of its own history: a cycle would keep its frames alive.
    attempts = record.attempts
    mark.own = frozenset(a.number for a in attempts if a.failure and a.failure.error is error)
    mark.attempts = tuple(_without_error(a) if a.number in mark.own else a for a in attempts)
    _note(error, mark, record.account())


def _without_error(attempt: Attempt) -> Attempt:
    if attempt.failure is None:
        return attempt
    return evolve(attempt, failure=evolve(attempt.failure, error=None))


def _mark(error: BaseException, *, make: bool = False) -> _Mark | None:
    try:
        facts = BaseException.__dict__["__dict__"].__get__(error)
        mark = facts.get(_KEY)
        if mark is None and make:
            mark = facts[_KEY] = _Mark()
    except Exception:
        return None
    return mark if isinstance(mark, _Mark) else None


def _note(error: Exception, mark: _Mark, note: str | None) -> None:
    try:
        facts = BaseException.__dict__["__dict__"].__get__(error)
        notes = facts.get("__notes__")
        kept = [n for n in notes if n is not mark.note and n != mark.note] if notes else []
        if note is not None:
            kept.append(note)
        if kept or notes:
            facts["__notes__"] = kept
        mark.note = note
    except Exception:
        return
