"""The pipeline's core in detail: blocks, outcomes, the driver, results, what is looked up."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import types
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from openai import omit
from openai.lib.streaming.chat import AsyncChatCompletionStreamManager

from conftest import World
from resilience import (
    Attempt,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    FailureRate,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    current_attempt,
    served_by,
)
from resilience._core import results
from resilience._core import world as clocks
from resilience._core.around import around
from resilience._core.driver import drive
from resilience._core.record import Record
from resilience._core.rest import Epochs, Rest, epochs
from resilience._core.results import PLAIN, Unguardable, check, is_awaitable
from resilience._core.scope import Scope, live
from resilience.testing import disabled, virtual_time

# Blocks


def test_a_block_is_for_one_loop() -> None:
    """A second loop over the same attempts is refused, sync or async, finished or not."""
    attempts = Pipeline(Retry()).attempts()
    iter(attempts)
    with pytest.raises(RuntimeError) as caught:
        aiter(attempts)
    assert str(caught.value) == "attempts() is for one loop; call it again for another"


def test_a_sync_block_in_a_loop_is_sync() -> None:
    """A `for` loop waits in its thread although an event loop runs there."""
    numbers: list[int] = []

    async def main() -> None:
        for attempt in Pipeline(Retry(attempts=3, wait=5)).attempts():
            with attempt:
                numbers.append(attempt.number)
                if attempt.number < 3:
                    raise ConnectionError

    with virtual_time() as clock:
        asyncio.run(main())
        assert clock.sleeps == [5, 5]
    assert numbers == [1, 2, 3]


def test_a_refused_block_ends_the_loop() -> None:
    """What refuses raises at `with`; the loop is over then."""
    breaker = CircuitBreaker(failures=1)
    breaker.open()
    attempts = Pipeline(breaker).attempts()
    block = next(iter(attempts))
    with pytest.raises(CircuitOpenError), block:
        raise AssertionError("not admitted")
    with pytest.raises(StopIteration):
        next(attempts)


# Ctrl-C and clocks


class Interrupting:
    """The context variable, with Ctrl-C heard right after a call's record was set."""

    get = around.get
    reset = around.reset

    @staticmethod
    def set(value: Any) -> Any:
        token = around.set(value)
        if isinstance(value, Record):
            raise KeyboardInterrupt
        return token


