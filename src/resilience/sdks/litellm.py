"""LiteLLM. It makes errors of its own out of those of the SDKs beneath it, and loses half: codes,
and that nothing was sent. What it caught is still there, as its error's context: an SDK's error,
or that of a plain HTTP client, by which it calls most providers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from resilience.failures import Advice, Failure, Kind, describe
from resilience.sdks import bodies, package_of, verdict
from resilience.sdks.causes import came_through
from resilience.sdks.evidence import Evidence, by_class_name, error_in, json_value, peek, text
from resilience.sdks.evidence import status as to_status
from resilience.sdks.values import number
from resilience.sdks.verdict import MISSHAPEN, Meaning, judge

__all__ = ["read"]

_CODES_OF_CLASSES: Mapping[str, str] = {
    "ContentPolicyViolationError": "content_policy_violation",
    "ContextWindowExceededError": "context_length_exceeded",
}
"""What LiteLLM found out from any provider's answer, in OpenAI's words."""

_FILTERED = Meaning(Kind.CONTENT_FILTER, Advice.STOP)
_LACKS = Meaning(Kind.UNSUPPORTED, Advice.FALLBACK, sent=False)
_OWN: Mapping[str, Meaning] = {
    "APIResponseValidationError": MISSHAPEN,
    "BlockedPiiEntityError": _FILTERED,
    "BudgetExceededError": Meaning(Kind.QUOTA, Advice.STOP, sent=False),
    "EndpointNotSupportedByModelError": _LACKS,
    "GuardrailRaisedException": _FILTERED,
    "RouterRateLimitError": verdict.LIMITED,
    "UnsupportedParamsError": _LACKS,
}
"""Raised without a server's word."""

_UNANSWERED: Mapping[str, Meaning] = {
    "APIConnectionError": verdict.LOST,
    "Timeout": verdict.TIMED_OUT,
}
_HTTP = frozenset({"aiohttp", "httpx", "httpx2", "requests"})
_DEEPEST = 8


def read(error: Exception) -> Failure:
    """Read one of LiteLLM's errors, by what it caught where that says more."""
    cls = type(error)
    provider = text(peek(error, "llm_provider"))
    own = by_class_name(cls, _OWN)
    if own or _over_budget(error):
        facts = {
            "retry_after": number(peek(error, "cooldown_time")),  # of its Router
            "provider": provider,
        }
        return (own or _OWN["BudgetExceededError"]).failure(error, "litellm", **facts)
    begun = by_class_name(cls, {"MidStreamFallbackError": True}) is not None
    beneath, last = _caught(error)
    code = by_class_name(cls, _CODES_OF_CLASSES)
    if beneath is not None and code is None:
        failure = _answered(error, beneath, provider) or describe(beneath)
        if failure.kind is not Kind.UNKNOWN:
            sent = True if begun else failure.sent
            return evolve(
                failure,
                sdk="litellm",
                provider=provider or failure.provider,
                sent=sent,
                error=error,
            )
    return _own_word(error, last, begun, code, provider)


def _own_word(
    error: Exception, last: Exception, begun: bool, code: str | None, provider: str | None
) -> Failure:
    """By what the error itself says; `last` is the innermost one that LiteLLM made."""
    headers = peek(error, "litellm_response_headers") or peek(error, "headers")
    fields = error_in(peek(error, "body"))
    if headers is None and not fields and code is None:
        alone = by_class_name(type(error), _UNANSWERED)
        # Data that it could not use: it says so with an APIError of its own, and wraps that.
        if alone is None and last is not error and by_class_name(type(last), {"APIError": True}):
            alone = MISSHAPEN
        if alone:
            return evolve(alone.failure(error, "litellm"), provider=provider)
    status = peek(error, "status_code")
    # A code may have been put where the status should be, over an error in an answer of 200.
    misplaced = status if to_status(status) is None else None
    evidence = Evidence(
        error,
        "litellm",
        status=status,
        code=fields.get("code") or code or misplaced,
        type=fields.get("type"),
        headers=headers,
        provider=provider,
        model_call=True,
        statuses=bodies.SDK_STATUSES,
    )
    streaming = begun or misplaced is not None
    return judge(evidence, bodies.dialect("openai"), streaming)


def _answered(error: Exception, beneath: Exception, provider: str | None) -> Failure | None:
    """What the provider said, if LiteLLM asked it by plain HTTP."""
    if package_of(type(beneath)) not in _HTTP:
        return None
    response = peek(beneath, "response")
    status = peek(response, "status_code") or peek(beneath, "status")  # aiohttp's has no response
    if to_status(status) is None:
        return None
    # Not `content`, by which requests would read the rest of a stream.
    body = json_value(peek(response, "_content"))
    evidence = Evidence(
        error,
        "litellm",
        status=status,
        headers=peek(beneath if response is None else response, "headers"),
        provider=provider or error_in(body).get("provider"),
        model_call=True,
        statuses=bodies.SDK_STATUSES,
    )
    return judge(evidence, bodies.read_body(evidence, body))


def _over_budget(error: Exception) -> bool:
    limit: Any = peek(error, "rate_limit_type")
    return isinstance(limit, str) and limit == "budget"


def _caught(error: Exception) -> tuple[Exception | None, Exception]:
    """The error of another package that became this one, if any, and LiteLLM's last on the way."""
    last = error
    for _ in range(_DEEPEST):
        beneath = peek(last, "__cause__") or peek(last, "__context__")
        if not isinstance(beneath, Exception):
            break
        if package_of(type(beneath)) != "litellm":
            # Else it is the caller's own, who was handling it when he called.
            return (beneath if came_through(beneath, "litellm") else None), last
        last = beneath
    return None, last
