"""`RateLimit`: requests and tokens per time, in order, in every world and over several at once."""

from __future__ import annotations

import asyncio
import copy
import gc
import math
import os
import pickle
import random
import time
import tracemalloc
from functools import partial
from itertools import count, pairwise, product
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from conftest import Takes, World, async_worlds, put_aside
from resilience import (
    Bulkhead,
    BulkheadFullError,
    DeadlineExceededError,
    ModelFallback,
    Pipeline,
    RateLimit,
    RateLimitExceededError,
    Retry,
    Timeout,
    recording,
)
from resilience._core import guard, hooks, keyed, pacing
from resilience._core.estimate import estimate_tokens
from resilience.events import CallDelayed, CallRejected
from resilience.failures import Kind, describe
from resilience.policies import rate_limit as module
from resilience.testing import VirtualTime, virtual_time
from support.arriving import arriving, at_the_end_of_a_with, interrupt
from support.calling import error_of, rest_and_full, run_in
from support.concurrency import fast_switching, in_threads, run_apart  # noqa: F401
from support.functions import coloured
from support.gates import Stream
from support.limits import Admitted, Told, batch, most_in, under
from support.own_policies import Asks, Chained, both_loops, together

FILES = {pacing.__file__, module.__file__, guard.__file__, hooks.__file__}


# Options


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, ValueError, "requests or tokens, got neither"),
        ({"requests": 0}, ValueError, "requests must be 1 or more, got 0"),
        ({"requests": 1.5}, TypeError, "requests must be a whole number"),
        ({"tokens": -1}, ValueError, "tokens must be 1 or more"),
        ({"requests": 1, "per": 0}, ValueError, "per must be more than 0"),
        ({"requests": 1, "per": math.nan}, ValueError, "per must be finite"),
        ({"requests": 1, "burst": 1.1}, ValueError, "burst must be from 0 to 1"),
        ({"requests": 1, "patience": -1}, ValueError, "patience must be 0 or more"),
        ({"requests": 1, "estimate": 3}, TypeError, "estimate must be a function"),
        ({"requests": 1, "follow": 1}, TypeError, "follow must be True or False"),
        ({"requests": 1, "key": 3}, TypeError, "key must be a function"),
        (
            {"requests": 1, "key": "model", "storage": "redis://:secret@localhost"},
            TypeError,
            "storage must be a resilience.shared.RedisLimit, got str",
        ),
        ({"requests": 1, "name": ""}, ValueError, "name must not be empty"),
        ({"request": 1}, TypeError, "did you mean 'requests'"),
    ],
)
def test_bad_options_are_refused(options: Any, error: type[Exception], said: str) -> None:
    """At construction, by name, rule and value."""
    with pytest.raises(error, match=said):
        RateLimit(**options)


def test_it_reads_as_it_was_written_and_pickles_as_its_options() -> None:
    """A copy is the thing itself; another process begins anew."""
    limit = RateLimit(requests=1, per=9, key="model", name="llm")
    assert repr(limit) == "RateLimit(requests=1, per=9, key='model', name='llm')"
    assert copy.copy(limit) is copy.deepcopy(limit) is limit
    again = pickle.loads(pickle.dumps(limit))
    assert repr(again) == repr(limit)
    with virtual_time() as clock:
        for each in (limit, again):
            under(each).call(lambda model: model, model="m")
        assert clock.sleeps == []
    assert "starts at most 1 requests in 9 s for each model" in str(under(limit).explain())
    said = " ".join(str(under(RateLimit(requests=9)).explain()).split())
    assert "the others wait in order, 600 s at most" in said


def test_a_long_wait_is_in_plain_seconds() -> None:
    """In what people read: no exponent."""
    call = under(RateLimit(requests=1, per=86_400, patience=0)).wrap(lambda: "in")
    with virtual_time():
        call()
        with pytest.raises(RateLimitExceededError, match=r"exceeded; retry after 86400 s$"):
            call()
    assert str(DeadlineExceededError(seconds=3600)) == "no answer within 3600 s"


# One after the other


def test_calls_are_spread_evenly_and_in_order(world: World) -> None:
    """A call that finds the limit used up waits for its turn; in a call alone nothing waits."""
    pipeline = under(RateLimit(requests=2, per=1))
    fn = pipeline.wrap(world.function("in"))
    began = world.clock.now()
    at = []
    for _ in range(4):
        world.run(fn)
        at.append(world.clock.now() - began)
    assert at == pytest.approx([0, 0.5, 1.0, 1.5])


@pytest.mark.fault(30)
def test_a_share_goes_at_once_after_a_pause(world: World) -> None:
    """And after that one more whenever one has drained: never more than rate * t + burst."""
    admitted = Admitted(world.clock.now)
    fn = under(RateLimit(requests=10, per=10, burst=0.3)).wrap(world.function(lambda: admitted()))
    for _ in range(6):
        world.run(fn)
    world.clock.advance(100)
    for _ in range(6):
        world.run(fn)
    began = admitted.at[0]
    times = [round(each - began, 6) for each in admitted.at]
    assert times == [0, 0, 0, 1, 2, 3, 103, 103, 103, 104, 105, 106]


@pytest.mark.parametrize("key", [None, "tokens"])
def test_what_is_not_limited_takes_no_time(world: World, key: Any) -> None:
    """Requests where tokens are, and tokens where requests are."""
    for limit in (
        RateLimit(tokens=40, per=10, burst=1.0, key=key, estimate=lambda tokens: tokens),
        RateLimit(requests=40, per=10, burst=1.0, key=key, estimate=lambda tokens: tokens),
    ):
        fn = under(limit).wrap(world.function(lambda tokens: "in"))
        began = world.clock.now()
        for _ in range(40):
            world.run(fn, 1)
        assert world.clock.now() == began


