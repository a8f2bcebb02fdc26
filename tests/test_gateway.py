"""The local gateway, as the real SDKs see it over a socket."""

from __future__ import annotations

import _thread
import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import auriko
import auriko.errors
import httpx
import openai
import pydantic
import pytest
import trio
import uvicorn
from auriko._client import Client
from auriko.route_types import parse_routing_metadata

from resilience.sdks.auriko import CODES
from resilience.testing.gateway import (
    Answer,
    CutStream,
    Drop,
    Error,
    ErrorInStream,
    Gateway,
    Hang,
    Malformed,
    Ok,
    Plan,
    ProxyError,
    Received,
    SlowStart,
    Timetable,
)
from resilience.testing.server import serve

pytestmark = pytest.mark.real

MESSAGES: Any = [{"role": "user", "content": "Hello?"}]


class Sdk:
    """One way to ask the gateway: an SDK, sync or async, without retries of its own."""

    def __init__(self, module: Any, asynchronous: bool) -> None:
        self.module = module
        self.errors = auriko.errors if module is auriko else openai
        self.asynchronous = asynchronous

    def ask(self, gateway: Gateway, model: str = "gpt-4o", **options: Any) -> Any:
        """The completion, or the list of chunks with `stream=True`."""
        return self.watch(gateway, [], model, **options)

    def watch(
        self, gateway: Gateway, chunks: list[Any], model: str = "gpt-4o", **options: Any
    ) -> Any:
        """The same, and every chunk is put on `chunks` as it comes."""
        wanted: dict[str, Any] = {
            "api_key": options.pop("api_key", "any"),
            "base_url": gateway.base_url,
            "timeout": options.pop("timeout", 5.0),
            "max_retries": 0,
        }
        call = {"model": model, "messages": MESSAGES, **options}
        if self.asynchronous:
            return asyncio.run(self._async(wanted, chunks, call))
        names = {auriko: "Client", openai: "OpenAI"}
        with getattr(self.module, names[self.module])(**wanted) as client:
            answer = client.chat.completions.create(**call)
            if not call.get("stream"):
                return answer
            for chunk in answer:
                chunks.append(chunk)
            return chunks

    async def _async(self, wanted: Any, chunks: list[Any], call: Any) -> Any:
        names = {auriko: "AsyncClient", openai: "AsyncOpenAI"}
        async with getattr(self.module, names[self.module])(**wanted) as client:
            answer = await client.chat.completions.create(**call)
            if not call.get("stream"):
                return answer
            async for chunk in answer:
                chunks.append(chunk)
            return chunks


SDKS = {
    "auriko": Sdk(auriko, False),
    "auriko-async": Sdk(auriko, True),
    "openai": Sdk(openai, False),
    "openai-async": Sdk(openai, True),
}


@pytest.fixture(autouse=True)
def no_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares every client the 20 ms that reading the world's certificates takes."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))


@pytest.fixture(params=list(SDKS.values()), ids=list(SDKS))
def sdk(request: pytest.FixtureRequest) -> Sdk:
    found: Sdk = request.param
    return found


def text(answer: Any) -> str:
    """What a completion or a list of chunks says."""
    if not hasattr(answer, "choices"):
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    content: str = answer.choices[0].message.content
    return content


def post(gateway: Gateway, model: str = "gpt-4o", **more: Any) -> httpx.Response:
    """A plain POST with no SDK in between."""
    body = {"model": model, "messages": MESSAGES, **more}
    return httpx.post(f"{gateway.url}/chat/completions", json=body)


# Answers that work.


def test_a_completion_names_the_model(sdk: Sdk) -> None:
    """A plain answer parses with the SDK and says which model it is from."""
    with Gateway() as gateway:
        answer = sdk.ask(gateway, "claude-sonnet-4-6")
    assert text(answer) == "Hello from claude-sonnet-4-6."
    assert (answer.model, answer.object) == ("claude-sonnet-4-6", "chat.completion")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 3


def test_a_stream_has_all_its_parts(sdk: Sdk) -> None:
    """A stream begins with the role, ends with the finish and the usage, and says the text."""
    with Gateway() as gateway:
        chunks = sdk.ask(gateway, stream=True)
    assert text(chunks) == "Hello from gpt-4o."
    first, *content, finish, last = chunks
    assert first.choices[0].delta.role == "assistant"
    assert [c.choices[0].delta.content for c in content] == ["Hello", " from", " gpt-4o."]
    assert finish.choices[0].finish_reason == "stop"
    assert (last.choices, last.usage.completion_tokens) == ([], 3)


