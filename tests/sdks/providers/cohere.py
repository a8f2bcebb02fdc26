"""Cohere's envelopes, and its SDK."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .faults import patience

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

PACKAGE = "cohere"
SHAPE = {"hello": "world"}
ASK: dict[str, Any] = {"model": "command-a", "messages": [{"role": "user", "content": "Hi"}]}


def error(kind: str, status: int) -> object:
    return {"id": "7b1c", "message": f"It is {kind}."}


def stream() -> tuple[dict[str, str], bytes]:
    started = {"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant"}}}
    text = {"message": {"content": {"text": "Hel"}}}
    content = {"type": "content-delta", "index": 0, "delta": text}
    ended = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "It broke."}}
    events = [started, content, ended]
    body = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events)
    return {"content-type": "text/event-stream"}, body.encode()


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    import cohere

    options: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": patience(url)}
    with cohere.ClientV2(base_url=url, **options) as client:
        if streaming:
            return list(client.chat_stream(**ASK))
        return client.chat(**ASK)


def fail_async(url: str, *, streaming: bool) -> Any:
    """The same with the async client."""
    import cohere

    options: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": patience(url)}

    async def main() -> Any:
        async with cohere.AsyncClientV2(base_url=url, **options) as client:
            if streaming:
                return [event async for event in client.chat_stream(**ASK)]
            return await client.chat(**ASK)

    return asyncio.run(main())
