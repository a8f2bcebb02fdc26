"""Gemini, asked by somebody else's client: Google's errors are the same there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
import requests

from providers.raw import answering
from resilience.failures import Advice, Kind, describe

pytestmark = [pytest.mark.real, pytest.mark.steady]

TYPE = "type.googleapis.com/google.rpc."
HI: Any = [{"role": "user", "content": "Hi"}]


def by_openai(url: str) -> object:
    with openai.OpenAI(api_key="none", base_url=url, max_retries=0) as client:
        return client.chat.completions.create(model="m", messages=HI)


def by_anthropic(url: str) -> object:
    vertex = anthropic.AnthropicVertex(
        region="r", project_id="p", access_token="none", base_url=url, max_retries=0
    )
    with vertex as client:
        return client.messages.create(model="m", max_tokens=1, messages=HI)


def by_httpx(url: str) -> object:
    return httpx.get(url).raise_for_status()


def by_httpx2(url: str) -> object:
    return httpx2.get(url).raise_for_status()


def by_requests(url: str) -> object:
    requests.get(url).raise_for_status()
    return None


clients = pytest.mark.parametrize(
    "ask", [by_openai, by_anthropic, by_httpx, by_httpx2, by_requests], ids=lambda ask: ask.__name__
)


def raised(ask: Callable[[str], object], status: int, body: object) -> Exception:
    written = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Told\r\ncontent-length: {len(written)}\r\n"
    wire = f"{head}content-type: application/json\r\n\r\n".encode() + written
    with answering(wire) as url, pytest.raises(Exception, match=r".") as caught:
        ask(url)
    return caught.value


def error(code: int, status: str, **details: dict[str, Any]) -> dict[str, Any]:
    told = [{"@type": TYPE + name, **said} for name, said in details.items()]
    return {"error": {"code": code, "message": "m", "status": status, "details": told}}


@clients
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(
    ("per", "kind", "advice"),
    [("Minute", Kind.RATE_LIMIT, Advice.WAIT), ("Day", Kind.QUOTA, Advice.STOP)],
)
def test_the_quota_that_ran_out(
    ask: Callable[[str], object], listed: bool, per: str, kind: Kind, advice: Advice
) -> None:
    """One of a minute is waited for as long as Google says, one of a day is not waited for."""
    quota = {"violations": [{"quotaId": f"RequestsPer{per}PerProject", "quotaValue": "200"}]}
    body = error(429, "RESOURCE_EXHAUSTED", QuotaFailure=quota, RetryInfo={"retryDelay": "36s"})
    failure = describe(raised(ask, 429, [body] if listed else body))

    assert (failure.kind, failure.advice, failure.retry_after) == (kind, advice, 36.0)
    assert (failure.status, failure.code) == (429, "RESOURCE_EXHAUSTED")
    assert failure.sdk != "google"


@clients
@pytest.mark.parametrize(
    ("status", "name", "reason", "kind", "advice"),
    [
        (400, "INVALID_ARGUMENT", "API_KEY_INVALID", Kind.AUTH, Advice.STOP),
        (404, "NOT_FOUND", "NEVER_HEARD_OF", Kind.NOT_FOUND, Advice.FALLBACK),
    ],
)
def test_what_google_means(
    ask: Callable[[str], object], status: int, name: str, reason: str, kind: Kind, advice: Advice
) -> None:
    """Its reason decides, then its own status; a model that is missing is missing here only."""
    failure = describe(raised(ask, status, [error(status, name, ErrorInfo={"reason": reason})]))

    assert (failure.kind, failure.advice, failure.type) == (kind, advice, name)


@clients
@pytest.mark.parametrize("status", [None, 429, "SOMETHING_NEW", ["RESOURCE_EXHAUSTED"]])
def test_what_only_looks_like_googles(ask: Callable[[str], object], status: Any) -> None:
    """A body with details is somebody else's without a status that Google has."""
    body = error(429, status, RetryInfo={"retryDelay": "36s"})
    failure = describe(raised(ask, 429, body))

    assert (failure.kind, failure.retry_after, failure.type) == (Kind.RATE_LIMIT, None, None)


@clients
@pytest.mark.parametrize("body", [[], [[]], ["x"], ["x", error(429, "RESOURCE_EXHAUSTED")]])
def test_lists_of_anything_else(ask: Callable[[str], object], body: object) -> None:
    """Only the first of a list may be the error."""
    failure = describe(raised(ask, 429, body))

    assert (failure.kind, failure.type) == (Kind.RATE_LIMIT, None)


def test_in_a_stream() -> None:
    """An event of an error in Google's format has no status but the one in it."""
    event = error(503, "UNAVAILABLE", RetryInfo={"retryDelay": "7s"})
    body = f"data: {json.dumps(event)}\n\n".encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\ncontent-type: text/event-stream"

    with (
        answering(f"{head}\r\n\r\n".encode() + body) as url,
        openai.OpenAI(api_key="none", base_url=url, max_retries=0) as client,
        pytest.raises(openai.APIError) as caught,
    ):
        list(client.chat.completions.create(model="m", messages=HI, stream=True))
    failure = describe(caught.value)

    assert (failure.kind, failure.advice, failure.status) == (Kind.UNAVAILABLE, Advice.WAIT, 503)
    assert (failure.retry_after, failure.sent) == (7.0, True)
