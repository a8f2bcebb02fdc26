"""What type checkers make of the public API. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import openai
import redis
import redis.asyncio
from auriko._client import AsyncClient, Client
from auriko._streaming import AsyncStream as AurikoAsyncStream
from auriko._streaming import Stream as AurikoStream
from auriko.models.chat import ChatCompletion as AurikoCompletion
from auriko.models.chat import ChatCompletionChunk as AurikoChunk
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam
from typing_extensions import assert_type

from resilience import (
    Attempt,
    CircuitBreaker,
    CircuitOpenError,
    Consecutive,
    DeadlineExceededError,
    FailureRate,
    Fallback,
    Guarded,
    Model,
    ModelFallback,
    Outcome,
    Pipeline,
    RejectedError,
    Retry,
    SlowCalls,
    Timeout,
    current_attempt,
    history,
    resilient,
    served_by,
)
from resilience.failures import Advice, Failure, Kind, describe
from resilience.matching import TRANSIENT, Match, code, kind, raised, status
from resilience.shared import RedisCircuit
from resilience.testing import VirtualTime, virtual_time
from resilience.testing.gateway import Gateway, Ok, Received
from resilience.typing import Call, Policy, Runtime
from resilience.waits import Exponential, Fixed, RetryAfter

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello?"}]
robust = Pipeline(Retry(), CircuitBreaker(key="model"))


# Functions.


@resilient
def bare(x: int, *, model: str = "m") -> str:
    return model * x


@resilient(Timeout(60), ModelFallback("a", "b"), Retry(attempts=2), name="chat")
def decorated(x: int, *, model: str = "m") -> str:
    return model * x


@resilient
async def bare_async(x: int, *, model: str = "m") -> str:
    return model * x


@resilient(Retry())
async def decorated_async(x: int, *, model: str = "m") -> str:
    return model * x


def optional(x: int) -> str | None:
    return str(x) or None


def sync_functions() -> None:
    assert_type(bare(1), str)
    assert_type(decorated(1, model="x"), str)
    assert_type(bare.outcome(1, model="x"), Outcome[str])
    assert_type(decorated.outcome(1), Outcome[str])
    guarded: Guarded[[int], str | None] = robust(optional)
    assert_type(guarded(1), str | None)
    assert_type(robust(optional)(1), str | None)
    assert_type(robust.call(optional, 1), str | None)
    assert_type(robust.outcome(optional, 1), Outcome[str | None])
    assert_type(robust.wrap(optional)(1), str | None)


async def async_functions() -> None:
    assert_type(await bare_async(1), str)
    assert_type(await decorated_async(1, model="x"), str)
    assert_type(await bare_async.outcome(1, model="x"), Outcome[str])
    assert_type(await decorated_async.outcome(1), Outcome[str])

    async def later(x: int) -> str:
        return str(x)

    assert_type(await robust.call(later, 1), str)
    assert_type(await robust.outcome(later, 1), Outcome[str])
    assert_type(await robust.wrap(later)(1), str)
    assert_type(await robust(later)(1), str)


def wrong_calls() -> None:
    """The function's own parameters are still checked."""
    bare("1")  # type: ignore[arg-type]  # an int is wanted
    bare(1, modle="x")  # type: ignore[call-arg]  # a typo
    bare.outcome("1")  # type: ignore[arg-type]  # an int is wanted
    robust.call(optional, "1")  # type: ignore[arg-type]  # an int is wanted
    robust.wrap(optional)("1")  # type: ignore[arg-type]  # an int is wanted
    Pipeline(Retry)  # type: ignore[arg-type]  # a class, not a policy


def parameters_called_fn_and_self() -> None:
    def fn_and_self(fn: int, self: str) -> float:
        return fn + len(self)

    assert_type(robust.call(fn_and_self, fn=1, self=""), float)
    assert_type(robust.outcome(fn_and_self, fn=1, self=""), Outcome[float])
    assert_type(robust.wrap(fn_and_self)(fn=1, self=""), float)
    assert_type(robust(fn_and_self)(fn=1, self=""), float)
    assert_type(robust(fn_and_self).outcome(fn=1, self=""), Outcome[float])
    assert_type(resilient(fn_and_self)(fn=1, self=""), float)


# Methods.


class Bot:
    @resilient
    def chat(self, x: int) -> str:
        return str(x)

    @resilient(Retry())
    async def chat_later(self, x: int) -> str:
        return str(x)

    @staticmethod
    @resilient(Retry())
    def of_nobody(x: int) -> str:
        return str(x)

    # A class method is bound by its own decorator. Neither checker can tell that a `Guarded`
    # below it is bound already, nor that one below `staticmethod` is not to be bound to an
    # instance; `wrap` keeps the function's own type, and with it both.
    @classmethod
    @robust.wrap
    def of_class(cls, x: int) -> str:
        return str(x)

    @staticmethod
    @robust.wrap
    def wrapped_of_nobody(x: int) -> str:
        return str(x)


