"""Anthropic's envelopes, and its SDK."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .chat import options_for

__all__ = ["ASK", "PACKAGE", "SHAPE", "client", "error", "fail", "fail_async", "stream"]

PACKAGE = "anthropic"
_ERRORS = {
    "rate_limit": ("rate_limit_error", None),
    "quota": ("rate_limit_error", "enforced_spend_limit_reached"),
    "server": ("api_error", None),
    "unavailable": ("api_error", None),
    "timeout": ("timeout_error", None),
    "overloaded": ("overloaded_error", None),
    "invalid": ("invalid_request_error", None),
    "context_length": ("invalid_request_error", None),
    "content_filter": ("invalid_request_error", None),
    "auth": ("authentication_error", None),
    "permission": ("permission_error", None),
    "model": ("not_found_error", None),
    "request_timeout": ("timeout_error", None),
    "conflict": ("conflict_error", None),
    "too_large": ("request_too_large", None),
    "unprocessable": ("invalid_request_error", None),
}
SHAPE = {"type": "nothing", "hello": "world"}
ASK: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 16,
    "messages": [{"role": "user", "content": "Hi"}],
}


def error(kind: str, status: int) -> object:
    category, code = _ERRORS[kind]
    told: dict[str, Any] = {"type": category, "message": f"It is {kind}."}
    if code:
        told["details"] = {"error_code": code}
    return {"type": "error", "error": told, "request_id": "req_1"}


def stream() -> tuple[dict[str, str], bytes]:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    block = {"type": "text", "text": ""}
    delta = {"type": "text_delta", "text": "Hel"}
    events: list[Any] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        error("overloaded", 529),
    ]
    body = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events)
    return {"content-type": "text/event-stream"}, body.encode()


def client(url: str, *, asynchronous: bool = False, **options: Any) -> Any:
    import anthropic

    make = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
    return make(base_url=url, **{**options_for(url), **options})


def fail(url: str, *, streaming: bool) -> Any:
    with client(url) as sync:
        answer = sync.messages.create(**ASK, stream=streaming)
        return list(answer) if streaming else answer


def fail_async(url: str, *, streaming: bool) -> Any:
    async def main() -> Any:
        async with client(url, asynchronous=True) as asynchronous:
            answer = await asynchronous.messages.create(**ASK, stream=streaming)
            return [event async for event in answer] if streaming else answer

    return asyncio.run(main())
