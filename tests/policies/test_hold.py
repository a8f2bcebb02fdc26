"""`Hold`: one call is told to stay away, and the others wait as well; released spread out."""

from __future__ import annotations

import copy
import logging
import math
import pickle
import time
import weakref
from itertools import count, pairwise
from typing import Any

import pytest

from conftest import World, async_worlds
from resilience import (
    CircuitBreaker,
    Hold,
    ModelFallback,
    Pipeline,
    RateLimitExceededError,
    Retry,
    Timeout,
    recording,
)
from resilience._core import guard, hooks, idles, pacing
from resilience.events import CallDelayed, HoldBegan, ModelSkipped
from resilience.failures import Advice, Failure, Kind, describe
from resilience.policies import hold as module
from resilience.testing import virtual_time
from support.arriving import arriving, at_the_end_of_a_with, interrupt
from support.calling import error_of, run_in
from support.concurrency import in_threads
from support.functions import coloured
from support.limits import Admitted, Told, batch, herd, most_in, under
from support.own_policies import Asks, both_loops, together

FILES = {idles.__file__, pacing.__file__, module.__file__, guard.__file__, hooks.__file__}


def told(world: World, hold: Hold, seconds: float = 10) -> None:
    """A call is told to stay away."""
    error_of(world, under(hold).wrap(world.function(Told(seconds))))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"spread": -1}, ValueError, "spread must be from 0 to 1"),
        ({"spread": True}, TypeError, "spread must be a number"),
        ({"patience": -1}, ValueError, "patience must be 0 or more"),
        ({"key": 3}, TypeError, "key must be a function"),
        ({"name": ""}, ValueError, "name must not be empty"),
        ({"storage": "redis://:secret@localhost"}, TypeError, "must be a resilience.shared.RedisL"),
        ({"on": object()}, TypeError, "on"),
        ({"patiense": 1}, TypeError, "did you mean 'patience'"),
    ],
)
def test_bad_options_are_refused(options: Any, error: type[Exception], said: str) -> None:
    """At construction, by name, rule and value."""
    with pytest.raises(error, match=said):
        Hold(**options)


def test_it_reads_as_it_was_written_and_pickles_as_its_options() -> None:
    """A copy is the thing itself; another process begins anew."""
    hold = Hold(key="model", spread=0.5)
    assert repr(hold) == "Hold(key='model', spread=0.5)"
    assert copy.copy(hold) is hold
    assert repr(pickle.loads(pickle.dumps(hold))) == repr(hold)


@pytest.mark.parametrize(
    ("options", "said", "waits"),
    [
        ({}, "another call to stay away; for 60 s at most, or is rejected", 60),
        (
            {"key": "model", "patience": None},
            "another call of the same model to stay away",
            math.inf,
        ),
    ],
)
def test_it_is_explained(options: Any, said: str, waits: float) -> None:
    """With the calls that wait for one another, and the longest wait."""
    effect = Hold(**options).effect()
    assert effect.line == f"waits while the server has told {said}"
    assert effect.waits == waits


# Holding


@pytest.mark.fault(364)
def test_others_wait_as_long_as_one_is_told(world: World) -> None:
    """In another pipeline as well; no less than the server asked for, and at most a quarter more.
    Then nothing waits any more."""
    hold = Hold()
    fn = under(hold).wrap(world.function("in"))
    assert world.run(fn) == "in"
    began = world.clock.now()
    with recording(HoldBegan, CallDelayed) as events:
        told(world, hold)
        assert hold.held() == {None: 10}
        assert world.run(fn) == "in"
    assert 10 <= world.clock.now() - began <= 12.5
    held, delayed = events
    assert (held.seconds, held.failure.kind) == (10, Kind.RATE_LIMIT)
    assert (delayed.policy, delayed.seconds) == (
        "Hold",
        pytest.approx(world.clock.now() - began),
    )
    assert hold.held() == {}
    began = world.clock.now()
    world.clock.advance(100)
    for _ in range(5):
        world.run(fn)
    assert world.clock.now() - began == pytest.approx(100)


