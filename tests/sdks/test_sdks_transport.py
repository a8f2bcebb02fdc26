"""Errors below HTTP, by the transports of the SDKs and by the standard library."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import socket
import ssl
from typing import Any

import auriko
import httpcore
import httpcore2
import httpx
import httpx2
import openai
import pytest
from auriko import errors as auriko_errors

from resilience.failures import Advice, Kind, describe

REQUEST = httpx2.Request("POST", "http://service.test/v1")


def caused(error: Exception, cause: BaseException | None) -> Exception:
    error.__cause__ = cause
    return error


REFUSED = (Kind.CONNECTION, Advice.RETRY, False)
LOST = (Kind.CONNECTION, Advice.RETRY, None)
SLOW_TO_CONNECT = (Kind.TIMEOUT, Advice.RETRY, False)
SLOW = (Kind.TIMEOUT, Advice.RETRY, None)
INVALID_LOCALLY = (Kind.INVALID, Advice.STOP, False)

TRANSPORT = {
    "ConnectError": REFUSED,
    "ConnectTimeout": SLOW_TO_CONNECT,
    "PoolTimeout": SLOW_TO_CONNECT,
    "ReadTimeout": SLOW,
    "WriteTimeout": SLOW,
    "TimeoutException": SLOW,
    "ReadError": LOST,
    "WriteError": LOST,
    "NetworkError": LOST,
    "RemoteProtocolError": LOST,
    "ProxyError": LOST,
    "LocalProtocolError": (Kind.INVALID, Advice.STOP, None),
    "UnsupportedProtocol": INVALID_LOCALLY,
}
HTTPX_ONLY = {
    "CloseError": LOST,
    "TransportError": LOST,
    "InvalidURL": INVALID_LOCALLY,
    "TooManyRedirects": (Kind.INVALID, Advice.STOP, None),
    "DecodingError": (Kind.INVALID, Advice.STOP, True),
    "StreamClosed": (Kind.UNKNOWN, Advice.STOP, None),
}


@pytest.mark.parametrize("library", [httpx, httpx2, httpcore, httpcore2])
def test_transport_errors(library: Any) -> None:
    """The four transports' errors are known by their classes' names."""
    known = TRANSPORT if library in (httpcore, httpcore2) else {**TRANSPORT, **HTTPX_ONLY}
    for name, expected in known.items():
        cls = getattr(library, name)
        error = cls() if name == "StreamClosed" else cls("m")
        failure = describe(error)
        assert (failure.kind, failure.advice, failure.sent) == expected, name
        assert failure.sdk == (None if name == "StreamClosed" else library.__name__)
        assert failure.status is None


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("name", TRANSPORT)
def test_connection_errors_tell_their_cause(library: Any, name: str) -> None:
    """An SDK's connection error is what its cause was: refused, slow, lost, or a bad address."""
    cause = getattr(library, name)("m")
    for error in (
        auriko_errors.APIConnectionError(cause=cause),
        caused(openai.APIConnectionError(request=REQUEST), cause),
    ):
        failure = describe(error)
        assert (failure.kind, failure.advice, failure.sent) == TRANSPORT[name]
        assert failure.status is None
        assert failure.error is error


def test_connection_errors_without_a_cause() -> None:
    """By itself a connection error is CONNECTION, a timeout TIMEOUT, and nobody knows if sent."""
    for error, kind in (
        (auriko_errors.APIConnectionError(), Kind.CONNECTION),
        (auriko_errors.APIConnectionError(cause=KeyError()), Kind.CONNECTION),
        (openai.APIConnectionError(request=REQUEST), Kind.CONNECTION),
        (openai.APITimeoutError(request=REQUEST), Kind.TIMEOUT),
    ):
        failure = describe(error)
        assert (failure.kind, failure.advice, failure.sent) == (kind, Advice.RETRY, None)
    assert describe(auriko_errors.APIConnectionError()).code == "api_connection_error"


