"""The real SDKs, guarded, against the local gateway: retried, fallen back, timed out, broken.

Their `create` goes into `Pipeline.call` and `Pipeline.wrap` as it is. The async ones are not
coroutine functions; nothing here tells the library that they are async.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import auriko
import openai
import pytest

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    history,
    resilient,
)
from resilience.failures import Kind
from resilience.testing import virtual_time
from resilience.testing.gateway import Drop, Error, Gateway, Hang, Ok, Plan, ProxyError

pytestmark = pytest.mark.real

MESSAGES: Any = [{"role": "user", "content": "Hello?"}]


class Connection:
    """One open client of an SDK, and the event loop that its calls run in if they are async."""

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self.client = client
        self.create: Callable[..., Any] = client.chat.completions.create
        self.loop = loop

    def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `fn`; with an async client inside its loop, awaiting what is awaitable."""
        if self.loop is None:
            return fn(*args, **kwargs)

        async def main() -> Any:
            result = fn(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return self.loop.run_until_complete(main())

    def ask(self, pipeline: Pipeline, model: str = "gpt-4o", way: str = "call", **more: Any) -> Any:
        """`create` through `Pipeline.call`, or another way."""
        call = {"model": model, "messages": MESSAGES, **more}
        if way == "wrap":
            return self.run(pipeline.wrap(self.create), **call)
        return self.run(getattr(pipeline, way), self.create, **call)

    def bare(self, model: str = "gpt-4o", **more: Any) -> Any:
        """`create` with nothing around it."""
        return self.run(self.create, model=model, messages=MESSAGES, **more)

    def error(self, model: str = "gpt-4o") -> Any:
        """The exception that `create` raises with nothing around it."""
        with pytest.raises(Exception) as caught:  # noqa: PT011  # whichever it is
            self.bare(model)
        return caught.value


class Sdk:
    """An SDK's client class; its own retries are off unless a test says otherwise."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make
        self.asynchronous = hasattr(make, "__aenter__")
        self.auriko = make.__module__.startswith("auriko")
        self.errors: Any = auriko.errors if self.auriko else openai

    @contextmanager
    def open(self, gateway: Gateway, **options: Any) -> Iterator[Connection]:
        """A client of the gateway for a `with` block."""
        options = {"timeout": 5.0, "max_retries": 0, **options}
        client = self.make(api_key="any", base_url=gateway.base_url, **options)
        if not self.asynchronous:
            with client:
                yield Connection(client, None)
            return
        loop = asyncio.new_event_loop()
        try:
            yield Connection(client, loop)
            loop.run_until_complete(client.close())
            loop.run_until_complete(loop.shutdown_asyncgens())  # as asyncio.run does
        finally:
            loop.close()


SDKS = {
    "auriko": Sdk(auriko.Client),
    "auriko-async": Sdk(auriko.AsyncClient),
    "openai": Sdk(openai.OpenAI),
    "openai-async": Sdk(openai.AsyncOpenAI),
}
every_sdk = pytest.mark.parametrize("sdk", SDKS.values(), ids=SDKS)
every_way = pytest.mark.parametrize("way", ["call", "wrap"])


def text(answer: Any) -> str:
    """What a completion says; the gateway's says by itself which model it is from."""
    said: str = answer.choices[0].message.content
    return said


def answers(gateway: Gateway) -> list[tuple[str | None, str]]:
    """Which model was asked, and what it answered, request by request."""
    return [(received.model, received.answer) for received in gateway.requests]


@contextmanager
def took(at_least: float = 0.0, at_most: float = 1.0) -> Iterator[None]:
    """The block takes that many seconds."""
    started = time.monotonic()
    yield
    assert at_least <= time.monotonic() - started <= at_most


# Retried.


@every_way
@every_sdk
def test_a_rate_limit_is_waited_for(sdk: Sdk, way: str) -> None:
    """The second request comes no sooner than `Retry-After` says, and not much later."""
    plan: Plan = [Error("rate_limit_exceeded", retry_after=0.05), Ok()]
    with Gateway(plan) as gateway, sdk.open(gateway) as connection:
        answer = connection.ask(Pipeline(Retry()), way=way)
        first, second = gateway.requests
    assert text(answer) == "Hello from gpt-4o."
    assert 0.05 <= second.at - first.at < 1


@every_sdk
def test_milliseconds_are_waited_for_too(sdk: Sdk) -> None:
    """`retry-after-ms` is obeyed, which not every SDK itself does."""
    plan: Plan = [Error("service_unavailable", retry_after_ms=40), Ok()]
    with Gateway(plan) as gateway, sdk.open(gateway) as connection:
        connection.ask(Pipeline(Retry()))
        first, second = gateway.requests
    assert 0.04 <= second.at - first.at < 0.4  # the backoff would be that at least


@pytest.mark.parametrize(
    "failure",
    ["service_unavailable", "upstream_error", "internal_error", Drop(), ProxyError(502)],
    ids=lambda failure: getattr(failure, "name", failure),
)
@every_sdk
def test_what_fails_in_passing_is_retried(sdk: Sdk, failure: Any) -> None:
    """One failure, one more request with the very same body, and the answer comes out."""
    with Gateway([failure, Ok()]) as gateway, sdk.open(gateway) as connection:
        answer = connection.ask(Pipeline(Retry(wait=0.001)), temperature=0.5)
        first, second = gateway.requests
    assert text(answer) == "Hello from gpt-4o."
    assert first.body == second.body
    assert (first.body["model"], first.body["messages"]) == ("gpt-4o", MESSAGES)
    assert first.body["temperature"] == 0.5


@every_sdk
def test_a_refused_connection_is_retried(sdk: Sdk) -> None:
    """A gateway that is not there is tried as often as is allowed."""
    with Gateway() as gateway:
        pass
    with sdk.open(gateway) as connection, pytest.raises(sdk.errors.APIConnectionError) as caught:
        connection.ask(Pipeline(Retry(wait=0.001)))
    attempts = history(caught.value)
    assert [attempt.failure and attempt.failure.kind for attempt in attempts] == (
        [Kind.CONNECTION] * 3
    )
    assert all(attempt.failure and attempt.failure.sent is False for attempt in attempts)


@every_sdk
def test_its_own_last_error_comes_out(sdk: Sdk) -> None:
    """When attempts run out, the SDK's last exception comes out, knowing all attempts."""
    with Gateway("upstream_error") as gateway, sdk.open(gateway) as connection:
        with pytest.raises(sdk.errors.APIStatusError) as caught:
            connection.ask(Pipeline(Retry(wait=0.001)))
        asked = [received.request_id for received in gateway.requests]
    error: Any = caught.value
    assert error.request_id == asked[-1]
    assert [a.failure and a.failure.request_id for a in history(error)] == asked
    assert [a.number for a in history(error)] == [1, 2, 3]
    assert ["3 attempts" in note for note in error.__notes__] == [True]


@every_sdk
def test_a_wait_too_long_is_not_begun(sdk: Sdk) -> None:
    """A server that asks for an hour is not waited for: its error comes out at once."""
    plan = Error("rate_limit_exceeded", retry_after=3600)
    with Gateway(plan) as gateway, sdk.open(gateway) as connection, took():
        with pytest.raises(sdk.errors.RateLimitError) as caught:
            connection.ask(Pipeline(Retry()))
        assert len(gateway.requests) == 1
    assert "3600 s" in "".join(caught.value.__notes__)


@every_sdk
def test_bare_resilient(sdk: Sdk) -> None:
    """`@resilient` alone, over a function of the user's own, sync or async."""
    plan: Plan = [Error("service_unavailable", retry_after=0.01), Ok()]
    with Gateway(plan) as gateway, sdk.open(gateway) as connection:

        @resilient
        def ask(words: str) -> Any:
            return connection.create(model="m", messages=[{"role": "user", "content": words}])

        @resilient
        async def ask_later(words: str) -> Any:
            return await connection.create(model="m", messages=[{"role": "user", "content": words}])

        for guarded in (ask, ask_later) if sdk.asynchronous else (ask,):
            gateway.reset()
            assert text(connection.run(guarded, "Hello?")) == "Hello from m."
            assert len(gateway.requests) == 2


# Fallen back.


@pytest.mark.parametrize(
    "code", ["model_unavailable", "model_not_found", "context_length_exceeded"]
)
@every_way
@every_sdk
def test_another_model_answers(sdk: Sdk, way: str, code: str) -> None:
    """What only another model can help is asked once, then the next model."""
    with Gateway({"a": code, "b": Ok()}) as gateway, sdk.open(gateway) as connection:
        answer = connection.ask(Pipeline(ModelFallback("a", "b"), Retry()), "a", way)
        assert gateway.hits == {"a": 1, "b": 1}
    assert text(answer) == "Hello from b."
    assert answer.model == "b"


@every_sdk
def test_the_first_model_is_put_in(sdk: Sdk) -> None:
    """A call that names no model starts with the chain's first, though the SDK wants one."""
    with Gateway() as gateway, sdk.open(gateway) as connection:
        pipeline = Pipeline(ModelFallback("a", "b"))
        answer = connection.run(pipeline.call, connection.create, messages=MESSAGES)
        assert gateway.hits == {"a": 1}
    assert answer.model == "a"


@every_sdk
def test_a_call_starts_with_its_own_model(sdk: Sdk) -> None:
    """The model that a call names comes first, the rest of the chain after it."""
    plan: dict[str, Plan] = {"a": Ok(), "b": "model_unavailable", "c": "model_unavailable"}
    with Gateway(plan) as gateway, sdk.open(gateway) as connection:
        answer = connection.ask(Pipeline(ModelFallback("a", "b")), "c")
        assert answer.model == "a"
        answer = connection.ask(Pipeline(ModelFallback("a", "b")), "b")
        assert answer.model == "a"
        assert [model for model, _ in answers(gateway)] == ["c", "a", "b", "a"]


@every_sdk
def test_the_outcome_tells_who_served(sdk: Sdk) -> None:
    """The outcome has the attempts at every model, and who answered in the end."""
    plan: dict[str, Plan] = {"a": "upstream_error", "b": Ok()}
    with Gateway(plan) as gateway, sdk.open(gateway) as connection:
        pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=0.001))
        outcome = connection.ask(pipeline, "a", "outcome")
        ids = [received.request_id for received in gateway.requests]
    assert text(outcome.value) == "Hello from b."
    assert (outcome.served_by, outcome.degraded, outcome.error) == ("b", True, None)
    assert [(a.number, a.model) for a in outcome.attempts] == [(1, "a"), (2, "a"), (3, "b")]
    failures = [attempt.failure for attempt in outcome.attempts]
    assert [f and (f.code, f.request_id) for f in failures] == [
        ("upstream_error", ids[0]),
        ("upstream_error", ids[1]),
        None,
    ]


