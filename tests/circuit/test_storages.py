"""pybreaker's storages: what is written and read, and when."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pybreaker
import pytest

from conftest import World
from resilience import CircuitBreaker, CircuitOpenError, Pipeline
from resilience import guarded as handle
from support.calling import error_of
from support.circuits import in_tasks, model_first, rejected
from support.functions import coloured


@pytest.fixture
def memory() -> pybreaker.CircuitMemoryStorage:
    """A real storage of pybreaker's."""
    return pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)


class Recording(pybreaker.CircuitMemoryStorage):
    """Records what is done to it."""

    def __init__(self, state: str = "closed") -> None:
        self.done: list[Any] = []
        super().__init__(state)

    @property
    def state(self) -> str:
        self.done.append("state?")
        return str(super().state)

    @state.setter
    def state(self, value: str) -> None:
        self.done.append(value)
        pybreaker.CircuitMemoryStorage.state.fset(self, value)

    @property
    def counter(self) -> int:
        self.done.append("counter?")
        return int(super().counter)

    @property
    def opened_at(self) -> datetime | None:
        self.done.append("opened_at?")
        return super().opened_at  # type: ignore[no-any-return]

    @opened_at.setter
    def opened_at(self, moment: datetime) -> None:
        self.done.append("opened_at")
        pybreaker.CircuitMemoryStorage.opened_at.fset(self, moment)

    def increment_counter(self) -> None:
        self.done.append("+1")
        super().increment_counter()

    def reset_counter(self) -> None:
        self.done.append("0")
        super().reset_counter()


# Written


def test_a_storage_gets_failures_and_changes(world: World, memory: Any) -> None:
    """What the circuit learns is written to the storage, as pybreaker would."""
    breaker = CircuitBreaker(failures=2, reset_after=60, storage=memory)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, ConnectionError, "ok"))
    error_of(world, guarded)
    assert (memory.state, memory.counter) == ("closed", 1)
    error_of(world, guarded)
    assert memory.state == "open"
    opened = memory.opened_at.replace(tzinfo=timezone.utc).timestamp()
    assert opened == pytest.approx(world.clock.wall())
    world.clock.advance(60)
    assert world.run(guarded) == "ok"
    assert (memory.state, memory.counter) == ("closed", 0)


@pytest.mark.parametrize(
    ("steps", "done"),
    [
        (["ok", "ok"], []),
        ([ConnectionError, "ok", "ok"], ["+1", "0"]),
        (
            [ConnectionError, ConnectionError, ConnectionError],
            ["+1", "+1", "+1", "opened_at", "open"],
        ),
        ([KeyError, KeyError], []),
    ],
)
def test_what_calls_write(world: World, steps: Any, done: list[str]) -> None:
    """Failures, the end of a run of them, and changes; healthy calls nothing."""
    storage = Recording()
    guarded = Pipeline(CircuitBreaker(failures=3, storage=storage)).wrap(world.function(*steps))
    for _ in steps:
        world.run(handle(guarded).outcome)

    assert storage.done == ["state?", "counter?", *done]


def test_a_disabled_circuit_writes_no_failures(world: World) -> None:
    """It counts nothing, for others neither."""
    storage = Recording()
    breaker = CircuitBreaker(failures=1, storage=storage, refresh=1e6)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    breaker.disable()
    for _ in range(3):
        error_of(world, guarded)
    assert storage.done == ["closed", "state?", "counter?"]


@pytest.mark.parametrize(
    ("command", "done"),
    [
        ("open", ["opened_at", "open"]),
        ("isolate", ["opened_at", "open"]),
        ("disable", ["closed"]),
    ],
)
@pytest.mark.parametrize("keyed", [False, True])
def test_a_manual_command_is_written_with_the_next_call(
    world: World, command: str, done: list[str], keyed: bool
) -> None:
    """Once, in words that pybreaker has; rejected or not, before anything is read."""
    storage = Recording()
    breaker = CircuitBreaker(
        failures=1,
        reset_after=60,
        key="model" if keyed else None,
        storage=(lambda value: storage) if keyed else storage,
    )
    getattr(breaker.circuit("m") if keyed else breaker, command)()
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    world.run(handle(guarded).outcome, model="m")
    assert storage.done == done
    world.run(handle(guarded).outcome, model="m")
    assert storage.done[: len(done) + 1] == [*done, "state?"]