@pytest.mark.parametrize("stream", [False, True])
def test_the_plans_own_text_is_said(sdk: Sdk, stream: bool) -> None:
    """`Ok(text)` says exactly that, spaces included, plain and streamed."""
    with Gateway(Ok("two  spaces, ümlaut ")) as gateway:
        assert text(sdk.ask(gateway, stream=stream)) == "two  spaces, ümlaut "


def test_routing_metadata_and_limits_are_read_by_the_auriko_sdk() -> None:
    """Auriko's typed extras, routing metadata and rate limit headers, are there."""
    with (
        Gateway() as gateway,
        Client(api_key="any", base_url=gateway.base_url) as client,
    ):
        answer = client.chat.completions.create(model="m", messages=MESSAGES)
        stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        list(stream)
    assert answer.routing_metadata is not None
    assert stream.routing_metadata is not None
    assert answer.routing_metadata.model_canonical == stream.routing_metadata.model_canonical == "m"
    assert stream.usage is not None
    for headers, number in ((answer.response_headers, 1), (stream.response_headers, 2)):
        assert headers is not None
        assert headers.request_id == f"req_0000000{number}"
        assert (headers.rate_limit_limit, headers.rate_limit_remaining) == (1000, 1000 - number)
        reset = datetime.fromisoformat((headers.rate_limit_reset or "").replace("Z", "+00:00"))
        assert timedelta(0) < reset - datetime.now(timezone.utc) <= timedelta(seconds=60)


def test_routing_metadata_is_read_from_the_openai_sdk() -> None:
    """Auriko's own helper finds the metadata in what the OpenAI SDK parsed."""
    with Gateway() as gateway:
        found = parse_routing_metadata(SDKS["openai"].ask(gateway, "m"))
    assert found is not None
    assert found.model_canonical == "m"


def test_a_late_answer_is_late(sdk: Sdk) -> None:
    """`delay` holds the answer back for that long."""
    late = timedelta(seconds=0.05)
    with Gateway([Ok(delay=0.05), Error("upstream_error", delay=late)]) as gateway:
        started = time.monotonic()
        sdk.ask(gateway)
        assert time.monotonic() - started >= 0.05
        started = time.monotonic()
        with pytest.raises(sdk.errors.APIStatusError):
            sdk.ask(gateway)
        assert time.monotonic() - started >= 0.05


# Errors.

ERRORS = [
    # code, Auriko's class, OpenAI's class
    ("invalid_request", "BadRequestError", "BadRequestError"),
    ("payload_too_large", "BadRequestError", "APIStatusError"),
    ("invalid_api_key", "AuthenticationError", "AuthenticationError"),
    ("insufficient_permissions", "PermissionDeniedError", "PermissionDeniedError"),
    ("model_not_found", "NotFoundError", "NotFoundError"),
    ("duplicate_resource", "ConflictError", "ConflictError"),
    ("rate_limit_exceeded", "RateLimitError", "RateLimitError"),
    ("insufficient_quota", "RateLimitError", "RateLimitError"),
    ("internal_error", "InternalServerError", "InternalServerError"),
    ("upstream_error", "APIStatusError", "InternalServerError"),
    ("service_unavailable", "APIStatusError", "InternalServerError"),
    ("upstream_timeout", "APIStatusError", "InternalServerError"),
]


@pytest.mark.parametrize(("code", "of_auriko", "of_openai"), ERRORS, ids=[e[0] for e in ERRORS])
def test_each_code_comes_as_its_class(sdk: Sdk, code: str, of_auriko: str, of_openai: str) -> None:
    """An error code arrives as the SDK's own class, with status, type, code and request id."""
    with Gateway(code) as gateway, pytest.raises(sdk.errors.APIStatusError) as caught:
        sdk.ask(gateway)
    error: Any = caught.value
    assert type(error).__name__ == (of_auriko if sdk.module is auriko else of_openai)
    assert (error.status_code, error.type, error.code) == (
        CODES[code].status,
        CODES[code].type,
        code,
    )
    assert error.request_id == "req_00000001"
    assert error.param is None


def test_an_error_instead_of_a_stream(sdk: Sdk) -> None:
    """A streaming call gets a planned error as a plain error, before any chunk."""
    chunks: list[Any] = []
    with (
        Gateway("upstream_error") as gateway,
        pytest.raises(sdk.errors.APIStatusError) as caught,
    ):
        sdk.watch(gateway, chunks, stream=True)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_error")
    assert chunks == []


def test_all_ten_classes_of_auriko_are_reached() -> None:
    """Every public exception class of the Auriko SDK comes over the wire, bases included."""
    everything = {name for name in auriko.errors.__all__ if name.endswith("Error")}
    seen: set[str] = set()
    plan: list[Answer | str] = [Drop(), *(code for code, _, _ in ERRORS)]
    with Gateway(plan) as gateway:
        for _ in plan:
            with pytest.raises(auriko.errors.AurikoAPIError) as caught:
                SDKS["auriko"].ask(gateway)
            seen |= {cls.__name__ for cls in type(caught.value).__mro__}
    assert len(everything) == 10
    assert everything <= seen


