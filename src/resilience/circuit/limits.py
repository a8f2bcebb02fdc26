"""What makes a circuit open and close: a breaker's options, as its circuits ask for them."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from resilience._core.options import plain

if TYPE_CHECKING:  # rules about rates are imported where first needed, as few breakers have any
    from .trip import Counted, Gauge

__all__ = ["Limits"]


@frozen(eq=False, repr=False)
class Limits:
    """Shared by all circuits of a breaker."""

    failures: float = 5  # in a row; infinite where no rule counts those
    reset_after: Any = 60.0  # seconds, or a wait
    trials: int = 1
    successes: int = 1
    failable_trials: int = 0  # trials that may go badly
    rates: tuple[Counted, ...] = ()
    trial_timeout: float = math.inf
    ramp: float = 0.0
    by_model: bool = False
    """Whether the key is the name of a model, which may be shown. Any other may be a secret."""
    slow_after: float = field(init=False)
    """Seconds from which on a call is bad for some rule, however it ends."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(
            self, "slow_after", min((r.slow_after for r in self.rates), default=math.inf)
        )

    def gauges(self) -> tuple[Gauge, ...]:
        """What one circuit counts, from now on, for the rules about rates."""
        if not self.rates:
            return ()
        from .trip import Gauge

        return tuple(map(Gauge, self.rates))

    @classmethod
    def of(cls, breaker: Any) -> Limits:
        """A breaker's options; raises for those that do not go together."""
        failures, rates = _tripping(breaker)
        failable_trials = _failable_trials(breaker.successes, breaker.tolerate)
        if breaker.tolerate and not failable_trials:
            raise ValueError(
                f"tolerate={breaker.tolerate:g} lets no trial fail with successes="
                f"{breaker.successes}; that takes more successes"
            )
        return cls(
            failures=failures,
            reset_after=breaker.reset_after,
            trials=breaker.trials,
            successes=breaker.successes,
            failable_trials=failable_trials,
            rates=rates,
            trial_timeout=plain(breaker.trial_timeout),
            ramp=0.0 if breaker.ramp is None else plain(breaker.ramp),
            by_model=breaker.key == "model",
        )


def _tripping(breaker: Any) -> tuple[float, tuple[Counted, ...]]:
    """Failures in a row, and the rules about rates."""
    failures, trip = breaker.failures, breaker.trip
    if trip is None:
        if failures is None:
            raise TypeError("failures must be a whole number where there is no trip, got None")
        return failures, ()
    if failures is not None:
        raise ValueError(f"give failures or trip, not both, got failures={failures}, trip={trip!r}")
    from .trip import Consecutive, rules_of

    rules = rules_of(trip)
    runs = [rule.number for rule in rules if isinstance(rule, Consecutive)]
    rates = tuple(rule for rule in rules if not isinstance(rule, Consecutive))
    return min(runs, default=math.inf), rates


def _failable_trials(successes: int, tolerate: float) -> int:
    """How many trials may go badly beside `successes` good ones, for a share of `tolerate`."""
    return math.floor(min(successes * tolerate / (1 - tolerate), sys.float_info.max) + 1e-9)
