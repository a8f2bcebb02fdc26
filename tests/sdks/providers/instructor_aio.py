"""As `instructor`, asynchronous: an error inside a stream is then the SDK's own."""

from __future__ import annotations

import asyncio
from typing import Any

from .instructor import PACKAGE, SHAPE, asked, error, stream
from .openai import client

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "stream"]


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    import instructor

    async def main() -> Any:
        async with client(url, asynchronous=True) as openai:
            patched: Any = instructor.from_openai(openai)
            answer = await patched.chat.completions.create(**asked(streaming))
            return [part async for part in answer] if streaming else answer

    return asyncio.run(main())
