"""Azure's client for models of many makers, in front of OpenAI's envelopes."""

from __future__ import annotations

from typing import Any

from .chat import ASK
from .faults import patience
from .openai import SHAPE, error, stream

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "made", "stream"]

PACKAGE = "azure.ai.inference"


def made(make: Any, url: str) -> Any:
    """A client of this class."""
    from azure.core.credentials import AzureKeyCredential

    options = {"retry_total": 0, "connection_timeout": patience(url), "read_timeout": patience(url)}
    return make(f"{url}/models", AzureKeyCredential("none"), **options)


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    from azure.ai.inference import ChatCompletionsClient

    with made(ChatCompletionsClient, url) as client:
        answer: Any = client.complete(**ASK, stream=streaming)
        return list(answer) if streaming else answer
