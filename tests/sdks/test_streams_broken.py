"""Streams of the real clients that break: before their first content, after it, or at the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest

from resilience import (
    BadResultError,
    CircuitBreaker,
    ModelFallback,
    Pipeline,
    Retry,
    Streaming,
    StreamInterruptedError,
)
from resilience.failures import Kind, describe
from support.playing import CUT, RESET, Player, Status
from support.streaming_cases import CASES, Case, closed, consumed

pytestmark = [pytest.mark.real, pytest.mark.steady]

every_case = pytest.mark.parametrize("name", CASES)
GENERATORS = ("cohere", "google", "ollama")
HAVE_DONE = [name for name in CASES if name.startswith(("openai", "groq")) and "resp" not in name]
"""Where OpenAI's `[DONE]` can be seen."""


def retrying(attempts: int = 6, **streaming: Any) -> Pipeline:
    return Pipeline(Retry(attempts=attempts, wait=0), Streaming(**streaming))


def player(case: Case, *scripts: list[Any]) -> Player:
    return Player(list(scripts), content_type=case.content_type)


# Before content


@pytest.mark.fault(300)
@every_case
def test_what_breaks_before_content_is_retried(name: str) -> None:
    """At opening, at the first read, in an error event after a 200, in a chunk that is no JSON: an
    attempt for each, and then a whole stream of its own class."""
    case = CASES[name]
    wire = case.wire
    broken = [
        [Status(503)],
        [*wire.opening, CUT],
        [*wire.opening, RESET],
        [*wire.opening, wire.error],
        [*wire.opening, wire.garbled],
    ]
    with player(case, *broken, wire.whole) as server:
        bare = consumed(case, server.url, None)
        server.requests.clear()
        got = consumed(case, server.url, retrying())

    assert (got.said, got.error) == ("one two", None)
    assert len(server.requests) == 6
    if bare.stream is not None:
        assert isinstance(got.stream, type(bare.stream))
        assert type(got.stream).__name__ == type(bare.stream).__name__


@pytest.mark.fault(300)
@every_case
def test_what_breaks_before_content_falls_back(name: str) -> None:
    """To the next model."""
    case = CASES[name]
    models: list[str] = []
    chain = Pipeline(ModelFallback("a", "b"), Retry(attempts=1))

    class Watching:
        def wrap(self, fn: Any) -> Any:
            def asked(*, model: str = "m") -> Any:
                models.append(model)
                return fn()

            return chain.wrap(asked)

    with player(case, [*case.wire.opening, case.wire.error], case.wire.whole) as server:
        got = consumed(case, server.url, Watching())

    assert (got.said, got.error) == ("one two", None)
    assert models == ["a", "b"]


@pytest.mark.parametrize("name", ["openai-responses-stream", "openai-responses-stream-async"])
@pytest.mark.fault(300)
def test_an_error_as_the_very_first_event(name: str) -> None:
    """OpenAI's helper for responses trips over it, by a bare RuntimeError."""
    case = CASES[name]
    with player(case, [case.wire.error], case.wire.whole) as server:
        got = consumed(case, server.url, retrying())

    assert (got.said, got.error) == ("one two", None)
    assert len(server.requests) == 2


# After content

_BREAKS = {
    "cut": lambda wire: [CUT],
    "reset": lambda wire: [RESET],
    "error": lambda wire: [wire.error],
    "garbled": lambda wire: [wire.garbled, *wire.reason, *wire.terminator],
    "ended": lambda wire: [],
}


@pytest.mark.fault(301, 304, 305)
@pytest.mark.parametrize("way", _BREAKS)
@every_case
def test_what_breaks_after_content_is_an_interruption(name: str, way: str) -> None:
    """With what was received, by every read; nothing is repeated, and the circuit has counted it.
    Of a generator, the next read is its end, as Python has it."""
    case = CASES[name]
    breaker = CircuitBreaker(failures=1)
    pipeline = Pipeline(Retry(attempts=3, wait=0), breaker)
    with player(case, [*case.wire.begun, *_BREAKS[way](case.wire)]) as server:
        got = consumed(case, server.url, pipeline)

    assert got.said == "one"
    error = got.error
    assert type(error) is StreamInterruptedError
    assert error.text == "one"
    assert list(error.received[: len(got.items)]) == got.items
    assert (error.__cause__ is None) is (way == "ended")
    assert describe(error).kind in (Kind.CONNECTION, Kind.SERVER, Kind.UNAVAILABLE)
    assert len(server.requests) == 1
    assert breaker.state == "open"
    if name.startswith(GENERATORS):
        assert type(got.again) in (StopIteration, StopAsyncIteration)
    else:
        assert got.again is error