def test_fault_008_ctrl_c_before_a_call_has_begun_leaves_nothing_around(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread is outside any call again, so its next one may be at rest."""
    pipeline = Pipeline(CircuitBreaker())
    with virtual_time():
        before = around.get()
        with monkeypatch.context() as patch:
            patch.setattr("resilience._core.pipeline.around", Interrupting)
            with pytest.raises(KeyboardInterrupt):
                pipeline.call(int)
        assert around.get() is before


def test_fault_035_a_clock_frozen_for_a_test_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freezing replaces the function in every module, but half a call must not go by it."""
    real = time.monotonic
    breaker = CircuitBreaker(failures=1, reset_after=60)
    with monkeypatch.context() as patch:
        for module in [m for m in list(sys.modules.values()) if isinstance(m, types.ModuleType)]:
            for name in [n for n, value in vars(module).items() if value is real]:
                patch.setattr(module, name, lambda: 1e9)
        with pytest.raises(ConnectionError):
            Pipeline(breaker).call(_refused_connection)
        assert 0 < (breaker.snapshot().retry_after or 0) <= 60
    assert 0 < (breaker.snapshot().retry_after or 0) <= 60


def _refused_connection() -> None:
    raise ConnectionError


# Outcomes


def test_an_outcome_of_a_single_call(world: World) -> None:
    """`Pipeline.outcome` takes arguments by place and by name, as `call` does."""
    outcome = world.run(Pipeline(Retry()).outcome, world.function("ok"), 1, size=2)

    assert outcome.value == "ok"
    assert outcome.error is None
    assert world.calls == [((1,), {"size": 2})]


def test_an_outcome_tells_the_model_only_of_a_success(world: World) -> None:
    """`served_by` is None where the call failed, and where a fallback's value came out."""
    chain = ModelFallback("a", "b")
    good = world.run(Pipeline(chain).outcome, world.function(ConnectionError(), "ok"))
    bad = world.run(Pipeline(chain).outcome, world.function(ConnectionError()))
    spare = world.run(Pipeline(Fallback(1), chain).outcome, world.function(ConnectionError()))

    assert (good.served_by, good.degraded) == ("b", True)
    assert (bad.served_by, type(bad.error)) == (None, ConnectionError)
    assert (spare.served_by, spare.value, spare.degraded) == (None, 1, True)


# The driver


def test_a_policy_that_waits_by_itself_is_named() -> None:
    """In a sync call nothing may suspend; the error names the innermost policy that did."""

    class Waiting:
        def bind(self, call: Callable[..., Any], runtime: Any) -> Callable[..., Any]:
            async def waits(*args: Any, **kwargs: Any) -> Any:
                await asyncio.sleep(0)

            return waits

    with pytest.raises(RuntimeError) as caught:
        Pipeline(Retry(), Waiting()).call(print)
    assert ".Waiting.bind.<locals>.waits waited for an event loop in a sync call" in str(
        caught.value
    )


def test_a_coroutine_that_waits_is_named() -> None:
    """Without a policy in sight, it is the coroutine itself that is named."""

    class Nameless:
        def __init__(self, *steps: None) -> None:
            self.steps = steps

        def __await__(self) -> Any:
            return iter(self.steps)

    async def waits() -> None:
        await Nameless(None)

    with pytest.raises(RuntimeError) as caught:
        drive(waits())
    assert str(caught.value).startswith(f"{waits.__qualname__} waited for an event loop")


# Being at rest


def test_an_epoch_follows_the_other() -> None:
    """Each change of a circuit begins the next epoch."""
    before = epochs.now

    assert epochs.advance() == before + 1
    assert epochs.now == before + 1

    fresh = Epochs()
    assert fresh.now == 0
    assert [fresh.advance(), fresh.advance()] == [1, 2]


def test_rest_comes_back_when_all_have_settled() -> None:
    """Not before the last one that stirs has settled; then as a new stretch of rest."""
    rest = Rest([SimpleNamespace(rests=True)])
    first, second = object(), object()
    token = rest.token
    assert token is not None

    rest.stir(first)
    rest.stir(second)
    assert rest.token is None
    rest.settle(first)
    assert rest.token is None
    rest.settle(second)
    assert rest.token is not None
    assert rest.token is not token


CHAIN, WINDOW = ModelFallback("a", "b"), CircuitBreaker(trip=FailureRate(0.5))


@pytest.mark.parametrize(
    ("policies", "rests"),
    [
        ([], True),
        ([Retry(), CHAIN, WINDOW], True),
        ([CHAIN, Retry(), CHAIN], False),
        ([CHAIN, CHAIN, WINDOW], False),
        ([WINDOW, WINDOW], False),
        ([WINDOW, Timeout(9)], False),
        ([SimpleNamespace()], False),
    ],
)
def test_who_can_be_at_rest(policies: list[Any], rests: bool) -> None:
    """One chain and one window are served there, no more; who says nothing of it is not."""
    assert (Rest(policies).token is not None) is rests


# Results


def test_a_refused_result_leaves_no_request_unawaited() -> None:
    """An unsent request inside what is refused is closed; nothing else in it is touched."""

    async def request() -> None: ...

    class Stream:
        def __init__(self) -> None:
            self.request = request()
            self.other = SimpleNamespace(close=lambda: pytest.fail("closed"))

    def lines() -> Any:
        yield

    async def later_lines() -> Any:
        yield

    stream = Stream()
    check(stream)
    assert stream.request.cr_frame is not None
    stream.request.close()
    with pytest.raises(Unguardable, match=r"^the guarded function returned a generator, whose"):
        check(lines())
    with pytest.raises(Unguardable, match=r"^the guarded function returned an async generator, "):
        check(later_lines())


def test_awaitables_are_told_by_their_type() -> None:
    """Anything with `__await__`, and coroutines of the old kind; plain generators are not."""

    @types.coroutine
    def old() -> Any:
        yield

    def plain() -> Any:
        yield

    class Later:
        def __await__(self) -> Any:
            yield

    for _ in range(2):
        assert is_awaitable(Later())
        assert is_awaitable(old())
        assert not is_awaitable(plain())
        assert not is_awaitable(SimpleNamespace())
    assert SimpleNamespace in PLAIN


def test_so_many_types_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer for another one is worked out each time."""

    class First: ...

    class Second: ...

    monkeypatch.setattr(results, "_BOUND", len(PLAIN) + 1)
    assert not is_awaitable(First())
    assert not is_awaitable(Second())
    assert First in PLAIN
    assert Second not in PLAIN


# Clocks


def test_outside_of_virtual_time_the_clocks_are_real() -> None:
    """Seconds that pass, the date, and chance; inside a call as well."""

    def look() -> tuple[float, float, float]:
        return clocks.now(), clocks.wall(), clocks.chance()

    for now, wall, chance in (look(), Pipeline(Retry(on_result=lambda x: False)).call(look)):
        assert abs(now - time.monotonic()) < 60
        assert abs(wall - time.time()) < 60
        assert 0 <= chance < 1
    assert len({clocks.chance() for _ in range(9)}) > 1


def test_inside_virtual_time_they_are_virtual() -> None:
    """In a call and outside of one."""
    with virtual_time(start=5.0, wall=7.0) as clock:
        clock.random = lambda: 0.5  # type: ignore[method-assign]
        look = Pipeline(Retry()).wrap(lambda: (clocks.now(), clocks.wall(), clocks.chance()))
        assert look() == (5.0, 7.0, 0.5)
        assert (clocks.now(), clocks.wall(), clocks.chance()) == (5.0, 7.0, 0.5)


# Looked up from inside


def test_outside_of_a_call_it_is_the_first_attempt() -> None:
    """Also in virtual time, where no call is under way."""
    assert current_attempt() == Attempt(number=1)
    with virtual_time():
        assert current_attempt() == Attempt(number=1)


def test_inside_a_limit_it_is_the_attempt_under_way(world: World) -> None:
    """With its number, model and wait."""
    seen: list[Any] = []

    def look(*args: Any, **kwargs: Any) -> Any:
        seen.append((current_attempt().number, current_attempt().waited, served_by()))
        raise ConnectionError

    policies = Timeout(99), ModelFallback("a", "b"), Retry(attempts=2, wait=3)
    with pytest.raises(ConnectionError):
        world.run(Pipeline(*policies).wrap(world.function(look)))

    assert seen == [(1, 0.0, "a"), (2, 3.0, "a"), (3, 0.0, "b"), (4, 3.0, "b")]


def test_a_wait_is_told_of_the_attempt_that_goes_on_awaiting() -> None:
    """An attempt that turns out to be async has still been waited for."""
    made: list[None] = []

    def fetch() -> Any:
        made.append(None)
        if len(made) == 1:
            raise ConnectionError

        async def answer() -> tuple[int, float]:
            return current_attempt().number, current_attempt().waited

        return answer()

    async def main() -> Any:
        return await Pipeline(Retry(wait=3)).call(fetch)

    with virtual_time():
        assert asyncio.run(main()) == (2, 3.0)
    assert len(made) == 2


def test_a_refused_managers_request_is_closed() -> None:
    """The request that an async stream manager has not sent would be warned of as unawaited."""

    async def request() -> Any: ...

    unsent = request()
    manager = AsyncChatCompletionStreamManager(unsent, response_format=omit, input_tools=omit)
    with pytest.raises(Unguardable, match=r"returned a stream manager \(openai\.lib\.streaming"):
        check(manager)
    assert unsent.cr_frame is None


def test_an_outcome_of_a_stop_iteration() -> None:
    """A function's own StopIteration is in the outcome as itself."""
    stop = StopIteration("mine")

    def ends() -> Any:
        raise stop

    outcome = Pipeline(Retry(attempts=2, on_result=lambda result: False)).outcome(ends)
    assert outcome.error is stop


def test_an_outcome_that_failed_after_a_good_attempt(world: World) -> None:
    """An attempt that was answered, but badly, does not make its model the one that served."""
    retry = Retry(attempts=2, wait=0, on_result=lambda result: result == "bad")
    fn = world.function("bad", ValueError())
    outcome = world.run(Pipeline(ModelFallback("a"), retry).outcome, fn)

    assert type(outcome.error) is ValueError
    assert outcome.served_by is None


def test_the_last_refusal_is_in_the_outcome_as_the_calls_own_error(world: World) -> None:
    """If the call was made, an open circuit at the end does not hide the call's error."""
    breaker = CircuitBreaker(failures=1, key="model")
    chain = ModelFallback("a", "b")
    world.run(Pipeline(breaker).outcome, world.function(ConnectionError()), model="b")
    outcome = world.run(Pipeline(chain, breaker).outcome, world.function(TimeoutError()))

    assert type(outcome.error) is TimeoutError
    assert [attempt.model for attempt in outcome.attempts] == ["a"]


def test_a_task_that_outlives_a_limit_is_free_of_it() -> None:
    """What was begun under a Timeout and goes on after it has no deadline any more."""
    waited: list[int] = []

    async def main(clock: Any) -> Any:
        async def late() -> str:
            waited.append(1)
            await clock.asleep(3)
            if len(waited) == 1:
                raise ConnectionError
            return "late"

        async def starts() -> Any:
            task = asyncio.ensure_future(Pipeline(Retry(wait=20)).call(late))
            await clock.asleep(1)
            return task

        return await (await Pipeline(Timeout(5)).call(starts))

    with virtual_time() as clock:
        assert asyncio.run(main(clock)) == "late"
    assert len(waited) == 2


# What holds inside of what


def test_policies_that_are_off_stay_off_in_a_virtual_world() -> None:
    """What was said outside of `virtual_time()` holds inside it."""
    with disabled(), virtual_time() as clock, pytest.raises(ConnectionError):
        Pipeline(Retry(wait=1)).call(fails)
    assert clock.sleeps == []


def test_inside_a_call_a_world_of_ones_own_hides_no_attempt(world: World) -> None:
    """Policies switched off for a part of an attempt: it is still the same attempt."""

    def look(*args: Any) -> Any:
        with disabled():
            return current_attempt().number

    assert world.run(Pipeline(Retry()).call, world.function(ConnectionError(), look)) == 2


def test_the_innermost_scope_that_is_not_over_has_a_say() -> None:
    """However many inside of it are over."""
    total = Scope(9.0, 9.0, None)
    attempt = Scope(3.0, 3.0, total)
    inner = Scope(1.0, 1.0, attempt)

    assert live(inner) is inner
    attempt.ended = inner.ended = True
    assert live(inner) is total
    total.ended = True
    assert live(inner) is None


def test_of_two_limits_that_end_together_the_outer_one_is_told() -> None:
    """It was there first; the inner one would have to be tried again."""

    def hangs() -> None:
        if clock.now() == 5:
            clock.sleep(99)
        raise ConnectionError

    with virtual_time(start=0) as clock, pytest.raises(DeadlineExceededError) as caught:
        Pipeline(Timeout(10), Retry(wait=5), Timeout(5)).call(hangs)
    assert caught.value.seconds == 10


def test_a_pipeline_keeps_nothing_of_a_virtual_world() -> None:
    """What it has bound for the clock there is gone with the clock."""
    pipeline = Pipeline(Retry())
    with virtual_time() as clock:
        pipeline.call(lambda: None)
        gone = weakref.ref(clock)
    del clock
    gc.collect()
    assert gone() is None


# What a call is told


def fails() -> None:
    raise ConnectionError


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"asynchronous": 1}, "asynchronous must be True or False, got 1"),
        ({"name": 7}, "name must be a string, got 7"),
        ({"listeners": [7]}, "listeners must be a function, got 7"),
    ],
)
def test_a_bad_option_of_a_pipeline_is_named(options: Any, told: str) -> None:
    """With the rule, and what was given."""
    with pytest.raises(TypeError) as caught:
        Pipeline(Retry(), **options)
    assert str(caught.value) == told


