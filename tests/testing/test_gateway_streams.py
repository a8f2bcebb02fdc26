"""Streams of the local gateway that go wrong, as the real SDKs see them."""

from __future__ import annotations

import time
from typing import Any

import auriko
import auriko.errors
import httpx
import openai
import pytest

from resilience.testing.gateway import CutStream, ErrorInStream, Gateway, Ok, SlowStart
from support.gateway_clients import SDKS, Sdk, every_sdk, post, text

pytestmark = pytest.mark.real


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


@every_sdk
def test_a_slow_start_makes_a_plain_answer_late(sdk: Sdk) -> None:
    """Without a stream, `SlowStart` is a late answer that does run into the timeout."""
    with Gateway(SlowStart(0.15)) as gateway:
        with pytest.raises(sdk.errors.APIConnectionError):
            sdk.ask(gateway, timeout=0.05)
        assert text(sdk.ask(gateway)) == "Hello from gpt-4o."


@every_sdk
@pytest.mark.parametrize(("after", "said"), [(0, ""), (2, "Hello from"), (4, "Hello from m.Hello")])
def test_a_cut_stream(sdk: Sdk, after: int, said: str) -> None:
    """The connection breaks after exactly so many content chunks, in each SDK's own way."""
    raised = httpx.RemoteProtocolError if sdk.module is auriko else openai.APIConnectionError
    chunks: list[Any] = []
    with Gateway(CutStream(after)) as gateway, pytest.raises(raised):
        sdk.watch(gateway, chunks, "m", stream=True)
    assert text(chunks) == said


@every_sdk
def test_a_cut_plain_answer(sdk: Sdk) -> None:
    """Without a stream, `CutStream` breaks the body half-way."""
    with Gateway(CutStream()) as gateway, pytest.raises(sdk.errors.APIConnectionError) as caught:
        sdk.ask(gateway)
    assert type(caught.value.__cause__).__name__ == "RemoteProtocolError"


@every_sdk
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


@every_sdk
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
