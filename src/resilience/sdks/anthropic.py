"""Anthropic's SDK. Its API names the class of an error, and a finer code for some."""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import bodies, stainless
from resilience.sdks.codes import load
from resilience.sdks.evidence import peek
from resilience.sdks.verdict import Code, Meaning, judge

__all__ = ["CODES", "read"]

CODES: Mapping[str, Code] = load("anthropic")

_STATUSES: Mapping[int, Meaning] = {
    **bodies.SDK_STATUSES,
    499: Meaning(Kind.CANCELLED, Advice.STOP),
}

_LOCAL: Mapping[str, Meaning] = {
    "CredentialsError": Meaning(Kind.AUTH, Advice.STOP, sent=False),
    "RetryableError": Meaning(Kind.UNKNOWN, Advice.RETRY),  # raised by a user's middleware
}


def read(error: Exception) -> Failure:
    """Read an `APIError` of any kind, and what the SDK or its middleware raises by itself."""
    body = peek(error, "body")
    evidence = stainless.gathered(error, "anthropic", body, _STATUSES)
    failure = stainless.unanswered(evidence, _LOCAL)
    if failure:
        return failure
    code = peek(error, "error_code")  # older versions leave it in the body
    evidence.code = evidence.code if code is None else code
    return judge(evidence, bodies.heard(evidence, body))
