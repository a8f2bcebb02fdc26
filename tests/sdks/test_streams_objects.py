"""What a consumer holds of a guarded stream: the SDK's own object, its helpers included."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import anthropic
import auriko
import httpx
import openai
import pytest

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    ModelFallback,
    Pipeline,
    Retry,
    Streaming,
    StreamInterruptedError,
    Timeout,
    guarded,
)
from resilience.events import AttemptEnded
from resilience.testing.gateway import CutStream, Drop, ErrorInStream, Gateway, Ok, Plan, SlowStart
from support.grammar import Watch
from support.playing import CUT, Player, Silence, Status
from support.polling import until
from support.streaming_cases import (
    CASES,
    MESSAGES,
    aclosed,
    closed,
    consumed,
)
from support.twice import Twice

pytestmark = [pytest.mark.real, pytest.mark.steady]

every_case = pytest.mark.parametrize("name", CASES)
ROBUST = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=0.001))


# The object


@pytest.mark.fault(308)
@every_case
def test_a_guarded_stream_has_what_the_sdks_has(name: str) -> None:
    """All its attributes and methods, by the same class or a subclass of its name."""

    def look(stream: Any) -> set[str]:
        return {each for each in dir(stream) if not each.startswith("_")}

    case = CASES[name]
    with Player([case.wire.whole], content_type=case.content_type) as server:
        bare = consumed(case, server.url, None, look=look)
        got = consumed(case, server.url, Pipeline(Retry()), look=look)

    assert (got.said, got.error) == ("one two", None)
    assert isinstance(got.stream, type(bare.stream))
    assert got.shown >= bare.shown
    assert [type(item) for item in got.items] == [type(item) for item in bare.items]


@pytest.mark.fault(308)
@pytest.mark.parametrize(
    "name", [name for name in CASES if not name.startswith(("cohere", "google", "ollama"))]
)
def test_closing_ends_the_connection(name: str) -> None:
    """`close()`, or leaving its `with`, is neither success nor failure; the server sees it."""
    case = CASES[name]
    breaker = CircuitBreaker(failures=1)
    with Player([[*case.wire.begun, Silence()]], content_type=case.content_type) as server:
        pipeline = Pipeline(breaker)
        if case.asynchronous:

            async def main() -> None:
                client = case.make(server.url)
                found = pipeline.wrap(lambda: case.ask(client))()
                found = await found if inspect.isawaitable(found) else found
                if hasattr(found, "__aenter__") and not hasattr(found, "__aiter__"):
                    async with found:
                        pass
                else:
                    await found.close()
                await asyncio.to_thread(until, lambda: server.left, 2)
                await aclosed(client)

            asyncio.run(main())
        else:
            client = case.make(server.url)
            found = pipeline.wrap(lambda: case.ask(client))()
            with found:
                pass
            until(lambda: server.left, 2)
            closed(client)
    assert breaker.state == "closed"
    assert breaker.snapshot().failures == 0


@pytest.mark.fault(308)
@pytest.mark.parametrize("name", ["Client", "AsyncClient"])
def test_aurikos_extras(name: str) -> None:
    """Usage, routing and headers are there when the stream has ended."""
    with Gateway() as gateway:
        client = getattr(auriko, name)(api_key="any", base_url=gateway.base_url, max_retries=0)

        def ask(*, model: str = "a") -> Any:
            return client.chat.completions.create(model=model, messages=MESSAGES, stream=True)

        async def aread() -> Any:
            stream = await ROBUST.wrap(ask)()
            async for _ in stream:
                pass
            await client.close()
            return stream

        if name == "AsyncClient":
            stream = asyncio.run(aread())
        else:
            stream = ROBUST.wrap(ask)()
            list(stream)
            client.close()
    assert stream.usage.completion_tokens == 3
    assert stream.routing_metadata.model_canonical == "a"
    assert stream.response_headers.request_id == "req_00000001"


@pytest.mark.fault(308)
def test_a_restarted_stream_shows_the_latest_response() -> None:
    """And says after how many items it began again."""
    with (
        Gateway([CutStream(1), Ok("one two")]) as gateway,
        openai.OpenAI(api_key="any", base_url=gateway.base_url, max_retries=0) as client,
    ):

        def ask() -> Any:
            return client.chat.completions.create(model="m", messages=MESSAGES, stream=True)

        stream = Pipeline(Streaming(on_interrupted="restart")).wrap(ask)()
        assert stream.response.headers["x-request-id"] == "req_00000001"
        text = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert text == ["", "Hello", "", "one", " two", ""]
        assert stream.response.headers["x-request-id"] == "req_00000002"
        assert stream.restarts == (2,)


# Helpers that read

Helper = Callable[[Any], Any]
HELPERS: dict[str, tuple[str, Helper]] = {
    "openai.get_final_completion": ("openai-stream", lambda s: s.get_final_completion()),
    "openai.until_done": ("openai-stream", lambda s: s.until_done()),
    "openai.get_final_response": ("openai-responses-stream", lambda s: s.get_final_response()),
    "openai.responses.until_done": ("openai-responses-stream", lambda s: s.until_done()),
    "anthropic.text_stream": ("anthropic-stream", lambda s: _all(s.text_stream)),
    "anthropic.get_final_message": ("anthropic-stream", lambda s: s.get_final_message()),
    "anthropic.get_final_text": ("anthropic-stream", lambda s: s.get_final_text()),
    "anthropic.until_done": ("anthropic-stream", lambda s: s.until_done()),
}


def _all(items: Any) -> Any:
    async def collect() -> list[Any]:
        return [item async for item in items]

    return collect() if hasattr(items, "__aiter__") else list(items)


def helped(name: str, helper: Helper, url: str, pipeline: Pipeline | None) -> Any:
    """What a helper of a stream gives, under a pipeline or bare."""
    case = CASES[name]
    client = case.make(url)
    fn: Any = lambda: case.ask(client)  # noqa: E731
    fn = fn if pipeline is None else pipeline.wrap(fn)

    async def main() -> Any:
        async with client, fn() as stream:
            return await helper(stream)

    if case.asynchronous:
        return asyncio.run(main())
    with client, fn() as stream:
        return helper(stream)


@pytest.mark.fault(307)
@pytest.mark.parametrize("suffix", ["", "-async"])
@pytest.mark.parametrize("helper", HELPERS)
def test_helpers(helper: str, suffix: str) -> None:
    """They give what the bare SDK's give, after a failure before content too; an interruption is
    theirs as well, and never a truncated answer."""
    name, read = HELPERS[helper][0] + suffix, HELPERS[helper][1]
    wire = CASES[name].wire
    pipeline = Pipeline(Retry(attempts=3, wait=0))
    broken = [[Status(503)], [*wire.opening, CUT], wire.whole]

    with Player([wire.whole]) as server:
        bare = helped(name, read, server.url, None)
    with Player(broken) as server:
        found = helped(name, read, server.url, pipeline)
        assert len(server.requests) == 3
    if "until_done" not in helper:
        assert found == bare
    for script in ([*wire.begun, CUT], [*wire.begun], [*wire.begun, wire.error]):
        with Player([script]) as server, pytest.raises(StreamInterruptedError) as caught:
            helped(name, read, server.url, pipeline)
        assert caught.value.text == "one"
    with Player([[*wire.begun, CUT], wire.whole]) as server:
        whole = Pipeline(Retry(attempts=2, wait=0), Streaming(deliver="whole"))
        found = helped(name, read, server.url, whole)
    if "until_done" not in helper:
        assert found == bare


@pytest.mark.fault(307)
@pytest.mark.parametrize("name", ["openai", "openai-async"])
def test_streaming_responses_of_openai(name: str) -> None:
    """`with_streaming_response` sends its request when it is entered: retried there."""
    case = CASES[name]
    wire = case.wire

    with Player([[Status(503)], wire.whole]) as server:
        client = case.make(server.url)
        create = Pipeline(Retry(wait=0)).wrap(
            client.chat.completions.with_streaming_response.create
        )
        call = {"model": "m", "messages": MESSAGES, "stream": True}

        async def main() -> list[str]:
            async with client, create(**call) as response:
                return [line async for line in response.iter_lines()]

        if case.asynchronous:
            lines = asyncio.run(main())
        else:
            with client, create(**call) as response:
                lines = list(response.iter_lines())
        assert len(server.requests) == 2
    assert sum("content" in line for line in lines) == 3


@pytest.mark.fault(307)
def test_a_streaming_response_of_an_async_function() -> None:
    """One's own that only makes it: what counts is its entering, and nothing before that."""
    case = CASES["openai-async"]

    async def main(client: Any) -> list[str]:
        async def ask() -> Any:
            return client.chat.completions.with_streaming_response.create(
                model="m", messages=MESSAGES, stream=True
            )

        async with client, await Pipeline(Retry(wait=0)).call(ask) as response:
            return [line async for line in response.iter_lines()]

    with Player([[Status(503)], case.wire.whole]) as server:
        lines = asyncio.run(main(case.make(server.url)))
        assert len(server.requests) == 2
    assert sum("content" in line for line in lines) == 3


