"""Azure's envelopes, and OpenAI's SDK."""

from __future__ import annotations

from typing import Any

from .chat import CHUNK, SHAPE, ask, ask_async, events, options_for

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

PACKAGE = "openai"
_CODES = {
    "rate_limit": "429",
    "quota": "insufficient_quota",
    "server": "InternalServerError",
    "unavailable": "ServiceUnavailable",
    "timeout": "Timeout",
    "overloaded": "NoCapacity",
    "invalid": "BadRequest",
    "context_length": "context_length_exceeded",
    "content_filter": "content_filter",
    "auth": "401",
    "permission": "PermissionDenied",
    "model": "DeploymentNotFound",
    "request_timeout": "Timeout",
    "conflict": "Conflict",
    "too_large": "RequestEntityTooLarge",
    "unprocessable": "UnprocessableEntity",
}


def error(kind: str, status: int) -> object:
    told: dict[str, Any] = {"code": _CODES[kind], "message": f"It is {kind}."}
    if kind == "content_filter":
        found = {"hate": {"filtered": True, "severity": "high"}}
        told |= {"type": None, "param": "prompt", "status": 400}
        told["innererror"] = {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": found,
        }
    return {"error": told}


def stream() -> tuple[dict[str, str], bytes]:
    return events(CHUNK, error("rate_limit", 429))


def _options(url: str) -> dict[str, Any]:
    return {"azure_endpoint": url, "api_version": "2024-10-21", **options_for(url)}


def fail(url: str, *, streaming: bool) -> Any:
    import openai

    return ask(openai.AzureOpenAI(**_options(url)), streaming=streaming)


def fail_async(url: str, *, streaming: bool) -> Any:
    import openai

    return ask_async(openai.AsyncAzureOpenAI(**_options(url)), streaming=streaming)
