"""`Bulkhead`: its limit, its queue, its permits, in every world and over several at once."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import logging
import math
import os
import pickle
import random
import threading
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
import trio

from conftest import Takes, World, async_worlds
from resilience import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    DeadlineExceededError,
    ModelFallback,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    health,
    history,
    recording,
)
from resilience._core import guard, hooks
from resilience.events import CallDelayed, CallRejected
from resilience.failures import Kind, describe
from resilience.policies import bulkhead as module
from resilience.policies.bulkhead import Load, _Rooms
from resilience.policy import BUSY
from resilience.testing import VirtualTime, virtual_time
from support.arriving import Arrival, arriving, at_the_end_of_a_with, interrupt
from support.calling import error_of, rest_and_full, run_in
from support.concurrency import fast_switching, in_threads, run_apart  # noqa: F401
from support.functions import coloured
from support.gates import Stream
from support.own_policies import Asks, Chained, both_loops, cancelled, together, turns
from support.polling import until


def load(bulkhead: Bulkhead) -> tuple[int, int]:
    return bulkhead.free, bulkhead.waiting


# Options


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"limit": 0}, ValueError, "limit must be 1 or more, got 0"),
        ({"limit": True}, TypeError, "limit must be a whole number"),
        ({"limit": 1, "queue": -1}, ValueError, "queue must be 0 or more"),
        ({"limit": 1, "queue": 1.5}, TypeError, "queue must be a whole number"),
        ({"limit": 1, "patience": -1}, ValueError, "patience must be 0 or more"),
        ({"limit": 1, "patience": math.nan}, ValueError, "patience must be finite"),
        ({"limit": 1, "key": 3}, TypeError, "key must be a function"),
        ({"limit": 1, "name": ""}, ValueError, "name must not be empty"),
        ({"limit": 1, "patient": 1}, TypeError, "did you mean 'patience'"),
    ],
)
def test_bad_options_are_refused(options: Any, error: type[Exception], said: str) -> None:
    """At construction, by name, rule and value."""
    with pytest.raises(error, match=said):
        Bulkhead(**options)


def test_it_prints_as_the_code_that_makes_it() -> None:
    """What is at its default is left out."""
    assert repr(Bulkhead(3)) == "Bulkhead(3)"
    odd = Bulkhead(3, queue=None, patience=timedelta(seconds=2), key="model", name="gpu")
    assert repr(odd) == "Bulkhead(3, queue=None, patience=2, key='model', name='gpu')"


def test_it_begins_anew_in_another_process_and_copies_as_itself() -> None:
    """It pickles as its options, while permits are out."""
    bulkhead = Bulkhead(1, queue=7, patience=2.5, key="model", name="gpu")
    inside: list[Any] = []

    @Pipeline(bulkhead)
    def work(model: str) -> None:
        inside.append(pickle.loads(pickle.dumps(bulkhead)))
        assert bulkhead.rooms() == {"a": Load(0, 0)}

    work("a")
    assert repr(inside[0]) == repr(bulkhead)
    assert inside[0].rooms() == bulkhead.rooms() == {}
    assert copy.copy(bulkhead) is copy.deepcopy(bulkhead) is bulkhead


def test_a_function_without_the_key_is_refused() -> None:
    """When it is wrapped."""
    with pytest.raises(TypeError, match="tenant"):
        Pipeline(Bulkhead(1, key="tenant")).wrap(lambda model: model)


# Limit, queue, patience


@async_worlds
def test_so_many_are_let_in_and_the_others_in_order(world: World) -> None:
    """Six calls of three seconds, two at once: in the order in which they asked."""
    bulkhead = Bulkhead(2)
    asked: list[int] = []
    begun: list[tuple[int, float]] = []
    loads: list[tuple[int, int]] = []

    @Pipeline(bulkhead)
    async def work(number: int) -> None:
        begun.append((number, world.clock.now() - 1000))
        await world.clock.asleep(3)
        loads.append(load(bulkhead))

    async def one(number: int) -> None:
        asked.append(number)
        await work(number)

    run_in(
        world.name,
        lambda: together(world.name, *((lambda n=number: one(n)) for number in range(6))),
    )
    assert [number for number, _ in begun] == asked
    assert [seconds for _, seconds in begun] == [0, 0, 3, 3, 6, 6]
    assert loads == [(0, 4), (0, 3), (0, 2), (0, 1), (0, 0), (1, 0)]
    assert load(bulkhead) == (2, 0)


@async_worlds
@pytest.mark.parametrize("key", [None, lambda: "one"])
def test_who_finds_the_queue_full_is_rejected_at_once(world: World, key: Any) -> None:
    """One is inside, one waits: the third gets its error before any time has passed."""
    bulkhead = Bulkhead(1, queue=1, key=key, name="gpu")
    work = Pipeline(bulkhead).wrap(world.function(Takes(3, "done")))
    ends: list[tuple[str, float]] = []
    errors: list[BulkheadFullError] = []

    async def one() -> None:
        try:
            found = await work()
        except BulkheadFullError as error:
            errors.append(error)
            found = "rejected"
        ends.append((found, world.clock.now() - 1000))

    with recording(CallRejected, CallDelayed) as events:
        run_in(world.name, lambda: together(world.name, one, one, one))
    assert ends == [("rejected", 0), ("done", 3), ("done", 6)]
    (error,) = errors
    assert (error.name, error.limit, error.waiting, error.waited) == ("gpu", 1, 1, 0)
    assert error.retry_at is None
    assert error.retry_after is None
    delayed, rejected = events
    assert rejected.error is error
    assert (delayed.policy, delayed.model, delayed.seconds) == ("Bulkhead", None, None)
    assert bulkhead.rooms() == {}


def test_who_loses_patience_is_rejected(world: World) -> None:
    """After so many seconds, in which the world goes on; the error says for how long it waited."""
    bulkhead = Bulkhead(1, patience=4)
    pipeline = Pipeline(bulkhead)
    inner = pipeline.wrap(world.function("inner"))

    def call() -> Any:
        return inner()

    async def acall() -> Any:
        return await inner()

    error = error_of(world, pipeline.wrap(acall if world.asynchronous else call))
    assert type(error) is BulkheadFullError
    assert (error.waited, error.waiting, world.clock.now()) == (4, 0, 1004)
    assert not world.calls
    assert load(bulkhead) == (1, 0)


@async_worlds
def test_none_is_written_out_for_no_bound(world: World) -> None:
    """Any number wait, for as long as it takes."""
    bulkhead = Bulkhead(1, queue=None, patience=None)
    work = Pipeline(bulkhead).wrap(world.function(Takes(60, "done")))
    run_in(world.name, lambda: together(world.name, *[work] * 150))
    assert world.clock.now() == 1000 + 60 * 150


@async_worlds
@pytest.mark.parametrize("inside", [True, False])
def test_a_timeout_cuts_the_wait_for_a_permit(world: World, inside: bool) -> None:
    """One outside the bulkhead does; one inside it begins when the permit is there."""
    bulkhead = Bulkhead(1)
    policies = [bulkhead, Timeout(2)] if inside else [Timeout(2), bulkhead]
    work = Pipeline(*policies).wrap(world.function(Takes(1.5, "done")))
    ends: list[str] = []

    async def one() -> None:
        try:
            ends.append(await work())
        except DeadlineExceededError:
            ends.append("late")

    run_in(world.name, lambda: together(world.name, one, one))
    assert ends == (["done", "done"] if inside else ["done", "late"])
    assert load(bulkhead) == (1, 0)


def test_a_timeout_outside_cuts_the_wait_of_a_sync_call() -> None:
    """Before its patience ends; the event of the wait names the model of the chain."""
    bulkhead = Bulkhead(1)
    with virtual_time() as clock:
        began = clock.now()
        chain = Pipeline(Timeout(2), ModelFallback("a", "b"), bulkhead)
        with pytest.raises(DeadlineExceededError), recording(CallDelayed) as delays:
            Pipeline(bulkhead).call(chain.wrap(lambda *, model: model))
        assert [(each.policy, each.model) for each in delays] == [("Bulkhead", "a")]
        assert clock.now() - began == 2
    assert load(bulkhead) == (1, 0)


@rest_and_full
@pytest.mark.real
@both_loops
def test_no_event_loop_is_blocked_by_a_sync_call(loop: str, listeners: Any) -> None:
    """One on a loop's thread cannot wait for what a task of that loop has: it is rejected."""
    bulkhead = Bulkhead(1)
    pipeline = Pipeline(bulkhead, listeners=listeners)
    sync = pipeline.wrap(lambda: "sync")
    assert sync() == "sync"
    leave: list[BulkheadFullError] = []

    @pipeline
    async def hold() -> None:
        while not leave:
            await turns(loop, 1)

    async def ask() -> None:
        while bulkhead.free:
            await turns(loop, 1)
        with pytest.raises(BulkheadFullError) as caught:
            sync()
        leave.append(caught.value)

    run_in(loop, lambda: together(loop, hold, ask))
    assert leave[0].waited < 1
    assert load(bulkhead) == (1, 0)


