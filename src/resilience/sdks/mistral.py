"""Mistral's SDK. The body is a string of JSON; its codes are numbers in quotes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import bodies
from resilience.sdks.evidence import (
    Evidence,
    by_class_name,
    error_in,
    json_object,
    peek,
)
from resilience.sdks.headers import pick
from resilience.sdks.transport import transport
from resilience.sdks.verdict import MISSHAPEN, Dialect, Meaning, judge

__all__ = ["read"]

_UNANSWERED = Meaning(Kind.CONNECTION, Advice.RETRY)


def read(error: Exception) -> Failure | None:
    """Read a `MistralError` or a `NoResponseError`; None for any other."""
    cls = type(error)
    if by_class_name(cls, {"NoResponseError": True}):
        return (transport(peek(error, "__cause__")) or _UNANSWERED).failure(error, "mistralai")
    status = peek(error, "status_code")
    if status is None:
        return None
    told = _told(peek(error, "body"))
    headers = peek(error, "headers")
    # A 200 that raises is an error event in a stream, or nothing that the API promises.
    begun = status == 200
    evidence = Evidence(
        error,
        "mistralai",
        status=told.get("raw_status_code", status) if begun else status,
        headers=headers,
        request_id=pick(headers).get("x-request-id"),
    )
    dialect = bodies.heard(evidence, told)
    return judge(evidence, Dialect(dialect.codes, otherwise=MISSHAPEN), begun)


def _told(body: object) -> Mapping[str, Any]:
    told = error_in(json_object(body))
    return error_in(told.get("data")) or told  # an event of a stream is wrapped once more