def test_every_code_with_a_status_can_be_sent() -> None:
    """The whole table goes over the wire as it stands, the SDK's own inventions aside."""
    made_up = {"api_connection_error", "invalid_response", "malformed_response", "missing_api_key"}
    sendable = [code for code, found in CODES.items() if found.status and code not in made_up]
    assert len(sendable) > 60
    with (
        Gateway({code: code for code in sendable}) as gateway,
        httpx.Client(base_url=gateway.base_url) as client,
    ):
        for code in sendable:
            answer = client.post("/chat/completions", json={"model": code})
            error = answer.json()["error"]
            assert answer.status_code == CODES[code].status
            assert (error["code"], error["type"]) == (code, CODES[code].type)
            assert answer.headers["content-type"] == "application/json; charset=utf-8"


def test_the_details_of_an_error_reach_both_sdks(sdk: Sdk) -> None:
    """Provider, param, doc_url and Retry-After are where each SDK puts them."""
    planned = Error("rate_limit_exceeded", retry_after=7.5, param="model", provider="acme")
    with Gateway(planned) as gateway, pytest.raises(sdk.errors.RateLimitError) as caught:
        sdk.ask(gateway)
    error: Any = caught.value
    url = "https://docs.auriko.ai/errors/rate_limit_exceeded"
    assert error.param == "model"
    if sdk.module is auriko:
        assert error.retry_after_seconds == 7.5
        assert (error.provider, error.doc_url) == ("acme", url)
        assert error.response_headers.rate_limit_remaining == 0
    else:
        assert error.response.headers["retry-after"] == "7.5"
        assert (error.body["provider"], error.body["doc_url"]) == ("acme", url)


def test_the_headers_of_errors() -> None:
    """The diagnostic headers tell type, retryability, provider and whose limit it was."""
    plan: dict[str, Plan] = {
        "ours": Error(
            "rate_limit_exceeded",
            retry_after=timedelta(minutes=2),
            headers={"X-Rate-Limit-Source": "auriko"},
        ),
        "theirs": Error("rate_limit_exceeded", provider="acme", retry_after_ms=1500),
        "bad": "invalid_request",
        "down": "service_unavailable",
    }
    with Gateway(plan) as gateway:
        ours, theirs, bad, down = (post(gateway, model).headers for model in plan)
    assert (ours["retry-after"], ours["x-rate-limit-source"]) == ("120", "auriko")
    assert (ours["x-error-type"], ours["x-error-retryable"]) == ("rate_limit", "true")
    reset = datetime.fromisoformat(ours["x-ratelimit-reset-requests"].replace("Z", "+00:00"))
    assert 100 < (reset - datetime.now(timezone.utc)).total_seconds() <= 120
    assert (theirs["x-error-provider"], theirs["x-rate-limit-source"]) == ("acme", "upstream")
    assert theirs["retry-after-ms"] == "1500"
    assert "retry-after" not in theirs
    assert (bad["x-error-type"], bad["x-error-retryable"]) == ("invalid_request", "false")
    assert (down["x-error-type"], down["x-error-retryable"]) == ("server_error", "true")
    assert "x-rate-limit-source" not in down


@pytest.mark.parametrize(
    "raw", ["Wed, 21 Oct 2037 07:28:00 GMT", "nan", "inf", "-1", "1e400", "soon"]
)
def test_a_raw_retry_after_goes_out_as_it_is(raw: str) -> None:
    """A string is sent untouched, dates and nonsense included."""
    with Gateway(Error("service_unavailable", retry_after=raw)) as gateway:
        assert post(gateway).headers["retry-after"] == raw


def test_a_plans_headers_and_status_win(sdk: Sdk) -> None:
    """`headers` replace ours whatever their case, and `status` replaces the code's."""
    planned = Error("upstream_error", headers={"X-Request-ID": "mine", "x-new": "1"}, status=529)
    with Gateway(planned) as gateway:
        with pytest.raises(sdk.errors.APIStatusError) as caught:
            sdk.ask(gateway)
        answer = post(gateway)
    assert caught.value.request_id == "mine"
    assert caught.value.status_code == answer.status_code == 529
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert answer.headers["x-new"] == "1"


def test_a_proxys_page(sdk: Sdk) -> None:
    """An HTML page has no code for OpenAI, and is malformed_response for Auriko."""
    with Gateway(ProxyError(503)) as gateway, pytest.raises(sdk.errors.APIStatusError) as caught:
        sdk.ask(gateway)
    error: Any = caught.value
    assert error.status_code == 503
    assert error.code == ("malformed_response" if sdk.module is auriko else None)
    assert "<html>" in error.body if sdk.module is auriko else "<html>" in error.response.text
    assert error.request_id is None


