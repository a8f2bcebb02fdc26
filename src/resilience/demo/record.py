"""What is left of a played scenario: of each client its calls, its events, and the gateway's own
record of the requests."""

from __future__ import annotations

from typing import NamedTuple

from attrs import field, frozen

from resilience.events import Event
from resilience.testing.gateway import Received

from .phase import Asked, Call, Seen
from .scenario import Scenario

__all__ = ["Played", "Recorded", "Run"]


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
    """A scenario, and the same minute for the bare client, with the SDK's retries, and with the
    pipeline."""

    scenario: Scenario
    sdk: str
    bare: Run
    retries: Run
    guarded: Run

    @property
    def runs(self) -> tuple[Run, Run, Run]:
        return self.bare, self.retries, self.guarded

    def phases(self) -> list[Seen]:
        """The pipeline's minute, phase by phase."""
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
