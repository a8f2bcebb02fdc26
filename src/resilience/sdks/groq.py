"""Groq's SDK. It leaves code and type in the body, which is whole or, in a stream, unwrapped."""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import openai, stainless
from resilience.sdks.evidence import Evidence
from resilience.sdks.verdict import Code, Dialect, Meaning, judge

__all__ = ["CODES", "heard", "read"]

_ILL_MADE = Code(Kind.SERVER, Advice.RETRY, retry_limit=1, sent=True, note="by the model")

CODES: Mapping[str, Code] = {
    **openai.CODES,
    "blocked_api_access": Code(Kind.QUOTA, Advice.STOP, note="the month's spend limit"),
    "capacity_exceeded": Code(Kind.OVERLOADED, Advice.WAIT, status=498, note="of the flex tier"),
    "json_validate_failed": _ILL_MADE,
    "model_decommissioned": Code(Kind.NOT_FOUND, Advice.FALLBACK),
    "tool_use_failed": _ILL_MADE,
}

_STATUSES: Mapping[int, Meaning] = {
    **stainless.STATUSES,
    498: Meaning(Kind.OVERLOADED, Advice.WAIT),
}

_DIALECT = Dialect(CODES, _STATUSES)
# One request larger than the model's limit for a whole minute: no wait is long enough.
_TOO_LONG = Code(Kind.CONTEXT_LENGTH, Advice.FALLBACK)
_TOO_LARGE = Dialect({**CODES, "rate_limit_exceeded": _TOO_LONG}, _STATUSES)
"""What is meant with a 413."""


def read(error: Exception) -> Failure:
    """Read an `APIError` of any kind."""
    evidence = stainless.gathered(error, "groq", stainless.details(error))
    failure = stainless.unanswered(evidence, {})
    if failure:
        return failure
    streaming = stainless.in_stream(evidence)
    return judge(evidence, heard(evidence), streaming)


def heard(evidence: Evidence, _: object = None) -> Dialect:
    """Take into `evidence` a status that is its code; the dialect to judge it in."""
    stainless.take_number(evidence)
    return _TOO_LARGE if evidence.status == 413 else _DIALECT
