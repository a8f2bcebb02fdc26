"""What integrations count and measure, from events: the same figures for all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

from resilience._core.attempt import Attempt
from resilience._core.failure import Failure
from resilience._core.listening import ByClass
from resilience._core.locks import new_lock
from resilience.errors import RejectedError
from resilience.events import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallRejected,
    FellBack,
    ModelLeft,
    ModelSkipped,
    TokensUsed,
)

from ._names import (
    ATTEMPT_DURATION,
    CALL_DURATION,
    CIRCUIT_STATE,
    FALLBACKS,
    OTHER,
    REJECTIONS,
    RETRIES,
    TOKENS,
    Metric,
)

__all__ = [
    "Add",
    "Bounded",
    "Figures",
    "Installed",
    "Values",
    "circuits",
    "clean",
    "error_type",
    "not_installed",
    "outcome_of_call",
    "type_name",
]

Values: TypeAlias = "tuple[str | int | None, ...]"
"""Of a metric's labels; None for what is not known."""

End: TypeAlias = Callable[[], object]
Add: TypeAlias = Callable[[Metric, Values, float], object]

_LONGEST = 200
"""Characters of a name: callers and servers choose them."""
_STATES = ("closed", "half-open", "open")
_WORDS = re.compile("(?<=[a-z])(?=[A-Z])")


def clean(text: str) -> str:
    """A name as exporters take it: of a bounded length, and without what cannot be encoded."""
    text = text[:_LONGEST]
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def type_name(error: BaseException) -> str:
    """A class's name as `error.type` has it."""
    return type(error).__qualname__


def error_type(failure: Failure) -> str:
    """That of a failure: of its error, or of what a bad result means."""
    return failure.kind.value if failure.error is None else type_name(failure.error)


def outcome_of_call(event: CallEnded) -> str:
    """How a call ended, in a word."""
    error = event.error
    if error is None:
        return "degraded" if event.degraded else "ok"
    if not isinstance(error, Exception):
        return "cancelled"
    return "rejected" if isinstance(error, RejectedError) else "failed"


class Figures:
    """Turns events into figures, which it hands to `add`. It takes no lock.

    `handlers` has what takes the events of each class.
    """

    def __init__(self, add: Add) -> None:
        self._add = add
        self._failed: dict[int | None, Attempt] = {}
        """The last attempt of each call under way, if it failed."""
        self._not_begun: set[int | None] = set()
        """Calls whose attempt had not begun anything when the function returned."""
        self.handlers: ByClass[Callable[[Any], object]] = ByClass(
            {
                AttemptStarted: self.attempt_started,
                AttemptEnded: self.attempt_ended,
                CallEnded: self.call_ended,
                TokensUsed: self.tokens_used,
                CallRejected: self.rejected,
                ModelLeft: self.moved_on,
                ModelSkipped: self.moved_on,
                FellBack: self.fell_back,
            }
        )

    def attempt_started(self, event: AttemptStarted) -> None:
        if event.number > 1:
            before = self._failed.pop(event.call, None)
            if before is None or event.model not in (None, before.model):
                return
            error = None if before.failure is None else error_type(before.failure)
            self._add(RETRIES, (event.pipeline, event.function, before.model, error), 1)

    def attempt_ended(self, event: AttemptEnded) -> None:
        attempt = event.attempt
        outcome, error, status = "ok", None, None
        if event.interrupted:
            if not attempt.duration:
                self._not_begun.add(event.call)
                return
            outcome = "interrupted"
        elif attempt.failure is not None:
            self._failed[event.call] = attempt
            outcome, error = "failed", error_type(attempt.failure)
            status = attempt.failure.status
        values = (event.pipeline, event.function, attempt.model, outcome, error, status)
        self._add(ATTEMPT_DURATION, values, attempt.duration or 0.0)

    def call_ended(self, event: CallEnded) -> None:
        if self._failed:
            self._failed.pop(event.call, None)
        if self._not_begun and event.call in self._not_begun:
            self._not_begun.discard(event.call)
            if event.error is None and not event.attempts:
                return  # what it returned is yet to begin, as a call of its own
        error = None if event.error is None else type_name(event.error)
        values = (event.pipeline, event.function, outcome_of_call(event), error)
        self._add(CALL_DURATION, values, event.elapsed)

    def tokens_used(self, event: TokensUsed) -> None:
        for kind, tokens in (("input", event.input), ("output", event.output)):
            if tokens:
                self._add(TOKENS, (event.pipeline, event.function, event.model, kind), tokens)

    def rejected(self, event: CallRejected) -> None:
        name = type(event.error).__name__.removesuffix("Error")
        reason = _WORDS.sub("_", name).lower()  # CircuitOpenError: circuit_open
        self._add(REJECTIONS, (event.pipeline, event.function, reason), 1)

    def moved_on(self, event: ModelLeft | ModelSkipped) -> None:
        self._add(FALLBACKS, (event.pipeline, event.function, event.model, event.to), 1)

    def fell_back(self, event: FellBack) -> None:
        self._add(FALLBACKS, (event.pipeline, event.function, None, None), 1)


