"""requests and urllib3: what their few classes hide, told apart by real failures."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3 import exceptions
from urllib3.util import Retry

from providers.raw import answering
from resilience.failures import Advice, Kind, describe

UNREACHED = (Kind.CONNECTION, Advice.RETRY, False)
LOST = (Kind.CONNECTION, Advice.RETRY, None)
SLOW = (Kind.TIMEOUT, Advice.RETRY, None)
SLOW_TO_CONNECT = (Kind.TIMEOUT, Advice.RETRY, False)
INVALID = (Kind.INVALID, Advice.STOP, False)


def told(error: Exception) -> tuple[Kind, Advice, bool | None]:
    failure = describe(error)
    assert failure.error is error
    return failure.kind, failure.advice, failure.sent


def raised(call: Callable[[], object], cls: type[Exception]) -> Exception:
    with pytest.raises(cls) as caught:
        call()
    return caught.value


@pytest.mark.real
def test_a_body_that_stalls_is_a_timeout() -> None:
    """requests calls it a ConnectionError, with urllib3's ReadTimeoutError inside."""
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc") as url:
        error = raised(lambda: requests.get(url, timeout=0.1), requests.ConnectionError)

    assert not isinstance(error, requests.Timeout)
    assert told(error) == SLOW


@pytest.mark.real
def test_what_is_no_http_is_a_lost_connection() -> None:
    """A server that speaks something else answered nothing that could be read."""
    with answering(b"SSH-2.0-OpenSSH_9.6\r\n") as url:
        error = raised(lambda: requests.get(url, timeout=1), requests.ConnectionError)

    assert told(error) == LOST


@pytest.mark.real
def test_tls_to_a_server_without_it_never_sent_the_request() -> None:
    """The handshake comes first, so nothing of the request was seen."""
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        secure = url.replace("http", "https")
        error = raised(lambda: requests.get(secure, timeout=1), requests.exceptions.SSLError)

    assert told(error) == UNREACHED


@pytest.mark.real
def test_statuses_that_the_adapter_retried_to_no_end() -> None:
    """A RetryError has no status any more: the service is at fault, and that is all."""
    retry = Retry(total=0, status_forcelist=[503])
    answer = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    with answering(answer) as url, requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        error = raised(lambda: session.get(url, timeout=1), requests.exceptions.RetryError)

    failure = describe(error)
    assert (failure.kind, failure.advice, failure.sent) == (Kind.SERVER, Advice.RETRY, None)
    assert failure.status is None


@pytest.mark.real
def test_a_stream_that_was_not_read_is_left_alone() -> None:
    """The body of a streamed answer may say more; reading it is not our business."""
    body = json.dumps({"error": {"code": "insufficient_quota"}}).encode()
    head = b"HTTP/1.1 429 Slow\r\nx-request-id: r1\r\ncontent-length: %d\r\n\r\n" % len(body)
    with answering(head + body) as url, requests.get(url, stream=True, timeout=1) as response:
        error = raised(response.raise_for_status, requests.HTTPError)
        unread = describe(error)
        assert response.json()["error"]["code"] == "insufficient_quota"
        read = describe(error)

    assert (unread.kind, unread.code, unread.request_id) == (Kind.RATE_LIMIT, None, "r1")
    assert (read.kind, read.code) == (Kind.QUOTA, "insufficient_quota")


@pytest.mark.parametrize("url", ["example.test", "http://", "gopher://example.test", "http://*x"])
def test_an_address_that_is_none_is_the_callers_mistake(url: str) -> None:
    """MissingSchema, InvalidURL and InvalidSchema: nothing was sent, nothing to retry."""
    assert told(raised(lambda: requests.get(url), requests.RequestException)) == INVALID


def test_a_header_that_is_none_is_the_callers_mistake() -> None:
    """InvalidHeader is found before the request leaves."""
    error = raised(
        lambda: requests.get("http://x.test", headers={"a": "b\nc"}),
        requests.exceptions.InvalidHeader,
    )
    assert told(error) == INVALID


POOL: Any = urllib3.HTTPConnectionPool("service.test")
CONNECTION: Any = urllib3.connection.HTTPConnection("service.test")
WRAPPED = {
    exceptions.NameResolutionError("service.test", CONNECTION, socket.gaierror(-2)): UNREACHED,
    exceptions.NewConnectionError(CONNECTION, "m"): UNREACHED,
    exceptions.ConnectTimeoutError(CONNECTION, "m"): SLOW_TO_CONNECT,
    exceptions.ReadTimeoutError(POOL, "/", "m"): SLOW,
    exceptions.ProtocolError("m", ConnectionResetError()): LOST,
    exceptions.ProtocolError("m", TimeoutError()): SLOW,
    exceptions.ProxyError("m", exceptions.NewConnectionError(CONNECTION, "m")): UNREACHED,
    exceptions.ProxyError("m", OSError("Tunnel connection failed: 502")): LOST,
    exceptions.EmptyPoolError(POOL, "m"): SLOW_TO_CONNECT,
    exceptions.LocationParseError("m"): INVALID,
}


@pytest.mark.parametrize("inner", WRAPPED, ids=lambda inner: type(inner).__name__)
def test_the_innermost_word_counts(inner: Exception) -> None:
    """The same by itself, under MaxRetryError, and under requests' ConnectionError."""
    outer = exceptions.MaxRetryError(POOL, "/", inner)
    for error in (inner, outer, requests.ConnectionError(outer)):
        assert told(error) == WRAPPED[inner], error


def test_errors_without_anything_inside() -> None:
    """By itself each class says what little it can."""
    assert told(requests.ConnectionError()) == LOST
    assert told(requests.Timeout()) == SLOW
    assert told(requests.ConnectTimeout()) == SLOW_TO_CONNECT
    assert told(exceptions.MaxRetryError(POOL, "/")) == LOST
    assert told(requests.TooManyRedirects()) == (Kind.INVALID, Advice.STOP, None)
    assert told(requests.HTTPError("no response")) == (Kind.UNKNOWN, Advice.STOP, None)
    assert told(type("Mine", (requests.ReadTimeout,), {})()) == SLOW


def test_arguments_that_cannot_be_looked_at() -> None:
    """The cause is still there to tell what it was."""

    class Odd(requests.ConnectionError):
        @property
        def args(self) -> Any:
            raise RuntimeError("args")

    error = Odd()
    error.__cause__ = exceptions.NewConnectionError(CONNECTION, "m")

    assert told(error) == UNREACHED


def test_a_ring_of_reasons_ends() -> None:
    """Errors that hold each other are followed a little way."""
    error = exceptions.MaxRetryError(POOL, "/")
    error.reason = error

    assert told(error) == LOST


@pytest.mark.real
@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/v1/chat/completions", (Kind.NOT_FOUND, Advice.FALLBACK)),
        (f"/{'v1/' * 2_000}chat/completions", (Kind.NOT_FOUND, Advice.STOP)),
    ],
    ids=["usual", "too long"],
)
def test_a_model_that_is_not_there_is_known_by_the_path(path: str, read: Any) -> None:
    """Where models are called; a URL of thousands of characters is nobody's, and is not read."""
    with answering(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n") as url:
        response = requests.post(url.rstrip("/") + path, timeout=1)
    error = raised(response.raise_for_status, requests.HTTPError)

    assert told(error)[:2] == read
