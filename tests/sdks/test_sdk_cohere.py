"""Cohere's errors, made by its own SDK, and what they are taken for."""

from __future__ import annotations

from typing import Any

import cohere
import httpx
import pytest
from cohere.core.api_error import ApiError
from cohere.core.parse_error import ParsingError

from resilience.failures import Advice, Failure, Kind, describe


def ask(status: int, *, stream: bool = False, **content: Any) -> None:
    """Call with the real client, which is answered so."""
    transport = httpx.MockTransport(lambda request: httpx.Response(status, **content))
    with httpx.Client(transport=transport) as http:
        client = cohere.ClientV2(api_key="none", max_retries=0, httpx_client=http)
        asked: Any = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
        if stream:
            list(client.chat_stream(**asked))
        else:
            client.chat(**asked)


def raised(status: int, **options: Any) -> ApiError:
    """What the client raises over that."""
    with pytest.raises(ApiError) as caught:
        ask(status, **options)
    return caught.value


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (402, Kind.QUOTA, Advice.STOP),
        (404, Kind.NOT_FOUND, Advice.FALLBACK),
        (409, Kind.CONFLICT, Advice.RETRY),
        (498, Kind.AUTH, Advice.STOP),
        (499, Kind.CANCELLED, Advice.STOP),
        (503, Kind.UNAVAILABLE, Advice.WAIT),
    ],
)
def test_the_status_decides(status: int, kind: Kind, advice: Advice, stream: bool) -> None:
    """There is nothing else to go by; a status on a stream is raised at its first item."""
    failure = describe(raised(status, stream=stream, json={"message": "m"}))

    assert (failure.kind, failure.advice, failure.status) == (kind, advice, status)
    assert (failure.code, failure.type, failure.sdk) == (None, None, "cohere")


def test_who_asked() -> None:
    """The request's id is in a header, else in the body."""
    body = {"id": "b1", "message": "m"}

    assert describe(raised(500, json=body, headers={"x-request-id": "h1"})).request_id == "h1"
    assert describe(raised(500, json=body)).request_id == "b1"
    assert describe(raised(500, content=b"<html>")).request_id is None


MISSHAPEN = Failure(Kind.SERVER, Advice.RETRY, status=200, retry_limit=1, sdk="cohere", sent=True)


def test_an_answer_that_is_none() -> None:
    """A page with status 200, or data that fits no schema, is asked for once more."""
    assert describe(raised(200, content=b"<html>")) == MISSHAPEN
    assert describe(ParsingError(status_code=200, headers={}, body={})) == MISSHAPEN


def test_headers_that_are_none() -> None:
    """An error made by hand has neither headers nor a body."""
    assert describe(ApiError(status_code=429)) == Failure(
        Kind.RATE_LIMIT, Advice.WAIT, status=429, sdk="cohere", sent=False
    )
    assert describe(ApiError(body="no key")) == Failure(Kind.UNKNOWN, Advice.STOP)