def test_json_that_is_no_envelope(sdk: Sdk) -> None:
    """JSON of another shape has no code for OpenAI, and is malformed_response for Auriko."""
    with Gateway(Malformed()) as gateway, pytest.raises(sdk.errors.APIStatusError) as caught:
        sdk.ask(gateway)
    error: Any = caught.value
    assert error.status_code == 500
    assert error.code == ("malformed_response" if sdk.module is auriko else None)
    assert error.request_id == "req_00000001"


def test_nonsense_with_status_200() -> None:
    """With status 200, Auriko raises invalid_response or pydantic's error, OpenAI nothing."""
    with Gateway({"html": ProxyError(200), "json": Malformed(200)}) as gateway:
        with pytest.raises(auriko.errors.APIStatusError) as caught:
            SDKS["auriko"].ask(gateway, "html")
        assert (caught.value.code, caught.value.status_code) == ("invalid_response", 200)
        with pytest.raises(pydantic.ValidationError):
            SDKS["auriko"].ask(gateway, "json")
        assert "<html>" in SDKS["openai"].ask(gateway, "html")
        assert SDKS["openai"].ask(gateway, "json").choices is None


# No answer.


@pytest.mark.parametrize("stream", [False, True])
def test_a_dropped_connection(sdk: Sdk, stream: bool) -> None:
    """`Drop` ends the connection without an answer, a RemoteProtocolError below the SDK's."""
    with Gateway(Drop()) as gateway, pytest.raises(sdk.errors.APIConnectionError) as caught:
        sdk.ask(gateway, stream=stream)
    assert type(caught.value.__cause__).__name__ == "RemoteProtocolError"


def test_a_hanging_request_times_out(sdk: Sdk) -> None:
    """`Hang` holds the request until the client's own timeout."""
    with Gateway(Hang()) as gateway, pytest.raises(sdk.errors.APIConnectionError) as caught:
        sdk.ask(gateway, timeout=0.05)
    assert type(caught.value.__cause__).__name__ == "ReadTimeout"


def test_a_hang_with_an_end_closes_the_connection() -> None:
    """`Hang(seconds)` closes the connection unanswered after that long."""
    with Gateway(Hang(0.1)) as gateway:
        started = time.monotonic()
        with pytest.raises(httpx.RemoteProtocolError):
            post(gateway)
        assert time.monotonic() - started >= 0.1


def test_a_stopped_gateway_refuses_connections(sdk: Sdk) -> None:
    """After the stop the address is still known, and nobody answers there."""
    with Gateway() as gateway:
        pass
    with pytest.raises(sdk.errors.APIConnectionError) as caught:
        sdk.ask(gateway)
    assert type(caught.value.__cause__).__name__ == "ConnectError"


# Streams that go wrong.


@pytest.mark.parametrize("name", ["auriko", "openai-async"])
def test_a_slow_start_outlasts_the_read_timeout(name: str) -> None:
    """Keep-alive comments reset the client's timeout while the first content is not there."""
    with Gateway(SlowStart(0.5)) as gateway:
        started = time.monotonic()
        chunks = SDKS[name].ask(gateway, stream=True, timeout=0.35)
    assert time.monotonic() - started >= 0.5
    assert text(chunks) == "Hello from gpt-4o."


def test_a_slow_start_sends_the_role_at_once() -> None:
    """Headers, role and the first comment come before the wait, the content after it."""
    body = {"model": "m", "stream": True}
    with (
        Gateway(SlowStart(0.3)) as gateway,
        httpx.stream("POST", f"{gateway.url}/chat/completions", json=body) as answer,
    ):
        started = time.monotonic()
        came: dict[str, float] = {}
        for line in answer.iter_lines():
            word = next((w for w in ("role", "keep-alive", "Hello", "DONE") if w in line), "")
            came.setdefault(word, time.monotonic() - started)
    assert came["role"] < 0.2
    assert came["keep-alive"] < 0.2
    assert 0.25 < came["Hello"] <= came["DONE"]


def test_a_slow_start_makes_a_plain_answer_late(sdk: Sdk) -> None:
    """Without a stream, `SlowStart` is a late answer that does run into the timeout."""
    with Gateway(SlowStart(0.15)) as gateway:
        with pytest.raises(sdk.errors.APIConnectionError):
            sdk.ask(gateway, timeout=0.05)
        assert text(sdk.ask(gateway)) == "Hello from gpt-4o."


