"""What type checkers make of the public API. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

import openai
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
    DeadlineExceededError,
    Fallback,
    Guarded,
    Model,
    ModelFallback,
    Outcome,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    current_attempt,
    history,
    resilient,
    served_by,
)
from resilience.failures import Advice, Failure, Kind, describe
from resilience.matching import TRANSIENT, Match, code, kind, raised, status
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
    assert_type(robust(optional), Guarded[[int], str | None])
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
    bare.outcome("1")  # type: ignore[call-overload]  # an int is wanted
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

    @classmethod
    @resilient(Retry())
    def of_class(cls, x: int) -> str:
        return str(x)

    @staticmethod
    @resilient(Retry())
    def of_nobody(x: int) -> str:
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
    assert_type(bot.of_nobody(1), str)
    assert_type(robust.call(bot.chat, 1), str)


# A guarded function.


async def other_policies() -> None:
    """`with_policies` and `replacing` keep the signature and the type."""
    assert_type(bare.with_policies(Timeout(5)), type(bare) and bare)
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


def decorators_as_values() -> None:
    """A pipeline is a decorator, a policy, and what `resilient` with policies gives."""
    assert_type(resilient(Retry(), Timeout(5)), Pipeline)
    assert_type(resilient(), Pipeline)
    assert_type(Pipeline(Timeout(60), robust), Pipeline)
    decorator: Callable[[Callable[[int], str]], Callable[[int], str]] = robust
    policy: Policy = robust
    function: Callable[[int], str] = resilient(lambda x: str(x))
    assert_type((decorator, policy, function)[1], Policy)
