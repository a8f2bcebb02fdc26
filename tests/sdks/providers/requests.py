"""OpenAI's envelopes, fetched with nothing but requests."""

from __future__ import annotations

from typing import Any

from .faults import PROXY_PAGE, patience
from .openai import ASK, error, stream

__all__ = ["CUT", "PACKAGE", "SHAPE", "error", "fail", "stream"]

PACKAGE = "requests"
SHAPE = PROXY_PAGE
CUT = True  # an error event in a stream is no error to it


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    import requests

    options: dict[str, Any] = {"json": ASK, "stream": streaming, "timeout": patience(url)}
    with requests.Session() as session, session.post(f"{url}/v1", **options) as answer:
        answer.raise_for_status()
        return list(answer.iter_lines()) if streaming else answer.json()
