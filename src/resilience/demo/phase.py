"""A phase of the bad minute as values: its figures, what is promised of it, and what was seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from attrs import Factory, field, frozen

from resilience import Outcome
from resilience.testing.gateway import Answer, Received

__all__ = ["Asked", "Call", "Limits", "Phase", "Promise", "Seen", "Verdict"]


@frozen
class Limits:
    """The figures of the pipeline; times in seconds. The defaults suit a real service."""

    models: tuple[str, ...] = ("gpt-4o", "claude-sonnet-4-6", "gpt-4o-mini")
    total: float = 60.0
    attempt: float = 20.0
    attempts: int = 2
    patience: float = 10.0
    within: float = 30.0
    backoff: float = 0.5
    failures: int = 3
    reset_after: float = 30.0


@frozen
class Phase:
    """A stretch of the minute. `trouble` says what models answer for `lasts` seconds (None: to
    its end); other models, and all of them afterwards, are well."""

    name: str
    seconds: float
    promises: tuple[Promise, ...] = ()
    trouble: Mapping[str, Answer] = Factory(dict[str, Answer])
    lasts: float | None = None


class Asked(NamedTuple):
    """One question: its number, its phase, and its second in the run."""

    number: int
    phase: str
    at: float


class Call(NamedTuple):
    """A question, and what became of it."""

    asked: Asked
    outcome: Outcome[str]


@frozen
class Seen:
    """One phase, as the callers and the gateway saw it."""

    phase: Phase
    start: float
    limits: Limits
    calls: tuple[Call, ...]
    requests: tuple[Received, ...] = field(repr=False)

    def served(self, model: str | None = None) -> int:
        """How many calls were answered, by this model or by any."""
        models = [call.outcome.served_by for call in self.calls if call.outcome.error is None]
        return len(models) if model is None else models.count(model)


class Verdict(NamedTuple):
    """Whether a promise was held, and the figures that say so."""

    held: bool
    claim: str
    figures: str


Promise: TypeAlias = Callable[[Seen], Verdict]
