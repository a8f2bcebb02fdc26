"""What every call tells of itself, in this order: started (attempt (wait attempt)*) finished."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from resilience.events import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallStarted,
    Event,
    StreamRestarted,
    WaitBegan,
)

__all__ = ["Course", "by_call", "faults_of"]


class Course:
    """The course of one call, as far as it has been told."""

    def __init__(self) -> None:
        self.running: set[int] = set()
        self.numbers: list[int] = []
        self.waits = 0
        self.ended = False
        self.wrong: list[str] = []

    def take(self, event: Event) -> None:
        """Note an event of this call, and whether it has come where it may."""
        if self.ended and not isinstance(event, StreamRestarted):
            self.wrong.append(f"{event!r} after the end")
        elif isinstance(event, AttemptStarted):
            if event.number in self.numbers:
                self.wrong.append(f"{event!r} a second time")
            if event.number != len(self.numbers) + 1:
                self.wrong.append(f"{event!r} after attempts {self.numbers}")
            self.running.add(event.number)
            self.numbers.append(event.number)
        elif isinstance(event, AttemptEnded):
            if event.attempt.number not in self.running:
                self.wrong.append(f"{event!r} that is not under way")
            self.running.discard(event.attempt.number)
        elif isinstance(event, WaitBegan):
            self.waits += 1
        elif isinstance(event, CallEnded):
            self.ended = True
            if self.running:
                self.wrong.append(f"{event!r} before attempts {sorted(self.running)}")


def by_call(events: Iterable[Event]) -> dict[int, list[Any]]:
    """The events of each call whose start is among them."""
    calls: dict[int, list[Any]] = defaultdict(list)
    for event in events:
        if isinstance(event, CallStarted) or event.call in calls:
            calls[event.call or 0].append(event)
    return calls


def faults_of(events: Iterable[Event], *, over: bool = True) -> list[str]:
    """What is wrong with the order of events; `over`: all calls must have ended."""
    wrong: list[str] = []
    for number, told in by_call(events).items():
        course = Course()
        for event in told[1:]:
            course.take(event)
        wrong += course.wrong
        if over and not course.ended:
            wrong.append(f"call {number} has not ended: {told}")
    return wrong
