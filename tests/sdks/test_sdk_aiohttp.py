"""aiohttp: what the table of faults does not show of its errors."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from providers.raw import answering
from resilience.failures import Advice, Failure, Kind, describe

UNREACHED = (Kind.CONNECTION, Advice.RETRY, False)
UNTRUSTED = (Kind.CONNECTION, Advice.STOP, False)
LOST = (Kind.CONNECTION, Advice.RETRY, None)
SLOW = (Kind.TIMEOUT, Advice.RETRY, None)
SLOW_TO_CONNECT = (Kind.TIMEOUT, Advice.RETRY, False)
MISTAKE = (Kind.INVALID, Advice.STOP, False)
MISLED = (Kind.INVALID, Advice.STOP, None)

ADDRESS = URL("http://service.test")
REQUEST = RequestInfo(ADDRESS, "GET", CIMultiDictProxy(CIMultiDict()), ADDRESS)
KEY = ConnectionKey("service.test", 443, True, True, None, None, None)


def raised(url: str, cls: type[Exception], **options: Any) -> Exception:
    """What a GET of `url` raises, its body read as JSON."""

    async def main() -> None:
        async with aiohttp.ClientSession() as session, session.get(url, **options) as answer:
            await answer.json()

    with pytest.raises(cls) as caught:
        asyncio.run(main())
    return caught.value


def told(error: Exception) -> tuple[Kind, Advice, bool | None]:
    failure = describe(error)
    assert failure.error is error
    assert failure.sdk == "aiohttp"
    return failure.kind, failure.advice, failure.sent


@pytest.mark.real
def test_what_is_no_http_is_no_400() -> None:
    """The parser's complaint comes with a status 400 that no server has sent."""
    with answering(b"SSH-2.0-OpenSSH_9.6\r\n\r\n") as url:
        error: Any = raised(url, aiohttp.ClientResponseError)

    assert error.status == 400
    assert told(error) == LOST
    assert describe(error).status is None


@pytest.mark.real
def test_a_total_timeout_is_pythons_own() -> None:
    """No class of aiohttp's: nothing says that it was aiohttp."""
    with answering(b"") as url:
        error = raised(url, asyncio.TimeoutError, timeout=aiohttp.ClientTimeout(total=0.1))

    failure = describe(error)
    assert not isinstance(error, aiohttp.ClientError)
    assert (failure.kind, failure.advice, failure.sent, failure.sdk) == (*SLOW, None)


@pytest.mark.real
def test_a_body_that_stalls_is_a_timeout() -> None:
    """Half an answer, then silence."""
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc") as url:
        slow = aiohttp.ClientTimeout(sock_read=0.1)
        assert told(raised(url, aiohttp.SocketTimeoutError, timeout=slow)) == SLOW


@pytest.mark.real
@pytest.mark.parametrize(
    ("status", "kind", "advice", "limit"),
    [
        (200, Kind.SERVER, Advice.RETRY, 1),
        (503, Kind.UNAVAILABLE, Advice.WAIT, None),
        (404, Kind.NOT_FOUND, Advice.STOP, None),
    ],
)
def test_a_page_in_place_of_json(
    status: int, kind: Kind, advice: Advice, limit: int | None
) -> None:
    """A ContentTypeError is what its status says; a 200 that is no answer is asked for again."""
    head = f"HTTP/1.1 {status} Told\r\ncontent-type: text/html\r\nx-request-id: r1\r\n"
    with answering(f"{head}retry-after: 7\r\ncontent-length: 0\r\n\r\n".encode()) as url:
        failure = describe(raised(url, aiohttp.ContentTypeError))

    assert (failure.kind, failure.advice, failure.retry_limit) == (kind, advice, limit)
    assert (failure.status, failure.request_id) == (status, "r1")
    assert failure.sent is (True if status == 200 else None)
    assert failure.retry_after == (7.0 if status == 503 else None)


@pytest.mark.real
def test_a_200_that_is_called_json_and_is_none() -> None:
    """The JSONDecodeError that escapes is known by the frames it came through."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 6\r\n\r\n"
    with answering(head + b"<html>") as url:
        failure = describe(raised(url, ValueError))

    assert (failure.kind, failure.advice, failure.retry_limit) == (Kind.SERVER, Advice.RETRY, 1)
    assert failure.sdk == "aiohttp"


@pytest.mark.real
def test_a_request_that_a_server_of_ours_cannot_read_is_no_answer() -> None:
    """aiohttp is a server too: the JSON of its callers is the program's business."""
    found: list[Failure] = []

    async def handle(request: web.Request) -> web.Response:
        with pytest.raises(ValueError, match="Expecting value") as caught:
            await request.json()
        found.append(describe(caught.value))
        return web.Response()

    async def main() -> None:
        application = web.Application()
        application.router.add_post("/", handle)
        async with TestServer(application) as server, aiohttp.ClientSession() as session:
            await session.post(server.make_url("/"), data=b"<html>")

    asyncio.run(main())

    assert found == [Failure(Kind.UNKNOWN, Advice.STOP)]


@pytest.mark.real
def test_redirects_without_end_and_to_nowhere() -> None:
    """Whoever sent us round in circles will do so again."""
    for target, cls in (("/", aiohttp.TooManyRedirects), ("mailto:x", aiohttp.ClientError)):
        head = f"HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n"
        with answering(head.encode()) as url:
            assert told(raised(url, cls, max_redirects=1)) == MISLED


@pytest.mark.parametrize("url", ["gopher://x.test", "http://", "x"])
def test_an_address_that_is_none_is_the_callers_mistake(url: str) -> None:
    """Nothing was sent."""
    assert told(raised(url, aiohttp.ClientError)) == MISTAKE


CLASSES = {
    aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "m")): UNREACHED,
    aiohttp.ClientProxyConnectionError(KEY, OSError(111, "m")): UNREACHED,
    aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "m")): UNREACHED,
    aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError(1, "m")): UNTRUSTED,
    aiohttp.ServerFingerprintMismatch(b"a", b"b", "service.test", 443): UNTRUSTED,
    aiohttp.ConnectionTimeoutError("m"): SLOW_TO_CONNECT,
    aiohttp.ServerTimeoutError("m"): SLOW,
    aiohttp.ClientOSError(104, "m"): LOST,
    aiohttp.ClientConnectionResetError("m"): LOST,
    aiohttp.ClientConnectionError("Connection closed"): LOST,
    type("Mine", (aiohttp.ServerDisconnectedError, ValueError), {})(): LOST,
    aiohttp.ClientError("m"): (Kind.UNKNOWN, Advice.STOP, None),
}


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: type(error).__name__)
def test_classes(error: Exception) -> None:
    """Each class of errors without an answer."""
    failure = describe(error)

    assert (failure.kind, failure.advice, failure.sent) == CLASSES[error]


@pytest.mark.parametrize("headers", [None, CIMultiDictProxy(CIMultiDict()), {}, "junk", 5])
def test_a_status_without_headers(headers: Any) -> None:
    """The status decides alone."""
    error = aiohttp.ClientResponseError(REQUEST, (), status=503, headers=headers)

    expected = Failure(Kind.UNAVAILABLE, Advice.WAIT, status=503, sdk="aiohttp")
    assert describe(error) == expected
    error.status = 0  # as it is by default
    assert describe(error) == Failure(Kind.UNKNOWN, Advice.STOP, sdk="aiohttp")
