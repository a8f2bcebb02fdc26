"""Exhaustion and blame: what a guarded call further in has done about an error, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

from conftest import Takes, World
from resilience import CircuitBreaker, Pipeline, Retry, history, resilient
from resilience._core.context import get_ambient
from resilience._core.history import _mark_of
from resilience._runtimes.asyncio_ import Asyncio
from resilience._runtimes.threads import Threads
from resilience._runtimes.trio_ import Trio
from resilience.policy import Call, Inner, Policy, Runtime
from resilience.testing import script, virtual_time
from support.calling import error_of, passing, rest_and_full, run_in
from support.policies import Busy

WORLDS = pytest.mark.parametrize("loop", ["sync", "asyncio", "trio"])


def raiser(error: Exception, loop: str) -> Any:
    """A function that raises this one object, and counts its calls."""

    def fails(*args: Any, **kwargs: Any) -> None:
        fails.calls += 1  # type: ignore[attr-defined]
        raise error

    async def afails(*args: Any, **kwargs: Any) -> None:
        afails.calls += 1  # type: ignore[attr-defined]
        raise error

    found: Any = fails if loop == "sync" else afails
    found.calls = 0
    return found


def run(loop: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Exception:
    """The error of a call in real time."""

    async def main() -> None:
        await fn(*args, **kwargs)

    with pytest.raises(Exception) as caught:  # noqa: PT011
        fn(*args, **kwargs) if loop == "sync" else run_in(loop, main)
    return caught.value


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """All clocks stand still: everything happens within one tick."""
    for name, module in list(sys.modules.items()):
        if name.startswith("resilience.") and hasattr(module, "monotonic"):
            monkeypatch.setattr(module, "monotonic", lambda: 7.0)
    for runtime in (Threads, Asyncio, Trio):
        monkeypatch.setattr(runtime, "now", staticmethod(lambda: 7.0))


@pytest.fixture
def _switching() -> Any:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def crowd(*functions: Callable[[], Any], times: int, threads: int) -> None:
    """Call each of them so many times in each of so many threads; what they raise is dropped."""

    def many(fn: Callable[[], Any]) -> None:
        for _ in range(times):
            try:
                fn()
            except ConnectionError:
                continue

    started = [threading.Thread(target=many, args=(fn,)) for fn in functions * threads]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


# Exhaustion


@pytest.mark.fault(82)
@WORLDS
@pytest.mark.parametrize("task", [False, True], ids=["call", "task"])
@pytest.mark.parametrize("full", [[], [Busy()]], ids=["rest", "full"])
def test_what_an_inner_retry_has_given_up_on_is_not_tried_again(
    loop: str, task: bool, full: Any
) -> None:
    """Also where it is called by the user's own code, from a task of its own too, at any time."""
    if task and loop != "asyncio":
        return
    body = raiser(ConnectionError("mine"), loop)
    inner = Pipeline(Retry(attempts=2, wait=0)).wrap(body)

    def call() -> Any:
        return inner()

    async def acall() -> Any:
        return await (asyncio.ensure_future(inner()) if task else inner())

    outer = Pipeline(*full, Retry(attempts=5, wait=0)).wrap(call if loop == "sync" else acall)
    made = []
    for _ in range(3):
        before = body.calls
        run(loop, outer)
        made.append(body.calls - before)
    assert made == [2, 2, 2]


@pytest.mark.parametrize("full", [[], [Busy()]], ids=["rest", "full"])
@WORLDS
def test_an_error_raised_from_an_exhausted_one_is_exhausted(loop: str, full: Any) -> None:
    """A function that tells it in its own words does not have it repeated."""
    body = raiser(ConnectionError("theirs"), loop)
    inner = Pipeline(Retry(attempts=3, wait=0)).wrap(body)

    def call() -> None:
        try:
            inner()
        except ConnectionError as error:
            raise TimeoutError("mine") from error

    async def acall() -> None:
        try:
            await inner()
        except ConnectionError as error:
            raise TimeoutError("mine") from error

    outer = Pipeline(*full, Retry(attempts=5, wait=0)).wrap(call if loop == "sync" else acall)
    for times in (1, 2):
        error = run(loop, outer)
        assert type(error) is TimeoutError
        assert body.calls == 3 * times
        assert len(history(error)) == 1