def test_what_is_said_of_a_part_holds_for_the_whole() -> None:
    """Listeners of both hear; the colour is the part's unless the whole has one of its own."""
    heard: list[str] = []
    part = Pipeline(Retry(), asynchronous=False, listeners=[lambda event: heard.append("part")])
    whole = Pipeline(part, listeners=[lambda event: heard.append("whole")])

    assert whole.asynchronous is False
    assert Pipeline(part, asynchronous=True).asynchronous is True
    whole.call(lambda: None)
    assert heard == ["whole", "part"] * 2


def test_listeners_hear_of_healthy_calls_in_real_time() -> None:
    """Where somebody listens, nothing is done at rest."""
    heard: list[Any] = []
    Pipeline(Retry(), listeners=[heard.append]).call(lambda: None)

    assert [type(event).__name__ for event in heard] == ["AttemptEnded", "CallEnded"]


def test_the_end_of_a_call_tells_who_served(world: World) -> None:
    """The model that answered, and that it was not the first choice."""
    heard: list[Any] = []
    pipeline = Pipeline(ModelFallback("a", "b"), listeners=[heard.append])
    world.run(pipeline.call, world.function(ConnectionError(), "ok"))

    assert (heard[-1].served_by, heard[-1].degraded) == ("b", True)


def test_nobody_served_a_call_that_failed(world: World) -> None:
    """Not even where an attempt was answered, but badly."""
    retry = Retry(attempts=2, wait=0, on_result=lambda result: result == "bad")
    guarded = Pipeline(ModelFallback("a"), retry).wrap(world.function("bad", KeyError()))

    async def main() -> Any:
        with pytest.raises(KeyError):
            await guarded()
        return served_by()

    if world.asynchronous:
        assert world.run(main) is None
    else:
        with pytest.raises(KeyError):
            guarded()
        assert served_by() is None