class Child(Bot):
    pass


async def methods() -> None:
    bot = Child()
    assert_type(bot.chat(1), str)
    assert_type(bot.chat.outcome(1), Outcome[str])
    assert_type(bot.chat.with_policies(Timeout(5))(1), str)
    assert_type(bot.chat.replacing(Retry(attempts=1)).outcome(1), Outcome[str])
    assert_type(Bot.chat(bot, 1), str)
    assert_type(await bot.chat_later(1), str)
    assert_type(await bot.chat_later.outcome(1), Outcome[str])
    assert_type(await bot.chat_later.with_policies(Timeout(5)).outcome(1), Outcome[str])
    assert_type(Bot.of_class(1), str)
    assert_type(bot.of_class(1), str)
    assert_type(Bot.of_nobody(1), str)
    assert_type(Bot.of_nobody.outcome(1), Outcome[str])
    assert_type(Bot.wrapped_of_nobody(1), str)
    assert_type(bot.wrapped_of_nobody(1), str)
    assert_type(robust.call(bot.chat, 1), str)


# A guarded function.


async def other_policies() -> None:
    """`with_policies` and `replacing` keep the signature and the type."""
    other = bare
    other = bare.with_policies(Timeout(5), Retry())
    other = decorated.replacing(Retry(attempts=1))
    assert_type(other(1, model="x"), str)
    assert_type(bare.with_policies(Timeout(5))(1, model="x"), str)
    assert_type(bare.with_policies(Timeout(5)).outcome(1), Outcome[str])
    assert_type(decorated.replacing(Retry(attempts=1))(1, model="x"), str)
    assert_type(decorated.replacing(Retry(), Timeout(5)).outcome(1), Outcome[str])
    assert_type(await bare_async.with_policies(Timeout(5))(1), str)
    assert_type(await bare_async.replacing(Retry(attempts=1)).outcome(1), Outcome[str])
    bare.with_policies(Timeout(5))("1")  # type: ignore[arg-type]  # an int is wanted


def facts() -> None:
    assert_type(bare.pipeline, Pipeline)
    assert_type(robust.policies, tuple[Policy, ...])
    outcome = bare.outcome(1)
    assert_type(outcome.value, str | None)
    assert_type(outcome.error, Exception | None)
    assert_type(outcome.attempts, tuple[Attempt, ...])
    assert_type(outcome.served_by, str | None)
    assert_type(outcome.degraded, bool)
    assert_type(outcome.elapsed, float)
    attempt = current_attempt()
    assert_type(attempt, Attempt)
    assert_type(attempt.number, int)
    assert_type(attempt.failure, Failure | None)
    assert_type(attempt.model, str | None)
    assert_type(served_by(), str | None)


def policies_and_decorators() -> None:
    """A pipeline is a policy and a decorator, and what `resilient` with policies gives."""
    assert_type(resilient(Retry(), Timeout(5)), Pipeline)
    assert_type(resilient(name="chat"), Pipeline)
    assert_type(Pipeline(Timeout(60), robust, name="all", listeners=[print]), Pipeline)
    policies: list[Policy] = [
        robust,
        Retry(attempts=None, wait=Fixed(1), within=30, on=[429, range(500, 600), "upstream_error"]),
        Retry(on=TRANSIENT | raised(KeyError), wait=RetryAfter(Exponential(max=5)), stop=None),
        CircuitBreaker(failures=3, reset_after=5, key=lambda **call: call.get("user")),
        ModelFallback("a", Model("b", temperature=0), Model("c", call=optional), per_model=5),
        Fallback("sorry"),
        Fallback(call=optional),
        Timeout(60),
        Timeout(lambda x: 2.0, pass_as="timeout"),
    ]
    assert_type(Pipeline(*policies), Pipeline)
    decorator: Callable[[Callable[[int], str]], Callable[[int], str]] = robust
    function: Callable[[int], str] = decorator(resilient(str))
    assert_type(function(1), str)


def times_as_timedelta() -> None:
    """The contract takes a timedelta wherever seconds go."""
    minute = timedelta(minutes=1)
    Timeout(minute)
    Retry(within=minute, patience=minute)
    CircuitBreaker(reset_after=minute)
    RedisCircuit("redis://localhost", lease=minute, timeout=minute, back_off=minute)
    Exponential(max=minute)


# What an error means.


def errors(error: Exception) -> None:
    assert_type(history(error), tuple[Attempt, ...])
    failure = describe(error)
    assert_type(failure, Failure)
    assert_type(failure.kind, Kind)
    assert_type(failure.advice, Advice)
    assert_type(failure.status, int | None)
    assert_type(failure.code, str | None)
    assert_type(failure.retry_after, float | None)
    assert_type(failure.error, Exception | None)

    @describe.register(KeyError)
    def read(error: KeyError) -> Failure:
        return Failure(Kind.SERVER, Advice.RETRY, error=error)

    assert_type(read(KeyError()), Failure)


