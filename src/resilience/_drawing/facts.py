"""What is drawn of a call, in words and seconds: the same for text, SVG and page.

Only models, numbers, times, statuses, codes, kinds and names of classes. Nothing of a call's
arguments, and no text of an exception.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

from attrs import frozen

from resilience._core.attempt import Attempt
from resilience._core.failure import kind_text
from resilience.errors import BadResultError, RejectedError, ResilienceError
from resilience.failures import Failure, Kind, describe

from .texts import clean, shorten

__all__ = ["ANSWERED", "FAILED", "OPEN", "Drawable", "Facts", "Row", "axis", "facts_of", "lasting"]

ANSWERED, FAILED, OPEN = "answered", "failed", "under way"
"""How an attempt has ended."""

_NAME = 48  # cells of a name in a headline
_STEPS = (
    *(digit * 10.0**power for power in range(-6, 2) for digit in (1, 2, 5)),
    *(60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 7_200.0, 18_000.0, 36_000.0, 86_400.0),
)
_MOST_STEPS = 5


class Drawable(Protocol):
    """An `Outcome`, as it is drawn."""

    @property
    def error(self) -> Exception | None: ...
    @property
    def attempts(self) -> tuple[Attempt, ...]: ...
    @property
    def served_by(self) -> str | None: ...
    @property
    def degraded(self) -> bool: ...
    @property
    def elapsed(self) -> float: ...


@frozen
class Row:
    """An attempt: its texts, and when its wait and it itself began and ended."""

    number: str
    model: str
    words: str
    state: str
    waited_from: float
    began: float
    ended: float

    @property
    def start(self) -> str:
        return lasting(self.began)

    @property
    def wait(self) -> str:
        return lasting(self.began - self.waited_from) if self.waited_from < self.began else ""

    @property
    def time(self) -> str:
        return "" if self.state == OPEN else lasting(self.ended - self.began)


@frozen
class Facts:
    """A call: two lines about all of it, its attempts, and the seconds that they span."""

    headline: str
    summary: str
    rows: tuple[Row, ...]
    span: float

    def share(self, seconds: float) -> float:
        """Where a moment is on a line that spans the call, from 0 to 1."""
        return min(max(seconds / self.span, 0.0), 1.0) if self.span else 0.0

    @property
    def legend(self) -> list[str]:
        """What the bars stand for, where there is more than one kind of them."""
        kinds = [
            state
            for state in (ANSWERED, FAILED, OPEN)
            if any(row.state == state for row in self.rows)
        ]
        if any(row.wait for row in self.rows):
            kinds.append("wait")
        return kinds if len(kinds) > 1 else []


def facts_of(outcome: Drawable) -> Facts:
    """What is drawn of an outcome."""
    attempts = sorted(outcome.attempts, key=lambda each: each.number)
    ends = [each.started + (each.duration or 0.0) for each in attempts]
    span = max([outcome.elapsed, *ends])
    rows = tuple(_row(each, span) for each in attempts)
    return Facts(_headline(outcome), _summary(outcome), rows, span)


def _row(attempt: Attempt, span: float) -> Row:
    failure = attempt.failure
    state = OPEN if attempt.duration is None else ANSWERED if failure is None else FAILED
    ended = span if attempt.duration is None else attempt.started + attempt.duration
    return Row(
        str(attempt.number),
        clean(attempt.model or ""),
        state if failure is None else _words(failure),
        state,
        max(attempt.started - attempt.waited, 0.0),
        attempt.started,
        ended,
    )


def _words(failure: Failure) -> str:
    """A failure in a few words: its status, and the code or what it means."""
    kind = failure.kind
    words = failure.code or kind_text(kind)
    if kind is Kind.UNKNOWN and not failure.code and failure.error is not None:
        bad = isinstance(failure.error, BadResultError)
        words = "bad result" if bad else type(failure.error).__name__
    return clean(words if failure.status is None else f"{failure.status} {words}")


def _error_words(error: Exception) -> str:
    own = isinstance(error, ResilienceError) and not isinstance(error, BadResultError)
    return shorten(clean(type(error).__name__) if own else _words(describe(error)), _NAME)


def _headline(outcome: Drawable) -> str:
    error, attempts = outcome.error, outcome.attempts
    if type(error) is BadResultError and error.given_back:
        return "A bad result was given back"
    if error is not None:
        what = "Rejected" if isinstance(error, RejectedError) and not attempts else "Failed"
        return f"{what}: {_error_words(error)}"
    if outcome.served_by is None and outcome.degraded:
        return "Answered by the fallback"
    under_way = attempts and attempts[-1].duration is None
    by = f" by {shorten(clean(outcome.served_by), _NAME)}" if outcome.served_by else ""
    second = ", not the first choice" if outcome.degraded else ""
    return f"{'Answer under way' if under_way else 'Answered'}{by}{second}"


def _summary(outcome: Drawable) -> str:
    made = max((each.number for each in outcome.attempts), default=0)
    count = f"{made} attempt{'' if made == 1 else 's'}" if made else "no attempt was made"
    return f"{count}, {lasting(outcome.elapsed)}"


def lasting(seconds: float) -> str:
    """A time of three digits or so, with its unit."""
    if seconds <= 0:
        return "0 s"
    if seconds < 0.00005:
        return "<0.1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.{1 if seconds < 0.00995 else 0}f} ms"
    if seconds < 99.95:
        return f"{seconds:.{2 if seconds < 9.995 else 1}f} s"
    if seconds < 599.5:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3_600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3_600:,}h {whole % 3_600 // 60:02}m"


def axis(span: float) -> Iterator[tuple[float, str]]:
    """Round times to mark on a line that spans so many seconds: where, and what to write there."""
    step = next((step for step in _STEPS if span < step * _MOST_STEPS), math.inf)
    unit, size = "s", 1.0
    if span < 1:
        unit, size = "ms", 0.001
    elif span >= 7_200:
        unit, size = "h", 3_600.0
    elif span >= 120:
        unit, size = "min", 60.0
    count = int(span / step + 1e-6) if span else 0  # 0.3999999 s is 0.4 s
    for number in range(count + 1):
        moment = number * step if number else 0.0
        yield (min(moment / span, 1.0) if span else 0.0), f"{moment / size:.4g} {unit}"
