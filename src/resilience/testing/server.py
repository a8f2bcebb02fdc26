"""The part of the gateway that needs starlette and uvicorn; imported when a gateway starts."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import cycle, islice
from typing import TypeAlias

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from resilience._core.options import plain
from resilience.sdks.auriko import CODES

from . import plan, wire
from .formats import FORMATS, Chat, Format
from .responder import Received, Responder

__all__ = ["serve"]

_JSON = "application/json; charset=utf-8"
_KEEP_ALIVE_EVERY = 0.1  # seconds
_SETTLE = 0.02  # seconds for a client to take what was sent, which a reset may destroy


async def serve(
    responder: Responder,
    listener: socket.socket,
    opened: Callable[[asyncio.AbstractEventLoop, asyncio.Event, Callable[[], int]], None],
) -> None:
    """Serve on `listener` until the event given to `opened` is set, then leave nothing behind."""
    site = _Site(responder)
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
    state = server.server_state
    opened(asyncio.get_running_loop(), stop, lambda: len(state.connections))
    await stop.wait()
    # uvicorn's own shutdown polls ten times a second and waits for handlers; ours does neither.
    serving.cancel()
    for accepting in server.servers:
        accepting.close()
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
    """Turns the responder's answers into HTTP."""

    server: uvicorn.Server

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        # By the end of the path: some clients add a version of their own to `base_url`.
        asked = [
            Route(f"/{{base:path}}/{end}", partial(self._asked, kind), methods=["POST"])
            for end, kind in FORMATS.items()
        ]
        self.app = Starlette(
            routes=[*asked, Route("/v1/models", self._models, methods=["GET"])],
            exception_handlers={HTTPException: self._no_route},
        )

    async def _asked(self, kind: type[Format], http: Request) -> Response:
        try:
            raw = await http.body()
        except ClientDisconnect:
            return Response()
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        received, answer = self._responder.take(http.scope["path"], body, dict(http.headers))
        return await self._respond(http, kind, received, answer)

    async def _models(self, http: Request) -> Response:
        listed = [
            {"id": model, "object": "model", "created": 0, "owned_by": "local"}
            for model in self._responder.models
        ]
        return JSONResponse({"object": "list", "data": listed})

    async def _no_route(self, http: Request, error: Exception) -> Response:
        wrong_method = isinstance(error, HTTPException) and error.status_code == 405
        refusal = plan.Error("method_not_allowed" if wrong_method else "resource_not_found")
        received, _ = self._responder.take(http.scope["path"], None, dict(http.headers), refusal)
        return _error(Chat, received, refusal)

    async def _respond(
        self, http: Request, kind: type[Format], received: Received, answer: plan.Answer
    ) -> Response:
        match answer:
            case plan.Error():
                await _pause(http, plain(answer.delay))
                return _error(kind, received, answer)
            case plan.Hang():
                await _pause(http, None if answer.seconds is None else plain(answer.seconds))
                return await self._hang_up(http)
            case plan.Drop():
                return await self._hang_up(http, reset=answer.reset)
            case plan.ProxyError():
                return Response(wire.PROXY_PAGE, answer.status, media_type="text/html")
            case plan.Malformed():
                found = wire.headers(received.number)
                return JSONResponse(wire.MALFORMED, answer.status, found)
            case plan.ErrorInStream() if not received.stream:
                if CODES[answer.code].status:
                    return _error(kind, received, plan.Error(answer.code))
                return await self._hang_up(http)
            case plan.Ok():
                await _pause(http, plain(answer.delay))
                return await self._answer(http, kind, received, answer)
            case _:
                return await self._answer(http, kind, received, answer)

    async def _answer(
        self, http: Request, kind: type[Format], received: Received, answer: _Streamed
    ) -> Response:
        """An answer that begins well, whole or as a stream."""
        text = None if isinstance(answer, plan.ErrorInStream) else answer.text
        prompt = received.body.get("input", received.body.get("messages"))
        form = kind(received.number, received.model or "", prompt, text)
        found = wire.headers(received.number)
        if received.stream:
            events = self._events(http, form, answer)
            found["Cache-Control"] = "no-cache"
            return StreamingResponse(events, headers=found, media_type="text/event-stream")
        whole = json.dumps(form.body()).encode()
        match answer:
            case plan.SlowStart():
                await _pause(http, plain(answer.seconds))
            case plan.GarbledStream():
                whole = whole[: len(whole) // 2]
            case plan.CutStream() | plan.StalledStream():
                halves = self._half(http, whole, answer)
                return StreamingResponse(halves, headers=found, media_type=_JSON)
            case _:
                pass
        return Response(whole, headers=found, media_type=_JSON)

    async def _events(self, http: Request, form: Format, answer: _Streamed) -> AsyncIterator[bytes]:
        """The events of a stream."""
        for event in form.opening():
            yield event
        if isinstance(answer, plan.SlowStart):
            async for ping in _pings(http, form, plain(answer.seconds), answer.pings):
                yield ping
        after = None if isinstance(answer, plan.Ok | plan.SlowStart) else answer.after
        pieces = form.pieces
        first = pieces if after is None else list(islice(cycle(pieces), after))
        for piece in first:
            yield form.content(piece)
            await asyncio.sleep(0)  # to notice a client that leaves
        async for event in self._last_events(http, form, answer):
            yield event

    async def _last_events(
        self, http: Request, form: Format, answer: _Streamed
    ) -> AsyncIterator[bytes]:
        """What comes after the content, or after its first part."""
        match answer:
            case plan.CutStream():
                await self._hang_up(http, reset=answer.reset)
            case plan.StalledStream():
                seconds = None if answer.seconds is None else plain(answer.seconds)
                async for ping in _pings(http, form, seconds, answer.pings):
                    yield ping
                await self._hang_up(http)
            case plan.ErrorInStream():
                yield form.failure(plan.Error(answer.code, status=CODES[answer.code].status or 500))
            case plan.UnfinishedStream():
                for event in form.closing(reason=answer.reason, terminator=answer.terminator):
                    yield event
            case _:
                if isinstance(answer, plan.GarbledStream):
                    yield form.garbled()
                    for piece in form.pieces[answer.after :]:
                        yield form.content(piece)
                        await asyncio.sleep(0)
                for event in form.closing():
                    yield event

    async def _half(
        self, http: Request, whole: bytes, answer: plan.CutStream | plan.StalledStream
    ) -> AsyncIterator[bytes]:
        """The first half of a plain answer, and then what ends it."""
        yield whole[: len(whole) // 2]
        if isinstance(answer, plan.CutStream):
            await self._hang_up(http, reset=answer.reset)
            return
        await _pause(http, None if answer.seconds is None else plain(answer.seconds))
        await self._hang_up(http)

    async def _hang_up(self, http: Request, *, reset: bool = False) -> Response:
        """Close the connection under the answer; what is given back is not sent."""
        for connection in list(self.server.server_state.connections):
            transport = connection.transport
            if transport.get_extra_info("peername") == http.scope["client"]:
                if reset:
                    await asyncio.sleep(_SETTLE)
                    peer = transport.get_extra_info("socket")
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    transport.abort()
                else:
                    transport.close()
        await _gone(http)
        return Response()


_Streamed: TypeAlias = (
    plan.Ok
    | plan.SlowStart
    | plan.CutStream
    | plan.StalledStream
    | plan.UnfinishedStream
    | plan.GarbledStream
    | plan.ErrorInStream
)


def _error(kind: type[Format], received: Received, error: plan.Error) -> Response:
    found = wire.error_headers(received.number, error)
    body = kind.error(received.number, error)
    return JSONResponse(body, error.http_status, found, media_type=_JSON)


async def _pings(
    http: Request, form: Format, seconds: float | None, wanted: bool
) -> AsyncIterator[bytes]:
    """Seconds (None: for ever) without content; with pings, if they are wanted."""
    left = math.inf if seconds is None else seconds
    if not wanted:
        await _pause(http, seconds)
        return
    while left > 0:
        yield form.ping
        await asyncio.sleep(min(left, _KEEP_ALIVE_EVERY))
        left -= _KEEP_ALIVE_EVERY


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