def test_an_error_of_ones_own_after_an_exhausted_one_is_retried(world: World) -> None:
    """One that is not raised from it, as of an attempt at something else, is not exhausted."""
    inner = Pipeline(Retry(attempts=3, wait=0)).wrap(world.function(ConnectionError("theirs")))

    def call() -> None:
        try:
            inner()
        except ConnectionError:
            pass
        raise TimeoutError("mine")

    async def acall() -> None:
        try:
            await inner()
        except ConnectionError:
            pass
        raise TimeoutError("mine")

    outer = Pipeline(Retry(attempts=2, wait=0)).wrap(acall if world.asynchronous else call)
    error_of(world, outer)
    assert len(world.calls) == 6


@rest_and_full
def test_another_function_that_raises_an_exhausted_object_is_retried(listeners: Any) -> None:
    """Its history is of another call, which this one has nothing to do with."""
    error = ConnectionError("mine")
    pipeline = Pipeline(Retry(attempts=3, wait=0), listeners=listeners)
    for _ in range(2):
        for fn in (script(error), script(error)):
            with pytest.raises(ConnectionError):
                pipeline.wrap(fn)()
            assert len(fn.calls) == 3  # type: ignore[attr-defined]


# Blame


@pytest.mark.fault(83)
@rest_and_full
def test_a_failure_that_comes_up_through_a_recursion_counts_once(listeners: Any) -> None:
    """One failure to the circuit, however deep it was."""
    breaker = CircuitBreaker(failures=9)

    @resilient(breaker, listeners=listeners)
    def down(left: int) -> int:
        if left == 0:
            raise ConnectionError
        return down(left - 1)

    for times in (1, 2, 3):
        with pytest.raises(ConnectionError):
            down(3)
        assert breaker.snapshot().failures == times


@pytest.mark.fault(83)
@rest_and_full
def test_a_recursion_that_reports_its_failure_elsewhere(listeners: Any) -> None:
    """The call of something else that fails, too, does not hide where the error came up."""
    breaker = CircuitBreaker(failures=9)
    report = Pipeline(Retry(attempts=1)).wrap(script(OSError()))

    @resilient(breaker, listeners=listeners)
    def down(left: int) -> int:
        if left == 0:
            raise ConnectionError
        try:
            return down(left - 1)
        except ConnectionError:
            with contextlib.suppress(OSError):
                report()
            raise

    with pytest.raises(ConnectionError):
        down(3)
    assert breaker.snapshot().failures == 1


def elsewhere(fn: Callable[..., Any], *args: Any) -> Any:
    """Call it in a context of its own, as another thread does."""
    return contextvars.Context().run(fn, *args)


@pytest.mark.parametrize("anew", [False, True])
def test_one_error_object_in_two_contexts_counts_twice(anew: bool) -> None:
    """It was marked by a call of the same function, perhaps guarded once more, but came up through
    none inside this one."""
    breaker, same = CircuitBreaker(failures=9), ConnectionError()
    pipeline = Pipeline(breaker)

    def fail(first: bool) -> None:
        if first:
            with pytest.raises(ConnectionError):
                elsewhere(pipeline.wrap(fail) if anew else guarded, False)
        raise same.with_traceback(None)

    guarded = pipeline.wrap(fail)
    with pytest.raises(ConnectionError):
        guarded(True)
    assert breaker.snapshot().failures == 2


def test_caller_and_callee_in_two_contexts_count_once() -> None:
    """Functions of one pipeline, too: the error came out of another one."""
    breaker = CircuitBreaker(failures=9)
    pipeline = Pipeline(breaker)
    inner = pipeline.wrap(script(ConnectionError()))

    with pytest.raises(ConnectionError):
        pipeline.wrap(lambda: elsewhere(inner))()
    assert breaker.snapshot().failures == 1


def test_another_contexts_mark_does_not_hide_what_was_counted_inside() -> None:
    """The object that the callee has raised fails a stranger's call, too."""
    same = ConnectionError("shared")
    breaker = CircuitBreaker(failures=9)
    inner = Pipeline(breaker).wrap(script(same))
    stranger = Pipeline(CircuitBreaker(failures=9)).wrap(script(same))

    def calls() -> None:
        try:
            inner()
        except ConnectionError:
            with contextlib.suppress(ConnectionError):
                elsewhere(stranger)
            raise

    with pytest.raises(ConnectionError):
        Pipeline(breaker).wrap(calls)()
    assert breaker.snapshot().failures == 1


