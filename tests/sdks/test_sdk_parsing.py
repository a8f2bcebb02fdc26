"""Errors of parsers: an answer that makes no sense is the server's, all else the program's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pydantic
import pydantic_core
import pytest

from providers.faults import Fault
from providers.raising import Provider, providing
from resilience.failures import Advice, Failure, Kind, describe

pytestmark = [pytest.mark.real, pytest.mark.steady]

SDKS = [name for name in ("anthropic", "auriko", "groq", "openai") if find_spec(name)]
NOT_OURS = Failure(Kind.UNKNOWN, Advice.STOP)
SHAPE = Fault("shape", how="shape")


@pytest.fixture(scope="module", params=SDKS)
def provider(request: pytest.FixtureRequest) -> Iterator[Provider]:
    """Each SDK of this environment that is built on pydantic."""
    with providing(import_module(f"providers.{request.param}")) as provider:
        yield provider


def misshapen(provider: Provider, **facts: Any) -> Failure:
    sdk = provider.module.PACKAGE
    return Failure(Kind.SERVER, Advice.RETRY, sdk=sdk, retry_limit=1, sent=True, **facts)


def creating(provider: Provider, fault: Fault, **options: Any) -> Callable[..., Any]:
    """The method that asks for an answer."""
    client = provider.client(fault, **options)
    chat = client.messages if provider.module.PACKAGE == "anthropic" else client.chat.completions
    create: Callable[..., Any] = chat.create
    return create


@pytest.mark.parametrize("way", ["fail", "fail_async"])
def test_a_chunk_that_is_no_json(provider: Provider, way: str) -> None:
    """A stream that turns into nonsense may be asked for once more."""
    fault = provider.broken_off("event: content_block_delta\ndata: {oops")

    error = provider.raised(fault, way)

    assert isinstance(error, json.JSONDecodeError)
    assert describe(error) == misshapen(provider)


def test_an_answer_of_another_shape(provider: Provider) -> None:
    """Clients that are told to check shapes say so themselves; auriko's always check."""
    own = provider.module.PACKAGE != "auriko"
    create = creating(provider, SHAPE, **({"_strict_response_validation": True} if own else {}))

    with pytest.raises(Exception, match=r"validation|invalid") as caught:
        create(**provider.module.ASK)

    assert isinstance(caught.value, pydantic.ValidationError) is not own
    told = {"status": 200, "request_id": "req_1"} if own else {}
    assert describe(caught.value) == misshapen(provider, **told)


def test_what_a_request_is_built_from(provider: Provider) -> None:
    """Messages that cannot be made are the caller's fault, though the SDK was asking for them."""

    def messages() -> Iterator[Any]:
        yield json.loads("{oops")

    create = creating(provider, SHAPE)
    with pytest.raises(json.JSONDecodeError) as caught:
        create(**{**provider.module.ASK, "messages": messages()})

    assert describe(caught.value) == NOT_OURS


class Mine(pydantic.BaseModel):
    number: int


@pytest.mark.parametrize("parse", [json.loads, Mine.model_validate_json], ids=["json", "pydantic"])
def test_what_the_program_parses(parse: Callable[[str], Any]) -> None:
    """Parsing by the program itself says nothing about any call."""
    with pytest.raises(ValueError, match=r"JSON|Expecting") as caught:
        parse("{oops")

    assert describe(caught.value) == NOT_OURS


def test_pydantics_other_errors() -> None:
    """What is not about an answer's shape is the program's own business."""
    with pytest.raises(pydantic_core.PydanticSerializationError) as caught:
        pydantic_core.to_json(object())

    assert describe(caught.value) == NOT_OURS


def test_what_the_program_parses_while_it_reads_a_stream(provider: Provider) -> None:
    """A program's own parsing between two chunks is its own business."""
    stream = creating(provider, Fault("mid", how="stream"))(**provider.module.ASK, stream=True)

    def read() -> None:
        for _ in stream:
            json.loads("{oops")

    with stream, pytest.raises(json.JSONDecodeError) as caught:
        read()

    assert describe(caught.value) == NOT_OURS


def test_an_error_that_nobody_raised() -> None:
    """A parser's error without a traceback came from nowhere that is known."""
    assert describe(json.JSONDecodeError("m", "", 0)) == NOT_OURS
