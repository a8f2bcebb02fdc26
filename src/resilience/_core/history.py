"""What a call's error carries with it: the attempts that were made, and one note that tells them.

Kept in the exception's own `__dict__`, which every exception has, frozen and slotted ones too. An
exception that refuses even that passes unmarked; nothing here ever raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import Factory, define, evolve, frozen

from resilience._runtimes.loops import here

from .attempt import Attempt
from .note import account, adds
from .world import monotonic

if TYPE_CHECKING:
    from .record import Record

__all__ = ["charge", "charged_inside", "history", "remember", "spend", "spent_inside"]

_KEY = "__resilience__"


@frozen
class _Stamp:
    """When, on the real clock, and in which call: one exception object may fail many calls."""

    at: float
    calls: tuple[int, ...]
    where: tuple[int, int]

    @classmethod
    def of(cls, record: Record) -> _Stamp:
        return cls(monotonic(), record.calls, here())

    def inside(self, record: Record) -> bool:
        """Whether that was in the attempt that `record` is making. A call begun at rest has no
        record yet while it runs; then it is told by its thread and task."""
        return self.at >= record.since and (record.calls[0] in self.calls or self.where == here())


@define(eq=False)
class _Mark:
    attempts: tuple[Attempt, ...] = ()
    own: frozenset[int] = frozenset()  # numbers of the attempts that failed with this very error
    note: str | None = None
    spent: _Stamp | None = None  # when and where a Retry gave up on it
    charged: dict[int, _Stamp] = Factory(dict)  # when and where which circuit counted it

    def __reduce__(self) -> Any:
        # Failures hold SDK errors, and most of those do not pickle: the facts travel, they do not.
        attempts = tuple(_without_error(attempt) for attempt in self.attempts)
        return _Mark, (attempts, frozenset(), self.note)


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


def spend(error: Exception, record: Record) -> None:
    """Note that a Retry has used up its attempts on this error."""
    mark = _mark(error, make=True)
    if mark is not None:
        mark.spent = _Stamp.of(record)


def spent_inside(error: Exception, record: Record) -> bool:
    """Whether a Retry further in has used up its attempts on this error, in this attempt."""
    mark = _mark(error)
    return mark is not None and mark.spent is not None and mark.spent.inside(record)


def charge(error: Exception, circuit: object, record: Record) -> None:
    """Note that a circuit has counted this error."""
    mark = _mark(error, make=True)
    if mark is not None:
        mark.charged[id(circuit)] = _Stamp.of(record)


def charged_inside(error: Exception, circuit: object, record: Record) -> bool:
    """Whether the circuit has counted this error already, further in, in this attempt."""
    mark = _mark(error)
    stamp = mark.charged.get(id(circuit)) if mark is not None else None
    return stamp is not None and stamp.inside(record)


def remember(error: Exception, record: Record) -> None:
    """Give the error its history and its note; those of a pipeline further in are replaced."""
    mark = _mark(error, make=True)
    if mark is None or (mark.attempts and not adds(record) and spent_inside(error, record)):
        return  # nothing to add to what a pipeline further in has told
    # The error itself is left out of its own history: a cycle would keep its frames alive.
    attempts = record.attempts
    mark.own = frozenset(a.number for a in attempts if a.failure and a.failure.error is error)
    mark.attempts = tuple(_without_error(a) if a.number in mark.own else a for a in attempts)
    _note(error, mark, account(record))


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
        kept = [n for n in notes if n != mark.note] if notes else []
        if note is not None:
            kept.append(note)
        if kept or notes:
            facts["__notes__"] = kept
        mark.note = note
    except Exception:
        return
