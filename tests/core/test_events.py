"""Events: one frozen record for each thing that happens in a call, and who gets it."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import attrs
import pytest

from conftest import Takes, World
from resilience import (
    BadResult,
    CircuitBreaker,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Streaming,
    Timeout,
    resilient,
)
from resilience.errors import CircuitOpenError, DeadlineExceededError, StreamInterruptedError
from resilience.events import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallFailed,
    CallRecovered,
    CallRejected,
    CallStarted,
    CircuitChanged,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    Event,
    FellBack,
    GaveUp,
    ModelLeft,
    ModelSkipped,
    StreamEnded,
    StreamInterrupted,
    StreamRestarted,
    StreamStarted,
    TimedOut,
    TokensUsed,
    WaitBegan,
    listen,
    recording,
)
from resilience.failures import Kind
from resilience.policy import Call, Inner, Policy, Runtime
from resilience.testing import virtual_time
from support.calling import error_of, rest_and_full
from support.grammar import Watch, faults_of

HEALTHY = [CallStarted, AttemptStarted, AttemptEnded, CallEnded]


def classes(events: list[Any]) -> list[type]:
    return [type(event) for event in events]


def at_rest(fn: Callable[..., Any]) -> bool:
    """Whether a guarded function's next call runs directly."""
    return fn.__resilience__.idle.period is not None  # type: ignore[attr-defined,no-any-return]


# The course of a call


def test_a_call_tells_its_course_in_order(world: World) -> None:
    """The call, attempts, waits, the end: one event each, with the pipeline's name, the
    function's, and the number of the call."""
    seen: list[Any] = []
    pipeline = Pipeline(Retry(wait=2), name="chat", listeners=[seen.append])
    world.run(pipeline.wrap(world.function(ConnectionError, "ok")), "a prompt")

    assert classes(seen) == [
        CallStarted,
        AttemptStarted,
        AttemptEnded,
        WaitBegan,
        AttemptStarted,
        AttemptEnded,
        CallRecovered,
        CallEnded,
    ]
    assert {(event.pipeline, event.call) for event in seen} == {("chat", seen[0].call)}
    assert all("fn" in event.function for event in seen)
    _, first, failed, wait, second, succeeded, recovered, end = seen
    assert failed.attempt.failure.kind is Kind.CONNECTION
    assert (first.number, first.waited, second.number, second.waited) == (1, 0, 2, 2)
    assert (wait.seconds, wait.attempt) == (2, failed.attempt)
    assert (succeeded.attempt.number, succeeded.attempt.waited) == (2, 2)
    assert (len(end.attempts), end.elapsed, end.error) == (2, 2, None)
    assert end.attempts == recovered.attempts == (failed.attempt, succeeded.attempt)


def test_a_call_that_fails_says_so_and_why(world: World) -> None:
    """A failed attempt that is retried is no failure of the call; the last one is, with its
    meaning, and the reason why there was no other."""
    with recording() as events:
        own = error_of(
            world, Pipeline(Retry(attempts=2, wait=2)).wrap(world.function(ConnectionError))
        )

    assert [type(e) for e in events if type(e) in (GaveUp, CallFailed, CallEnded)] == [
        GaveUp,
        CallFailed,
        CallEnded,
    ]
    gave_up, failed, end = events[-3:]
    assert (gave_up.attempt.number, gave_up.reason) == (2, "2 attempts made")
    assert failed.failure.error is own
    assert (failed.reason, len(failed.attempts), failed.elapsed) == ("2 attempts made", 2, 2)
    assert end.error is own


def test_a_rejection_is_told_and_has_no_attempts(world: World) -> None:
    """It is no failure: nothing was called."""
    breaker = CircuitBreaker(failures=1)
    fn = Pipeline(breaker).wrap(world.function(ConnectionError))
    error_of(world, fn)
    with recording() as events:
        rejection = error_of(world, fn)

    assert classes(events) == [CallStarted, CallRejected, CallEnded]
    assert events[1].error is events[2].error is rejection
    assert events[2].attempts == ()


