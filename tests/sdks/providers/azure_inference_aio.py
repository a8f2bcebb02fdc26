"""As `azure_inference`, asynchronous: over aiohttp a lost connection has another class."""

from __future__ import annotations

import asyncio
from typing import Any

from .azure_inference import PACKAGE, SHAPE, error, made, stream
from .chat import ASK

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "stream"]


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    from azure.ai.inference.aio import ChatCompletionsClient

    async def main() -> Any:
        async with made(ChatCompletionsClient, url) as client:
            answer: Any = await client.complete(**ASK, stream=streaming)
            return [part async for part in answer] if streaming else answer

    return asyncio.run(main())
