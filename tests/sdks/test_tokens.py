"""How many tokens an answer says it took: providers' bodies, in the SDKs' own classes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from anthropic.types import Message, RawMessageDeltaEvent, RawMessageStartEvent
from cohere import MessageEndV2ChatStreamResponse, V2ChatResponse
from google.genai.types import Content, GenerateContentResponse, Part
from groq.types.chat import ChatCompletion as GroqCompletion
from groq.types.chat import ChatCompletionChunk as GroqChunk
from langchain_core.messages import HumanMessage, SystemMessage
from mistralai.client.models import ChatCompletionResponse, CompletionEvent
from ollama import ChatResponse
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseCompletedEvent

from conftest import World
from resilience import BadResult, Pipeline, Retry
from resilience._core.estimate import estimate_tokens
from resilience.events import AttemptEnded, TokensUsed, recording
from resilience.sdks.tokens import tokens_of, tokens_of_stream
from support.calling import error_of

CHAT = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
CHUNK = {**CHAT, "object": "chat.completion.chunk"}
OPENAI = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
RESPONSE = {
    "id": "1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "output": [],
    "parallel_tool_calls": False,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 7,
    },
}
MESSAGE = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
}
GOOGLE = {"prompt_token_count": 3, "candidates_token_count": 1, "thoughts_token_count": 3}
MISTRAL = {"id": "1", "object": "o", "model": "m", "created": 1, "choices": [], "usage": OPENAI}
COHERE = {
    "billed_units": {"input_tokens": 9.0},
    "tokens": {"input_tokens": 3.0, "output_tokens": 4.0},
}


def parsed(cls: Any, body: dict[str, Any]) -> Any:
    return cls.model_validate(body)


RESULTS = {
    "openai": parsed(ChatCompletion, {**CHAT, "usage": OPENAI}),
    "openai, responses": parsed(Response, RESPONSE),
    "anthropic": parsed(Message, {**MESSAGE, "usage": {"input_tokens": 3, "output_tokens": 4}}),
    "anthropic, cached": parsed(
        Message,
        {
            **MESSAGE,
            "usage": {
                "input_tokens": 1,
                "output_tokens": 4,
                "cache_read_input_tokens": 2,
                "cache_creation_input_tokens": None,
            },
        },
    ),
    "google, with thoughts": parsed(GenerateContentResponse, {"usage_metadata": GOOGLE}),
    "groq": parsed(GroqCompletion, {**CHAT, "usage": OPENAI}),
    "mistral": parsed(ChatCompletionResponse, MISTRAL),
    "cohere": parsed(
        V2ChatResponse,
        {"id": "1", "finish_reason": "COMPLETE", "message": {"role": "assistant"}, "usage": COHERE},
    ),
    "ollama": ChatResponse(
        message={"role": "assistant", "content": "hi"},  # type: ignore[arg-type]
        prompt_eval_count=3,
        eval_count=4,
    ),
    "a body": {"usage": OPENAI},
    "LiteLLM's, whose prompt includes what was cached": {
        "usage": {**OPENAI, "cache_read_input_tokens": 2}
    },
    "Google's body": {"usage_metadata": GOOGLE},
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_a_result_says_what_it_took(result: object) -> None:
    """The prompt, what was read from a cache included, and the answer, its thoughts included."""
    assert tokens_of(result) == (3, 4)


def test_embeddings_have_a_prompt_alone() -> None:
    """There is no answer of tokens."""
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    body = {"object": "list", "data": [], "model": "m", "usage": usage}
    assert tokens_of(parsed(CreateEmbeddingResponse, body)) == (3, None)


class Lookalike:
    """A class of the program's own."""

    usage = OPENAI


@pytest.mark.parametrize(
    "result",
    [
        "ok",
        None,
        Lookalike(),
        MagicMock(),
        {"prompt_tokens": 3},
        {"usage": None},
        {"usage": {"prompt_tokens": True}},
        {"usage": {"prompt_tokens": "3", "completion_tokens": -1}},
        {"usage": {"prompt_tokens": float("nan")}},
        {"usage": 7},
        parsed(ChatCompletion, CHAT),
    ],
    ids=lambda result: type(result).__name__,
)
def test_anything_else_says_nothing(result: object) -> None:
    """An object of an unknown class is not looked into."""
    assert tokens_of(result) is None


