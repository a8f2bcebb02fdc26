"""SingleFlight: equal calls that are under way at the same time are made once."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import Takes, World, async_worlds
from resilience import (
    CircuitBreaker,
    DeadlineExceededError,
    ModelFallback,
    Pipeline,
    Retry,
    SingleFlight,
    SpendLimit,
    Timeout,
    guarded,
    history,
    recording,
    served_by,
)
from resilience.events import AttemptEnded, CallEnded, GaveUp
from resilience.policy import NO_VERDICT, Completion, PendingResult
from support.calling import message_of, run_in
from support.concurrency import in_threads
from support.crowd import Crowd, in_thread, run_crowd
from support.own_policies import together
from support.polling import until

both_loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])


def waiting(policy: SingleFlight) -> int:
    """How many wait for a call that another one makes."""
    return sum(len(flight.waiting) for flight in list(policy._flights.values()))


class Service:
    """What is called: each call waits until it is let go, then gives a new answer or an error."""

    def __init__(self, gate: Any, *errors: Exception | None) -> None:
        self.gate = gate
        self.calls: list[Any] = []
        self.errors = [*errors]

    def answer(self) -> Any:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return [len(self.calls)]

    def sync(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        assert self.gate.wait(10)
        return self.answer()

    async def asynchronous(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        await self.gate.wait()
        return self.answer()


# One call for all


@pytest.mark.fault(289)
@both_loops
def test_tasks_share_one_call(loop: str) -> None:
    """All get the same object; a call that comes afterwards is a new one."""
    policy = SingleFlight()

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event())
        ask = Pipeline(policy, Retry()).wrap(service.asynchronous)
        calls = [crowd.start(ask, "q", size=1) for _ in range(50)]
        await crowd.until(lambda: waiting(policy) == 49)
        service.gate.set()
        await crowd.until(lambda: all(call.over for call in calls))
        assert len(service.calls) == 1
        assert all(call.result is calls[0].result for call in calls)
        assert calls[0].result == [1]
        assert await ask("q", size=1) == [2]

    run_crowd(loop, body)
    assert not policy._flights


@pytest.mark.real
@pytest.mark.steady
@pytest.mark.fault(289)
def test_threads_share_one_call() -> None:
    """Sync calls of all threads."""
    policy = SingleFlight()
    service = Service(threading.Event())
    ask = Pipeline(policy, Retry()).wrap(service.sync)
    results: list[Any] = []

    def one(n: int) -> None:
        if n == 20:
            until(lambda: waiting(policy) == 19)
            service.gate.set()
        else:
            results.append(ask("q"))

    in_threads(21, one)
    assert len(service.calls) == 1
    assert len(results) == 20
    assert all(result is results[0] for result in results)
    assert ask("q") == [2]
    assert not policy._flights


@pytest.mark.real
@pytest.mark.steady
@pytest.mark.fault(289)
def test_event_loops_share_nothing() -> None:
    """Nor with sync calls: an object of one loop is of no use in another."""
    policy = SingleFlight(key=lambda name: 0)
    together = threading.Barrier(3)  # it opens only when all three are under way

    async def there(name: str) -> str:
        together.wait(10)
        return name

    def ask(name: str) -> Any:
        if name != "sync":
            return there(name)
        together.wait(10)
        return name

    guard: Any = Pipeline(policy).wrap(ask)
    found: list[str] = []

    async def main(name: str) -> None:
        found.append(await guard(name))

    def run(n: int) -> None:
        if n == 0:
            found.append(guard("sync"))
        else:
            asyncio.run(main(f"loop {n}"))

    in_threads(3, run)
    assert sorted(found) == ["loop 1", "loop 2", "sync"]


@both_loops
def test_different_calls_are_made_each(loop: str) -> None:
    """Other arguments, another function, another object's method."""
    policy = SingleFlight()

    class Client:
        async def ask(self, service: Service, question: str) -> Any:
            return await service.asynchronous(question)

    async def body(crowd: Crowd) -> None:
        service, other = Service(crowd.event()), Service(crowd.event())
        pipeline = Pipeline(policy)
        one, two = Client(), Client()
        crowd.start(pipeline.call, service.asynchronous, "a")
        crowd.start(pipeline.call, service.asynchronous, "b")
        crowd.start(pipeline.call, service.asynchronous, "a", more=1)
        crowd.start(pipeline.call, other.asynchronous, "a")
        crowd.start(pipeline.call, one.ask, service, "c")
        crowd.start(pipeline.call, two.ask, service, "c")
        await crowd.until(lambda: (len(service.calls), len(other.calls)) == (5, 1))
        assert waiting(policy) == 0
        crowd.start(pipeline.call, one.ask, service, "c")  # a bound method is made anew each time
        await crowd.until(lambda: waiting(policy) == 1)
        service.gate.set()
        other.gate.set()

    run_crowd(loop, body)