def test_what_does_not_ask_to_stay_away_holds_nobody(world: World) -> None:
    """An outage, a rate limit without a time, one that is to be retried now, an end that is none of
    the service's."""
    hold = Hold()
    for error in (
        ConnectionError(),
        Told(0),
        Answered(429, {}),
        Answered(400, {"retry-after": "9"}),
        Answered(429, {"x-ratelimit-remaining": "5", "x-ratelimit-reset": "30"}),
    ):
        error_of(world, under(hold).wrap(world.function(error)))
    assert hold.held() == {}


class Answered(Exception):
    """A failure with a status and headers."""

    def __init__(self, status_code: int, headers: dict[str, str]) -> None:
        self.status_code, self.headers = status_code, headers


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"},
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"},
        {"retry-after-ms": "30000"},
    ],
)
def test_a_limit_with_nothing_left_holds_until_its_reset(
    world: World, headers: dict[str, str]
) -> None:
    """As a Retry-After does."""
    hold = Hold()
    error_of(world, under(hold).wrap(world.function(Answered(429, headers))))
    assert hold.held() == {None: pytest.approx(30)}


def test_only_the_failures_named_hold(world: World) -> None:
    """By `on`, in the language of all policies."""
    hold = Hold(on=[503])
    told(world, hold)
    assert hold.held() == {}
    error = Answered(503, {"retry-after": "7"})
    error_of(world, under(hold).wrap(world.function(error)))
    assert hold.held() == {None: 7}


def test_each_key_is_held_by_itself(world: World) -> None:
    """Another model goes on."""
    hold = Hold(key="model")

    def step(*, model: str) -> str:
        if model == "a":
            raise Told(10)
        return model

    fn = under(hold).wrap(coloured(world, step))
    with recording(HoldBegan) as begun:
        error_of(world, fn, model="a")
    assert [(event.key, event.model) for event in begun] == [("a", "a")]
    began = world.clock.now()
    assert world.run(fn, model="b") == "b"
    assert world.clock.now() == began
    assert hold.held() == {"a": 10}
    world.clock.advance(10)
    assert hold.held() == {}


def test_a_key_that_cannot_be_computed_holds_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says so."""
    hold = Hold(key=lambda: 1 // 0)
    told(world, hold)
    assert hold.held() == {}
    assert "Hold(key=) raised ZeroDivisionError" in caplog.text


def test_a_key_that_fails_when_a_call_is_to_wait_lets_it_through(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the call that is told, and twice of the one after it."""
    keys = iter(["a", "a"])
    hold = Hold(key=lambda: next(keys))
    told(world, hold)
    assert world.run(under(hold).wrap(world.function("in"))) == "in"
    assert hold.held() == {"a": 10}
    assert "Hold(key=) raised StopIteration" in caplog.text


class Cut(KeyboardInterrupt):
    """Ctrl-C that looks like a server's answer."""

    status_code, headers = 429, {"retry-after": "10"}


def test_ctrl_c_is_no_word_of_a_server() -> None:
    """Whatever it looks like: `on` is not asked about it, and nobody is held."""
    asked: list[Any] = []

    def on(error: Any) -> bool:
        asked.append(type(error))
        return True

    with virtual_time():
        hold = Hold(on=on)
        with pytest.raises(Cut):
            under(hold).call(_raising, Cut())
        assert (asked, hold.held()) == ([], {})
        with pytest.raises(Told):
            under(hold).call(_raising, Told(10))
        assert (len(asked), hold.held()) == (1, {None: 10})


@async_worlds
def test_a_call_that_waits_is_rejected_where_the_hold_becomes_too_long(world: World) -> None:
    """Not before its first end: then it is known that the call would wait beyond its patience."""
    hold, clock = Hold(spread=0.0, patience=15), world.clock
    began = clock.now()
    rejected: list[tuple[float, float | None]] = []

    @Pipeline(hold)
    async def work(seconds: float, asked: float) -> None:
        await clock.asleep(seconds)
        raise Told(asked)

    async def refused(seconds: float, asked: float) -> None:
        with pytest.raises(Told):
            await work(seconds, asked)

    async def waits() -> None:
        await clock.asleep(1)
        with pytest.raises(RateLimitExceededError) as rejection:
            await work(0, 0)
        rejected.append((clock.now() - began, rejection.value.retry_after))

    await_all = [lambda: refused(0, 10), lambda: refused(5, 30), waits]
    run_in(world.name, lambda: together(world.name, *await_all))
    assert rejected == [(pytest.approx(10), pytest.approx(25))]
    assert hold.waiting == 0