@pytest.mark.parametrize("where", [lambda fn: fn(), elsewhere], ids=["here", "elsewhere"])
def test_what_is_reported_in_the_first_attempt_says_nothing_of_the_second(where: Any) -> None:
    """That one fails with the same object by itself, and counts."""
    same = ConnectionError("shared")
    breaker = CircuitBreaker(failures=9)
    inner = Pipeline(breaker).wrap(script(same))
    made: list[None] = []

    def calls() -> None:
        made.append(None)
        if len(made) == 1:
            where(inner)
        raise same

    with pytest.raises(ConnectionError):
        Pipeline(Retry(attempts=2, wait=0), breaker).wrap(calls)()
    assert len(made) == 2
    assert breaker.snapshot().failures == 2


@pytest.mark.fault(83)
@pytest.mark.real
@rest_and_full
def test_one_error_object_in_two_threads_counts_twice(listeners: Any) -> None:
    """It was marked by a call of the same function, but came up through none inside this one."""
    breaker, same = CircuitBreaker(failures=9), ConnectionError()

    @resilient(breaker, listeners=listeners)
    def fail(first: bool) -> None:
        if first:
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(fail, first=False).exception() is same
        raise same.with_traceback(None)

    with pytest.raises(ConnectionError):
        fail(first=True)
    assert breaker.snapshot().failures == 2


@pytest.mark.fault(84)
def test_a_breaker_inside_itself(world: World) -> None:
    """One circuit twice on the way, with one slot: one trial, which closes it."""
    breaker = CircuitBreaker()
    breaker.open()
    world.clock.advance(60)
    outcome = world.run(Pipeline(breaker, breaker).outcome, world.function("ok"))

    assert outcome.value == "ok"
    assert breaker.state == "closed"


@pytest.mark.fault(84)
def test_a_circuit_twice_on_the_way_counts_once(world: World) -> None:
    """An error that it has counted further in is not counted again."""
    breaker = CircuitBreaker(failures=2)
    fn = Pipeline(breaker, breaker).wrap(world.function(ConnectionError()))
    error_of(world, fn)
    assert breaker.state == "closed"
    error_of(world, fn)
    assert breaker.state == "open"


@WORLDS
def test_caller_and_callee_under_one_breaker_count_once(loop: str) -> None:
    """At rest and then in full, where the error is one object all the time."""
    breaker = CircuitBreaker(failures=99)
    inner = Pipeline(breaker).wrap(raiser(ConnectionError("mine"), loop))

    def call() -> Any:
        return inner()

    async def acall() -> Any:
        return await inner()

    outer = Pipeline(breaker).wrap(call if loop == "sync" else acall)
    for times in range(1, 6):
        run(loop, outer)
        assert breaker.snapshot().failures == times


# One exception object


@pytest.mark.fault(202)
@WORLDS
@rest_and_full
@pytest.mark.usefixtures("frozen")
def test_one_object_raised_for_ever_counts_and_is_retried_each_time(
    loop: str, listeners: Any
) -> None:
    """In one tick of a clock that stands still: what is known of it goes by calls, not by time."""
    error = ConnectionError("mine")
    breaker = CircuitBreaker(failures=99)
    counted = Pipeline(breaker, listeners=listeners).wrap(raiser(error, loop))
    for times in range(1, 6):
        run(loop, counted)
        assert breaker.snapshot().failures == times

    body = raiser(error, loop)
    retried = Pipeline(Retry(attempts=3, wait=0), listeners=listeners).wrap(body)
    for times in range(1, 4):
        assert len(history(run(loop, retried))) == 3
        assert body.calls == 3 * times
        run(loop, counted)
    assert breaker.snapshot().failures == 8


@pytest.mark.fault(202)
@WORLDS
@pytest.mark.usefixtures("frozen")
def test_one_object_through_caller_and_callee_in_one_tick(loop: str) -> None:
    """The inner Retry is exhausted each time, the outer one never repeats it."""
    body = raiser(ConnectionError("mine"), loop)
    inner = Pipeline(Retry(attempts=2, wait=0)).wrap(body)

    def call() -> Any:
        return inner()

    async def acall() -> Any:
        return await inner()

    outer = Pipeline(Retry(attempts=5, wait=0)).wrap(call if loop == "sync" else acall)
    for times in range(1, 5):
        run(loop, outer)
        assert body.calls == 2 * times
        run(loop, inner)
        body.calls -= 2


@pytest.mark.fault(202)
def test_one_tick_of_virtual_time(world: World) -> None:
    """What an inner Retry has given up on within the tick is not tried again."""
    inner = Pipeline(Retry(attempts=2, wait=0)).wrap(world.function(Takes(0, ConnectionError())))
    error_of(world, Pipeline(Retry(attempts=5, wait=0)).call, passing(world, inner))
    assert len(world.calls) == 2


