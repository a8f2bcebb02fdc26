"""The headers of the gateway's answers, and bodies in no format, as plain data.

The headers follow https://docs.auriko.ai (errors, response headers). Where a page names a header
but not its values (`X-Rate-Limit-Source`), the values here are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from .formats import type_of
from .plan import Error

MALFORMED: Mapping[str, Any] = {"detail": "this is not the envelope you are looking for"}
PROXY_PAGE = (
    "<html>\r\n<head><title>Bad Gateway</title></head>\r\n"
    "<body>\r\n<center><h1>Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"
)

_LIMIT = 1000
_WINDOW = 60.0
_LONGEST = 365 * 86400.0  # what a reset time is cut to: dates end in the year 9999
_CATEGORY = {
    "api_error": "server_error",
    "authentication_error": "authentication",
    "invalid_request_error": "invalid_request",
    "not_found_error": "not_found",
    "permission_error": "permission",
    "rate_limit_error": "rate_limit",
}


def request_id(number: int) -> str:
    """The `x-request-id` of a gateway's n-th request."""
    return f"req_{number:08d}"


def headers(number: int, *, remaining: int | None = None, reset: float = _WINDOW) -> dict[str, str]:
    """The headers that every answer carries."""
    until = datetime.now(timezone.utc) + timedelta(seconds=min(reset, _LONGEST))
    left = max(_LIMIT - number, 0) if remaining is None else remaining
    return {
        "x-request-id": request_id(number),
        "X-RateLimit-Limit-Requests": str(_LIMIT),
        "X-RateLimit-Remaining-Requests": str(left),
        "X-RateLimit-Reset-Requests": until.isoformat(timespec="milliseconds").replace(
            "+00:00", "Z"
        ),
    }


def error_headers(number: int, error: Error) -> dict[str, str]:
    """The headers of an error: those of every answer, the diagnostics, and the plan's own."""
    kind = type_of(error)
    limited = kind == "rate_limit_error"
    retry_after = cast("float | str | None", error.retry_after)
    reset = retry_after if isinstance(retry_after, float) else _WINDOW
    found = headers(number, remaining=0, reset=reset) if limited else headers(number)
    category = _CATEGORY[kind]
    found["X-Error-Type"] = category
    # By category, as the docs have it: true for a spent budget too. The code says better.
    found["X-Error-Retryable"] = str(category in ("server_error", "rate_limit")).lower()
    if error.provider is not None:
        found["X-Error-Provider"] = error.provider
    if limited:
        found["X-Rate-Limit-Source"] = "upstream"  # the service's own is for a plan to say
    if retry_after is not None:
        found["Retry-After"] = _number(retry_after)
    if error.retry_after_ms is not None:
        found["retry-after-ms"] = _number(error.retry_after_ms)
    return _merged(found, error.headers)


def _merged(found: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Headers with `wanted` in place of their namesakes, whatever the case of the names."""
    replaced = {name.lower() for name in wanted}
    return {name: value for name, value in found.items() if name.lower() not in replaced} | dict(
        wanted
    )


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if value == int(value) else repr(value)
