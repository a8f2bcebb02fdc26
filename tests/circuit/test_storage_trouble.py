"""A pybreaker storage that fails, hangs or cannot be made: what it costs, and what it is told
later."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pybreaker
import pytest

from conftest import World
from resilience import CircuitBreaker, Pipeline, Timeout
from resilience import guarded as handle
from resilience._runtimes import threads
from resilience.circuit.states import Ending
from resilience.testing import _worlds, virtual_time
from support.calling import error_of
from support.circuits import admit, fail, rejected
from support.polling import until

quietly = pytest.mark.filterwarnings("ignore:the storage of:RuntimeWarning")


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


class Dead(pybreaker.CircuitMemoryStorage):
    """Cannot be read."""

    @property
    def state(self) -> str:
        raise OSError("away")

    @state.setter
    def state(self, value: str) -> None: ...

    def increment_counter(self) -> None:
        raise OSError("away")


def never(value: Any) -> Any:
    raise OSError("away")


# What is said of it


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"storage": Dead("closed")}, "<circuit chat: closed>"),
        ({"storage": never, "key": "model"}, "<circuit chat for 'm': closed>"),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_said_of_a_dead_storage(
    world: World, caplog: pytest.LogCaptureFixture, options: Any, named: str, strict: bool
) -> None:
    """Whose it is and what went wrong: a warning, or an error in the log where those are errors;
    and no word of what the error says."""
    guarded = Pipeline(CircuitBreaker(name="chat", **options)).wrap(world.function("ok"))
    with warnings.catch_warnings(record=not strict) as warned:
        warnings.simplefilter("error" if strict else "always")
        assert world.run(guarded, model="m") == "ok"

    (said,) = caplog.messages if warned is None else [str(each.message) for each in warned]
    assert said == (
        f"the storage of {named} failed (OSError); the circuit uses local state meanwhile"
    )
    assert [(each.name, each.levelname) for each in caplog.records] == (
        [("resilience", "ERROR")] if strict else []
    )


def test_a_storage_that_raises_is_warned_of_once(world: World) -> None:
    """A dead storage costs one warning; the circuit uses local state."""
    breaker = CircuitBreaker(failures=2, reset_after=60, storage=Dead("closed"), refresh=0)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, ConnectionError, "ok"))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        error_of(world, guarded)
        error_of(world, guarded)
        rejected(world, guarded)
        world.clock.advance(60)
        assert world.run(guarded) == "ok"

    assert [each.category for each in warned] == [RuntimeWarning]
    assert breaker.state == "closed"


@pytest.mark.fault(70)
@pytest.mark.parametrize("outcome", ["ok", ConnectionError])
def test_a_dead_storage_under_warnings_as_errors(world: World, outcome: Any) -> None:
    """Under `-W error` the warning of a dead storage still neither stops nor hides the call."""
    guarded = Pipeline(CircuitBreaker(storage=Dead("closed"))).wrap(world.function(outcome))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = world.run(handle(guarded).outcome)

    assert len(world.calls) == 1
    assert found.value == "ok" if outcome == "ok" else type(found.error) is ConnectionError


def test_a_storage_that_cannot_be_made_is_tried_again_every_second(world: World) -> None:
    """The circuit uses local state meanwhile; that is warned of once, and healed by itself."""
    asked: list[float] = []

    def storage(value: str) -> pybreaker.CircuitMemoryStorage:
        asked.append(world.clock.now())
        if len(asked) < 4:
            raise ConnectionError("redis is away")
        return made

    made = pybreaker.CircuitMemoryStorage("closed")
    breaker = CircuitBreaker(key="model", failures=9, storage=storage)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(8):
            error_of(world, guarded, model="m")
            world.clock.advance(0.5)

    assert asked == [1000, 1001, 1002, 1003]
    assert len(warned) == 1
    assert breaker.circuit("m").failures == 8
    assert made.counter == 2


# What it costs, and what it is told later


@quietly
def test_a_storage_that_fails_is_left_alone_for_the_refresh_time(world: World) -> None:
    """Neither failures nor rejections pay for it more often than once in `refresh` seconds."""
    storage = Failing(world)
    breaker = CircuitBreaker(failures=3, storage=storage, refresh=2)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    for _ in range(6):
        assert world.run(handle(guarded).outcome).error is not None
    assert breaker.state == "open"
    assert storage.asked == ["state"]
    world.clock.advance(2)
    for _ in range(6):
        world.run(handle(guarded).outcome)
    assert storage.asked == ["state", "set state"]


@quietly
def test_what_it_was_not_told_it_is_told_later(world: World) -> None:
    """The circuit's opening is written once the storage works again."""
    storage = Failing(world)
    guarded = Pipeline(CircuitBreaker(failures=1, storage=storage, refresh=2)).wrap(
        world.function(ConnectionError)
    )
    world.run(handle(guarded).outcome)
    storage.down = False
    world.run(handle(guarded).outcome)
    assert storage.state == "closed"
    world.clock.advance(2)
    world.run(handle(guarded).outcome)
    assert storage.state == "open"