@pytest.mark.fault(46)
def test_a_hold_lasts_a_day_at_most(world: World) -> None:
    """Whatever a server asks for."""
    hold = Hold()
    told(world, hold, 1e8)
    assert hold.held() == {None: 86400}


def test_a_longer_word_makes_a_hold_longer(world: World) -> None:
    """Of a call that was under way; a shorter one changes nothing."""
    hold = Hold(spread=0.0)
    told(world, hold, 10)
    only: Any = hold._state.lanes.only
    for asked, held in ((5, 10), (20, 20)):
        only.hold(asked, world.clock.now(), 0.0, None)
        assert hold.held() == {None: held}


# Rejected


@pytest.mark.fault(365)
def test_a_call_whose_time_would_pass_fails_now(world: World) -> None:
    """By its deadline, or its patience: with the time at which it may go, and why."""
    hold = Hold(name="llm", key="model")

    def step(*, model: str) -> str:
        raise Told(100)

    error_of(world, under(hold).wrap(coloured(world, step)), model="m")
    began = world.clock.now()
    for policies in ([Timeout(20), hold], [hold]):
        fn = under(*policies).wrap(coloured(world, step))
        error = error_of(world, fn, model="m")
        assert type(error) is RateLimitExceededError
        assert error.retry_after == pytest.approx(112.5, abs=12.5)
        assert error.retry_at is not None
        assert (error.name, error.model) == ("llm", "m")
        assert type(error.__cause__) is Told
        assert describe(error).kind is Kind.REJECTED
    assert world.clock.now() == began


def test_a_short_hold_rejects_as_well(world: World) -> None:
    """With the time at which it ends."""
    hold = Hold(spread=0.0, patience=0)
    told(world, hold, 0.25)
    assert error_of(world, under(hold).wrap(world.function("in"))).retry_after == 0.25


@pytest.mark.parametrize("key", [None, "model"])
def test_a_hold_of_another_process(world: World, key: str | None) -> None:
    """As a shared storage hands it on: for calls of that key, by a failure that is not known here.
    One that has ended holds nobody."""
    hold = Hold(key=key, spread=0.0, patience=0)
    state, value = weakref.ref(hold._state), "m" if key else None
    with recording(HoldBegan) as events:
        assert module._received(state, value, 0.0)
        assert module._received(state, value, 0.5)
    assert [(event.key, event.seconds, event.failure) for event in events] == [(value, 0.5, None)]
    assert hold.held() == {value: 0.5}
    error = error_of(world, under(hold).wrap(world.function("in")), model="m")
    assert (error.retry_after, error.__cause__) == (0.5, None)


def test_a_hold_that_is_used_no_more_hears_nothing() -> None:
    """And whoever tells of holds is told so."""
    assert not module._received(lambda: None, None, 5.0)  # type: ignore[arg-type]


@pytest.mark.fault(366)
def test_a_chain_skips_a_held_model_at_once(world: World) -> None:
    """However short the hold is; and comes back to it when no other is left."""
    hold = Hold(key="model")
    broken = {"b": False}

    def step(*, model: str) -> str:
        if broken.get(model):
            raise ConnectionError
        return model

    def refusing(*, model: str) -> str:
        raise Told(2)

    chain = under(ModelFallback("a", "b"), Retry(attempts=2, wait=0.1), hold)
    error_of(world, under(hold).wrap(coloured(world, refusing)), model="a")
    began = world.clock.now()
    fn = chain.wrap(coloured(world, step))
    with recording(ModelSkipped) as events:
        assert world.run(fn) == "b"
    assert world.clock.now() == began
    assert [(event.model, event.to) for event in events] == [("a", "b")]
    broken["b"] = True
    assert world.run(fn) == "a"
    assert 2 <= world.clock.now() - began <= 3.5


