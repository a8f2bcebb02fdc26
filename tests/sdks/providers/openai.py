"""OpenAI's envelopes, and its SDK."""

from __future__ import annotations

from typing import Any

from .chat import ASK, CHUNK, SHAPE, ask, ask_async, events, options_for

__all__ = ["ASK", "PACKAGE", "SHAPE", "client", "error", "fail", "fail_async", "stream"]

PACKAGE = "openai"
_ERRORS = {
    "rate_limit": ("rate_limit_exceeded", "requests"),
    "quota": ("insufficient_quota", "insufficient_quota"),
    "server": (None, "server_error"),
    "unavailable": (None, "service_unavailable"),
    "timeout": (None, None),
    "overloaded": (None, "overloaded_error"),
    "invalid": ("invalid_value", "invalid_request_error"),
    "context_length": ("context_length_exceeded", "invalid_request_error"),
    "content_filter": ("content_policy_violation", "invalid_request_error"),
    "auth": ("invalid_api_key", "invalid_request_error"),
    "permission": ("unsupported_country_region_territory", "request_forbidden"),
    "model": ("model_not_found", "invalid_request_error"),
    "request_timeout": (None, None),
    "conflict": (None, "conflict_error"),
    "too_large": (None, "invalid_request_error"),
    "unprocessable": (None, "invalid_request_error"),
}


def error(kind: str, status: int) -> object:
    code, category = _ERRORS[kind]
    return {"error": {"message": f"It is {kind}.", "type": category, "param": None, "code": code}}


def stream() -> tuple[dict[str, str], bytes]:
    return events(CHUNK, error("server", 500))


def client(url: str, *, asynchronous: bool = False, **options: Any) -> Any:
    import openai

    make = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    return make(base_url=f"{url}/v1", **{**options_for(url), **options})


def fail(url: str, *, streaming: bool) -> Any:
    return ask(client(url), streaming=streaming)


def fail_async(url: str, *, streaming: bool) -> Any:
    return ask_async(client(url, asynchronous=True), streaming=streaming)
