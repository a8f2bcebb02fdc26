"""A prompt that is too long, of services that say so in words only, with the real clients."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import httpx
import openai
import pytest

from resilience import ModelFallback, Pipeline
from resilience.failures import Kind
from resilience.matching import RECOVERABLE, TOO_LONG_BY_TEXT
from support.answers import ANSWER, Answer, Answers

pytestmark = pytest.mark.real

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
VLLM = Answer(
    {
        "object": "error",
        "message": "This model's maximum context length is 16384 tokens. However, you requested "
        "19591 tokens (9591 in the messages, 10000 in the completion).",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    },
    400,
)
SGLANG = Answer(
    {
        "object": "error",
        "message": "The input (61709 tokens) is longer than the model's context length "
        "(40960 tokens).",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    },
    400,
)
ANTHROPIC = Answer(
    {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "prompt is too long: 208310 tokens > 200000 maximum",
        },
    },
    400,
)
MISTAKE = Answer(
    {"error": {"message": "max_tokens must be at least 1", "type": "invalid_request_error"}}, 400
)
MESSAGE = Answer({"type": "message", "content": [{"type": "text", "text": "Hi"}], "model": "b"})


def openai_calls(asynchronous: bool, base_url: str) -> Any:
    options: Any = {"base_url": base_url, "api_key": "any", "max_retries": 0}

    def create(**arguments: Any) -> Any:
        with openai.OpenAI(**options) as client:
            return client.chat.completions.create(**arguments)

    async def acreate(**arguments: Any) -> Any:
        async with openai.AsyncOpenAI(**options) as client:
            return await client.chat.completions.create(**arguments)

    return acreate if asynchronous else create


def anthropic_calls(asynchronous: bool, base_url: str) -> Any:
    options: Any = {"base_url": base_url, "api_key": "any", "max_retries": 0}

    def create(**arguments: Any) -> Any:
        with anthropic.Anthropic(**options) as client:
            return client.messages.create(max_tokens=5, **arguments)

    async def acreate(**arguments: Any) -> Any:
        async with anthropic.AsyncAnthropic(**options) as client:
            return await client.messages.create(max_tokens=5, **arguments)

    return acreate if asynchronous else create


def httpx_calls(asynchronous: bool, base_url: str) -> Any:
    def body(arguments: Any) -> Any:
        return {"url": f"{base_url}/chat/completions", "json": arguments}

    def post(**arguments: Any) -> Any:
        with httpx.Client() as client:
            return client.post(**body(arguments)).raise_for_status()

    async def apost(**arguments: Any) -> Any:
        async with httpx.AsyncClient() as client:
            return (await client.post(**body(arguments))).raise_for_status()

    return apost if asynchronous else post


@pytest.mark.fault(276)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("calls", "said"),
    [
        (openai_calls, VLLM),
        (openai_calls, SGLANG),
        (anthropic_calls, ANTHROPIC),
        (httpx_calls, VLLM),
        (openai_calls, MISTAKE),
    ],
)
@pytest.mark.parametrize("on", [RECOVERABLE, RECOVERABLE | TOO_LONG_BY_TEXT], ids=repr)
def test_too_long_by_text(asynchronous: bool, calls: Any, said: Answer, on: Any) -> None:
    """By default it is a request that no model will do; those who must may go by the words."""
    good = MESSAGE if calls is anthropic_calls else ANSWER
    pipeline = Pipeline(ModelFallback("a", "b", on=on), asynchronous=asynchronous)
    with Answers(a=[said], b=[good]) as server:
        call = calls(asynchronous, server.base_url)
        outcome: Any = pipeline.outcome(call, messages=MESSAGES)
        if asynchronous:

            async def main() -> Any:
                return await outcome

            outcome = asyncio.run(main())

    moved_on = on is not RECOVERABLE and said is not MISTAKE
    assert server.models == (["a", "b"] if moved_on else ["a"])
    assert (outcome.error is None) is moved_on
    assert outcome.attempts[0].failure.kind is Kind.INVALID