@quietly
def test_storages_that_could_not_be_made_are_forgotten_with_their_circuits() -> None:
    """However many values a key has had."""
    breaker = CircuitBreaker(key=lambda key: key, storage=never, keep=5)
    pipeline = Pipeline(breaker)
    for key in range(100):
        pipeline.call(lambda key: key, key)
    gc.collect()
    assert breaker._storages is not None
    assert len(breaker._storages._failed) <= 6


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
    breaker = CircuitBreaker(storage=storage, reset_after=60)
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


@pytest.mark.real
def test_a_call_that_fails_does_not_wait_for_its_storage() -> None:
    """A verdict is written in the background: the storage hangs, and the error comes out. As soon
    as it goes on, all are written."""
    writing, over = threading.Event(), threading.Event()

    class Hanging(pybreaker.CircuitMemoryStorage):
        def increment_counter(self) -> None:
            writing.set()
            assert over.wait(50)
            super().increment_counter()

    storage = Hanging("closed")
    pipeline = Pipeline(CircuitBreaker(failures=10**6, storage=storage, refresh=1e6))
    assert type(pipeline.outcome(fail).error) is ConnectionError
    assert writing.wait(10)
    for _ in range(19):
        assert type(pipeline.outcome(fail).error) is ConnectionError
    assert storage.counter == 0
    over.set()
    until(lambda: storage.counter == 20)


def test_what_a_storage_that_hangs_is_to_be_told_takes_no_memory_without_end() -> None:
    """The latest thousand verdicts are kept."""
    breaker = CircuitBreaker(failures=10**6, storage=pybreaker.CircuitMemoryStorage("closed"))
    with virtual_time() as clock:
        Pipeline(breaker).outcome(fail)
        shared: Any = breaker._only._storage
        for _ in range(3000):
            shared.record(admit(breaker._only).permit, Ending(True, clock.now()))
    assert len(shared._verdicts) == 1000


# In the background


