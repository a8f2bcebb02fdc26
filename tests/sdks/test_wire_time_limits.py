"""`Timeout(pass_as=)` over a socket: the real clients stop in time, and hang up.

The server takes requests and never answers. Nothing here cuts a call: only what is passed does.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import auriko
import httpx
import openai
import pytest
import requests
from google import genai
from google.genai import types
from mistralai.client import Mistral

from resilience import Pipeline, Retry, Timeout, deadline
from resilience.failures import Kind, describe
from resilience.sdks.time_limits import limit_in, with_limit
from support.calling import message_of

pytestmark = pytest.mark.real

MESSAGES: Any = [{"role": "user", "content": "Hello?"}]
LIMIT = 0.3


class Silent:
    """Takes requests and never answers; notes for how long each client has stayed."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.stayed: list[float] = []
        self.hung_up = threading.Semaphore(0)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: socket.socket) -> None:
        with connection:
            asked = b""
            began = 0.0
            with contextlib.suppress(OSError):
                while received := connection.recv(65536):
                    asked += received
                    began = began or time.monotonic()
            if asked:
                self.stayed.append(time.monotonic() - began)
                self.hung_up.release()


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.listener.close()
    KEPT.clear()


KEPT: list[Any] = []
"""Clients in use: Google's closes itself when nobody has it."""


def openai_create(url: str) -> Any:
    client = openai.OpenAI(base_url=url, api_key="any", max_retries=0)
    return client.chat.completions.create, {"model": "m", "messages": MESSAGES}


def openai_responses(url: str) -> Any:
    client = openai.OpenAI(base_url=url, api_key="any", max_retries=0)
    return client.responses.create, {"model": "m", "input": "Hello?"}


def openai_async(url: str) -> Any:
    client = openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0)
    return client.chat.completions.create, {"model": "m", "messages": MESSAGES}


def anthropic_create(url: str) -> Any:
    client = anthropic.Anthropic(base_url=url, api_key="any", max_retries=0)
    return client.messages.create, {"model": "m", "max_tokens": 9, "messages": MESSAGES}


def anthropic_async(url: str) -> Any:
    client = anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0)
    return client.messages.create, {"model": "m", "max_tokens": 9, "messages": MESSAGES}


def httpx_post(url: str) -> Any:
    return httpx.Client().post, {"url": url, "json": {}}


def httpx_async(url: str) -> Any:
    return httpx.AsyncClient().post, {"url": url, "json": {}}


def requests_post(url: str) -> Any:
    return requests.post, {"url": url, "json": {}}


def google_generate(url: str) -> Any:
    client = genai.Client(api_key="any", http_options={"base_url": url})
    KEPT.append(client)
    return client.models.generate_content, {"model": "m", "contents": "Hello?"}


def google_with_config(url: str) -> Any:
    fn, call = google_generate(url)
    return fn, {**call, "config": types.GenerateContentConfig(temperature=0.5)}


def google_with_options(url: str) -> Any:
    fn, call = google_generate(url)
    options = types.HttpOptions(timeout=60_000, headers={"x-own": "1"})
    return fn, {**call, "config": types.GenerateContentConfig(http_options=options)}


def google_with_dict(url: str) -> Any:
    fn, call = google_generate(url)
    return fn, {**call, "config": {"temperature": 0.5, "httpOptions": {"timeout": 60_000}}}


def google_async(url: str) -> Any:
    client = genai.Client(api_key="any", http_options={"base_url": url})
    KEPT.append(client)
    return client.aio.models.generate_content, {"model": "m", "contents": "Hello?"}


def mistral_complete(url: str) -> Any:
    client = Mistral(api_key="any", server_url=url)
    return client.chat.complete, {"model": "m", "messages": MESSAGES}


SECONDS = [
    *(openai_create, openai_responses, openai_async, anthropic_create, anthropic_async),
    *(httpx_post, httpx_async, requests_post),
    *(google_generate, google_with_config, google_with_options, google_with_dict, google_async),
]
CLIENTS = [*((make, "timeout") for make in SECONDS), (mistral_complete, "timeout_ms")]


def error_of(fn: Callable[..., Any], call: dict[str, Any]) -> Exception:
    """What the client raises, of its own accord."""

    async def main() -> Any:
        made = fn(**call)
        return await made if inspect.isawaitable(made) else made

    bare = inspect.unwrap(getattr(fn, "__func__", fn))
    asynchronous = inspect.iscoroutinefunction(bare)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each its own
        asyncio.run(main()) if asynchronous else fn(**call)
    return caught.value