# The key


@both_loops
@pytest.mark.parametrize(
    ("key", "one", "other", "joined"),
    [
        (None, ({"a": [1, {2}]},), ({"a": [1, {2}]},), True),
        (None, ({"a": [1, {2}]},), ({"a": [1, {3}]},), False),
        (None, ([1],), ((1,),), False),
        (None, ({},), ([],), False),
        ("q", (["x"], 1), (["x"], 2), True),
        ("q", (["x"], 1), (["y"], 1), False),
        pytest.param(None, (1,), (1.0,), False, marks=pytest.mark.fault(321)),
        pytest.param(None, ([{1: 0}],), ([{True: 0}],), False, marks=pytest.mark.fault(321)),
        (lambda q, n=0: n, ("x", 1), ("y", 1), True),
        (lambda q, n=0: [q], ("x", 1), ("y", 1), False),
    ],
)
def test_what_is_equal(loop: str, key: Any, one: Any, other: Any, joined: bool) -> None:
    """All arguments, one of them, or what a function makes of them; lists by what is in them."""
    policy = SingleFlight(key)

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event())

        @Pipeline(policy)
        async def ask(q: Any, n: int = 0) -> Any:
            return await service.asynchronous(q)

        crowd.start(ask, *one)
        crowd.start(ask, *other)
        await crowd.until(lambda: len(service.calls) + waiting(policy) == 2)
        assert waiting(policy) == joined
        service.gate.set()

    run_crowd(loop, body)


@both_loops
@pytest.mark.parametrize("argument", [Crowd, "raises"])
def test_a_key_that_cannot_be_computed(loop: str, argument: Any, caplog: Any) -> None:
    """Or hashed: each call is made by itself, and the log names the class of the problem."""

    class Odd:
        __hash__ = None  # type: ignore[assignment]

    def key(q: Any) -> Any:
        if argument == "raises":
            raise LookupError("secret")
        return Odd()

    policy = SingleFlight(key)

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event())

        @Pipeline(policy)
        async def ask(q: Any) -> Any:
            return await service.asynchronous(q)

        calls = [crowd.start(ask, 1) for _ in range(2)]
        await crowd.until(lambda: len(service.calls) == 2)
        service.gate.set()
        await crowd.until(lambda: all(call.over for call in calls))
        assert [call.error for call in calls] == [None, None]

    with caplog.at_level(logging.WARNING):
        run_crowd(loop, body)
    problem = "LookupError" if argument == "raises" else "TypeError"
    assert f"SingleFlight(key=) raised {problem}" in caplog.text
    assert "secret" not in caplog.text


def test_a_key_that_the_function_does_not_take() -> None:
    """Refused at decoration, as with a breaker's."""
    assert "'nope'" in message_of(TypeError, Pipeline(SingleFlight("nope")).wrap, lambda q: q)


# Cancellation


async def queue(crowd: Crowd, policy: SingleFlight, ask: Any, size: int, *args: Any) -> list[Any]:
    """So many equal calls, the first of which makes it; the others wait in order."""
    calls = [crowd.start(ask, *args)]
    await crowd.until(lambda: policy._flights)
    while len(calls) < size:
        calls.append(crowd.start(ask, *args))
        await crowd.until(lambda: waiting(policy) == len(calls) - 1)
    return calls


