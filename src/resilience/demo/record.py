"""What is left of a played scenario: of each client its calls, its events, and the gateway's own
record of the requests."""

from __future__ import annotations

from typing import NamedTuple

from attrs import field, frozen

from resilience.events import Event
from resilience.testing.gateway import Received

from .phase import Asked, Call, Seen
from .scenario import Scenario

__all__ = ["NAMES", "Played", "Recorded", "Run"]

NAMES = ("bare client", "SDK's retries", "resilience")
"""The clients: one without retries, one with those of its own, and the first under a pipeline."""


class Recorded(NamedTuple):
    """An event of a call, with its second in the run."""

    asked: Asked
    at: float
    event: Event


@frozen
class Run:
    """One client's minute; `setup` says in words how it was called."""

    name: str
    setup: str
    calls: tuple[Call, ...] = field(repr=False)
    events: tuple[Recorded, ...] = field(repr=False)
    requests: tuple[Received, ...] = field(repr=False)


@frozen
class Played:
    """A scenario, and the same minute for each of the clients that NAMES has; `sdk` is theirs."""

    scenario: Scenario
    sdk: str
    runs: tuple[Run, ...]

    @property
    def bare(self) -> Run:
        return self.runs[0]

    @property
    def guarded(self) -> Run:
        return self.runs[-1]

    def phases(self) -> list[Seen]:
        """The minute under the pipeline, phase by phase."""
        calls, requests = self.guarded.calls, self.guarded.requests
        return [
            Seen(
                phase,
                start,
                self.scenario.limits,
                tuple(call for call in calls if call.asked.phase == phase.name),
                tuple(r for r in requests if start <= r.at < start + phase.seconds),
            )
            for start, phase in self.scenario.timed()
        ]
