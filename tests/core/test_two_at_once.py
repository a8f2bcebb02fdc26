"""Two attempts of one call that are under way at the same time: each has a branch of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from resilience import (
    CircuitBreaker,
    ModelFallback,
    Pipeline,
    Retry,
    current_attempt,
    history,
)
from resilience.events import AttemptEnded, CallEnded, WaitBegan
from resilience.failures import Advice, Failure, Kind, describe
from resilience.policy import Call, Inner, Policy, Runtime
from support.calling import run_in
from support.gates import Bulkhead
from support.twice import Twice

pytestmark = [pytest.mark.real, pytest.mark.steady]

WAIT = 0.01


class Named(Policy):
    """Gives the function the model whose turn it is."""

    resting = True

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def named(call: Call) -> Any:
            return await inner(call.replace(kwargs={**call.kwargs, "model": call.model}))

        return named


class Meeting:
    """Where two calls wait for one another, once, in every world."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.come = 0
        self.there = threading.Event()
        self.lock = threading.Lock()

    def _arrive(self) -> None:
        with self.lock:
            self.come += 1
            if self.come == 2:
                self.there.set()

    def wait(self) -> None:
        self._arrive()
        assert self.there.wait(5)

    async def await_(self) -> None:
        self._arrive()
        for _ in range(1_000):
            if self.there.is_set():
                return
            await (trio.sleep(0.001) if self.way == "trio" else asyncio.sleep(0.001))
        raise AssertionError("the other one did not come")