@pytest.mark.fault(290)
@both_loops
def test_the_lead_is_passed_on(loop: str) -> None:
    """The first one is cancelled, then the second: the third makes the call for the rest."""
    policy = SingleFlight()

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event())
        calls = await queue(crowd, policy, Pipeline(policy).wrap(service.asynchronous), 6)
        for n in (0, 1):
            calls[n].cancel()
            await crowd.until(lambda n=n: len(service.calls) == n + 2)  # type: ignore[misc]
        service.gate.set()
        await crowd.until(lambda: all(call.over for call in calls))
        assert [call.error is None for call in calls] == [False, False, True, True, True, True]
        assert all(call.result == [3] and call.result is calls[2].result for call in calls[2:])

    run_crowd(loop, body)
    assert not policy._flights


@pytest.mark.fault(290)
@both_loops
def test_one_that_waits_is_cancelled(loop: str) -> None:
    """The others do not notice; nor if it was next to make the call."""
    policy = SingleFlight()

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event())
        calls = await queue(crowd, policy, Pipeline(policy).wrap(service.asynchronous), 5)
        calls[2].cancel()
        await crowd.until(lambda: calls[2].over)
        assert waiting(policy) == 3
        calls[0].cancel()  # both in one go: the second is given the lead, and has gone itself
        calls[1].cancel()
        await crowd.until(lambda: len(service.calls) == 2)
        service.gate.set()
        await crowd.until(lambda: all(call.over for call in calls))
        assert [call.result for call in calls] == [None, None, None, [2], [2]]

    run_crowd(loop, body)
    assert not policy._flights


@pytest.mark.fault(290)
@both_loops
def test_all_are_cancelled(loop: str) -> None:
    """Nothing is left; the next call is a new one."""
    policy = SingleFlight()

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event())
        ask = Pipeline(policy).wrap(service.asynchronous)
        for order in (1, -1):
            calls = await queue(crowd, policy, ask, 5)
            for call in calls[::order]:
                call.cancel()
            await crowd.until(lambda calls=calls: all(call.over for call in calls))  # type: ignore[misc]
            assert not policy._flights
        service.gate.set()
        assert await ask() == [len(service.calls)]

    run_crowd(loop, body)


@pytest.mark.real
@pytest.mark.steady
@pytest.mark.fault(290)
@both_loops
def test_the_leaders_time_is_up(loop: str) -> None:
    """By a Timeout outside: one with more time makes the call anew."""
    policy = SingleFlight()
    hurried = Pipeline(Timeout(0.05), policy)
    patient = Pipeline(Timeout(20), policy)

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event())
        first = crowd.start(hurried.call, service.asynchronous)
        await crowd.until(lambda: policy._flights)
        second = crowd.start(patient.call, service.asynchronous)
        await crowd.until(lambda: len(service.calls) == 2)
        service.gate.set()
        await crowd.until(lambda: second.over)
        assert type(first.error) is DeadlineExceededError
        assert second.result == [2]

    run_crowd(loop, body)


@pytest.mark.real
@pytest.mark.steady
@pytest.mark.fault(290)
def test_a_threads_time_is_up() -> None:
    """The one that makes the call passes it on; the one that waits leaves."""
    policy = SingleFlight()
    service = Service(threading.Event())
    hurried = Pipeline(Timeout(0.1), policy)
    patient = Pipeline(Timeout(20), policy)

    first, made = in_thread(hurried.call, service.sync)
    until(lambda: policy._flights)
    others = [in_thread(patient.call, service.sync) for _ in range(3)]
    until(lambda: waiting(policy) == 3 or len(service.calls) > 1)
    first.join(10)
    assert type(made.error) is DeadlineExceededError
    until(lambda: len(service.calls) == 2 and waiting(policy) == 2)
    with pytest.raises(DeadlineExceededError):
        hurried.call(service.sync)
    assert waiting(policy) == 2
    service.gate.set()
    for thread, _ in others:
        thread.join(10)
    assert [each.result for _, each in others] == [[2]] * 3
    assert not policy._flights