def test_a_chain_tells_who_is_left_and_who_is_skipped(world: World) -> None:
    """And the end of a call, who served, and that it was not the first choice."""
    breaker = CircuitBreaker(failures=1, key="model")
    pipeline = Pipeline(ModelFallback("a", "b"), breaker)
    fn = world.function(ConnectionError(), "ok")
    with recording() as events:
        world.run(pipeline.call, fn)
        world.run(pipeline.call, fn)

    left = next(event for event in events if type(event) is ModelLeft)
    assert (left.model, left.to, left.failure.kind) == ("a", "b", Kind.CONNECTION)
    skipped = next(event for event in events if type(event) is ModelSkipped)
    assert (skipped.model, skipped.to, type(skipped.error)) == ("a", "b", CircuitOpenError)
    assert [(e.served_by, e.degraded) for e in events if type(e) is CallEnded] == [("b", True)] * 2
    assert [e.model for e in events if type(e) is AttemptStarted] == ["a", "b", "b"]


def test_a_fallback_tells_what_it_stands_for(world: World) -> None:
    """That is no recovery: the call did fail."""
    with recording() as events:
        world.run(Pipeline(Fallback("else")).call, world.function(ConnectionError))

    assert classes(events) == [*HEALTHY[:3], FellBack, CallEnded]
    assert events[3].failure.kind is Kind.CONNECTION
    assert (events[4].degraded, events[4].served_by) == (True, None)


def test_a_bad_result_is_the_calls_error(world: World) -> None:
    """The bad result is returned; the event has what was bad about it."""
    seen: list[Any] = []
    pipeline = Pipeline(BadResult(lambda result: result == "bad"), listeners=[seen.append])

    assert world.run(pipeline.call, world.function("bad")) == "bad"
    assert seen[-1].error.result == "bad"
    assert [a.failure is None for a in seen[-1].attempts] == [False]


def test_a_time_limit_is_told_with_the_attempt_that_it_cut(world: World) -> None:
    """With the time that it took, and the timeout as its failure."""
    with recording() as events:
        error_of(world, Pipeline(Timeout(5)).call, world.function(Takes(9)))

    assert classes(events) == [
        CallStarted,
        AttemptStarted,
        TimedOut,
        AttemptEnded,
        CallFailed,
        CallEnded,
    ]
    assert events[2].seconds == 5
    attempt = events[3].attempt
    assert (attempt.duration, attempt.failure.kind) == (5, Kind.TIMEOUT)


