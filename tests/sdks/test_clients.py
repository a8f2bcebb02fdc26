"""`Pipeline.wrap_client`: real clients whose calling methods are guarded, counted on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import openai
import pytest

from resilience import (
    CircuitBreaker,
    ModelFallback,
    Pipeline,
    Retry,
    current_attempt,
    guarded,
    own_retries,
    retries_of,
)
from resilience.events import CallEnded
from resilience.testing.gateway import Gateway, Ok
from support.client_cases import CASES, Case
from support.gateway_clients import MESSAGES
from support.refusing import Refusing, refusing

pytestmark = [pytest.mark.real, pytest.mark.steady]
__all__ = ["refusing"]

ROBUST = Pipeline(Retry(attempts=3, wait=0))
TWICE = Pipeline(Retry(attempts=2, wait=0))
CHAT: Any = {"model": "m", "messages": MESSAGES}

every_client = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
WAYS = [
    pytest.param(case, path, id=f"{name}-{path}")
    for name, case in CASES.items()
    for path in case.ways
]


@pytest.mark.parametrize(("case", "path"), WAYS)
def test_its_calling_methods_are_guarded(case: Case, path: str, refusing: Refusing) -> None:
    """Those of its resources, of their raw responses and of streams that are opened; the client
    that was given is as it was."""
    client = own_retries(case.make(refusing.url))
    wrapped = ROBUST.wrap_client(client)

    error = case.ask(wrapped, path)
    assert len(refusing.requests) == 3
    assert type(case.ask(client, path)) is type(error)
    assert len(refusing.requests) == 4


@every_client
def test_its_type_is_kept(case: Case, refusing: Refusing) -> None:
    """That of the client, of its resources and of its methods."""
    client = case.make(refusing.url)
    wrapped = ROBUST.wrap_client(client)
    assert isinstance(wrapped, type(client))
    assert type(wrapped).__name__ == type(client).__name__
    assert wrapped is not client
    *resources, _ = next(iter(case.ways)).split(".")
    ours, theirs = wrapped, client
    for name in resources:
        ours, theirs = getattr(ours, name), getattr(theirs, name)
        assert isinstance(ours, type(theirs))
    path = next(iter(case.ways))
    method, original = (
        functools.reduce(getattr, path.split("."), each) for each in (wrapped, client)
    )
    assert inspect.signature(method) == inspect.signature(original)
    assert guarded(method).pipeline is ROBUST
    assert method is functools.reduce(getattr, path.split("."), wrapped)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES.values() if case.copies],
    ids=[n for n in CASES if CASES[n].copies],
)
def test_copies_with_options(case: Case, refusing: Refusing) -> None:
    """Are guarded, too, and so are copies of copies."""
    wrapped = ROBUST.wrap_client(case.make(refusing.url, max_retries=None))
    once = wrapped.with_options(max_retries=0)
    assert (retries_of(wrapped), retries_of(once)) == (2, 0)
    for number, client in enumerate((once, once.copy(timeout=5), once.with_options().copy()), 1):
        case.ask(client)
        assert len(refusing.requests) == 3 * number


def test_what_a_client_does_not_have(refusing: Refusing) -> None:
    """It has no more of it under policies."""
    client = CASES["groq"].make(refusing.url)
    wrapped = ROBUST.wrap_client(client)
    assert not hasattr(wrapped, "responses")
    with pytest.raises(AttributeError, match="images"):
        wrapped.images  # noqa: B018


def test_its_class_guards_nothing_by_itself(refusing: Refusing) -> None:
    """A client that is made anew by it has no policies."""
    wrapped = ROBUST.wrap_client(CASES["openai"].make(refusing.url))
    plain = type(wrapped)(api_key="any", base_url=refusing.url, max_retries=0)
    CASES["openai"].ask(plain)
    assert len(refusing.requests) == 1
    assert type(plain).chat


def test_what_manages_is_left_alone(refusing: Refusing) -> None:
    """Lists of files and models are not asked for twice."""
    wrapped = ROBUST.wrap_client(CASES["openai"].make(refusing.url))
    for method in (wrapped.files.list, wrapped.models.list):
        with pytest.raises(openai.InternalServerError):
            method()
    assert len(refusing.requests) == 2


def test_resources_that_were_used_before(refusing: Refusing) -> None:
    """A client keeps what was reached once; none of that reaches the copy unguarded."""
    client = CASES["openai"].make(refusing.url)
    client.with_raw_response.chat.completions.create  # noqa: B018
    client.chat.completions.with_raw_response.create  # noqa: B018
    client.chat.completions.with_streaming_response.create  # noqa: B018
    wrapped = ROBUST.wrap_client(client)
    for number, path in enumerate(CASES["openai"].ways, 1):
        CASES["openai"].ask(wrapped, path)
        assert len(refusing.requests) == 3 * number


@pytest.mark.parametrize("name", ["openai", "openai-async", "anthropic", "auriko", "groq"])
@pytest.mark.parametrize("used", [False, True])
def test_a_setting_of_the_copy(name: str, used: bool, refusing: Refusing) -> None:
    """What is set on the copy counts for its calls, and for no other client."""
    case = CASES[name]
    client = case.make(refusing.url, max_retries=None)
    if used:
        functools.reduce(getattr, next(iter(case.ways)).split("."), client)
    wrapped = ROBUST.wrap_client(client)
    wrapped.max_retries = 0
    case.ask(wrapped)
    assert len(refusing.requests) == 3
    assert retries_of(client) == 2


def test_models_take_turns(refusing: Refusing) -> None:
    """Every policy acts: a chain of models finds the argument."""
    with Gateway({"one": "service_unavailable", "two": Ok("Hello!")}) as gateway:
        pipeline = Pipeline(
            ModelFallback("one", "two"), Retry(attempts=2, wait=0), CircuitBreaker()
        )
        client = openai.OpenAI(api_key="any", base_url=gateway.base_url, max_retries=0)
        with pipeline.wrap_client(client) as wrapped:
            answer = wrapped.chat.completions.create(model="one", messages=MESSAGES)
            raw = wrapped.chat.completions.with_raw_response.create(model="one", messages=MESSAGES)
            outcome = guarded(wrapped.chat.completions.create).outcome(**CHAT)
        assert answer.choices[0].message.content == "Hello!"
        assert raw.parse().choices[0].message.content == "Hello!"
        assert outcome.served_by == "two"
        assert len(gateway.requests_for("two")) == 3


@pytest.mark.parametrize("name", ["openai", "auriko"])
def test_a_stream_goes_through_the_guard(name: str) -> None:
    """Its opening is retried, its items come as they are."""
    with Gateway(["service_unavailable", Ok("Hello, you!")]) as gateway:
        client = CASES[name].make(gateway.base_url)
        with TWICE.wrap_client(client) as wrapped:
            stream = wrapped.chat.completions.create(**CHAT, stream=True)
            text = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(text) == "Hello, you!"
        assert len(gateway.requests) == 2


def test_an_async_stream_goes_through_the_guard() -> None:
    async def main(gateway: Gateway) -> str:
        client = CASES["openai-async"].make(gateway.base_url)
        async with TWICE.wrap_client(client) as wrapped:
            stream = await wrapped.chat.completions.create(**CHAT, stream=True)
            return "".join(
                [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            )

    with Gateway(["service_unavailable", Ok("Hello, you!")]) as gateway:
        assert asyncio.run(main(gateway)) == "Hello, you!"
        assert len(gateway.requests) == 2


# More than one pipeline


@pytest.mark.fault(297)
@every_client
def test_two_pipelines_over_one_client(case: Case, refusing: Refusing) -> None:
    """Each has a copy of its own."""
    client = own_retries(case.make(refusing.url))
    robust, twice = ROBUST.wrap_client(client), TWICE.wrap_client(client)
    path = next(iter(case.ways))
    for wrapped, attempts in ((robust, 3), (twice, 2), (robust, 3)):
        refusing.requests.clear()
        case.ask(wrapped, path)
        assert len(refusing.requests) == attempts


@pytest.mark.fault(297)
@every_client
def test_a_guarded_client_under_another_pipeline(case: Case, refusing: Refusing) -> None:
    """The inner one stays inside, as it does where a guarded function is guarded again."""
    client = own_retries(case.make(refusing.url))
    seen: list[int] = []
    counting = Pipeline(
        CircuitBreaker(failures=100),
        listeners=[lambda event: seen.append(1) if isinstance(event, CallEnded) else None],
    )
    wrapped = counting.wrap_client(TWICE.wrap_client(client))
    path = next(iter(case.ways))
    case.ask(wrapped, path)
    assert len(refusing.requests) == 2
    assert len(seen) == 1
    if case.copies:
        case.ask(wrapped.with_options(), path)
        assert len(refusing.requests) == 4
        assert len(seen) == 2


@pytest.mark.fault(297)
def test_wrapped_again_and_again(refusing: Refusing) -> None:
    """In a handler of requests, say: nothing of it stays."""
    client = CASES["openai"].make(refusing.url)

    def handle() -> weakref.ref[Any]:
        wrapped = Pipeline(Retry(attempts=1)).wrap_client(client)
        with contextlib.suppress(openai.InternalServerError):
            wrapped.chat.completions.create(**CHAT)
        return weakref.ref(wrapped)

    handle()
    gc.collect()
    classes = len(type(client).__subclasses__())
    gone = [handle() for _ in range(5)]
    gc.collect()
    assert [each() for each in gone] == [None] * 5
    assert len(type(client).__subclasses__()) == classes


@pytest.mark.fault(298)
def test_what_a_tracer_has_put_in_place(refusing: Refusing) -> None:
    """It stays, inside the guard: it sees every attempt."""
    client = CASES["openai"].make(refusing.url)
    create, numbers = client.chat.completions.create, []

    @functools.wraps(create)
    def traced(*args: Any, **kwargs: Any) -> Any:
        numbers.append(current_attempt().number)
        return create(*args, **kwargs)

    client.chat.completions.create = traced
    CASES["openai"].ask(ROBUST.wrap_client(client))
    assert numbers == [1, 2, 3]
    assert client.chat.completions.create is traced


# Ends


@pytest.mark.fault(296)
@every_client
def test_the_copy_outlives_the_client(case: Case, refusing: Refusing) -> None:
    """Some close their connections when they are collected."""
    wrapped = ROBUST.wrap_client(own_retries(case.make(refusing.url)))
    gc.collect()
    case.ask(wrapped)
    assert len(refusing.requests) == 3


@pytest.mark.fault(296)
@every_client
def test_the_client_outlives_the_copy(case: Case, refusing: Refusing) -> None:
    client = own_retries(case.make(refusing.url))
    case.ask(ROBUST.wrap_client(client))
    gc.collect()
    case.ask(client)
    assert len(refusing.requests) == 4


@pytest.mark.fault(296)
@every_client
def test_both_go(case: Case, refusing: Refusing) -> None:
    """Once nobody has the copy."""
    client = case.make(refusing.url)
    wrapped = ROBUST.wrap_client(client)
    case.ask(wrapped)
    gone = [weakref.ref(client), weakref.ref(wrapped)]
    del client, wrapped
    gc.collect()
    assert [each() for each in gone] == [None, None]


# What is refused


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: openai.OpenAI, "class OpenAI"),
        (lambda: openai.OpenAI(api_key="any").chat, "Chat"),
        (lambda: openai.OpenAI(api_key="any").chat.completions.create, "method"),
        (lambda: __import__("httpx").Client(), "Client"),
        (object, "object"),
        (lambda: None, "NoneType"),
    ],
)
def test_what_is_no_such_client(make: Callable[[], Any], word: str) -> None:
    with pytest.raises(TypeError, match=word) as caught:
        ROBUST.wrap_client(make())
    assert "openai" in str(caught.value)


def test_a_method_that_the_policies_cannot_guard(refusing: Refusing) -> None:
    """Is refused where it is reached, by its name; the others work."""
    chain = Pipeline(ModelFallback("one", "two"))
    wrapped = chain.wrap_client(CASES["mistral"].make(refusing.url))
    with pytest.raises(TypeError, match="model"):
        wrapped.agents.complete  # noqa: B018
    CASES["mistral"].ask(wrapped)
    assert len(refusing.requests) > 1
