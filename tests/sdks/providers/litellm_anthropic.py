"""LiteLLM in front of Anthropic's envelopes, which it asks for by httpx."""

from __future__ import annotations

from typing import Any

from .anthropic import SHAPE, error, stream
from .litellm import PACKAGE, acomplete, complete

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

_MODEL = "anthropic/claude-sonnet-4-6"


def fail(url: str, *, streaming: bool) -> Any:
    return complete(_MODEL, url, url, streaming=streaming)


def fail_async(url: str, *, streaming: bool) -> Any:
    return acomplete(_MODEL, url, url, streaming=streaming)
