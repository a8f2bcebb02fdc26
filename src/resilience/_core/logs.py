"""What the `resilience` logger says by itself: one line for what somebody on call wants to know.

A call given up, a circuit opened and a stream cut are warnings; a retry, a model left and a
recovery are information; rejections, of which an outage has thousands, are for debugging. Each
record has the facts of the line as attributes, the same on every record, None where there is none.
Texts of exceptions, arguments and header values are in no line.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from resilience.errors import RejectedError
from resilience.events import (
    CallFailed,
    CallRecovered,
    CallRejected,
    CircuitChanged,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    Event,
    FellBack,
    ModelLeft,
    ModelSkipped,
    StreamInterrupted,
    StreamRestarted,
    WaitBegan,
    WorkerAbandoned,
)

from .attempt import Attempt
from .clock import now
from .failure import Failure
from .locks import new_lock

__all__ = ["FACTS", "KINDS", "Line", "Lines", "lines", "write"]

FACTS = (
    "error_type",
    "status_code",
    "code",
    "request_id",
    "model",
    "attempt",
    "wait",
    "pipeline",
    "circuit",
)
"""What every record has."""

_LEVELS: dict[type[Event], int] = {
    CallFailed: logging.WARNING,
    CircuitOpened: logging.WARNING,
    StreamInterrupted: logging.WARNING,
    WorkerAbandoned: logging.WARNING,
    WaitBegan: logging.INFO,
    ModelLeft: logging.INFO,
    ModelSkipped: logging.INFO,
    FellBack: logging.INFO,
    StreamRestarted: logging.INFO,
    CallRecovered: logging.INFO,
    CircuitHalfOpened: logging.INFO,
    CircuitClosed: logging.INFO,
    CircuitChanged: logging.INFO,
    CallRejected: logging.DEBUG,
}
KINDS = tuple(_LEVELS)

_logger = logging.getLogger("resilience")
_PAUSE = 1.0
"""Seconds between two lines of one sort about one name."""
_NAMES = 1000
"""Of those, the most that are remembered: a breaker may have a key for each user."""


class Line(NamedTuple):
    """A line for the log."""

    level: int
    text: str
    facts: dict[str, Any]
    """By the names in `FACTS`, all of them."""


class Lines:
    """Turns events into lines, of which the same one is not said twice within a second.

    With `texts`, lines have the texts of exceptions, which may quote prompts and keys.
    """

    def __init__(self) -> None:
        self.texts = False
        self._lock = new_lock()
        self._said: dict[object, tuple[float, int]] = {}

    def level(self, event: Event) -> int:
        """How important an event is, as `logging` has it."""
        return _LEVELS[type(event)]

    def line(self, event: Event) -> Line | None:
        """What is said of an event; None for now, where it was just said of another."""
        held = self._held_back((type(event), *map(event.__dict__.get, _SUBJECT)))
        if held is None:
            return None
        found = _Found(event, texts=self.texts)
        text = found.text() + (f" ({held} more like this)" if held else "")
        return Line(self.level(event), text, found.facts)

    def _held_back(self, subject: object) -> int | None:
        """How many lines were held back since the last one; None if this one is to be, too."""
        at = now()
        with self._lock:
            last, held = self._said.get(subject, (-_PAUSE, 0))
            if 0 <= at - last < _PAUSE:
                self._said[subject] = last, held + 1
                return None
            if len(self._said) >= _NAMES:
                self._said.clear()
            self._said[subject] = at, 0
            return held


_SUBJECT = ("pipeline", "function", "circuit", "model")

lines = Lines()


def write(event: Event) -> None:
    """Say it to the `resilience` logger."""
    if _logger.isEnabledFor(_LEVELS[type(event)]):
        line = lines.line(event)
        if line is not None:
            _logger.log(line.level, "%s", line.text, extra=line.facts)


class _Found:
    """The words and the facts of one event."""

    def __init__(self, event: Any, *, texts: bool) -> None:
        self.event = event
        self.texts = texts
        self.name = event.pipeline or event.function
        self.facts: dict[str, Any] = dict.fromkeys(FACTS)
        self.facts["pipeline"] = event.pipeline

    def text(self) -> str:
        event = self.event
        match event:
            case CircuitChanged():
                return self._of_circuit(event)
            case WaitBegan():
                self.facts["wait"] = event.seconds
                what = self._attempt(event.attempt)
                return f"{self.name}: {what}; next attempt in {_seconds(event.seconds)}"
            case CallFailed():
                made = len(event.attempts)
                last = event.attempts[-1] if event.attempts else None
                if last is not None:
                    self._attempt(last)
                why = self._why(event.failure)
                reason = f"; {event.reason}" if event.reason else ""
                return (
                    f"{self.name}: failed after {made} attempt{'' if made == 1 else 's'} "
                    f"in {_seconds(event.elapsed)}: {why}{reason}"
                )
            case CallRecovered():
                self._attempt(event.attempts[-1])
                by = f" by {event.served_by}" if event.served_by else ""
                return (
                    f"{self.name}: answered{by} at attempt {len(event.attempts)}, "
                    f"after {_seconds(event.elapsed)}"
                )
            case ModelLeft() | ModelSkipped():
                self.facts["model"] = event.model
                left = type(event) is ModelLeft
                why = self._why(event.failure) if left else self._rejection(event.error)
                verb = "failed" if left else "is not available"
                return f"{self.name}: {event.model} {verb}, trying {event.to}: {why}"
            case FellBack():
                return f"{self.name}: fell back: {self._why(event.failure)}"
            case CallRejected():
                return f"{self.name}: rejected: {self._rejection(event.error)}"
            case StreamInterrupted():
                self.facts["model"] = event.model
                items = f"{event.items} item{'' if event.items == 1 else 's'}"
                return f"{self.name}: stream cut after {items}: {self._why(event.failure)}"
            case StreamRestarted():
                return f"{self.name}: stream goes on with a fresh attempt"
            case _:
                return f"{self.name}: still running after its time limit, its thread is left behind"

    def _of_circuit(self, event: CircuitChanged) -> str:
        self.facts["circuit"] = event.circuit
        self.facts["model"] = event.model
        name = "circuit" if event.circuit is None else f"circuit {event.circuit!r}"
        if event.model is not None:
            name += f" of {event.model}"
        if isinstance(event, CircuitOpened) and event.seconds is not None:
            self.facts["wait"] = event.seconds
            why = "" if event.failure is None else f": {self._why(event.failure)}"
            return f"{name} opened for {_seconds(event.seconds)}{why}"
        if isinstance(event, CircuitClosed):
            return f"{name} closed; {event.rejected} calls were rejected"
        if isinstance(event, CircuitHalfOpened):
            return f"{name} half open: trials are let through"
        return f"{name} {event.new}"

    def _attempt(self, attempt: Attempt) -> str:
        self.facts["attempt"] = attempt.number
        self.facts["model"] = attempt.model
        of = f" of {attempt.model}" if attempt.model else ""
        why = "" if attempt.failure is None else self._why(attempt.failure)
        return f"attempt {attempt.number}{of} failed: {why}"

    def _why(self, failure: Failure) -> str:
        """A failure in words; its facts are noted."""
        error = failure.error
        self.facts["error_type"] = None if error is None else type(error).__name__
        self.facts["status_code"] = failure.status
        self.facts["code"] = failure.code
        self.facts["request_id"] = failure.request_id
        parts = [str(part) for part in (failure.status, failure.code) if part is not None]
        parts = parts or [failure.kind.value]
        if error is not None:
            parts.append(f"({type(error).__name__})")
        if failure.request_id is not None:
            parts.append(f"request {failure.request_id}")
        if self.texts and error is not None:
            parts.append(f"- {error}")
        return " ".join(parts)

    def _rejection(self, error: RejectedError) -> str:
        self.facts["error_type"] = type(error).__name__
        self.facts["wait"] = error.retry_after
        when = "" if error.retry_after is None else f", retry after {_seconds(error.retry_after)}"
        return f"{type(error).__name__}{when}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s"
