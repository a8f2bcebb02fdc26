"""One async client in several event loops, one after the other: the connection of a closed loop."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import httpx2
import openai
import pytest

from resilience import Pipeline, Retry, guarded, history
from resilience.failures import Advice, Kind, describe
from resilience.testing.gateway import Gateway
from resilience.waits import Fixed

pytestmark = pytest.mark.real

BODY: Any = {"model": "a", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(autouse=True)
def _left_behind() -> Iterator[None]:
    """A connection whose loop is closed cannot be closed any more: it is collected, and says so."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def of_openai(base_url: str) -> tuple[Any, Any]:
    client = openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0)
    return client.chat.completions.create, BODY


def of_httpx(base_url: str) -> tuple[Any, Any]:
    post = httpx.AsyncClient(base_url=base_url).post
    return post, {"url": "/chat/completions", "json": BODY}


def of_httpx2(base_url: str) -> tuple[Any, Any]:
    post = httpx2.AsyncClient(base_url=base_url).post
    return post, {"url": "/chat/completions", "json": BODY}


every_client = pytest.mark.parametrize("make", [of_openai, of_httpx, of_httpx2])


def run(call: Callable[..., Any], arguments: Any) -> Any:
    async def main() -> Any:
        return await call(**arguments)

    return asyncio.run(main())


@pytest.mark.fault(275)
@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
@every_client
def test_the_connection_of_a_closed_loop_is_retried(make: Any, listeners: Any) -> None:
    """A second `asyncio.run` is answered by its second attempt, which has a new connection."""
    with Gateway() as gateway:
        create, arguments = make(gateway.base_url)
        fn = Pipeline(Retry(wait=Fixed(0.001)), listeners=listeners).wrap(create)
        run(fn, arguments)
        outcome = run(guarded(fn).outcome, arguments)
        assert outcome.error is None
        assert run(fn, arguments) is not None  # each loop loses the one before it once

    (failure,) = [each.failure for each in outcome.attempts if each.failure is not None]
    assert (failure.kind, failure.advice, failure.sent) == (Kind.CONNECTION, Advice.RETRY, None)
    assert type(failure.error) is RuntimeError


@every_client
def test_the_error_comes_out_as_it_is(make: Any) -> None:
    """Where nobody retries it."""
    with Gateway() as gateway:
        create, arguments = make(gateway.base_url)
        fn = Pipeline(Retry(attempts=1)).wrap(create)
        run(fn, arguments)
        with pytest.raises(RuntimeError) as caught:
            run(fn, arguments)
    assert [each.failure and each.failure.kind for each in history(caught.value)] == [
        Kind.CONNECTION
    ]


def test_the_same_words_from_elsewhere_are_the_programs_own() -> None:
    """It is known by where it was raised: by a loop, for a connection."""

    def told() -> None:
        raise RuntimeError("Event loop is closed")

    def misused() -> None:
        loop = asyncio.new_event_loop()
        loop.close()
        loop.call_soon(print)

    for fn in (told, misused):
        with pytest.raises(RuntimeError, match="Event loop is closed") as caught:
            fn()
        assert describe(caught.value).kind is Kind.UNKNOWN
    assert describe(RuntimeError("Event loop is closed")).kind is Kind.UNKNOWN


def test_an_endless_traceback_ends() -> None:
    """One that has come through a thousand frames is not looked at."""

    def deep(left: int) -> None:
        if left:
            deep(left - 1)
        raise RuntimeError

    with pytest.raises(RuntimeError) as caught:
        deep(400)
    assert describe(caught.value).kind is Kind.UNKNOWN
