"""Errors of classes that nobody knows, and of classes made of several that are known."""

from __future__ import annotations

import gc
import warnings
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import httpx
import openai
import pytest
import requests

from resilience.failures import Advice, Failure, Kind, describe

REQUEST = httpx.Request("POST", "http://service.test/v1/chat/completions")


class Mine(Exception):
    """With attributes of its own."""

    def __init__(self, **told: Any) -> None:
        super().__init__("m")
        self.__dict__.update(told)


class OfItsClass(Exception):
    status_code = 503


class ByProperty(Exception):
    @property
    def status_code(self) -> int:
        return 503


class InASlot(Exception):
    __slots__ = ("status_code",)

    def __init__(self, status: int) -> None:
        self.status_code = status


class Response:
    """Of a client that nobody knows."""

    def __init__(self, status: object, **headers: str) -> None:
        self.status_code = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


UNREAD = (Kind.UNKNOWN, Advice.STOP, None, None)


@pytest.mark.fault(233)
@pytest.mark.parametrize(
    ("error", "kind", "advice", "status", "wait"),
    [
        (Mine(status_code=503), Kind.UNAVAILABLE, Advice.WAIT, 503, None),
        (Mine(status=429), Kind.RATE_LIMIT, Advice.WAIT, 429, None),
        (Mine(status="failed", status_code=500), Kind.SERVER, Advice.RETRY, 500, None),
        (
            Mine(status_code=429, headers={"Retry-After": "7"}),
            Kind.RATE_LIMIT,
            Advice.WAIT,
            429,
            7.0,
        ),
        (Mine(response=Response(429, retry_after="7")), Kind.RATE_LIMIT, Advice.WAIT, 429, 7.0),
        (
            Mine(status_code=503, response=Response(200, retry_after="7")),
            Kind.UNAVAILABLE,
            Advice.WAIT,
            503,
            7.0,
        ),
        (
            Mine(response=httpx.Response(402, json={"error": {}}, request=REQUEST)),
            Kind.QUOTA,
            Advice.STOP,
            402,
            None,
        ),
        (InASlot(502), Kind.SERVER, Advice.RETRY, 502, None),
        (Mine(status_code=200), *UNREAD),
        (Mine(status_code=600), *UNREAD),
        (Mine(status_code="503"), *UNREAD),
        (Mine(status_code=True), *UNREAD),
        (Mine(status_code=MagicMock()), *UNREAD),
        (Mine(response=MagicMock()), *UNREAD),
        (OfItsClass(), *UNREAD),
        (ByProperty(), *UNREAD),
        (KeyError("x"), *UNREAD),
    ],
    ids=repr,
)
def test_the_status_that_an_error_carries(
    error: Exception, kind: Kind, advice: Advice, status: int | None, wait: float | None
) -> None:
    """A whole number of the instance's own is believed, with the headers beside it."""
    failure = describe(error)

    assert (failure.kind, failure.advice) == (kind, advice)
    assert (failure.status, failure.retry_after) == (status, wait)
    assert failure.error is error


def test_a_known_cause_goes_first_and_an_unknown_one_after() -> None:
    """A wrapper is what it wraps, if that is known; of two unknown ones the outer counts."""
    response = httpx.Response(401, request=REQUEST)
    outer = Mine(status_code=503)
    outer.__cause__ = httpx.HTTPStatusError("m", request=REQUEST, response=response)
    assert describe(outer).kind is Kind.AUTH
    outer.__cause__ = Mine(status_code=401)
    assert describe(outer).kind is Kind.UNAVAILABLE
    wrapper = RuntimeError("m")
    wrapper.__cause__ = Mine(status_code=429)
    assert describe(wrapper).kind is Kind.RATE_LIMIT


def test_a_body_that_was_read_tells_more() -> None:
    """The response of a known client has its codes, whoever raises."""
    body = {"error": {"code": "insufficient_quota"}}
    error = Mine(response=httpx.Response(429, json=body, request=REQUEST))
    assert describe(error).kind is Kind.QUOTA


def test_a_reader_that_says_nothing_leaves_the_error_to_its_status() -> None:
    """None is no last word."""

    class Own(Mine):
        pass

    @describe.register(Own)
    def read(error: Own) -> Failure | None:
        return None

    assert describe(Own(status_code=503)).kind is Kind.UNAVAILABLE


# Several bases.


def test_of_several_bases_the_one_with_most_to_say_wins() -> None:
    """Whichever comes first."""
    response = httpx.Response(429, headers={"retry-after": "3"}, request=REQUEST)

    class First(openai.OpenAIError, httpx.HTTPStatusError):
        pass

    class Second(httpx.HTTPStatusError, openai.OpenAIError):
        pass

    for made in (First, Second):
        failure = describe(made("m", request=REQUEST, response=response))
        assert (failure.kind, failure.status, failure.retry_after) == (Kind.RATE_LIMIT, 429, 3.0)


def test_an_sdks_base_that_says_nothing_leaves_it_to_pythons() -> None:
    """A TimeoutError is one, though it is made of an SDK's root of errors as well."""

    class Late(openai.OpenAIError, TimeoutError):
        pass

    class Odd(openai.OpenAIError, KeyError):
        pass

    assert describe(Late()).kind is Kind.TIMEOUT
    assert describe(Odd()) == Failure(Kind.UNKNOWN, Advice.STOP, sdk="openai")


def test_a_librarys_own_class_is_read_by_its_family_alone() -> None:
    """requests' errors are OSErrors, and more than that."""

    class Mixed(requests.ConnectTimeout):
        pass

    failure = describe(Mixed())
    assert (failure.kind, failure.sent, failure.sdk) == (Kind.TIMEOUT, False, "requests")


# Mocks.


@pytest.mark.fault(234)
@pytest.mark.parametrize("mock", [MagicMock, Mock, AsyncMock])
@pytest.mark.parametrize("status", [429, 503])
def test_an_sdk_error_on_a_mocked_response(mock: Any, status: int) -> None:
    """A header counts by its text, never by its presence; and nothing is left unawaited."""
    errors = {429: openai.RateLimitError, 503: openai.InternalServerError}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        response = mock(status_code=status)
        if mock is AsyncMock:  # or the SDK itself leaves a coroutine
            response.headers = MagicMock(get=AsyncMock(), _list=None, raw=None)
            response.headers.get = lambda name: AsyncMock()()
        error = errors[status]("m", response=response, body=None)
        close = getattr(error.request_id, "close", None)
        failure = describe(error)
        if mock is AsyncMock and close:
            close()
        gc.collect()
    expected = {429: (Kind.RATE_LIMIT, Advice.WAIT), 503: (Kind.UNAVAILABLE, Advice.WAIT)}
    assert (failure.kind, failure.advice) == expected[status]
    assert (failure.retry_after, failure.request_id, failure.code) == (None, None, None)
