"""The local gateway, as the real SDKs see it over a socket."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import auriko
import auriko.errors
import httpx
import openai
import pydantic
import pytest
from auriko._client import Client
from auriko.route_types import parse_routing_metadata

from resilience.sdks.auriko import CODES
from resilience.testing.gateway import (
    Answer,
    Drop,
    Error,
    Gateway,
    Hang,
    Malformed,
    Ok,
    Plan,
    ProxyError,
    Timetable,
)
from support.gateway_clients import (
    MESSAGES,
    SDKS,
    Sdk,
    answers,
    every_sdk,
    post,
    text,
)

pytestmark = pytest.mark.real


# Answers that work.


@every_sdk
def test_a_completion_names_the_model(sdk: Sdk) -> None:
    """A plain answer parses with the SDK and says which model it is from."""
    with Gateway() as gateway:
        answer = sdk.ask(gateway, "claude-sonnet-4-6")
    assert text(answer) == "Hello from claude-sonnet-4-6."
    assert (answer.model, answer.object) == ("claude-sonnet-4-6", "chat.completion")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 3


@every_sdk
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


@every_sdk
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


@every_sdk
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


@every_sdk
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


@every_sdk
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


@every_sdk
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


@every_sdk
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


@every_sdk
def test_a_proxys_page(sdk: Sdk) -> None:
    """An HTML page has no code for OpenAI, and is malformed_response for Auriko."""
    with Gateway(ProxyError(503)) as gateway, pytest.raises(sdk.errors.APIStatusError) as caught:
        sdk.ask(gateway)
    error: Any = caught.value
    assert error.status_code == 503
    assert error.code == ("malformed_response" if sdk.module is auriko else None)
    assert "<html>" in error.body if sdk.module is auriko else "<html>" in error.response.text
    assert error.request_id is None


@every_sdk
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


@every_sdk
@pytest.mark.parametrize("stream", [False, True])
def test_a_dropped_connection(sdk: Sdk, stream: bool) -> None:
    """`Drop` ends the connection without an answer, a RemoteProtocolError below the SDK's."""
    with Gateway(Drop()) as gateway, pytest.raises(sdk.errors.APIConnectionError) as caught:
        sdk.ask(gateway, stream=stream)
    assert type(caught.value.__cause__).__name__ == "RemoteProtocolError"


@every_sdk
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


@every_sdk
def test_a_stopped_gateway_refuses_connections(sdk: Sdk) -> None:
    """After the stop the address is still known, and nobody answers there."""
    with Gateway() as gateway:
        pass
    with pytest.raises(sdk.errors.APIConnectionError) as caught:
        sdk.ask(gateway)
    assert type(caught.value.__cause__).__name__ == "ConnectError"


# Plans.


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


@every_sdk
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


@every_sdk
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


@every_sdk
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
