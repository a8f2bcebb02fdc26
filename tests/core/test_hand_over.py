"""A call that began as a sync one and turned out to be async: it goes on with the awaitable."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import warnings
from typing import Any

import pytest

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    FailureRate,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    guarded,
    history,
    resilient,
)
from resilience.events import AttemptEnded, AttemptStarted
from resilience.policy import Call, Inner, Policy, Runtime
from resilience.testing import virtual_time
from support.calling import awaited, message_of, run_in
from support.gates import Bulkhead
from support.policies import Busy

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


class Later:
    """Awaitable, and no coroutine."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


# One call with one record


@pytest.mark.parametrize("failures", [0, 1])
def test_an_awaitable_is_handed_over_from_a_sync_call(failures: int) -> None:
    """A plain function that returns a coroutine, on attempt 1 or on attempt 2, is awaited.

    The attempts and waits made before are in the record: it is one call.
    """
    made: list[int] = []

    async def answer(number: int) -> int:
        made.append(number)
        if number < 3:
            raise ConnectionError("async")
        return number

    calls: list[int] = []

    def flaky() -> Any:
        calls.append(1)
        if len(calls) <= failures:
            raise ConnectionError("sync")
        return answer(len(calls))

    fn = Pipeline(Busy(), Retry(attempts=3)).wrap(flaky)
    with virtual_time() as clock:
        outcome = asyncio.run(awaited(guarded(fn).outcome))
    assert outcome.value == 3
    assert [attempt.number for attempt in outcome.attempts] == [1, 2, 3]
    assert len(calls) == 3
    assert len(clock.sleeps) == 2