@pytest.mark.real
@pytest.mark.steady
@pytest.mark.fault(290)
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_the_leader_is_interrupted(stop: type[BaseException]) -> None:
    """Ctrl-C ends one caller's call, and nobody else's."""
    policy = SingleFlight()
    service = Service(threading.Event(), None)
    gate = threading.Event()

    @Pipeline(policy)
    def ask(question: str) -> Any:
        if not service.calls:
            service.calls.append("interrupted")
            gate.wait(10)
            raise stop
        return service.sync()

    first, made = in_thread(ask, "q")
    until(lambda: service.calls)
    other, result = in_thread(ask, "q")
    until(lambda: waiting(policy) == 1)
    service.gate.set()
    gate.set()
    first.join(10)
    other.join(10)
    assert type(made.error) is stop
    assert result.result == [2]


# Errors


@pytest.mark.fault(291)
@both_loops
def test_an_error_is_shared(loop: str) -> None:
    """The very same; with one history for all. A call that comes afterwards is a new one."""
    policy = SingleFlight()

    async def body(crowd: Crowd) -> None:
        error = ConnectionError("refused")
        service = Service(crowd.event(), error, error)
        ask = Pipeline(policy, Retry(attempts=2, wait=0)).wrap(service.asynchronous)
        calls = await queue(crowd, policy, ask, 20)
        service.gate.set()
        await crowd.until(lambda: all(call.over for call in calls))
        assert all(call.error is error for call in calls)
        assert len(service.calls) == 2
        assert [attempt.number for attempt in history(error)] == [1, 2]
        frames = traceback.extract_tb(error.__traceback__)
        assert len(frames) < 30
        assert frames[-1].name == "answer"  # where it was raised
        assert await ask() == [3]

    run_crowd(loop, body)
    assert not policy._flights


@pytest.mark.real
@pytest.mark.steady
@pytest.mark.fault(291)
def test_a_threads_error_is_shared() -> None:
    """In sync calls as well."""
    policy = SingleFlight()
    error = ConnectionError("refused")
    service = Service(threading.Event(), error)
    ask = Pipeline(policy).wrap(service.sync)
    threads = [in_thread(ask) for _ in range(5)]
    until(lambda: waiting(policy) == 4)
    service.gate.set()
    for thread, _ in threads:
        thread.join(10)
    assert all(made.error is error for _, made in threads)
    assert ask() == [2]


@pytest.mark.fault(291)
@both_loops
def test_a_shared_error_is_kept_by_nobody(loop: str) -> None:
    """With the error goes all that its frames hold, without the collector."""
    policy = SingleFlight()

    class Big:
        pass

    big: list[weakref.ref[Big]] = []

    async def body(crowd: Crowd) -> None:
        gate = crowd.event()

        async def ask() -> None:
            local = Big()
            big.append(weakref.ref(local))
            await gate.wait()
            raise ConnectionError

        async def quiet() -> None:
            try:
                await Pipeline(policy).call(ask)
            except ConnectionError:
                return

        calls = await queue(crowd, policy, quiet, 4)
        gate.set()
        await crowd.until(lambda: all(call.over for call in calls))

    gc.collect()
    gc.disable()
    try:
        run_crowd(loop, body)
        assert len(big) == 1
        assert big[0]() is None
    finally:
        gc.enable()


@pytest.mark.real
@pytest.mark.steady
@both_loops
@pytest.mark.disorderly  # the attempts of the call that is waited for are told by that one alone
@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_inside_a_retry_all_of_them_retry(loop: str) -> None:
    """Whoever waits takes the failure for its own, and joins the next attempt."""
    policy = SingleFlight()

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event(), ConnectionError(), ConnectionError())
        ask = Pipeline(Retry(wait=0.01), policy).wrap(service.asynchronous)
        calls = await queue(crowd, policy, ask, 3)
        service.gate.set()
        await crowd.until(lambda: all(call.over for call in calls))
        assert [call.error for call in calls] == [None] * 3

    run_crowd(loop, body)


