"""`attempts()`: a block of code instead of a function, in every world."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pybreaker
import pytest
import trio

from conftest import World, async_worlds
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    ModelFallback,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    current_attempt,
    history,
)
from resilience._core.context import ambient
from resilience.policy import Call, Gate, Inner, Policy, Runtime, Verdict
from resilience.testing import virtual_time
from resilience.waits import Fixed
from support.calling import run_in
from support.gates import Bulkhead
from support.policies import Busy


class Blocks:
    """Runs the same block in each world; what it saw is kept."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.numbers: list[int] = []
        self.models: list[str | None] = []

    def run(self, pipeline: Pipeline, body: Callable[[int], Any], **arguments: Any) -> None:
        """`body` is given the attempt's number, and raises or not."""
        if not self.world.asynchronous:
            for attempt in pipeline.attempts(**arguments):
                with attempt:
                    self.note(attempt)
                    body(attempt.number)
            return

        async def main() -> None:
            async for attempt in pipeline.attempts(**arguments):
                with attempt:
                    self.note(attempt)
                    body(attempt.number)

        run_in(self.world.name, main)

    def run_awaited(self, pipeline: Pipeline, body: Callable[[int], Any]) -> None:
        """The same with `async with`."""

        async def main() -> None:
            async for attempt in pipeline.attempts():
                async with attempt:
                    self.note(attempt)
                    body(attempt.number)

        run_in(self.world.name, main)

    def note(self, attempt: Any) -> None:
        assert current_attempt().number == attempt.number
        self.numbers.append(attempt.number)
        self.models.append(attempt.model)


@pytest.fixture
def blocks(world: World) -> Blocks:
    """The world's way of running a block."""
    return Blocks(world)


def failing_until(success: int, error: Exception | None = None) -> Callable[[int], None]:
    """A body that fails before attempt `success`."""

    def body(number: int) -> None:
        if number < success:
            raise error or ConnectionError(str(number))

    return body


def half_open(world: World) -> CircuitBreaker:
    """A breaker that will let one trial through."""
    breaker = CircuitBreaker()
    breaker.open()
    world.clock.advance(60)
    return breaker


# What a block does


def test_a_block_is_run_again_until_it_succeeds(blocks: Blocks) -> None:
    """Two failures, two waits, and the third attempt ends the loop."""
    blocks.run(Pipeline(Retry(attempts=5)), failing_until(3))
    assert blocks.numbers == [1, 2, 3]
    assert len(blocks.world.clock.sleeps) == 2
    here = ambient.get()
    assert here is not None  # the world's own surroundings are back
    assert here.attempt is None


def test_its_own_last_error_comes_out(blocks: Blocks) -> None:
    """Itself, with its history, when attempts run out."""
    with pytest.raises(ConnectionError) as caught:
        blocks.run(Pipeline(Retry(attempts=3)), failing_until(9))
    assert caught.value.args == ("3",)
    assert [attempt.number for attempt in history(caught.value)] == [1, 2, 3]
    assert blocks.numbers == [1, 2, 3]


def test_an_error_that_is_not_to_be_retried_comes_out_at_once(blocks: Blocks) -> None:
    """What no policy handles passes."""
    with pytest.raises(KeyError):
        blocks.run(Pipeline(Retry()), failing_until(9, KeyError()))
    assert blocks.numbers == [1]


def test_the_circuit_gets_the_verdict_of_each_block(blocks: Blocks) -> None:
    """Failures open it; then `with` itself is rejected."""
    breaker = CircuitBreaker(failures=3)
    with pytest.raises(ConnectionError):
        blocks.run(Pipeline(Retry(attempts=5), breaker), failing_until(9))
    assert breaker.state == "open"
    assert blocks.numbers == [1, 2, 3]
    with pytest.raises(CircuitOpenError):
        blocks.run(Pipeline(breaker), failing_until(1))
    blocks.world.clock.advance(60)
    blocks.run(Pipeline(breaker), lambda number: None)
    assert breaker.state == "closed"


@pytest.mark.fault(329)
def test_a_block_with_its_argument_has_the_circuit_of_that_key(blocks: Blocks) -> None:
    """As a function called with that argument has."""
    breaker = CircuitBreaker(failures=1, key="city")
    pipeline = Pipeline(breaker)
    with pytest.raises(ConnectionError):
        blocks.run(pipeline, failing_until(9), city="Bergen")
    assert breaker.circuit("Bergen").state == "open"
    blocks.run(pipeline, failing_until(1), city="Oslo")
    with pytest.raises(CircuitOpenError):
        blocks.run(pipeline, failing_until(1), city="Bergen")


