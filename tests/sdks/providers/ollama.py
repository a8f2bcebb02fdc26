"""Ollama's envelopes, and its client: an error is a sentence, and only its status says more."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .chat import ASK
from .faults import patience

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

PACKAGE = "ollama"
SHAPE = {"hello": "world"}


def error(kind: str, status: int) -> object:
    return {"error": f"It is {kind}."}


def stream() -> tuple[dict[str, str], bytes]:
    chunk = {"model": "gpt-4o", "message": {"role": "assistant", "content": "Hel"}, "done": False}
    lines = [json.dumps(each) for each in (chunk, error("server", 500))]
    return {"content-type": "application/x-ndjson"}, "\n".join(lines).encode()


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    import ollama

    with ollama.Client(url, timeout=patience(url)) as client:
        answer: Any = client.chat(**ASK, stream=streaming)
        return list(answer) if streaming else answer


def fail_async(url: str, *, streaming: bool) -> Any:
    """The same with the async client."""
    import ollama

    async def main() -> Any:
        async with ollama.AsyncClient(url, timeout=patience(url)) as client:
            answer: Any = await client.chat(**ASK, stream=streaming)
            return [part async for part in answer] if streaming else answer

    return asyncio.run(main())
