"""LangChain's `ModelError` and its kinds, which integrations raise in place of an SDK's errors.

Those of an integration are the SDK's error too, or have it as their cause: that says more. Only
what LangChain found out itself, by reading messages, is taken from its class.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from resilience.failures import Advice, Failure, Kind, describe
from resilience.sdks import in_framework, package_of, reader_for, verdict
from resilience.sdks.evidence import by_class_name, peek
from resilience.sdks.verdict import Meaning

__all__ = ["read"]

_MEANINGS: Mapping[str, Meaning] = {
    "ContextOverflowError": Meaning(Kind.CONTEXT_LENGTH, Advice.FALLBACK, sent=False),
    "ModelAPIError": Meaning(Kind.SERVER, Advice.RETRY),
    "ModelAuthenticationError": Meaning(Kind.AUTH, Advice.STOP),
    "ModelConnectionError": verdict.LOST,
    "ModelInvalidRequestError": verdict.INVALID,
    "ModelNotFoundError": Meaning(Kind.NOT_FOUND, Advice.FALLBACK),
    "ModelPermissionDeniedError": Meaning(Kind.PERMISSION, Advice.STOP),
    "ModelRateLimitError": verdict.LIMITED,
    "ModelRefusalError": Meaning(Kind.CONTENT_FILTER, Advice.STOP, sent=True),
    "ModelTimeoutError": verdict.TIMED_OUT,
    "ModelError": Meaning(Kind.UNKNOWN, Advice.STOP),
}
_RETRYABLE = Meaning(Kind.UNKNOWN, Advice.RETRY)
_VAGUE = (Kind.UNKNOWN, Kind.INVALID)


def read(error: Exception) -> Failure | None:
    """Read a `ModelError`; LangChain's other errors are no more than what they wrap."""
    meaning = by_class_name(type(error), _MEANINGS)
    failure = _by_the_sdk(error)
    if meaning is None:
        return failure
    if failure is not None:
        if failure.kind in _VAGUE and meaning.kind is Kind.CONTEXT_LENGTH:
            failure = evolve(failure, kind=meaning.kind, advice=meaning.advice, sent=meaning.sent)
        if failure.kind is not Kind.UNKNOWN:
            return evolve(failure, error=error)
    if meaning is _MEANINGS["ModelError"] and peek(error, "is_retryable") is True:
        meaning = _RETRYABLE
    return meaning.failure(error, "langchain_core")


def _by_the_sdk(error: Exception) -> Failure | None:
    for base in type(error).__mro__:
        if package_of(base) is not None and not in_framework(base):
            return reader_for(base)(error)
    cause = peek(error, "__cause__")
    return describe(cause) if isinstance(cause, Exception) else None
