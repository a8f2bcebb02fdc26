"""Amazon Bedrock's envelopes, and the asynchronous client that is made of botocore's."""

from __future__ import annotations

import asyncio
from typing import Any

from .botocore import ASK, SHAPE, error, headers, options, stream

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "headers", "stream"]

PACKAGE = "aiobotocore"


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    async def main() -> Any:
        async with get_session().create_client(**options(url, AioConfig)) as client:
            if streaming:
                answer: Any = await client.converse_stream(**ASK)
                return [event async for event in answer["stream"]]
            return await client.converse(**ASK)

    return asyncio.run(main())