@pytest.mark.fault(329)
def test_a_key_that_is_a_function_gets_the_arguments_of_the_block(blocks: Blocks) -> None:
    """By name, as they are given."""
    breaker = CircuitBreaker(failures=1, key=lambda *, city: city)
    with pytest.raises(ConnectionError):
        blocks.run(Pipeline(breaker), failing_until(9), city="Bergen")
    assert breaker.circuit("Bergen").state == "open"


@pytest.mark.fault(329)
def test_a_block_without_the_argument_of_a_key_is_told_of(
    blocks: Blocks, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each pipeline, with what to write. All blocks share one circuit then."""
    breaker = CircuitBreaker(failures=1, key="city")
    chain, retry = ModelFallback("a", on=KeyError), Retry(attempts=1)
    pipeline = Pipeline(chain, retry, CircuitBreaker(key="model"), breaker)
    with pytest.raises(ConnectionError):
        blocks.run(pipeline, failing_until(9))
    with pytest.raises(CircuitOpenError):
        blocks.run(pipeline, failing_until(1))
    assert breaker.circuit(None).state == "open"
    (told,) = [record for record in caplog.records if "attempts(" in record.getMessage()]
    assert told.name == "resilience"
    assert told.getMessage() == (
        f"{breaker!r} cannot find its key in attempts(), so all blocks share one circuit; "
        f"write attempts(city=...)"
    )


def test_the_block_knows_whose_turn_it_is(blocks: Blocks) -> None:
    """`attempt.model` is the model of the chain."""
    pipeline = Pipeline(ModelFallback("a", "b", on=ConnectionError), Retry(attempts=2))
    blocks.run(pipeline, failing_until(3))
    assert blocks.models == ["a", "a", "b"]


def test_control_flow_passes_and_gives_the_slot_back(blocks: Blocks) -> None:
    """Ctrl-C in a trial's block: itself, no verdict, the slot free again."""
    breaker = half_open(blocks.world)

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blocks.run(Pipeline(Retry(), breaker), interrupt)
    assert (breaker.state, breaker.snapshot().trials) == ("half-open", 0)


def test_a_block_shares_its_circuit_through_a_storage(blocks: Blocks) -> None:
    """The storage is read and written between blocks, as it is between calls."""
    storage = pybreaker.CircuitMemoryStorage("closed")
    breaker = CircuitBreaker(failures=2, storage=storage, refresh=0)
    with pytest.raises(ConnectionError):
        blocks.run(Pipeline(Retry(attempts=5), breaker), failing_until(9))
    assert blocks.numbers == [1, 2]
    assert storage.state == "open"


def test_a_sync_block_in_an_event_loop_is_sync() -> None:
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


# Time limits


def test_an_async_block_is_cut_by_a_timeout(world: World) -> None:
    """Each attempt's Timeout cancels the block, and Retry goes on; a sync block refuses it."""
    if not world.asynchronous:
        with pytest.raises(TypeError, match="sync block"):
            iter(Pipeline(Timeout(5)).attempts())
        return
    numbers: list[int] = []

    async def main() -> None:
        async for attempt in Pipeline(Retry(wait=Fixed(1)), Timeout(5)).attempts():
            with attempt:
                numbers.append(attempt.number)
                await world.clock.asleep(9 if attempt.number == 1 else 1)

    run_in(world.name, main)
    assert numbers == [1, 2]
    assert world.clock.now() == pytest.approx(1_007)


@async_worlds
def test_an_async_block_that_is_never_in_time(world: World) -> None:
    """A total Timeout around the attempts ends in DeadlineExceededError."""

    async def main() -> None:
        async for attempt in Pipeline(Timeout(5)).attempts():
            with attempt:
                await world.clock.asleep(9)

    with pytest.raises(DeadlineExceededError):
        run_in(world.name, main)


@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_a_timeout_that_passes_its_time_on_is_allowed_in_a_sync_block() -> None:
    """It enforces nothing there; its deadline still keeps Retry from waiting past it."""
    numbers: list[int] = []

    def run() -> None:
        for attempt in Pipeline(Timeout(5, pass_as="timeout"), Retry(wait=Fixed(9))).attempts():
            with attempt:
                numbers.append(attempt.number)
                raise ConnectionError

    with pytest.raises(ConnectionError):
        run()
    assert numbers == [1]


# Leaving the loop, and using it wrongly


def test_leaving_the_loop_in_the_block_is_a_success(world: World) -> None:
    """`break` in the block ends it well, as falling out of it does."""
    breaker = half_open(world)
    for attempt in Pipeline(Retry(), breaker).attempts():
        with attempt:
            break
    assert breaker.state == "closed"


def test_leaving_the_loop_before_the_block_takes_nothing(world: World) -> None:
    """Admission is at `with`; without one, no slot is held."""
    breaker = half_open(world)
    for _ in Pipeline(Retry(), breaker).attempts():
        break
    gc.collect()
    assert breaker.state == "open"


@pytest.mark.fault(206)
def test_a_loop_without_the_block_is_an_error(world: World) -> None:
    """`for attempt in pipeline.attempts()` without `with` does not go round for ever."""
    rounds: list[Any] = []

    def loop() -> None:
        for attempt in Pipeline(Retry()).attempts():
            rounds.append(attempt)

    async def aloop() -> None:
        async for attempt in Pipeline(Retry()).attempts():
            rounds.append(attempt)

    with pytest.raises(RuntimeError) as caught:
        run_in(world.name, aloop) if world.asynchronous else loop()
    assert "`with attempt:`" in str(caught.value)
    assert len(rounds) == 1


@pytest.mark.fault(206)
def test_a_later_round_without_the_block_is_an_error() -> None:
    """Also where the first attempt was entered, and has failed."""
    rounds: list[Any] = []

    def loop() -> None:
        for attempt in Pipeline(Retry()).attempts():
            rounds.append(attempt)
            if len(rounds) == 1:
                with attempt:
                    raise ConnectionError

    with virtual_time(), pytest.raises(RuntimeError, match="with"):
        loop()
    assert len(rounds) == 2


@pytest.mark.parametrize("again", [iter, aiter])
@pytest.mark.parametrize("finished", [False, True])
def test_attempts_are_for_one_loop(finished: bool, again: Any) -> None:
    """A second loop over the same attempts is refused, sync or async, finished or not."""
    attempts = Pipeline(Retry()).attempts()
    if finished:
        for attempt in attempts:
            with attempt:
                pass
    else:
        iter(attempts)
    with pytest.raises(RuntimeError) as caught:
        again(attempts)
    assert "call it again" in str(caught.value)


def test_an_attempt_is_for_one_block() -> None:
    """Used again after its verdict it does not run a block unguarded."""
    for attempt in Pipeline(Retry()).attempts():
        with attempt:
            pass
        with pytest.raises(RuntimeError), attempt:
            pytest.fail("ran again")


def test_a_rejected_block_ends_the_loop() -> None:
    """What rejects raises at `with`; the loop is over then."""
    breaker = CircuitBreaker(failures=1)
    breaker.open()
    attempts = Pipeline(breaker).attempts()
    block = next(iter(attempts))
    with pytest.raises(CircuitOpenError), block:
        raise AssertionError("not admitted")
    with pytest.raises(StopIteration):
        next(attempts)  # type: ignore[call-overload]


@pytest.mark.parametrize("begin", [iter, aiter])
def test_a_fallback_cannot_be_around_a_block(begin: Any) -> None:
    """It has no value to give to one; nested, too."""
    for pipeline in (Pipeline(Fallback(None)), Pipeline(Busy(), Pipeline(Fallback(None)))):
        with pytest.raises(TypeError, match="Fallback"):
            begin(pipeline.attempts())


class Cautious(Policy):
    """A policy of a user's own that waits before it calls."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def cautious(call: Call) -> Any:
            await runtime.sleep(5, call)
            return await inner(call)

        return cautious


class Cached(Policy):
    """One that has the answer already."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def cached(call: Call) -> str:
            return "known"

        return cached


@pytest.mark.parametrize("policy", [Cautious(), Cached()])
def test_a_policy_that_does_not_go_straight_to_the_block_is_refused(
    blocks: Blocks, policy: Any
) -> None:
    """A wait or an answer in place of the block would be lost: the block does not run."""
    breaker = half_open(blocks.world)
    with pytest.raises(RuntimeError) as caught:
        blocks.run(Pipeline(breaker, policy), lambda number: None)
    assert str(caught.value) == (
        "a policy waited before the block, or ended the call without it, and a block has no place "
        "for that; guard a function"
    )
    assert blocks.numbers == []
    assert breaker.snapshot().trials == 0


# Waiting to be admitted


@async_worlds
def test_async_with_runs_the_block_as_with_does(blocks: Blocks) -> None:
    """Retried, with waits, verdicts and the last error."""
    breaker = CircuitBreaker(failures=9)
    blocks.run_awaited(Pipeline(Retry(attempts=5), breaker), failing_until(3))
    assert blocks.numbers == [1, 2, 3]
    with pytest.raises(ConnectionError) as caught:
        blocks.run_awaited(Pipeline(Retry(attempts=2), breaker), failing_until(9))
    assert [attempt.number for attempt in history(caught.value)] == [1, 2]
    assert breaker.snapshot().failures == 2


@async_worlds
def test_async_with_waits_to_be_admitted(world: World) -> None:
    """Where `with` would have to wait it is rejected at once: it would stop the event loop."""
    bulkhead = Bulkhead(1, patience=60)
    order: list[str] = []
    entered: list[Any] = []

    async def first() -> None:
        async for attempt in Pipeline(bulkhead).attempts():
            async with attempt:
                entered.append(attempt)
                await world.clock.asleep(5)
                order.append("first")

    async def impatient() -> None:
        async for attempt in Pipeline(bulkhead).attempts():
            with attempt:
                order.append("never")

    async def second() -> None:
        while not entered:
            await world.clock.asleep(0.1)
        with pytest.raises(RejectedError):
            await impatient()
        async for attempt in Pipeline(bulkhead).attempts():
            async with attempt:
                order.append("second")

    async def main() -> None:
        if world.name == "trio":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first)
                nursery.start_soon(second)
        else:
            await asyncio.gather(first(), second())

    run_in(world.name, main)
    assert order == ["first", "second"]
    assert bulkhead.slots.free == 1


