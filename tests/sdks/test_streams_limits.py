"""Streams of the real clients that fall silent: ended in time, and the server sees it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import trustme

from resilience import (
    CircuitBreaker,
    DeadlineExceededError,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
    Streaming,
    StreamInterruptedError,
    Timeout,
)
from resilience.testing import virtual_time
from support.playing import Player, Silence
from support.polling import until
from support.streaming_cases import CASES, Case, Got, consumed

pytestmark = pytest.mark.real

IDLE = 0.15
SLACK = 0.3
every_case = pytest.mark.parametrize("name", CASES)
PINGED = [name for name, case in CASES.items() if case.wire.ping]
BYTES = [name for name in PINGED if name.startswith(("openai", "anthropic", "auriko", "groq"))]
"""Clients that show their response."""
ONE_EACH = [name for name in CASES if "stream" not in name and "responses" not in name]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


class Timed:
    """When the last item came, and when the error did."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.last = 0.0

    def said(self, item: Any) -> str:
        self.last = time.monotonic()
        return self.case.said(item)


def stalled(
    case: Case, script: list[Any], tls: Any = None, trusting: Any = None, **streaming: Any
) -> tuple[Got, float]:
    """What came of a stream that stalls after its first word, and how long the wait for more
    was. The server has seen the client leave before it was closed."""
    ended: list[float] = []
    timed = Timed(case)
    watched = Case(case.wire, case.make, case.ask, timed.said, case.asynchronous, case.content_type)

    def left() -> None:
        ended.append(time.monotonic())
        until(lambda: server.left, 2)

    pipeline = Pipeline(Retry(attempts=1), Streaming(first=20, **streaming))
    with Player([script], tls, case.content_type) as server:
        got = consumed(watched, server.url, pipeline, trusting, then=left)
    return got, ended[0] - timed.last


def promptly(case: Case, script: list[Any], *tls: Any, **streaming: Any) -> Got:
    """The same, within `idle` and a little."""
    got, took = stalled(case, script, *tls, idle=IDLE, **streaming)
    assert IDLE - 0.05 <= took < IDLE + SLACK
    return got


def check(got: Got) -> None:
    assert got.said == "one"
    assert type(got.error) is StreamInterruptedError
    assert type(got.error.__cause__) is DeadlineExceededError
    assert got.error.__cause__.seconds == IDLE


@pytest.mark.fault(302)
@every_case
def test_a_stall_is_an_interruption(name: str) -> None:
    """After the first word, within `idle` and 0.3 s."""
    case = CASES[name]
    check(promptly(case, [*case.wire.begun, Silence()]))


@pytest.mark.fault(302)
@pytest.mark.parametrize("name", ONE_EACH)
def test_a_stall_over_tls(
    name: str,
    tls: ssl.SSLContext,
    trusting: ssl.SSLContext,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))  # some take no context
    case = CASES[name]
    check(promptly(case, [*case.wire.begun, Silence()], tls, trusting))


@pytest.mark.fault(303)
@pytest.mark.parametrize("name", PINGED)
def test_pings_are_no_life(name: str) -> None:
    """Comments, or Anthropic's `ping`, come all the time."""
    case = CASES[name]
    check(promptly(case, [*case.wire.begun, Silence(ping=case.wire.ping)]))


@pytest.mark.fault(303)
@pytest.mark.parametrize("name", BYTES)
def test_pings_are_life_where_that_is_wanted(name: str) -> None:
    """`alive="bytes"`: a stream that only pings lives, one that is silent does not."""
    case = CASES[name]
    wire = case.wire
    pinging = [*wire.begun, Silence(3 * IDLE, wire.ping), *wire.words[1:], *wire.reason]
    pipeline = Pipeline(Retry(attempts=1), Streaming(first=20, idle=IDLE * 1.5, alive="bytes"))
    scripts = [wire.whole, [*pinging, *wire.terminator]]
    with Player(scripts, content_type=case.content_type) as server:
        consumed(case, server.url, Pipeline(Streaming()))  # the SDK builds its classes meanwhile
        got = consumed(case, server.url, pipeline)
    assert (got.said, got.error) == ("one two", None)
    check(promptly(case, [*wire.begun, Silence()], alive="bytes"))


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_bytes_are_seen_in_virtual_time(name: str) -> None:
    """A limit goes by the virtual clock there, which stands still: the stream is whole."""
    case = CASES[name]
    pipeline = Pipeline(Streaming(idle=IDLE, alive="bytes"))
    with Player([case.wire.whole], content_type=case.content_type) as server, virtual_time():
        got = consumed(case, server.url, pipeline)
    assert (got.said, got.error) == ("one two", None)