# Keys


def test_each_key_has_a_room(world: World) -> None:
    """Who has no permit for its model does not keep others from theirs, and a chain moves on."""
    bulkhead = Bulkhead(1, queue=0, key="model")
    breaker = CircuitBreaker(failures=1, key="model")
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(), breaker, bulkhead)
    models: list[str] = []

    def chat(*, model: str) -> Any:
        models.append(model)
        if model == "b":
            return bulkhead.rooms()
        return Pipeline(bulkhead).call(chat, model="b")

    async def achat(*, model: str) -> Any:
        models.append(model)
        if model == "b":
            return bulkhead.rooms()
        return await pipeline.call(achat, model="a")

    found = world.run(pipeline.wrap(achat if world.asynchronous else chat))
    assert found == {"a": Load(0, 0), "b": Load(0, 0)}
    assert models == ["a", "b"]
    assert world.clock.now() == 1000
    assert breaker.circuit("a").state == "closed"
    assert bulkhead.rooms() == {}
    with pytest.raises(TypeError, match=r"rooms\(\)"):
        bulkhead.free  # noqa: B018


def call_inside(pipeline: Pipeline, fn: Callable[..., Any], **kwargs: Any) -> Any:
    return pipeline.call(fn, **kwargs)


def test_the_value_of_a_key_is_not_shown_unless_it_is_a_model(world: World) -> None:
    """It may be a secret. The error has it."""
    errors = {}
    for key, value in [("model", "big"), ("tenant", "SECRET")]:
        pipeline = Pipeline(Bulkhead(1, queue=0, key=key))

        def inner(**kwargs: Any) -> str:
            return "never"

        with pytest.raises(BulkheadFullError) as caught:
            pipeline.call(partial(call_inside, pipeline, inner), **{key: value})
        errors[key] = error = caught.value
        assert error.key == value
        assert "SECRET" not in f"{error} {error!r}"
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.key, again.limit) == (str(error), value, 1)
        assert describe(error).kind is Kind.REJECTED
    assert (errors["model"].model, errors["tenant"].model) == ("big", None)
    assert str(errors["model"]) == "bulkhead for 'big' is full: 1 under way, 0 waiting"


