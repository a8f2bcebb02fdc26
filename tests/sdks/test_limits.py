"""What servers' headers say about rate limits, on errors, raw responses and streams."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anthropic
import botocore.exceptions
import httpx
import openai
import pytest

from resilience.failures import limits_of
from resilience.sdks.limits import ServerLimit
from resilience.testing.gateway import Error, Gateway

OPENAI = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-tokens": "29000",
    "x-ratelimit-reset-tokens": "2s",
}
ANTHROPIC = {
    "date": "Thu, 01 Jan 2026 00:00:00 GMT",
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:02Z",
    "anthropic-ratelimit-tokens-limit": "1000",
    "anthropic-ratelimit-tokens-remaining": "0",
    "anthropic-ratelimit-tokens-reset": "2026-01-01T00:01:00Z",
}


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        (
            OPENAI,
            (
                ServerLimit(False, True, 500, 499, 0.12),
                ServerLimit(True, True, 30000, 29000, 2),
            ),
        ),
        (ANTHROPIC, (ServerLimit(False, True, 50, 49, 2), ServerLimit(True, True, 1000, 0, 60))),
        (
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"},
            (ServerLimit(False, False, None, 0, 30),),
        ),
        ({"x-ratelimit-remaining": "0"}, ()),
        ({"x-ratelimit-remaining": "x", "x-ratelimit-reset": "30"}, ()),
        ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "soon"}, ()),
        ({}, ()),
    ],
)
def test_headers_are_read(headers: dict[str, str], limits: Any) -> None:
    """Of httpx's responses, of errors that hold one, and of plain objects."""
    response: Any = httpx.Response(429, headers=headers, request=httpx.Request("POST", "http://x"))
    assert limits_of(response) == limits
    assert limits_of(openai.RateLimitError("no", response=response, body=None)) == limits
    assert limits_of(SimpleNamespace(headers=headers)) == limits


@pytest.mark.parametrize(
    "thing", [None, "text", 5, {}, {"a": 1}, [], ValueError(), SimpleNamespace(headers=5), object]
)
def test_what_shows_no_headers_says_nothing(thing: Any) -> None:
    """And nothing raises."""
    assert limits_of(thing) == ()

    class Nasty(Exception):
        @property
        def response(self) -> Any:
            raise RuntimeError

    assert limits_of(Nasty()) == ()

    class NastyHeaders:
        def items(self) -> Any:
            raise RuntimeError

    assert limits_of(SimpleNamespace(headers=NastyHeaders())) == ()


def test_the_headers_of_botocore_are_in_its_response() -> None:
    """A dict that the error holds."""
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}
    for metadata, found in (
        ({"HTTPHeaders": headers}, (ServerLimit(False, False, None, 0, 30),)),
        ({}, ()),
    ):
        error = botocore.exceptions.ClientError({"ResponseMetadata": metadata}, "Converse")
        assert limits_of(error) == found


@pytest.mark.real
def test_the_real_clients_over_the_wire() -> None:
    """OpenAI's and Anthropic's errors; a raw response and a stream of OpenAI's; no parsed one."""
    refusal = Error("rate_limit_exceeded", headers=OPENAI)
    message: Any = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    with Gateway({"m": [refusal, "rate_limit_exceeded", *(["upstream_error"])]}) as gateway:
        client = openai.OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0)
        with client, pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**message)
        assert limits_of(caught.value)[0] == ServerLimit(False, True, 500, 499, 0.12)
        url = gateway.base_url.removesuffix("/v1")
        other = anthropic.Anthropic(base_url=url, api_key="any", max_retries=0)
        gateway.change(Error("rate_limit_exceeded", headers=ANTHROPIC))
        with other, pytest.raises(anthropic.RateLimitError) as limited:
            other.messages.create(max_tokens=5, **message)
        assert [each.tokens for each in limits_of(limited.value)][-2:] == [False, True]
    with Gateway() as gateway:
        client = openai.OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0)
        with client:
            parsed = client.chat.completions.create(**message)
            raw: Any = client.chat.completions.with_raw_response.create(**message)
            stream = client.chat.completions.create(stream=True, **message)
            names = {name for name in raw.headers if name.startswith("x-ratelimit")}
            assert limits_of(parsed) == ()
            assert bool(limits_of(raw)) == bool(limits_of(stream)) == bool(names)
            stream.close()
