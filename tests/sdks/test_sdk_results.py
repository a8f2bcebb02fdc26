"""Results that are errors, as the real clients give them over a socket."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import aiohttp
import anthropic
import httpx
import openai
import pytest
import requests
import urllib3
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from resilience import BadResult, BadResultError, CircuitBreaker, ModelFallback, Pipeline, Retry
from resilience.failures import Advice, Failure, Kind, describe_result
from resilience.matching import empty_answer, error_body, finish_reason, no_choices
from resilience.policy import Policy
from resilience.testing import VirtualTime, virtual_time
from resilience.testing.gateway import Error, Gateway, Ok
from support.answers import ANSWER, Answer, Answers

pytestmark = pytest.mark.real

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
CLIENTS = ["httpx", "httpx-async", "requests", "aiohttp", "urllib3"]
every_client = pytest.mark.parametrize("name", CLIENTS)


@pytest.fixture
def clock() -> Iterator[VirtualTime]:
    with virtual_time() as clock:
        clock.random = lambda: 0.0
        yield clock


def posted(name: str, url: str, *policies: Policy) -> Any:
    """What a client returns for a POST, under policies or bare; its body has been read."""
    pipeline = Pipeline(*policies)
    body = {"model": "a", "messages": MESSAGES}
    if name == "requests":
        return pipeline.call(requests.post, url, json=body)
    if name == "urllib3":
        with urllib3.PoolManager() as pool:
            return pipeline.call(pool.request, "POST", url, json=body, retries=False)
    if name == "httpx":
        with httpx.Client() as client:
            return pipeline.call(client.post, url, json=body)

    async def main() -> Any:
        if name == "httpx-async":
            async with httpx.AsyncClient() as client:
                return await pipeline.call(client.post, url, json=body)
        async with aiohttp.ClientSession() as session:

            async def post() -> aiohttp.ClientResponse:
                response = await session.post(url, json=body)
                await response.read()
                return response

            return await pipeline.call(post)

    return asyncio.run(main())


def status_of(response: Any) -> int:
    return int(getattr(response, "status_code", None) or response.status)


# Responses that plain clients return


@pytest.mark.fault(273)
@every_client
@pytest.mark.parametrize(
    "check",
    [describe_result, lambda response: status_of(response) >= 400],
    ids=["describe_result", "one's own"],
)
def test_a_returned_429_is_waited_for(clock: VirtualTime, name: str, check: Any) -> None:
    """As its Retry-After says; then the good answer is returned."""
    with Gateway([Error("rate_limit_exceeded", retry_after=7), Ok()]) as gateway:
        url = f"{gateway.base_url}/chat/completions"
        response = posted(name, url, Retry(), CircuitBreaker(failures=1), BadResult(check))
        assert gateway.hits == {"a": 2}

    assert status_of(response) == 200
    assert clock.sleeps == [7]


@every_client
@pytest.mark.parametrize(
    ("code", "kind", "advice", "status"),
    [
        ("rate_limit_exceeded", Kind.RATE_LIMIT, Advice.WAIT, 429),
        ("invalid_api_key", Kind.AUTH, Advice.STOP, 401),
        ("upstream_error", Kind.SERVER, Advice.RETRY, 502),
        ("context_length_exceeded", Kind.CONTEXT_LENGTH, Advice.FALLBACK, 400),
    ],
)
def test_what_a_response_means(
    name: str, code: str, kind: Kind, advice: Advice, status: int
) -> None:
    """By status, headers and body, as if the client had raised it."""
    with Gateway(Error(code)) as gateway:
        response = posted(name, f"{gateway.base_url}/chat/completions")
        failure = describe_result(response)
        request_id = gateway.requests[0].request_id

    assert failure is not None
    assert (failure.kind, failure.advice, failure.status) == (kind, advice, status)
    assert failure.request_id == request_id
    assert failure.sdk == name.removesuffix("-async")
    assert failure.error is None
    if name != "urllib3":
        assert failure.code == code


def test_a_response_of_the_standard_library() -> None:
    """It means the same; the standard library is no SDK."""
    with Gateway(Error("upstream_error")) as gateway:
        host = gateway.base_url.partition("//")[2].partition("/")[0]
        connection = http.client.HTTPConnection(host)
        connection.request("POST", "/v1/chat/completions", json.dumps({"model": "a"}))
        response = connection.getresponse()
        failure = describe_result(response)
        connection.close()

    assert error_body(response)
    assert failure is not None
    assert (failure.kind, failure.status, failure.sdk) == (Kind.SERVER, 502, None)


def test_a_result_that_cannot_be_looked_at_is_no_error() -> None:
    """Whatever its properties raise, and whatever its class says of itself."""

    class Odd:
        @property
        def error(self) -> Any:
            raise RuntimeError

        choices = error

    class Nowhere:
        __module__ = None  # type: ignore[assignment]

    assert describe_result(Odd()) is None
    assert describe_result(Nowhere()) is None


@every_client
def test_good_responses_are_none(name: str) -> None:
    """A 200 of the API's."""
    with Gateway() as gateway:
        assert describe_result(posted(name, f"{gateway.base_url}/chat/completions")) is None


