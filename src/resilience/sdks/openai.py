"""OpenAI's SDK, versions 1 to 3, pointed at OpenAI or at any service that speaks its format."""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import stainless
from resilience.sdks.verdict import Meaning

__all__ = ["read"]

_FINISHED: Mapping[str, Meaning] = {
    "ContentFilterFinishReasonError": Meaning(Kind.CONTENT_FILTER, Advice.STOP, sent=True),
    "LengthFinishReasonError": Meaning(Kind.UNKNOWN, Advice.STOP, sent=True),
}
"""Raised by the SDK over an answer that came, for the reason it ended."""


def read(error: Exception) -> Failure:
    """Read an `APIError` of any kind, and what the SDK makes of an answer's finish reason."""
    return stainless.read(error, "openai", _FINISHED)