def test_the_call_that_was_told_waits_by_its_retry(world: World) -> None:
    """Where the wait is within its patience it is not sent to another model by its own hold."""
    chain = under(ModelFallback("a", "b"), Retry(attempts=2), Hold(key="model"))
    steps = iter([Told(2), "again"])

    def step(*, model: str) -> str:
        found = next(steps)
        if isinstance(found, Exception):
            raise found
        return f"{model} {found}"

    began = world.clock.now()
    assert world.run(chain.wrap(coloured(world, step))) == "a again"
    assert 2 <= world.clock.now() - began <= 2.5


def test_both_models_held(world: World) -> None:
    """The chain waits for the one that is free first."""
    hold = Hold(key="model", spread=0.0)

    def refusing(*, model: str) -> str:
        raise Told({"a": 4, "b": 3}[model])

    for model in "ab":
        error_of(world, under(hold).wrap(coloured(world, refusing)), model=model)
    chain = under(ModelFallback("a", "b"), Retry(), hold)
    began = world.clock.now()
    assert world.run(chain.wrap(coloured(world, lambda *, model: model))) in ("a", "b")
    assert 3 <= world.clock.now() - began <= 4.5


@pytest.mark.parametrize(
    ("key", "model", "most"), [("model", "b", 13), (None, "a", 26)], ids=["by model", "one for all"]
)
def test_a_chain_goes_to_the_model_that_is_free_sooner(
    world: World, key: str | None, model: str, most: float
) -> None:
    """Without a `Retry` it waits there. Where all models wait for the same, it stays."""
    hold = Hold(key=key)

    def refusing(*, model: str) -> str:
        raise Told({"a": 20, "b": 10}[model])

    for each in "ba":
        error_of(world, Pipeline(hold).wrap(coloured(world, refusing)), model=each)
    began = world.clock.now()
    chain = Pipeline(ModelFallback("a", "b"), hold)
    assert world.run(chain.wrap(coloured(world, lambda *, model: model))) == model
    assert most * 0.75 <= world.clock.now() - began <= most


@pytest.mark.parametrize(("a", "b", "model"), [(2.5, 1.0, "b"), (1.2, 0.5, "a"), (1.5, 1.0, "a")])
def test_a_chain_goes_to_another_model_for_a_second(
    world: World, a: float, b: float, model: str
) -> None:
    """Which it waits less there; for less than that it stays."""
    hold = Hold(key="model", spread=0.0)

    def refusing(*, model: str) -> str:
        raise Told({"a": a, "b": b}[model])

    for each in "ba":
        error_of(world, Pipeline(hold).wrap(coloured(world, refusing)), model=each)
    chain = Pipeline(ModelFallback("a", "b"), hold)
    assert world.run(chain.wrap(coloured(world, lambda *, model: model))) == model


@async_worlds
def test_a_hold_that_has_become_longer_sends_its_retry_on(world: World) -> None:
    """To a model that is free, however soon the hold would end."""
    hold, clock = Hold(key="model", spread=0.0), world.clock
    steps = [Told(2), "again", "again"]
    answers: list[str] = []

    async def step(*, model: str) -> str:
        found = steps.pop(0)
        if isinstance(found, Exception):
            raise found
        return f"{model} {found}"

    @Pipeline(hold)
    async def slow(*, model: str) -> None:
        await clock.asleep(1.9)
        raise Told(1)

    async def other() -> None:
        with pytest.raises(Told):
            await slow(model="a")

    async def one() -> None:
        await clock.asleep(0.001)
        chain = Pipeline(ModelFallback("a", "b"), Retry(attempts=2), hold)
        answers.append(await chain.wrap(step)())

    run_in(world.name, lambda: together(world.name, other, one))
    assert answers == ["b again"]