# What comes in a 200


OPENROUTER = Answer({"error": {"code": 502, "message": "Provider returned error"}, "user_id": "u"})
LIMITED = Answer({"error": {"code": 429, "message": "x", "metadata": {"retry_after_seconds": 3}}})
PAGE = Answer("<html>Bad Gateway</html>", headers={"content-type": "text/html"})
EMPTY = Answer({"choices": [{"finish_reason": "stop", "message": {"content": ""}}]})


def asked(asynchronous: bool, plan: dict[str, list[Answer]], *policies: Policy) -> Any:
    """An outcome of the OpenAI client, and the models that were asked."""
    pipeline = Pipeline(*policies)
    with Answers(**plan) as server:
        options: Any = {"base_url": server.base_url, "api_key": "any", "max_retries": 0}
        if asynchronous:

            async def main() -> Any:
                async with openai.AsyncOpenAI(**options) as client:
                    create: Any = client.chat.completions.create
                    return await pipeline.outcome(create, model="a", messages=MESSAGES)

            outcome = asyncio.run(main())
        else:
            with openai.OpenAI(**options) as client:
                create: Any = client.chat.completions.create
                outcome = pipeline.outcome(create, model="a", messages=MESSAGES)
        return outcome, server.models


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@pytest.mark.fault(274)
@both
@pytest.mark.parametrize("check", [error_body, no_choices, describe_result])
def test_an_error_in_a_200_goes_to_the_next_model(
    clock: VirtualTime, asynchronous: bool, check: Any
) -> None:
    """OpenRouter's; the attempt has failed with what the body says."""
    plan = {"a": [OPENROUTER], "b": [ANSWER]}
    outcome, models = asked(asynchronous, plan, ModelFallback("a", "b"), BadResult(check))

    assert models == ["a", "b"]
    assert (outcome.served_by, outcome.error) == ("b", None)
    failure = outcome.attempts[0].failure
    assert (failure.kind, failure.status, failure.code) == (Kind.SERVER, 502, "502")
    assert type(failure.error) is BadResultError


@both
def test_the_wait_of_an_error_in_a_200(clock: VirtualTime, asynchronous: bool) -> None:
    """Its body's own number."""
    outcome, models = asked(asynchronous, {"a": [LIMITED, ANSWER]}, Retry(), BadResult(error_body))

    assert outcome.error is None
    assert models == ["a", "a"]
    assert clock.sleeps == [3]
    assert outcome.attempts[0].failure.kind is Kind.RATE_LIMIT


@both
def test_a_page_in_a_200_is_retried_once(clock: VirtualTime, asynchronous: bool) -> None:
    """No choices: the server's fault, and counted as such."""
    breaker = CircuitBreaker(failures=2)
    plan = {"a": [PAGE]}
    outcome, models = asked(asynchronous, plan, Retry(wait=1), breaker, BadResult(no_choices))

    assert models == ["a", "a"]
    assert outcome.attempts[0].failure == Failure(
        Kind.SERVER, Advice.RETRY, retry_limit=1, sent=True
    )
    assert breaker.state == "open"


@both
def test_an_empty_answer_is_retried_once_and_then_left(
    clock: VirtualTime, asynchronous: bool
) -> None:
    """The next model takes over; no circuit opens for it."""
    breaker = CircuitBreaker(failures=1)
    plan = {"a": [EMPTY], "b": [ANSWER]}
    policies = ModelFallback("a", "b"), Retry(wait=1), breaker, BadResult(empty_answer)
    outcome, models = asked(asynchronous, plan, *policies)

    assert models == ["a", "a", "b"]
    assert outcome.served_by == "b"
    assert breaker.state == "closed"