@pytest.mark.fault(307)
def test_lazy_responses_that_are_made_two_at_once() -> None:
    """Neither was an attempt yet; the one that comes out is entered with attempts of its own."""
    seen: list[Any] = []

    async def main(url: str) -> int:
        async with httpx.AsyncClient() as client:

            async def ask() -> Any:
                await asyncio.sleep(0)  # both are under way
                return client.stream("GET", url)

            pipeline = Pipeline(Twice("", ""), listeners=[(seen.append, AttemptEnded)])
            lazy = await pipeline.call(ask)
            del seen[:]
            async with lazy as response:
                return int(response.status_code)

    with Player([[b"x"]]) as server:
        assert asyncio.run(main(server.url)) == 200
    assert {each.attempt.number for each in seen} == {1, 2}


# Opening, through the gateway

OPENERS = {
    "openai": openai.OpenAI,
    "openai-async": openai.AsyncOpenAI,
    "anthropic": anthropic.Anthropic,
    "anthropic-async": anthropic.AsyncAnthropic,
    "auriko": auriko.Client,
    "auriko-async": auriko.AsyncClient,
}
every_opener = pytest.mark.parametrize("name", OPENERS)


def text(name: str, gateway: Gateway, pipeline: Pipeline, model: str = "a") -> str:
    """What a guarded stream says, word for word."""
    asynchronous = name.endswith("-async")
    client = OPENERS[name](api_key="any", base_url=gateway.base_url, max_retries=0)
    messages = name.startswith("anthropic")
    create: Any = client.messages.create if messages else client.chat.completions.create
    more = {"max_tokens": 9} if messages else {}
    said = CASES[name].said

    async def aask(*, model: str) -> Any:
        return await create(model=model, messages=MESSAGES, stream=True, **more)

    def ask(*, model: str) -> Any:
        return create(model=model, messages=MESSAGES, stream=True, **more)

    async def main() -> str:
        try:
            stream = await pipeline.wrap(aask)(model=model)
            return "".join([said(item) async for item in stream])
        finally:
            await client.close()

    if asynchronous:
        return asyncio.run(main())
    try:
        return "".join(said(item) for item in pipeline.wrap(ask)(model=model))
    finally:
        client.close()