@every_sdk
def test_the_last_models_error_comes_out(sdk: Sdk) -> None:
    """When no model is left, the last one's own error comes out, with all of it in its history."""
    plan: dict[str, Plan] = {"a": "model_not_found", "b": "context_length_exceeded"}
    with Gateway(plan) as gateway, sdk.open(gateway) as connection:
        with pytest.raises(sdk.errors.BadRequestError) as caught:
            connection.ask(Pipeline(ModelFallback("a", "b"), Retry()), "a")
        assert answers(gateway) == [("a", "model_not_found"), ("b", "context_length_exceeded")]
    told = [(a.model, a.failure and a.failure.code) for a in history(caught.value)]
    assert told == answers(gateway)


@every_sdk
def test_another_model_goes_before_waiting(sdk: Sdk) -> None:
    """A rate limit is not waited for while another model is free, beyond one's patience."""
    limited = [Error("rate_limit_exceeded", retry_after=0.05), Ok()]
    with Gateway({"a": limited, "b": Ok()}) as gateway, sdk.open(gateway) as connection:
        answer = connection.ask(Pipeline(ModelFallback("a", "b"), Retry(patience=0.01)), "a")
        assert (answer.model, gateway.hits) == ("b", {"a": 1, "b": 1})
        gateway.reset()
        answer = connection.ask(Pipeline(ModelFallback("a", "b"), Retry()), "a")
        assert (answer.model, gateway.hits) == ("a", {"a": 2})
        first, second = gateway.requests
    assert second.at - first.at >= 0.05


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_another_sdk_takes_over(asynchronous: bool) -> None:
    """A model may be called with another client: Auriko's first, then OpenAI's."""
    ours, theirs = ("auriko-async", "openai-async") if asynchronous else ("auriko", "openai")
    with (
        Gateway("no_provider_available") as down,
        Gateway(Ok()) as up,
        SDKS[ours].open(down) as first,
        SDKS[theirs].open(up) as second,
    ):
        second.loop = first.loop  # one program, one loop
        chain = ModelFallback("gpt-4o", Model("gpt-4o", call=second.create, temperature=0))
        answer = first.ask(Pipeline(chain, Retry(attempts=2, wait=0.001)))
        assert (down.hits, up.hits) == ({"gpt-4o": 1}, {"gpt-4o": 1})
        assert up.requests[0].body["temperature"] == 0
        assert "temperature" not in down.requests[0].body
        assert type(answer).__module__.startswith("openai.")
        if first.loop is not None:
            first.loop.run_until_complete(second.client.close())


