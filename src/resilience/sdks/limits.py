"""What a server's headers say about its rate limits, on errors and on results that show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from resilience._core.clock import wall

from .evidence import peek
from .headers import pick
from .resets import seconds_until
from .values import number

__all__ = ["ServerLimit", "limits_of"]


class ServerLimit(NamedTuple):
    """One rate limit as a server tells of it.

    `limit` is how many there are in all, `remaining` how many are left; None where it does not say.
    `reset` is the seconds until `remaining` is `limit` again.
    """

    tokens: bool
    """Of tokens; else of requests."""
    drains: bool
    """It fills up again little by little; else all at once, at the reset."""
    limit: float | None
    remaining: float
    reset: float


_FAMILIES = (
    # Prefix and suffix around "limit", "remaining" and "reset"; of tokens; drains.
    ("x-ratelimit-", "-requests", False, True),
    ("x-ratelimit-", "-tokens", True, True),
    ("anthropic-ratelimit-requests-", "", False, True),
    ("anthropic-ratelimit-tokens-", "", True, True),
    ("x-ratelimit-", "", False, False),
    ("ratelimit-", "", False, False),
)
_PLACES = ("response", "http_response", "raw_response")
_HEADERS = ("headers", "response_headers", "_headers")


def limits_of(thing: object) -> tuple[ServerLimit, ...]:
    """The limits in the headers of an error, a response or a stream; none where there are no
    headers. Never raises."""
    try:
        headers = _headers(thing)
        return () if headers is None else tuple(_limits(headers))
    except Exception:
        return ()


def _headers(thing: object) -> Any:
    for holder in (thing, *(peek(thing, place) for place in _PLACES)):
        if holder is None or type(holder) in (str, list, tuple, int, float, bool):
            continue
        if type(holder) is dict:  # botocore's
            holder = holder.get("ResponseMetadata", {}).get("HTTPHeaders")
            if type(holder) is dict:
                return holder
            continue
        for name in _HEADERS:
            found = peek(holder, name)
            if found is not None and callable(getattr(found, "items", None)):
                return peek(found, "_raw") or found
    return None


def _limits(headers: Any) -> Iterator[ServerLimit]:
    named: Mapping[str, Any] = {
        name.lower(): value
        for name, value in headers.items()
        if isinstance(name, str) and isinstance(value, (str, bytes))
    }
    now: float | None = None
    for prefix, suffix, tokens, drains in _FAMILIES:
        remaining = number(named.get(f"{prefix}remaining{suffix}"))
        reset = named.get(f"{prefix}reset{suffix}")
        if remaining is None or reset is None:
            continue
        if now is None:
            now = pick(headers).now if "date" in named else wall()
        seconds = seconds_until(reset, now)
        if seconds is not None:
            limit = number(named.get(f"{prefix}limit{suffix}"))
            yield ServerLimit(tokens, drains, limit, remaining, seconds)