@pytest.mark.fault(300)
@pytest.mark.parametrize("failure", ["upstream_error", Drop(), Drop(reset=True)], ids=str)
@every_opener
def test_opening_is_retried(name: str, failure: Any) -> None:
    """A failure before the stream is open is retried, and asks for a stream again."""
    with Gateway([failure, Ok()]) as gateway:
        assert text(name, gateway, ROBUST) == "Hello from a."
        assert [received.stream for received in gateway.requests] == [True, True]


@pytest.mark.fault(300)
@every_opener
def test_opening_falls_back(name: str) -> None:
    """A model that does not open a stream is followed by the next one."""
    plan: dict[str, Plan] = {"a": "streaming_not_supported", "b": Ok()}
    with Gateway(plan) as gateway:
        assert text(name, gateway, ROBUST) == "Hello from b."


@pytest.mark.fault(311)
@every_opener
def test_an_attempt_timeout_ends_at_the_first_content(name: str) -> None:
    """Content that is late is cut; what comes after the first is not."""
    with Gateway({"a": SlowStart(30), "b": Ok()}) as gateway:
        watch = Watch()
        slow = Pipeline(ModelFallback("a", "b"), Timeout(0.4), listeners=[watch])
        assert text(name, gateway, slow) == "Hello from b."
    assert watch.faults() == []  # the one that was cut says no more, not even of its tokens


