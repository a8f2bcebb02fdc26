"""Mistral's errors, made by its own SDK, and what they are taken for."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from mistralai.client import Mistral, errors
from mistralai.extra import exceptions

from resilience.failures import Advice, Failure, Kind, describe

HTML = {"content-type": "text/html"}
EVENTS = {"content-type": "text/event-stream"}


def ask(status: int, *, stream: bool = False, **content: Any) -> None:
    """Call with the real client, which is answered so."""
    transport = httpx2.MockTransport(lambda request: httpx2.Response(status, **content))
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    with Mistral(api_key="none", client=httpx2.Client(transport=transport)) as client:
        if not stream:
            client.chat.complete(**asked)
            return
        with client.chat.stream(**asked) as answer:
            list(answer)


def raised(status: int, **options: Any) -> Exception:
    """What the client raises over that."""
    with pytest.raises(errors.MistralError) as caught:
        ask(status, **options)
    return caught.value


def envelope(code: object, type: str | None, **more: Any) -> dict[str, Any]:
    return {"object": "error", "message": "m", "type": type, "param": None, "code": code, **more}


@pytest.mark.parametrize(
    ("status", "code", "type", "kind", "advice"),
    [
        (400, "1500", "invalid_model", Kind.NOT_FOUND, Advice.FALLBACK),
        (400, None, "invalid_model", Kind.NOT_FOUND, Advice.FALLBACK),
        (400, "unknown_model", "invalid_request_error", Kind.NOT_FOUND, Advice.FALLBACK),
        (429, 1300, "rate_limited", Kind.RATE_LIMIT, Advice.WAIT),
        (429, "3505", "service_tier_capacity_exceeded", Kind.OVERLOADED, Advice.WAIT),
        (503, "3505", None, Kind.OVERLOADED, Advice.WAIT),
        (402, None, None, Kind.QUOTA, Advice.STOP),
        (400, ["1300"], None, Kind.INVALID, Advice.STOP),
    ],
)
def test_codes_and_types(status: int, code: Any, type: str | None, kind: Kind, advice: Any) -> None:
    """A code decides, else the type, else the status; a code may have lost its quotes."""
    failure = describe(raised(status, json=envelope(code, type)))

    assert (failure.kind, failure.advice, failure.type) == (kind, advice, type)
    assert failure.code == (str(code) if isinstance(code, (str, int)) else None)


def test_a_request_that_does_not_fit() -> None:
    """A 422 is the validator's list of complaints; the code is what the first is about."""
    complaint = {"type": "missing", "loc": ["body", "messages"], "msg": "m"}
    error = raised(422, json={"detail": [complaint]})
    assert isinstance(error, errors.HTTPValidationError)

    failure = describe(error)
    assert (failure.kind, failure.advice, failure.code) == (Kind.INVALID, Advice.STOP, "missing")
    assert describe(raised(422, json={"detail": []})).code is None


MISSHAPEN = Failure(
    Kind.SERVER, Advice.RETRY, status=200, retry_limit=1, sdk="mistralai", sent=True
)


@pytest.mark.parametrize(
    ("cls", "content"),
    [
        (errors.SDKError, {"content": b"<html>", "headers": HTML}),
        (errors.ResponseValidationError, {"json": {"hello": "world"}}),
        (errors.ResponseValidationError, {"json": [1]}),
    ],
)
def test_an_answer_that_is_none(cls: type[Exception], content: dict[str, Any]) -> None:
    """A 200 that raises is asked for once more."""
    error = raised(200, **content)
    assert type(error) is cls

    assert describe(error) == MISSHAPEN


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (envelope("1300", "rate_limited", raw_status_code=429), (Kind.RATE_LIMIT, 429)),
        (envelope("3505", None), (Kind.OVERLOADED, 200)),
        ({"error": envelope(None, "internal", raw_status_code=500)}, (Kind.SERVER, 500)),
    ],
)
def test_an_error_inside_a_stream(event: Any, expected: tuple[Kind, int]) -> None:
    """It comes as data that fits no schema; what is in it decides, and the status is its own."""
    error = raised(
        200, stream=True, content=b"data: " + json.dumps(event).encode() + b"\n\n", headers=EVENTS
    )
    assert type(error) is errors.ResponseValidationError
    failure = describe(error)

    assert (failure.kind, failure.status, failure.sent) == (*expected, True)


@pytest.mark.parametrize("body", ["{", "{" * 70_000, '{"a":' * 9_000, "[]", ""])
def test_bodies_that_are_no_json(body: str) -> None:
    """The status decides where the body tells nothing."""
    failure = describe(raised(503, content=body, headers={"content-type": "application/json"}))

    assert (failure.kind, failure.advice, failure.code) == (Kind.UNAVAILABLE, Advice.WAIT, None)


def test_an_error_that_is_about_no_answer() -> None:
    """What the SDK's helpers raise of their own has no status, and nothing is made up for it."""
    error = exceptions.MCPException("m")

    assert describe(error) == Failure(Kind.UNKNOWN, Advice.STOP)


def test_no_response() -> None:
    """The SDK's word for no answer says no more; its cause does."""
    error = errors.NoResponseError()
    assert describe(error) == Failure(Kind.CONNECTION, Advice.RETRY, sdk="mistralai")
    error.__cause__ = httpx2.ConnectError("m")
    assert describe(error).sent is False
