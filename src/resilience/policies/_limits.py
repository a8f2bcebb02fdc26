"""What makes a circuit open and close: a breaker's options, as its circuits ask for them."""

from __future__ import annotations

import math
from typing import Any

from attrs import field, frozen

from ._trip import Consecutive, Counted, rules_of

__all__ = ["Limits", "missable"]


@frozen
class Limits:
    """Shared by all circuits of a breaker."""

    failures: float = 5  # in a row; infinite where no rule counts those
    reset_after: Any = 60.0  # seconds, or a wait
    trials: int = 1
    successes: int = 1
    missable: int = 0  # trials that may go badly
    rates: tuple[Counted, ...] = ()
    trial_timeout: float = math.inf
    ramp: float = 0.0
    slower: float = field(init=False)
    """Seconds from which on a call is bad for some rule, however it ends."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "slower", min((r.slower for r in self.rates), default=math.inf))

    @staticmethod
    def tripping(trip: Any) -> tuple[float, tuple[Counted, ...]]:
        """Failures in a row, and the rules about rates, of a `trip=`."""
        rules = rules_of(trip)
        runs = [rule.number for rule in rules if isinstance(rule, Consecutive)]
        return min(runs, default=math.inf), tuple(
            rule for rule in rules if not isinstance(rule, Consecutive)
        )


def missable(successes: int, tolerate: float) -> int:
    """How many trials may go badly beside `successes` good ones, for a share of `tolerate`."""
    return math.floor(successes * tolerate / (1 - tolerate) + 1e-9)
