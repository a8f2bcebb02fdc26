"""What the providers with a chat API like OpenAI's share: one question, and how it is asked."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .faults import patience

__all__ = ["ASK", "CHUNK", "SHAPE", "ask", "ask_async", "events", "options_for"]

SHAPE = {"object": "nothing", "hello": "world"}
ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
CHUNK: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "gpt-4o",
    "choices": [
        {"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}
    ],
}


def options_for(url: str) -> dict[str, Any]:
    """A client's options."""
    return {"api_key": "none", "max_retries": 0, "timeout": patience(url)}


def events(*each: object) -> tuple[dict[str, str], bytes]:
    """A stream of these."""
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in each)
    return {"content-type": "text/event-stream"}, body.encode()


def ask(client: Any, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    with client:
        answer = client.chat.completions.create(**ASK, stream=streaming)
        return list(answer) if streaming else answer


def ask_async(client: Any, *, streaming: bool) -> Any:
    """The same with an async client."""

    async def main() -> Any:
        async with client:
            answer = await client.chat.completions.create(**ASK, stream=streaming)
            return [chunk async for chunk in answer] if streaming else answer

    return asyncio.run(main())