class Later:
    """What is to be done in the background: not until `run()`."""

    background = _worlds._Virtual.background

    def __init__(self) -> None:
        self.jobs: list[tuple[Any, Any]] = []

    def put(self, runtime: Any, job: Any) -> None:
        self.jobs.append((runtime, job))

    def run(self) -> None:
        while self.jobs:
            runtime, job = self.jobs.pop(0)
            Later.background(runtime, job)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Nothing is done in the background before the test says so."""
    later = Later()
    monkeypatch.setattr(_worlds._Virtual, "background", lambda *job: later.put(*job))
    return later


@quietly
@pytest.mark.parametrize(
    ("storage", "step"),
    [
        (pybreaker.CircuitMemoryStorage("closed"), "ok"),
        (pybreaker.CircuitMemoryStorage("closed"), KeyError),
        (Dead("closed"), ConnectionError),
    ],
    ids=["good", "no verdict", "left alone"],
)
def test_a_call_with_nothing_to_write_starts_no_thread(
    world: World, later: Later, storage: Any, step: Any
) -> None:
    """A healthy one, say, or one whose storage has just failed."""
    breaker = CircuitBreaker(failures=9, storage=storage, refresh=60)
    world.run(handle(Pipeline(breaker).wrap(world.function(step))).outcome)
    assert not later.jobs


@pytest.mark.parametrize("limit", [None, 60])
def test_the_next_call_writes_what_is_left(world: World, later: Later, limit: float | None) -> None:
    """Before it is admitted; but a sync call with a time limit leaves it to a thread, as a storage
    may hang."""
    storage = pybreaker.CircuitMemoryStorage("closed")
    breaker = CircuitBreaker(failures=9, storage=storage)
    fn = world.function(ConnectionError, "ok")
    error_of(world, Pipeline(breaker).wrap(fn))
    assert (storage.counter, len(later.jobs)) == (0, 1)

    later.jobs.clear()  # no thread is to be had
    policies = [breaker] if limit is None else [Timeout(limit), breaker, Timeout(limit / 2)]
    counted: list[int] = []
    fn = world.function(lambda: counted.append(storage.counter))
    world.run(Pipeline(*policies).wrap(fn))
    assert counted == [1 if limit is None or world.asynchronous else 0]
    later.run()
    assert storage.counter == (0 if counted == [1] else 1)


def test_a_storage_is_waited_for_no_longer_than_the_calls_time_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is made, and while it is read."""
    ends: list[float] = []

    async def blocking(self: Any, fn: Callable[[], Any], call: Any = None) -> Any:
        ends.append(call.deadline.end)
        return fn()

    monkeypatch.setattr(_worlds._Virtual, "blocking", blocking)
    storage = pybreaker.CircuitMemoryStorage("closed")
    breaker = CircuitBreaker(key="model", storage=lambda model: storage)
    guarded = Pipeline(Timeout(5), breaker, Timeout(4)).wrap(world.function("ok"))
    world.run(guarded, model="m")
    assert ends == [1005, 1005]


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is done in the background: no worker thread is to be had."""
    monkeypatch.setattr(_worlds._Virtual, "background", lambda self, job: None)


class Interrupting(pybreaker.CircuitMemoryStorage):
    """Does something when a failure is counted or when it is read, once."""

    when_counted: Callable[[], None] | None = None
    when_read: Callable[[], None] | None = None

    @property
    def counter(self) -> int:
        act, self.when_read = self.when_read, None
        if act is not None:
            act()
        return int(super().counter)

    def increment_counter(self) -> None:
        act, self.when_counted = self.when_counted, None
        if act is not None:
            act()
        super().increment_counter()


@pytest.mark.usefixtures("no_threads")
def test_a_call_that_is_interrupted_while_it_writes_loses_nothing(world: World) -> None:
    """By Ctrl-C or a cancellation: the next one writes what an earlier one had recorded."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    storage = Interrupting("closed")
    guarded = Pipeline(CircuitBreaker(failures=9, storage=storage)).wrap(
        world.function(ConnectionError, "ok")
    )
    error_of(world, guarded)
    assert storage.counter == 0
    storage.when_counted = interrupt
    with pytest.raises(KeyboardInterrupt) as held:
        world.run(guarded)
    assert storage.counter == 0
    world.run(guarded)
    assert storage.counter == 1
    assert held.type is KeyboardInterrupt


@pytest.mark.usefixtures("no_threads")
def test_a_trip_while_the_storage_is_read_is_neither_undone_nor_lost() -> None:
    """What was read is older than it; the next call writes it."""

    def trip() -> None:
        assert pipeline.outcome(fail).error is not None
        assert breaker.state == "open"

    storage = Interrupting("closed")
    breaker = CircuitBreaker(failures=1, reset_after=60, storage=storage)
    pipeline = Pipeline(breaker)
    with virtual_time():
        storage.when_read = trip
        pipeline.outcome(lambda: "ok")
        assert (breaker.state, storage.state) == ("open", "closed")
        pipeline.outcome(lambda: "ok")
        assert (breaker.state, storage.state) == ("open", "open")


