"""The bad minute as a value: what the gateway does to which model, when, and what is promised.

A call is asked once a second, and none in the last second of a phase, so that no call belongs to
two phases. All times are multiplied by one scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import Factory, frozen

from ..testing.gateway import Answer, Error, Hang, Ok, Timetable
from . import promises
from .promises import Promise

__all__ = ["Limits", "Phase", "Scenario", "bad_minute"]


@frozen
class Limits:
    """The figures of the pipeline; times in seconds. The defaults suit a real service."""

    models: tuple[str, ...] = ("gpt-4o", "claude-sonnet-4-6", "gpt-4o-mini")
    total: float = 60.0
    attempt: float = 20.0
    attempts: int = 2
    patience: float = 10.0
    backoff: float = 0.5
    failures: int = 3
    reset_after: float = 30.0


@frozen
class Phase:
    """A stretch of the minute: `trouble` says what each model answers for the first `lasts`
    seconds (None: all of it); other models, and all of them afterwards, are well."""

    name: str
    seconds: float
    trouble: Mapping[str, Answer] = Factory(dict[str, Answer])
    lasts: float | None = None
    promises: tuple[Promise, ...] = ()


@frozen
class Scenario:
    """Phases one after the other, with a call every `every` seconds."""

    phases: tuple[Phase, ...]
    limits: Limits
    every: float

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

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
    limits = Limits(
        total=8 * scale,
        attempt=2 * scale,
        patience=4 * scale,
        backoff=0.5 * scale,
        reset_after=4.5 * scale,
    )
    first = limits.models[0]

    def phase(name: str, seconds: float, *promised: Promise, **trouble: Any) -> Phase:
        lasts = trouble.pop("lasts", None)
        return Phase(
            name,
            seconds * scale,
            trouble.pop("on", {}),
            None if lasts is None else lasts * scale,
            promised,
        )

    def every_model(code: str) -> dict[str, Answer]:
        return {model: Error(code) for model in limits.models}

    return Scenario(
        (
            phase("healthy", 7, promises.answered_by_first, promises.attempts_at_most(1)),
            phase(
                "rate limited",
                9,
                promises.answered_by_first,
                promises.waited_as_asked,
                on={first: Error("rate_limit_exceeded", retry_after=3 * scale)},
                lasts=3,
            ),
            phase(
                "one model down",
                11,
                promises.answered,
                promises.spared,
                promises.back_at_the_end,
                on={first: Error("upstream_error", provider="openai")},
                lasts=6,
            ),
            phase(
                "hung model",
                9,
                promises.answered,
                promises.within_total,
                promises.left_alone_at_the_end,
                on={first: Hang()},
            ),
            phase(
                "everything down",
                10,
                promises.own_error,
                promises.told_within(3 * scale),
                promises.few_requests,
                on=every_model("service_unavailable"),
            ),
            phase("recovery", 9, promises.first_again),
            phase("quota spent", 5, promises.not_retried, on=every_model("insufficient_quota")),
        ),
        limits,
        every=scale,
    )