class RealWorld:
    """Functions that are called twice at once, and what they saw."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.meeting = Meeting(way)
        self.seen: list[tuple[int, str | None, float]] = []

    def function(self, answer: Callable[[str, int], Any]) -> Any:
        """Its first two calls wait for one another; then it does what `answer(model, nth)` does,
        with the number of its calls for that model."""
        counts: dict[str, int] = {}

        def note(model: str) -> int:
            attempt = current_attempt()
            with self.meeting.lock:
                self.seen.append((attempt.number, attempt.model, round(attempt.waited, 6)))
                counts[model] = counts.get(model, 0) + 1
                return counts[model]

        def fn(*, model: str = "") -> Any:
            nth = note(model)
            if nth == 1:
                self.meeting.wait()
            return answer(model, nth)

        async def afn(*, model: str = "") -> Any:
            nth = note(model)
            if nth == 1:
                await self.meeting.await_()
            return answer(model, nth)

        return fn if self.way == "sync" else afn

    def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        async def main() -> Any:
            return await fn(*args)

        return fn(*args) if self.way == "sync" else run_in(self.way, main)

    def error_of(self, fn: Callable[..., Any], *args: Any) -> Any:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            self.run(fn, *args)
        return caught.value


@pytest.fixture(params=["sync", "asyncio", "trio"])
def world(request: pytest.FixtureRequest) -> RealWorld:
    """In real time: a virtual clock is for one thread."""
    return RealWorld(request.param)


def answers(model: str, nth: int) -> str:
    return f"{model} {nth}"


def fails(model: str, nth: int) -> str:
    raise ConnectionError(f"{model} {nth}")


def one_fails(model: str, nth: int) -> str:
    if model == "one":
        raise ConnectionError(f"one {nth}")
    return f"{model} {nth}"


def test_the_last_attempt_is_made_once() -> None:
    """Two threads that may both make it: one does, and the other's error comes out as it is."""
    meeting = Meeting("sync")

    def adjust(attempt: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        meeting.wait()  # both have seen that one attempt is left
        return args, kwargs

    made: list[int] = []

    def fail(**kwargs: Any) -> None:
        made.append(current_attempt().number)
        raise ConnectionError

    twice = Pipeline(Twice("", ""), Retry(attempts=3, wait=0, adjust=adjust))
    with pytest.raises(ConnectionError):
        twice.call(fail)
    assert sorted(made) == [1, 2, 3]


def test_each_has_its_number_and_model(world: RealWorld) -> None:
    """Both are under way before either ends; the numbers are those of one call."""
    outcome = world.run(Pipeline(Twice(), Named()).outcome, world.function(answers))

    assert outcome.value == "one 1"
    assert sorted(number for number, _, _ in world.seen) == [1, 2]
    assert {model for _, model, _ in world.seen} == {"one", "two"}
    assert sorted((a.number, a.model) for a in outcome.attempts) == sorted(
        (number, model) for number, model, _ in world.seen
    )


def test_each_has_its_waits(world: RealWorld) -> None:
    """A wait in one branch is not the other's; retries go on numbering the call's attempts."""
    pipeline = Pipeline(Twice(), Named(), Retry(attempts=3, wait=WAIT))

    def answer(model: str, nth: int) -> str:
        return fails(model, nth) if model == "one" and nth < 3 else answers(model, nth)

    outcome = world.run(pipeline.outcome, world.function(answer))

    assert outcome.value == "one 3"
    assert sorted(number for number, _, _ in world.seen) == [1, 2, 3, 4]
    assert [waited for _, model, waited in world.seen if model == "one"] == [0, WAIT, WAIT]
    assert [waited for _, model, waited in world.seen if model == "two"] == [0]
    assert sorted(a.waited for a in outcome.attempts) == [0, 0, WAIT, WAIT]


def test_each_has_its_verdict(world: RealWorld) -> None:
    """The failure is one model's, the success the other's."""
    breaker = CircuitBreaker(key="model", failures=1)
    bulkhead = Bulkhead(2)
    pipeline = Pipeline(Twice(), Named(), breaker, bulkhead)

    assert world.run(pipeline.call, world.function(one_fails)) == "two 1"
    assert breaker.circuit("one").state == "open"
    assert breaker.circuit("two").snapshot().failures == 0
    assert breaker.circuit("two").state == "closed"
    assert sorted(type(verdict).__name__ for verdict in bulkhead.verdicts) == [
        "ConnectionError",
        "NoneType",
    ]
    assert bulkhead.slots.free == 2


def test_both_are_in_the_history(world: RealWorld) -> None:
    """If both fail, each attempt has its own error and model."""
    error = world.error_of(Pipeline(Twice(), Named()).call, world.function(fails))

    assert str(error) == "two 1"
    found = {a.model: a.failure and str(a.failure.error) for a in history(error)}
    assert found == {"one": "one 1", "two": "two 1"}
    assert sorted(a.number for a in history(error)) == [1, 2]


class CountedError(Exception):
    """Counts how often it is read."""

    read = 0


@describe.register(CountedError)
def _read(error: CountedError) -> Failure:
    error.read += 1
    return Failure(Kind.SERVER, Advice.RETRY)


def test_each_error_is_read_once(world: RealWorld) -> None:
    """Also where the other branch's attempt ends between the attempt and the asking."""
    errors: list[CountedError] = []

    def answer(model: str, nth: int) -> str:
        errors.append(CountedError(model))
        raise errors[-1]

    class Meeting_(Policy):
        """Where both branches have failed before either goes on."""

        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            meeting = Meeting(world.way)

            async def meet(call: Call) -> Any:
                try:
                    return await inner(call)
                except CountedError:
                    if meeting.come < 2:
                        meeting.wait() if world.way == "sync" else await meeting.await_()
                    raise

            return meet

    policies = Twice(), Named(), Retry(attempts=2, wait=0), CircuitBreaker(), Meeting_()
    world.error_of(Pipeline(*policies).call, world.function(answer))
    assert [error.read for error in errors] == [1] * 4


def test_both_are_events(world: RealWorld) -> None:
    """With their waits between them, and one end of the call."""
    seen: list[Any] = []
    pipeline = Pipeline(
        Twice(), Named(), Retry(attempts=2, wait=WAIT), listeners=[seen.append], name="twice"
    )
    world.run(pipeline.call, world.function(one_fails))

    ended = [event.attempt for event in seen if type(event) is AttemptEnded]
    assert sorted((a.number, a.failure is None) for a in ended if a.model == "two") in (
        [(1, True)],
        [(2, True)],
    )
    assert [a.failure is None for a in ended if a.model == "one"] == [False, False]
    assert [type(event) for event in seen].count(WaitBegan) == 1
    assert type(seen[-1]) is CallEnded
    assert len(seen[-1].attempts) == 3


def test_what_one_has_given_up_on_is_not_the_others(world: RealWorld) -> None:
    """A branch sees the reports of its own attempts; what it comes from sees those of both."""
    seen: dict[str, list[bool]] = {"one": [], "two": [], "both": []}

    class Looking(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def looking(call: Call) -> Any:
                since = call.branch.number
                try:
                    return await inner(call)
                except Exception as error:
                    found = [report.exhausted for report in call.reported(since, error)]
                    seen[call.model or "both"].append(any(found))
                    raise

            return looking

    same = ConnectionError("shared")

    def answer(model: str, nth: int) -> str:
        raise same if model == "one" or nth == 1 else KeyError(model)

    pipeline = Pipeline(Looking(), Twice(), Looking(), Named(), Retry(attempts=2, wait=0))
    error = world.error_of(pipeline.call, world.function(answer))

    assert type(error) is KeyError
    assert seen == {"one": [True], "two": [False], "both": [False]}


def test_a_retry_outside_of_both_leaves_what_they_have_given_up_on(world: RealWorld) -> None:
    """It hears of it, though both were in branches."""
    with pytest.warns(UserWarning, match="two Retry"):
        pipeline = Pipeline(Retry(attempts=5, wait=0), Twice(), Named(), Retry(attempts=2, wait=0))
    world.error_of(pipeline.call, world.function(fails))

    assert len(world.seen) == 4


def test_an_outcome_in_hand_goes_to_one_branch_only(world: RealWorld) -> None:
    """A call that has failed at rest: that attempt is the first branch's, the other calls."""
    bulkhead = Bulkhead(5)
    calls: list[int] = []

    def fn() -> str:
        calls.append(current_attempt().number)
        if len(calls) == 1:
            raise ConnectionError("at rest")
        return "ok"

    async def afn() -> str:
        return fn()

    pipeline = Pipeline(Twice(resting=True), bulkhead)
    chat = pipeline.wrap(fn if world.way == "sync" else afn)

    assert world.run(chat) == "ok"
    assert len(calls) == 2
    assert bulkhead.slots.free == 5
    assert sorted(type(verdict).__name__ for verdict in bulkhead.verdicts) == [
        "ConnectionError",
        "NoneType",
    ]


@pytest.mark.disorderly  # not at rest, `Twice` makes two threads of a call that is to become async
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_awaitable_in_hand_goes_to_one_branch_only(loop: str) -> None:
    """A plain function that gives a coroutine: one serves the first branch, the other calls."""
    made: list[int] = []
    numbers: list[int] = []

    def ask() -> Any:
        made.append(1)

        async def answer() -> int:
            numbers.append(current_attempt().number)
            return len(made)

        return answer()

    async def main() -> Any:
        return await Pipeline(Twice(resting=True)).call(ask)

    assert run_in(loop, main) in (1, 2)
    assert len(made) == 2
    assert sorted(numbers) == [1, 2]


def test_a_single_branch_is_the_call_itself(world: RealWorld) -> None:
    """`branches(1)` changes nothing but that it is a branch."""

    class Once(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def once(call: Call) -> Any:
                (only,) = call.branches(1)
                assert only.journal is call.journal
                assert only.branch.parent is call.branch
                return await inner(only)

            return once

    calls: list[int] = []

    def fn() -> str:
        calls.append(current_attempt().number)
        if len(calls) < 3:
            raise ConnectionError
        return "ok"

    async def afn() -> str:
        return fn()

    pipeline = Pipeline(Once(), Retry(attempts=3, wait=0))
    assert world.run(pipeline.call, fn if world.way == "sync" else afn) == "ok"
    assert calls == [1, 2, 3]


# What counts for `attempts`


def calls_of(world: RealWorld, *policies: Policy) -> list[str]:
    """The models that are called, where every call fails: the first when the second has begun."""
    called: list[str] = []
    meetings = {model: Meeting(world.way) for model in ("", "a", "b")}

    def fn(*, model: str = "") -> None:
        called.append(model)
        meetings[model].wait()
        raise ConnectionError(model)

    async def afn(*, model: str = "") -> None:
        called.append(model)
        await meetings[model].await_()
        raise ConnectionError(model)

    world.error_of(Pipeline(*policies).call, fn if world.way == "sync" else afn)
    return called


@pytest.mark.fault(327)
@pytest.mark.parametrize("attempts", [2, 3, 4])
def test_branches_share_the_attempts_at_a_model(world: RealWorld, attempts: int) -> None:
    """Two at once outside Retry, inside a chain: each model is called `attempts` times in all."""
    chain, twice = ModelFallback("a", "b"), Twice("", "")
    called = calls_of(world, chain, twice, Retry(attempts=attempts, wait=WAIT))

    assert called == ["a"] * attempts + ["b"] * attempts


@pytest.mark.fault(327)
def test_branches_share_the_attempts_without_a_chain(world: RealWorld) -> None:
    """They are those of the call."""
    assert len(calls_of(world, Twice("", ""), Retry(attempts=3, wait=WAIT))) == 3


@pytest.mark.fault(327)
def test_two_at_once_are_made_in_each_attempt_of_a_retry_outside(world: RealWorld) -> None:
    """An attempt of Retry's is whatever is inside it."""
    called = calls_of(world, ModelFallback("a"), Retry(attempts=3, wait=WAIT), Twice("", ""))

    assert called == ["a"] * 6
