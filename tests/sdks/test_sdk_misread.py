"""Python's own errors out of an SDK: over an answer of another shape, over the caller's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import cohere
import openai
import pydantic
import pytest
from botocore.config import Config
from botocore.session import Session
from google import genai
from google.genai import types
from langchain_openai import ChatOpenAI
from mistralai.client import Mistral

from providers.raw import answering
from resilience.failures import Advice, Failure, Kind, describe

pytestmark = [pytest.mark.real, pytest.mark.steady]

HI: Any = [{"role": "user", "content": "Hi"}]
NOT_OURS = Failure(Kind.UNKNOWN, Advice.STOP)
BUILTIN = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class Mine(pydantic.BaseModel):
    number: int


def chat(url: str) -> ChatOpenAI:
    key = pydantic.SecretStr("none")
    return ChatOpenAI(model="m", api_key=key, base_url=url, max_retries=0)


def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url=url, max_retries=0)


def by_openai(url: str, **options: Any) -> object:
    asked = {"model": "m", "messages": HI, "response_format": Mine, **options}
    with client(url) as made:
        return made.chat.completions.parse(**asked)


def by_responses(url: str, **options: Any) -> object:
    asked = {"model": "m", "input": "?", "text_format": Mine, **options}
    with client(url) as made:
        return made.responses.parse(**asked)


def by_stream(url: str, **options: Any) -> object:
    asked = {"model": "m", "messages": HI, **options}
    with client(url) as made, made.chat.completions.stream(**asked) as events:
        return list(events)


def by_anthropic(url: str, **options: Any) -> object:
    asked = {"model": "m", "max_tokens": 1, "messages": HI, **options}
    with (
        anthropic.Anthropic(api_key="none", base_url=url, max_retries=0) as made,
        made.messages.stream(**asked) as events,
    ):
        return list(events)


def by_cohere(url: str, **options: Any) -> object:
    with cohere.ClientV2(api_key="none", base_url=url) as made:
        return made.chat(**{"model": "m", "messages": HI, **options})


def by_google(url: str, **options: Any) -> object:
    with genai.Client(api_key="none", http_options=types.HttpOptions(base_url=url)) as made:
        return made.models.generate_content(**{"model": "m", "contents": "?", **options})


def by_mistral(url: str, **options: Any) -> object:
    with Mistral(api_key="none", server_url=url) as made:
        return made.chat.complete(**{"model": "m", "messages": HI, **options})


def by_botocore(url: str, **options: Any) -> object:
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "r"}
    once = Config(retries={"total_max_attempts": 1})
    made: Any = Session().create_client("bedrock-runtime", endpoint_url=url, config=once, **keys)
    try:
        return made.converse(**{"modelId": "m", **options})
    finally:
        made.close()


def by_langchain(url: str, **options: Any) -> object:
    return chat(url).invoke(**{"input": "?", **options})


def raised(ask: Callable[..., object], body: str, **options: Any) -> Exception:
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\ncontent-type: application/json\r\n"
    wire = f"{head}connection: close\r\n\r\n{body}".encode()
    with answering(wire) as url, pytest.raises(BUILTIN) as caught:
        ask(url, **options)
    assert type(caught.value) in BUILTIN
    return caught.value


@pytest.mark.parametrize(
    ("ask", "body", "sdk"),
    [
        (by_openai, '{"error": {"code": 502}}', "openai"),
        (by_openai, '{"choices": [null]}', "openai"),
        (by_openai, '"x"', "openai"),
        (by_responses, '{"output": [null]}', "openai"),
        (by_responses, "[]", "openai"),
        (by_cohere, '{"message": "x"}', "cohere"),
        (by_google, '{"candidates": 5}', "google"),
        (by_botocore, '{"output": 5}', "botocore"),
        (by_botocore, "null", "botocore"),
        (by_langchain, '{"choices": []}', "langchain_core"),
        (by_langchain, '{"choices": null}', "langchain_openai"),
        (by_langchain, '{"choices": [{"message": null}]}', "langchain_openai"),
    ],
)
def test_an_answer_that_the_sdk_made_nothing_of(
    ask: Callable[..., object], body: str, sdk: str
) -> None:
    """The service has done its work, and may do it better once more."""
    failure = describe(raised(ask, body))

    assert failure == Failure(Kind.SERVER, Advice.RETRY, sdk=sdk, retry_limit=1, sent=True)


def wrong() -> Iterator[Any]:
    """Messages of the caller's that cannot be made."""
    raise KeyError("mine")
    yield


@pytest.mark.parametrize(
    ("ask", "options"),
    [
        (by_openai, {"no_such": 1}),
        (by_openai, {"response_format": 5}),
        (by_openai, {"response_format": object}),
        (by_openai, {"tools": [{"type": "nonsense"}]}),
        (by_openai, {"messages": wrong()}),
        (by_openai, {"messages": [object()]}),
        (by_responses, {"text_format": 5}),
        (by_stream, {"no_such": 1}),
        (by_stream, {"response_format": 5}),
        (by_stream, {"messages": [object()]}),
        (by_anthropic, {"no_such": 1}),
        (by_anthropic, {"messages": [object()]}),
        (by_cohere, {"no_such": 1}),
        (by_google, {"contents": {1: 2}}),
        (by_google, {"no_such": 1}),
        (by_mistral, {"no_such": 1}),
        (by_langchain, {"input": 5}),
    ],
)
def test_what_the_caller_said_wrong(ask: Callable[..., object], options: dict[str, Any]) -> None:
    """It would be as wrong the next time: unknown, as all of the program's own mistakes."""
    assert describe(raised(ask, "{}", **options)) == NOT_OURS


def test_what_the_caller_does_in_an_sdk_that_reads() -> None:
    """The innermost frame is the caller's, though an SDK's is around it."""

    class Picky(pydantic.BaseModel):
        number: int

        @pydantic.field_validator("number")
        @classmethod
        def check(cls, value: int) -> int:
            raise KeyError(value)

    message = {"role": "assistant", "content": '{"number": 1}'}
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    assert describe(raised(by_openai, body, response_format=Picky)) == NOT_OURS


def test_an_error_from_deep_in_a_program() -> None:
    """One that has come through hundreds of frames is looked at no further than is affordable."""

    def descend(frames: int, url: str) -> object:
        return descend(frames - 1, url) if frames else by_openai(url)

    near = raised(lambda url: descend(50, url), "[]")
    far = raised(lambda url: descend(300, url), "[]")

    assert describe(near).advice is Advice.RETRY
    assert describe(far) == NOT_OURS


@pytest.mark.parametrize("cls", BUILTIN)
def test_an_error_that_no_sdk_raised(cls: type[Exception]) -> None:
    """By itself it is the program's own, with frames or without."""
    assert describe(cls("x")) == NOT_OURS
    with pytest.raises(cls) as caught:
        raise cls("x")
    assert describe(caught.value) == NOT_OURS
