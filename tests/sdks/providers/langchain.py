"""LangChain's model of OpenAI: its errors are the SDK's, and LangChain's at once."""

from __future__ import annotations

import asyncio
from typing import Any

from .faults import patience
from .openai import SHAPE, error, stream

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

PACKAGE = "langchain_openai"


def _model(url: str) -> Any:
    from langchain_openai import ChatOpenAI

    options: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": patience(url)}
    return ChatOpenAI(model="gpt-4o", base_url=f"{url}/v1", **options)


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    model = _model(url)
    try:
        return list(model.stream("Hi")) if streaming else model.invoke("Hi")
    finally:
        model.root_client.close()


def fail_async(url: str, *, streaming: bool) -> Any:
    """The same with the async methods."""

    async def main() -> Any:
        model = _model(url)
        try:
            if streaming:
                return [chunk async for chunk in model.astream("Hi")]
            return await model.ainvoke("Hi")
        finally:
            await model.root_async_client.close()

    return asyncio.run(main())
