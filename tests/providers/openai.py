"""OpenAI's envelopes, and its SDK."""

from __future__ import annotations

import asyncio
import json
from typing import Any

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

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
SHAPE = {"object": "nothing", "hello": "world"}
ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}


def error(kind: str, status: int) -> object:
    code, category = _ERRORS[kind]
    return {"error": {"message": f"It is {kind}.", "type": category, "param": None, "code": code}}


def stream() -> tuple[dict[str, str], bytes]:
    delta = {"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": [delta],
    }
    events = [chunk, error("server", 500)]
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in events)
    return {"content-type": "text/event-stream"}, body.encode()


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    import openai

    options: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": 0.3}
    with openai.OpenAI(base_url=f"{url}/v1", **options) as client:
        answer: Any = client.chat.completions.create(**ASK, stream=streaming)
        return list(answer) if streaming else answer


def fail_async(url: str, *, streaming: bool) -> Any:
    """The same with the async client."""
    import openai

    options: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": 0.3}

    async def main() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", **options) as client:
            answer: Any = await client.chat.completions.create(**ASK, stream=streaming)
            return [chunk async for chunk in answer] if streaming else answer

    return asyncio.run(main())
