"""LlamaIndex' model of OpenAI."""

from __future__ import annotations

import asyncio
from typing import Any

from .faults import patience
from .openai import SHAPE, error, stream

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

PACKAGE = "llama_index.llms.openai"


def _model(url: str) -> Any:
    from llama_index.llms.openai import OpenAI

    options: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": patience(url)}
    return OpenAI("gpt-4o", api_base=f"{url}/v1", **options)


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    model = _model(url)
    return list(model.stream_complete("Hi")) if streaming else model.complete("Hi")


def fail_async(url: str, *, streaming: bool) -> Any:
    """The same with the async methods."""

    async def main() -> Any:
        model = _model(url)
        if streaming:
            return [part async for part in await model.astream_complete("Hi")]
        return await model.acomplete("Hi")

    return asyncio.run(main())
