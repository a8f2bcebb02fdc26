"""What a call leaves: its events, its outcome; on its error the attempts made, and a note of them.

An error's mark is in its own `__dict__`, which every exception has, frozen and slotted ones too.
One that refuses even that passes unmarked; nothing here ever raises.

The mark is for people. Policies go by reports (`Call.reported`), with one exception: a call at rest
stands in nobody's context, so it learns afterwards what a guarded call inside it has reported: from
the latest report in its own thread or task, else, of a call in another one, by the mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NamedTuple
from weakref import ref

from attrs import evolve

from resilience.errors import BadResultError, RejectedError
from resilience.events import CallFailed, CallRecovered
from resilience.failures import Failure, describe

from .anatomy import cause_of, facts_of, traceback_of
from .attempt import Attempt
from .call import Journal
from .completion import Verdict
from .context import get_ambient
from .control_flow import control_flow_in
from .emitter import Emitter
from .outcome import Outcome
from .results import PLAIN, completion_of, reading_of
from .runtime import Runtime
from .signals import Carried, Report

__all__ = ["cut_short", "ended", "history", "raised", "reported_inside", "returned"]

_KEY = "__resilience__"
_SHOWN = 8  # attempts in a note, half of them the first ones


class _Mark:
    """What the last guarded call that the error came out of has left; one for each error."""

    __slots__ = ("attempts", "circuits", "exhausted", "guard", "note", "own", "serial")

    def __init__(
        self,
        attempts: tuple[Attempt, ...],
        own: frozenset[int],
        note: str | None,
        serial: int = 0,
        guard: Any = None,
        exhausted: bool = False,
        circuits: tuple[object, ...] = (),
    ) -> None:
        self.attempts = attempts
        self.own = own  # numbers of the attempts that failed with this very error
        self.note = note
        self.serial = serial
        self.guard = guard
        self.exhausted = exhausted
        self.circuits = circuits

    def __reduce__(self) -> Any:
        # Failures hold SDK errors, and most of those do not pickle: the facts travel, they do not.
        return _Mark, (tuple(map(_without_error, self.attempts)), frozenset(), self.note)


class _Latest(NamedTuple):
    """What the latest call has reported that came out to nobody; the error by its `id`, as its
    traceback would keep frames alive."""

    error: int
    serial: int
    exhausted: bool
    circuits: tuple[object, ...]


_latest: ContextVar[_Latest | None] = ContextVar("resilience_latest", default=None)


def history(error: Exception) -> tuple[Attempt, ...]:
    """The attempts behind an error that came out of a guarded call, in order; else empty.

    Each has its failure; the failures' `error` are the exceptions themselves.
    """
    mark = _mark_of(error)
    if mark is None:
        return ()
    return tuple(
        evolve(attempt, failure=evolve(attempt.failure, error=error))
        if attempt.number in mark.own and attempt.failure is not None
        else attempt
        for attempt in mark.attempts
    )


# How a call ends


def ended(journal: Journal, runtime: Runtime) -> None:
    """The chain has given a result that is settled, and that comes out as it is."""
    _publish(journal, runtime, None)
    journal.close()


def returned(journal: Journal, runtime: Runtime, outcome: bool) -> None:
    """The chain has given `journal.result`: what is done then, and what stands for it."""
    result = journal.result
    pending = None if type(result) in PLAIN else completion_of(result)
    if pending is None:
        _publish(journal, runtime, None)
    if outcome:
        journal.result = _outcome(journal, runtime, result, None)
    if pending is None:
        journal.close()
    else:  # the call has not ended yet
        reading = reading_of(result)
        stream = None if reading is None else ref(reading)
        pending.then(lambda verdict: _settled(journal, runtime, verdict, stream))


def raised(journal: Journal, runtime: Runtime, error: Exception, outcome: bool) -> Exception | None:
    """The chain has raised: the error that comes out, or None where `journal.result` stands for
    it, an `Outcome` or a bad result that is given back."""
    final = journal.own(error)
    own = final.error if type(final) is Carried else final
    _finish(journal, own)
    _publish(journal, runtime, own)
    if type(own) is BadResultError and own.given_back:
        journal.result = own.result
        if outcome:
            journal.result = _outcome(journal, runtime, own.result, own)
    elif outcome:
        journal.result = _outcome(journal, runtime, None, own)
    else:
        journal.close()
        return final
    journal.close()
    return None


def cut_short(journal: Journal, runtime: Runtime, error: BaseException | None = None) -> None:
    """The call was cancelled or interrupted; or (no error) what it has returned is yet to begin,
    and that is a call of its own."""
    if journal.keeps:
        emit: Emitter = journal.guard.emit
        if journal.withdrawn:
            emit.not_begun_again(journal)
        for attempt in journal.interrupted:
            emit.attempt_ended(journal, attempt, interrupted=True)
        now = runtime.now()
        emit.call_ended(journal, now - (journal.began or now), error)
    journal.close()


def _outcome(
    journal: Journal, runtime: Runtime, value: object, error: Exception | None
) -> Outcome[object]:
    succeeded = error is None
    return Outcome(
        value,
        error,
        tuple(journal.attempts),
        journal.answerer if succeeded else None,
        journal.degraded and succeeded,
        runtime.now() - (journal.began or runtime.now()),
    )


def _publish(journal: Journal, runtime: Runtime, error: Exception | None) -> None:
    emit: Emitter = journal.guard.emit
    attempts = journal.attempts
    if not attempts and not journal.keeps and (error is None or isinstance(error, RejectedError)):
        return  # nothing is recorded, and nobody listens
    now = runtime.now()
    elapsed = now - (journal.began or now)
    if journal.withdrawn:
        emit.not_begun_again(journal)
    try:
        if error is not None:
            if emit.listened[CallFailed]:
                _publish_failure(journal, elapsed, error)
        elif attempts and (attempts[0].failure or len(attempts) > 1) and not journal.fell_back:
            emit.publish(
                CallRecovered,
                journal,
                attempts=tuple(attempts),
                elapsed=elapsed,
                served_by=journal.answerer,
            )
    finally:  # also after Ctrl-C in a listener
        if journal.keeps:
            emit.call_ended(journal, elapsed, error)


def _publish_failure(journal: Journal, elapsed: float, error: Exception) -> None:
    emit: Emitter = journal.guard.emit
    if not emit.listeners(CallFailed) or control_flow_in(error):
        return
    if not journal.attempts and isinstance(error, RejectedError):
        return  # that was `CallRejected`
    emit.publish(
        CallFailed,
        journal,
        failure=_failure(journal, error),
        attempts=tuple(journal.attempts),
        elapsed=elapsed,
        reason=journal.reason,
    )


def _failure(journal: Journal, error: Exception) -> Failure:
    for attempt in reversed(journal.attempts):
        if attempt.failure is not None and attempt.failure.error is error:
            return attempt.failure
    return describe(error)


def _settled(journal: Journal, runtime: Runtime, verdict: Verdict, stream: Any) -> None:
    """The result of a call is settled, later than it was returned."""
    error = verdict if isinstance(verdict, Exception) else None
    reading = None if stream is None else stream()
    if error is not None and reading is not None and reading.error is not None:
        error = reading.error  # what the consumer gets
    _publish(journal, runtime, error)
    if reading is not None:
        reading.outcome = _outcome(journal, runtime, None, reading.error or error)
        if reading.error is not None:
            _finish(journal, reading.error)
    journal.close()


def _finish(journal: Journal, error: Exception) -> None:
    """What a call leaves whose error comes out: a report to the attempt that it was made in; and on
    the error its history and its note, which replace those of a call further in."""
    attempts = journal.attempts
    if not attempts and not journal.reports:
        return  # rejected: nothing ran
    exhausted = False
    circuits: tuple[object, ...] = ()
    for report in journal.reports:
        if report.error is error:
            exhausted = exhausted or report.exhausted
            circuits = (*circuits, *report.circuits)
    outer = get_ambient()
    if outer is not None and outer.attempt is not None:
        outer.attempt.report(error, exhausted=exhausted, circuits=circuits)
    else:
        _latest.set(_Latest(id(error), journal.serial, exhausted, circuits))
    _mark(journal, error, exhausted, circuits)


def _mark(
    journal: Journal, error: Exception, exhausted: bool, circuits: tuple[object, ...]
) -> None:
    attempts = journal.attempts
    try:
        facts = facts_of(error)
        old = facts.get(_KEY)
        if old is not None and type(old) is not _Mark:
            return
        if old is not None and exhausted and not _adds(journal):
            # Nothing to add to what a call further in has noted.
            old.serial, old.guard, old.exhausted = journal.serial, journal.guard, True
            old.circuits = circuits
            return
        # The error itself is left out of its own history: a cycle would keep its frames alive.
        own: set[int] = set()
        kept: list[Attempt] = []
        for attempt in attempts:
            if attempt.failure is not None and attempt.failure.error is error:
                own.add(attempt.number)
                attempt = _without_error(attempt)
            kept.append(attempt)
        facts[_KEY] = mark = _Mark(
            tuple(kept),
            frozenset(own),
            _account(journal),
            journal.serial,
            journal.guard,
            exhausted,
            circuits,
        )
        _replace_note(facts, None if old is None else old.note, mark.note)
    except Exception:
        return


def reported_inside(error: Exception, serial: int, guard: Any) -> tuple[Report, ...]:
    """What a guarded call inside a call at rest has reported of its error, or of the one that it
    was raised from: one with a younger number than when the call began.

    One exception object may be raised by several threads in the same function; whether a mark by
    that very function is from further in (it is recursive) is seen in the traceback.
    """
    latest = _latest.get()
    for known in (error, cause_of(error)):
        mark = None if known is None else _mark_of(known)
        if mark is None:
            continue
        if latest is not None and latest.error == id(known) and latest.serial > serial:
            return (Report(1, error, latest.exhausted, latest.circuits),)
        if mark.serial > serial and (not _same(mark.guard, guard) or _passed(error, guard)):
            return (Report(1, error, mark.exhausted, mark.circuits),)
    return ()


def _same(one: Any, other: Any) -> bool:
    return one is other or (
        one is not None and one.pipeline is other.pipeline and one.fn == other.fn
    )


def _passed(error: Exception, guard: Any) -> bool:
    """Whether the error came up through a call of this guard, in a chain of calls that leads down
    from the outermost frame of its traceback."""
    trace: TracebackType | None = traceback_of(error)
    above = None
    while trace is not None:
        frame = trace.tb_frame
        if above is not None:
            if frame.f_back is not above:
                return False
            if frame.f_locals.get("guard") is guard:
                return True
        above, trace = frame, trace.tb_next
    return False


def _without_error(attempt: Attempt) -> Attempt:
    assert attempt.failure is not None
    return evolve(attempt, failure=attempt.failure._without_error())


def _mark_of(error: BaseException) -> _Mark | None:
    mark = facts_of(error).get(_KEY)
    return mark if type(mark) is _Mark else None


def _replace_note(facts: dict[str, Any], old: str | None, new: str | None) -> None:
    notes: Sequence[str] | None = facts.get("__notes__")
    kept = [note for note in notes if note != old] if notes else []
    if new is not None:
        kept.append(new)
    if kept or notes:
        facts["__notes__"] = kept


def _adds(journal: Journal) -> bool:
    """Whether there is more to say than one attempt and its error."""
    return len(journal.attempts) > 1 or bool(journal.remarks) or journal.rejection is not None


def _account(journal: Journal) -> str | None:
    """The call in one line, without arguments or messages; None if there is nothing to add."""
    if not _adds(journal):
        return None
    shown = list(map(_shown, journal.attempts))
    if len(shown) > _SHOWN:
        shown[_SHOWN // 2 : -_SHOWN // 2] = ["..."]
    made = journal.numbers
    count = f"{made} attempt{'s' if made != 1 else ''} ({', '.join(shown)})"
    parts = [f"resilience: {count if shown else 'no attempt'}"]
    if journal.rejection is not None:
        parts.append(f"then {journal.rejection}")
    return "; ".join([*parts, *journal.remarks])


def _shown(attempt: Attempt) -> str:
    failure = attempt.failure
    what = "ok" if failure is None else failure.code or failure.status or failure.kind.value
    model = f"{attempt.model}: " if attempt.model else ""
    waited = f" after {attempt.waited:.3g} s" if attempt.waited else ""
    return f"{model}{what}{waited}"
