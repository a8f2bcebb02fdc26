"""OpenAI's envelopes, fetched with nothing but urllib3, which raises for no status."""

from __future__ import annotations

from typing import Any

from .faults import PROXY_PAGE, patience
from .openai import ASK, error, stream

__all__ = ["CUT", "PACKAGE", "SHAPE", "error", "fail", "stream"]

PACKAGE = "urllib3"
SHAPE = PROXY_PAGE
CUT = True


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    import urllib3

    options: dict[str, Any] = {
        "json": ASK,
        "preload_content": not streaming,
        "timeout": patience(url),
    }
    with urllib3.PoolManager() as pool:
        answer = pool.request("POST", f"{url}/v1", retries=0, **options)
        if streaming:
            return list(answer.stream())
        return answer.json() if answer.status == 200 else answer
