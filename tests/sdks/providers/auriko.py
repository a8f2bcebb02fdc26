"""Auriko's envelopes, and its SDK."""

from __future__ import annotations

from typing import Any

from .chat import ASK, CHUNK, SHAPE, ask, ask_async, events, options_for

__all__ = ["ASK", "PACKAGE", "SHAPE", "client", "error", "fail", "fail_async", "stream"]

PACKAGE = "auriko"
_ERRORS = {
    "rate_limit": ("rate_limit_exceeded", "rate_limit_error"),
    "quota": ("insufficient_quota", "rate_limit_error"),
    "server": ("internal_error", "api_error"),
    "unavailable": ("service_unavailable", "api_error"),
    "timeout": ("upstream_timeout", "api_error"),
    "overloaded": ("overloaded", "api_error"),
    "invalid": ("invalid_parameter_value", "invalid_request_error"),
    "context_length": ("context_length_exceeded", "invalid_request_error"),
    "content_filter": ("content_filtered", "invalid_request_error"),
    "auth": ("invalid_api_key", "authentication_error"),
    "permission": ("insufficient_permissions", "permission_error"),
    "model": ("model_not_found", "not_found_error"),
    "request_timeout": ("request_timeout", "api_error"),
    "conflict": ("idempotency_conflict", "invalid_request_error"),
    "too_large": ("payload_too_large", "invalid_request_error"),
    "unprocessable": ("unknown_field", "invalid_request_error"),
    "upstream": ("upstream_error", "api_error"),
}


def error(kind: str, status: int) -> object:
    code, category = _ERRORS[kind]
    told = {"message": f"It is {kind}.", "type": category, "code": code, "param": None}
    return {"error": {**told, "doc_url": None, "provider": "acme"}}


def stream() -> tuple[dict[str, str], bytes]:
    return events(CHUNK, error("upstream", 502))


def client(url: str, *, asynchronous: bool = False, **options: Any) -> Any:
    import auriko

    make = auriko.AsyncClient if asynchronous else auriko.Client
    return make(base_url=f"{url}/v1", **{**options_for(url), **options})


def fail(url: str, *, streaming: bool) -> Any:
    return ask(client(url), streaming=streaming)


def fail_async(url: str, *, streaming: bool) -> Any:
    return ask_async(client(url, asynchronous=True), streaming=streaming)
