"""When a rate limit is full again, by the headers that tell of every limit on every response.

They say when the whole limit is back, not when one request fits: a wait by them is long. So they
are read apart from `Retry-After`, and used by who asks for it (`RetryAfter(resets=True)`). The
`WINDOWS` are others: what they tell is what their services have in the place of `Retry-After`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .values import LONGEST, duration, http_date, number, text, timestamp

__all__ = ["RESETS", "WINDOWS", "reset_in", "seconds_until", "window_in"]

_LIMITS: Mapping[str, str] = {
    # OpenAI and Groq: `6m0s`; Azure: seconds; Auriko: ISO 8601.
    "x-ratelimit-reset-requests": "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-tokens": "x-ratelimit-remaining-tokens",
    # Anthropic: RFC 3339; the unified one in Unix seconds.
    "anthropic-ratelimit-requests-reset": "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-tokens-reset": "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-input-tokens-reset": "anthropic-ratelimit-input-tokens-remaining",
    "anthropic-ratelimit-output-tokens-reset": "anthropic-ratelimit-output-tokens-remaining",
    "anthropic-ratelimit-unified-reset": "anthropic-ratelimit-unified-remaining",
    # Many: Unix seconds (or milliseconds), seconds from now, or a date; IETF drafts up to 06.
    "x-ratelimit-reset": "x-ratelimit-remaining",
    "ratelimit-reset": "ratelimit-remaining",
}
"""The header that tells when a limit is full again -> the one that tells what is left of it."""

_FIELD = "ratelimit"
"""IETF drafts from 08 on: `"default";r=50;t=30`, a list."""

_AFTER = "x-ratelimit-reset-after"
"""Discord: seconds."""

_WINDOWS: Mapping[str, str] = {
    "x-rate-limit-reset-requests": "x-rate-limit-remaining-requests",  # Azure: seconds
    "x-rate-limit-reset-tokens": "x-rate-limit-remaining-tokens",
    "x-rate-limit-reset": "x-rate-limit-remaining",  # X: Unix seconds
}

WINDOWS = frozenset({_AFTER, *_WINDOWS, *_WINDOWS.values()})

RESETS = frozenset({_FIELD, *_LIMITS, *_LIMITS.values()})
"""The names of all of these headers."""

_EPOCH = 1e9
"""A number from here on is a time (2001 and later), a smaller one is seconds from now."""
_EPOCH_MS = 1e12
_LONGEST_LIST = 512
_MEMBER = re.compile(r";[ \t]*([rt])=([0-9]{1,10})[ \t]*(?=;|$)")


def reset_in(headers: Mapping[str, object], now: float) -> float | None:
    """Seconds from `now` until the limits that are used up are full again; more than 0, or None.

    Where no header tells that a limit is used up, the longest of all.
    """
    return _longest(headers, now, _LIMITS, _members(headers.get(_FIELD)))


def window_in(headers: Mapping[str, object], now: float) -> float | None:
    """The same, by the headers that stand for a `Retry-After`."""
    after = number(headers.get(_AFTER))
    return _longest(headers, now, _WINDOWS, []) if after is None else after


def _longest(
    headers: Mapping[str, object],
    now: float,
    limits: Mapping[str, str],
    members: list[tuple[float, float | None]],
) -> float | None:
    exhausted: list[float] = []
    others: list[float] = []
    for name, remaining in limits.items():
        if name in headers and (seconds := seconds_until(headers[name], now)) is not None:
            (exhausted if number(headers.get(remaining)) == 0 else others).append(seconds)
    for seconds, left in members:
        (exhausted if left == 0 else others).append(seconds)
    return max(exhausted or others, default=None)


def seconds_until(value: object, now: float) -> float | None:
    """Seconds from `now` until the reset that a header names; None for none."""
    amount = number(value, most=LONGEST * 1e4)
    if amount is None:
        amount = duration(value)
    if amount is None:
        then = timestamp(value)
        then = http_date(value) if then is None else then
        if then is None:
            return None
        amount = then - now
    elif amount >= _EPOCH:
        amount = (amount / 1000 if amount >= _EPOCH_MS else amount) - now
    return amount if 0 < amount <= LONGEST else None  # 0 and -1: unknown, by Azure's habit


def _members(value: object) -> list[tuple[float, float | None]]:
    """Seconds and what is left for each member of a `RateLimit` field."""
    written = text(value, _LONGEST_LIST)
    found: list[tuple[float, float | None]] = []
    for member in written.split(",") if written else ():
        parameters = {name: float(digits) for name, digits in _MEMBER.findall(member)}
        if 0 < parameters.get("t", 0.0) <= LONGEST:
            found.append((parameters["t"], parameters.get("r")))
    return found