STREAMS: dict[str, list[Any]] = {
    "openai": [
        *[parsed(ChatCompletionChunk, CHUNK)] * 9,
        parsed(ChatCompletionChunk, {**CHUNK, "usage": OPENAI}),
    ],
    "openai, responses": [
        ResponseCompletedEvent.model_construct(
            type="response.completed", sequence_number=1, response=parsed(Response, RESPONSE)
        )
    ],
    "anthropic": [
        parsed(
            RawMessageStartEvent,
            {
                "type": "message_start",
                "message": {**MESSAGE, "usage": {"input_tokens": 3, "output_tokens": 1}},
            },
        ),
        *["text"] * 20,
        parsed(
            RawMessageDeltaEvent,
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 4},
            },
        ),
    ],
    "google, more in each item": [
        parsed(GenerateContentResponse, {"usage_metadata": {"prompt_token_count": 3}}),
        parsed(GenerateContentResponse, {"usage_metadata": GOOGLE}),
    ],
    "groq": [parsed(GroqChunk, {**CHUNK, "x_groq": {"usage": OPENAI}})],
    "mistral": [
        parsed(CompletionEvent, {"data": {"id": "1", "model": "m", "choices": [], "usage": OPENAI}})
    ],
    "cohere": [
        parsed(
            MessageEndV2ChatStreamResponse,
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": COHERE}},
        )
    ],
    "ollama": [ChatResponse(message={"role": "assistant"}), RESULTS["ollama"]],  # type: ignore[arg-type]
}


@pytest.mark.parametrize("items", STREAMS.values(), ids=STREAMS)
def test_a_stream_says_it_at_its_beginning_or_its_end(items: list[Any]) -> None:
    """For each number the last word counts."""
    assert tokens_of_stream(deque(items)) == (3, 4)


@pytest.mark.parametrize("items", [[], ["a", "b"], [parsed(ChatCompletionChunk, CHUNK)] * 20])
def test_other_streams_say_nothing(items: list[Any]) -> None:
    """An empty one, one of texts, one that was not asked to."""
    assert tokens_of_stream(deque(items)) is None


# The event


def test_an_attempt_publishes_its_tokens_before_it_ends(world: World) -> None:
    """With its number and its model; for one that says nothing there is no event."""
    result = {"usage": OPENAI}
    with recording(TokensUsed, AttemptEnded) as events:
        world.run(Pipeline(Retry(wait=1)).wrap(world.function(ConnectionError, result)), model="a")
    assert [type(event) for event in events] == [AttemptEnded, TokensUsed, AttemptEnded]
    assert (events[1].number, events[1].model) == (2, "a")
    assert (events[1].input, events[1].output) == (3, 4)


def test_a_bad_result_took_tokens_as_well(world: World) -> None:
    """They are paid for."""
    pipeline = Pipeline(Retry(attempts=2, wait=1), BadResult(lambda r: True, finally_="raise"))
    with recording(TokensUsed) as events:
        error_of(world, pipeline.wrap(world.function({"usage": OPENAI})))
    assert [event.number for event in events] == [1, 2]


def test_a_stream_publishes_them_when_it_ends(world: World) -> None:
    """As its items say."""

    def items() -> Iterator[Any]:
        yield from STREAMS["anthropic"]

    async def aitems() -> Any:
        for item in items():
            yield item

    def main() -> None:
        for _ in Pipeline(Retry()).wrap(items)():
            assert events == []

    async def amain() -> None:
        async for _ in Pipeline(Retry()).wrap(aitems)():
            assert events == []

    with recording(TokensUsed) as events:
        world.run(amain if world.asynchronous else main)
    assert [(event.input, event.output) for event in events] == [(3, 4)]


@pytest.mark.parametrize(
    "messages",
    [
        [SystemMessage("x" * 20), HumanMessage([{"type": "text", "text": "x" * 20}])],
        [Content(role="user", parts=[Part(text="x" * 20), Part(text="x" * 20)])],
    ],
    ids=["langchain", "google"],
)
def test_the_tokens_of_messages_that_are_objects_are_estimated(messages: list[Any]) -> None:
    assert estimate_tokens(messages) == 40 // 4 + 1000