def test_tokens_and_requests_are_both_kept(world: World) -> None:
    """A call goes when there is room in both; one that is larger than the room goes alone."""
    limit = RateLimit(requests=60, tokens=600, per=60, burst=0.1, estimate=lambda n: n)
    fn = under(limit).wrap(world.function("in"))
    began, at = world.clock.now(), []
    for tokens in (30, 30, 10, 300, 0):
        world.run(fn, tokens)
        at.append(round(world.clock.now() - began, 6))
    # Room for 60 tokens, of which 10 drain in a second; a request a second, six at once.
    assert at == [0, 0, 1, 7, 7]
    world.run(fn, 1)
    assert round(world.clock.now() - began, 6) == pytest.approx(7 + 24.1, abs=0.2)


@pytest.mark.fault(360)
def test_what_a_call_took_is_put_right(world: World) -> None:
    """An answer's own figure replaces the estimate, both ways, as soon as it is there."""
    limit = RateLimit(tokens=100, per=200, burst=1.0, estimate=lambda *used: 100)

    def used(prompt: int, answer: int) -> Any:
        return {"usage": {"prompt_tokens": prompt, "completion_tokens": answer}}

    fn = under(limit).wrap(world.function(used))
    began = world.clock.now()
    world.run(fn, 1, 0)  # instead of 100
    world.run(fn, 100, 50)
    assert world.clock.now() - began == pytest.approx(2)
    world.run(fn, 0, 0)
    assert world.clock.now() - began == pytest.approx(302, abs=0.01)


@async_worlds
def test_a_call_that_took_less_lets_the_next_one_go(world: World) -> None:
    """Which waits already, by what was thought."""
    limit, admitted = RateLimit(tokens=100, per=100, burst=1.0), Admitted(world.clock.now)

    @Pipeline(limit)
    async def work(*, prompt: str, max_tokens: int) -> Any:
        admitted()
        await world.clock.asleep(5)
        return {"usage": {"prompt_tokens": 1, "completion_tokens": 0}}

    began = world.clock.now()
    calls = [partial(work, prompt="", max_tokens=100)] * 2
    run_in(world.name, lambda: together(world.name, *calls))
    assert [at - began for at in admitted.at] == [0, pytest.approx(5)]


def test_what_an_answer_does_not_say_stays_as_it_was_thought(world: World) -> None:
    """No usage, or one without the prompt."""
    limit = RateLimit(tokens=10, per=10, burst=1.0, estimate=lambda: 10)
    fn = under(limit).wrap(world.function({"usage": {"completion_tokens": 1}}, "text", "text"))
    began = world.clock.now()
    for _ in range(3):
        world.run(fn)
    assert world.clock.now() - began == pytest.approx(20)


def test_an_embedding_takes_its_prompt_alone(world: World) -> None:
    """Its usage has no answer: none is counted."""
    limit = RateLimit(tokens=1000, per=1000, burst=1.0)
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    fn = under(limit).wrap(world.function(lambda *, prompt: {"data": [], "usage": usage}))
    began = world.clock.now()
    for _ in range(3):
        world.run(fn, prompt="x" * 20)
    assert world.clock.now() - began == pytest.approx(10)


@pytest.mark.fault(122, 361)
def test_what_was_sent_counts_however_it_ended(world: World) -> None:
    """Retries take their turns; what was certainly not sent, or was rejected further in, takes
    none."""
    limit = RateLimit(requests=1, per=10)
    fn = world.function(Told(0), TimeoutError(), "in")
    began = world.clock.now()
    assert world.run(under(Retry(attempts=3, wait=0), limit).wrap(fn)) == "in"
    assert world.clock.now() - began == pytest.approx(20)

    refused = ConnectionRefusedError(111, "refused")
    for limit in (RateLimit(requests=1, per=10), RateLimit(tokens=1, per=10, estimate=lambda: 1)):
        began = world.clock.now()
        fn = under(Retry(wait=0), limit).wrap(world.function(refused, "in"))
        assert world.run(fn) == "in"
        assert world.clock.now() == began
    two = under(Retry(wait=0), RateLimit(requests=2, per=10, burst=1.0))
    fn = two.wrap(world.function("in", refused, "in"))
    for wait in (0, 0, 5):  # what others have used stays used
        began = world.clock.now()
        world.run(fn)
        assert world.clock.now() - began == pytest.approx(wait)

    full = Bulkhead(1, queue=0)

    def inner() -> Any:
        with pytest.raises(BulkheadFullError):
            under(limit, full).call(lambda: "never")

    if not world.asynchronous:
        world.clock.advance(10)
        under(full).call(inner)
        began = world.clock.now()
        under(limit).call(lambda: "in")
        assert world.clock.now() == began


def test_each_key_has_a_limit(world: World) -> None:
    """By an argument's name, given or by default, or by a function."""

    def chat(prompt: str, *, model: str = "a") -> str:
        return model

    async def achat(prompt: str, *, model: str = "a") -> str:
        return model

    fn = under(RateLimit(requests=1, per=5, key="model")).wrap(
        achat if world.asynchronous else chat
    )
    began = world.clock.now()
    for model in ("a", "b", "c"):
        assert world.run(fn, "hi", model=model) == model
    assert world.clock.now() == began
    assert world.run(fn, "hi") == "a"
    assert world.clock.now() - began == pytest.approx(5)


