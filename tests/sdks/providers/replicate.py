"""Replicate's envelopes, and its client. A stream has an address of its own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from . import server
from .faults import Fault, patience

__all__ = ["PACKAGE", "SHAPE", "Server", "error", "fail", "fail_async", "stream"]

PACKAGE = "replicate"
SHAPE = {"hello": "world"}
_ASKED: Any = {"ref": "maker/model", "input": {"prompt": "Hi"}}


class Server(server.Server):
    """It begins a prediction, and fails when its stream is read."""

    def fail(self, handler: Any, fault: Fault) -> None:
        if fault.how != "stream" or handler.command == "GET":
            super().fail(handler, fault)
        else:
            handler.close_connection = True
            handler.send(201, {}, json.dumps(prediction("starting", self.url(fault))).encode())


def prediction(status: str, url: str = "", **more: object) -> dict[str, object]:
    """A prediction as the API has it."""
    told = {"id": "1", "model": "maker/model", "version": "1", "status": status, "input": {}}
    times = dict.fromkeys(("created_at", "started_at", "completed_at"), "2026-01-01T00:00:00Z")
    return {**told, **times, "urls": {"get": f"{url}/get", "stream": f"{url}/stream"}, **more}


def error(kind: str, status: int) -> object:
    return {"title": f"It is {kind}.", "detail": f"It is {kind}.", "status": status}


def stream() -> tuple[dict[str, str], bytes]:
    events = "event: output\nid: 1\ndata: Hel\n\nevent: error\nid: 2\ndata: It is server.\n\n"
    return {"content-type": "text/event-stream"}, events.encode()


def _client(url: str, transport: Any) -> Any:
    import replicate

    timeout = httpx.Timeout(patience(url))
    return replicate.Client("none", base_url=url, timeout=timeout, transport=transport)


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    with httpx.HTTPTransport() as transport:
        client = _client(url, transport)
        if streaming:
            return list(client.stream(**_ASKED))
        return client.run(**_ASKED, wait=patience(url))


def fail_async(url: str, *, streaming: bool) -> Any:
    """The same with the async methods."""

    async def main() -> Any:
        async with httpx.AsyncHTTPTransport() as transport:
            client = _client(url, transport)
            if streaming:
                return [event async for event in await client.async_stream(**_ASKED)]
            return await client.async_run(**_ASKED, wait=patience(url))

    return asyncio.run(main())