@both_loops
@pytest.mark.disorderly  # as above
@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_what_was_retried_inside_is_not_retried_outside(loop: str) -> None:
    """By none of them."""
    policy = SingleFlight()
    made, inside = "2 attempts made", "retried further in"

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event(), *[ConnectionError() for _ in range(9)])
        pipeline = Pipeline(Retry(wait=0), policy, Retry(attempts=2, wait=0))
        calls = await queue(crowd, policy, pipeline.wrap(service.asynchronous), 3)
        service.gate.set()
        await crowd.until(lambda: all(call.over for call in calls))
        assert [type(call.error) for call in calls] == [ConnectionError] * 3
        assert len(service.calls) == 2

    with recording(GaveUp) as events:
        run_crowd(loop, body)
    assert [event.reason for event in events] == [made, inside, inside, inside]


# What is told


@both_loops
def test_what_happened_is_told_to_all(loop: str) -> None:
    """Outcomes have the attempts and the model, with times of their own call."""
    policy = SingleFlight()

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event(), ConnectionError())
        pipeline = Pipeline(policy, ModelFallback("a", "b"))

        async def asking() -> Any:
            outcome = await pipeline.outcome(service.asynchronous)
            return outcome, served_by()

        calls = await queue(crowd, policy, asking, 3)
        service.gate.set()
        await crowd.until(lambda: all(call.over for call in calls))
        for outcome, served in [call.result for call in calls]:
            assert [(a.number, a.model) for a in outcome.attempts] == [(1, "a"), (2, "b")]
            assert (outcome.value, outcome.served_by, outcome.degraded) == ([2], "b", True)
            assert served == "b"
            assert [a.failure is None for a in outcome.attempts] == [False, True]
        own, joined = calls[0].result[0].attempts[0], calls[2].result[0].attempts[0]
        assert joined.started < own.started  # it began before that call did

    run_crowd(loop, body)


@async_worlds
def test_attempts_have_the_times_of_each_call(world: World) -> None:
    """Of one that comes when the first attempt is under way already."""
    pipeline = Pipeline(SingleFlight(), Retry(wait=3))
    fn = world.function(Takes(2, ConnectionError()), "in")
    started: dict[float, list[float]] = {}

    async def one(after: float) -> None:
        await world.clock.asleep(after)
        outcome = await pipeline.outcome(fn)
        started[after] = [round(attempt.started, 6) for attempt in outcome.attempts]

    run_in(world.name, lambda: together(world.name, lambda: one(0), lambda: one(1.5)))
    first, second = started[0]
    assert first == 0
    assert started[1.5] == [-1.5, pytest.approx(second - 1.5)]


@async_worlds
def test_the_model_that_answered_has_served_all(world: World) -> None:
    """Also if it was the first one, and nobody wants to know the attempts."""
    fn = Pipeline(SingleFlight(), ModelFallback("a", "b")).wrap(world.function(Takes(1, "in")))
    found: list[str | None] = []

    async def one() -> None:
        await fn()
        found.append(served_by())

    run_in(world.name, lambda: together(world.name, one, one))
    assert found == ["a", "a"]