@pytest.mark.real
@pytest.mark.parametrize("at", ["attempt", "wait"])
def test_a_cancelled_call_tells_its_end(at: str) -> None:
    """What was under way has ended, interrupted, and so has the call, with the cancellation."""

    async def fails() -> None:
        if at == "attempt":
            await asyncio.sleep(60)
        raise ConnectionError

    async def main() -> None:
        task = asyncio.ensure_future(resilient(Retry(wait=60))(fails)())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with recording() as events:
        asyncio.run(main())
    assert faults_of(events) == []
    assert classes(events)[-2:] == [AttemptEnded if at == "attempt" else WaitBegan, CallEnded]
    assert type(events[-1].error) is asyncio.CancelledError
    assert [e.interrupted for e in events if type(e) is AttemptEnded] == [at == "attempt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_call_tells_its_end(error: type[BaseException]) -> None:
    """Ctrl-C comes out; the course is whole all the same."""

    def interrupted() -> None:
        clock.sleep(3)
        raise error

    with virtual_time() as clock, recording() as events, pytest.raises(error):
        Pipeline(Retry()).call(interrupted)
    assert classes(events) == HEALTHY
    assert events[2].interrupted
    assert type(events[3].error) is error
    assert events[2].attempt.duration == events[3].elapsed == 3


@pytest.mark.fault(390)
@pytest.mark.disorderly  # those who listen after that one are not told
@pytest.mark.parametrize(
    "kind", [*HEALTHY, TokensUsed, WaitBegan, GaveUp, ModelLeft, CallRecovered, CallFailed]
)
@pytest.mark.parametrize("well", [True, False], ids=["well", "failing"])
def test_ctrl_c_in_a_listener_leaves_no_call_open(kind: type[Event], well: bool) -> None:
    """At whichever event: the attempt is over, and so is the call."""
    steps = [ConnectionError, ConnectionError, {"usage": {"prompt_tokens": 1}}]

    def ask(question: str, *, model: str = "a") -> Any:
        step: Any = steps.pop(0) if well else ConnectionError
        if isinstance(step, type):
            raise step
        return step

    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    watch = Watch()
    policies = [ModelFallback("a", "b"), Retry(attempts=2, wait=1)]
    pipeline = Pipeline(*policies, listeners=[watch, (interrupted, kind)])
    with virtual_time(), suppress(KeyboardInterrupt, ConnectionError):
        pipeline.call(ask, "Who are you?")
    assert watch.events > 0
    assert watch.faults() == []


def test_an_abandoned_coroutine_tells_its_end() -> None:
    """When it is closed, at the latest by the garbage collector."""

    class Trap:
        def __await__(self) -> Any:
            yield

    async def waits() -> None:
        await Trap()

    with recording() as events:
        begun = Pipeline(Retry()).wrap(waits)()
        begun.send(None)
        del begun
        gc.collect()
    assert classes(events) == HEALTHY
    assert events[2].interrupted


def test_a_call_that_turns_out_to_be_async_is_one_call() -> None:
    """A function that returns an awaitable is called once, and its attempt begins once."""

    async def answer() -> str:
        return "ok"

    def plain() -> Any:
        return answer()

    async def main() -> str:
        found: str = await Pipeline(Retry(), Timeout(5)).call(plain)
        return found

    with recording() as events:
        assert asyncio.run(main()) == "ok"
    assert classes(events) == HEALTHY
    assert len({event.call for event in events}) == 1


@pytest.mark.parametrize("failures", [0, 1])
def test_an_awaitable_that_is_never_awaited_leaves_no_attempt_open(failures: int) -> None:
    """The call goes over to async mode, where a policy does not let it in again."""

    class Refuses(Policy):
        entered = 0

        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def refuses(call: Call) -> Any:
                self.entered += 1
                if self.entered > 1:
                    raise KeyError
                return await inner(call)

            return refuses

    async def answer() -> str:
        return "ok"

    async def main() -> None:
        with pytest.raises(KeyError):
            await Pipeline(Refuses(), Retry(wait=0)).call(asked)

    def asked() -> Any:
        made.append(None)
        if len(made) <= failures:
            raise ConnectionError
        return answer()

    made: list[None] = []
    with recording() as events:
        asyncio.run(main())
    assert faults_of(events) == []
    *_, ended = [event for event in events if type(event) is AttemptEnded]
    assert ended.interrupted
    assert (ended.attempt.number, ended.attempt.duration) == (failures + 1, 0)


@pytest.mark.fault(391)
@pytest.mark.parametrize("kind", ["coroutine", "future"])
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # nobody awaits our own, either
def test_a_call_whose_awaitable_nobody_awaits_ends_when_that_is_collected(kind: str) -> None:
    """The function was called, and what it has returned is dropped."""

    async def answer() -> None:
        pass

    async def main() -> None:
        begun: Any = Pipeline(Retry()).call(
            answer if kind == "coroutine" else asyncio.get_running_loop().create_future
        )
        del begun
        gc.collect()

    def plain() -> Any:
        return answer()

    with recording() as events:
        if kind == "future":
            asyncio.run(main())
        else:
            Pipeline(Retry()).call(plain)
            gc.collect()
    assert classes(events) == HEALTHY
    assert events[2].interrupted
    assert events[3].error is None


@pytest.mark.fault(392)
def test_a_wait_after_a_rejection_is_after_no_attempt(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """None was made: neither events nor the log speak of one."""
    caplog.set_level(logging.INFO, "resilience")
    breaker = CircuitBreaker(failures=1, reset_after=5)
    breaker.open()
    retry = Retry(on=CircuitOpenError, attempts=2)
    with recording() as events:
        assert world.run(Pipeline(retry, breaker).wrap(world.function("ok"))) == "ok"
    (wait,) = [event for event in events if isinstance(event, WaitBegan)]
    assert wait.attempt is None
    assert wait.seconds >= 5
    assert faults_of(events) == []
    assert "attempt 1" not in caplog.text
    assert "rejected; retrying in" in caplog.text


# Circuits


def test_a_circuit_tells_of_its_changes(world: World) -> None:
    """Why and for how long it opened, that trials are let through, how many calls it has cost."""
    breaker = CircuitBreaker(failures=1, reset_after=4.98765, name="api", key="model")
    pipeline = Pipeline(breaker, name="chat")
    with recording(CircuitChanged) as events:
        fn = pipeline.wrap(world.function(ConnectionError(), "ok"))
        error_of(world, fn, model="a")
        error_of(world, fn, model="a")
        world.clock.advance(5)
        world.run(fn, model="a")

    opened, half, closed = events
    assert classes(events) == [CircuitOpened, CircuitHalfOpened, CircuitClosed]
    assert {(e.circuit, e.key, e.model, e.pipeline, e.call) for e in events} == {
        ("api", "a", "a", "chat", None)
    }
    assert (opened.old, opened.new, opened.seconds) == ("closed", "open", 4.988)
    assert opened.failure.kind is Kind.CONNECTION
    assert (half.old, half.new) == ("open", "half-open")
    assert (closed.old, closed.new, closed.rejected) == ("half-open", "closed", 1)


def test_manual_commands_are_told_without_a_pipeline() -> None:
    """An isolation has no end that is known, and no failure."""
    breaker = CircuitBreaker(name="api")
    with recording() as events:
        isolation = breaker.isolate()
        isolation.release()
        breaker.disable()
        breaker.open()

    assert [(type(event), event.new) for event in events] == [
        (CircuitOpened, "isolated"),
        (CircuitClosed, "closed"),
        (CircuitChanged, "disabled"),
        (CircuitOpened, "open"),
    ]
    assert {event.pipeline for event in events} == {None}
    assert (events[0].seconds, events[0].failure, events[3].failure) == (None, None, None)


def test_a_circuit_in_two_pipelines_tells_each_listener_once() -> None:
    """Those of both pipelines, and those who listen to all."""
    one: list[Any] = []
    breaker = CircuitBreaker()
    pipelines = [Pipeline(breaker, listeners=[one.append]) for _ in range(2)]
    other: list[Any] = []
    pipelines.append(Pipeline(breaker, listeners=[other.append]))
    with recording() as events:
        breaker.open()
    assert [len(one), len(other), len(events)] == [1, 1, 1]


# Who listens


def test_only_what_is_listened_to_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a call stays at rest, unless it is what a healthy call emits."""
    fn = Pipeline(Retry()).wrap(lambda: "ok")
    assert at_rest(fn)
    for kind in (CallFailed, WaitBegan, CircuitChanged, GaveUp):
        with recording(kind):
            assert at_rest(fn)
    for kind in (Event, *HEALTHY):
        with recording(kind):
            assert not at_rest(fn)
        assert at_rest(fn)


def test_listening_ends() -> None:
    """Of pipelines that existed before, and of those made since."""
    seen: list[Any] = []
    before = Pipeline(Retry()).wrap(lambda: "ok")
    stop = listen(seen.append, CallEnded)
    since = Pipeline(Retry()).wrap(lambda: "ok")
    before(), since()
    stop()
    stop()
    before(), since()
    assert classes(seen) == [CallEnded] * 2
    assert at_rest(before)
    assert at_rest(since)


@pytest.mark.parametrize("kind", HEALTHY)
def test_every_event_names_its_function(kind: type[Event], world: World) -> None:
    """Also where it is the only one that anybody listens to."""
    seen: list[Any] = []
    fn = Pipeline(Retry(), listeners=[(seen.append, kind)]).wrap(world.function("ok"))
    for _ in range(2):
        world.run(fn)

    assert [event.function for event in seen] == [fn.__qualname__] * 2


def test_a_pipelines_listener_may_ask_for_some_classes(world: World) -> None:
    """A tuple of the function and the classes; the pipeline stays at rest if it can."""
    seen: list[Any] = []
    pipeline = Pipeline(Retry(wait=1), listeners=[(seen.append, WaitBegan, CallFailed)])
    fn = pipeline.wrap(world.function(ConnectionError, "ok"))
    assert at_rest(fn)
    world.run(fn)
    assert classes(seen) == [WaitBegan]


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        "print",
        None,
        (print, 3),
        (print, int),
        (print, CallEnded("x", "y", 1, (), 1.0, None, False, None)),
    ],
)
def test_a_wrong_listener_is_refused(wrong: Any) -> None:
    """By name, when it is given."""
    given = wrong if isinstance(wrong, tuple) else (wrong,)
    with pytest.raises(TypeError, match=r"callback|kinds"):
        listen(*given)
    with pytest.raises(TypeError, match=r"listeners|kinds"):
        Pipeline(listeners=[wrong])


def test_a_recording_ends_with_an_error() -> None:
    """Its block's."""
    with pytest.raises(KeyError), recording() as events:
        raise KeyError
    Pipeline(Retry()).call(lambda: None)
    assert events == []


def test_a_policy_of_ones_own_publishes_its_own_events(world: World) -> None:
    """They are made only where somebody listens to them."""

    @attrs.frozen
    class Stamped(Event):
        stamp: int

    class Stamps(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def stamps(call: Call) -> Any:
                call.emit(Stamped, stamp=7)
                return await inner(call)

            return stamps

    pipeline = Pipeline(Stamps(), name="mine")
    with recording(Stamped) as events:
        world.run(pipeline.call, world.function("ok"))
    assert [(event.pipeline, event.stamp) for event in events] == [("mine", 7)]
    assert "stamp=7" in repr(events[0])


# What they are


def test_events_are_values(world: World) -> None:
    """They are frozen, equal if they say the same, and can be in a set."""
    with recording() as events:
        world.run(Pipeline(Retry(wait=2)).call, world.function(TimeoutError, "ok"))

    for event in events:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            event.pipeline = "other"
        facts = {each.name: getattr(event, each.name) for each in attrs.fields(type(event))}
        assert type(event)(**facts) == event
        assert {event, type(event)(**facts)} == {event}
    assert events[0] != events[1]


@pytest.mark.fault(116)
def test_no_secret_is_in_an_events_repr(world: World) -> None:
    """Neither arguments nor results nor the text of an error, of any kind of event."""
    with recording() as events:
        pipeline = Pipeline(Retry(attempts=2, wait=2), BadResult(lambda r: r == "SECRET"))
        error_of(
            world, pipeline.call, world.function(ConnectionError("SECRET")), "SECRET", x="SECRET"
        )
        world.run(pipeline.call, world.function("SECRET", "SECRET"), "SECRET")
        world.run(pipeline.call, world.function(TimeoutError("SECRET"), "a SECRET"), "SECRET")
        keyed = Pipeline(CircuitBreaker(failures=1, key=lambda x: x))
        error_of(world, keyed.call, world.function(ConnectionError("SECRET")), "SECRET")

    assert {CallStarted, AttemptEnded, WaitBegan, CallFailed, CircuitOpened} <= set(classes(events))
    assert "SECRET" not in repr(events)
    assert "ConnectionError" in repr(events)


@rest_and_full
def test_no_event_without_a_call(listeners: Any) -> None:
    """Making a pipeline or guarding a function is none; a part's listeners get the whole's."""
    seen: list[Any] = []
    part = Pipeline(Retry(), name="part", listeners=[seen.append])
    whole = Pipeline(part, name="whole", listeners=listeners)
    fn = whole.wrap(lambda: 1)
    assert seen == []
    fn()
    assert [event.pipeline for event in seen] == ["whole"] * 4


# Many at once


@pytest.mark.real
def test_sixteen_threads_and_a_thousand_tasks_lose_nothing() -> None:
    """The grammar of each call holds, and every event is there, once."""
    calls, threads, tasks = 100, 16, 1000
    lots = threading.local()

    def flaky() -> str:
        lots.number = getattr(lots, "number", 0) + 1
        if lots.number % 3 == 0:
            raise ConnectionError
        return "ok"

    fn = Pipeline(Retry(attempts=5, wait=0), CircuitBreaker(failures=10**9)).wrap(flaky)

    async def aflaky(number: int) -> str:
        await asyncio.sleep(0)
        if number % 7 == 0:
            raise ConnectionError
        return "ok"

    afn = Pipeline(Retry(attempts=3, wait=0), Timeout(60)).wrap(aflaky)

    async def main() -> None:
        await asyncio.gather(*(afn(number) for number in range(tasks)), return_exceptions=True)

    with recording() as events:
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(threads):
                pool.submit(lambda: [fn() for _ in range(calls)])
        asyncio.run(main())

    assert faults_of(events) == []
    ends = [event for event in events if type(event) is CallEnded]
    assert len(ends) == threads * calls + tasks
    assert len({event.call for event in ends}) == len(ends)
    failed = sum(number % 7 == 0 for number in range(tasks))
    assert sum(event.error is not None for event in ends) == failed
    attempts = sum(len(event.attempts) for event in ends)
    assert sum(type(event) is AttemptEnded for event in events) == attempts


def test_a_result_that_begins_later_is_two_calls() -> None:
    """What returns it ends at once; reading it is a call of its own."""

    async def items() -> Any:
        yield 1
        yield 2

    async def main() -> list[int]:
        return [item async for item in Pipeline(Retry()).call(lambda: items())]

    with recording(CallStarted, CallEnded) as events:
        assert asyncio.run(main()) == [1, 2]
    assert classes(events) == [CallStarted, CallEnded] * 2
    assert [event.error for event in events[1::2]] == [None, None]
    assert faults_of(events) == []


STREAMED = [
    CallStarted,
    AttemptStarted,
    StreamStarted,
    StreamEnded,
    AttemptEnded,
    CallEnded,
]


def test_a_stream_tells_of_its_first_content_and_its_end() -> None:
    """The call ends with the stream, not with the return."""

    def items() -> Any:
        yield "a"
        yield "b"

    with recording() as events:
        stream = Pipeline(Retry(), Streaming()).call(items)
        assert events == []  # a generator begins when it is first asked
        assert next(stream) == "a"
        assert classes(events) == STREAMED[:3]
        assert list(stream) == ["b"]
    assert classes(events) == STREAMED
    assert events[3].items == 2


def test_a_stream_that_breaks_off_tells_so_and_goes_on() -> None:
    """With a fresh attempt, which is a call of its own within the first."""
    made: list[int] = []

    def items() -> Any:
        made.append(1)
        yield "a"
        if len(made) == 1:
            raise ConnectionError
        yield "b"

    with recording() as events:
        stream = Pipeline(Retry(), Streaming(on_interrupted="restart")).call(items)
        assert [item for item in stream if isinstance(item, str)] == ["a", "a", "b"]
    told = classes(events)
    assert told[:5] == [*STREAMED[:3], StreamInterrupted, AttemptEnded]
    assert told[-len(STREAMED) :] == STREAMED
    assert StreamRestarted in told
    cut = events[3]
    assert (cut.items, type(cut.failure.error)) == (1, StreamInterruptedError)
    assert faults_of(events) == []


@pytest.mark.real
@pytest.mark.fault(397)
def test_a_stream_of_a_thread_that_was_left_behind_says_nothing_more() -> None:
    """Its attempt has ended, and so has its call, when its first content comes at last."""
    come = threading.Event()
    closed = threading.Event()

    def late() -> Any:
        try:
            come.wait(10)
            yield {"usage": {"prompt_tokens": 7}}
            yield "late"
        finally:
            closed.set()

    with recording() as events:
        with pytest.raises(DeadlineExceededError):
            Pipeline(Timeout(0.05)).call(lambda: late())
        come.set()
        assert closed.wait(10)
        gc.collect()
    assert faults_of(events) == []
    assert not {StreamStarted, TokensUsed} & set(classes(events))


def test_an_abandoned_stream_ends_its_call() -> None:
    """Its attempt was interrupted, by the consumer."""

    def items() -> Any:
        yield "a"
        yield "b"

    with recording() as events:
        stream = Pipeline(Retry(), Streaming()).call(items)
        next(stream)
        stream.close()
    assert classes(events) == [*STREAMED[:3], AttemptEnded, CallEnded]
    assert events[3].interrupted
