"""The bad minute as a value: what the gateway does to which model, when, and what is promised.

A call is asked once a second, and none in the last second of a phase, so that no call belongs to
two phases. All times are multiplied by one scale.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from resilience.testing.gateway import Answer, Error, Hang, Ok, Timetable

from . import promises
from .phase import Limits, Phase

__all__ = ["Scenario", "bad_minute"]


@frozen
class Scenario:
    """Phases one after the other, with a call every `every` seconds."""

    phases: tuple[Phase, ...]
    limits: Limits
    every: float

    def timed(self) -> Iterator[tuple[float, Phase]]:
        """Each phase with the second at which it begins."""
        start = 0.0
        for phase in self.phases:
            yield start, phase
            start += phase.seconds

    def asks(self) -> Iterator[tuple[float, Phase]]:
        """Each call's second, in the middle of its interval, and its phase."""
        for start, phase in self.timed():
            for place in range(round(phase.seconds / self.every) - 1):
                yield start + (place + 0.5) * self.every, phase

    def plan(self) -> dict[str, Timetable]:
        """What the gateway is started with."""
        return {model: Timetable(*self._entries(model)) for model in self.limits.models}

    def _entries(self, model: str) -> Iterator[tuple[float, Answer]]:
        well = Ok(delay=0.2 * self.every)
        for start, phase in self.timed():
            yield start, phase.trouble.get(model, well)
            if phase.lasts is not None:
                yield start + phase.lasts, well


def bad_minute(scale: float = 1.0) -> Scenario:
    """The scenario of the demo: 60 seconds, times `scale`."""
    s = scale
    limits = Limits(
        total=8 * s,
        attempt=2 * s,
        patience=4 * s,
        within=2.75 * s,
        backoff=0.5 * s,
        reset_after=4.5 * s,
    )
    first = limits.models[0]
    limited = {first: Error("rate_limit_exceeded", retry_after=2 * s)}
    failing = {first: Error("upstream_error", provider="openai")}
    hung = {first: Hang()}
    down = dict.fromkeys(limits.models, Error("service_unavailable"))
    spent = dict.fromkeys(limits.models, Error("insufficient_quota"))

    by_first, any_model = promises.answered_by_first, promises.answered
    waited, spared = promises.waited_as_asked, promises.spared
    in_time, soon = promises.knows_within(limits.total), promises.knows_within(3 * s)
    phases = (
        Phase("healthy", 7 * s, (by_first,)),
        Phase("rate limited", 9 * s, (by_first, waited), limited, lasts=2 * s),
        Phase("one model down", 11 * s, (any_model, spared), failing, lasts=6 * s),
        Phase("hung model", 9 * s, (any_model, in_time, spared), hung),
        Phase("everything down", 10 * s, (promises.own_error, soon, spared), down),
        Phase("recovery", 9 * s, (promises.first_again,)),
        Phase("quota spent", 5 * s, (promises.not_retried,), spent),
    )
    return Scenario(phases, limits, every=s)