def test_close_ends_the_run_in_the_storage(world: World) -> None:
    """Failures that it counted are forgotten with ours; `open()` leaves them."""
    storage = Recording()
    breaker = CircuitBreaker(failures=9, reset_after=60, storage=storage)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    world.run(handle(guarded).outcome)
    breaker.open()
    world.run(handle(guarded).outcome)
    assert storage.done[-3:] == ["+1", "opened_at", "open"]
    breaker.close()
    world.run(handle(guarded).outcome)
    assert storage.done[-4:] == ["open", "0", "closed", "+1"]


@pytest.mark.parametrize("command", ["open", "isolate"])
def test_a_circuit_opened_or_isolated_by_a_command_stays_so(
    world: World, memory: Any, command: str
) -> None:
    """It is not undone by what the storage said before."""
    breaker = CircuitBreaker(storage=memory, refresh=0, reset_after=60)
    getattr(breaker, command)()
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    for _ in range(3):
        world.clock.advance(2)
        rejected(world, guarded)


def test_a_circuit_closed_by_a_command_stays_closed(world: World, memory: Any) -> None:
    """Whatever opening the storage remembers."""
    breaker = CircuitBreaker(failures=1, storage=memory, refresh=0)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, "ok"))
    error_of(world, guarded)
    breaker.close()
    for _ in range(3):
        world.clock.advance(2)
        assert world.run(guarded) == "ok"


def test_close_of_what_is_closed_here_closes_it_for_all(world: World, memory: Any) -> None:
    """Another has opened it, and this one has not heard of it yet."""
    one, two = (CircuitBreaker(storage=memory) for _ in range(2))
    first, second = (Pipeline(each).wrap(world.function("fine", "fine")) for each in (one, two))
    world.run(first)
    world.run(second)
    one.open()
    with pytest.raises(CircuitOpenError):
        world.run(first)
    two.close()
    world.run(second)
    assert memory.state == "closed"


def test_a_change_that_comes_while_another_is_written(world: World) -> None:
    """It is not taken for written: the storage gets it, too."""

    written: list[str] = []

    class Slow(pybreaker.CircuitMemoryStorage):
        meanwhile: Callable[[], None] | None = None

        @property
        def state(self) -> str:
            return str(super().state)

        @state.setter
        def state(self, value: str) -> None:
            written.append(value)
            pybreaker.CircuitMemoryStorage.state.fset(self, value)
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile is not None:
                meanwhile()

    storage = Slow("closed")
    breaker = CircuitBreaker(failures=1, storage=storage)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, "ok"))
    storage.meanwhile = breaker.close
    written.clear()
    error_of(world, guarded)
    world.run(guarded)

    assert (breaker.state, storage.state) == ("closed", "closed")
    assert written == ["open", "closed"]


# Read


def test_two_breakers_share_one_storage(world: World, memory: Any) -> None:
    """A circuit opened through one breaker is open for the other, until closed for both."""
    one = CircuitBreaker(failures=1, reset_after=30, storage=memory)
    two = CircuitBreaker(failures=1, reset_after=30, storage=memory, refresh=0)
    error_of(world, Pipeline(one).wrap(world.function(ConnectionError)))
    world.clock.advance(10)
    guarded = Pipeline(two).wrap(world.function("ok"))

    assert rejected(world, guarded).retry_after == pytest.approx(20)
    world.clock.advance(20)
    assert world.run(guarded) == "ok"
    assert memory.state == "closed"
    world.clock.advance(2)
    assert world.run(Pipeline(one).wrap(world.function("ok"))) == "ok"
    assert one.state == "closed"


def test_a_storage_counts_failures_of_others(world: World, memory: Any) -> None:
    """Failures in a row are those of all who share the storage."""
    one = CircuitBreaker(failures=3, storage=memory, refresh=0)
    two = CircuitBreaker(failures=3, storage=memory, refresh=0)
    for breaker in (one, two, one):
        error_of(world, Pipeline(breaker).wrap(world.function(ConnectionError)))

    assert memory.state == "open"


@pytest.mark.parametrize(("counter", "state"), [(0, "closed"), (1, "open")])
def test_a_single_failure_of_others_counts(world: World, counter: int, state: str) -> None:
    """With one of our own it makes two."""
    storage = Recording()
    for _ in range(counter):
        storage.increment_counter()
    breaker = CircuitBreaker(failures=2, storage=storage)
    error_of(world, Pipeline(breaker).wrap(world.function(ConnectionError)))

    assert breaker.state == state


def test_a_success_ends_the_run_in_the_storage_too(world: World, memory: Any) -> None:
    """With a storage, failures count in a row as without: a success starts the count anew."""
    breaker = CircuitBreaker(failures=2, storage=memory, refresh=0)
    fn = world.function(ConnectionError, "ok", ConnectionError, "ok", ConnectionError)
    guarded = Pipeline(breaker).wrap(fn)
    for _ in range(5):
        world.run(handle(guarded).outcome)

    assert breaker.state == "closed"