@pytest.mark.parametrize(("after", "said"), [(0, ""), (2, "Hello from"), (4, "Hello from m.Hello")])
def test_a_cut_stream(sdk: Sdk, after: int, said: str) -> None:
    """The connection breaks after exactly so many content chunks, in each SDK's own way."""
    raised = httpx.RemoteProtocolError if sdk.module is auriko else openai.APIConnectionError
    chunks: list[Any] = []
    with Gateway(CutStream(after)) as gateway, pytest.raises(raised):
        sdk.watch(gateway, chunks, "m", stream=True)
    assert text(chunks) == said


def test_a_cut_plain_answer(sdk: Sdk) -> None:
    """Without a stream, `CutStream` breaks the body half-way."""
    with Gateway(CutStream()) as gateway, pytest.raises(sdk.errors.APIConnectionError) as caught:
        sdk.ask(gateway)
    assert type(caught.value.__cause__).__name__ == "RemoteProtocolError"


@pytest.mark.parametrize("code", ["upstream_error", "stream_duration_exceeded"])
@pytest.mark.parametrize(("after", "said"), [(0, ""), (2, "Hello from")])
def test_an_error_in_a_stream(sdk: Sdk, code: str, after: int, said: str) -> None:
    """An error event comes after so many content chunks, with its code and no useful status."""
    chunks: list[Any] = []
    base = auriko.errors.APIStatusError if sdk.module is auriko else openai.APIError
    with Gateway(ErrorInStream(code, after)) as gateway, pytest.raises(base) as caught:
        sdk.watch(gateway, chunks, stream=True)
    error: Any = caught.value
    assert text(chunks) == said
    assert (error.code, error.type) == (code, "api_error")
    assert getattr(error, "status_code", None) == (200 if sdk.module is auriko else None)


def test_an_error_in_a_stream_asked_for_plainly(sdk: Sdk) -> None:
    """A plain request gets the error as its answer, or no answer where the code has no status."""
    plan = {"a": ErrorInStream("upstream_error"), "b": ErrorInStream("client_disconnected")}
    with Gateway(plan) as gateway:
        with pytest.raises(sdk.errors.APIStatusError) as caught:
            sdk.ask(gateway, "a")
        assert caught.value.status_code == 502
        with pytest.raises(sdk.errors.APIConnectionError):
            sdk.ask(gateway, "b")


def test_a_client_that_leaves_a_stream_does_no_harm() -> None:
    """A stream closed half-way leaves the gateway well."""
    body = {"model": "m", "stream": True}
    with Gateway([SlowStart(30), Ok()]) as gateway:
        with httpx.stream("POST", f"{gateway.url}/chat/completions", json=body) as answer:
            next(answer.iter_lines())
        assert post(gateway, "m").status_code == 200


# Plans.


def answers(gateway: Gateway, model: str, times: int) -> list[str]:
    """The names of what a model got."""
    for _ in range(times):
        try:
            post(gateway, model)
        except httpx.RemoteProtocolError:
            pass
    return [received.answer for received in gateway.requests_for(model)][-times:]


def test_one_answer_is_given_always() -> None:
    """A single answer holds for every request."""
    with Gateway({"m": "upstream_error"}) as gateway:
        assert answers(gateway, "m", 3) == ["upstream_error"] * 3


def test_a_list_is_worked_through_and_its_last_repeated() -> None:
    """A list gives one answer per request, then its last one."""
    with Gateway({"m": ["service_unavailable", Drop(), Ok()]}) as gateway:
        assert answers(gateway, "m", 5) == ["service_unavailable", "drop", "ok", "ok", "ok"]


@pytest.mark.parametrize("plan", [["internal_error", Ok()], {"*": ("internal_error", Ok())}])
def test_each_model_counts_for_itself(plan: Any) -> None:
    """Under "*" and in a plan for all, every model goes through the list on its own."""
    with Gateway(plan) as gateway:
        for model in ("a", "b"):
            assert answers(gateway, model, 2) == ["internal_error", "ok"]


def test_a_named_model_goes_before_the_star() -> None:
    """The star is for models without a plan of their own."""
    with Gateway({"a": "internal_error", "*": Ok()}) as gateway:
        assert answers(gateway, "a", 1) == ["internal_error"]
        assert answers(gateway, "b", 1) == ["ok"]


