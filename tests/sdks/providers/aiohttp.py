"""OpenAI's envelopes, fetched with nothing but aiohttp."""

from __future__ import annotations

import asyncio
from typing import Any

from .faults import PROXY_PAGE, patience
from .openai import ASK, error, stream

__all__ = ["CUT", "PACKAGE", "SHAPE", "error", "fail", "stream"]

PACKAGE = "aiohttp"
SHAPE = PROXY_PAGE
CUT = True  # an error event in a stream is no error to it


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    import aiohttp

    slow = aiohttp.ClientTimeout(sock_connect=patience(url), sock_read=patience(url))

    async def main() -> Any:
        async with (
            aiohttp.ClientSession(timeout=slow, raise_for_status=True) as session,
            session.post(f"{url}/v1", json=ASK) as answer,
        ):
            return [line async for line in answer.content] if streaming else await answer.json()

    return asyncio.run(main())
