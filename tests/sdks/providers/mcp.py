"""A server of MCP over HTTP, and its client: errors of JSON-RPC, and those of the transport."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .faults import patience

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "stream"]

PACKAGE = "mcp"
SHAPE = {"hello": "world"}
_CODES = {
    "server": -32603,
    "unavailable": -32000,
    "timeout": -32001,
    "invalid": -32602,
    "model": -32601,
    "request_timeout": -32001,
    "unprocessable": -32602,
    "conflict": -32600,
}
"""The others come from in front of the server, and know nothing of JSON-RPC."""


def error(kind: str, status: int) -> object:
    told = {"code": _CODES.get(kind), "message": f"It is {kind}."}
    return {"jsonrpc": "2.0", "id": 0, "error": told} if kind in _CODES else {"error": kind}


def stream() -> tuple[dict[str, str], bytes]:
    event = f"event: message\ndata: {json.dumps(error('server', 500))}\n\n"
    return {"content-type": "text/event-stream"}, event.encode()


async def _ask(url: str) -> Any:
    import httpx2
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async with (
        httpx2.AsyncClient(timeout=patience(url)) as client,
        streamable_http_client(f"{url}/mcp", http_client=client) as (read, write),
        ClientSession(read, write) as session,
    ):
        return await session.initialize()


def fail(url: str, *, streaming: bool) -> Any:
    """Begin a session; what it gives, if it does not raise."""
    return asyncio.run(_ask(url))
