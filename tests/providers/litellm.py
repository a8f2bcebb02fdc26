"""LiteLLM in front of OpenAI's envelopes; it brings OpenAI's SDK with it."""

from __future__ import annotations

import asyncio
from typing import Any

from .faults import patience
from .openai import ASK, SHAPE, error, stream

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

PACKAGE = "litellm"


def _options(url: str) -> dict[str, Any]:
    served = {"api_base": f"{url}/v1", "api_key": "none"}
    return {**ASK, **served, "model": "openai/gpt-4o", "timeout": patience(url), "max_retries": 0}


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    import litellm

    answer: Any = litellm.completion(**_options(url), num_retries=0, stream=streaming)
    return list(answer) if streaming else answer


def fail_async(url: str, *, streaming: bool) -> Any:
    """The same with the async function."""
    import litellm

    async def main() -> Any:
        asked = litellm.acompletion(**_options(url), num_retries=0, stream=streaming)
        answer: Any = await asked
        return [chunk async for chunk in answer] if streaming else answer

    return asyncio.run(main())
