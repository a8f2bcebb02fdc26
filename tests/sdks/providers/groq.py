"""Groq's envelopes, and its SDK."""

from __future__ import annotations

from typing import Any

from .chat import ASK, CHUNK, SHAPE, ask, ask_async, events, options_for

__all__ = ["ASK", "PACKAGE", "SHAPE", "client", "error", "fail", "fail_async", "stream"]

PACKAGE = "groq"
_ERRORS = {
    "rate_limit": ("rate_limit_exceeded", "requests"),
    "quota": ("insufficient_quota", "insufficient_quota"),
    "server": (None, "internal_server_error"),
    "unavailable": (None, "service_unavailable"),
    "timeout": (None, None),
    "overloaded": (None, None),
    "invalid": (None, "invalid_request_error"),
    "context_length": ("context_length_exceeded", "invalid_request_error"),
    "content_filter": ("content_filter", "invalid_request_error"),
    "auth": ("invalid_api_key", "invalid_request_error"),
    "permission": ("model_permission_blocked_org", "permissions_error"),
    "model": ("model_not_found", "invalid_request_error"),
    "request_timeout": (None, None),
    "conflict": (None, None),
    "too_large": ("rate_limit_exceeded", "tokens"),
    "unprocessable": (None, "invalid_request_error"),
}


def error(kind: str, status: int) -> object:
    code, category = _ERRORS[kind]
    told = {"message": f"It is {kind}.", "type": category, "code": code}
    return {"error": {name: value for name, value in told.items() if value}}


def stream() -> tuple[dict[str, str], bytes]:
    return events(CHUNK, error("rate_limit", 429))


def client(url: str, *, asynchronous: bool = False, **options: Any) -> Any:
    import groq

    make = groq.AsyncGroq if asynchronous else groq.Groq
    return make(base_url=url, **{**options_for(url), **options})


def fail(url: str, *, streaming: bool) -> Any:
    return ask(client(url), streaming=streaming)


def fail_async(url: str, *, streaming: bool) -> Any:
    return ask_async(client(url, asynchronous=True), streaming=streaming)
