"""Google's GenAI SDK, its Interactions included; what Google's other packages raise is left to
`google_core`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from resilience.failures import Advice, Failure, Kind, describe
from resilience.sdks import google_core, verdict
from resilience.sdks.evidence import by_class_name, error_in, peek
from resilience.sdks.google_rpc import judge_rpc
from resilience.sdks.transport import transport
from resilience.sdks.verdict import MISSHAPEN, Meaning

__all__ = ["read"]

_ALONE: Mapping[str, Meaning] = {
    "APIConnectionError": verdict.LOST,
    "APIResponseValidationError": MISSHAPEN,
    "APITimeoutError": verdict.TIMED_OUT,
    "ContinuationTimeoutError": Meaning(Kind.TIMEOUT, Advice.RETRY, retry_limit=1, sent=True),
    "UnknownApiResponseError": MISSHAPEN,
}
"""Errors without a status to go by."""


def read(error: Exception) -> Failure | None:
    """Read an `APIError` of the SDK or of its Interactions, and what Google's other packages
    raise; None for an error that only wraps another."""
    cls = type(error)
    refused = peek(error, "http_status")  # of a web socket that was not to be opened
    alone = None if refused else by_class_name(cls, _ALONE)
    if alone:
        return (transport(peek(error, "__cause__")) or alone).failure(error, "google")
    if by_class_name(cls, {"GeminiNextGenAPIClientError": True}):
        status = refused or peek(error, "status_code")
        return _answered(error, status, peek(error, "body"), begun=not status)
    if by_class_name(cls, {"APIError": True}):
        # In a stream the response is the SDK's own wrapper of it.
        begun = type(peek(error, "response")).__name__ == "HttpResponse"
        return _answered(error, peek(error, "code"), peek(error, "details"), begun=begun)
    cause = peek(error, "__cause__")
    if by_class_name(cls, {"ContinuationInterruptedError": True}) and isinstance(cause, Exception):
        return evolve(describe(cause), sent=True, error=error)  # parts of the answer had come
    return google_core.read(error)


def _answered(error: Exception, status: Any, body: Any, *, begun: bool) -> Failure:
    fields = error_in(body)
    # Over a page that is no JSON, the SDK puts HTTP's reason phrase where the status would be.
    name = fields.get("status") if "code" in fields else None
    response = peek(error, "response")
    return judge_rpc(error, status, name, fields.get("details"), response, begun=begun)
