"""The same service, called with `grpc.aio`, whose errors are of a class of their own."""

from __future__ import annotations

import asyncio
from typing import Any

from .grpc import PACKAGE, Server, ask

__all__ = ["PACKAGE", "Server", "fail"]


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    import grpc.aio

    address, _, number = url.partition("/")

    async def main() -> Any:
        async with grpc.aio.insecure_channel(address) as channel:
            answer = ask(channel, number, streaming=streaming)
            return [piece async for piece in answer] if streaming else await answer

    return asyncio.run(main())
