"""What type checkers make of the public API. Checked by mypy and pyright, never run."""

# Each "ignore" is a line that both refuse.
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import math
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
    BadResult,
    BadResultError,
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    Consecutive,
    DeadlineExceededError,
    FailureRate,
    Fallback,
    Gate,
    IdempotencyKey,
    Model,
    ModelFallback,
    Outcome,
    Pipeline,
    Policy,
    RejectedError,
    ResilienceError,
    Retry,
    SingleFlight,
    SlowCalls,
    Timeout,
    batch,
    current_attempt,
    deadline,
    guarded,
    history,
    own_retries,
    remaining,
    resilient,
    retries_of,
    served_by,
)
from resilience.explaining import Explanation
from resilience.failures import Advice, Failure, Kind, control_flow, describe, describe_result
from resilience.matching import (
    TOO_LONG_BY_TEXT,
    TRANSIENT,
    Match,
    code,
    empty_answer,
    error_body,
    finish_reason,
    kind,
    message,
    no_choices,
    raised,
    status,
)
from resilience.policy import (
    BUSY,
    NO_VERDICT,
    Arguments,
    Call,
    Completion,
    Effect,
    Idle,
    InHand,
    Inner,
    PendingResult,
    Runtime,
    Semaphore,
    Verdict,
)
from resilience.shared import RedisCircuit
from resilience.testing import VirtualTime, script, virtual_time
from resilience.testing.gateway import Gateway, Ok, Received
from resilience.waits import Exponential, Fixed, RetryAfter

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello?"}]
robust = Pipeline(Retry(), CircuitBreaker(key="model"))


# Calls and outcomes. What a decorated function or method is, is in `functions.py`.


@resilient
def bare(x: int, *, model: str = "m") -> str:
    return model * x


@resilient(Timeout(60), ModelFallback("a", "b"), Retry(attempts=2), name="chat")
def decorated(x: int, *, model: str = "m") -> str:
    return model * x


def optional(x: int) -> str | None:
    return str(x) or None


async def later(x: int) -> str:
    return str(x)


def sync_calls() -> None:
    made: Callable[[int], str | None] = robust(optional)
    assert_type(made(1), str | None)
    assert_type(robust(optional)(1), str | None)
    assert_type(robust.call(optional, 1), str | None)
    assert_type(robust.outcome(optional, 1), Outcome[str | None])
    assert_type(robust.wrap(optional)(1), str | None)
    assert_type(robust.outcome(decorated, 1, model="x"), Outcome[str])
    assert_type(robust.explain(), Explanation)
    assert_type(guarded(robust(optional)).explain().failures[Kind.SERVER], tuple[str, ...])
    assert_type(robust.explain().on(describe(ValueError())), tuple[str, ...])
    assert_type(Retry().effect(), Effect)


async def async_calls() -> None:
    assert_type(await robust.call(later, 1), str)
    assert_type(await robust.outcome(later, 1), Outcome[str])
    assert_type(await robust.wrap(later)(1), str)
    assert_type(await robust(later)(1), str)


def wrong_calls() -> None:
    """The function's own parameters are still checked."""
    robust.call(optional, "1")  # type: ignore[arg-type]  # an int is wanted
    robust.outcome(later, "1")  # type: ignore[call-overload]  # an int is wanted
    robust.wrap(optional)("1")  # type: ignore[arg-type]  # an int is wanted
    Pipeline(Retry)  # type: ignore[arg-type]  # a class, not a policy
    resilient(Retry(), Timeout)  # type: ignore[call-overload]  # a class, not a policy
    resilient(Retry(), nmae="chat")  # type: ignore[call-overload]  # a typo


def parameters_called_fn_and_self() -> None:
    def fn_and_self(fn: int, self: str) -> float:
        return fn + len(self)

    assert_type(robust.call(fn_and_self, fn=1, self=""), float)
    assert_type(robust.outcome(fn_and_self, fn=1, self=""), Outcome[float])
    assert_type(robust.wrap(fn_and_self)(fn=1, self=""), float)
    assert_type(robust(fn_and_self)(fn=1, self=""), float)
    assert_type(guarded(robust(fn_and_self)).outcome(fn=1, self=""), Outcome[float])
    assert_type(resilient(fn_and_self)(fn=1, self=""), float)


