"""Anthropic's SDK. Its API names the class of an error, and a finer code for some."""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import bodies, stainless, verdict
from resilience.sdks.verdict import Meaning

__all__ = ["read"]

_STATUSES: Mapping[int, Meaning] = {
    **bodies.SDK_STATUSES,
    499: Meaning(Kind.CANCELLED, Advice.STOP),
}

_LOCAL: Mapping[str, Meaning] = {
    "CredentialsError": verdict.UNSIGNED,
    "RetryableError": Meaning(Kind.UNKNOWN, Advice.RETRY),  # raised by a user's middleware
}


def read(error: Exception) -> Failure:
    """Read an `APIError` of any kind, and what the SDK or its middleware raises by itself."""
    return stainless.read(error, "anthropic", _LOCAL, _STATUSES)
