"""What may be repeated, and with what: waits, streams, arguments and calls with effects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tenacity

from conftest import World
from resilience import BadResult, CircuitBreaker, Pipeline, Retry
from resilience.waits import Decorrelated, Exponential, Fixed, FullJitter, Linear, RetryAfter
from support.calling import error_of


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    "wait",
    [
        *(Exponential(jitter=0), FullJitter(), Decorrelated(), Linear(), RetryAfter(), Fixed(1)),
        tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(2)),
        tenacity.wait_incrementing(1, 1, 5),
    ],
    ids=lambda wait: type(wait).__name__,
)
def test_a_wait_is_never_used_up(world: World, wait: Any) -> None:
    """One wait object serves call after call, and far beyond the end of its sequence."""
    guarded = Pipeline(Retry(attempts=200, wait=wait)).wrap(world.function(ConnectionError))
    for _ in range(2):
        assert type(error_of(world, guarded)) is ConnectionError
    waits = world.clock.sleeps
    assert len(waits) == 398
    assert all(0 <= seconds <= 1000 for seconds in waits)
    if not isinstance(wait, (FullJitter, Decorrelated, RetryAfter)):
        assert waits[:199] == waits[199:]


@pytest.mark.fault(26)
def test_an_iterator_is_no_wait() -> None:
    """What can be used up is refused."""
    with pytest.raises(TypeError, match="wait"):
        Retry(wait=iter([1, 2, 3]))


class Stream:
    """Two items, then the line is cut."""

    def __init__(self) -> None:
        self.items = iter("ab")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for item in self.items:
            return item
        raise ConnectionError("cut")


@pytest.mark.fault(86)
def test_a_stream_is_not_begun_again(world: World) -> None:
    """What fails while an open stream is read is the reader's; the call is not made again."""
    stream = Stream()
    breaker = CircuitBreaker(failures=1)
    got: Any = world.run(Pipeline(Retry(), breaker).wrap(world.function(stream)))
    assert got is stream
    with pytest.raises(ConnectionError, match="cut"):
        list(got)
    assert len(world.calls) == 1
    assert breaker.state == "closed"


@pytest.mark.fault(90)
def test_one_shot_arguments(world: World) -> None:
    """Every attempt gets the very object; `adjust` can give a fresh one."""

    def read(body: Iterator[int]) -> list[int]:
        items = list(body)
        if len(world.calls) == 1:
            raise ConnectionError
        return items

    once = iter([1, 2])
    assert world.run(Pipeline(Retry()).wrap(world.function(read)), once) == []
    assert [args[0] is once for args, _ in world.calls] == [True, True]

    world.calls.clear()
    fresh = Retry(adjust=lambda attempt, args, kwargs: ((iter([1, 2]),), kwargs))
    assert world.run(Pipeline(fresh).wrap(world.function(read)), iter([1, 2])) == [1, 2]


@pytest.mark.fault(119)
@pytest.mark.parametrize(
    ("error", "calls"),
    [(ConnectionRefusedError(), 3), (ConnectionResetError(), 1), (TimeoutError(), 1)],
)
def test_what_must_not_be_repeated(world: World, error: Exception, calls: int) -> None:
    """Only failures where surely nothing was executed are retried."""
    guarded = Pipeline(Retry(idempotent=False)).wrap(world.function(error))
    assert error_of(world, guarded) is error
    assert len(world.calls) == calls


@pytest.mark.fault(119)
@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
def test_bookkeeping_never_undoes_a_success(world: World, listeners: Any) -> None:
    """Whatever a user's option does with the answer, the function is not run again."""

    def broken(*args: Any) -> bool:
        raise ConnectionError("of the option")

    pipeline = Pipeline(
        Retry(idempotent=False), CircuitBreaker(), BadResult(broken), listeners=listeners
    )
    assert world.run(pipeline.wrap(world.function("ok"))) == "ok"
    assert len(world.calls) == 1
