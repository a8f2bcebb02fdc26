"""How a circuit stands at one moment, as a value."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any

from attrs import field, fields, frozen

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
    key: Any = field(repr=False)  # it may be a secret
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

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data that `json.dumps` takes: times in ISO 8601, rules and the key in
        words, of the last failure what is not empty."""
        found = {each.name: getattr(self, each.name) for each in fields(Snapshot)}
        for name in ("opened_at", "retry_at"):
            found[name] = None if found[name] is None else found[name].isoformat()
        if not isinstance(self.key, (str, int, float, bool, type(None))):
            found["key"] = repr(self.key)
        found["readings"] = [
            {"rule": repr(each.rule), "calls": each.calls, "bad": each.bad, "rate": each.rate}
            for each in self.readings
        ]
        found["last_failure"] = None if self.last_failure is None else _facts(self.last_failure)
        return found

    def _rate(self, kind: type) -> float | None:
        return next((each.rate for each in self.readings if isinstance(each.rule, kind)), None)


def _facts(failure: Failure) -> dict[str, Any]:
    facts = {each.name: getattr(failure, each.name) for each in fields(Failure)}
    del facts["error"]
    return {
        name: fact.value if isinstance(fact, Enum) else fact
        for name, fact in facts.items()
        if fact is not None
    }