class Shares:
    """A storage that is asked for the limit of each value of the key."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def share_hold(self) -> None:
        """Never called: it is how a storage is known."""

    def share(self, name: str, key: Any, pace: pacing.Pace, owner: int) -> pacing.Pace:
        self.asked.append((name, key, pace.each, owner))
        return pace


@pytest.mark.parametrize("key", [None, "model"])
def test_a_storage_has_the_limit_of_each_key(world: World, key: Any) -> None:
    """By the name of the policy and the value of the key; calls go by what it gives, and only those
    that wait are delayed."""
    shares = Shares()
    limit = RateLimit(requests=1, per=10, key=key, storage=shares, name="llm")
    fn = under(limit).wrap(world.function("in"))
    began = world.clock.now()
    with recording(CallDelayed) as delays:
        for model in ("a", "b", "a"):
            world.run(fn, model=model)
    assert len(delays) == (2 if key is None else 1)
    values = [None] if key is None else ["a", "b"]
    assert shares.asked == [("llm", value, 10, id(limit)) for value in values]
    assert world.clock.now() - began == pytest.approx(20 if key is None else 10, abs=0.2)


def test_a_key_that_cannot_be_computed_lets_the_call_through(
    real_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says so."""
    keys: list[Any] = [lambda model: {}[model], lambda model: []]
    for key in keys:
        fn = under(RateLimit(requests=1, per=1e6, key=key)).wrap(real_world.function("in"))
        for _ in range(3):
            assert real_world.run(fn, model="m") == "in"
    assert "RateLimit(key=) raised KeyError" in caplog.text
    assert "RateLimit(key=) raised TypeError" in caplog.text


def test_a_key_that_fails_when_a_call_is_to_wait_lets_it_through(world: World) -> None:
    """It was computed once, and not again."""
    keys = iter(["a", "a"])
    fn = under(RateLimit(requests=1, per=1e6, key=lambda: next(keys))).wrap(world.function("in"))
    assert [world.run(fn), world.run(fn)] == ["in", "in"]
    assert world.clock.sleeps == []


@pytest.mark.parametrize("estimate", [math.nan, math.inf, -1])
def test_an_estimate_that_raises_is_replaced(
    world: World, estimate: float, caplog: pytest.LogCaptureFixture
) -> None:
    """By the library's own, and the log says so."""
    limit = RateLimit(tokens=60, per=60, burst=1.0, estimate=lambda *_, **__: estimate)
    fn = under(limit).wrap(world.function("in"))
    began = world.clock.now()
    for _ in range(2):
        world.run(fn, "four" * 20, max_tokens=40)
    assert world.clock.now() - began == pytest.approx(60)
    assert "RateLimit(estimate=) raised ValueError" in caplog.text


# Refusing


@pytest.mark.fault(362)
def test_a_call_that_would_wait_too_long_is_rejected_now(world: World) -> None:
    """By its patience or its deadline, with the time at which it may go; nothing is used up."""
    limit = RateLimit(requests=1, per=10, patience=5, name="llm")
    fn = under(limit).wrap(world.function("in"))
    world.run(fn)
    began = world.clock.now()
    with recording(CallRejected) as events:
        error = error_of(world, fn)
    assert type(error) is RateLimitExceededError
    assert error.retry_after == pytest.approx(10)
    assert error.retry_at is not None
    assert describe(error).kind is Kind.REJECTED
    assert "rate limit 'llm' exceeded; retry after 10 s" in str(error)
    assert error.model is None
    assert [event.error for event in events] == [error]
    assert world.clock.now() == began
    world.clock.advance(6)
    with recording(CallDelayed) as delays:
        assert world.run(fn) == "in"
    assert [(each.policy, each.seconds) for each in delays] == [("RateLimit", pytest.approx(4))]

    patient = under(Timeout(5), RateLimit(requests=1, per=10)).wrap(world.function("in"))
    world.run(patient)
    began = world.clock.now()
    assert type(error_of(world, patient)) is RateLimitExceededError
    assert world.clock.now() == began
    again = pickle.loads(pickle.dumps(error))
    assert (again.retry_after, again.name) == (error.retry_after, error.name)


@async_worlds
@pytest.mark.parametrize("key", [None, "model"])
def test_a_call_whose_turn_comes_too_late_after_all(world: World, key: Any) -> None:
    """While it waits the server says that nothing is left: it is rejected then, with the time at
    which it may go, and leaves the queue."""
    limit = RateLimit(requests=1, per=4, patience=5, key=key, follow=True)
    nothing_left = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "90"}

    @under(limit)
    async def chat(*, model: str) -> Any:
        await world.clock.asleep(2)
        return SimpleNamespace(headers=nothing_left)

    async def second() -> None:
        await world.clock.asleep(1)
        with pytest.raises(RateLimitExceededError) as caught:
            await chat(model="m")
        assert caught.value.model == (None if key is None else "m")
        assert caught.value.retry_after == pytest.approx(90)
        assert world.clock.now() - began == pytest.approx(2)

    began = world.clock.now()
    run_in(world.name, lambda: together(world.name, partial(chat, model="m"), second))
    assert limit.waiting == 0


def test_no_patience_never_waits(world: World) -> None:
    """What has no room now is rejected, however soon there would be."""
    fn = under(RateLimit(requests=1, per=0.5, patience=0)).wrap(world.function("in"))
    world.run(fn)
    error = error_of(world, fn)
    assert type(error) is RateLimitExceededError
    assert error.retry_after == pytest.approx(0.5)
    assert world.clock.sleeps == []


def test_a_rejection_names_the_model_where_that_is_the_key(world: World) -> None:
    """Also if it can only be given by position."""

    def chat(model: Any, /) -> Any:
        return model

    async def achat(model: Any, /) -> Any:
        return model

    limit = RateLimit(requests=1, per=10, patience=0, key="model")
    fn = under(limit).wrap(achat if world.asynchronous else chat)
    for model in ("m", 5):
        assert world.run(fn, model) == model
    assert error_of(world, fn, "m").model == "m"
    assert error_of(world, fn, 5).model is None
    chain = under(ModelFallback("a", "b"), RateLimit(requests=1, per=10, patience=0))
    fn = chain.wrap(world.function("in"))
    world.run(fn)
    assert error_of(world, fn).model in ("a", "b")  # whatever the key