@pytest.mark.parametrize("counter", [1, 2])
def test_a_success_ends_a_run_of_others(world: World, memory: Any, counter: int) -> None:
    """One that the storage knows of."""
    for _ in range(counter):
        memory.increment_counter()
    world.run(Pipeline(CircuitBreaker(storage=memory)).wrap(world.function("ok")))
    assert memory.counter == 0


def test_a_trial_ends_the_run_that_opened_it_elsewhere(world: World, memory: Any) -> None:
    """Or the next failure would open what has just been closed."""
    for _ in range(3):
        memory.increment_counter()
    memory.state = "open"
    breaker = CircuitBreaker(failures=3, reset_after=10, storage=memory, refresh=0)
    guarded = Pipeline(breaker).wrap(world.function("trial", ConnectionError))
    rejected(world, guarded)
    world.clock.advance(10)
    assert world.run(guarded) == "trial"
    assert (memory.state, memory.counter) == ("closed", 0)
    error_of(world, guarded)
    assert breaker.state == "closed"


def test_a_storage_that_does_not_count(world: World) -> None:
    """Its circuit counts by itself."""

    class Uncounted(pybreaker.CircuitMemoryStorage):
        counter = None

    breaker = CircuitBreaker(failures=2, storage=Uncounted("closed"), refresh=0)
    guarded = Pipeline(breaker).wrap(world.function("ok", ConnectionError))
    assert world.run(guarded) == "ok"
    error_of(world, guarded)
    assert breaker.state == "closed"
    error_of(world, guarded)
    assert breaker.state == "open"


def test_a_storage_is_read_at_most_every_so_often(world: World) -> None:
    """Healthy calls read the storage once in `refresh` seconds, not each time."""
    reads: list[float] = []

    class Counting(pybreaker.CircuitMemoryStorage):
        @property
        def state(self) -> str:
            reads.append(world.clock.now())
            return str(super().state)

        @state.setter
        def state(self, value: str) -> None:
            pybreaker.CircuitMemoryStorage.state.fset(self, value)

    breaker = CircuitBreaker(storage=Counting("closed"), refresh=5)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    for _ in range(30):
        world.run(guarded)
        world.clock.advance(0.5)

    assert reads == [1000, 1005, 1010]


def test_an_opening_is_taken_over_once(world: World) -> None:
    """If it is there again after we have closed the circuit, it is an old story."""
    storage = pybreaker.CircuitMemoryStorage("open")
    breaker = CircuitBreaker(failures=1, reset_after=10, storage=storage, refresh=0)
    now = datetime.fromtimestamp(world.clock.wall(), timezone.utc)
    storage._opened_at = now
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    rejected(world, guarded)
    world.clock.advance(10)
    assert world.run(guarded) == "ok"
    storage.state = "open"
    assert world.run(guarded) == "ok"
    storage._opened_at = now + timedelta(seconds=10)
    rejected(world, guarded)


def test_an_opening_elsewhere_of_what_is_open_here(world: World, memory: Any) -> None:
    """The circuit is tried when its own open time ends, however often others open theirs."""
    breaker = CircuitBreaker(reset_after=30, storage=memory, refresh=0)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    breaker.open()
    rejected(world, guarded)
    world.clock.advance(20)
    memory.opened_at = datetime.fromtimestamp(world.clock.wall(), timezone.utc)

    assert rejected(world, guarded).retry_after == pytest.approx(10)


def test_a_half_open_storage_is_tried_at_once(world: World, memory: Any) -> None:
    """Half open in the storage: this process may try too, and closes it for all."""
    memory.state = "half-open"
    breaker = CircuitBreaker(storage=memory)

    assert world.run(Pipeline(breaker).wrap(world.function("ok"))) == "ok"
    assert (breaker.state, memory.state) == ("closed", "closed")


def test_a_storage_that_says_what_nobody_knows(world: World, memory: Any) -> None:
    """A state of somebody else's own leaves the circuit as it is."""
    memory.state = "ajar"
    breaker = CircuitBreaker(failures=1, storage=memory, refresh=0)
    guarded = Pipeline(breaker).wrap(world.function("ok", ConnectionError))
    assert world.run(guarded) == "ok"
    memory.state = "ajar"
    error_of(world, guarded)

    assert (breaker.state, memory.state) == ("open", "open")


# Times


def _writes_naive_times() -> bool:
    return "utcnow" in inspect.getsource(pybreaker.CircuitBreaker.open)