@pytest.mark.fault(286)
@pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")  # Google's of aiohttp's
@pytest.mark.parametrize(
    ("make", "pass_as"), CLIENTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_the_client_stops_in_time(silent: Silent, make: Any, pass_as: str) -> None:
    """By itself, with its own error, which is a timeout; and the server sees it go."""
    fn, call = make(silent.url)
    error = error_of(Pipeline(Timeout(LIMIT, pass_as=pass_as)).wrap(fn), call)

    assert describe(error).kind is Kind.TIMEOUT
    assert type(error).__module__.split(".")[0] != "resilience"
    assert silent.hung_up.acquire(timeout=5)
    assert len(silent.stayed) == 1
    assert LIMIT * 0.8 < silent.stayed[0] < LIMIT + 1


@pytest.mark.fault(286)
@pytest.mark.parametrize("make", [openai_create, anthropic_create, httpx_post, google_generate])
def test_each_attempt_gets_what_is_left(silent: Silent, make: Any) -> None:
    """Of `deadline()`, too, where that comes first. (It leaves the client as that hangs up.)"""
    fn, call = make(silent.url)
    guarded = Pipeline(Timeout(60, pass_as="timeout"), Retry(attempts=2, wait=0.1)).wrap(fn)
    started = time.monotonic()
    with deadline(3 * LIMIT):
        error_of(guarded, call)

    assert time.monotonic() - started < 3 * LIMIT + 1
    assert silent.hung_up.acquire(timeout=5)
    assert silent.stayed[0] < 3 * LIMIT + 1


def test_aurikos_client_takes_no_time() -> None:
    """So it is refused at decoration; an enforced Timeout is the way."""
    client = auriko.Client(api_key="any", base_url="http://127.0.0.1:9")
    create = client.chat.completions.create

    assert "'timeout'" in message_of(
        TypeError, Pipeline(Timeout(5, pass_as="timeout")).wrap, create
    )


def test_a_chat_of_googles_takes_no_time() -> None:
    """A config of one message's own would put that of the chat out of force."""
    client = genai.Client(api_key="any")
    send = client.chats.create(model="m", config={"temperature": 0.5}).send_message

    assert "'timeout'" in message_of(TypeError, Pipeline(Timeout(5, pass_as="timeout")).wrap, send)


# Google's config


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (None, None),
        ({}, None),
        ({"http_options": {}}, None),
        ({"http_options": {"timeout": 500}}, 0.5),
        ({"httpOptions": {"timeout": 500}}, 0.5),
        ({"http_options": types.HttpOptions(timeout=500)}, 0.5),
        (types.GenerateContentConfig(), None),
        (types.GenerateContentConfig(http_options=types.HttpOptions(timeout=500)), 0.5),
    ],
)
def test_a_config_with_a_limit(config: Any, limit: float | None) -> None:
    """Everything else in it stays, and the caller's own object as it was."""
    before = repr(config)
    made = with_limit(config, 0.2504)

    assert limit_in(config) == limit
    assert limit_in(made) == 0.25
    assert limit_in(with_limit(made, 0.0001)) == 0.001
    assert repr(config) == before
    whole = made if isinstance(made, types.GenerateContentConfig) else None
    whole = whole or types.GenerateContentConfig(**made)
    assert whole.http_options is not None
    assert whole.http_options.timeout == 250
    assert type(whole.http_options) is types.HttpOptions


def test_what_else_is_in_the_config() -> None:
    """Other options and headers are kept."""
    options = types.HttpOptions(headers={"x-own": "1"})
    config = types.GenerateContentConfig(temperature=0.5, http_options=options)
    made = with_limit(config, 2)

    assert made.temperature == 0.5
    assert made.http_options.headers == {"x-own": "1"}
    plain = with_limit({"temperature": 0.5, "http_options": {"headers": {"x-own": "1"}}}, 2)
    assert plain == {
        "temperature": 0.5,
        "http_options": {"headers": {"x-own": "1"}, "timeout": 2000},
    }


@pytest.mark.parametrize(
    ("own", "passed"), [(None, 5000), (3000, 3000), (9000, 5000), (5000, 5000)]
)
def test_a_limit_of_the_callers(own: int | None, passed: int) -> None:
    """A shorter one stays, in whichever unit it is given."""
    seen: list[Any] = []

    def complete(*, timeout_ms: int | None = None) -> None:
        seen.append(timeout_ms)

    Pipeline(Timeout(5, pass_as="timeout_ms")).call(complete, timeout_ms=own)
    (found,) = seen
    assert type(found) is int
    assert passed - 50 <= found <= passed
