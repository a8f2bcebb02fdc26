"""What every call tells of itself, in this order: started (attempt (wait attempt)*) finished."""

from __future__ import annotations

from collections.abc import Iterable

from resilience.events import (
    AttemptEnded,
    AttemptStarted,
    BudgetSpent,
    CallEnded,
    CallFailed,
    CallRecovered,
    CallStarted,
    Event,
    StreamRestarted,
    WaitBegan,
)

__all__ = ["Watch", "faults_of"]


class _Course:
    """The course of one call, as far as it has been told."""

    def __init__(self, started: Event) -> None:
        self.name = repr(started)
        self.running: set[int] = set()
        self.attempts = 0
        self.verdicts: list[str] = []
        self.ended = False

    def fault(self, event: Event) -> str | None:
        """Take an event of this call; what is wrong with it, if it has come where it may not."""
        if self.ended:
            known = isinstance(event, (StreamRestarted, BudgetSpent))
            return None if known else "after the end"
        match event:
            case CallStarted():
                return "a second time"
            case AttemptStarted():
                self.attempts += 1
                self.running.add(event.number)
                if event.number != self.attempts:
                    return f"as attempt {self.attempts}"
            case AttemptEnded():
                if event.attempt.number not in self.running:
                    return f"while attempts {sorted(self.running)} are under way"
                self.running.discard(event.attempt.number)
            case WaitBegan() if (event.attempt is None) != (self.attempts == 0):
                return f"after {self.attempts} attempts"
            case CallFailed() | CallRecovered():
                self.verdicts.append(type(event).__name__)
                if len(self.verdicts) > 1:
                    return f"one of {self.verdicts}"
            case CallEnded():
                self.ended = True
                if self.running:
                    return f"before attempts {sorted(self.running)}"
                if self.verdicts == ["CallFailed" if event.error is None else "CallRecovered"]:
                    return f"after {self.verdicts}"
        return None


class Watch:
    """A listener that notes what is wrong with the order of events, in any number of calls and
    threads. It keeps no event, and so nothing of what a call's error holds."""

    def __init__(self) -> None:
        self._calls: dict[int, _Course] = {}
        self._wrong: list[str] = []
        self.events = 0

    def __call__(self, event: Event) -> None:
        if event.call is None:
            return
        self.events += 1
        if isinstance(event, CallStarted) and event.call not in self._calls:
            self._calls[event.call] = _Course(event)
        elif event.call in self._calls:  # else it had begun before
            fault = self._calls[event.call].fault(event)
            if fault is not None:
                self._wrong.append(f"{event!r} {fault}")

    def faults(self, *, over: bool = True) -> list[str]:
        """What is wrong; `over`: all calls must have ended."""
        calls = list(self._calls.values())
        late = [f"{each.name} has no end" for each in calls if over and not each.ended]
        return [*self._wrong, *late]


def faults_of(events: Iterable[Event], *, over: bool = True) -> list[str]:
    """What is wrong with the order of recorded events."""
    watch = Watch()
    for event in events:
        watch(event)
    return watch.faults(over=over)
