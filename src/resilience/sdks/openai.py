"""OpenAI's SDK, versions 1 to 3, pointed at OpenAI or at any gateway that speaks its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import auriko
from resilience.sdks.evidence import Evidence, by_class_name, peek
from resilience.sdks.transport import transport
from resilience.sdks.verdict import STATUSES, Code, Meaning, judge

__all__ = ["CODES", "read"]

CODES: Mapping[str, Code] = {
    **auriko.CODES,  # whose gateway is often called with this SDK
    "billing_hard_limit_reached": Code(Kind.QUOTA, Advice.STOP),
    "content_filter": Code(Kind.CONTENT_FILTER, Advice.STOP),
    "content_policy_violation": Code(Kind.CONTENT_FILTER, Advice.STOP),
    "context_length_exceeded": Code(Kind.CONTEXT_LENGTH, Advice.FALLBACK),
    "insufficient_quota": Code(Kind.QUOTA, Advice.STOP),
    "invalid_api_key": Code(Kind.AUTH, Advice.STOP),
    "model_not_found": Code(Kind.NOT_FOUND, Advice.FALLBACK),
    "rate_limit_exceeded": Code(Kind.RATE_LIMIT, Advice.WAIT),
    "server_error": Code(Kind.SERVER, Advice.RETRY),
}

_STATUSES = {**STATUSES, 409: Meaning(Kind.CONFLICT, Advice.RETRY)}  # as the SDK itself does

_WITHOUT_ANSWER: Mapping[str, Meaning] = {
    "APITimeoutError": Meaning(Kind.TIMEOUT, Advice.RETRY),
    "APIConnectionError": Meaning(Kind.CONNECTION, Advice.RETRY),
}
_FINISHED: Mapping[str, Meaning] = {
    "ContentFilterFinishReasonError": Meaning(Kind.CONTENT_FILTER, Advice.STOP, sent=True),
    "LengthFinishReasonError": Meaning(Kind.UNKNOWN, Advice.STOP, sent=True),
}
"""Raised by the SDK over an answer that came, for the reason it ended."""


def read(error: Exception) -> Failure:
    """Read an `APIError` of any kind, and what the SDK makes of an answer's finish reason."""
    status = peek(error, "status_code")
    streaming = False
    if status is None:
        cls = type(error)
        unanswered = by_class_name(cls, _WITHOUT_ANSWER)
        if unanswered:
            return (transport(peek(error, "__cause__")) or unanswered).failure(error, "openai")
        finished = by_class_name(cls, _FINISHED)
        if finished:
            return finished.failure(error, "openai")
        # An APIError of no status was an event in a stream.
        streaming = by_class_name(cls, {"APIError": True}) is not None
    details = _details(peek(error, "body"))
    evidence = Evidence(
        error,
        "openai",
        status=status,
        code=_told(error, details, "code"),
        type=_told(error, details, "type"),
        headers=peek(peek(error, "response"), "headers"),
        request_id=peek(error, "request_id"),
        provider=details.get("provider"),
    )
    return judge(evidence, CODES, statuses=_STATUSES, streaming=streaming)


def _details(body: Any) -> Mapping[str, Any]:
    """The error object of a body; the SDK unwraps it, but not every body looks alike."""
    if not isinstance(body, dict):
        return {}
    outer = cast("dict[str, Any]", body)
    inner = outer.get("error")
    return cast("dict[str, Any]", inner) if isinstance(inner, dict) else outer


def _told(error: Exception, details: Mapping[str, Any], name: str) -> Any:
    told = peek(error, name)
    return details.get(name) if told is None else told
