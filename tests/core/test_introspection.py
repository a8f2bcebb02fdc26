"""`current_attempt()` and `served_by()`: what code inside a call, or after it, may ask."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from conftest import World
from resilience import (
    Attempt,
    BadResult,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    current_attempt,
    served_by,
)
from resilience.testing import disabled, virtual_time
from support.calling import rest_and_full


def test_current_attempt(world: World) -> None:
    """Inside, it is the attempt under way, its waits and earlier ones known; outside, the first."""
    seen: list[Attempt] = []

    def look() -> None:
        seen.append(current_attempt())
        raise ConnectionError

    world.run(Pipeline(Retry(wait=2)).outcome, world.function(look))

    assert [(a.number, a.waited, a.started, a.duration) for a in seen] == [
        (1, 0, 0, None),
        (2, 2, 2, None),
        (3, 2, 4, None),
    ]
    assert current_attempt().number == 1


def test_outside_of_a_call_it_is_the_first_attempt() -> None:
    """Also in virtual time, where no call is under way."""
    assert current_attempt() == Attempt(number=1)
    with virtual_time():
        assert current_attempt() == Attempt(number=1)


def test_inside_a_timeout_it_is_the_attempt_under_way(world: World) -> None:
    """With its number, model and wait."""
    seen: list[Any] = []

    def look(*args: Any, **kwargs: Any) -> Any:
        seen.append((current_attempt().number, current_attempt().waited, served_by()))
        raise ConnectionError

    policies = Timeout(99), ModelFallback("a", "b"), Retry(attempts=2, wait=3)
    with pytest.raises(ConnectionError):
        world.run(Pipeline(*policies).wrap(world.function(look)))

    assert seen == [(1, 0.0, "a"), (2, 3.0, "a"), (3, 0.0, "b"), (4, 3.0, "b")]


def test_an_attempt_that_turns_out_to_be_async_has_still_been_waited_for() -> None:
    """What it is told inside is the same as for any second attempt."""
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


def test_a_part_of_an_attempt_with_policies_off_belongs_to_it(world: World) -> None:
    """Policies switched off for a part of an attempt: it is still the same attempt."""

    def look(*args: Any) -> Any:
        with disabled():
            return current_attempt().number

    assert world.run(Pipeline(Retry()).call, world.function(ConnectionError(), look)) == 2


# Who served


def test_served_by_is_none_without_a_chain() -> None:
    """Where no call with a chain was made, nobody served."""
    assert contextvars.Context().run(served_by) is None


@rest_and_full
def test_inside_the_function_it_is_the_model_of_the_attempt(listeners: Any) -> None:
    """At rest too."""
    seen: list[str | None] = []
    fn: Any = Pipeline(ModelFallback("a", "b"), listeners=listeners).wrap(
        lambda model=None: seen.append(served_by())
    )
    fn(model="b")
    fn()
    assert seen == ["b", "a"]


def test_the_model_is_noted_when_the_call_is_awaited() -> None:
    """Of two calls begun, it is the one that was awaited last."""

    class Later:
        def __init__(self, result: Any) -> None:
            self.result = result

        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return self.result

    fn: Any = Pipeline(ModelFallback("a", "b")).wrap(lambda **kwargs: Later(kwargs["model"]))

    async def main() -> list[Any]:
        first, second = fn(model="a"), fn(model="b")
        found = [await first, served_by()]
        return [*found, await second, served_by()]

    assert asyncio.run(main()) == ["a", "a", "b", "b"]


def test_nobody_served_a_call_that_failed(world: World) -> None:
    """Not even where an attempt was answered, but badly."""
    policies = ModelFallback("a"), Retry(attempts=2, wait=0), BadResult(lambda r: r == "bad")
    fn = Pipeline(*policies).wrap(world.function("bad", KeyError()))

    async def main() -> Any:
        with pytest.raises(KeyError):
            await fn()
        return served_by()

    if world.asynchronous:
        assert world.run(main) is None
    else:
        with pytest.raises(KeyError):
            fn()
        assert served_by() is None