@async_worlds
@pytest.mark.parametrize("recorded", [False, True])
def test_what_a_shared_call_costs_is_spent_once(world: World, recorded: bool) -> None:
    """Where a limit is around it, and whether or not its attempts are told."""
    limit = SpendLimit(100, 60, price=lambda model, prompt, answer: prompt + answer, answer=10)
    usage = {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    fn: Any = Pipeline(limit, SingleFlight()).wrap(world.function(Takes(1, usage)))
    ask = guarded(fn).outcome if recorded else fn
    run_in(world.name, lambda: together(world.name, ask, ask, ask))
    assert limit.snapshot().spent == 7


@async_worlds
def test_what_a_shared_failure_costs_is_spent_once(world: World) -> None:
    limit = SpendLimit(100, 60, price=lambda *_: 10, estimate=lambda: 10)
    fn: Any = Pipeline(limit, SingleFlight()).wrap(world.function(Takes(1, ConnectionError())))
    ask = guarded(fn).outcome
    run_in(world.name, lambda: together(world.name, ask, ask))
    assert limit.snapshot().spent == 10


@both_loops
def test_an_outcome_of_a_call_that_was_passed_on(loop: str) -> None:
    """Whoever makes it in the end records the attempts for one that wants to know them."""
    policy = SingleFlight()

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event())
        pipeline = Pipeline(policy)
        calls = await queue(crowd, policy, pipeline.wrap(service.asynchronous), 2)
        curious = crowd.start(pipeline.outcome, service.asynchronous)
        await crowd.until(lambda: waiting(policy) == 2)
        calls[0].cancel()
        await crowd.until(lambda: len(service.calls) == 2)
        service.gate.set()
        await crowd.until(lambda: curious.over)
        assert [attempt.number for attempt in curious.result.attempts] == [1]

    run_crowd(loop, body)


@both_loops
def test_each_attempt_is_published_once(loop: str) -> None:
    """Listeners hear of each attempt from the call that made it, and of the end of each call."""
    policy = SingleFlight()
    events: list[Any] = []

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event(), ConnectionError())
        pipeline = Pipeline(policy, Retry(wait=0), listeners=[events.append])
        calls = await queue(crowd, policy, pipeline.wrap(service.asynchronous), 3)
        service.gate.set()
        await crowd.until(lambda: all(call.over for call in calls))

    run_crowd(loop, body)
    assert sum(type(event) is AttemptEnded for event in events) == 2
    ends = [event for event in events if type(event) is CallEnded]
    assert [len(event.attempts) for event in ends] == [2, 2, 2]


# What is not shared


@pytest.mark.fault(293)
@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
def test_a_call_inside_itself(way: str) -> None:
    """It does not wait for itself."""
    pipeline = Pipeline(SingleFlight(key=lambda n: 0), Retry())

    @pipeline
    def down(n: int) -> int:
        return 0 if n == 0 else 1 + down(n - 1)

    @pipeline
    async def adown(n: int) -> int:
        return 0 if n == 0 else 1 + await adown(n - 1)

    async def body(crowd: Crowd) -> None:
        assert await adown(3) == 3

    if way == "sync":
        assert down(3) == 3
    else:
        run_crowd(way, body)


class Late(PendingResult):
    """A result that is settled later."""

    def __init__(self) -> None:
        self.completion = Completion()
        self.completion.settle(NO_VERDICT)


class Cursor:
    """An iterator of some driver's."""

    def __next__(self) -> int:
        return 1


class AsyncCursor:
    async def __anext__(self) -> int:
        return 1


def numbers() -> Iterator[int]:
    yield 1
    yield 2


@pytest.mark.fault(294)
@both_loops
@pytest.mark.parametrize("make", [Late, Cursor, AsyncCursor, lambda: iter([1]), numbers])
def test_a_stream_has_one_reader(loop: str, make: Callable[[], Any]) -> None:
    """Each caller makes its own call, those who wait as soon as the first one is answered."""
    policy = SingleFlight()

    async def body(crowd: Crowd) -> None:
        gate = crowd.event()
        made: list[Any] = []

        async def ask() -> Any:
            await gate.wait()
            made.append(None)
            return make()

        calls = await queue(crowd, policy, Pipeline(policy).wrap(ask), 4)
        gate.set()
        await crowd.until(lambda: all(call.over for call in calls))
        assert [call.error for call in calls] == [None] * 4
        assert len(made) == 4
        assert len({id(call.result) for call in calls}) == 4

    run_crowd(loop, body)
    assert not policy._flights