@pytest.mark.parametrize("opened", [-1e9, 1e9])
def test_an_absurd_opening_time_in_the_storage(world: World, memory: Any, opened: float) -> None:
    """Skewed clocks of others never keep it open for longer than `reset_after`."""
    moment = datetime.fromtimestamp(world.clock.wall() + opened, timezone.utc)
    memory.opened_at = moment.replace(tzinfo=None) if _writes_naive_times() else moment
    memory.state = "open"
    breaker = CircuitBreaker(reset_after=30, storage=memory)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    if opened > 0:
        assert rejected(world, guarded).retry_after == pytest.approx(30)
        world.clock.advance(30)

    assert world.run(guarded) == "ok"


def test_an_open_storage_that_forgot_when(world: World, memory: Any) -> None:
    """Open without a time of opening is open for the whole time from when we hear of it."""
    memory.state = "open"
    breaker = CircuitBreaker(reset_after=30, storage=memory)

    error = rejected(world, Pipeline(breaker).wrap(world.function("ok")))
    assert error.retry_after == pytest.approx(30)


def test_times_are_written_as_pybreaker_writes_them(world: World) -> None:
    """In UTC, with or without saying so."""
    ours, theirs = (pybreaker.CircuitMemoryStorage("closed") for _ in range(2))
    pybreaker.CircuitBreaker(state_storage=theirs).open()
    breaker = CircuitBreaker(failures=1, storage=ours)
    error_of(world, Pipeline(breaker).wrap(world.function(ConnectionError)))

    assert ours._opened_at.tzinfo == theirs._opened_at.tzinfo
    assert ours._opened_at.replace(tzinfo=timezone.utc).timestamp() == world.clock.wall()


@pytest.mark.parametrize("aware", [False, True])
def test_times_are_read_in_utc_wherever_this_runs(
    world: World, monkeypatch: pytest.MonkeyPatch, aware: bool
) -> None:
    """One that names no zone is UTC; one that does is what it says."""
    zone = timezone(timedelta(hours=9)) if aware else timezone.utc
    storage = pybreaker.CircuitMemoryStorage("open")
    moment = datetime.fromtimestamp(world.clock.wall() - 10, zone)
    storage._opened_at = moment if aware else moment.replace(tzinfo=None)
    breaker = CircuitBreaker(reset_after=30, storage=storage)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        with pytest.raises(CircuitOpenError) as caught:
            world.run(Pipeline(breaker).wrap(world.function("ok")))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert caught.value.retry_after == pytest.approx(20)


# Keyed


def test_a_keyed_breaker_has_a_storage_for_each_value(world: World) -> None:
    """With a key, `storage` is a function of it, asked once for each value."""
    made: dict[str, pybreaker.CircuitMemoryStorage] = {}

    def storage(value: str) -> pybreaker.CircuitMemoryStorage:
        assert value not in made
        made[value] = pybreaker.CircuitMemoryStorage("closed")
        return made[value]

    breaker = CircuitBreaker(key="model", failures=1, storage=storage)
    guarded = Pipeline(breaker).wrap(coloured(world, model_first))
    for _ in range(2):
        error_of(world, guarded, "bad")
        world.run(guarded, "good")

    assert {key: found.state for key, found in made.items()} == {"bad": "open", "good": "closed"}


@in_tasks
def test_a_keyed_call_that_may_not_wait_is_written_afterwards(world: World, memory: Any) -> None:
    """A sync function not yet known, called in an event loop: its storage is made then."""
    breaker = CircuitBreaker(key="model", failures=9, storage=lambda value: memory)

    def fails(model: str) -> None:
        raise ConnectionError

    async def main() -> None:
        with pytest.raises(ConnectionError):
            Pipeline(breaker).call(fails, "m")

    world.run(main)
    assert memory.counter == 1


def test_without_a_storage_none_is_attached(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is one missed."""
    breaker = CircuitBreaker(key="model")
    assert world.run(Pipeline(breaker).wrap(world.function("ok")), model="m") == "ok"
    assert breaker._storages is None
    assert breaker.circuit("m")._storage is None
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"storage": "redis://"}, "storage"),
        ({"storage": pybreaker.CircuitMemoryStorage}, "storage"),
        ({"storage": pybreaker.CircuitMemoryStorage("closed"), "key": "model"}, "key"),
    ],
)
def test_what_is_no_storage_is_refused(options: Any, rule: str) -> None:
    """At construction: one storage is one circuit, so a keyed breaker wants a function."""
    with pytest.raises(TypeError, match=rule):
        CircuitBreaker(**options)
