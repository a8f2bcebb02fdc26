"""Groq's SDK. It leaves code and type in the body, which is whole or, in a stream, unwrapped."""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import bodies, stainless
from resilience.sdks.verdict import Meaning

__all__ = ["read"]

_STATUSES: Mapping[int, Meaning] = {
    **bodies.SDK_STATUSES,
    498: Meaning(Kind.OVERLOADED, Advice.WAIT),
}


def read(error: Exception) -> Failure:
    """Read an `APIError` of any kind."""
    return stainless.read(error, "groq", {}, _STATUSES)
