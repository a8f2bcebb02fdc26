"""`attempts()`: a block of code instead of a function, in every world."""

from __future__ import annotations

import asyncio
import gc
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
    Retry,
    Timeout,
    current_attempt,
    history,
)
from resilience._core.around import around
from resilience.waits import Fixed


class Blocks:
    """Runs the same block in each world; what it saw is kept."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.numbers: list[int] = []
        self.models: list[str | None] = []

    def run(self, pipeline: Pipeline, body: Callable[[int], Any]) -> None:
        """`body` is given the attempt's number, and raises or not."""
        if not self.world.asynchronous:
            for attempt in pipeline.attempts():
                with attempt:
                    self.note(attempt)
                    body(attempt.number)
            return

        async def main() -> None:
            async for attempt in pipeline.attempts():
                with attempt:
                    self.note(attempt)
                    body(attempt.number)

        if self.world.name == "asyncio":
            asyncio.run(main())
        else:
            trio.run(main)

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


def test_a_block_is_run_again_until_it_succeeds(blocks: Blocks) -> None:
    """Two failures, two waits, and the third attempt ends the loop."""
    blocks.run(Pipeline(Retry(attempts=5)), failing_until(3))
    assert blocks.numbers == [1, 2, 3]
    assert len(blocks.world.clock.sleeps) == 2
    assert around.get() is not None  # the world's own surroundings are back
    assert around.get().call is None  # type: ignore[union-attr]


def test_its_own_last_error_comes_out(blocks: Blocks) -> None:
    """Itself, with note and history, when attempts run out."""
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


def test_the_circuit_hears_the_verdict_of_each_block(blocks: Blocks) -> None:
    """Failures open it; then `with` itself is refused."""
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


def test_the_block_knows_whose_turn_it_is(blocks: Blocks) -> None:
    """`attempt.model` is the model of the chain."""
    pipeline = Pipeline(ModelFallback("a", "b", on=ConnectionError), Retry(attempts=2))
    blocks.run(pipeline, failing_until(3))
    assert blocks.models == ["a", "a", "b"]


def test_control_flow_passes_and_gives_the_place_back(blocks: Blocks) -> None:
    """Ctrl-C in a trial's block: itself, no verdict, the place free again."""
    breaker = CircuitBreaker()
    breaker.open()
    blocks.world.clock.advance(60)

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blocks.run(Pipeline(Retry(), breaker), interrupt)
    assert breaker.state == "half-open"
    assert not breaker._only._places


def test_leaving_the_loop_in_the_block_is_a_success(world: World) -> None:
    """`break` in the block ends it well, as falling out of it does."""
    breaker = CircuitBreaker()
    breaker.open()
    world.clock.advance(60)
    for attempt in Pipeline(Retry(), breaker).attempts():
        with attempt:
            break
    assert breaker.state == "closed"


def test_leaving_the_loop_before_the_block_takes_nothing(world: World) -> None:
    """Admission is at `with`; without one, no place is held."""
    breaker = CircuitBreaker()
    breaker.open()
    world.clock.advance(60)
    for _ in Pipeline(Retry(), breaker).attempts():
        break
    gc.collect()
    assert breaker.state == "open"
    assert not breaker._only._places


def test_an_async_block_is_cut_by_a_timeout(world: World) -> None:
    """Each attempt's Timeout cancels the block, and Retry goes on."""
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

    asyncio.run(main()) if world.name == "asyncio" else trio.run(main)
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
        asyncio.run(main()) if world.name == "asyncio" else trio.run(main)


def test_what_a_block_cannot_have_is_refused() -> None:
    """A Fallback has no value to give; the same object serves one loop only."""
    with pytest.raises(TypeError, match="Fallback"):
        iter(Pipeline(Fallback(None)).attempts())
    with pytest.raises(TypeError, match="Fallback"):
        aiter(Pipeline(Fallback(None)).attempts())
    attempts = Pipeline(Retry()).attempts()
    for attempt in attempts:
        with attempt:
            pass
    with pytest.raises(RuntimeError, match="one loop"):
        iter(attempts)


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


def test_a_block_shares_its_circuit_through_a_storage(blocks: Blocks) -> None:
    """The storage is read and written between blocks, as it is between calls."""
    storage = pybreaker.CircuitMemoryStorage("closed")
    breaker = CircuitBreaker(failures=2, storage=storage, refresh=0)
    with pytest.raises(ConnectionError):
        blocks.run(Pipeline(Retry(attempts=5), breaker), failing_until(9))
    assert blocks.numbers == [1, 2]
    assert storage.state == "open"


class Cautious:
    """A policy of a user's own that waits before it calls."""

    def bind(self, call: Any, runtime: Any) -> Any:
        async def waited(**kwargs: Any) -> Any:
            await runtime.sleep(5)
            return await call(**kwargs)

        return waited


class Cached:
    """One that has the answer already."""

    def bind(self, call: Any, runtime: Any) -> Any:
        async def known(**kwargs: Any) -> str:
            return "known"

        return known


@pytest.mark.parametrize("policy", [Cautious(), Cached()])
def test_a_policy_that_does_not_go_straight_to_the_block_is_refused(
    blocks: Blocks, policy: Any
) -> None:
    """A wait or an answer in place of the block would be lost: the block does not run."""
    breaker = CircuitBreaker()
    breaker.open()
    blocks.world.clock.advance(60)
    with pytest.raises(RuntimeError) as caught:
        blocks.run(Pipeline(breaker, policy), lambda number: None)
    assert str(caught.value) == (
        "a policy waited before the block, or ended the call without it, and a block has no place "
        "for that; guard a function"
    )
    assert blocks.numbers == []
    assert not breaker._only._places


def test_an_attempt_is_for_one_block() -> None:
    """Used again after its verdict it does not run a block unguarded."""
    for attempt in Pipeline(Retry()).attempts():
        with attempt:
            pass
        with pytest.raises(RuntimeError), attempt:
            pytest.fail("ran again")