def test_a_sync_attempt_before_the_hand_over_is_not_repeated_for_ever() -> None:
    """One sync failure, then awaitables that fail: the async chain has its attempts afresh, the
    history has all of them, and the last error comes out."""
    calls: list[int] = []

    async def broken() -> None:
        raise ConnectionError("async")

    def flaky() -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError("sync")
        return broken()

    fn = resilient(Retry(attempts=3))(flaky)
    with virtual_time(), pytest.raises(ConnectionError) as caught:
        asyncio.run(awaited(fn))
    assert str(caught.value) == "async"
    assert len(calls) == 4
    assert [attempt.number for attempt in history(caught.value)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "policy", [Busy(), CircuitBreaker(trip=FailureRate(0.5)), Retry(), Bulkhead(1)]
)
def test_an_awaitable_is_used_with_its_arguments(policy: Any) -> None:
    """What turns out to be async is not called a second time for it."""
    calls: list[Any] = []

    def fetch(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return Later("answer")

    async def main() -> Any:
        return await Pipeline(policy).wrap(fetch)(1, size=2)

    assert asyncio.run(main()) == "answer"
    assert calls == [((1,), {"size": 2})]


def test_an_attempt_of_a_branch_begins_once() -> None:
    """In a policy of a user's own that gives each of its attempts a branch."""
    seen: list[Any] = []

    class Branching(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def branching(call: Call) -> Any:
                (branch,) = call.branches(1)
                assert branch.branch.number == 0  # it has had no attempt
                return await inner(branch)

            return branching

    pipeline = Pipeline(Branching(), listeners=[(seen.append, AttemptStarted, AttemptEnded)])

    async def main() -> Any:
        return await pipeline.call(lambda: Later("answer"))

    assert asyncio.run(main()) == "answer"
    assert [(type(each), each.call) for each in seen] == [
        (AttemptStarted, seen[0].call),
        (AttemptEnded, seen[0].call),
    ]
    assert (seen[0].number, seen[1].attempt.number) == (1, 1)
    assert (seen[0].waited, seen[1].attempt.waited) == (0, 0)


# What changes between the call and its await


@LOOPS
def test_what_happens_between_the_call_and_its_await_counts(loop: str) -> None:
    """A circuit opened in between rejects: the coroutine made already is closed, not awaited."""
    breaker = CircuitBreaker()
    asked: list[str] = []

    async def ask(text: str) -> None:
        asked.append(text)

    fn = Pipeline(breaker).wrap(lambda text: ask(text))

    async def main() -> None:
        answer = fn("first")
        breaker.open()
        with pytest.raises(CircuitOpenError):
            await answer
        breaker.close()
        await fn("second")

    run_in(loop, main)
    assert asked == ["second"]


@pytest.mark.parametrize("coroutine", [False, True])
@pytest.mark.parametrize("chained", [False, True])
def test_an_awaitable_is_still_used_when_a_circuit_is_busy_meanwhile(
    chained: bool, coroutine: bool
) -> None:
    """With the arguments that it was made with, overrides of a model included."""
    breaker = CircuitBreaker(failures=5)
    calls: list[Any] = []

    async def answer() -> str:
        return "answer"

    def fetch(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return answer() if coroutine else Later("answer")

    chain = [ModelFallback(Model("a", options={"x": 1}), "b")] if chained else []
    fn = Pipeline(*chain, breaker).wrap(fetch)

    async def main() -> Any:
        begun = fn(1, options={"y": 2})
        with pytest.raises(ConnectionError):
            await Pipeline(breaker).call(Later, ConnectionError())
        return await begun

    assert asyncio.run(main()) == "answer"
    options = {"options": {"y": 2, "x": 1}, "model": "a"} if chained else {"options": {"y": 2}}
    assert calls == [((1,), options)]


class Numbered(Policy):
    """A policy of a user's own: each attempt is given a number of its own."""

    def __init__(self, *, kept: bool) -> None:
        self.given = 0
        self.kept = kept

    def next(self) -> int:
        self.given += 1
        return self.given

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def numbered(call: Call) -> Any:
            number = call.journal.remember(self, self.next) if self.kept else self.next()
            return await inner(call.replace(args=(number,)))

        return numbered


class Promise:
    """An awaitable that can be neither closed nor cancelled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __await__(self) -> Any:
        yield from ()
        return self.number


async def _promised(number: int) -> int:
    return number


def _future(number: int) -> asyncio.Future[int]:
    made: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    made.set_result(number) if number > 1 else None
    return made


@pytest.mark.parametrize(
    ("make", "ended"),
    [
        (_promised, lambda made: inspect.getcoroutinestate(made) == inspect.CORO_CLOSED),
        (_future, lambda made: made.cancelled()),
        (Promise, lambda made: made.number == 1),
    ],
    ids=["coroutine", "future", "awaitable"],
)
def test_an_awaitable_serves_only_the_arguments_it_was_made_with(make: Any, ended: Any) -> None:
    """Where a policy changes them, the function is called again, and the first result is ended."""
    made: list[Any] = []

    def ask(number: int) -> Any:
        made.append(make(number))
        return made[-1]

    async def main() -> Any:
        return await Pipeline(Numbered(kept=False)).call(ask)  # type: ignore[call-arg]

    assert asyncio.run(main()) == 2
    assert len(made) == 2
    assert ended(made[0])


def test_what_a_policy_remembers_of_the_call_outlives_the_hand_over() -> None:
    """A number that is made once for the call: the awaitable serves, and is not made again."""
    made: list[int] = []

    def ask(number: int) -> Any:
        made.append(number)
        return _promised(number)

    async def main() -> Any:
        return await Pipeline(Numbered(kept=True), Retry()).call(ask)  # type: ignore[call-arg]

    assert asyncio.run(main()) == 1
    assert made == [1]


def test_an_awaitable_serves_only_the_model_it_was_asked_for() -> None:
    """If the chain goes another way in async mode, the answer is not passed off as another's."""
    breaker = CircuitBreaker(key="model", failures=1)

    async def ask(model: str) -> str:
        return f"answer of {model}"

    def create(model: str) -> Any:
        return ask(model)

    fn: Any = Pipeline(Busy(), ModelFallback("a", "b"), breaker).wrap(create)
    with virtual_time():
        awaitable = fn()
        breaker.circuit("a").isolate()
        assert asyncio.run(awaited(lambda: awaitable)) == "answer of b"


def test_another_models_awaitable_in_a_sync_call_is_refused() -> None:
    """It could not be awaited there; the message says what to do, and it is closed."""
    begun: list[Any] = []

    async def ask(**kwargs: Any) -> None: ...

    def ask_(**kwargs: Any) -> Any:
        begun.append(ask())
        return begun[-1]

    def fails(**kwargs: Any) -> None:
        raise ConnectionError

    fn = Pipeline(ModelFallback("a", Model("b", call=ask_))).wrap(fails)
    assert message_of(TypeError, fn) == (
        "Model(call=...) returned an awaitable in a sync call; give it a sync function, or say "
        "asynchronous=True if the guarded one is async"
    )
    assert inspect.getcoroutinestate(begun[0]) == inspect.CORO_CLOSED


# Permits and deadlines


@pytest.mark.parametrize("first", [[], [Busy()]], ids=["rest", "full"])
def test_an_awaitable_that_nobody_awaits_holds_nothing(first: Any) -> None:
    """Neither a permit nor a place; it is closed without a warning of ours."""
    bulkhead = Bulkhead(1)

    def create() -> Any:
        return _promised(1)

    async def main() -> None:
        begun: Any = Pipeline(*first, bulkhead).wrap(create)()
        assert bulkhead.slots.free == 1
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            del begun
            gc.collect()
        # Python's own, of the guarded call that was not awaited; none of the function's coroutine.
        assert not [each for each in warned if "_promised" in str(each.message)]

    asyncio.run(main())
    assert bulkhead.slots.free == 1


def test_a_trials_slot_is_given_back_at_a_hand_over() -> None:
    """Between the hand-over and the await it is free; an awaitable that is not used is closed."""
    breaker = CircuitBreaker(failures=1, reset_after=1)

    async def answer() -> str:
        return "ok"

    made: list[Any] = []

    def make() -> Any:
        made.append(answer())
        return made[-1]

    async def trial() -> None:
        with pytest.raises(CircuitOpenError):
            await awaitable
        assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED

    fn: Any = Pipeline(breaker).wrap(make)
    with virtual_time() as clock:
        breaker.open()
        clock.advance(2)
        awaitable = fn()
        assert (breaker.state, breaker.snapshot().trials) == ("half-open", 0)
        asyncio.run(awaited(Pipeline(breaker).wrap(trial)))
    assert breaker.state == "closed"


def test_a_function_not_yet_known_is_called_where_the_loop_runs() -> None:
    """It may need the running loop; a Timeout must not move it to a worker thread."""

    async def main() -> str:
        def start() -> Any:
            return asyncio.get_running_loop().create_task(answer())

        async def answer() -> str:
            return "ok"

        fn: Any = Pipeline(Timeout(5)).wrap(start)
        return str(await fn())

    assert asyncio.run(main()) == "ok"


def test_the_deadline_begins_when_the_awaitable_is_awaited() -> None:
    """Whatever time has passed since the call."""
    with virtual_time() as clock:

        async def main() -> Any:
            begun: Any = Pipeline(Timeout(5)).wrap(lambda: slow())()
            clock.advance(60)
            return await begun

        async def slow() -> str:
            await clock.asleep(4)
            return "ok"

        assert asyncio.run(main()) == "ok"


# Abandoned


class Turn:
    """Suspends whoever awaits it, without a loop."""

    def __await__(self) -> Any:
        yield


def test_an_abandoned_call_may_be_closed_in_another_context() -> None:
    """As a loop's end or the collector does: no error, and the trial's slot is given back."""
    breaker = CircuitBreaker(reset_after=1e-9)
    breaker.open()

    async def hang() -> None:
        await Turn()

    call: Any = Pipeline(breaker).call(hang)
    contextvars.copy_context().run(call.send, None)
    assert (breaker.state, breaker.snapshot().trials) == ("half-open", 1)
    call.close()
    assert breaker.snapshot().trials == 0
