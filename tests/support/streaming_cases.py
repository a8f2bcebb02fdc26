"""Streams of the SDKs: the bytes that make them, and how each is asked for and read."""

from __future__ import annotations

import asyncio
import inspect
import json
import ssl
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

from attrs import Factory, define, frozen

from resilience.testing.formats import FORMATS, Format
from resilience.testing.plan import Error

__all__ = ["CASES", "Case", "Got", "Wire", "aclosed", "closed", "consumed"]

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES}


# Bytes


@frozen
class Wire:
    """One provider's stream of the words "one two", piece by piece."""

    opening: list[bytes]
    """What comes before any content."""
    words: list[bytes]
    reason: list[bytes]
    """Why it ends,"""
    terminator: list[bytes]
    """and that it does. Empty where there is no such thing."""
    error: bytes
    """An event that says that something went wrong."""
    ping: bytes = b": ping\n\n"
    end_of_both: bool = False
    """Whether reason and terminator are one."""

    @property
    def whole(self) -> list[bytes]:
        return [*self.opening, *self.words, *self.reason, *self.terminator]

    @property
    def begun(self) -> list[bytes]:
        """Up to the first word."""
        return [*self.opening, self.words[0]]

    @property
    def garbled(self) -> bytes:
        """A word in an event that is no JSON."""
        return self.words[1].replace(b'{"', b'{{"', 1)


def _ours(path: str) -> Wire:
    """A format that the gateway speaks."""
    form: Format = FORMATS[path](1, "m", "Hi", "one two")
    opening = form.opening()
    words = [form.content(piece) for piece in form.pieces]
    reason = form.closing(terminator=False)
    if path == "responses":
        return Wire(opening, words, reason, [], form.failure(Error("upstream_error")))
    terminator = form.closing(reason=False)
    error = form.failure(Error("upstream_error"))
    return Wire(opening, words, reason, terminator, error, form.ping)


def _data(*events: Any) -> list[bytes]:
    return [f"data: {json.dumps(each)}\n\n".encode() for each in events]


def _named(*events: Any) -> list[bytes]:
    return [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events]


def _google() -> Wire:
    def answer(text: str, **more: Any) -> dict[str, Any]:
        content = {"parts": [{"text": text}], "role": "model"}
        return {"candidates": [{"content": content, "index": 0, **more}]}

    failed = {"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}
    words = _data(answer("one"), answer(" two"))
    # A comment is an error to it, so nothing pings.
    return Wire([], words, _data(answer("", finishReason="STOP")), [], *_data(failed), ping=b"")


def _cohere() -> Wire:
    def delta(text: str) -> dict[str, Any]:
        content = {"message": {"content": {"text": text}}}
        return {"type": "content-delta", "index": 0, "delta": content}

    def end(reason: str) -> dict[str, Any]:
        return {"type": "message-end", "delta": {"finish_reason": reason}}

    begun = {"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant"}}}
    return Wire(
        _named(begun),
        _named(delta("one"), delta(" two")),
        [],
        _named(end("COMPLETE")),
        *_named(end("ERROR")),
    )


def _ollama() -> Wire:
    def answer(text: str, **more: Any) -> bytes:
        told = {"model": "m", "message": {"role": "assistant", "content": text}, "done": False}
        return json.dumps({**told, **more}).encode() + b"\n"

    end = answer("", done=True, done_reason="stop")
    error = b'{"error": "it broke"}\n'
    return Wire([], [answer("one"), answer(" two")], [], [end], error, ping=b"")


# SDKs


@frozen
class Case:
    """One way to get a stream."""

    wire: Wire
    make: Callable[..., Any]
    """A client, by a URL and, for TLS, a context."""
    ask: Callable[[Any], Any]
    said: Callable[[Any], str]
    """What an item says."""
    asynchronous: bool = False
    content_type: str = "text/event-stream"


def _stainless(module: str, name: str, transport: str) -> Callable[..., Any]:
    def make(url: str, tls: ssl.SSLContext | None = None) -> Any:
        kind = "AsyncClient" if name.startswith("Async") else "Client"
        given: dict[str, Any] = {}
        if tls is not None:
            given["http_client"] = getattr(import_module(transport), kind)(verify=tls)
        cls = getattr(import_module(module), name)
        return cls(api_key="k", base_url=url, max_retries=0, **given)

    return make


def _auriko(name: str) -> Callable[..., Any]:
    def make(url: str, tls: ssl.SSLContext | None = None) -> Any:
        return getattr(import_module("auriko"), name)(api_key="k", base_url=url, max_retries=0)

    return make


def _mistral(url: str, tls: ssl.SSLContext | None = None) -> Any:
    from mistralai.client import Mistral

    return Mistral(api_key="k", server_url=url)