@pytest.mark.parametrize("key", [None, "tenant", lambda tenant, *asked: {"a": 1}[tenant]])
def test_asked_beforehand(world: World, key: Any) -> None:
    """Whether it would reject a call, and for how long that would wait. A call whose key cannot be
    computed is not held, nor one of a key that has not been told."""
    asks, hold = Asks(), Hold(spread=0.0, patience=4, key=key)

    def ask(tenant: str, asked: float = 0) -> str:
        if asked:
            raise Told(asked)
        return "in"

    async def aask(tenant: str, asked: float = 0) -> str:
        return ask(tenant, asked)

    fn = under(asks, hold).wrap(aask if world.asynchronous else ask)
    error_of(world, fn, "a", 10)
    assert type(error_of(world, fn, "a")) is RateLimitExceededError
    world.clock.advance(7)
    found = [(False, 0), (True, pytest.approx(10)), (False, pytest.approx(3)), (False, 0)]
    for tenant in ("a", "b") if key else ("a",):
        assert world.run(fn, tenant) == "in"
    assert asks.found == found[: len(asks.found)]
    assert len(asks.found) == (4 if key else 3)


# Released


@async_worlds
def test_a_success_of_before_the_next_hold_is_none_after_it(world: World) -> None:
    """It says nothing of how much the server takes since."""
    hold, clock = Hold(spread=0.0), world.clock
    lane: Any = hold._state.lanes.only

    @Pipeline(hold)
    async def work(seconds: float, asked: float) -> None:
        await clock.asleep(seconds)
        if asked:
            raise Told(asked)

    async def refused(asked: float) -> None:
        with pytest.raises(Told):
            await work(1, asked)

    run_in(world.name, lambda: together(world.name, lambda: refused(10)))
    run_in(world.name, lambda: together(world.name, lambda: work(3, 0), lambda: refused(20)))
    assert hold.held() == {None: pytest.approx(18)}
    assert lane.accepts == 0
    run_in(world.name, lambda: together(world.name, lambda: work(3, 0)))
    assert lane.accepts == 1


@async_worlds
def test_those_who_wait_are_let_go_one_after_the_other(world: World) -> None:
    """In order, over a quarter of the time of the hold and no sooner than its end."""
    hold, admitted = Hold(), Admitted(world.clock.now)

    @Pipeline(hold)
    async def work(number: int) -> None:
        admitted(number)

    @Pipeline(hold)
    async def refused() -> None:
        raise Told(20)

    async def one(number: int) -> None:
        await world.clock.asleep(0.001 + number / 1e6)
        await work(number)

    async def first() -> None:
        with pytest.raises(Told):
            await refused()

    began = world.clock.now()
    run_in(
        world.name, lambda: together(world.name, first, *((lambda n=n: one(n)) for n in range(99)))
    )
    assert admitted.order == list(range(99))
    assert min(admitted.at) - began >= 20
    assert max(admitted.at) - began <= 20 * (1 + 2 * 0.25)
    spaces = [later - sooner for sooner, later in pairwise(admitted.at)]
    assert max(spaces) <= 2 * min(spaces)


@async_worlds
def test_who_comes_behind_others_expects_to_wait_over_the_spread(world: World) -> None:
    """Whose patience ends before that is rejected at once; the first in the queue is not."""
    hold, clock = Hold(patience=22), world.clock
    clock.random = lambda: 0.0
    began, went = clock.now(), []

    @Pipeline(hold)
    async def work() -> None:
        went.append(clock.now() - began)

    async def late() -> None:
        await clock.asleep(1)
        with pytest.raises(RateLimitExceededError) as rejection:
            await work()
        assert rejection.value.retry_after == pytest.approx(19 + 5)

    told(world, hold, 20)
    run_in(world.name, lambda: together(world.name, work, late))
    assert went == [pytest.approx(20)]


def test_calls_that_are_refused_again_go_at_four_fifths_of_what_was_taken() -> None:
    """Five calls in the 14 s from the first one to the end of the next hold."""
    lane = module._Lane(None, 0.25)
    lane.hold(10, 0, math.inf, None)
    assert lane.passes(20)
    lane.accepts = 5
    lane.hold(4, 30, 20, None)
    assert lane.gap == 14 / 5 / 0.8


