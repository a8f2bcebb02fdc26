"""A pybreaker storage that fails, slowly: what it costs, and what it is told later."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pybreaker
import pytest

from conftest import World
from resilience import CircuitBreaker, Pipeline
from test_shared import until

pytestmark = pytest.mark.filterwarnings("ignore:the storage of:RuntimeWarning")


class Failing(pybreaker.CircuitMemoryStorage):
    """Takes its time, counts what it is asked, and raises while it is `down`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.down = False
        super().__init__("closed")
        self.down = True
        self.asked: list[str] = []

    def trouble(self, what: str) -> None:
        if self.down:
            self.asked.append(what)
            self.world.clock.advance(0.5)
            raise OSError

    @property
    def state(self) -> str:
        self.trouble("state")
        return str(super().state)

    @state.setter
    def state(self, value: str) -> None:
        self.trouble("set state")
        pybreaker.CircuitMemoryStorage.state.fset(self, value)

    def increment_counter(self) -> None:
        self.trouble("count")
        super().increment_counter()


def test_a_storage_that_fails_is_left_alone_for_the_refresh_time(world: World) -> None:
    """Neither failures nor refusals pay for it more often than once in `refresh` seconds."""
    storage = Failing(world)
    breaker = CircuitBreaker(failures=3, storage=storage, refresh=2)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    for _ in range(6):
        assert world.run(guarded.outcome).error is not None
    assert breaker.state == "open"
    assert storage.asked == ["state"]
    world.clock.advance(2)
    for _ in range(6):
        world.run(guarded.outcome)
    assert storage.asked == ["state", "set state"]


def test_what_it_was_not_told_it_is_told_later(world: World) -> None:
    """The circuit's opening is written once the storage works again."""
    storage = Failing(world)
    guarded = Pipeline(CircuitBreaker(failures=1, storage=storage, refresh=2)).wrap(
        world.function(ConnectionError)
    )
    world.run(guarded.outcome)
    storage.down = False
    world.run(guarded.outcome)
    assert storage.state == "closed"
    world.clock.advance(2)
    world.run(guarded.outcome)
    assert storage.state == "open"


@pytest.mark.real
def test_one_call_writes_while_the_others_go_on() -> None:
    """A change that is being written slowly holds up nobody else."""
    writing, over = threading.Event(), threading.Event()
    writes: list[str] = []

    class Slow(pybreaker.CircuitMemoryStorage):
        @property
        def state(self) -> str:
            return str(super().state)

        @state.setter
        def state(self, value: str) -> None:
            writes.append(value)
            writing.set()
            assert over.wait(10)
            pybreaker.CircuitMemoryStorage.state.fset(self, value)

    over.set()
    storage = Slow("closed")
    breaker = CircuitBreaker(storage=storage)
    pipeline = Pipeline(breaker)
    assert pipeline.call(lambda: "ok") == "ok"
    writes.clear()
    over.clear()
    writing.clear()
    breaker.open()
    slow = threading.Thread(target=pipeline.outcome, args=(lambda: "ok",))
    slow.start()
    assert writing.wait(10)
    for _ in range(3):
        assert pipeline.outcome(lambda: "ok").error is not None
    assert writes == ["open"]
    over.set()
    slow.join(10)
    until(lambda: storage.state == "open")


def test_storages_that_could_not_be_made_are_forgotten_with_their_circuits() -> None:
    """However many values a key has had."""

    def storage(key: Any) -> Any:
        raise OSError

    breaker = CircuitBreaker(key=lambda key: key, storage=storage, keep=5)
    pipeline = Pipeline(breaker)
    for key in range(100):
        pipeline.call(lambda key: key, key)
    gc.collect()
    assert breaker._storages is not None
    assert len(breaker._storages._failed) <= 6
