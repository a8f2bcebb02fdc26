"""What the `resilience` logger says by itself: a line for what somebody on call wants to know.

A call given up, a circuit opened, a stream cut and a thread left behind are warnings; a retry, a
change of model and a recovery are information; rejections, of which an outage has thousands, are
for debugging. Each record has the facts of its line as attributes, the same ones on every record of
this logger, None where there is none. Arguments, results, header values and, unless asked for,
texts of exceptions are in no line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

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
from .clock import now
from .context import get_ambient
from .failure import Failure, Kind
from .listening import Subscription
from .locks import new_lock

__all__ = ["FACTS", "LEVELS", "Levels", "Line", "Log", "log"]

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

LEVELS: dict[type[Event], int] = {
    CallFailed: logging.WARNING,
    CircuitOpened: logging.WARNING,
    FellBack: logging.WARNING,
    StreamInterrupted: logging.WARNING,
    WorkerAbandoned: logging.WARNING,
    WaitBegan: logging.INFO,
    ModelLeft: logging.INFO,
    ModelSkipped: logging.INFO,
    StreamRestarted: logging.INFO,
    CallRecovered: logging.INFO,
    CircuitHalfOpened: logging.INFO,
    CircuitClosed: logging.INFO,
    CircuitChanged: logging.INFO,
    HoldBegan: logging.INFO,
    CallDelayed: logging.DEBUG,
    CallRejected: logging.DEBUG,
}
"""Of which events there are lines, and how important they are by default."""

_logger = logging.getLogger("resilience")
_PAUSE = 1.0
"""Seconds between two lines that say the same of the same name."""
_SUBJECTS = 1000
"""The most that are remembered of what was said of whom."""
_WORDS = {
    Kind.CONNECTION: "connection error",
    Kind.SERVER: "server error",
    Kind.UNKNOWN: "unknown error",
}
_LONGEST = 200
"""Characters of a name, a code or an id: servers and callers choose them."""


class Line(NamedTuple):
    """A line for the log, with its facts by the names in `FACTS`, all of them."""

    level: int
    text: str
    facts: dict[str, Any]


def _to_logging(line: Line) -> None:
    _logger.log(line.level, "%s", line.text, extra=line.facts)


class Levels(dict[type[Event], "int | None"]):
    """Of each class of events, its subclasses included; None for no line."""

    def __missing__(self, kind: type[Event]) -> int | None:
        found = self[kind] = next((self[each] for each in kind.__mro__ if each in self), None)
        return found


class Log:
    """Makes lines of events and hands them on; what says the same of the same name at most once a
    second, with the number of those that were held back.

    Safe from any thread.
    """

    def __init__(self) -> None:
        self.texts = False
        """Whether lines have the texts of exceptions, which may quote prompts and keys."""
        self.levels: Mapping[type[Event], int | None] = Levels(LEVELS)
        self.deliver = Subscription(self.write, ()).deliver
        """Writes as a listener does, which never touches the call."""
        self._say: Callable[[Line], object] = _to_logging
        self.enabled: Callable[[int], bool] = _logger.isEnabledFor
        """Whether lines of a level are written."""
        self._interrupted: int | None = None
        """The call whose stream was last said to have broken off."""
        self._lock = new_lock()
        # By clock, as each virtual time is a world of its own.
        self._said: WeakKeyDictionary[Any, dict[Any, tuple[float, int]]] = WeakKeyDictionary()

    def say_by(self, say: Callable[[Line], object] | None = None) -> None:
        """Have lines said by a function, whatever their level; None for the `resilience` logger."""
        self._say = say or _to_logging
        self.enabled = _logger.isEnabledFor if say is None else _always

    def writes(self, kind: type[Event]) -> bool:
        """Whether lines of events of a class are written now."""
        level = self.levels[kind]
        return level is not None and self.enabled(level)

    def write(self, event: Event) -> None:
        """Say what there is to be said of an event."""
        kind = type(event)
        if isinstance(event, FellBack) and event.failure.kind is Kind.REJECTED:
            kind = CallRejected
        level = self.levels[kind]
        if level is None or not self.enabled(level):
            return
        if isinstance(event, StreamInterrupted):
            self._interrupted = event.call
        elif isinstance(event, CallFailed) and event.call == self._interrupted:
            return  # comes right after that, and is the same fact
        held = self._held(_subject(event))
        if held is not None:
            found = _Found(event, texts=self.texts)
            line = Line(level, _clean(found.text()) + held, found.facts)
            self._say(line)

    def _held(self, subject: tuple[Any, ...]) -> str | None:
        """What a line says of those that were held back since the last one like it; None if this
        one is to be held back, too."""
        here = get_ambient()
        world: Any = None if here is None else here.world
        at = now()
        with self._lock:
            said = self._said.setdefault(self if world is None else world, {})
            if subject not in said and len(said) >= _SUBJECTS:
                for each, (last, held) in list(said.items()):
                    if not held and not 0 <= at - last < _PAUSE:
                        del said[each]
                if len(said) >= _SUBJECTS:
                    subject = subject[:1]  # so many names share one line
            last, held = said.get(subject, (at - _PAUSE, 0))
            if 0 <= at - last < _PAUSE:
                said[subject] = last, held + 1
                return None
            said[subject] = at, 0
        return f" ({held} more like this in the last {_seconds(at - last)})" if held else ""


def _subject(event: Any) -> tuple[Any, ...]:
    """What a line is about: lines about the same are alike."""
    facts = event.__dict__
    attempt, attempts = facts.get("attempt"), facts.get("attempts")
    failure = facts.get("failure") if attempt is None else attempt.failure
    error = facts.get("error") if failure is None else failure.error
    return (
        type(event),
        None if attempt is None else attempt.number,
        None if failure is None else (failure.kind, failure.status, failure.code),
        type(error).__name__,
        attempts[-1].model if attempts else None,
        *map(
            facts.get, ("pipeline", "function", "circuit", "hold", "policy", "model", "to", "new")
        ),
    )


def _always(level: int) -> bool:
    return True


log = Log()


class _Complete(logging.Filter):
    """Gives the attributes to those records, too, that are about no call."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name in FACTS:
            record.__dict__.setdefault(name, None)
        return True


