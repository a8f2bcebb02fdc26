"""Answers that came with status 200 and are none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

from conftest import World
from resilience import CircuitBreaker, Pipeline, Retry, checks, matching
from resilience.matching import empty_answer, error_body, finish_reason, no_choices
from resilience.waits import Fixed


def completion(**message: Any) -> ChatCompletion:
    """An answer as OpenAI's SDK builds it, with one choice."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    return ChatCompletion.construct(choices=[choice], model="m")


class Hostile:
    """Refuses to be looked at."""

    @property
    def choices(self) -> Any:
        raise RuntimeError("choices")

    error = content = output = candidates = message = finish_reason = stop_reason = choices


GOOD: list[Any] = [
    completion(content="Hi"),
    {"choices": [{"message": {"content": "Hi"}}]},
    SimpleNamespace(content=[{"type": "text", "text": "Hi"}]),
    SimpleNamespace(candidates=[object()]),
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
        ({"error": None, "choices": []}, False),
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


def test_finish_reason_wants_reasons() -> None:
    """No reason at all, or one that is no text, is refused by name."""
    with pytest.raises(ValueError, match="reasons must name at least one"):
        finish_reason()
    with pytest.raises(TypeError, match="reasons must be a string"):
        finish_reason(7)  # type: ignore[arg-type]


def test_the_checks_are_words_of_the_matching_language() -> None:
    """They are had from `resilience.matching` as well."""
    assert all(getattr(matching, name) is getattr(checks, name) for name in checks.__all__)


def test_a_wrong_answer_is_asked_for_again(world: World) -> None:
    """Retry calls again while there are no choices; the breaker counts an error body."""
    breaker = CircuitBreaker(failures=2, on_result=error_body)
    answer = completion(content="Hi")
    fn = world.function(ChatCompletion.construct(error={"code": 1}), {"error": {}}, answer)
    pipeline = Pipeline(Retry(on_result=no_choices, wait=Fixed(1)), breaker)

    assert world.run(pipeline.call, fn) == {"error": {}}
    assert breaker.state == "open"
    assert len(world.calls) == 2
    assert isinstance(answer, openai.BaseModel)
