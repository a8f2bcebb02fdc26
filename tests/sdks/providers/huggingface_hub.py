"""Hugging Face's router, whose envelopes are OpenAI's, and the inference client of its hub."""

from __future__ import annotations

import asyncio
from typing import Any

from .chat import ASK
from .faults import patience
from .openai import SHAPE, error, stream

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

PACKAGE = "huggingface_hub"


def _options(url: str) -> dict[str, Any]:
    return {"base_url": f"{url}/v1", "api_key": "none", "timeout": patience(url)}


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    from huggingface_hub import InferenceClient

    with InferenceClient(**_options(url)) as client:
        answer: Any = client.chat_completion(ASK["messages"], stream=streaming)
        return list(answer) if streaming else answer


def fail_async(url: str, *, streaming: bool) -> Any:
    """The same with the async client."""
    from huggingface_hub import AsyncInferenceClient

    async def main() -> Any:
        async with AsyncInferenceClient(**_options(url)) as client:
            answer: Any = await client.chat_completion(ASK["messages"], stream=streaming)
            return [part async for part in answer] if streaming else answer

    return asyncio.run(main())