@rest_and_full
@pytest.mark.parametrize("key", [lambda *args: 1 / 0, lambda *args: []], ids=["raises", "list"])
def test_a_key_that_cannot_be_computed_limits_nothing(
    real_world: World, listeners: Any, key: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The call is let in, and the log says so."""
    fn = Pipeline(Bulkhead(1, queue=0, key=key), listeners=listeners).wrap(
        real_world.function("ok", ConnectionError)
    )
    with caplog.at_level(logging.WARNING, "resilience"):
        assert real_world.run(fn) == "ok"
        assert type(error_of(real_world, fn)) is ConnectionError
    assert "Bulkhead(key=) raised" in caplog.text


@pytest.mark.parametrize(
    ("third", "raised"), [([], "StopIteration"), ([[]], "TypeError")], ids=["raises", "list"]
)
def test_a_key_that_fails_the_second_time_limits_nothing(
    third: list[Any], raised: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A call that would have to wait is let in, and the log says so."""
    values = iter(["a", "a", *third])
    pipeline = Pipeline(Bulkhead(1, key=lambda *args: next(values)), listeners=[print])
    assert pipeline.call(lambda: pipeline.call(lambda: "in")) == "in"
    assert caplog.messages == [f"Bulkhead(key=) raised {raised}"]


@pytest.mark.parametrize("key", [None, "tenant", lambda tenant: {"a": 1}[tenant]])
def test_asked_beforehand(world: World, key: Any) -> None:
    """Whether it would reject a call: only if there is no room in its queue either. A call whose
    key cannot be computed is not rejected."""
    asks = Asks()
    pipeline = Pipeline(asks, Bulkhead(1, queue=0, key=key))

    def inner(tenant: str) -> str:
        return "in"

    async def ainner(tenant: str) -> str:
        return "in"

    def outer(tenant: str) -> Any:
        return error_of(world, pipeline.wrap(inner), tenant)

    async def aouter(tenant: str) -> Any:
        with pytest.raises(BulkheadFullError):
            await pipeline.wrap(ainner)(tenant)

    world.run(pipeline.wrap(aouter if world.asynchronous else outer), "a")
    assert asks.found == [(False, 0), (True, 0)]
    if callable(key):
        assert world.run(pipeline.wrap(ainner if world.asynchronous else inner), "b") == "in"
        assert asks.found[2:] == [(False, 0)]


@pytest.mark.fault(371)
@pytest.mark.real
@rest_and_full
def test_keys_without_calls_are_forgotten(listeners: Any) -> None:
    """A hundred thousand of them leave nothing behind; who is inside is never forgotten."""
    bulkhead = Bulkhead(1, queue=0, key=lambda number: number)
    pipeline = Pipeline(bulkhead, listeners=listeners)

    @pipeline
    def work(number: int) -> None:
        if number == -1:
            tracemalloc.start()
            held = []
            for numbers in (range(1000), range(1000, 100_000 if not listeners else 10_000)):
                for each in numbers:
                    work(each)
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()
            assert held[1] - held[0] < 100_000
            assert bulkhead.rooms() == {-1: Load(0, 0)}
            with pytest.raises(BulkheadFullError):
                work(-1)

    work(-1)
    assert bulkhead.rooms() == {}
    assert len(bulkhead._rooms._all) <= 2 * module._KEPT


@rest_and_full
def test_a_key_with_a_call_is_kept(listeners: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many other keys come and go meanwhile, of which only a few are kept."""
    monkeypatch.setattr(module, "_KEPT", 4)
    bulkhead = Bulkhead(1, queue=0, key="number")
    pipeline = Pipeline(bulkhead, listeners=listeners)

    @pipeline
    def work(number: int) -> None:
        if number >= 0:
            assert bulkhead.rooms() == {-1: Load(0, 0), number: Load(0, 0)}
        else:
            for each in range(20):
                work(each)
            with pytest.raises(BulkheadFullError):
                work(-1)

    work(-1)
    assert bulkhead.rooms() == {}
    assert len(bulkhead._rooms._all) <= 4 + 1


def test_keys_of_calls_that_overlap_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although one of them is under way at any time."""
    monkeypatch.setattr(module, "_KEPT", 4)
    bulkhead = Bulkhead(1, key="number")
    stream = Stream()
    work = Pipeline(bulkhead).wrap(lambda number: Stream())
    for number in range(50):
        before, stream = stream, work(number)
        before.end()
    assert bulkhead.rooms() == {49: Load(0, 0)}
    assert len(bulkhead._rooms._all) <= 4 + 1


# Permits come back


@rest_and_full
@pytest.mark.parametrize("error", [ValueError, ConnectionError, KeyboardInterrupt])
def test_permits_come_back(real_world: World, listeners: Any, error: type[BaseException]) -> None:
    """After an error of any kind; a healthy call has the room again."""
    bulkhead = Bulkhead(1, queue=0)
    work = Pipeline(Retry(attempts=2, wait=0), bulkhead, listeners=listeners).wrap(
        real_world.function(error, "ok", error, error, "ok")
    )
    ends: list[str] = []
    while len(ends) < 2:
        try:
            ends.append(real_world.run(work))
        except error:
            pass
        assert load(bulkhead) == (1, 0)
    assert ends == ["ok", "ok"]
    assert len(real_world.calls) == 5


@rest_and_full
@pytest.mark.parametrize("end", ["end", "fail", "close", "forget"])
def test_a_stream_keeps_its_permit_to_its_end(real_world: World, listeners: Any, end: str) -> None:
    """Or until it fails, is closed, or is forgotten."""
    bulkhead = Bulkhead(1, queue=0)
    fn = Pipeline(bulkhead, listeners=listeners).wrap(real_world.function(lambda: Stream()))
    stream = real_world.run(fn)
    assert load(bulkhead) == (0, 0)
    assert type(error_of(real_world, fn)) is BulkheadFullError
    if end == "forget":
        del stream
        gc.collect()
    else:
        getattr(stream, end)(*[ConnectionError()] * (end == "fail"))
    assert load(bulkhead) == (1, 0)


@pytest.mark.parametrize("key", [None, "fails", lambda fails: "one"])
def test_calls_are_at_rest(real_world: World, key: Any) -> None:
    """Healthy calls take their permits without the whole way; one that fails goes it, and does not
    ask for a second permit."""
    bulkhead, chained = Bulkhead(1, queue=1, key=key), Chained()
    inside: list[Load] = []

    def work(fails: bool) -> str:
        inside.extend(bulkhead.rooms().values())
        if fails:
            raise ConnectionError
        return "ok"

    fn = Pipeline(chained, Retry(attempts=2, wait=0), bulkhead).wrap(coloured(real_world, work))
    assert [real_world.run(fn, fails=False) for _ in range(3)] == ["ok"] * 3
    assert chained.calls == 0
    assert len(history(error_of(real_world, fn, True))) == 2
    assert chained.calls == 1
    assert inside == [Load(0, 0)] * 5
    assert bulkhead.rooms() == {}


@async_worlds
def test_a_block_waits_for_its_permit(world: World) -> None:
    """In an `async for`, by `async with`; its key is an argument of `attempts`."""
    bulkhead = Bulkhead(1, key="city")
    ends: list[float] = []

    async def one(city: str) -> None:
        async for attempt in Pipeline(bulkhead).attempts(city=city):
            async with attempt:
                await world.clock.asleep(2)
        ends.append(world.clock.now() - 1000)

    run_in(
        world.name,
        lambda: together(world.name, *[lambda: one("Bergen")] * 2, lambda: one("Oslo")),
    )
    assert ends == [2, 2, 4]


def test_a_block_without_the_key_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """All such blocks share one limit."""
    with caplog.at_level(logging.WARNING, "resilience"):
        for attempt in Pipeline(Bulkhead(1, key="city")).attempts():
            with attempt:
                pass
    assert "share one limit" in caplog.text
    assert "attempts(city=...)" in caplog.text


# Several worlds at once


class Crowd:
    """Counts who is inside at the same time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.peak = self.through = 0

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            self.through += 1
            self.peak = max(self.peak, self.inside)

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1


@pytest.mark.fault(22, 103)
@pytest.mark.real
@pytest.mark.usefixtures("fast_switching")
@pytest.mark.parametrize("options", [{}, {"key": "room"}], ids=["one", "keyed"])
def test_32_threads_and_two_loops_never_exceed_the_limit(options: Any) -> None:
    """One bulkhead for all of them: four at once at the most, and everybody's turn comes."""
    bulkhead, crowd = Bulkhead(4, queue=None, patience=None, **options), Crowd()
    pipeline = Pipeline(bulkhead)

    @pipeline
    def work(number: int, room: str = "one") -> None:
        with crowd:
            if number % 3 == 0:
                threading.Event().wait(0.0001)

    @pipeline
    async def awork(loop: str, room: str = "one") -> None:
        with crowd:
            await turns(loop, 2)

    def one(n: int) -> None:
        if n < 32:
            for number in range(25):
                work(number)
            return
        loop = ["asyncio", "trio"][n - 32]

        async def calls() -> None:
            for _ in range(10):
                await awork(loop)

        run_in(loop, lambda: together(loop, *([calls] * 30)))

    in_threads(34, one)
    assert crowd.through == 32 * 25 + 2 * 30 * 10
    assert crowd.peak <= 4
    assert crowd.inside == 0
    assert bulkhead.rooms() == {}


@pytest.mark.fault(32, 370)
@pytest.mark.real
def test_permits_are_given_in_the_order_of_asking() -> None:
    """Threads and tasks of two loops, queued one after the other: served in that order."""
    bulkhead = Bulkhead(1, queue=None)
    pipeline = Pipeline(bulkhead)
    served: list[int] = []
    leave = threading.Event()

    def hold() -> None:
        leave.wait(20)

    def work(number: int) -> None:
        served.append(number)

    async def awork(number: int) -> None:
        served.append(number)

    def one(n: int) -> None:
        if n == 0:
            pipeline.call(hold)
            return
        until(lambda: load(bulkhead) == (0, n - 1))
        if n % 3 == 0:
            pipeline.call(work, n)
        else:
            run_in(["asyncio", "trio"][n % 3 - 1], lambda: pipeline.call(awork, n))

    def open_up(n: int) -> None:
        if n < 31:
            one(n)
        else:
            until(lambda: bulkhead.waiting == 30)
            leave.set()

    in_threads(32, open_up)
    assert served == list(range(1, 31))
    assert load(bulkhead) == (1, 0)


@pytest.mark.fault(4, 370)
@pytest.mark.steady
@pytest.mark.real
@both_loops
def test_200_waiters_cancelled_and_timed_out_at_random(loop: str) -> None:
    """In the queue, or with the permit on its way to them, `ROUNDS` times: all permits come back,
    and those who are served are served in order."""
    chance = random.Random(7)
    for _ in range(ROUNDS):
        with virtual_time(start=0) as clock:
            run_in(loop, partial(round_of_200, loop, clock, chance))


ROUNDS = int(os.environ.get("ROUNDS", "25"))
"""A thousand take two minutes: ROUNDS=1000 pytest -o timeout=600 -k 200_waiters."""


async def cut(loop: str, clock: VirtualTime, seconds: float, fn: Callable[[], Any]) -> None:
    """Run it, and cancel it after so many seconds."""
    if loop == "asyncio":
        task = asyncio.ensure_future(fn())
        await clock.asleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fn)
        await clock.asleep(seconds)
        nursery.cancel_scope.cancel()


async def round_of_200(loop: str, clock: VirtualTime, chance: random.Random) -> None:
    bulkhead, crowd = Bulkhead(3, queue=150, patience=chance.uniform(0.5, 2)), Crowd()
    asked: list[int] = []
    served: list[int] = []
    ends: list[str] = []

    async def work(number: int) -> None:
        served.append(number)
        with crowd:
            await clock.asleep(chance.choice([0, 0.05, 0.1]))

    async def one(number: int) -> None:
        limits = [Timeout(chance.choice([0.05, 0.2, 1]))] if number % 3 == 1 else []
        guarded = Pipeline(*limits, bulkhead).wrap(work)

        async def ask() -> None:
            asked.append(number)
            end = "cancelled"
            try:
                await guarded(number)
                end = ""
            except (RejectedError, DeadlineExceededError) as error:
                end = type(error).__name__
            finally:
                ends.append(end)

        if number % 3 == 0:
            await cut(loop, clock, chance.choice([0.05, 0.1, 0.3, 1]), ask)
        else:
            await ask()

    await together(loop, *((lambda n=n: one(n)) for n in range(200)))
    assert {*ends} == {"cancelled", "DeadlineExceededError", "BulkheadFullError", ""}
    assert len(ends) == 200
    assert served == [number for number in asked if number in served]
    assert crowd.peak <= 3
    assert crowd.inside == 0
    assert load(bulkhead) == (3, 0)


@rest_and_full
@both_loops
def test_a_cancelled_call_gives_its_permit_back(loop: str, listeners: Any) -> None:
    """Whether it was inside or in the queue; those behind it go on."""
    bulkhead = Bulkhead(1)
    begun: list[int] = []
    leave: list[None] = []

    @Pipeline(bulkhead, listeners=listeners)
    async def work(number: int) -> None:
        begun.append(number)
        while not leave:
            await turns(loop, 1)

    async def main() -> None:
        assert await cancelled(loop, lambda: work(0), lambda: begun)
        assert load(bulkhead) == (1, 0)

        async def queue() -> None:
            assert await cancelled(loop, lambda: work(2), lambda: bulkhead.waiting == 1)
            await together(loop, lambda: work(3), open_up)

        async def open_up() -> None:
            while not bulkhead.waiting:
                await turns(loop, 1)
            leave.append(None)

        await together(loop, lambda: work(1), queue)

    run_in(loop, main)
    assert begun == [0, 1, 3]
    assert load(bulkhead) == (1, 0)


FILES = {module.__file__, guard.__file__, hooks.__file__}


@pytest.mark.disorderly
@pytest.mark.fault(28, 370)
@pytest.mark.parametrize("way", ["free", "keyed", "full", "waiting"])
@rest_and_full
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # one that was just to be awaited
def test_ctrl_c_at_any_step_loses_no_permit(way: str, listeners: Any) -> None:
    """Of a call that is let in, rejected, or waits: once nobody looks at the interrupt any more,
    the permit is back, and nobody is in the queue."""
    key = (lambda: "key") if way == "keyed" else None
    arriving(interrupt, 10**6, Pipeline(Bulkhead(1)).wrap(print), FILES)  # 3.13 misses the first
    for step in count(1):
        bulkhead = Bulkhead(1, queue=int(way == "waiting"), patience=0, key=key)
        pipeline = Pipeline(bulkhead, listeners=listeners)
        guarded = pipeline.wrap(lambda: "in")
        reached: list[bool] = []

        def rejected(guarded: Any = guarded) -> None:
            with pytest.raises(BulkheadFullError):
                guarded()

        def call(tried: Any, step: int = step, reached: list[bool] = reached) -> None:
            reached.append(arriving(interrupt, step, tried, FILES))

        owned = False
        try:
            if way in ("full", "waiting"):
                pipeline.call(call, rejected)
            else:
                call(guarded)
        except KeyboardInterrupt as problem:
            owned = at_the_end_of_a_with(problem) and bulkhead._rooms._lock._is_owned()
        if owned:
            bulkhead._rooms._lock.release()  # as it would be in life, where none comes in there
        assert not bulkhead._rooms._lock._is_owned(), step
        assert bulkhead.rooms() == {}, step
        if reached == [False]:
            assert step > 20
            return


@pytest.mark.fault(33, 370)
@pytest.mark.real
def test_a_handler_that_gives_a_permit_back_at_any_lock() -> None:
    """Of a call without patience: it gets that permit, or is rejected, and all permits are back in
    the end."""
    ends = []
    for nth in count(1):
        bulkhead = Bulkhead(1, patience=0)
        rooms = bulkhead._rooms
        held: list[Any] = []
        lock = Arrival(rooms._lock, lambda h=held: h[0].give_back(), 0, leaving=False)
        rooms._lock = lock
        fn = Pipeline(bulkhead).wrap(lambda: "in")
        held.append(rooms.take(None))
        lock.left = nth
        try:
            ends.append(fn())
        except BulkheadFullError:
            ends.append("full")
        held[0].give_back()
        assert bulkhead.rooms() == {}, nth
        if lock.left > 0:
            break
    # At rest, on the full path, in the queue, on leaving that; then it is too late.
    assert ends[:5] == ["in"] * 4 + ["full"]


@pytest.mark.fault(33, 371)
@pytest.mark.real
def test_a_room_that_is_forgotten_while_a_call_enters_is_not_used() -> None:
    """By the calls of a handler that comes in between: two rooms of one key would let two in."""
    for nth in count(1):
        rooms = _Rooms(1, 0)
        rooms._lock = lock = Arrival(
            rooms._lock,
            lambda r=rooms: [r.at(n) for n in range(3 * module._KEPT)],
            nth,
            leaving=False,
        )
        first = rooms.take("key")
        assert first is not BUSY
        assert rooms.take("key") is BUSY, nth
        assert rooms.loads() == {"key": Load(0, 0)}
        first.give_back()
        if lock.left > 0:
            assert nth > 2
            return


@pytest.mark.fault(23)
@pytest.mark.real
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_begins_anew() -> None:
    """The calls of the parent's other threads are not under way in it; that of the thread that
    forks ends in both."""
    code = """
import os, threading
from resilience import Bulkhead, Pipeline
bulkhead = Bulkhead(2, queue=0)
pipeline = Pipeline(bulkhead)
inside, leave = threading.Event(), threading.Event()
other = threading.Thread(target=lambda: pipeline.call(lambda: (inside.set(), leave.wait(20))))
other.start()
inside.wait(20)
child = pipeline.call(os.fork)
if child == 0:
    free = bulkhead.free
    os._exit(free if pipeline.call(lambda: bulkhead.free) == 1 else 9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), bulkhead.free)
leave.set()
other.join()
print(bulkhead.free)
"""
    assert run_apart(code) == ["2", "1", "2"]


# What people see


def test_health_has_bulkheads_with_calls() -> None:
    """As plain data; one without calls is not named."""
    bulkhead = Bulkhead(2, name="seen", key=lambda each: each)
    idle = Bulkhead(2, name="idle")
    pipeline = Pipeline(bulkhead, Pipeline(idle))
    assert pipeline.call(lambda each: each, 1) == 1

    def found(each: object) -> Any:
        return [each for each in health()["bulkheads"] if each["bulkhead"] in ("seen", "idle")]

    inner = Pipeline(bulkhead).wrap(found)
    seen = Pipeline(bulkhead).call(lambda each: inner("SECRET"), 1)
    assert seen == [{"bulkhead": "seen", "limit": 2, "inside": 2, "waiting": 0}]
    assert "SECRET" not in json.dumps(health())
    assert found(1) == []


@pytest.mark.parametrize(
    ("bulkhead", "line", "waits"),
    [
        (
            Bulkhead(1),
            "lets 1 call in at once; 100 more wait in order, 30 s at most; the rest are rejected",
            30,
        ),
        (
            Bulkhead(2, queue=None, patience=None, key="model"),
            "lets 2 calls in at once for each model; the others wait in order",
            math.inf,
        ),
        (Bulkhead(8, queue=0), "lets 8 calls in at once, and rejects the others", 0),
        (Bulkhead(8, patience=0), "lets 8 calls in at once, and rejects the others", 0),
    ],
)
def test_it_is_explained(bulkhead: Bulkhead, line: str, waits: float) -> None:
    """In words; its wait counts."""
    explained = Pipeline(bulkhead).explain()
    assert explained.policies[0][1] == line
    assert bulkhead.effect().waits == waits


@rest_and_full
def test_the_log_says_why(listeners: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A rejection is a line for debugging, as of any policy."""
    with caplog.at_level(logging.DEBUG, "resilience"):
        gpu = Bulkhead(1, queue=0, name="gpu")
        pipeline = Pipeline(gpu, name=f"chat {len(listeners)}", listeners=listeners)
        with pytest.raises(BulkheadFullError):
            pipeline.call(lambda: pipeline.call(print))
    assert "rejected: bulkhead 'gpu' is full (1 under way, 0 waiting)" in caplog.text
