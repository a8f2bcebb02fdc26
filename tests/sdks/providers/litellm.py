"""LiteLLM in front of OpenAI's envelopes; it brings OpenAI's SDK with it."""

from __future__ import annotations

import asyncio
from typing import Any

from .faults import patience
from .openai import ASK, SHAPE, error, stream

__all__ = ["PACKAGE", "SHAPE", "acomplete", "complete", "error", "fail", "fail_async", "stream"]

PACKAGE = "litellm"


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    return complete("openai/gpt-4o", url, f"{url}/v1", streaming=streaming)


def fail_async(url: str, *, streaming: bool) -> Any:
    """The same with the async function."""
    return acomplete("openai/gpt-4o", url, f"{url}/v1", streaming=streaming)


def _options(model: str, url: str, base: str) -> dict[str, Any]:
    served = {"model": model, "api_base": base, "api_key": "none"}
    return {**ASK, **served, "timeout": patience(url), "max_retries": 0, "num_retries": 0}


def complete(model: str, url: str, base: str, *, streaming: bool) -> Any:
    """As `fail`, of any provider's model; `base` is where it finds its API."""
    import litellm

    answer: Any = litellm.completion(**_options(model, url, base), stream=streaming)
    return list(answer) if streaming else answer


def acomplete(model: str, url: str, base: str, *, streaming: bool) -> Any:
    """The same with the async function."""
    import litellm

    async def main() -> Any:
        asked = litellm.acompletion(**_options(model, url, base), stream=streaming)
        answer: Any = await asked
        return [chunk async for chunk in answer] if streaming else answer

    return asyncio.run(main())