@every_sdk
def test_a_last_resort(sdk: Sdk) -> None:
    """`Fallback` gives its value when everything has failed."""
    with Gateway("service_unavailable") as gateway, sdk.open(gateway) as connection:
        pipeline = Pipeline(Fallback("sorry"), ModelFallback("a", "b"), Retry(2, wait=0.001))
        assert connection.ask(pipeline, "a") == "sorry"
        assert gateway.hits == {"a": 2, "b": 2}  # each in turn, and once more


# Timed out.


@every_sdk
def test_a_hung_model_is_left(sdk: Sdk) -> None:
    """A model that never answers is given up after the attempt's time, and the next one asked."""
    with Gateway({"a": Hang(), "b": Ok()}) as gateway, sdk.open(gateway) as connection:
        with took(at_least=0.2):
            answer = connection.ask(Pipeline(ModelFallback("a", "b"), Timeout(0.2)), "a")
        assert gateway.hits == {"a": 1, "b": 1}
        assert connection.bare("b").model == "b"  # the client is as good as before
    assert answer.model == "b"


def first_example(sdk: Sdk) -> tuple[str, dict[str, int], float]:
    """The first example of the docs, its times scaled: what it says, the requests, the seconds."""
    plan: dict[str, Plan] = {"gpt-4o": Hang(), "*": Ok()}
    with Gateway(plan) as gateway, sdk.open(gateway) as connection:

        @resilient(
            Timeout(6),
            ModelFallback("gpt-4o", "claude-sonnet-4-6", "gpt-4o-mini"),
            Retry(attempts=2),
            CircuitBreaker(key="model"),
            Timeout(0.3),
        )
        def chat(messages: Any, *, model: str = "gpt-4o") -> Any:
            return connection.create(model=model, messages=messages)

        started = time.monotonic()
        answer = connection.run(chat, MESSAGES)
        return text(answer), gateway.hits, time.monotonic() - started


