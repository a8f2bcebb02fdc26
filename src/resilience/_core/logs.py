"""What the `resilience` logger writes by itself: a line for what somebody on call wants to know.

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

from resilience.events import CallFailed, CallRejected, Event, FellBack, StreamInterrupted

from .clock import now
from .context import get_ambient
from .failure import Kind
from .listening import ByClass, Subscription, announce
from .locks import new_lock
from .wording import FACTS, LEVELS, Wording, seconds_text

__all__ = ["FACTS", "LEVELS", "Line", "Log", "log"]

_logger = logging.getLogger("resilience")
_PAUSE = 1.0
"""Seconds between two lines about the same subject."""
_SUBJECTS = 1000
"""How many subjects are remembered."""


class Line(NamedTuple):
    """A line for the log, with its facts by the names in `FACTS`, all of them."""

    level: int
    text: str
    facts: dict[str, Any]


def _to_logging(line: Line) -> None:
    # `extra=` refuses a name that the program's own factory of records has set, such as request_id.
    name, args = _logger.name, (line.text,)
    record = _logger.makeRecord(name, line.level, __file__, 0, "%s", args, None, "resilience")
    record.__dict__.update((key, fact) for key, fact in line.facts.items() if fact is not None)
    _logger.handle(record)


def _always(level: int) -> bool:
    return True


class Log:
    """Writes lines about events; about the same subject at most once a second, with the number of
    those that were held back.

    Safe from any thread.
    """

    def __init__(self) -> None:
        self.texts = False
        """Whether lines have the texts of exceptions, which may quote prompts and keys."""
        self.set_levels({})
        self.deliver = Subscription(self.write, ()).deliver
        """Writes as a listener does, which never touches the call."""
        self.enabled: Callable[[int], bool] = _logger.isEnabledFor
        """Whether lines of a level are written."""
        self._send: Callable[[Line], object] = _to_logging
        self._interrupted: int | None = None
        """The call of the last line about a stream that broke off."""
        self._lock = new_lock()
        # By clock, as each virtual time is a world of its own; when a subject had its last line,
        # and how many were held back since.
        self._recent: WeakKeyDictionary[Any, dict[Any, tuple[float, int]]] = WeakKeyDictionary()

    def set_levels(self, levels: Mapping[type[Event], int | None]) -> None:
        """Write lines at the default levels, but for some classes; None for no line."""
        known: dict[type[Event], int | None] = {Event: None, **LEVELS, **levels}
        self.levels = ByClass(known)
        self.speaks = any(level is not None for level in known.values())
        """Whether there are lines of any class."""
        announce()

    def send_to(self, send: Callable[[Line], object] | None = None) -> None:
        """Hand lines of all levels to a function; None for the `resilience` logger."""
        self._send = send or _to_logging
        self.enabled = _logger.isEnabledFor if send is None else _always

    def writes(self, kind: type[Event]) -> bool:
        """Whether lines about events of a class are written now."""
        level = self.levels[kind]
        return level is not None and self.enabled(level)

    def write(self, event: Event) -> None:
        """Write the line about an event, if there is one to write."""
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
        more = self._held_back(_subject(event))
        if more is not None:
            wording = Wording(event, texts=self.texts)
            self._send(Line(level, wording.text + more, wording.facts))

    def _held_back(self, subject: tuple[Any, ...]) -> str | None:
        """What a line adds about those that were held back since the last one; None if this one is
        to be held back, too."""
        here = get_ambient()
        world: Any = None if here is None else here.world
        at = now()
        with self._lock:
            recent = self._recent.setdefault(self if world is None else world, {})
            if subject not in recent and len(recent) >= _SUBJECTS:
                for each, (last, count) in list(recent.items()):
                    if not count and not 0 <= at - last < _PAUSE:
                        del recent[each]
                if len(recent) >= _SUBJECTS:
                    subject = subject[:1]  # so many subjects share one line
            last, count = recent.get(subject, (at - _PAUSE, 0))
            if 0 <= at - last < _PAUSE:
                recent[subject] = last, count + 1
                return None
            recent[subject] = at, 0
        return f" ({count} more like this in the last {seconds_text(at - last)})" if count else ""


def _subject(event: Any) -> tuple[Any, ...]:
    """What a line is about."""
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


log = Log()


class _Complete(logging.Filter):
    """Gives the attributes to those records, too, that are about no call."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name in FACTS:
            record.__dict__.setdefault(name, None)
        return True


_logger.addFilter(_Complete())