def test_a_delay_names_the_model_of_the_chain(world: World) -> None:
    """Whatever the key."""
    chain = under(ModelFallback("a", "b"), RateLimit(requests=1, per=10))
    fn = chain.wrap(world.function("in"))
    with recording(CallDelayed) as delays:
        world.run(fn)
        world.run(fn)
    assert [(each.policy, each.model) for each in delays] == [("RateLimit", "a")]


@pytest.mark.parametrize("key", [None, "tenant", lambda tenant: {"a": 1}[tenant]])
def test_asked_beforehand(world: World, key: Any) -> None:
    """Whether it would reject a call, and when it would not. A call whose key cannot be computed
    is not rejected, nor one whose key has not been met."""
    asks = Asks()

    def ask(tenant: str) -> str:
        return "in"

    async def aask(tenant: str) -> str:
        return "in"

    limit = RateLimit(requests=1, per=10, patience=4, key=key)
    fn = under(asks, limit).wrap(aask if world.asynchronous else ask)
    world.run(fn, "a")
    error_of(world, fn, "a")
    world.clock.advance(7)
    world.run(fn, "a")
    if key is not None:
        world.run(fn, "b")
    found = [(False, 0), (True, pytest.approx(10)), (False, pytest.approx(3)), (False, 0)]
    assert asks.found == found[: len(asks.found)]
    assert len(asks.found) == (3 if key is None else 4)


def test_asked_beforehand_for_tokens(world: World) -> None:
    """As many as the call is estimated to take. A wait of just the patience is none too long."""
    asks = Asks()
    limit = RateLimit(
        tokens=100, per=100, burst=0.2, patience=4, estimate=lambda first, *, more: first + more
    )
    fn = under(asks, limit).wrap(world.function("in"))
    world.run(fn, 10, more=5)
    error_of(world, fn, 10, more=5)
    world.clock.advance(6)
    world.run(fn, 10, more=5)
    assert asks.found == [(False, 0), (True, 10), (False, 4)]


def test_a_chain_skips_a_model_whose_limit_is_used_up(world: World) -> None:
    """At once, where it would have to wait longer than it may."""
    limit = RateLimit(requests=1, per=60, key="model", patience=1)
    chain = under(ModelFallback("a", "b"), Retry(), limit)

    def chat(*, model: str) -> str:
        return model

    async def achat(*, model: str) -> str:
        return model

    fn = chain.wrap(achat if world.asynchronous else chat)
    began = world.clock.now()
    assert [world.run(fn) for _ in range(2)] == ["a", "b"]
    assert world.clock.now() == began
    error = error_of(world, fn)
    assert type(error) is RateLimitExceededError
    assert error.model in ("a", "b")


# The estimate


@pytest.mark.parametrize(
    ("args", "kwargs", "tokens"),
    [
        ((), {"messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 7}, 107),
        ((), {"messages": [{"role": "user", "content": "x" * 400}]}, 1100),
        (("x" * 40, 7, None), {}, 1010),
        ((), {"model": "x" * 400, "prompt": "x" * 40, "temperature": 1.0}, 1010),
        ((), {"input": "x" * 8, "max_output_tokens": 1}, 3),
        ((), {"contents": ["x" * 8], "config": SimpleNamespace(max_output_tokens=5)}, 7),
        ((), {"contents": ["x" * 8], "config": {"max_output_tokens": 5}}, 7),
        (
            (),
            {
                "system": "x" * 4,
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "x" * 40},
                            {"type": "image_url", "image_url": {"url": "data:" + "x" * 9999}},
                        ],
                    }
                ],
                "max_tokens": 1,
            },
            1012,
        ),
        (
            (),
            {
                "messages": [
                    {"role": "user", "content": "x" * 40},
                    {
                        "role": "assistant",
                        "content": "",
                        "tool_calls": [{"function": {"name": "x" * 8, "arguments": "x" * 32}}],
                    },
                    {"role": "tool", "content": "x" * 40},
                ]
            },
            1030,
        ),
        ((), {"contents": [{"text": "x" * 40, "data": "x" * 9999}, {"data": ["x" * 40]}]}, 2020),
        ((), {"input": ["xxx"]}, 1000),
        (([SimpleNamespace(content="x" * 40)],), {}, 1010),
        (([SimpleNamespace(content=[{"type": "text", "text": "x" * 40}])],), {}, 1010),
        ((), {"contents": [SimpleNamespace(parts=[SimpleNamespace(text="x" * 40)])]}, 1010),
        ((SimpleNamespace(content="x" * 40),), {"client": SimpleNamespace(text=5)}, 1000),
        ((), {"messages": [{"role": "user", "name": "", "content": "xxx"}]}, 1000),
        ((), {"messages": None, "max_tokens": True}, 1000),
        ((5, None, 0.5, True), {}, 1000),
        ((), {"prompt": "x" * 7}, 1001),
        ((), {"max_completion_tokens": 5, "max_tokens": 0}, 5),
        ((), {"config": {"max_output_tokens": 0, "max_tokens": 1}}, 1),
    ],
)
def test_tokens_are_estimated_without_a_tokenizer(args: Any, kwargs: Any, tokens: int) -> None:
    """A fourth of the characters, and what the answer may have."""
    assert estimate_tokens(*args, **kwargs) == tokens


