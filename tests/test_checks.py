"""Answers that came with status 200 and are none."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from anthropic.types import Message
from cohere import V2ChatResponse
from google.genai.types import GenerateContentResponse
from mistralai.client.models import ChatCompletionResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from conftest import World
from resilience import BadResult, Pipeline, Retry, checks, matching
from resilience.matching import empty_answer, error_body, finish_reason, no_choices
from resilience.waits import Fixed


def completion(**message: Any) -> ChatCompletion:
    """An answer as OpenAI's SDK builds it, with one choice."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    return ChatCompletion.construct(choices=[choice], model="m")


def message(*content: Any, **told: Any) -> Message:
    """An answer as Anthropic's SDK builds it."""
    return Message.construct(content=list(content), role="assistant", **told)


def gemini(*parts: Any, **told: Any) -> GenerateContentResponse:
    """An answer as Google's SDK builds it, with one candidate."""
    candidate = {"content": {"role": "model", "parts": list(parts)}, **told}
    return GenerateContentResponse.model_validate({"candidates": [candidate]})


def response(*output: Any, **told: Any) -> Response:
    """An answer of OpenAI's responses as its SDK builds it."""
    return Response.construct(output=list(output), error=None, **told)


def said(text: str) -> dict[str, Any]:
    """What the model wrote, among the output of OpenAI's responses."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "type": "message",
        "id": "x",
        "role": "assistant",
        "status": "completed",
        "content": content,
    }


def cohere(*content: Any, **told: Any) -> V2ChatResponse:
    """An answer as Cohere's SDK builds it."""
    message = {"role": "assistant", "content": list(content), **told}
    return V2ChatResponse.construct(id="x", finish_reason="COMPLETE", message=message)