@pytest.mark.fault(23)
@pytest.mark.real
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_writes_though_its_parent_was_writing_when_it_forked() -> None:
    """The parent's thread is not in it."""
    writing, over = threading.Event(), threading.Event()

    def hang() -> None:
        writing.set()
        assert over.wait(50)

    storage = Interrupting("closed")
    storage.when_counted = hang
    pipeline = Pipeline(CircuitBreaker(failures=9, storage=storage))
    pipeline.outcome(fail)
    assert writing.wait(10)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            pipeline.outcome(fail)
            until(lambda: storage.counter > 0)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    over.set()
    assert status == 0
    until(lambda: storage.counter == 1)


@pytest.mark.real
def test_what_a_cancelled_call_writes_is_not_written_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread goes on, and until it is done nobody else writes."""
    writing, over, counted = threading.Event(), threading.Event(), []

    class Slow(pybreaker.CircuitMemoryStorage):
        def increment_counter(self) -> None:
            counted.append(1)
            writing.set()
            assert over.wait(50)

    pipeline = Pipeline(CircuitBreaker(failures=9, storage=Slow("closed")))
    with monkeypatch.context() as patch:
        patch.setattr(threads.Threads, "background", lambda self, job: None)
        pipeline.outcome(fail)

    @pipeline
    async def call() -> str:
        return "ok"

    async def main() -> None:
        first = asyncio.ensure_future(call())
        assert await asyncio.to_thread(writing.wait, 10)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await asyncio.wait_for(call(), 10) == "ok"
        assert len(counted) == 1
        over.set()

    asyncio.run(main())
    shared: Any = pipeline.policies[0]._only._storage
    until(lambda: True not in shared._verdicts)
    assert len(counted) == 1


@pytest.mark.real
@pytest.mark.parametrize("where", ["sync", "on a loop"])
def test_a_program_may_end_right_after_a_failure(tmp_path: Path, where: str) -> None:
    """It is written before the interpreter ends, however slow the storage; also that of a call that
    could not wait for it."""
    code = """
    import asyncio, sys, time
    from pathlib import Path
    import pybreaker
    from resilience import CircuitBreaker, Pipeline

    class Slow(pybreaker.CircuitMemoryStorage):
        def increment_counter(self):
            time.sleep(0.3)
            (Path(sys.argv[1]) / "written").touch()

    def fail():
        raise ConnectionError

    async def main():
        pipeline.outcome(fail)

    pipeline = Pipeline(CircuitBreaker(storage=Slow("closed")))
    asyncio.run(main()) if sys.argv[2] == "on a loop" else pipeline.outcome(fail)
    """
    lines = "\n".join(line.removeprefix("    ") for line in code.splitlines())
    subprocess.run([sys.executable, "-c", lines, tmp_path, where], check=True, timeout=50)
    assert (tmp_path / "written").exists()


@pytest.mark.fault(331)
@pytest.mark.real
@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="starts no thread at the end")
def test_a_storage_that_hangs_does_not_keep_a_program_from_its_end(tmp_path: Path) -> None:
    """A few seconds, and what another one is to be told is written."""
    code = """
    import sys, threading
    from pathlib import Path
    import pybreaker
    from resilience import CircuitBreaker, Pipeline

    class Hanging(pybreaker.CircuitMemoryStorage):
        state = property(lambda self: "closed", lambda self, value: threading.Event().wait())

    class Quick(pybreaker.CircuitMemoryStorage):
        def _write(self, value):
            (Path(sys.argv[1]) / "written").write_text(value)
        state = property(lambda self: "closed", _write)

    Hanging.__init__ = Quick.__init__ = lambda self: None
    breakers = [CircuitBreaker(storage=storage) for storage in (Hanging(), Quick())]
    for breaker in breakers:
        breaker.open()
    """
    lines = "\n".join(line.removeprefix("    ") for line in code.splitlines())
    subprocess.run([sys.executable, "-c", lines, tmp_path], check=True, timeout=50)
    assert (tmp_path / "written").read_text() == "open"
