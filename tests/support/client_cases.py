"""Clients of the SDKs, and the ways to ask a model with each, for a service at some URL."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from typing import Any

from attrs import frozen

from providers.google import library

__all__ = ["CASES", "Case"]

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES}
EMBED: dict[str, Any] = {
    "model": "m",
    "texts": ["Hi"],
    "input_type": "search_query",
    "embedding_types": ["float"],
}


@frozen
class Case:
    """One client. `ways` are its calling methods, by their path, with arguments."""

    make: Callable[..., Any]
    """The client for a URL; `max_retries=None` leaves its own retries at their default."""
    ways: dict[str, dict[str, Any]]
    copies: bool = False
    """Whether it has `with_options`."""

    asynchronous: bool = False

    def ask(self, client: Any, path: str | None = None, wrap: Any = None) -> BaseException | None:
        """Ask by one way, the first by default, and give the error that comes out."""
        path = path or next(iter(self.ways))
        method = reduce(getattr, path.split("."), client)
        if wrap is not None:
            method = wrap(method)

        def call() -> None:
            result = method(**self.ways[path])
            if hasattr(result, "__enter__"):
                with result:
                    return
            if hasattr(result, "__next__"):
                next(result, None)

        async def acall() -> None:
            result = method(**self.ways[path])
            if inspect.isawaitable(result):
                result = await result
            if hasattr(result, "__aenter__"):
                async with result:
                    return
            if hasattr(result, "__anext__"):
                async for _ in result:
                    return

        try:
            asyncio.run(acall()) if self.asynchronous else call()
        except Exception as error:
            return error
        return None


def _stainless(module: str, name: str, **more: Any) -> Callable[..., Any]:
    def make(url: str, max_retries: int | None = 0) -> Any:
        options = {} if max_retries is None else {"max_retries": max_retries}
        return getattr(import_module(module), name)(api_key="any", base_url=url, **options, **more)

    return make


def _mistral(url: str, max_retries: int | None = 0) -> Any:
    from mistralai.client import Mistral

    return Mistral(api_key="any", server_url=url)


def _google(url: str, max_retries: int | None = 0) -> Any:
    from google import genai

    # With a transport of one's own it uses that even where aiohttp is installed.
    transport = {"transport": library().AsyncHTTPTransport()}
    options: Any = {"base_url": url, "async_client_args": transport}
    if max_retries is not None:
        options["retry_options"] = {
            "attempts": max_retries + 1,
            "initial_delay": 0.001,
            "jitter": 0.001,
        }
    return genai.Client(api_key="any", http_options=options)


_OPENAI = {
    "chat.completions.create": CHAT,
    "chat.completions.parse": CHAT,
    "chat.completions.stream": CHAT,
    "chat.completions.with_raw_response.create": CHAT,
    "chat.completions.with_streaming_response.create": CHAT,
    "with_raw_response.chat.completions.create": CHAT,
    "responses.create": {"model": "m", "input": "Hi"},
    "embeddings.create": {"model": "m", "input": "Hi"},
    "beta.chat.completions.parse": CHAT,
    "responses.stream": {"model": "m", "input": "Hi"},
}
_ANTHROPIC = {
    "messages.create": {**CHAT, "max_tokens": 9},
    "messages.with_raw_response.create": {**CHAT, "max_tokens": 9},
    "messages.count_tokens": CHAT,
    "messages.stream": {**CHAT, "max_tokens": 9},
    "beta.messages.create": {**CHAT, "max_tokens": 9},
}
_GROQ = {
    "chat.completions.create": CHAT,
    "chat.completions.with_raw_response.create": CHAT,
    "embeddings.create": {"model": "m", "input": "Hi"},
}
_AURIKO = {"chat.completions.create": CHAT, "responses.create": {"model": "m", "input": "Hi"}}
_COHERE = {
    "chat": CHAT,
    "chat_stream": CHAT,
    "embed": EMBED,
    "with_raw_response.chat": CHAT,
    "v2.chat": CHAT,
}
_CONTENTS = {"model": "m", "contents": "Hi"}
_INPUT = {"model": "m", "input": "Hi"}
# With version 2, where Python 3.10 has stopped, they are experimental, and say so.
_INTERACTIONS = ["interactions.create"] if library().__name__ == "httpx2" else []

CASES = {
    "openai": Case(_stainless("openai", "OpenAI"), _OPENAI, copies=True),
    "openai-async": Case(
        _stainless("openai", "AsyncOpenAI"), _OPENAI, copies=True, asynchronous=True
    ),
    "auriko": Case(_stainless("auriko", "Client"), _AURIKO),
    "auriko-async": Case(_stainless("auriko", "AsyncClient"), _AURIKO, asynchronous=True),
    "anthropic": Case(_stainless("anthropic", "Anthropic"), _ANTHROPIC, copies=True),
    "anthropic-async": Case(
        _stainless("anthropic", "AsyncAnthropic"), _ANTHROPIC, copies=True, asynchronous=True
    ),
    "groq": Case(_stainless("groq", "Groq"), _GROQ, copies=True),
    "groq-async": Case(_stainless("groq", "AsyncGroq"), _GROQ, copies=True, asynchronous=True),
    "mistral": Case(
        _mistral,
        {
            "chat.complete": CHAT,
            "chat.stream": CHAT,
            "agents.complete": {"messages": MESSAGES, "agent_id": "a"},
            "embeddings.create": {"model": "m", "inputs": ["Hi"]},
        },
    ),
    "mistral-async": Case(
        _mistral,
        {
            "chat.complete_async": CHAT,
            "chat.stream_async": CHAT,
            "embeddings.create_async": {"model": "m", "inputs": ["Hi"]},
        },
        asynchronous=True,
    ),
    "cohere": Case(_stainless("cohere", "ClientV2"), _COHERE),
    "cohere-async": Case(_stainless("cohere", "AsyncClientV2"), _COHERE, asynchronous=True),
    "google": Case(
        _google,
        {
            "models.generate_content": _CONTENTS,
            "models.generate_content_stream": _CONTENTS,
            "models.embed_content": _CONTENTS,
            **dict.fromkeys(_INTERACTIONS, _INPUT),
        },
    ),
    "google-async": Case(
        _google,
        {
            "aio.models.generate_content": _CONTENTS,
            "aio.models.generate_content_stream": _CONTENTS,
            **{f"aio.{path}": _INPUT for path in _INTERACTIONS},
        },
        asynchronous=True,
    ),
}
