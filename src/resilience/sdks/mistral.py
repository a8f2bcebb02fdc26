"""Mistral's SDK. The body is a string of JSON; its codes are numbers in quotes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resilience.failures import Advice, Failure, Kind
from resilience.sdks.evidence import (
    Evidence,
    by_class_name,
    error_in,
    json_object,
    mapping,
    peek,
    text,
)
from resilience.sdks.headers import pick
from resilience.sdks.transport import transport
from resilience.sdks.verdict import MISSHAPEN, TYPES, Code, Dialect, Meaning, judge

__all__ = ["CODES", "heard", "read"]

CODES: Mapping[str, Code] = {
    "1300": Code(Kind.RATE_LIMIT, Advice.WAIT, type="rate_limited"),
    "1500": Code(Kind.NOT_FOUND, Advice.FALLBACK, type="invalid_model"),
    "3505": Code(Kind.OVERLOADED, Advice.WAIT, type="service_tier_capacity_exceeded"),
    "unknown_model": Code(Kind.NOT_FOUND, Advice.FALLBACK, type="invalid_request_error"),
}
_TYPES: Mapping[str, Meaning] = {
    **TYPES,
    **{code.type: code for code in CODES.values() if code.type != "invalid_request_error"},
}
_DIALECT = Dialect(CODES, types=_TYPES, otherwise=MISSHAPEN)

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
    return judge(evidence, heard(evidence, told), begun)


def heard(evidence: Evidence, said: Mapping[str, Any]) -> Dialect:
    """Take code and type out of an error object into `evidence`; the dialect to judge it in."""
    evidence.code = _code(said)
    evidence.type = said.get("type")
    return _DIALECT


def _told(body: object) -> Mapping[str, Any]:
    told = error_in(json_object(body))
    return error_in(told.get("data")) or told  # an event of a stream is wrapped once more


def _code(told: Mapping[str, Any]) -> str | None:
    """The code, or what the first of the validator's complaints is about."""
    code = told.get("code")
    if code is not None:
        return str(code) if isinstance(code, (str, int)) else None
    listed = told.get("detail")
    first = listed[0] if isinstance(listed, list) and listed else None
    return text(mapping(first).get("type"))
