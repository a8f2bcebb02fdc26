"""Completions: an attempt whose result is settled later than it is returned."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from conftest import World
from resilience import (
    BadResult,
    CircuitBreaker,
    FailureRate,
    Fallback,
    Outcome,
    Pipeline,
    Retry,
    Timeout,
)
from resilience.events import AttemptEnded, CallEnded, WaitBegan
from resilience.failures import Kind
from resilience.policy import (
    NO_VERDICT,
    Call,
    Completion,
    Inner,
    PendingResult,
    Policy,
    Runtime,
)
from support.calling import error_of, rest_and_full, run_in
from support.gates import Bulkhead, Stream
from support.policies import Busy

# A completion by itself


def test_each_listener_gets_the_verdict_once() -> None:
    """The first one settles it; later ones change nothing, and who comes late gets it at once."""
    completion = Completion()
    seen: list[Any] = []
    completion.then(lambda verdict: seen.append((1, verdict)))
    completion.then(lambda verdict: seen.append((2, verdict)))
    assert seen == []

    completion.settle(None)
    assert seen == [(1, None), (2, None)]
    completion.settle(KeyError())
    completion.settle(NO_VERDICT)
    completion.then(lambda verdict: seen.append((3, verdict)))
    assert seen == [(1, None), (2, None), (3, None)]


def test_a_listener_that_raises_keeps_no_other_from_its_verdict() -> None:
    """A policy's mistake must not cost another policy its permit; the mistake comes out."""
    completion = Completion()
    seen: list[Any] = []

    def raises(verdict: Any) -> None:
        raise KeyError("mine")

    for listener in (raises, seen.append, raises, seen.append):
        completion.then(listener)
    with pytest.raises(KeyError):
        completion.settle(None)
    assert seen == [None, None]
    with pytest.raises(KeyError):
        completion.then(raises)
    completion.then(seen.append)
    assert seen == [None, None, None]


def test_a_listener_may_settle_and_listen() -> None:
    """From within a listener: nothing is told twice, and nothing is left out."""
    completion = Completion()
    seen: list[Any] = []

    def again(verdict: Any) -> None:
        seen.append("again")
        completion.settle(KeyError())
        completion.then(lambda verdict: seen.append("inner"))

    completion.then(again)
    completion.then(lambda verdict: seen.append("last"))
    completion.settle(None)
    assert sorted(seen) == ["again", "inner", "last"]