def test_a_refused_certificate_is_found_under_any_wrapping() -> None:
    """A certificate that is refused never heals, and no retry is advised."""
    untrusted = ssl.SSLCertVerificationError(1, "self-signed certificate")
    wire = caused(httpcore.ConnectError("m"), untrusted)
    for error in (
        untrusted,
        wire,
        caused(httpx.ConnectError("m"), wire),
        caused(openai.APIConnectionError(request=REQUEST), caused(httpx2.ConnectError("m"), wire)),
    ):
        failure = describe(error)
        assert (failure.kind, failure.advice) == (Kind.CONNECTION, Advice.STOP)
        assert failure.sent is False


def test_a_chain_of_causes_without_an_end() -> None:
    """Causes that run in a circle are followed a little way."""
    error = openai.APIConnectionError(request=REQUEST)
    caused(error, caused(KeyError(), error))

    assert describe(error).kind is Kind.CONNECTION


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), REFUSED),
        (OSError(errno.ECONNREFUSED, "m"), REFUSED),
        (ConnectionResetError(), LOST),
        (BrokenPipeError(), LOST),
        (ConnectionError(), LOST),
        (socket.gaierror(-2, "m"), REFUSED),
        (ssl.SSLError(1, "m"), REFUSED),
        (ssl.SSLEOFError(8, "m"), LOST),
        (OSError(errno.ENETUNREACH, "m"), REFUSED),
        (OSError(errno.EHOSTUNREACH, "m"), REFUSED),
        (OSError(errno.ENETDOWN, "m"), REFUSED),
        (OSError(errno.EHOSTDOWN, "m"), REFUSED),
        (TimeoutError(), SLOW),
        (OSError(errno.ETIMEDOUT, "m"), SLOW),
        (asyncio.TimeoutError(), SLOW),
        (concurrent.futures.TimeoutError(), SLOW),
        (OSError(errno.ENOSPC, "m"), (Kind.UNKNOWN, Advice.STOP, None)),
        (PermissionError(), (Kind.UNKNOWN, Advice.STOP, None)),
        (type("ConnectionError", (Exception,), {})(), (Kind.UNKNOWN, Advice.STOP, None)),
        (type("Mine", (ConnectionError,), {})(), LOST),
        (type("Mine", (RuntimeError, httpx.ConnectError), {})("m"), REFUSED),
        (type("Mine", (OSError, httpx.ConnectError), {})("m"), REFUSED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_standard_library(error: Exception, expected: tuple[Kind, Advice, bool | None]) -> None:
    """Python's connection and timeout errors are known; its other errors are the program's."""
    failure = describe(error)

    assert (failure.kind, failure.advice, failure.sent) == expected


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_refused_connection_for_real() -> None:
    """Nobody listens: both SDKs' errors say that nothing was sent."""
    url = f"http://127.0.0.1:{closed_port()}/v1"
    native = auriko.Client(api_key="k", base_url=url, max_retries=0)
    compatible = openai.OpenAI(api_key="k", base_url=url, max_retries=0)
    for client in (native, compatible):
        with client, pytest.raises(Exception, match=r"onnect") as caught:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
        failure = describe(caught.value)
        assert (failure.kind, failure.advice, failure.sent) == REFUSED
        assert failure.status is None


def test_a_server_that_is_silent_for_real() -> None:
    """A read timeout is a timeout, and nobody knows what the server did meanwhile."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        native = auriko.Client(api_key="k", base_url=url, max_retries=0, timeout=0.05)
        compatible = openai.OpenAI(api_key="k", base_url=url, max_retries=0, timeout=0.05)
        for client in (native, compatible):
            with client, pytest.raises((auriko.APIConnectionError, openai.APITimeoutError)) as got:
                client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "?"}]
                )
            failure = describe(got.value)
            assert (failure.kind, failure.advice, failure.sent) == SLOW
