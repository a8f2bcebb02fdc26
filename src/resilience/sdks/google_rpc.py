"""What every Google API says of an error: a status of its own, which says more than HTTP's, and
details: a finer reason, the quota that ran out, how long to wait.

They come as JSON or as the messages that gRPC brings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resilience.failures import Advice, Failure, Kind
from resilience.sdks.codes import table
from resilience.sdks.evidence import Evidence, mapping, peek, text, unlisted
from resilience.sdks.values import duration, number
from resilience.sdks.verdict import Code, Dialect, judge

__all__ = ["judge_rpc", "read_details", "read_foreign"]

CODES = table("google.rest", "grpc", "google")
"""Google's statuses are gRPC's, over HTTP too; and reasons that say more: a bad key is an
INVALID_ARGUMENT."""

_DIALECT = Dialect(CODES)
_EXHAUSTED = Dialect({**CODES, "RESOURCE_EXHAUSTED": Code(Kind.QUOTA, Advice.STOP)})
"""Where the quota that ran out is not one that comes back within the minute."""

_MOST = 64
"""Details, and quotas in one, that are looked at; there are a handful."""


def judge_rpc(
    error: Exception, status: Any, name: Any, details: Any, response: Any, *, begun: bool = False
) -> Failure:
    """As `judge`, of an error with a status of Google's (`name`) and its details."""
    evidence = Evidence(error, "google", status=status, headers=peek(response, "headers"))
    return judge(evidence, read_details(evidence, name, details), begun)


def read_foreign(evidence: Evidence, fields: Mapping[str, Any]) -> Dialect | None:
    """As `read_details`, of an error object that somebody else's client was given; None where it is
    none of Google's."""
    name, reason = text(fields.get("status")), _reason(fields)
    if name not in CODES and reason not in CODES:
        return None
    return read_details(evidence, name, fields.get("details"), reason)


def _reason(fields: Mapping[str, Any]) -> str | None:
    """The reason of an older API's error."""
    return text(mapping(unlisted(fields.get("errors"))).get("reason"))


def read_details(evidence: Evidence, name: Any, details: Any, reason: str | None = None) -> Dialect:
    """Take into `evidence` what a status of Google's (`name`), its details and an older `reason`
    say; the dialect to judge it in."""
    found = _Details(details)
    reasons = () if found.exhausted else (found.reason, reason)
    evidence.code = next((each for each in reasons if each in CODES), name)
    evidence.type = name
    evidence.request_id = found.request_id or evidence.request_id
    evidence.wait = found.wait
    return _EXHAUSTED if found.exhausted else _DIALECT


class _Details:
    """What is known of an error beyond its status; None where nothing is said."""

    def __init__(self, listed: object) -> None:
        self._by_type: dict[str, Any] = {}
        for each in _each(listed):
            self._by_type.setdefault(_type(each), each)

    @property
    def reason(self) -> str | None:
        """The finer reason, such as "API_KEY_INVALID"."""
        return text(self._value("ErrorInfo", "reason"))

    @property
    def request_id(self) -> str | None:
        return text(self._value("RequestInfo", "requestId", "request_id"))

    @property
    def wait(self) -> float | None:
        """Seconds: `RetryInfo`."""
        delay = self._value("RetryInfo", "retryDelay", "retry_delay")
        seconds = number(peek(delay, "seconds"))
        if seconds is None:
            return duration(delay)
        return seconds + (number(peek(delay, "nanos"), most=1e9) or 0.0) / 1e9

    @property
    def exhausted(self) -> bool:
        """A quota of days ran out, or one that is nothing at all: no minute brings it back."""
        for violation in _each(self._value("QuotaFailure", "violations")):
            quota = text(_get(violation, "quotaId", "quota_id")) or ""
            if "PerDay" in quota or _get(violation, "quotaValue", "quota_value") in ("0", 0):
                return True
        return False

    def _value(self, kind: str, *names: str) -> Any:
        return _get(self._by_type.get(kind), *names)


def _each(listed: Any) -> Iterator[Any]:
    if isinstance(listed, Sequence) and not isinstance(listed, (str, bytes)):
        yield from listed[:_MOST]


def _type(detail: object) -> str:
    """`RetryInfo`, of a message of that class or of JSON with "type.googleapis.com/..."."""
    found = text(mapping(detail).get("@type"))
    return found.rpartition(".")[2] if found else type(detail).__name__


def _get(thing: Any, *names: str) -> Any:
    """The first of `names` that is there, in JSON or on a message."""
    for name in names:
        found = thing.get(name) if isinstance(thing, dict) else peek(thing, name)
        if found is not None:
            return found
    return None
