"""Mistral's envelopes, and its SDK."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .faults import patience

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

PACKAGE = "mistralai"
_ERRORS = {
    "rate_limit": ("1300", "rate_limited"),
    "quota": ("1300", "rate_limited"),  # they are told apart by the message alone
    "server": ("1000", "internal_server_error"),
    "unavailable": (None, "service_unavailable"),
    "timeout": (None, None),
    "overloaded": ("3505", "service_tier_capacity_exceeded"),
    "invalid": ("3230", "invalid_request_message_order"),
    "context_length": ("3051", "invalid_request_invalid_args"),  # as many other mistakes
    "content_filter": ("3051", "invalid_request_invalid_args"),
    "auth": (None, None),
    "permission": (None, "forbidden"),
    "model": ("1500", "invalid_model"),
    "request_timeout": (None, None),
    "conflict": (None, None),
    "too_large": (None, None),
}
SHAPE = {"hello": "world"}
ASK: dict[str, Any] = {
    "model": "mistral-small-latest",
    "messages": [{"role": "user", "content": "Hi"}],
}


def error(kind: str, status: int) -> object:
    if kind == "unprocessable":
        complaint = {"type": "less_than_equal", "loc": ["body", "temperature"], "msg": "Too hot."}
        return {"detail": [complaint]}
    code, category = _ERRORS[kind]
    return {
        "object": "error",
        "message": f"It is {kind}.",
        "type": category,
        "param": None,
        "code": code,
        "raw_status_code": status,
    }


def stream() -> tuple[dict[str, str], bytes]:
    delta = {"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}
    chunk = {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "mistral-small-latest",
        "choices": [delta],
    }
    events = [chunk, error("overloaded", 503)]
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in events)
    return {"content-type": "text/event-stream"}, body.encode()


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    from mistralai.client import Mistral

    with Mistral(api_key="none", server_url=url, timeout_ms=int(1000 * patience(url))) as client:
        if streaming:
            with client.chat.stream(**ASK) as answer:
                return list(answer)
        return client.chat.complete(**ASK)


def fail_async(url: str, *, streaming: bool) -> Any:
    """The same with the async client."""
    from mistralai.client import Mistral

    async def main() -> Any:
        async with Mistral(
            api_key="none", server_url=url, timeout_ms=int(1000 * patience(url))
        ) as client:
            if streaming:
                async with await client.chat.stream_async(**ASK) as answer:
                    return [event async for event in answer]
            return await client.chat.complete_async(**ASK)

    return asyncio.run(main())