@pytest.mark.fault(301)
@every_case
def test_whole_streams_are_retried_to_their_end(name: str) -> None:
    """With `deliver="whole"` the consumer sees one attempt's items, all of them."""
    case = CASES[name]
    scripts = [[*case.wire.begun, *steps(case.wire)] for steps in _BREAKS.values()]
    with player(case, *scripts, case.wire.whole) as server:
        got = consumed(case, server.url, retrying(deliver="whole"))

    assert (got.said, got.error) == ("one two", None)
    assert len(server.requests) == 6


# The end


@pytest.mark.fault(305)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.wire.reason])
def test_a_reason_is_a_complete_end(name: str) -> None:
    """Without a terminator, where the format has such a thing beside the reason."""
    case = CASES[name]
    script = [*case.wire.opening, *case.wire.words, *case.wire.reason]
    with player(case, script) as server:
        got = consumed(case, server.url, retrying(attempts=1))

    assert (got.said, got.error) == ("one two", None)


@pytest.mark.fault(305)
@pytest.mark.parametrize("name", HAVE_DONE)
def test_done_is_a_complete_end(name: str) -> None:
    """Without a finish reason, as some proxies leave it; the SDK does not show it."""
    case = CASES[name]
    script = [*case.wire.opening, *case.wire.words, *case.wire.terminator]
    with player(case, script) as server:
        got = consumed(case, server.url, retrying(attempts=1))

    assert (got.said, got.error) == ("one two", None)


@pytest.mark.fault(305)
@every_case
def test_an_end_that_says_nothing_may_be_fine(name: str) -> None:
    """With `complete=False`."""
    case = CASES[name]
    with player(case, [*case.wire.opening, *case.wire.words]) as server:
        got = consumed(case, server.url, retrying(attempts=1, complete=False))

    assert (got.said, got.error) == ("one two", None)