def test_the_first_example() -> None:
    """When the first model hangs, the second one answers; with four SDKs, in as many threads."""
    with ThreadPoolExecutor(len(SDKS)) as pool:
        found = dict(zip(SDKS, pool.map(first_example, SDKS.values()), strict=True))
    for said, hits, seconds in found.values():
        assert said == "Hello from claude-sonnet-4-6."
        assert hits == {"gpt-4o": 1, "claude-sonnet-4-6": 1}
        assert 0.3 <= seconds <= 2


@every_sdk
def test_the_first_example_over_create_itself(sdk: Sdk) -> None:
    """The same over the SDK's `create`, where the hung model's circuit opens after a while."""
    breaker = CircuitBreaker(key="model", failures=1)
    pipeline = Pipeline(
        Timeout(3),
        ModelFallback("gpt-4o", "claude-sonnet-4-6", "gpt-4o-mini"),
        Retry(attempts=2, wait=0.001),
        breaker,
        Timeout(0.12),
    )
    with Gateway({"gpt-4o": Hang(), "*": Ok()}) as gateway, sdk.open(gateway) as connection:
        with took(at_least=0.12):
            assert connection.ask(pipeline).model == "claude-sonnet-4-6"
        with took(at_most=0.1):
            assert connection.ask(pipeline).model == "claude-sonnet-4-6"
        assert gateway.hits == {"gpt-4o": 1, "claude-sonnet-4-6": 2}
    assert breaker.circuit("gpt-4o").state == "open"
    assert breaker.circuit("claude-sonnet-4-6").state == "closed"


@pytest.mark.parametrize("name", ["auriko", "openai-async"])
def test_the_total_bounds_all_attempts(name: str) -> None:
    """However many attempts are left, the total time ends the call."""
    endless = Retry(attempts=None, on=TimeoutError, wait=0.01)
    pipeline = Pipeline(Timeout(0.25), endless, Timeout(0.08))
    with Gateway(Hang()) as gateway, SDKS[name].open(gateway) as connection:
        with took(0.2, 0.6), pytest.raises(DeadlineExceededError) as caught:
            connection.ask(pipeline)
        assert len(gateway.requests) <= 3
    assert isinstance(caught.value, TimeoutError)
    assert [a.failure and a.failure.kind for a in history(caught.value)] == [Kind.TIMEOUT] * 3