@pytest.mark.fault(300)
@every_opener
def test_a_breaker_hears_of_opening_and_of_errors_in_streams(name: str) -> None:
    """Before content and after it."""
    pipeline = Pipeline(CircuitBreaker(failures=3))
    plan: list[Any] = [
        "service_unavailable",
        ErrorInStream("upstream_error", 0),
        ErrorInStream("upstream_error", 1),
    ]
    with Gateway(plan) as gateway:
        for kind in (Exception, Exception, StreamInterruptedError):
            with pytest.raises(kind):
                text(name, gateway, pipeline)
        with pytest.raises(CircuitOpenError):
            text(name, gateway, pipeline)
        assert len(gateway.requests) == 3


@pytest.mark.fault(300)
@pytest.mark.parametrize("name", ["openai", "anthropic", "auriko"])
def test_streams_of_a_guarded_client(name: str) -> None:
    """`wrap_client`: its `create(stream=True)`, and its helper where it has one."""
    with Gateway([Drop(), ErrorInStream("upstream_error", 0), Ok("one two")]) as gateway:
        client = OPENERS[name](api_key="any", base_url=gateway.base_url, max_retries=0)
        ours: Any = Pipeline(Retry(wait=0)).wrap_client(client)
        if name == "anthropic":
            call = {"model": "m", "messages": MESSAGES, "max_tokens": 9}
            said = CASES[name].said
            assert "".join(map(said, ours.messages.create(**call, stream=True))) == "one two"
            gateway.reset()
            with ours.messages.stream(**call) as stream:
                assert stream.get_final_text() == "one two"
        else:
            call = {"model": "m", "messages": MESSAGES}
            items = ours.chat.completions.create(**call, stream=True)
            assert "".join(map(CASES[name].said, items)) == "one two"
            if name == "openai":
                gateway.reset()
                with ours.chat.completions.stream(**call) as stream:
                    final = stream.get_final_completion()
                assert final.choices[0].message.content == "one two"
        assert len(gateway.requests) == 3
        client.close()


def test_the_outcome_of_a_stream() -> None:
    """`outcome()` gives the stream; `stream.outcome` has its attempts once it has ended."""
    with (
        Gateway(["upstream_error", Ok("one two")]) as gateway,
        openai.OpenAI(api_key="any", base_url=gateway.base_url, max_retries=0) as client,
    ):

        @Pipeline(Retry(wait=0)).wrap
        def ask() -> Any:
            return client.chat.completions.create(model="m", messages=MESSAGES, stream=True)

        outcome = guarded(ask).outcome()
        assert outcome.value.outcome is None
        list(outcome.value)
        failures = [attempt.failure for attempt in outcome.value.outcome.attempts]
        assert failures[0] is not None
        assert failures[1] is None


# What else OpenAI's SDK has


@pytest.mark.parametrize("name", ["openai", "openai-async"])
def test_raw_responses_are_guarded(name: str) -> None:
    """`with_raw_response.create` makes its request before it returns, so it is retried."""
    call = {"model": "a", "messages": MESSAGES}
    with Gateway(["upstream_error", Ok()]) as gateway:
        client = OPENERS[name](api_key="any", base_url=gateway.base_url, max_retries=0)
        create = ROBUST.wrap(client.chat.completions.with_raw_response.create)

        async def main() -> Any:
            async with client:
                return await create(**call)

        raw = asyncio.run(main()) if name.endswith("async") else create(**call)
        if not name.endswith("async"):
            client.close()
        assert raw.headers["x-request-id"] == "req_00000002"
        assert raw.parse().model == "a"
        assert len(gateway.requests) == 2


@pytest.mark.parametrize("name", ["openai", "openai-async"])
def test_lists_of_models_are_guarded(name: str) -> None:
    """`models.list`, which gives a page (or an awaitable paginator), goes through as well."""
    with Gateway({"a": Ok(), "b": Ok()}) as gateway:
        client = OPENERS[name](api_key="any", base_url=gateway.base_url, max_retries=0)

        async def main() -> Any:
            async with client:
                return await Pipeline(Retry()).call(client.models.list)

        if name.endswith("async"):
            page = asyncio.run(main())
        else:
            page = Pipeline(Retry()).call(client.models.list)
            client.close()
        assert [model.id for model in page.data] == ["a", "b"]
