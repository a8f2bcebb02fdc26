"""The standard library's HTTP: `http.client` and `urllib`, as they really fail."""

from __future__ import annotations

import email.message
import http.client
import io
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

import pytest

from resilience.failures import Advice, Kind, describe

UNREACHED = (Kind.CONNECTION, Advice.RETRY, False)
UNTRUSTED = (Kind.CONNECTION, Advice.STOP, False)
LOST = (Kind.CONNECTION, Advice.RETRY, None)
CUT_SHORT = (Kind.CONNECTION, Advice.RETRY, True)
SLOW = (Kind.TIMEOUT, Advice.RETRY, None)
MISUSED = (Kind.INVALID, Advice.STOP, False)
UNKNOWN = (Kind.UNKNOWN, Advice.STOP, None)


def told(error: Exception) -> tuple[Kind, Advice, bool | None]:
    failure = describe(error)
    assert failure.error is error
    assert failure.sdk is None
    return failure.kind, failure.advice, failure.sent


def parsing(answer: bytes) -> Exception:
    """What `http.client` raises over such an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError), listener.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(answer)
                peer.shutdown(socket.SHUT_WR)
                peer.recv(1)

        thread = Thread(target=serve, daemon=True)
        thread.start()
        connection = http.client.HTTPConnection(*listener.getsockname(), timeout=5)
        try:
            connection.request("GET", "/")
            with pytest.raises((http.client.HTTPException, OSError)) as caught:
                connection.getresponse().read()
            return caught.value
        finally:
            connection.close()
            thread.join(5)


@pytest.mark.real
@pytest.mark.parametrize(
    ("answer", "cls", "expected"),
    [
        (b"", http.client.RemoteDisconnected, LOST),
        (b"SSH-2.0\r\n", http.client.BadStatusLine, LOST),
        (b"HTTP/3.0 200 OK\r\n\r\n", http.client.UnknownProtocol, LOST),
        (b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000, http.client.LineTooLong, LOST),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
            http.client.IncompleteRead,
            CUT_SHORT,
        ),
    ],
    ids=["nothing", "another protocol", "another version", "a long line", "half a body"],
)
def test_answers_that_are_none(
    answer: bytes, cls: type[Exception], expected: tuple[Kind, Advice, bool | None]
) -> None:
    """A server that speaks nonsense or breaks off; only the last had surely begun to answer."""
    error = parsing(answer)

    assert type(error) is cls
    assert told(error) == expected


def misused(use: Callable[[http.client.HTTPConnection], object]) -> Exception:
    connection = http.client.HTTPConnection("127.0.0.1", 9)
    connection.auto_open = 0
    with pytest.raises(http.client.HTTPException) as caught:
        use(connection)
    return caught.value


def test_a_connection_in_the_wrong_state_is_the_programs_mistake() -> None:
    """No retry puts that right."""

    def twice(connection: http.client.HTTPConnection) -> None:
        connection.putrequest("GET", "/")
        connection.putrequest("GET", "/")

    for use, cls, expected in (
        (twice, http.client.CannotSendRequest, MISUSED),
        (lambda it: it.putheader("a", "b"), http.client.CannotSendHeader, MISUSED),
        (lambda it: it.getresponse(), http.client.ResponseNotReady, (*MISUSED[:2], None)),
        (lambda it: it.send(b"x"), http.client.NotConnected, MISUSED),
        (lambda it: it.putrequest("GET", "/a b"), http.client.InvalidURL, MISUSED),
    ):
        error = misused(use)
        assert type(error) is cls
        assert told(error) == expected
    assert told(http.client.HTTPException("any other")) == UNKNOWN


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (ConnectionRefusedError(), UNREACHED),
        (socket.gaierror(-2, "m"), UNREACHED),
        (TimeoutError(), SLOW),
        (ssl.SSLCertVerificationError(1, "m"), UNTRUSTED),
        (ssl.SSLError(1, "m"), UNREACHED),
        (FileNotFoundError(), UNKNOWN),
        ("unknown url type: gopher", UNKNOWN),
        (urllib.error.URLError(ConnectionRefusedError()), UNKNOWN),
    ],
    ids=repr,
)
def test_a_url_error_is_what_its_reason_is(
    reason: Any, expected: tuple[Kind, Advice, bool | None]
) -> None:
    """urllib wraps what the socket raised; a text as the reason says nothing that counts."""
    assert told(urllib.error.URLError(reason)) == expected


def test_a_url_error_that_is_its_own_reason() -> None:
    """A ring ends."""
    error = urllib.error.URLError("m")
    error.reason = error  # type: ignore[assignment]

    assert told(error) == UNKNOWN


def test_a_download_that_is_too_short() -> None:
    """`urlretrieve` counts what came."""
    assert told(urllib.error.ContentTooShortError("m", (b"", {}))) == CUT_SHORT  # type: ignore[arg-type]


def test_the_body_of_an_http_error_is_not_read() -> None:
    """It may still be on the wire; status and headers are enough."""

    class Body(io.BytesIO):
        def read(self, *args: Any) -> bytes:
            raise AssertionError("read")

    headers = email.message.Message()
    headers["Retry-After"] = "7"
    headers["Request-Id"] = "r1"
    body = Body(b'{"error": {"code": "insufficient_quota"}}')
    with urllib.error.HTTPError("http://x.test", 429, "m", headers, body) as error:
        failure = describe(error)

    assert (failure.kind, failure.advice) == (Kind.RATE_LIMIT, Advice.WAIT)
    assert (failure.retry_after, failure.request_id, failure.status) == (7.0, "r1", 429)


def test_an_http_error_without_anything() -> None:
    """One that a test or a proxy made up has no body and no headers."""
    error = urllib.error.HTTPError("http://x.test", 503, "m", None, None)  # type: ignore[arg-type]
    failure = describe(error)
    with suppress(AttributeError, KeyError):  # without a body, older Pythons have no close
        error.close()

    assert (failure.kind, failure.advice, failure.status) == (Kind.UNAVAILABLE, Advice.WAIT, 503)


def test_a_tls_error_from_very_deep() -> None:
    """Only so many of its frames are looked at for the handshake's; in doubt it was sent."""

    def descend(frames: int) -> None:
        if frames:
            descend(frames - 1)
        do_handshake()

    def do_handshake() -> None:
        raise ssl.SSLError("m")

    seen = []
    for frames in (10, 300):
        with pytest.raises(ssl.SSLError) as caught:
            descend(frames)
        seen.append(describe(caught.value).sent)
    assert seen == [False, None]
    assert describe(ssl.SSLError("never raised")).sent is False