def test_a_sync_block_waits_to_be_admitted(world: World) -> None:
    """In a plain `for` loop `with` may wait: it stops nobody but its own thread."""
    if world.asynchronous:
        return
    bulkhead = Bulkhead(1, patience=60)
    assert bulkhead.slots.try_acquire()
    world.clock.at(world.clock.now() + 5, bulkhead.slots.release)
    for attempt in Pipeline(bulkhead).attempts():
        with attempt:
            assert world.clock.now() == 1_005
    assert bulkhead.slots.free == 1


class Turn:
    """Suspends whoever awaits it, without a loop."""

    def __await__(self) -> Any:
        yield


class Slow(Gate):
    """Lets nobody in at once."""

    def __init__(self) -> None:
        self.closed = 0

    def try_enter(self, call: Call, runtime: Runtime) -> None:
        return None

    async def enter(self, call: Call, runtime: Runtime) -> Any:
        try:
            await Turn()
        finally:
            self.closed += 1

    def leave(self, permit: Any, call: Call, error: Verdict) -> None: ...


def test_an_abandoned_block_may_be_closed_in_another_context() -> None:
    """While it waits to be admitted, as a loop's end or the collector does: no error."""
    gate = Slow()

    async def main() -> None:
        async for attempt in Pipeline(gate).attempts():
            async with attempt:
                pytest.fail("not admitted")

    step = main()
    contextvars.copy_context().run(step.send, None)
    step.close()
    assert gate.closed == 1


