"""Pydantic AI's agent in front of OpenAI's envelopes; it brings OpenAI's SDK with it."""

from __future__ import annotations

import asyncio
from typing import Any

from .faults import patience
from .openai import SHAPE, error, stream

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "run", "stream"]

PACKAGE = "pydantic_ai"


async def _run(url: str, *, streaming: bool = False, **options: Any) -> Any:
    import openai
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    asked: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": patience(url)}
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", **asked) as client:
        model = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=client))
        agent: Any = Agent(model, **options)
        if not streaming:
            return await agent.run("Hi")
        async with agent.run_stream("Hi") as answer:
            return [text async for text in answer.stream_text(delta=True)]


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    return asyncio.run(_run(url, streaming=streaming))


def run(url: str, **options: Any) -> Any:
    """The same with an agent's options."""
    return asyncio.run(_run(url, **options))
