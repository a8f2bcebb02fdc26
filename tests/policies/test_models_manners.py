"""A chain's manners, line by line, with the real OpenAI client over a socket.

Waits go by virtual time, where no deadline is due while a socket is read; a model is silent for as
long as the client listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from attrs import define, field

from resilience import (
    CircuitBreaker,
    Model,
    ModelFallback,
    Outcome,
    Pipeline,
    Retry,
    Timeout,
    guarded,
)
from resilience.errors import CircuitOpenError
from resilience.failures import Kind
from resilience.testing import VirtualTime, virtual_time
from resilience.testing.gateway import Error, Gateway, Hang, Ok
from resilience.waits import Fixed
from support.errors import note_of

pytestmark = [pytest.mark.real]

MESSAGES: Any = [{"role": "user", "content": "Hi"}]


def limited(seconds: float | None = None) -> Error:
    return Error("rate_limit_exceeded", retry_after=seconds)


SHUT = Error("invalid_api_key")


@define
class Client:
    """The OpenAI client of one colour, and what came of a call."""

    asynchronous: bool
    clock: VirtualTime = field(factory=lambda: VirtualTime(start=0, wall=0, seed=0))
    asked: list[str] = field(factory=list)

    def ask(self, pipeline: Pipeline, plan: Any, *, patience: float = 20.0) -> Outcome[Any]:
        """One guarded call, of a gateway that answers by the plan."""
        with Gateway(plan) as gateway:
            found = self.call(pipeline, gateway, patience)
            self.asked = [request.model for request in gateway.requests]
        return found

    def call(self, pipeline: Pipeline, gateway: Gateway, patience: float = 20.0) -> Outcome[Any]:
        options: Any = {"base_url": gateway.base_url, "api_key": "any", "timeout": patience}
        chain = any(isinstance(policy, ModelFallback) for policy in pipeline.policies)
        given: Any = {} if chain else {"model": "a"}
        if not self.asynchronous:
            with openai.OpenAI(**options, max_retries=0) as client:
                create: Any = client.chat.completions.create
                return guarded(pipeline.wrap(create)).outcome(messages=MESSAGES, **given)

        async def main() -> Outcome[Any]:
            async with openai.AsyncOpenAI(**options, max_retries=0) as client:
                create: Any = client.chat.completions.create
                outcome: Any = guarded(pipeline.wrap(create)).outcome(messages=MESSAGES, **given)
                return await outcome

        return asyncio.run(main())


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    with virtual_time() as clock:
        clock.random = lambda: 0.0
        yield Client(request.param == "async", clock)


@pytest.fixture(params=["sync", "async"])
def real_client(request: pytest.FixtureRequest) -> Client:
    return Client(request.param == "async")


def text(outcome: Outcome[Any]) -> str:
    return str(outcome.value.choices[0].message.content)


# Patience


@pytest.mark.parametrize(
    ("asked", "expected", "slept"),
    [(5, ["a", "a"], [5]), (5.1, ["a", "b"], []), (None, ["a", "b"], [])],
)
def test_patience(
    client: Client, asked: float | None, expected: list[str], slept: list[float]
) -> None:
    """Five seconds are waited out; a longer wait, or one without a number, moves on."""
    plan = {"a": [limited(asked), Ok()], "b": Ok()}
    client.ask(Pipeline(ModelFallback("a", "b"), Retry()), plan)

    assert client.asked == expected
    assert client.clock.sleeps == slept


def test_a_bare_503_moves_on(client: Client) -> None:
    """A WAIT without a number; the failing model's turn may come again, after its backoff."""
    plan = {"a": ["service_unavailable", Ok()], "b": "service_unavailable"}
    outcome = client.ask(Pipeline(ModelFallback("a", "b"), Retry()), plan)

    assert client.asked == ["a", "b", "a"]
    assert outcome.served_by == "a"


# A silent model


def test_a_silent_model_is_not_asked_again(client: Client) -> None:
    """It did not answer in time, by the client's own timeout: the next one is asked at once."""
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=3))
    outcome = client.ask(pipeline, {"a": Hang(), "b": Ok()}, patience=0.2)

    assert client.asked == ["a", "b"]
    assert client.clock.sleeps == []
    assert outcome.attempts[0].failure is not None
    assert outcome.attempts[0].failure.kind is Kind.TIMEOUT


def test_a_silent_model_is_asked_again_when_nothing_else_is_left(client: Client) -> None:
    """`b` asks for too much time, `c` refuses: only the silent one may still answer."""
    plan = {"a": [Hang(), Ok()], "b": limited(600), "c": "model_not_found"}
    pipeline = Pipeline(ModelFallback("a", "b", "c"), Retry(attempts=3))
    outcome = client.ask(pipeline, plan, patience=0.2)

    assert client.asked == ["a", "b", "c", "a"]
    assert outcome.served_by == "a"


# "Do not repeat this"


