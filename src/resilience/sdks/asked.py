"""What a body says about when to come back, in a number of its own."""

from __future__ import annotations

from collections.abc import Mapping

from resilience.sdks.evidence import mapping, unlisted
from resilience.sdks.values import duration, number

__all__ = ["asked_in"]

_NAMES: Mapping[str, float] = {
    "retry_after": 1.0,  # Discord, Replicate, Telegram
    "retry_after_seconds": 1.0,  # OpenRouter
    "retryAfter": 1.0,
    "retryAfterSeconds": 1.0,
    "estimated_time": 1.0,  # Hugging Face, while a model is loaded
    "retry_after_ms": 1e-3,
    "retryAfterMs": 1e-3,
}
"""The field, and how many seconds its unit is."""

_PLACES = frozenset({"error", "metadata", "parameters", "detail"})
"""Objects in a body, or in one of these, that may have it."""

_ALL = _PLACES.union(_NAMES)


def asked_in(body: object, depth: int = 2) -> float | None:
    """Seconds; None where it says nothing."""
    if type(body) is list:
        body = unlisted(body)
    fields = mapping(body)
    if _ALL.isdisjoint(fields):
        return None
    for name, value in fields.items():
        seconds = None
        if name in _NAMES:
            seconds = number(value)
            seconds = duration(value) if seconds is None else seconds
            seconds = seconds and seconds * _NAMES[name]
        elif depth and name in _PLACES:
            seconds = asked_in(value, depth - 1)
        if seconds is not None:
            return seconds
    return None
