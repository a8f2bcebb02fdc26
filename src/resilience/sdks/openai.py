"""OpenAI's SDK, versions 1 to 3, pointed at OpenAI or at any service that speaks its format.

Among these are Azure, OpenRouter and Auriko, so `CODES` has their codes too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import auriko, google_rpc, stainless, verdict
from resilience.sdks.evidence import Evidence, mapping, text
from resilience.sdks.stainless import STATUSES
from resilience.sdks.values import number
from resilience.sdks.verdict import Code, Dialect, Meaning, judge

__all__ = ["CODES", "TYPES", "heard", "read"]

_SPENT = Code(Kind.QUOTA, Advice.STOP)
_FILTERED = Code(Kind.CONTENT_FILTER, Advice.STOP)
_NO_MODEL = Code(Kind.NOT_FOUND, Advice.FALLBACK)
_UNROUTED = Code(Kind.UNSUPPORTED, Advice.FALLBACK)
_LIMITED = Code(Kind.RATE_LIMIT, Advice.WAIT)
_OVERLOADED = Code(Kind.OVERLOADED, Advice.WAIT)

CODES: Mapping[str, Code] = {
    **auriko.CODES,
    "billing_hard_limit_reached": _SPENT,
    "billing_not_active": _SPENT,
    "content_filter": _FILTERED,
    "content_policy_violation": _FILTERED,
    "context_length_exceeded": Code(Kind.CONTEXT_LENGTH, Advice.FALLBACK),
    "engine_overloaded": _OVERLOADED,
    "image_content_policy_violation": _FILTERED,
    "insufficient_quota": _SPENT,
    "invalid_api_key": Code(Kind.AUTH, Advice.STOP),
    "model_not_found": _NO_MODEL,
    "moderation_blocked": _FILTERED,
    "rate_limit_exceeded": _LIMITED,
    "server_error": Code(Kind.SERVER, Advice.RETRY),
    # Azure. Most of its codes are the status in words or figures.
    "DeploymentNotFound": _NO_MODEL,
    "InsufficientQuota": _SPENT,
    "QuotaExceeded": _SPENT,
    "RateLimitReached": _LIMITED,
    "ResponsibleAIPolicyViolation": _FILTERED,
    # OpenRouter: why a model was not available,
    "capacity_exhausted": _LIMITED,
    "constraint_filtered": _UNROUTED,
    "free_variant_ended": _NO_MODEL,
    "model_deprecated": _NO_MODEL,
    "model_unavailable_upstream": _NO_MODEL,
    "no_endpoints": _NO_MODEL,
    "privacy_restricted": _UNROUTED,
    "region_restricted": Code(Kind.PERMISSION, Advice.FALLBACK),
    "temporarily_unavailable": Code(Kind.UNAVAILABLE, Advice.WAIT),
    "wrong_endpoint": _UNROUTED,
    # whose limit it was,
    "openrouter_credits": _SPENT,
    "openrouter_guardrail_budget": _SPENT,
    "openrouter_in_flight_budget": _LIMITED,
    "openrouter_key_limit": _SPENT,
    "openrouter_workspace_budget": _SPENT,
    # and what a provider's error amounts to.
    "authentication": Code(Kind.AUTH, Advice.STOP),
    "not_found": _NO_MODEL,
    "payment_required": _SPENT,
    "permission_denied": Code(Kind.PERMISSION, Advice.STOP),
    "provider_overloaded": _OVERLOADED,
    "provider_unavailable": Code(Kind.SERVER, Advice.RETRY),
    "refusal": _FILTERED,
    "server": Code(Kind.SERVER, Advice.RETRY),
    "timeout": Code(Kind.TIMEOUT, Advice.RETRY),
    "token_limit_exceeded": _SPENT,
}

TYPES: Mapping[str, Meaning] = {
    **verdict.TYPES,
    "budget_exceeded": Meaning(Kind.QUOTA, Advice.STOP),  # of LiteLLM's proxy
    "exceed_context_size_error": Meaning(Kind.CONTEXT_LENGTH, Advice.FALLBACK),  # llama.cpp
    "exceeded_current_quota_error": Meaning(Kind.QUOTA, Advice.STOP),  # Moonshot
    # Of a chat, it is the model that is not there: vLLM and Ollama have no code for it.
    "NotFoundError": Meaning(Kind.NOT_FOUND, Advice.FALLBACK),
    "not_found_error": Meaning(Kind.NOT_FOUND, Advice.FALLBACK),
}

_DIALECT = Dialect(CODES, STATUSES, TYPES)

_FINISHED: Mapping[str, Meaning] = {
    "ContentFilterFinishReasonError": Meaning(Kind.CONTENT_FILTER, Advice.STOP, sent=True),
    "LengthFinishReasonError": Meaning(Kind.UNKNOWN, Advice.STOP, sent=True),
}
"""Raised by the SDK over an answer that came, for the reason it ended."""


def read(error: Exception) -> Failure:
    """Read an `APIError` of any kind, and what the SDK makes of an answer's finish reason."""
    said = stainless.details(error)
    evidence = stainless.gathered(error, "openai", said)
    failure = stainless.unanswered(evidence, _FINISHED)
    if failure:
        return failure
    streaming = stainless.in_stream(evidence)
    return judge(evidence, heard(evidence, said), streaming)


def heard(evidence: Evidence, said: Mapping[str, Any]) -> Dialect:
    """Take into `evidence` what an error object says in whatever place; the dialect to judge it
    in, which is Google's where Gemini is asked in OpenAI's format."""
    if text(evidence.code) in CODES:
        return _DIALECT
    stainless.take_number(evidence)
    _hear_azure(evidence, said)
    _hear_openrouter(evidence, said)
    return google_rpc.overheard(evidence, said) or _DIALECT


def _hear_azure(evidence: Evidence, said: Mapping[str, Any]) -> None:
    """Azure may have a finer code further in."""
    inner = text(mapping(said.get("innererror") or said.get("inner_error")).get("code"))
    if inner in CODES:
        evidence.code = inner


def _hear_openrouter(evidence: Evidence, said: Mapping[str, Any]) -> None:
    """OpenRouter has its codes beside the code, and says in the body whether to try again."""
    more, availability = mapping(said.get("metadata")), mapping(said.get("availability"))
    evidence.provider = evidence.provider or more.get("provider_name")
    for told in (availability.get("code"), more.get("limit_source"), more.get("error_type")):
        code = text(told)
        if code in CODES:
            evidence.code = code
            break
    retryable = availability.get("retryable")
    evidence.retry = retryable if isinstance(retryable, bool) else None
    evidence.wait = number(availability.get("retry_after"))
