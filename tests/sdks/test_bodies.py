"""Bodies of all shapes, through every client that keeps them: a code means what its format says,
whoever carries it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from providers.faults import Fault
from providers.raw import answering
from providers.server import Server
from resilience.failures import Advice, Failure, Kind, describe
from resilience.sdks import google_rpc
from resilience.sdks.bodies import dialect
from resilience.sdks.codes import rows
from test_providers import installed

pytestmark = [pytest.mark.real, pytest.mark.steady]

DATA = Path(__file__).with_name("bodies.jsonl")
"""A body on each line, and how it is to be read."""

KEEPING = [
    name
    for name, package in [
        ("openai", "openai"),
        ("httpx", "httpx"),
        ("httpx2", "httpx2"),
        ("requests", "requests"),
        ("litellm", "litellm"),
        ("groq", "groq"),
    ]
    if installed(package)
]
"""Clients whose errors have the body."""


def e(code: object = None, type: object = None, **more: Any) -> dict[str, Any]:
    """OpenAI's envelope."""
    return {"error": {"message": "m", "type": type, "param": None, "code": code, **more}}


ROWS = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]

ELSEWHERE = {
    # The model was asked for at the place of a model: these have the path of one.
    ("nim gone", "openai"): ("NOT_FOUND", "fallback"),
    ("nim gone", "litellm"): ("NOT_FOUND", "fallback"),
    ("nim gone", "groq"): ("NOT_FOUND", "fallback"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One that answers as told."""
    with Server(import_module("providers.openai")) as found:
        yield found


def reading(name: str, url: str) -> Failure:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # whichever it is
        import_module(f"providers.{name}").fail(url, streaming=False)
    return describe(caught.value)


@pytest.mark.fault(230, 231)
@pytest.mark.parametrize("row", ROWS, ids=[row["name"].replace(" ", "-") for row in ROWS])
@pytest.mark.parametrize("name", KEEPING)
def test_a_body_means_the_same_whoever_carries_it(server: Server, name: str, row: Any) -> None:
    """The kind, the advice and the wait, by shape, code, type and status."""
    told = Fault(row["name"], row["status"], body=json.dumps(row["body"]).encode())
    failure = reading(name, server.url(told))
    expected = ELSEWHERE.get((row["name"], name), (row["kind"], row["advice"]))
    assert (failure.kind.name, failure.advice.value) == expected
    assert (failure.retry_after, failure.status) == (row["retry_after"], row["status"])
    assert failure.code is None or " " not in failure.code


# Whose word it is, by the host that was asked: through a proxy that answers for everybody.


def through_proxy(status: int, body: object, url: str) -> Failure:
    """What is read of an answer of this host."""
    import httpx

    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Told\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
    with (
        answering(head.encode() + content, keep=False) as proxy,
        httpx.Client(proxy=proxy) as client,
        pytest.raises(httpx.HTTPStatusError) as caught,
    ):
        client.post(f"http://{url}", json={}).raise_for_status()
    return describe(caught.value)


@pytest.mark.fault(231)
@pytest.mark.parametrize(
    ("url", "status", "body", "kind", "advice"),
    [
        (
            "dashscope.aliyuncs.com/v1/completions",
            429,
            e("insufficient_quota"),
            "RATE_LIMIT",
            "wait",
        ),
        ("api.openai.com/v1/completions", 429, e("insufficient_quota"), "QUOTA", "stop"),
        ("notaliyuncs.com/v1/completions", 429, e("insufficient_quota"), "QUOTA", "stop"),
        ("open.bigmodel.cn/api/paas/v4/files", 429, e("1113"), "QUOTA", "stop"),
        ("gateway.example.com/v1/completions", 429, e("1113"), "QUOTA", "stop"),
        ("shop.example.com/orders", 429, e("1113"), "RATE_LIMIT", "wait"),
        ("api.z.ai/v4/chat/completions", 400, e("1300"), "CONTENT_FILTER", "stop"),
        ("api.groq.com/openai/v1/completions", 498, {}, "OVERLOADED", "wait"),
        ("arcgis.example.com/token", 498, {}, "INVALID", "stop"),
        ("api.groq.com/openai/v1/completions", 424, {}, "INVALID", "stop"),  # somebody else's key
        ("api.together.xyz/v1/completions", 403, {}, "CONTEXT_LENGTH", "fallback"),
        ("shop.example.com/orders", 403, {}, "PERMISSION", "stop"),
        ("openrouter.ai/api/v1/completions", 503, e(503), "UNAVAILABLE", "fallback"),
        ("shop.example.com/orders", 503, e(503), "UNAVAILABLE", "wait"),
    ],
)
def test_where_two_clash_the_host_decides(
    url: str, status: int, body: object, kind: str, advice: str
) -> None:
    """A code of digits, or one that somebody uses for something else, is that of its host."""
    failure = through_proxy(status, body, url)

    assert (failure.kind.name, failure.advice.value) == (kind, advice)


@pytest.mark.fault(232)
@pytest.mark.parametrize("status", [404, 410, 501])
@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("v1/chat/completions", "fallback"),
        ("v1/completions", "fallback"),
        ("v1/responses", "fallback"),
        ("v1/messages", "fallback"),
        ("v1/embeddings/", "fallback"),
        ("v1beta/models/gemini:generateContent", "fallback"),
        ("v1beta/models/gemini:streamGenerateContent?alt=sse", "fallback"),
        ("v1/models", "stop"),
        ("v1/chat/completions/1", "stop"),
        ("v1/oldmessages", "stop"),
        ("", "stop"),
    ],
)
@pytest.mark.parametrize("library", ["httpx", "httpx2", "requests", "aiohttp"])
def test_a_call_of_a_model(library: str, path: str, advice: str, status: int) -> None:
    """What is not there is the model, if one was asked; else another one will not do."""
    answer = f"HTTP/1.1 {status} Told\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    with answering(answer.encode(), keep=False) as url:
        failure = described(library, "POST", f"{url}/{path}")
        assert (failure.advice.value, failure.status) == (advice, status)
        assert described(library, "GET", f"{url}/{path}").advice.value == "stop"


def described(library: str, method: str, url: str) -> Failure:
    """How an error of a status is read that the client raises."""
    if library == "aiohttp":
        return described_by_aiohttp(method, url)
    module: Any = import_module(library)
    with pytest.raises(Exception) as caught:  # noqa: PT011  # each has its own
        module.request(method, url).raise_for_status()
    return describe(caught.value)


def described_by_aiohttp(method: str, url: str) -> Failure:
    import asyncio

    import aiohttp

    async def main() -> Failure:
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            with pytest.raises(aiohttp.ClientResponseError) as caught:
                await session.request(method, url)
        return describe(caught.value)

    return asyncio.run(main())


# The data.


def test_each_row_of_the_data_says_what_it_needs() -> None:
    """A word, a meaning, a source; and no word has two meanings in one place."""
    found = rows()
    assert len(found) > 400
    places = [(row["format"], row["word"], row["when"], row["host"]) for row in found]
    assert len(set(places)) == len(places)
    for row in found:
        assert row["word"].strip() == row["word"] != ""
        assert row["source"]
        assert row["sent"] in ("", "yes", "no")
        assert row["by_status"] in ("", "yes")
        assert (row["kind"] in Kind.__members__, row["advice"] in Advice.__members__) == (
            True,
            True,
        )


def test_every_format_is_read_by_somebody() -> None:
    """A row that no dialect has is no use."""
    shapes = ["openai", "unwrapped", "openrouter", "flat", "minimax", "listed", "aws"]
    known = {word for shape in shapes for word in dialect(shape).codes} | set(google_rpc.CODES)
    assert {row["word"] for row in rows()} <= known
