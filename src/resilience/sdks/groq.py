"""Groq's SDK. It leaves code and type in the body, which is whole or, in a stream, unwrapped."""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import openai, stainless
from resilience.sdks.verdict import Code, Meaning, judge

__all__ = ["CODES", "read"]

_ILL_MADE = Code(Kind.SERVER, Advice.RETRY, retry_limit=1, sent=True, note="by the model")

CODES: Mapping[str, Code] = {
    **openai.CODES,
    "blocked_api_access": Code(Kind.QUOTA, Advice.STOP, note="the month's spend limit"),
    "capacity_exceeded": Code(Kind.OVERLOADED, Advice.WAIT, status=498, note="of the flex tier"),
    "json_validate_failed": _ILL_MADE,
    "model_decommissioned": Code(Kind.NOT_FOUND, Advice.FALLBACK),
    "tool_use_failed": _ILL_MADE,
}

_TOO_LARGE: Mapping[str, Code] = {
    **CODES,
    # One request larger than the model's limit for a whole minute: no wait is long enough.
    "rate_limit_exceeded": Code(Kind.CONTEXT_LENGTH, Advice.FALLBACK),
}
"""What codes mean with a 413."""

_STATUSES: Mapping[int, Meaning] = {
    **stainless.STATUSES,
    498: Meaning(Kind.OVERLOADED, Advice.WAIT),
}


def read(error: Exception) -> Failure:
    """Read an `APIError` of any kind."""
    failure = stainless.unanswered(error, "groq", {})
    if failure:
        return failure
    evidence = stainless.gathered(error, "groq", stainless.details(error))
    codes = _TOO_LARGE if evidence.status == 413 else CODES
    streaming = stainless.in_stream(evidence)
    return judge(evidence, codes, statuses=_STATUSES, streaming=streaming)
