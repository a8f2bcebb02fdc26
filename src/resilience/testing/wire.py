"""Auriko's wire format: the bodies and headers of answers, as plain data.

The shapes follow https://docs.auriko.ai (errors, response headers, streaming). Where a page names
a header but not its values (`X-Rate-Limit-Source`), the values here are ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from resilience.sdks.auriko import CODES
from resilience.testing.plan import Error

__all__ = [
    "DONE",
    "KEEP_ALIVE",
    "MALFORMED",
    "PROXY_PAGE",
    "chunk",
    "completion",
    "envelope",
    "error_headers",
    "event",
    "headers",
    "last_chunk",
    "request_id",
]

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
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


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(data)}\n\n".encode()


def completion(number: int, model: str, text: str, prompt: Any) -> dict[str, Any]:
    """The body of a plain chat completion."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {
        **_head(number, model, "chat.completion"),
        "choices": [choice],
        "usage": _usage(prompt, text),
        "routing_metadata": _routing(model),
    }


def chunk(
    number: int, model: str, delta: Mapping[str, Any], finish_reason: str | None = None
) -> dict[str, Any]:
    """One chunk of a stream, with that delta."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {**_head(number, model, "chat.completion.chunk"), "choices": [choice]}


def last_chunk(number: int, model: str, text: str, prompt: Any) -> dict[str, Any]:
    """The chunk without choices that tells usage and routing; Auriko always sends it."""
    return {
        **_head(number, model, "chat.completion.chunk"),
        "choices": [],
        "usage": _usage(prompt, text),
        "routing_metadata": _routing(model),
    }


def envelope(code: str, param: str | None = None, provider: str | None = None) -> dict[str, Any]:
    """The body of an error; mid-stream it comes as an event."""
    return {
        "error": {
            "message": f"Planned by the local gateway: {code.replace('_', ' ')}.",
            "type": CODES[code].type,
            "code": code,
            "param": param,
            "doc_url": f"https://docs.auriko.ai/errors/{code}",
            "provider": provider,
        }
    }


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
    limited = CODES[error.code].type == "rate_limit_error"
    reset = error.retry_after if isinstance(error.retry_after, (int, float)) else _WINDOW
    found = headers(number, remaining=0, reset=reset) if limited else headers(number)
    category = _CATEGORY[CODES[error.code].type]
    found["X-Error-Type"] = category
    # By category, as the docs have it: true for a spent budget too. The code says better.
    found["X-Error-Retryable"] = str(category in ("server_error", "rate_limit")).lower()
    if error.provider is not None:
        found["X-Error-Provider"] = error.provider
    if limited:
        found["X-Rate-Limit-Source"] = "upstream"  # the service's own is for a plan to say
    if error.retry_after is not None:
        found["Retry-After"] = _number(error.retry_after)
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


def _head(number: int, model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{number:08d}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": None,
    }


def _usage(prompt: Any, text: str) -> dict[str, int]:
    asked, said = len(json.dumps(prompt).split()), len(text.split())
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _routing(model: str) -> dict[str, Any]:
    return {
        "provider": "local",
        "provider_model_id": model,
        "model_canonical": model,
        "routing_strategy": "balanced",
        "cost": {"usd": 0.0},
        "ttft_ms": 1.0,
        "throughput_tps": 1000.0,
        "warnings": [],
    }
