"""OpenAI's envelopes, fetched with nothing but httpx."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from .faults import PROXY_PAGE, patience
from .openai import ASK, error, stream

__all__ = ["CUT", "PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

PACKAGE = "httpx"
SHAPE = PROXY_PAGE
CUT = True  # an error event in a stream is no error to it


def fail(url: str, *, streaming: bool, package: str = PACKAGE) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    library: Any = import_module(package)
    with library.Client(timeout=patience(url)) as client:
        if streaming:
            with client.stream("POST", f"{url}/v1", json=ASK) as answer:
                return list(answer.iter_lines())
        return client.post(f"{url}/v1", json=ASK).raise_for_status().json()


def fail_async(url: str, *, streaming: bool, package: str = PACKAGE) -> Any:
    """The same with the async client."""
    library: Any = import_module(package)

    async def main() -> Any:
        async with library.AsyncClient(timeout=patience(url)) as client:
            if streaming:
                async with client.stream("POST", f"{url}/v1", json=ASK) as answer:
                    return [line async for line in answer.aiter_lines()]
            return (await client.post(f"{url}/v1", json=ASK)).raise_for_status().json()

    return asyncio.run(main())