def test_do_not_repeat_leads_on(client: Client) -> None:
    """`x-should-retry: false`: no retry of this model, and the next one's turn."""
    told = Error("service_unavailable", headers={"x-should-retry": "false"})
    client.ask(Pipeline(ModelFallback("a", "b"), Retry()), {"a": told, "b": Ok()})

    assert client.asked == ["a", "b"]


# Trouble with the account


@pytest.mark.parametrize("code", ["invalid_api_key", "insufficient_quota", "forbidden"])
def test_trouble_with_the_account_stops_the_chain(client: Client, code: str) -> None:
    """Another model of the same account would say the same."""
    outcome = client.ask(Pipeline(ModelFallback("a", "b"), Retry()), {"*": code})

    assert client.asked == ["a"]
    assert isinstance(outcome.error, openai.APIStatusError)


@pytest.mark.parametrize("code", ["invalid_api_key", "insufficient_quota", "forbidden"])
def test_trouble_with_the_account_moves_on_to_another_account(client: Client, code: str) -> None:
    """`b` has the account in trouble, too: it is left out."""
    chain = ModelFallback("a", "b", Model("c", account="reserve"))
    outcome = client.ask(Pipeline(chain, Retry()), {"a": code, "b": Ok(), "c": Ok("reserve")})

    assert client.asked == ["a", "c"]
    assert text(outcome) == "reserve"


def test_a_function_of_its_own_is_an_account_of_its_own(client: Client) -> None:
    """With `call=`, a model has another client, and so another key."""
    with Gateway({"*": Ok("reserve")}) as reserve:
        options: Any = {"base_url": reserve.base_url, "api_key": "other", "max_retries": 0}

        def other(**kwargs: Any) -> Any:
            with openai.OpenAI(**options) as second:
                return second.chat.completions.create(**kwargs)

        async def other_async(**kwargs: Any) -> Any:
            async with openai.AsyncOpenAI(**options) as second:
                return await second.chat.completions.create(**kwargs)

        call: Callable[..., Any] = other_async if client.asynchronous else other
        chain = ModelFallback("a", "b", Model("c", call=call))
        outcome = client.ask(Pipeline(chain, Retry()), {"*": SHUT})

    assert client.asked == ["a"]
    assert text(outcome) == "reserve"


def test_the_reserve_account_has_attempts_of_its_own(client: Client) -> None:
    """The same model with another account is another place in the chain."""
    chain = ModelFallback("a", Model("a", account="reserve", extra_headers={"x-account": "2"}))
    client.ask(Pipeline(chain, Retry(attempts=3)), {"*": "upstream_error"})

    assert len(client.asked) == 6


# Going round


def test_going_round(client: Client) -> None:
    """`a` asks for 10 s and `b` for 600 s: after 10 s, `a` answers."""
    began = client.clock.now()
    plan = {"a": [limited(10), Ok()], "b": limited(600)}
    outcome = client.ask(Pipeline(ModelFallback("a", "b"), Retry(attempts=3)), plan)

    assert client.asked == ["a", "b", "a"]
    assert client.clock.now() - began == 10
    assert outcome.served_by == "a"
    assert [attempt.number for attempt in outcome.attempts] == [1, 2, 3]


def test_it_ends(client: Client) -> None:
    """No model's turn comes more often than `rounds` says."""
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=3))
    outcome = client.ask(pipeline, {"*": limited(10)})

    assert client.asked == ["a", "b", "a", "b", "b"]  # with nobody left to leave it to, `b` waits
    assert isinstance(outcome.error, openai.RateLimitError)


def test_one_round_is_no_round_trip(client: Client) -> None:
    """With `rounds=1` each model has one turn."""
    pipeline = Pipeline(ModelFallback("a", "b", rounds=1), Retry(attempts=2))
    client.ask(pipeline, {"a": [limited(10), Ok()], "b": limited(10)})

    assert client.asked == ["a", "b", "b"]


@pytest.mark.parametrize(("attempts", "of_each"), [(1, 1), (2, 2), (3, 3)])
def test_attempts_count_over_all_rounds(client: Client, attempts: int, of_each: int) -> None:
    """However often its turn comes, a model gets no more attempts than `Retry` allows."""
    chain = ModelFallback("a", "b", rounds=5)
    client.ask(Pipeline(chain, Retry(attempts=attempts)), {"*": limited(10)})

    assert client.asked == ["a", "b"] * of_each


def test_a_round_has_to_fit_into_the_deadline(real_client: Client) -> None:
    """What would end after it is not begun; the error comes out at once."""
    pipeline = Pipeline(Timeout(9), ModelFallback("a", "b"), Retry(attempts=3))
    outcome = real_client.ask(pipeline, {"a": [limited(10), Ok()], "b": limited(600)})

    assert real_client.asked == ["a", "b"]
    assert outcome.elapsed < 5


def test_a_round_has_to_fit_into_within(client: Client) -> None:
    """`within` is each model's, over all its turns."""
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=3, within=9))
    client.ask(pipeline, {"a": [limited(10), Ok()], "b": limited(8)})

    assert client.asked == ["a", "b", "b"]