# References


class Big:
    """A large local of the user's."""


@pytest.mark.fault(64)
@pytest.mark.parametrize("loop", ["sync", "asyncio", "trio"])
@pytest.mark.parametrize("retried", [False, True])
def test_a_block_leaves_its_error_in_no_cycle(loop: str, retried: bool) -> None:
    """The locals of the frames that raised it are freed with it, without the collector."""
    seen: list[weakref.ref[Big]] = []
    pipeline = Pipeline(Retry(attempts=2 if retried else 1, wait=0), CircuitBreaker())

    def fails() -> None:
        big = Big()
        seen.append(weakref.ref(big))
        raise ConnectionError

    def kept() -> int:
        try:
            for attempt in pipeline.attempts():
                with attempt:
                    fails()
        except ConnectionError as error:
            return len(history(error)) if seen[-1]() is not None else 0
        return 0

    async def akept() -> int:
        try:
            async for attempt in pipeline.attempts():
                async with attempt:
                    fails()
        except ConnectionError as error:
            return len(history(error)) if seen[-1]() is not None else 0
        return 0

    gc.collect()
    gc.disable()
    try:
        found = kept() if loop == "sync" else run_in(loop, akept)
        alive = [ref() for ref in seen]
    finally:
        gc.enable()
    assert found == len(seen) == 1 + retried
    assert alive == [None] * len(seen)
