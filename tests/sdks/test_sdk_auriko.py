"""Auriko's SDK where its errors are not its own."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pydantic
import pytest
from auriko.route_types import RoutingOptions

from providers import auriko as module
from providers.faults import Fault
from providers.raising import Provider, answer, providing
from resilience.failures import Advice, Failure, Kind, describe

pytestmark = [pytest.mark.real, pytest.mark.steady]

MISSHAPEN = Failure(Kind.SERVER, Advice.RETRY, sdk="auriko", retry_limit=1, sent=True)
both_colours = pytest.mark.parametrize("way", ["fail", "fail_async"])


@pytest.fixture(scope="module")
def auriko() -> Iterator[Provider]:
    with providing(module) as provider:
        yield provider


@both_colours
def test_an_error_in_the_place_of_an_answer(auriko: Provider, way: str) -> None:
    """A 200 with an error body comes out as pydantic's error, known by where it was raised."""
    error = auriko.raised(answer(200, module.error("upstream", 502)), way)

    assert isinstance(error, pydantic.ValidationError)
    assert describe(error) == MISSHAPEN


@both_colours
@pytest.mark.parametrize(
    ("status", "category", "word", "kind", "advice"),
    [
        (500, "api_error", "true", Kind.SERVER, Advice.RETRY),
        (500, "api_error", "false", Kind.SERVER, Advice.FALLBACK),
        (400, "invalid_request_error", "false", Kind.INVALID, Advice.STOP),
        (400, "invalid_request_error", "true", Kind.INVALID, Advice.RETRY),
    ],
)
def test_the_word_on_a_class_of_errors(
    auriko: Provider, way: str, status: int, category: str, word: str, kind: Kind, advice: Advice
) -> None:
    """Of a code that is new, `X-Error-Retryable` knows more than the type and the status."""
    body = {"error": {"code": "brand_new", "type": category, "message": "m"}}
    failure = describe(auriko.raised(answer(status, body, x_error_retryable=word), way))

    assert (failure.kind, failure.advice, failure.code) == (kind, advice, "brand_new")


@both_colours
def test_a_chunk_of_another_shape(auriko: Provider, way: str) -> None:
    """A stream that turns into something else may be asked for once more."""
    error = auriko.raised(auriko.broken_off('data: {"id": 3}'), way)

    assert isinstance(error, pydantic.ValidationError)
    assert describe(error) == MISSHAPEN


@both_colours
def test_an_answer_that_is_no_json(auriko: Provider, way: str) -> None:
    """The SDK has a code of its own for this one."""
    failure = describe(auriko.raised(Fault("page", 200, body=b"<html>"), way))

    assert (failure.kind, failure.advice, failure.retry_limit) == (Kind.SERVER, Advice.RETRY, 1)
    assert (failure.code, failure.status, failure.sent) == ("invalid_response", 200, True)


@both_colours
def test_a_stream_that_is_cut(auriko: Provider, way: str) -> None:
    """The transport's error comes out as it is."""
    failure = describe(auriko.raised(auriko.cut(), way))

    assert failure == Failure(Kind.CONNECTION, Advice.RETRY, sdk="httpx")


def test_options_that_are_wrong() -> None:
    """A gateway's options are checked by pydantic too, and that is the caller's own mistake."""
    with pytest.raises(pydantic.ValidationError) as caught:
        RoutingOptions(optimise="cost")  # type: ignore[call-arg]

    assert describe(caught.value) == Failure(Kind.UNKNOWN, Advice.STOP)


def test_a_hook_that_fails(auriko: Provider) -> None:
    """What a program's own hook raises is no misshapen answer, though the SDK was reading one."""

    def hook(response: httpx.Response) -> None:
        json.loads("{oops")

    client = auriko.client(answer(200, {}))
    client._httpx.event_hooks = {"response": [hook]}
    with client, pytest.raises(json.JSONDecodeError) as caught:
        client.chat.completions.create(**module.ASK)

    assert describe(caught.value) == Failure(Kind.UNKNOWN, Advice.STOP)
