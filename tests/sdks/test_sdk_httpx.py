"""Status errors of httpx and httpx2: what their bodies tell, as far as they were read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest

from resilience.failures import Advice, Kind, describe

libraries = pytest.mark.parametrize("library", [httpx, httpx2])
QUOTA = b'{"error": {"code": "insufficient_quota", "type": "t", "provider": "acme"}}'


def raised(library: Any, status: int, body: bytes) -> Exception:
    """What `raise_for_status` raises over an answer that was read."""
    request = library.Request("GET", "http://service.test")
    response = library.Response(status, content=body, request=request)
    with pytest.raises(library.HTTPStatusError) as caught:
        response.raise_for_status()
    error: Exception = caught.value
    return error


@libraries
def test_a_code_in_the_body_decides(library: Any) -> None:
    """A spent quota is told by the body alone, and is not retried."""
    failure = describe(raised(library, 429, QUOTA))

    assert (failure.kind, failure.advice) == (Kind.QUOTA, Advice.STOP)
    assert (failure.code, failure.type, failure.provider) == ("insufficient_quota", "t", "acme")


@libraries
def test_a_body_that_nobody_read_stays_unread(library: Any) -> None:
    """Describing does no I/O: the body of a stream is left where it is, and the status decides."""

    class Body(library.SyncByteStream):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[bytes]:
            pulled.append(1)
            yield QUOTA

    pulled: list[int] = []
    request = library.Request("GET", "http://service.test")
    response = library.Response(429, stream=Body(), request=request)
    with pytest.raises(library.HTTPStatusError) as caught:
        response.raise_for_status()

    failure = describe(caught.value)

    assert (failure.kind, failure.advice, failure.code) == (Kind.RATE_LIMIT, Advice.WAIT, None)
    assert pulled == []
    assert not response.is_stream_consumed


@libraries
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>429</html>",
        b'"insufficient_quota"',
        b'{"error": "Some sentence."}',
        b'{"error": {"code": [429], "type": ["insufficient_quota"]}}',
        b'{"error": [{"code": "insufficient_quota"}]}',
        b'{"error": {"code": "insufficient_quota"}',
        b'{"error": {"code": "\xff"}}',
        b'{"error": ' * 10_000,
        b'{"error": ' + b"9" * 10_000 + b"}",
        json.dumps({"error": {"code": "insufficient_quota"}, "pad": "x" * 65536}).encode(),
    ],
    ids=lambda body: repr(body[:30]),
)
def test_bodies_that_tell_nothing(library: Any, body: bytes) -> None:
    """What is no error envelope of a modest size leaves the status to decide."""
    failure = describe(raised(library, 429, body))

    assert (failure.kind, failure.advice) == (Kind.RATE_LIMIT, Advice.WAIT)
    assert (failure.code, failure.type) == (None, None)


@libraries
def test_the_request_id_of_anthropic(library: Any) -> None:
    """Its header has no `x-`."""
    request = library.Request("GET", "http://service.test")
    response = library.Response(529, headers={"request-id": "req_7"}, request=request)

    error = library.HTTPStatusError("m", request=request, response=response)

    assert describe(error).request_id == "req_7"


def test_a_class_of_the_users_own_is_read_like_its_base_whatever_its_name() -> None:
    """Only the names of the libraries' own classes mean anything."""
    response = httpx.Response(401, request=httpx.Request("POST", "http://service.test"))
    named = type("NetworkError", (httpx.HTTPStatusError,), {"__module__": "app"})

    failure = describe(named("m", request=response.request, response=response))

    assert (failure.kind, failure.advice, failure.status) == (Kind.AUTH, Advice.STOP, 401)


@libraries
def test_blank_lines_before_the_body_do_not_hide_its_code(library: Any) -> None:
    """As some proxies send them to keep a connection alive; not for ever."""
    assert describe(raised(library, 429, b"\n\r\n  " + QUOTA)).kind is Kind.QUOTA
    assert describe(raised(library, 429, b"\n" * 2000 + QUOTA)).kind is Kind.RATE_LIMIT