def test_an_unplanned_model_is_not_found(sdk: Sdk) -> None:
    """Without a star, other models get the real service's model_not_found."""
    with Gateway({"a": Ok()}) as gateway, pytest.raises(sdk.errors.NotFoundError) as caught:
        sdk.ask(gateway, "b")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_timetable_goes_by_the_clock() -> None:
    """Answers change with the seconds since the start, and begin anew at a reset."""
    plan = Timetable((0, Ok()), (timedelta(seconds=0.15), "service_unavailable"), (0.3, Ok("back")))
    with Gateway({"m": plan}) as gateway:
        seen: list[str] = []
        while gateway.requests[-1:] == [] or gateway.requests[-1].at < 0.3:
            seen += answers(gateway, "m", 1)
            time.sleep(0.02)
        assert sorted(set(seen), key=seen.index) == ["ok", "service_unavailable"]
        assert seen[-1] == "ok"
        gateway.reset()
        assert post(gateway, "m").json()["choices"][0]["message"]["content"] == "Hello from m."
    assert plan.at(0.2) == Error("service_unavailable")
    assert plan.at(99) == Ok("back")


def test_a_reset_begins_anew() -> None:
    """After a reset lists start again, and nothing is remembered."""
    with Gateway(["internal_error", Ok()]) as gateway:
        assert answers(gateway, "m", 2) == ["internal_error", "ok"]
        gateway.reset()
        assert gateway.requests == []
        assert answers(gateway, "m", 1) == ["internal_error"]
        assert gateway.requests[0].number == 1


def test_the_models_of_the_gateway_option_are_heard() -> None:
    """A request with Auriko's `gateway.models` is one for the first of them."""
    with (
        Gateway() as gateway,
        Client(api_key="any", base_url=gateway.url) as client,
    ):
        answer = client.chat.completions.create(
            messages=MESSAGES, gateway={"models": ["first", "second"]}
        )
    assert answer.model == "first"


# What it remembers.


def test_requests_are_remembered(sdk: Sdk) -> None:
    """Number, path, model, time, body, headers, answer and the stream flag are kept."""
    with Gateway({"a": Ok(), "b": "internal_error"}) as gateway:
        sdk.ask(gateway, "a", stream=True, temperature=0.5)
        with pytest.raises(sdk.errors.InternalServerError) as caught:
            sdk.ask(gateway, "b", api_key="secret")
        first, second = gateway.requests
    assert (first.number, first.model, first.answer, first.stream) == (1, "a", "ok", True)
    assert (second.number, second.model, second.answer, second.stream) == (
        2,
        "b",
        "internal_error",
        False,
    )
    assert first.path == "/v1/chat/completions"
    assert first.body["temperature"] == 0.5
    assert 0 <= first.at <= second.at < 5
    assert second.headers["authorization"] == "Bearer secret"
    assert second.request_id == caught.value.request_id
    assert gateway.requests_for("b") == [second]
    assert gateway.hits == {"a": 1, "b": 1}
    assert gateway.hits["c"] == 0
    assert "secret" not in repr(second)
    assert "Hello?" not in repr(second)


def test_many_threads_at_once() -> None:
    """Requests of many threads are all counted, each with a number and an answer of its own."""
    with Gateway(["internal_error"] * 20 + [Ok()]) as gateway:
        with httpx.Client(base_url=gateway.base_url) as client:

            def ask() -> None:
                for _ in range(5):
                    client.post("/chat/completions", json={"model": "m"})

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        seen = gateway.requests
    assert sorted(received.number for received in seen) == list(range(1, 41))
    assert [received.answer for received in seen].count("internal_error") == 20


def test_connections_are_kept_alive() -> None:
    """One client uses one connection for one request after the other, errors included."""
    with (
        Gateway(["internal_error", Ok(), Ok()]) as gateway,
        httpx.Client(base_url=gateway.base_url) as client,
    ):
        addresses: set[Any] = set()
        for _ in range(3):
            with client.stream("POST", "/chat/completions", json={"model": "m"}) as answer:
                answer.read()
                addresses.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(addresses) == 1


# Requests that are wrong.


def test_a_key_is_asked_for_where_one_is_given(sdk: Sdk) -> None:
    """With `api_key`, another key and no key get invalid_api_key."""
    with Gateway(api_key="right") as gateway:
        assert text(sdk.ask(gateway, api_key="right"))
        with pytest.raises(sdk.errors.AuthenticationError) as caught:
            sdk.ask(gateway, api_key="wrong")
        assert caught.value.code == "invalid_api_key"
        assert post(gateway).status_code == 401
    assert "right" not in repr(gateway)


def test_wrong_requests_get_the_envelope() -> None:
    """Unknown paths, wrong methods, bodies that are no JSON or lack a model are told so."""
    with Gateway(Ok()) as gateway, httpx.Client(base_url=gateway.base_url) as client:
        told = [
            client.get("/nowhere"),
            client.get("/chat/completions"),
            client.post("/chat/completions", content=b"{nonsense"),
            client.post("/chat/completions", json=[1]),
            client.post("/chat/completions", json={"messages": []}),
        ]
        assert [(answer.status_code, answer.json()["error"]["code"]) for answer in told] == [
            (404, "resource_not_found"),
            (405, "method_not_allowed"),
            (400, "invalid_request"),
            (400, "invalid_request"),
            (400, "missing_required_parameter"),
        ]
        assert [received.answer for received in gateway.requests] == [
            answer.json()["error"]["code"] for answer in told
        ]
        assert gateway.requests[0].path == "/v1/nowhere"
        assert gateway.hits == {}