def chat(text: str, reason: str | None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": reason}
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return f"data: {json.dumps({**head, 'choices': [choice], **more})}\n\n".encode()


def two_choices() -> bytes:
    """In one chunk, as some servers send them."""
    delta = {"content": "one"}
    choices = [{"index": n, "delta": delta, "finish_reason": "stop"} for n in range(2)]
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return f"data: {json.dumps({**head, 'choices': choices})}\n\n".encode()


def test_a_chunk_without_a_delta_costs_an_interruption_no_text() -> None:
    """As what filters content sends it: the text is that of the others."""
    bare = chat("", None).replace(b'{"content": ""}', b"null")
    case = CASES["openai"]
    with (
        player(case, [chat("one", None), bare, CUT]) as server,
        case.make(server.url) as client,
        pytest.raises(StreamInterruptedError) as caught,
    ):
        list(retrying(attempts=1).call(case.ask, client))

    assert caught.value.text == "one"
    assert len(caught.value.received) == 2


@pytest.mark.fault(305)
@pytest.mark.parametrize(
    ("script", "complete"),
    [
        ([chat("one", "length")], True),
        ([two_choices()], True),
        ([chat("one", "")], False),  # an empty string is no reason
        ([chat("one", None), chat("", "stop"), chat("two", None, 1)], False),
        ([chat("one", None), chat("", "stop"), chat("two", "stop", 1)], True),
        ([chat("one", None, system_fingerprint="fp_ollama")], True),
    ],
)
@pytest.mark.parametrize("name", ["openai", "openai-async", "auriko", "groq"])
def test_reasons(name: str, script: list[Any], complete: bool) -> None:
    """For every choice; any reason will do, and Ollama's compatible endpoint need not give one."""
    case = CASES[name]
    with player(case, script) as server:
        got = consumed(case, server.url, retrying(attempts=1))

    assert (got.error is None) is complete


def completed(text: str, reason: str | None) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
    head = {"id": "1", "object": "text_completion", "created": 1, "model": "m"}
    return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n".encode()


def generated(text: str, reason: str | None) -> bytes:
    told = {"model": "m", "response": text, "done": reason is not None}
    return f"{json.dumps(told)}\n".encode()


@pytest.mark.fault(305)
@pytest.mark.parametrize("name", ["openai", "ollama"])
def test_completions_without_messages(name: str) -> None:
    """OpenAI's older endpoint, and Ollama's `generate`: retried before content, complete by their
    reason, and interrupted without one."""

    def ask() -> Any:
        if name == "openai":
            return client.completions.create(model="m", prompt="Hi", stream=True)
        return client.generate(model="m", prompt="Hi", stream=True)

    one = completed if name == "openai" else generated
    scripts = [[one("", None), CUT], [one("one", None), one("", "stop")], [one("one", None)]]
    with Player(scripts, content_type=CASES[name].content_type) as server:
        client = CASES[name].make(server.url)
        assert len(list(retrying().wrap(ask)())) == 2
        assert len(server.requests) == 2
        with pytest.raises(StreamInterruptedError) as caught:
            list(retrying().wrap(ask)())
        closed(client)
    assert caught.value.text == "one"


# Errors that come as items


def event(kind: str, **facts: Any) -> bytes:
    told = {"type": kind, "sequence_number": 9, **facts}
    return f"event: {kind}\ndata: {json.dumps(told)}\n\n".encode()


def ended(status: str, **facts: Any) -> bytes:
    response = {
        "id": "resp_00000001",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": status,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        **facts,
    }
    return event(f"response.{status}", response=response)


RESPONSES = [name for name in CASES if "responses" in name]


@pytest.mark.fault(306)
@pytest.mark.parametrize("name", RESPONSES)
def test_a_failed_response_is_an_error(name: str) -> None:
    """`response.failed` raises nothing in the SDKs: retried before content, and after it an
    interruption that tells the code."""
    case = CASES[name]
    failed = ended("failed", error={"code": "rate_limit_exceeded", "message": "m"})
    with player(case, [*case.wire.opening, failed], [*case.wire.begun, failed]) as server:
        got = consumed(case, server.url, retrying(attempts=2))

    assert len(server.requests) == 2
    assert got.said == "one"
    assert type(got.error) is StreamInterruptedError
    assert isinstance(got.error.__cause__, BadResultError)
    assert describe(got.error).code == "rate_limit_exceeded"


@pytest.mark.fault(306)
@pytest.mark.parametrize("name", RESPONSES)
def test_an_incomplete_response_is_complete(name: str) -> None:
    """It ended with a reason, as `length` is one."""
    case = CASES[name]
    end = ended("incomplete", incomplete_details={"reason": "max_output_tokens"})
    with player(case, [*case.wire.begun, end]) as server:
        got = consumed(case, server.url, retrying(attempts=1))

    assert (got.said, got.error) == ("one", None)


@pytest.mark.fault(306)
@pytest.mark.parametrize("name", ["cohere", "cohere-async"])
def test_coheres_error_is_an_item(name: str) -> None:
    """`message-end` with the reason ERROR."""
    case = CASES[name]
    with player(case, [*case.wire.begun, case.wire.error]) as server:
        got = consumed(case, server.url, retrying())

    assert type(got.error) is StreamInterruptedError
    assert isinstance(got.error.__cause__, BadResultError)


# httpx and httpx2: what one writes oneself


def lines(library: Any, url: str) -> Any:
    """A generator over the lines of a response."""

    def read() -> Iterator[str]:
        with (
            library.Client(timeout=5) as client,
            client.stream("POST", url, json={"model": "m"}) as response,
        ):
            response.raise_for_status()
            yield from response.iter_lines()

    return read


def alines(library: Any, url: str) -> Any:
    async def read() -> Any:
        async with (
            library.AsyncClient(timeout=5) as client,
            client.stream("POST", url, json={"model": "m"}) as response,
        ):
            response.raise_for_status()
            async for line in response.aiter_lines():
                yield line

    return read


@pytest.mark.fault(300, 301)
@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_lines_of_httpx(library: Any, asynchronous: bool) -> None:
    """A generator function over `iter_lines` is retried to its first line, then interrupted."""
    scripts: list[list[Any]] = [[Status(503)], [CUT], [b"one\n", b"two\n"], [b"one\n", CUT]]
    pipeline = retrying()

    async def collect(fn: Any) -> list[str]:
        return [line async for line in fn()]

    with Player(scripts) as server:
        make = alines if asynchronous else lines
        fn = pipeline.wrap(make(library, server.url))

        def read() -> list[str]:
            return asyncio.run(collect(fn)) if asynchronous else list(fn())

        assert read() == ["one", "two"]
        assert len(server.requests) == 3
        with pytest.raises(StreamInterruptedError) as caught:
            read()
    assert caught.value.text == "one"
    assert type(caught.value.__cause__).__name__ == "RemoteProtocolError"


@pytest.mark.fault(300)
@pytest.mark.parametrize("library", [httpx, httpx2])
def test_httpx_stream_is_guarded_when_it_is_entered(library: Any) -> None:
    """The request is sent then; a connection that breaks before its headers is retried."""

    class Dropping(Player):
        def _answer(self, connection: Any) -> bool:
            if len(self.requests) < 2:
                connection.recv(65536)
                self.requests.append("dropped")
                return False
            return super()._answer(connection)

    async def aread(url: str) -> list[str]:
        async with (
            library.AsyncClient() as client,
            retrying().wrap(client.stream)("POST", url) as response,
        ):
            return [line async for line in response.aiter_lines()]

    with Dropping([[b"one\n", b"two\n"]]) as server:
        with library.Client() as client, retrying().wrap(client.stream)("POST", server.url) as r:
            assert list(r.iter_lines()) == ["one", "two"]
        assert len(server.requests) == 3
        server.requests.clear()
        assert asyncio.run(aread(server.url)) == ["one", "two"]
        assert len(server.requests) == 3