def _cohere_client(name: str) -> Callable[..., Any]:
    def make(url: str, tls: ssl.SSLContext | None = None) -> Any:
        given: dict[str, Any] = {}
        if tls is not None:
            kind = "AsyncClient" if name.startswith("Async") else "Client"
            given["httpx_client"] = getattr(import_module("httpx"), kind)(verify=tls)
        return getattr(import_module("cohere"), name)(
            api_key="k", base_url=url, max_retries=0, **given
        )

    return make


def _google_client(url: str, tls: ssl.SSLContext | None = None) -> Any:
    from google import genai

    library = import_module("httpx2" if int(version("google-genai").split(".")[0]) > 2 else "httpx")
    # With a transport of one's own it uses that even where aiohttp is installed.
    options: Any = {
        "base_url": url,
        "async_client_args": {"transport": library.AsyncHTTPTransport(verify=tls or True)},
        "client_args": {"verify": tls or True},
        "retry_options": {"attempts": 1},
    }
    return genai.Client(api_key="k", http_options=options)


def _ollama_client(name: str) -> Callable[..., Any]:
    def make(url: str, tls: ssl.SSLContext | None = None) -> Any:
        return getattr(import_module("ollama"), name)(host=url)

    return make


def _chat_said(chunk: Any) -> str:
    return chunk.choices[0].delta.content or "" if chunk.choices else ""


def _chat_event_said(event: Any) -> str:
    return event.delta if event.type == "content.delta" else ""


def _delta_said(event: Any) -> str:
    return event.delta if event.type == "response.output_text.delta" else ""


def _anthropic_said(event: Any) -> str:
    return event.delta.text if event.type == "content_block_delta" else ""


def _google_said(answer: Any) -> str:
    return answer.text or ""


def _cohere_said(event: Any) -> str:
    return event.delta.message.content.text if event.type == "content-delta" else ""


_CHAT, _MESSAGES, _RESPONSES = map(_ours, ("chat/completions", "messages", "responses"))
_INPUT = {"model": "m", "input": "Hi"}
_CLAUDE = {**CHAT, "max_tokens": 9}


def _both(name: str, sync: Any, asynchronous: Any, **more: Any) -> dict[str, Case]:
    """The same for a sync and an async client, which differ in `make` and maybe in `ask`."""
    asks = more.pop("ask")
    first, second = asks if isinstance(asks, tuple) else (asks, asks)
    return {
        name: Case(make=sync, ask=first, **more),
        f"{name}-async": Case(make=asynchronous, ask=second, asynchronous=True, **more),
    }


_OPENAI = _stainless("openai", "OpenAI", "httpx2"), _stainless("openai", "AsyncOpenAI", "httpx2")
_ANTHROPIC = (
    _stainless("anthropic", "Anthropic", "httpx2"),
    _stainless("anthropic", "AsyncAnthropic", "httpx2"),
)

CASES: dict[str, Case] = {
    **_both(
        "openai",
        *_OPENAI,
        wire=_CHAT,
        ask=lambda c: c.chat.completions.create(**CHAT, stream=True),
        said=_chat_said,
    ),
    **_both(
        "openai-stream",
        *_OPENAI,
        wire=_CHAT,
        ask=lambda c: c.chat.completions.stream(**CHAT),
        said=_chat_event_said,
    ),
    **_both(
        "openai-responses",
        *_OPENAI,
        wire=_RESPONSES,
        ask=lambda c: c.responses.create(**_INPUT, stream=True),
        said=_delta_said,
    ),
    **_both(
        "openai-responses-stream",
        *_OPENAI,
        wire=_RESPONSES,
        ask=lambda c: c.responses.stream(**_INPUT),
        said=_delta_said,
    ),
    **_both(
        "anthropic",
        *_ANTHROPIC,
        wire=_MESSAGES,
        ask=lambda c: c.messages.create(**_CLAUDE, stream=True),
        said=_anthropic_said,
    ),
    **_both(
        "anthropic-stream",
        *_ANTHROPIC,
        wire=_MESSAGES,
        ask=lambda c: c.messages.stream(**_CLAUDE),
        said=_anthropic_said,
    ),
    **_both(
        "auriko",
        _auriko("Client"),
        _auriko("AsyncClient"),
        wire=_CHAT,
        ask=lambda c: c.chat.completions.create(**CHAT, stream=True),
        said=_chat_said,
    ),
    **_both(
        "auriko-responses",
        _auriko("Client"),
        _auriko("AsyncClient"),
        wire=_RESPONSES,
        ask=lambda c: c.responses.create(**_INPUT, stream=True),
        said=_delta_said,
    ),
    **_both(
        "groq",
        _stainless("groq", "Groq", "httpx"),
        _stainless("groq", "AsyncGroq", "httpx"),
        wire=_CHAT,
        ask=lambda c: c.chat.completions.create(**CHAT, stream=True),
        said=_chat_said,
    ),
    **_both(
        "mistral",
        _mistral,
        _mistral,
        wire=_CHAT,
        ask=(lambda c: c.chat.stream(**CHAT), lambda c: c.chat.stream_async(**CHAT)),
        said=lambda event: _chat_said(event.data),
    ),
    **_both(
        "cohere",
        _cohere_client("ClientV2"),
        _cohere_client("AsyncClientV2"),
        wire=_cohere(),
        ask=lambda c: c.chat_stream(**CHAT),
        said=_cohere_said,
    ),
    **_both(
        "google",
        _google_client,
        _google_client,
        wire=_google(),
        ask=(
            lambda c: c.models.generate_content_stream(model="m", contents="Hi"),
            lambda c: c.aio.models.generate_content_stream(model="m", contents="Hi"),
        ),
        said=_google_said,
    ),
    **_both(
        "ollama",
        _ollama_client("Client"),
        _ollama_client("AsyncClient"),
        wire=_ollama(),
        ask=lambda c: c.chat(**CHAT, stream=True),
        said=lambda answer: answer.message.content,
        content_type="application/x-ndjson",
    ),
}


