"""LiteLLM's errors, made by itself, and what they are taken for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import litellm
import pytest
from litellm import exceptions

from providers import litellm as served
from providers.faults import FAULTS, Fault
from providers.raw import answering
from providers.server import Server
from resilience.failures import Advice, Kind, describe

WHO: dict[str, Any] = {"model": "m", "llm_provider": "acme"}


def raised(name: str) -> Exception:
    """What LiteLLM raises over one of the faults."""
    [fault] = [each for each in FAULTS if each.name == name]
    with Server(served) as server, pytest.raises(litellm.exceptions.openai.OpenAIError) as caught:
        served.fail(server.url(fault), streaming=fault.how == "stream")
    return caught.value


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            exceptions.ContextWindowExceededError("m", **WHO),
            (Kind.CONTEXT_LENGTH, Advice.FALLBACK, 400, "context_length_exceeded", False),
        ),
        (
            exceptions.ContentPolicyViolationError("m", **WHO),
            (Kind.CONTENT_FILTER, Advice.STOP, 400, "content_policy_violation", None),
        ),
        (
            exceptions.UnsupportedParamsError("m", **WHO),
            (Kind.UNSUPPORTED, Advice.FALLBACK, None, None, False),
        ),
        (
            exceptions.BudgetExceededError(2.0, 1.0, llm_provider="acme"),
            (Kind.QUOTA, Advice.STOP, None, None, False),
        ),
        (
            exceptions.RateLimitError("m", **WHO, rate_limit_type="budget"),
            (Kind.QUOTA, Advice.STOP, None, None, False),
        ),
        (
            exceptions.RateLimitError("m", **WHO, rate_limit_type="requests"),
            (Kind.RATE_LIMIT, Advice.WAIT, 429, None, False),
        ),
        (
            exceptions.JSONSchemaValidationError("m", "acme", "{}", "{}"),
            (Kind.SERVER, Advice.RETRY, None, None, True),
        ),
        (exceptions.NotFoundError("m", **WHO), (Kind.NOT_FOUND, Advice.FALLBACK, 404, None, None)),
        (exceptions.Timeout("m", **WHO), (Kind.TIMEOUT, Advice.RETRY, None, None, None)),
        (
            exceptions.APIConnectionError("m", **WHO),
            (Kind.CONNECTION, Advice.RETRY, None, None, None),
        ),
        (
            exceptions.InternalServerError("m", **WHO),
            (Kind.SERVER, Advice.RETRY, 500, None, None),
        ),
        (
            exceptions.APIError("rate_limit_exceeded", "m", **WHO),  # type: ignore[arg-type]
            (Kind.RATE_LIMIT, Advice.WAIT, None, "rate_limit_exceeded", True),
        ),
        (
            exceptions.MidStreamFallbackError("m", **WHO, generated_content="Hel"),
            (Kind.UNAVAILABLE, Advice.WAIT, 503, None, True),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_without_a_cause(error: Exception, expected: tuple[Any, ...]) -> None:
    """What can be told of each by itself: by its class where the status is made up."""
    failure = describe(error)

    told = (failure.kind, failure.advice, failure.status, failure.code, failure.sent)
    assert told == expected
    assert (failure.provider, failure.sdk) == ("acme", "litellm")


def test_a_guardrail() -> None:
    """What a guardrail stops is stopped."""
    for error in (
        exceptions.GuardrailRaisedException("g", "m"),
        exceptions.BlockedPiiEntityError("EMAIL", "g"),
    ):
        failure = describe(error)
        assert (failure.kind, failure.advice) == (Kind.CONTENT_FILTER, Advice.STOP)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "kind", "retry_after", "code"),
    [
        ("429 date", Kind.RATE_LIMIT, 10.0, "rate_limit_exceeded"),
        ("429 quota", Kind.QUOTA, None, "insufficient_quota"),
        ("503", Kind.UNAVAILABLE, 7.0, None),
    ],
)
def test_without_what_it_caught(
    name: str, kind: Kind, retry_after: float | None, code: str | None
) -> None:
    """Where the SDK's own error is gone, the real headers and the body are still there."""
    error = raised(name)
    error.__context__ = None
    failure = describe(error)

    assert (failure.kind, failure.retry_after, failure.code) == (kind, retry_after, code)
    assert (failure.request_id, failure.provider) == ("req_1", "openai")


@pytest.mark.real
def test_an_error_that_the_caller_was_handling() -> None:
    """What the caller was handling when he called is not what went wrong in the call."""
    [shape] = [each for each in FAULTS if each.name == "wrong shape"]
    with Server(served) as server:
        try:
            raise httpx.ConnectError("mine")
        except httpx.ConnectError:
            with pytest.raises(exceptions.InternalServerError) as caught:
                served.fail(server.url(shape), streaming=False)
    failure = describe(caught.value)

    assert (failure.kind, failure.sent, failure.retry_limit) == (Kind.SERVER, True, 1)


@pytest.mark.real
def test_an_answer_that_holds_an_error() -> None:
    """A 200 with an error in it: the code is put where the status should be."""
    body = b'{"error": {"code": "rate_limit_exceeded", "message": "m", "type": "requests"}}'
    fault = Fault("200 error", 200, body=body)
    FAULTS.append(fault)
    try:
        with Server(served) as server, pytest.raises(exceptions.APIError) as caught:
            served.fail(server.url(fault), streaming=False)
    finally:
        FAULTS.remove(fault)
    failure = describe(caught.value)

    assert (failure.kind, failure.advice, failure.code) == (
        Kind.RATE_LIMIT,
        Advice.WAIT,
        "rate_limit_exceeded",
    )
    assert failure.sent is True