@pytest.mark.fault(202)
def test_one_object_in_many_tasks_counts_in_each() -> None:
    """Twenty calls under way together, which raise the same object three times each."""
    same = ConnectionError("shared")
    attempts: dict[int, int] = {}

    async def fail(number: int) -> None:
        attempts[number] = attempts.get(number, 0) + 1
        await asyncio.sleep(0)
        raise same

    breaker = CircuitBreaker(failures=10**6)
    fn = Pipeline(Retry(attempts=3, wait=0), breaker).wrap(fail)

    async def main() -> None:
        await asyncio.gather(*(fn(n) for n in range(20)), return_exceptions=True)

    asyncio.run(main())
    assert set(attempts.values()) == {3}
    assert breaker.snapshot().failures == 60


@pytest.mark.fault(202)
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@rest_and_full
def test_one_object_in_a_call_that_another_has_overtaken_counts(loop: str, listeners: Any) -> None:
    """A call that began at rest before the other one, and raises the object after it: what the
    other has made of it is not from further in."""
    same = ConnectionError("shared")
    breaker = CircuitBreaker(failures=99)
    calls: list[int] = []

    async def fails(number: int) -> None:
        calls.append(number)
        if number == 0 and calls.count(0) == 1:
            await until(lambda: overtaken)
        raise same

    async def until(done: Callable[[], Any]) -> None:
        while not done():
            await (trio.lowlevel.checkpoint() if loop == "trio" else asyncio.sleep(0))

    overtaken: list[bool] = []
    fn: Any = Pipeline(Retry(attempts=3, wait=0), breaker, listeners=listeners).wrap(fails)

    async def slow() -> None:
        with pytest.raises(ConnectionError):
            await fn(0)

    async def fast() -> None:
        await until(lambda: calls)
        with pytest.raises(ConnectionError):
            await fn(1)
        overtaken.append(True)

    async def main() -> None:
        if loop == "asyncio":
            await asyncio.gather(slow(), fast())
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow)
            nursery.start_soon(fast)

    run_in(loop, main)
    assert calls == [0, 1, 1, 1, 0, 0]
    assert breaker.snapshot().failures == 6


def test_a_function_that_calls_guarded_ones_is_never_at_rest_again() -> None:
    """Once that is known by an error: from then on it is told by reports, not by the error."""
    inner = Pipeline(Retry(attempts=2, wait=0)).wrap(script("ok", ConnectionError, "ok"))
    rested: list[bool] = []

    def call() -> None:
        rested.append(get_ambient() is None)
        inner()
        if len(rested) == 2:
            raise TimeoutError("mine")

    failing = script(ConnectionError)
    nested = Pipeline(Retry(attempts=2, wait=0)).wrap(failing)
    outer = Pipeline(Retry(attempts=1)).wrap(call)
    outer()
    with pytest.raises(TimeoutError):
        outer()
    outer()
    assert rested == [True, True, True]

    def call_nested() -> None:
        rested.append(get_ambient() is None)
        nested()

    other = Pipeline(Retry(attempts=1)).wrap(call_nested)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            other()
    assert rested[3:] == [True, False, False]


@pytest.mark.fault(202)
@pytest.mark.real
@pytest.mark.usefixtures("_switching")
@rest_and_full
def test_one_object_in_many_threads_counts_in_each(listeners: Any) -> None:
    """One guarded function in eight threads: every call has its attempts and its failures."""
    same = ConnectionError("shared")
    made: list[None] = []

    def fails() -> None:
        made.append(None)
        raise same

    breaker = CircuitBreaker(failures=10**9)
    fn = Pipeline(Retry(attempts=2, wait=0), breaker, listeners=listeners).wrap(fails)
    crowd(fn, times=100, threads=8)
    assert len(made) == 1_600
    assert breaker.snapshot().failures == 1_600


@pytest.mark.fault(202)
@pytest.mark.real
def test_another_threads_mark_does_not_hide_what_was_counted_inside() -> None:
    """The object that the callee has raised fails a stranger's call before the caller, which is at
    rest, sees it again."""
    same = ConnectionError("shared")
    breaker = CircuitBreaker(failures=10)
    inner = Pipeline(breaker).wrap(script(same))
    stranger = Pipeline(CircuitBreaker(failures=10)).wrap(script(same))

    def calls() -> None:
        try:
            inner()
        except ConnectionError:
            crowd(stranger, times=1, threads=1)
            raise

    with pytest.raises(ConnectionError):
        Pipeline(breaker).wrap(calls)()
    assert breaker.snapshot().failures == 1


