"""How long to wait before the next attempt.

All of these are tenacity waits: they add with `+`, go into `tenacity.wait_chain`, and any wait of
tenacity's may stand where one of these may. A wait of `math.inf` means "do not try again".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias

from attrs import Factory, frozen
from tenacity import Future, RetryCallState
from tenacity.wait import wait_base

from ._core.clock import chance
from ._core.options import (
    Seconds,
    Value,
    call_repr,
    checked,
    flag,
    number,
    plain,
    seconds,
    suggesting,
    to_one_of,
    to_seconds,
)
from .failures import Failure, describe

__all__ = ["Decorrelated", "Exponential", "Fixed", "FullJitter", "Linear", "RetryAfter", "Wait"]

Wait: TypeAlias = "float | timedelta | Callable[[RetryCallState], float]"
"""What `wait=` takes: seconds that stay the same, one of ours, any of tenacity's, a function."""

LONGEST = 60.0
"""Seconds that a service, or a circuit, is waited for where no option says how long."""


class State(RetryCallState):
    """What waits, stops and predicates are asked with: tenacity's state, by a runtime's clock.

    Its attributes are those of tenacity, whose own `__init__` asks the real clock; `failure` and
    `chance` are ours. `outcome`, a Future, is made when it is asked for.
    """

    def __init__(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        number: int,
        started: float,
        ended: float | None,
        waited: float,
        failure: Failure | None,
        error: BaseException | None,
        result: Any,
        chance: Callable[[], float],
    ) -> None:
        self.fn: Any = fn
        self.args = args
        self.kwargs = kwargs
        self.attempt_number = number
        self.start_time = started
        self.outcome_timestamp = ended
        self.idle_for = self.upcoming_sleep = waited
        self.failure = failure
        self._error = error
        self._result = result
        self.chance = chance
        self.retry_object: Any = None
        self.next_action: Any = None

    @property
    def outcome(self) -> Any:  # type: ignore[override]  # made only where it is asked for
        """The last attempt's outcome, as a Future."""
        future = Future(self.attempt_number)
        if self._error is not None:
            future.set_exception(self._error)
        else:
            future.set_result(self._result)
        return future


class _Wait(Value, wait_base):
    """What our waits have in common: printing, and the seam to chance."""

    __slots__ = ()

    def __repr__(self) -> str:
        return call_repr(self)


class _Growing(_Wait):
    """One that begins with `initial` and ends with `max`."""

    __slots__ = ()

    initial: Seconds
    max: Seconds

    def __attrs_post_init__(self) -> None:
        first, most = plain(self.initial), plain(self.max)
        if first > most:
            raise ValueError(f"initial must be at most max ({most:g}), got {first:g}")

    def _grown(self, factor: float, times: int) -> float:
        """`initial * factor**times`, capped; never an overflow."""
        first, most = plain(self.initial), plain(self.max)
        try:
            return min(first * factor**times, most)
        except OverflowError:
            return most if first else 0.0


def _chance(state: RetryCallState) -> Callable[[], float]:
    """The runtime's random numbers; under tenacity itself, the world's."""
    return getattr(state, "chance", chance)


def _failure(state: RetryCallState) -> Failure | None:
    """What the last attempt's error means; None for a bad result."""
    if type(state) is State:
        return state.failure
    error = state.outcome.exception() if state.outcome is not None else None
    return describe(error) if isinstance(error, Exception) else None


@suggesting
@frozen(eq=False, repr=False)
class Fixed(_Wait):
    """Always `seconds` (1)."""

    seconds: Seconds = seconds(1.0, positive=False)

    def __call__(self, retry_state: RetryCallState) -> float:
        return plain(self.seconds)


@suggesting
@frozen(eq=False, repr=False)
class Linear(_Growing):
    """`initial` seconds (0.5) after the first failure, `step` (0.5) more after each one, at most
    `max` (30)."""

    initial: Seconds = seconds(0.5, positive=False)
    step: Seconds = seconds(0.5, positive=False)
    max: Seconds = seconds(30.0, positive=False)

    def __call__(self, retry_state: RetryCallState) -> float:
        grown = plain(self.initial) + plain(self.step) * (retry_state.attempt_number - 1)
        return min(grown, plain(self.max))