def not_installed(module: str, package: str) -> ImportError:
    """What `install` of a module here raises where its package is missing."""
    return ImportError(
        f"resilience.integrations.{module} needs {package}: "
        f"pip install 'resilience-policies[{module}]'"
    )


class Installed:
    """What has been installed where: once in each place."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._stops: list[tuple[Any, dict[str, Any], Callable[[], None]]] = []

    def once(
        self, place: tuple[Any, ...], options: dict[str, Any], install: Callable[[], End]
    ) -> Callable[[], None]:
        """Install it, unless it is there already with the same options: what ends it, once."""
        with self._lock:
            for known, given, stop in self._stops:
                if all(one is other for one, other in zip(known, place, strict=True)):
                    if given != options:
                        name = next(name for name in options if options[name] != given[name])
                        raise ValueError(
                            f"{name} must be {given[name]!r}, as when this was installed there; or "
                            f"stop that first; got {options[name]!r}"
                        )
                    return stop
            end = install()

            def stop() -> None:
                with self._lock:
                    if entry in self._stops:
                        self._stops.remove(entry)
                        end()

            entry = (place, options, stop)
            self._stops.append(entry)
            return stop


class Bounded:
    """Bounds how many values each label has: what comes when there are `limit` of them is "other".

    Numbers are as they are. Safe from any thread.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = new_lock()
        self._known: dict[str, set[str]] = {}

    def labels(self, metric: Metric, values: Values) -> dict[str, str | int]:
        """The labels of a figure that are known, by their names."""
        return {
            label: self._bounded(label, value)
            for label, value in zip(metric.labels, values, strict=True)
            if value is not None
        }

    def _bounded(self, label: str, value: str | int) -> str | int:
        if not isinstance(value, str):
            return value
        value = clean(value)
        with self._lock:
            known = self._known.setdefault(label, set())
            if value not in known and len(known) >= self._limit:
                return OTHER
            known.add(value)
            return value


def circuits(bounded: Bounded) -> list[tuple[dict[str, str | int], int]]:
    """How many circuits of a breaker's name and of a model are in each state, of those that exist,
    by their labels. Shadows, which reject nothing, are left out."""
    from resilience.policies.breaker import breakers  # a program may have none

    found: dict[tuple[str | None, str | None], Counter[str]] = {}
    for breaker in breakers:
        for circuit in breaker.circuits().values():
            if not circuit._shadow:
                model = str(circuit.key) if breaker.key == "model" else None
                found.setdefault((breaker.name, model), Counter())[circuit.state] += 1
    counts: Counter[tuple[tuple[str, str | int], ...]] = Counter()
    for place, states in found.items():
        for state in (*_STATES, *sorted(states.keys() - set(_STATES))):
            labels = bounded.labels(CIRCUIT_STATE, (*place, state))
            counts[tuple(labels.items())] += states[state]
    return [(dict(labels), count) for labels, count in counts.items()]