@pytest.mark.fault(202)
@pytest.mark.real
@pytest.mark.usefixtures("_switching")
def test_caller_and_callee_in_many_threads_count_once_for_each_call() -> None:
    """Though all of them raise the same object through the same breaker: never twice, and hardly
    ever not at all: for calls under way at rest when the first error comes, see the next test.
    """
    same = ConnectionError("shared")
    breaker = CircuitBreaker(failures=10**9)
    inner = Pipeline(breaker).wrap(script(same))
    outer = Pipeline(breaker).wrap(lambda: inner())
    crowd(outer, times=150, threads=8)
    assert 1_200 - 8 <= breaker.snapshot().failures <= 1_200


@pytest.mark.fault(202)
@pytest.mark.real
@pytest.mark.usefixtures("_switching")
def test_functions_that_share_an_object_are_mistaken_once_at_most() -> None:
    """In one thread each, one calls a guarded function and the other does not.

    Calls that are under way at rest when the first error comes may each take it for one of a call
    inside; after that their function is never at rest again, and no call is misjudged.
    """
    same = ConnectionError("shared")
    nested, alone = script(same), script(same)
    inner = Pipeline(Retry(attempts=3, wait=0)).wrap(nested)
    outer = Pipeline(Retry(attempts=3, wait=0)).wrap(lambda: inner())
    other = Pipeline(Retry(attempts=3, wait=0)).wrap(alone)
    crowd(outer, other, times=200, threads=3)
    assert abs(len(nested.calls) - 1_800) <= 3 * 6  # type: ignore[attr-defined]
    assert abs(len(alone.calls) - 1_800) <= 2 * 3  # type: ignore[attr-defined]


@pytest.mark.fault(203)
def test_a_long_lived_object_keeps_one_mark(world: World) -> None:
    """Of the last call only: no list grows with the calls, circuits or pipelines that it passed."""
    error = ConnectionError("shared")
    breaker = CircuitBreaker(failures=10**9, key="k", keep=10)

    def fails(k: int) -> None:
        raise error

    async def afails(k: int) -> None:
        raise error

    fn = Pipeline(breaker).wrap(afails if world.asynchronous else fails)
    error_of(world, fn, 0)
    marks = vars(error).keys()
    first = weakref.ref(breaker.circuit(0))
    for k in range(1, 60):
        error_of(world, fn, k)
    mark: Any = _mark_of(error)

    assert vars(error).keys() == marks == {"__resilience__"}
    assert [circuit.key for circuit in mark.circuits] == [59]
    assert len(history(error)) == 1
    error.__traceback__ = None  # Python's own, which grows whenever an object is raised again
    gc.collect()
    assert first() is None


# What policies are told


class Listening(Policy):
    """Keeps what was reported of the errors that pass, since the call went inward."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, int]] = []

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def listening(call: Call) -> Any:
            since = call.branch.number
            try:
                return await inner(call)
            except Exception as error:
                found = call.reported(since, error)
                self.seen.append(
                    (any(r.exhausted for r in found), sum(len(r.circuits) for r in found))
                )
                raise

        return listening


def test_a_report_is_of_one_error_since_the_call_went_inward(world: World) -> None:
    """What the innermost policies did about an earlier attempt's error is not this one's."""
    outer, inner = Listening(), Listening()
    breaker = CircuitBreaker(failures=99)
    policies = outer, Retry(attempts=3, wait=0), inner, Retry(attempts=1), breaker
    with pytest.warns(UserWarning, match="two Retry"):
        pipeline = Pipeline(*policies)
    error_of(world, pipeline.wrap(world.function(ConnectionError, ConnectionError)))

    assert inner.seen == [(False, 1)] * 3
    assert outer.seen == [(True, 1)]


def test_a_stop_iteration_is_reported_as_itself() -> None:
    """Though it travels through the chain in a carrier."""
    listening = Listening()
    stop = StopIteration("mine")
    pipeline = Pipeline(listening, Retry(attempts=2, wait=0, on=StopIteration))
    with virtual_time(), pytest.raises(StopIteration) as caught:
        pipeline.call(script(stop))
    assert caught.value is stop
    assert listening.seen == [(True, 0)]