@define
class Got:
    """What a consumer got."""

    said: str = ""
    items: list[Any] = Factory(list)
    error: BaseException | None = None
    again: BaseException | None = None
    """What one more read has raised after the error."""
    stream: Any = None
    shown: Any = None
    """What a test has looked at while the client was open."""


def consumed(
    case: Case, url: str, pipeline: Any, tls: ssl.SSLContext | None = None, **steps: Any
) -> Got:
    """Ask under a pipeline (None: bare), and read the stream to its end; the client is closed last.

    `look`: a function of the stream, asked before it is read; what it gives is `shown`. `then`: a
    function that is called after that, in another thread.
    """
    got = Got()
    if case.asynchronous:
        asyncio.run(_aconsumed(case, url, pipeline, tls, got, **steps))
        return got
    client = case.make(url, tls)
    try:
        found = _fn(case, client, pipeline)()
        if hasattr(found, "__enter__") and not hasattr(found, "__iter__"):
            with found as stream:
                _read(case, stream, got, **steps)
        else:
            _read(case, found, got, **steps)
    except BaseException as error:
        got.error = got.error or error
    finally:
        closed(client)
    return got


def closed(client: Any) -> None:
    """Close a client: some have a method for that, some can only be left."""
    if hasattr(client, "close"):
        client.close()
    elif hasattr(client, "__exit__"):
        client.__exit__(None, None, None)


async def aclosed(client: Any) -> None:
    """The same of an async one."""
    client = getattr(client, "aio", client)  # Google's
    client = client if hasattr(client, "__aexit__") else client._client  # Ollama's
    await client.__aexit__(None, None, None)


def _fn(case: Case, client: Any, pipeline: Any) -> Callable[..., Any]:
    def ask(*, model: str = "m") -> Any:
        return case.ask(client)

    return ask if pipeline is None else pipeline.wrap(ask)  # type: ignore[no-any-return]


def _read(case: Case, stream: Any, got: Got, look: Any = None, then: Any = None) -> None:
    got.stream = stream
    if look is not None:
        got.shown = look(stream)
    try:
        for item in stream:
            got.items.append(item)
            got.said += case.said(item)
    except Exception as error:
        got.error = error
    try:
        next(iter(stream))
    except BaseException as error:
        got.again = error
    if then is not None:
        then()


async def _aconsumed(
    case: Case, url: str, pipeline: Any, tls: ssl.SSLContext | None, got: Got, **steps: Any
) -> None:
    client = case.make(url, tls)
    try:
        found = _fn(case, client, pipeline)()
        if inspect.isawaitable(found):
            found = await found
        if hasattr(found, "__aenter__") and not hasattr(found, "__aiter__"):
            async with found as stream:
                await _aread(case, stream, got, **steps)
        else:
            await _aread(case, found, got, **steps)
    except BaseException as error:
        got.error = got.error or error
    finally:
        await aclosed(client)


async def _aread(case: Case, stream: Any, got: Got, look: Any = None, then: Any = None) -> None:
    got.stream = stream
    if look is not None:
        got.shown = look(stream)
    try:
        async for item in stream:
            got.items.append(item)
            got.said += case.said(item)
    except Exception as error:
        got.error = error
    try:
        await stream.__aiter__().__anext__()
    except BaseException as error:
        got.again = error
    if then is not None:
        await asyncio.to_thread(then)
