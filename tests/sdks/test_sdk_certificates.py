"""A certificate that nobody vouches for, shown to each client over a real handshake."""

from __future__ import annotations

import asyncio
import http.client
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import auriko
import httpx
import httpx2
import openai
import pytest
import requests
import trio
import trustme
import urllib3
from botocore.config import Config
from botocore.session import Session

from providers.raw import answering
from resilience.failures import Advice, Kind, describe

pytestmark = pytest.mark.real


def with_aiohttp(url: str) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session, session.get(url):
            pass

    asyncio.run(main())


async def _get(url: str) -> None:
    async with httpx.AsyncClient() as client:
        await client.get(url)


def with_httpx_and_asyncio(url: str) -> None:
    asyncio.run(_get(url))


def with_httpx_and_trio(url: str) -> None:
    trio.run(_get, url)


def with_http_client(url: str) -> None:
    connection = http.client.HTTPSConnection(url.partition("//")[2], timeout=5)
    try:
        connection.request("GET", "/")
    finally:
        connection.close()


def with_urllib3(url: str) -> None:
    with urllib3.PoolManager() as pool:
        pool.request("GET", url, retries=0, timeout=5)


def with_urllib3_alone(url: str) -> None:
    with urllib3.PoolManager() as pool:
        pool.request("GET", url, retries=False, timeout=5)


def with_botocore(url: str) -> None:
    client = Session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=Config(retries={"total_max_attempts": 1}),
    )
    try:
        client.converse(modelId="m", messages=[])
    finally:
        client.close()


def with_openai(url: str) -> None:
    with openai.OpenAI(api_key="none", base_url=url, max_retries=0) as client:
        client.models.list()


def with_auriko(url: str) -> None:
    with auriko.Client(api_key="none", base_url=url, max_retries=0) as client:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])


CLIENTS: list[Callable[[str], object]] = [
    httpx.get,
    httpx2.get,
    requests.get,
    urllib.request.urlopen,
    with_aiohttp,
    with_auriko,
    with_botocore,
    with_http_client,
    with_httpx_and_asyncio,
    with_httpx_and_trio,
    with_openai,
    with_urllib3,
    with_urllib3_alone,
]


def raised(call: Callable[[str], object], url: str) -> Exception:
    try:
        call(url)
    except Exception as error:  # of any class: with trio, httpx's has no text either
        return error
    raise AssertionError("nothing was raised")


def certified(authority: trustme.CA) -> ssl.SSLContext:
    """A server's side, with a certificate of this authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with a certificate of an authority that nobody knows."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    with answering(answer, certified(trustme.CA())) as found:
        yield found


@pytest.mark.parametrize("call", CLIENTS, ids=lambda call: f"{call.__module__}.{call.__name__}")
def test_a_refused_certificate_stops(call: Callable[[str], object], url: str) -> None:
    """It will be refused again; nothing was sent."""
    failure = describe(raised(call, url))

    assert (failure.kind, failure.advice) == (Kind.CONNECTION, Advice.STOP)
    assert failure.sent is False


_GARBLED = b"\x17\x03\x03\x00\x20" + b"\x00" * 32
"""A record that cannot be decrypted."""


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nabc"])
@pytest.mark.parametrize("client", ["http.client", "urllib", "requests", "urllib3", "httpx"])
def test_tls_that_fails_after_the_handshake(client: str, begun: bytes, tmp_path: Path) -> None:
    """The request may have been executed by then; a handshake that failed has sent nothing."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    authority.cert_pem.write_to_path(tmp_path / "pem")

    def with_http_client(url: str) -> None:
        connection = http.client.HTTPSConnection(
            url.partition("//")[2], context=trusting, timeout=5
        )
        try:
            connection.request("POST", "/", b"{}")
            connection.getresponse().read()
        finally:
            connection.close()

    def with_urllib3(url: str) -> None:
        with urllib3.PoolManager(ssl_context=trusting) as pool:
            pool.request("POST", url, body=b"{}", retries=False)

    def with_urllib(url: str) -> None:
        with urllib.request.urlopen(url, b"{}", context=trusting) as answer:
            answer.read()

    def with_requests(url: str) -> None:
        with requests.Session() as session:
            session.post(url, b"{}", verify=str(tmp_path / "pem"))

    calls: dict[str, Callable[[str], object]] = {
        "http.client": with_http_client,
        "urllib": with_urllib,
        "requests": with_requests,
        "urllib3": with_urllib3,
        "httpx": lambda url: httpx.post(url, content=b"{}", verify=trusting),
    }
    with answering(begun, certified(authority), garbled=_GARBLED) as url:
        failure = describe(raised(calls[client], url))

    assert (failure.kind, failure.advice) == (Kind.CONNECTION, Advice.RETRY)
    assert failure.sent is None