_logger.addFilter(_Complete())


class _Found:
    """The words and the facts of one event."""

    def __init__(self, event: Any, *, texts: bool) -> None:
        self.event = event
        self.texts = texts
        self.facts: dict[str, Any] = dict.fromkeys(FACTS)
        self._fact("pipeline", event.pipeline)
        self._fact("function", event.function)
        self._fact("model", event.__dict__.get("model"))

    def text(self) -> str:
        """The line; its facts are noted on the way."""
        event = self.event
        name = event.pipeline or event.function
        said = self._of_circuit(event) if isinstance(event, CircuitChanged) else self._of_call()
        return said if name is None else f"{_short(name)}: {said}"

    def _of_call(self) -> str:
        event = self.event
        match event:
            case WaitBegan():
                what = "rejected"
                if event.attempt is not None:
                    why = self._attempt(event.attempt)
                    what = f"attempt {event.attempt.number}{self._model()} failed with {why}"
                self.facts["wait"] = event.seconds
                return f"{what}; retrying in {_seconds(event.seconds)}"
            case CallFailed():
                return self._given_up(event)
            case CallRecovered():
                last = event.attempts[-1]  # one that went well may not be recorded
                number = last.number + (last.failure is not None)
                self.facts["attempt"] = number
                self._fact("model", event.served_by)
                after = _seconds(event.elapsed)
                return f"recovered at attempt {number}{self._model()} after {after}"
            case ModelLeft():
                why = self._why(event.failure)
                return f"{_short(event.model)} failed with {why}; trying {_short(event.to)}"
            case ModelSkipped():
                why = self._rejection(event.error)
                if event.to == event.model:
                    return f"waiting for {_short(event.model)}: {why}"
                return f"skipped {_short(event.model)}: {why}; trying {_short(event.to)}"
            case FellBack():
                error = event.failure.error
                if isinstance(error, RejectedError):
                    return f"used the fallback: {self._rejection(error)}"
                return f"used the fallback: {self._why(event.failure)}"
            case HoldBegan():
                return self._hold(event)
            case CallDelayed():
                self.facts["wait"] = event.seconds
                long = "" if event.seconds is None else f" {_seconds(event.seconds)}"
                return f"waiting{long} for its turn in {event.policy}"
            case CallRejected():
                return f"rejected: {self._rejection(event.error)}"
            case StreamInterrupted():
                why = self._why(event.failure)
                return f"stream{self._model()} cut after {_count(event.items, 'item')}: {why}"
            case StreamRestarted():
                items = _count(event.items, "item")
                return f"restarting a stream that was cut after {items}"
            case _:
                return "ran past its time limit; its worker thread is busy until it returns"

    def _given_up(self, event: CallFailed) -> str:
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
        return f"gave up after {made} in {_seconds(event.elapsed)}: {why}{because}"

    def _hold(self, event: HoldBegan) -> str:
        name = "" if event.hold is None else f" {_short(event.hold)!r}"
        why = "another process was told" if event.failure is None else self._why(event.failure)
        self.facts["wait"] = event.seconds
        return f"hold{name}{self._model()} for {_seconds(event.seconds)} after {why}"

    def _of_circuit(self, event: CircuitChanged) -> str:
        self._fact("circuit", event.circuit)
        name = "circuit" if event.circuit is None else f"circuit {_short(event.circuit)!r}"
        name += self._model()
        if event.shadow:
            name += " in shadow (it rejects nothing)"
        if isinstance(event, CircuitOpened) and event.seconds is not None:
            why = "" if event.failure is None else f" after {self._why(event.failure)}"
            self.facts["wait"] = event.seconds
            return f"{name} opened for {_seconds(event.seconds)}{why}"
        if isinstance(event, CircuitClosed):
            return f"{name} closed; it rejected {_count(event.rejected, 'call')}"
        if isinstance(event, CircuitHalfOpened):
            return f"{name} half open, letting trials through"
        if event.new == "isolated":
            return f"{name} isolated: it rejects every call until it is released"
        return f"{name} disabled: it lets every call through"

    def _attempt(self, attempt: Attempt) -> str:
        """Why an attempt has failed."""
        self.facts["attempt"] = attempt.number
        self._fact("model", attempt.model)
        return "" if attempt.failure is None else self._why(attempt.failure)

    def _why(self, failure: Failure) -> str:
        error = failure.error
        named = None if error is None else type(error).__name__
        self._fact("error_type", named)
        self._fact("code", failure.code)
        self._fact("request_id", failure.request_id)
        self.facts["status_code"] = failure.status
        self.facts["wait"] = failure.retry_after
        said = [str(each) for each in (failure.status, self.facts["code"]) if each is not None]
        if not said and (failure.kind is not Kind.UNKNOWN or error is None):
            said = [_WORDS.get(failure.kind) or failure.kind.value.replace("_", " ")]
        if isinstance(error, DeadlineExceededError):
            said.append(f"after {_seconds(error.seconds)}")
        if isinstance(error, StreamInterruptedError):
            cause = error.__cause__
            named = "it ended early" if cause is None else type(cause).__name__
        details = [] if named is None else [_short(named)]
        if failure.request_id is not None:
            details.append(f"request {self.facts['request_id']}")
        if failure.retry_after:
            details.append(f"retry after {_seconds(failure.retry_after)}")
        if details:
            said.append(f"({', '.join(details)})" if said else ", ".join(details))
        if self.texts and error is not None:
            said.append(f"- {_text_of(error)}")
        return " ".join(said)

    def _rejection(self, error: RejectedError) -> str:
        """Why a policy has let no call through."""
        self._fact("error_type", type(error).__name__)
        self.facts["wait"] = error.retry_after
        what = type(error).__name__
        if isinstance(error, CircuitOpenError):
            self._fact("circuit", error.name)
            named = "" if error.name is None else f" {_short(error.name)!r}"
            what = f"circuit{named} is open"
        elif isinstance(error, BulkheadFullError):
            named = "" if error.name is None else f" {_short(error.name)!r}"
            what = f"bulkhead{named} is full ({error.limit} under way, {error.waiting} waiting)"
        elif isinstance(error, RateLimitExceededError):
            named = "" if error.name is None else f" {_short(error.name)!r}"
            what = f"rate limit{named} exceeded"
        elif isinstance(error, SpendLimitExceededError):
            named = "" if error.name is None else f" {_short(error.name)!r}"
            what = (
                f"spend limit{named} of {error.limit:.6g} reached ({error.spent:.6g} spent or "
                f"reserved, {error.most:.6g} asked for)"
            )
        elif isinstance(error, WorkersBusyError):
            what = f"all {error.workers} worker threads are busy"
        when = "" if error.retry_after is None else f", retry after {_seconds(error.retry_after)}"
        return what + when

    def _model(self) -> str:
        model = self.facts["model"]
        return "" if model is None else f" ({model})"

    def _fact(self, name: str, value: str | None) -> None:
        if value is not None:
            self.facts[name] = _clean(_short(value))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _clean(text: str) -> str:
    """On one line: whoever chooses a name or a code cannot write a line of his own."""
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


def _seconds(seconds: float) -> str:
    """A time as people say it, with two or three digits."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.0f} h"