def test_an_estimate_of_what_contains_itself_ends() -> None:
    """Only so deep, and so wide as it is."""
    ring: list[Any] = ["x" * 4]
    ring.append(ring)
    assert estimate_tokens(messages=["xxx", ring]) == 1000 + 7
    wheel: dict[str, Any] = {"text": "x" * 4}
    wheel["wheel"] = wheel
    assert estimate_tokens(messages=["xxx", wheel]) == 1000 + 7


# What the server says


def follows(**options: Any) -> tuple[RateLimit, Any]:
    limit = RateLimit(follow=True, **options)
    return limit, limit._paces.only


@pytest.mark.fault(363)
def test_a_limit_is_taken_over_up_and_down() -> None:
    """From an error and from a result; the limit of a day, or of who knows what, is not."""
    for server, each, room in ((1000, 0.06, 2.94), (60, 1.0, 2.0), (10, 6.0, 0.0)):
        headers = {
            "x-ratelimit-limit-requests": str(server),
            "x-ratelimit-remaining-requests": str(server - 1),
            "x-ratelimit-reset-requests": f"{60000 // server}ms",
        }
        for outcome in ("error", "result"):
            limit, pace = follows(requests=500, per=60)
            with virtual_time():
                if outcome == "error":
                    with pytest.raises(Told):
                        under(limit).call(_raising, Told(0, **headers))
                else:
                    under(limit).call(lambda h=headers: SimpleNamespace(headers=h))
            assert pace.each == pytest.approx(each)
            assert pace.room == pytest.approx(room)
    daily = {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-reset-requests": "2m59.56s",
    }
    full = {**daily, "x-ratelimit-remaining-requests": "14400"}
    of_two_minutes = {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "121s",
    }
    at_once = {**daily, "x-ratelimit-reset-requests": "0"}
    for headers in (daily, full, of_two_minutes, at_once):
        limit, pace = follows(requests=500, per=60)
        with virtual_time():
            under(limit).call(lambda h=headers: SimpleNamespace(headers=h))
        assert pace.each == pytest.approx(0.12)