def sharing(sync: redis.Redis, loop: redis.asyncio.Redis) -> None:
    """A URL or a client of redis-py, of either kind."""
    assert_type(RedisCircuit("redis://localhost", prefix="app", advisory=True), RedisCircuit)
    CircuitBreaker(key="model", name="llm", storage=RedisCircuit(sync), refresh=0.5)
    CircuitBreaker(storage=RedisCircuit(loop))


def refusals(breaker: CircuitBreaker) -> None:
    try:
        bare(1)
    except CircuitOpenError as error:
        assert_type(error.name, str | None)
        assert_type(error.retry_after, float | None)
        assert_type(error.retry_at, datetime | None)
        refused: RejectedError = error
        assert_type(refused.retry_at, datetime | None)
    except DeadlineExceededError as error:
        assert_type(error.seconds, float)
        late: TimeoutError = error
        assert_type(late.errno, int | None)
    assert_type(breaker.state, str)
    assert_type(breaker.snapshot().failure_rate, float | None)
    assert_type(breaker.circuit("a").snapshot().last_failure, Failure | None)
    with breaker.isolate() as hold:
        hold.release()
    CircuitBreaker(trip=Consecutive(3) | FailureRate(0.5, window=30) | SlowCalls(10, 0.8, calls=50))
    CircuitBreaker(trip=FailureRate(0.5), reset_after=Exponential(5), successes=4, tolerate=0.2)
    CircuitBreaker(trial_timeout=5, wait_for_trial=1, ramp=30, keep=1000, forget_after=60)
    assert_type(breaker.circuit("a").retry_at, datetime | None)
    assert_type(status(429) | kind(Kind.TIMEOUT) & ~code("upstream_timeout"), Match)


# The SDKs' own methods, as they are. `call` takes the first overload (not a stream); for the
# others there is `wrap`, because a ParamSpec holds one signature only.


def openai_sync(client: openai.OpenAI) -> None:
    create = robust.wrap(client.chat.completions.create)
    assert_type(create(model="m", messages=MESSAGES), ChatCompletion)
    assert_type(
        create(model="m", messages=MESSAGES, stream=True), openai.Stream[ChatCompletionChunk]
    )
    assert_type(
        robust.call(client.chat.completions.create, model="m", messages=MESSAGES), ChatCompletion
    )
    assert_type(
        robust(client.chat.completions.create)(model="m", messages=MESSAGES), ChatCompletion
    )
    assert_type(
        robust.outcome(client.chat.completions.create, model="m", messages=MESSAGES),
        Outcome[ChatCompletion],
    )
    create(model=1, messages=MESSAGES)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def openai_async(client: openai.AsyncOpenAI) -> None:
    create = robust.wrap(client.chat.completions.create)
    assert_type(await create(model="m", messages=MESSAGES), ChatCompletion)
    assert_type(
        await create(model="m", messages=MESSAGES, stream=True),
        openai.AsyncStream[ChatCompletionChunk],
    )
    assert_type(
        await robust.call(client.chat.completions.create, model="m", messages=MESSAGES),
        ChatCompletion,
    )
    assert_type(
        await robust(client.chat.completions.create)(model="m", messages=MESSAGES), ChatCompletion
    )
    assert_type(
        await robust.outcome(client.chat.completions.create, model="m", messages=MESSAGES),
        Outcome[ChatCompletion],
    )


def auriko_sync(client: Client) -> None:
    create = robust.wrap(client.chat.completions.create)
    assert_type(create(model="m", messages=[]), AurikoCompletion)
    assert_type(create(model="m", messages=[], stream=True), AurikoStream[AurikoChunk])
    assert_type(
        robust.call(client.chat.completions.create, model="m", messages=[]), AurikoCompletion
    )


async def auriko_async(client: AsyncClient) -> None:
    create = robust.wrap(client.chat.completions.create)
    assert_type(await create(model="m", messages=[]), AurikoCompletion)
    assert_type(await create(model="m", messages=[], stream=True), AurikoAsyncStream[AurikoChunk])
    assert_type(
        await robust.call(client.chat.completions.create, model="m", messages=[]), AurikoCompletion
    )


# Writing a policy, and testing.


class Mine:
    """A class with this one method is a policy."""

    def bind(self, call: Call, runtime: Runtime) -> Call:
        async def mine(*args: Any, **kwargs: Any) -> Any:
            await runtime.sleep(runtime.random())
            return await call(*args, **kwargs)

        return mine


def testing() -> None:
    mine: Policy = Mine()
    assert_type(Pipeline(mine).call(optional, 1), str | None)
    with virtual_time() as clock, Gateway({"a": ["upstream_error", Ok()], "*": Ok()}) as gateway:
        assert_type(clock, VirtualTime)
        assert_type(clock.sleeps, list[float])
        assert_type(gateway.base_url, str)
        assert_type(gateway.requests, list[Received])