@pytest.mark.fault(302)
@pytest.mark.parametrize("name", ["openai", "openai-async", "cohere", "cohere-async"])
def test_a_total(name: str) -> None:
    """It covers the reading, whatever comes."""
    case = CASES[name]
    script = [*case.wire.opening]
    for _ in range(40):
        script += [case.wire.words[0], Silence(0.05)]
    pipeline = Pipeline(Retry(attempts=1), Streaming(first=20, idle=20, total=0.4))
    with Player([script]) as server:
        began = time.monotonic()
        got = consumed(case, server.url, pipeline)
        took = time.monotonic() - began
    assert type(got.error) in (StreamInterruptedError, DeadlineExceededError)
    assert took < 1.5


# The first content


@pytest.mark.fault(311)
@every_case
def test_a_slow_first_token_leads_on(name: str) -> None:
    """Its headers and its first items without content had come in time; so with an attempt timeout
    around it, in a worker thread."""
    case = CASES[name]
    script = [*case.wire.opening, Silence()]
    models: list[str] = []
    chain = Pipeline(
        ModelFallback("a", Model("b", first=20)),
        Retry(attempts=2),
        Streaming(first=0.3),
        Timeout(30),
    )

    class Named:
        def wrap(self, fn: Any) -> Any:
            def asked(*, model: str = "a") -> Any:
                models.append(model)
                return fn()

            return chain.wrap(asked)

    with Player([script, case.wire.whole], content_type=case.content_type) as server:
        got = consumed(case, server.url, Named(), then=lambda: until(lambda: server.left, 2))

    assert (got.said, got.error) == ("one two", None)
    assert models == ["a", "b"]


# Others


@pytest.mark.fault(302)
def test_a_stall_of_httpx_and_requests() -> None:
    """A generator over the lines of a response is found by what its thread waits for."""

    def of_httpx(url: str) -> Iterator[str]:
        with httpx.stream("GET", url, timeout=30) as response:
            yield from response.iter_lines()

    def of_requests(url: str) -> Iterator[bytes]:
        with requests.get(url, stream=True, timeout=30) as response:
            yield from response.iter_lines(chunk_size=1)

    async def of_httpx_async(url: str) -> Any:
        async with httpx.AsyncClient(timeout=30) as client, client.stream("GET", url) as response:
            async for line in response.aiter_lines():
                yield line

    async def collect(stream: Any) -> None:
        async for _ in stream:
            pass

    pipeline = Pipeline(Streaming(first=20, idle=IDLE))
    for fn in (of_httpx, of_requests, of_httpx_async):
        with Player([[b"one\n", Silence()]]) as server:
            stream = pipeline.wrap(fn)(server.url)
            began = time.monotonic()
            with pytest.raises(StreamInterruptedError) as caught:
                asyncio.run(collect(stream)) if hasattr(stream, "__anext__") else list(stream)
            assert time.monotonic() - began < 5
            assert type(caught.value.__cause__) is DeadlineExceededError
            until(lambda: server.left, 2)


@pytest.mark.fault(302)
def test_the_circuit_hears_of_a_stall() -> None:
    """A silent service is a failing one."""
    case = CASES["openai"]
    breaker = CircuitBreaker(failures=1)
    pipeline = Pipeline(breaker, Streaming(first=20, idle=IDLE))
    with Player([[*case.wire.begun, Silence()]]) as server:
        consumed(case, server.url, pipeline)
    assert breaker.state == "open"