@pytest.mark.real
@pytest.mark.steady
def test_a_sync_call_on_an_event_loop_makes_its_own() -> None:
    """It must not wait there: the call that it waits for may need that loop."""
    policy = SingleFlight()
    service = Service(threading.Event())
    ask = Pipeline(policy).wrap(service.sync)
    thread, _ = in_thread(ask)
    until(lambda: policy._flights)

    async def main() -> Any:
        service.gate.set()
        return ask()

    assert asyncio.run(main()) is not None
    thread.join(10)
    assert len(service.calls) == 2


def test_a_block_cannot_be_shared() -> None:
    """It has no result: TypeError."""
    with pytest.raises(TypeError, match="block"):
        next(iter(Pipeline(SingleFlight()).attempts()))


# What is left


@pytest.mark.fault(292)
def test_nothing_of_a_closed_loop_is_left() -> None:
    """Tasks that were under way when their loop was closed go with it."""
    policy = SingleFlight()
    alive: list[weakref.ref[Any]] = []

    def abandon() -> None:
        loop = asyncio.new_event_loop()

        async def main() -> None:
            gate = asyncio.Event()

            async def ask() -> None:
                await gate.wait()

            for _ in range(3):
                task = asyncio.ensure_future(Pipeline(policy).call(ask))
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                alive.append(weakref.ref(task))
            await asyncio.sleep(0)
            assert waiting(policy) == 2

        loop.run_until_complete(main())
        loop.close()

    abandon()
    gc.collect()
    assert [task() for task in alive] == [None] * 3
    assert not policy._flights


@pytest.mark.real
@pytest.mark.steady
@pytest.mark.fault(292)
@both_loops
def test_a_great_many_leave_nothing(loop: str) -> None:
    """Thousands that come, wait and are cancelled at random points: all end, none stays."""
    policy = SingleFlight(key=lambda key: key)

    async def body(crowd: Crowd) -> None:
        made = 0

        @Pipeline(policy)
        async def ask(key: int) -> int:
            nonlocal made
            made += 1
            for _ in range(key % 7):
                await crowd.turn()
            if key % 5 == 0:
                raise ConnectionError
            return key

        async def quiet(key: int) -> None:
            try:
                assert await ask(key) == key
            except ConnectionError:
                assert key % 5 == 0

        calls = []
        for n in range(2000):
            calls.append(crowd.start(quiet, n % 20))
            if n % 3 == 0:
                calls[n // 2].cancel()
            if n % 11 == 0:
                await crowd.turn()
        await crowd.until(lambda: all(call.over for call in calls))
        assert made < 2000

    before = {*threading.enumerate()}  # another test's may end meanwhile
    run_crowd(loop, body)
    assert not policy._flights
    assert {*threading.enumerate()} <= before


def test_copies_and_pickles() -> None:
    """A copy is the policy itself; in another process it begins anew."""
    policy = SingleFlight("q")
    assert copy.copy(policy) is policy
    assert copy.deepcopy(policy) is policy
    assert repr(pickle.loads(pickle.dumps(policy))) == repr(policy) == "SingleFlight(key='q')"
    assert repr(SingleFlight()) == "SingleFlight()"


@pytest.mark.parametrize(
    ("key", "named"), [(None, "all arguments"), ("q", "q"), (len, "len")], ids=str
)
def test_it_is_explained(key: Any, named: str) -> None:
    """By what calls are equal, and when there is one more."""
    assert SingleFlight(key).effect().line == (
        f"makes one call of those under way that are equal by {named}; a caller whose shared call "
        f"was cancelled, or gave a stream, then makes its own"
    )


@both_loops
def test_a_failure_that_is_shared_counts_once(loop: str) -> None:
    """For a breaker inside."""
    policy, breaker = SingleFlight(), CircuitBreaker(failures=2)

    async def body(crowd: Crowd) -> None:
        service = Service(crowd.event(), ConnectionError())
        calls = await queue(crowd, policy, Pipeline(policy, breaker).wrap(service.asynchronous), 5)
        service.gate.set()
        await crowd.until(lambda: all(call.over for call in calls))

    run_crowd(loop, body)
    assert breaker.state == "closed"
