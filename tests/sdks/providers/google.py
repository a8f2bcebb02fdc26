"""Gemini's envelopes, and Google's GenAI SDK over httpx2 (before version 3: httpx);
`google_aiohttp.py` has the other way."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module
from importlib.metadata import version
from typing import Any

from .faults import patience

__all__ = ["ASK", "PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

PACKAGE = "google.genai"
_STATUSES = {
    "rate_limit": "RESOURCE_EXHAUSTED",
    "quota": "RESOURCE_EXHAUSTED",
    "server": "INTERNAL",
    "unavailable": "UNAVAILABLE",
    "timeout": "DEADLINE_EXCEEDED",
    "invalid": "INVALID_ARGUMENT",
    "context_length": "INVALID_ARGUMENT",
    "content_filter": "INVALID_ARGUMENT",
    "auth": "UNAUTHENTICATED",
    "permission": "PERMISSION_DENIED",
    "model": "NOT_FOUND",
    "conflict": "ABORTED",
}
_RETRY_IN = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36.5s"}
_DETAILS: dict[str, list[dict[str, Any]]] = {
    "rate_limit": [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}],
        },
        _RETRY_IN,
    ],
    "quota": [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [
                {
                    "quotaMetric": "generativelanguage.googleapis.com/free_tier_requests",
                    "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
                    "quotaValue": "50",
                }
            ],
        },
        _RETRY_IN,
    ],
    "permission": [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "SERVICE_DISABLED",
            "domain": "googleapis.com",
        }
    ],
}
SHAPE = {"hello": "world"}
ASK: dict[str, Any] = {"model": "gemini-2.5-flash", "contents": "Hi"}


def library() -> Any:
    """What its requests are made with."""
    return import_module("httpx2" if int(version("google-genai").split(".")[0]) >= 3 else "httpx")


def error(kind: str, status: int) -> object:
    told: dict[str, Any] = {"code": status, "message": f"It is {kind}."}
    if kind in _STATUSES:
        told["status"] = _STATUSES[kind]
    if kind in _DETAILS:
        told["details"] = _DETAILS[kind]
    return {"error": told}


def stream() -> tuple[dict[str, str], bytes]:
    content = {"parts": [{"text": "Hel"}], "role": "model"}
    events = [{"candidates": [{"content": content, "index": 0}]}, error("unavailable", 503)]
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in events)
    return {"content-type": "text/event-stream"}, body.encode()


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    from google import genai

    options: dict[str, Any] = {"base_url": url, "timeout": int(1000 * patience(url))}
    with genai.Client(api_key="none", http_options=options) as client:
        if streaming:
            return list(client.models.generate_content_stream(**ASK))
        return client.models.generate_content(**ASK)


def fail_async(url: str, *, streaming: bool) -> Any:
    """The same with the async client."""
    # With a transport of one's own it uses that even where aiohttp is installed.
    return asyncio.run(ask(url, streaming, {"transport": library().AsyncHTTPTransport()}))


async def ask(url: str, streaming: bool, client_args: dict[str, Any]) -> Any:
    """Ask once with an async client of these arguments."""
    from google import genai

    options: dict[str, Any] = {
        "base_url": url,
        "timeout": int(1000 * patience(url)),
        "async_client_args": client_args,
    }
    client = genai.Client(api_key="none", http_options=options)
    async with client.aio as models:
        if streaming:
            answer = await models.models.generate_content_stream(**ASK)
            return [chunk async for chunk in answer]
        return await models.models.generate_content(**ASK)