@pytest.mark.real
def test_threads_that_settle_and_listen_at_once() -> None:
    """Every listener gets one verdict, the same for all."""
    for _ in range(200):
        completion = Completion()
        seen: list[Any] = []
        gate = threading.Barrier(4)

        def listen(completion: Completion = completion, seen: Any = seen, gate: Any = gate) -> None:
            gate.wait()
            for _ in range(5):
                completion.then(seen.append)

        def settle(completion: Completion = completion, gate: Any = gate) -> None:
            gate.wait()
            completion.settle(KeyError())

        threads = [threading.Thread(target=fn) for fn in (listen, settle, listen, settle)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 10
        assert len({id(each) for each in seen}) == 1


# In a call

ENDS: dict[str, Callable[[Stream], object]] = {
    "well": lambda stream: stream.end(),
    "badly": lambda stream: stream.fail(ConnectionError("cut")),
    "abandoned": lambda stream: stream.close(),
}


class Streams:
    """A guarded function that opens streams, after so many failures."""

    def __init__(self, loop: str, failures: int = 0) -> None:
        self.loop = loop
        self.left = failures
        self.made = 0

        async def aopen(*args: Any) -> Stream:
            return self.open(*args)

        self.fn: Any = self.open if loop == "sync" else aopen

    def open(self, *args: Any) -> Stream:
        self.made += 1
        if self.left:
            self.left -= 1
            raise ConnectionError("not yet")
        return Stream()

    def run(self, fn: Callable[..., Any]) -> Any:
        async def main() -> Any:
            return await fn()

        return fn() if self.loop == "sync" else run_in(self.loop, main)


ENDINGS = (AttemptEnded, WaitBegan, CallEnded)
WORLDS = pytest.mark.parametrize("loop", ["sync", "asyncio", "trio"])
PATHS = pytest.mark.parametrize("first", [[], [Busy()]], ids=["rest", "full"])


def name_of(verdict: Any) -> Any:
    return type(verdict).__name__ if isinstance(verdict, Exception) else verdict


@pytest.mark.fault(211)
@pytest.mark.parametrize("how", [*ENDS, "collected"])
@WORLDS
@PATHS
def test_a_permit_goes_back_when_the_result_is_settled(loop: str, first: Any, how: str) -> None:
    """Not at the return; with the verdict, also where nobody holds the result any more."""
    bulkhead = Bulkhead(1)
    streams = Streams(loop)
    stream = streams.run(Pipeline(*first, Retry(), bulkhead).wrap(streams.fn))

    assert type(stream) is Stream
    assert bulkhead.slots.free == 0
    assert bulkhead.verdicts == []
    if how == "collected":
        del stream
        gc.collect()
    else:
        ENDS[how](stream)
    assert bulkhead.slots.free == 1
    verdict = {"well": None, "badly": "ConnectionError"}.get(how, NO_VERDICT)
    assert [name_of(each) for each in bulkhead.verdicts] == [verdict]


@pytest.mark.fault(211)
@pytest.mark.parametrize(
    ("how", "failures"), [("well", 0), ("badly", 2), ("abandoned", 1), ("collected", 1)]
)
@WORLDS
@PATHS
def test_the_circuit_gets_the_verdict_when_the_result_is_settled(
    loop: str, first: Any, how: str, failures: int
) -> None:
    """A success ends a run of failures, a failure adds to it, and abandonment is neither."""
    breaker = CircuitBreaker(failures=9)
    streams = Streams(loop, failures=1)
    stream = streams.run(Pipeline(*first, Retry(wait=0), breaker).wrap(streams.fn))

    assert breaker.snapshot().failures == 1
    if how == "collected":
        del stream
        gc.collect()
    else:
        ENDS[how](stream)
    assert breaker.snapshot().failures == failures
    assert streams.made == 2


@pytest.mark.parametrize(
    ("how", "bad", "all_"), [("well", 0, 1), ("badly", 1, 1), ("abandoned", 0, 0)]
)
@WORLDS
def test_a_window_counts_a_result_when_it_is_settled(
    loop: str, how: str, bad: int, all_: int
) -> None:
    """At rest, too, where a rule looks at a share of the calls."""
    breaker = CircuitBreaker(trip=FailureRate(0.9))
    streams = Streams(loop)
    stream = streams.run(Pipeline(breaker).wrap(streams.fn))

    assert breaker.snapshot().readings[0].calls == 0
    ENDS[how](stream)
    (reading,) = breaker.snapshot().readings
    assert (reading.bad, reading.calls) == (bad, all_)


@pytest.mark.fault(211)
@WORLDS
def test_a_trial_holds_its_slot_until_the_result_is_settled(loop: str) -> None:
    """The circuit closes when the stream has ended well, not before."""
    breaker = CircuitBreaker(reset_after=1e-9)
    breaker.open()
    streams = Streams(loop)
    fn = Pipeline(breaker).wrap(streams.fn)
    stream = streams.run(fn)

    assert (breaker.state, breaker.snapshot().trials) == ("half-open", 1)
    assert not isinstance(_error(lambda: streams.run(fn)), ConnectionError)
    stream.end()
    assert breaker.state == "closed"
    breaker.open()
    streams.run(fn).close()
    assert (breaker.state, breaker.snapshot().trials) == ("half-open", 0)
    streams.run(fn).fail(ConnectionError())
    assert breaker.state == "open"


def _error(fn: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        fn()
    return caught.value


def test_nothing_is_retried_after_the_return(world: World) -> None:
    """The failures before it were; the one that comes later is the record's."""
    seen: list[Any] = []
    made: list[Stream] = []

    def open_() -> Stream:
        made.append(Stream())
        return made[-1]

    pipeline = Pipeline(
        Fallback("else"), Retry(attempts=5, wait=1), Timeout(9), listeners=[(seen.append, *ENDINGS)]
    )
    stream = world.run(pipeline.call, world.function(ConnectionError, open_))
    world.clock.advance(60)
    error = TimeoutError("cut")
    stream.fail(error)

    assert made == [stream]
    assert [type(event) for event in seen] == [AttemptEnded, WaitBegan, AttemptEnded, CallEnded]
    late, end = seen[2].attempt, seen[3]
    assert (late.number, late.duration, late.waited) == (2, 60, 1)
    assert late.failure is not None
    assert late.failure.kind is Kind.TIMEOUT
    assert end.error is error
    assert end.elapsed == 61
    assert [a.number for a in end.attempts] == [1, 2]
    assert end.attempts[1] == late


@pytest.mark.disorderly  # the attempt outlives the call
def test_a_result_whose_call_was_interrupted_ends_by_itself() -> None:
    """Ctrl-C between its opening and its return: the call has ended, the attempt ends with it."""
    seen: list[Any] = []
    made: list[Stream] = []

    class Interrupted(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def interrupted(call: Call) -> Any:
                made.append(await inner(call))
                raise KeyboardInterrupt

            return interrupted

    pipeline = Pipeline(Interrupted(), listeners=[(seen.append, *ENDINGS)])
    with pytest.raises(KeyboardInterrupt):
        pipeline.call(Streams("sync").fn)
    made[0].close()
    assert [type(event) for event in seen] == [CallEnded, AttemptEnded]
    assert [each.duration for each in seen[0].attempts] == [None]
    assert seen[1].interrupted
    assert seen[1].attempt.duration is not None


@pytest.mark.parametrize(
    ("how", "kind"), [("well", None), ("badly", "connection"), ("abandoned", None)]
)
def test_events_follow_the_completion(world: World, how: str, kind: Any) -> None:
    """No attempt and no call has ended before; then both have, once."""
    seen: list[Any] = []
    streams = Streams(world.name)
    pipeline = Pipeline(Retry(), listeners=[(seen.append, *ENDINGS)])
    stream = world.run(pipeline.call, streams.fn)
    assert seen == []
    world.clock.advance(3)
    ENDS[how](stream)
    stream.close()

    assert [type(event) for event in seen] == [AttemptEnded, CallEnded]
    attempt, end = seen[0].attempt, seen[1]
    assert attempt.duration == 3
    assert (attempt.failure and attempt.failure.kind) == kind
    assert (type(end.error).__name__, end.elapsed) == (
        "ConnectionError" if kind else "NoneType",
        3,
    )


@pytest.mark.fault(211)
@rest_and_full
def test_a_result_that_is_collected_at_rest_ends_its_call(listeners: Any) -> None:
    """With no more references to it than the user's, though policies listen to it."""
    seen: list[Any] = []
    bulkhead = Bulkhead(1)
    pipeline = Pipeline(
        Retry(), bulkhead, listeners=[*listeners, (seen.append, *ENDINGS)][: 2 * len(listeners)]
    )
    stream = pipeline.call(Stream)
    gc.collect()
    assert bulkhead.slots.free == 0
    gc.disable()
    try:
        del stream
        assert bulkhead.slots.free == 1
    finally:
        gc.enable()
    assert [type(event) for event in seen] == ([AttemptEnded, CallEnded] if listeners else [])


def test_an_outcome_has_the_attempt_as_under_way(world: World) -> None:
    """Its duration is not known yet; the outcome stays as it was when it was given."""
    streams = Streams(world.name)
    outcome = world.run(Pipeline(Retry()).outcome, streams.fn)

    assert isinstance(outcome, Outcome)
    assert type(outcome.value) is Stream
    assert [(a.number, a.duration, a.failure) for a in outcome.attempts] == [(1, None, None)]
    outcome.value.fail(KeyError())
    assert [(a.number, a.duration, a.failure) for a in outcome.attempts] == [(1, None, None)]


@WORLDS
@PATHS
def test_a_result_that_is_settled_at_its_return(loop: str, first: Any) -> None:
    """What has ended before the call has: its permit goes back at once."""
    bulkhead = Bulkhead(1)
    breaker = CircuitBreaker(failures=9)

    def open_() -> Stream:
        stream = Stream()
        stream.fail(ConnectionError())
        return stream

    async def aopen() -> Stream:
        return open_()

    fn: Any = open_ if loop == "sync" else aopen
    streams = Streams(loop)
    assert type(streams.run(Pipeline(*first, breaker, bulkhead).wrap(fn))) is Stream
    assert bulkhead.slots.free == 1
    assert breaker.snapshot().failures == 1


@pytest.mark.fault(211)
def test_the_completion_may_come_from_another_thread() -> None:
    """Or from a finalizer in one: permits are given back from anywhere."""
    bulkhead = Bulkhead(1)
    stream = Pipeline(Busy(), bulkhead).call(Stream)
    thread = threading.Thread(target=stream.end)
    thread.start()
    thread.join()
    assert bulkhead.slots.free == 1


def test_a_check_looks_at_a_pending_result_when_it_is_returned(world: World) -> None:
    """What it finds bad then is a failure like any other; the permits of both go back."""
    bulkhead = Bulkhead(1)
    made: list[Stream] = []

    def open_(*args: Any) -> Stream:
        made.append(Stream())
        return made[-1]

    pipeline = Pipeline(
        Retry(attempts=2, wait=0), bulkhead, BadResult(lambda result: result is made[0])
    )
    stream = world.run(pipeline.call, world.function(open_, open_))
    assert stream is made[1]
    assert [name_of(each) for each in bulkhead.verdicts] == ["BadResultError"]
    stream.end()
    assert bulkhead.slots.free == 1


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_pending_result_of_a_call_that_turned_out_to_be_async(loop: str) -> None:
    """The same where the function is plain and gives an awaitable of one."""
    bulkhead = Bulkhead(1)

    def ask() -> Any:
        async def answer() -> Stream:
            return Stream()

        return answer()

    async def main() -> Any:
        return await Pipeline(bulkhead).wrap(ask)()

    stream = run_in(loop, main)
    assert bulkhead.slots.free == 0
    stream.end()
    assert bulkhead.slots.free == 1
    assert bulkhead.verdicts[-1] is None


def test_a_pending_result_may_be_awaitable() -> None:
    """An awaitable one is awaited first, as any awaitable is."""

    class Both(Stream):
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return self

    bulkhead = Bulkhead(1)
    both = Both()

    async def main() -> Any:
        return await Pipeline(Busy(), bulkhead).call(lambda: both)

    assert asyncio.run(main()) is both
    assert isinstance(both, PendingResult)
    assert bulkhead.slots.free == 0
    both.end()
    assert bulkhead.slots.free == 1


def test_a_failing_call_with_a_bulkhead_leaves_nothing_out(world: World) -> None:
    """What never gives a result is settled by its error."""
    bulkhead = Bulkhead(1)
    error_of(
        world, Pipeline(Retry(attempts=3, wait=0), bulkhead).call, world.function(ConnectionError)
    )
    assert bulkhead.slots.free == 1
    assert [name_of(each) for each in bulkhead.verdicts] == ["ConnectionError"] * 3
