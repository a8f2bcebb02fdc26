"""Results whose work begins later than the call: context managers as SDKs have them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from conftest import World, async_worlds
from resilience import (
    BadResult,
    BadResultError,
    CircuitBreaker,
    Fallback,
    Pipeline,
    Retry,
    guarded,
)
from support.gates import Bulkhead


class ReplyStreamManager:
    """As of an SDK: the request is sent when it is entered."""

    __module__ = "openai.lib"

    def __init__(self, service: Service, number: int) -> None:
        self.service = service
        self.number = number

    def __enter__(self) -> Any:
        step = self.service.steps[min(len(self.service.entered), len(self.service.steps) - 1)]
        self.service.entered.append(self.number)
        if isinstance(step, Exception):
            raise step
        return step

    def __exit__(self, *exc_info: Any) -> bool:
        self.service.left.append((self.number, *exc_info))
        if self.service.fails_to_leave:
            raise OSError("leave")
        return isinstance(exc_info[1], KeyError)

    async def __aenter__(self) -> Any:
        return self.__enter__()

    async def __aexit__(self, *exc_info: Any) -> bool:
        return self.__exit__(*exc_info)


class Service:
    """Its nth request gives the nth step: an error is raised; the last step is repeated."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps
        self.asked: list[Any] = []
        self.entered: list[int] = []
        self.left: list[Any] = []
        self.fails_to_leave = False

    def ask(self, *args: Any, **kwargs: Any) -> ReplyStreamManager:
        self.asked.append((args, kwargs))
        return ReplyStreamManager(self, len(self.asked))

    async def aask(self, *args: Any, **kwargs: Any) -> ReplyStreamManager:
        return self.ask(*args, **kwargs)


QUIETLY = (None, None, None)


def used(world: World, make: Callable[[], Any], body: Callable[[Any], None]) -> None:
    """Enter what `make` gives (in an event loop with `async with`), run `body` with what that
    gives, and leave."""

    async def main() -> None:
        manager = make()
        async with manager if hasattr(manager, "__aenter__") else await manager as value:
            body(value)

    if world.asynchronous:
        world.run(main)
    else:
        with make() as value:
            body(value)


@pytest.fixture(params=[False, True], ids=["plain", "coloured"])
def coloured(request: pytest.FixtureRequest) -> bool:
    """Whether the function that makes the manager is async where there is a loop."""
    return bool(request.param)


def test_entering_is_what_is_retried(world: World, coloured: bool) -> None:
    """With managers made afresh, of the same arguments; the one that was entered last is left."""
    service = Service(ConnectionError(), ConnectionError(), "answer")
    ask: Any = service.aask if coloured and world.asynchronous else service.ask
    fn: Any = Pipeline(Retry(wait=1)).wrap(ask)
    seen: list[Any] = []
    used(world, lambda: fn(1, text="Hi"), seen.append)

    assert seen == ["answer"]
    assert service.asked == [((1,), {"text": "Hi"})] * 3
    assert service.entered == [1, 2, 3]
    assert service.left == [(3, *QUIETLY)]
    assert world.clock.sleeps == [1, 1]


def test_it_stands_for_a_manager_of_its_class(world: World) -> None:
    """With its attributes; nothing has been sent for it yet."""
    service = Service("answer")
    manager: Any = Pipeline(Retry()).wrap(service.ask)()

    assert isinstance(manager, ReplyStreamManager)
    assert (manager.number, service.entered) == (1, [])


def test_the_managers_own_exit_hears_of_the_error(world: World) -> None:
    """And says whether it is dealt with."""
    service = Service("answer")
    fn: Any = Pipeline(Retry()).wrap(service.ask)

    def fails(error: Exception) -> Callable[[Any], None]:
        def body(value: Any) -> None:
            raise error

        return body

    dealt_with, other = KeyError(), ConnectionError()
    used(world, fn, fails(dealt_with))
    with pytest.raises(ConnectionError) as caught:
        used(world, fn, fails(other))
    assert caught.value is other
    assert [each[:3] for each in service.left] == [
        (1, KeyError, dealt_with),
        (2, ConnectionError, other),
    ]


@pytest.mark.parametrize("fails_to_leave", [False, True])
def test_what_a_failed_attempt_has_entered_is_left(world: World, fails_to_leave: bool) -> None:
    """Before the next one is entered; an error in that costs nobody anything."""
    service = Service("bad", "bad", "answer")
    service.fails_to_leave = fails_to_leave
    fn: Any = Pipeline(Retry(), BadResult(lambda value: value == "bad")).wrap(service.ask)
    left: list[Any] = []
    try:
        used(world, fn, lambda value: left.extend(service.left))
    except OSError:
        assert fails_to_leave  # of the one that is used, it comes out

    assert left == [(1, *QUIETLY), (2, *QUIETLY)]
    assert service.left == [*left, (3, *QUIETLY)]


def test_what_the_last_attempt_has_entered_is_left_if_that_failed(world: World) -> None:
    """Nobody else could leave it."""
    service = Service("bad")
    bad = BadResult(lambda value: value == "bad", finally_="raise")
    fn: Any = Pipeline(Retry(attempts=2), bad).wrap(service.ask)
    with pytest.raises(BadResultError):
        used(world, fn, lambda value: pytest.fail("entered"))

    assert service.left == [(1, *QUIETLY), (2, *QUIETLY)]


@pytest.mark.parametrize("opened", [False, True])
def test_a_value_in_place_of_what_a_manager_gives(world: World, opened: bool) -> None:
    """As a fallback gives one, after an attempt or without any: no manager is left then."""
    service = Service(ConnectionError())
    breaker = CircuitBreaker()
    fn: Any = Pipeline(Fallback("sorry"), breaker).wrap(service.ask)
    seen: list[Any] = []

    def make() -> Any:
        made = fn()
        if opened:
            breaker.open()
        return made

    used(world, make, seen.append)
    assert seen == ["sorry"]
    assert service.entered == ([] if opened else [1])
    assert service.left == []


def test_a_stream_ends_when_its_manager_is_left(world: World) -> None:
    """Whoever stops early holds nothing any more, though the stream is still there."""

    def items() -> Any:
        yield from "abc"

    async def aitems() -> Any:
        for item in "abc":
            yield item

    bulkhead = Bulkhead(1)
    service = Service(aitems() if world.asynchronous else items())
    fn: Any = Pipeline(bulkhead).wrap(service.ask)
    seen: list[Any] = []

    def body(stream: Any) -> None:
        assert bulkhead.slots.free == 0
        seen.append(stream)

    used(world, fn, body)
    assert bulkhead.slots.free == 1
    assert service.left == [(1, *QUIETLY)]


def test_its_outcome_has_the_manager(world: World) -> None:
    """Of which there was no attempt yet."""
    service = Service("answer")
    outcome = guarded(Pipeline(Retry()).wrap(service.ask)).outcome()
    seen: list[Any] = []
    used(world, lambda: outcome.value, seen.append)

    assert seen == ["answer"]
    assert (outcome.error, outcome.attempts, outcome.served_by) == (None, (), None)
    assert (outcome.degraded, outcome.elapsed) == (False, 0.0)


@async_worlds
@pytest.mark.parametrize("entered", [False, True])
def test_a_manager_that_is_dropped_is_freed_quietly(world: World, entered: bool) -> None:
    """Entered or not."""
    fn: Any = Pipeline(Retry()).wrap(Service("answer").ask)
    if entered:
        used(world, fn, lambda value: None)
    else:
        fn()
    gc.collect()  # an error in a finalizer would fail this test
