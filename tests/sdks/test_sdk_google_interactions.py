"""Google's Interactions, whose errors are a family of their own: from version 3 of the SDK on."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from google import genai
from google.genai import errors
from google.genai._interactions_errors import APIResponseValidationError, APIWebSocketError

from resilience.failures import Advice, Failure, Kind, describe
from test_sdk_google import client, envelope, raised, retry_in


def interaction(status: int, **content: Any) -> Exception:
    with client(status, **content) as gemini, pytest.raises(Exception, match=r".") as caught:
        gemini.interactions.create(model="m", input="?")
    return caught.value


def test_interactions_speak_otherwise() -> None:
    """Their errors have other attributes, and say the same."""
    body = envelope(429, "RESOURCE_EXHAUSTED", retry_in("36s"))

    assert describe(interaction(429, json=body)) == Failure(
        Kind.RATE_LIMIT,
        Advice.WAIT,
        status=429,
        code="RESOURCE_EXHAUSTED",
        type="RESOURCE_EXHAUSTED",
        retry_after=36.0,
        sdk="google",
        sent=False,
    )
    page = describe(interaction(502, content=b"<html>", headers={"retry-after": "3"}))
    assert (page.kind, page.status, page.code, page.retry_after) == (Kind.SERVER, 502, None, 3.0)


@pytest.mark.parametrize(
    ("cause", "kind", "sent"),
    [
        (httpx2.ConnectError("m"), Kind.CONNECTION, False),
        (httpx2.ReadTimeout("m"), Kind.TIMEOUT, None),
        (httpx2.RemoteProtocolError("m"), Kind.CONNECTION, None),
    ],
)
def test_interactions_without_an_answer(cause: Exception, kind: Kind, sent: bool | None) -> None:
    """What went wrong on the wire is in the cause."""

    def lost(request: httpx2.Request) -> httpx2.Response:
        raise cause

    options: Any = {"client_args": {"transport": httpx2.MockTransport(lost)}}
    options["retry_options"] = {"attempts": 1}
    with (
        genai.Client(api_key="none", http_options=options) as gemini,
        pytest.raises(Exception, match=r".") as caught,
    ):
        gemini.interactions.create(model="m", input="?")

    assert describe(caught.value) == Failure(kind, Advice.RETRY, sdk="google", sent=sent)


def test_a_web_socket_of_interactions() -> None:
    """One that was refused has a status; one that broke has none."""
    refused = describe(APIWebSocketError(http_status=401))
    assert (refused.kind, refused.advice, refused.status) == (Kind.AUTH, Advice.STOP, 401)
    broken = describe(APIWebSocketError(close_code=1006))
    assert (broken.kind, broken.advice, broken.status) == (Kind.CONNECTION, Advice.RETRY, None)


def test_an_interaction_of_another_shape() -> None:
    """Data that fits no schema is asked for once more."""
    answer = httpx2.Response(200, request=httpx2.Request("POST", "http://service.test"))

    assert describe(APIResponseValidationError(answer, {})) == Failure(
        Kind.SERVER, Advice.RETRY, retry_limit=1, sent=True, sdk="google"
    )


def test_an_interaction_cut_short() -> None:
    """It failed as its cause did, but parts of it were made and paid for."""
    error = errors.ContinuationInterruptedError("m")
    error.__cause__ = raised(429, json=envelope(429, "RESOURCE_EXHAUSTED"))
    failure = describe(error)

    assert (failure.kind, failure.advice, failure.sent) == (Kind.RATE_LIMIT, Advice.WAIT, True)
    assert failure.error is error
    error.__cause__ = None
    assert describe(error) == Failure(Kind.UNKNOWN, Advice.STOP)
