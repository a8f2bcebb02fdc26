"""Changes of state are published in order, one at a time; what is done from within one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pybreaker
import pytest
from tenacity import wait_fixed

from conftest import World
from resilience import CircuitBreaker, CircuitOpenError, Pipeline
from resilience.circuit.states import Change
from resilience.events import CircuitChanged, recording
from resilience.integrations.logging import LEVELS, configure
from resilience.testing import virtual_time
from support.calling import error_of
from support.circuits import Recorder, admit, fail
from support.concurrency import fast_switching, in_threads  # noqa: F401
from support.interleaving import WatchedList
from support.scenes import Scene, check, watchable, watched_circuits, without  # noqa: F401


class Calling(pybreaker.CircuitBreakerListener):
    """Does something when it is told of a change to a state."""

    def __init__(self, state: str, act: Callable[[], Any]) -> None:
        self.state = state
        self.act = act
        self.found: list[Any] = []

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        if new_state.name == self.state:
            self.found.append(self.act())


def asking(breaker_options: dict[str, Any], state: str) -> tuple[CircuitBreaker, Calling]:
    """A breaker whose listener calls through it when it is told of this state."""
    listener = Calling(state, lambda: Pipeline(breaker).outcome(lambda: "from within"))
    breaker = CircuitBreaker(**{"reset_after": 10, "listeners": [listener], **breaker_options})
    return breaker, listener


# Calls from within


@pytest.mark.parametrize("patience", [None, 1000])
def test_a_call_from_within_a_change_to_half_open_gets_no_trial(
    world: World, patience: float | None
) -> None:
    """Though there are slots: it is rejected at once, and the trial goes on as if nothing was."""
    breaker, listener = asking({"trials": 3, "wait_for_trial": patience}, "half-open")
    breaker.open()
    world.clock.advance(10)
    began = world.clock.now()

    assert world.run(Pipeline(breaker).wrap(world.function("trial"))) == "trial"
    (outcome,) = listener.found
    assert type(outcome.error) is CircuitOpenError
    assert world.clock.now() == began
    assert breaker.state == "closed"


def test_a_call_from_within_an_opening_gets_no_trial(world: World) -> None:
    """Not even where the listener takes longer than the open time."""

    def late() -> Any:
        world.clock.advance(100)
        return Pipeline(breaker).outcome(lambda: "from within")

    listener = Calling("open", late)
    breaker = CircuitBreaker(failures=1, reset_after=10, listeners=[listener])
    error_of(world, Pipeline(breaker).wrap(world.function(ConnectionError)))

    (outcome,) = listener.found
    assert type(outcome.error) is CircuitOpenError
    assert breaker.state == "open"
    assert world.run(Pipeline(breaker).wrap(world.function("ok"))) == "ok"


def test_a_call_from_within_a_closing_goes_through(world: World) -> None:
    """The circuit is closed by then."""
    breaker, listener = asking({}, "closed")
    breaker.open()
    world.clock.advance(10)
    assert world.run(Pipeline(breaker).wrap(world.function("trial"))) == "trial"
    assert listener.found[0].value == "from within"


def test_a_failure_from_within_a_closing_counts(world: World) -> None:
    """It opens the circuit again, which is published after the closing."""
    recorder = Recorder()
    listener = Calling("closed", lambda: Pipeline(breaker).outcome(fail))
    breaker = CircuitBreaker(failures=1, reset_after=10, listeners=[listener, recorder])
    breaker.open()
    world.clock.advance(10)
    world.run(Pipeline(breaker).wrap(world.function("trial")))

    assert breaker.state == "open"
    assert recorder.changes == [
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
        ("closed", "open"),
    ]


@pytest.mark.fault(200)
def test_a_call_made_within_a_change_by_a_finalizer_waits_for_nothing() -> None:
    """With the lock in its hands it would wait for itself: closed, it goes through; else it gets
    no trial, and nothing to wait for."""
    with virtual_time() as clock:
        breaker = CircuitBreaker(trials=2, reset_after=10, wait_for_trial=1000)
        circuit, pipeline = breaker._only, Pipeline(breaker)

        def within() -> Any:
            began = clock.now()
            with circuit._lock:
                outcome = pipeline.outcome(lambda: "from within")
            assert clock.now() == began
            return outcome.error and type(outcome.error)

        assert within() is None
        breaker.open()
        clock.advance(10)
        assert within() is CircuitOpenError
        assert breaker.state == "open"
        trial = admit(circuit)
        assert within() is CircuitOpenError
        assert trial.trial


# In order


def test_what_a_listener_changes_is_published_afterwards() -> None:
    """Not within the change that it is being told of: all listeners hear the same order."""
    recorder = Recorder()
    first = Calling("open", lambda: breaker.isolate())
    second = Calling("isolated", lambda: breaker.close())
    breaker = CircuitBreaker(listeners=[first, second, recorder])
    breaker.open()

    assert recorder.changes == [("closed", "open"), ("open", "isolated"), ("isolated", "closed")]
    assert breaker.state == "closed"


@pytest.mark.real
@pytest.mark.usefixtures("fast_switching")
def test_changes_reach_listeners_in_order_under_contention() -> None:
    """Eight threads change one circuit; each change is told before the next, and begins where the
    last one ended."""
    inside: list[int] = []
    heard: list[tuple[str, str]] = []
    overlapping: list[int] = []

    class Slow(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            inside.append(1)
            if len(inside) > 1:
                overlapping.append(1)
            heard.append((old_state.name, new_state.name))
            for _ in range(20):
                pass  # another thread may take its turn here
            inside.pop()

    breaker = CircuitBreaker(listeners=[Slow()], reset_after=1e-9, failures=1)
    pipeline = Pipeline(breaker)

    def work(number: int) -> None:
        chance = Random(number)
        for _ in range(400):
            chance.choice([breaker.open, breaker.close, breaker.disable])()
            pipeline.outcome(fail if chance.random() < 0.5 else int)

    in_threads(8, work)
    breaker.close()
    assert not overlapping
    assert len(heard) > 1000
    assert [old for old, _ in heard] == ["closed", *(new for _, new in heard[:-1])]
    assert heard[-1][1] == "closed"


class Publishing(Scene):
    """A circuit with two changes to be published."""

    def __init__(self, without: str | None) -> None:
        super().__init__(without)
        self.published = WatchedList()
        breaker = self.breaker()
        self.circuit = breaker._only
        breaker._circuits.publish = self.publish
        self.circuit._outbox.extend([Change("closed", "open"), Change("open", "closed")])

    def publish(self, circuit: Any, change: Change) -> None:
        self.published.append(("begin", change.new))
        self.published.append(("end", change.new))

    def holds(self) -> bool:
        return list(self.published) == [
            (end, state) for state in ("open", "closed") for end in ("begin", "end")
        ]


@pytest.mark.real
@pytest.mark.steady
@pytest.mark.usefixtures("watched_circuits")
@without("circuit")
def test_two_threads_publish_one_change_after_the_other(without: str | None) -> None:
    """In every order in which they may take turns; without the lock there is one that breaks it."""

    def publish(scene: Publishing) -> None:
        scene.circuit._publish()

    check(Publishing, without, publish, publish, holds=Publishing.holds, stops=2)


@pytest.mark.real
def test_one_thread_publishes_for_the_others() -> None:
    """A listener that takes long holds up no other thread's change."""
    told, go_on = threading.Event(), threading.Event()
    heard: list[tuple[str, int]] = []

    class Slow(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            heard.append((new_state.name, threading.get_ident()))
            told.set()
            assert go_on.wait(10)

    breaker = CircuitBreaker(listeners=[Slow()])
    slow = threading.Thread(target=breaker.open)
    slow.start()
    assert told.wait(10)
    began = time.monotonic()
    breaker.isolate()
    breaker.close()
    assert time.monotonic() - began < 5
    assert (breaker.state, len(heard)) == ("closed", 1)
    go_on.set()
    slow.join(10)
    assert heard == [(state, slow.ident) for state in ("open", "isolated", "closed")]


@pytest.mark.fault(28)
def test_a_listener_that_was_interrupted_hears_of_the_next_change() -> None:
    """Ctrl-C in it comes out of whatever has changed the circuit; what was still to be published
    is published with the next change, in order."""
    recorder = Recorder()
    interrupts = [KeyboardInterrupt]

    def interrupt() -> None:
        breaker.isolate()
        if interrupts:
            raise interrupts.pop()

    breaker = CircuitBreaker(listeners=[recorder, Calling("open", interrupt)])
    with pytest.raises(KeyboardInterrupt) as held:
        breaker.open()
    assert breaker.state == "isolated"
    assert recorder.changes == [("closed", "open")]
    breaker.close()
    assert recorder.changes == [("closed", "open"), ("open", "isolated"), ("isolated", "closed")]
    assert held.type is KeyboardInterrupt


# Where nobody listens


@pytest.fixture
def silence() -> Iterator[None]:
    """The log is off."""
    configure(levels=dict.fromkeys(LEVELS))
    yield
    configure()


@pytest.mark.usefixtures("silence")
def test_how_long_to_stay_open_is_asked_also_where_nobody_listens(world: World) -> None:
    """And the circuit goes through all its states."""
    breaker = CircuitBreaker(failures=1, reset_after=wait_fixed(7))
    pipeline = Pipeline(breaker)
    error_of(world, pipeline.wrap(world.function(ConnectionError)))
    assert breaker.snapshot().retry_after == pytest.approx(7)
    world.clock.advance(7)
    assert world.run(pipeline.wrap(world.function("trial"))) == "trial"
    assert breaker.state == "closed"


@pytest.mark.usefixtures("silence")
def test_a_change_that_nobody_would_hear_of_is_not_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever begins to listen hears of the changes after that, until the end."""
    breaker = CircuitBreaker(reset_after=10)
    published: list[str] = []
    publish = breaker._circuits.publish
    monkeypatch.setattr(
        breaker._circuits, "publish", lambda *change: (published.append(""), publish(*change))
    )
    if not breaker._emitters.heard:  # under `make test-events` somebody always listens
        breaker.open(), breaker.isolate(), breaker.close()
        assert not published
    with recording(CircuitChanged) as events:
        breaker.open()
    assert [(event.old, event.new) for event in events] == [("closed", "open")]
    count = len(published)
    seen: list[Any] = []
    pipeline = Pipeline(breaker, listeners=[(seen.append, CircuitChanged)])
    breaker.close()
    assert [event.new for event in seen] == ["closed"]
    assert len(published) == count + 1
    del pipeline


@pytest.mark.usefixtures("silence")
def test_the_log_may_be_switched_on_at_any_time(caplog: pytest.LogCaptureFixture) -> None:
    """Of pipelines and circuits that exist already."""
    breaker = CircuitBreaker(name="x")
    failing = Pipeline(breaker).wrap(fail)
    with pytest.raises(ConnectionError):
        failing()
    breaker.open()
    breaker.close()
    assert not caplog.records
    configure()
    breaker.open()
    with pytest.raises(CircuitOpenError):
        failing()
    assert [record.circuit for record in caplog.records] == ["x"]  # type: ignore[attr-defined]
