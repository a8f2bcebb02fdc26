"""OpenRouter's envelopes, and OpenAI's SDK. Its code is the status; what happened is beside it."""

from __future__ import annotations

from typing import Any

from .chat import CHUNK, SHAPE, events
from .openai import PACKAGE, fail, fail_async

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

_TYPES = {
    "rate_limit": "rate_limit_exceeded",
    "quota": None,
    "server": "server",
    "unavailable": "provider_overloaded",
    "timeout": "timeout",
    "overloaded": None,
    "invalid": "invalid_request",
    "context_length": "context_length_exceeded",
    "content_filter": "content_policy_violation",
    "auth": "authentication",
    "permission": "permission_denied",
    "model": "not_found",
    "request_timeout": None,
    "conflict": None,
    "too_large": "payload_too_large",
    "unprocessable": "unprocessable",
}
_MORE: dict[str, dict[str, Any]] = {
    "quota": {"metadata": {"limit_source": "openrouter_key_limit"}},
    "model": {
        "availability": {"code": "no_endpoints", "retryable": False, "requested_models": ["gpt-4o"]}
    },
}


def error(kind: str, status: int) -> object:
    metadata = {"error_type": _TYPES[kind], "provider_name": "Acme"}
    told = {"code": status, "message": f"It is {kind}.", "metadata": metadata}
    return {"error": {**told, **_MORE.get(kind, {})}, "user_id": "user_1"}


def stream() -> tuple[dict[str, str], bytes]:
    end = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    failed: Any = error("unavailable", 503)
    return events(CHUNK, {**CHUNK, "choices": [end], "error": failed["error"]})
