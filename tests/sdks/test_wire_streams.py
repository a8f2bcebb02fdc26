"""Streams of the real SDKs: what is guarded is their opening, and they come out untouched."""

from __future__ import annotations

import gc
from typing import Any

import auriko
import openai
import pytest

from resilience import CircuitBreaker, CircuitOpenError, ModelFallback, Pipeline, Retry, Timeout
from resilience.testing.gateway import (
    CutStream,
    Drop,
    ErrorInStream,
    Gateway,
    Hang,
    Ok,
    Plan,
    SlowStart,
)
from test_wire import MESSAGES, SDKS, Connection, Sdk, answers, every_sdk, every_way, took

pytestmark = pytest.mark.real

ROBUST = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=0.001))
TYPES: dict[str, type] = {
    "auriko": auriko.Stream,
    "auriko-async": auriko.AsyncStream,
    "openai": openai.Stream,
    "openai-async": openai.AsyncStream,
}


def consumed(connection: Connection, stream: Any) -> list[Any]:
    """All chunks of a stream."""
    return connection.run(_later if hasattr(stream, "__aiter__") else list, stream)  # type: ignore[no-any-return]


async def _later(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


def said(chunks: list[Any]) -> str:
    """The text of a stream."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@every_way
@pytest.mark.parametrize("name", SDKS)
def test_a_stream_is_the_sdks_own(name: str, way: str) -> None:
    """The very stream object comes out, whole, with all that the SDK puts on it."""
    with Gateway() as gateway, SDKS[name].open(gateway) as connection:
        stream = connection.ask(ROBUST, "a", way, stream=True)
        assert type(stream) is TYPES[name]
        assert said(consumed(connection, stream)) == "Hello from a."
        assert gateway.requests[0].stream
        assert len(gateway.requests) == 1
        if name.startswith("auriko"):
            assert stream.usage.completion_tokens == 3
            assert stream.routing_metadata.model_canonical == "a"
            assert stream.response_headers.request_id == "req_00000001"
        else:
            assert stream.response.headers["x-request-id"] == "req_00000001"


@pytest.mark.parametrize("failure", ["upstream_error", Drop()], ids=["status", "drop"])
@every_sdk
def test_opening_is_retried(sdk: Sdk, failure: Any) -> None:
    """A failure before the stream is open is retried, and asks for a stream again."""
    with Gateway([failure, Ok()]) as gateway, sdk.open(gateway) as connection:
        stream = connection.ask(ROBUST, "a", stream=True)
        assert said(consumed(connection, stream)) == "Hello from a."
        assert [received.stream for received in gateway.requests] == [True, True]


@every_sdk
def test_opening_falls_back(sdk: Sdk) -> None:
    """A model that does not open a stream is followed by the next one."""
    plan: dict[str, Plan] = {"a": "streaming_not_supported", "b": Ok()}
    with Gateway(plan) as gateway, sdk.open(gateway) as connection:
        stream = connection.ask(ROBUST, "a", stream=True)
        assert said(consumed(connection, stream)) == "Hello from b."
        assert answers(gateway) == [("a", "streaming_not_supported"), ("b", "ok")]


@every_sdk
def test_opening_is_timed(sdk: Sdk) -> None:
    """A stream that does not open in time is left, and the next model's is opened."""
    pipeline = Pipeline(ModelFallback("a", "b"), Timeout(0.12))
    with Gateway({"a": Hang(), "b": Ok()}) as gateway, sdk.open(gateway) as connection:
        stream = connection.ask(pipeline, "a", stream=True)
        assert said(consumed(connection, stream)) == "Hello from b."


@pytest.mark.parametrize("name", ["auriko", "openai-async"])
def test_an_open_stream_is_not_timed(name: str) -> None:
    """A time limit ends when the stream is open: chunks may come later than that."""
    with Gateway(SlowStart(0.25)) as gateway, SDKS[name].open(gateway) as connection:
        stream = connection.ask(Pipeline(Timeout(0.15)), stream=True)
        with took(at_least=0.05):
            assert said(consumed(connection, stream)) == "Hello from gpt-4o."


@pytest.mark.parametrize(
    "break_off", [ErrorInStream("upstream_error"), CutStream()], ids=["error", "cut"]
)
@every_sdk
def test_nothing_is_repeated_after_opening(sdk: Sdk, break_off: Any) -> None:
    """What goes wrong in the stream comes out as the SDK has it, after one request."""
    with Gateway(break_off) as gateway, sdk.open(gateway) as connection:
        failures = []
        for ask in (connection.bare, lambda **more: connection.ask(ROBUST, "a", **more)):
            gateway.reset()
            stream = ask(stream=True)
            with pytest.raises(Exception) as caught:  # noqa: PT011  # compared below
                consumed(connection, stream)
            failures.append((type(caught.value), str(caught.value)))
            assert len(gateway.requests) == 1
    assert failures[0] == failures[1]


@every_sdk
def test_a_breaker_hears_of_opening(sdk: Sdk) -> None:
    """Streams that do not open break the circuit like other calls."""
    pipeline = Pipeline(CircuitBreaker(failures=2))
    with Gateway("service_unavailable") as gateway, sdk.open(gateway) as connection:
        for _ in range(2):
            with pytest.raises(sdk.errors.APIStatusError):
                connection.ask(pipeline, stream=True)
        with pytest.raises(CircuitOpenError):
            connection.ask(pipeline, stream=True)
        assert len(gateway.requests) == 2


# What OpenAI's SDK has besides `create`.


def managers(client: Any) -> dict[str, Any]:
    """Methods that return a context manager, which sends its request when it is entered."""
    return {
        "with_streaming_response": client.chat.completions.with_streaming_response.create,
        "stream": client.chat.completions.stream,
    }


@pytest.mark.parametrize("policies", [(Retry(),), (Retry(), Timeout(1))], ids=["rest", "full"])
@pytest.mark.parametrize("method", ["with_streaming_response", "stream"])
@pytest.mark.parametrize("name", ["openai", "openai-async"])
def test_stream_managers_are_refused(name: str, method: str, policies: Any) -> None:
    """A manager sends its request after the pipeline is done with it: a TypeError says so."""
    pipeline = Pipeline(*policies)
    with Gateway() as gateway, SDKS[name].open(gateway) as connection:
        fn = managers(connection.client)[method]
        call = {"model": "a", "messages": MESSAGES}
        with pytest.raises(TypeError, match=r"returned a stream manager .*Manager.* not be"):
            connection.run(pipeline.call, fn, **call)
        if SDKS[name].asynchronous:
            gc.collect()  # the request's coroutine, here rather than in another test
        assert gateway.requests == []


@pytest.mark.parametrize("name", ["openai", "openai-async"])
def test_raw_responses_are_guarded(name: str) -> None:
    """`with_raw_response.create` makes its request before it returns, so it is retried."""
    with Gateway(["upstream_error", Ok()]) as gateway, SDKS[name].open(gateway) as connection:
        create = connection.client.chat.completions.with_raw_response.create
        raw = connection.run(ROBUST.call, create, model="a", messages=MESSAGES)
        assert raw.headers["x-request-id"] == "req_00000002"
        assert raw.parse().model == "a"
        assert len(gateway.requests) == 2


@pytest.mark.parametrize("name", ["openai", "openai-async"])
def test_lists_of_models_are_guarded(name: str) -> None:
    """`models.list`, which gives a page (or an awaitable paginator), goes through as well."""
    with Gateway({"a": Ok(), "b": Ok()}) as gateway, SDKS[name].open(gateway) as connection:
        page = connection.run(Pipeline(Retry()).call, connection.client.models.list)
        assert [model.id for model in page.data] == ["a", "b"]