@async_worlds
def test_refused_again_calls_go_as_slowly_as_the_server_takes_them(world: World) -> None:
    """And the pace is dropped when nobody has had to wait for it for a while."""
    hold, clock = Hold(), world.clock
    admitted, refusals = Admitted(clock.now), []
    times: list[float] = []

    @Pipeline(Retry(attempts=50, wait=0), hold)
    async def work() -> None:
        await clock.asleep(0.005)
        now = clock.now()
        recent = [each for each in times if now - each < 1]
        if len(recent) >= 20:
            refusals.append(now)
            raise Told(1 - (now - recent[0]))
        times.append(now)
        admitted()

    async def worker() -> None:
        for _ in range(25):
            await work()

    run_in(world.name, lambda: together(world.name, *([worker] * 16)))
    assert len(admitted.at) == 400
    assert len(refusals) <= 40
    assert clock.now() - 1000 <= 30
    clock.advance(100)
    run_in(world.name, lambda: together(world.name, work))
    assert not hold._state.busy()


@async_worlds
@pytest.mark.parametrize("until", [0, 95])
@pytest.mark.fault(398)
def test_a_service_that_is_well_again_is_called_as_fast_as_before(
    world: World, until: float
) -> None:
    """After one Retry-After of 20 s, or a few in a row: once those who waited have gone, over a
    quarter of that time, nobody waits, as nothing has shown how much the service takes."""
    hold, clock = Hold(patience=None), world.clock
    began = clock.now()
    refused: list[float] = []
    left = iter(range(400))

    @Pipeline(Retry(attempts=50), hold)
    async def work() -> None:
        await clock.asleep(0.25)
        if clock.now() - began < until or not refused:
            refused.append(clock.now())
            raise Told(20)

    async def worker() -> None:
        for _ in left:
            await work()

    run_in(world.name, lambda: together(world.name, *([worker] * 8)))
    assert len(refused) <= 8 + 2 * until / 20
    last_told = refused[-1] - began
    assert clock.now() - began <= last_told + 20 * (1 + 2 * 0.25) + 400 * 0.25 / 8 + 1


@pytest.mark.fault(47)
def test_1_000_clients_told_the_same_date() -> None:
    """Each a process of its own, of a server that takes 50 a second: at the peak at most four times
    as many come, and all are served. (`benchmarks/limits.py` has ten times as many.)"""
    arrivals = herd(lambda: [Retry(attempts=None), Hold()], 1_000, rate=50.0)
    assert most_in(1.0, arrivals) <= 4 * 50
    assert 1_000 <= len(arrivals) <= 2_000


@pytest.mark.real
def test_a_batch_against_a_service_with_a_limit() -> None:
    """200 prompts in 16 threads through the real client, 20 a second allowed: all are answered, and
    hardly more are refused than were under way when the first one was."""
    answered, refused, _ = batch(Retry(attempts=20), Hold())
    assert answered == 200
    assert refused <= 20


# At rest


@pytest.mark.real
def test_a_pipeline_is_at_rest_but_for_holds_and_what_comes_after() -> None:
    """It needs nothing of a healthy call: no hook is called."""
    hold = Hold()
    pipeline = under(Retry(attempts=1), hold)
    fn = pipeline.wrap(lambda error=None: exec("raise error", {"error": error}) if error else "in")
    assert pipeline._hooked == ()
    assert fn() == "in"
    assert pipeline._idle.period is not None
    with pytest.raises(Told):
        fn(Told(0.05))
    assert pipeline._idle.period is None
    assert fn() == "in"
    only: Any = hold._state.lanes.only
    only.last_wait -= 10  # as if ten seconds had passed
    assert fn() == "in"
    assert pipeline._idle.period is not None


@pytest.mark.real
def test_keys_that_nobody_calls_any_more_keep_no_other_from_rest() -> None:
    """Whoever calls looks at one of those that were held; then they are forgotten."""
    hold = Hold(key="user")
    pipeline = under(Retry(attempts=1), hold)

    def ask(*, user: int) -> str:
        if user < 100:
            raise Told(0.001)
        return "in"

    fn = pipeline.wrap(ask)
    for user in range(100):
        with pytest.raises(Told):
            fn(user=user)
    assert len(hold._state.lanes.all()) == 100
    for lane in hold._state.lanes.all().values():
        lane.last_wait -= 10
    for user in range(100, 200):
        assert fn(user=user) == "in"
    assert pipeline._idle.period is not None
    assert not hold.busy()
    assert len(hold._state.lanes.all()) == 100
    for user in range(3):
        hold._state.lanes.at(("new", user), time.monotonic())
    assert len(hold._state.lanes.all()) < 100


