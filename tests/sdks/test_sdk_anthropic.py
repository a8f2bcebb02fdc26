"""Anthropic's SDK: more classes than others have, codes beside types, errors with status 200."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic as sdk
import httpx2
import pydantic
import pytest

from providers import anthropic as module
from providers.raising import Provider, answer, providing
from resilience.failures import Advice, Failure, Kind, describe
from resilience.sdks.codes import load

pytestmark = [pytest.mark.real, pytest.mark.steady]

CODES = load("anthropic")

both_colours = pytest.mark.parametrize("way", ["fail", "fail_async"])


@pytest.fixture(scope="module")
def anthropic() -> Iterator[Provider]:
    with providing(module) as provider:
        yield provider


def error(type: str | None = None, code: str | None = None) -> dict[str, Any]:
    told: dict[str, Any] = {"type": type, "message": "m"}
    if code is not None:
        told["details"] = {"error_code": code}
    return {"type": "error", "error": told, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("status", "type", "name", "kind", "advice"),
    [
        (402, "billing_error", "PaymentRequiredError", Kind.QUOTA, Advice.STOP),
        (402, None, "PaymentRequiredError", Kind.QUOTA, Advice.STOP),
        (408, "timeout_error", "RequestTimeoutError", Kind.TIMEOUT, Advice.RETRY),
        (409, "conflict_error", "ConflictError", Kind.CONFLICT, Advice.RETRY),
        (409, "invalid_request_error", "ConflictError", Kind.CONFLICT, Advice.RETRY),
        (412, "invalid_request_error", "PreconditionFailedError", Kind.INVALID, Advice.STOP),
        (413, "request_too_large", "ContentTooLargeError", Kind.INVALID, Advice.STOP),
        (413, "invalid_request_error", "ContentTooLargeError", Kind.INVALID, Advice.STOP),
        (499, None, "ClientClosedRequestError", Kind.CANCELLED, Advice.STOP),
        (501, None, "HTTPNotImplementedError", Kind.UNSUPPORTED, Advice.FALLBACK),
        (503, "overloaded_error", "ServiceUnavailableError", Kind.OVERLOADED, Advice.WAIT),
        (504, "api_error", "GatewayTimeoutError", Kind.TIMEOUT, Advice.RETRY),
        (500, "overloaded_error", "InternalServerError", Kind.OVERLOADED, Advice.WAIT),
        (529, None, "OverloadedError", Kind.OVERLOADED, Advice.WAIT),
        (404, "not_found_error", "NotFoundError", Kind.NOT_FOUND, Advice.FALLBACK),
    ],
)
def test_classes(
    anthropic: Provider, status: int, type: str | None, name: str, kind: Kind, advice: Advice
) -> None:
    """Each class that the SDK has for a status, with the types that come with it."""
    raised = anthropic.raised(answer(status, error(type)))

    failure = describe(raised)
    assert raised.__class__.__name__ == name
    assert (failure.kind, failure.advice) == (kind, advice)
    assert (failure.status, failure.type, failure.sdk) == (status, type, "anthropic")
    assert failure.request_id == "req_1"


@pytest.mark.parametrize("code", CODES)
def test_codes(anthropic: Provider, code: str) -> None:
    """A code beside the type knows better than the type and the status."""
    failure = describe(anthropic.raised(answer(418, error("brand_new", code))))

    assert (failure.kind, failure.advice) == (CODES[code].kind, CODES[code].advice)
    assert (failure.code, failure.type) == (code, "brand_new")


@pytest.mark.parametrize(
    ("type", "kind", "advice"),
    [
        ("overloaded_error", Kind.OVERLOADED, Advice.WAIT),
        ("api_error", Kind.SERVER, Advice.RETRY),
        ("rate_limit_error", Kind.RATE_LIMIT, Advice.WAIT),
        ("timeout_error", Kind.TIMEOUT, Advice.RETRY),
        ("invalid_request_error", Kind.INVALID, Advice.STOP),
    ],
)
def test_an_error_in_a_stream(anthropic: Provider, type: str, kind: Kind, advice: Advice) -> None:
    """It comes with status 200, which means nothing; the type decides."""
    told = f'{{"type": "error", "error": {{"type": "{type}", "message": "m"}}}}'
    raised = anthropic.raised(anthropic.broken_off(f"event: error\ndata: {told}"))

    assert raised.status_code == 200
    assert describe(raised) == Failure(
        kind, advice, status=200, type=type, request_id="req_1", sdk="anthropic", sent=True
    )


def test_an_error_in_a_stream_that_is_no_json(anthropic: Provider) -> None:
    """An error event of which nothing can be read stays unknown."""
    failure = describe(anthropic.raised(anthropic.broken_off("event: error\ndata: oops")))

    assert (failure.kind, failure.advice, failure.sent) == (Kind.UNKNOWN, Advice.STOP, True)


@both_colours
def test_a_stream_that_is_cut(anthropic: Provider, way: str) -> None:
    """The transport's error comes out as it is."""
    failure = describe(anthropic.raised(anthropic.cut(), way))

    assert failure == Failure(Kind.CONNECTION, Advice.RETRY, sdk="httpx2")


def test_the_reset_of_its_limits(anthropic: Provider) -> None:
    """Its own headers tell when a limit is full again."""
    reset = {"anthropic_ratelimit_requests_reset": "1994-11-06T08:50:07Z"}
    failure = describe(anthropic.raised(answer(429, error("rate_limit_error"), **reset)))

    assert (failure.retry_after, failure.reset_after) == (None, 30.0)


def test_what_the_sdk_raises_by_itself() -> None:
    """Credentials that are not there stop the call; middleware may ask for another try."""
    stopped = Failure(Kind.AUTH, Advice.STOP, sdk="anthropic", sent=False)
    for refused in (sdk.CredentialsError("m"), sdk.IdentityTokenFileError("m")):
        assert describe(refused) == stopped
    again = Failure(Kind.UNKNOWN, Advice.RETRY, sdk="anthropic")
    assert describe(sdk.RetryableError("m")) == again
    assert describe(sdk.AnthropicError("m")) == Failure(Kind.UNKNOWN, Advice.STOP, sdk="anthropic")


def test_a_connection_error_tells_its_cause() -> None:
    """A refused connection under it was never sent."""
    request = httpx2.Request("POST", "http://service.test")
    lost = sdk.APIConnectionError(request=request)
    lost.__cause__ = httpx2.ConnectError("m")
    failure = describe(lost)

    assert (failure.kind, failure.advice, failure.sent) == (Kind.CONNECTION, Advice.RETRY, False)


class Mine(pydantic.BaseModel):
    number: int


def test_an_answer_that_is_not_what_was_asked_for(anthropic: Provider) -> None:
    """`parse` checks the text against the program's own model; another try may fit."""
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": '{"number": '}],
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    client = anthropic.client(answer(200, message))
    with client, pytest.raises(pydantic.ValidationError) as caught:
        client.messages.parse(**module.ASK, output_format=Mine)

    assert describe(caught.value) == Failure(
        Kind.SERVER, Advice.RETRY, sdk="anthropic", retry_limit=1, sent=True
    )
