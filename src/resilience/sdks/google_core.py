"""What Google's clients share: google.api_core's errors of calls and google.auth's of tokens."""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import verdict
from resilience.sdks.evidence import by_class_name, peek
from resilience.sdks.google_rpc import judge_rpc
from resilience.sdks.verdict import Meaning

__all__ = ["read"]

_FALTERED = Meaning(Kind.SERVER, Advice.RETRY, sent=False)

_TOKENS: Mapping[str, Meaning] = {
    "GoogleAuthError": verdict.UNSIGNED,
    "TransportError": verdict.UNREACHED,
}
"""There was no token to be had, so the call itself was never sent."""


def read(error: Exception) -> Failure | None:
    """Read a `GoogleAPICallError` or a `GoogleAuthError`; None for one that wraps another."""
    cls = type(error)
    if by_class_name(cls, {"GoogleAPICallError": True}):
        name = peek(peek(error, "grpc_status_code"), "name")
        details = peek(error, "details")
        return judge_rpc(error, peek(error, "code"), name, details, peek(error, "response"))
    found = by_class_name(cls, _TOKENS)
    if found is verdict.UNSIGNED and peek(error, "retryable") is True:
        found = _FALTERED
    return None if found is None else found.failure(error, "google")
