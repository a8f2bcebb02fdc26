"""Cerebras' envelopes, and its SDK: the error lies flat in the body."""

from __future__ import annotations

from typing import Any

from .chat import CHUNK, SHAPE, ask, ask_async, events, options_for
from .groq import _ERRORS

__all__ = ["PACKAGE", "SHAPE", "client", "error", "fail", "fail_async", "stream"]

PACKAGE = "cerebras.cloud.sdk"


def error(kind: str, status: int) -> object:
    code, category = _ERRORS[kind]
    return {"message": f"It is {kind}.", "type": category, "param": None, "code": code}


def stream() -> tuple[dict[str, str], bytes]:
    return events(CHUNK, {"error": error("rate_limit", 429), "status_code": 429})


def client(url: str, *, asynchronous: bool = False) -> Any:
    from cerebras.cloud import sdk

    make = sdk.AsyncCerebras if asynchronous else sdk.Cerebras
    return make(base_url=url, warm_tcp_connection=False, **options_for(url))


def fail(url: str, *, streaming: bool) -> Any:
    return ask(client(url), streaming=streaming)


def fail_async(url: str, *, streaming: bool) -> Any:
    return ask_async(client(url, asynchronous=True), streaming=streaming)