@every_sdk
def test_the_sdks_own_timeout_is_retried(sdk: Sdk) -> None:
    """The client's own time limit is a failure like others, in the SDK's own exception."""
    with Gateway([Hang(), Ok()]) as gateway, sdk.open(gateway, timeout=0.1) as connection:
        assert text(connection.ask(Pipeline(Retry(wait=0.001)))) == "Hello from gpt-4o."
        gateway.reset()
        with pytest.raises(sdk.errors.APIConnectionError) as caught:
            connection.ask(Pipeline(Retry(attempts=1)))
    (attempt,) = history(caught.value)
    assert attempt.failure is not None
    assert attempt.failure.kind is Kind.TIMEOUT


@pytest.mark.parametrize("name", ["openai", "openai-async"])
def test_time_is_passed_on(name: str) -> None:
    """With `pass_as`, OpenAI's `create` gets what is left as its own `timeout`."""
    with (
        Gateway(Hang()) as gateway,
        SDKS[name].open(gateway) as connection,
        took(at_least=0.1),
        pytest.raises(openai.APITimeoutError),
    ):
        connection.ask(Pipeline(Timeout(0.1, pass_as="timeout")))


# Broken.


@every_way
@every_sdk
def test_a_broken_service_is_left_alone(sdk: Sdk, way: str) -> None:
    """After so many failures the gateway is not asked any more, until it may be tried again."""
    breaker = CircuitBreaker(failures=3, reset_after=60)
    pipeline = Pipeline(breaker)
    plan: Plan = ["service_unavailable"] * 3 + [Ok()]
    with Gateway(plan) as gateway, sdk.open(gateway) as connection, virtual_time() as clock:
        for _ in range(3):
            with pytest.raises(sdk.errors.APIStatusError) as caught:
                connection.ask(pipeline, way=way)
        for _ in range(3):
            with pytest.raises(CircuitOpenError) as rejected:
                connection.ask(pipeline, way=way)
        assert rejected.value.__cause__ is caught.value
        assert rejected.value.retry_after == 60
        assert len(gateway.requests) == 3
        clock.advance(60)
        assert text(connection.ask(pipeline, way=way)) == "Hello from gpt-4o."
        assert breaker.state == "closed"


@every_sdk
def test_retries_end_when_the_circuit_opens(sdk: Sdk) -> None:
    """The attempt that opens the circuit is the last one; the SDK's own error comes out."""
    pipeline = Pipeline(Retry(attempts=9, wait=0.001), CircuitBreaker(failures=3))
    with Gateway("upstream_error") as gateway, sdk.open(gateway) as connection:
        with pytest.raises(sdk.errors.APIStatusError):
            connection.ask(pipeline)
        assert len(gateway.requests) == 3
        with pytest.raises(CircuitOpenError):
            connection.ask(pipeline)
        assert len(gateway.requests) == 3


@every_way
@every_sdk
def test_a_broken_model_is_passed_over(sdk: Sdk, way: str) -> None:
    """With a circuit for each model, an open one costs no request: the next model is used."""
    # Whatever `on` says: a rejection always moves on.
    chain = ModelFallback("a", "b", on="upstream_error")
    pipeline = Pipeline(chain, CircuitBreaker(key="model", failures=2))
    with Gateway({"a": "upstream_error", "b": Ok()}) as gateway, sdk.open(gateway) as connection:
        for _ in range(2):
            assert connection.ask(pipeline, "a", way).model == "b"
        gateway.reset()
        for _ in range(2):
            assert connection.ask(pipeline, "a", way).model == "b"
        assert gateway.hits == {"b": 2}


@every_sdk
def test_a_hung_service_breaks_too(sdk: Sdk) -> None:
    """A circuit with a time limit inside it counts calls that hang."""
    pipeline = Pipeline(CircuitBreaker(failures=2), Timeout(0.1))
    with Gateway(Hang()) as gateway, sdk.open(gateway) as connection:
        for _ in range(2):
            with pytest.raises(DeadlineExceededError):
                connection.ask(pipeline)
        with pytest.raises(CircuitOpenError):
            connection.ask(pipeline)
        assert len(gateway.requests) == 2


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "insufficient_quota", "invalid_request"])
@every_sdk
def test_what_is_not_the_services_fault_breaks_nothing(sdk: Sdk, code: str) -> None:
    """Rate limits, spent quotas and bad requests leave the circuit closed."""
    breaker = CircuitBreaker(failures=1)
    with Gateway(code) as gateway, sdk.open(gateway) as connection:
        for _ in range(3):
            with pytest.raises(sdk.errors.APIStatusError):
                connection.ask(Pipeline(breaker))
    assert breaker.state == "closed"