@pytest.mark.fault(363)
def test_what_others_have_used_is_known() -> None:
    """Less is left than was thought: the next calls wait for it; with nothing left until a reset,
    for that."""
    with virtual_time() as clock:
        limit, _ = follows(requests=60, per=60, burst=0.5)
        fn = under(limit).wrap(lambda headers: SimpleNamespace(headers=headers))
        began = clock.now()
        fn({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0"})
        fn({})
        assert clock.now() == began  # without a reset it says nothing
        fn(
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "60s",
            }
        )
        fn({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "20"})
        assert clock.now() - began == pytest.approx(1)
        fn({})
        assert clock.now() - began == pytest.approx(21)


def test_what_others_have_left_goes_at_once() -> None:
    """As many calls as the server says; then one after the other."""
    with virtual_time() as clock:
        limit, _ = follows(requests=120, per=60, burst=0.5)
        fn = under(limit).wrap(lambda headers: SimpleNamespace(headers=headers))
        fn(
            {
                "x-ratelimit-limit-requests": "120",
                "x-ratelimit-remaining-requests": "20",
                "x-ratelimit-reset-requests": "50s",
            }
        )
        began = clock.now()
        for _ in range(20):
            fn({})
        assert clock.now() == began
        fn({})
        assert clock.now() - began == pytest.approx(0.5)


def test_tokens_of_a_limit_that_is_another_one() -> None:
    """The rate stays as it was; those that are left are counted."""
    daily = {
        "x-ratelimit-limit-tokens": "100000",
        "x-ratelimit-remaining-tokens": "50",
        "x-ratelimit-reset-tokens": "12h",
    }
    with virtual_time() as clock:
        limit, pace = follows(
            requests=60, tokens=600, per=60, burst=1.0, estimate=lambda headers: 100
        )
        fn = under(limit).wrap(lambda headers: SimpleNamespace(headers=headers))
        fn(daily)
        began = clock.now()
        fn({})
        assert clock.now() - began == pytest.approx(5)  # in which 50 more drain
        assert pace.each_token == pytest.approx(0.1)


def test_tokens_are_followed_too() -> None:
    """Where tokens are limited here; else what is said of them is no concern."""
    headers = {
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "60s",
    }
    with virtual_time() as clock:
        limit, pace = follows(tokens=60, per=60, burst=1.0, estimate=lambda headers: 10)
        fn = under(limit).wrap(lambda headers: SimpleNamespace(headers=headers))
        began = clock.now()
        fn(headers | {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60s"})
        assert pace.each_token == pytest.approx(0.1)
        fn({})
        assert clock.now() - began == pytest.approx(1)
        limit, pace = follows(requests=60, per=60)
        under(limit).wrap(lambda headers: SimpleNamespace(headers=headers))(headers)
        assert pace.each == 1.0


def test_a_call_at_rest_follows_as_well() -> None:
    """And without `follow` nobody looks."""
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "500"}
    for follow in (True, False):
        limit = RateLimit(requests=1000, per=60, follow=follow)
        pace: Any = limit._paces.only
        under(Retry(), limit).call(lambda: SimpleNamespace(headers=headers))
        assert (pace.empty - time.monotonic() > 400) is follow


# At rest


@pytest.mark.parametrize("first", [0, 1, 5])
@pytest.mark.parametrize("room_tokens", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("room", [0.0, 2.0])
def test_a_call_starts_at_once_just_when_it_would_not_wait(
    room: float, room_tokens: float, first: int
) -> None:
    """To the instant: a call at rest goes by the same rule as one that asks beforehand."""
    for each, cost, later in product((0.0, 1.0), (0, 1, 2.5, 5), (0, 0.5, 1, 2, 4.5, 5)):
        pace = pacing.Pace(each, room, 1.0, room_tokens)
        assert pace.take(first, 100)
        at_once = pace.expected(cost, 100 + later) == 100 + later
        assert pace.take(cost, 100 + later) is at_once


@pytest.mark.parametrize("key", [None, "tokens", lambda tokens: "one"])
def test_calls_are_at_rest(real_world: World, key: Any) -> None:
    """As long as there is room for them, also where they take tokens; one that is rejected goes the
    whole way."""
    chained = Chained()
    limit = RateLimit(
        tokens=1000, per=1e6, burst=0.5, patience=0, key=key, estimate=lambda tokens: tokens
    )
    fn = under(chained, Retry(attempts=1), limit).wrap(coloured(real_world, lambda tokens: "in"))
    assert [real_world.run(fn, 150) for _ in range(3)] == ["in"] * 3
    assert real_world.run(fn, 50) == "in"
    assert chained.calls == 0
    assert type(error_of(real_world, fn, 150)) is RateLimitExceededError
    assert chained.calls == 1


def test_a_call_at_rest_takes_its_turn_once() -> None:
    """By `begin` and `end`, without the full path; an error goes on with what was taken."""
    limit = RateLimit(requests=10, per=1000, burst=0.3)
    pace = limit._paces.only
    assert pace is not None
    pipeline = under(Retry(attempts=1), limit)
    assert pipeline.call(lambda: 1) == 1
    with pytest.raises(ValueError, match="no"):
        pipeline.call(lambda: exec("raise ValueError('no')"))
    assert pace.empty - time.monotonic() == pytest.approx(200, abs=1)
    with pytest.raises(ConnectionRefusedError):
        pipeline.call(lambda: exec("raise ConnectionRefusedError(111, '')"))
    assert pace.empty - time.monotonic() == pytest.approx(200, abs=1)


@rest_and_full
def test_usage_is_put_right_at_rest_and_on_the_full_path(listeners: Any) -> None:
    """With and without a key."""
    for key in (None, "model"):
        limit = RateLimit(tokens=1000, per=1000, burst=1.0, key=key, estimate=lambda **_: 500)
        chat = under(limit, listeners=listeners).wrap(
            lambda *, model: {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}
        )
        chat(model="m")
        (pace,) = limit._paces.all().values()
        assert pace.empty_tokens - time.monotonic() == pytest.approx(7, abs=1)


@pytest.mark.real
@pytest.mark.fault(105)
@both_loops
@rest_and_full
def test_a_function_found_to_be_async_is_charged_once(loop: str, listeners: Any) -> None:
    """The first call, which finds that out, and later ones."""
    limit = RateLimit(requests=1000, per=1000, burst=1.0)
    pace = limit._paces.only
    assert pace is not None
    pipeline = under(Retry(), limit, listeners=listeners)

    async def work() -> int:
        return 1

    def create() -> Any:  # as OpenAI's: not a coroutine function
        return work()

    async def main() -> None:
        for number in range(1, 4):
            assert await pipeline.call(create) == 1
            assert pace.empty - time.monotonic() == pytest.approx(number, abs=0.5)

    run_in(loop, main)


@pytest.mark.fault(105)
@both_loops
def test_a_sync_call_on_a_loop_is_rejected_rather_than_blocking_it(loop: str) -> None:
    """Whatever its patience."""
    limit = RateLimit(requests=1, per=100)

    async def main() -> None:
        assert under(limit).call(lambda: 1) == 1
        began = time.monotonic()
        with pytest.raises(RateLimitExceededError):
            under(limit).call(lambda: 1)
        assert time.monotonic() - began < 1

    run_in(loop, main)


# Many at once


@async_worlds
def test_tasks_wait_in_the_order_of_asking(world: World) -> None:
    """While others go on."""
    admitted = Admitted(world.clock.now)
    limit = RateLimit(requests=10, per=1)

    @Pipeline(limit)
    async def work(number: int) -> None:
        admitted(number)

    async def one(number: int) -> None:
        await world.clock.asleep(number / 1e6)
        await work(number)

    async def main() -> None:
        await together(world.name, *((lambda n=n: one(n)) for n in range(50)))

    run_in(world.name, main)
    assert admitted.order == list(range(50))
    assert admitted.at[-1] - admitted.at[0] == pytest.approx(4.9, abs=0.01)
    assert limit.waiting == 0


@async_worlds
@pytest.mark.parametrize(
    "limit", [{"requests": 2}, {"tokens": 20, "estimate": lambda: 10}], ids=["requests", "tokens"]
)
def test_a_delay_is_told_with_those_ahead(world: World, limit: Any) -> None:
    """As long as it will be, with all that wait already; and so it turns out."""
    admitted = Admitted(world.clock.now)
    fn = under(RateLimit(per=20, burst=1.0, **limit)).wrap(world.function(lambda: admitted()))
    with recording(CallDelayed) as delays:
        run_in(world.name, lambda: together(world.name, *[fn] * 5))
    assert [each.seconds for each in delays] == pytest.approx([10, 20, 30], abs=0.2)
    times = [at - admitted.at[0] for at in admitted.at]
    assert times == pytest.approx([0, 0, 10, 20, 30], abs=0.2)


@pytest.mark.fault(30, 22, 103)
@pytest.mark.real
@pytest.mark.usefixtures("fast_switching")
def test_32_threads_and_two_loops_never_exceed_the_limit() -> None:
    """One limiter for all: in any time t no more than rate * t and the burst go."""
    limit, admitted = RateLimit(requests=400, per=1), Admitted()
    work = under(limit).wrap(lambda: admitted())

    @Pipeline(limit)
    async def awork() -> None:
        admitted()

    def one(n: int) -> None:
        if n < 32:
            for _ in range(15):
                work()
            return

        async def calls() -> None:
            for _ in range(6):
                await awork()

        loop = ["asyncio", "trio"][n - 32]
        run_in(loop, lambda: together(loop, *([calls] * 20)))

    in_threads(34, one)
    assert len(admitted.at) == 32 * 15 + 2 * 20 * 6
    # A call that is woken late goes late: what it was let go for lies before, by 0.1 s at most.
    for seconds in (0.1, 0.25, 0.5, 1.0):
        assert most_in(seconds, admitted.at) <= 400 * (seconds + 0.05 + 0.1) + 1
    took = max(admitted.at) - min(admitted.at)
    assert took >= (720 - 20) / 400 - 0.1
    assert limit.waiting == 0


def cut(task: asyncio.Future[Any]) -> None:
    task.cancel()


async def waiters_that_leave(loop: str, clock: VirtualTime, chance: random.Random) -> int:
    """200 waiters, of which some are cancelled and some run out of time: how many went. Those who
    stay go in order, as soon as they can."""
    limit = RateLimit(requests=10, per=1, patience=chance.choice([None, 6]))
    admitted = Admitted(clock.now)

    async def work(number: int) -> None:
        admitted(number)

    async def one(number: int) -> None:
        await clock.asleep(number / 1e6)
        timed = [Timeout(chance.uniform(0.5, 9))] if number % 4 == 1 else []
        guarded = under(*timed, limit).wrap(work)
        try:
            if number % 4 != 0:
                await guarded(number)
                return
            after = chance.uniform(0, 9)
            if loop == "trio":
                with trio.CancelScope() as scope:
                    call_off = clock.at(clock.now() + after, scope.cancel)
                    try:
                        await guarded(number)
                    finally:
                        call_off()
                return
            task = asyncio.ensure_future(guarded(number))
            clock.at(clock.now() + after, partial(cut, task))
            await asyncio.gather(task, return_exceptions=True)
        except (RateLimitExceededError, DeadlineExceededError):
            pass

    await together(loop, *((lambda n=n: one(n)) for n in range(200)))
    assert limit.waiting == 0
    assert admitted.order == sorted(admitted.order)
    spaces = [later - sooner for sooner, later in pairwise(admitted.at)]
    assert all(0.0999 < space < 0.1001 for space in spaces), spaces
    now = clock.now()
    await under(limit).wrap(work)(200)
    assert clock.now() - now <= 0.1001  # nothing is left behind that others would wait for
    return len(admitted.order)


@pytest.mark.fault(4)
@both_loops
def test_200_waiters_cancelled_and_timed_out_at_random(loop: str) -> None:
    """Time and again: each turn is somebody's, the order is kept, nothing is left behind."""
    for seed in range(5):
        with virtual_time() as clock:
            chance = random.Random(seed)
            went = run_in(loop, partial(waiters_that_leave, loop, clock, chance))
        assert 30 < went < 200


@pytest.mark.disorderly
@pytest.mark.fault(8, 28)
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # one that was just to be awaited
def test_ctrl_c_at_any_step_leaves_nobody_in_the_queue() -> None:
    """Of a call that is let through, and of one that waits: the next one does not wait for it."""
    for waits in (False, True):
        for step in count(1):
            with virtual_time() as clock:
                limit = RateLimit(requests=1, per=10)
                fn = under(limit).wrap(lambda: "in")
                if waits:
                    fn()
                reached = [True]

                def call(step: int = step, reached: list[bool] = reached, fn: Any = fn) -> None:
                    reached[0] = arriving(interrupt, step, fn, FILES)

                pace: Any = limit._paces.only
                try:
                    call()
                    owned = False
                except KeyboardInterrupt as problem:
                    owned = at_the_end_of_a_with(problem) and pace._lock._is_owned()
                if owned:
                    pace._lock.release()  # as it would be in life, where none comes in there
                assert not pace._lock._is_owned(), step
                assert limit.waiting == 0, step
                began = clock.now()
                assert fn() == "in"
                assert clock.now() - began <= 20, step
            if not reached[0]:
                assert step > 20
                break


@pytest.mark.disorderly
@pytest.mark.fault(401)
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # one that was just to be awaited
def test_ctrl_c_at_any_step_of_forgetting_a_key() -> None:
    """It is used again afterwards, by a call that does not wait for ever."""
    for step in count(1):
        with virtual_time() as clock:
            limit = RateLimit(requests=1, per=10, key="key")
            fn = under(limit).wrap(lambda key: key)
            fn("a")
            clock.advance(10)  # so that the next key has it forgotten
            reached = False
            try:
                reached = arriving(interrupt, step, partial(fn, "b"), {*FILES, keyed.__file__})
            except KeyboardInterrupt as problem:
                reached = True
                if at_the_end_of_a_with(problem):
                    continue  # in life none comes in there
            began = clock.now()
            assert fn("a") == "a"
            assert clock.now() - began <= 10, step
        if not reached:
            assert step > 100
            return


@pytest.mark.fault(33)
@pytest.mark.real
def test_a_signal_handler_at_any_step_of_a_call() -> None:
    """That makes a guarded call itself: no deadlock, and both calls count."""
    for step in count(1):
        limit = RateLimit(requests=1000, per=1000, burst=1.0)
        fn = under(limit).wrap(lambda: "in")
        pace: Any = limit._paces.only
        reached = arriving(fn, step, fn, FILES)
        used = pace.empty - time.monotonic()
        if not reached:
            assert step > 15
            return
        # Between two steps without a call Python looks for no signal; this tracer comes there, too.
        assert used == pytest.approx(2, abs=0.5) or used == pytest.approx(1, abs=0.5), step


@pytest.mark.fault(23)
@pytest.mark.real
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_waits_for_nobody_of_its_parent() -> None:
    """Those who wait there are no threads here."""
    code = """
import os, threading, time
from resilience import Pipeline, RateLimit
limit = RateLimit(requests=2, per=1)
fn = Pipeline(limit).wrap(lambda: "in")
threads = [threading.Thread(target=fn, daemon=True) for _ in range(6)]
for thread in threads: thread.start()
while limit.waiting < 4: time.sleep(0.001)
child = os.fork()
if child == 0:
    os._exit(0 if limit.waiting == 0 and fn() == "in" else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_apart(code, measured=False) == ["0"]


@pytest.mark.fault(23)
@pytest.mark.real
@pytest.mark.steady
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_waits_for_no_task_of_its_parent() -> None:
    """Whose event loop does not run here."""
    code = """
import asyncio, os
from resilience import Pipeline, RateLimit
limit = RateLimit(requests=1, per=1000, burst=0.001, patience=None)
async def answer(): return "in"
fn = Pipeline(limit).wrap(answer)
async def main():
    tasks = [asyncio.ensure_future(fn()) for _ in range(4)]
    while limit.waiting < 3: await asyncio.sleep(0)
    child = os.fork()
    if child == 0:
        os._exit(limit.waiting)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), limit.waiting)
    for task in tasks: task.cancel()
asyncio.run(main())
"""
    assert run_apart(code) == ["0", "3"]


@pytest.mark.fault(35, 36, 37)
def test_clocks_that_stand_still_or_leap() -> None:
    """Nothing is divided by, and nothing lasts longer than it must."""
    with virtual_time() as clock:
        fn = under(RateLimit(requests=100, tokens=100, per=1, patience=0)).wrap(lambda: "in")
        fn()
        clock.advance(1e9)
        assert fn() == "in"


@pytest.mark.fault(118)
@pytest.mark.real
def test_100_000_keys_in_flat_memory() -> None:
    """Those that are not in use are forgotten, and nothing is lost with them."""
    limit = RateLimit(requests=10**6, per=1, key="user")
    fn = under(limit).wrap(lambda *, user: None)
    for user in range(1000):
        fn(user=user)
    put_aside()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for user in range(100_000):
        fn(user=user)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(limit._paces.all()) < 100
    assert grown < 100_000


def test_a_forgotten_limit_is_not_used_again() -> None:
    """A call that had it in hand takes the new one: two are never used for one value."""
    limit = RateLimit(requests=1, per=1000, key="user")
    paces, now = limit._paces, time.monotonic()
    pace = paces.at("a", now)
    assert pace.unused(now)
    assert not pace.take(0.0, now)
    del paces._all["a"]
    assert under(limit).call(lambda *, user: user, user="a") == "a"
    assert paces.at("a", now) is not pace


@pytest.mark.fault(401)
def test_a_limit_that_is_found_although_it_is_forgotten_is_replaced(world: World) -> None:
    """As Ctrl-C may leave it, between the two."""
    limit = RateLimit(requests=1, per=1000, key=lambda: "a")
    limit._paces.at("another one", world.clock.now()).take(0.0, world.clock.now())
    pace = limit._paces.at("a", world.clock.now())
    assert pace.unused(world.clock.now())
    assert world.run(under(limit).wrap(world.function("in"))) == "in"
    found = limit._paces.all()["a"]
    assert found is not pace
    assert found.empty == pytest.approx(world.clock.now() + 1000, abs=0.2)


def test_unused_keys_are_forgotten(world: World) -> None:
    """Those whose calls have drained."""
    limit = RateLimit(requests=1, per=10, key="user")
    fn = under(limit).wrap(world.function("in"))
    for user in range(50):
        world.run(fn, user=user)
        world.clock.advance(1)
    assert {*range(40, 50)} <= {*limit._paces.all()} <= {*range(35, 50)}


@pytest.mark.parametrize(
    ("patience", "others", "waits"),
    [
        (0, ", and rejects the others", 0),
        (9, "; the others wait in order, 9 s at most", 9),
        (None, "; the others wait in order", math.inf),
    ],
)
def test_it_is_explained(patience: Any, others: str, waits: float) -> None:
    """With the longest wait, and what becomes of the others."""
    effect = RateLimit(requests=3, tokens=2000, per=9, patience=patience).effect()
    assert effect.line == "starts at most 3 requests and 2,000 tokens in 9 s" + others
    assert effect.waits == waits


def test_a_stream_that_says_no_tokens_counts_by_its_estimate(world: World) -> None:
    """When it has ended, as before."""
    limit = RateLimit(tokens=10, per=10, burst=1.0, estimate=lambda: 10)
    fn = under(limit).wrap(world.function(lambda: Stream()))
    began = world.clock.now()
    for _ in range(3):
        world.run(fn).end()
    assert world.clock.now() - began == pytest.approx(20)


# The batch


@pytest.mark.real
def test_a_batch_against_a_service_with_a_limit() -> None:
    """60 prompts in 16 threads through the real client, 20 a second allowed: none is refused. How
    long 200 take is measured by benchmarks/limits.py, where nothing else runs beside them."""
    limit = RateLimit(requests=20, per=1)
    answered, refused, took = batch(Retry(attempts=5), limit, prompts=60)
    assert (answered, refused) == (60, 0)
    assert took > 2.5


def test_a_wait_takes_as_long_in_each_world() -> None:
    """The time that calls take themselves is no wait."""
    ends = []
    for name in ("sync", "asyncio", "trio"):
        with virtual_time() as clock:
            world = World(name, clock)
            fn = under(RateLimit(requests=3, per=1)).wrap(world.function(Takes(0.1, "in")))
            for _ in range(7):
                world.run(fn)
            ends.append(round(clock.now(), 6))
    assert len(set(ends)) == 1


def _raising(error: Exception) -> None:
    raise error
