"""How a circuit stands at one moment, as a value."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import frozen

from resilience._core.options import Value
from resilience.failures import Failure

from .trip import FailureRate, Reading, SlowCalls

__all__ = ["Snapshot"]


@frozen(eq=False, repr=False)
class Snapshot(Value):
    """A circuit at one moment.

    - `state`; `shadow`: whether it only reports; `name`, `key`.
    - `failures`: in a row, while closed. `readings`: calls and bad calls in each rule's window.
    - `trials`: under way; `passed`, `failed`: trials of this half-open time that have ended.
    - `opened_at` (UTC) and `opened_for` (seconds): since when it is not closed; else None.
    - `retry_at` and `retry_after`: when a call may be tried; None while closed, or where nobody
      knows.
    - `refused`: calls rejected since it was last closed (in shadow: that would have been).
    - `ramp`: the share of calls let through after closing; None if all are.
    - `last_failure`: the last one counted, without its exception.
    """

    state: str
    shadow: bool
    name: str | None
    key: Any
    failures: int
    readings: tuple[Reading, ...]
    trials: int
    passed: int
    failed: int
    opened_at: datetime | None
    opened_for: float | None
    retry_at: datetime | None
    retry_after: float | None
    refused: int
    ramp: float | None
    last_failure: Failure | None

    @property
    def failure_rate(self) -> float | None:
        """The share of failed calls, by the first `FailureRate`; None without one, or a call."""
        return self._rate(FailureRate)

    @property
    def slow_rate(self) -> float | None:
        """The share of slow calls, by the first `SlowCalls`; None without one, or a call."""
        return self._rate(SlowCalls)

    def _rate(self, kind: type) -> float | None:
        return next((each.rate for each in self.readings if isinstance(each.rule, kind)), None)
