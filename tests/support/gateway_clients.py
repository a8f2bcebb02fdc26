"""The real SDKs as clients of the local gateway, without retries of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import auriko
import auriko.errors
import httpx
import openai
import pytest

from resilience.testing.gateway import Gateway

MESSAGES: Any = [{"role": "user", "content": "Hello?"}]


class Sdk:
    """One way to ask the gateway: an SDK, sync or async, without retries of its own."""

    def __init__(self, module: Any, asynchronous: bool) -> None:
        self.module = module
        self.errors = auriko.errors if module is auriko else openai
        self.asynchronous = asynchronous

    def ask(self, gateway: Gateway, model: str = "gpt-4o", **options: Any) -> Any:
        """The completion, or the list of chunks with `stream=True`."""
        return self.watch(gateway, [], model, **options)

    def watch(
        self, gateway: Gateway, chunks: list[Any], model: str = "gpt-4o", **options: Any
    ) -> Any:
        """The same, and every chunk is put on `chunks` as it comes."""
        wanted: dict[str, Any] = {
            "api_key": options.pop("api_key", "any"),
            "base_url": gateway.base_url,
            "timeout": options.pop("timeout", 5.0),
            "max_retries": 0,
        }
        call = {"model": model, "messages": MESSAGES, **options}
        if self.asynchronous:
            return asyncio.run(self._async(wanted, chunks, call))
        names = {auriko: "Client", openai: "OpenAI"}
        with getattr(self.module, names[self.module])(**wanted) as client:
            answer = client.chat.completions.create(**call)
            if not call.get("stream"):
                return answer
            for chunk in answer:
                chunks.append(chunk)
            return chunks

    async def _async(self, wanted: Any, chunks: list[Any], call: Any) -> Any:
        names = {auriko: "AsyncClient", openai: "AsyncOpenAI"}
        async with getattr(self.module, names[self.module])(**wanted) as client:
            answer = await client.chat.completions.create(**call)
            if not call.get("stream"):
                return answer
            async for chunk in answer:
                chunks.append(chunk)
            return chunks


SDKS = {
    "auriko": Sdk(auriko, False),
    "auriko-async": Sdk(auriko, True),
    "openai": Sdk(openai, False),
    "openai-async": Sdk(openai, True),
}


every_sdk = pytest.mark.parametrize("sdk", SDKS.values(), ids=SDKS)


def text(answer: Any) -> str:
    """What a completion or a list of chunks says."""
    if not hasattr(answer, "choices"):
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    content: str = answer.choices[0].message.content
    return content


def post(gateway: Gateway, model: str = "gpt-4o", **more: Any) -> httpx.Response:
    """A plain POST with no SDK in between."""
    body = {"model": model, "messages": MESSAGES, **more}
    return httpx.post(f"{gateway.url}/chat/completions", json=body)


def answers(gateway: Gateway, model: str, times: int) -> list[str]:
    """The names of what a model got."""
    for _ in range(times):
        try:
            post(gateway, model)
        except httpx.RemoteProtocolError:
            pass
    return [received.answer for received in gateway.requests_for(model)][-times:]