def test_an_error_that_the_caller_was_handling_came_from_deep_in_his_program() -> None:
    """However many frames it has come through, it is not taken for LiteLLM's."""

    def descend(frames: int) -> None:
        if frames:
            descend(frames - 1)
        raise httpx.ConnectError("mine")

    try:
        descend(20)
    except httpx.ConnectError:
        with pytest.raises(exceptions.InternalServerError) as caught:
            raise exceptions.InternalServerError("m", **WHO) from None
    failure = describe(caught.value)

    assert isinstance(caught.value.__context__, httpx.ConnectError)
    assert (failure.kind, failure.status, failure.sent) == (Kind.SERVER, 500, None)


def test_a_ring_of_its_errors_ends() -> None:
    """Errors that were raised while one another were handled are followed a little way."""
    one, other = exceptions.Timeout("m", **WHO), exceptions.APIConnectionError("m", **WHO)
    one.__context__, other.__context__ = other, one

    assert describe(one).kind is Kind.TIMEOUT
    assert describe(other).kind is Kind.CONNECTION


GROQ_LIMIT = {"error": {"message": "m", "type": "tokens", "code": "rate_limit_exceeded"}}
GROQ_FULL = {"error": {"message": "m", "code": "capacity_exceeded"}}
GROQ_GONE = {"error": {"message": "m", "code": "model_decommissioned"}}
MISTRAL = {"object": "error", "message": "m", "type": "invalid_model", "code": "1500"}
ANTHROPIC_SPENT = {"type": "rate_limit_error", "details": {"error_code": "ramp_limit_exceeded"}}


@pytest.mark.real
@pytest.mark.parametrize("asynchronous", [False, True], ids=["fail", "fail_async"])
@pytest.mark.parametrize(
    ("model", "status", "body", "kind", "advice"),
    [
        ("groq/m", 498, GROQ_FULL, Kind.OVERLOADED, Advice.WAIT),
        ("groq/m", 400, GROQ_GONE, Kind.NOT_FOUND, Advice.FALLBACK),
        ("groq/m", 413, GROQ_LIMIT, Kind.CONTEXT_LENGTH, Advice.FALLBACK),
        ("mistral/m", 400, MISTRAL, Kind.NOT_FOUND, Advice.FALLBACK),
        ("anthropic/m", 400, {"error": ANTHROPIC_SPENT}, Kind.RATE_LIMIT, Advice.WAIT),
        ("anthropic/m", 403, {"error": {"type": "billing_error"}}, Kind.QUOTA, Advice.STOP),
        ("cohere_chat/m", 404, {"message": "m"}, Kind.NOT_FOUND, Advice.FALLBACK),
        ("ollama/m", 404, {"error": "m"}, Kind.NOT_FOUND, Advice.FALLBACK),
        ("groq/m", 404, {"error": {"type": "not_found_error"}}, Kind.NOT_FOUND, Advice.FALLBACK),
        ("groq/m", 404, {"error": {"code": "resource_not_found"}}, Kind.NOT_FOUND, Advice.STOP),
    ],
)
def test_a_provider_that_is_asked_by_plain_http(
    model: str, status: int, body: Any, kind: Kind, advice: Advice, asynchronous: bool
) -> None:
    """What the provider says is read in its own words; a 404 without any is about the model."""
    written = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Told\r\ncontent-length: {len(written)}\r\nrequest-id: r1\r\n"
    call = served.acomplete if asynchronous else served.complete
    with (
        answering(f"{head}connection: close\r\n\r\n".encode() + written) as url,
        pytest.raises(exceptions.openai.OpenAIError) as caught,
    ):
        call(model, url, url, streaming=False)
    failure = describe(caught.value)

    assert (failure.kind, failure.advice, failure.status) == (kind, advice, status)
    assert (failure.request_id, failure.sdk) == ("r1", "litellm")
    assert failure.provider == model.partition("/")[0]
    assert failure.error is caught.value


@pytest.mark.real
def test_a_provider_that_is_asked_by_aiohttp() -> None:
    """Its error has a status and headers of its own, and no body."""

    async def main(url: str) -> Any:
        return await litellm.acompletion(
            model="aiohttp_openai/m", messages=[{"role": "user", "content": "?"}], api_base=url
        )

    head = b"HTTP/1.1 404 Told\r\ncontent-length: 0\r\nx-request-id: r1\r\n\r\n"
    with (
        answering(head) as url,
        pytest.raises(exceptions.openai.OpenAIError) as caught,
    ):
        asyncio.run(main(url))
    failure = describe(caught.value)

    assert (failure.kind, failure.advice, failure.status) == (Kind.NOT_FOUND, Advice.FALLBACK, 404)
    assert failure.request_id == "r1"


@pytest.mark.fault(235)
def test_a_router_whose_deployments_all_cool_down() -> None:
    """It says itself for how long, while no server is asked."""
    one = {"model": "openai/m", "api_key": "k", "mock_response": "litellm.RateLimitError"}
    models = [{"model_name": "m", "litellm_params": {**one, "rpm": rpm}} for rpm in (1, 2)]
    router: Any = litellm.Router(model_list=models, num_retries=0, cooldown_time=7)
    raised: list[Any] = []
    for _ in range(6):
        with pytest.raises(Exception) as caught:  # noqa: PT011  # first of the servers, then its own
            router.completion("m", [{"role": "user", "content": "Hi"}])
        raised.append(caught.value)
    cooling = next(each for each in raised if type(each).__name__ == "RouterRateLimitError")
    failure = describe(cooling)
    assert (failure.kind, failure.advice) == (Kind.RATE_LIMIT, Advice.WAIT)
    assert (failure.retry_after, failure.sent) == (float(cooling.cooldown_time), False)
    assert failure.retry_after == 7.0