def blocks() -> None:
    for attempt in robust.attempts():
        with attempt:
            assert_type(attempt.number, int)
            assert_type(attempt.model, str | None)
            break


async def async_blocks() -> str:
    async for attempt in robust.attempts():
        async with attempt:
            return await later(attempt.number)
    async for attempt in robust.attempts():
        with attempt:
            return await later(attempt.number)
    raise AssertionError


def facts() -> None:
    assert_type(guarded(bare).pipeline, Pipeline)
    assert_type(robust.policies, tuple[Policy, ...])
    outcome = guarded(bare).outcome(1)
    assert_type(outcome.value, str | None)
    assert_type(outcome.unwrap(), str)
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
    """A pipeline is a policy and a decorator, as what `resilient` with policies gives is one."""
    assert_type(resilient(Retry(), Timeout(5))(bare)(1), str)
    assert_type(resilient(name="chat")(bare)(1), str)
    assert_type(Pipeline(Timeout(60), robust, name="all", listeners=[print]), Pipeline)
    policies: list[Policy] = [
        robust,
        Retry(attempts=None, wait=Fixed(1), within=30, on=[429, range(500, 600), "upstream_error"]),
        Retry(on=TRANSIENT | raised(KeyError), wait=RetryAfter(Exponential(max=5)), stop=None),
        CircuitBreaker(failures=3, reset_after=5, key=lambda **call: call.get("user")),
        BadResult(no_choices, error_body, empty_answer, finish_reason("length")),
        BadResult(lambda result: Kind.SERVER, lambda result: result is None, finally_="raise"),
        ModelFallback("a", Model("b", temperature=0), Model("c", call=optional), per_model=5),
        Fallback("sorry"),
        Fallback([]),
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
    except BadResultError as error:
        ours: ResilienceError = error
        assert_type(ours.__cause__, BaseException | None)
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
    assert_type(raised(OSError, cause=True) | message("too long") | TOO_LONG_BY_TEXT, Match)
    assert_type(control_flow(KeyError), type[KeyError])
    assert_type(describe_result({}), Failure | None)
    BadResult(describe_result)


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
    create(model=1, messages=MESSAGES)  # type: ignore[call-overload]


def openai_clients(client: openai.OpenAI, other: openai.AsyncOpenAI, auriko: Client) -> None:
    wrapped = robust.wrap_client(client)
    assert_type(wrapped, openai.OpenAI)
    assert_type(wrapped.chat.completions.create(model="m", messages=MESSAGES), ChatCompletion)
    assert_type(wrapped.with_options(timeout=1), openai.OpenAI)
    assert_type(robust.wrap_client(other), openai.AsyncOpenAI)
    assert_type(robust.wrap_client(auriko), Client)
    assert_type(own_retries(client), openai.OpenAI)
    assert_type(own_retries(client.chat.completions.create)(model="m", messages=[]), ChatCompletion)
    assert_type(retries_of(client), float | None)
    robust.wrap_client(wrapped=client)  # type: ignore[call-arg]


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


# Policies of one's own.


class Stamp(Policy):
    """All that is needed is `bind`."""

    resting = True

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def stamp(call: Call) -> Any:
            await runtime.sleep(runtime.random(), call)
            sent = call.journal.remember(self, runtime.now)
            assert_type(sent, float)
            return await inner(call.replace(kwargs={**call.kwargs, "sent": sent}))

        return stamp

    def rewrite_first(self, fn: Callable[..., Any]) -> Callable[..., Arguments] | None:
        def stamped(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
            return args, {**kwargs, "sent": 0.0}

        return stamped


class Limit(Gate):
    """A gate, with what it does at rest."""

    def __init__(self, limit: int, patience: float) -> None:
        self.slots = Semaphore(limit, queue=9)
        self.patience = patience

    def try_enter(self, call: Call, runtime: Runtime) -> bool | None:
        return True if self.slots.try_acquire() else None

    async def enter(self, call: Call, runtime: Runtime) -> bool:
        if not await self.slots.acquire(runtime, call, self.patience):
            raise RejectedError(retry_after=self.free_in(call))
        return True

    def leave(self, permit: bool, call: Call, error: Verdict) -> None:
        if error is not None and error is not NO_VERDICT:
            assert_type(error, BaseException)
        self.slots.release()

    def resume(self, permit: Any, call: Call, in_hand: InHand) -> Any:
        return permit

    def at_rest(
        self, fn: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[..., bool]] | None:
        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return True if self.slots.try_acquire() else BUSY

        def end(held: bool, error: Verdict, result: Any) -> bool:
            self.slots.release()
            return True

        return begin, end

    def watch(self, idle: Idle) -> None:
        idle.suspend()
        idle.update()

    def busy(self) -> bool:
        return self.slots.waiting > 0

    def refuses(self, call: Call) -> bool:
        return call.deadline is None and self.slots.free == 0

    def free_in(self, call: Call) -> float:
        return 0.0 if self.slots.free else math.inf


class Answer(PendingResult):
    """A result that is settled later."""

    def __init__(self) -> None:
        self.completion = Completion()
        self.completion.then(print)

    def end(self) -> None:
        self.completion.settle(None)


class NoPolicy:
    """Not derived from `Policy`."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        return inner


class Unfinished(Gate):
    def try_enter(self, call: Call, runtime: Runtime) -> str:
        return ""


def own_policies() -> None:
    policies: list[Policy] = [Stamp(), Limit(2, patience=0.5)]
    assert_type(Pipeline(*policies).call(optional, 1), str | None)
    assert_type(resilient(Stamp(), Limit(1, 1), Retry())(optional)(1), str | None)
    Pipeline(NoPolicy())  # type: ignore[arg-type]  # not derived from it
    Unfinished()  # type: ignore[abstract]  # it has no `leave`


# Testing.


def testing() -> None:
    fetch = script(ConnectionError(), "answer")
    assert_type(fetch.calls, list[tuple[tuple[Any, ...], dict[str, Any]]])
    Pipeline(Retry()).call(fetch, "question")
    with virtual_time() as clock, Gateway({"a": ["upstream_error", Ok()], "*": Ok()}) as gateway:
        assert_type(clock, VirtualTime)
        assert_type(clock.sleeps, list[float])
        assert_type(gateway.base_url, str)
        assert_type(gateway.requests, list[Received])


# Deadlines and side effects


def in_time() -> str:
    with deadline(timedelta(seconds=5)):
        assert_type(remaining(), float | None)
        return bare(1)


async def in_time_too(seconds: float | None) -> None:
    async with deadline(seconds):
        await later(1)
    with deadline("5"):  # type: ignore[arg-type]  # no time
        pass


def read_only(x: int) -> bool:
    return x > 0


Retry(idempotent=read_only)
Retry(idempotent=5)  # type: ignore[arg-type]  # neither True, False nor a function
IdempotencyKey(header="X-Key", argument=None)
IdempotencyKey(header=None)  # type: ignore[arg-type]  # it has a name
SingleFlight("x")
SingleFlight(lambda x: x)
SingleFlight(key=5)  # type: ignore[arg-type]  # neither a name nor a function
assert_type(current_attempt().key, str | None)


# Batches


def halved(x: int) -> float:
    return x / 2


async def ahalved(x: int) -> float:
    return x / 2


def batches() -> None:
    done = batch.map(halved, range(3), concurrency=4, stop_on=[401, 402])
    assert_type(done, batch.Batch[float])
    assert_type(done[0], Outcome[float])
    assert_type(done.values, list[float | None])
    assert_type(done.unwrap(), list[float])
    assert_type(done.summary.attempts, int)
    batch.map(Pipeline(Retry()).wrap(halved), [1], progress=lambda each: print(each.outcome.value))
    batch.map(halved, 5)  # type: ignore[call-overload]  # no iterable


async def abatches() -> None:
    assert_type(await batch.map(ahalved, [1, 2]), batch.Batch[float])
    assert_type((await batch.map(Pipeline(Retry()).wrap(ahalved), [1])).unwrap(), list[float])


Bulkhead(4, queue=None, patience=timedelta(seconds=3), key="x")
Bulkhead(4, key=lambda x: x)
Bulkhead("4")  # type: ignore[arg-type]  # no number