# One by one


@pytest.mark.parametrize(
    ("result", "kind", "advice", "code"),
    [
        ({"error": {"code": "rate_limit_exceeded"}}, Kind.RATE_LIMIT, Advice.WAIT, None),
        ({"error": "no"}, Kind.UNKNOWN, Advice.RETRY, None),
        ({"error": {"message": "no"}}, Kind.UNKNOWN, Advice.RETRY, None),
        ({"error": {"code": "never_heard"}}, Kind.UNKNOWN, Advice.RETRY, "never_heard"),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "x"}},
            *(Kind.OVERLOADED, Advice.WAIT, None),
        ),
        ({"choices": []}, Kind.SERVER, Advice.RETRY, None),
        ({"candidates": None}, Kind.SERVER, Advice.RETRY, None),
        (ChatCompletion.construct(choices=None), Kind.SERVER, Advice.RETRY, None),
        (anthropic.types.Message.construct(content=[]), Kind.SERVER, Advice.RETRY, None),
        (
            Response.construct(error={"code": "rate_limit_exceeded", "message": "x"}),
            *(Kind.RATE_LIMIT, Advice.WAIT, "rate_limit_exceeded"),
        ),
        (
            SimpleNamespace(error=SimpleNamespace(code="invalid_api_key")),
            *(Kind.AUTH, Advice.STOP, "invalid_api_key"),
        ),
        (
            httpx.Response(200, json={"error": {"code": "upstream_error"}}),
            *(Kind.SERVER, Advice.RETRY, "upstream_error"),
        ),
        (httpx.Response(503), Kind.UNAVAILABLE, Advice.WAIT, None),
    ],
    ids=str,
)
def test_what_results_mean(result: Any, kind: Kind, advice: Advice, code: str | None) -> None:
    """Error bodies in dicts, in models and in responses; answers without choices."""
    failure = describe_result(result)

    assert failure is not None
    assert (failure.kind, failure.advice) == (kind, advice)
    assert failure.code == code or code is None
    assert failure.error is None


class Hostile:
    """Refuses to be looked at."""

    @property
    def error(self) -> Any:
        raise RuntimeError

    choices = status_code = error


@pytest.mark.parametrize(
    "result",
    [
        *(None, "", "text", b"x", 7, [], {}, {"text": "a result"}, object(), Hostile()),
        *(MagicMock(), MagicMock(status_code=200), SimpleNamespace(content=None)),
        httpx.Response(200, json={"choices": [{"message": {"content": '{"error": 1}'}}]}),
        httpx.Response(399),
        {"error": None, "choices": [{}]},
        "an error page" * 1000,
    ],
    ids=lambda result: type(result).__name__,
)
def test_what_is_no_error(result: Any) -> None:
    """Every other result; a mock, too, which has any attribute."""
    assert describe_result(result) is None
    assert not error_body(result)


@pytest.mark.parametrize(
    ("reason", "kind", "advice"),
    [
        ("length", Kind.UNKNOWN, Advice.FALLBACK),
        ("max_tokens", Kind.UNKNOWN, Advice.FALLBACK),
        ("content_filter", Kind.CONTENT_FILTER, Advice.STOP),
        ("SAFETY", Kind.CONTENT_FILTER, Advice.STOP),
        ("model_context_window_exceeded", Kind.CONTEXT_LENGTH, Advice.FALLBACK),
        ("error", Kind.SERVER, Advice.RETRY),
        ("their own word", Kind.UNKNOWN, Advice.RETRY),
    ],
)
def test_what_finish_reasons_mean(reason: str, kind: Kind, advice: Advice) -> None:
    """Too long is for another model, a filter for nobody; the rest is retried."""
    answer = {"choices": [{"finish_reason": reason, "message": {"content": "Hi"}}]}
    check = BadResult(finish_reason("something", reason))
    outcome: Any = Pipeline(check).outcome(lambda: answer)
    failure = outcome.attempts[0].failure

    assert (failure.kind, failure.advice) == (kind, advice)