def test_keys_that_are_held_no_more_are_forgotten(world: World) -> None:
    """As others are held."""
    hold = Hold(key="user")
    fn = under(hold).wrap(world.function(Told(1)))
    for user in range(50):
        error_of(world, fn, user=user)
        world.clock.advance(1)
    assert {*range(40, 50)} & {*hold._state.lanes.all()}
    assert len(hold._state.lanes.all()) <= 10


@pytest.mark.real
@pytest.mark.fault(105)
@both_loops
def test_a_sync_call_on_a_loop_is_rejected_during_a_hold(loop: str) -> None:
    """It must not block the loop."""
    hold = Hold()
    pipeline = under(hold)

    async def main() -> None:
        with pytest.raises(Told):
            pipeline.call(_raising, Told(30))
        began = time.monotonic()
        with pytest.raises(RateLimitExceededError):
            pipeline.call(lambda: "never")
        assert time.monotonic() - began < 1

    run_in(loop, main)


@pytest.mark.real
def test_threads_wait_for_what_one_of_them_was_told() -> None:
    """In real time: nobody calls during the hold, and all come through."""
    hold, admitted = Hold(patience=None), Admitted()
    pipeline = under(hold)
    work = pipeline.wrap(lambda: admitted())
    with pytest.raises(Told):
        pipeline.call(_raising, Told(0.3))
    began = time.monotonic()
    in_threads(16, lambda n: work())
    assert len(admitted.at) == 16
    assert min(admitted.at) - began >= 0.29
    assert hold.waiting == 0


@pytest.mark.disorderly
@pytest.mark.fault(8, 28)
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # one that was just to be awaited
def test_ctrl_c_at_any_step_leaves_nobody_in_the_queue() -> None:
    """Of a call that is told, and of one that waits."""
    for waits in (False, True):
        for step in count(1):
            with virtual_time() as clock:
                hold = Hold()
                pipeline = under(hold)
                fn = pipeline.wrap(lambda: "in")
                if waits:
                    with pytest.raises(Told):
                        pipeline.call(_raising, Told(10))
                reached = [True]

                def call(step: int = step, reached: list[bool] = reached, fn: Any = fn) -> None:
                    reached[0] = arriving(interrupt, step, fn, FILES)

                only: Any = hold._state.lanes.only
                try:
                    call()
                    owned = False
                except KeyboardInterrupt as problem:
                    owned = at_the_end_of_a_with(problem) and only._lock._is_owned()
                if owned:
                    only._lock.release()  # as it would be in life, where none comes in there
                assert not only._lock._is_owned(), step
                assert hold.waiting == 0, step
                began = clock.now()
                assert fn() == "in"
                assert clock.now() - began <= 15, step
            if not reached[0]:
                break


def test_the_log_says_what_holds(caplog: pytest.LogCaptureFixture) -> None:
    """One line, with its facts and without a secret."""
    caplog.set_level(logging.DEBUG, "resilience")
    with virtual_time():
        hold = Hold(name="llm")
        pipeline = under(hold, name="chat")
        with pytest.raises(Told):
            pipeline.call(_raising, Told(10))
        pipeline.call(lambda: "in")
    lines = [record.getMessage() for record in caplog.records]
    assert any("hold 'llm' for 10 s after 429" in line for line in lines), lines
    assert any("for its turn in Hold" in line for line in lines), lines


def test_a_breaker_counts_no_rejection_of_a_hold(world: World) -> None:
    """It says nothing about the service."""
    breaker, hold = CircuitBreaker(failures=1), Hold(patience=0)
    told(world, hold)
    error_of(world, under(breaker, hold).wrap(world.function("in")))
    assert breaker.state == "closed"
    failure = Failure(Kind.RATE_LIMIT, Advice.WAIT, retry_after=3.0)
    assert module.asked_of(failure) == 3.0


def _raising(error: BaseException) -> None:
    raise error