@suggesting
@frozen(eq=False, repr=False)
class Exponential(_Growing):
    """`initial` seconds (0.5) after the first failure, `factor` (1.5) times more after each one,
    at most `max` (30); then up to `jitter` (0.2, a share) more or less.

    The defaults are those that the Auriko SDK documents for its own retries.
    """

    initial: Seconds = seconds(0.5, positive=False)
    factor: float = number(1.5, least=1.0)
    max: Seconds = seconds(30.0, positive=False)
    jitter: float = number(0.2, least=0.0, most=1.0)

    def __call__(self, retry_state: RetryCallState) -> float:
        base = self._grown(self.factor, retry_state.attempt_number - 1)
        return base * (1 + self.jitter * (2 * _chance(retry_state)() - 1))


@suggesting
@frozen(eq=False, repr=False)
class FullJitter(_Growing):
    """Anything from 0 up to an exponential bound: `initial` (0.5), `factor` (2), `max` (30).

    Spreads many clients best: of the published jitters it costs the fewest calls under contention.
    """

    initial: Seconds = seconds(0.5, positive=False)
    factor: float = number(2.0, least=1.0)
    max: Seconds = seconds(30.0, positive=False)

    def __call__(self, retry_state: RetryCallState) -> float:
        bound = self._grown(self.factor, retry_state.attempt_number - 1)
        return bound * _chance(retry_state)()


@suggesting
@frozen(eq=False, repr=False)
class Decorrelated(_Growing):
    """Between `initial` (0.5) and three times the wait before, at most `max` (30).

    The wait before is that of the same call; this object keeps no state.
    """

    initial: Seconds = seconds(0.5, positive=False)
    max: Seconds = seconds(30.0, positive=False)

    def __call__(self, retry_state: RetryCallState) -> float:
        initial = plain(self.initial)
        before = getattr(retry_state, "upcoming_sleep", 0.0) or initial
        bound = max(initial, 3 * before)
        return min(initial + (bound - initial) * _chance(retry_state)(), plain(self.max))


def is_own(wait: Any) -> bool:
    """Whether a wait is one of ours, which ask for no times."""
    while type(wait) is RetryAfter:
        wait = wait.otherwise
    return isinstance(wait, _Wait)


def shortest(wait: Any) -> float:
    """Seconds that a wait lasts at least, where that is known; else 0."""
    if isinstance(wait, Fixed):
        return plain(wait.seconds)
    if isinstance(wait, Exponential):
        return plain(wait.initial) * (1 - wait.jitter)
    return plain(wait.initial) if isinstance(wait, (Linear, Decorrelated)) else 0.0


def to_wait(name: str, value: Any) -> Any:
    """A wait: one of ours, one of tenacity's, or seconds that stay the same."""
    if isinstance(value, type) or (isinstance(value, bool) or value is None):
        raise TypeError(f"{name} must be a wait such as Exponential() or seconds, got {value!r}")
    if callable(value):
        return value
    return Fixed(to_seconds(name, value, positive=False))


@suggesting
@frozen(eq=False, repr=False)
class RetryAfter(_Wait):
    """As long as the server asks for, never less; if it does not ask, `otherwise` (Exponential()).
    If it says "now" (0, or a date in the past), the first retry is made at once, and the others
    after `otherwise`.

    Up to `spread` (0.25, a share) is added, so that many clients do not return at the same
    instant. If the server asks for more than `longest` seconds (60): with `too_long="stop"` there
    is no retry, so that the next model takes over or the error is raised; with `"clamp"`, the wait
    is `longest`.

    With `resets=True`, an error without Retry-After is waited for by its rate limit's reset headers
    (`x-ratelimit-reset-*` and the like), at most `longest`. They say when the whole limit is
    restored, which is longer than one call needs; so this is off by default.
    """

    otherwise: Any = checked(to_wait, Factory(Exponential))
    longest: Seconds = seconds(LONGEST, positive=False)
    too_long: str = checked(to_one_of("stop", "clamp"), "stop")
    spread: float = number(0.25, least=0.0)
    resets: bool = flag(False)

    def __call__(self, retry_state: RetryCallState) -> float:
        failure = _failure(retry_state)
        asked = failure.retry_after if failure is not None else None
        if asked is None and self.resets and failure is not None:
            asked = failure.reset_after
            asked = None if asked is None else min(asked, plain(self.longest))
        if asked is None or (asked == 0 and retry_state.attempt_number > 1):
            return float(self.otherwise(retry_state))
        if asked > plain(self.longest):
            return math.inf if self.too_long == "stop" else plain(self.longest)
        return asked * (1 + self.spread * _chance(retry_state)())
