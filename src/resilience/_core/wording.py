"""The lines of the log: of which events, at which level; the text of each, and its facts.

Names, codes and ids are cut, and kept on one line: callers and servers choose them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from resilience.errors import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitExceededError,
    RejectedError,
    SpendLimitExceededError,
    StreamInterruptedError,
    WorkersBusyError,
)
from resilience.events import (
    CallDelayed,
    CallFailed,
    CallRecovered,
    CallRejected,
    CircuitChanged,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    Event,
    FellBack,
    HoldBegan,
    ModelLeft,
    ModelSkipped,
    StreamInterrupted,
    StreamRestarted,
    WaitBegan,
    WorkerAbandoned,
)

from .attempt import Attempt
from .failure import Failure, Kind, kind_text
from .listening import ByClass

__all__ = ["FACTS", "LEVELS", "Wording", "seconds_text"]

FACTS = (
    "error_type",
    "status_code",
    "code",
    "request_id",
    "model",
    "attempt",
    "wait",
    "pipeline",
    "function",
    "circuit",
)
"""What every record has."""

_LONGEST = 200
"""Characters of a name, a code or an id."""


class Wording:
    """The `text` and the `facts` for an event; with `texts`, those of exceptions as well."""

    def __init__(self, event: Any, *, texts: bool) -> None:
        self._texts = texts
        self.facts: dict[str, Any] = dict.fromkeys(FACTS)
        self._fact("pipeline", event.pipeline)
        self._fact("function", event.function)
        self._fact("model", event.__dict__.get("model"))
        text = _TEXTS[type(event)](self, event)
        name = event.pipeline or event.function
        self.text = _clean(text if name is None else f"{_short(name)}: {text}")

    # Each gives a text and, on the way, sets facts.

    def _waiting(self, event: WaitBegan) -> str:
        what = "rejected"
        if event.attempt is not None:
            why = self._attempt(event.attempt)
            what = f"attempt {event.attempt.number}{self._model()} failed with {why}"
        self.facts["wait"] = event.seconds
        return f"{what}; retrying in {seconds_text(event.seconds)}"

    def _failed(self, event: CallFailed) -> str:
        made = "no attempt"
        if event.attempts:
            made = _count(event.attempts[-1].number, "attempt")
            self._attempt(event.attempts[-1])
        why = self._why(event.failure)
        if self.facts["model"] is not None:
            why = f"{self.facts['model']} failed with {why}"
        reason = event.reason
        if reason == f"{event.failure.kind} is not retried":
            reason = "not retried"
        known = reason is None or reason.endswith((" attempt made", " attempts made"))
        because = "" if known else f"; {reason}"
        return f"gave up after {made} in {seconds_text(event.elapsed)}: {why}{because}"

    def _recovered(self, event: CallRecovered) -> str:
        last = event.attempts[-1]  # one that succeeded may not be recorded
        number = last.number + (last.failure is not None)
        self.facts["attempt"] = number
        self._fact("model", event.served_by)
        return f"recovered at attempt {number}{self._model()} after {seconds_text(event.elapsed)}"

    def _model_left(self, event: ModelLeft) -> str:
        why = self._why(event.failure)
        return f"{_short(event.model)} failed with {why}; trying {_short(event.to)}"

    def _model_skipped(self, event: ModelSkipped) -> str:
        why = self._rejection(event.error)
        if event.to == event.model:
            return f"waiting for {_short(event.model)}: {why}"
        return f"skipped {_short(event.model)}: {why}; trying {_short(event.to)}"

    def _fell_back(self, event: FellBack) -> str:
        error = event.failure.error
        if isinstance(error, RejectedError):
            return f"used the fallback: {self._rejection(error)}"
        return f"used the fallback: {self._why(event.failure)}"

    def _hold(self, event: HoldBegan) -> str:
        why = "" if event.failure is None else f" after {self._why(event.failure)}"
        self.facts["wait"] = event.seconds
        hold = f"{_named('hold', event.hold)}{self._model()} for {seconds_text(event.seconds)}"
        return f"{hold}{why or ', begun by another process'}"

    def _delayed(self, event: CallDelayed) -> str:
        self.facts["wait"] = event.seconds
        lasting = "" if event.seconds is None else f" {seconds_text(event.seconds)}"
        return f"waiting{lasting} for its turn in {event.policy}"

    def _rejected(self, event: CallRejected) -> str:
        return f"rejected: {self._rejection(event.error)}"

    def _interrupted(self, event: StreamInterrupted) -> str:
        why = self._why(event.failure)
        return f"stream{self._model()} cut after {_count(event.items, 'item')}: {why}"

    def _restarted(self, event: StreamRestarted) -> str:
        return f"restarting a stream that was cut after {_count(event.items, 'item')}"

    def _abandoned(self, _: WorkerAbandoned) -> str:
        return "ran past its time limit; its worker thread is busy until it returns"

    def _circuit(self, event: CircuitChanged) -> str:
        self._fact("circuit", event.circuit)
        name = _named("circuit", event.circuit) + self._model()
        if event.shadow:
            name += " in shadow (it rejects nothing)"
        if isinstance(event, CircuitOpened) and event.seconds is not None:
            why = "" if event.failure is None else f" after {self._why(event.failure)}"
            self.facts["wait"] = event.seconds
            return f"{name} opened for {seconds_text(event.seconds)}{why}"
        if isinstance(event, CircuitClosed):
            return f"{name} closed; it rejected {_count(event.rejected, 'call')}"
        if isinstance(event, CircuitHalfOpened):
            return f"{name} half open, letting trials through"
        if event.new == "isolated":
            return f"{name} isolated: it rejects every call until it is released"
        return f"{name} disabled: it lets every call through"

    # Parts of them

    def _attempt(self, attempt: Attempt) -> str:
        """Why an attempt has failed."""
        self.facts["attempt"] = attempt.number
        self._fact("model", attempt.model)
        return "" if attempt.failure is None else self._why(attempt.failure)

    def _why(self, failure: Failure) -> str:
        """A failure: its status and code, else its kind; and its details."""
        error = failure.error
        self._fact("error_type", None if error is None else type(error).__name__)
        self._fact("code", failure.code)
        self._fact("request_id", failure.request_id)
        self.facts["status_code"] = failure.status
        self.facts["wait"] = failure.retry_after
        words = [str(each) for each in (failure.status, self.facts["code"]) if each is not None]
        if not words and (failure.kind is not Kind.UNKNOWN or error is None):
            words = [kind_text(failure.kind)]
        if isinstance(error, DeadlineExceededError):
            words.append(f"after {seconds_text(error.seconds)}")
        details = ", ".join(self._details(failure))
        if details:
            words.append(f"({details})" if words else details)
        if self._texts and error is not None:
            words.append(f"- {_text_of(error)}")
        return " ".join(words)

    def _details(self, failure: Failure) -> Iterator[str]:
        error = failure.error
        if isinstance(error, StreamInterruptedError):
            cause = error.__cause__
            yield "it ended early" if cause is None else _short(type(cause).__name__)
        elif error is not None:
            yield _short(type(error).__name__)
        if failure.request_id is not None:
            yield f"request {self.facts['request_id']}"
        if failure.retry_after:
            yield f"retry after {seconds_text(failure.retry_after)}"

    def _rejection(self, error: RejectedError) -> str:
        """Why a policy has rejected a call."""
        self._fact("error_type", type(error).__name__)
        self.facts["wait"] = error.retry_after
        what = type(error).__name__
        if isinstance(error, CircuitOpenError):
            self._fact("circuit", error.name)
            what = f"{_named('circuit', error.name)} is open"
        elif isinstance(error, BulkheadFullError):
            calls = f"{error.limit} under way, {error.waiting} waiting"
            what = f"{_named('bulkhead', error.name)} is full ({calls})"
        elif isinstance(error, RateLimitExceededError):
            what = f"{_named('rate limit', error.name)} exceeded"
        elif isinstance(error, SpendLimitExceededError):
            sums = f"{error.spent:.6g} spent or reserved, {error.most:.6g} asked for"
            limit = _named("spend limit", error.name)
            what = f"{limit} of {error.limit:.6g} reached ({sums})"
        elif isinstance(error, WorkersBusyError):
            what = f"all {error.workers} worker threads are busy"
        asked = error.retry_after
        return what if asked is None else f"{what}, retry after {seconds_text(asked)}"

    def _model(self) -> str:
        model = self.facts["model"]
        return "" if model is None else f" ({model})"

    def _fact(self, name: str, value: str | None) -> None:
        if value is not None:
            self.facts[name] = _clean(_short(value))


_LINES: dict[type[Event], tuple[int, Callable[[Wording, Any], str]]] = {
    CallFailed: (logging.WARNING, Wording._failed),
    CircuitOpened: (logging.WARNING, Wording._circuit),
    FellBack: (logging.WARNING, Wording._fell_back),
    StreamInterrupted: (logging.WARNING, Wording._interrupted),
    WorkerAbandoned: (logging.WARNING, Wording._abandoned),
    WaitBegan: (logging.INFO, Wording._waiting),
    ModelLeft: (logging.INFO, Wording._model_left),
    ModelSkipped: (logging.INFO, Wording._model_skipped),
    StreamRestarted: (logging.INFO, Wording._restarted),
    CallRecovered: (logging.INFO, Wording._recovered),
    CircuitHalfOpened: (logging.INFO, Wording._circuit),
    CircuitClosed: (logging.INFO, Wording._circuit),
    CircuitChanged: (logging.INFO, Wording._circuit),
    HoldBegan: (logging.INFO, Wording._hold),
    CallDelayed: (logging.DEBUG, Wording._delayed),
    CallRejected: (logging.DEBUG, Wording._rejected),
}
_TEXTS = ByClass({kind: text for kind, (_, text) in _LINES.items()})

LEVELS = {kind: level for kind, (level, _) in _LINES.items()}
"""Of which events there are lines, and how important they are by default."""


def _named(what: str, name: str | None) -> str:
    return what if name is None else f"{what} {_short(name)!r}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _clean(text: str) -> str:
    """On one line: whoever chooses a name or a code cannot write a line of their own."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _text_of(error: Exception) -> str:
    try:
        return _short(str(error))
    except Exception:
        return "its text cannot be read"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def seconds_text(seconds: float) -> str:
    """A time with its unit, of two or three digits."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.0f} h"