def test_the_models_are_listed() -> None:
    """`models.list()` of the OpenAI SDK gives the models with plans of their own."""
    with (
        Gateway({"a": Ok(), "b": Ok(), "*": Ok()}) as gateway,
        openai.OpenAI(api_key="any", base_url=gateway.url, max_retries=0) as client,
    ):
        assert [model.id for model in client.models.list()] == ["a", "b"]


# Its life.


def test_it_is_ready_within_a_second() -> None:
    """From nothing, imports included, to the first answer takes less than a second."""
    started = time.monotonic()
    with Gateway() as gateway:
        assert time.monotonic() - started < 1
        assert post(gateway).status_code == 200


def stopped_within(gateway: Gateway, stop: Callable[[], object]) -> float:
    """How long a stop takes while two requests hang and one connection is idle."""
    with httpx.Client(base_url=gateway.base_url, timeout=10) as client:
        client.get("/models")
        failures: list[Exception] = []

        def ask(**more: Any) -> None:
            try:
                client.post("/chat/completions", json={"model": "m", **more})
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=ask), threading.Thread(target=ask, kwargs={"stream": 1})]
        for thread in threads:
            thread.start()
        while len(gateway.requests) < 2:
            time.sleep(0.001)
        started = time.monotonic()
        stop()
        took = time.monotonic() - started
        for thread in threads:
            thread.join(5)
    assert [type(failure) for failure in failures] == [httpx.RemoteProtocolError] * 2
    return took


def gateway_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "gateway" in thread.name]


