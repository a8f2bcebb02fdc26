"""The report's figures: of calls from their events, of requests from the gateway's own record."""

from __future__ import annotations

import math
from collections.abc import Iterable

from attrs import frozen

from resilience.events import CallEnded, CircuitChanged

from .phase import Asked
from .record import Played, Run

__all__ = [
    "Circuit",
    "Figures",
    "Stretch",
    "circuit_of",
    "figures_of",
    "second_of",
    "seconds_of",
    "span",
]


@frozen
class Figures:
    """A run, or a part of it: its calls, its requests, and the seconds until callers had an answer
    or an error: half of them, 95 of 100, and all of them had it by then."""

    answered: int
    failed: int
    requests: int
    wasted: int
    p50: float
    p95: float
    longest: float

    @property
    def calls(self) -> int:
        return self.answered + self.failed


@frozen
class Stretch:
    """A circuit's state, from one second of the run to another."""

    state: str
    begin: float
    end: float


@frozen
class Circuit:
    """A model: its circuit's states, and the columns of the calls that it answered."""

    model: str
    stretches: tuple[Stretch, ...]
    answers: tuple[int, ...]

    @property
    def opened(self) -> int:
        return sum(stretch.state == "open" for stretch in self.stretches)


def figures_of(run: Run, begin: float = 0.0, end: float = math.inf) -> Figures:
    """Of the calls that were made, and the requests that arrived, between two of its seconds."""
    ended = [event for asked, event in _ended(run) if begin <= asked.at < end]
    waits = sorted(event.elapsed for event in ended)
    answered = sum(event.error is None for event in ended)
    requests = [each for each in run.requests if begin <= each.at < end]
    return Figures(
        answered,
        len(ended) - answered,
        len(requests),
        sum(request.answer != "ok" for request in requests),
        _quantile(waits, 0.5),
        _quantile(waits, 0.95),
        waits[-1] if waits else 0.0,
    )


def seconds_of(played: Played, run: Run) -> list[Figures]:
    """The run's columns, as many as for the others."""
    every = played.scenario.every
    return [figures_of(run, at * every, (at + 1) * every) for at in range(span(played))]


def span(played: Played) -> int:
    """How many columns there are: the scenario's, and more if requests came after its end."""
    planned = sum(phase.seconds for phase in played.scenario.phases) / played.scenario.every
    last = max((each.at for run in played.runs for each in run.requests), default=0.0)
    return max(round(planned), second_of(played, last) + 1)


def second_of(played: Played, at: float) -> int:
    """The column of a moment."""
    return int(at / played.scenario.every)


def circuit_of(played: Played, run: Run, model: str) -> Circuit:
    """What became of a model, from the events of its circuit and those of the calls' ends."""
    end = span(played) * played.scenario.every
    changes = [
        (each.at, each.event.new)
        for each in sorted(run.events, key=lambda each: each.at)
        if isinstance(each.event, CircuitChanged) and each.event.model == model
    ]
    begins = [(0.0, "closed"), *changes]
    ends = [at for at, _ in changes] + [end]
    return Circuit(
        model,
        tuple(Stretch(state, at, to) for (at, state), to in zip(begins, ends, strict=True)),
        tuple(
            second_of(played, asked.at)
            for asked, event in _ended(run)
            if event.error is None and event.served_by == model
        ),
    )


def _ended(run: Run) -> Iterable[tuple[Asked, CallEnded]]:
    return [(each.asked, each.event) for each in run.events if isinstance(each.event, CallEnded)]


def _quantile(ordered: list[float], share: float) -> float:
    """The smallest that so great a share does not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0.0