def mistral(content: str, reason: str = "stop") -> ChatCompletionResponse:
    """An answer as Mistral's SDK builds it."""
    choice = {"index": 0, "finish_reason": reason, "message": {"content": content}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    told = {"id": "x", "object": "o", "model": "m", "created": 1, "usage": usage}
    return ChatCompletionResponse.model_validate({**told, "choices": [choice]})


def bedrock(*content: Any, reason: str = "end_turn") -> dict[str, Any]:
    """An answer as botocore gives it."""
    message = {"role": "assistant", "content": list(content)}
    return {"output": {"message": message}, "stopReason": reason, "usage": {}}


class Odd:
    """Compares as a data frame's column does, and is neither true nor false."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> Any:
        raise ValueError("ambiguous")

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


class Hostile:
    """Refuses to be looked at."""

    @property
    def choices(self) -> Any:
        raise RuntimeError("choices")

    error = content = output = candidates = message = finish_reason = stop_reason = choices


class Reason(str, Enum):
    NAME = "a word"


CUT = SimpleNamespace(finish_reason="length", message=None)
RING: list[Any] = []
RING.append(RING)

GOOD: list[Any] = [
    completion(content="Hi"),
    {"choices": [{"message": {"content": "Hi"}}]},
    SimpleNamespace(content=[{"type": "text", "text": "Hi"}]),
    SimpleNamespace(candidates=[object()]),
    SimpleNamespace(content=Odd(), choices=Odd(), finish_reason=Odd()),
    message({"type": "text", "text": "Hi"}),
    gemini({"text": "Hi"}),
    response(said("Hi")),
    cohere({"type": "text", "text": "Hi"}),
    mistral("Hi"),
    bedrock({"text": "Hi"}),
    object(),
    7,
    Hostile(),
]


@pytest.mark.parametrize(
    ("result", "bad"),
    [
        (None, True),
        ("<html>Bad Gateway</html>", True),
        (b"", True),
        ({}, True),
        ({"choices": []}, True),
        (ChatCompletion.construct(hello="world"), True),
        (ChatCompletion.construct(choices=[]), True),
        (SimpleNamespace(content=[]), True),
        (SimpleNamespace(candidates=None), True),
        (SimpleNamespace(content=""), False),
        ({"output": {}}, True),
        (message(), True),
        (response(), True),
        (GenerateContentResponse.model_validate({"candidates": []}), True),
        *((good, False) for good in GOOD),
    ],
)
def test_no_choices(result: object, bad: bool) -> None:
    """What has no answer in it, as the SDKs give it, is told from what has, and from the rest."""
    assert no_choices(result) is bad


@pytest.mark.parametrize(
    ("result", "bad"),
    [
        ({"error": {"message": "no"}}, True),
        (ChatCompletion.construct(error={"code": 502}), True),
        (SimpleNamespace(error=Odd()), True),
        (SimpleNamespace(status_code=429), True),
        (SimpleNamespace(status=503), True),  # as aiohttp's and urllib's responses have it
        (SimpleNamespace(status=200), False),
        (SimpleNamespace(status="failed"), False),
        ({"status": 503}, False),
        *(({"error": nothing, "choices": []}, False) for nothing in (None, "", False, {}, [], 0)),
        *((good, False) for good in GOOD),
    ],
)
def test_error_body(result: object, bad: bool) -> None:
    """A 200 that carries an error, in a dict or in the extra field that OpenAI's SDK makes."""
    assert error_body(result) is bad


@pytest.mark.parametrize(
    ("result", "bad"),
    [
        (completion(content=""), True),
        (completion(content=None), True),
        ({"choices": [{"message": None}, {"message": {"content": ""}}]}, True),
        ({"choices": [{"message": None}, {"delta": {"content": ""}}]}, False),
        (completion(content=None, tool_calls=[{"id": "1"}]), False),
        (completion(content=None, refusal="No."), False),
        (completion(content=[{"type": "text", "text": ""}]), True),
        (message(), True),
        (message({"type": "text", "text": ""}), True),
        (message({"type": "thinking", "thinking": "Hm", "signature": "x"}), True),
        (message({"type": "text", "text": ""}, {"type": "tool_use", "id": "1"}), False),
        (gemini(), True),
        (gemini({"text": ""}), True),
        (gemini({"text": "Hm", "thought": True}), True),
        (gemini({"functionCall": {"name": "f"}}), False),
        (GenerateContentResponse.model_validate({"candidates": [{"content": None}]}), True),
        (GenerateContentResponse.model_validate({"candidates": []}), False),
        (response(), True),
        (response(said("")), True),
        (response({"type": "reasoning", "id": "x", "summary": []}), True),
        (response({"type": "function_call", "name": "f"}), False),
        (cohere(), True),
        (cohere({"type": "text", "text": ""}), True),
        (cohere(tool_calls=[{"id": "1"}]), False),
        (mistral(""), True),
        (bedrock(), True),
        (bedrock({"text": ""}), True),
        (bedrock({"reasoningContent": {"reasoningText": {"text": "Hm"}}}), True),
        (bedrock({"toolUse": {"name": "f"}}), False),
        (SimpleNamespace(content=[Odd()]), False),
        (SimpleNamespace(content=[object()]), False),
        (SimpleNamespace(content=RING), False),
        ({"message": "done"}, False),
        *((good, False) for good in GOOD),
    ],
)
def test_empty_answer(result: object, bad: bool) -> None:
    """A message that says nothing is empty; one that calls a tool or refuses is not."""
    assert empty_answer(result) is bad


def test_finish_reason() -> None:
    """A check for the reasons given, and for no other."""
    cut = finish_reason("length", "error")
    assert not cut(completion(content="Hi"))
    assert cut({"choices": [{"finish_reason": "length"}]})
    assert cut(SimpleNamespace(stop_reason="error"))
    assert not any(cut(good) for good in GOOD)


@pytest.mark.parametrize(
    ("reason", "result"),
    [
        ("length", completion(content="Hi").model_copy(update={"choices": [CUT]})),
        ("max_tokens", message(stop_reason="max_tokens")),
        ("MAX_TOKENS", gemini({"text": "Hi"}, finishReason="MAX_TOKENS")),
        ("SAFETY", {"candidates": [{"finishReason": "SAFETY"}]}),
        ("incomplete", response(status="incomplete")),
        ("max_output_tokens", response(incomplete_details={"reason": "max_output_tokens"})),
        ("COMPLETE", cohere()),
        ("length", mistral("Hi", "length")),
        ("guardrail_intervened", bedrock(reason="guardrail_intervened")),
        ("a word", SimpleNamespace(finish_reason=Reason.NAME)),
    ],
)
def test_finish_reasons_of_every_api(reason: str, result: object) -> None:
    """Each has its own place for it, and its own words; an enum counts by its value."""
    assert finish_reason("something else", reason)(result)
    assert not finish_reason("something else")(result)


def test_finish_reason_wants_reasons() -> None:
    """No reason at all, or one that is no text, is refused by name."""
    with pytest.raises(ValueError, match=r"^reasons must"):
        finish_reason()
    with pytest.raises(TypeError, match=r"^reasons must .*\b7$"):
        finish_reason(7)  # type: ignore[arg-type]


def test_the_checks_are_words_of_the_matching_language() -> None:
    """They are had from `resilience.matching` as well."""
    assert all(getattr(matching, name) is getattr(checks, name) for name in checks.__all__)


def test_a_wrong_answer_is_asked_for_again(world: World) -> None:
    """They are for `BadResult`: Retry calls again while there are no choices, or an error body."""
    answer = completion(content="Hi")
    fn = world.function(ChatCompletion.construct(choices=None), {"error": "no"}, answer)
    pipeline = Pipeline(Retry(wait=Fixed(1)), BadResult(no_choices, error_body))

    assert world.run(pipeline.call, fn) is answer
    assert len(world.calls) == 3
    assert world.clock.sleeps == [1, 1]
