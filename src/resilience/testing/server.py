"""The part of the gateway that needs starlette and uvicorn; imported when a gateway starts."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from itertools import cycle, islice
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from resilience.sdks.auriko import CODES
from resilience.testing import wire
from resilience.testing.desk import Desk, Received
from resilience.testing.plan import (
    Answer,
    CutStream,
    Drop,
    Error,
    Hang,
    Malformed,
    Ok,
    ProxyError,
    SlowStart,
)

__all__ = ["serve"]

_JSON = "application/json; charset=utf-8"
_KEEP_ALIVE_EVERY = 0.1  # seconds


async def serve(
    desk: Desk,
    listener: socket.socket,
    opened: Callable[[asyncio.AbstractEventLoop, asyncio.Event], None],
) -> None:
    """Serve on `listener` until the event given to `opened` is set, then leave nothing behind."""
    site = _Site(desk)
    config = uvicorn.Config(
        site.app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        proxy_headers=False,
        server_header=False,
        # An idle connection closed under a client's next request looks like a fault of ours.
        timeout_keep_alive=3600,
    )
    server = site.server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        if serving.done():
            serving.result()  # raises what kept uvicorn from starting
        await asyncio.sleep(0.001)
    stop = asyncio.Event()
    opened(asyncio.get_running_loop(), stop)
    await stop.wait()
    # uvicorn's own shutdown polls ten times a second and waits for handlers; ours does neither.
    serving.cancel()
    for accepting in server.servers:
        accepting.close()
    state = server.server_state
    for _ in range(100):
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0.001)
        if not state.connections and not state.tasks:
            break
    try:
        await serving
    except asyncio.CancelledError:
        pass


class _Site:
    """Turns the desk's decisions into HTTP."""

    server: uvicorn.Server

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/models", self._models, methods=["GET"]),
            ],
            exception_handlers={HTTPException: self._no_route},
        )

    async def _chat(self, http: Request) -> Response:
        try:
            raw = await http.body()
        except ClientDisconnect:
            return Response()
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        received, answer = self._desk.take(http.scope["path"], body, dict(http.headers))
        return await self._respond(http, received, answer)

    async def _models(self, http: Request) -> Response:
        listed = [
            {"id": model, "object": "model", "created": 0, "owned_by": "local"}
            for model in self._desk.models
        ]
        return JSONResponse({"object": "list", "data": listed})

    async def _no_route(self, http: Request, error: Exception) -> Response:
        wrong_method = isinstance(error, HTTPException) and error.status_code == 405
        refusal = Error("method_not_allowed" if wrong_method else "resource_not_found")
        received, _ = self._desk.take(http.scope["path"], None, dict(http.headers), refusal)
        return self._error(received, refusal)

    async def _respond(self, http: Request, received: Received, answer: Answer) -> Response:
        match answer:
            case Ok():
                await _pause(http, answer.delay)
                return self._success(received, answer.text)
            case SlowStart():
                if received.stream:
                    return _events(received, _stream(received, answer.text, wait=answer.seconds))
                await _pause(http, answer.seconds)
                return self._success(received, answer.text)
            case Error():
                await _pause(http, answer.delay)
                return self._error(received, answer)
            case Hang():
                await _pause(http, answer.seconds)
                return await self._hang_up(http)
            case Drop():
                return await self._hang_up(http)
            case ProxyError():
                return Response(wire.PROXY_PAGE, answer.status, media_type="text/html")
            case Malformed():
                found = wire.headers(received.number)
                return JSONResponse(wire.MALFORMED, answer.status, found)
            case CutStream():
                return self._cut(http, received, answer.after)
            case _:  # ErrorInStream
                if received.stream:
                    failing = _stream(received, only=answer.after, error=answer.code)
                    return _events(received, failing)
                if CODES[answer.code].status:
                    return self._error(received, Error(answer.code))
                return await self._hang_up(http)

    def _success(self, received: Received, text: str | None) -> Response:
        if received.stream:
            return _events(received, _stream(received, text))
        found = wire.headers(received.number)
        return JSONResponse(_completion(received, text), headers=found, media_type=_JSON)

    def _error(self, received: Received, error: Error) -> Response:
        found = wire.error_headers(received.number, error)
        body = wire.envelope(error.code, error.param, error.provider)
        return JSONResponse(body, error.http_status, found, media_type=_JSON)

    def _cut(self, http: Request, received: Received, after: int) -> Response:
        async def broken() -> AsyncIterator[bytes]:
            if received.stream:
                async for event in _stream(received, only=after):
                    yield event
            else:
                whole = json.dumps(_completion(received, None)).encode()
                yield whole[: len(whole) // 2]
            await self._hang_up(http)

        if received.stream:
            return _events(received, broken())
        found = wire.headers(received.number)
        return StreamingResponse(broken(), headers=found, media_type=_JSON)

    async def _hang_up(self, http: Request) -> Response:
        """Close the connection under the answer; what is given back is not sent."""
        for connection in list(self.server.server_state.connections):
            transport = connection.transport
            if transport.get_extra_info("peername") == http.scope["client"]:
                transport.close()
        await _gone(http)
        return Response()


def _events(received: Received, events: AsyncIterator[bytes]) -> Response:
    found = wire.headers(received.number) | {"Cache-Control": "no-cache"}
    return StreamingResponse(events, headers=found, media_type="text/event-stream")


async def _stream(
    received: Received,
    text: str | None = None,
    *,
    wait: float = 0.0,
    only: int | None = None,
    error: str | None = None,
) -> AsyncIterator[bytes]:
    """The events of a stream; with `only`, so many content chunks, no end, then the error."""
    number, model = received.number, received.model or ""
    said = _text(received, text)
    yield wire.event(wire.chunk(number, model, {"role": "assistant", "content": ""}))
    left = wait
    while left > 0:
        yield wire.KEEP_ALIVE
        await asyncio.sleep(min(left, _KEEP_ALIVE_EVERY))
        left -= _KEEP_ALIVE_EVERY
    pieces = _pieces(said)
    for piece in pieces if only is None else islice(cycle(pieces), only):
        yield wire.event(wire.chunk(number, model, {"content": piece}))
    if error is not None:
        yield wire.event(wire.envelope(error))
    elif only is None:
        yield wire.event(wire.chunk(number, model, {}, "stop"))
        yield wire.event(wire.last_chunk(number, model, said, received.body.get("messages")))
        yield wire.DONE


def _text(received: Received, text: str | None) -> str:
    return f"Hello from {received.model}." if text is None else text


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [word if place == 0 else f" {word}" for place, word in enumerate(words)] if text else []


def _completion(received: Received, text: str | None) -> dict[str, Any]:
    said, prompt = _text(received, text), received.body.get("messages")
    return wire.completion(received.number, received.model or "", said, prompt)


async def _gone(http: Request) -> None:
    """Wait until the client is gone: after a body that was read to its end, nothing else comes."""
    message = await http.receive()
    assert message["type"] == "http.disconnect"


async def _pause(http: Request, seconds: float | None) -> None:
    """Wait that long (None: for ever), or until the client is gone."""
    if seconds == 0:
        return
    try:
        await asyncio.wait_for(_gone(http), seconds)
    except asyncio.TimeoutError:
        pass
