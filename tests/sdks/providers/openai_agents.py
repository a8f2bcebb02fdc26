"""OpenAI's Agents in front of its envelopes; they bring its SDK with them."""

from __future__ import annotations

import asyncio
from typing import Any

from .faults import patience
from .openai import SHAPE, error, stream

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "stream"]

PACKAGE = "agents"


async def _run(url: str, *, streaming: bool) -> Any:
    import openai
    from agents import Agent, OpenAIChatCompletionsModel, RunConfig, Runner

    options: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": patience(url)}
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", **options) as client:
        agent = Agent("Asked", model=OpenAIChatCompletionsModel("gpt-4o", client))
        silent = RunConfig(tracing_disabled=True)
        if not streaming:
            return await Runner.run(agent, "Hi", run_config=silent)
        answer = Runner.run_streamed(agent, "Hi", run_config=silent)
        return [event async for event in answer.stream_events()]


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    return asyncio.run(_run(url, streaming=streaming))
