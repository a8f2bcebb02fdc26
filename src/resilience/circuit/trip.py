"""What opens a circuit: failures in a row, a share of failures, a share of slow calls.

Rules are values; `Gauge` is what a circuit counts for one of them. Only a bad call can open a
circuit, never a good one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import Factory, frozen

from resilience._core.options import (
    Seconds,
    Value,
    call_repr,
    checked,
    count,
    plain,
    seconds,
    suggesting,
    to_number,
)

from .window import CallWindow, TimeWindow, Window

__all__ = [
    "AnyOf",
    "Consecutive",
    "Counted",
    "FailureRate",
    "Gauge",
    "Reading",
    "SlowCalls",
    "rules_of",
    "to_trip",
]


_FEWEST = 20
"""Calls that tell a rate from chance."""


class _Rule(Value):
    """What rules have in common: `|`, and how they print."""

    __slots__ = ()

    def __or__(self, other: Any) -> AnyOf:
        if not isinstance(other, _Rule):
            return NotImplemented
        return AnyOf((*rules_of(self), *rules_of(other)))


@frozen(eq=False, repr=False)
class AnyOf(_Rule):
    """Several rules joined with `|`: the first of them that trips opens the circuit."""

    rules: tuple[_Rule, ...]

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.rules))


@suggesting
@frozen(eq=False, repr=False)
class Consecutive(_Rule):
    """Opens after `number` failures in a row."""

    number: int = count(5)

    def __repr__(self) -> str:
        return call_repr(self, ("number",))


def _to_ratio(name: str, value: Any) -> float:
    found = to_number(name, value)
    if not 0 < found <= 1:
        raise ValueError(f"{name} must be more than 0 and at most 1, got {value!r}")
    return found


def _minimum(rule: Rate) -> int:
    return min(_FEWEST, rule.calls or _FEWEST)


def _least_calls() -> Any:
    return count(Factory(_minimum, takes_self=True), metadata={"shown": _FEWEST})


class Rate(_Rule):
    """What rules about a share of the calls have in common: which calls they look at."""

    __slots__ = ()

    # Declared here, fields of the rules themselves: each has its own order of them.
    if TYPE_CHECKING:
        ratio: float
        window: Seconds | None
        calls: int | None
        minimum: int

    def __attrs_post_init__(self) -> None:
        if self.calls is None:
            return
        if self.window is not None:
            raise ValueError(
                f"give window (seconds) or calls, not both, "
                f"got window={self.window}, calls={self.calls}"
            )
        if self.minimum > self.calls:
            raise ValueError(
                f"minimum must be at most calls ({self.calls}), or the rule can never open, "
                f"got {self.minimum}"
            )

    @property
    def span(self) -> float | None:
        """Seconds of the window; None where it goes by number."""
        if self.calls is not None:
            return None
        return 60.0 if self.window is None else plain(self.window)

    def __repr__(self) -> str:
        return call_repr(self, ("ratio", "longer_than"))

    @property
    def slow_after(self) -> float:
        """Seconds from which on a call is bad however it ends."""
        return math.inf


@suggesting
@frozen(eq=False, repr=False)
class FailureRate(Rate):
    """Opens when a share of `ratio` or more of the calls has failed.

    - `ratio`: more than 0, at most 1.
    - `window`: of the calls of so many seconds (60), forgotten by the tenth; or `calls`: of the
      last so many.
    - `minimum` (20, or all of fewer `calls`): calls that must be in the window before it may open.
    """

    ratio: float = checked(_to_ratio)
    window: Seconds | None = seconds(None, optional=True)
    calls: int | None = count(None, optional=True)
    minimum: int = _least_calls()

    def bad(self, failed: bool, took: float) -> bool:
        """Whether such a call tells against the service."""
        return failed


@suggesting
@frozen(eq=False, repr=False)
class SlowCalls(Rate):
    """Opens when a share of `ratio` or more of the calls took longer than `longer_than` seconds.

    - `longer_than`: seconds from a call's start to its end, whether it succeeds or fails.
    - `ratio` (0.5), `window` (60) or `calls`, `minimum`: as in `FailureRate`.

    While the circuit is half open, a trial that takes longer has gone badly.
    """

    longer_than: Seconds = seconds()
    ratio: float = checked(_to_ratio, 0.5)
    window: Seconds | None = seconds(None, optional=True)
    calls: int | None = count(None, optional=True)
    minimum: int = _least_calls()

    @property
    def slow_after(self) -> float:
        return plain(self.longer_than)

    def bad(self, failed: bool, took: float) -> bool:
        """Whether such a call tells against the service."""
        return took > plain(self.longer_than)


Counted: TypeAlias = "FailureRate | SlowCalls"


def rules_of(trip: _Rule) -> tuple[Any, ...]:
    """The single rules of what was joined with `|`."""
    return trip.rules if isinstance(trip, AnyOf) else (trip,)


def to_trip(name: str, value: Any) -> Any:
    """A rule, or several joined with `|`."""
    if not isinstance(value, _Rule):
        raise TypeError(
            f"{name} must be a rule such as FailureRate(0.5), or several joined with |, "
            f"got {value!r}"
        )
    return value


@frozen(eq=False, repr=False)
class Reading(Value):
    """What a circuit has counted for one rule: the calls in its window, and the bad ones."""

    rule: Counted
    calls: int
    bad: int

    @property
    def rate(self) -> float | None:
        """The share of bad calls; None where there were no calls."""
        return self.bad / self.calls if self.calls else None


class Gauge:
    """What one circuit counts for one rule. The circuit's lock guards it."""

    __slots__ = ("rule", "window")

    def __init__(self, rule: Counted) -> None:
        self.rule = rule
        calls, span = rule.calls, rule.span
        self.window: Window = TimeWindow(span) if span is not None else CallWindow(calls or 0)

    def trips(self, now: float, failed: bool, took: float) -> bool:
        """Count a call; whether it was a bad one and one too many."""
        bad = self.rule.bad(failed, took)
        window = self.window
        window.add(now, bad)
        return (
            bad
            and window.calls >= self.rule.minimum
            and window.bad / window.calls >= self.rule.ratio
        )

    def clean(self, unused: float) -> bool:
        """Whether the window has no bad call in it, after so many seconds without a call."""
        span = self.rule.span
        return self.window.bad == 0 or (span is not None and unused >= span)

    def read(self, now: float) -> Reading:
        """How it stands now."""
        self.window.turn(now)
        return Reading(self.rule, self.window.calls, self.window.bad)