def test_a_round_waits_for_a_circuit(client: Client) -> None:
    """A model left for its open circuit is waited for like one that asked for it."""
    breaker = CircuitBreaker(key="model", failures=1, reset_after=7)
    breaker.circuit("a").open()
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=3), breaker)
    outcome = client.ask(pipeline, {"a": Ok(), "b": limited(600)})

    assert client.asked == ["b", "a"]
    assert client.clock.sleeps == [7]
    assert outcome.served_by == "a"


# Which error comes out


@pytest.mark.parametrize(("first", "status"), [(False, 404), (True, 503)])
def test_the_last_error_comes_out_or_the_first(client: Client, first: bool, status: int) -> None:
    """The last model's, or with `raise_first` the first one's: itself; the history has all."""
    plan = {"a": "service_unavailable", "b": "model_not_found"}
    chain = ModelFallback("a", "b", raise_first=first)
    outcome = client.ask(Pipeline(chain), plan)

    assert isinstance(outcome.error, openai.APIStatusError)
    assert outcome.error.status_code == status
    assert [attempt.model for attempt in outcome.attempts] == ["a", "b"]


@pytest.mark.parametrize("first", [False, True])
def test_a_skipped_model_is_told_in_the_note(client: Client, first: bool) -> None:
    """The error that comes out says which model was left out because its circuit is open."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("b").isolate()
    chain = ModelFallback("a", "b", raise_first=first)
    outcome = client.ask(Pipeline(chain, breaker), {"*": "model_not_found"})

    assert client.asked == ["a"]
    assert isinstance(outcome.error, openai.NotFoundError)
    note = note_of(outcome.error)
    assert f"{'b was skipped:' if first else 'then'} circuit for 'b' is open" in note


# What Retry promises


def test_a_rejection_that_is_named_is_waited_for(client: Client) -> None:
    """Not before its `retry_at`, whatever the wait says."""
    breaker = CircuitBreaker(failures=1, reset_after=30)
    breaker.open()
    pipeline = Pipeline(Retry(on=CircuitOpenError, wait=Fixed(1)), breaker)
    outcome = client.ask(pipeline, {"*": Ok()})

    assert client.clock.sleeps == [30]
    assert outcome.error is None


@pytest.mark.parametrize("on", [CircuitOpenError, Kind.REJECTED])
def test_a_rejection_is_not_waited_for_in_vain(client: Client, on: Any) -> None:
    """Not beyond the deadline, not beyond the wait's `longest`, not where nobody knows how long."""
    for isolated, reset_after, within in ((False, 30, 20), (False, 61, None), (True, 1, None)):
        breaker = CircuitBreaker(failures=1, reset_after=reset_after)
        breaker.isolate() if isolated else breaker.open()
        pipeline = Pipeline(Retry(on=on, within=within), breaker)
        outcome = client.ask(pipeline, {"*": Ok()})

        assert client.asked == []
        assert client.clock.sleeps == []
        assert isinstance(outcome.error, CircuitOpenError)


def test_stop_alone_says_how_many_attempts(client: Client) -> None:
    """Without `attempts=`, tenacity's stop decides."""
    import tenacity

    pipeline = Pipeline(Retry(stop=tenacity.stop_after_attempt(5)))
    client.ask(pipeline, {"*": "upstream_error"})

    assert len(client.asked) == 5


@pytest.mark.parametrize(("limit", "patience"), [(15, 0.1), (0.1, 15)])
def test_five_attempts_are_five_of_a_silent_model(
    real_client: Client, limit: float, patience: float
) -> None:
    """A timeout is retried like any other failure where there is no other model, the client's own
    and ours."""
    pipeline = Pipeline(Retry(attempts=5, wait=0), Timeout(limit))
    outcome = real_client.ask(pipeline, {"*": Hang()}, patience=patience)

    assert [attempt.failure.kind for attempt in outcome.attempts if attempt.failure] == (
        [Kind.TIMEOUT] * 5
    )


def test_an_attempt_knows_its_functions_own_model(client: Client) -> None:
    """The model that the function has for a default is the attempt's."""
    with Gateway("upstream_error") as gateway:
        options: Any = {"base_url": gateway.base_url, "api_key": "any", "max_retries": 0}

        def ask(question: str, model: str = "gpt-4o") -> Any:
            with openai.OpenAI(**options) as service:
                return service.chat.completions.create(model=model, messages=MESSAGES)

        async def ask_async(question: str, model: str = "gpt-4o") -> Any:
            async with openai.AsyncOpenAI(**options) as service:
                return await service.chat.completions.create(model=model, messages=MESSAGES)

        retrying = Pipeline(Retry(attempts=2))
        outcomes = [
            asyncio.run(guarded(retrying.wrap(ask_async)).outcome("Hi", *model))
            if client.asynchronous
            else guarded(retrying.wrap(ask)).outcome("Hi", *model)
            for model in ((), ("gpt-4o-mini",))
        ]

    models = [[attempt.model for attempt in outcome.attempts] for outcome in outcomes]
    assert models == [["gpt-4o"] * 2, ["gpt-4o-mini"] * 2]
