"""Publishes what happens in a pipeline's calls to its listeners."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from resilience.events import AttemptEnded, CallEnded, Event, Listener, WaitBegan

from .attempt import Attempt
from .call import Call, Journal, attempt_of

__all__ = ["Emitter"]


class Emitter:
    """Calls every listener; what one raises is logged, by its class, and goes no further."""

    def __init__(self, name: str | None, listeners: Sequence[Listener]) -> None:
        self._name = name
        self._listeners = listeners

    def ended(self, attempt: Attempt) -> None:
        """An attempt is settled."""
        self._publish(AttemptEnded(self._name, attempt))

    def waiting(self, call: Call, seconds: float) -> None:
        """A wait begins."""
        attempts = call.journal.attempts
        last = attempts[-1] if attempts else attempt_of(call)
        self._publish(WaitBegan(self._name, last, seconds))

    def finished(self, journal: Journal, elapsed: float, error: Exception | None) -> None:
        """A call is over."""
        self._publish(
            CallEnded(
                self._name,
                tuple(journal.attempts),
                elapsed,
                journal.answerer if error is None else None,
                journal.degraded,
                error,
            )
        )

    def _publish(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as problem:
                # Not its traceback: that would bring along the call's own error, and its text.
                logging.getLogger("resilience").error(
                    "a listener raised %s", type(problem).__name__
                )
