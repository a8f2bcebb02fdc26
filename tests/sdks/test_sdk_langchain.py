"""LangChain's errors, alone and over those of SDKs, and what they are taken for."""

from __future__ import annotations

import httpx2
import openai
import pytest
from cohere.core.api_error import ApiError
from langchain_core import exceptions as core
from langchain_openai.chat_models import base

from resilience.failures import Advice, Failure, Kind, describe


@pytest.mark.parametrize(
    ("cls", "kind", "advice", "sent"),
    [
        (core.ContextOverflowError, Kind.CONTEXT_LENGTH, Advice.FALLBACK, False),
        (core.ModelAPIError, Kind.SERVER, Advice.RETRY, None),
        (core.ModelAuthenticationError, Kind.AUTH, Advice.STOP, None),
        (core.ModelConnectionError, Kind.CONNECTION, Advice.RETRY, None),
        (core.ModelInvalidRequestError, Kind.INVALID, Advice.STOP, None),
        (core.ModelNotFoundError, Kind.NOT_FOUND, Advice.FALLBACK, None),
        (core.ModelPermissionDeniedError, Kind.PERMISSION, Advice.STOP, None),
        (core.ModelRateLimitError, Kind.RATE_LIMIT, Advice.WAIT, False),
        (core.ModelRefusalError, Kind.CONTENT_FILTER, Advice.STOP, True),
        (core.ModelTimeoutError, Kind.TIMEOUT, Advice.RETRY, None),
        (core.ModelError, Kind.UNKNOWN, Advice.STOP, None),
    ],
)
def test_model_errors(
    cls: type[core.ModelError], kind: Kind, advice: Advice, sent: bool | None
) -> None:
    """By itself a model's error means what its class says; so does one of an integration."""
    for each in (cls, type("Mine", (cls,), {})):
        assert describe(each("m")) == Failure(kind, advice, sdk="langchain_core", sent=sent)


def test_an_integrations_own_kind() -> None:
    """A kind that LangChain does not know is retried if it says so itself."""
    mine = type("Mine", (core.ModelError,), {"is_retryable": True})

    assert describe(mine()).advice is Advice.RETRY


def test_the_cause_says_more() -> None:
    """An SDK's error beneath has the status, the wait and the rest."""
    error = core.ModelRateLimitError("m")
    error.__cause__ = ApiError(status_code=429, headers={"retry-after": "4", "x-request-id": "r1"})

    failure = describe(error)
    assert (failure.kind, failure.retry_after, failure.request_id) == (Kind.RATE_LIMIT, 4.0, "r1")
    assert failure.error is error
    error.__cause__ = KeyError()
    assert describe(error).sdk == "langchain_core"


def answered(status: int, code: str | None) -> httpx2.Response:
    request = httpx2.Request("POST", "http://service.test")
    return httpx2.Response(status, request=request, json={"error": {"code": code}})


def test_a_class_of_both() -> None:
    """An integration's error is the SDK's too, in whatever order, and the SDK's facts count."""
    quota = answered(429, "insufficient_quota")
    reversed_ = type("Mine", (core.ModelRateLimitError, openai.RateLimitError), {})
    for cls in (base.OpenAIRateLimitError, reversed_):
        error = cls("m", response=quota, body=quota.json()["error"])
        failure = describe(error)
        assert (failure.kind, failure.code, failure.sdk) == (
            Kind.QUOTA,
            "insufficient_quota",
            "openai",
        )


def test_a_context_that_langchain_found_too_long() -> None:
    """No code says so where LangChain has read it in the message."""
    answer = answered(400, None)
    error = base.OpenAIContextOverflowError("m", response=answer, body=None)
    failure = describe(error)

    assert (failure.kind, failure.advice, failure.sent) == (
        Kind.CONTEXT_LENGTH,
        Advice.FALLBACK,
        False,
    )
    assert (failure.status, failure.sdk) == (400, "openai")


def test_other_errors_of_langchain() -> None:
    """A parser's error is the program's business; one that wraps an SDK's is what it wraps."""
    error = core.OutputParserException("m")
    assert describe(error) == Failure(Kind.UNKNOWN, Advice.STOP)
    error.__cause__ = ApiError(status_code=503)
    assert describe(error).kind is Kind.UNAVAILABLE
