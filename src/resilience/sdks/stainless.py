"""What the SDKs that Stainless generates share: OpenAI's, Groq's and Anthropic's.

Their classes have the same names, their attributes nearly so; the tables of codes are each
family's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import verdict
from resilience.sdks.evidence import Evidence, by_class_name, error_in, header_text, peek
from resilience.sdks.evidence import status as to_status
from resilience.sdks.headers import pick
from resilience.sdks.transport import transport
from resilience.sdks.values import number
from resilience.sdks.verdict import MISSHAPEN, Meaning

__all__ = ["STATUSES", "details", "gathered", "in_stream", "take_number", "unanswered"]

STATUSES: Mapping[int, Meaning] = {
    **verdict.STATUSES,
    409: Meaning(Kind.CONFLICT, Advice.RETRY),  # as these SDKs do themselves
}

_UNANSWERED: Mapping[str, Meaning] = {
    "APITimeoutError": Meaning(Kind.TIMEOUT, Advice.RETRY),
    "APIConnectionError": Meaning(Kind.CONNECTION, Advice.RETRY),
}


def unanswered(evidence: Evidence, local: Mapping[str, Meaning]) -> Failure | None:
    """What is known by its class: a call that got no answer, a 200 that is none of the API's, and
    the family's own errors, `local`. None for all else.
    """
    status = evidence.status
    if type(status) is int and status >= 400:  # as most have
        return None
    error, sdk = evidence.error, evidence.sdk
    cls = type(error)
    found = by_class_name(cls, _UNANSWERED)
    if found:
        failure = (transport(peek(error, "__cause__")) or found).failure(error, sdk)
        # An earlier try of the SDK's own may have been executed, and its answer lost.
        return evolve(failure, sent=None) if failure.sent is False and _again(error) else failure
    if by_class_name(cls, {"APIResponseValidationError": True}):
        facts = {"status": to_status(status), "request_id": _request_id(peek(error, "response"))}
        return MISSHAPEN.failure(error, sdk, **facts)
    found = by_class_name(cls, local)
    return found.failure(error, sdk) if found else None


def gathered(error: Exception, sdk: str, said: Mapping[str, Any]) -> Evidence:
    """What an `APIError` has to say; `said` is its body's error object."""
    response = peek(error, "response")
    code, category = peek(error, "code"), peek(error, "type")
    request_id = peek(error, "request_id")
    return Evidence(
        error,
        sdk,
        peek(error, "status_code"),
        said.get("code") if code is None else code,
        said.get("type") if category is None else category,
        peek(response, "headers"),
        _request_id(response) if request_id is None else request_id,
        said.get("provider"),
    )


def in_stream(evidence: Evidence) -> bool:
    """Was it an event in a stream? Such an `APIError` came without a status."""
    if evidence.status is not None:
        return False
    return by_class_name(type(evidence.error), {"APIError": True}) is not None


def take_number(evidence: Evidence) -> None:
    """OpenRouter's, vLLM's and some of Azure's codes are the status; an event in a stream has no
    other.

    Version 3 of OpenAI's SDK makes a text of a number, the others do not.
    """
    status = to_status(number(evidence.code))
    if status is not None:
        evidence.code = str(status)
        evidence.status = evidence.status or status


def details(error: Exception) -> Mapping[str, Any]:
    """The error object of an error's body, which may still be in its envelope."""
    return error_in(peek(error, "body"))


def _again(error: Exception) -> bool:
    """Whether the SDK itself had tried before."""
    sent = pick(peek(peek(error, "request"), "headers"))
    return bool(number(sent.get("x-stainless-retry-count")))


def _request_id(response: object) -> str | None:
    sent = pick(peek(response, "headers"))
    return header_text(sent.get("x-request-id") or sent.get("request-id"))
