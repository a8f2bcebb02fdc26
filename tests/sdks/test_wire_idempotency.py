"""IdempotencyKey over a socket: what the server is sent by the real clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import auriko
import groq
import httpx
import openai
import pytest
import requests

from resilience import IdempotencyKey, ModelFallback, Pipeline, Retry
from support.calling import message_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.steady,
]

MESSAGES: Any = [{"role": "user", "content": "Hello?"}]


class Down(ThreadingHTTPServer):
    """Answers 503 to everything; notes the key that each request has."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.keys: list[list[str] | None] = []
        self.teams: list[str | None] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Down

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.keys.append(self.headers.get_all("idempotency-key"))
        self.server.teams.append(self.headers.get("x-team"))
        self.send_response(503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def down() -> Iterator[Down]:
    server = Down()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def with_openai(url: str) -> Any:
    client = openai.OpenAI(base_url=url, api_key="any", max_retries=0)
    return client.chat.completions.create, {"messages": MESSAGES}


OPEN: list[openai.AsyncOpenAI] = []
"""The async client of the test, to be closed in its loop."""


def with_openai_async(url: str) -> Any:
    client = openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0)
    OPEN.append(client)
    return client.chat.completions.create, {"messages": MESSAGES}


def with_anthropic(url: str) -> Any:
    client = anthropic.Anthropic(base_url=url, api_key="any", max_retries=0)
    return client.messages.create, {"max_tokens": 9, "messages": MESSAGES}


def with_groq(url: str) -> Any:
    client = groq.Groq(base_url=url, api_key="any", max_retries=0)
    return client.chat.completions.create, {"messages": MESSAGES}


def with_httpx(url: str) -> Any:
    def post(*, model: str, headers: Any = None) -> None:
        httpx.post(url, headers=headers, json={"model": model}).raise_for_status()

    return post, {}


def with_requests(url: str) -> Any:
    def post(*, model: str, headers: Any = None) -> None:
        requests.post(url, headers=headers, json={"model": model}).raise_for_status()

    return post, {}


SDKS = [with_openai, with_openai_async, with_anthropic, with_groq]
every_client = pytest.mark.parametrize(
    ("make", "argument"),
    [
        *((make, "extra_headers") for make in SDKS),
        (with_httpx, "headers"),
        (with_requests, "headers"),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)


def failing(fn: Callable[..., Any], call: dict[str, Any], times: int = 1) -> None:
    """Call, in an event loop if the client is an async one, and see it fail each time."""
    client = OPEN.pop() if OPEN else None

    async def main() -> None:
        assert client is not None
        async with client:
            for _ in range(times):
                with pytest.raises(openai.APIStatusError):
                    await fn(**call)

    if client is not None:
        asyncio.run(main())
        return
    for _ in range(times):
        with pytest.raises(Exception):  # noqa: B017, PT011 - each its own
            fn(**call)


@pytest.mark.fault(287)
@every_client
def test_one_key_on_the_wire(down: Down, make: Any, argument: str) -> None:
    """On every attempt and model, in one header beside the caller's own; another for each call."""
    fn, call = make(down.url)
    policies = ModelFallback("a", "b", rounds=1), Retry(attempts=2, wait=0.01)
    guarded = Pipeline(*policies, IdempotencyKey(argument=argument)).wrap(fn)
    failing(guarded, {**call, argument: {"x-team": "blue"}}, times=2)

    assert len(down.keys) == 6  # once at the first model, twice at the last
    keys = [key for found in down.keys for key in found or [None]]
    assert len(keys) == len(down.keys)
    half = len(keys) // 2
    assert len({*keys[:half]}) == len({*keys[half:]}) == 1
    assert None not in keys
    assert keys[0] != keys[-1]
    assert {*down.teams} == {"blue"}


@every_client
def test_the_callers_key_on_the_wire(down: Down, make: Any, argument: str) -> None:
    """It is the only one."""
    fn, call = make(down.url)
    guarded = Pipeline(Retry(attempts=2, wait=0.01), IdempotencyKey(argument=argument)).wrap(fn)
    failing(guarded, {"model": "m", **call, argument: {"idempotency-key": "mine"}})

    assert down.keys == [["mine"]] * 2


def test_aurikos_client_takes_no_headers() -> None:
    """So it is refused at decoration."""
    client = auriko.Client(api_key="any", base_url="http://127.0.0.1:9")
    create = client.chat.completions.create

    assert "'extra_headers'" in message_of(TypeError, Pipeline(IdempotencyKey()).wrap, create)