@pytest.mark.parametrize("plan", [Hang(), Ok(delay=60), Hang(60)], ids=repr)
def test_it_stops_at_once_while_requests_hang(
    plan: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A stop cuts what hangs, leaves no thread, prints and logs nothing."""
    caplog.set_level(logging.DEBUG)
    gateway = Gateway(plan)
    gateway.start()
    assert stopped_within(gateway, gateway.stop) < 0.5
    assert gateway_threads() == []
    assert capfd.readouterr() == ("", "")
    heard = {record.name.split(".")[0] for record in caplog.records}
    assert heard <= {"asyncio", "httpx", "httpcore"}
    assert max((record.levelno for record in caplog.records), default=0) < logging.WARNING


def test_a_stream_is_cut_by_a_stop() -> None:
    """A stream under way does not hold up the stop either."""
    gateway = Gateway(SlowStart(60))
    gateway.start()
    body = {"model": "m", "stream": True}
    with httpx.stream("POST", f"{gateway.url}/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        started = time.monotonic()
        gateway.stop()
        assert time.monotonic() - started < 0.5
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert gateway_threads() == []


async def _used_in_async_code() -> None:
    async with Gateway(Hang()) as gateway, httpx.AsyncClient() as client:
        url = f"{gateway.url}/chat/completions"
        with pytest.raises(httpx.ReadTimeout):
            await client.post(url, json={"model": "m"}, timeout=0.05)
        assert len(gateway.requests) == 1


@pytest.mark.parametrize("world", ["asyncio", "trio"])
def test_it_is_an_async_context_manager(world: str) -> None:
    """`async with` works under asyncio and trio, and leaves no thread."""
    if world == "asyncio":
        asyncio.run(_used_in_async_code())
    else:
        trio.run(_used_in_async_code)
    assert gateway_threads() == []


def test_async_use_does_not_block_the_loop() -> None:
    """While the gateway starts and stops, other tasks go on."""

    async def main() -> float:
        gaps = [0.0]

        async def tick() -> None:
            while True:
                started = time.monotonic()
                await asyncio.sleep(0.001)
                gaps.append(time.monotonic() - started)

        ticking = asyncio.create_task(tick())
        for _ in range(5):
            async with Gateway():
                await asyncio.sleep(0.002)
        ticking.cancel()
        return max(gaps)

    assert asyncio.run(main()) < 0.2


def test_a_cancelled_start_leaves_nothing() -> None:
    """A task that is cancelled while entering does not leave a running gateway."""

    async def enter() -> None:
        async with Gateway():
            await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.create_task(enter())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    ended = time.monotonic() + 1
    while gateway_threads() and time.monotonic() < ended:
        time.sleep(0.005)
    assert gateway_threads() == []


def test_an_interrupted_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while it waits to be ready comes out, and the thread ends by itself."""

    async def interrupting(*args: Any) -> None:
        _thread.interrupt_main()
        await serve(*args)

    monkeypatch.setattr("resilience.testing.server.serve", interrupting)
    with pytest.raises(KeyboardInterrupt):
        Gateway().start()
    ended = time.monotonic() + 5
    while gateway_threads() and time.monotonic() < ended:
        time.sleep(0.005)
    assert gateway_threads() == []


def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own error comes out of the start, and no thread is left."""

    async def fail(self: uvicorn.Server, sockets: Any) -> None:
        raise OSError("no more descriptors")

    monkeypatch.setattr(uvicorn.Server, "serve", fail)
    with pytest.raises(OSError, match="no more descriptors"):
        Gateway().start()
    assert gateway_threads() == []


def test_a_handler_that_hangs_holds_up_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that does not notice that its client is gone is waited for a moment only."""
    deaf = threading.Event()

    async def hang(http: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            deaf.set()

    monkeypatch.setattr("resilience.testing.server._gone", hang)
    gateway = Gateway(Drop())
    gateway.start()
    with pytest.raises(httpx.RemoteProtocolError):
        post(gateway)
    started = time.monotonic()
    gateway.stop()
    assert time.monotonic() - started < 2
    assert deaf.is_set()
    assert gateway_threads() == []


def test_a_client_that_leaves_before_it_has_asked() -> None:
    """Half a request is no request: it is not remembered, and the next one is answered."""
    with Gateway() as gateway:
        url = httpx.URL(gateway.url)
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Length: 99\r\n\r\n{"
        with socket.create_connection((url.host, url.port)) as client:
            client.sendall(head.encode())
            client.shutdown(socket.SHUT_WR)
            while client.recv(1024):
                pass
        assert post(gateway).status_code == 200
        assert len(gateway.requests) == 1


def test_start_and_stop_by_hand() -> None:
    """A stopped gateway may start again; two stops do no harm, two starts are refused."""
    gateway = Gateway(["internal_error", Ok()])
    with pytest.raises(RuntimeError, match="not started"):
        _ = gateway.base_url
    assert repr(gateway) == "<Gateway, not started>"
    gateway.stop()
    for _ in range(2):
        gateway.start()
        assert gateway.url == gateway.base_url
        assert gateway.url.startswith("http://127.0.0.1:")
        assert gateway.url.endswith("/v1")
        assert answers(gateway, "m", 1) == ["internal_error"]
        with pytest.raises(RuntimeError, match="runs already"):
            gateway.start()
        gateway.stop()
        gateway.stop()
    assert "stopped" in repr(gateway)
    assert len(gateway.requests) == 1


def test_two_gateways_live_side_by_side() -> None:
    """Each has a port, a plan and a memory of its own."""
    with Gateway(Ok("one")) as one, Gateway(Ok("two")) as two:
        assert text(SDKS["auriko"].ask(one)) == "one"
        assert text(SDKS["openai"].ask(two)) == "two"
        assert len(one.requests) == len(two.requests) == 1


@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_a_missing_anyio_is_named_where_it_is_needed(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`async with` needs it, and says which extra brings it; no thread is left."""
    monkeypatch.setitem(sys.modules, "anyio", None)

    async def enter() -> None:
        async with Gateway():
            pytest.fail("entered")

    with pytest.raises(ImportError, match=r"resilience-policies\[testing\]"):
        asyncio.run(enter()) if way == "asyncio" else trio.run(enter)
    ended = time.monotonic() + 5
    while gateway_threads() and time.monotonic() < ended:
        time.sleep(0.005)
    assert gateway_threads() == []


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_a_missing_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without starlette or uvicorn, starting says which extra to install."""
    for name in [*sys.modules]:
        if name.split(".")[0] == missing or name == "resilience.testing.server":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    gateway = Gateway()
    with pytest.raises(ImportError, match=r"resilience-policies\[testing\]"):
        gateway.start()

    async def enter() -> None:
        async with gateway:
            pass

    with pytest.raises(ImportError, match=r"resilience-policies\[testing\]"):
        asyncio.run(enter())
    assert gateway_threads() == []


def test_importing_the_gateway_imports_no_server() -> None:
    """starlette, uvicorn and the SDKs are not imported before a gateway starts."""
    program = (
        "import sys, json, resilience.testing.gateway;"
        "print(json.dumps([m for m in ('starlette', 'uvicorn', 'anyio', 'httpx', 'auriko')"
        " if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_received_request_is_a_value() -> None:
    """What is remembered cannot be changed, and the list is the caller's own."""
    with Gateway() as gateway:
        post(gateway)
        gateway.requests.clear()
        received: Received = gateway.requests[0]
    with pytest.raises(AttributeError):
        received.answer = "other"  # type: ignore[misc]
