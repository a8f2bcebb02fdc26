"""Together's envelopes, and its SDK."""

from __future__ import annotations

from typing import Any

from .chat import CHUNK, SHAPE, ask, ask_async, events, options_for

__all__ = ["PACKAGE", "SHAPE", "client", "error", "fail", "fail_async", "stream"]

PACKAGE = "together"
_ERRORS = {
    "rate_limit": ("rate_limit_exceeded", "rate_limit"),
}


def error(kind: str, status: int) -> object:
    code, category = _ERRORS.get(kind, (None, "invalid_request_error"))
    return {"id": "1", "error": {"message": f"It is {kind}.", "type": category, "code": code}}


def stream() -> tuple[dict[str, str], bytes]:
    return events(CHUNK, error("rate_limit", 429))


def client(url: str, *, asynchronous: bool = False) -> Any:
    import together

    make = together.AsyncTogether if asynchronous else together.Together
    return make(base_url=url, **options_for(url))


def fail(url: str, *, streaming: bool) -> Any:
    return ask(client(url), streaming=streaming)


def fail_async(url: str, *, streaming: bool) -> Any:
    return ask_async(client(url, asynchronous=True), streaming=streaming)
