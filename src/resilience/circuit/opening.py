"""How long a circuit stays open: fixed seconds, or what a wait says, asked at each opening."""

from __future__ import annotations

import logging
import math
from typing import Any, NamedTuple

from resilience._core.clock import chance
from resilience._core.options import warn
from resilience.failures import Failure
from resilience.waits import State, to_wait

__all__ = ["OTHERWISE", "Opening", "open_time", "to_open_time"]

OTHERWISE = 60.0  # seconds, where a wait does not say
_LONGEST = 86_400.0  # seconds for which a server may lengthen an open time: a day


def to_open_time(name: str, value: Any) -> Any:
    """Seconds that stay the same, as a float; or a wait, to be asked at each opening."""
    if callable(value) and not isinstance(value, type):
        return value
    found = to_wait(name, value)
    if found.seconds == 0:
        raise ValueError(f"{name} must be more than 0 seconds, got {value!r}")
    return found.seconds


class Opening(NamedTuple):
    """What a wait is asked with: the openings in a row, this one included, and the failure."""

    number: int
    now: float
    cause: BaseException | None
    failure: Failure | None

    def ends(self, seconds: float) -> float:
        """When the circuit may be tried: after `seconds`, or later if the server has said so, but
        after a day at the latest: a slip in its header must not be the end of the service."""
        asked = self.failure.retry_after if self.failure is not None else None
        return self.now + max(seconds, min(asked or 0.0, _LONGEST))


def open_time(wait: Any, opening: Opening) -> float:
    """Seconds to stay open; never raises. User code runs here: no lock may be held."""
    if isinstance(wait, (int, float)):
        return float(wait)
    try:
        seconds = float(wait(_state(opening)))
        if math.isnan(seconds):
            raise ValueError  # of what is raised here, only the class is told
    except Exception as problem:
        warn("reset_after raised %s", type(problem).__name__, level=logging.ERROR)
        return OTHERWISE
    # "Give up" is no answer here: a circuit is always tried again some time.
    return max(0.0, seconds) if math.isfinite(seconds) else OTHERWISE


def _state(opening: Opening) -> State:
    return State(
        None,
        (),
        {},
        number=opening.number,
        started=opening.now,
        ended=opening.now,
        waited=0.0,
        failure=opening.failure,
        error=opening.cause,
        result=None,
        chance=chance,
    )
